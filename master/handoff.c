/* SPDX-License-Identifier: Apache-2.0
 *
 * handoff.c - the messages of handoff.h.
 */
#include "master/handoff.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "master/activation.h"
#include "master/master.h"
#include "master/names.h"
#include "master/rows.h"
#include "shared/log.h"

void
handoff_init(struct handoff *in)
{
    in->segment = -1;
    in->last_gen = 0;
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        in->wakes[i] = -1;
    }
}

void
handoff_fini(struct handoff *in)
{
    if (in->segment >= 0) {
        close(in->segment);
    }
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        if (in->wakes[i] >= 0) {
            close(in->wakes[i]);
        }
    }
    handoff_init(in);
}

/* ---- sending ---- */

static int
send_sockets(struct channel *to)
{
    for (unsigned i = 0; i < master.sockets.count; i++) {
        const struct listen_socket *s = &master.sockets.list[i];
        if (s->is_lent) {
            continue;
        }
        struct channel_msg msg = {.type = CHANNEL_HAND_SOCKET,
                                  .gen = (uint64_t)s->backlog_now,
                                  .number = s->index | (uint64_t)s->use << 32,
                                  .fd = s->fd,
                                  .text = slice_from_str(s->text)};
        if (channel_send(to, &msg) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
send_lent(struct channel *to)
{
    for (unsigned i = 0; activation_get(i) >= 0; i++) {
        struct channel_msg msg = {.type = CHANNEL_HAND_LENT, .fd = activation_get(i)};
        if (channel_send(to, &msg) < 0) {
            return -1;
        }
    }
    return 0;
}

int
handoff_send(struct channel *to)
{
    struct channel_msg segment = {.type = CHANNEL_HAND_SEGMENT, .fd = master.shm.fd};
    struct channel_msg end = {.type = CHANNEL_HAND_END, .gen = master.last_gen, .fd = -1};
    if (channel_send(to, &segment) < 0) {
        return -1;
    }
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        struct channel_msg wake = {.type = CHANNEL_HAND_WAKE, .number = i, .fd = master.wakes[i]};
        if (channel_send(to, &wake) < 0) {
            return -1;
        }
    }
    return send_sockets(to) < 0 || send_lent(to) < 0 || names_hand_over(to) < 0 ||
                   rows_hand_over(to) < 0
               ? -1
               : channel_send(to, &end);
}

/* ---- receiving ---- */

/* One that is there already is replaced. */
static void
keep_fd(int *place, int fd)
{
    if (*place >= 0) {
        close(*place);
    }
    *place = fd;
}

static int
take_socket(struct sockets *set, const struct channel_msg *msg)
{
    char text[ADDR_TEXT_MAX];
    unsigned use = (unsigned)(msg->number >> 32) & 0xff;
    if (use > SOCKET_OF_MONITOR || msg->fd < 0) {
        errno = EPROTO;
        return -1;
    }
    snprintf(text, sizeof(text), "%.*s", SLICE_ARG(msg->text));
    struct listen_socket former = {.text = text,
                                   .use = (enum socket_use)use,
                                   .index = (unsigned)msg->number,
                                   .backlog = (int)msg->gen,
                                   .fd = msg->fd};
    return sockets_inherit(set, &former);
}

/* 1: it was the last. Takes its descriptor. */
static int
take_message(struct handoff *in, struct sockets *set, const struct channel_msg *msg)
{
    switch (msg->type) {
    case CHANNEL_HAND_SEGMENT: keep_fd(&in->segment, msg->fd); return 0;
    case CHANNEL_HAND_WAKE:
        if (msg->number < CHILDREN_COUNT) {
            keep_fd(&in->wakes[msg->number], msg->fd);
            return 0;
        }
        break;
    case CHANNEL_HAND_SOCKET:
        if (take_socket(set, msg) == 0) {
            return 0;
        }
        log_error("upgrade: %.*s: the socket is of no use: %s", SLICE_ARG(msg->text),
                  strerror(errno));
        return -1;
    case CHANNEL_HAND_LENT:
        if (msg->fd >= 0) {
            activation_inherit(msg->fd);
        }
        return 0;
    case CHANNEL_HAND_MASTER:
        if (msg->fd >= 0) {
            rows_take_over((pid_t)msg->number, msg->fd);
        }
        return 0;
    case CHANNEL_HAND_NAME: names_take_over(msg->text); break;
    case CHANNEL_HAND_END: in->last_gen = msg->gen; return 1;
    default: break; /* of a later version */
    }
    if (msg->fd >= 0) {
        close(msg->fd);
    }
    return 0;
}

/* 1: *msg is filled; 0: nothing came in time; -1: the other side has gone. */
static int
wait_message(struct channel *from, struct channel_msg *msg, int timeout_ms)
{
    struct pollfd p = {.fd = from->fd, .events = POLLIN};
    int got = channel_recv(from, msg);
    while (got == 0) {
        int n = poll(&p, 1, timeout_ms);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n;
        }
        got = channel_recv(from, msg);
    }
    return got;
}

int
handoff_receive(struct channel *from, struct handoff *in, struct sockets *set, int timeout_ms,
                char *why, size_t why_size)
{
    for (;;) {
        struct channel_msg msg;
        int got = wait_message(from, &msg, timeout_ms);
        if (got <= 0) {
            snprintf(why, why_size, "the former master %s",
                     got < 0 ? "has gone" : "does not say what it has");
            return -1;
        }
        int taken = take_message(in, set, &msg);
        if (taken != 0) {
            snprintf(why, why_size, "the former master's sockets are of no use");
            return taken < 0 ? -1 : 0;
        }
    }
}
