/* SPDX-License-Identifier: Apache-2.0
 *
 * shm_slots.h - what shm.c and shm_slots.c share: the master's index of identities.
 */
#ifndef SHARED_SHM_SLOTS_H
#define SHARED_SHM_SLOTS_H

struct shm_index;

/* NULL is allowed. */
void
shm_index_free(struct shm_index *index);

#endif
