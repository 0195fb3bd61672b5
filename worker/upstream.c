/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream.c - find and return connections to backends: see upstream.h.
 */
#include "worker/upstream.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/log.h"
#include "worker/balance.h"
#include "worker/conn.h"
#include "worker/http1_upstream.h"
#include "worker/stream.h"
#include "worker/tcp.h"
#include "worker/worker.h"

#define RECENTLY_USED_MS \
    1000 /* an idle connection this fresh is trusted with what cannot be repeated */
#define LOG_INTERVAL_MS 60000

/* A descriptor kept back: a client that was accepted with the last one still gets its backend, and
 * only then accepting pauses. */
static int spare_fd = -1;

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
        upstream_conn_closed(b, c);
        conn_close(c);
    }
    b->nstreams--;
}

/* A removed backend's view goes when its last connection and exchange have gone. */
static void
drop_if_unused(struct backend *b)
{
    if (b->is_removed && b->nconns == 0 && b->nstreams == 0) {
        worker.backends[b->slot] = NULL;
        free(b);
    }
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
        bool has_moved = b->addr.len != 0 && !addr_eq(&b->addr, &cb->addr);
        b->addr = cb->addr;
        b->max_connections = cb->max_connections;
        b->max_idle = up->keepalive.connections;
        b->idle_ms = up->keepalive.idle;
        b->lifetime_ms = up->keepalive.lifetime;
        b->max_requests = up->keepalive.requests;
        if (has_moved) {
            b->epoch++; /* the same id elsewhere: old connections lead to the wrong place */
            close_idle(b);
        }
    }
}

static void
keep_spare(void)
{
    if (spare_fd < 0) {
        spare_fd = eventfd(0, EFD_CLOEXEC);
    }
}

