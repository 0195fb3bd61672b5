/* SPDX-License-Identifier: Apache-2.0
 *
 * channel.c - messages over a SOCK_SEQPACKET socket pair: one packet a message.
 *
 * A packet is a struct wire and its text; both ends are the same binary's or that of its upgrade's
 * master, so numbers are in host order. A queued message owns a duplicate of its descriptor.
 */
#include "shared/channel.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

struct wire {
    uint32_t type;
    uint32_t text_len;
    uint64_t gen;
    uint64_t number;
};

struct queued {
    struct list link;
    int fd; /* own; -1: none */
    struct wire head;
    char text[]; /* head.text_len bytes */
};

/* Room for more descriptors than a message may have, so that surplus ones are seen and closed. */
#define MAX_FDS 4
union control {
    char bytes[CMSG_SPACE(sizeof(int) * MAX_FDS)];
    struct cmsghdr align;
};

int
channel_pair(int fds[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds);
}

void
channel_init(struct channel *ch, int fd)
{
    ch->fd = fd;
    ch->text_buf = NULL;
    list_init(&ch->queue);
}

static struct queued *
queue_first(const struct channel *ch)
{
    return list_first(&ch->queue, struct queued, link);
}

static void
queued_free(struct queued *q)
{
    list_del(&q->link);
    if (q->fd >= 0) {
        close(q->fd);
    }
    free(q);
}

void
channel_fini(struct channel *ch)
{
    while (!list_is_empty(&ch->queue)) {
        queued_free(queue_first(ch));
    }
    if (ch->fd >= 0) {
        close(ch->fd);
    }
    free(ch->text_buf);
    ch->fd = -1;
    ch->text_buf = NULL;
}

static void
put_fd(struct msghdr *msg, union control *control, int fd)
{
    msg->msg_control = control->bytes;
    msg->msg_controllen = CMSG_SPACE(sizeof(int));
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
}

/* ETOOMANYREFS: too many descriptors are on their way; that passes as the peer reads. */
static bool
is_full(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == ENOBUFS || error == ETOOMANYREFS;
}

/* 1: sent, 0: the socket is full, -1: broken. */
static int
send_packet(int sock, const struct wire *head, const char *text, int fd)
{
    struct iovec iov[2] = {{(void *)head, sizeof(*head)}, {(void *)text, head->text_len}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    union control control = {{0}};
    if (fd >= 0) {
        put_fd(&msg, &control, fd);
    }
    ssize_t n;
    do {
        n = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        return 1;
    }
    return is_full(errno) ? 0 : -1;
}

static int
enqueue(struct channel *ch, const struct wire *head, const struct channel_msg *msg)
{
    struct queued *q = malloc(sizeof(*q) + head->text_len);
    if (!q) {
        return -1;
    }
    q->fd = -1;
    if (msg->fd >= 0 && (q->fd = fcntl(msg->fd, F_DUPFD_CLOEXEC, 3)) < 0) {
        free(q);
        return -1;
    }
    q->head = *head;
    if (head->text_len > 0) {
        memcpy(q->text, msg->text.ptr, head->text_len);
    }
    list_add_tail(&ch->queue, &q->link);
    return 0;
}

int
channel_send(struct channel *ch, const struct channel_msg *msg)
{
    assert(msg->text.len <= CHANNEL_TEXT_MAX);
    struct wire head = {
        .type = (uint32_t)msg->type,
        .text_len = (uint32_t)msg->text.len,
        .gen = msg->gen,
        .number = msg->number,
    };
    if (channel_has_queued(ch)) {
        return enqueue(ch, &head, msg);
    }
    int sent = send_packet(ch->fd, &head, msg->text.ptr, msg->fd);
    return sent == 0 ? enqueue(ch, &head, msg) : sent < 0 ? -1 : 0;
}

int
channel_flush(struct channel *ch)
{
    while (channel_has_queued(ch)) {
        struct queued *q = queue_first(ch);
        int sent = send_packet(ch->fd, &q->head, q->text, q->fd);
        if (sent <= 0) {
            return sent;
        }
        queued_free(q);
    }
    return 1;
}

bool
channel_has_queued(const struct channel *ch)
{
    return !list_is_empty(&ch->queue);
}

/* Take the one descriptor out of a message; -1: none. More than one: all are closed, *is_bad. */
static int
take_fd(struct msghdr *msg, bool *is_bad)
{
    int fds[MAX_FDS];
    size_t n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            n = n < MAX_FDS ? n : MAX_FDS;
            memcpy(fds, CMSG_DATA(c), n * sizeof(int));
        }
    }
    if (n == 1) {
        return fds[0];
    }
    for (size_t i = 0; i < n; i++) {
        close(fds[i]);
    }
    *is_bad = n > 1;
    return -1;
}

static bool
is_known(uint32_t type)
{
    return (type >= CHANNEL_SOCKET && type <= CHANNEL_NAME) ||
           (type >= CHANNEL_HAND_SEGMENT && type <= CHANNEL_TAKEN);
}

static bool
is_sound(const struct wire *head, ssize_t n, int flags)
{
    return !(flags & (MSG_TRUNC | MSG_CTRUNC)) && n >= (ssize_t)sizeof(*head) &&
           head->text_len == (size_t)n - sizeof(*head) && is_known(head->type);
}

/* Read one packet. Its length, 0 at the end, -1 with errno. */
static ssize_t
recv_packet(struct channel *ch, struct wire *head, struct msghdr *msg, union control *control)
{
    struct iovec iov[2] = {{head, sizeof(*head)}, {ch->text_buf, CHANNEL_TEXT_MAX}};
    ssize_t n;
    do {
        *msg = (struct msghdr){.msg_iov = iov,
                               .msg_iovlen = 2,
                               .msg_control = control->bytes,
                               .msg_controllen = sizeof(control->bytes)};
        n = recvmsg(ch->fd, msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        /* A peer that left something unread resets, once; what it had said is behind that. */
    } while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    return n;
}

int
channel_recv(struct channel *ch, struct channel_msg *msg)
{
    if (!ch->text_buf && !(ch->text_buf = malloc(CHANNEL_TEXT_MAX))) {
        return -1;
    }
    struct wire head;
    struct msghdr packet;
    union control control;
    ssize_t n = recv_packet(ch, &head, &packet, &control);
    if (n < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    }
    bool is_bad = false;
    int fd = n > 0 ? take_fd(&packet, &is_bad) : -1;
    if (is_bad || !is_sound(&head, n, packet.msg_flags)) {
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    *msg = (struct channel_msg){
        .type = (enum channel_type)head.type,
        .gen = head.gen,
        .number = head.number,
        .fd = fd,
        .text = slice_of(ch->text_buf, head.text_len),
    };
    return 1;
}
