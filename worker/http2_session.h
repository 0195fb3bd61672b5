/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_session.h - one HTTP/2 connection (RFC 9113), to a client or to a backend: nghttp2 between
 * a conn and its streams.
 *
 * The session knows frames: it receives and pumps them, keeps each stream's flow control and the
 * bytes that wait on either side, its deadlines, and the limits against floods. What a head means,
 * and what is said to struct stream when something ends, is its owner's: http2_client.c or
 * http2_upstream.c, told through struct http2_side.
 *
 * in:  body bytes go straight to stream_on_body() while the other end takes them, else they wait in
 *      the stream's in, at most its window. The connection's window opens at once, the stream's as
 *      the other end takes bytes: a stalled stream never stalls a sibling.
 * out: frames are gathered, and all of one loop turn leave in one write (http2_session_flush_all).
 *      Body bytes that flow control does not let go wait in the stream's out; above
 *      HTTP2_OUT_BYTES the end is_blocked.
 *
 * An http2_stream outlives the struct stream that it serves when output still waits. Its memory is
 * freed at the end of the loop turn in which both nghttp2 and the exchange have let go of it.
 */
#ifndef WORKER_HTTP2_SESSION_H
#define WORKER_HTTP2_SESSION_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/buf.h"
#include "shared/http.h"
#include "shared/list.h"
#include "shared/slice.h"
#include "worker/conn.h"
#include "worker/stream.h"
#include "worker/timer.h"

#define HTTP2_WINDOW_BYTES (128 * 1024) /* that a peer may send ahead on a stream */
#define HTTP2_OUT_BYTES    16384 /* waiting in a stream's out: its end is blocked from here on */
#define HTTP2_PREFACE      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

struct http2_session;
struct http2_stream;

/* What the owner of a session is told. st->stream may be NULL when the exchange has let go of st.
 * All may be called from within nghttp2: they submit, and close through http2_session_end() only.
 */
struct http2_side {
    bool is_server; /* the peer is a client */
    /* A client's request begins with st (its stream is NULL). false: no memory, it is refused. */
    bool (*on_open)(struct http2_stream *st);
    /* A block begins: the head of a request or an answer (1xx included), or trailers. Its fields
     * one by one, never_index as HPACK had it. It is complete (is_last: so is the message). The
     * slices live until the call returns. */
    void (*on_block)(struct http2_stream *st, bool is_trailers);
    void (*on_field)(struct http2_stream *st, struct slice name, struct slice value,
                     bool never_index);
    void (*on_block_end)(struct http2_stream *st, bool is_trailers, bool is_last);
    /* What the peer sent on st is malformed (RFC 9113 8.1.1); nghttp2 resets it. Not told when
     * st->stream is NULL. */
    void (*on_malformed)(struct http2_stream *st);
    /* st ended before its time, with that error code (RFC 9113 7), by a RST_STREAM of the peer, or
     * by a GOAWAY that leaves it out (REFUSED_STREAM). Not told when st->stream is NULL. */
    void (*on_reset)(struct http2_stream *st, uint32_t code);
    /* A deadline has passed: the peer sent nothing for so long; or took nothing. */
    void (*on_recv_due)(struct http2_stream *st);
    void (*on_send_due)(struct http2_stream *st);
    /* nghttp2 has let go of a stream: there is room for another, or none is left. */
    void (*on_closed)(struct http2_session *ses);
    /* SETTINGS came (read them with nghttp2_session_get_remote_settings); GOAWAY; an answer to
     * http2_session_ping(). */
    void (*on_settings)(struct http2_session *ses);
    void (*on_goaway)(struct http2_session *ses);
    void (*on_pong)(struct http2_session *ses);
    /* A block of fields is open (a HEADERS frame has begun), or no longer. */
    void (*on_block_open)(struct http2_session *ses, bool is_open);
    /* The connection is over: the peer closed it or it broke (why: client_closed, backend_reset),
     * it broke the rules (bad_request), or everything has been said after a GOAWAY (none). Fail
     * the streams that are left (http2_session_fail_all) and close the conn. Never called from
     * within nghttp2. */
    void (*on_over)(struct http2_session *ses, enum reason why);
};

