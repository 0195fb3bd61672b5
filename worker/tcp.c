/* SPDX-License-Identifier: Apache-2.0
 *
 * tcp.c - raw bytes: see tcp.h. Both ends are alike, so one set of functions serves both. The other
 * end of an upgraded exchange may be of another kind (HTTP/2).
 *
 * Nothing is read from the client before the backend is connected, so a connect that fails can be
 * tried elsewhere. Small reads are copied; a source that fills the scratch memory is bulk and goes
 * through a pipe from then on.
 */
#include "worker/tcp.h"

#include <string.h>
#include <sys/socket.h>

#include "worker/route.h"
#include "worker/splice.h"
#include "worker/upstream.h"
#include "worker/upstream_tls.h"
#include "worker/worker.h"

#define READ_BUDGET 16

struct tcp_end {
    struct conn conn;
    struct stream *stream; /* here as in struct upstream_connecting */
    union {
        struct listener *listener; /* client side */
        struct backend *backend;   /* server side */
    };
    uint32_t tunnel_ms; /* tcp mode: no byte either way for so long: closed */
    bool is_bulk;       /* what comes from here is worth a pipe */
};

static const struct end_ops tcp_ops;

size_t
tcp_client_size(void)
{
    return sizeof(struct tcp_end);
}

size_t
tcp_upstream_size(void)
{
    return sizeof(struct tcp_end);
}

static struct end *
own_end(struct tcp_end *te)
{
    struct stream *s = te->stream;
    return te->conn.side == CONN_CLIENT ? &s->client : &s->server;
}

static struct end *
other_end(struct tcp_end *te)
{
    return stream_other_end(te->stream, own_end(te));
}

/* The pipe for bytes that come from te. */
static struct splice_pipe **
own_pipe(struct tcp_end *te)
{
    return &te->stream->pipes[te->conn.side == CONN_CLIENT ? 1 : 0];
}

static void
tcp_close(struct tcp_end *te)
{
    struct conn *c = &te->conn;
    if (!c->is_open) {
        return;
    }
    if (c->side == CONN_CLIENT) {
        listener_release_client(te->listener, c);
        conn_close(c);
    } else {
        conn_close(c);
        upstream_conn_closed(te->backend, c);
    }
}

/* Any byte either way keeps the tunnel alive: one deadline, the stream's or, in tcp mode, where
 * that has none, kept on the client's connection. */
static void
touch_tunnel(struct stream *s)
{
    if (s->http) {
        stream_touch(s);
        return;
    }
    struct tcp_end *client = (struct tcp_end *)s->client.conn;
    conn_set_read_due(&client->conn, client->tunnel_ms ? worker_now_ms() + client->tunnel_ms : 0);
}

/* A look that finds nothing is no sign of life. */
static uint64_t
bytes_passed(const struct stream *s)
{
    return s->client.bytes + s->server.bytes;
}

static void
on_end_lost(struct tcp_end *te)
{
    bool is_client = te->conn.side == CONN_CLIENT;
    enum reason why = REASON_client_closed;
    if (!is_client) {
        upstream_count_failure(te->stream);
        bool is_refused = upstream_tls_explain_loss(te->stream, &te->conn);
        why = is_refused ? REASON_backend_tls : REASON_backend_reset;
    }
    stream_fail(te->stream, why);
}

/* Nothing can be read from te now; returns false, as there is nothing to go on with. */
static bool
wait_for_other(struct tcp_end *te)
{
    if (conn_has_been_reset(&te->conn)) {
        on_end_lost(te);
    }
    return false;
}

/* The source has ended and all of it has been given on. */
static void
pass_eof(struct tcp_end *te)
{
    struct end *from = own_end(te);
    if (!from->is_recv_done) {
        stream_on_body_end(te->stream, from, NULL);
    }
}

