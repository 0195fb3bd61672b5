/* SPDX-License-Identifier: Apache-2.0
 *
 * channel.h - messages between the master and one child over a SOCK_SEQPACKET socket pair.
 *
 * A message is a type, a generation, a number, a text and at most one descriptor (SCM_RIGHTS).
 * Sending never blocks: what the socket does not take now is queued in order (with a duplicate of
 * the descriptor) and leaves with channel_flush(), when the socket is writable. Both ends trust
 * each other's framing only as far as the length: a short or oversized packet is an error of the
 * channel.
 */
#ifndef SHARED_CHANNEL_H
#define SHARED_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/list.h"
#include "shared/slice.h"

#define CHANNEL_TEXT_MAX 16384

enum channel_type {
    /* master -> child */
    CHANNEL_SOCKET = 1, /* text: the listening address as conf writes it; fd: its socket, for the
                           generation that is being prepared */
    CHANNEL_LOG, /* text: a log target's path; fd: the open file. A second one replaces the first
                    (reopen) */
    CHANNEL_PREPARE, /* gen; fd: the bundle. Answered by READY or REFUSED */
    CHANNEL_COMMIT,  /* gen: serve it; number: 1 for one that retires next, whose sockets of new
                        addresses are not made. Answered by COMMITTED */
    CHANNEL_ABORT,   /* gen: forget it and its sockets */
    CHANNEL_ADOPT, /* text: address, fd: accept on this socket too (its worker is gone), number: its
                      index */
    CHANNEL_DISOWN, /* text: address, number: index: accept until EAGAIN once more, then close that
                       adopted socket */
    CHANNEL_RETIRE, /* number: milliseconds; gen: 1 at shutdown, 2 when a new master has taken over:
                       then accept what is queued first. Stop accepting, finish, exit */
    CHANNEL_REVIVE, /* a retiring worker serves again: its sockets and the configuration in force
                       follow, as to a new one */
    /* child -> master */
    CHANNEL_READY,     /* gen */
    CHANNEL_REFUSED,   /* gen, text: why, with file:line:column where there is one */
    CHANNEL_COMMITTED, /* gen: sockets that are not in it have been drained and closed */
    CHANNEL_DRAINED,   /* number: streams that were cut; sent before exit */
    CHANNEL_NAME,      /* text: addresses of a name (master/found.h); from the monitor */

    /* between the master that goes and the one that comes (master/upgrade.h). Two versions of
     * akashd speak here: these numbers and what they mean never change. */
    CHANNEL_HAND_SEGMENT = 64, /* to the new one; fd: the segment */
    CHANNEL_HAND_WAKE = 65,    /* number: the row (behind the last: the monitor); fd: its eventfd */
    CHANNEL_HAND_SOCKET = 66,  /* text: the address as conf writes it; number: index | use << 32;
                                  gen: its backlog; fd: the socket */
    CHANNEL_HAND_LENT = 67,    /* fd: a socket of the service manager */
    CHANNEL_HAND_END = 68,     /* gen: the generation given last */
    CHANNEL_HAND_NAME = 70,    /* text: addresses of a name (master/found.h) */
    CHANNEL_HAND_MASTER = 71,  /* number: the process id of a former master; fd: its pidfd */
    CHANNEL_YOURS = 69,        /* the monitor has ended: the new master is in charge */
    CHANNEL_STEP = 72,         /* from the new one: a sign of life */
    CHANNEL_SERVES = 73,       /* all of its workers serve */
    CHANNEL_FAILED = 74,       /* text: why it will end now */
    CHANNEL_TAKEN = 75         /* it is in charge */
};

struct channel_msg {
    enum channel_type type;
    uint64_t gen;
    uint64_t number;
    int fd;            /* -1: none; whoever receives it owns it */
    struct slice text; /* valid until the next channel_recv on this channel */
};

struct channel {
    int fd;
    struct list queue; /* of unsent messages */
    char *text_buf;
};

/* Make a pair; both descriptors are close-on-exec and non-blocking. 0 or -1 with errno. */
int
channel_pair(int fds[2]);
void
channel_init(struct channel *ch, int fd);
/* Close the descriptor and drop what is queued. */
void
channel_fini(struct channel *ch);

/* Send or queue. The caller keeps msg->fd. 0, or -1 when the channel is broken. */
int
channel_send(struct channel *ch, const struct channel_msg *msg);
/* Send what is queued. 1: all is sent, 0: more is queued, -1: broken. */
int
channel_flush(struct channel *ch);
bool
channel_has_queued(const struct channel *ch);

/* 1: *msg is filled, 0: nothing there now, -1: the peer is gone or sent nonsense. */
int
channel_recv(struct channel *ch, struct channel_msg *msg);

#endif
