/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_stream.c - one HTTP/2 stream of a session: heads out, bodies both ways, deadlines. See
 * http2_session.h.
 */
#include <assert.h>
#include <stdlib.h>

#include "shared/sanitized.h"
#include "worker/http2_private.h"
#include "worker/worker.h"

#define DIRECT_BYTES     2048 /* less waits for more, or for the end, until the turn is over */
#define FREE_STREAMS_MAX 1024
#define END_MS           10000 /* for an END_STREAM behind the last byte of a body */
#define EARNED_BY_DATA   2     /* window updates: of the stream and of the connection */

static struct list closed_streams = LIST_INIT(closed_streams);
static struct list free_streams = LIST_INIT(free_streams);
static unsigned nfree;

/* ---- deadlines ---- */

static void
update_timer(struct http2_stream *st)
{
    uint64_t due = st->recv_due_ms;
    if (st->send_due_ms != 0 && (due == 0 || st->send_due_ms < due)) {
        due = st->send_due_ms;
    }
    timer_set(&worker.wheel, &st->timer, due);
}

static void
on_due(struct timer *t)
{
    struct http2_stream *st = container_of(t, struct http2_stream, timer);
    const struct http2_side *side = st->session->side;
    uint64_t now = worker_now_ms();
    if (st->send_due_ms != 0 && st->send_due_ms <= now) {
        st->send_due_ms = 0;
        side->on_send_due(st);
    } else if (st->recv_due_ms != 0 && st->recv_due_ms <= now) {
        st->recv_due_ms = 0;
        if (st->stream) {
            side->on_recv_due(st);
        } else {
            http2_stream_reset(st, NGHTTP2_NO_ERROR);
        }
    }
    if (!st->is_closed) {
        update_timer(st);
    }
    conn_flush_any();
}

static void
set_recv_due(struct http2_stream *st, uint32_t timeout_ms)
{
    st->recv_due_ms = timeout_ms ? worker_now_ms() + timeout_ms : 0;
    st->recv_progress = 0;
    update_timer(st);
}

static void
set_send_due(struct http2_stream *st, uint32_t timeout_ms)
{
    st->send_due_ms = timeout_ms && !st->is_relaxed ? worker_now_ms() + timeout_ms : 0;
    st->send_progress = 0;
    update_timer(st);
}

/* ---- life ---- */

struct http2_stream *
http2_stream_new(struct http2_session *ses, int32_t id)
{
    struct http2_stream *st;
    if (list_is_empty(&free_streams)) {
        st = malloc(sizeof(*st));
    } else {
        st = list_first(&free_streams, struct http2_stream, link);
        list_del(&st->link);
        nfree--;
    }
    if (!st) {
        return NULL;
    }
    *st = (struct http2_stream){.session = ses, .id = id};
    list_init(&st->ready);
    timer_init(&st->timer, on_due);
    list_add_tail(&ses->streams, &st->link);
    ses->nstreams++;
    nghttp2_session_set_stream_user_data(ses->ng, id, st);
    return st;
}

static void
free_if_over(struct http2_stream *st)
{
    if (st->is_closed && !st->stream) {
        list_del(&st->link);
        list_add_tail(&closed_streams, &st->link);
    }
}

void
http2_stream_closed(struct http2_stream *st)
{
    assert(!st->is_closed);
    st->is_closed = true;
    st->session->nstreams--;
    list_del(&st->ready);
    timer_del(&worker.wheel, &st->timer);
    st->recv_due_ms = 0;
    st->send_due_ms = 0;
    free_if_over(st);
}

/* Of a request that has been answered. */
static void
refuse_rest(struct http2_stream *st)
{
    if (st->is_in_length && st->in_left == 0) {
        set_recv_due(st, END_MS);
        return;
    }
    list_add_tail(&st->session->resets, &st->ready);
    http2_session_mark(st->session);
}

