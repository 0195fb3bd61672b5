/* SPDX-License-Identifier: Apache-2.0
 *
 * http1_upstream.c - HTTP/1.1 with a backend: see http1_upstream.h.
 *
 * A connection serves one exchange at a time. Between exchanges it lies on its backend's idle list,
 * where any byte or end of stream closes it: what nobody asked for is delivered to nobody.
 */
#include "worker/http1_upstream.h"

#include <assert.h>
#include <stdlib.h>

#include "shared/http1.h"
#include "worker/http1_body.h"
#include "worker/splice.h"
#include "worker/tcp.h"
#include "worker/upstream_tls.h"
#include "worker/worker.h"

#define READ_BUDGET     16
#define HEAD_READ_BYTES 8192
#define INTERIM_MAX     100 /* 1xx heads before the answer */

enum upstream_state {
    UPSTREAM_IDLE, /* no exchange: on the idle list */
    UPSTREAM_HEAD, /* awaiting the head of an answer */
    UPSTREAM_BODY, /* its body is coming */
    UPSTREAM_END   /* the answer is whole */
};

struct http1_upstream {
    struct conn conn;
    struct stream *stream; /* here as in struct upstream_connecting */
    struct backend *backend;
    struct http1_body body;
    uint64_t born_ms;
    uint64_t last_used_ms;
    uint32_t requests;
    uint32_t seen;      /* bytes of conn.in that http1_head_end has looked at */
    uint8_t ninterim;   /* 1xx heads of this exchange */
    uint8_t state;      /* enum upstream_state */
    bool is_keep_alive; /* the backend lets it live on */
    bool is_chunked;    /* the request's body is sent in chunks */
    bool has_answered;  /* a byte of this exchange's answer has come */
    bool is_relaxed;    /* bodies have no deadline here */
    unsigned epoch;     /* the backend's when it was connected */
};

static const struct end_ops upstream_ops;

size_t
http1_upstream_size(void)
{
    return sizeof(struct http1_upstream);
}

static void
upstream_close(struct http1_upstream *hu)
{
    struct conn *c = &hu->conn;
    if (!c->is_open) {
        return;
    }
    if (hu->state == UPSTREAM_IDLE) {
        upstream_unkeep(hu->backend, c);
    }
    conn_close(c);
    upstream_conn_closed(hu->backend, c);
}

/* ---- the answer ---- */

static void
on_bad_answer(struct http1_upstream *hu, enum reason why)
{
    stream_on_server_failed(hu->stream, why);
}

static void
on_answer_end(struct http1_upstream *hu)
{
    hu->state = UPSTREAM_END;
}

/* Returns bytes used, or 0 when the head is not complete (or the stream has failed). */
static size_t
take_head(struct http1_upstream *hu, struct slice bytes)
{
    struct stream *s = hu->stream;
    struct http_msg m = {.fields = worker.fields, .max_fields = (uint16_t)worker.max_fields};
    struct http_limits limits = {s->conf_listener->header_bytes, (uint16_t)worker.max_fields};
    if (hu->seen > 0 && bytes.len <= limits.header_bytes &&
        http1_head_end(bytes.ptr, bytes.len, hu->seen) == 0) {
        hu->seen = (uint32_t)bytes.len;
        return 0;
    }
    int n = http1_parse_response(bytes.ptr, bytes.len, &limits,
                                 (enum http_method)s->http->req.method, &m);
    if (n < 0) {
        on_bad_answer(hu, REASON_bad_response);
        return 0;
    }
    hu->seen = n == 0 ? (uint32_t)bytes.len : 0;
    if (n == 0) {
        return 0;
    }
    if (m.status < 200 && ++hu->ninterim > INTERIM_MAX) {
        on_bad_answer(hu, REASON_bad_response);
        return 0;
    }
    if (m.status >= 200) {
        hu->is_keep_alive = m.is_keep_alive;
        http1_body_begin(&hu->body, &m);
        hu->state = m.body == HTTP_BODY_NONE ? UPSTREAM_END : UPSTREAM_BODY;
    }
    stream_on_response(s, &m);
    if (hu->stream && s->is_tunnel) {
        hu->state = UPSTREAM_END; /* what follows is no HTTP: read_once() hands it over */
    } else if (hu->stream && hu->state == UPSTREAM_END) {
        stream_on_body_end(s, &s->server, NULL);
    }
    return (size_t)n;
}

