/* SPDX-License-Identifier: Apache-2.0
 *
 * http1_upstream.h - HTTP/1.1 with a backend (RFC 9112).
 */
#ifndef WORKER_HTTP1_UPSTREAM_H
#define WORKER_HTTP1_UPSTREAM_H

#include "worker/conn.h"
#include "worker/stream.h"
#include "worker/upstream.h"

size_t
http1_upstream_size(void);
/* c is connected (from http1_upstream_size() bytes, fresh or idle): make it the server end of s. */
void
http1_upstream_attach(struct conn *c, struct stream *s, struct backend *b);

/* May an idle connection be used again now? last_used_ms: when it became idle. */
bool
http1_upstream_is_reusable(const struct conn *c, const struct backend *b, uint64_t now_ms,
                           uint64_t *last_used_ms);

#endif
