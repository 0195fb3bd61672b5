/* SPDX-License-Identifier: Apache-2.0
 *
 * health.c - the schedule of probes, their judgement, and the states in H.
 *
 * There is one target for each backend slot that is probed. A target waits for its timer, stands in
 * the queue for a place among the running probes, or has a probe; never two of these.
 */
#include "master/health.h"

#include <event2/event_struct.h>
#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/backend_state.h"
#include "master/probe.h"
#include "shared/clock.h"
#include "shared/list.h"
#include "shared/log.h"

struct health_target {
    struct health *health;
    struct list link;                   /* in health->targets */
    struct list queued;                 /* in one of the queues while it waits for a place */
    const struct conf_backend *backend; /* of health->conf */
    unsigned slot;
    struct health_streak streak;
    struct event timer;
    struct probe *probe;
    uint64_t started_ms; /* of the last probe; 0: none yet */
    uint64_t due_ms;     /* of the timer */
    uint64_t hurry_seen; /* value of the slot's counter */
    bool is_hurried;     /* a passive failure came while a probe was under way */
    unsigned round;      /* of the last health_apply that wanted it */
};

struct health {
    struct event_base *base;
    struct shm *shm;
    struct conf *conf; /* NULL before the first apply */
    struct list targets;
    struct list queue;      /* due, but there is no room */
    struct list queue_down; /* the same for those that are down: they take their timeouts' time */
    unsigned running;
    unsigned round;
    uint64_t seed;
    struct health_target *by_slot[SHM_BACKENDS];
    bool was_maint[SHM_BACKENDS]; /* since it was ready */
};

/* ---- pure ---- */

struct health_streak
health_judge(struct health_streak before, bool is_passed, unsigned rise, unsigned fall)
{
    struct health_streak s = before;
    if (is_passed) {
        s.failed = 0;
        s.passed += s.passed < UINT32_MAX;
        if (s.state == SHM_HEALTH_UNKNOWN || s.passed >= rise) {
            s.state = SHM_HEALTH_UP;
        }
    } else {
        s.passed = 0;
        s.failed += s.failed < UINT32_MAX;
        if (s.state == SHM_HEALTH_UNKNOWN || s.failed >= fall) {
            s.state = SHM_HEALTH_DOWN;
        }
    }
    return s;
}

uint32_t
health_first_delay_ms(uint32_t interval_ms, uint32_t random)
{
    return random % ((interval_ms < 1000 ? interval_ms : 1000) + 1);
}

uint32_t
health_next_delay_ms(uint32_t interval_ms, uint32_t jitter_percent, uint32_t random)
{
    uint64_t spread = (uint64_t)interval_ms * jitter_percent / 100;
    return (uint32_t)(interval_ms - spread + random % (2 * spread + 1));
}

