/* SPDX-License-Identifier: Apache-2.0
 *
 * greet.c - a client's connection before its first protocol: see greet.h.
 *
 * The PROXY header is looked at in the socket (MSG_PEEK) and taken out of it when it is whole, so
 * that not a byte of what is behind it is read here: TLS and all protocols begin as ever.
 */
#include "worker/greet.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>

#include "shared/log.h"
#include "shared/proxy_protocol.h"
#include "shared/tls.h"
#include "worker/http1_client.h"
#include "worker/http2_client.h"
#include "worker/tcp.h"
#include "worker/worker.h"

#define LOG_INTERVAL_MS 60000

/* A client has no protocol object yet: this is in its memory. */
struct greeting {
    struct conn conn;
    struct listener *listener;
    uint32_t seen; /* bytes that have come of a header that is not whole */
};

/* ---- the end ---- */

static void
close_greeting(struct greeting *g)
{
    g->conn.is_broken = true; /* nothing more to say */
    listener_release_client(g->listener, &g->conn);
    conn_close(&g->conn);
}

/* What waits has one deadline, from the accept on; it stays the same from stage to stage. */
static void
set_deadline(struct greeting *g)
{
    struct conn *c = &g->conn;
    const struct conf_listener *l = g->listener->conf;
    bool is_plain_http = l->mode == CONF_HTTP && !l->tls;
    uint32_t timeout = is_plain_http ? l->timeouts.header : l->timeouts.handshake;
    if (c->read_due_ms == 0 && timeout != 0) {
        conn_set_read_due(c, worker_now_ms() + timeout);
    }
}

/* ---- the first protocol ---- */

static bool
has_agreed_on_http2(const struct conn *c, const struct listener *l)
{
    return l->conf->http2 && c->io.ops == &transport_tls_ops &&
           slice_eq(transport_tls_alpn(&c->io), SLICE("h2"));
}

/* In cleartext http1_client.c meets the preface of HTTP/2. */
static void
begin_protocol(struct greeting *g)
{
    struct conn *c = &g->conn;
    struct listener *l = g->listener;
    memset((char *)g + sizeof(*c), 0, sizeof(*g) - sizeof(*c));
    if (l->conf->mode == CONF_TCP) {
        conn_watch(c);
        tcp_client_begin(c, l);
    } else if (has_agreed_on_http2(c, l)) {
        http2_client_begin(c, l, slice_of(NULL, 0));
    } else {
        http1_client_begin(c, l);
    }
}

/* ---- the TLS handshake ---- */

static void
fail_handshake(struct greeting *g)
{
    shm_count(&worker.row->failures[REASON_handshake_failed], 1);
    log_debug("listener %s: TLS handshake failed: %s", g->listener->name,
              transport_tls_error(&g->conn.io));
    close_greeting(g);
}

static void
on_handshake_event(struct conn *c, unsigned what)
{
    struct greeting *g = (struct greeting *)c;
    if (what & (CONN_READ_DUE | CONN_BROKEN)) {
        fail_handshake(g);
        return;
    }
    int r = c->io.ops->handshake(&c->io);
    if (r == IO_AGAIN && c->has_hup) {
        r = c->io.ops->handshake(&c->io); /* no second edge tells of a FIN that came with data */
    }
    if (r == IO_AGAIN) {
        return;
    }
    if (r != 1) {
        fail_handshake(g);
        return;
    }
    shm_count(transport_tls_is_resumed(&c->io) ? &worker.row->tls_resumed : &worker.row->tls_full,
              1);
    c->is_readable = true; /* data may have come with the last flight */
    begin_protocol(g);
}

/* What is in the socket when it is watched is told; what came behind a PROXY header was told with
 * that. */
static void
begin_secure(struct greeting *g)
{
    struct conn *c = &g->conn;
    if (!g->listener->conf->tls) {
        begin_protocol(g);
        return;
    }
    bool is_told = c->is_watched;
    c->on_event = on_handshake_event;
    set_deadline(g);
    conn_watch(c);
    if (is_told) {
        on_handshake_event(c, CONN_READABLE);
    }
}

/* ---- the PROXY header ---- */

bool
greet_expects_header(const struct listener *l, const struct addr_ip *peer)
{
    for (unsigned i = 0; i < l->conf->naccept_proxy; i++) {
        if (cidr_contains(&l->conf->accept_proxy[i], peer)) {
            return true;
        }
    }
    return false;
}

