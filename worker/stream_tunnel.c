/* SPDX-License-Identifier: Apache-2.0
 *
 * stream_tunnel.c - exchanges that are raw bytes both ways: tcp connections, and HTTP exchanges
 * that a 101 has upgraded (RFC 9110 7.8).
 *
 * A tunnel outlives configurations: it pins none, and when its listener or backend has left, it has
 * an end of its own (retire_timeout).
 */
#include "shared/websocket.h"
#include "worker/stream_private.h"
#include "worker/upstream.h"
#include "worker/worker.h"

static unsigned nlimited; /* tunnels with an end, at the last look */

static struct slice
copy_name(struct stream *s, struct slice name)
{
    char *copy = stream_alloc(s, name.len);
    return copy ? slice_of(memcpy(copy, name.ptr, name.len), name.len) : SLICE("-");
}

void
stream_unpin_conf(struct stream *s)
{
    s->upstream_name = copy_name(s, s->upstream_name);
    s->backend_name = copy_name(s, s->backend_name);
    s->conf_listener = NULL;
    s->upstream = NULL;
    s->policy = NULL;
    s->backend = NULL;
    s->pool = NULL;
    conf_unref(s->conf);
    s->conf = NULL;
}

static bool
is_left_over(const struct stream *s)
{
    return s->is_tunnel && s->cut_ms == 0 &&
           (s->listener->is_removed || (s->taken && s->taken->is_removed));
}

static void
limit_tunnel(struct stream *s, uint32_t timeout_ms)
{
    s->cut_ms = worker_now_ms() + timeout_ms;
    nlimited++;
}

void
stream_limit_tunnels(uint32_t timeout_ms)
{
    list_for_each (it, &worker.streams) {
        struct stream *s = container_of(it, struct stream, link);
        if (is_left_over(s)) {
            limit_tunnel(s, timeout_ms);
        }
    }
}

void
stream_cut_tunnels(void)
{
    if (nlimited == 0) {
        return;
    }
    nlimited = 0;
    list_for_each_safe (it, &worker.streams) {
        struct stream *s = container_of(it, struct stream, link);
        if (s->cut_ms == 0) {
            continue;
        }
        if (s->cut_ms > worker_now_ms()) {
            nlimited++;
        } else {
            stream_fail(s, REASON_drain_cut);
        }
    }
}

uint32_t
stream_tunnel_ms(const struct conf_listener *l, const struct conf_policy *policy)
{
    uint32_t a = l->timeouts.tunnel;
    uint32_t b = policy->timeouts.tunnel;
    if (a == 0 || b == 0) {
        return a + b;
    }
    return a < b ? a : b;
}

/* RFC 6455 4.1: who knows the answer to the key has understood what it was asked for. */
static bool
is_proven(const struct http_msg *req, const struct http_msg *m)
{
    const struct http_field *key = http_msg_find(req, HTTP_FIELD_SEC_WEBSOCKET_KEY);
    const struct http_field *accept = http_msg_find(m, HTTP_FIELD_SEC_WEBSOCKET_ACCEPT);
    if (!http_is_websocket(req->upgrade) || !key) {
        return true;
    }
    return accept && websocket_is_accept(accept->value, key->value);
}

/* RFC 9110 7.8: only to what was asked for, and not before the request has come whole. */
static bool
is_asked_for(const struct stream *s, const struct http_msg *m)
{
    const struct http_msg *req = &s->http->req;
    return req->upgrade.len > 0 && s->client.is_recv_done &&
           slice_eq_nocase(req->upgrade, m->upgrade) && is_proven(req, m);
}

bool
stream_is_mistakable(const struct stream *s, const struct http_msg *m)
{
    bool has_asked = s->is_http2 && (s->http->req.seen & HTTP_SEEN_UPGRADE);
    return has_asked && m->status >= 200 && m->status < 300;
}

void
stream_upgrade(struct stream *s, struct http_msg *m)
{
    if (!is_asked_for(s, m)) {
        stream_on_server_failed(s, REASON_bad_response);
        return;
    }
    s->is_tunnel = true;
    stream_uncount(s);
    s->client.is_recv_done = false;
    s->server.is_send_done = false;
    s->server.ops->expect(s, &s->server, 0);
    stream_set_deadline(s, 0);
    stream_limit_silence(s, stream_tunnel_ms(s->conf_listener, s->policy));
    stream_report_answer(s, m->status);
    stream_send_answer(s, m);
    stream_unpin_conf(s);
    if (is_left_over(s)) {
        limit_tunnel(s, worker.conf->retire_timeout);
    }
    s->client.ops->recv_body(s, &s->client);
}
