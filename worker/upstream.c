/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream.c - find connections to backends: see upstream.h. Choosing is here; what is idle is in
 * upstream_pool.c, what is new in upstream_connect.c.
 */
#include "worker/upstream_private.h"

#include "conf/backend_state.h"
#include "worker/balance.h"
#include "worker/forward.h"
#include "worker/hash_key.h"
#include "worker/http1_upstream.h"
#include "worker/http2_upstream.h"
#include "worker/queue.h"
#include "worker/sticky.h"
#include "worker/stream.h"
#include "worker/tcp.h"
#include "worker/worker.h"

#define FAILED_US  1000000 /* what a failure counts as latency: quick, but no answer */
#define RAMP_WHOLE 1024u
#define RAMP_FIRST (RAMP_WHOLE / 10)

/* ---- choosing ---- */

enum reason
upstream_usable(const struct conf_backend *b)
{
    if (backend_state(worker.shm, b) != CONF_READY ||
        shm_health_get(worker.shm, b->slot) == SHM_HEALTH_DOWN) {
        return REASON_no_backend;
    }
    if (!upstream_breaker_is_passable(b)) {
        return REASON_breaker_open;
    }
    const struct backend *view = worker.backends[b->slot];
    if (!view) {
        return REASON_internal;
    }
    bool is_full = (b->max_connections != 0 && shm_get(view->open.shared) >= b->max_connections) ||
                   (view->upstream_max_connections != 0 &&
                    shm_get(view->upstream_open.shared) >= view->upstream_max_connections);
    if (is_full && view->nidle == 0 && !http2_upstream_has_room(view)) {
        return REASON_over_limit;
    }
    return REASON_none;
}

static bool
is_usable_for(const struct conf_backend *b, const void *arg)
{
    const struct stream *s = arg;
    for (unsigned i = 0; i < s->tries && i < STREAM_MAX_TRIES; i++) {
        if (s->tried[i] == b->index) {
            return false;
        }
    }
    return upstream_usable(b) == REASON_none;
}

/* All others have failed this request, or there are none: the same once more. */
static bool
is_usable_again(const struct conf_backend *b, const void *arg)
{
    (void)arg;
    return upstream_usable(b) == REASON_none;
}

/* fail_open: what is known of their health may be wrong when it says that nobody is left. What a
 * person has said is not. */
static bool
is_not_out_of_service(const struct conf_backend *b, const void *arg)
{
    const struct stream *s = arg;
    for (unsigned i = 0; i < s->tries && i < STREAM_MAX_TRIES; i++) {
        if (s->tried[i] == b->index) {
            return false;
        }
    }
    enum reason why = upstream_usable(b);
    return backend_state(worker.shm, b) == CONF_READY &&
           backend_breaker_said(worker.shm, b) != BREAKER_SAID_OPEN &&
           (why == REASON_none || why == REASON_no_backend || why == REASON_breaker_open);
}

static uint64_t
active_of(const struct conf_backend *b, const void *arg)
{
    (void)arg;
    return shm_get(&worker.shm->s->backends[b->slot].active);
}

static uint64_t
next_ticket(const struct conf_pool *pool, const void *arg)
{
    const struct stream *s = arg;
    (void)pool; /* backups share the cursor of those they stand in for */
    return shm_cursor_next(worker.shm, s->pool->slot);
}

/* How much of its share b takes, in 1/1024: it grows after b was down or in maintenance. What has
 * just been met has had its whole share already, while nothing was known of it. */
static uint64_t
ramp_of(const struct conf_backend *b)
{
    uint64_t length_us = (uint64_t)b->upstream->slow_start_ms * 1000;
    if (length_us == 0) {
        return RAMP_WHOLE;
    }
    uint64_t now = clock_wall_us();
    uint64_t risen = shm_get(&worker.shm->h->backends[b->slot].risen_us);
    uint64_t elapsed = now > risen ? now - risen : 0;
    if (elapsed >= length_us) {
        return RAMP_WHOLE;
    }
    uint64_t ramp = RAMP_WHOLE * elapsed / length_us;
    return ramp > RAMP_FIRST ? ramp : RAMP_FIRST;
}

static uint64_t
weight_of(const struct conf_backend *b, const void *arg)
{
    (void)arg;
    return b->weight * ramp_of(b);
}

static bool
takes_turn(const struct conf_backend *b, const void *arg)
{
    (void)arg;
    uint64_t ramp = ramp_of(b);
    return ramp == RAMP_WHOLE || forward_random() % RAMP_WHOLE < ramp;
}

static uint64_t
latency_of(const struct conf_backend *b, const void *arg)
{
    (void)arg;
    return shm_backend_latency(worker.shm, b->slot, worker_now_us());
}

static uint64_t
random_number(const void *arg)
{
    (void)arg;
    return forward_random();
}

/* Whatever their order: one that is full is worth waiting for, and a breaker says more than no
 * backend. */
static enum reason
what_keeps_away(const struct conf_pool *pool)
{
    enum reason least = REASON_no_backend;
    for (unsigned i = 0; i < pool->nbackends && least != REASON_none; i++) {
        enum reason why = upstream_usable(pool->backends[i]);
        bool is_less = why == REASON_none || why == REASON_over_limit ||
                       (why == REASON_breaker_open && least != REASON_over_limit);
        least = is_less ? why : least;
    }
    if (!pool->backups || least == REASON_none) {
        return least;
    }
    enum reason of_backups = what_keeps_away(pool->backups);
    bool is_less =
        of_backups == REASON_none || of_backups == REASON_over_limit || least == REASON_no_backend;
    return is_less ? of_backups : least;
}

