/* SPDX-License-Identifier: Apache-2.0
 *
 * balance_ip_hash.c - the same client to the same backend: weighted rendezvous hashing.
 *
 * Each usable backend draws a number from (client address, its id); the greatest by weight wins.
 * When a backend goes away only its own clients move, and when it returns only they return. It
 * depends on ids and weights alone, so all workers and all machines agree.
 */
#include "conf/rendezvous.h"
#include "worker/balance.h"

static struct conf_backend *
ip_hash_pick(const struct conf_pool *pool, const struct balance_view *view)
{
    struct conf_backend *best = NULL;
    double best_score = 0;
    for (unsigned i = 0; i < pool->nbackends; i++) {
        struct conf_backend *b = pool->backends[i];
        if (!view->is_usable(b, view->arg)) {
            continue;
        }
        double its = rendezvous_score(b, view->client);
        if (!best || its > best_score) {
            best = b;
            best_score = its;
        }
    }
    return best;
}

const struct balance_ops balance_ip_hash = {.pick = ip_hash_pick};
