/* SPDX-License-Identifier: Apache-2.0
 *
 * reply.h - what akashd itself answers: a short text with the reason and the request id.
 */
#ifndef WORKER_REPLY_H
#define WORKER_REPLY_H

#include "shared/reason.h"
#include "worker/stream.h"

#define REPLY_MAX 1024
/* Write the whole answer for why into out (REPLY_MAX bytes). id: the request's. is_head: without
 * the body (HEAD). Returns its length. */
size_t
reply_write(char *out, struct slice id, enum reason why, bool is_close, bool is_head);

#endif
