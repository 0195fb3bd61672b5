/* SPDX-License-Identifier: Apache-2.0
 *
 * http1_client.c - HTTP/1.x with a client: see http1_client.h.
 *
 * One connection serves one request after the other. Bytes of a request head are copied to the
 * stream they begin; body bytes go from the read buffer straight to the backend. What cannot be
 * used yet stays in conn.in, or in the socket.
 */
#include "worker/http1_client.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "shared/http1.h"
#include "worker/forward.h"
#include "worker/http1_body.h"
#include "worker/reply.h"
#include "worker/splice.h"
#include "worker/stream.h"
#include "worker/worker.h"

#define LINGER_BYTES 65536
#define LINGER_MS    2000
#define READ_BUDGET  16 /* reads in one go, then others have their turn */

enum client_state {
    CLIENT_IDLE,  /* between requests */
    CLIENT_HEAD,  /* part of a head has come */
    CLIENT_BODY,  /* the request's body is coming */
    CLIENT_WAIT,  /* the request is whole; its answer is under way */
    CLIENT_LINGER /* answered and shut; reading what the client still sends, to throw it away */
};

struct http1_client {
    struct conn conn;
    struct listener *listener;
    struct stream *stream; /* NULL between requests */
    struct http1_body body;
    uint64_t born_ms;
    uint32_t requests;
    uint32_t discarded;
    uint8_t state;       /* enum client_state */
    bool is_closing;     /* no further request: the answer says Connection: close */
    bool is_chunked;     /* the answer's body is sent in chunks */
    bool is_until_close; /* the answer's body ends with the connection */
    bool has_head;       /* an answer has begun */
};

static const struct end_ops client_ops;
static void
client_read(struct http1_client *hc);

size_t
http1_client_size(void)
{
    return sizeof(struct http1_client);
}

static void
client_close(struct http1_client *hc)
{
    assert(!hc->stream);
    if (hc->conn.is_open) {
        listener_release_client(hc->listener, &hc->conn);
        conn_close(&hc->conn);
    }
}

static void
client_reset(struct http1_client *hc)
{
    if (hc->conn.is_open) {
        listener_release_client(hc->listener, &hc->conn);
        conn_reset(&hc->conn);
    }
}

/* Everything has been said; the client may still be sending. A plain close would answer that with a
 * reset, which can take the answer away from it (RFC 9112 9.6). */
static void
client_linger(struct http1_client *hc)
{
    hc->state = CLIENT_LINGER;
    buf_free(&hc->conn.in);
    conn_shutdown(&hc->conn);
    conn_set_read_due(&hc->conn, worker_now_ms() + LINGER_MS);
    if (hc->conn.is_readable) {
        conn_run_later(&hc->conn);
    }
}

/* ---- requests ---- */

static struct conf_listener *
client_conf(const struct http1_client *hc)
{
    return hc->stream ? hc->stream->conf_listener : hc->listener->conf;
}

static void
set_idle_deadline(struct http1_client *hc)
{
    bool is_draining = worker_is_retiring() || hc->listener->is_removed;
    uint32_t idle = is_draining ? WORKER_IDLE_GRACE_MS : hc->listener->conf->timeouts.idle;
    conn_set_read_due(&hc->conn, idle ? worker_now_ms() + idle : 0);
}

static void
become_idle(struct http1_client *hc)
{
    struct conn *c = &hc->conn;
    hc->state = CLIENT_IDLE;
    hc->stream = NULL;
    set_idle_deadline(hc);
    list_del(&c->link);
    list_add_tail(&worker.idle_clients, &c->link);
    if (c->in || c->is_readable) {
        conn_run_later(c); /* pipelined: the next request is here */
    }
}

/* Must the connection end with the answer to this request? */
static bool
is_last_request(const struct http1_client *hc, const struct stream *s)
{
    const struct conf_listener *l = s->conf_listener;
    return !s->req.is_keep_alive || worker_is_retiring() || hc->listener->is_removed ||
           (l->requests_per_connection != 0 && hc->requests >= l->requests_per_connection) ||
           (l->max_age_ms != 0 && worker_now_ms() - hc->born_ms >= l->max_age_ms);
}

