/* SPDX-License-Identifier: Apache-2.0
 *
 * breaker.h - a circuit breaker in shared memory: one state for all workers, kept by nobody.
 *
 *     CLOSED --(too many failures)--> OPEN --(open_for)--> HALF_OPEN --(all probes well)--> CLOSED
 *                                      ^                       |
 *                                      +---(one failed, or its result never came)--+
 *
 * All of the state is one word, changed by compare-and-swap, so each change happens once whoever
 * sees its cause. Half-open lets exactly half_open_requests through; a period that has not ended by
 * their results ends with open_for, and what was not heard of counts as failed: a death leaks
 * nothing. A breaker that trips again soon after it closed stays open twice as long as before.
 */
#ifndef SHARED_BREAKER_H
#define SHARED_BREAKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define BREAKER_PIECES      8           /* of the window */
#define BREAKER_OPEN_MAX_MS (5 * 60000) /* however often it trips */

enum breaker_state { BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN };
/* What an operator has said of it: nothing, or what it is whatever happens. */
enum breaker_said { BREAKER_AUTO, BREAKER_SAID_OPEN, BREAKER_SAID_CLOSED };

struct breaker {
    _Atomic uint64_t word;                   /* see breaker.c */
    _Atomic uint64_t window[BREAKER_PIECES]; /* {when:24, total:20, failed:20} */
    _Atomic uint64_t streak;                 /* failures in a row */
};

struct breaker_rules {
    uint32_t window_ms;    /* from 8 on */
    uint32_t min_requests; /* in the window, before error_percent counts */
    uint32_t error_percent;
    uint32_t consecutive; /* failures in a row; 0: they do not count */
    uint32_t open_for_ms;
    uint32_t half_open_requests; /* 1 to 255 */
    /* What the caller judges: */
    uint32_t latency_factor; /* 0: none */
    uint32_t max_ejected_percent;
};

/* What a request was let through as: 0 is an ordinary one, else a probe. */
typedef uint32_t breaker_permit;

/* What happened to the state. */
enum breaker_change {
    BREAKER_SAME,
    BREAKER_TRIPPED,      /* opened by requests that failed */
    BREAKER_PROBE_FAILED, /* opened again by a probe that failed */
    BREAKER_PROBES_LATE,  /* opened again: half-open ended before all results were there */
    BREAKER_PROBING,
    BREAKER_RECOVERED
};

/* The state at now (monotonic, the same clock in all calls). */
enum breaker_state
breaker_state(const struct breaker *b, uint64_t now_ms);

/* Would a request be let through now? Changes nothing. */
bool
breaker_is_passable(const struct breaker *b, const struct breaker_rules *rules, uint64_t now_ms);
/* Let one through: true, with its permit. false: another came first, or it is open. */
bool
breaker_enter(struct breaker *b, const struct breaker_rules *rules, uint64_t now_ms,
              breaker_permit *permit, enum breaker_change *change);
/* The result of one that was let through. may_trip: no more than max_ejected_percent are open. */
enum breaker_change
breaker_report(struct breaker *b, const struct breaker_rules *rules, uint64_t now_ms,
               breaker_permit permit, bool is_failure, bool may_trip);
/* It ended without a result (its client went away): another probe may take its place. */
void
breaker_leave(struct breaker *b, breaker_permit permit);

/* Requests and failures in the window. */
void
breaker_count(const struct breaker *b, const struct breaker_rules *rules, uint64_t now_ms,
              uint32_t *total, uint32_t *failed);
/* Probes of the half-open period that is, or was the last: let through, and those that went well.
 */
void
breaker_probes(const struct breaker *b, uint32_t *granted, uint32_t *well);
/* Milliseconds until it may be tried; 0: now. */
uint64_t
breaker_open_ms(const struct breaker *b, uint64_t now_ms);

/* Forget everything: closed. */
void
breaker_reset(struct breaker *b);

#endif
