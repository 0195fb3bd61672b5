/* SPDX-License-Identifier: Apache-2.0
 *
 * schedule.c - smooth weighted round robin, made once.
 *
 * In a round of T slots the k-th turn of a member of weight w may be taken from slot kT/w on and
 * must be before slot (k+1)T/w. Of the turns that may be taken, the one with the earliest deadline
 * is: then every deadline is met, and nobody is ever a whole turn away from its share.
 */
#include "conf/schedule.h"

#include <assert.h>

/* One member and its next turn. */
struct turn {
    unsigned weight;
    unsigned taken;    /* turns it had */
    unsigned deadline; /* of the next one */
    int32_t later;     /* next member that becomes due in the same slot; -1: none */
};

/* Members that are due, the one with the earliest deadline first. */
struct heap {
    const struct turn *turns;
    uint32_t *members;
    unsigned n;
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
is_before(const struct heap *heap, unsigned left, unsigned right)
{
    uint32_t a = heap->members[left], b = heap->members[right];
    if (heap->turns[a].deadline != heap->turns[b].deadline) {
        return heap->turns[a].deadline < heap->turns[b].deadline;
    }
    return a < b;
}

static void
swap(struct heap *heap, unsigned left, unsigned right)
{
    uint32_t kept = heap->members[left];
    heap->members[left] = heap->members[right];
    heap->members[right] = kept;
}

static void
heap_add(struct heap *heap, uint32_t member)
{
    unsigned at = heap->n++;
    heap->members[at] = member;
    while (at && is_before(heap, at, (at - 1) / 2)) {
        swap(heap, at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

static uint32_t
heap_take(struct heap *heap)
{
    uint32_t first = heap->members[0];
    heap->members[0] = heap->members[--heap->n];
    for (unsigned at = 0;;) {
        unsigned least = at;
        for (unsigned child = 2 * at + 1; child <= 2 * at + 2 && child < heap->n; child++) {
            if (is_before(heap, child, least)) {
                least = child;
            }
        }
        if (least == at) {
            return first;
        }
        swap(heap, at, least);
        at = least;
    }
}

/* Smallest whole weights whose sum fits. Everybody keeps a turn. */
static unsigned
shrink(const unsigned *weights, unsigned n, struct turn *turns)
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
        turns[i].weight = weight ? (unsigned)weight : 1;
        sum += turns[i].weight;
    }
    return sum;
}

/* What the schedule is made with. */
struct round {
    struct turn *turns;
    unsigned len;
    int32_t *due; /* for each slot the first member that waits for it; -1: none */
    struct heap heap;
};

/* Queue the next turn of a member, if it has one, for a slot from `now` on. */
static void
queue_turn(struct round *round, uint32_t member, unsigned now)
{
    struct turn *turn = &round->turns[member];
    if (turn->taken == turn->weight) {
        return;
    }
    uint64_t from = (uint64_t)turn->taken * round->len / turn->weight;
    uint64_t to = ((uint64_t)turn->taken + 1) * round->len;
    turn->deadline = (unsigned)((to + turn->weight - 1) / turn->weight);
    if (from <= now) {
        heap_add(&round->heap, member);
    } else {
        turn->later = round->due[from];
        round->due[from] = (int32_t)member;
    }
}

static void
fill(struct round *round, uint16_t *schedule)
{
    for (unsigned slot = 0; slot < round->len; slot++) {
        for (int32_t i = round->due[slot]; i >= 0; i = round->turns[i].later) {
            heap_add(&round->heap, (uint32_t)i);
        }
        assert(round->heap.n > 0);
        uint32_t member = heap_take(&round->heap);
        schedule[slot] = (uint16_t)member;
        round->turns[member].taken++;
        queue_turn(round, member, slot + 1);
    }
}

uint16_t *
schedule_build(struct conf_arena *arena, const unsigned *weights, unsigned n, unsigned *len)
{
    assert(n <= SCHEDULE_MEMBERS);
    struct conf_arena *scratch = conf_arena_new();
    struct round round = {.turns = conf_arena_array(scratch, n, sizeof(*round.turns))};
    *len = round.len = shrink(weights, n, round.turns);
    round.due = conf_arena_array(scratch, round.len, sizeof(*round.due));
    round.heap.turns = round.turns;
    round.heap.members = conf_arena_array(scratch, n, sizeof(*round.heap.members));
    memset(round.due, 0xff, round.len * sizeof(*round.due));
    for (uint32_t i = 0; i < n; i++) {
        queue_turn(&round, i, 0);
    }
    uint16_t *schedule = conf_arena_array(arena, round.len, sizeof(*schedule));
    fill(&round, schedule);
    conf_arena_free(scratch);
    return schedule;
}
