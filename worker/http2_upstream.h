/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_upstream.h - HTTP/2 with backends (RFC 9113): exchanges that share connections.
 *
 * A worker keeps few connections to a backend. A stream gets a place on one that has room, waits
 * for one that is being made, or makes another; upstream_connect.c opens it. Nothing is sent on a
 * connection before the backend's SETTINGS say how many streams it takes.
 */
#ifndef WORKER_HTTP2_UPSTREAM_H
#define WORKER_HTTP2_UPSTREAM_H

#include <stdbool.h>

#include "worker/conn.h"
#include "worker/stream.h"
#include "worker/upstream.h"

size_t
http2_upstream_size(void);

/* Find s a place on a connection to s->taken, at once or by waiting. false: it needs a new one. */
bool
http2_upstream_acquire(struct stream *s);
/* Is there a connection to b that takes another stream, now or soon? */
bool
http2_upstream_has_room(const struct backend *b);

/* c, of http2_upstream_size() bytes, is being made for s, which waits for it as others may. */
void
http2_upstream_wait(struct conn *c, struct stream *s);
/* It is connected: begin to speak. */
void
http2_upstream_begin(struct conn *c);
/* It could not be connected: all that wait are told. */
void
http2_upstream_fail(struct conn *c, enum reason why);

/* Close the connections to b that are idle, and each of the others when it has become so. */
void
http2_upstream_retire(struct backend *b);

#endif
