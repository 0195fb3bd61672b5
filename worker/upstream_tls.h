/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream_tls.h - the TLS handshake with a backend: the stage between connect and attach.
 */
#ifndef WORKER_UPSTREAM_TLS_H
#define WORKER_UPSTREAM_TLS_H

#include "worker/upstream.h"

/* Does a new connection for s speak TLS? */
bool
upstream_tls_is_wanted(const struct stream *s);

/* c is connected, for s: shake hands, then call upstream_connected(c), or upstream_connect_failed()
 * with backend_tls or connect_timeout. The deadline of connecting stays as it is. */
void
upstream_tls_begin(struct conn *c);

/* The view of a backend gets what conf says of its TLS. Returns whether that is something else than
 * before (not for a new view). */
bool
upstream_tls_apply(struct backend *b, const struct conf_backend *cb);
/* Does conf still say what the view has? */
bool
upstream_tls_is_current(const struct backend *b, const struct conf_backend *cb);
void
upstream_tls_drop(struct backend *b);

/* The backend's end of s is lost. If TLS is the cause (an alert, a broken record), say so in the
 * log and return true: in TLS 1.3 a backend that does not like our certificate tells after the
 * handshake. */
bool
upstream_tls_explain_loss(const struct stream *s, const struct conn *c);

#endif
