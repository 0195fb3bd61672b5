/* SPDX-License-Identifier: Apache-2.0
 *
 * http1_client_read.c - HTTP/1.x with a client: heads and bodies of requests come in.
 */
#include <stdlib.h>

#include "shared/http1.h"
#include "worker/http1_client_private.h"
#include "worker/http2_client.h"
#include "worker/http2_session.h"
#include "worker/retry.h"
#include "worker/splice.h"

#define LINGER_BYTES 65536
#define READ_BUDGET  16 /* reads in one go, then others have their turn */

/* ---- requests ---- */

/* Must the connection end with the answer to this request? */
static bool
is_last_request(const struct http1_client *hc, const struct stream *s)
{
    const struct conf_listener *l = s->conf_listener;
    return !s->http->req.is_keep_alive || worker_is_retiring() || hc->listener->is_removed ||
           (l->requests_per_connection != 0 && hc->requests >= l->requests_per_connection) ||
           (l->max_age_ms != 0 && worker_now_ms() - hc->born_ms >= l->max_age_ms);
}

static void
begin_request(struct http1_client *hc)
{
    struct stream *s = hc->stream;
    hc->requests++;
    hc->is_closing = is_last_request(hc, s);
    http1_body_begin(&hc->body, &s->http->req);
    hc->state = s->http->req.body == HTTP_BODY_NONE ? CLIENT_WAIT : CLIENT_BODY;
    conn_set_read_due(&hc->conn, 0);
    stream_begin(s);
}

/* The head is malformed or too large: nothing behind it can be understood. */
static void
refuse_head(struct http1_client *hc, enum reason why)
{
    struct stream *s = hc->stream;
    hc->is_closing = true;
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
    if (s->http->head != s->arena || cap <= s->http->head_cap) {
        return -1;
    }
    char *head = malloc(cap);
    if (!head) {
        return -1;
    }
    memcpy(head, s->http->head, s->http->head_len);
    s->http->head = head;
    s->http->head_cap = cap;
    return 0;
}

static int
parse_head(struct stream *s, size_t seen)
{
    bool is_first = seen == 0;
    bool is_full = s->http->head_len == s->http->head_cap && s->http->head != s->arena;
    if (!is_first && !is_full && http1_head_end(s->http->head, s->http->head_len, seen) == 0) {
        return 0;
    }
    s->http->req.fields = worker.fields;
    s->http->req.max_fields = (uint16_t)s->conf_listener->header_count;
    struct http_limits limits = head_limits(s);
    return http1_parse_request(s->http->head, s->http->head_len, &limits, &s->http->req);
}

static struct stream *
open_stream(struct http1_client *hc)
{
    struct stream *s = stream_new_http(hc->listener, &hc->conn, &http1_client_ops);
    if (!s) {
        http1_client_close(hc);
        return NULL;
    }
    hc->stream = s;
    hc->state = CLIENT_HEAD;
    hc->has_head = false;
    hc->is_chunked = false;
    hc->is_until_close = false;
    conn_unlink(&hc->conn);
    return s;
}

