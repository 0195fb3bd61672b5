/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream_connect.c - a new connection to a backend, from its socket until a stream has it; the
 * TLS handshake in between is upstream_tls.c's.
 *
 * A connection that is being made belongs to the stream that asked for it.
 */
#include "worker/upstream_private.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/proxy_protocol.h"
#include "shared/tls.h"
#include "worker/greet.h"
#include "worker/http1_upstream.h"
#include "worker/http2_session.h"
#include "worker/http2_upstream.h"
#include "worker/stream.h"
#include "worker/tcp.h"
#include "worker/upstream_tls.h"
#include "worker/worker.h"

#define LOG_INTERVAL_MS 60000

/* A descriptor kept back: a client that was accepted with the last one still gets its backend, and
 * only then accepting pauses. */
static int spare_fd = -1;

void
upstream_keep_spare(void)
{
    if (spare_fd < 0) {
        spare_fd = eventfd(0, EFD_CLOEXEC);
    }
}

static enum reason
connect_reason(int error)
{
    switch (error) {
    case ECONNREFUSED:
    case ENOENT: return REASON_connect_refused;
    case ETIMEDOUT: return REASON_connect_timeout;
    default: return REASON_connect_failed;
    }
}

void
upstream_connect_failed(struct conn *c, enum reason why)
{
    struct upstream_connecting *uc = (struct upstream_connecting *)c;
    struct stream *s = uc->stream;
    if (c->kind == CONN_HTTP2_UPSTREAM) {
        http2_upstream_fail(c, why);
        return;
    }
    conn_close(c);
    upstream_conn_closed(s->taken, c);
    stream_on_connect_failed(s, why);
}

/* An answer before any request belongs to nobody; and some end without one. */
static enum reason
early_input(struct conn *c)
{
    char byte;
    if (!c->io.tls) {
        if (!c->is_readable) {
            return REASON_none;
        }
        return recv(c->io.fd, &byte, 1, MSG_PEEK) > 0 ? REASON_bad_response : REASON_backend_reset;
    }
    if ((c->io.flags & TRANSPORT_DRAINED) && !c->has_hup && !c->io.ops->pending(&c->io)) {
        c->is_readable = false;
        return REASON_none;
    }
    ssize_t n = conn_read(c, &byte, 1); /* sessions for later may have come, too */
    if (n == IO_AGAIN) {
        return REASON_none;
    }
    return n > 0 ? REASON_bad_response : REASON_backend_reset;
}

void
upstream_connected(struct conn *c)
{
    struct stream *s = ((struct upstream_connecting *)c)->stream;
    conn_set_read_due(c, 0);
    enum reason why = c->kind == CONN_HTTP1_UPSTREAM ? early_input(c) : REASON_none;
    if (why != REASON_none) {
        conn_close(c);
        upstream_conn_closed(s->taken, c);
        s->server = (struct end){0};
        stream_on_server_failed(s, why);
        return;
    }
    shm_observe(&s->taken->counters->connect, worker_now_us() - s->connect_us);
    upstream_attach(s, c);
}

/* ---- the PROXY header ---- */

static const struct conn *
client_conn(const struct stream *s)
{
    return s->client.conn ? s->client.conn : s->client.h2->session->conn;
}

/* Where the client has connected to. Addresses of a family of their own (the client's is what a
 * proxy in front told) cannot be said together: then only the port is. */
static struct addr_ip
told_target(const struct conn *client, uint8_t family)
{
    struct addr own;
    struct addr_ip to = {.family = AF_UNIX};
    own.len = sizeof(own.un);
    if (getsockname(client->io.fd, &own.sa, &own.len) == 0) {
        addr_ip_from_sockaddr(&own.sa, own.len, &to);
    }
    if (to.family != family) {
        to = (struct addr_ip){.family = family, .port = to.port};
    }
    return to;
}

static size_t
write_proxy_header(const struct stream *s, char *out)
{
    const struct conn *client = client_conn(s);
    struct proxy_said said = {.from = s->client_ip};
    said.to = told_target(client, s->client_ip.family);
    if (s->http) {
        said.unique_id = s->http->request_id;
    }
    if (client->io.ops == &transport_tls_ops) {
        said.alpn = transport_tls_alpn(&client->io);
        said.authority = transport_tls_server_name(&client->io);
        said.tls_version = s->tls_version;
        said.is_resumed = s->is_resumed;
        said.has_cert = said.is_verified = transport_tls_has_peer_cert(&client->io);
    }
    if (s->is_tcp && s->conf_listener->router) {
        said.authority = greet_passed_name(client); /* nothing has been read from it yet */
    }
    return s->upstream->send_proxy == 1 ? proxy_write_v1(&said, out) : proxy_write_v2(&said, out);
}

/* A new socket takes it whole. */
static bool
send_proxy_header(struct conn *c, const struct stream *s)
{
    char header[PROXY_V2_WRITTEN_MAX];
    conn_put(c, header, write_proxy_header(s, header));
    conn_flush(c);
    return !c->is_broken && !conn_is_blocked(c);
}

