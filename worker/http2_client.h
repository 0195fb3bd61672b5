/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_client.h - HTTP/2 with a client (RFC 9113).
 */
#ifndef WORKER_HTTP2_CLIENT_H
#define WORKER_HTTP2_CLIENT_H

#include "worker/conn.h"
#include "worker/listener.h"

/* Memory of a client connection: it may have begun as HTTP/1. */
size_t
http2_client_size(void);
/* Speak HTTP/2 on c, which is open (from http2_client_size() bytes) and belongs to l. read is what
 * has come of it already, the preface included. */
void
http2_client_begin(struct conn *c, struct listener *l, struct slice read);
/* Retire: no further stream after those that are on their way (GOAWAY), then close. */
void
http2_client_drain(struct conn *c);
/* Close a client that is idle, to make room. */
void
http2_client_close_idle(struct conn *c);

#endif
