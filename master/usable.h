/* SPDX-License-Identifier: Apache-2.0
 *
 * usable.h - may a backend be chosen now, and if not, why: for explain, status and the status page.
 */
#ifndef MASTER_USABLE_H
#define MASTER_USABLE_H

#include "conf/conf.h"
#include "shared/reason.h"
#include "shared/shm.h"

#define USABLE_WHY_MAX 192

/* REASON_none, or what workers say of a request for which it is the only backend; then why has it
 * in words, in printable ASCII. why is of USABLE_WHY_MAX bytes. */
enum reason
usable_judge(const struct shm *shm, const struct conf_backend *b, char *why);

#endif