static size_t
take_body(struct http1_upstream *hu, struct slice bytes)
{
    struct stream *s = hu->stream;
    size_t used = 0;
    conn_read_progressed(&hu->conn, bytes.len, s->policy->timeouts.response_body);
    /* The state must be right when the stream ends the exchange from within. */
    hu->state = UPSTREAM_END;
    enum http1_body_result r = http1_body_feed(&hu->body, s, &s->server, bytes, &used);
    if (r == HTTP1_BODY_BAD) {
        on_bad_answer(hu, REASON_bad_response);
        return 0;
    }
    if (r == HTTP1_BODY_MORE && hu->stream) {
        hu->state = UPSTREAM_BODY;
    }
    return used;
}

static size_t
take(struct http1_upstream *hu, struct slice bytes)
{
    size_t used = 0;
    while (used < bytes.len && hu->stream) {
        struct slice rest = slice_of(bytes.ptr + used, bytes.len - used);
        size_t n = 0;
        if (hu->state == UPSTREAM_HEAD) {
            n = take_head(hu, rest);
        } else if (hu->state == UPSTREAM_BODY) {
            n = take_body(hu, rest);
        }
        if (n == 0) {
            break;
        }
        used += n;
    }
    return used;
}

/* The backend has ended the connection, or it is broken. */
static void
on_server_end(struct http1_upstream *hu)
{
    struct stream *s = hu->stream;
    if (!s) {
        upstream_close(hu);
        return;
    }
    if (hu->state == UPSTREAM_BODY && hu->body.kind == HTTP_BODY_CLOSE && !hu->conn.is_broken) {
        hu->is_keep_alive = false;
        on_answer_end(hu);
        stream_on_body_end(s, &s->server, NULL);
    } else if (hu->state == UPSTREAM_BODY) {
        on_bad_answer(hu, REASON_response_cut);
    } else if (hu->has_answered) {
        on_bad_answer(hu, REASON_backend_reset);
    } else if (!s->is_on_reused && upstream_tls_explain_loss(s, &hu->conn)) {
        on_bad_answer(hu, REASON_backend_tls);
    } else {
        hu->stream = NULL;
        upstream_close(hu);
        stream_on_server_lost(s);
    }
}

static bool
read_once(struct http1_upstream *hu)
{
    struct conn *c = &hu->conn;
    char *read_bytes;
    /* A large body that comes with its head should find its way into a pipe. */
    size_t max = hu->state == UPSTREAM_HEAD ? HEAD_READ_BYTES : WORKER_SCRATCH_BYTES;
    ssize_t n = conn_read_scratch(c, max, &read_bytes);
    if (n == IO_AGAIN) {
        return false;
    }
    if (n <= 0) {
        on_server_end(hu);
        return false;
    }
    hu->has_answered = true;
    struct slice bytes = slice_of(read_bytes, (size_t)n);
    if (c->in) {
        if (buf_append(&c->in, bytes.ptr, bytes.len) != 0) {
            on_bad_answer(hu, REASON_internal);
            return false;
        }
        bytes = buf_slice(c->in);
    }
    bool is_idle = !hu->stream;
    size_t used = is_idle ? 0 : take(hu, bytes);
    if (!c->is_open) {
        return false;
    }
    if (!hu->stream) { /* whatever is left belongs to no request */
        if (used < bytes.len) {
            upstream_close(hu);
        } else if (c->in) {
            conn_flush_any();
            buf_free(&c->in);
        }
        return false;
    }
    if (c->in) {
        conn_flush_any();
        buf_consume(&c->in, used);
    } else if (used < bytes.len && buf_append(&c->in, bytes.ptr + used, bytes.len - used) != 0) {
        on_bad_answer(hu, REASON_internal);
        return false;
    }
    if (hu->stream->is_tunnel) {
        assert(sizeof(*hu) >= tcp_upstream_size());
        tcp_upgrade_upstream(c, hu->stream, hu->backend);
        return false;
    }
    return true;
}

