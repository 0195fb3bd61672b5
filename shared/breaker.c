/* SPDX-License-Identifier: Apache-2.0
 *
 * breaker.c - see breaker.h.
 *
 * The word: {state:2, trips:6, generation:8, granted:8, well:8, until:32}. until is in ms of the
 * clock's low 32 bits: open, until when; half-open, when the probes under way are late; closed,
 * until when a new trip counts as a relapse. What was granted and went well stays to be told of
 * when probes have opened it again. The generation tells the probes of one half-open period from
 * those of another. Relaxed order is enough: each word stands for itself.
 */
#include "shared/breaker.h"

#include <string.h>

#define TRIPS_MAX 16

struct state {
    uint8_t state, trips, generation, granted, well;
    uint32_t until;
};

static struct state
unpack(uint64_t word)
{
    return (struct state){.state = word >> 62,
                          .trips = word >> 56 & 63,
                          .generation = (uint8_t)(word >> 48),
                          .granted = (uint8_t)(word >> 40),
                          .well = (uint8_t)(word >> 32),
                          .until = (uint32_t)word};
}

static uint64_t
pack(struct state s)
{
    return (uint64_t)s.state << 62 | (uint64_t)s.trips << 56 | (uint64_t)s.generation << 48 |
           (uint64_t)s.granted << 40 | (uint64_t)s.well << 32 | s.until;
}

static uint64_t
load(const struct breaker *b)
{
    return atomic_load_explicit(&((struct breaker *)b)->word, memory_order_relaxed);
}

static bool
swap(struct breaker *b, uint64_t *seen, struct state next)
{
    return atomic_compare_exchange_strong_explicit(&b->word, seen, pack(next), memory_order_relaxed,
                                                   memory_order_relaxed);
}

/* The low bits go round in 49 days; what is more than half of that ahead has passed. */
static bool
has_passed(uint32_t until, uint64_t now_ms)
{
    return (int32_t)(until - (uint32_t)now_ms) <= 0;
}

/* ---- the window ---- */

static uint32_t
piece_of(const struct breaker_rules *rules, uint64_t now_ms)
{
    uint32_t length = rules->window_ms / BREAKER_PIECES;
    return (uint32_t)(now_ms / (length ? length : 1)) & 0xffffff;
}

static void
count_one(struct breaker *b, uint32_t when, bool is_failure)
{
    _Atomic uint64_t *piece = &b->window[when % BREAKER_PIECES];
    uint64_t seen = atomic_load_explicit(piece, memory_order_relaxed);
    uint64_t next;
    do {
        bool is_now = seen >> 40 == when;
        uint64_t total = (is_now ? seen >> 20 & 0xfffff : 0) + 1;
        uint64_t failed = (is_now ? seen & 0xfffff : 0) + is_failure;
        if (total > 0xfffff) {
            return; /* a million in an eighth of the window say enough */
        }
        next = (uint64_t)when << 40 | total << 20 | failed;
    } while (!atomic_compare_exchange_weak_explicit(piece, &seen, next, memory_order_relaxed,
                                                    memory_order_relaxed));
}

void
breaker_count(const struct breaker *b, const struct breaker_rules *rules, uint64_t now_ms,
              uint32_t *total, uint32_t *failed)
{
    uint32_t now = piece_of(rules, now_ms);
    *total = *failed = 0;
    for (unsigned i = 0; i < BREAKER_PIECES; i++) {
        uint64_t piece =
            atomic_load_explicit(&((struct breaker *)b)->window[i], memory_order_relaxed);
        uint32_t age = (now - (uint32_t)(piece >> 40)) & 0xffffff;
        if (piece != 0 && age < BREAKER_PIECES) {
            *total += piece >> 20 & 0xfffff;
            *failed += piece & 0xfffff;
        }
    }
}

static void
clear_window(struct breaker *b)
{
    for (unsigned i = 0; i < BREAKER_PIECES; i++) {
        atomic_store_explicit(&b->window[i], 0, memory_order_relaxed);
    }
    atomic_store_explicit(&b->streak, 0, memory_order_relaxed);
}

