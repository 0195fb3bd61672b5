/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream_pool.c - the worker's views of backends, and the connections that lie idle there.
 */
#include "worker/upstream_private.h"

#include <stdlib.h>

#include "conf/backend_state.h"
#include "shared/hash.h"
#include "shared/log.h"
#include "worker/http1_upstream.h"
#include "worker/http2_upstream.h"
#include "worker/queue.h"
#include "worker/upstream_tls.h"
#include "worker/worker.h"

#define RECENTLY_USED_MS \
    1000 /* an idle connection this fresh is trusted with what cannot be repeated */

/* ---- views ---- */

static struct backend *
open_backend(unsigned slot)
{
    struct backend *b = calloc(1, sizeof(*b));
    if (!b) {
        return NULL;
    }
    b->slot = slot;
    list_init(&b->idle);
    list_init(&b->conns);
    list_init(&b->h2);
    struct shm_shared_backend *shared = &worker.shm->s->backends[slot];
    struct shm_ledger *ledger = &worker.row->ledger;
    b->active = (struct shm_gauge){&shared->active, &ledger->backends_active[slot]};
    b->open = (struct shm_gauge){&shared->open, &ledger->backends_open[slot]};
    b->counters = &worker.row->backends[slot];
    worker.backends[slot] = b;
    return b;
}

static void
close_idle(struct backend *b)
{
    b->nstreams++; /* the end of a removed backend's last connection would free it in here */
    while (!list_is_empty(&b->idle)) {
        struct conn *c = list_first(&b->idle, struct conn, link);
        upstream_unkeep(b, c);
        conn_close(c);
        upstream_conn_closed(b, c);
    }
    http2_upstream_retire(b);
    b->nstreams--;
}

/* A removed backend's view goes when its last connection and exchange have gone. */
void
upstream_drop_if_unused(struct backend *b)
{
    if (b->is_removed && b->nconns == 0 && b->nstreams == 0) {
        worker.backends[b->slot] = NULL;
        upstream_tls_drop(b);
        free(b);
    }
}

static uint64_t
source_digest(const struct conf_upstream *up)
{
    uint64_t digest = HASH_BEGIN;
    for (unsigned i = 0; i < up->source.count; i++) {
        const struct addr_ip *ip = &up->source.addrs[i];
        digest = hash_bytes(digest, ip->bytes, sizeof(ip->bytes));
        digest = hash_bytes(digest, &ip->family, sizeof(ip->family));
    }
    return digest;
}

static void
apply_upstream(const struct conf_upstream *up)
{
    for (unsigned i = 0; i < up->nbackends; i++) {
        const struct conf_backend *cb = &up->backends[i];
        struct backend *b = worker.backends[cb->slot];
        if (!b) {
            b = open_backend(cb->slot);
        }
        if (!b) {
            log_error("backend %s/%s: out of memory", up->name, cb->id);
            continue;
        }
        b->is_removed = false;
        b->state = cb->state;
        bool is_new = b->addr.len == 0;
        bool has_moved = !addr_eq(&b->addr, &cb->addr);
        has_moved = upstream_tls_apply(b, cb) || has_moved || b->is_h2 != (up->protocol == CONF_H2);
        has_moved |= b->source != source_digest(up) || b->send_proxy != up->send_proxy;
        b->send_proxy = up->send_proxy;
        b->source = source_digest(up);
        b->is_h2 = up->protocol == CONF_H2;
        b->addr = cb->addr;
        b->max_connections = cb->max_connections;
        b->upstream_slot = up->slot;
        b->has_queue = up->queue_size > 0;
        b->upstream_max_connections = up->max_connections;
        b->upstream_open = shm_gauge_upstream(worker.shm, worker.row, up->slot);
        b->max_idle = up->keepalive.connections;
        b->idle_ms = up->keepalive.idle;
        b->lifetime_ms = up->keepalive.lifetime;
        b->max_requests = up->keepalive.requests;
        if (has_moved && !is_new) {
            b->epoch++; /* the same id elsewhere: old connections lead to the wrong place */
            close_idle(b);
        }
    }
}

