/* SPDX-License-Identifier: Apache-2.0
 *
 * tcp.h - plain layer 4: bytes both ways, half-close included.
 */
#ifndef WORKER_TCP_H
#define WORKER_TCP_H

#include "worker/conn.h"
#include "worker/listener.h"
#include "worker/stream.h"

size_t
tcp_client_size(void);
size_t
tcp_upstream_size(void);
/* Begin a stream for the client connection c of l. */
void
tcp_client_begin(struct conn *c, struct listener *l);
/* c is connected: make it the server end of s. */
void
tcp_upstream_attach(struct conn *c, struct stream *s);

#endif
