/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_client.c - HTTP/2 with a client: the connection and the requests that come on it. Answers
 * are in http2_client_end.c, frames in http2_session.c.
 */
#include "worker/http2_client.h"

#include "worker/grpc.h"
#include "worker/http2_client_private.h"
#include "worker/worker.h"

#define LINGER_MS    2000
#define LINGER_BYTES 65536
#define LAST_MS      1000 /* from the first GOAWAY to the last, unless the client is quicker */

static struct http2_client *
client_of(struct http2_session *ses)
{
    return (struct http2_client *)ses->conn;
}

size_t
http2_client_size(void)
{
    return sizeof(struct http2_client);
}

/* ---- deadlines, and the list of the idle ---- */

static uint64_t
earlier(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static void
update_deadline(struct http2_client *hc)
{
    conn_set_read_due(&hc->conn,
                      earlier(hc->head_due_ms, earlier(hc->idle_due_ms, hc->last_due_ms)));
}

static uint64_t
due_in(uint32_t timeout_ms)
{
    return timeout_ms ? worker_now_ms() + timeout_ms : 0;
}

static void
become_idle(struct http2_client *hc)
{
    struct conn *c = &hc->conn;
    hc->is_idle = true;
    hc->idle_due_ms = due_in(hc->listener->conf->timeouts.idle);
    update_deadline(hc);
    if (!c->is_runnable) {
        conn_unlink(c);
        list_add_tail(&worker.idle_clients, &c->link);
    }
}

static void
become_busy(struct http2_client *hc)
{
    hc->is_idle = false;
    hc->idle_due_ms = 0;
    update_deadline(hc);
    if (!hc->conn.is_runnable) {
        conn_unlink(&hc->conn);
    }
}

/* ---- the end ---- */

static void
close_conn(struct http2_client *hc)
{
    if (hc->conn.is_open) {
        listener_release_client(hc->listener, &hc->conn);
        conn_close(&hc->conn);
    }
}

static void
on_linger_event(struct conn *c, unsigned what)
{
    struct http2_client *hc = (struct http2_client *)c;
    bool is_over = c->is_broken || (what & (CONN_READ_DUE | CONN_WRITE_DUE | CONN_BROKEN));
    while (!is_over && c->is_readable) {
        char *bytes;
        ssize_t n = conn_read_scratch(c, WORKER_SCRATCH_BYTES, &bytes);
        hc->discarded += n > 0 ? (uint32_t)n : 0;
        is_over = (n <= 0 && n != IO_AGAIN) || hc->discarded > LINGER_BYTES;
    }
    if (is_over) {
        close_conn(hc);
    }
}

/* The session has ended; what is on the stack may still look at it. */
static void
let_go(struct http2_client *hc)
{
    http2_session_free(hc->session);
    hc->session = NULL;
}

/* A plain close would answer what the client still sends with a reset, which can take the last
 * frames away from it: shut down and discard for a while. */
static void
linger(struct http2_client *hc)
{
    struct conn *c = &hc->conn;
    conn_unlink(c);
    c->on_event = on_linger_event;
    conn_shutdown(c);
    conn_set_read_due(c, worker_now_ms() + LINGER_MS);
    if (c->is_readable) {
        conn_run_later(c);
    }
}

static void
client_on_over(struct http2_session *ses, enum reason why)
{
    struct http2_client *hc = client_of(ses);
    struct conn *c = &hc->conn;
    if (why == REASON_bad_request || why == REASON_header_timeout) {
        shm_count(&worker.row->failures[why], 1);
    }
    hc->is_over = true;
    http2_session_fail_all(ses, why == REASON_none ? REASON_client_closed : why);
    let_go(hc);
    if (c->is_eof || c->is_broken) {
        close_conn(hc);
    } else {
        linger(hc);
    }
}

/* ---- requests ---- */

static void *
alloc_head(void *owner, size_t len)
{
    return stream_alloc(owner, len);
}

static bool
client_on_open(struct http2_stream *st)
{
    struct http2_client *hc = client_of(st->session);
    struct stream *s = stream_new_http(hc->listener, &hc->conn, &http2_client_ops);
    if (!s) {
        return false;
    }
    s->is_http2 = true;
    s->client.conn = NULL;
    s->client.h2 = st;
    st->stream = s;
    if (hc->is_idle) {
        become_busy(hc);
    }
    return true;
}

/* On a stream that is a tunnel, or asks to be one, nothing but DATA may follow (RFC 9113 8.5). */
static void
refuse_fields(struct http2_stream *st)
{
    st->is_malformed = true;
    stream_fail(st->stream, REASON_bad_request);
}

static void
client_on_block(struct http2_stream *st, bool is_trailers)
{
    struct http2_client *hc = client_of(st->session);
    struct stream *s = st->stream;
    if (s && is_trailers && (s->http->req.seen & HTTP_SEEN_UPGRADE)) {
        refuse_fields(st);
        s = NULL;
    }
    hc->head = s ? stream_alloc(s, sizeof(*hc->head)) : NULL;
    if (!hc->head) {
        return; /* fields behind an early answer are nobody's */
    }
    struct http_limits limits = {s->conf_listener->header_bytes,
                                 (uint16_t)s->conf_listener->header_count};
    http2_head_begin(hc->head, is_trailers ? HTTP2_TRAILERS : HTTP2_REQUEST, &limits, alloc_head,
                     s);
}

static void
client_on_field(struct http2_stream *st, struct slice name, struct slice value, bool never_index)
{
    struct http2_client *hc = client_of(st->session);
    if (hc->head && st->stream) {
        http2_head_field(hc->head, name, value, never_index);
    }
}

/* Must this connection end with the streams it has? */
static bool
is_last_request(const struct http2_client *hc)
{
    const struct conf_listener *l = hc->listener->conf;
    return worker_is_retiring() || hc->listener->is_removed ||
           (l->requests_per_connection != 0 && hc->requests >= l->requests_per_connection) ||
           (l->max_age_ms != 0 && worker_now_ms() - hc->born_ms >= l->max_age_ms);
}

static void
begin_request(struct http2_client *hc, struct http2_stream *st, enum reason why)
{
    struct stream *s = st->stream;
    s->http->req = hc->head->m;
    hc->requests++;
    if (is_last_request(hc)) {
        http2_client_drain(&hc->conn);
    }
    if (why != REASON_none) {
        st->is_malformed = why == REASON_bad_request;
        s->is_grpc = grpc_is_request(&s->http->req);
        s->begin_us = worker_now_us();
        stream_fail(s, why);
        return;
    }
    http2_stream_set_length(st, &s->http->req);
    stream_begin(s);
    if (st->stream && s->http->req.body != HTTP_BODY_NONE) {
        http2_stream_expect(st, s->conf_listener->timeouts.request_body, true);
    }
}

static void
client_on_block_end(struct http2_stream *st, bool is_trailers, bool is_last)
{
    struct http2_client *hc = client_of(st->session);
    struct http2_head *head = hc->head;
    if (!st->stream || !head) {
        st->is_in_done |= is_last;
        return;
    }
    enum reason why = is_trailers ? http2_head_end_trailers(head, is_last)
                                  : http2_head_end_request(head, is_last);
    if (!is_trailers) {
        st->is_in_done = is_last;
        begin_request(hc, st, why);
    } else if (why != REASON_none) {
        st->is_malformed = why == REASON_bad_request;
        stream_fail(st->stream, why);
    } else {
        http2_stream_on_end(st, head->m.nfields > 0 ? &head->m : NULL);
    }
    hc->head = NULL;
}

static void
client_on_malformed(struct http2_stream *st)
{
    st->is_malformed = true;
    stream_fail(st->stream, REASON_bad_request);
}

static void
client_on_reset(struct http2_stream *st, uint32_t code)
{
    stream_fail(st->stream, st->is_peer_reset ? REASON_client_closed : REASON_bad_request);
}

static void
client_on_recv_due(struct http2_stream *st)
{
    stream_fail(st->stream, REASON_body_timeout);
}

static void
client_on_send_due(struct http2_stream *st)
{
    if (st->stream) {
        stream_fail(st->stream, REASON_send_timeout);
    } else {
        shm_count(&worker.row->failures[REASON_send_timeout], 1);
        http2_stream_reset(st, NGHTTP2_CANCEL);
    }
}

/* ---- the connection ---- */

static void
client_on_closed(struct http2_session *ses)
{
    struct http2_client *hc = client_of(ses);
    if (ses->nstreams == 0 && !hc->is_over) {
        become_idle(hc);
    }
}

/* A block that is not complete has a deadline, which does not move. It is set when the loop turn
 * did not bring the rest. */
static void
client_on_block_open(struct http2_session *ses, bool is_open)
{
    client_of(ses)->is_block_open = is_open;
}

static void
settle_block(struct http2_client *hc)
{
    if (hc->is_block_open == (hc->head_due_ms != 0)) {
        return;
    }
    hc->head_due_ms = hc->is_block_open ? due_in(hc->listener->conf->timeouts.header) : 0;
    update_deadline(hc);
}

static void
say_last(struct http2_client *hc)
{
    hc->last_due_ms = 0;
    update_deadline(hc);
    http2_session_last(hc->session);
}

static void
client_on_pong(struct http2_session *ses)
{
    struct http2_client *hc = client_of(ses);
    if (hc->is_warned) {
        say_last(hc);
    }
}

static void
client_on_nothing(struct http2_session *ses)
{
}

static const struct http2_side client_side = {
    .is_server = true,
    .on_open = client_on_open,
    .on_block = client_on_block,
    .on_field = client_on_field,
    .on_block_end = client_on_block_end,
    .on_malformed = client_on_malformed,
    .on_reset = client_on_reset,
    .on_recv_due = client_on_recv_due,
    .on_send_due = client_on_send_due,
    .on_closed = client_on_closed,
    .on_settings = client_on_nothing,
    .on_goaway = client_on_nothing,
    .on_pong = client_on_pong,
    .on_block_open = client_on_block_open,
    .on_over = client_on_over,
};

static bool
has_passed(uint64_t due_ms)
{
    return due_ms != 0 && due_ms <= worker_now_ms();
}

static void
on_read_due(struct http2_client *hc)
{
    if (has_passed(hc->head_due_ms)) {
        http2_session_end(hc->session, NGHTTP2_NO_ERROR, REASON_header_timeout);
    } else if (has_passed(hc->last_due_ms)) {
        say_last(hc);
    } else if (has_passed(hc->idle_due_ms)) {
        http2_session_end(hc->session, NGHTTP2_NO_ERROR, REASON_none);
    }
}

/* The client takes nothing of what it has asked for. */
static void
on_write_due(struct http2_client *hc)
{
    bool is_unused = hc->session->nstreams == 0;
    hc->is_over = true;
    hc->conn.is_broken = true;
    http2_session_fail_all(hc->session, REASON_send_timeout);
    let_go(hc);
    if (is_unused) {
        shm_count(&worker.row->failures[REASON_send_timeout], 1);
    }
    listener_release_client(hc->listener, &hc->conn);
    conn_reset(&hc->conn);
}

static void
client_on_event(struct conn *c, unsigned what)
{
    struct http2_client *hc = (struct http2_client *)c;
    if (what & CONN_WRITE_DUE) {
        on_write_due(hc);
        return;
    }
    if (what & CONN_READ_DUE) {
        on_read_due(hc);
    }
    http2_session_on_event(hc->session, what);
    if (hc->is_over) {
        return;
    }
    settle_block(hc);
    /* A reset may have come with what was read. */
    if (!hc->is_idle) {
        conn_verify_later(c);
        return;
    }
    if (list_is_empty(&c->link)) {
        list_add_tail(&worker.idle_clients, &c->link);
    }
    if (c->has_read && conn_has_been_reset(c)) {
        c->is_broken = true;
        http2_session_on_event(hc->session, CONN_BROKEN);
    }
}

void
http2_client_begin(struct conn *c, struct listener *l, struct slice read)
{
    struct http2_client *hc = (struct http2_client *)c;
    const struct conf_listener *cl = l->conf;
    conn_become(c, sizeof(*hc), client_on_event);
    hc->listener = l;
    hc->born_ms = worker_now_ms();
    c->is_http2 = true;
    c->send_timeout_ms = cl->timeouts.send;
    hc->session = http2_session_new(c, &client_side, cl->http2_streams, cl->header_bytes);
    if (!hc->session) {
        hc->is_over = true;
        close_conn(hc);
        return;
    }
    conn_unlink(c);
    conn_watch(c);
    hc->is_idle = true;
    hc->idle_due_ms = due_in(cl->timeouts.header); /* until the first request */
    update_deadline(hc);
    if (read.len > 0) {
        http2_session_feed(hc->session, read);
    }
    c->is_readable = true;
    client_on_event(c, CONN_READABLE);
}

void
http2_client_drain(struct conn *c)
{
    struct http2_client *hc = (struct http2_client *)c;
    if (hc->is_warned || hc->is_over) {
        return;
    }
    hc->is_warned = true;
    http2_session_warn(hc->session);
    http2_session_ping(hc->session);
    hc->last_due_ms = worker_now_ms() + LAST_MS;
    update_deadline(hc);
}

void
http2_client_close_idle(struct conn *c)
{
    struct http2_client *hc = (struct http2_client *)c;
    http2_session_end(hc->session, NGHTTP2_NO_ERROR, REASON_none);
    http2_session_write(hc->session);
    hc->is_over = true;
    /* a backend may owe the end of an answer that the client has got whole */
    http2_session_fail_all(hc->session, REASON_client_closed);
    let_go(hc);
    close_conn(hc);
}
