/* SPDX-License-Identifier: Apache-2.0
 *
 * probe.c - run one health check over a non-blocking socket, through TLS where the upstream has it.
 *
 * The monitor has no private key, so no certificate is shown to backends that ask for one.
 *
 * A probe owns its socket, its transport, its two events and a reference to the conf. It ends in
 * its own callback (probe_finish) or by probe_cancel.
 */
#include "master/probe.h"

#include <errno.h>
#include <event2/event_struct.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "master/probe_grpc.h"
#include "master/probe_http.h"
#include "master/probe_http2.h"
#include "shared/clock.h"
#include "shared/proxy_protocol.h"

/* A deadline that was noticed so late says more about this process than about the backend. */
#define PROBE_LATE_MS 50

enum probe_state {
    PROBE_CONNECT, /* the connection is being made */
    PROBE_SHAKE,   /* the TLS handshake is going on */
    PROBE_SEND,    /* the request is leaving */
    PROBE_READ,    /* the answer is arriving */
    PROBE_TALK,    /* HTTP/2: frames go both ways */
    PROBE_OVER     /* decided within probe_start; told from the loop */
};

/* Both begin with their struct probe_h2. */
union probe_talk {
    struct probe_h2 h2;
    struct probe_grpc grpc;
    struct probe_http2 http;
};

struct probe {
    struct event_base *base;
    struct conf *conf;
    const struct conf_backend *backend;
    probe_done *done;
    void *owner;
    enum probe_state state;
    struct transport wire; /* fd -1: none */
    struct event io;
    struct event deadline;
    uint64_t due_ms;
    bool is_extended; /* the deadline was noticed late once */
    char *request;    /* HTTP/1 */
    size_t request_len, request_sent;
    struct probe_answer answer;
    union probe_talk *talk;   /* NULL: no check over HTTP/2 */
    struct slice output;      /* talk: what could not leave yet */
    enum probe_result result; /* PROBE_OVER */
    char why[80];
};

static void
probe_on_io(evutil_socket_t fd, short what, void *arg);
static void
probe_on_deadline(evutil_socket_t fd, short what, void *arg);

static bool
probe_is_grpc(const struct conf_backend *backend)
{
    return backend->upstream->health.type == CONF_HEALTH_GRPC;
}

static void
probe_free(struct probe *p)
{
    event_del(&p->deadline);
    if (p->wire.fd >= 0) {
        event_del(&p->io);
        p->wire.ops->fini(&p->wire);
        close(p->wire.fd);
    }
    free(p->request);
    probe_answer_fini(&p->answer);
    if (p->talk && probe_is_grpc(p->backend)) {
        probe_grpc_fini(&p->talk->grpc);
    } else if (p->talk) {
        probe_http2_fini(&p->talk->http);
    }
    free(p->talk);
    conf_unref(p->conf);
    free(p);
}

void
probe_cancel(struct probe *p)
{
    probe_free(p);
}

static void
probe_finish(struct probe *p, enum probe_result result, const char *text)
{
    probe_done *done = p->done;
    void *owner = p->owner;
    char why[sizeof(p->why)];
    snprintf(why, sizeof(why), "%s", text);
    probe_free(p);
    done(owner, result, why);
}

static void
probe_set_deadline(struct probe *p, uint64_t ms)
{
    struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    evtimer_add(&p->deadline, &tv);
}

/* The outcome is known before the loop has turned. */
static void
probe_decide_early(struct probe *p, enum probe_result result, const char *why)
{
    p->state = PROBE_OVER;
    p->result = result;
    snprintf(p->why, sizeof(p->why), "%s", why);
    probe_set_deadline(p, 0);
}

/* What an errno of connect(2) or of the socket says, and of whom. */
static enum probe_result
probe_explain(int error, const char *doing, char *why, size_t size)
{
    if (error == ECONNREFUSED) {
        snprintf(why, size, "%s refused", doing);
    } else if (error == ETIMEDOUT) {
        snprintf(why, size, "%s timeout", doing);
    } else {
        snprintf(why, size, "%s: %s", doing, strerror(error));
    }
    bool is_ours = error == EADDRNOTAVAIL || error == EMFILE || error == ENFILE ||
                   error == ENOBUFS || error == ENOMEM;
    return is_ours ? PROBE_SKIPPED : PROBE_FAILED;
}

static void
probe_fail_errno(struct probe *p, int error, const char *doing)
{
    char why[sizeof(p->why)];
    enum probe_result result = probe_explain(error, doing, why, sizeof(why));
    probe_finish(p, result, why);
}

