/* SPDX-License-Identifier: Apache-2.0
 *
 * balance_least_conn.c - the fewest exchanges in flight over all workers, in proportion to weight.
 *
 * Among equals the shared cursor says where to begin looking, so that idle backends take turns.
 */
#include "worker/balance.h"

/* (active + 1) / weight, compared without division. */
static bool
is_less_loaded(uint64_t active, uint64_t weight, uint64_t than_active, uint64_t than_weight)
{
    return (active + 1) * than_weight < (than_active + 1) * weight;
}

static struct conf_backend *
least_conn_pick(const struct conf_pool *pool, const struct balance_view *view)
{
    struct conf_backend *best = NULL;
    uint64_t best_active = 0;
    uint64_t best_weight = 1;
    uint64_t ticket = view->ticket(pool, view->arg);
    unsigned at = (unsigned)(ticket % pool->nbackends);
    for (unsigned i = 0; i < pool->nbackends; i++) {
        struct conf_backend *b = pool->backends[at];
        at = at + 1 == pool->nbackends ? 0 : at + 1;
        if (!view->is_usable(b, view->arg)) {
            continue;
        }
        uint64_t active = view->active(b, view->arg);
        uint64_t weight = view->weight(b, view->arg);
        if (!best || is_less_loaded(active, weight, best_active, best_weight)) {
            best = b;
            best_weight = weight;
            best_active = active;
        }
    }
    return best;
}

const struct balance_ops balance_least_conn = {.pick = least_conn_pick};
