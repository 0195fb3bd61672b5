/* SPDX-License-Identifier: Apache-2.0
 *
 * http1_client_private.h - what the files of the HTTP/1 client side share.
 *
 * http1_client.c       the connection: its life and its events
 * http1_client_read.c  bytes from the client: heads and bodies of requests
 * http1_client_end.c   the client's end of a stream: answers
 */
#ifndef WORKER_HTTP1_CLIENT_PRIVATE_H
#define WORKER_HTTP1_CLIENT_PRIVATE_H

#include "worker/http1_body.h"
#include "worker/http1_client.h"
#include "worker/stream.h"
#include "worker/worker.h"

enum client_state {
    CLIENT_IDLE,  /* between requests */
    CLIENT_HEAD,  /* part of a head has come */
    CLIENT_BODY,  /* the request's body is coming */
    CLIENT_WAIT,  /* the request is whole; its answer is under way */
    CLIENT_LINGER /* answered and shut; reading what the client still sends, to throw it away */
};

struct http1_client {
    struct conn conn;
    struct listener *listener;
    struct stream *stream; /* NULL between requests */
    struct http1_body body;
    uint64_t born_ms;
    uint32_t requests;
    uint32_t discarded;
    uint8_t state;       /* enum client_state */
    bool is_closing;     /* no further request: the answer says Connection: close */
    bool is_chunked;     /* the answer's body is sent in chunks */
    bool is_until_close; /* the answer's body ends with the connection */
    bool has_head;       /* an answer has begun */
    bool may_be_http2;   /* what has come is the beginning of HTTP/2's preface */
};

extern const struct end_ops http1_client_ops;

/* Close or reset the connection; it has no stream any more. */
void
http1_client_close(struct http1_client *hc);
void
http1_client_reset(struct http1_client *hc);
/* Everything has been said; the client may still be sending. A plain close would answer that with a
 * reset, which can take the answer away from it (RFC 9112 9.6): shut down and discard for a while.
 */
void
http1_client_linger(struct http1_client *hc);
/* The exchange is over and the connection lives on. */
void
http1_client_become_idle(struct http1_client *hc);

/* Read and use what can be used now. The client may turn out to speak HTTP/2: conn.is_http2 is set
 * then, and hc is no more. */
void
http1_client_read(struct http1_client *hc);
/* Is it time to read from the socket? */
bool
http1_client_wants_bytes(const struct http1_client *hc);
/* The client has finished sending, or the connection is broken. */
void
http1_client_on_end(struct http1_client *hc);
/* A body that can be forwarded has a deadline; one that waits for the backend has none. */
void
http1_client_update_deadline(struct http1_client *hc);

#endif
