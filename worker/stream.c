/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.c - one exchange: see stream.h. What all protocols share happens here, once.
 */
#include "worker/stream.h"

#include <assert.h>
#include <stdlib.h>

#include "shared/grpc.h"
#include "shared/sanitized.h"
#include "shared/tls.h"
#include "worker/access_log.h"
#include "worker/forward.h"
#include "worker/grpc.h"
#include "worker/limit.h"
#include "worker/queue.h"
#include "worker/retry.h"
#include "worker/route.h"
#include "worker/splice.h"
#include "worker/sticky.h"
#include "worker/stream_private.h"
#include "worker/upstream.h"
#include "worker/worker.h"

#define HEAD_FIRST_BYTES 2048 /* of the arena, for a request head */
#define FREE_STREAMS_MAX 1024

struct stream_block {
    struct stream_block *next;
    char bytes[];
};

static struct list done_streams = LIST_INIT(done_streams);
static struct list free_streams = LIST_INIT(free_streams);
static unsigned nfree;

static struct stream *
alloc_http(void)
{
    if (list_is_empty(&free_streams)) {
        return malloc(STREAM_BYTES);
    }
    struct stream *s = list_first(&free_streams, struct stream, link);
    list_del(&s->link);
    nfree--;
    return s;
}

static void
begin(struct stream *s, struct listener *l, struct conn *client, const struct end_ops *ops)
{
    s->listener = l;
    s->conf = conf_ref(l->owner);
    s->conf_listener = l->conf;
    s->client.ops = ops;
    s->client.conn = client;
    s->client_ip = client->peer;
    if (client->io.ops == &transport_tls_ops) {
        s->tls_version = transport_tls_version(&client->io);
        s->is_resumed = transport_tls_is_resumed(&client->io);
    }
    s->first_us = worker_now_us();
    list_init(&s->queue_link);
    list_add_tail(&worker.streams, &s->link);
}

/* One block: the stream, its HTTP part, and the arena in the rest. */
struct stream *
stream_new_http(struct listener *l, struct conn *client, const struct end_ops *ops)
{
    struct stream *s = alloc_http();
    if (!s) {
        return NULL;
    }
    memset(s, 0, sizeof(*s) + sizeof(*s->http));
    s->http = (struct stream_http *)(s + 1);
    s->arena = (char *)(s->http + 1);
    s->arena_size = STREAM_BYTES - sizeof(*s) - sizeof(*s->http);
    s->http->head = s->arena;
    s->http->head_cap = HEAD_FIRST_BYTES;
    begin(s, l, client, ops);
    return s;
}

struct stream *
stream_new_tcp(struct listener *l, struct conn *client, const struct end_ops *ops)
{
    struct stream *s = malloc(sizeof(*s) + STREAM_TCP_ARENA);
    if (!s) {
        return NULL;
    }
    memset(s, 0, sizeof(*s));
    s->is_tcp = true;
    s->is_tunnel = true;
    s->arena = (char *)(s + 1);
    s->arena_size = STREAM_TCP_ARENA;
    begin(s, l, client, ops);
    return s;
}

void *
stream_alloc(struct stream *s, size_t len)
{
    size_t used = (s->arena_used + 7u) & ~(size_t)7u;
    if (used + len <= s->arena_size) {
        s->arena_used = (uint32_t)(used + len);
        return s->arena + used;
    }
    struct stream_block *block = malloc(sizeof(*block) + len);
    if (!block) {
        return NULL;
    }
    block->next = s->blocks;
    s->blocks = block;
    return block->bytes;
}

static void
free_stream(struct stream *s)
{
    while (s->blocks) {
        struct stream_block *next = s->blocks->next;
        free(s->blocks);
        s->blocks = next;
    }
    if (s->http && s->http->head != s->arena) {
        free(s->http->head);
    }
    splice_pipe_release(&s->pipes[0]);
    splice_pipe_release(&s->pipes[1]);
    conf_unref(s->conf);
    if (s->is_tcp || !KEEPS_FREED(nfree, FREE_STREAMS_MAX)) {
        free(s);
        return;
    }
    list_add_head(&free_streams, &s->link);
    nfree++;
}