/* Who is only full is well, and waited for. */
static bool
are_all_out(const struct conf_pool *pool)
{
    enum reason why = what_keeps_away(pool);
    return why != REASON_none && why != REASON_over_limit;
}

static struct conf_backend *
pick(const struct stream *s)
{
    struct conf_backend *own = sticky_backend(s);
    if (own && is_usable_for(own, s)) {
        return own;
    }
    struct balance_view view = {
        .is_usable = is_usable_for,
        .active = active_of,
        .ticket = next_ticket,
        .weight = weight_of,
        .takes_turn = takes_turn,
        .latency_us = latency_of,
        .random = random_number,
        .client = &s->client_ip,
        .arg = s,
    };
    if (s->upstream->algorithm == CONF_HASH) {
        view.key = hash_key_of(s->upstream, s->http ? &s->http->req : NULL, &s->client_ip);
    }
    struct conf_backend *b = balance_pick(s->pool, &view);
    if (!b && s->tries > 0) {
        view.is_usable = is_usable_again;
        b = balance_pick(s->pool, &view);
    }
    if (!b && s->upstream->fail_open && are_all_out(s->pool)) {
        view.is_usable = is_not_out_of_service;
        b = balance_pick(s->pool, &view);
    }
    return b;
}

/* A breaker's last place may have gone to another worker meanwhile: then it says so, and another
 * backend is chosen. */
static struct conf_backend *
pick_and_enter(struct stream *s)
{
    for (unsigned i = 0; i <= s->upstream->nbackends; i++) {
        struct conf_backend *b = pick(s);
        if (!b || upstream_breaker_enter(s, b) || s->upstream->fail_open) {
            return b;
        }
    }
    return NULL;
}

/* ---- exchanges ---- */

static void
begin_exchange(struct stream *s, struct backend *b)
{
    s->taken = b;
    b->nstreams++;
    shm_gauge_add(worker.row, b->active);
}

void
upstream_end_exchange(struct stream *s)
{
    struct backend *b = s->taken;
    if (!b) {
        return;
    }
    s->taken = NULL;
    upstream_breaker_leave(s, b->slot);
    b->nstreams--;
    shm_gauge_sub(worker.row, b->active);
    queue_on_room(b);
    upstream_drop_if_unused(b);
}

void
upstream_attach(struct stream *s, struct conn *c)
{
    if (s->is_tcp) {
        tcp_upstream_attach(c, s);
    } else if (c->kind == CONN_HTTP2_UPSTREAM) {
        http2_upstream_begin(c); /* all that wait for it are told in time */
        return;
    } else {
        http1_upstream_attach(c, s, s->taken);
    }
    stream_on_connected(s);
}

void
upstream_count_failure(struct stream *s)
{
    struct backend *b = s->taken;
    upstream_report(s, true);
    shm_backend_observe(worker.shm, b->slot, worker_now_us(), FAILED_US);
    shm_count(&b->counters->failures, 1);
    shm_backend_hurry(worker.shm, b->slot);
    child_wake(worker.args->wakes[SHM_ROWS]);
}

/* ---- acquiring ---- */

/* What is answered when no backend is left: why the last one failed, else what keeps them all away.
 * REASON_none: nothing does any more. */
static enum reason
reason_for_none(const struct stream *s)
{
    return s->reason != REASON_none ? s->reason : what_keeps_away(s->pool);
}

/* RFC 9110 9.2.2: what may not be sent twice is not risked on a connection that may be dying. */
static bool
is_repeatable(const struct stream *s)
{
    return http_method_is_idempotent((enum http_method)s->http->req.method) &&
           s->http->req.body == HTTP_BODY_NONE;
}

/* A connection of its backend has died under s: is another one to be had there? A probe has left
 * its place in the breaker, and takes it again. */
static bool
may_take_again(struct stream *s)
{
    return worker.backends[s->backend->slot] && upstream_breaker_enter(s, s->backend);
}

void
upstream_acquire(struct stream *s, struct conf_pool *pool)
{
    bool wants_fresh = s->wants_fresh;
    s->pool = pool;
    s->wants_fresh = false;
    if (!wants_fresh || !may_take_again(s)) {
        s->backend = pick_and_enter(s); /* else the same backend again, on a fresh connection */
    }
    struct backend *b = s->backend ? worker.backends[s->backend->slot] : NULL;
    s->upstream_name = slice_from_str(s->upstream->name);
    if (!b) {
        enum reason why = reason_for_none(s);
        if (why == REASON_none && ++s->nraces < STREAM_MAX_RACES) {
            upstream_acquire(s, pool); /* another worker has just left its place */
        } else if (why == REASON_none || why == REASON_over_limit) {
            queue_wait(s);
        } else {
            stream_fail(s, why);
        }
        return;
    }
    s->backend_name = slice_from_str(s->backend->id);
    begin_exchange(s, b);
    if (!s->is_tcp && s->upstream->protocol == CONF_H2) {
        if (!http2_upstream_acquire(s)) {
            upstream_connect(s);
        }
        return;
    }
    struct conn *c = NULL;
    if (!s->is_tcp && !wants_fresh) {
        c = upstream_take_idle(b, !is_repeatable(s));
    }
    if (c) {
        s->is_on_reused = true;
        s->connect_us = 0;
        upstream_attach(s, c);
    } else {
        upstream_connect(s);
    }
}
