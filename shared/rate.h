/* SPDX-License-Identifier: Apache-2.0
 *
 * rate.h - rate limits for any number of keys in a table of fixed size that all workers share.
 *
 * GCRA: an entry holds the time at which its bucket will be full again, so a decision is one
 * compare-and-swap and an entry whose time has passed says nothing any more. The table is
 * set-associative; an entry that still holds a client back is never given up for another. Where a
 * set is full of those, the keys that find no place in it share its overflow entry: strangers there
 * are limited together, and nobody known goes free.
 *
 * An entry is {tag:24, time:40}, the time in microseconds modulo 2^40 (12 days). Times more than
 * half of that ahead are past; rate_sweep() clears what has passed before it could come round.
 */
#ifndef SHARED_RATE_H
#define SHARED_RATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RATE_SETS 32768 /* a power of two */
#define RATE_WAYS 8     /* entries of a set: a cache line */
#define RATE_US_MAX \
    (UINT64_C(1) << 38) /* the longest that a whole burst may take to come back: 3 days */

struct rate_table {
    _Alignas(64) _Atomic uint64_t entries[RATE_SETS][RATE_WAYS];
    _Alignas(64) _Atomic uint64_t overflow[RATE_SETS];
};

struct rate {
    uint32_t interval_us; /* between two requests at the rate; at least 1 */
    uint32_t burst;       /* how many may come at once; at least 1; burst * interval_us is at most
                             RATE_US_MAX */
};

struct rate_verdict {
    bool is_admitted;
    uint32_t remaining; /* requests that would be admitted now */
    uint64_t reset_us;  /* until the bucket is full again */
    uint64_t retry_us;  /* until the next request is admitted; 0: now */
};

/* One request now (monotonic). key is what rate_key() gives. */
struct rate_verdict
rate_take(struct rate_table *table, uint64_t key, struct rate rate, uint64_t now_us);

/* The arithmetic of it: full_us is when the bucket is full again, relative to now (negative: it has
 * been for long); on admission *next_us becomes its new value. */
struct rate_verdict
rate_judge(int64_t full_us, struct rate rate, uint64_t *next_us);

/* SipHash-2-4 of a limit's number and the key's bytes, under a secret of the segment: nobody
 * outside can choose addresses that meet in one set. */
uint64_t
rate_key(const uint64_t secret[2], uint64_t limit, const void *bytes, size_t len);

/* Clear what has passed in n sets from set first on (modulo RATE_SETS). Every set within a day. */
void
rate_sweep(struct rate_table *table, unsigned first, unsigned n, uint64_t now_us);

#endif