static void
begin_request(struct http1_client *hc)
{
    struct stream *s = hc->stream;
    hc->requests++;
    hc->is_closing = is_last_request(hc, s);
    hc->is_chunked = false;
    hc->is_until_close = false;
    hc->has_head = false;
    http1_body_begin(&hc->body, &s->req);
    hc->state = s->req.body == HTTP_BODY_NONE ? CLIENT_WAIT : CLIENT_BODY;
    conn_set_read_due(&hc->conn, 0);
    stream_begin(s);
}

/* The head is malformed or too large: nothing behind it can be understood. */
static void
refuse_head(struct http1_client *hc, enum reason why)
{
    struct stream *s = hc->stream;
    hc->is_closing = true;
    hc->has_head = false;
    s->begin_us = worker_now_us();
    stream_fail(s, why);
}

static struct http_limits
head_limits(const struct stream *s)
{
    return (struct http_limits){s->conf_listener->header_bytes,
                                (uint16_t)s->conf_listener->header_count};
}

/* Room for more of the head: first in the stream, then once as large as a head may be. */
static int
grow_head(struct stream *s)
{
    uint32_t cap = s->conf_listener->header_bytes + 4;
    if (s->head != s->arena || cap <= s->head_cap) {
        return -1;
    }
    char *head = malloc(cap);
    if (!head) {
        return -1;
    }
    memcpy(head, s->head, s->head_len);
    s->head = head;
    s->head_cap = cap;
    return 0;
}

static int
parse_head(struct stream *s, size_t seen)
{
    bool is_first = seen == 0;
    bool is_full = s->head_len == s->head_cap && s->head != s->arena;
    if (!is_first && !is_full && http1_head_end(s->head, s->head_len, seen) == 0) {
        return 0;
    }
    s->req.fields = worker.fields;
    s->req.max_fields = (uint16_t)s->conf_listener->header_count;
    struct http_limits limits = head_limits(s);
    return http1_parse_request(s->head, s->head_len, &limits, &s->req);
}

static struct stream *
open_stream(struct http1_client *hc)
{
    struct stream *s = stream_new(hc->listener, &hc->conn, &client_ops);
    if (!s) {
        client_close(hc);
        return NULL;
    }
    hc->stream = s;
    hc->state = CLIENT_HEAD;
    list_del(&hc->conn.link);
    return s;
}

/* Take bytes of a head. Returns how many were used; the request may have begun, or failed. */
static size_t
take_head(struct http1_client *hc, struct slice bytes)
{
    size_t used = 0;
    struct stream *s = hc->stream ? hc->stream : open_stream(hc);
    while (s) {
        size_t seen = s->head_len;
        size_t n = s->head_cap - s->head_len;
        n = n < bytes.len - used ? n : bytes.len - used;
        memcpy(s->head + s->head_len, bytes.ptr + used, n);
        s->head_len += (uint32_t)n;
        int r = parse_head(s, seen);
        if (r > 0) {
            used += (size_t)r - seen;
            s->head_len = (uint32_t)r;
            s->arena_used = s->head == s->arena ? s->head_len : 0;
            begin_request(hc);
            return used;
        }
        if (r < 0) {
            refuse_head(hc, (enum reason) - r);
            return bytes.len;
        }
        used += n;
        if (used == bytes.len) {
            break;
        }
        if (grow_head(s) != 0) {
            refuse_head(hc, REASON_header_too_large);
            return bytes.len;
        }
    }
    if (s && hc->conn.read_due_ms == 0) {
        uint32_t timeout = s->conf_listener->timeouts.header;
        conn_set_read_due(&hc->conn, timeout ? worker_now_ms() + timeout : 0);
    }
    return used;
}

/* ---- reading ---- */

/* Can body bytes go on to the backend now? */
static bool
can_forward(const struct http1_client *hc)
{
    const struct stream *s = hc->stream;
    return s->state >= STREAM_SEND && !end_is_blocked(&s->server);
}

