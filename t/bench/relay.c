/* SPDX-License-Identifier: Apache-2.0
 *
 * relay.c - the floor of a user-space proxy: bytes from one socket to another and nothing else.
 *
 *     relay [--splice] PORT ORIGIN_PORT          both on 127.0.0.1
 *
 * It parses nothing, keeps no time and opens one origin connection per client. A half-close is
 * passed on, as a TCP proxy must. System calls are as few as they can be: each socket enters epoll
 * once, edge-triggered for both directions; a read that does not fill the buffer is known to be the
 * last one; an end of stream that epoll announced is not read again. With --splice what the origin
 * sends goes through a pipe instead of memory, which is the floor for large answers.
 *
 * A tunnel owns its two sides. It is freed at the end of the turn of the loop in which it closed,
 * because later events of the same turn may still name its sides.
 */
#include "t/bench/loopback.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define COPY_BYTES 65536
#define PIPE_BYTES (1 << 18)
#define EVENTS_MAX 256

/* An empty pipe; they are kept and used again. */
struct channel {
    int in, out;
    struct channel *next;
};

/* One socket of a tunnel. held counts bytes read here that the peer has not yet taken; they are in
 * the stash, or in the channel when the side is spliced. */
struct side {
    int fd;
    bool spliced; /* what is read here goes through a channel */
    bool hung_up; /* epoll has announced the end of what it sends */
    bool ended;   /* the end has been read */
    size_t held;
    char *stash;
    size_t stash_sent;
    struct channel *channel;
    struct side *peer;
    struct tunnel *tunnel;
};

struct tunnel {
    struct side client, origin;
    bool closed;
    struct tunnel *next_closed;
};

static char copy_buffer[COPY_BYTES];
static struct channel *idle_channels;
static struct tunnel *closed_tunnels;
static struct sockaddr_in origin_at;
static bool splicing;
static int epoll;

static struct channel *
channel_take(void)
{
    struct channel *channel = idle_channels;
    int ends[2];

    if (channel) {
        idle_channels = channel->next;
        return channel;
    }
    channel = malloc(sizeof(*channel));
    if (!channel || pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0) {
        fail("pipe");
    }
    /* Where the limit of unprivileged pipes is reached the pipe stays as it is. */
    (void)fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES);
    channel->out = ends[0];
    channel->in = ends[1];
    return channel;
}

static void
channel_keep(struct channel *channel)
{
    channel->next = idle_channels;
    idle_channels = channel;
}

static void
channel_free(struct channel *channel)
{
    close(channel->in);
    close(channel->out);
    free(channel);
}

static void
side_close(struct side *side)
{
    close(side->fd);
    free(side->stash);
    if (side->channel) {
        channel_free(side->channel);
    }
}

static void
tunnel_close(struct tunnel *tunnel)
{
    side_close(&tunnel->client);
    side_close(&tunnel->origin);
    tunnel->closed = true;
    tunnel->next_closed = closed_tunnels;
    closed_tunnels = tunnel;
}

static void
tunnels_free_closed(void)
{
    while (closed_tunnels) {
        struct tunnel *tunnel = closed_tunnels;
        closed_tunnels = tunnel->next_closed;
        free(tunnel);
    }
}

/* All of what this side sends has been passed on. */
static void
side_end(struct side *side)
{
    side->ended = true;
    if (side->peer->ended) {
        tunnel_close(side->tunnel);
    } else {
        shutdown(side->peer->fd, SHUT_WR);
    }
}

/* Writes of the bytes held what the peer takes. Returns 1 when none are left, 0 when it is full,
 * -1 when it is gone. */
