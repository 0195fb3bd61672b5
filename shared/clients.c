/* SPDX-License-Identifier: Apache-2.0
 *
 * clients.c - see clients.h.
 *
 * The order of all changes of a set matters here (who comes last sees the others), so cells are
 * read and changed in sequentially consistent order; on x86 that is the same instructions.
 */
#include "shared/clients.h"

#include <stddef.h>

#include "shared/shm.h"

#define TAG_SHIFT  24
#define NO_CELL    UINT32_MAX
#define STEPS_BACK 16 /* then it is refused: others were quicker each time */

/* What a set says of a client. */
struct view {
    uint64_t count;
    uint64_t seen; /* in the cell: its first, else a free one */
    uint32_t cell; /* NO_CELL: neither */
};

static uint64_t
tag_of(uint64_t key)
{
    uint64_t tag = key >> TAG_SHIFT;
    return tag + (tag == 0);
}

static _Atomic uint64_t *
cell_at(const struct shm *shm, uint32_t cell)
{
    return &shm->s->clients.cells[cell];
}

static struct view
look(const struct shm *shm, uint64_t key)
{
    uint32_t first = (uint32_t)(key % CLIENTS_SETS) * CLIENTS_WAYS;
    uint64_t tag = tag_of(key);
    struct view v = {.cell = NO_CELL};
    for (uint32_t cell = first; cell < first + CLIENTS_WAYS; cell++) {
        uint64_t seen = atomic_load(cell_at(shm, cell));
        bool is_its = seen >> TAG_SHIFT == tag;
        if ((is_its && v.count == 0) || (seen == 0 && v.cell == NO_CELL)) {
            v.seen = seen;
            v.cell = cell;
        }
        v.count += is_its ? seen & CLIENTS_COUNT_MAX : 0;
    }
    return v;
}

uint64_t
clients_count(const struct shm *shm, uint64_t key)
{
    return look(shm, key).count;
}

/* ---- the ledger ---- */

static _Atomic uint64_t *
begin_change(struct shm_row *row, uint32_t cell, uint64_t *was)
{
    struct clients_ledger *ledger = &row->ledger.clients;
    uint32_t page = cell / CLIENTS_PAGE;
    uint64_t bit = UINT64_C(1) << page % 64;
    uint64_t touched = shm_get(&ledger->touched[page / 64]);
    if (!(touched & bit)) {
        shm_set(&ledger->touched[page / 64], touched | bit);
    }
    *was = shm_ledger_begin(&ledger->cells[cell]);
    return &ledger->cells[cell];
}

/* false: the cell has changed meanwhile. */
static bool
add_one(struct shm *shm, struct shm_row *row, uint64_t key, struct view v)
{
    uint64_t was, next = v.seen == 0 ? tag_of(key) << TAG_SHIFT | 1 : v.seen + 1;
    _Atomic uint64_t *entry = begin_change(row, v.cell, &was);
    bool is_done = atomic_compare_exchange_strong(cell_at(shm, v.cell), &v.seen, next);
    shm_ledger_end(entry, was + is_done);
    return is_done;
}

/* The last one leaves the cell free. */
static void
subtract(_Atomic uint64_t *cell, uint64_t n)
{
    uint64_t seen = atomic_load(cell);
    while (n > 0 && !atomic_compare_exchange_weak(cell, &seen,
                                                  (seen & CLIENTS_COUNT_MAX) > n ? seen - n : 0)) {
    }
}

void
clients_leave(struct shm *shm, struct shm_row *row, uint32_t cell)
{
    uint64_t was;
    assert(cell < CLIENTS_CELLS);
    _Atomic uint64_t *entry = begin_change(row, cell, &was);
    assert((was & SHM_LEDGER_COUNT) > 0);
    subtract(cell_at(shm, cell), 1);
    shm_ledger_end(entry, was - 1);
}

enum clients_verdict
clients_enter(struct shm *shm, struct shm_row *row, uint64_t key, uint32_t limit, uint32_t *cell)
{
    for (unsigned back = 0; back < STEPS_BACK;) {
        struct view v = look(shm, key);
        if (v.count >= limit) {
            return CLIENTS_FULL;
        }
        if (v.cell == NO_CELL) {
            return CLIENTS_NO_ROOM;
        }
        if (!add_one(shm, row, key, v)) {
            continue; /* somebody else got on */
        }
        if (look(shm, key).count <= limit) {
            *cell = v.cell;
            return CLIENTS_COUNTED;
        }
        clients_leave(shm, row, v.cell);
        back++;
    }
    return CLIENTS_FULL;
}

/* ---- what a death leaves ---- */

/* Whose the cell is does not matter: as long as the dead has a part in it, it is nobody else's. */
static bool
fold_cell(struct shm *shm, unsigned row, uint32_t cell)
{
    shm_u64 *entry = &shm->rows[row]->ledger.clients.cells[cell];
    uint64_t excess;
    if (!shm_ledger_settle(shm, row, entry, cell_at(shm, cell), CLIENTS_COUNT_MAX, &excess)) {
        return false;
    }
    subtract(cell_at(shm, cell), excess);
    return true;
}

bool
clients_fold(struct shm *shm, unsigned row)
{
    const struct clients_ledger *ledger = &shm->rows[row]->ledger.clients;
    bool is_done = true;
    for (uint32_t page = 0; page < CLIENTS_CELLS / CLIENTS_PAGE; page++) {
        if (!(shm_get(&ledger->touched[page / 64]) >> page % 64 & 1)) {
            continue;
        }
        for (uint32_t i = 0; i < CLIENTS_PAGE; i++) {
            is_done &= fold_cell(shm, row, page * CLIENTS_PAGE + i);
        }
    }
    return is_done;
}
