/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_wire.c - the BIO that all TLS connections of a process share; see tls_wire.h.
 */
#include "shared/tls_wire.h"

#include <assert.h>
#include <errno.h>
#include <openssl/bio.h>
#include <sys/socket.h>

#define WIRE_IN       (65536 + 5 * RECORD_GROWTH)
#define WIRE_OUT      (8 * (RECORD_MAX + RECORD_GROWTH))
#define HANDSHAKE_MAX 65536 /* bytes from the client until the handshake is done */
#define EMPTY_READS   4     /* full reads without a byte of plaintext: abuse */

struct wire wire;
static char wire_in[WIRE_IN];
static char wire_out[WIRE_OUT];

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
        tls_io_fail(io, FAIL_SOCKET, (unsigned long)errno);
    }
    if (n > 0 && is_too_much(io, (size_t)n)) {
        tls_io_fail(io, FAIL_TOO_MUCH, 0);
        return false;
    }
    wire.next = wire_in;
    wire.left = n > 0 ? (size_t)n : 0;
    return n > 0;
}

void
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
    wire.has_asked = wire.is_dry = wire.is_finished = wire.has_given = false;
}

/* Keep for the next call what was not consumed. */
static void
wire_keep(struct tls_io *io)
{
    if (wire.is_kept) {
        buf_consume(&io->in, buf_len(io->in) - wire.left);
    } else if (buf_append(&io->in, wire.next, wire.left) != 0) {
        tls_io_fail(io, FAIL_MEMORY, 0);
    }
    wire.is_kept = false;
    wire.left = 0;
}

struct slice
wire_gather(void)
{
    struct tls_io *io = wire.t->tls;
    wire.has_asked = true;
    if (!wire.is_dry) {
        wire_keep(io);
        if (wire_fill()) {
            wire_keep(io);
        }
        wire.next = buf_slice(io->in).ptr;
        wire.left = buf_len(io->in);
        wire.is_kept = wire.left > 0;
    }
    return slice_of(wire.next, wire.left);
}

/* ---- output ---- */

bool
wire_has_room(void)
{
    return WIRE_OUT - wire.out_len >= RECORD_MAX + RECORD_GROWTH;
}

/* Bytes taken by the socket. */
static size_t
wire_send(struct transport *t, const char *bytes, size_t len)
{
    ssize_t n;
    do {
        n = send(t->fd, bytes, len, transport_send_flags(t));
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN) {
        ((struct tls_io *)t->tls)->write_errno = errno;
    }
    return n > 0 ? (size_t)n : 0;
}

/* Output has nowhere to go. */
static void
drop_output(struct transport *t)
{
    struct tls_io *io = t->tls;
    buf_free(&io->out);
    t->flags &= (uint8_t)~TRANSPORT_WANT_WRITE;
}

void
wire_push(struct transport *t)
{
    struct tls_io *io = t->tls;
    t->pushed = 0;
    if (io->out) {
        size_t n = wire_send(t, io->out->data + io->out->begin, buf_len(io->out));
        buf_consume(&io->out, n);
        t->pushed = n < UINT16_MAX ? (uint16_t)n : UINT16_MAX;
        if (io->write_errno) {
            drop_output(t);
        }
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
    if (len == 0 || io->write_errno) {
        return;
    }
    size_t sent = io->out ? 0 : wire_send(t, wire_out, len);
    if (io->write_errno) {
        drop_output(t);
        return;
    }
    if (sent == len) {
        return;
    }
    if (buf_len(io->out) > WIRE_OUT || buf_append(&io->out, wire_out + sent, len - sent) != 0) {
        tls_io_fail(io, FAIL_TOO_MUCH, 0);
    }
    t->flags |= TRANSPORT_WANT_WRITE;
}

void
wire_end(struct transport *t)
{
    struct tls_io *io = t->tls;
    wire_flush(t);
    wire_keep(io);
    wire.t = NULL;
    if (wire.has_asked) {
        t->flags &= (uint8_t)~TRANSPORT_DRAINED;
    }
    if (wire.is_dry && !wire.is_finished && !t->ops->pending(t)) {
        t->flags |= TRANSPORT_DRAINED;
    }
}

/* ---- the BIO ---- */

static int
bio_read(BIO *bio, char *buf, size_t len, size_t *got)
{
    BIO_clear_retry_flags(bio);
    wire.has_asked = true;
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

int
wire_attach(SSL *ssl)
{
    static BIO *bio;
    if (!bio) {
        bio = bio_make();
    }
    if (!bio) {
        return -1;
    }
    BIO_up_ref(bio);
    SSL_set0_rbio(ssl, bio);
    BIO_up_ref(bio);
    SSL_set0_wbio(ssl, bio);
    return 0;
}
