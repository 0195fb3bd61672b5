/* SPDX-License-Identifier: Apache-2.0
 *
 * budget.h - how many retries an upstream may have, in one word: {when:32 ms, tokens:32 of 1/1000}.
 *
 * Each first attempt deposits a part of a token and each second some more; what is there fades so
 * that no more is ever saved than comes in ten seconds. A retry takes a whole token. So retries are
 * a bounded part of the requests, and never become the outage. All functions are pure.
 */
#ifndef SHARED_BUDGET_H
#define SHARED_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/ewma.h"

#define BUDGET_TOKEN    1000u
#define BUDGET_SAVED    10u /* seconds' worth: EWMA_HALF_MS / ln 2 */
#define BUDGET_RATE_MAX 100000u

/* Tokens (1/1000) there are now; a word of 0 is one that was never used. */
static inline uint32_t
budget_read(uint64_t word, uint32_t now_ms, uint32_t min_per_second)
{
    uint32_t floor = min_per_second * BUDGET_SAVED * BUDGET_TOKEN;
    uint32_t tokens = (uint32_t)word;
    uint32_t elapsed = ewma_elapsed(word, now_ms);
    if (word == 0) {
        return floor;
    }
    return tokens >= floor ? floor + ewma_decay(tokens - floor, elapsed)
                           : floor - ewma_decay(floor - tokens, elapsed);
}

static inline uint64_t
budget_word(uint64_t word, uint32_t now_ms, uint64_t tokens)
{
    uint32_t when = word ? (uint32_t)(word >> 32) + ewma_elapsed(word, now_ms) : now_ms;
    tokens = tokens < UINT32_MAX ? tokens : UINT32_MAX;
    return (uint64_t)(when ? when : 1) << 32 | tokens;
}

/* The word after n first attempts. */
static inline uint64_t
budget_deposit(uint64_t word, uint32_t now_ms, uint32_t min_per_second, uint32_t n,
               uint32_t percent)
{
    uint64_t more = (uint64_t)n * percent * (BUDGET_TOKEN / 100);
    return budget_word(word, now_ms, budget_read(word, now_ms, min_per_second) + more);
}

/* true, and *next: a token was taken. false: there is none. */
static inline bool
budget_take(uint64_t word, uint32_t now_ms, uint32_t min_per_second, uint64_t *next)
{
    uint32_t tokens = budget_read(word, now_ms, min_per_second);
    if (tokens < BUDGET_TOKEN) {
        return false;
    }
    *next = budget_word(word, now_ms, tokens - BUDGET_TOKEN);
    return true;
}

#endif
