/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream.h - find and return connections to backends.
 *
 * A stream asks with upstream_acquire() and is answered at once or later by stream_on_connected(),
 * stream_on_connect_failed() or stream_fail(). While a stream holds a conn the stream's server end
 * owns it; upstream_release() takes it back, to idle or to closed.
 */
#ifndef WORKER_UPSTREAM_H
#define WORKER_UPSTREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"
#include "shared/list.h"
#include "shared/shm.h"

#include "worker/conn.h"

struct stream;

/* A connection that is being made; http1_upstream.c and tcp.c begin theirs alike. */
struct upstream_connecting {
    struct conn conn;
    struct stream *stream;
};

/* The worker's view of a backend, by slot. Lives while the conf has it or a connection is open. */
struct backend {
    unsigned slot;
    bool is_removed;
    enum conf_state state; /* of the file */
    struct list idle;      /* conn.link, most recently used first */
    struct list conns;     /* conn.owned, all */
    struct list h2;        /* http2_upstream.link: those that take streams, or are being made */
    unsigned nidle, nconns, nstreams;
    unsigned upstream_slot;
    bool has_queue;                    /* streams may wait for it: queue.h */
    struct shm_gauge upstream_open;    /* connections of all backends of the upstream */
    uint32_t upstream_max_connections; /* cap of those; 0: none */
    unsigned epoch; /* goes up when the address, ours or theirs, or what is spoken there changes */
    uint8_t send_proxy; /* connections begin with a PROXY header, and serve one request */
    uint64_t source;    /* digest of the addresses that connections come from */
    struct addr addr;
    struct tls_remote *remote; /* NULL: cleartext */
    struct log_limit tls_log;
    uint32_t max_connections; /* cap of open connections over all workers; 0: none */
    uint32_t max_idle, idle_ms, lifetime_ms, max_requests; /* keepalive of the current conf */
    bool is_h2;                                            /* what is spoken there over http */
    uint32_t h2_limit; /* streams on a connection, as its SETTINGS said last; 0: not known */
    struct shm_gauge active, open;
    struct shm_row_backend *counters;
};

/* Make, keep or drop the views so that they fit conf. */
void
upstream_apply(struct conf *conf);
/* Close the idle connections of backends that drain or are in maintenance. */
void
upstream_close_unready(void);
/* Close every idle connection (retire). */
void
upstream_close_idle(void);

/* Choose a backend of pool for s and get a connection to it. */
void
upstream_acquire(struct stream *s, struct conf_pool *pool);
/* The exchange with s->taken is over: gauge. */
void
upstream_end_exchange(struct stream *s);

/* Why b cannot be used now, or REASON_none. */
enum reason
upstream_usable(const struct conf_backend *b);

/* The epoch of a connection that was made to b as cb says: b's own, or an older one when the
 * configuration has changed since. */
unsigned
upstream_epoch_of(const struct backend *b, const struct conf_backend *cb);
/* Put a connection on its backend's idle list; false: it should be closed. */
bool
upstream_keep(struct backend *b, struct conn *c);
void
upstream_unkeep(struct backend *b, struct conn *c);
/* A connection to the backend has been closed: gauge, view. Not before: another worker takes its
 * place at once, and the backend shall not see one too many. */
void
upstream_conn_closed(struct backend *b, struct conn *c);

/* A connect, reset, timeout or malformed answer: counted, and the monitor looks soon. */
void
upstream_count_failure(struct stream *s);
/* What the attempt says of its backend, for the breaker: at the head of an answer, or a failure. */
void
upstream_report(struct stream *s, bool is_failure);
/* Does an answer after so long count as a failure (circuit_breaker.latency_factor)? */
bool
upstream_is_too_slow(const struct stream *s, uint64_t us);

#endif
