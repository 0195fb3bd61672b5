/* SPDX-License-Identifier: Apache-2.0
 *
 * backend_state.h - what an operator has said goes before what the file says.
 */
#ifndef CONF_BACKEND_STATE_H
#define CONF_BACKEND_STATE_H

#include "conf/conf.h"
#include "shared/shm.h"

/* State 1 + given, as the segment has it; 0: the operator has said nothing. */
static inline enum conf_state
backend_state_of(const struct shm *shm, unsigned slot, enum conf_state of_file)
{
    uint64_t given = shm_get(&shm->m->operators[slot].state);
    return given == 0 ? of_file : (enum conf_state)(given - 1);
}

static inline enum conf_state
backend_state(const struct shm *shm, const struct conf_backend *b)
{
    return backend_state_of(shm, b->slot, b->state);
}

#endif
