/* SPDX-License-Identifier: Apache-2.0
 *
 * balance_round_robin.c - smooth weighted round robin by tickets.
 *
 * The order stands in the pool's schedule, which depends on weights only; the cursor is shared by
 * all workers. When the backend of a ticket is not usable another ticket is taken, so that its
 * share is spread over all others in proportion to their weights, with no rebuilding. Where none is
 * usable no ticket is taken: backups, and those who are down when an upstream fails open, are asked
 * next by the same cursor, and would get every second one only.
 */
#include "worker/balance.h"

static bool
has_usable(const struct conf_pool *pool, const struct balance_view *view)
{
    for (unsigned i = 0; i < pool->nbackends; i++) {
        if (view->is_usable(pool->backends[i], view->arg)) {
            return true;
        }
    }
    return false;
}

/* Tickets come to other workers too, so a run of them need not meet every entry: look for any. */
static struct conf_backend *
first_usable(const struct conf_pool *pool, const struct balance_view *view, uint64_t from)
{
    for (unsigned i = 0; i < pool->schedule_len; i++) {
        unsigned at = (unsigned)((from + i) % pool->schedule_len);
        struct conf_backend *b = pool->backends[pool->schedule[at]];
        if (view->is_usable(b, view->arg)) {
            return b;
        }
    }
    return NULL;
}

static struct conf_backend *
round_robin_pick(const struct conf_pool *pool, const struct balance_view *view)
{
    uint64_t ticket = 0;
    if (!has_usable(pool, view)) {
        return NULL;
    }
    for (unsigned taken = 0; taken < 2 * pool->schedule_len; taken++) {
        ticket = view->ticket(pool, view->arg);
        struct conf_backend *b = pool->backends[pool->schedule[ticket % pool->schedule_len]];
        if (view->is_usable(b, view->arg) && view->takes_turn(b, view->arg)) {
            return b;
        }
    }
    return first_usable(pool, view, ticket);
}

const struct balance_ops balance_round_robin = {.pick = round_robin_pick};
