/* SPDX-License-Identifier: Apache-2.0
 *
 * http1_client_end.c - HTTP/1.x with a client: the client's end of a stream, answers go out.
 */
#include <assert.h>

#include "worker/forward.h"
#include "worker/http1_client_private.h"
#include "worker/reply.h"
#include "worker/splice.h"
#include "worker/tcp.h"

/* How the answer's body is delimited for this client, and whether the connection lives on. */
static void
frame_answer(struct http1_client *hc, const struct stream *s, const struct http_msg *m)
{
    hc->is_closing |= worker_is_retiring() || hc->listener->is_removed;
    hc->is_closing |= !s->client.is_recv_done; /* an answer before the end of the upload */
    hc->is_chunked =
        (m->body == HTTP_BODY_CHUNKED || m->body == HTTP_BODY_CLOSE) && s->http->req.minor >= 1;
    hc->is_until_close =
        !hc->is_chunked && (m->body == HTTP_BODY_CHUNKED || m->body == HTTP_BODY_CLOSE);
    hc->is_closing |= hc->is_until_close;
}

static char *
put_status_line(char *out, const struct http_msg *m)
{
    out = http1_put_slice(out, SLICE("HTTP/1.1 "));
    *out++ = (char)('0' + m->status / 100);
    *out++ = (char)('0' + m->status / 10 % 10);
    *out++ = (char)('0' + m->status % 10);
    *out++ = ' ';
    out = http1_put_slice(out, m->phrase);
    return http1_put_slice(out, SLICE("\r\n"));
}

/* The connection is a tunnel from here on, and no HTTP client any more. */
static void
become_tunnel(struct http1_client *hc, struct stream *s)
{
    assert(sizeof(*hc) >= tcp_client_size());
    tcp_upgrade_client(&hc->conn, s, hc->listener);
}

static void
client_send_head(struct stream *s, struct end *e, struct http_msg *m)
{
    struct http1_client *hc = (struct http1_client *)e->conn;
    bool is_final = m->status >= 200;
    char *begin = worker_head_room();
    char *end = http1_put_fields(put_status_line(begin, m), m);
    if (is_final) {
        hc->has_head = true;
        frame_answer(hc, s, m);
        if (hc->is_chunked) {
            end = http1_put_slice(end, SLICE("Transfer-Encoding: chunked\r\n"));
        }
        if (hc->is_closing) {
            end = http1_put_slice(end, SLICE("Connection: close\r\n"));
        } else if (s->http->req.minor == 0) {
            end = http1_put_slice(end, SLICE("Connection: keep-alive\r\n"));
        }
    } else if (m->status == 101) {
        end = http1_put_upgrade(end, m);
    }
    end = http1_put_slice(end, SLICE("\r\n"));
    conn_put(&hc->conn, begin, (size_t)(end - begin));
    if (m->status == 101) {
        become_tunnel(hc, s);
    }
}

static void
client_send_body(struct stream *s, struct end *e, struct slice bytes)
{
    struct http1_client *hc = (struct http1_client *)e->conn;
    http1_body_put(&hc->conn, bytes, hc->is_chunked);
}

static void
client_send_end(struct stream *s, struct end *e, struct http_msg *trailers)
{
    struct http1_client *hc = (struct http1_client *)e->conn;
    http1_body_put_end(&hc->conn, trailers, hc->is_chunked);
}

static void
client_recv_body(struct stream *s, struct end *e)
{
    struct http1_client *hc = (struct http1_client *)e->conn;
    http1_client_update_deadline(hc);
    if (hc->conn.in || hc->conn.is_readable || splice_pipe_bytes(s->pipes[1]) > 0) {
        conn_run_later(&hc->conn);
    }
}

/* After the last answer: close, gently where the client may be sending still. */
static void
end_connection(struct http1_client *hc, bool may_be_sending)
{
    struct conn *c = &hc->conn;
    hc->stream = NULL;
    conn_flush_last(c);
    if (conn_is_blocked(c) || may_be_sending || c->in ||
        (c->is_readable && !c->is_last && !c->is_eof)) {
        http1_client_linger(hc);
    } else {
        hc->state = CLIENT_IDLE;
        http1_client_close(hc);
    }
}

static void
client_finish(struct stream *s, struct end *e)
{
    struct http1_client *hc = (struct http1_client *)e->conn;
    if (hc->is_closing) {
        end_connection(hc, !s->client.is_recv_done);
        return;
    }
    http1_client_become_idle(hc);
}

/* Write the error answer. The connection lives on only when the request was read whole. */
static void
answer_failure(struct http1_client *hc, struct stream *s, enum reason why)
{
    bool is_whole = hc->state == CLIENT_WAIT;
    struct reply r;
    reply_make_for(&r, s, why);
    hc->is_closing |= !is_whole || worker_is_retiring() || why == REASON_bad_request;
    bool is_head = s->http->req.method == HTTP_HEAD;
    reply_put_http1(&hc->conn, &r, hc->is_closing, is_head);
    s->client.bytes = is_head ? 0 : r.body.len;
    hc->stream = NULL;
    if (hc->is_closing) {
        /* Refused while its head was taken: what follows it has been read, or is under way. */
        end_connection(hc, !is_whole || s->connected_us == 0);
    } else {
        conn_flush(&hc->conn);
        http1_client_become_idle(hc);
    }
}

static void
client_abort(struct stream *s, struct end *e, enum reason why)
{
    struct http1_client *hc = (struct http1_client *)e->conn;
    int status = reason_table[why].status;
    bool can_answer =
        !hc->has_head && status != 0 && why != REASON_client_closed && !hc->conn.is_broken;
    if (can_answer) {
        answer_failure(hc, s, why);
        return;
    }
    hc->stream = NULL;
    /* What was cut must be seen to be cut: where only the connection's end delimits the body, a
     * FIN would make it look whole. */
    if (hc->has_head && !hc->is_until_close && why != REASON_send_timeout) {
        conn_flush(&hc->conn);
        http1_client_close(hc);
    } else {
        http1_client_reset(hc);
    }
}

const struct end_ops http1_client_ops = {
    .send_head = client_send_head,
    .send_body = client_send_body,
    .send_end = client_send_end,
    .recv_body = client_recv_body,
    .finish = client_finish,
    .abort = client_abort,
};