/* Large answers go through a pipe. Returns true when it took care of reading. */
static bool
splice_body(struct http1_upstream *hu)
{
    struct stream *s = hu->stream;
    if (!s || hu->state != UPSTREAM_BODY || hu->body.kind != HTTP_BODY_LENGTH || hu->conn.in ||
        (hu->body.left < SPLICE_MIN_BYTES && splice_pipe_bytes(s->pipes[0]) == 0)) {
        return false;
    }
    conn_flush_any();
    if (!splice_is_possible(&hu->conn, s->client.conn) || !splice_pipe_acquire(&s->pipes[0])) {
        return false;
    }
    uint64_t moved = 0;
    uint64_t sent = 0;
    enum splice_result r =
        splice_move(s->pipes[0], &hu->conn, s->client.conn, hu->body.left, &moved, &sent);
    hu->body.left -= moved;
    s->client.bytes += sent;
    conn_read_progressed(&hu->conn, moved, s->policy->timeouts.response_body);
    if (r == SPLICE_BROKEN) {
        stream_fail(s, hu->conn.is_broken ? REASON_response_cut : REASON_client_closed);
    } else if (hu->body.left == 0 && splice_pipe_bytes(s->pipes[0]) == 0) {
        on_answer_end(hu);
        stream_on_body_end(s, &s->server, NULL);
    } else if (r == SPLICE_EOF) {
        on_bad_answer(hu, REASON_response_cut);
    } else if (r == SPLICE_MORE) {
        conn_run_later(&hu->conn);
    }
    return true;
}

/* While the client takes nothing, what the backend sends waits in the socket, without a deadline.
 */
static bool
is_held_up(struct http1_upstream *hu)
{
    struct stream *s = hu->stream;
    if (!s) {
        return false;
    }
    bool is_blocked = end_is_blocked(&s->client);
    if (hu->state != UPSTREAM_BODY) {
        return is_blocked; /* interim answers wait as well, under the response deadline */
    }
    uint32_t timeout = hu->is_relaxed ? 0 : s->policy->timeouts.response_body;
    if (is_blocked) {
        conn_set_read_due(&hu->conn, 0);
    } else if (hu->conn.read_due_ms == 0 && timeout != 0) {
        conn_set_read_due(&hu->conn, worker_now_ms() + timeout);
    }
    return is_blocked;
}

static void
upstream_on_event(struct conn *c, unsigned what);

/* false: closed, or handed over; hu is then no more. */
static bool
is_ours(const struct conn *c)
{
    return c->is_open && c->on_event == upstream_on_event;
}

static void
upstream_read(struct http1_upstream *hu)
{
    struct conn *c = &hu->conn;
    for (int i = 0; c->is_open; i++) {
        bool has_piped = hu->stream && splice_pipe_bytes(hu->stream->pipes[0]) > 0;
        if (!c->is_readable && !has_piped) {
            break;
        }
        if (i == READ_BUDGET) {
            conn_run_later(c);
            break;
        }
        if (is_held_up(hu)) {
            if (i == 0 && has_piped) {
                conn_pause(c); /* this event was for nothing, and so would be the next */
            }
            break;
        }
        /* After the last spliced byte an idle connection must still be found empty: read on. */
        if (splice_body(hu) ? hu->stream != NULL : !read_once(hu)) {
            break;
        }
    }
    if (is_ours(c)) {
        conn_flush_any();
        if (c->is_paused && !c->is_readable) {
            conn_resume(c);
        }
        if (!is_held_up(hu) && hu->stream) {
            conn_verify_later(c);
        }
    }
}

/* ---- events ---- */

static void
on_read_due(struct http1_upstream *hu)
{
    if (!hu->stream) {
        upstream_close(hu); /* idle for long enough */
    } else if (hu->state == UPSTREAM_HEAD) {
        on_bad_answer(hu, REASON_response_timeout);
    } else {
        on_bad_answer(hu, REASON_response_cut);
    }
}

static void
upstream_on_event(struct conn *c, unsigned what)
{
    struct http1_upstream *hu = (struct http1_upstream *)c;
    if ((what & CONN_WRITE_DUE) && hu->stream) {
        on_bad_answer(hu, REASON_response_timeout);
        return;
    }
    if (what & CONN_READ_DUE) {
        on_read_due(hu);
        return;
    }
    if ((what & CONN_WRITABLE) && hu->stream) {
        stream_on_unblocked(hu->stream, &hu->stream->server);
    }
    if (c->is_open) {
        /* Even when writing failed there may be an answer to read (an early one). */
        c->is_readable |= c->is_broken && !c->is_eof;
        upstream_read(hu);
    }
    if (is_ours(c) && c->is_broken && !c->is_readable) {
        on_server_end(hu);
    }
}