static int
side_flush(struct side *side)
{
    while (side->held > 0) {
        ssize_t n;
        if (side->spliced) {
            n = splice(side->channel->out, NULL, side->peer->fd, NULL, side->held,
                       SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        } else {
            n = write(side->peer->fd, side->stash + side->stash_sent, side->held);
        }
        if (n < 0) {
            return errno == EAGAIN ? 0 : -1;
        }
        side->held -= (size_t)n;
        side->stash_sent += (size_t)n;
    }
    free(side->stash);
    side->stash = NULL;
    return 1;
}

/* Keeps what the peer did not take of the copy buffer. */
static void
side_stash(struct side *side, size_t from, size_t length)
{
    side->stash = malloc(length);
    if (!side->stash) {
        fail("malloc");
    }
    memcpy(side->stash, copy_buffer + from, length);
    side->stash_sent = 0;
    side->held = length;
}

/* Moves one buffer. Returns 1 to go on, 0 to wait for an event, -1 when the tunnel is broken. */
static int
side_copy(struct side *side)
{
    ssize_t got = read(side->fd, copy_buffer, COPY_BYTES);
    if (got < 0) {
        return errno == EAGAIN ? 0 : -1;
    }
    if (got == 0) {
        side_end(side);
        return 0;
    }
    ssize_t sent = write(side->peer->fd, copy_buffer, (size_t)got);
    if (sent < 0 && errno != EAGAIN) {
        return -1;
    }
    if (sent < got) {
        size_t taken = sent < 0 ? 0 : (size_t)sent;
        side_stash(side, taken, (size_t)got - taken);
        return 0;
    }
    if (got == COPY_BYTES) {
        return 1;
    }
    if (side->hung_up) {
        side_end(side);
    }
    return 0;
}

/* Fills the pipe with what has arrived. Returns as splice does in its last call, which is also what
 * it returns for a full pipe: one that holds something can be emptied in either case. */
static ssize_t
side_fill_channel(struct side *side)
{
    ssize_t got;

    while ((got = splice(side->fd, NULL, side->channel->in, NULL, PIPE_BYTES,
                         SPLICE_F_MOVE | SPLICE_F_NONBLOCK)) > 0) {
        side->held += (size_t)got;
    }
    return got;
}

/* Moves one pipeful; returns as side_copy does. Few large pieces cost less than many small ones. */
static int
side_splice(struct side *side)
{
    if (!side->channel) {
        side->channel = channel_take();
    }
    ssize_t got = side_fill_channel(side);
    if (side->held > 0) {
        return side_flush(side);
    }
    channel_keep(side->channel);
    side->channel = NULL;
    if (got == 0) {
        side_end(side);
        return 0;
    }
    return errno == EAGAIN ? 0 : -1;
}

/* Passes on what this side sends until it has no more or the peer takes no more. */
static void
side_pump(struct side *side)
{
    int more = side_flush(side);

    while (more > 0) {
        more = side->spliced ? side_splice(side) : side_copy(side);
    }
    if (more < 0) {
        tunnel_close(side->tunnel);
    }
}

static void
side_on_event(struct side *side, uint32_t events)
{
    if (side->tunnel->closed) {
        return;
    }
    if (events & EPOLLERR) {
        tunnel_close(side->tunnel);
        return;
    }
    if ((events & EPOLLOUT) && side->peer->held > 0) {
        side_pump(side->peer);
    }
    if (events & EPOLLRDHUP) {
        side->hung_up = true;
    }
    if (!side->tunnel->closed && !side->ended && (events & (EPOLLIN | EPOLLRDHUP))) {
        side_pump(side);
    }
}

static void
side_watch(struct side *side, struct side *peer, struct tunnel *tunnel, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = side};

    side->fd = fd;
    side->peer = peer;
    side->tunnel = tunnel;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        fail("epoll_ctl");
    }
}

/* Requests are small and go out in one write each: TCP_NODELAY towards the origin would change
 * nothing. */
static void
tunnel_open(int client)
{
    struct tunnel *tunnel = calloc(1, sizeof(*tunnel));
    int origin = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (!tunnel || origin < 0) {
        fail("socket");
    }
    if (connect(origin, (struct sockaddr *)&origin_at, sizeof(origin_at)) < 0 &&
        errno != EINPROGRESS) {
        perror("connect");
        close(origin);
        close(client);
        free(tunnel);
        return;
    }
    tunnel->origin.spliced = splicing;
    side_watch(&tunnel->client, &tunnel->origin, tunnel, client);
    side_watch(&tunnel->origin, &tunnel->client, tunnel, origin);
}

static void
tunnels_accept(int listener)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        tunnel_open(fd);
    }
}

static void
relay_run(int listener)
{
    struct epoll_event events[EVENTS_MAX];
    struct epoll_event listening = {.events = EPOLLIN, .data.ptr = NULL};

    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening) < 0) {
        fail("epoll");
    }
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) {
                side_on_event(events[i].data.ptr, events[i].events);
            } else {
                tunnels_accept(listener);
            }
        }
        tunnels_free_closed();
    }
}

int
main(int argc, char **argv)
{
    splicing = argc > 1 && strcmp(argv[1], "--splice") == 0;
    if (argc != 3 + splicing) {
        fprintf(stderr, "usage: relay [--splice] PORT ORIGIN_PORT\n");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    origin_at = loopback_address(argv[2 + splicing]);
    relay_run(loopback_listen(argv[1 + splicing]));
    return 0;
}
