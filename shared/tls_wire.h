/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_wire.h - how TLS connections reach their sockets; for transport_tls.c alone.
 *
 * OpenSSL never sees a socket. All connections of the process share one BIO, the wire: while one of
 * them is inside OpenSSL, what it reads comes from one recv(2) into a scratch buffer of the
 * process, and what it writes is gathered in another and leaves in one send(2). A connection itself
 * keeps only what is left over.
 */
#ifndef SHARED_TLS_WIRE_H
#define SHARED_TLS_WIRE_H

#include <openssl/ssl.h>

#include "shared/buf.h"
#include "shared/slice.h"
#include "shared/tls_private.h"

#define RECORD_MAX    16384 /* plaintext of one record, RFC 8446 section 5.1 */
#define RECORD_GROWTH 256   /* greatest expansion by encryption, header included, is less */

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
    SSL *ssl;               /* of a server: NULL until the first record has arrived whole */
    struct tls_server *srv; /* NULL: the client side */
    struct tls_outgoing outgoing;
    struct buf *in;  /* ciphertext received and not yet given to OpenSSL */
    struct buf *out; /* ciphertext made and not yet sent */
    unsigned long code;
    uint32_t handshake_bytes;
    int write_errno;   /* why nothing can be sent any more: what has come is read all the same */
    uint8_t failure;   /* enum tls_failure; final */
    bool is_done;      /* the handshake */
    bool has_ended;    /* close_notify was read */
    bool is_end_known; /* and the owner has been told of that or of the failure */
    bool is_shut;      /* close_notify was written */
};

/* The connection that is inside OpenSSL, and where its bytes come from and go to. */
extern struct wire {
    struct transport *t;
    const char *next; /* input not yet consumed: in io->in or in wire_in */
    size_t left;
    size_t ask;       /* bytes to ask the socket for */
    unsigned reads;   /* full ones in this call */
    bool has_asked;   /* OpenSSL wanted input */
    bool is_kept;     /* next points into io->in */
    bool is_dry;      /* the socket had less than was asked for */
    bool is_finished; /* it had FIN */
    bool has_given;   /* plaintext was made: no further recv in this call */
    size_t out_len;
} wire;

static inline bool
tls_io_is_broken(const struct tls_io *io)
{
    /* A peer that only stopped sending may still read. */
    return io->failure != FAIL_NONE && io->failure != FAIL_TRUNCATED;
}

/* The first failure is the one that counts. */
static inline void
tls_io_fail(struct tls_io *io, enum tls_failure failure, unsigned long code)
{
    if (!tls_io_is_broken(io)) {
        io->failure = (uint8_t)failure;
        io->code = code;
    }
}

/* Let ssl use the wire. 0 or -1 (memory). */
int
wire_attach(SSL *ssl);

/* Between these two calls t may be inside OpenSSL. len: bytes of plaintext wanted. The second sends
 * what was written, keeps what was not read and sets the transport's flags. */
void
wire_begin(struct transport *t, size_t len);
void
wire_end(struct transport *t);

/* All input not yet consumed, after one recv(2) more if the socket may have something. */
struct slice
wire_gather(void);

/* Room for another record of output. */
bool
wire_has_room(void);

/* Try to send the ciphertext that waits. */
void
wire_push(struct transport *t);

#endif