static size_t
take_body(struct http1_client *hc, struct slice bytes)
{
    struct stream *s = hc->stream;
    size_t used = 0;
    conn_read_progressed(&hc->conn, bytes.len, s->conf_listener->timeouts.request_body);
    switch (http1_body_feed(&hc->body, s, &s->client, bytes, &used)) {
    case HTTP1_BODY_DONE:
        if (hc->stream == s) {
            hc->state = CLIENT_WAIT;
            conn_set_read_due(&hc->conn, 0);
        }
        break;
    case HTTP1_BODY_BAD:
        hc->is_closing = true;
        stream_fail(s, REASON_bad_request);
        return bytes.len;
    case HTTP1_BODY_MORE: break;
    }
    return used;
}

/* Use bytes as the state demands. Returns what was used, less than all when the rest must wait. */
static size_t
take(struct http1_client *hc, struct slice bytes)
{
    size_t used = 0;
    while (used < bytes.len && hc->conn.is_open) {
        struct slice rest = slice_of(bytes.ptr + used, bytes.len - used);
        size_t n = 0;
        if (hc->state == CLIENT_LINGER) {
            hc->discarded += (uint32_t)rest.len;
            n = rest.len;
        } else if (hc->state == CLIENT_IDLE || hc->state == CLIENT_HEAD) {
            if (conn_is_blocked(&hc->conn)) {
                break;
            }
            n = take_head(hc, rest);
        } else if (hc->state == CLIENT_BODY && can_forward(hc)) {
            n = take_body(hc, rest);
        }
        if (n == 0) {
            break;
        }
        used += n;
    }
    return used;
}

/* Is it time to read from the socket? */
static bool
wants_bytes(const struct http1_client *hc)
{
    switch (hc->state) {
    case CLIENT_IDLE:
    case CLIENT_HEAD: return !conn_is_blocked(&hc->conn);
    case CLIENT_BODY: return can_forward(hc);
    case CLIENT_WAIT: return false;
    default: return true;
    }
}

static void
take_kept(struct http1_client *hc)
{
    struct conn *c = &hc->conn;
    size_t used = take(hc, buf_slice(c->in));
    if (!c->is_open) {
        return;
    }
    conn_flush_any(); /* what was put lies in the buffer */
    if (c->in) {
        buf_consume(&c->in, used);
    }
}

/* The client has finished sending, or the connection is broken. */
static void
on_client_end(struct http1_client *hc)
{
    if (hc->conn.is_broken && hc->stream && hc->state != CLIENT_HEAD) {
        stream_fail(hc->stream, REASON_client_closed);
        return;
    }
    switch (hc->state) {
    case CLIENT_HEAD:
        hc->is_closing = true;
        stream_fail(hc->stream, REASON_client_closed);
        break;
    case CLIENT_BODY: stream_fail(hc->stream, REASON_client_closed); break;
    case CLIENT_WAIT: break; /* half-closed: it still gets its answer */
    default: client_close(hc);
    }
}

/* Large uploads go through a pipe. Returns true when it took care of reading. */
static bool
splice_body(struct http1_client *hc)
{
    struct stream *s = hc->stream;
    if (hc->state != CLIENT_BODY || hc->body.kind != HTTP_BODY_LENGTH || hc->conn.in ||
        (hc->body.left < SPLICE_MIN_BYTES && splice_pipe_bytes(s->pipes[1]) == 0) ||
        s->conf_listener->body_bytes != 0 || s->state < STREAM_SEND) {
        return false;
    }
    conn_flush_any();
    if (!splice_is_possible(&hc->conn, s->server.conn) || !splice_pipe_acquire(&s->pipes[1])) {
        return false;
    }
    uint64_t moved = 0;
    uint64_t sent = 0;
    enum splice_result r =
        splice_move(s->pipes[1], &hc->conn, s->server.conn, hc->body.left, &moved, &sent);
    hc->body.left -= moved;
    s->server.bytes += sent;
    s->has_sent_body |= moved > 0;
    conn_read_progressed(&hc->conn, moved, s->conf_listener->timeouts.request_body);
    if (r == SPLICE_BROKEN) {
        stream_fail(s, hc->conn.is_broken ? REASON_client_closed : REASON_backend_reset);
    } else if (hc->body.left == 0 && splice_pipe_bytes(s->pipes[1]) == 0) {
        hc->state = CLIENT_WAIT;
        conn_set_read_due(&hc->conn, 0);
        stream_on_body_end(s, &s->client, NULL);
    } else if (r == SPLICE_EOF) {
        stream_fail(s, REASON_client_closed);
    } else if (r == SPLICE_MORE) {
        conn_run_later(&hc->conn);
    }
    return true;
}

