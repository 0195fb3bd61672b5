/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream_tls.c - the TLS handshake with a backend: see upstream_tls.h.
 *
 * The view of a backend has its tls_remote, and with it the session to resume. A stream that began
 * under an older configuration shakes hands by that one, with a remote of its own.
 */
#include "worker/upstream_tls.h"

#include "shared/log.h"
#include "worker/stream.h"
#include "worker/upstream_private.h"
#include "worker/worker.h"

#define LOG_INTERVAL_MS 60000 /* for each backend */

/* ---- views ---- */

bool
upstream_tls_is_current(const struct backend *b, const struct conf_backend *cb)
{
    const struct conf_upstream_tls *tls = cb->upstream->tls;
    if (!tls || !b->remote) {
        return !tls && !b->remote;
    }
    return tls_remote_is_for(b->remote, tls->client, cb->tls_name);
}

bool
upstream_tls_apply(struct backend *b, const struct conf_backend *cb)
{
    const struct conf_upstream_tls *tls = cb->upstream->tls;
    if (upstream_tls_is_current(b, cb)) {
        return false;
    }
    upstream_tls_drop(b);
    b->tls_log = (struct log_limit){0}; /* what follows is news */
    if (tls) {
        b->remote = tls_remote_new(tls->client, cb->tls_name);
    }
    return true;
}

void
upstream_tls_drop(struct backend *b)
{
    tls_remote_unref(b->remote);
    b->remote = NULL;
}

/* ---- the handshake ---- */

bool
upstream_tls_is_wanted(const struct stream *s)
{
    return s->upstream->tls != NULL;
}

/* What is offered by ALPN: a tunnel carries anything. */
static const char *
protocol_of(const struct stream *s)
{
    if (s->is_tcp) {
        return NULL;
    }
    return s->upstream->protocol == CONF_H2 ? "h2" : "http/1.1";
}

static void
log_failure(const struct stream *s, const char *why)
{
    uint64_t suppressed;
    if (log_limit_pass(&s->taken->tls_log, worker_now_ms(), LOG_INTERVAL_MS, &suppressed)) {
        log_warn("backend %.*s/%.*s: TLS: %s (%llu more times before)", SLICE_ARG(s->upstream_name),
                 SLICE_ARG(s->backend_name), why, (unsigned long long)suppressed);
    }
}

static void
fail(struct conn *c, const char *why)
{
    const struct stream *s = ((struct upstream_connecting *)c)->stream;
    log_failure(s, why);
    upstream_connect_failed(c, REASON_backend_tls);
}

/* RFC 9113 3.2: HTTP/2 over TLS is agreed upon. */
static bool
is_wrong_protocol(const struct conn *c)
{
    return c->kind == CONN_HTTP2_UPSTREAM && !slice_eq(transport_tls_alpn(&c->io), SLICE("h2"));
}

static void
on_handshake_event(struct conn *c, unsigned what)
{
    if (what & CONN_READ_DUE) {
        upstream_connect_failed(c, REASON_connect_timeout);
        return;
    }
    int r = c->io.ops->handshake(&c->io);
    if (r == IO_AGAIN && (c->has_hup || (what & CONN_BROKEN))) {
        r = c->io.ops->handshake(&c->io); /* no second edge tells of a FIN that came with data */
    }
    if (r == IO_AGAIN && (what & CONN_BROKEN)) {
        fail(c, "the connection broke");
    } else if (r == IO_ERROR) {
        fail(c, transport_tls_error(&c->io));
    } else if (r == 1 && is_wrong_protocol(c)) {
        fail(c, "it does not offer HTTP/2 (ALPN h2)");
    } else if (r == 1) {
        upstream_connected(c);
    }
}

static struct tls_remote *
remote_for(const struct stream *s)
{
    const struct conf_backend *cb = s->backend;
    if (upstream_tls_is_current(s->taken, cb)) {
        return tls_remote_ref(s->taken->remote);
    }
    return tls_remote_new(cb->upstream->tls->client, cb->tls_name);
}

void
upstream_tls_begin(struct conn *c)
{
    const struct stream *s = ((struct upstream_connecting *)c)->stream;
    struct tls_remote *remote = remote_for(s);
    int result = remote ? transport_tls_connect(&c->io, c->io.fd, remote, protocol_of(s)) : -1;
    tls_remote_unref(remote);
    if (result < 0) {
        transport_init_plain(&c->io, c->io.fd);
        fail(c, "out of memory");
        return;
    }
    c->on_event = on_handshake_event;
    on_handshake_event(c, 0);
}

bool
upstream_tls_explain_loss(const struct stream *s, const struct conn *c)
{
    if (!c->io.tls || !transport_tls_is_refused(&c->io)) {
        return false;
    }
    log_failure(s, transport_tls_error(&c->io));
    return true;
}
