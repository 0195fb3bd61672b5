/* SPDX-License-Identifier: Apache-2.0
 *
 * http1_client.c - HTTP/1.x with a client: the connection, its life and its events.
 *
 * One connection serves one request after the other. Bytes of a request head are copied to the
 * stream they begin; body bytes go from the read buffer straight to the backend. What cannot be
 * used yet stays in conn.in, or in the socket.
 */
#include "worker/http1_client.h"

#include <assert.h>

#include "worker/forward.h"
#include "worker/http1_client_private.h"
#include "worker/http2_client.h"
#include "worker/reply.h"

#define LINGER_MS 2000

size_t
http1_client_size(void)
{
    size_t http2 = http2_client_size(); /* what it may turn into */
    return sizeof(struct http1_client) > http2 ? sizeof(struct http1_client) : http2;
}

void
http1_client_close(struct http1_client *hc)
{
    assert(!hc->stream);
    if (hc->conn.is_open) {
        listener_release_client(hc->listener, &hc->conn);
        conn_close(&hc->conn);
    }
}

void
http1_client_reset(struct http1_client *hc)
{
    if (hc->conn.is_open) {
        listener_release_client(hc->listener, &hc->conn);
        conn_reset(&hc->conn);
    }
}

void
http1_client_linger(struct http1_client *hc)
{
    hc->state = CLIENT_LINGER;
    buf_free(&hc->conn.in);
    conn_watch(&hc->conn);
    conn_shutdown(&hc->conn);
    conn_set_read_due(&hc->conn, worker_now_ms() + LINGER_MS);
    if (hc->conn.is_readable) {
        conn_run_later(&hc->conn);
    }
}

static void
set_idle_deadline(struct http1_client *hc)
{
    bool is_draining = worker_is_retiring() || hc->listener->is_removed;
    uint32_t idle = is_draining ? WORKER_IDLE_GRACE_MS : hc->listener->conf->timeouts.idle;
    conn_set_read_due(&hc->conn, idle ? worker_now_ms() + idle : 0);
}

void
http1_client_become_idle(struct http1_client *hc)
{
    struct conn *c = &hc->conn;
    hc->state = CLIENT_IDLE;
    hc->stream = NULL;
    set_idle_deadline(hc);
    conn_watch(c);
    conn_unlink(c);
    list_add_tail(&worker.idle_clients, &c->link);
    if (c->in || c->is_readable) {
        conn_run_later(c); /* pipelined: the next request is here */
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
    case CLIENT_LINGER:
        if (conn_is_blocked(&hc->conn)) { /* not all has been said: the send timeout rules */
            conn_set_read_due(&hc->conn, worker_now_ms() + LINGER_MS);
        } else {
            http1_client_close(hc);
        }
        break;
    case CLIENT_IDLE:
        if (hc->may_be_http2 && hc->conn.in) {
            hc->may_be_http2 = false; /* it will not be known: a head that is too slow */
            http1_client_read(hc);
            on_read_due(hc);
            break;
        }
        http1_client_close(hc);
        break;
    default: http1_client_close(hc);
    }
}

/* Output that waited has left. */
static void
on_writable(struct http1_client *hc)
{
    if (hc->stream) {
        stream_on_unblocked(hc->stream, &hc->stream->client);
    } else if (hc->state == CLIENT_IDLE && hc->is_closing) {
        http1_client_close(hc);
    }
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
            http1_client_reset(hc);
        }
        return;
    }
    if ((what & CONN_BROKEN) || c->is_broken) {
        c->is_broken = true;
        http1_client_on_end(hc);
        return;
    }
    if (what & CONN_READ_DUE) {
        on_read_due(hc);
        return;
    }
    if (what & CONN_WRITABLE) {
        on_writable(hc);
    }
    if (c->is_open && hc->stream && c->is_readable && !http1_client_wants_bytes(hc) &&
        conn_has_been_reset(c)) {
        c->is_broken = true;
        http1_client_on_end(hc);
        return;
    }
    if (c->is_open) {
        http1_client_read(hc);
    }
}

void
http1_client_begin(struct conn *c, struct listener *l)
{
    struct http1_client *hc = (struct http1_client *)c;
    conn_become(c, sizeof(*hc), client_on_event);
    hc->listener = l;
    hc->born_ms = worker_now_ms();
    hc->state = CLIENT_IDLE;
    c->send_timeout_ms = l->conf->timeouts.send;
    uint32_t header = l->conf->timeouts.header;
    conn_set_read_due(c,
                      header ? hc->born_ms + header : 0); /* until the first byte: silent close */
    /* A client that comes with its request and leaves with the answer is never watched. */
    c->is_readable = true;
    hc->may_be_http2 = l->conf->http2 && !c->io.tls;
    http1_client_read(hc);
    if (c->is_http2) {
        return;
    }
    if (hc->state == CLIENT_WAIT) {
        conn_watch_later(c);
    } else {
        conn_watch(c);
    }
}

void
http1_client_refuse(struct conn *c, struct listener *l, enum reason why)
{
    struct http1_client *hc = (struct http1_client *)c;
    char id[STREAM_ID_LEN];
    conn_become(c, sizeof(*hc), client_on_event);
    hc->listener = l;
    c->send_timeout_ms = LINGER_MS;
    struct reply r;
    reply_make_early(&r, l->conf, why, forward_new_id(id));
    reply_put_http1(c, &r, true, false);
    http1_client_linger(hc);
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
    http1_client_close((struct http1_client *)c);
}
