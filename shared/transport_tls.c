/* SPDX-License-Identifier: Apache-2.0
 *
 * transport_tls.c - TLS over a non-blocking socket: with clients, and with backends.
 *
 * Each call lets OpenSSL work between wire_begin() and wire_end(). A connection keeps ciphertext
 * that was received and not yet wanted (in) and ciphertext that the socket did not take (out).
 * While out is not empty no plaintext is taken, so both are bounded.
 */
#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/tls_private.h"
#include "shared/tls_wire.h"

#define RECORD_HEADER  5
#define TYPE_HANDSHAKE 22

static char join[RECORD_MAX]; /* small pieces become one record here */

/* ---- the handshake ---- */

int
transport_tls_accept(struct transport *t, int fd, struct tls_server *srv)
{
    struct tls_io *io = calloc(1, sizeof(*io));
    if (!io) {
        return -1;
    }
    io->srv = tls_server_ref(srv);
    *t = (struct transport){.ops = &transport_tls_ops, .tls = io, .fd = fd};
    return 0;
}

int
transport_tls_connect(struct transport *t, int fd, struct tls_remote *remote, const char *alpn)
{
    struct tls_io *io = calloc(1, sizeof(*io));
    if (!io) {
        return -1;
    }
    io->outgoing.remote = tls_remote_ref(remote);
    io->ssl = tls_remote_open(&io->outgoing, alpn);
    *t = (struct transport){.ops = &transport_tls_ops, .tls = io, .fd = fd};
    if (!io->ssl || wire_attach(io->ssl) < 0) {
        t->ops->fini(t);
        return -1;
    }
    return 0;
}

/* Whether what has come so far can begin a TLS connection: 1 it is a whole record, 0 not yet. */
static int
judge_first_record(struct tls_io *io, struct slice in)
{
    const uint8_t *byte = (const uint8_t *)in.ptr;
    if (in.len > 0 && byte[0] != TYPE_HANDSHAKE) {
        bool is_method = byte[0] >= 'A' && byte[0] <= 'Z';
        tls_io_fail(io, is_method ? FAIL_PLAIN_HTTP : FAIL_NOT_TLS, 0);
        return -1;
    }
    if (in.len < RECORD_HEADER) {
        return 0;
    }
    size_t len = (size_t)byte[3] << 8 | byte[4];
    if (byte[1] != 3 || len > RECORD_MAX) {
        tls_io_fail(io, FAIL_NOT_TLS, 0);
        return -1;
    }
    return in.len >= RECORD_HEADER + len;
}

/* A client that stalls or drips in its first record costs no SSL, which with its buffers takes 45
 * KB: the bytes wait in io->in until the record is whole. */
static bool
has_first_record(struct tls_io *io)
{
    int verdict;
    do {
        verdict = judge_first_record(io, wire_gather());
    } while (verdict == 0 && !wire.is_dry && io->failure == FAIL_NONE);
    return verdict == 1;
}

static bool
open_ssl(struct tls_io *io)
{
    io->ssl = tls_server_open(io->srv);
    if (!io->ssl || wire_attach(io->ssl) < 0) {
        tls_io_fail(io, FAIL_MEMORY, 0);
        return false;
    }
    SSL_set_accept_state(io->ssl);
    return true;
}

/* What the backend sent is no record of TLS; it may be an HTTP answer. */
static bool
is_no_record(const struct tls_io *io, unsigned long code)
{
    int reason = ERR_GET_REASON(code);
    return io->outgoing.remote && !io->is_done &&
           (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_PACKET_LENGTH_TOO_LONG);
}

/* OpenSSL has failed; its error queue says why. */
static void
judge_failure(struct tls_io *io)
{
    unsigned long code = ERR_peek_last_error();
    if (ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        tls_io_fail(io, FAIL_VERIFY, (unsigned long)SSL_get_verify_result(io->ssl));
    } else {
        tls_io_fail(io, is_no_record(io, code) ? FAIL_NOT_TLS : FAIL_OPENSSL, code);
    }
}

/* What SSL_get_error() says after a call that failed, put into io. */
static void
judge(struct tls_io *io, int error)
{
    if (error == SSL_ERROR_ZERO_RETURN && !io->is_done) {
        tls_io_fail(io, FAIL_CLOSED, 0); /* close_notify in place of a handshake */
    } else if (error == SSL_ERROR_ZERO_RETURN) {
        io->has_ended = true;
    } else if (error == SSL_ERROR_WANT_READ && wire.is_finished) {
        tls_io_fail(io, io->is_done ? FAIL_TRUNCATED : FAIL_CLOSED, 0);
    } else if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
        judge_failure(io);
    }
    ERR_clear_error();
}

static void
handshake_step(struct tls_io *io)
{
    if (!io->ssl && (!has_first_record(io) || !open_ssl(io))) {
        if (wire.is_finished) {
            tls_io_fail(io, FAIL_CLOSED, 0);
        }
        return;
    }
    ERR_clear_error();
    int result = SSL_do_handshake(io->ssl);
    io->is_done = result == 1;
    if (result != 1) {
        judge(io, SSL_get_error(io->ssl, result));
    }
}