void
upstream_apply(struct conf *conf)
{
    keep_spare();
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
            drop_if_unused(b);
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

/* ---- choosing ---- */

enum reason
upstream_usable(const struct conf_backend *b)
{
    if (b->state != CONF_READY || shm_health_get(worker.shm, b->slot) == SHM_HEALTH_DOWN) {
        return REASON_no_backend;
    }
    const struct backend *view = worker.backends[b->slot];
    if (!view) {
        return REASON_internal;
    }
    if (b->max_connections != 0 && view->nidle == 0 &&
        shm_get(view->open.shared) >= b->max_connections) {
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

static uint64_t
active_of(const struct conf_backend *b, const void *arg)
{
    (void)arg;
    return shm_get(&worker.shm->s->backends[b->slot].active);
}

static uint64_t
next_ticket(const struct conf_pool *pool, const void *arg)
{
    (void)arg;
    return shm_cursor_next(worker.shm, pool->slot);
}

static struct conf_backend *
pick(const struct stream *s)
{
    struct balance_view view = {
        .is_usable = is_usable_for,
        .active = active_of,
        .ticket = next_ticket,
        .client = &s->client_ip,
        .arg = s,
    };
    return balance_pick(s->pool, &view);
}

/* ---- connecting ---- */

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
    b->nstreams--;
    shm_gauge_sub(worker.row, b->active);
    drop_if_unused(b);
}

static void
attach(struct stream *s, struct conn *c)
{
    if (s->is_tcp) {
        tcp_upstream_attach(c, s);
    } else {
        http1_upstream_attach(c, s, s->taken);
    }
    stream_on_connected(s);
}

static enum reason
connect_reason(int error)
{
    switch (error) {
    case ECONNREFUSED:
    case ENOENT: return REASON_connect_refused;
    case ETIMEDOUT: return REASON_connect_timeout;
    default: return REASON_connect_failed;
    }
}

static void
on_connect_failed(struct conn *c, enum reason why)
{
    struct upstream_connecting *uc = (struct upstream_connecting *)c;
    struct stream *s = uc->stream;
    upstream_conn_closed(s->taken, c);
    conn_close(c);
    stream_on_connect_failed(s, why);
}

static void
on_connect_event(struct conn *c, unsigned what)
{
    struct upstream_connecting *uc = (struct upstream_connecting *)c;
    struct stream *s = uc->stream;
    if (what & (CONN_READ_DUE | CONN_BROKEN)) {
        on_connect_failed(c, what & CONN_BROKEN ? REASON_connect_failed : REASON_connect_timeout);
        return;
    }
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(c->io.fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) {
        error = errno;
    }
    if (error != 0) {
        on_connect_failed(c, connect_reason(error));
        return;
    }
    if (!(what & CONN_WRITABLE)) {
        return;
    }
    c->is_connecting = false;
    conn_set_read_due(c, 0);
    if (c->is_readable && !s->is_tcp) {
        /* An answer before any request belongs to nobody; and some end without one. */
        char byte;
        bool has_spoken = recv(c->io.fd, &byte, 1, MSG_PEEK) > 0;
        upstream_conn_closed(s->taken, c);
        conn_close(c);
        s->server = (struct end){0};
        upstream_count_failure(s->taken);
        stream_fail(s, has_spoken ? REASON_bad_response : REASON_backend_reset);
        return;
    }
    shm_observe(&s->taken->counters->connect, worker_now_us() - s->connect_us);
    attach(s, c);
}

/* An aborted stream takes its half-open connection with it. */
static void
connecting_abort(struct stream *s, struct end *e, enum reason why)
{
    (void)why;
    upstream_conn_closed(s->taken, e->conn);
    conn_close(e->conn);
}

static const struct end_ops connecting_ops = {.abort = connecting_abort};

static int
new_socket(int family)
{
    int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = socket(family, type, 0);
    if (fd < 0 && errno == EMFILE && spare_fd >= 0) {
        close(spare_fd);
        spare_fd = -1;
        return socket(family, type, 0);
    }
    if (fd >= 0) {
        keep_spare();
    }
    return fd;
}

/* A tunnel may be silent for long: keep-alive finds a peer that went without a word. */
static int
open_socket(const struct addr *to, bool is_tunnel)
{
    int fd = new_socket(to->sa.sa_family);
    if (fd < 0) {
        return -1;
    }
    if (to->sa.sa_family != AF_UNIX) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (is_tunnel) {
            setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
        }
    }
    return fd;
}

static struct conn *
open_conn(struct stream *s, struct backend *b, int fd)
{
    size_t size = s->is_tcp ? tcp_upstream_size() : http1_upstream_size();
    struct conn *c = conn_alloc(s->is_tcp ? CONN_TCP_UPSTREAM : CONN_HTTP1_UPSTREAM, size);
    if (!c) {
        close(fd);
        return NULL;
    }
    transport_init_plain(&c->io, fd);
    c->is_connecting = true;
    conn_open(c, CONN_BACKEND, on_connect_event);
    list_add_tail(&b->conns, &c->owned);
    b->nconns++;
    shm_count(&b->counters->connects, 1);
    return c;
}

static void
log_no_socket(const struct stream *s, int error)
{
    static struct log_limit limit;
    uint64_t suppressed;
    if (log_limit_pass(&limit, worker_now_ms(), LOG_INTERVAL_MS, &suppressed)) {
        log_warn("backend %s/%s: no socket: %s (%llu more times before)", s->upstream->name,
                 s->backend->id, strerror(error), (unsigned long long)suppressed);
    }
}

/* An idle connection that this exchange may not use gives way to the one that it needs. */
static bool
count_conn(struct backend *b, uint64_t limit)
{
    if (shm_gauge_try_add(worker.row, b->open, limit)) {
        return true;
    }
    if (list_is_empty(&b->idle)) {
        return false;
    }
    struct conn *oldest = list_last(&b->idle, struct conn, link);
    upstream_unkeep(b, oldest);
    upstream_conn_closed(b, oldest);
    conn_close(oldest);
    return shm_gauge_try_add(worker.row, b->open, limit);
}

static void
connect_fresh(struct stream *s)
{
    struct backend *b = s->taken;
    const struct addr *to = &s->backend->addr;
    if (!count_conn(b, s->backend->max_connections)) {
        stream_on_connect_failed(s, REASON_over_limit);
        return;
    }
    s->state = STREAM_CONNECT;
    s->connect_us = worker_now_us();
    int fd = open_socket(to, s->is_tcp);
    struct conn *c = fd >= 0 ? open_conn(s, b, fd) : NULL;
    if (!c) {
        int error = errno;
        shm_gauge_sub(worker.row, b->open);
        log_no_socket(s, error);
        stream_fail(s, REASON_internal);
        return;
    }
    ((struct upstream_connecting *)c)->stream = s;
    s->server = (struct end){.ops = &connecting_ops, .conn = c};
    s->is_on_reused = false;
    if (connect(fd, &to->sa, to->len) != 0 && errno != EINPROGRESS) {
        /* EAGAIN: a Unix socket whose backlog is full */
        on_connect_failed(c, connect_reason(errno));
        return;
    }
    conn_watch(c);
    uint32_t timeout = s->upstream->timeouts.connect;
    conn_set_read_due(c, timeout ? worker_now_ms() + timeout : 0);
}

/* ---- idle connections ---- */

static struct conn *
take_idle(struct backend *b, bool must_be_recent)
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
        upstream_conn_closed(b, c);
        conn_close(c);
    }
    return NULL;
}

