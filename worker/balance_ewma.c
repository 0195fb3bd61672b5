/* SPDX-License-Identifier: Apache-2.0
 *
 * balance_ewma.c - the least expected wait: peak-EWMA latency times what is in flight, for the
 * weight. Latency and flight are one truth of all workers, so the least of all may be taken without
 * everybody running to the same one; among equals a random one begins.
 */
#include "worker/balance.h"

/* What a backend that has not answered yet is taken for: tried soon, but not by everybody. */
#define UNKNOWN_US 1000

static struct conf_backend *
ewma_pick(const struct conf_pool *pool, const struct balance_view *view)
{
    struct conf_backend *best = NULL;
    uint64_t best_cost = 0;
    uint64_t best_weight = 1;
    unsigned at = (unsigned)(view->random(view->arg) % pool->nbackends);
    for (unsigned i = 0; i < pool->nbackends; i++) {
        struct conf_backend *b = pool->backends[at];
        at = at + 1 == pool->nbackends ? 0 : at + 1;
        if (!view->is_usable(b, view->arg)) {
            continue;
        }
        uint64_t us = view->latency_us(b, view->arg);
        uint64_t cost = (us ? us : UNKNOWN_US) * (view->active(b, view->arg) + 1);
        uint64_t weight = view->weight(b, view->arg);
        if (!best || cost * best_weight < best_cost * weight) {
            best = b;
            best_cost = cost;
            best_weight = weight;
        }
    }
    return best;
}

const struct balance_ops balance_ewma = {.pick = ewma_pick};
