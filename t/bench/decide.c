/* SPDX-License-Identifier: Apache-2.0
 *
 * decide.c - nanoseconds that one decision takes: "decide [MILLISECONDS each]". Exit status 1 when
 * a rate limit or a pick by hash takes 100 ns or more.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "conf/arena.h"
#include "conf/maglev.h"
#include "shared/breaker.h"
#include "shared/budget.h"
#include "shared/hash.h"
#include "shared/rate.h"
#include "shared/shm.h"
#include "worker/balance.h"

#define ROUNDS  10000
#define CLIENTS 4096
#define MEMBERS 10

static uint64_t
now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- a rate limit, key included ---- */

static struct rate_table *rates;

static void
decide_rate(unsigned i)
{
    static const uint64_t secret[2] = {1, 2};
    static const struct rate rate = {10000, 20};
    uint8_t address[16] = {10, 0, (uint8_t)(i >> 8 & 15), (uint8_t)i};
    static volatile bool sink;
    sink = rate_take(rates, rate_key(secret, 3, address, sizeof(address)), rate, i).is_admitted;
    (void)sink;
}

/* ---- one more connection of an address, and one less; key included ---- */

static struct shm shm;

static void
decide_client(unsigned i)
{
    static const uint64_t secret[2] = {1, 2};
    uint8_t address[4] = {10, 0, (uint8_t)(i >> 8 & 15), (uint8_t)i};
    uint32_t cell;
    uint64_t key = rate_key(secret, 3, address, sizeof(address));
    if (clients_enter(&shm, shm.rows[0], key, 10, &cell) == CLIENTS_COUNTED) {
        clients_leave(&shm, shm.rows[0], cell);
    }
}

/* ---- a pick by hash ---- */

static struct conf_upstream upstream = {.algorithm = CONF_HASH};
static struct conf_backend backends[MEMBERS];
static struct conf_backend *members[MEMBERS];
static struct conf_pool pool = {.upstream = &upstream, .backends = members, .nbackends = MEMBERS};
static _Atomic uint64_t active[MEMBERS * 8]; /* a cache line each, as in the segment */

static bool
is_usable(const struct conf_backend *b, const void *arg)
{
    (void)arg;
    return b->state == CONF_READY;
}

static uint64_t
active_of(const struct conf_backend *b, const void *arg)
{
    (void)arg;
    return atomic_load_explicit(&active[b->index * 8], memory_order_relaxed);
}

static void
decide_hash(unsigned i)
{
    struct balance_view view = {.is_usable = is_usable, .active = active_of};
    static struct conf_backend *volatile sink;
    uint64_t key = i % CLIENTS;
    view.key = hash_finish(hash_bytes(HASH_BEGIN, &key, sizeof(key)));
    sink = balance_pick(&pool, &view);
    (void)sink;
}

/* ---- a breaker that lets through and is told ---- */

static struct breaker breaker;

static void
decide_breaker(unsigned i)
{
    static const struct breaker_rules rules = {10000, 20, 50, 5, 10000, 3, 0, 50};
    breaker_permit permit;
    enum breaker_change change;
    if (breaker_enter(&breaker, &rules, 5000 + i / 1000, &permit, &change)) {
        breaker_report(&breaker, &rules, 5000 + i / 1000, permit, false, true);
    }
}

static void
decide_budget(unsigned i)
{
    static uint64_t word;
    word = budget_deposit(word, 5000 + i / 1000, 3, 1, 20);
}

static const struct {
    const char *name;
    void (*decide)(unsigned i);
    double most_ns; /* 0: only shown */
} rows[] = {
    {"rate limit", decide_rate, 100},   {"client in, out", decide_client, 0},
    {"pick by hash", decide_hash, 100}, {"breaker", decide_breaker, 0},
    {"retry budget", decide_budget, 0},
};

/* The best of the rounds that fit: what others do on the machine only adds. */
static double
best_ns(void (*decide)(unsigned i), uint64_t budget_ns)
{
    uint64_t best = UINT64_MAX;
    uint64_t began = now_ns();
    for (uint64_t at = began; at - began < budget_ns;) {
        for (unsigned i = 0; i < ROUNDS; i++) {
            decide(i);
        }
        uint64_t end = now_ns();
        best = end - at < best ? end - at : best;
        at = end;
    }
    return (double)best / ROUNDS;
}

static void
prepare(struct conf_arena *arena)
{
    static char ids[MEMBERS][32];
    for (unsigned i = 0; i < MEMBERS; i++) {
        snprintf(ids[i], sizeof(ids[i]), "10.0.0.%u:8080", i + 1);
        backends[i] =
            (struct conf_backend){.id = ids[i], .weight = 1, .index = i, .upstream = &upstream};
        members[i] = &backends[i];
        atomic_init(&active[i * 8], 5);
    }
    pool.table = maglev_build(arena, members, MEMBERS, &pool.table_len);
    rates = aligned_alloc(64, sizeof(*rates));
    if (!rates || shm_create(&shm) != 0) {
        abort();
    }
    memset((void *)rates, 0, sizeof(*rates));
}

int
main(int argc, char **argv)
{
    uint64_t budget_ns = (uint64_t)(argc > 1 ? atoi(argv[1]) : 300) * 1000000u;
    struct conf_arena *arena = conf_arena_new();
    int status = 0;
    prepare(arena);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        double ns = best_ns(rows[i].decide, budget_ns);
        bool is_slow = rows[i].most_ns != 0 && ns >= rows[i].most_ns;
        printf("%-14s %7.1f ns%s\n", rows[i].name, ns, is_slow ? ": too slow" : "");
        status |= is_slow;
    }
    free(rates);
    conf_arena_free(arena);
    return status;
}
