/* SPDX-License-Identifier: Apache-2.0
 *
 * tcp.h - raw bytes both ways, half-close included: plain layer 4, and HTTP/1 connections after a
 * 101.
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
/* Begin a stream for the client connection c of l. server_name: what the client asks for by TLS
 * that is passed through; empty: nothing. */
void
tcp_client_begin(struct conn *c, struct listener *l, struct slice server_name);
/* c is connected: make it the server end of s. */
void
tcp_upstream_attach(struct conn *c, struct stream *s);

/* The connection of an HTTP/1 end of s, which has become a tunnel: carry raw bytes, those kept in
 * c->in first. Takes the memory over, which has at least tcp_client_size() (tcp_upstream_size())
 * bytes: whatever was in it but the conn is gone. */
void
tcp_upgrade_client(struct conn *c, struct stream *s, struct listener *l);
void
tcp_upgrade_upstream(struct conn *c, struct stream *s, struct backend *b);

#endif