void
upstream_apply(struct conf *conf)
{
    upstream_keep_spare();
    for (unsigned slot = 0; slot < SHM_BACKENDS; slot++) {
        if (worker.backends[slot]) {
            worker.backends[slot]->is_removed = true;
        }
    }
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        apply_upstream(&conf->upstreams[i]);
    }
    for (unsigned slot = 0; slot < SHM_BACKENDS; slot++) {
        struct backend *b = worker.backends[slot];
        if (b && b->is_removed) {
            close_idle(b);
            upstream_drop_if_unused(b);
        }
    }
}

/* Nothing new goes there: what it has shall fall to none. */
static bool
is_unready(const struct backend *b)
{
    return backend_state_of(worker.shm, b->slot, b->state) != CONF_READY;
}

void
upstream_close_unready(void)
{
    for (unsigned slot = 0; slot < SHM_BACKENDS; slot++) {
        if (worker.backends[slot] && is_unready(worker.backends[slot])) {
            close_idle(worker.backends[slot]);
        }
    }
}

void
upstream_close_idle(void)
{
    for (unsigned slot = 0; slot < SHM_BACKENDS; slot++) {
        if (worker.backends[slot]) {
            close_idle(worker.backends[slot]);
        }
    }
}

unsigned
upstream_epoch_of(const struct backend *b, const struct conf_backend *cb)
{
    bool is_current = addr_eq(&b->addr, &cb->addr) && upstream_tls_is_current(b, cb) &&
                      b->is_h2 == (cb->upstream->protocol == CONF_H2) &&
                      b->source == source_digest(cb->upstream) &&
                      b->send_proxy == cb->upstream->send_proxy;
    return is_current ? b->epoch : b->epoch - 1;
}

/* ---- idle connections ---- */

struct conn *
upstream_take_idle(struct backend *b, bool must_be_recent)
{
    uint64_t now = worker_now_ms();
    while (!list_is_empty(&b->idle)) {
        struct conn *c = list_first(&b->idle, struct conn, link);
        uint64_t last_used = 0;
        bool is_reusable = http1_upstream_is_reusable(c, b, now, &last_used);
        if (is_reusable && must_be_recent && now - last_used > RECENTLY_USED_MS) {
            return NULL; /* those behind it are older */
        }
        upstream_unkeep(b, c);
        if (is_reusable) {
            return c;
        }
        conn_close(c);
        upstream_conn_closed(b, c);
    }
    return NULL;
}

/* The last connections that a cap allows are not kept idle here while other workers want them. */
static bool
is_wanted_elsewhere(const struct backend *b)
{
    bool is_full = (b->max_connections != 0 && shm_get(b->open.shared) >= b->max_connections) ||
                   (b->upstream_max_connections != 0 &&
                    shm_get(b->upstream_open.shared) >= b->upstream_max_connections);
    /* Without a queue nobody can ask for it later. */
    return is_full && (b->has_queue ? queue_is_wanted_elsewhere(b) : worker.conf->workers > 1);
}

bool
upstream_close_oldest_idle(struct backend *b)
{
    if (list_is_empty(&b->idle)) {
        return false;
    }
    struct conn *oldest = list_last(&b->idle, struct conn, link);
    upstream_unkeep(b, oldest);
    conn_close(oldest);
    upstream_conn_closed(b, oldest);
    return true;
}

bool
upstream_may_keep(const struct backend *b, unsigned nidle)
{
    return !b->is_removed && !b->send_proxy && !is_unready(b) && !is_wanted_elsewhere(b) &&
           !worker_is_retiring() && nidle < b->max_idle;
}

bool
upstream_keep(struct backend *b, struct conn *c)
{
    if (!upstream_may_keep(b, b->nidle)) {
        return false;
    }
    conn_unlink(c);
    list_add_head(&b->idle, &c->link);
    b->nidle++;
    conn_set_read_due(c, b->idle_ms ? worker_now_ms() + b->idle_ms : 0);
    return true;
}

void
upstream_unkeep(struct backend *b, struct conn *c)
{
    conn_unlink(c);
    b->nidle--;
}

void
upstream_conn_closed(struct backend *b, struct conn *c)
{
    list_del(&c->owned);
    b->nconns--;
    shm_gauge_sub(worker.row, b->upstream_open);
    shm_gauge_sub(worker.row, b->open);
    queue_on_closed(b);
    upstream_drop_if_unused(b);
}
