/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_upstream_end.c - the server's end of an exchange over HTTP/2: request out, answer in. See
 * http2_upstream.h.
 */
#include "shared/websocket.h"
#include "worker/http2_upstream_private.h"
#include "worker/worker.h"

#define INTERIM_MAX   100 /* 1xx heads before the answer */
#define SCRATCH_BYTES 16384

static const struct end_ops upstream_ops;

/* ---- the answer ---- */

static void
on_bad_answer(struct http2_stream *st, enum reason why)
{
    stream_on_server_failed(st->stream, why);
}

/* Heads are read into memory that the next one uses again: a block is whole in one read, save for
 * rare ones. Those of other connections that come in between take the stream's memory. */
static struct {
    struct http2_upstream *owner;
    size_t used;
    _Alignas(16) char bytes[SCRATCH_BYTES];
} scratch;

static void *
alloc_head(void *owner, size_t len)
{
    struct http2_stream *st = owner;
    size_t begin = (scratch.used + 15u) & ~(size_t)15u;
    if (scratch.owner != http2_upstream_of(st->session) || len > SCRATCH_BYTES - begin) {
        return stream_alloc(st->stream, len);
    }
    scratch.used = begin + len;
    return scratch.bytes + begin;
}

static void *
alloc_trailers(void *owner, size_t len)
{
    struct http2_stream *st = owner;
    return stream_alloc(st->stream, len);
}

static void
take_scratch(struct http2_upstream *hu)
{
    if (!scratch.owner || scratch.owner == hu) {
        scratch.owner = hu;
        scratch.used = 0;
    }
}

void
http2_upstream_leave_scratch(struct http2_upstream *hu)
{
    if (scratch.owner == hu) {
        scratch.owner = NULL;
    }
}

void
http2_upstream_on_block(struct http2_stream *st, bool is_trailers)
{
    struct http2_upstream *hu = http2_upstream_of(st->session);
    if (!st->stream) {
        return;
    }
    struct http_limits limits = {hu->header_bytes, (uint16_t)worker.max_fields};
    take_scratch(hu);
    http2_head_begin(&hu->head, is_trailers ? HTTP2_TRAILERS : HTTP2_RESPONSE, &limits,
                     is_trailers ? alloc_trailers : alloc_head, st);
}

void
http2_upstream_on_field(struct http2_stream *st, struct slice name, struct slice value,
                        bool never_index)
{
    if (st->stream) {
        http2_head_field(&http2_upstream_of(st->session)->head, name, value, never_index);
    }
}

static void
on_trailers(struct http2_stream *st, bool is_last)
{
    struct http2_head *h = &http2_upstream_of(st->session)->head;
    /* on a tunnel nothing but DATA may come (RFC 9113 8.5) */
    if (st->stream->is_tunnel || http2_head_end_trailers(h, is_last) != REASON_none) {
        on_bad_answer(st, REASON_bad_response);
        return;
    }
    struct http_msg *trailers = NULL;
    if (h->m.nfields > 0) {
        trailers = stream_alloc(st->stream, sizeof(*trailers));
        if (!trailers) {
            on_bad_answer(st, REASON_internal);
            return;
        }
        *trailers = h->m;
    }
    http2_stream_on_end(st, trailers);
}

/* The answer to the key that the request has in HTTP/1 (RFC 8441 5). */
static void
add_accept(struct stream *s, struct http_msg *m)
{
    const struct http_msg *req = &s->http->req;
    const struct http_field *key = http_msg_find(req, HTTP_FIELD_SEC_WEBSOCKET_KEY);
    char *text = NULL;
    if (http_is_websocket(req->upgrade) && key) {
        text = stream_alloc(s, WEBSOCKET_ACCEPT_LEN + 1);
    }
    if (text) { /* else it is not there, which is a bad answer */
        m->fields[m->nfields++] =
            (struct http_field){.name = SLICE("Sec-WebSocket-Accept"),
                                .value = websocket_write_accept(key->value, text),
                                .id = HTTP_FIELD_SEC_WEBSOCKET_ACCEPT};
    }
}

static void
on_final_head(struct http2_stream *st, struct http_msg *m, bool is_last)
{
    struct stream *s = st->stream;
    st->has_answer = true;
    http2_upstream_of(st->session)->is_proved = true;
    /* of a message without a body only the end of the stream may come */
    st->is_in_length = m->body == HTTP_BODY_NONE && m->status != 101;
    if (m->status == 101) {
        add_accept(s, m);
    }
    stream_on_response(s, m);
    if (is_last) {
        http2_stream_on_end(st, NULL);
    } else if (st->stream && m->body == HTTP_BODY_NONE && m->status >= 200) {
        stream_on_body_end(s, &s->server, NULL); /* whether or not an empty DATA frame follows */
    }
}

static void
on_head(struct http2_stream *st, bool is_last)
{
    struct http2_head *h = &http2_upstream_of(st->session)->head;
    struct stream *s = st->stream;
    enum reason why = http2_head_end_response(h, is_last, (enum http_method)s->http->req.method,
                                              s->http->req.upgrade);
    if (why != REASON_none) {
        on_bad_answer(st, REASON_bad_response);
        return;
    }
    struct http_msg m = h->m;
    if (m.status >= 200 || m.status == 101) {
        on_final_head(st, &m, is_last);
    } else if (++st->ninterim > INTERIM_MAX) {
        on_bad_answer(st, REASON_bad_response);
    } else {
        stream_on_response(s, &m);
    }
}