static bool
text_eq(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool
ranges_eq(const struct conf_health *a, const struct conf_health *b)
{
    if (a->nexpect != b->nexpect) {
        return false;
    }
    for (unsigned i = 0; i < a->nexpect; i++) {
        if (a->expect[i].from != b->expect[i].from || a->expect[i].to != b->expect[i].to) {
            return false;
        }
    }
    return true;
}

/* Clients with the same settings are one object as long as they live. */
static bool
same_tls(const struct conf_backend *a, const struct conf_backend *b)
{
    const struct conf_upstream_tls *x = a->upstream->tls, *y = b->upstream->tls;
    return !x == !y && (!x || (x->client == y->client && text_eq(a->tls_name, b->tls_name)));
}

bool
health_same_check(const struct conf_backend *a, const struct conf_backend *b)
{
    const struct conf_health *x = &a->upstream->health, *y = &b->upstream->health;
    return x->type == y->type && x->interval == y->interval && x->timeout == y->timeout &&
           x->jitter_percent == y->jitter_percent && text_eq(x->path, y->path) &&
           text_eq(x->host, y->host) && text_eq(x->method, y->method) &&
           text_eq(x->body, y->body) && same_tls(a, b) && ranges_eq(x, y) &&
           text_eq(a->address, b->address) && addr_eq(&a->check_addr, &b->check_addr);
}

const char *
health_state_name(enum shm_health_state state)
{
    switch (state) {
    case SHM_HEALTH_UP: return "up";
    case SHM_HEALTH_DOWN: return "down";
    case SHM_HEALTH_UNKNOWN: break;
    }
    return "unknown";
}

/* ---- the segment ---- */

/* What a slot's state is about: FNV-1a over its id and detail as the master wrote them. Never 0. */
static uint64_t
slot_identity(const struct shm *shm, unsigned slot)
{
    const struct shm_slot *s = &shm->m->backends[slot];
    uint64_t hash = 0xcbf29ce484222325u;
    const char *texts[] = {s->id, s->detail};
    for (unsigned t = 0; t < 2; t++) {
        for (size_t i = 0; i < SHM_ID_MAX && texts[t][i]; i++) {
            hash = (hash ^ (uint8_t)texts[t][i]) * 0x100000001b3u;
        }
        hash = (hash ^ 0xff) * 0x100000001b3u;
    }
    return hash ? hash : 1;
}

static void
state_store(struct health *health, unsigned slot, enum shm_health_state state)
{
    struct shm_health *h = &health->shm->h->backends[slot];
    enum shm_health_state former = shm_health_get(health->shm, slot);
    if (former == state) {
        return;
    }
    uint64_t now = clock_wall_us();
    shm_set(&h->since_us, now);
    if (state == SHM_HEALTH_UP && former == SHM_HEALTH_DOWN) {
        shm_set(&h->risen_us, now);
    }
    shm_health_set(health->shm, slot, state);
    shm_count(&health->shm->h->epoch, 1);
}

/* Nobody checks this slot (any more), or it is about another backend now: usable until known. */
static void
state_forget(struct health *health, unsigned slot, uint64_t identity)
{
    struct shm_health *h = &health->shm->h->backends[slot];
    if (shm_get(&h->identity) != identity) {
        state_store(health, slot, SHM_HEALTH_UNKNOWN);
        shm_set(&h->risen_us, 0);
        h->last[0] = '\0';
        shm_set(&h->identity, identity);
    }
}

/* ---- targets ---- */

static uint32_t
health_random(struct health *health)
{
    health->seed ^= health->seed << 13;
    health->seed ^= health->seed >> 7;
    health->seed ^= health->seed << 17;
    return (uint32_t)(health->seed >> 32);
}

static void
target_schedule(struct health_target *t, uint64_t due_ms)
{
    uint64_t now = clock_mono_ms();
    uint64_t ms = due_ms > now ? due_ms - now : 0;
    struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    t->due_ms = due_ms;
    evtimer_add(&t->timer, &tv);
}

static void
target_schedule_first(struct health_target *t)
{
    uint32_t random = health_random(t->health);
    uint32_t interval = t->backend->upstream->health.interval;
    target_schedule(t, clock_mono_ms() + health_first_delay_ms(interval, random));
}

static void
target_schedule_next(struct health_target *t)
{
    const struct conf_health *h = &t->backend->upstream->health;
    uint32_t delay = health_next_delay_ms(h->interval, h->jitter_percent, health_random(t->health));
    if (t->is_hurried && delay > HEALTH_HURRY_MS) {
        delay = HEALTH_HURRY_MS;
    }
    t->is_hurried = false;
    target_schedule(t, t->started_ms + delay);
}

/* Not waiting, not queued, not probing. */
static void
target_halt(struct health_target *t)
{
    evtimer_del(&t->timer);
    list_del(&t->queued);
    if (t->probe) {
        probe_cancel(t->probe);
        t->probe = NULL;
        t->health->running--;
    }
}

static void
target_free(struct health_target *t)
{
    target_halt(t);
    list_del(&t->link);
    t->health->by_slot[t->slot] = NULL;
    free(t);
}

/* The one line about a change. */
static void
target_log(const struct health_target *t, enum shm_health_state before, const char *why)
{
    const char *upstream = t->backend->upstream->name, *id = t->backend->id;
    if (t->streak.state == SHM_HEALTH_DOWN) {
        log_warn("backend %s/%s %s -> down: %u failure%s, last: %s", upstream, id,
                 health_state_name(before), t->streak.failed, t->streak.failed == 1 ? "" : "s",
                 why);
    } else {
        log_info("backend %s/%s %s -> up: %u success%s", upstream, id, health_state_name(before),
                 t->streak.passed, t->streak.passed == 1 ? "" : "es");
    }
}

static void
target_record(struct health_target *t, bool is_passed, const char *why)
{
    struct shm_health *h = &t->health->shm->h->backends[t->slot];
    const struct conf_health *rule = &t->backend->upstream->health;
    enum shm_health_state before = t->streak.state;
    t->streak = health_judge(t->streak, is_passed, rule->rise, rule->fall);
    shm_set(&h->checked_us, clock_wall_us());
    shm_count(is_passed ? &h->checks_passed : &h->checks_failed, 1);
    snprintf(h->last, sizeof(h->last), "%s", is_passed ? "passed" : why);
    if (t->streak.state != before) {
        state_store(t->health, t->slot, t->streak.state);
        target_log(t, before, why);
    }
}

static void
health_pump(struct health *health);

static void
target_on_result(void *arg, enum probe_result result, const char *why)
{
    static struct log_limit limit;
    struct health_target *t = arg;
    uint64_t suppressed;
    t->probe = NULL;
    t->health->running--;
    if (result != PROBE_SKIPPED) {
        target_record(t, result == PROBE_PASSED, why);
    } else if (log_limit_pass(&limit, clock_mono_ms(), 60000, &suppressed)) {
        log_error("backend %s/%s: not probed: %s (%llu more)", t->backend->upstream->name,
                  t->backend->id, why, (unsigned long long)suppressed);
    }
    target_schedule_next(t);
    health_pump(t->health);
}

static void
target_probe(struct health_target *t)
{
    struct health *health = t->health;
    t->started_ms = clock_mono_ms();
    t->probe = probe_start(health->base, health->conf, t->backend, target_on_result, t);
    if (t->probe) {
        health->running++;
    } else {
        target_schedule_next(t);
    }
}

/* Start what is due, as far as there is room. Backends that serve come first, so that many dead
 * ones do not delay the finding of the next. */
static void
health_pump(struct health *health)
{
    while (health->running < HEALTH_PROBES_MAX) {
        struct list *queue = list_is_empty(&health->queue) ? &health->queue_down : &health->queue;
        if (list_is_empty(queue)) {
            break;
        }
        struct health_target *t = list_first(queue, struct health_target, queued);
        list_del(&t->queued);
        target_probe(t);
    }
}

static void
target_on_due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct health_target *t = arg;
    struct health *health = t->health;
    bool is_down = t->streak.state == SHM_HEALTH_DOWN;
    list_add_tail(is_down ? &health->queue_down : &health->queue, &t->queued);
    health_pump(health);
}

