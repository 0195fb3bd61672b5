/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream_private.h - what the parts of upstream share: choosing (upstream.c), connecting
 * (upstream_connect.c), views and idle connections (upstream_pool.c).
 */
#ifndef WORKER_UPSTREAM_PRIVATE_H
#define WORKER_UPSTREAM_PRIVATE_H

#include "worker/upstream.h"

/* Open a connection to s->backend for s, whose exchange with it has begun. */
void
upstream_connect(struct stream *s);
/* c, of a struct upstream_connecting, can be used now: its stream gets it. Or it cannot. */
void
upstream_connected(struct conn *c);
void
upstream_connect_failed(struct conn *c, enum reason why);
/* c is connected: it becomes the server's end of s. */
void
upstream_attach(struct stream *s, struct conn *c);
/* Hold a descriptor back, see upstream_connect.c. */
void
upstream_keep_spare(void);

/* An idle connection that may be used again, or NULL. */
struct conn *
upstream_take_idle(struct backend *b, bool must_be_recent);
/* May one more connection of b lie idle, beside nidle others? */
bool
upstream_may_keep(const struct backend *b, unsigned nidle);
/* false: it has none. */
bool
upstream_close_oldest_idle(struct backend *b);
/* A removed backend's view goes with its last connection and exchange. */
void
upstream_drop_if_unused(struct backend *b);

/* ---- circuit breakers: upstream_breaker.c ---- */

bool
upstream_breaker_is_passable(const struct conf_backend *b);
/* Let s through to b: s->permit. false: another came first. */
bool
upstream_breaker_enter(struct stream *s, const struct conf_backend *b);
/* s goes without a result, if it has given none. */
void
upstream_breaker_leave(struct stream *s, unsigned slot);

#endif
