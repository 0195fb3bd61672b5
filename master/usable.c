/* SPDX-License-Identifier: Apache-2.0
 *
 * usable.c - the answer of upstream_usable() in the workers, as far as another process can see it.
 */
#include "master/usable.h"

#include <stddef.h>
#include <stdio.h>

#include "conf/backend_state.h"
#include "shared/clock.h"

/* What other processes wrote: no byte that a terminal or a page would take for more than text. */
static void
clean(char *text)
{
    for (; *text; text++) {
        *text = *text >= ' ' && *text <= '~' ? *text : '?';
    }
}

static uint64_t
gauge_of(const struct shm *shm, size_t array, unsigned slot)
{
    return shm_gauge_read(shm, array + slot * sizeof(shm_u64));
}

/* Are all places taken by exchanges? Idle connections are places, and those of HTTP/2 have more
 * than their workers tell. */
static bool
is_full(const struct shm *shm, const struct conf_backend *b, char *why)
{
    const struct conf_upstream *up = b->upstream;
    if (up->protocol == CONF_H2 || (b->max_connections == 0 && up->max_connections == 0)) {
        return false;
    }
    uint64_t open = gauge_of(shm, offsetof(struct shm_ledger, backends_open), b->slot);
    uint64_t active = gauge_of(shm, offsetof(struct shm_ledger, backends_active), b->slot);
    if (active < open) {
        return false;
    }
    if (b->max_connections != 0 && open >= b->max_connections) {
        snprintf(why, USABLE_WHY_MAX, "has its %u connections", b->max_connections);
        return true;
    }
    if (up->max_connections != 0 && gauge_of(shm, offsetof(struct shm_ledger, upstreams_open),
                                             up->slot) >= up->max_connections) {
        snprintf(why, USABLE_WHY_MAX, "its upstream has its %u connections", up->max_connections);
        return true;
    }
    return false;
}

enum reason
usable_judge(const struct shm *shm, const struct conf_backend *b, char *why)
{
    enum conf_state state = backend_state(shm, b);
    bool is_said = shm_get(&shm->m->operators[b->slot].state) != 0;
    if (state != CONF_READY) {
        snprintf(why, USABLE_WHY_MAX, "%s, says the %s", backend_state_name(state),
                 is_said ? "operator" : "file");
        return REASON_no_backend;
    }
    if (shm_health_get(shm, b->slot) == SHM_HEALTH_DOWN) {
        snprintf(why, USABLE_WHY_MAX, "down: %.120s", shm->h->backends[b->slot].last);
        clean(why);
        return REASON_no_backend;
    }
    if (!backend_breaker_is_passable(shm, b, clock_mono_ms())) {
        bool is_forced = backend_breaker_said(shm, b) != BREAKER_AUTO;
        snprintf(why, USABLE_WHY_MAX, "its breaker is open%s",
                 is_forced ? ", says the operator" : "");
        return REASON_breaker_open;
    }
    return is_full(shm, b, why) ? REASON_over_limit : REASON_none;
}
