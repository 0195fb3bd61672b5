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
};

struct conf_backend *
balance_pick(const struct conf_pool *pool, const struct balance_view *view)
{
    if (pool->nbackends == 0) {
        return NULL;
    }
    return algorithms[pool->upstream->algorithm]->pick(pool, view);
}
