/* SPDX-License-Identifier: Apache-2.0
 *
 * greet.h - what happens on a client's connection before its first protocol: the header of the
 * PROXY protocol, where the peer must send one, then the TLS handshake; or, where routes of a
 * listener in tcp mode go by the name that TLS asks for, a look at the ClientHello. All of it has
 * one deadline, timeouts.handshake (header in cleartext http).
 */
#ifndef WORKER_GREET_H
#define WORKER_GREET_H

#include "worker/conn.h"
#include "worker/listener.h"

/* c has been accepted for l, is open and counted. It is handed to http1_client.c, http2_client.c or
 * tcp.c when it has come so far, and else closed. */
void
greet_client(struct conn *c, struct listener *l);
/* Must a client of l at that address send a header first? Who it is stands in there. */
bool
greet_expects_header(const struct listener *l, const struct addr_ip *peer);
/* The name that TLS asks for which is passed through: c's ClientHello is still in the socket. Empty:
 * none. Good until the next call. */
struct slice
greet_passed_name(const struct conn *c);
bool
greet_is_under_way(const struct conn *c);
/* Retire: a connection that has told nothing has WORKER_IDLE_GRACE_MS to do so. */
void
greet_drain(struct conn *c);

#endif