void
stream_reap(void)
{
    while (!list_is_empty(&done_streams)) {
        struct stream *s = list_first(&done_streams, struct stream, link);
        list_del(&s->link);
        free_stream(s);
    }
}

/* The only place where a state changes: they only go forward, except that a lost connection leads
 * back to PICK. */
void
stream_enter(struct stream *s, enum stream_state state)
{
    assert(s->state != STREAM_DONE);
    assert(state > s->state || state == STREAM_PICK);
    s->state = state;
}

static unsigned
code_index(unsigned status)
{
    return status >= 100 && status <= 599 ? status - 100 : SHM_CODES - 1;
}

/* ---- deadlines of the whole exchange; those of one end are the end's ---- */

static void
on_stream_due(struct timer *t);

/* Most exchanges have no deadline of this kind: the timer is made ready by the first one. */
static void
update_timer(struct stream_http *http)
{
    uint64_t due = http->total_due_ms;
    if (http->quiet_due_ms != 0 && (due == 0 || http->quiet_due_ms < due)) {
        due = http->quiet_due_ms;
    }
    http->timer.on_due = on_stream_due;
    timer_set(&worker.wheel, &http->timer, due);
}

static void
on_stream_due(struct timer *t)
{
    struct stream_http *http = container_of(t, struct stream_http, timer);
    struct stream *s = stream_of_http(http);
    uint64_t now = worker_now_ms();
    if (http->total_due_ms != 0 && http->total_due_ms <= now) {
        stream_fail(s, REASON_total_timeout);
    } else if (http->quiet_due_ms != 0 && http->quiet_due_ms <= now) {
        stream_fail(s, REASON_tunnel_idle);
    } else {
        update_timer(http);
    }
    conn_flush_any();
}

void
stream_set_deadline(struct stream *s, uint64_t due_ms)
{
    s->http->total_due_ms = due_ms;
    update_timer(s->http);
}

void
stream_limit_silence(struct stream *s, uint32_t timeout_ms)
{
    s->http->quiet_ms = timeout_ms;
    s->http->quiet_due_ms = 0;
    stream_touch(s);
    update_timer(s->http);
}

void
stream_touch(struct stream *s)
{
    if (s->http->quiet_ms != 0) {
        s->http->quiet_due_ms = worker_now_ms() + s->http->quiet_ms;
        update_timer(s->http);
    }
}

/* ---- requests in flight ---- */

static struct shm_gauge
gauge_of(const struct stream *s)
{
    return shm_gauge_requests(worker.shm, worker.row, s->listener->slot);
}

/* false: it is one too many, and has been refused. */
static bool
count_request(struct stream *s)
{
    uint32_t limit = s->conf_listener->requests_in_flight;
    if (limit == 0) {
        return true;
    }
    s->is_counted = shm_gauge_try_add(worker.row, gauge_of(s), limit);
    if (!s->is_counted) {
        shm_count(&s->listener->counters->requests_refused, 1);
        stream_fail(s, REASON_over_limit);
    }
    return s->is_counted;
}

void
stream_uncount(struct stream *s)
{
    if (s->is_counted) {
        s->is_counted = false;
        shm_gauge_sub(worker.row, gauge_of(s));
    }
}

/* Counters, log line, and off the list of the living. Both ends have let go. */
static void
end_stream(struct stream *s)
{
    queue_forget(s);
    s->tries += s->taken != NULL; /* however the last one ended */
    upstream_end_exchange(s);
    stream_uncount(s);
    stream_enter(s, STREAM_DONE);
    if (s->http) {
        retry_forget(s);
        buf_free(&s->http->sent_body);
        timer_del(&worker.wheel, &s->http->timer);
    }
    if (s->reason != REASON_none) {
        shm_count(&worker.row->failures[s->reason], 1);
    }
    if (!s->is_tcp) {
        struct shm_row_listener *counters = s->listener->counters;
        shm_count(&counters->codes[code_index(s->status)], 1);
        if (s->is_grpc) {
            grpc_count(s);
        }
        if (!s->is_tunnel) { /* how long people talk says nothing about requests */
            shm_observe(&counters->duration, worker_now_us() - s->first_us);
        }
    }
    access_log_stream(s);
    list_del(&s->link);
    list_add_tail(&done_streams, &s->link);
}

