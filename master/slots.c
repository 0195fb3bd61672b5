/* SPDX-License-Identifier: Apache-2.0
 *
 * slots.c - identities of a conf in the segment.
 */
#include "master/slots.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static int
slot_claim(struct shm *shm, enum shm_kind kind, const char *id, const char *detail, unsigned *slot,
           char *why, size_t why_size)
{
    bool is_changed = false; /* the health state names what it is about: nothing to do for it */
    int n = shm_slot_claim(shm, kind, id, detail, &is_changed);
    if (n < 0) {
        snprintf(why, why_size, "%s: the shared segment has no room for one more", id);
        return -1;
    }
    *slot = (unsigned)n;
    if (is_changed && kind == SHM_BACKEND) {
        shm_backend_forget(shm, *slot);
    }
    return 0;
}

/* ---- what operators have said ---- */

static bool
is_used(const struct shm *shm, unsigned slot)
{
    return shm_get(&shm->m->backends[slot].state) == SHM_SLOT_USED;
}

static bool
is_same(const struct shm_operator *a, const struct shm_operator *b)
{
    return shm_get(&a->state) == shm_get(&b->state) && shm_get(&a->weight) == shm_get(&b->weight) &&
           shm_get(&a->breaker) == shm_get(&b->breaker);
}

/* Mostly nobody has said anything. */
static bool
is_anything_said(const struct shm *shm)
{
    static const struct shm_operator nothing;
    for (unsigned i = 0; i < shm_slots_end(shm, SHM_BACKEND); i++) {
        if (!is_same(&shm->m->operators[i], &nothing)) {
            return true;
        }
    }
    return false;
}

const struct shm_operator *
slots_said(struct shm *shm, const char *id)
{
    static const struct shm_operator nothing;
    const struct shm_operator *of_name = NULL;
    const char *at = strchr(id, '@');
    int slot = shm_slot_find(shm, SHM_BACKEND, id);
    const struct shm_operator *own = slot < 0 ? &nothing : &shm->m->operators[slot];
    if (!at || (slot >= 0 && is_used(shm, (unsigned)slot)) || !is_anything_said(shm)) {
        return own;
    }
    for (unsigned i = 0; i < shm_slots_end(shm, SHM_BACKEND); i++) {
        if (!is_used(shm, i) || strncmp(shm->m->backends[i].id, id, (size_t)(at - id) + 1) != 0) {
            continue;
        }
        if (of_name && !is_same(of_name, &shm->m->operators[i])) {
            return &nothing;
        }
        of_name = &shm->m->operators[i];
    }
    return of_name ? of_name : own;
}

static void
take_over(struct shm_operator *to, const struct shm_operator *said)
{
    shm_set(&to->state, shm_get(&said->state));
    shm_set(&to->weight, shm_get(&said->weight));
    shm_set(&to->breaker, shm_get(&said->breaker));
    shm_set(&to->said_us, shm_get(&said->said_us));
}

/* Address, protocol, PROXY header and TLS of a backend: with other ones the same id loses its
 * health. text has SHM_ID_MAX bytes. */
static void
slots_describe(const struct conf_upstream *up, const struct conf_backend *b, char *text)
{
    size_t len = addr_format(&b->addr, text);
    if (up->protocol == CONF_H2) {
        len += (size_t)snprintf(text + len, SHM_ID_MAX - len, " h2");
    }
    if (up->send_proxy) {
        len += (size_t)snprintf(text + len, SHM_ID_MAX - len, " proxy v%u", up->send_proxy);
    }
    if (up->tls) {
        snprintf(text + len, SHM_ID_MAX - len, " tls %016" PRIx64,
                 tls_client_identity(up->tls->client, b->tls_name));
    }
}

static int
slots_claim_upstream(struct shm *shm, struct conf_upstream *up, char *why, size_t why_size)
{
    char id[SHM_ID_MAX];
    for (unsigned i = 0; i < up->npools; i++) {
        struct conf_pool *pool = &up->pools[i];
        if (slot_claim(shm, SHM_UPSTREAM, pool->id, "", &pool->slot, why, why_size) < 0) {
            return -1;
        }
    }
    up->slot = up->npools > 0 ? up->pools[0].slot : 0;
    for (unsigned i = 0; i < up->nbackends; i++) {
        struct conf_backend *b = &up->backends[i];
        char text[SHM_ID_MAX];
        slots_describe(up, b, text);
        if ((size_t)snprintf(id, sizeof(id), "%s/%s", up->name, b->id) >= sizeof(id)) {
            snprintf(why, why_size, "%s/%s: the name is too long", up->name, b->id);
            return -1;
        }
        const struct shm_operator *said = slots_said(shm, id);
        if (slot_claim(shm, SHM_BACKEND, id, text, &b->slot, why, why_size) < 0) {
            return -1;
        }
        take_over(&shm->m->operators[b->slot], said);
    }
    return 0;
}

int
slots_claim(struct shm *shm, struct conf *conf, char *why, size_t why_size)
{
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        struct conf_listener *l = &conf->listeners[i];
        if (slot_claim(shm, SHM_LISTENER, l->name, "", &l->slot, why, why_size) < 0) {
            return -1;
        }
    }
    for (unsigned i = 0; i < conf->nrate_limits; i++) {
        struct conf_rate_limit *limit = conf->rate_limits[i];
        if (slot_claim(shm, SHM_LIMIT, limit->name, "", &limit->slot, why, why_size) < 0) {
            return -1;
        }
    }
    for (unsigned i = 0; i < conf->nroutes; i++) {
        struct conf_split *split = &conf->routes[i].split;
        if (split->id &&
            slot_claim(shm, SHM_UPSTREAM, split->id, "", &split->slot, why, why_size) < 0) {
            return -1;
        }
    }
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        if (slots_claim_upstream(shm, &conf->upstreams[i], why, why_size) < 0) {
            return -1;
        }
    }
    return 0;
}

void
slots_sweep(struct shm *shm, const struct conf *conf, uint64_t gen)
{
    static bool listeners[SHM_LISTENERS], upstreams[SHM_UPSTREAMS], backends[SHM_BACKENDS];
    static bool limits[SHM_LIMITS];
    memset(limits, 0, sizeof(limits));
    memset(listeners, 0, sizeof(listeners));
    memset(upstreams, 0, sizeof(upstreams));
    memset(backends, 0, sizeof(backends));
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        listeners[conf->listeners[i].slot] = true;
    }
    for (unsigned i = 0; i < conf->nrate_limits; i++) {
        limits[conf->rate_limits[i]->slot] = true;
    }
    for (unsigned i = 0; i < conf->nroutes; i++) {
        if (conf->routes[i].split.id) {
            upstreams[conf->routes[i].split.slot] = true;
        }
    }
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        const struct conf_upstream *up = &conf->upstreams[i];
        for (unsigned p = 0; p < up->npools; p++) {
            upstreams[up->pools[p].slot] = true;
        }
        for (unsigned b = 0; b < up->nbackends; b++) {
            backends[up->backends[b].slot] = true;
        }
    }
    shm_slot_sweep(shm, SHM_LISTENER, listeners, gen);
    shm_slot_sweep(shm, SHM_UPSTREAM, upstreams, gen);
    shm_slot_sweep(shm, SHM_BACKEND, backends, gen);
    shm_slot_sweep(shm, SHM_LIMIT, limits, gen);
}
