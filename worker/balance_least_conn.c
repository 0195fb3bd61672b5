/* SPDX-License-Identifier: Apache-2.0
 *
 * balance_least_conn.c - the fewest exchanges in flight over all workers, in proportion to weight.
 *
 * Among equals the shared cursor says whose turn it is, so that they get the same, also beside one
 * that is not usable; where there are none no turn is taken, as in round robin. Those that are idle
 * are equals whatever their weights, and take turns by them: else, while there is one request at a
 * time, the heaviest would get all.
 */
#include "worker/balance.h"

/* Its multiples are spread evenly, in any row of them. */
#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

/* (active + 1) / weight without division: below, at or above 0 for less, as much or more. */
static int
compare_load(const struct conf_backend *b, const struct conf_backend *than,
             const struct balance_view *view)
{
    uint64_t mine = (view->active(b, view->arg) + 1) * view->weight(than, view->arg);
    uint64_t other = (view->active(than, view->arg) + 1) * view->weight(b, view->arg);
    return mine < other ? -1 : mine > other;
}

/* Of the nequal that are usable and have as much as first, the one whose turn it is. */
static struct conf_backend *
pick_equal(const struct conf_pool *pool, const struct balance_view *view,
           struct conf_backend *first, unsigned nequal)
{
    uint64_t left = view->ticket(pool, view->arg) % nequal;
    for (unsigned i = 0; i < pool->nbackends; i++) {
        struct conf_backend *b = pool->backends[i];
        if (view->is_usable(b, view->arg) && compare_load(b, first, view) == 0 && left-- == 0) {
            return b;
        }
    }
    return first; /* other workers have changed what they have */
}

/* Of those that are usable and idle, first among them, the one whose turn it is by weight. */
static struct conf_backend *
pick_idle(const struct conf_pool *pool, const struct balance_view *view, struct conf_backend *first)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < pool->nbackends; i++) {
        struct conf_backend *b = pool->backends[i];
        if (view->is_usable(b, view->arg) && view->active(b, view->arg) == 0) {
            total += view->weight(b, view->arg);
        }
    }
    uint64_t left = (view->ticket(pool, view->arg) * GOLDEN >> 32) * total >> 32;
    for (unsigned i = 0; i < pool->nbackends; i++) {
        struct conf_backend *b = pool->backends[i];
        if (view->is_usable(b, view->arg) && view->active(b, view->arg) == 0) {
            uint64_t weight = view->weight(b, view->arg);
            if (left < weight) {
                return b;
            }
            left -= weight;
        }
    }
    return first; /* other workers have changed what they have */
}

static struct conf_backend *
least_conn_pick(const struct conf_pool *pool, const struct balance_view *view)
{
    struct conf_backend *best = NULL;
    unsigned nequal = 0;
    unsigned nidle = 0;
    for (unsigned i = 0; i < pool->nbackends; i++) {
        struct conf_backend *b = pool->backends[i];
        if (!view->is_usable(b, view->arg)) {
            continue;
        }
        nidle += view->active(b, view->arg) == 0;
        int order = best ? compare_load(b, best, view) : -1;
        if (order < 0) {
            best = b;
            nequal = 1;
        } else {
            nequal += order == 0;
        }
    }
    if (nidle > nequal && view->active(best, view->arg) == 0) {
        return pick_idle(pool, view, best);
    }
    return nequal > 1 ? pick_equal(pool, view, best, nequal) : best;
}

const struct balance_ops balance_least_conn = {.pick = least_conn_pick};