#define HTTP2_PAST 16

/* Streams of a client on which nothing more may come; see http2_strict.c. */
struct http2_past {
    int32_t highest;                  /* that was opened */
    int32_t skipped_from, skipped_to; /* the last ids that were left out */
    int32_t ended[HTTP2_PAST];        /* the last that the client has ended */
    unsigned nended;
    uint32_t body;    /* bytes of this frame, or of the preface, that are still to come */
    uint8_t head[13]; /* of the frame, as far as it matters */
    uint8_t nhead;    /* bytes that have come of it; 0: its body is coming */
    bool is_due;      /* the frame in head is to be judged */
};

struct http2_session {
    struct conn *conn;
    nghttp2_session *ng; /* NULL: closed */
    const struct http2_side *side;
    struct list dirty; /* in the list of those that have something to write */
    struct list streams;
    struct list ready;       /* streams whose in can be delivered */
    struct list resets;      /* streams to be reset, or whose request is not whole */
    struct http2_room *room; /* gathered output; NULL: none */
    unsigned nstreams;       /* that nghttp2 has not let go of */
    unsigned max_streams;    /* of a server: further ones are refused */
    unsigned depth;          /* > 0: within nghttp2, which is not reentrant */
    uint64_t credit_ms;      /* when credit was counted last */
    uint32_t credit;         /* for useless frames that the peer may still send */
    enum reason over;        /* with is_over */
    bool is_over;            /* nothing more is read; on_over() is due */
    bool has_goaway;         /* the peer will not answer further streams */
    bool is_going;           /* we have sent the last GOAWAY */
    struct http2_past past;
    struct http2_stream *block; /* whose fields are coming; NULL: nobody's */
};

struct http2_stream {
    struct list link;  /* session.streams; reaper */
    struct list ready; /* session.ready or session.resets */
    struct http2_session *session;
    struct stream *stream; /* NULL: none (yet), or it has let go */
    int32_t id;
    uint32_t reset_code;
    struct buf *in;                    /* body bytes the other end has not taken */
    struct buf *out;                   /* body bytes that have not left */
    struct slice direct;               /* body bytes of send_body, still where they were read */
    struct http_msg *trailers_in;      /* came before in was delivered; in the stream's memory */
    struct http2_fields *trailers_out; /* go out behind the body; a copy */
    uint64_t in_left;                  /* is_in_length: bytes of the body that are still to come */
    uint64_t out_left;                 /* is_length: bytes of the body that are still to be given */
    struct timer timer;
    uint64_t recv_due_ms, send_due_ms;
    uint32_t recv_timeout_ms; /* 4 KB of body move recv_due_ms by it; 0: fixed */
    uint32_t recv_progress, send_progress;
    bool is_in_length;  /* in_left counts */
    uint8_t ninterim;   /* 1xx heads that came: its owner's */
    bool is_length;     /* out_left counts */
    bool has_request;   /* of a client: the head came whole */
    bool has_answer;    /* a final head has been submitted; of a backend: came (its owner's) */
    bool is_in_done;    /* END_STREAM came */
    bool is_end_given;  /* the message that goes out is whole here */
    bool is_end_sent;   /* END_STREAM has been framed */
    bool is_deferred;   /* nghttp2 asked for body bytes and there were none */
    bool is_closed;     /* nghttp2 has let go */
    bool is_peer_reset; /* a RST_STREAM came */
    bool is_reset;      /* we have reset it */
    bool is_invalid;    /* nghttp2 has refused a frame of it */
    bool is_malformed;  /* reset, not answered: its owner's */
    bool is_moving;     /* body moves recv_due_ms */
    bool is_relaxed;    /* no deadline holds */
};

/* Begin: settings go out with the first flush. max_streams: that the peer may open at a time;
 * header_bytes: SETTINGS_MAX_HEADER_LIST_SIZE. 0, or -1 (memory). */
int
http2_session_begin(struct http2_session *ses, struct conn *c, const struct http2_side *side,
                    uint32_t max_streams, uint32_t header_bytes);
