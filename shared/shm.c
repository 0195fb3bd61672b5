/* SPDX-License-Identifier: Apache-2.0
 *
 * shm.c - the segment: its mapping, gauges and what a death leaves of them, ticket keys.
 *
 * The slots are in shm_slots.c.
 */
#include "shared/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/clients.h"
#include "shared/ewma.h"
#include "shared/shm_slots.h"

#define LAYOUT_VERSION 4

/* ---- the mapping ---- */

/* Where each region begins; all are whole pages. */
struct layout {
    size_t m, keys, h, s, rows;
    size_t row_size;
    size_t size;
};

static size_t
whole_pages(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (n + page - 1) / page * page;
}

static struct layout
layout_of(void)
{
    struct layout at = {.m = 0};
    at.keys = at.m + whole_pages(sizeof(struct shm_master));
    at.h = at.keys + whole_pages(sizeof(struct shm_keys));
    at.s = at.h + whole_pages(sizeof(struct shm_monitor));
    at.rows = at.s + whole_pages(sizeof(struct shm_shared));
    at.row_size = whole_pages(sizeof(struct shm_row));
    at.size = at.rows + SHM_ROWS * at.row_size;
    return at;
}

static uint64_t
hash_bytes(uint64_t hash, const void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * UINT64_C(1099511628211);
    }
    return hash;
}

/* Two counters that change places have the same sizes. */
static const char names[] =
#define NAME(name, ...) #name ","
    LISTENER_COUNTERS(NAME) ";" BACKEND_COUNTERS(NAME) ";" WORKER_COUNTERS(NAME) ";" REASONS(NAME);
#undef NAME

/* FNV-1a over what both sides of an upgrade must agree on. */
uint64_t
shm_layout_hash(void)
{
    const uint64_t parts[] = {
        LAYOUT_VERSION,
        SHM_ROWS,
        sizeof(struct shm_master),
        sizeof(struct shm_slot),
        sizeof(struct shm_operator),
        sizeof(struct shm_verdict),
        offsetof(struct shm_master, slots_end),
        offsetof(struct shm_master, workers),
        offsetof(struct shm_master, verdict),
        offsetof(struct shm_master, backends),
        sizeof(struct shm_keys),
        sizeof(struct shm_monitor),
        sizeof(struct shm_health),
        sizeof(struct shm_shared),
        sizeof(struct shm_shared_backend),
        sizeof(struct shm_row),
        offsetof(struct shm_row, failures),
        offsetof(struct shm_row, ledger),
        offsetof(struct shm_ledger, backends_open),
        offsetof(struct shm_ledger, clients),
        CLIENTS_SETS,
        offsetof(struct shm_row, listeners),
        sizeof(struct shm_row_listener),
        sizeof(struct shm_row_backend),
        sizeof(struct shm_row_limit),
        offsetof(struct shm_master, rate_secret),
        (uint64_t)sysconf(_SC_PAGESIZE),
    };
    uint64_t hash = hash_bytes(UINT64_C(14695981039346656037), parts, sizeof(parts));
    return hash_bytes(hash, names, sizeof(names));
}

static void *
map_part(void *base, size_t at, size_t size, int prot, int fd)
{
    return mmap((char *)base + at, whole_pages(size), prot, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
                fd, (off_t)at);
}

/* Open what the role writes, and shut what it may not even read. */
static int
open_parts(void *base, const struct layout *at, int fd, enum shm_role role, unsigned row)
{
    const int rw = PROT_READ | PROT_WRITE;
    const size_t rows_size = SHM_ROWS * at->row_size;
    bool is_failed = false;
    switch (role) {
    case SHM_ROLE_MASTER:
        is_failed = map_part(base, at->m, at->h - at->m, rw, fd) == MAP_FAILED ||
                    map_part(base, at->s, at->rows - at->s + rows_size, rw, fd) == MAP_FAILED;
        break;
    case SHM_ROLE_MONITOR:
        is_failed = map_part(base, at->h, at->s - at->h, rw, fd) == MAP_FAILED ||
                    map_part(base, at->keys, at->h - at->keys, PROT_NONE, fd) == MAP_FAILED;
        break;
    case SHM_ROLE_WORKER:
        is_failed =
            map_part(base, at->s, at->rows - at->s, rw, fd) == MAP_FAILED ||
            map_part(base, at->rows + row * at->row_size, at->row_size, rw, fd) == MAP_FAILED;
        break;
    }
    /* Keys do not belong in a core file. */
    madvise((char *)base + at->keys, at->h - at->keys, MADV_DONTDUMP);
    return is_failed ? -1 : 0;
}

