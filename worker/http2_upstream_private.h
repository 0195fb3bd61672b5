/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_upstream_private.h - what the parts of HTTP/2 towards backends share: connections
 * (http2_upstream.c) and the exchanges on them (http2_upstream_end.c).
 */
#ifndef WORKER_HTTP2_UPSTREAM_PRIVATE_H
#define WORKER_HTTP2_UPSTREAM_PRIVATE_H

#include "shared/http2.h"
#include "worker/http2_session.h"
#include "worker/http2_upstream.h"

enum http2_upstream_state {
    HTTP2_UPSTREAM_CONNECT,  /* socket and TLS; streams wait */
    HTTP2_UPSTREAM_SETTINGS, /* the backend's first SETTINGS are to come; streams wait */
    HTTP2_UPSTREAM_OPEN,     /* takes streams while there is room */
    HTTP2_UPSTREAM_LEAVING   /* takes no more; closes with the last one */
};

struct http2_upstream {
    struct conn conn;
    struct stream *stream; /* while connecting, as in struct upstream_connecting: the first of */
    struct list waiting;   /* stream_http.waiting */
    unsigned nwaiting;
    struct backend *backend;
    struct list link; /* backend.h2 */
    struct http2_session session;
    struct http2_head head; /* the block that is coming in */
    uint64_t born_ms;
    uint64_t heard_ms;   /* something came */
    uint32_t connect_ms; /* timeouts.connect: how long an answer to a PING may take, too */
    uint64_t idle_ms;    /* since when it has no stream */
    uint32_t header_bytes;
    uint32_t limit; /* streams at a time */
    uint32_t requests;
    uint8_t state;  /* enum http2_upstream_state */
    bool is_pinged; /* an answer is due */
    bool is_proved; /* it has answered a request: what dies now had been in use */
    bool is_dead;   /* the connection is over; answers that came whole are still delivered */
    unsigned epoch; /* the backend's when it was made */
};

static inline struct http2_upstream *
http2_upstream_of(struct http2_session *ses)
{
    return container_of(ses, struct http2_upstream, session);
}

/* Make a place on hu the server's end of s, and begin. */
void
http2_upstream_attach(struct http2_upstream *hu, struct stream *s);
/* Its block is complete, or the connection goes: others may use the memory for heads. */
void
http2_upstream_leave_scratch(struct http2_upstream *hu);
/* The exchange has let go of its stream. */
void
http2_upstream_left(struct http2_upstream *hu);
/* The connection has died: what becomes of an exchange on it, or of why it was the last. */
void
http2_upstream_lose(struct http2_stream *st, enum reason why);

/* struct http2_side: what concerns one exchange. */
void
http2_upstream_on_block(struct http2_stream *st, bool is_trailers);
void
http2_upstream_on_field(struct http2_stream *st, struct slice name, struct slice value,
                        bool never_index);
void
http2_upstream_on_block_end(struct http2_stream *st, bool is_trailers, bool is_last);
void
http2_upstream_on_malformed(struct http2_stream *st);
void
http2_upstream_on_reset(struct http2_stream *st, uint32_t code);
void
http2_upstream_on_recv_due(struct http2_stream *st);
void
http2_upstream_on_send_due(struct http2_stream *st);

#endif