/* Set errno for what has failed. */
static int
report_failure(struct transport *t)
{
    struct tls_io *io = t->tls;
    io->is_end_known = true;
    errno = io->failure == FAIL_SOCKET ? (int)io->code : EPROTO;
    if (io->failure == FAIL_TRUNCATED) {
        t->flags |= TRANSPORT_TRUNCATED;
    }
    return IO_ERROR;
}

static int
tls_handshake(struct transport *t)
{
    struct tls_io *io = t->tls;
    for (int i = 0; i < 2 && !io->is_done && io->failure == FAIL_NONE; i++) {
        wire_push(t);
        wire_begin(t, 0);
        handshake_step(io);
        wire_end(t);
        if (!io->write_errno) {
            break;
        } /* else the peer has gone; once more, for the alert that it may have left */
    }
    if (!io->is_done && io->write_errno) {
        tls_io_fail(io, FAIL_SOCKET, (unsigned long)io->write_errno);
    }
    if (io->failure == FAIL_NONE) {
        return io->is_done ? 1 : IO_AGAIN;
    }
    if (io->outgoing.remote) {
        tls_remote_forget(io->outgoing.remote); /* its session may be the cause */
    }
    return report_failure(t);
}

/* ---- bytes ---- */

static size_t
read_records(struct tls_io *io, char *buf, size_t len)
{
    size_t got = 0;
    while (got < len && (got == 0 || wire.left > 0 || SSL_pending(io->ssl) > 0)) {
        size_t n = 0;
        int result = SSL_read_ex(io->ssl, buf + got, len - got, &n);
        if (result != 1) {
            judge(io, SSL_get_error(io->ssl, result));
            break;
        }
        got += n;
        wire.has_given = true;
    }
    return got;
}

static ssize_t
tls_read(struct transport *t, char *buf, size_t len)
{
    struct tls_io *io = t->tls;
    size_t got = 0;
    assert(len > 0 && io->is_done);
    if (io->failure == FAIL_NONE && !io->has_ended) {
        wire_begin(t, len);
        got = read_records(io, buf, len);
        wire_end(t);
    }
    if (got > 0) {
        return (ssize_t)got;
    }
    if (io->failure != FAIL_NONE) {
        return report_failure(t);
    }
    if (io->has_ended) {
        io->is_end_known = true;
        return IO_EOF;
    }
    return IO_AGAIN;
}

static bool
tls_pending(const struct transport *t)
{
    const struct tls_io *io = t->tls;
    bool has_news = io->failure != FAIL_NONE || io->has_ended;
    if (has_news) {
        return !io->is_end_known;
    }
    return io->ssl && (io->in || SSL_pending(io->ssl) > 0);
}

/* Where writev has got to. */
struct cursor {
    const struct iovec *iov;
    int n;
    size_t skip; /* bytes of iov[0] already taken */
};

static void
cursor_advance(struct cursor *at, size_t n)
{
    at->skip += n;
    while (at->n > 0 && at->skip >= at->iov->iov_len) {
        at->skip -= at->iov->iov_len;
        at->iov++;
        at->n--;
    }
}

/* The bytes of the next record: straight from the caller when they lie together, else joined. */
static struct slice
next_record(const struct cursor *at)
{
    const struct iovec *iov = at->iov;
    struct slice piece = {(const char *)iov->iov_base + at->skip, iov->iov_len - at->skip};
    if (piece.len >= RECORD_MAX || at->n == 1) {
        return slice_of(piece.ptr, piece.len < RECORD_MAX ? piece.len : RECORD_MAX);
    }
    size_t len = 0;
    for (int left = at->n; left > 0 && len < RECORD_MAX; left--) {
        size_t n = piece.len < RECORD_MAX - len ? piece.len : RECORD_MAX - len;
        if (n > 0) {
            memcpy(join + len, piece.ptr, n);
        }
        len += n;
        if (left > 1) {
            iov++;
            piece = slice_of(iov->iov_base, iov->iov_len);
        }
    }
    return slice_of(join, len);
}

/* Encrypt records until the scratch buffer is full. Returns bytes taken. */
static size_t
write_records(struct tls_io *io, struct cursor *at)
{
    size_t taken = 0;
    while (at->n > 0 && wire_has_room()) {
        struct slice record = next_record(at);
        size_t n = 0;
        int result = SSL_write_ex(io->ssl, record.ptr, record.len, &n);
        if (result != 1) {
            int error = SSL_get_error(io->ssl, result);
            judge(io, error);
            break;
        }
        taken += n;
        cursor_advance(at, n);
    }
    return taken;
}