/* The same in memory of its own. NULL: no memory. */
struct http2_session *
http2_session_new(struct conn *c, const struct http2_side *side, uint32_t max_streams,
                  uint32_t header_bytes);
/* http2_session_fini(); the memory goes at the end of the loop turn. */
void
http2_session_free(struct http2_session *ses);
/* For the owner's on_event: reads, delivers, pumps. All but CONN_READ_DUE and CONN_WRITE_DUE. */
void
http2_session_on_event(struct http2_session *ses, unsigned what);
/* Bytes that were read elsewhere (the preface). */
void
http2_session_feed(struct http2_session *ses, struct slice bytes);
/* Something has been submitted to nghttp2: write it at the end of the turn. */
void
http2_session_mark(struct http2_session *ses);
/* Write now what can be written. Not from within nghttp2. */
void
http2_session_write(struct http2_session *ses);
/* Write what the sessions have gathered in this turn, free what is over; once at its end. */
void
http2_session_flush_all(void);
/* Say GOAWAY with that code (RFC 9113 7), write it, and be over (on_over with why). */
void
http2_session_end(struct http2_session *ses, uint32_t code, enum reason why);
/* GOAWAY in two steps (RFC 9113 6.8): warn says that no new stream should come, last that none is
 * taken from now on; once the streams are done the session is over. */
void
http2_session_warn(struct http2_session *ses);
void
http2_session_last(struct http2_session *ses);
void
http2_session_ping(struct http2_session *ses);
/* Fail every exchange that is left. */
void
http2_session_fail_all(struct http2_session *ses, enum reason why);
/* Let go of nghttp2 and of all streams; before conn_close(). Allowed more than once. */
void
http2_session_fini(struct http2_session *ses);

/* Room for n fields, until the next call. NULL: no memory, the connection is broken. */
nghttp2_nv *
http2_session_fields(struct http2_session *ses, size_t n);

/* A new stream to a backend, for s: head is its request. NULL: memory, or no ids are left. */
struct http2_stream *
http2_stream_open(struct http2_session *ses, struct stream *s, const nghttp2_nv *head, size_t n,
                  const struct http_msg *m);
/* The head of an answer; m says what body follows. The bytes are copied. */
void
http2_stream_send_head(struct http2_stream *st, const nghttp2_nv *head, size_t n,
                       const struct http_msg *m);
/* end_ops.send_body; sets is_blocked of the stream's own end. */
void
http2_stream_send_body(struct http2_stream *st, struct slice bytes);
/* end_ops.send_end; n is 0 without trailers. The bytes are copied. */
void
http2_stream_send_end(struct http2_stream *st, const nghttp2_nv *trailers, size_t n);
/* end_ops.recv_body: the other end takes bytes again. */
void
http2_stream_recv(struct http2_stream *st);
/* The message that comes in is whole (with its trailers, in the stream's memory, or NULL): passed
 * on behind what still waits. For on_block_end(); the end of DATA frames does the same by itself.
 */
void
http2_stream_on_end(struct http2_stream *st, struct http_msg *trailers);
/* m, which came on st, says how long the body behind it is. */
void
http2_stream_set_length(struct http2_stream *st, const struct http_msg *m);
/* Something must come within timeout_ms, 0: no limit. Every 4 KB of body move the deadline when
 * is_moving. on_recv_due(). While the other end is blocked there is none. */
void
http2_stream_expect(struct http2_stream *st, uint32_t timeout_ms, bool is_moving);
/* end_ops.relax: no deadline of st any more, for what comes or for what waits to leave. */
void
http2_stream_relax(struct http2_stream *st);
/* RST_STREAM with that code, behind what flow control lets go in this turn. */
void
http2_stream_reset(struct http2_stream *st, uint32_t code);
/* The exchange forgets st; what was given is still sent. Where the answer's end comes before the
 * request's, the rest of the request is refused behind it (RFC 9113 8.1), unless that is only the
 * END_STREAM behind all of its bytes. */
void
http2_stream_leave(struct http2_stream *st);

/* The end of the exchange that st is. */
static inline struct end *
http2_stream_end(const struct http2_stream *st)
{
    return st->session->side->is_server ? &st->stream->client : &st->stream->server;
}

#endif
