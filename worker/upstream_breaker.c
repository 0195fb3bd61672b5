/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream_breaker.c - circuit breakers of backends: who is let through, what is told of it. The
 * breaker itself is shared/breaker.c.
 */
#include <stdio.h>
#include <stdlib.h>

#include "conf/backend_state.h"
#include "shared/log.h"
#include "worker/stream.h"
#include "worker/upstream_private.h"
#include "worker/worker.h"

#define MEDIAN_EVERY_MS 250

static struct breaker *
breaker_of(const struct conf_backend *b)
{
    return &worker.shm->s->backends[b->slot].breaker;
}

bool
upstream_breaker_is_passable(const struct conf_backend *b)
{
    return backend_breaker_is_passable(worker.shm, b, worker_now_ms());
}

/* While an operator says what it is, nothing is counted. */
static bool
is_by_itself(const struct conf_backend *b)
{
    return b->upstream->breaker && backend_breaker_said(worker.shm, b) == BREAKER_AUTO;
}

static void
log_opening(const struct conf_backend *b, enum breaker_change change)
{
    const struct conf_upstream *up = b->upstream;
    uint32_t of, n;
    char why[64];
    if (change == BREAKER_TRIPPED) {
        breaker_count(breaker_of(b), up->breaker, worker_now_ms(), &of, &n);
        snprintf(why, sizeof(why), "%u of %u requests failed", n, of);
    } else if (change == BREAKER_PROBE_FAILED) {
        breaker_probes(breaker_of(b), &of, &n);
        snprintf(why, sizeof(why), "a probe failed, %u of %u went well", n, of);
    } else {
        breaker_probes(breaker_of(b), &of, &n);
        snprintf(why, sizeof(why), "only %u of %u probes went well in time", n,
                 up->breaker->half_open_requests);
    }
    shm_count(&worker.backends[b->slot]->counters->trips, 1);
    log_warn("backend %s/%s: breaker opens for %llu ms: %s", up->name, b->id,
             (unsigned long long)breaker_open_ms(breaker_of(b), worker_now_ms()), why);
}

/* Said once, by whoever made the change. */
static void
log_change(const struct conf_backend *b, enum breaker_change change)
{
    const struct conf_upstream *up = b->upstream;
    switch (change) {
    case BREAKER_TRIPPED:
    case BREAKER_PROBE_FAILED:
    case BREAKER_PROBES_LATE: log_opening(b, change); break;
    case BREAKER_PROBING:
        log_info("backend %s/%s: breaker is half-open: %u requests are let through", up->name,
                 b->id, up->breaker->half_open_requests);
        break;
    case BREAKER_RECOVERED:
        log_info("backend %s/%s: breaker closes: the backend has recovered", up->name, b->id);
        break;
    case BREAKER_SAME: break;
    }
}

bool
upstream_breaker_enter(struct stream *s, const struct conf_backend *b)
{
    enum breaker_change change;
    breaker_permit permit = 0;
    if (!is_by_itself(b)) {
        s->permit = 0;
        return backend_breaker_said(worker.shm, b) != BREAKER_SAID_OPEN;
    }
    bool is_in =
        breaker_enter(breaker_of(b), b->upstream->breaker, worker_now_ms(), &permit, &change);
    s->permit = permit;
    log_change(b, change);
    return is_in;
}

/* Would one more backend without requests be too many? One always may be. */
static bool
may_trip(const struct conf_upstream *up)
{
    unsigned out = 0;
    for (unsigned i = 0; i < up->nbackends; i++) {
        out += backend_breaker(worker.shm, &up->backends[i], worker_now_ms()) != BREAKER_CLOSED;
    }
    return out == 0 || (out + 1) * 100 <= up->nbackends * up->breaker->max_ejected_percent;
}

void
upstream_report(struct stream *s, bool is_failure)
{
    const struct conf_backend *b = s->upstream ? s->backend : NULL;
    if (!b || !is_by_itself(b) || !worker.backends[b->slot]) {
        return;
    }
    breaker_permit permit = s->permit;
    s->permit = 0; /* a probe has one result */
    log_change(b, breaker_report(breaker_of(b), b->upstream->breaker, worker_now_ms(), permit,
                                 is_failure, is_failure && may_trip(b->upstream)));
}

void
upstream_breaker_leave(struct stream *s, unsigned slot)
{
    if (s->permit != 0) {
        breaker_leave(&worker.shm->s->backends[slot].breaker, s->permit);
        s->permit = 0;
    }
}

/* ---- latency ---- */

static int
compare_latencies(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* Of the backends whose latency is known; 0: fewer than two. Of an even number the quicker one in
 * the middle, or of two the slow one would be held to itself. Looked at a few times a second. */
static uint64_t
median_latency(const struct conf_upstream *up)
{
    static struct {
        uint64_t at_ms, median_us;
    } last[SHM_UPSTREAMS];
    if (worker_now_ms() - last[up->slot].at_ms < MEDIAN_EVERY_MS) {
        return last[up->slot].median_us;
    }
    uint64_t *all = malloc(up->nbackends * sizeof(*all));
    unsigned n = 0;
    for (unsigned i = 0; all && i < up->nbackends; i++) {
        all[n] = shm_backend_latency(worker.shm, up->backends[i].slot, worker_now_us());
        n += all[n] != 0;
    }
    if (n > 1) {
        qsort(all, n, sizeof(*all), compare_latencies);
    }
    last[up->slot].at_ms = worker_now_ms();
    last[up->slot].median_us = n > 1 ? all[(n - 1) / 2] : 0;
    free(all);
    return last[up->slot].median_us;
}

bool
upstream_is_too_slow(const struct stream *s, uint64_t us)
{
    const struct breaker_rules *rules = s->upstream->breaker;
    if (!rules || rules->latency_factor == 0) {
        return false;
    }
    uint64_t median = median_latency(s->upstream);
    return median != 0 && us > median * rules->latency_factor;
}
