/* SPDX-License-Identifier: Apache-2.0
 *
 * transport_tls.c - the server side of TLS over a non-blocking socket.
 *
 * OpenSSL never sees the socket. All connections of the process share one BIO, the wire: while one
 * of them is inside OpenSSL, what it reads comes from one recv(2) into a scratch buffer of the
 * process, and what it writes is gathered in another and leaves in one send(2). A connection
 * itself keeps only what is left over: ciphertext that was received and not yet wanted (in), and
 * ciphertext that the socket did not take (out). While out is not empty no plaintext is taken.
 */
#include <assert.h>
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "shared/buf.h"
#include "shared/tls_private.h"

#define RECORD_MAX     16384 /* plaintext of one record, RFC 8446 section 5.1 */
#define RECORD_HEADER  5
#define RECORD_GROWTH  256 /* greatest expansion by encryption, header included, is less */
#define WIRE_IN        (65536 + 5 * RECORD_GROWTH)
#define WIRE_OUT       (8 * (RECORD_MAX + RECORD_GROWTH))
#define HANDSHAKE_MAX  65536 /* bytes from the client until the handshake is done */
#define EMPTY_READS    4     /* full reads without a byte of plaintext: abuse */
#define TYPE_HANDSHAKE 22

enum tls_failure {
    FAIL_NONE,
    FAIL_PLAIN_HTTP,
    FAIL_NOT_TLS,
    FAIL_CLOSED,    /* the peer closed before the handshake was done */
    FAIL_TRUNCATED, /* or after it, without close_notify */
    FAIL_SOCKET,    /* code is an errno */
    FAIL_TOO_MUCH,
    FAIL_MEMORY,
    FAIL_VERIFY, /* code is an X509_V_ERR_ */
    FAIL_OPENSSL /* code is of OpenSSL's error queue */
};

struct tls_io {
    SSL *ssl; /* NULL until the first record has arrived whole */
    struct tls_server *srv;
    struct buf *in;  /* ciphertext received and not yet given to OpenSSL */
    struct buf *out; /* ciphertext made and not yet sent */
    unsigned long code;
    uint32_t handshake_bytes;
    uint8_t failure;   /* enum tls_failure; final */
    bool is_done;      /* the handshake */
    bool has_ended;    /* close_notify was read */
    bool is_end_known; /* and the owner has been told of that or of the failure */
    bool is_shut;      /* close_notify was written */
};

/* The connection that is inside OpenSSL, and where its bytes come from and go to. */
static struct wire {
    struct transport *t;
    BIO *bio;
    const char *next; /* input not yet consumed: in io->in or in wire_in */
    size_t left;
    size_t ask;       /* bytes to ask the socket for */
    unsigned reads;   /* full ones in this call */
    bool is_kept;     /* next points into io->in */
    bool is_dry;      /* the socket had less than was asked for */
    bool is_finished; /* it had FIN */
    bool has_given;   /* plaintext was made: no further recv in this call */
    size_t out_len;
} wire;
static char wire_in[WIRE_IN];
static char wire_out[WIRE_OUT];
static char join[RECORD_MAX]; /* small pieces become one record here */

/* Nothing more can be written. */
static bool
is_broken(const struct tls_io *io)
{
    return io->failure != FAIL_NONE && io->failure != FAIL_TRUNCATED;
}

static void
fail(struct tls_io *io, enum tls_failure failure, unsigned long code)
{
    if (!is_broken(io)) {
        io->failure = (uint8_t)failure;
        io->code = code;
    }
}

/* ---- input ---- */