/* Returns true when the loop should go on reading. */
static bool
splice_once(struct tcp_end *te, struct end *to)
{
    uint64_t moved = 0;
    uint64_t sent = 0;
    enum splice_result r =
        splice_move(*own_pipe(te), &te->conn, to->conn, UINT64_MAX, &moved, &sent);
    to->bytes += sent;
    switch (r) {
    case SPLICE_BROKEN: on_end_lost(te->conn.is_broken ? te : (struct tcp_end *)to->conn); break;
    case SPLICE_EOF: pass_eof(te); break;
    case SPLICE_MORE: conn_run_later(&te->conn); break;
    case SPLICE_STARVED:
        if (moved < SPLICE_MIN_BYTES) {
            te->is_bulk = false;
        }
        splice_pipe_release(own_pipe(te));
        break;
    case SPLICE_BLOCKED: return wait_for_other(te);
    }
    return false;
}

static bool
copy_once(struct tcp_end *te)
{
    char *bytes;
    ssize_t n = conn_read_scratch(&te->conn, WORKER_SCRATCH_BYTES, &bytes);
    if (n > 0) {
        te->is_bulk = n == WORKER_SCRATCH_BYTES;
        struct conn *to = other_end(te)->conn;
        stream_on_body(te->stream, own_end(te), slice_of(bytes, (size_t)n));
        if (te->conn.is_last && to) {
            conn_flush_last(to); /* its end is passed on next */
        }
        conn_flush_any();
        return true;
    }
    if (n == IO_EOF) {
        pass_eof(te);
    } else if (n == IO_ERROR) {
        on_end_lost(te);
    }
    return false;
}

/* What came right behind the head that made this a tunnel. */
static bool
give_kept(struct tcp_end *te)
{
    struct conn *c = &te->conn;
    stream_on_body(te->stream, own_end(te), buf_slice(c->in));
    conn_flush_any();
    if (c->is_open) {
        buf_free(&c->in);
    }
    return c->is_readable;
}

static bool
move_once(struct tcp_end *te)
{
    struct end *to = other_end(te);
    if (end_is_blocked(to)) {
        conn_pause(&te->conn); /* this event was for nothing, and so would be the next */
        return wait_for_other(te);
    }
    if (te->conn.in) {
        return give_kept(te);
    }
    bool has_piped = splice_pipe_bytes(*own_pipe(te)) > 0;
    if ((te->is_bulk || has_piped) && to->ops == &tcp_ops &&
        splice_is_possible(&te->conn, to->conn) && splice_pipe_acquire(own_pipe(te))) {
        return splice_once(te, to);
    }
    return te->conn.is_readable && copy_once(te);
}

static bool
has_bytes(struct tcp_end *te)
{
    return te->conn.is_readable || te->conn.in || splice_pipe_bytes(*own_pipe(te)) > 0;
}

static void
tcp_read(struct tcp_end *te)
{
    struct stream *s = te->stream;
    uint64_t before = s ? bytes_passed(s) : 0;
    for (int i = 0; te->stream && te->stream->state == STREAM_FORWARD; i++) {
        if (!has_bytes(te)) {
            break;
        }
        if (i == READ_BUDGET) {
            conn_run_later(&te->conn);
            break;
        }
        if (!move_once(te)) {
            break;
        }
    }
    if (te->conn.is_paused && !te->conn.is_readable) {
        conn_resume(&te->conn);
    }
    if (te->stream && s->state == STREAM_FORWARD && bytes_passed(s) != before) {
        touch_tunnel(s);
        conn_verify_later(&te->conn);
    }
}

static void
tcp_on_event(struct conn *c, unsigned what)
{
    struct tcp_end *te = (struct tcp_end *)c;
    struct stream *s = te->stream;
    if (!s) {
        if (what & (CONN_WRITABLE | CONN_WRITE_DUE | CONN_BROKEN | CONN_READ_DUE)) {
            tcp_close(te); /* the last output has left, or never will */
        }
        return;
    }
    if (what & (CONN_READ_DUE | CONN_WRITE_DUE)) {
        stream_fail(s, what & CONN_READ_DUE ? REASON_tunnel_idle : REASON_send_timeout);
        return;
    }
    bool is_unread = s->state != STREAM_FORWARD || c->is_eof;
    if ((what & CONN_BROKEN) || c->is_broken || (is_unread && conn_has_been_reset(c))) {
        on_end_lost(te);
        return;
    }
    if (what & CONN_WRITABLE) {
        stream_on_unblocked(s, own_end(te));
    }
    if (te->stream && has_bytes(te)) {
        tcp_read(te);
    }
}