static void
on_connect_event(struct conn *c, unsigned what)
{
    struct upstream_connecting *uc = (struct upstream_connecting *)c;
    struct stream *s = uc->stream;
    if (what & (CONN_READ_DUE | CONN_BROKEN)) {
        upstream_connect_failed(c, what & CONN_BROKEN ? REASON_connect_failed
                                                      : REASON_connect_timeout);
        return;
    }
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(c->io.fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) {
        error = errno;
    }
    if (error != 0) {
        upstream_connect_failed(c, connect_reason(error));
        return;
    }
    if (!(what & CONN_WRITABLE)) {
        return;
    }
    c->is_connecting = false;
    if (s->upstream->send_proxy && !send_proxy_header(c, s)) {
        upstream_connect_failed(c, REASON_connect_failed);
    } else if (upstream_tls_is_wanted(s)) {
        upstream_tls_begin(c);
    } else {
        upstream_connected(c);
    }
}

/* An aborted stream takes its half-open connection with it. */
static void
connecting_abort(struct stream *s, struct end *e, enum reason why)
{
    (void)why;
    conn_close(e->conn);
    upstream_conn_closed(s->taken, e->conn);
}

static const struct end_ops connecting_ops = {.abort = connecting_abort};

static int
new_socket(int family)
{
    int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = socket(family, type, 0);
    if (fd < 0 && errno == EMFILE && spare_fd >= 0) {
        close(spare_fd);
        spare_fd = -1;
        return socket(family, type, 0);
    }
    if (fd >= 0) {
        upstream_keep_spare();
    }
    return fd;
}

/* A tunnel may be silent for long: keep-alive finds a peer that went without a word. */
static int
open_socket(const struct addr *to, const struct conf_local *source, bool is_tunnel)
{
    static unsigned turn;
    int fd = new_socket(to->sa.sa_family);
    if (fd < 0) {
        return -1;
    }
    if (source->count > 0 && addr_bind_source(fd, to, source->addrs, source->count, turn++) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    if (to->sa.sa_family != AF_UNIX) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (is_tunnel) {
            setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
        }
    }
    return fd;
}

static enum conn_kind
kind_for(const struct stream *s)
{
    if (s->is_tcp) {
        return CONN_TCP_UPSTREAM;
    }
    return s->upstream->protocol == CONF_H2 ? CONN_HTTP2_UPSTREAM : CONN_HTTP1_UPSTREAM;
}

static size_t
size_of(enum conn_kind kind)
{
    switch (kind) {
    case CONN_TCP_UPSTREAM: return tcp_upstream_size();
    case CONN_HTTP2_UPSTREAM: return http2_upstream_size();
    default: return http1_upstream_size();
    }
}

static struct conn *
open_conn(struct stream *s, struct backend *b, int fd)
{
    enum conn_kind kind = kind_for(s);
    struct conn *c = conn_alloc(kind, size_of(kind));
    if (!c) {
        close(fd);
        return NULL;
    }
    transport_init_plain(&c->io, fd);
    c->is_connecting = true;
    conn_open(c, CONN_BACKEND, on_connect_event);
    list_add_tail(&b->conns, &c->owned);
    b->nconns++;
    shm_count(&b->counters->connects, 1);
    return c;
}

static void
log_no_socket(const struct stream *s, int error)
{
    static struct log_limit limit;
    uint64_t suppressed;
    if (log_limit_pass(&limit, worker_now_ms(), LOG_INTERVAL_MS, &suppressed)) {
        log_warn("backend %s/%s: no socket: %s (%llu more times before)", s->upstream->name,
                 s->backend->id, strerror(error), (unsigned long long)suppressed);
    }
}

/* An idle connection that this exchange may not use gives way to the one that it needs. */
static bool
count_conn(struct backend *b)
{
    if (!shm_gauge_try_add(worker.row, b->open, b->max_connections)) {
        return false;
    }
    if (!shm_gauge_try_add(worker.row, b->upstream_open, b->upstream_max_connections)) {
        shm_gauge_sub(worker.row, b->open);
        return false;
    }
    return true;
}

void
upstream_connect(struct stream *s)
{
    struct backend *b = s->taken;
    const struct addr *to = &s->backend->addr;
    if (!count_conn(b) && !(upstream_close_oldest_idle(b) && count_conn(b))) {
        stream_on_connect_failed(s, REASON_over_limit);
        return;
    }
    s->state = STREAM_CONNECT;
    s->connect_us = worker_now_us();
    int fd = open_socket(to, &s->upstream->source, s->is_tcp);
    struct conn *c = fd >= 0 ? open_conn(s, b, fd) : NULL;
    if (!c) {
        int error = errno;
        shm_gauge_sub(worker.row, b->upstream_open);
        shm_gauge_sub(worker.row, b->open);
        log_no_socket(s, error);
        if (error == EADDRNOTAVAIL) { /* upstream.source */
            stream_on_connect_failed(s, REASON_connect_failed);
        } else {
            stream_fail(s, REASON_internal);
        }
        return;
    }
    if (c->kind == CONN_HTTP2_UPSTREAM) {
        http2_upstream_wait(c, s);
    } else {
        ((struct upstream_connecting *)c)->stream = s;
        s->server = (struct end){.ops = &connecting_ops, .conn = c};
        s->is_on_reused = false;
    }
    if (connect(fd, &to->sa, to->len) != 0 && errno != EINPROGRESS) {
        /* EAGAIN: a Unix socket whose backlog is full */
        upstream_connect_failed(c, connect_reason(errno));
        return;
    }
    conn_watch(c);
    uint32_t timeout = s->policy->timeouts.connect;
    conn_set_read_due(c, timeout ? worker_now_ms() + timeout : 0);
}