static ssize_t
receive(int fd, char *buf, size_t len)
{
    ssize_t n;
    do {
        n = recv(fd, buf, len, 0);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* Whether the peer has sent more than it may without saying anything. */
static bool
is_too_much(struct tls_io *io, size_t n)
{
    if (io->is_done) {
        return n == wire.ask && ++wire.reads >= EMPTY_READS;
    }
    io->handshake_bytes += (uint32_t)n;
    return io->handshake_bytes > HANDSHAKE_MAX;
}

/* One recv(2), unless a short one has already shown that there is nothing. false: no bytes. */
static bool
wire_fill(void)
{
    struct tls_io *io = wire.t->tls;
    if (wire.is_dry || wire.has_given || io->failure != FAIL_NONE) {
        return false;
    }
    if (wire.is_kept) {
        buf_free(&io->in);
        wire.is_kept = false;
    }
    ssize_t n = receive(wire.t->fd, wire_in, wire.ask);
    wire.is_dry = n < (ssize_t)wire.ask;
    wire.is_finished = n == 0;
    if (n < 0 && errno != EAGAIN) {
        fail(io, FAIL_SOCKET, (unsigned long)errno);
    }
    if (n > 0 && is_too_much(io, (size_t)n)) {
        fail(io, FAIL_TOO_MUCH, 0);
        return false;
    }
    wire.next = wire_in;
    wire.left = n > 0 ? (size_t)n : 0;
    return n > 0;
}

static void
wire_begin(struct transport *t, size_t len)
{
    struct tls_io *io = t->tls;
    struct slice kept = buf_slice(io->in);
    assert(wire.t == NULL && wire.out_len == 0);
    size_t least = RECORD_MAX + RECORD_GROWTH;
    len += len / RECORD_MAX * RECORD_GROWTH + RECORD_GROWTH;
    wire.t = t;
    wire.next = kept.ptr;
    wire.left = kept.len;
    wire.is_kept = kept.len > 0;
    wire.ask = len < least ? least : len > WIRE_IN ? WIRE_IN : len;
    wire.reads = 0;
    wire.is_dry = wire.is_finished = wire.has_given = false;
}

/* Keep for the next call what was not consumed. */
static void
wire_keep(struct tls_io *io)
{
    if (wire.is_kept) {
        buf_consume(&io->in, buf_len(io->in) - wire.left);
    } else if (buf_append(&io->in, wire.next, wire.left) != 0) {
        fail(io, FAIL_MEMORY, 0);
    }
    wire.is_kept = false;
    wire.left = 0;
}

/* ---- output ---- */

/* Bytes taken by the socket. */
static size_t
wire_send(struct transport *t, const char *bytes, size_t len)
{
    ssize_t n;
    do {
        n = send(t->fd, bytes, len, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN) {
        fail(t->tls, FAIL_SOCKET, (unsigned long)errno);
    }
    return n > 0 ? (size_t)n : 0;
}

static void
push_kept(struct transport *t)
{
    struct tls_io *io = t->tls;
    if (io->out) {
        buf_consume(&io->out, wire_send(t, io->out->data + io->out->begin, buf_len(io->out)));
    }
    if (!io->out) {
        t->flags &= (uint8_t)~TRANSPORT_WANT_WRITE;
    }
}

/* Send what OpenSSL has written; the rest waits in io->out. */
static void
wire_flush(struct transport *t)
{
    struct tls_io *io = t->tls;
    size_t len = wire.out_len;
    wire.out_len = 0;
    if (len == 0) {
        return;
    }
    size_t sent = io->out ? 0 : wire_send(t, wire_out, len);
    if (sent == len) {
        return;
    }
    if (buf_len(io->out) > WIRE_OUT || buf_append(&io->out, wire_out + sent, len - sent) != 0) {
        fail(io, FAIL_TOO_MUCH, 0);
    }
    t->flags |= TRANSPORT_WANT_WRITE;
}

static void
wire_end(struct transport *t)
{
    struct tls_io *io = t->tls;
    wire_flush(t);
    wire_keep(io);
    wire.t = NULL;
    t->flags &= (uint8_t)~TRANSPORT_DRAINED;
    if (wire.is_dry && !wire.is_finished && !t->ops->pending(t)) {
        t->flags |= TRANSPORT_DRAINED;
    }
}

/* ---- the BIO ---- */

static int
bio_read(BIO *bio, char *buf, size_t len, size_t *got)
{
    BIO_clear_retry_flags(bio);
    if (wire.left == 0 && !wire_fill()) {
        /* The end of the stream too: our callers judge that, and OpenSSL stays able to write. */
        BIO_set_retry_read(bio);
        return 0;
    }
    *got = len < wire.left ? len : wire.left;
    memcpy(buf, wire.next, *got);
    wire.next += *got;
    wire.left -= *got;
    return 1;
}

static int
bio_write(BIO *bio, const char *bytes, size_t len, size_t *written)
{
    BIO_clear_retry_flags(bio);
    *written = len;
    while (len > 0) {
        size_t room = WIRE_OUT - wire.out_len;
        size_t n = len < room ? len : room;
        memcpy(wire_out + wire.out_len, bytes, n);
        wire.out_len += n;
        bytes += n;
        len -= n;
        if (len > 0) {
            wire_flush(wire.t);
        }
    }
    return 1;
}

static long
bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO *
bio_make(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "wire");
    if (!method || BIO_meth_set_read_ex(method, bio_read) != 1 ||
        BIO_meth_set_write_ex(method, bio_write) != 1 || BIO_meth_set_ctrl(method, bio_ctrl) != 1) {
        BIO_meth_free(method);
        return NULL;
    }
    BIO *bio = BIO_new(method);
    if (!bio) {
        BIO_meth_free(method);
        return NULL;
    }
    BIO_set_init(bio, 1);
    return bio;
}

/* ---- the handshake ---- */

int
transport_tls_accept(struct transport *t, int fd, struct tls_server *srv)
{
    if (!wire.bio) {
        wire.bio = bio_make();
    }
    struct tls_io *io = wire.bio ? calloc(1, sizeof(*io)) : NULL;
    if (!io) {
        return -1;
    }
    io->srv = tls_server_ref(srv);
    *t = (struct transport){.ops = &transport_tls_ops, .tls = io, .fd = fd};
    return 0;
}

/* Whether what has come so far can begin a TLS connection: 1 it is a whole record, 0 not yet. */
static int
judge_first_record(struct tls_io *io)
{
    const uint8_t *byte = (const uint8_t *)wire.next;
    if (wire.left > 0 && byte[0] != TYPE_HANDSHAKE) {
        bool is_method = byte[0] >= 'A' && byte[0] <= 'Z';
        fail(io, is_method ? FAIL_PLAIN_HTTP : FAIL_NOT_TLS, 0);
        return -1;
    }
    if (wire.left < RECORD_HEADER) {
        return 0;
    }
    size_t len = (size_t)byte[3] << 8 | byte[4];
    if (byte[1] != 3 || len > RECORD_MAX) {
        fail(io, FAIL_NOT_TLS, 0);
        return -1;
    }
    return wire.left >= RECORD_HEADER + len;
}

/* A client that stalls or drips in its first record costs no SSL, which with its buffers takes 45
 * KB: the bytes wait in io->in until the record is whole. */
static bool
has_first_record(struct tls_io *io)
{
    int verdict = judge_first_record(io);
    while (verdict == 0 && !wire.is_dry && io->failure == FAIL_NONE) {
        wire_keep(io);
        if (wire_fill()) {
            wire_keep(io);
        }
        wire.next = buf_slice(io->in).ptr;
        wire.left = buf_len(io->in);
        wire.is_kept = wire.left > 0;
        verdict = judge_first_record(io);
    }
    return verdict == 1;
}

static bool
open_ssl(struct tls_io *io)
{
    io->ssl = tls_server_open(io->srv);
    if (!io->ssl) {
        fail(io, FAIL_MEMORY, 0);
        return false;
    }
    BIO_up_ref(wire.bio);
    SSL_set0_rbio(io->ssl, wire.bio);
    BIO_up_ref(wire.bio);
    SSL_set0_wbio(io->ssl, wire.bio);
    SSL_set_accept_state(io->ssl);
    return true;
}

/* What SSL_get_error() says after a call that failed, put into io. */
static void
judge(struct tls_io *io, int error)
{
    if (error == SSL_ERROR_ZERO_RETURN) {
        io->has_ended = true;
    } else if (error == SSL_ERROR_WANT_READ && wire.is_finished) {
        fail(io, io->is_done ? FAIL_TRUNCATED : FAIL_CLOSED, 0);
    } else if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
        unsigned long code = ERR_peek_last_error();
        bool is_verify = ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED;
        fail(io, is_verify ? FAIL_VERIFY : FAIL_OPENSSL,
             is_verify ? (unsigned long)SSL_get_verify_result(io->ssl) : code);
    }
    ERR_clear_error();
}

static void
handshake_step(struct tls_io *io)
{
    if (!io->ssl && (!has_first_record(io) || !open_ssl(io))) {
        if (wire.is_finished) {
            fail(io, FAIL_CLOSED, 0);
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
    if (!io->is_done && io->failure == FAIL_NONE) {
        push_kept(t);
        wire_begin(t, 0);
        handshake_step(io);
        wire_end(t);
    }
    if (io->failure != FAIL_NONE) {
        return report_failure(t);
    }
    return io->is_done ? 1 : IO_AGAIN;
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
    while (at->n > 0 && wire.out_len + RECORD_MAX + RECORD_GROWTH <= WIRE_OUT) {
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
    push_kept(t);
    cursor_advance(&at, 0);
    while (at.n > 0 && !io->out && !is_broken(io) && !is_stuck) {
        assert(io->is_done && !io->is_shut);
        wire_begin(t, 0);
        size_t step = write_records(io, &at);
        is_stuck = step == 0;
        taken += step;
        wire_flush(t);
        wire_keep(io);
        wire.t = NULL;
    }
    if (is_broken(io)) {
        return report_failure(t);
    }
    return taken > 0 ? (ssize_t)taken : at.n > 0 || io->out ? IO_AGAIN : 0;
}

static void
tls_shutdown(struct transport *t)
{
    struct tls_io *io = t->tls;
    if (!io->is_done || io->is_shut || is_broken(io)) {
        return;
    }
    io->is_shut = true;
    wire_begin(t, 0);
    SSL_shutdown(io->ssl);
    ERR_clear_error();
    wire_flush(t);
    wire_keep(io);
    wire.t = NULL;
}

static void
tls_fini(struct transport *t)
{
    struct tls_io *io = t->tls;
    SSL_free(io->ssl);
    buf_free(&io->in);
    buf_free(&io->out);
    tls_server_unref(io->srv);
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
    const char *fixed = failure_text((enum tls_failure)io->failure);
    if (fixed) {
        return fixed;
    }
    if (io->failure == FAIL_SOCKET) {
        return strerror((int)io->code);
    }
    if (io->failure == FAIL_VERIFY) {
        snprintf(text, sizeof(text), "client certificate: %s",
                 X509_verify_cert_error_string((long)io->code));
        return text;
    }
    const char *reason = ERR_reason_error_string(io->code);
    return reason ? reason : "protocol error";
}