/* Nobody can be answered who is not known. */
static void
refuse_header(struct greeting *g, const char *why)
{
    static struct log_limit limit;
    uint64_t suppressed;
    char peer[ADDR_TEXT_MAX];
    shm_count(&worker.row->failures[REASON_bad_request], 1);
    if (log_limit_pass(&limit, worker_now_ms(), LOG_INTERVAL_MS, &suppressed)) {
        addr_ip_format(&g->conn.peer, peer);
        log_warn("listener %s: PROXY header of %s: %s: closed (%llu more times before)",
                 g->listener->name, peer, why, (unsigned long long)suppressed);
    }
    close_greeting(g);
}

/* A check of the proxy's whether anyone is here, or an idle connection at our own end. */
static bool
may_say_nothing(const struct greeting *g)
{
    return g->seen == 0 && (worker_is_retiring() || g->listener->is_removed);
}

static ssize_t
receive(int fd, char *bytes, size_t len, int flags)
{
    ssize_t n;
    do {
        n = recv(fd, bytes, len, flags);
    } while (n < 0 && errno == EINTR);
    return n;
}

static bool
has_error(int fd)
{
    int error = 0;
    socklen_t len = sizeof(error);
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0;
}

/* The header is in the socket whole: len bytes of it. */
static void
take_header(struct greeting *g, char *bytes, size_t len, const struct proxy_told *told)
{
    struct conn *c = &g->conn;
    if (receive(c->io.fd, bytes, len, 0) != (ssize_t)len) {
        refuse_header(g, "it cannot be read again");
        return;
    }
    shm_count(&worker.row->client_in, len);
    if (told->has_addresses) {
        c->peer = told->from;
        if (!listener_admit_address(g->listener, c)) {
            return;
        }
    }
    c->is_readable = true; /* more may be behind it */
    begin_secure(g);
}

static void
read_header(struct greeting *g)
{
    static char bytes[PROXY_HEADER_MAX];
    struct conn *c = &g->conn;
    struct proxy_told told;
    const char *why = "";
    ssize_t n = receive(c->io.fd, bytes, sizeof(bytes), MSG_PEEK);
    bool has_ended = n == 0 || (n < 0 && errno != EAGAIN);
    if (has_ended) {
        close_greeting(g); /* without a byte: somebody looked whether anyone is here */
        return;
    }
    int len = n > 0 ? proxy_parse(slice_of(bytes, (size_t)n), &told, &why) : 0;
    if (len > 0) {
        take_header(g, bytes, (size_t)len, &told);
    } else if (len < 0) {
        refuse_header(g, why);
    } else if (n > 0 && (c->has_hup || (n == (ssize_t)g->seen && has_error(c->io.fd)))) {
        refuse_header(g, "it is cut"); /* a look into the socket does not find its end */
    } else {
        g->seen = n > 0 ? (uint32_t)n : 0;
        conn_watch(c);
    }
}

static void
on_header_event(struct conn *c, unsigned what)
{
    struct greeting *g = (struct greeting *)c;
    if (!(what & (CONN_READ_DUE | CONN_BROKEN))) {
        read_header(g);
    } else if (may_say_nothing(g)) {
        close_greeting(g);
    } else {
        refuse_header(g, g->seen ? "the rest is missing" : "none has come");
    }
}

/* ---- the whole ---- */

void
greet_client(struct conn *c, struct listener *l)
{
    struct greeting *g = (struct greeting *)c;
    assert(sizeof(*g) <= tcp_client_size() && sizeof(*g) <= http1_client_size());
    g->listener = l;
    if (!greet_expects_header(l, &c->peer)) {
        begin_secure(g);
        return;
    }
    c->on_event = on_header_event;
    set_deadline(g);
    read_header(g);
}

bool
greet_is_under_way(const struct conn *c)
{
    return c->on_event == on_handshake_event || c->on_event == on_header_event;
}

void
greet_drain(struct conn *c)
{
    uint64_t due = worker_now_ms() + WORKER_IDLE_GRACE_MS;
    if (c->on_event == on_header_event && (c->read_due_ms == 0 || c->read_due_ms > due)) {
        conn_set_read_due(c, due);
    }
}
