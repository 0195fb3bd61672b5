/* SPDX-License-Identifier: Apache-2.0
 *
 * route.h - what becomes of a request by its route: see struct conf_route.
 */
#ifndef WORKER_ROUTE_H
#define WORKER_ROUTE_H

#include "worker/stream.h"

/* Find the route of s and note it. REASON_none, or no_route, denied, internal. */
enum reason
route_find(struct stream *s);

/* Do what the route says. true: s->upstream is where the request goes, which has been changed as
 * the backend is to get it. false: it has been answered, or has failed. */
bool
route_follow(struct stream *s);

/* Where a connection in tcp mode goes that asks for that server's name by TLS; empty: for none. */
void
route_follow_tcp(struct stream *s, struct slice server_name);

/* Change the fields of the answer m as the route says. */
void
route_edit_answer(struct stream *s, struct http_msg *m);

#endif
