/* SPDX-License-Identifier: Apache-2.0
 *
 * retry.h - sending a request again: what may be, how often, and when.
 *
 * A failure that may be retried takes a token of the upstream's budget, which all workers share,
 * and waits a random time before the next attempt, which goes to another backend if there is one.
 * What costs the backends nothing is not held to the budget: a connection that could not be made.
 *
 * Two failures lead to the same request once more without being an attempt: no waiting, no count of
 * retries, at most STREAM_MAX_RESENT times. A reused connection that died costs nothing, and is
 * served so with retries off too: it was stale. What a backend over HTTP/2 says it did nothing with
 * (REFUSED_STREAM, or a GOAWAY that leaves it out; RFC 9113 8.7) costs a token, whatever the
 * method: a backend that refuses because it is overloaded must not be asked ten times as often.
 * With retries off that too counts as a connection that died.
 */
#ifndef WORKER_RETRY_H
#define WORKER_RETRY_H

#include <stdbool.h>

#include "worker/stream.h"

/* A first attempt begins: the upstream's budget grows. */
void
retry_deposit(struct stream *s);

/* The attempt has failed so, before the client got any of its answer. true: another follows, and
 * the server's end is gone. */
bool
retry_begin(struct stream *s, enum reason why);
/* The same for an answer with that status. */
bool
retry_begin_status(struct stream *s, unsigned status);

/* Take a token for a request that is about to be sent again. Only with retries on. false: the
 * budget is used up, which has been counted. */
bool
retry_pay(const struct stream *s);

/* s ends while it waits for its next attempt. */
void
retry_forget(struct stream *s);

/* ---- body bytes that have been sent, for the next attempt ---- */

/* Will a body of known length be kept? Then it is not to go round us, through a pipe. */
bool
retry_wants_body(const struct stream *s);
/* Keep them, as long as they are few. */
void
retry_keep_body(struct stream *s, struct slice bytes);
/* Is what has been sent still there? */
bool
retry_has_body(const struct stream *s);

#endif
