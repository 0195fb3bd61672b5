/* SPDX-License-Identifier: Apache-2.0
 *
 * balance_hash.c - the same key to the same backend: Maglev's table, with bounded load.
 *
 * A backend that has more than a quarter above its share of what is in flight passes the key on,
 * and so does one that is not usable: to the entry of the next number that the key draws, so that
 * the keys of one spread over all others. Those who are out have no share: what they had is the
 * others', who would else all seem to have too much.
 */
#include "shared/hash.h"
#include "worker/balance.h"

#define DRAWS 64 /* then whoever comes next in the table */

/* 1.25 times its share among those that are usable, rounded up. */
static bool
is_overloaded(const struct conf_pool *pool, const struct balance_view *view,
              const struct conf_backend *b)
{
    uint64_t own = view->active(b, view->arg);
    uint64_t total = 1;
    uint64_t weights = 0;
    if (own == 0) {
        return false;
    }
    for (unsigned i = 0; i < pool->nbackends; i++) {
        if (view->is_usable(pool->backends[i], view->arg)) {
            total += view->active(pool->backends[i], view->arg);
            weights += pool->backends[i]->weight;
        }
    }
    uint64_t most = (total * b->weight * 5 + weights * 4 - 1) / (weights * 4);
    return own >= most;
}

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

/* The table is long: it is not searched for what is not there. */
static struct conf_backend *
next_in_table(const struct conf_pool *pool, const struct balance_view *view, uint64_t from)
{
    unsigned len = has_usable(pool, view) ? pool->table_len : 0;
    for (unsigned i = 0; i < len; i++) {
        struct conf_backend *b = pool->backends[pool->table[(from + i) % pool->table_len]];
        if (view->is_usable(b, view->arg)) {
            return b;
        }
    }
    return NULL;
}

static struct conf_backend *
hash_pick(const struct conf_pool *pool, const struct balance_view *view)
{
    struct conf_backend *loaded = NULL; /* the first that is usable and has too much */
    uint64_t key = view->key;
    for (unsigned i = 0; i < DRAWS; i++) {
        struct conf_backend *b = pool->backends[pool->table[key % pool->table_len]];
        if (view->is_usable(b, view->arg)) {
            if (!is_overloaded(pool, view, b)) {
                return b;
            }
            loaded = loaded ? loaded : b;
        }
        key = hash_finish(key + 1);
    }
    return loaded ? loaded : next_in_table(pool, view, key);
}

const struct balance_ops balance_hash = {.pick = hash_pick};
