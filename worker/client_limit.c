/* SPDX-License-Identifier: Apache-2.0
 *
 * client_limit.c - see client_limit.h.
 */
#include "worker/client_limit.h"

#include <string.h>
#include <sys/socket.h>

#include "shared/clients.h"
#include "shared/log.h"
#include "worker/conn.h"
#include "worker/greet.h"
#include "worker/worker.h"

#define LOG_INTERVAL_MS 60000
#define IPV6_BYTES      8 /* of an address: a /64, as much as tells clients apart */

/* A proxy that is trusted carries the connections of many. */
static bool
is_exempt(const struct conf_listener *l, const struct addr_ip *ip)
{
    if (ip->family != AF_INET && ip->family != AF_INET6) {
        return true; /* it has no address */
    }
    for (unsigned i = 0; i < l->ntrusted_proxies; i++) {
        if (cidr_contains(&l->trusted_proxies[i], ip)) {
            return true;
        }
    }
    return false;
}

static uint64_t
key_of(const struct listener *l, const struct addr_ip *ip)
{
    size_t len = ip->family == AF_INET ? 4 : IPV6_BYTES;
    return rate_key(worker.shm->m->rate_secret, l->slot, ip->bytes, len);
}

/* A few words for whoever wonders; the counters have it all. */
static void
log_refusal(const struct listener *l, const struct addr_ip *ip)
{
    static struct log_limit limit;
    char text[ADDR_TEXT_MAX];
    uint64_t suppressed;
    if (log_limit_pass(&limit, worker_now_ms(), LOG_INTERVAL_MS, &suppressed)) {
        text[addr_ip_format(ip, text)] = '\0';
        log_info("listener %s: %s: more than connections_per_client (%u): refused "
                 "(%llu more refusals before)",
                 l->name, text, l->conf->connections_per_client, (unsigned long long)suppressed);
    }
}

static bool
take(struct listener *l, const struct addr_ip *ip, uint32_t limit, uint32_t *place)
{
    uint32_t cell;
    switch (clients_enter(worker.shm, worker.row, key_of(l, ip), limit, &cell)) {
    case CLIENTS_COUNTED: *place = 1 + cell; return true;
    case CLIENTS_NO_ROOM: shm_count(&l->counters->clients_uncounted, 1); return true;
    default: return false;
    }
}

bool
client_limit_take(struct listener *l, const struct addr_ip *ip, uint32_t *place)
{
    uint32_t limit = l->conf->connections_per_client;
    *place = 0;
    if (limit == 0 || is_exempt(l->conf, ip) || take(l, ip, limit, place)) {
        return true;
    }
    log_refusal(l, ip);
    return false;
}

void
client_limit_give(uint32_t place)
{
    if (place != 0) {
        clients_leave(worker.shm, worker.row, place - 1);
    }
}

void
client_limit_count_all(struct listener *l)
{
    list_for_each (it, &l->clients) {
        struct conn *c = container_of(it, struct conn, owned);
        bool is_known = !c->is_refused && !greet_is_under_way(c);
        if (is_known && c->client_place == 0 && !is_exempt(l->conf, &c->peer)) {
            take(l, &c->peer, CLIENTS_COUNT_MAX, &c->client_place);
        }
    }
}