void
http2_stream_leave(struct http2_stream *st)
{
    st->stream = NULL;
    st->trailers_in = NULL;
    st->is_relaxed = false; /* nobody watches over it any more */
    if (!st->is_reset) {
        list_del(&st->ready);
    }
    if (!st->is_closed) {
        st->recv_due_ms = 0;
        bool is_waiting = st->out || (st->is_end_given && !st->is_end_sent);
        if (is_waiting && st->send_due_ms == 0) {
            set_send_due(st, st->session->conn->send_timeout_ms);
        }
        update_timer(st);
    }
    if (!st->is_closed && !st->is_reset && !st->is_in_done && st->is_end_given) {
        refuse_rest(st);
    }
    free_if_over(st);
}

void
http2_stream_reap(void)
{
    while (!list_is_empty(&closed_streams)) {
        struct http2_stream *st = list_first(&closed_streams, struct http2_stream, link);
        list_del(&st->link);
        buf_free(&st->in);
        buf_free(&st->out);
        free(st->trailers_out);
        if (!KEEPS_FREED(nfree, FREE_STREAMS_MAX)) {
            free(st);
            continue;
        }
        list_add_head(&free_streams, &st->link);
        nfree++;
    }
}

void
http2_stream_reset(struct http2_stream *st, uint32_t code)
{
    if (st->is_closed || st->is_reset) {
        return;
    }
    st->is_reset = true;
    st->reset_code = code;
    list_del(&st->ready);
    list_add_tail(&st->session->resets, &st->ready);
    http2_session_mark(st->session);
}

/* ---- in ---- */

/* Does the other end take body bytes now? What follows a request without a body waits for the 101.
 */
static bool
is_taken(const struct http2_stream *st)
{
    struct stream *s = st->stream;
    struct end *e = http2_stream_end(st);
    return s->state >= STREAM_SEND && !e->is_recv_done && !end_is_blocked(stream_other_end(s, e));
}

/* The deadline of a body runs while it can be passed on. */
static void
update_recv_due(struct http2_stream *st)
{
    if (!st->is_moving || st->is_closed) {
        return;
    }
    if (st->is_in_done || !is_taken(st)) {
        if (st->recv_due_ms != 0) {
            set_recv_due(st, 0);
        }
    } else if (st->recv_due_ms == 0) {
        set_recv_due(st, st->recv_timeout_ms);
    }
}

void
http2_stream_expect(struct http2_stream *st, uint32_t timeout_ms, bool is_moving)
{
    if (st->is_closed) {
        return;
    }
    st->is_moving = is_moving;
    st->recv_timeout_ms = timeout_ms;
    if (is_moving) {
        st->recv_due_ms = 0;
        update_recv_due(st);
    } else {
        set_recv_due(st, timeout_ms);
    }
}

void
http2_stream_relax(struct http2_stream *st)
{
    st->is_relaxed = true;
    if (!st->is_closed) {
        http2_stream_expect(st, 0, false);
        set_send_due(st, 0);
    }
}

/* The peer may send n more on this stream. */
static void
open_window(struct http2_stream *st, size_t n)
{
    if (!st->is_closed && !st->is_in_done) {
        nghttp2_session_consume_stream(st->session->ng, st->id, n);
        http2_session_mark(st->session);
    }
}

static void
pass_on(struct http2_stream *st, struct slice bytes)
{
    st->recv_progress += (uint32_t)bytes.len;
    if (st->is_moving && st->recv_progress >= CONN_PROGRESS_BYTES && st->recv_due_ms != 0) {
        set_recv_due(st, st->recv_timeout_ms);
    }
    stream_on_body(st->stream, http2_stream_end(st), bytes);
    open_window(st, bytes.len);
}

void
http2_stream_set_length(struct http2_stream *st, const struct http_msg *m)
{
    st->is_in_length = (m->seen & HTTP_SEEN_LENGTH) != 0;
    st->in_left = m->length;
}

