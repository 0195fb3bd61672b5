/* SPDX-License-Identifier: Apache-2.0
 *
 * shm_slots.c - who has which slot of the segment.
 *
 * Only the master claims and sweeps. Since 16,384 slots are claimed at once by a large
 * configuration, it keeps an index of its own beside the segment: chains of slots by the hash of
 * their id, and a list of the removed slots that may be reused. The index is built from the segment
 * when it is first needed, so a new binary finds what the old one claimed.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/shm.h"
#include "shared/shm_slots.h"

#define NO_SLOT UINT32_MAX

struct kind_index {
    unsigned capacity;    /* slots of the kind, and buckets */
    uint32_t *heads;      /* bucket -> slot, NO_SLOT: empty; NULL: not built yet */
    uint32_t *nexts;      /* slot -> next of its chain */
    struct reusable *old; /* removed slots, newest first: taken from the end */
    unsigned nold;
};

struct reusable {
    uint64_t removed_gen;
    uint32_t slot;
};

struct shm_index {
    struct kind_index kinds[SHM_KINDS];
};

static const unsigned capacities[SHM_KINDS] = {
    [SHM_LISTENER] = SHM_LISTENERS,
    [SHM_UPSTREAM] = SHM_UPSTREAMS,
    [SHM_BACKEND] = SHM_BACKENDS,
    [SHM_LIMIT] = SHM_LIMITS,
};

static struct shm_slot *
slots_of(const struct shm *shm, enum shm_kind kind)
{
    switch (kind) {
    case SHM_LISTENER: return shm->m->listeners;
    case SHM_UPSTREAM: return shm->m->upstreams;
    case SHM_LIMIT: return shm->m->limits;
    default: return shm->m->backends;
    }
}

/* ---- the index ---- */

void
shm_index_free(struct shm_index *index)
{
    for (int i = 0; index && i < SHM_KINDS; i++) {
        free(index->kinds[i].heads);
        free(index->kinds[i].nexts);
        free(index->kinds[i].old);
    }
    free(index);
}

void
shm_slots_forget(struct shm *shm)
{
    shm_index_free(shm->index);
    shm->index = NULL;
}

static unsigned
bucket_of(const struct kind_index *ix, const char *id)
{
    uint32_t hash = 2166136261u; /* FNV-1a; ids come from the configuration, not from clients */
    for (const unsigned char *p = (const unsigned char *)id; *p; p++) {
        hash = (hash ^ *p) * 16777619u;
    }
    return hash % ix->capacity;
}

static void
index_add(struct kind_index *ix, const struct shm_slot *slots, uint32_t slot)
{
    uint32_t *head = &ix->heads[bucket_of(ix, slots[slot].id)];
    ix->nexts[slot] = *head;
    *head = slot;
}

static void
index_remove(struct kind_index *ix, const struct shm_slot *slots, uint32_t slot)
{
    uint32_t *link = &ix->heads[bucket_of(ix, slots[slot].id)];
    while (*link != slot) {
        link = &ix->nexts[*link];
    }
    *link = ix->nexts[slot];
}

static uint32_t
index_find(const struct kind_index *ix, const struct shm_slot *slots, const char *id)
{
    uint32_t slot = ix->heads[bucket_of(ix, id)];
    while (slot != NO_SLOT && strcmp(slots[slot].id, id) != 0) {
        slot = ix->nexts[slot];
    }
    return slot;
}

static int
index_build(struct kind_index *ix, const struct shm *shm, enum shm_kind kind)
{
    unsigned capacity = capacities[kind];
    uint32_t *heads = malloc(capacity * sizeof(*heads));
    uint32_t *nexts = malloc(capacity * sizeof(*nexts));
    if (!heads || !nexts) {
        free(heads);
        free(nexts);
        return -1;
    }
    memset(heads, 0xff, capacity * sizeof(*heads));
    *ix = (struct kind_index){.capacity = capacity, .heads = heads, .nexts = nexts};
    const struct shm_slot *slots = slots_of(shm, kind);
    for (unsigned i = 0; i < shm_slots_end(shm, kind); i++) {
        if (shm_get(&slots[i].state) != SHM_SLOT_FREE) {
            index_add(ix, slots, i);
        }
    }
    return 0;
}

static struct kind_index *
index_of(struct shm *shm, enum shm_kind kind)
{
    if (!shm->index) {
        shm->index = calloc(1, sizeof(*shm->index));
    }
    if (!shm->index) {
        return NULL;
    }
    struct kind_index *ix = &shm->index->kinds[kind];
    return ix->heads || index_build(ix, shm, kind) == 0 ? ix : NULL;
}

/* ---- reuse ---- */

static int
by_newest(const void *a, const void *b)
{
    const struct reusable *x = a, *y = b;
    return x->removed_gen < y->removed_gen ? 1 : x->removed_gen > y->removed_gen ? -1 : 0;
}

/* The oldest generation that any process still serves. */
static uint64_t
oldest_gen(const struct shm *shm)
{
    uint64_t oldest = UINT64_MAX;
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        if (shm_get(&shm->m->workers[i].pid) != 0) {
            uint64_t gen = shm_get(&shm->rows[i]->oldest_gen);
            oldest = gen < oldest ? gen : oldest;
        }
    }
    return oldest;
}

static bool
is_reusable(const struct shm_slot *slot, uint64_t oldest)
{
    return shm_get(&slot->state) == SHM_SLOT_REMOVED && shm_get(&slot->removed_gen) <= oldest;
}