static struct health_target *
target_new(struct health *health, const struct conf_backend *backend)
{
    struct health_target *t = calloc(1, sizeof(*t));
    if (!t) {
        return NULL;
    }
    t->health = health;
    t->backend = backend;
    t->slot = backend->slot;
    t->streak.state = shm_health_get(health->shm, t->slot);
    t->hurry_seen = shm_get(&health->shm->s->backends[t->slot].hurry);
    list_init(&t->queued);
    list_add_tail(&health->targets, &t->link);
    health->by_slot[t->slot] = t;
    evtimer_assign(&t->timer, health->base, target_on_due, t);
    event_priority_set(&t->timer, 0);
    target_schedule_first(t);
    return t;
}

/* Keep a target over an apply as far as it is still about the same. */
static void
target_update(struct health_target *t, const struct conf_backend *backend, bool is_other)
{
    bool is_same = !is_other && health_same_check(t->backend, backend);
    t->backend = backend;
    if (is_other) {
        t->streak = (struct health_streak){.state = SHM_HEALTH_UNKNOWN};
    }
    if (!is_same) {
        target_halt(t);
        target_schedule_first(t);
    }
}

/* ---- the driver ---- */

struct health *
health_new(struct event_base *base, struct shm *shm)
{
    struct health *health = calloc(1, sizeof(*health));
    if (!health) {
        return NULL;
    }
    health->base = base;
    health->shm = shm;
    list_init(&health->targets);
    list_init(&health->queue);
    list_init(&health->queue_down);
    evutil_secure_rng_get_bytes(&health->seed, sizeof(health->seed));
    health->seed |= 1;
    return health;
}

