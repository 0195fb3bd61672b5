/* SPDX-License-Identifier: Apache-2.0
 *
 * forward.h - what a proxy changes in a message on its way (RFC 9110 7.6, hostile input rules):
 * connection-specific fields go, X-Forwarded-* and X-Request-ID are set, paths are normalised.
 */
#ifndef WORKER_FORWARD_H
#define WORKER_FORWARD_H

#include "shared/http.h"
#include "worker/stream.h"

/* Make s->req what the backend gets. Its fields move into the stream's memory.
 * REASON_none, bad_request, or internal (memory). */
enum reason
forward_request(struct stream *s);

/* Give the path back the escapes in which the client wrote it, after the route was found, unless that
 * has rewritten it. */
void
forward_spelled(struct stream *s);

/* Make an answer what the client gets: drops connection-specific fields. false: it is malformed. */
bool
forward_response(struct http_msg *m);

/* Random enough to draw lots with; not secret. */
uint64_t
forward_random(void);

/* A request id of our own: STREAM_ID_LEN bytes into out. */
struct slice
forward_new_id(char *out);

/* Give s a request id of our own, if it has none. */
void
forward_make_id(struct stream *s);

#endif
