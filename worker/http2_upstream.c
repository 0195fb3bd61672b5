/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_upstream.c - connections to backends that many exchanges share: see http2_upstream.h.
 *
 * A connection belongs to its backend. Streams that wait for one that is being made are its
 * waiting; those that have a place are told of its end one by one, and what has come in whole by
 * then is still delivered: a dead connection is closed when the last of these has gone.
 */
#include "shared/log.h"
#include "worker/http2_private.h"
#include "worker/http2_upstream_private.h"
#include "worker/upstream_private.h"
#include "worker/upstream_tls.h"
#include "worker/worker.h"

#define STREAMS_MAX     100 /* on a connection, whatever the backend allows */
#define LAST_ID         0x7ffffffd
#define PING_AFTER_MS   15000 /* of silence, while streams are open */
#define PONG_MS         15000 /* where timeouts.connect is none */
#define LOG_INTERVAL_MS 60000

static const struct http2_side upstream_side;

size_t
http2_upstream_size(void)
{
    return sizeof(struct http2_upstream);
}

static void
move_due(struct http2_upstream *hu, uint64_t due_ms)
{
    if (hu->conn.read_due_ms == 0 || hu->conn.read_due_ms > due_ms) {
        conn_set_read_due(&hu->conn, due_ms);
    }
}

static void
upstream_close(struct http2_upstream *hu)
{
    struct conn *c = &hu->conn;
    if (!c->is_open) {
        return;
    }
    http2_upstream_leave_scratch(hu);
    list_del(&hu->link);
    if (hu->session.ng) {
        http2_session_fini(&hu->session);
    }
    conn_close(c);
    upstream_conn_closed(hu->backend, c);
}

/* ---- room ---- */

/* Age and number of requests allow no more. */
static bool
is_worn(const struct http2_upstream *hu)
{
    const struct backend *b = hu->backend;
    return (b->max_requests != 0 && hu->requests >= b->max_requests) ||
           (b->lifetime_ms != 0 && worker_now_ms() - hu->born_ms >= b->lifetime_ms) ||
           nghttp2_session_get_next_stream_id(hu->session.ng) >= LAST_ID;
}

static bool
has_room(const struct http2_upstream *hu)
{
    const struct backend *b = hu->backend;
    if (hu->epoch != b->epoch) {
        return false;
    }
    if (hu->state < HTTP2_UPSTREAM_OPEN) {
        return hu->nwaiting < hu->limit;
    }
    return hu->state == HTTP2_UPSTREAM_OPEN && hu->session.nstreams < hu->limit &&
           !hu->session.is_over && !hu->conn.is_eof && !hu->conn.is_broken && !hu->conn.has_hup &&
           !is_worn(hu);
}

/* One that is open before one that is being made; the first of them, so that the others become
 * idle. */
static struct http2_upstream *
find_room(const struct backend *b)
{
    struct http2_upstream *found = NULL;
    list_for_each (it, &b->h2) {
        struct http2_upstream *hu = container_of(it, struct http2_upstream, link);
        if (!has_room(hu)) {
            continue;
        }
        if (hu->state == HTTP2_UPSTREAM_OPEN) {
            return hu;
        }
        found = found ? found : hu;
    }
    return found;
}

bool
http2_upstream_has_room(const struct backend *b)
{
    return find_room(b) != NULL;
}

/* ---- waiting ---- */

static void
waiting_abort(struct stream *s, struct end *e, enum reason why)
{
    struct http2_upstream *hu = (struct http2_upstream *)e->conn;
    (void)why;
    list_del(&s->http->waiting);
    hu->nwaiting--;
    if (hu->state >= HTTP2_UPSTREAM_OPEN) {
        return;
    }
    if (list_is_empty(&hu->waiting)) {
        upstream_close(hu); /* nobody wants it any more */
    } else if (hu->stream == s) {
        struct stream_http *next = list_first(&hu->waiting, struct stream_http, waiting);
        hu->stream = stream_of_http(next);
    }
}

static const struct end_ops waiting_ops = {.abort = waiting_abort};

