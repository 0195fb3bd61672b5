/* SPDX-License-Identifier: Apache-2.0
 *
 * row_sum.c - add up what the workers counted, those that have ended included.
 */
#include "master/row_sum.h"

#include <stddef.h>

void
row_sum_init(struct row_sum *sum, const struct shm *shm)
{
    sum->nrows = 0;
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        if (shm_get(&shm->m->workers[i].pid) || shm_get(&shm->rows[i]->heartbeat_ms)) {
            sum->rows[sum->nrows++] = shm->rows[i];
        }
    }
}

uint64_t
row_sum_get(const struct row_sum *sum, size_t offset)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < sum->nrows; i++) {
        total += shm_get((const shm_u64 *)((const char *)sum->rows[i] + offset));
    }
    return total;
}

size_t
row_sum_listener_offset(unsigned slot, size_t offset)
{
    return offsetof(struct shm_row, listeners) + slot * sizeof(struct shm_row_listener) + offset;
}

size_t
row_sum_backend_offset(unsigned slot, size_t offset)
{
    return offsetof(struct shm_row, backends) + slot * sizeof(struct shm_row_backend) + offset;
}

size_t
row_sum_limit_offset(unsigned slot, size_t offset)
{
    return offsetof(struct shm_row, limits) + slot * sizeof(struct shm_row_limit) + offset;
}
