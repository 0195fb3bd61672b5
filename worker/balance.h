/* SPDX-License-Identifier: Apache-2.0
 *
 * balance.h - choose a backend: one algorithm a file, balance_NAME.c, one row in balance.c.
 *
 * Algorithms are pure: what they need to know of the world they ask through struct balance_view.
 */
#ifndef WORKER_BALANCE_H
#define WORKER_BALANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"
#include "shared/addr.h"

struct balance_view {
    /* May this backend get this request: up, below its limits, not tried before. */
    bool (*is_usable)(const struct conf_backend *b, const void *arg);
    /* Exchanges in flight over all workers. */
    uint64_t (*active)(const struct conf_backend *b, const void *arg);
    /* The next ticket of the pool's cursor, which all workers share. */
    uint64_t (*ticket)(const struct conf_pool *pool, const void *arg);
    /* Its weight now, in any unit that is the same for all; at least 1. */
    uint64_t (*weight)(const struct conf_backend *b, const void *arg);
    /* Expected time to an answer; 0: not known. */
    uint64_t (*latency_us)(const struct conf_backend *b, const void *arg);
    /* A backend that has just come up lets part of its turns pass. */
    bool (*takes_turn)(const struct conf_backend *b, const void *arg);
    uint64_t (*random)(const void *arg);
    uint64_t key; /* hash of the hash_key */
    const struct addr_ip *client;
    const void *arg;
};

struct balance_ops {
    struct conf_backend *(*pick)(const struct conf_pool *pool, const struct balance_view *view);
};

/* Choose a backend of pool among those that are usable, else one of its backups. NULL when there is
 * none. */
struct conf_backend *
balance_pick(const struct conf_pool *pool, const struct balance_view *view);

extern const struct balance_ops balance_round_robin, balance_least_conn, balance_ip_hash,
    balance_random_two, balance_ewma, balance_hash;

#endif