/* ---- states ---- */

static struct state
opened(struct state was, const struct breaker_rules *rules, uint64_t now_ms)
{
    bool is_relapse = was.state == BREAKER_HALF_OPEN || !has_passed(was.until, now_ms);
    struct state next = {.state = BREAKER_OPEN,
                         .generation = was.generation,
                         .granted = was.granted,
                         .well = was.well};
    next.trips = is_relapse && was.trips > 0 ? was.trips : 0;
    uint64_t open_ms = (uint64_t)rules->open_for_ms << next.trips;
    open_ms = open_ms < BREAKER_OPEN_MAX_MS || next.trips == 0 ? open_ms : BREAKER_OPEN_MAX_MS;
    next.trips += next.trips < TRIPS_MAX;
    next.until = (uint32_t)(now_ms + open_ms);
    return next;
}

static struct state
half_opened(struct state was, const struct breaker_rules *rules, uint64_t now_ms)
{
    return (struct state){.state = BREAKER_HALF_OPEN,
                          .trips = was.trips,
                          .generation = (uint8_t)(was.generation + 1),
                          .granted = 1,
                          .until = (uint32_t)(now_ms + rules->open_for_ms)};
}

static struct state
closed(struct state was, const struct breaker_rules *rules, uint64_t now_ms)
{
    uint64_t relapse_ms = 2 * (uint64_t)rules->open_for_ms;
    return (struct state){.state = BREAKER_CLOSED,
                          .trips = was.trips,
                          .generation = was.generation,
                          .until = (uint32_t)(now_ms + relapse_ms)};
}

enum breaker_state
breaker_state(const struct breaker *b, uint64_t now_ms)
{
    struct state s = unpack(load(b));
    return s.state == BREAKER_OPEN && has_passed(s.until, now_ms) ? BREAKER_HALF_OPEN
                                                                  : (enum breaker_state)s.state;
}

void
breaker_probes(const struct breaker *b, uint32_t *granted, uint32_t *well)
{
    struct state s = unpack(load(b));
    *granted = s.granted;
    *well = s.well;
}

uint64_t
breaker_open_ms(const struct breaker *b, uint64_t now_ms)
{
    struct state s = unpack(load(b));
    if (s.state != BREAKER_OPEN || has_passed(s.until, now_ms)) {
        return 0;
    }
    return s.until - (uint32_t)now_ms;
}

bool
breaker_is_passable(const struct breaker *b, const struct breaker_rules *rules, uint64_t now_ms)
{
    struct state s = unpack(load(b));
    switch (s.state) {
    case BREAKER_CLOSED: return true;
    case BREAKER_OPEN: return has_passed(s.until, now_ms);
    default: return s.granted < rules->half_open_requests || has_passed(s.until, now_ms);
    }
}

/* Probes whose results never came have failed. Where none is under way the next ones may take their
 * time to come: a backend with little to do is not kept out for that. */
static bool
has_expired(struct state s, uint64_t now_ms)
{
    return s.state == BREAKER_HALF_OPEN && s.granted > s.well && has_passed(s.until, now_ms);
}

static struct state
granted_one_more(struct state s, const struct breaker_rules *rules, uint64_t now_ms)
{
    bool is_alone = s.granted == s.well;
    s.until = is_alone ? (uint32_t)(now_ms + rules->open_for_ms) : s.until;
    s.granted++;
    return s;
}

static breaker_permit
permit_of(struct state s)
{
    return 0x100u | s.generation;
}

