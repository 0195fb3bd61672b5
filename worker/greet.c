/* SPDX-License-Identifier: Apache-2.0
 *
 * greet.c - a client's connection before its first protocol: see greet.h.
 *
 * The PROXY header is looked at in the socket (MSG_PEEK) and taken out of it when it is whole, so
 * that not a byte of what is behind it is read here: TLS and all protocols begin as ever. A
 * ClientHello that is passed through is looked at in the same way and stays there.
 */
#include "worker/greet.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>

#include "shared/log.h"
#include "shared/proxy_protocol.h"
#include "shared/tls.h"
#include "shared/tls_hello.h"
#include "worker/http1_client.h"
#include "worker/http2_client.h"
#include "worker/tcp.h"
#include "worker/worker.h"

#define LOG_INTERVAL_MS 60000

/* A client has no protocol object yet: this is in its memory. */
struct greeting {
    struct conn conn;
    struct listener *listener;
    uint32_t seen; /* bytes that have come of a header, or a hello, that is not whole */
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

static void
begin_tcp(struct greeting *g, struct slice server_name)
{
    struct conn *c = &g->conn;
    struct listener *l = g->listener;
    conn_watch(c);
    tcp_client_begin(c, l, server_name);
}

/* In cleartext http1_client.c meets the preface of HTTP/2. */
static void
begin_protocol(struct greeting *g)
{
    struct conn *c = &g->conn;
    struct listener *l = g->listener;
    if (l->conf->mode == CONF_TCP) {
        begin_tcp(g, slice_of("", 0));
        return;
    }
    if (has_agreed_on_http2(c, l)) {
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

/* ---- the ClientHello of TLS that is passed through ---- */

static ssize_t
receive(int fd, char *bytes, size_t len, int flags)
{
    ssize_t n;
    do {
        n = recv(fd, bytes, len, flags);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* So much has come of what is not whole. Is it all that will? A look into the socket does not find
 * its end. */
static bool
is_cut(struct greeting *g, ssize_t n)
{
    struct conn *c = &g->conn;
    if (n > 0 && (c->has_hup || (n == (ssize_t)g->seen && conn_has_been_reset(c)))) {
        return true;
    }
    g->seen = n > 0 ? (uint32_t)n : 0;
    return false;
}

static void
refuse_hello(struct greeting *g, const char *why)
{
    shm_count(&worker.row->failures[REASON_handshake_failed], 1);
    log_debug("listener %s: ClientHello: %s", g->listener->name, why);
    close_greeting(g);
}

static char hello[TLS_HELLO_MAX + 1]; /* a look at it */

struct slice
greet_passed_name(const struct conn *c)
{
    static struct tls_hello told;
    const char *why;
    ssize_t n = receive(c->io.fd, hello, sizeof(hello), MSG_PEEK);
    bool is_whole =
        n > 0 && tls_hello_parse(slice_of(hello, (size_t)n), &told, &why) == TLS_HELLO_WHOLE;
    return slice_of(told.name, is_whole ? told.name_len : 0);
}

static void
read_hello(struct greeting *g)
{
    struct conn *c = &g->conn;
    struct tls_hello told;
    const char *why = "";
    ssize_t n = receive(c->io.fd, hello, sizeof(hello), MSG_PEEK);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        close_greeting(g); /* without a byte: somebody looked whether anyone is here */
        return;
    }
    switch (tls_hello_parse(slice_of(hello, n > 0 ? (size_t)n : 0), &told, &why)) {
    case TLS_HELLO_WHOLE:
        c->is_readable = true;
        begin_tcp(g, slice_of(told.name, told.name_len));
        break;
    case TLS_HELLO_OTHER:
        c->is_readable = true;
        begin_tcp(g, slice_of("", 0));
        break;
    case TLS_HELLO_BAD: refuse_hello(g, why); break;
    case TLS_HELLO_MORE:
        if (is_cut(g, n)) {
            refuse_hello(g, "it is cut");
        } else {
            conn_watch(c);
        }
    }
}

static void
on_hello_event(struct conn *c, unsigned what)
{
    struct greeting *g = (struct greeting *)c;
    if (!(what & (CONN_READ_DUE | CONN_BROKEN))) {
        read_hello(g);
    } else if (g->seen == 0) {
        close_greeting(g);
    } else {
        refuse_hello(g, "the rest is missing");
    }
}

static void
begin_hello(struct greeting *g)
{
    struct conn *c = &g->conn;
    g->seen = 0;
    c->on_event = on_hello_event;
    set_deadline(g);
    read_hello(g);
}

/* ---- TLS of our own, or none ---- */

/* What is in the socket when it is watched is told; what came behind a PROXY header was told with
 * that. */
static void
begin_secure(struct greeting *g)
{
    struct conn *c = &g->conn;
    const struct conf_listener *l = g->listener->conf;
    if (l->mode == CONF_TCP && l->router) {
        begin_hello(g);
        return;
    }
    if (!l->tls) {
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
    } else if (is_cut(g, n)) {
        refuse_header(g, "it is cut");
    } else {
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
    return c->on_event == on_handshake_event || c->on_event == on_header_event ||
           c->on_event == on_hello_event;
}

void
greet_drain(struct conn *c)
{
    uint64_t due = worker_now_ms() + WORKER_IDLE_GRACE_MS;
    bool is_waiting = c->on_event == on_header_event || c->on_event == on_hello_event;
    if (is_waiting && (c->read_due_ms == 0 || c->read_due_ms > due)) {
        conn_set_read_due(c, due);
    }
}
