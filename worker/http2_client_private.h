/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_client_private.h - what the files of the HTTP/2 client side share.
 *
 * http2_client.c      the connection: its life, and requests
 * http2_client_end.c  the client's end of a stream: answers
 */
#ifndef WORKER_HTTP2_CLIENT_PRIVATE_H
#define WORKER_HTTP2_CLIENT_PRIVATE_H

#include "shared/http2.h"
#include "worker/http2_client.h"
#include "worker/http2_session.h"

struct http2_client {
    struct conn conn;
    struct listener *listener;
    struct http2_session *session; /* apart: HTTP/1 clients have no use for its memory */
    struct http2_head *head;       /* the block that is coming; in its stream's memory */
    uint64_t born_ms;
    uint64_t head_due_ms; /* the block must be complete; 0: none */
    uint64_t idle_due_ms; /* a request must come */
    uint64_t last_due_ms; /* the last GOAWAY is said */
    uint32_t requests;
    uint32_t discarded;
    bool is_idle;       /* no stream */
    bool is_block_open; /* a HEADERS frame has begun whose block is not complete */
    bool is_warned;     /* the first GOAWAY has been said */
    bool is_over;       /* the session has ended: nothing can be said any more */
};

extern const struct end_ops http2_client_ops;

#endif