void
http2_upstream_on_block_end(struct http2_stream *st, bool is_trailers, bool is_last)
{
    struct http2_upstream *hu = http2_upstream_of(st->session);
    if (!st->stream) {
        if (is_last) {
            http2_stream_on_end(st, NULL);
        }
    } else if (is_trailers) {
        on_trailers(st, is_last);
    } else {
        on_head(st, is_last);
    }
    http2_upstream_leave_scratch(hu);
}

void
http2_upstream_on_malformed(struct http2_stream *st)
{
    on_bad_answer(st, REASON_bad_response);
}

/* It takes fewer streams than its SETTINGS said. */
static void
note_refused(struct http2_upstream *hu)
{
    unsigned taken = hu->session.nstreams > 0 ? hu->session.nstreams : 1;
    if (!hu->session.has_goaway && taken < hu->limit) {
        hu->limit = taken;
    }
}

static enum reason
why_cut(const struct http2_stream *st)
{
    return st->has_answer && !st->stream->is_tunnel ? REASON_response_cut : REASON_backend_reset;
}

/* What was refused has not been looked at: it may be sent again (RFC 9113 8.7). */
void
http2_upstream_on_reset(struct http2_stream *st, uint32_t code)
{
    struct stream *s = st->stream;
    if (st->is_in_done && !s->is_tunnel) {
        return; /* the answer is here whole; of the request no more is wanted */
    }
    if (code == NGHTTP2_REFUSED_STREAM && !st->has_answer) {
        note_refused(http2_upstream_of(st->session));
        http2_stream_leave(st);
        stream_on_unprocessed(s);
    } else {
        on_bad_answer(st, why_cut(st));
    }
}

void
http2_upstream_on_recv_due(struct http2_stream *st)
{
    on_bad_answer(st, st->has_answer ? REASON_response_cut : REASON_response_timeout);
}

void
http2_upstream_on_send_due(struct http2_stream *st)
{
    if (st->stream) {
        on_bad_answer(st, REASON_response_timeout);
    } else {
        http2_stream_reset(st, NGHTTP2_CANCEL);
    }
}

/* The answer may be here whole and wait for its client: then nothing is lost. */
void
http2_upstream_lose(struct http2_stream *st, enum reason why)
{
    struct stream *s = st->stream;
    if (st->has_answer) {
        on_bad_answer(st, why == REASON_backend_reset ? why_cut(st) : why);
    } else if (why == REASON_backend_reset || why == REASON_none) {
        http2_stream_leave(st);
        stream_on_server_lost(s);
    } else {
        on_bad_answer(st, why);
    }
}

/* ---- the server's end of a stream ---- */

void
http2_upstream_attach(struct http2_upstream *hu, struct stream *s)
{
    hu->requests++;
    s->is_on_reused = hu->is_proved; /* what dies now has been in use */
    s->server = (struct end){.ops = &upstream_ops, .conn = &hu->conn}; /* until send_head */
    stream_on_connected(s);
}

static void
upstream_send_head(struct stream *s, struct end *e, struct http_msg *m)
{
    struct http2_upstream *hu = (struct http2_upstream *)e->conn;
    bool is_tls = hu->conn.io.tls != NULL;
    bool can_tunnel = nghttp2_session_get_remote_settings(hu->session.ng,
                                                          NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL);
    if (!can_tunnel) {
        m->upgrade = slice_of(NULL, 0); /* an offer that is not taken up (RFC 9110 7.8) */
    }
    nghttp2_nv *fields = http2_session_fields(&hu->session, http2_put_max(m));
    size_t n = fields ? http2_put_request(m, is_tls ? SLICE("https") : SLICE("http"), fields) : 0;
    e->conn = NULL;
    e->h2 = n > 0 ? http2_stream_open(&hu->session, s, fields, n, m) : NULL;
    if (!e->h2) {
        *e = (struct end){0};
        stream_fail(s, REASON_internal);
    }
}

static void
upstream_send_body(struct stream *s, struct end *e, struct slice bytes)
{
    http2_stream_send_body(e->h2, bytes);
}

static void
upstream_send_end(struct stream *s, struct end *e, struct http_msg *trailers)
{
    struct http2_session *ses = e->h2->session;
    nghttp2_nv *fields = trailers ? http2_session_fields(ses, http2_put_max(trailers)) : NULL;
    http2_stream_send_end(e->h2, fields, fields ? http2_put_trailers(trailers, fields) : 0);
}

static void
upstream_recv_body(struct stream *s, struct end *e)
{
    http2_stream_recv(e->h2);
}

static void
upstream_expect(struct stream *s, struct end *e, uint32_t timeout_ms)
{
    http2_stream_expect(e->h2, timeout_ms, s->state == STREAM_FORWARD);
}

static void
upstream_relax(struct stream *s, struct end *e)
{
    http2_stream_relax(e->h2);
}

static void
leave(struct http2_stream *st)
{
    struct http2_upstream *hu = http2_upstream_of(st->session);
    http2_stream_leave(st);
    http2_upstream_left(hu);
}

/* The answer is whole; if the request is not, nobody wants its rest. Of a tunnel both parts are. */
static void
upstream_finish(struct stream *s, struct end *e)
{
    if (!s->is_tunnel && !e->h2->is_end_sent) {
        http2_stream_reset(e->h2, NGHTTP2_CANCEL);
    }
    leave(e->h2);
}

static void
upstream_abort(struct stream *s, struct end *e, enum reason why)
{
    (void)why;
    http2_stream_reset(e->h2, NGHTTP2_CANCEL);
    leave(e->h2);
}

static const struct end_ops upstream_ops = {
    .send_head = upstream_send_head,
    .send_body = upstream_send_body,
    .send_end = upstream_send_end,
    .recv_body = upstream_recv_body,
    .expect = upstream_expect,
    .relax = upstream_relax,
    .finish = upstream_finish,
    .abort = upstream_abort,
};
