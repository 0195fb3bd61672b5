/* SPDX-License-Identifier: Apache-2.0
 *
 * http1_client.h - HTTP/1.x with a client (RFC 9112).
 */
#ifndef WORKER_HTTP1_CLIENT_H
#define WORKER_HTTP1_CLIENT_H

#include "worker/conn.h"
#include "worker/listener.h"

/* Memory of a client connection: TLS handshakes are done on it before the protocol is known. */
size_t
http1_client_size(void);
/* Speak HTTP/1 on c, which is open (from http1_client_size() bytes) and belongs to l. */
void
http1_client_begin(struct conn *c, struct listener *l);
/* Begin and answer at once with a refusal that has a status, then linger. */
void
http1_client_refuse(struct conn *c, struct listener *l, enum reason why);
/* Retire: an idle client has WORKER_IDLE_GRACE_MS for one more request, others end with the
 * exchange that runs. */
void
http1_client_drain(struct conn *c);
/* Close a client that is idle, to make room. */
void
http1_client_close_idle(struct conn *c);
/* Is c between requests (no byte of one has come)? */
bool
http1_client_is_idle(const struct conn *c);

#endif