static bool
read_once(struct http1_client *hc)
{
    struct conn *c = &hc->conn;
    char *bytes;
    ssize_t n = conn_read_scratch(c, WORKER_SCRATCH_BYTES, &bytes);
    if (n > 0) {
        size_t used = take(hc, slice_of(bytes, (size_t)n));
        if (c->is_open && used < (size_t)n && hc->state != CLIENT_LINGER) {
            if (buf_append(&c->in, bytes + used, (size_t)n - used) != 0) {
                c->is_broken = true;
                on_client_end(hc);
                return false;
            }
        }
        return c->is_open;
    }
    if (n != IO_AGAIN) {
        on_client_end(hc);
    }
    return false;
}

/* A body that can be forwarded has a deadline; one that waits for the backend has none. */
static void
update_body_deadline(struct http1_client *hc)
{
    if (hc->state != CLIENT_BODY) {
        return;
    }
    uint32_t timeout = client_conf(hc)->timeouts.request_body;
    if (!can_forward(hc)) {
        conn_set_read_due(&hc->conn, 0);
    } else if (hc->conn.read_due_ms == 0 && timeout != 0) {
        conn_set_read_due(&hc->conn, worker_now_ms() + timeout);
    }
}

static void
client_read(struct http1_client *hc)
{
    struct conn *c = &hc->conn;
    if (c->in) {
        take_kept(hc);
    }
    for (int i = 0; c->is_open && !c->in && c->is_readable && wants_bytes(hc); i++) {
        if (i == READ_BUDGET) {
            conn_run_later(c);
            break;
        }
        if (splice_body(hc)) {
            break;
        }
        if (!read_once(hc)) {
            break;
        }
        if (hc->state == CLIENT_LINGER && hc->discarded > LINGER_BYTES) {
            client_close(hc);
        }
    }
    if (c->is_open) {
        update_body_deadline(hc);
    }
}

/* ---- events ---- */

static void
on_read_due(struct http1_client *hc)
{
    switch (hc->state) {
    case CLIENT_HEAD:
        hc->is_closing = true;
        stream_fail(hc->stream, REASON_header_timeout);
        break;
    case CLIENT_BODY:
        hc->is_closing = true;
        stream_fail(hc->stream, REASON_body_timeout);
        break;
    case CLIENT_WAIT: break;
    default: client_close(hc);
    }
}

/* Output that waited has left. */
static void
on_writable(struct http1_client *hc)
{
    if (hc->stream) {
        stream_on_unblocked(hc->stream, &hc->stream->client);
    } else if (hc->state == CLIENT_IDLE && hc->is_closing) {
        client_close(hc);
    }
}

/* While nothing is to be read, a reset is seen only by looking. */
static bool
has_been_reset(struct conn *c)
{
    char byte;
    return recv(c->io.fd, &byte, 1, MSG_PEEK) < 0 && errno != EAGAIN && errno != EINTR;
}

static void
client_on_event(struct conn *c, unsigned what)
{
    struct http1_client *hc = (struct http1_client *)c;
    if (what & CONN_WRITE_DUE) {
        if (hc->stream) {
            stream_fail(hc->stream, REASON_send_timeout);
        } else {
            shm_count(&worker.row->failures[REASON_send_timeout], 1);
            client_reset(hc);
        }
        return;
    }
    if ((what & CONN_BROKEN) || c->is_broken) {
        c->is_broken = true;
        on_client_end(hc);
        return;
    }
    if (what & CONN_READ_DUE) {
        on_read_due(hc);
        return;
    }
    if (what & CONN_WRITABLE) {
        on_writable(hc);
    }
    if (c->is_open && hc->state == CLIENT_WAIT && c->has_hup && has_been_reset(c)) {
        c->is_broken = true;
        on_client_end(hc);
        return;
    }
    if (c->is_open) {
        client_read(hc);
    }
}