void
http2_stream_on_body(struct http2_stream *st, struct slice bytes)
{
    st->in_left -= bytes.len < st->in_left ? bytes.len : st->in_left;
    if (!st->stream) {
        return; /* an answer has ended the exchange: thrown away */
    }
    if (!st->in && is_taken(st)) {
        pass_on(st, bytes);
    } else if (buf_append(&st->in, bytes.ptr, bytes.len) != 0) {
        stream_fail(st->stream, REASON_internal);
    }
    if (st->stream) {
        update_recv_due(st);
    }
}

/* The end may be told only once, and a request without a body has been told of at its head. */
static void
pass_end(struct http2_stream *st)
{
    struct end *e = http2_stream_end(st);
    if (!e->is_recv_done) {
        stream_on_body_end(st->stream, e, st->trailers_in);
    }
}

void
http2_stream_deliver(struct http2_stream *st)
{
    while (st->stream && st->in && is_taken(st)) {
        struct slice bytes = buf_slice(st->in);
        pass_on(st, bytes);
        conn_flush_any(); /* what was put lies in the buffer */
        buf_consume(&st->in, bytes.len);
    }
    if (st->stream && !st->in && st->is_in_done && is_taken(st)) {
        pass_end(st);
    }
    if (st->stream) {
        update_recv_due(st);
    }
}

void
http2_stream_on_end(struct http2_stream *st, struct http_msg *trailers)
{
    st->is_in_done = true;
    if (!st->stream) {
        return;
    }
    st->trailers_in = trailers;
    http2_stream_deliver(st);
}

void
http2_stream_recv(struct http2_stream *st)
{
    if (st->is_closed && !st->in && !st->is_in_done) {
        return;
    }
    update_recv_due(st);
    if ((st->in || st->is_in_done) && list_is_empty(&st->ready)) {
        list_add_tail(&st->session->ready, &st->ready);
        conn_run_later(st->session->conn);
    }
}

/* ---- out ---- */

/* RFC 8441: a stream that asks to become a tunnel, or has become one, has no end yet. */
static bool
is_open_ended(const struct http_msg *m)
{
    return m->status == 101 || (m->status == 0 && m->upgrade.len > 0);
}

/* What m says of its body decides where the end of the stream is framed. */
static void
begin_body(struct http2_stream *st, const struct http_msg *m)
{
    st->is_length = m->body == HTTP_BODY_LENGTH;
    st->out_left = m->length;
    if (m->body == HTTP_BODY_NONE && !is_open_ended(m)) {
        st->is_end_given = true;
        st->is_end_sent = true;
    }
}

struct http2_stream *
http2_stream_open(struct http2_session *ses, struct stream *s, const nghttp2_nv *head, size_t n,
                  const struct http_msg *m)
{
    struct http2_stream *st = http2_stream_new(ses, 0);
    if (!st) {
        return NULL;
    }
    st->stream = s;
    begin_body(st, m);
    nghttp2_data_provider body = http2_body_of(st);
    st->id = nghttp2_submit_request(ses->ng, NULL, head, n, st->is_end_given ? NULL : &body, st);
    if (st->id < 0) {
        st->stream = NULL;
        http2_stream_closed(st);
        return NULL;
    }
    http2_session_mark(ses);
    return st;
}

void
http2_stream_send_head(struct http2_stream *st, const nghttp2_nv *head, size_t n,
                       const struct http_msg *m)
{
    struct http2_session *ses = st->session;
    int r;
    if (st->is_closed) {
        return;
    }
    if (m->status < 200 && m->status != 101) {
        r = nghttp2_submit_headers(ses->ng, NGHTTP2_FLAG_NONE, st->id, NULL, head, n, NULL);
    } else {
        st->has_answer = true;
        begin_body(st, m);
        nghttp2_data_provider body = http2_body_of(st);
        r = nghttp2_submit_response(ses->ng, st->id, head, n, st->is_end_given ? NULL : &body);
    }
    if (r != 0) {
        http2_session_break(ses);
    }
    http2_session_mark(ses);
}