static ssize_t
tls_writev(struct transport *t, const struct iovec *iov, int n)
{
    struct tls_io *io = t->tls;
    struct cursor at = {iov, n, 0};
    size_t taken = 0;
    bool is_stuck = false;
    wire_push(t);
    cursor_advance(&at, 0);
    while (at.n > 0 && !io->out && !io->write_errno && !tls_io_is_broken(io) && !is_stuck) {
        assert(io->is_done);
        if (io->is_shut) {
            errno = EPIPE; /* as for a socket after shutdown(2) */
            return IO_ERROR;
        }
        wire_begin(t, 0);
        size_t step = write_records(io, &at);
        is_stuck = step == 0;
        taken += step;
        wire_end(t);
    }
    if (tls_io_is_broken(io)) {
        return report_failure(t);
    }
    if (io->write_errno) {
        errno = io->write_errno;
        return IO_ERROR;
    }
    return taken > 0 ? (ssize_t)taken : at.n > 0 || io->out ? IO_AGAIN : 0;
}

static void
tls_shutdown(struct transport *t)
{
    struct tls_io *io = t->tls;
    if (!io->is_done || io->is_shut || tls_io_is_broken(io)) {
        return;
    }
    io->is_shut = true;
    wire_begin(t, 0);
    SSL_shutdown(io->ssl);
    ERR_clear_error();
    wire_end(t);
}

static void
tls_fini(struct transport *t)
{
    struct tls_io *io = t->tls;
    if (io->ssl && io->is_done) {
        /* However the connection ends, its session stays good (else SSL_free() spoils it). */
        SSL_set_shutdown(io->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    }
    SSL_free(io->ssl);
    buf_free(&io->in);
    buf_free(&io->out);
    tls_server_unref(io->srv);
    tls_remote_unref(io->outgoing.remote);
    free(io);
    t->tls = NULL;
}

const struct transport_ops transport_tls_ops = {
    .handshake = tls_handshake,
    .read = tls_read,
    .writev = tls_writev,
    .pending = tls_pending,
    .shutdown = tls_shutdown,
    .fini = tls_fini,
};

/* ---- questions ---- */

static const struct tls_io *
tls_of(const struct transport *t)
{
    assert(t->ops == &transport_tls_ops);
    return t->tls;
}

struct slice
transport_tls_alpn(const struct transport *t)
{
    const unsigned char *name = NULL;
    unsigned len = 0;
    if (tls_of(t)->ssl) {
        SSL_get0_alpn_selected(tls_of(t)->ssl, &name, &len);
    }
    return slice_of((const char *)name, len);
}

bool
transport_tls_has_peer_cert(const struct transport *t)
{
    return tls_of(t)->ssl && SSL_get0_peer_certificate(tls_of(t)->ssl) != NULL;
}

struct slice
transport_tls_version(const struct transport *t)
{
    const SSL *ssl = tls_of(t)->ssl;
    return slice_from_str(ssl ? SSL_get_version(ssl) : NULL);
}

struct slice
transport_tls_server_name(const struct transport *t)
{
    const SSL *ssl = tls_of(t)->ssl;
    return slice_from_str(ssl ? SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) : NULL);
}

bool
transport_tls_is_resumed(const struct transport *t)
{
    const SSL *ssl = tls_of(t)->ssl;
    return ssl && SSL_session_reused(ssl) == 1;
}

bool
transport_tls_was_asked(const struct transport *t)
{
    return tls_of(t)->outgoing.was_asked;
}

bool
transport_tls_is_refused(const struct transport *t)
{
    return tls_of(t)->failure == FAIL_OPENSSL;
}

static const char *
failure_text(enum tls_failure failure)
{
    switch (failure) {
    case FAIL_NONE: return "";
    case FAIL_PLAIN_HTTP: return "HTTP request on a TLS port";
    case FAIL_NOT_TLS: return "not TLS";
    case FAIL_CLOSED: return "the peer closed the connection";
    case FAIL_TRUNCATED: return "the peer closed the connection without close_notify";
    case FAIL_TOO_MUCH: return "too many bytes without meaning";
    case FAIL_MEMORY: return "out of memory";
    case FAIL_SOCKET:
    case FAIL_VERIFY:
    case FAIL_OPENSSL: break;
    }
    return NULL;
}

const char *
transport_tls_error(const struct transport *t)
{
    static char text[160];
    const struct tls_io *io = tls_of(t);
    if (io->failure == FAIL_NONE && io->write_errno) {
        return strerror(io->write_errno);
    }
    const char *fixed = failure_text((enum tls_failure)io->failure);
    if (fixed) {
        return fixed;
    }
    if (io->failure == FAIL_SOCKET) {
        return strerror((int)io->code);
    }
    if (io->failure == FAIL_VERIFY) {
        snprintf(text, sizeof(text), "%s: %s",
                 io->srv ? "client certificate" : "certificate verify failed",
                 X509_verify_cert_error_string((long)io->code));
        return text;
    }
    const char *reason = ERR_reason_error_string(io->code);
    return reason ? reason : "protocol error";
}
