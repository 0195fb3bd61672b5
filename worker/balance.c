/* SPDX-License-Identifier: Apache-2.0
 *
 * balance.c - the table of algorithms.
 */
#include "worker/balance.h"

static const struct balance_ops *const algorithms[] = {
    [CONF_ROUND_ROBIN] = &balance_round_robin,
    [CONF_W_ROUND_ROBIN] = &balance_round_robin,
    [CONF_LEAST_CONN] = &balance_least_conn,
    [CONF_IP_HASH] = &balance_ip_hash,
    [CONF_RANDOM_TWO] = &balance_random_two,
    [CONF_EWMA] = &balance_ewma,
    [CONF_HASH] = &balance_hash,
};

struct conf_backend *
balance_pick(const struct conf_pool *pool, const struct balance_view *view)
{
    if (pool->nbackends == 0) {
        return NULL;
    }
    struct conf_backend *b = algorithms[pool->upstream->algorithm]->pick(pool, view);
    return b || !pool->backups ? b : balance_pick(pool->backups, view);
}