/* Take bytes of a head. Returns how many were used; the request may have begun, or failed. */
static size_t
take_head(struct http1_client *hc, struct slice bytes)
{
    size_t used = 0;
    bool is_first = !hc->stream;
    struct stream *s = is_first ? open_stream(hc) : hc->stream;
    while (s) {
        size_t seen = s->http->head_len;
        size_t n = s->http->head_cap - s->http->head_len;
        n = n < bytes.len - used ? n : bytes.len - used;
        memcpy(s->http->head + s->http->head_len, bytes.ptr + used, n);
        s->http->head_len += (uint32_t)n;
        int r = parse_head(s, seen);
        if (r > 0) {
            used += (size_t)r - seen;
            s->http->head_len = (uint32_t)r;
            s->arena_used = s->http->head == s->arena ? s->http->head_len : 0;
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
    if (s && is_first) { /* the deadline runs from the first byte and does not move */
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

/* A client that knows of HTTP/2 here begins with its preface (RFC 9113 3.3); the first byte that
 * differs says that it does not. false: more must come. */
static bool
has_told_apart(struct http1_client *hc, struct slice bytes)
{
    struct slice preface = SLICE(HTTP2_PREFACE);
    size_t n = bytes.len < preface.len ? bytes.len : preface.len;
    hc->may_be_http2 = memcmp(bytes.ptr, preface.ptr, n) == 0;
    if (hc->may_be_http2 && n == preface.len) {
        http2_client_begin(&hc->conn, hc->listener, bytes);
        return true;
    }
    return !hc->may_be_http2;
}

/* Use bytes as the state demands. Returns what was used, less than all when the rest must wait. */
static size_t
take(struct http1_client *hc, struct slice bytes)
{
    size_t used = 0;
    if (hc->may_be_http2 && bytes.len > 0) {
        if (!has_told_apart(hc, bytes)) {
            return 0;
        }
        if (hc->conn.is_http2) {
            return bytes.len;
        }
    }
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
bool
http1_client_wants_bytes(const struct http1_client *hc)
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
void
http1_client_on_end(struct http1_client *hc)
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
    default: http1_client_close(hc);
    }
}

/* Large uploads go through a pipe. Returns true when it took care of reading. */
static bool
splice_body(struct http1_client *hc)
{
    struct stream *s = hc->stream;
    if (hc->state != CLIENT_BODY || hc->body.kind != HTTP_BODY_LENGTH || hc->conn.in ||
        (hc->body.left < SPLICE_MIN_BYTES && splice_pipe_bytes(s->pipes[1]) == 0) ||
        s->conf_listener->body_bytes != 0 || s->state < STREAM_SEND || retry_wants_body(s)) {
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

/* 0, or -1 when memory is short: the connection has ended then. */
static int
keep(struct http1_client *hc, const char *bytes, size_t len)
{
    if (buf_append(&hc->conn.in, bytes, len) == 0) {
        return 0;
    }
    hc->conn.is_broken = true;
    http1_client_on_end(hc);
    return -1;
}

/* Bytes that wait for more of their kind (a trailer section) come before those that were read. */
static bool
use_bytes(struct http1_client *hc, struct slice bytes)
{
    struct conn *c = &hc->conn;
    if (c->in) {
        if (keep(hc, bytes.ptr, bytes.len) == 0) {
            take_kept(hc);
        }
        return c->is_open;
    }
    size_t used = take(hc, bytes);
    if (c->is_open && used < bytes.len && hc->state != CLIENT_LINGER) {
        return keep(hc, bytes.ptr + used, bytes.len - used) == 0;
    }
    return c->is_open;
}

static bool
read_once(struct http1_client *hc)
{
    char *bytes;
    ssize_t n = conn_read_scratch(&hc->conn, WORKER_SCRATCH_BYTES, &bytes);
    if (n > 0) {
        return use_bytes(hc, slice_of(bytes, (size_t)n));
    }
    if (n != IO_AGAIN) {
        http1_client_on_end(hc);
    }
    return false;
}

/* A body that can be forwarded has a deadline; one that waits for the backend has none. */
void
http1_client_update_deadline(struct http1_client *hc)
{
    if (hc->state != CLIENT_BODY) {
        return;
    }
    uint32_t timeout = hc->stream->conf_listener->timeouts.request_body;
    if (!can_forward(hc)) {
        conn_set_read_due(&hc->conn, 0);
    } else if (hc->conn.read_due_ms == 0 && timeout != 0) {
        conn_set_read_due(&hc->conn, worker_now_ms() + timeout);
    }
}

void
http1_client_read(struct http1_client *hc)
{
    struct conn *c = &hc->conn;
    if (c->in) {
        take_kept(hc);
    }
    for (int i = 0; c->is_open && !c->is_http2 && c->is_readable && http1_client_wants_bytes(hc);
         i++) {
        if (i == READ_BUDGET) {
            conn_run_later(c);
            break;
        }
        if (splice_body(hc)) {
            break;
        }
        if (!read_once(hc) || c->is_http2) {
            break;
        }
        if (hc->state == CLIENT_LINGER && hc->discarded > LINGER_BYTES && !conn_is_blocked(c)) {
            http1_client_close(hc);
        }
    }
    if (!c->is_open || c->is_http2) {
        return;
    }
    if (hc->state == CLIENT_IDLE && hc->requests > 0 && list_is_empty(&c->link)) {
        list_add_tail(&worker.idle_clients, &c->link); /* there was no next request after all */
        if (c->has_read && conn_has_been_reset(c)) {
            http1_client_close(hc);
            return;
        }
    }
    http1_client_update_deadline(hc);
    if (hc->state != CLIENT_IDLE && c->is_watched) { /* else its registration will tell */
        conn_verify_later(c);
    }
}