/* List what can be reused now: once for many claims, not for each. */
static void
list_reusable(struct kind_index *ix, const struct shm *shm, enum shm_kind kind)
{
    const struct shm_slot *slots = slots_of(shm, kind);
    uint64_t oldest = oldest_gen(shm);
    if (!ix->old && !(ix->old = malloc(ix->capacity * sizeof(*ix->old)))) {
        return;
    }
    for (unsigned i = 0; i < shm_slots_end(shm, kind); i++) {
        if (is_reusable(&slots[i], oldest)) {
            ix->old[ix->nold++] = (struct reusable){shm_get(&slots[i].removed_gen), i};
        }
    }
    qsort(ix->old, ix->nold, sizeof(*ix->old), by_newest);
}

unsigned
shm_slots_room(const struct shm *shm, enum shm_kind kind)
{
    const struct shm_slot *slots = slots_of(shm, kind);
    unsigned end = shm_slots_end(shm, kind), room = capacities[kind] - end;
    uint64_t oldest = oldest_gen(shm);
    for (unsigned i = 0; i < end; i++) {
        room += is_reusable(&slots[i], oldest);
    }
    return room;
}

/* The list may be of an earlier time: a slot whose id came back is no longer on offer. */
static uint32_t
pop_reusable(struct kind_index *ix, const struct shm_slot *slots)
{
    while (ix->nold > 0) {
        struct reusable last = ix->old[--ix->nold];
        if (is_reusable(&slots[last.slot], last.removed_gen)) {
            return last.slot;
        }
    }
    return NO_SLOT;
}

static uint32_t
take_reusable(struct kind_index *ix, const struct shm *shm, enum shm_kind kind)
{
    uint32_t slot = pop_reusable(ix, slots_of(shm, kind));
    if (slot == NO_SLOT) {
        list_reusable(ix, shm, kind);
        slot = pop_reusable(ix, slots_of(shm, kind));
    }
    return slot;
}

/* ---- claim and sweep ---- */

static void
set_state(struct shm_slot *slot, enum shm_slot_state state)
{
    atomic_store_explicit(&slot->state, state, memory_order_release);
}

/* Give a slot that is nobody's to id. */
static uint32_t
take_slot(struct kind_index *ix, struct shm *shm, enum shm_kind kind, bool *is_changed)
{
    uint32_t end = shm_slots_end(shm, kind);
    if (end < ix->capacity) {
        return end;
    }
    uint32_t slot = take_reusable(ix, shm, kind);
    if (slot != NO_SLOT) {
        struct shm_slot *slots = slots_of(shm, kind);
        index_remove(ix, slots, slot);
        set_state(&slots[slot], SHM_SLOT_FREE);
        *is_changed = true;
    }
    return slot;
}

static void
write_text(char to[SHM_ID_MAX], const char *text)
{
    size_t len = strlen(text);
    memcpy(to, text, len);
    memset(to + len, 0, SHM_ID_MAX - len);
}

int
shm_slot_claim(struct shm *shm, enum shm_kind kind, const char *id, const char *detail,
               bool *is_changed)
{
    bool ignored;
    is_changed = is_changed ? is_changed : &ignored;
    *is_changed = false;
    detail = detail ? detail : "";
    struct kind_index *ix = index_of(shm, kind);
    if (!ix || strlen(id) >= SHM_ID_MAX || strlen(detail) >= SHM_ID_MAX) {
        return -1;
    }
    struct shm_slot *slots = slots_of(shm, kind);
    uint32_t slot = index_find(ix, slots, id);
    if (slot == NO_SLOT) {
        slot = take_slot(ix, shm, kind, is_changed);
        if (slot == NO_SLOT) {
            return -1;
        }
        write_text(slots[slot].id, id);
        write_text(slots[slot].detail, detail);
        if (kind == SHM_BACKEND) { /* what was said was said of another */
            shm_set(&shm->m->operators[slot].state, 0);
            shm_set(&shm->m->operators[slot].weight, 0);
            shm_set(&shm->m->operators[slot].breaker, BREAKER_AUTO);
        }
        index_add(ix, slots, slot);
    } else if (strcmp(slots[slot].detail, detail) != 0) {
        write_text(slots[slot].detail, detail);
        *is_changed = true;
    }
    shm_set(&slots[slot].removed_gen, 0);
    set_state(&slots[slot], SHM_SLOT_USED);
    if (slot == shm_slots_end(shm, kind)) {
        shm_set(&shm->m->slots_end[kind], slot + 1);
    }
    return (int)slot;
}

int
shm_slot_find(struct shm *shm, enum shm_kind kind, const char *id)
{
    struct kind_index *ix = index_of(shm, kind);
    uint32_t slot = ix ? index_find(ix, slots_of(shm, kind), id) : NO_SLOT;
    return slot == NO_SLOT ? -1 : (int)slot;
}

void
shm_slot_sweep(struct shm *shm, enum shm_kind kind, const bool *keep, uint64_t gen)
{
    struct shm_slot *slots = slots_of(shm, kind);
    for (unsigned i = 0; i < shm_slots_end(shm, kind); i++) {
        if (!keep[i] && shm_get(&slots[i].state) == SHM_SLOT_USED) {
            shm_set(&slots[i].removed_gen, gen);
            set_state(&slots[i], SHM_SLOT_REMOVED);
        }
    }
}