void
health_free(struct health *health)
{
    list_for_each_safe (it, &health->targets) {
        target_free(container_of(it, struct health_target, link));
    }
    if (health->conf) {
        conf_unref(health->conf);
    }
    free(health);
}

static int
health_apply_backend(struct health *health, const struct conf_backend *backend)
{
    unsigned slot = backend->slot;
    struct health_target *t = health->by_slot[slot];
    if (backend->upstream->health.type == CONF_HEALTH_OFF) {
        state_forget(health, slot, 0);
        return 0;
    }
    uint64_t identity = slot_identity(health->shm, slot);
    bool is_other = shm_get(&health->shm->h->backends[slot].identity) != identity;
    state_forget(health, slot, identity);
    health->was_maint[slot] &= !is_other;
    if (t) {
        target_update(t, backend, is_other);
    } else {
        t = target_new(health, backend);
    }
    if (t) {
        t->round = health->round;
    }
    return t ? 0 : -1;
}

/* Targets that the conf in force does not want. Their state goes with them, so that a backend that
 * comes back begins anew. */
static void
health_drop_unwanted(struct health *health)
{
    list_for_each_safe (it, &health->targets) {
        struct health_target *t = container_of(it, struct health_target, link);
        if (t->round != health->round) {
            state_forget(health, t->slot, 0);
            target_free(t);
        }
    }
}

static void
heed_backend(struct health *health, const struct conf_backend *backend)
{
    bool *was_maint = &health->was_maint[backend->slot];
    enum conf_state state = backend_state(health->shm, backend);
    if (state == CONF_READY && *was_maint) {
        shm_set(&health->shm->h->backends[backend->slot].risen_us, clock_wall_us());
    }
    *was_maint = state == CONF_MAINT || (*was_maint && state != CONF_READY);
}

void
health_heed(struct health *health)
{
    const struct conf *conf = health->conf;
    for (unsigned u = 0; conf && u < conf->nupstreams; u++) {
        for (unsigned b = 0; b < conf->upstreams[u].nbackends; b++) {
            heed_backend(health, &conf->upstreams[u].backends[b]);
        }
    }
}

int
health_apply(struct health *health, struct conf *conf)
{
    struct conf *before = health->conf;
    int result = 0;
    health->conf = conf_ref(conf);
    health->round++;
    for (unsigned u = 0; u < conf->nupstreams; u++) {
        for (unsigned b = 0; b < conf->upstreams[u].nbackends; b++) {
            if (health_apply_backend(health, &conf->upstreams[u].backends[b]) < 0) {
                result = -1;
            }
        }
    }
    health_drop_unwanted(health);
    health_heed(health);
    if (before) {
        conf_unref(before);
    }
    health_pump(health);
    return result;
}

static void
target_hurry(struct health_target *t)
{
    if (t->probe) {
        t->is_hurried = true;
        return;
    }
    uint64_t now = clock_mono_ms(), due = t->started_ms + HEALTH_HURRY_MS;
    due = due > now ? due : now;
    if (list_is_empty(&t->queued) && due < t->due_ms) {
        target_schedule(t, due);
    }
}

void
health_hurry(struct health *health)
{
    list_for_each (it, &health->targets) {
        struct health_target *t = container_of(it, struct health_target, link);
        uint64_t seen = shm_get(&health->shm->s->backends[t->slot].hurry);
        if (seen != t->hurry_seen) {
            t->hurry_seen = seen;
            target_hurry(t);
        }
    }
}
