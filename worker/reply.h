/* SPDX-License-Identifier: Apache-2.0
 *
 * reply.h - what akashd itself answers: a short text with the reason and the request id.
 */
#ifndef WORKER_REPLY_H
#define WORKER_REPLY_H

#include "shared/reason.h"
#include "worker/stream.h"

/* Write the whole answer for why into out (REPLY_MAX bytes). s may be NULL (no request was read).
 * Returns its length. */
#define REPLY_MAX 1024
size_t
reply_write(char *out, const struct stream *s, enum reason why, bool is_close, bool is_head);

#endif