void
http1_upstream_attach(struct conn *c, struct stream *s, struct backend *b)
{
    struct http1_upstream *hu = (struct http1_upstream *)c;
    if (hu->requests == 0) {
        hu->born_ms = worker_now_ms();
        hu->backend = b;
        hu->epoch = upstream_epoch_of(b, s->backend);
    }
    hu->requests++;
    hu->stream = s;
    hu->state = UPSTREAM_HEAD;
    hu->has_answered = false;
    hu->is_keep_alive = false;
    hu->is_relaxed = false;
    hu->seen = 0;
    hu->ninterim = 0;
    conn_resume(c);
    /* behind a TLS handshake there may be tickets alone, and a reset with them */
    c->has_read |= c->io.tls != NULL;
    c->on_event = upstream_on_event;
    c->send_timeout_ms = s->policy->timeouts.send;
    s->server = (struct end){.ops = &upstream_ops, .conn = c};
}

bool
http1_upstream_is_reusable(const struct conn *c, const struct backend *b, uint64_t now_ms,
                           uint64_t *last_used_ms)
{
    const struct http1_upstream *hu = (const struct http1_upstream *)c;
    *last_used_ms = hu->last_used_ms;
    return !c->is_readable && !c->is_broken && !c->is_eof &&
           (b->max_requests == 0 || hu->requests < b->max_requests) &&
           (b->lifetime_ms == 0 || now_ms - hu->born_ms < b->lifetime_ms);
}

/* ---- the server's end of a stream ---- */

static void
upstream_send_head(struct stream *s, struct end *e, struct http_msg *m)
{
    struct http1_upstream *hu = (struct http1_upstream *)e->conn;
    char *begin = worker_head_room();
    char *end = http1_put_slice(begin, m->method_text);
    *end++ = ' ';
    end = http1_put_slice(end, m->target);
    end = http1_put_slice(end, SLICE(" HTTP/1.1\r\n"));
    end = http1_put_fields(end, m);
    hu->is_chunked = m->body == HTTP_BODY_CHUNKED;
    if (hu->is_chunked) {
        end = http1_put_slice(end, SLICE("Transfer-Encoding: chunked\r\n"));
    }
    if (m->upgrade.len > 0) {
        end = http1_put_upgrade(end, m);
    }
    end = http1_put_slice(end, SLICE("\r\n"));
    conn_put(&hu->conn, begin, (size_t)(end - begin));
}

static void
upstream_send_body(struct stream *s, struct end *e, struct slice bytes)
{
    struct http1_upstream *hu = (struct http1_upstream *)e->conn;
    http1_body_put(&hu->conn, bytes, hu->is_chunked);
}

static void
upstream_send_end(struct stream *s, struct end *e, struct http_msg *trailers)
{
    struct http1_upstream *hu = (struct http1_upstream *)e->conn;
    http1_body_put_end(&hu->conn, trailers, hu->is_chunked);
}

static void
upstream_recv_body(struct stream *s, struct end *e)
{
    struct http1_upstream *hu = (struct http1_upstream *)e->conn;
    if (hu->conn.is_readable || splice_pipe_bytes(s->pipes[0]) > 0) {
        conn_run_later(&hu->conn);
    }
    is_held_up(hu);
}

static void
upstream_expect(struct stream *s, struct end *e, uint32_t timeout_ms)
{
    (void)s;
    conn_set_read_due(e->conn, timeout_ms ? worker_now_ms() + timeout_ms : 0);
}

static void
upstream_relax(struct stream *s, struct end *e)
{
    struct http1_upstream *hu = (struct http1_upstream *)e->conn;
    hu->is_relaxed = true;
    conn_set_read_due(e->conn, 0);
    e->conn->send_timeout_ms = 0;
    conn_set_write_due(e->conn, 0);
}

static void
upstream_finish(struct stream *s, struct end *e)
{
    struct http1_upstream *hu = (struct http1_upstream *)e->conn;
    struct conn *c = &hu->conn;
    bool is_clean = hu->state == UPSTREAM_END && hu->is_keep_alive && s->server.is_send_done &&
                    !conn_is_blocked(c) && !c->is_eof && !c->is_broken && !c->has_hup;
    hu->stream = NULL;
    if (!is_clean) {
        upstream_close(hu);
        return;
    }
    hu->state = UPSTREAM_IDLE;
    hu->last_used_ms = worker_now_ms();
    if (hu->epoch != hu->backend->epoch || !upstream_keep(hu->backend, c)) {
        hu->state = UPSTREAM_END;
        upstream_close(hu);
    }
}

static void
upstream_abort(struct stream *s, struct end *e, enum reason why)
{
    struct http1_upstream *hu = (struct http1_upstream *)e->conn;
    (void)why;
    hu->stream = NULL;
    upstream_close(hu);
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