/* What the client is told of a failure; a limit has a status of its own. */
static uint16_t
failed_status(const struct stream *s, enum reason why)
{
    unsigned status = why == REASON_rate_limited ? s->status : (unsigned)reason_table[why].status;
    return (uint16_t)(s->is_grpc ? grpc_status_for(why, status) : status);
}

void
stream_fail(struct stream *s, enum reason why)
{
    if (s->state == STREAM_DONE) {
        return;
    }
    s->reason = why;
    s->bytes_in += s->server.bytes;
    if (s->server.ops) {
        s->server.ops->abort(s, &s->server, why);
        s->server = (struct end){0};
    }
    if (!s->has_head) {
        s->status = failed_status(s, why);
    }
    s->client.ops->abort(s, &s->client, why);
    end_stream(s);
}

static void
complete(struct stream *s)
{
    struct backend *b = s->taken;
    if (b) {
        shm_count(&b->counters->served, 1);
    }
    s->bytes_in += s->server.bytes;
    s->server.ops->finish(s, &s->server);
    s->client.ops->finish(s, &s->client);
    end_stream(s);
}

static enum reason
check_request(const struct stream *s)
{
    const struct http_msg *req = &s->http->req;
    if (req->method == HTTP_TRACE || req->method == HTTP_CONNECT) {
        return REASON_method;
    }
    if (req->seen & HTTP_SEEN_OTHER_EXPECT) {
        return REASON_bad_request;
    }
    uint64_t limit = s->conf_listener->body_bytes;
    if (limit != 0 && req->body == HTTP_BODY_LENGTH && req->length > limit) {
        return REASON_body_too_large;
    }
    return REASON_none;
}

/* The listener's limit, then the route's. false: it was refused. */
static bool
is_within_limits(struct stream *s, const struct conf_route *route)
{
    const struct conf_rate_limit *limits[] = {s->conf_listener->rate_limit, route->rate_limit};
    for (int i = 0; i < 2; i++) {
        if (limits[i] && !limit_take(s, limits[i])) {
            s->status = limits[i]->status;
            stream_fail(s, REASON_rate_limited);
            return false;
        }
    }
    return true;
}

/* The upstream's deadline, unless the client's own is earlier. */
static void
limit_total(struct stream *s)
{
    uint64_t due = worker_now_ms() + s->policy->timeouts.total, asked = s->http->total_due_ms;
    if (s->policy->timeouts.total != 0 && (asked == 0 || due < asked)) {
        stream_set_deadline(s, due);
    }
}

void
stream_begin(struct stream *s)
{
    s->begin_us = worker_now_us();
    stream_enter(s, STREAM_PICK);
    enum reason why = grpc_begin(s);
    if (why == REASON_none) {
        why = check_request(s);
    }
    if (why == REASON_none) {
        why = forward_request(s);
    }
    if (why != REASON_none) {
        stream_fail(s, why);
        return;
    }
    struct slice path = s->http->req.path;
    why = route_find(s);
    if (why != REASON_none) {
        stream_fail(s, why);
        return;
    }
    if (!count_request(s) || !is_within_limits(s, s->http->route) || !route_follow(s)) {
        return;
    }
    forward_spelled(s);
    limit_total(s);
    retry_deposit(s);
    sticky_begin(s);
    upstream_acquire(s, conf_upstream_pool(s->upstream, path));
}

void
stream_answer(struct stream *s, struct http_msg *m, struct slice body)
{
    s->status = m->status;
    s->has_head = true;
    s->client.is_recv_done = s->http->req.body == HTTP_BODY_NONE;
    s->http->grpc_code = (uint8_t)grpc_code_of_status(m->status);
    s->client.ops->send_head(s, &s->client, m);
    if (m->body != HTTP_BODY_NONE) {
        s->client.ops->send_body(s, &s->client, body);
        s->client.bytes = body.len;
    }
    s->client.ops->send_end(s, &s->client, NULL);
    conn_flush_any(); /* m is gone on return */
    s->client.ops->finish(s, &s->client);
    end_stream(s);
}

