/* SPDX-License-Identifier: Apache-2.0
 *
 * operator.c - heed what an operator has said: see operator.h.
 */
#include "worker/operator.h"

#include "conf/backend_state.h"
#include "shared/log.h"
#include "worker/upstream.h"
#include "worker/worker.h"

static uint64_t epoch;

void
operator_heed_again(void)
{
    epoch = shm_get(&worker.shm->m->operator_epoch);
    log_set_level(operator_log_level(worker.shm, worker.conf));
    upstream_close_unready();
}

void
operator_heed(void)
{
    if (worker.conf && epoch != shm_get(&worker.shm->m->operator_epoch)) {
        operator_heed_again();
    }
}
