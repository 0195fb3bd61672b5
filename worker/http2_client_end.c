/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_client_end.c - HTTP/2 with a client: the client's end of a stream, answers go out.
 */
#include "worker/grpc.h"
#include "worker/http2_client_private.h"
#include "worker/reply.h"
#include "worker/worker.h"

static void
put_head(struct http2_stream *st, const struct http_msg *m)
{
    char status[3];
    nghttp2_nv *fields = http2_session_fields(st->session, http2_put_max(m));
    if (fields) {
        http2_stream_send_head(st, fields, http2_put_response(m, status, fields), m);
    }
}

static void
client_send_head(struct stream *s, struct end *e, struct http_msg *m)
{
    put_head(e->h2, m);
}

static void
client_send_body(struct stream *s, struct end *e, struct slice bytes)
{
    http2_stream_send_body(e->h2, bytes);
}

static void
client_send_end(struct stream *s, struct end *e, struct http_msg *trailers)
{
    nghttp2_nv *fields =
        trailers ? http2_session_fields(e->h2->session, http2_put_max(trailers)) : NULL;
    http2_stream_send_end(e->h2, fields, fields ? http2_put_trailers(trailers, fields) : 0);
}

static void
client_recv_body(struct stream *s, struct end *e)
{
    http2_stream_recv(e->h2);
}

static void
client_expect(struct stream *s, struct end *e, uint32_t timeout_ms)
{
    http2_stream_expect(e->h2, timeout_ms, false);
}

static void
client_relax(struct stream *s, struct end *e)
{
    http2_stream_relax(e->h2);
}

static void
client_finish(struct stream *s, struct end *e)
{
    http2_stream_leave(e->h2);
}

static void
answer_failure(struct http2_stream *st, struct stream *s, enum reason why)
{
    struct reply r;
    reply_make_for(&r, s, why);
    if (s->http->req.method == HTTP_HEAD) {
        r.head.body = HTTP_BODY_NONE;
    }
    put_head(st, &r.head);
    if (r.head.body != HTTP_BODY_NONE) {
        http2_stream_send_body(st, r.body);
        s->client.bytes = r.body.len;
    }
}

/* What a stream that cannot be answered any more is reset with (RFC 9113 7). */
static uint32_t
code_for(const struct http2_stream *st, const struct stream *s, enum reason why)
{
    if (st->is_malformed) {
        return NGHTTP2_PROTOCOL_ERROR;
    }
    if (s->is_tunnel) {
        return NGHTTP2_CANCEL; /* RFC 8441 5: what a reset of TCP is */
    }
    return why == REASON_send_timeout || why == REASON_client_closed ? NGHTTP2_CANCEL
                                                                     : NGHTTP2_INTERNAL_ERROR;
}

/* After the head of the answer gRPC can still be told why it ends, unless the client does not take
 * what it has got already. */
static bool
can_tell_behind(const struct http2_stream *st, const struct stream *s, enum reason why)
{
    return s->is_grpc && st->has_answer && !st->is_end_given && !st->is_length && !st->out &&
           !st->is_malformed && !st->is_closed && why != REASON_client_closed;
}

static void
tell_behind(struct http2_stream *st, enum reason why)
{
    struct http_field fields[GRPC_FAILURE_FIELDS];
    char text[GRPC_FAILURE_TEXT];
    nghttp2_nv nv[GRPC_FAILURE_FIELDS + HTTP2_PUT_EXTRA];
    grpc_put_failure(fields, text, why);
    struct http_msg trailers = {.fields = fields, .nfields = GRPC_FAILURE_FIELDS};
    http2_stream_send_end(st, nv, http2_put_trailers(&trailers, nv));
}

static void
client_abort(struct stream *s, struct end *e, enum reason why)
{
    struct http2_stream *st = e->h2;
    struct http2_client *hc = (struct http2_client *)st->session->conn;
    bool can_answer = !st->has_answer && s->status != 0 && why != REASON_client_closed &&
                      !st->is_malformed && !st->is_closed && !hc->is_over;
    if (can_answer) {
        answer_failure(st, s, why);
    } else if (!hc->is_over && can_tell_behind(st, s, why)) {
        tell_behind(st, why);
    } else if (!hc->is_over) {
        http2_stream_reset(st, code_for(st, s, why));
    }
    http2_stream_leave(st);
}

const struct end_ops http2_client_ops = {
    .send_head = client_send_head,
    .send_body = client_send_body,
    .send_end = client_send_end,
    .recv_body = client_recv_body,
    .expect = client_expect,
    .relax = client_relax,
    .finish = client_finish,
    .abort = client_abort,
};
