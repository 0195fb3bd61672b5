/* SPDX-License-Identifier: Apache-2.0
 *
 * slots.h - give every listener, pool and backend of a conf its slot in the segment.
 */
#ifndef MASTER_SLOTS_H
#define MASTER_SLOTS_H

#include <stddef.h>

#include "conf/conf.h"
#include "shared/shm.h"

/* Claim the slots of all and write them into conf. 0, or -1 with a sentence in why when the segment
 * has no room: then claim those of the conf in force again and sweep. */
int
slots_claim(struct shm *shm, struct conf *conf, char *why, size_t why_size);

/* What operators have said of a backend, id "UPSTREAM/BACKEND": of one that is in use that itself;
 * of an address that joins those of a name what is said of all of them, for that was meant. */
const struct shm_operator *
slots_said(struct shm *shm, const char *id);

/* Mark every slot that conf does not have as removed at gen. */
void
slots_sweep(struct shm *shm, const struct conf *conf, uint64_t gen);

#endif
