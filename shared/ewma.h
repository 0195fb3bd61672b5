/* SPDX-License-Identifier: Apache-2.0
 *
 * ewma.h - peak-EWMA of a latency in one word: {when:32 ms, value:32 us}.
 *
 * A worse sample counts at once, better ones pull it down with a half-life, and silence forgives at
 * the same pace, so that a backend that was slow is tried again. All functions are pure.
 */
#ifndef SHARED_EWMA_H
#define SHARED_EWMA_H

#include <stdint.h>

#define EWMA_HALF_MS 7000

/* value after so long; between two halvings on a straight line. */
static inline uint32_t
ewma_decay(uint32_t value, uint32_t elapsed_ms)
{
    uint32_t halvings = elapsed_ms / EWMA_HALF_MS;
    if (halvings > 31) {
        return 0;
    }
    value >>= halvings;
    uint64_t part = elapsed_ms % EWMA_HALF_MS;
    return (uint32_t)(value - value * part / (2 * EWMA_HALF_MS));
}

/* Workers read the clock once a turn: one may be a little behind what another has written. */
static inline uint32_t
ewma_elapsed(uint64_t word, uint32_t now_ms)
{
    uint32_t elapsed = now_ms - (uint32_t)(word >> 32);
    return (int32_t)elapsed > 0 ? elapsed : 0;
}

/* What is expected now, microseconds; 0: nothing is known, or no longer. now_ms: any clock's low
 * bits. */
static inline uint32_t
ewma_read(uint64_t word, uint32_t now_ms)
{
    return ewma_decay((uint32_t)word, ewma_elapsed(word, now_ms));
}

/* The word after a sample. */
static inline uint64_t
ewma_next(uint64_t word, uint32_t now_ms, uint32_t sample_us)
{
    uint32_t value = (uint32_t)word;
    uint32_t elapsed = ewma_elapsed(word, now_ms);
    sample_us += sample_us == 0;
    if (sample_us < value) {
        sample_us += ewma_decay(value - sample_us, elapsed);
    }
    uint32_t when = word ? (uint32_t)(word >> 32) + elapsed : now_ms;
    return (uint64_t)when << 32 | sample_us;
}

#endif