static void
wait_for(struct http2_upstream *hu, struct stream *s)
{
    s->state = STREAM_CONNECT;
    s->connect_us = worker_now_us();
    s->is_on_reused = false;
    s->server = (struct end){.ops = &waiting_ops, .conn = &hu->conn};
    list_add_tail(&hu->waiting, &s->http->waiting);
    hu->nwaiting++;
}

void
http2_upstream_wait(struct conn *c, struct stream *s)
{
    struct http2_upstream *hu = (struct http2_upstream *)c;
    struct backend *b = s->taken;
    list_init(&hu->waiting);
    list_add_tail(&b->h2, &hu->link);
    hu->stream = s;
    hu->backend = b;
    hu->epoch = upstream_epoch_of(b, s->backend);
    hu->limit = b->h2_limit != 0 ? b->h2_limit : STREAMS_MAX;
    hu->state = HTTP2_UPSTREAM_CONNECT;
    wait_for(hu, s);
}

bool
http2_upstream_acquire(struct stream *s)
{
    struct http2_upstream *hu = find_room(s->taken);
    if (!hu) {
        return false;
    }
    if (hu->state != HTTP2_UPSTREAM_OPEN) {
        wait_for(hu, s);
        return true;
    }
    move_due(hu, worker_now_ms() + PING_AFTER_MS);
    s->connect_us = 0;
    http2_upstream_attach(hu, s);
    return true;
}

static struct stream *
next_waiting(struct http2_upstream *hu)
{
    if (list_is_empty(&hu->waiting)) {
        return NULL;
    }
    struct stream_http *http = list_first(&hu->waiting, struct stream_http, waiting);
    list_del(&http->waiting);
    hu->nwaiting--;
    return stream_of_http(http);
}

void
http2_upstream_fail(struct conn *c, enum reason why)
{
    struct http2_upstream *hu = (struct http2_upstream *)c;
    struct stream *s;
    hu->state = HTTP2_UPSTREAM_LEAVING;
    upstream_close(hu);
    while ((s = next_waiting(hu)) != NULL) {
        stream_on_connect_failed(s, why);
    }
}

/* The backend takes streams. Those that have no place here look for another. */
static void
serve_waiting(struct http2_upstream *hu)
{
    struct stream *s;
    hu->state = HTTP2_UPSTREAM_OPEN;
    hu->stream = NULL;
    while ((s = next_waiting(hu)) != NULL) {
        if (hu->limit == 0) {
            stream_on_connect_failed(s, REASON_connect_failed);
        } else if (has_room(hu)) {
            http2_upstream_attach(hu, s);
        } else if (!http2_upstream_acquire(s)) {
            upstream_connect(s);
        }
    }
}

/* ---- the connection ---- */

/* Does an idle one stay? */
static bool
is_kept(const struct http2_upstream *hu)
{
    const struct backend *b = hu->backend;
    unsigned nidle = 0;
    list_for_each (it, &b->h2) {
        const struct http2_upstream *other = container_of(it, struct http2_upstream, link);
        nidle += other != hu && other->state == HTTP2_UPSTREAM_OPEN && other->session.nstreams == 0;
    }
    return hu->state == HTTP2_UPSTREAM_OPEN && hu->epoch == b->epoch && !is_worn(hu) &&
           upstream_may_keep(b, nidle);
}

static void
leave(struct http2_upstream *hu)
{
    hu->state = HTTP2_UPSTREAM_LEAVING;
    http2_session_end(&hu->session, NGHTTP2_NO_ERROR, REASON_none);
}

static void
on_closed(struct http2_session *ses)
{
    struct http2_upstream *hu = http2_upstream_of(ses);
    if (ses->nstreams > 0 || hu->state < HTTP2_UPSTREAM_OPEN || hu->is_dead) {
        return;
    }
    hu->idle_ms = worker_now_ms();
    if (!is_kept(hu)) {
        leave(hu);
    } else if (hu->backend->idle_ms != 0) {
        move_due(hu, hu->idle_ms + hu->backend->idle_ms);
    }
}