/* The last connections that a cap allows are not kept idle here while other workers want them. */
static bool
is_wanted_elsewhere(const struct backend *b)
{
    return b->max_connections != 0 && worker.conf->workers > 1 &&
           shm_get(b->open.shared) >= b->max_connections;
}

bool
upstream_keep(struct backend *b, struct conn *c)
{
    if (b->is_removed || is_wanted_elsewhere(b) || worker_is_retiring() ||
        b->nidle >= b->max_idle) {
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
    shm_gauge_sub(worker.row, b->open);
    drop_if_unused(b);
}

void
upstream_count_failure(struct backend *b)
{
    shm_count(&b->counters->failures, 1);
    shm_backend_hurry(worker.shm, b->slot);
    child_wake(worker.args->wakes[SHM_ROWS]);
}

/* ---- acquiring ---- */

/* What is answered when no backend is left: why the last one failed, else what keeps them all away.
 */
static enum reason
reason_for_none(const struct stream *s)
{
    if (s->reason != REASON_none) {
        return s->reason;
    }
    for (unsigned i = 0; i < s->pool->nbackends; i++) {
        enum reason why = upstream_usable(s->pool->backends[i]);
        if (why == REASON_over_limit) {
            return why;
        }
    }
    return REASON_no_backend;
}

/* RFC 9110 9.2.2: what may not be sent twice is not risked on a connection that may be dying. */
static bool
is_repeatable(const struct stream *s)
{
    return http_method_is_idempotent((enum http_method)s->http->req.method) &&
           s->http->req.body == HTTP_BODY_NONE;
}

void
upstream_acquire(struct stream *s, struct conf_pool *pool)
{
    bool wants_fresh = s->wants_fresh;
    s->pool = pool;
    s->wants_fresh = false;
    if (!wants_fresh || !worker.backends[s->backend->slot]) {
        s->backend = pick(s); /* else the same backend again, on a fresh connection */
    }
    struct backend *b = s->backend ? worker.backends[s->backend->slot] : NULL;
    s->upstream_name = slice_from_str(s->upstream->name);
    if (!b) {
        stream_fail(s, reason_for_none(s));
        return;
    }
    s->backend_name = slice_from_str(s->backend->id);
    begin_exchange(s, b);
    struct conn *c = NULL;
    if (!s->is_tcp && !wants_fresh) {
        c = take_idle(b, !is_repeatable(s));
    }
    if (c) {
        s->is_on_reused = true;
        s->connect_us = 0;
        attach(s, c);
    } else {
        connect_fresh(s);
    }
}