void
tcp_client_begin(struct conn *c, struct listener *l, struct slice server_name)
{
    struct tcp_end *te = (struct tcp_end *)c;
    conn_become(c, sizeof(*te), tcp_on_event);
    te->listener = l;
    c->send_timeout_ms = l->conf->timeouts.send;
    conn_set_read_due(c, 0);
    struct stream *s = stream_new_tcp(l, c, &tcp_ops);
    if (!s) {
        tcp_close(te);
        return;
    }
    te->stream = s;
    route_follow_tcp(s, server_name);
    te->tunnel_ms = stream_tunnel_ms(l->conf, s->policy);
    stream_begin_tcp(s);
}

void
tcp_upstream_attach(struct conn *c, struct stream *s)
{
    struct tcp_end *te = (struct tcp_end *)c;
    te->stream = s;
    te->backend = s->taken;
    c->on_event = tcp_on_event;
    c->send_timeout_ms = s->policy->timeouts.send;
    /* The handshake may have read what a backend says that speaks first. */
    c->is_readable |= c->io.tls != NULL;
    s->server = (struct end){.ops = &tcp_ops, .conn = c};
    touch_tunnel(s);
}

static struct tcp_end *
take_over(struct conn *c, struct stream *s, struct end *e)
{
    struct tcp_end *te = (struct tcp_end *)c;
    conn_become(c, sizeof(*te), tcp_on_event);
    te->stream = s;
    c->kind = c->side == CONN_CLIENT ? CONN_TCP_CLIENT : CONN_TCP_UPSTREAM;
    conn_set_read_due(c, 0);
    conn_watch(c);
    e->ops = &tcp_ops;
    return te;
}

void
tcp_upgrade_client(struct conn *c, struct stream *s, struct listener *l)
{
    take_over(c, s, &s->client)->listener = l;
}

void
tcp_upgrade_upstream(struct conn *c, struct stream *s, struct backend *b)
{
    int on = 1;
    setsockopt(c->io.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    take_over(c, s, &s->server)->backend = b;
    conn_run_later(c);
}

/* ---- both ends of a stream ---- */

static void
tcp_send_body(struct stream *s, struct end *e, struct slice bytes)
{
    (void)s;
    conn_put(e->conn, bytes.ptr, bytes.len);
}

static void
tcp_send_end(struct stream *s, struct end *e, struct http_msg *trailers)
{
    (void)s;
    (void)trailers;
    if (!e->is_recv_done) { /* else both have ended: finish closes it, which says so too */
        conn_shutdown(e->conn);
    }
}

static void
tcp_recv_body(struct stream *s, struct end *e)
{
    (void)s;
    conn_run_later(e->conn);
}

/* Both directions have ended. Output that still waits leaves first, under the send timeout. */
static void
tcp_finish(struct stream *s, struct end *e)
{
    struct tcp_end *te = (struct tcp_end *)e->conn;
    (void)s;
    te->stream = NULL;
    conn_set_read_due(&te->conn, 0);
    conn_flush_last(&te->conn);
    if (!conn_is_blocked(&te->conn)) {
        tcp_close(te);
    }
}

/* A cut must look like one: reset, not FIN. */
static void
tcp_abort(struct stream *s, struct end *e, enum reason why)
{
    struct tcp_end *te = (struct tcp_end *)e->conn;
    (void)s;
    (void)why;
    te->stream = NULL;
    if (!te->conn.is_open) {
        return;
    }
    if (te->conn.side == CONN_CLIENT) {
        listener_release_client(te->listener, &te->conn);
        conn_reset(&te->conn);
    } else {
        conn_reset(&te->conn);
        upstream_conn_closed(te->backend, &te->conn);
    }
}

static const struct end_ops tcp_ops = {
    .send_body = tcp_send_body,
    .send_end = tcp_send_end,
    .recv_body = tcp_recv_body,
    .finish = tcp_finish,
    .abort = tcp_abort,
};