void
http2_upstream_retire(struct backend *b)
{
    list_for_each_safe (it, &b->h2) {
        struct http2_upstream *hu = container_of(it, struct http2_upstream, link);
        if (hu->state == HTTP2_UPSTREAM_OPEN && hu->session.nstreams == 0) {
            leave(hu);
        }
    }
}

static void
on_settings(struct http2_session *ses)
{
    struct http2_upstream *hu = http2_upstream_of(ses);
    uint32_t max =
        nghttp2_session_get_remote_settings(ses->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    hu->limit = max < STREAMS_MAX ? max : STREAMS_MAX;
    hu->backend->h2_limit = hu->limit;
    if (hu->state != HTTP2_UPSTREAM_SETTINGS) {
        return;
    }
    conn_set_read_due(&hu->conn, worker_now_ms() + PING_AFTER_MS);
    serve_waiting(hu);
    on_closed(ses); /* of those that waited there may be none here */
}

/* What it leaves out is told to each (on_reset); the others may end. */
static void
on_goaway(struct http2_session *ses)
{
    struct http2_upstream *hu = http2_upstream_of(ses);
    if (hu->state < HTTP2_UPSTREAM_OPEN) {
        http2_session_end(ses, NGHTTP2_NO_ERROR, REASON_backend_reset);
    } else {
        hu->state = HTTP2_UPSTREAM_LEAVING;
    }
}

/* An exchange that the connection's end leaves without its answer. */
static struct http2_stream *
next_lost(const struct http2_session *ses)
{
    list_for_each (it, &ses->streams) {
        struct http2_stream *st = container_of(it, struct http2_stream, link);
        if (st->stream && (!st->is_in_done || st->stream->is_tunnel)) {
            return st;
        }
    }
    return NULL;
}

/* Answers that came whole, and wait for their clients. Are there still some? */
static bool
deliver_whole(struct http2_session *ses)
{
    struct list waiting;
    bool is_any = false;
    list_init(&waiting);
    list_splice_tail(&waiting, &ses->streams);
    while (!list_is_empty(&waiting)) {
        struct http2_stream *st = list_first(&waiting, struct http2_stream, link);
        list_del(&st->link);
        list_add_tail(&ses->streams, &st->link);
        list_del(&st->ready);
        if (st->stream) {
            http2_stream_deliver(st);
        }
        is_any = is_any || st->stream;
    }
    return is_any;
}

/* Nothing has been sent to it yet, so the next backend may be asked, whatever the method. */
static enum reason
why_not_open(struct http2_upstream *hu)
{
    static struct log_limit limit;
    const struct stream *s = hu->stream;
    uint64_t suppressed;
    if (upstream_tls_explain_loss(s, &hu->conn)) {
        return REASON_backend_tls;
    }
    if (log_limit_pass(&limit, worker_now_ms(), LOG_INTERVAL_MS, &suppressed)) {
        log_warn(
            "backend %s/%s: it does not speak HTTP/2, or closes at once (%llu more times before)",
            s->upstream->name, s->backend->id, (unsigned long long)suppressed);
    }
    return REASON_connect_failed;
}

static void
on_over(struct http2_session *ses, enum reason why)
{
    struct http2_upstream *hu = http2_upstream_of(ses);
    struct http2_stream *st;
    if (hu->state < HTTP2_UPSTREAM_OPEN) {
        http2_upstream_fail(&hu->conn, why_not_open(hu));
        return;
    }
    hu->state = HTTP2_UPSTREAM_LEAVING;
    hu->is_dead = true;
    list_del(&hu->link);
    conn_set_read_due(&hu->conn, 0);
    while ((st = next_lost(ses)) != NULL) {
        http2_upstream_lose(st, why);
    }
    if (!deliver_whole(ses)) {
        upstream_close(hu);
    }
}

void
http2_upstream_left(struct http2_upstream *hu)
{
    if (hu->is_dead) {
        conn_run_later(&hu->conn); /* it may have been the last: on_over() */
    }
}

/* Silence: of an idle connection, or of one whose backend may have gone without a word. */
static void
on_quiet(struct http2_upstream *hu)
{
    struct http2_session *ses = &hu->session;
    uint64_t now = worker_now_ms();
    if (ses->nstreams == 0) {
        uint64_t due = hu->backend->idle_ms ? hu->idle_ms + hu->backend->idle_ms : 0;
        if (due != 0 && due <= now) {
            leave(hu);
        } else {
            conn_set_read_due(&hu->conn, due);
        }
    } else if (now < hu->heard_ms + PING_AFTER_MS) {
        conn_set_read_due(&hu->conn, hu->heard_ms + PING_AFTER_MS);
    } else if (!hu->is_pinged) {
        hu->is_pinged = true;
        http2_session_ping(ses);
        conn_set_read_due(&hu->conn, now + (hu->connect_ms ? hu->connect_ms : PONG_MS));
    } else {
        on_over(ses, REASON_backend_reset);
    }
}

static void
on_due(struct http2_upstream *hu, unsigned what)
{
    if (what & CONN_WRITE_DUE) {
        on_over(&hu->session, REASON_response_timeout);
    } else if (hu->state < HTTP2_UPSTREAM_OPEN) {
        http2_upstream_fail(&hu->conn, REASON_connect_timeout);
    } else {
        on_quiet(hu);
    }
}

static void
upstream_on_event(struct conn *c, unsigned what)
{
    struct http2_upstream *hu = (struct http2_upstream *)c;
    if (hu->is_dead) {
        on_over(&hu->session, REASON_backend_reset);
        return;
    }
    if (what & (CONN_READ_DUE | CONN_WRITE_DUE)) {
        on_due(hu, what);
    }
    if (!c->is_open || hu->is_dead) {
        return;
    }
    if (c->is_readable) {
        hu->heard_ms = worker_now_ms();
        hu->is_pinged = false;
    }
    http2_session_on_event(&hu->session, what);
    if (c->is_open && hu->session.nstreams > 0) {
        conn_verify_later(c); /* a reset may have come with what was read */
    }
}

void
http2_upstream_begin(struct conn *c)
{
    struct http2_upstream *hu = (struct http2_upstream *)c;
    const struct stream *s = hu->stream;
    uint64_t now = worker_now_ms();
    hu->state = HTTP2_UPSTREAM_SETTINGS;
    hu->born_ms = now;
    hu->heard_ms = now;
    hu->idle_ms = now;
    hu->connect_ms = s->upstream->policy.timeouts.connect;
    hu->header_bytes = s->conf_listener->header_bytes;
    c->on_event = upstream_on_event;
    c->send_timeout_ms = s->upstream->policy.timeouts.send;
    if (http2_session_begin(&hu->session, c, &upstream_side, STREAMS_MAX, hu->header_bytes) != 0) {
        http2_upstream_fail(c, REASON_internal);
        return;
    }
    uint32_t connect = s->policy->timeouts.connect;
    conn_set_read_due(c, connect ? s->connect_us / 1000 + connect : 0);
    c->is_readable |= c->io.tls != NULL; /* what came behind the handshake may be decrypted */
    if (c->is_readable) {
        conn_run_later(c);
    }
}

static void
on_pong(struct http2_session *ses)
{
    (void)ses; /* whatever comes is a sign of life: upstream_on_event */
}

static void
on_block_open(struct http2_session *ses, bool is_open)
{
    if (!is_open) {
        http2_upstream_leave_scratch(http2_upstream_of(ses));
    }
}

static const struct http2_side upstream_side = {
    .on_block = http2_upstream_on_block,
    .on_field = http2_upstream_on_field,
    .on_block_end = http2_upstream_on_block_end,
    .on_malformed = http2_upstream_on_malformed,
    .on_reset = http2_upstream_on_reset,
    .on_recv_due = http2_upstream_on_recv_due,
    .on_send_due = http2_upstream_on_send_due,
    .on_closed = on_closed,
    .on_settings = on_settings,
    .on_goaway = on_goaway,
    .on_pong = on_pong,
    .on_block_open = on_block_open,
    .on_over = on_over,
};
