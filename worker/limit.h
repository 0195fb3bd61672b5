/* SPDX-License-Identifier: Apache-2.0
 *
 * limit.h - rate limits of requests: who counts together, and what they are told.
 */
#ifndef WORKER_LIMIT_H
#define WORKER_LIMIT_H

#include <stdbool.h>

#include "conf/conf.h"
#include "worker/stream.h"

#define LIMIT_FIELDS 4 /* that limit_put_fields adds at most */

/* Count this request. false: refuse it with limit->status, reason rate_limited. What there is to
 * say of it is kept in the stream: of two limits, the one with fewer requests left. */
bool
limit_take(struct stream *s, const struct conf_rate_limit *limit);

/* Append RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset and, for a refusal, Retry-After to
 * m->fields, which has room. Values live as long as the stream. */
void
limit_put_fields(struct stream *s, struct http_msg *m);

/* Forget what has passed in the shared table, a part of it each time. */
void
limit_sweep(void);

#endif
