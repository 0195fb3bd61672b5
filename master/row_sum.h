/* SPDX-License-Identifier: Apache-2.0
 *
 * row_sum.h - counters for people: sums over all rows of the segment that ever had a worker.
 */
#ifndef MASTER_ROW_SUM_H
#define MASTER_ROW_SUM_H

#include "shared/shm.h"

struct row_sum {
    const struct shm_row *rows[SHM_ROWS];
    unsigned nrows;
};

/* Rows that never had a worker are left out: reading them would fill the sparse segment. */
void
row_sum_init(struct row_sum *sum, const struct shm *shm);

/* The sum of the shm_u64 at offset in struct shm_row. */
uint64_t
row_sum_get(const struct row_sum *sum, size_t offset);

/* Offset in struct shm_row of what is at offset in the part of a slot. */
size_t
row_sum_listener_offset(unsigned slot, size_t offset);
size_t
row_sum_backend_offset(unsigned slot, size_t offset);
size_t
row_sum_limit_offset(unsigned slot, size_t offset);

#endif