void
stream_begin_tcp(struct stream *s)
{
    s->begin_us = worker_now_us();
    stream_enter(s, STREAM_PICK);
    retry_deposit(s);
    upstream_acquire(s, &s->upstream->pools[0]);
}

/* What the attempt before has sent of the body, and its end. */
static void
send_kept_body(struct stream *s)
{
    struct slice kept = buf_slice(s->http->sent_body);
    if (kept.len > 0) {
        s->server.bytes = kept.len;
        s->server.ops->send_body(s, &s->server, kept);
        conn_flush_any(); /* what was put lies in the buffer */
    }
    if (s->state == STREAM_SEND && s->client.is_recv_done) {
        s->server.ops->send_end(s, &s->server, NULL);
        s->server.is_send_done = true;
        stream_on_sent(s);
    }
}

void
stream_on_connected(struct stream *s)
{
    s->connected_us = worker_now_us();
    if (s->is_tcp) {
        if (s->upstream->algorithm == CONF_EWMA) {
            shm_backend_observe(worker.shm, s->taken->slot, s->connected_us,
                                s->connected_us - s->connect_us);
        }
        upstream_report(s, false);
        s->reason = REASON_none; /* of an attempt before */
        stream_enter(s, STREAM_FORWARD);
        stream_unpin_conf(s);
        s->client.ops->recv_body(s, &s->client);
        if (s->state == STREAM_FORWARD) {
            s->server.ops->recv_body(s, &s->server);
        }
        return;
    }
    stream_enter(s, STREAM_SEND);
    s->server.ops->send_head(s, &s->server, &s->http->req);
    if (s->state == STREAM_DONE) {
        return;
    }
    if (s->http->req.body == HTTP_BODY_NONE) {
        s->client.is_recv_done = true;
        s->server.is_send_done = true;
        stream_on_sent(s);
        return;
    }
    send_kept_body(s);
    if (s->state == STREAM_SEND && !s->client.is_recv_done) {
        s->client.ops->recv_body(s, &s->client);
    }
}

void
stream_leave_backend(struct stream *s)
{
    upstream_end_exchange(s);
    s->bytes_in += s->server.bytes;
    s->server = (struct end){0};
    if (s->http) {
        s->http->sent_us = 0; /* the next attempt's latency is its own */
    }
    stream_enter(s, STREAM_PICK);
}

void
stream_on_connect_failed(struct stream *s, enum reason why)
{
    s->server = (struct end){0};
    if (why == REASON_over_limit) {
        /* Another worker took the last place: no failure, but this one is full. */
        stream_leave_backend(s);
        if (++s->nraces < STREAM_MAX_RACES) {
            upstream_acquire(s, s->pool);
        } else {
            queue_wait(s);
        }
        return;
    }
    stream_on_server_failed(s, why);
}

void
stream_on_server_failed(struct stream *s, enum reason why)
{
    upstream_count_failure(s);
    if (!retry_begin(s, why)) {
        stream_fail(s, why);
    }
}

static bool
may_send_again(const struct stream *s)
{
    return retry_has_body(s) && !s->has_head && s->resent < STREAM_MAX_RESENT;
}

static void
send_again(struct stream *s)
{
    s->resent++;
    stream_leave_backend(s);
    upstream_acquire(s, s->pool);
}

void
stream_on_unprocessed(struct stream *s)
{
    if (!s->policy->retry) {
        stream_on_server_lost(s);
        return;
    }
    bool may = may_send_again(s);
    if (may && retry_pay(s)) {
        send_again(s);
        return;
    }
    s->server.ops = NULL;
    if (may) { /* the budget has been asked */
        upstream_count_failure(s);
        stream_fail(s, REASON_backend_reset);
    } else {
        stream_on_server_failed(s, REASON_backend_reset);
    }
}

void
stream_on_server_lost(struct stream *s)
{
    bool may_repeat = s->is_on_reused && http_method_is_idempotent(s->http->req.method);
    if (may_repeat && may_send_again(s)) {
        s->wants_fresh = true;
        send_again(s);
        return;
    }
    s->server.ops = NULL;
    stream_on_server_failed(s, REASON_backend_reset);
}