/* Reading or writing has failed; errno is the transport's. */
static void
probe_fail_io(struct probe *p, const char *doing)
{
    char why[sizeof(p->why)];
    if (!p->wire.tls) {
        probe_fail_errno(p, errno, doing);
        return;
    }
    snprintf(why, sizeof(why), "%s: %s", doing, transport_tls_error(&p->wire));
    probe_finish(p, PROBE_FAILED, why);
}

static void
probe_listen(struct probe *p, short what)
{
    event_assign(&p->io, p->base, p->wire.fd, what | EV_PERSIST, probe_on_io, p);
    event_priority_set(&p->io, 0);
    event_add(&p->io, NULL);
}

static int
probe_open(struct probe *p)
{
    const struct addr *to = &p->backend->check_addr;
    int fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    static unsigned turn;
    const struct conf_local *source = &p->backend->upstream->source;
    if (source->count > 0 && addr_bind_source(fd, to, source->addrs, source->count, turn++) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    int on = 1;
    if (to->sa.sa_family != AF_UNIX) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    transport_init_plain(&p->wire, fd);
    probe_listen(p, EV_WRITE);
    return connect(fd, &to->sa, to->len) < 0 && errno != EINPROGRESS ? -1 : 0;
}

/* gRPC, and HTTP with backends that speak HTTP/2. */
static int
prepare_talk(struct probe *p)
{
    p->talk = calloc(1, sizeof(*p->talk));
    if (!p->talk) {
        return -1;
    }
    bool is_ready = probe_is_grpc(p->backend) ? probe_grpc_init(&p->talk->grpc, p->backend)
                                              : probe_http2_init(&p->talk->http, p->backend);
    return is_ready ? 0 : -1;
}

static int
probe_prepare(struct probe *p)
{
    const struct conf_upstream *upstream = p->backend->upstream;
    bool is_http = upstream->health.type == CONF_HEALTH_HTTP;
    probe_answer_init(&p->answer, &upstream->health);
    if (probe_is_grpc(p->backend) || (is_http && upstream->protocol == CONF_H2)) {
        return prepare_talk(p);
    }
    if (!is_http) {
        return 0;
    }
    p->request = probe_request(p->backend, &p->request_len);
    return p->request ? 0 : -1;
}

struct probe *
probe_start(struct event_base *base, struct conf *conf, const struct conf_backend *backend,
            probe_done *done, void *owner)
{
    struct probe *p = calloc(1, sizeof(*p));
    if (!p) {
        return NULL;
    }
    *p = (struct probe){
        .base = base, .backend = backend, .done = done, .owner = owner, .wire.fd = -1};
    p->conf = conf_ref(conf);
    evtimer_assign(&p->deadline, base, probe_on_deadline, p);
    event_priority_set(&p->deadline, 0);
    if (probe_prepare(p) < 0) {
        probe_free(p);
        return NULL;
    }
    p->due_ms = clock_mono_ms() + backend->upstream->health.timeout;
    probe_set_deadline(p, backend->upstream->health.timeout);
    if (probe_open(p) < 0) {
        char why[sizeof(p->why)];
        enum probe_result result = probe_explain(errno, "connect", why, sizeof(why));
        probe_decide_early(p, result, why);
    }
    return p;
}

/* A connect to a closed port of this host can meet itself when the kernel chose that very port as
 * the source (simultaneous open). Nobody is listening then. */
static bool
probe_is_self(const struct probe *p)
{
    struct addr local = {.len = sizeof(local.un)}, peer = {.len = sizeof(peer.un)};
    if (p->backend->check_addr.sa.sa_family == AF_UNIX ||
        getsockname(p->wire.fd, &local.sa, &local.len) < 0 ||
        getpeername(p->wire.fd, &peer.sa, &peer.len) < 0) {
        return false;
    }
    return addr_eq(&local, &peer);
}

/* A TCP probe has its answer. A plain connection is closed with RST, which leaves no TIME_WAIT:
 * with thousands of backends those would use up the ports. A TLS server might take that for an
 * attack. */
static void
probe_pass_tcp(struct probe *p)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (p->wire.tls) {
        p->wire.ops->shutdown(&p->wire);
    } else {
        setsockopt(p->wire.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    }
    probe_finish(p, PROBE_PASSED, "");
}

/* The connection can be used. */
static void
probe_begin_exchange(struct probe *p)
{
    if (!p->talk && !p->request) {
        probe_pass_tcp(p);
        return;
    }
    p->state = p->talk ? PROBE_TALK : PROBE_SEND;
    event_del(&p->io);
    probe_listen(p, EV_WRITE);
}

/* ---- TLS ---- */

/* A backend of unknown kind is offered nothing; one of HTTP/2 may insist on being asked for that.
 */
static const char *
probe_protocol(const struct probe *p)
{
    if (p->request) {
        return "http/1.1";
    }
    return p->talk || p->backend->upstream->protocol == CONF_H2 ? "h2" : NULL;
}

/* A backend that asks for a certificate has proven by then who it is: it lives, and more cannot be
 * known without the key. */
static bool
probe_is_met(const struct probe *p)
{
    bool is_tcp = !p->talk && !p->request;
    return is_tcp && p->backend->upstream->tls->cert.path && transport_tls_was_asked(&p->wire);
}

static void
probe_on_shake(struct probe *p)
{
    int result = p->wire.ops->handshake(&p->wire);
    if (result == IO_AGAIN) {
        bool has_output = p->wire.flags & TRANSPORT_WANT_WRITE;
        event_del(&p->io);
        probe_listen(p, has_output ? EV_READ | EV_WRITE : EV_READ);
    } else if (result == IO_ERROR && probe_is_met(p)) {
        probe_finish(p, PROBE_PASSED, "");
    } else if (result == IO_ERROR) {
        probe_fail_io(p, "TLS");
    } else if (p->talk && !slice_eq(transport_tls_alpn(&p->wire), SLICE("h2"))) {
        probe_finish(p, PROBE_FAILED, "TLS: HTTP/2 was not chosen");
    } else {
        probe_begin_exchange(p);
    }
}

static void
probe_begin_tls(struct probe *p)
{
    const struct conf_upstream_tls *tls = p->backend->upstream->tls;
    struct tls_remote *remote = tls_remote_new(tls->client, p->backend->tls_name);
    int fd = p->wire.fd;
    int result = remote ? transport_tls_connect(&p->wire, fd, remote, probe_protocol(p)) : -1;
    tls_remote_unref(remote);
    if (result < 0) {
        transport_init_plain(&p->wire, fd);
        probe_finish(p, PROBE_SKIPPED, "out of memory");
        return;
    }
    p->state = PROBE_SHAKE;
    probe_on_shake(p);
}

/* Nobody but ourselves speaks here. A new socket takes it whole. */
static bool
probe_send_proxy(struct probe *p)
{
    char header[PROXY_V2_WRITTEN_MAX];
    size_t len = p->backend->upstream->send_proxy == 1 ? proxy_write_v1(NULL, header)
                                                       : proxy_write_v2(NULL, header);
    return send(p->wire.fd, header, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static void
probe_on_connected(struct probe *p)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(p->wire.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0) {
        error = errno;
    }
    if (error == 0 && probe_is_self(p)) {
        error = ECONNREFUSED;
    }
    if (error == 0 && p->backend->upstream->send_proxy && !probe_send_proxy(p)) {
        error = errno;
    }
    if (error != 0) {
        probe_fail_errno(p, error, "connect");
    } else if (p->backend->upstream->tls) {
        probe_begin_tls(p);
    } else {
        probe_begin_exchange(p);
    }
}

/* ---- HTTP/1 ---- */

/* Bytes taken, IO_AGAIN, IO_ERROR. */
static ssize_t
probe_write(struct probe *p, const char *bytes, size_t len)
{
    struct iovec piece = {(char *)bytes, len};
    return p->wire.ops->writev(&p->wire, &piece, len > 0);
}

static enum probe_verdict
read_answer(struct probe *p, bool *is_broken)
{
    char bytes[PROBE_HEAD_MAX];
    enum probe_verdict verdict = PROBE_MORE;
    do { /* what TLS has inside is told by no event */
        ssize_t n = p->wire.ops->read(&p->wire, bytes, sizeof(bytes));
        *is_broken = n == IO_ERROR;
        if (n > 0) {
            verdict = probe_answer_feed(&p->answer, bytes, (size_t)n);
        } else if (n == IO_EOF) {
            verdict = probe_answer_end(&p->answer);
        }
    } while (!*is_broken && verdict == PROBE_MORE && p->wire.ops->pending(&p->wire));
    return verdict;
}

static void
probe_on_readable(struct probe *p)
{
    bool is_broken = false;
    enum probe_verdict verdict = read_answer(p, &is_broken);
    if (is_broken) {
        probe_fail_io(p, "answer");
    } else if (verdict == PROBE_GOOD) {
        probe_finish(p, PROBE_PASSED, "");
    } else if (verdict == PROBE_BAD) {
        probe_finish(p, PROBE_FAILED, p->answer.why);
    }
}

static void
probe_on_writable(struct probe *p)
{
    ssize_t n = probe_write(p, p->request + p->request_sent, p->request_len - p->request_sent);
    if (n == IO_ERROR && p->wire.tls) {
        probe_on_readable(p); /* an alert may say why */
        return;
    }
    if (n == IO_ERROR) {
        probe_fail_io(p, "send");
        return;
    }
    p->request_sent += n > 0 ? (size_t)n : 0;
    if (p->request_sent == p->request_len && !(p->wire.flags & TRANSPORT_WANT_WRITE)) {
        p->state = PROBE_READ;
        event_del(&p->io);
        probe_listen(p, EV_READ);
    }
}

/* ---- HTTP/2 ---- */

/* Send what there is. 0 or IO_ERROR. */
static int
talk_send(struct probe *p)
{
    for (;;) {
        if (p->output.len == 0 && (p->output = probe_h2_output(&p->talk->h2)).len == 0) {
            return probe_write(p, NULL, 0) == IO_ERROR ? IO_ERROR : 0;
        }
        ssize_t n = probe_write(p, p->output.ptr, p->output.len);
        if (n < 0) {
            return n == IO_AGAIN ? 0 : IO_ERROR;
        }
        p->output = slice_of(p->output.ptr + n, p->output.len - (size_t)n);
    }
}

/* The same for what has come. */
static int
talk_receive(struct probe *p)
{
    char bytes[PROBE_HEAD_MAX];
    do {
        ssize_t n = p->wire.ops->read(&p->wire, bytes, sizeof(bytes));
        if (n == IO_ERROR) {
            return IO_ERROR;
        }
        if (n > 0) {
            probe_h2_feed(&p->talk->h2, bytes, (size_t)n);
        } else if (n == IO_EOF) {
            probe_h2_end(&p->talk->h2);
        }
    } while (p->talk->h2.verdict == PROBE_MORE && p->wire.ops->pending(&p->wire));
    return 0;
}

/* Must the socket become writable before more can leave? */
static bool
talk_is_blocked(const struct probe *p)
{
    return p->output.len > 0 || (p->wire.flags & TRANSPORT_WANT_WRITE);
}

static void
probe_on_talk(struct probe *p)
{
    int result = talk_receive(p);
    if (result == 0 && p->talk->h2.verdict == PROBE_MORE) {
        result = talk_send(p);
    }
    if (result != 0) {
        probe_fail_io(p, "answer");
    } else if (p->talk->h2.verdict == PROBE_GOOD) {
        probe_finish(p, PROBE_PASSED, "");
    } else if (p->talk->h2.verdict == PROBE_BAD) {
        probe_finish(p, PROBE_FAILED, p->talk->h2.why);
    } else {
        event_del(&p->io);
        probe_listen(p, talk_is_blocked(p) ? EV_READ | EV_WRITE : EV_READ);
    }
}

static void
probe_on_io(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct probe *p = arg;
    switch (p->state) {
    case PROBE_CONNECT: probe_on_connected(p); break;
    case PROBE_SHAKE: probe_on_shake(p); break;
    case PROBE_SEND: probe_on_writable(p); break;
    case PROBE_READ: probe_on_readable(p); break;
    case PROBE_TALK: probe_on_talk(p); break;
    case PROBE_OVER: event_del(&p->io); break; /* the deadline tells */
    }
}

static const char *
probe_late(const struct probe *p)
{
    switch (p->state) {
    case PROBE_CONNECT: return "connect timeout";
    case PROBE_SHAKE: return "TLS handshake timeout";
    default: return "answer timeout";
    }
}

static void
probe_on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct probe *p = arg;
    uint64_t late_ms = clock_mono_ms() - p->due_ms;
    if (p->state == PROBE_OVER) {
        probe_finish(p, p->result, p->why);
    } else if (late_ms > PROBE_LATE_MS && late_ms < UINT32_MAX && !p->is_extended) {
        p->is_extended = true; /* give back the time in which nobody looked at the socket */
        probe_set_deadline(p, late_ms);
    } else {
        probe_finish(p, PROBE_FAILED, probe_late(p));
    }
}