static void
name_regions(struct shm *shm, const struct layout *at, enum shm_role role, unsigned row)
{
    char *base = shm->base;
    shm->m = (struct shm_master *)(base + at->m);
    shm->keys = role == SHM_ROLE_MONITOR ? NULL : (struct shm_keys *)(base + at->keys);
    shm->h = (struct shm_monitor *)(base + at->h);
    shm->s = (struct shm_shared *)(base + at->s);
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        shm->rows[i] = (struct shm_row *)(base + at->rows + i * at->row_size);
    }
    shm->row = role == SHM_ROLE_WORKER ? shm->rows[row] : NULL;
}

static int
map_regions(struct shm *shm, int fd, enum shm_role role, unsigned row)
{
    struct layout at = layout_of();
    void *base = mmap(NULL, at.size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED) {
        return -1;
    }
    if (open_parts(base, &at, fd, role, row) != 0) {
        munmap(base, at.size);
        return -1;
    }
    *shm = (struct shm){.fd = fd, .base = base, .size = at.size};
    name_regions(shm, &at, role, row);
    return 0;
}

int
shm_create(struct shm *shm)
{
    int fd = memfd_create("akashd", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -1;
    }
    /* No child can pull the ground away from the others. */
    if (ftruncate(fd, (off_t)layout_of().size) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
        map_regions(shm, fd, SHM_ROLE_MASTER, 0) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    if (getrandom(shm->m->rate_secret, sizeof(shm->m->rate_secret), 0) !=
        (ssize_t)sizeof(shm->m->rate_secret)) {
        shm_unmap(shm);
        close(fd);
        return -1;
    }
    shm->m->layout_hash = shm_layout_hash();
    return 0;
}

int
shm_map(struct shm *shm, int fd, enum shm_role role, unsigned row)
{
    struct stat st;
    assert(row < SHM_ROWS);
    if (fstat(fd, &st) != 0) {
        return -1;
    }
    if ((size_t)st.st_size != layout_of().size) {
        errno = EPROTO;
        return -1;
    }
    if (map_regions(shm, fd, role, row) != 0) {
        return -1;
    }
    if (shm->m->layout_hash != shm_layout_hash()) {
        shm_unmap(shm);
        errno = EPROTO;
        return -1;
    }
    return 0;
}

void
shm_unmap(struct shm *shm)
{
    shm_index_free(shm->index);
    if (shm->base) {
        munmap(shm->base, shm->size);
    }
    *shm = (struct shm){.fd = shm->fd};
}

/* ---- counters ---- */

void
shm_observe(struct shm_histogram *h, uint64_t us)
{
#define BOUND(us) us,
    static const uint64_t bounds[] = {HISTOGRAM_BOUNDS(BOUND)};
#undef BOUND
    _Static_assert(sizeof(bounds) / sizeof(bounds[0]) + 1 == HISTOGRAM_BUCKETS, "one is +Inf");
    unsigned i = 0;
    while (i < HISTOGRAM_BUCKETS - 1 && us > bounds[i]) {
        i++;
    }
    shm_count(&h->bucket[i], 1);
    shm_count(&h->sum_us, us);
}

/* ---- latency ---- */

/* Milliseconds, so that 32 bits hold 49 days. */
static uint32_t
low_ms(uint64_t us)
{
    return (uint32_t)(us / 1000);
}

void
shm_backend_observe(struct shm *shm, unsigned backend, uint64_t now_us, uint64_t us)
{
    shm_u64 *word = &shm->s->backends[backend].ewma;
    uint32_t sample = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
    uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(word, &seen,
                                                  ewma_next(seen, low_ms(now_us), sample),
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

uint64_t
shm_backend_latency(const struct shm *shm, unsigned backend, uint64_t now_us)
{
    return ewma_read(shm_get(&shm->s->backends[backend].ewma), low_ms(now_us));
}

void
shm_backend_forget(struct shm *shm, unsigned backend)
{
    shm_set(&shm->s->backends[backend].ewma, 0);
    breaker_reset(&shm->s->backends[backend].breaker);
}

/* ---- gauges ---- */

/* A gauge that is full is refused without a mark in the ledger. Relaxed is enough for the limit:
 * the compare-and-swap itself decides, and no other memory hangs on it. */
bool
shm_gauge_try_add(struct shm_row *row, struct shm_gauge g, uint64_t limit)
{
    if (limit == 0) {
        shm_gauge_add(row, g);
        return true;
    }
    uint64_t seen = atomic_load_explicit(g.shared, memory_order_relaxed);
    if (seen >= limit) {
        return false;
    }
    uint64_t was = shm_ledger_begin(g.ledger);
    while (seen < limit) {
        if (atomic_compare_exchange_weak_explicit(g.shared, &seen, seen + 1, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            shm_ledger_end(g.ledger, was + 1);
            return true;
        }
    }
    shm_ledger_end(g.ledger, was);
    return false;
}

static const shm_u64 *
ledger_at(const struct shm_row *row, size_t offset)
{
    return (const shm_u64 *)((const char *)&row->ledger + offset);
}

static bool
has_process(const struct shm *shm, unsigned row)
{
    return shm_get(&shm->m->workers[row].pid) != 0;
}

uint64_t
shm_gauge_read(const struct shm *shm, size_t ledger_offset)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        if (has_process(shm, i)) {
            sum += shm_ledger_count(ledger_at(shm->rows[i], ledger_offset));
        }
    }
    return sum;
}

/* ---- what a death leaves ---- */

#define FOLD_ATTEMPTS 1000

static bool
is_in_the_making(uint64_t entry)
{
    return entry & SHM_LEDGER_STEP;
}

/* One look at all entries of a gauge but that of row dead: false when one is in the making. A row
 * without a process stands still whatever its mark says, and it is folded in its turn. */
static bool
collect(const struct shm *shm, size_t offset, unsigned dead, uint64_t entries[SHM_ROWS])
{
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        entries[i] = i == dead ? 0
                               : atomic_load_explicit((shm_u64 *)ledger_at(shm->rows[i], offset),
                                                      memory_order_acquire);
        if (is_in_the_making(entries[i]) && has_process(shm, i)) {
            return false;
        }
    }
    return true;
}

/* How much of the gauge nobody but row dead can account for. The value counts only if every entry
 * was at rest before and is the same after it was read: then no change was under way in between,
 * since an entry's sequence never comes back. */
static bool
unaccounted(const struct shm *shm, const shm_u64 *shared, uint64_t mask, size_t offset,
            unsigned dead, uint64_t *excess)
{
    uint64_t before[SHM_ROWS], after[SHM_ROWS];
    for (int i = 0; i < FOLD_ATTEMPTS; i++) {
        if (!collect(shm, offset, dead, before)) {
            continue;
        }
        uint64_t value = shm_get(shared) & mask;
        atomic_thread_fence(memory_order_acquire);
        if (!collect(shm, offset, dead, after) || memcmp(before, after, sizeof(before)) != 0) {
            continue;
        }
        for (unsigned row = 0; row < SHM_ROWS; row++) {
            value -= before[row] & SHM_LEDGER_COUNT;
        }
        *excess = value;
        return true;
    }
    return false;
}

/* A dead row's entry at rest says exactly what to take out, whatever the others do meanwhile. One
 * in the making may be one off, and only the others' entries tell. */
bool
shm_ledger_settle(struct shm *shm, unsigned row, shm_u64 *ledger, const shm_u64 *shared,
                  uint64_t mask, uint64_t *excess)
{
    uint64_t entry = atomic_load_explicit(ledger, memory_order_acquire);
    *excess = entry & SHM_LEDGER_COUNT;
    if (entry == 0) {
        return true;
    }
    size_t offset = (size_t)((char *)ledger - (char *)&shm->rows[row]->ledger);
    if (is_in_the_making(entry) && !unaccounted(shm, shared, mask, offset, row, excess)) {
        return false;
    }
    uint64_t sequence = (entry & ~SHM_LEDGER_COUNT) + SHM_LEDGER_STEP;
    atomic_store_explicit(ledger, sequence & ~SHM_LEDGER_STEP, memory_order_release);
    return true;
}

static bool
fold_gauge(struct shm *shm, unsigned row, struct shm_gauge g)
{
    uint64_t excess;
    if (!shm_ledger_settle(shm, row, g.ledger, g.shared, UINT64_MAX, &excess)) {
        return false;
    }
    if (excess != 0) {
        atomic_fetch_sub_explicit(g.shared, excess, memory_order_relaxed);
    }
    return true;
}

bool
shm_fold_row(struct shm *shm, unsigned row)
{
    struct shm_row *r = shm->rows[row];
    bool is_done = fold_gauge(shm, row, shm_gauge_connections(shm, r));
    for (unsigned i = 0; i < shm_slots_end(shm, SHM_LISTENER); i++) {
        is_done &= fold_gauge(shm, row, shm_gauge_listener(shm, r, i));
        is_done &= fold_gauge(shm, row, shm_gauge_requests(shm, r, i));
    }
    for (unsigned i = 0; i < shm_slots_end(shm, SHM_UPSTREAM); i++) {
        is_done &= fold_gauge(shm, row, shm_gauge_waiting(shm, r, i));
        is_done &= fold_gauge(shm, row, shm_gauge_upstream(shm, r, i));
    }
    for (unsigned i = 0; i < shm_slots_end(shm, SHM_BACKEND); i++) {
        is_done &= fold_gauge(shm, row, shm_gauge_active(shm, r, i));
        is_done &= fold_gauge(shm, row, shm_gauge_open(shm, r, i));
    }
    return clients_fold(shm, row) && is_done;
}

/* ---- ticket keys ---- */

#define KEYS_ATTEMPTS 1000

/* Word by word, because the other side may be in the middle of it: the version tells. */
static void
copy_key(struct shm_ticket_key *to, const struct shm_ticket_key *from)
{
    _Static_assert(sizeof(*to) % sizeof(uint64_t) == 0, "whole words");
    for (size_t i = 0; i < sizeof(*to) / sizeof(uint64_t); i++) {
        shm_set((shm_u64 *)to + i, shm_get((const shm_u64 *)from + i));
    }
}

static void
put_key(struct shm_keys *keys, unsigned index, const struct shm_ticket_key *key)
{
    /* A master that died in here left it odd; then it stays odd until this one is done. */
    uint64_t odd = shm_get(&keys->version) | 1;
    shm_set(&keys->version, odd);
    atomic_thread_fence(memory_order_release);
    copy_key(&keys->keys[index], key);
    shm_set(&keys->index, index);
    atomic_store_explicit(&keys->version, odd + 1, memory_order_release);
}

static bool
is_younger(const struct shm_ticket_key *key, uint64_t wall_s, uint64_t age_s)
{
    return key->born_s != 0 && wall_s < key->born_s + age_s;
}

void
shm_keys_rotate(struct shm *shm, uint64_t wall_s)
{
    struct shm_keys *keys = shm->keys;
    unsigned index = shm_get(&keys->index) % SHM_TICKET_KEYS;
    const struct shm_ticket_key *newest = &keys->keys[index];
    bool is_whole = shm_get(&keys->version) % 2 == 0;
    /* A key from the future was made before the clock was set back; it would stay too long. */
    if (is_whole && newest->born_s <= wall_s && is_younger(newest, wall_s, SHM_KEYS_ROTATE_S)) {
        return;
    }
    struct shm_ticket_key key;
    if (getrandom(&key, sizeof(key), 0) != (ssize_t)sizeof(key)) {
        return; /* the old ones stand; whoever finds none makes no tickets */
    }
    key.born_s = wall_s;
    put_key(keys, newest->born_s == 0 ? index : (index + 1) % SHM_TICKET_KEYS, &key);
    explicit_bzero(&key, sizeof(key));
}

/* As shm_keys_find, while the master may be writing. */
static bool
find_key(const struct shm_keys *keys, const uint8_t *name, uint64_t wall_s,
         struct shm_ticket_key *out, bool *is_current)
{
    unsigned index = shm_get(&keys->index) % SHM_TICKET_KEYS;
    for (unsigned i = 0; i < SHM_TICKET_KEYS; i++) {
        unsigned at = (index + i) % SHM_TICKET_KEYS;
        copy_key(out, &keys->keys[at]);
        bool is_it = !name || memcmp(out->name, name, sizeof(out->name)) == 0;
        if (is_it && is_younger(out, wall_s, SHM_KEYS_ACCEPT_S)) {
            *is_current = at == index;
            return true;
        }
        if (!name) {
            break;
        }
    }
    return false;
}

bool
shm_keys_find(const struct shm *shm, const uint8_t *name, uint64_t wall_s,
              struct shm_ticket_key *out, bool *is_current)
{
    const struct shm_keys *keys = shm->keys;
    for (int i = 0; i < KEYS_ATTEMPTS; i++) {
        uint64_t version = atomic_load_explicit((shm_u64 *)&keys->version, memory_order_acquire);
        if (version % 2 != 0) {
            continue;
        }
        bool is_found = find_key(keys, name, wall_s, out, is_current);
        atomic_thread_fence(memory_order_acquire);
        if (shm_get(&keys->version) == version) {
            return is_found;
        }
    }
    return false; /* a master was killed in the middle: no tickets until its successor rotates */
}
