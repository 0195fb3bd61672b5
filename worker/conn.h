/* SPDX-License-Identifier: Apache-2.0
 *
 * conn.h - one connection, to a client or to a backend: socket, one event, transport, kept bytes,
 * deadlines.
 *
 * The protocol object that opens a conn embeds it as its first member and gets every event through
 * on_event. conn_close() detaches it at once; the memory is freed by the reaper at the end of the
 * loop turn, so a conn may be closed from any callback.
 *
 * Events are edge-triggered. is_readable says that a read may give bytes; whoever stops reading
 * while it is true (backpressure, budget) must come back by itself: conn_run_later().
 */
#ifndef WORKER_CONN_H
#define WORKER_CONN_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/addr.h"
#include "shared/buf.h"
#include "shared/list.h"
#include "shared/transport.h"
#include "worker/timer.h"

/* What on_event is told, any combination. */
#define CONN_READABLE  0x01 /* is_readable has become true, or conn_run_later came round */
#define CONN_WRITABLE  0x02 /* all kept output has left, or the socket has connected */
#define CONN_READ_DUE  0x04 /* the read deadline has passed */
#define CONN_WRITE_DUE 0x08 /* the write deadline has passed */
#define CONN_BROKEN    0x10 /* writing failed: the peer is gone */

#define CONN_PROGRESS_BYTES 4096 /* what moves a deadline that moves with progress */

struct conn;
typedef void
conn_event_fn(struct conn *c, unsigned what);

enum conn_side { CONN_CLIENT, CONN_BACKEND };
/* Which free list its memory belongs to. */
enum conn_kind {
    CONN_HTTP_CLIENT,
    CONN_HTTP1_UPSTREAM,
    CONN_HTTP2_UPSTREAM,
    CONN_TCP_CLIENT,
    CONN_TCP_UPSTREAM,
    CONN_KINDS
};

struct conn {
    struct event event;
    struct transport io;
    conn_event_fn *on_event;
    struct buf *in;  /* bytes read and not yet consumed; NULL when none */
    struct buf *out; /* bytes that the socket has not taken; NULL when none */
    struct timer timer;
    uint64_t read_due_ms, write_due_ms;
    struct list
        link; /* runnable or closed list, or what the owner uses it for when it is neither */
    struct list owned; /* the owner's: all clients of a listener, all connections of a backend */
    uint32_t send_timeout_ms;
    uint32_t read_progress, write_progress; /* bytes since the deadline moved */
    uint32_t client_place;                  /* of a client: see client_limit.h */
    struct addr_ip peer;
    uint8_t kind : 4; /* enum conn_kind */
    uint8_t side : 1; /* enum conn_side */
    bool is_open : 1;
    bool is_watched : 1; /* in the event loop */
    bool is_readable : 1;
    bool has_hup : 1;  /* EV_CLOSED was seen: read to the end */
    bool has_read : 1; /* bytes came, and nothing has shown since that no reset came with them */
    bool is_last : 1; /* the peer has finished, and all before that has been read: is_eof is next */
    bool is_eof : 1;  /* the peer has finished; nothing more to read */
    bool is_broken : 1; /* reset or write error */
    bool is_connecting : 1;
    bool is_runnable : 1;       /* in worker.runnable */
    bool is_shut : 1;           /* we have finished writing (FIN sent) */
    bool is_http2 : 1;          /* a client that speaks HTTP/2 */
    bool is_refused : 1;        /* a client over the limit: not counted as a connection */
    bool is_splice_blocked : 1; /* a pipe holds bytes that the socket did not take */
    bool is_paused : 1;         /* it is not told that more can be read */
};

/* Memory for the protocol object of that kind, zeroed; size is the same in all calls for a kind.
 * NULL: none. */
void *
conn_alloc(enum conn_kind kind, size_t size);

/* Begin with a connected or connecting non-blocking socket whose transport is set in c->io. Nothing
 * is told of it before conn_watch(). */
