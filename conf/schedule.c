/* SPDX-License-Identifier: Apache-2.0
 *
 * schedule.c - smooth weighted round robin, made once.
 *
 * The k-th turn of a member of weight w is due at (2k + 1) / 2w of the round, the middle of its
 * k-th share; a heap gives the turns in the order of their times.
 */
#include "conf/schedule.h"

#include <assert.h>

struct turn {
    uint64_t odd;    /* 2k + 1 */
    unsigned weight; /* due at odd / 2 weight */
    unsigned member;
};

static unsigned
gcd(unsigned a, unsigned b)
{
    while (b) {
        unsigned rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static bool
is_before(const struct turn *a, const struct turn *b)
{
    uint64_t left = a->odd * b->weight, right = b->odd * a->weight;
    return left != right ? left < right : a->member < b->member;
}

static void
sift_down(struct turn *heap, unsigned n, unsigned at)
{
    for (;;) {
        unsigned least = at;
        for (unsigned child = 2 * at + 1; child <= 2 * at + 2 && child < n; child++) {
            if (is_before(&heap[child], &heap[least])) {
                least = child;
            }
        }
        if (least == at) {
            return;
        }
        struct turn swap = heap[at];
        heap[at] = heap[least];
        heap[least] = swap;
        at = least;
    }
}

/* Smallest whole weights whose sum fits. Everybody keeps a turn. */
static unsigned
shrink(const unsigned *weights, unsigned n, struct turn *heap)
{
    unsigned divisor = 0, sum = 0;
    uint64_t given = 0;
    for (unsigned i = 0; i < n; i++) {
        assert(weights[i] > 0);
        divisor = gcd(weights[i], divisor);
        given += weights[i];
    }
    given = n ? given / divisor : 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t weight = weights[i] / divisor;
        if (given > SCHEDULE_MAX) {
            weight = weight * (SCHEDULE_MAX - n) / given;
        }
        heap[i] = (struct turn){1, weight ? (unsigned)weight : 1, i};
        sum += heap[i].weight;
    }
    return sum;
}

uint16_t *
schedule_build(struct conf_arena *arena, const unsigned *weights, unsigned n, unsigned *len)
{
    assert(n <= SCHEDULE_MEMBERS);
    struct conf_arena *scratch = conf_arena_new();
    struct turn *heap = conf_arena_array(scratch, n, sizeof(*heap));
    *len = shrink(weights, n, heap);
    uint16_t *schedule = conf_arena_array(arena, *len, sizeof(*schedule));
    for (unsigned at = n / 2; at > 0; at--) {
        sift_down(heap, n, at - 1);
    }
    for (unsigned i = 0; i < *len; i++) {
        schedule[i] = (uint16_t)heap[0].member;
        heap[0].odd += 2;
        sift_down(heap, n, 0);
    }
    conf_arena_free(scratch);
    return schedule;
}
