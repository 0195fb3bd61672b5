/* SPDX-License-Identifier: Apache-2.0
 *
 * rate.c - GCRA over a shared set-associative table: see rate.h.
 *
 * Relaxed order is enough: an entry stands for itself, and its compare-and-swap decides.
 */
#include "shared/rate.h"

#include <assert.h>
#include <string.h>

#define TIME_BITS 40
#define TIME_MASK ((UINT64_C(1) << TIME_BITS) - 1)

/* ---- GCRA ---- */

struct rate_verdict
rate_judge(int64_t full_us, struct rate rate, uint64_t *next_us)
{
    uint64_t interval = rate.interval_us;
    uint64_t capacity = interval * rate.burst;
    uint64_t owed = full_us > 0 ? (uint64_t)full_us : 0;
    struct rate_verdict v = {.is_admitted = owed + interval <= capacity};
    if (v.is_admitted) {
        owed += interval;
    } else {
        v.retry_us = owed + interval - capacity;
    }
    *next_us = owed;
    v.reset_us = owed;
    v.remaining = owed < capacity ? (uint32_t)((capacity - owed) / interval) : 0;
    return v;
}

/* ---- the table ---- */

static uint64_t
make_entry(uint64_t tag, uint64_t full_at_us)
{
    return tag << TIME_BITS | (full_at_us & TIME_MASK);
}

/* How far ahead an entry's time is; the modulus makes what is long past look far ahead. */
static int64_t
time_ahead(uint64_t entry, uint64_t now_us)
{
    uint64_t ahead = (entry - now_us) & TIME_MASK;
    return ahead <= TIME_MASK / 2 ? (int64_t)ahead : (int64_t)ahead - (int64_t)(TIME_MASK + 1);
}

static bool
is_free(uint64_t entry, uint64_t now_us)
{
    return entry == 0 || time_ahead(entry, now_us) <= 0;
}

/* The tag's own place, else a free one, else the overflow entry. */
static _Atomic uint64_t *
find_place(struct rate_table *table, unsigned set, uint64_t tag, uint64_t now_us, uint64_t *seen)
{
    _Atomic uint64_t *place = NULL;
    for (unsigned i = 0; i < RATE_WAYS; i++) {
        uint64_t entry = atomic_load_explicit(&table->entries[set][i], memory_order_relaxed);
        if (entry >> TIME_BITS == tag) {
            *seen = entry;
            return &table->entries[set][i];
        }
        if (!place && is_free(entry, now_us)) {
            place = &table->entries[set][i];
            *seen = entry;
        }
    }
    if (!place) {
        place = &table->overflow[set];
        *seen = atomic_load_explicit(place, memory_order_relaxed);
    }
    return place;
}

struct rate_verdict
rate_take(struct rate_table *table, uint64_t key, struct rate rate, uint64_t now_us)
{
    unsigned set = (unsigned)(key % RATE_SETS);
    uint64_t tag = key >> TIME_BITS;
    tag += tag == 0;
    for (;;) {
        uint64_t seen, next_us;
        _Atomic uint64_t *place = find_place(table, set, tag, now_us, &seen);
        int64_t full_us = seen == 0 ? 0 : time_ahead(seen, now_us);
        struct rate_verdict v = rate_judge(full_us, rate, &next_us);
        if (!v.is_admitted ||
            atomic_compare_exchange_strong_explicit(place, &seen, make_entry(tag, now_us + next_us),
                                                    memory_order_relaxed, memory_order_relaxed)) {
            return v;
        }
    }
}

void
rate_sweep(struct rate_table *table, unsigned first, unsigned n, uint64_t now_us)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned set = (first + i) % RATE_SETS;
        for (unsigned way = 0; way <= RATE_WAYS; way++) {
            _Atomic uint64_t *place =
                way < RATE_WAYS ? &table->entries[set][way] : &table->overflow[set];
            uint64_t seen = atomic_load_explicit(place, memory_order_relaxed);
            if (seen != 0 && is_free(seen, now_us)) {
                atomic_compare_exchange_strong_explicit(place, &seen, 0, memory_order_relaxed,
                                                        memory_order_relaxed);
            }
        }
    }
}

/* ---- SipHash-2-4 ---- */

struct sip {
    uint64_t v0, v1, v2, v3;
};

static uint64_t
rotate_left(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static void
sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = rotate_left(s->v1, 13) ^ s->v0;
    s->v0 = rotate_left(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate_left(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate_left(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate_left(s->v1, 17) ^ s->v2;
    s->v2 = rotate_left(s->v2, 32);
}

static void
sip_word(struct sip *s, uint64_t m)
{
    s->v3 ^= m;
    sip_round(s);
    sip_round(s);
    s->v0 ^= m;
}

uint64_t
rate_key(const uint64_t secret[2], uint64_t limit, const void *bytes, size_t len)
{
    struct sip s = {secret[0] ^ 0x736f6d6570736575u, secret[1] ^ 0x646f72616e646f6du,
                    secret[0] ^ 0x6c7967656e657261u, secret[1] ^ 0x7465646279746573u};
    const unsigned char *at = bytes;
    uint64_t m = 0;
    size_t left = len;
    sip_word(&s, limit);
    for (; left >= sizeof(m); left -= sizeof(m), at += sizeof(m)) {
        memcpy(&m, at, sizeof(m));
        sip_word(&s, m);
    }
    m = (uint64_t)(len + sizeof(limit)) << 56;
    for (size_t i = 0; i < left; i++) {
        m |= (uint64_t)at[i] << (8 * i);
    }
    sip_word(&s, m);
    s.v2 ^= 0xff;
    for (int i = 0; i < 4; i++) {
        sip_round(&s);
    }
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