/* There is something to frame again. */
static void
resume(struct http2_stream *st)
{
    if (st->is_deferred) {
        st->is_deferred = false;
        nghttp2_session_resume_data(st->session->ng, st->id);
    }
    http2_session_mark(st->session);
}

/* Frame what flow control lets go now, from where it lies. Returns the rest. */
static struct slice
frame_now(struct http2_stream *st, struct slice bytes)
{
    st->direct = bytes;
    resume(st);
    http2_pump(st->session);
    bytes = st->direct;
    st->direct = slice_of(NULL, 0);
    return bytes;
}

static void
keep_body(struct http2_stream *st, struct slice bytes)
{
    if (buf_append(&st->out, bytes.ptr, bytes.len) != 0) {
        http2_session_break(st->session);
    }
    if (st->send_due_ms == 0) {
        set_send_due(st, st->session->conn->send_timeout_ms);
    }
    resume(st);
}

void
http2_stream_send_body(struct http2_stream *st, struct slice bytes)
{
    struct http2_session *ses = st->session;
    struct end *e = http2_stream_end(st);
    if (st->is_closed || bytes.len == 0) {
        return;
    }
    if (st->is_length) {
        st->out_left -= bytes.len < st->out_left ? bytes.len : st->out_left;
        st->is_end_given = st->out_left == 0;
    }
    bool is_worth = st->is_end_given || bytes.len >= DIRECT_BYTES;
    if (is_worth && !st->out && ses->depth == 0 && !conn_is_blocked(ses->conn)) {
        bytes = frame_now(st, bytes);
    }
    if (bytes.len > 0 && !st->is_closed) {
        keep_body(st, bytes);
    }
    e->is_blocked = !st->is_closed && buf_len(st->out) >= HTTP2_OUT_BYTES;
}

/* A copy of fields that are sent later. */
static struct http2_fields *
copy_fields(const nghttp2_nv *nv, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        bytes += nv[i].namelen + nv[i].valuelen;
    }
    struct http2_fields *copy = malloc(sizeof(*copy) + n * sizeof(*nv) + bytes);
    if (!copy) {
        return NULL;
    }
    uint8_t *at = (uint8_t *)(copy->nv + n);
    copy->n = n;
    for (size_t i = 0; i < n; i++) {
        copy->nv[i] = nv[i];
        copy->nv[i].name = memcpy(at, nv[i].name, nv[i].namelen);
        at += nv[i].namelen;
        copy->nv[i].value = memcpy(at, nv[i].value, nv[i].valuelen);
        at += nv[i].valuelen;
    }
    return copy;
}

void
http2_stream_send_end(struct http2_stream *st, const nghttp2_nv *trailers, size_t n)
{
    if (st->is_closed || st->is_end_given) {
        return;
    }
    if (n > 0) {
        st->trailers_out = copy_fields(trailers, n);
        if (!st->trailers_out) {
            http2_session_break(st->session);
        }
    }
    st->is_end_given = true;
    if (st->send_due_ms == 0) {
        set_send_due(st, st->session->conn->send_timeout_ms);
    }
    resume(st);
}

void
http2_stream_on_framed(struct http2_stream *st, size_t n)
{
    http2_session_earn(st->session, n > 0 ? EARNED_BY_DATA : 0);
    bool is_empty = !st->out && st->direct.len == 0;
    st->is_end_sent = is_empty && st->is_end_given;
    st->send_progress += (uint32_t)n;
    if (st->send_due_ms != 0 && is_empty) {
        set_send_due(st, 0);
    } else if (st->send_due_ms != 0 && st->send_progress >= CONN_PROGRESS_BYTES) {
        set_send_due(st, st->session->conn->send_timeout_ms);
    }
    struct end *e = st->stream ? http2_stream_end(st) : NULL;
    if (e && e->is_blocked && buf_len(st->out) < HTTP2_OUT_BYTES) {
        e->is_blocked = false;
        stream_on_unblocked(st->stream, e);
    }
}
