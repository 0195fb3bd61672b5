/* SPDX-License-Identifier: Apache-2.0
 *
 * clients.h - how many connections each client has, over all workers: a table of fixed size.
 *
 * A cell is {tag:40, count:24} and is a client's as long as count is above zero: then nobody else
 * gets it. The table is set-associative, the set and the tag are bits of a keyed hash, so nobody
 * outside can choose addresses that meet in one set. Where a set is full, a newcomer is not counted
 * and not limited (CLIENTS_NO_ROOM): strangers never refuse each other, and what bounds all of them
 * is max_connections.
 *
 * Exact without a lock: one compare-and-swap takes a place and then the set is looked at again. Two
 * workers that give one client two cells at the same instant are thus both seen by whoever comes
 * last, who steps back when the sum is beyond the limit. So no client ever has more than its limit.
 *
 * Each worker's part of each cell stands in its ledger (shm.h), so that a death gives it back.
 */
#ifndef SHARED_CLIENTS_H
#define SHARED_CLIENTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define CLIENTS_SETS  32768 /* a power of two */
#define CLIENTS_WAYS  8     /* cells of a set: a cache line */
#define CLIENTS_CELLS (CLIENTS_SETS * CLIENTS_WAYS)
#define CLIENTS_PAGE  512 /* entries of a ledger that one bit of touched stands for */

#define CLIENTS_COUNT_MAX 0xffffff

struct shm;
struct shm_row;

struct clients_table {
    _Alignas(64) _Atomic uint64_t cells[CLIENTS_CELLS];
};

/* touched: where entries have ever been written. To read the others would make their pages. */
struct clients_ledger {
    _Atomic uint64_t touched[CLIENTS_CELLS / CLIENTS_PAGE / 64];
    _Atomic uint64_t cells[CLIENTS_CELLS]; /* as every entry of a ledger */
};

enum clients_verdict {
    CLIENTS_FULL,    /* it has as many as it may */
    CLIENTS_COUNTED, /* one more, in *cell: for clients_leave() */
    CLIENTS_NO_ROOM  /* not counted, and so not limited */
};

/* One more connection of the client with that key (rate_key() of the listener and the address).
 * row is the caller's own. limit is 1 to CLIENTS_COUNT_MAX. */
enum clients_verdict
clients_enter(struct shm *shm, struct shm_row *row, uint64_t key, uint32_t limit, uint32_t *cell);
/* One that was counted there has ended. */
void
clients_leave(struct shm *shm, struct shm_row *row, uint32_t cell);

/* How many it has now. */
uint64_t
clients_count(const struct shm *shm, uint64_t key);

/* Part of shm_fold_row(). */
bool
clients_fold(struct shm *shm, unsigned row);

#endif
