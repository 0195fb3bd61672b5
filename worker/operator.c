/* SPDX-License-Identifier: Apache-2.0
 *
 * operator.c - heed what an operator has said: see operator.h.
 */
#include "worker/operator.h"

#include "shared/log.h"
#include "worker/upstream.h"
#include "worker/worker.h"

static uint64_t epoch;

void
operator_heed_again(void)
{
    uint64_t level = shm_get(&worker.shm->m->log_level);
    epoch = shm_get(&worker.shm->m->operator_epoch);
    log_set_level(level == 0 ? worker.conf->log.level : (enum log_level)(level - 1));
    upstream_close_unready();
}

void
operator_heed(void)
{
    if (worker.conf && epoch != shm_get(&worker.shm->m->operator_epoch)) {
        operator_heed_again();
    }
}