/* What the backend has until the head of its answer. */
static uint32_t
answer_timeout(const struct stream *s)
{
    uint32_t all = s->policy->timeouts.response;
    uint32_t one = s->policy->retry ? s->policy->retry->per_try_timeout : 0;
    return one != 0 && (all == 0 || one < all) ? one : all;
}

void
stream_on_sent(struct stream *s)
{
    s->http->sent_us = worker_now_us();
    if (!s->has_head) {
        s->server.ops->expect(s, &s->server, answer_timeout(s));
    }
}

/* RFC 9110 15.2: interim answers are forwarded, but HTTP/1.0 does not know them. */
static void
on_interim(struct stream *s, struct http_msg *m)
{
    if (m->status == 101) {
        stream_upgrade(s, m);
    } else if (s->http->req.minor >= 1) {
        s->client.ops->send_head(s, &s->client, m);
    }
}

void
stream_report_answer(struct stream *s, unsigned status)
{
    uint64_t since = s->http->sent_us ? s->http->sent_us : s->connected_us;
    upstream_report(s, status >= 500 || upstream_is_too_slow(s, worker_now_us() - since));
}

void
stream_send_answer(struct stream *s, struct http_msg *m)
{
    stream_enter(s, STREAM_FORWARD);
    s->http->head_us = worker_now_us();
    uint64_t since = s->http->sent_us ? s->http->sent_us : s->connected_us;
    shm_observe(&s->taken->counters->response, s->http->head_us - since);
    if (s->upstream->algorithm == CONF_EWMA || s->upstream->breaker) {
        shm_backend_observe(worker.shm, s->taken->slot, s->http->head_us, s->http->head_us - since);
    }
    s->status = m->status;
    s->reason = REASON_none; /* of an attempt before */
    s->has_head = true;
    buf_free(&s->http->sent_body);
    limit_put_fields(s, m);
    sticky_put_field(s, m);
    route_edit_answer(s, m);
    s->client.ops->send_head(s, &s->client, m);
}

void
stream_on_response(struct stream *s, struct http_msg *m)
{
    if (!forward_response(m) || stream_is_mistakable(s, m)) {
        stream_on_server_failed(s, REASON_bad_response);
        return;
    }
    if (m->status < 200) {
        on_interim(s, m);
        return;
    }
    stream_report_answer(s, m->status);
    if (retry_begin_status(s, m->status)) {
        return;
    }
    stream_send_answer(s, m);
    if (m->body != HTTP_BODY_NONE) {
        s->server.ops->expect(s, &s->server, s->policy->timeouts.response_body);
    }
    if (s->is_grpc) {
        grpc_on_answer(s, m);
    }
}

void
stream_on_body(struct stream *s, struct end *from, struct slice bytes)
{
    struct end *to = stream_other_end(s, from);
    if (s->http && from == &s->client) {
        retry_keep_body(s, bytes);
    }
    to->bytes += bytes.len;
    if (s->http) {
        stream_touch(s);
    }
    if (from == &s->client && !s->is_tunnel) {
        uint64_t limit = s->conf_listener->body_bytes;
        if (limit != 0 && to->bytes > limit) {
            stream_fail(s, REASON_body_too_large);
            return;
        }
    }
    to->ops->send_body(s, to, bytes);
}

void
stream_on_body_end(struct stream *s, struct end *from, struct http_msg *trailers)
{
    struct end *to = stream_other_end(s, from);
    from->is_recv_done = true;
    if (s->is_grpc && from == &s->server) {
        grpc_on_answer_end(s, trailers);
    }
    if (s->http && from == &s->client && trailers) {
        s->http->has_trailers = true;
    }
    to->ops->send_end(s, to, trailers);
    to->is_send_done = true;
    if (s->is_tunnel) {
        if (s->client.is_recv_done && s->server.is_recv_done) {
            complete(s);
        }
    } else if (from == &s->client) {
        stream_on_sent(s);
    } else {
        complete(s);
    }
}

void
stream_on_unblocked(struct stream *s, struct end *to)
{
    struct end *from = stream_other_end(s, to);
    if (s->state >= STREAM_SEND && from->ops && !from->is_recv_done) {
        from->ops->recv_body(s, from);
    }
}
