/* SPDX-License-Identifier: Apache-2.0
 *
 * transport.h - bytes over a connected, non-blocking socket: plain or TLS.
 *
 * A transport is embedded in the connection that owns it. I/O returns the number of bytes, or
 * IO_EOF (the peer finished: FIN, for TLS close_notify), IO_AGAIN, IO_ERROR (errno may tell; a TLS
 * peer that closes without close_notify is IO_ERROR with TRANSPORT_TRUNCATED set in flags).
 */
#ifndef SHARED_TRANSPORT_H
#define SHARED_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#define IO_EOF   0
#define IO_AGAIN (-1)
#define IO_ERROR (-2)

#define TRANSPORT_DRAINED \
    0x01 /* the last read got less than it asked for: the socket was empty then */
#define TRANSPORT_TRUNCATED 0x02 /* TLS ended without close_notify */
#define TRANSPORT_WANT_WRITE \
    0x04 /* ciphertext waits for the socket: call writev (even with no bytes) when it is writable \
          */

/* The end follows at once: what is sent may wait for it, and leaves in one segment with the FIN. */
#define TRANSPORT_ENDING 0x08

struct transport;
struct transport_ops {
    /* 1: done, IO_AGAIN, IO_ERROR. Plain: always 1. */
    int (*handshake)(struct transport *t);
    /* Read up to len bytes with as few system calls as one. */
    ssize_t (*read)(struct transport *t, char *buf, size_t len);
    /* Bytes taken (all-or-part); taken bytes need no repetition. n may be 0 to push out what waits
     * inside. */
    ssize_t (*writev)(struct transport *t, const struct iovec *iov, int n);
    /* Bytes can be read without the socket becoming readable again (leftover inside). */
    bool (*pending)(const struct transport *t);
    /* Say that no more will be written, without waiting. Plain: FIN. TLS: close_notify, the FIN is
     * the caller's. Does not close the socket. */
    void (*shutdown)(struct transport *t);
    /* Release what is inside; the socket stays open. */
    void (*fini)(struct transport *t);
};

struct transport {
    const struct transport_ops *ops;
    void *tls; /* transport_tls.c's own; NULL for plain */
    int fd;
    uint8_t flags;   /* TRANSPORT_* */
    uint16_t pushed; /* bytes (at most UINT16_MAX) of what waited inside that the last writev sent:
                        progress that its result does not show */
};

/* For send(). */
static inline int
transport_send_flags(const struct transport *t)
{
    return MSG_NOSIGNAL | (t->flags & TRANSPORT_ENDING ? MSG_MORE : 0);
}

extern const struct transport_ops transport_plain_ops;
extern const struct transport_ops transport_tls_ops;

static inline void
transport_init_plain(struct transport *t, int fd)
{
    *t = (struct transport){.ops = &transport_plain_ops, .fd = fd};
}

#endif