void
conn_open(struct conn *c, enum conn_side side, conn_event_fn *on_event);
/* Another protocol goes on with the connection: its object, of size bytes, is where that of the
 * former one was, zeroed but for the conn. */
void
conn_become(struct conn *c, size_t size, conn_event_fn *on_event);
/* Be told of events. What is ready now is told too. Failure makes the conn broken. */
void
conn_watch(struct conn *c);
/* The same within WORKER_VERIFY_MS, if it is still open then: for who hopes to be done before, and
 * saves the registration. Output that has to wait watches at once. */
void
conn_watch_later(struct conn *c);
/* More can be read, and nothing will be done with it for now: do not be woken for each piece of it.
 * The peer's end, and a reset (as CONN_READABLE), are told still. Whoever has read up to IO_AGAIN
 * resumes. */
void
conn_pause(struct conn *c);
void
conn_resume(struct conn *c);
/* Close and queue for the reaper. Kept output is dropped. Allowed more than once. */
void
conn_close(struct conn *c);
/* Close by reset: the peer must see that something was cut. */
void
conn_reset(struct conn *c);
/* Free what conn_close() has queued: at the end of a loop turn. */
void
conn_reap(void);

/* Read at most len bytes. > 0, or IO_AGAIN, IO_EOF, IO_ERROR; keeps is_readable, is_eof, is_broken.
 */
ssize_t
conn_read(struct conn *c, char *buf, size_t len);

/* Queue bytes for writing. They must stay where they are until conn_flush(c), or until another conn
 * is written to; what the socket then does not take is copied to out. */
void
conn_put(struct conn *c, const char *bytes, size_t len);
/* The same for a few bytes that do not stay: they are copied. */
void
conn_put_copy(struct conn *c, const char *bytes, size_t len);
/* Read at most max bytes into the worker's scratch memory: behind what lies there and is still to
 * be written, or to its beginning after that has been written. */
ssize_t
conn_read_scratch(struct conn *c, size_t max, char **bytes);
/* Write what conn_put() queued. Errors set is_broken and come as CONN_BROKEN later. */
void
conn_flush(struct conn *c);
/* The same for the last output of all: conn_close(), or conn_shutdown(), must follow in this turn.
 */
void
conn_flush_last(struct conn *c);
/* Write what any conn has queued: before the scratch memory is used again. */
void
conn_flush_any(void);

static inline bool
conn_is_blocked(const struct conn *c)
{
    return c->out != NULL || (c->io.flags & TRANSPORT_WANT_WRITE) != 0;
}

/* Finish writing: FIN (or close_notify and FIN) once all output has left. */
void
conn_shutdown(struct conn *c);

/* on_event(CONN_READABLE) in this or the next loop turn. */
void
conn_run_later(struct conn *c);

/* Has the peer, or the network, cut it? Asks the kernel, and is true once for one reset: act on it.
 * Where nothing is read, and behind what has been read, no event and no read tells it. */
bool
conn_has_been_reset(struct conn *c);
/* More is expected from the peer. A reset that came together with data is not told by any event
 * (libevent reports errors as readable and writable, nothing else), so look again within
 * WORKER_VERIFY_MS, once for what has been read. */
void
conn_verify_later(struct conn *c);
/* Look at those that asked. */
void
conn_verify_all(void);

/* Take it off whatever list it is on: runnable, unwatched, or an owner's. */
static inline void
conn_unlink(struct conn *c)
{
    list_del(&c->link);
    c->is_runnable = false;
}

/* Deadlines, monotonic ms; 0: none. */
void
conn_set_read_due(struct conn *c, uint64_t due_ms);
void
conn_set_write_due(struct conn *c, uint64_t due_ms);
/* n bytes came in: move the read deadline by timeout_ms if that makes 4 KB since it moved last. */
void
conn_read_progressed(struct conn *c, size_t n, uint32_t timeout_ms);

#endif