void
http1_client_begin(struct conn *c, struct listener *l)
{
    struct http1_client *hc = (struct http1_client *)c;
    hc->listener = l;
    hc->born_ms = worker_now_ms();
    hc->state = CLIENT_IDLE;
    c->on_event = client_on_event;
    c->send_timeout_ms = l->conf->timeouts.send;
    uint32_t header = l->conf->timeouts.header;
    conn_set_read_due(c,
                      header ? hc->born_ms + header : 0); /* until the first byte: silent close */
    if (c->is_readable) {
        client_read(hc);
    }
}

void
http1_client_refuse(struct conn *c, struct listener *l, enum reason why)
{
    struct http1_client *hc = (struct http1_client *)c;
    char answer[REPLY_MAX];
    hc->listener = l;
    c->on_event = client_on_event;
    c->send_timeout_ms = LINGER_MS;
    conn_put_copy(c, answer, reply_write(answer, NULL, why, true, false));
    client_linger(hc);
}

bool
http1_client_is_idle(const struct conn *c)
{
    const struct http1_client *hc = (const struct http1_client *)c;
    return hc->state == CLIENT_IDLE && !conn_is_blocked(c);
}

void
http1_client_drain(struct conn *c)
{
    struct http1_client *hc = (struct http1_client *)c;
    if (hc->state == CLIENT_IDLE) {
        /* A request may be on its way: it is still answered, with Connection: close. */
        conn_set_read_due(c, worker_now_ms() + WORKER_IDLE_GRACE_MS);
    }
}

void
http1_client_close_idle(struct conn *c)
{
    client_close((struct http1_client *)c);
}

/* ---- the client's end of a stream ---- */

/* How the answer's body is delimited for this client, and whether the connection lives on. */
static void
frame_answer(struct http1_client *hc, const struct stream *s, const struct http_msg *m)
{
    hc->is_closing |= worker_is_retiring() || hc->listener->is_removed;
    hc->is_closing |= !s->client.is_recv_done; /* an answer before the end of the upload */
    hc->is_chunked =
        (m->body == HTTP_BODY_CHUNKED || m->body == HTTP_BODY_CLOSE) && s->req.minor >= 1;
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
        } else if (s->req.minor == 0) {
            end = http1_put_slice(end, SLICE("Connection: keep-alive\r\n"));
        }
    }
    end = http1_put_slice(end, SLICE("\r\n"));
    conn_put(&hc->conn, begin, (size_t)(end - begin));
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
    update_body_deadline(hc);
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
    conn_flush(c);
    if (conn_is_blocked(c) || may_be_sending || c->in || (c->is_readable && !c->is_eof)) {
        client_linger(hc);
    } else {
        hc->state = CLIENT_IDLE;
        client_close(hc);
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
    become_idle(hc);
}

/* Write the error answer. The connection lives on only when the request was read whole. */
static void
answer_failure(struct http1_client *hc, struct stream *s, enum reason why)
{
    bool is_whole = hc->state == CLIENT_WAIT;
    char answer[REPLY_MAX];
    forward_make_id(s);
    hc->is_closing |= !is_whole || worker_is_retiring() || why == REASON_bad_request;
    bool is_head = s->req.method == HTTP_HEAD;
    conn_put_copy(&hc->conn, answer, reply_write(answer, s, why, hc->is_closing, is_head));
    conn_flush(&hc->conn);
    hc->stream = NULL;
    if (hc->is_closing) {
        end_connection(hc, !is_whole);
    } else {
        become_idle(hc);
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
    if (why == REASON_client_closed && !hc->conn.is_broken) {
        client_close(hc);
    } else {
        client_reset(hc); /* what was cut must be seen to be cut */
    }
}

static const struct end_ops client_ops = {
    .send_head = client_send_head,
    .send_body = client_send_body,
    .send_end = client_send_end,
    .recv_body = client_recv_body,
    .finish = client_finish,
    .abort = client_abort,
};
