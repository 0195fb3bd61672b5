/* SPDX-License-Identifier: Apache-2.0
 *
 * transport_plain.c - transport.h over a socket without TLS: nothing stays inside.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>

#include "shared/transport.h"

#define JOIN_BYTES 4096

static int
plain_handshake(struct transport *t)
{
    (void)t;
    return 1;
}

/* What a system call that failed means; EINTR is the caller's. */
static ssize_t
plain_failure(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK ? IO_AGAIN : IO_ERROR;
}

static ssize_t
plain_read(struct transport *t, char *buf, size_t len)
{
    ssize_t n;
    do {
        n = recv(t->fd, buf, len, 0);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        n = plain_failure();
    }
    /* A short read found the socket empty, and saves the read that would only find EAGAIN. */
    if (n == IO_AGAIN || (n > 0 && (size_t)n < len)) {
        t->flags |= TRANSPORT_DRAINED;
    } else {
        t->flags &= (uint8_t)~TRANSPORT_DRAINED;
    }
    return n;
}

/* Copy small pieces behind each other. Returns their length, or 0 when they are too long. */
static size_t
join(char *joined, const struct iovec *iov, int n)
{
    size_t len = 0;
    for (int i = 0; i < n; i++) {
        if (iov[i].iov_len > JOIN_BYTES - len) {
            return 0;
        }
        memcpy(joined + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    return len;
}

/* send() of one piece is less work in the kernel than sendmsg() of several, even with the copy. */
static ssize_t
plain_send(struct transport *t, const struct iovec *iov, int n)
{
    int flags = transport_send_flags(t);
    if (n == 1) {
        return send(t->fd, iov->iov_base, iov->iov_len, flags);
    }
    char joined[JOIN_BYTES];
    size_t len = join(joined, iov, n);
    if (len > 0) {
        return send(t->fd, joined, len, flags);
    }
    struct msghdr msg = {.msg_iov = (struct iovec *)iov,
                         .msg_iovlen = (size_t)(n < IOV_MAX ? n : IOV_MAX)};
    return sendmsg(t->fd, &msg, flags);
}

static ssize_t
plain_writev(struct transport *t, const struct iovec *iov, int n)
{
    if (n == 0) {
        return 0;
    }
    ssize_t sent;
    do {
        sent = plain_send(t, iov, n);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? plain_failure() : sent;
}

static bool
plain_pending(const struct transport *t)
{
    (void)t;
    return false;
}

static void
plain_shutdown(struct transport *t)
{
    shutdown(t->fd, SHUT_WR);
}

static void
plain_fini(struct transport *t)
{
    (void)t;
}

const struct transport_ops transport_plain_ops = {
    .handshake = plain_handshake,
    .read = plain_read,
    .writev = plain_writev,
    .pending = plain_pending,
    .shutdown = plain_shutdown,
    .fini = plain_fini,
};