bool
breaker_enter(struct breaker *b, const struct breaker_rules *rules, uint64_t now_ms,
              breaker_permit *permit, enum breaker_change *change)
{
    uint64_t seen = load(b);
    *permit = 0;
    *change = BREAKER_SAME;
    for (;;) {
        struct state s = unpack(seen);
        struct state next = s;
        if (s.state == BREAKER_CLOSED) {
            return true;
        }
        if (has_expired(s, now_ms)) {
            if (swap(b, &seen, opened(s, rules, now_ms))) {
                *change = BREAKER_PROBES_LATE;
                return false;
            }
            continue;
        }
        if (s.state == BREAKER_OPEN && has_passed(s.until, now_ms)) {
            next = half_opened(s, rules, now_ms);
        } else if (s.state == BREAKER_HALF_OPEN && s.granted < rules->half_open_requests) {
            next = granted_one_more(s, rules, now_ms);
        } else {
            return false;
        }
        if (swap(b, &seen, next)) {
            *permit = permit_of(next);
            *change = s.state == BREAKER_OPEN ? BREAKER_PROBING : BREAKER_SAME;
            return true;
        }
    }
}

/* ---- results ---- */

static enum breaker_change
report_probe(struct breaker *b, const struct breaker_rules *rules, uint64_t now_ms,
             breaker_permit permit, bool is_failure)
{
    uint64_t seen = load(b);
    for (;;) {
        struct state s = unpack(seen);
        if (s.state != BREAKER_HALF_OPEN || permit_of(s) != permit) {
            return BREAKER_SAME; /* too late: that period has ended */
        }
        struct state next = s;
        enum breaker_change change = BREAKER_SAME;
        next.well += !is_failure;
        if (is_failure) {
            next = opened(s, rules, now_ms);
            change = BREAKER_PROBE_FAILED;
        } else if (next.well >= rules->half_open_requests) {
            next = closed(s, rules, now_ms);
            change = BREAKER_RECOVERED;
            clear_window(b); /* before it closes: nobody counts while it is half-open */
        }
        if (swap(b, &seen, next)) {
            return change;
        }
    }
}

static bool
is_too_much(const struct breaker *b, const struct breaker_rules *rules, uint64_t now_ms)
{
    uint32_t total, failed;
    uint64_t streak = atomic_load_explicit(&((struct breaker *)b)->streak, memory_order_relaxed);
    if (rules->consecutive != 0 && streak >= rules->consecutive) {
        return true;
    }
    breaker_count(b, rules, now_ms, &total, &failed);
    return total >= rules->min_requests &&
           (uint64_t)failed * 100 >= (uint64_t)total * rules->error_percent;
}

enum breaker_change
breaker_report(struct breaker *b, const struct breaker_rules *rules, uint64_t now_ms,
               breaker_permit permit, bool is_failure, bool may_trip)
{
    uint64_t seen = load(b);
    struct state s = unpack(seen);
    if (permit != 0) {
        return report_probe(b, rules, now_ms, permit, is_failure);
    }
    if (s.state != BREAKER_CLOSED) {
        return BREAKER_SAME; /* it was let through before */
    }
    count_one(b, piece_of(rules, now_ms), is_failure);
    if (!is_failure) {
        if (atomic_load_explicit(&b->streak, memory_order_relaxed) != 0) {
            atomic_store_explicit(&b->streak, 0, memory_order_relaxed);
        }
        return BREAKER_SAME;
    }
    atomic_fetch_add_explicit(&b->streak, 1, memory_order_relaxed);
    if (!may_trip || !is_too_much(b, rules, now_ms) || !swap(b, &seen, opened(s, rules, now_ms))) {
        return BREAKER_SAME; /* another has just done it */
    }
    return BREAKER_TRIPPED;
}

void
breaker_leave(struct breaker *b, breaker_permit permit)
{
    uint64_t seen = load(b);
    for (;;) {
        struct state s = unpack(seen);
        if (permit == 0 || s.state != BREAKER_HALF_OPEN || permit_of(s) != permit ||
            s.granted == 0) {
            return;
        }
        s.granted--;
        if (swap(b, &seen, s)) {
            return;
        }
    }
}

void
breaker_reset(struct breaker *b)
{
    clear_window(b);
    atomic_store_explicit(&b->word, 0, memory_order_relaxed);
}
