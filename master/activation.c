/* SPDX-License-Identifier: Apache-2.0
 *
 * activation.c - what the service manager lends.
 */
#include "master/activation.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/log.h"

#define FIRST_FD 3   /* SD_LISTEN_FDS_START */
#define LENT_MAX 256 /* a listener each; more than anybody configures */

struct lent {
    struct addr addr;
    int fd;
    unsigned users; /* two for a moment, when a reload writes the same address otherwise */
};

static struct lent lent[LENT_MAX];
static unsigned nlent;

/* A number of the environment that is meant for this process; 0 otherwise. */
static unsigned
count_given(void)
{
    const char *pid = getenv("LISTEN_PID");
    const char *count = getenv("LISTEN_FDS");
    if (!pid || !count || strtoll(pid, NULL, 10) != (long long)getpid()) {
        return 0;
    }
    long n = strtol(count, NULL, 10);
    return n < 0 ? 0 : n > LENT_MAX ? LENT_MAX : (unsigned)n;
}

static bool
is_listening_stream(int fd)
{
    int value = 0;
    socklen_t len = sizeof(value);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len) < 0 || value != SOCK_STREAM) {
        return false;
    }
    len = sizeof(value);
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &len) == 0 && value != 0;
}

/* What sockets of our own making have as well. */
static void
prepare_socket(const struct lent *socket)
{
    const int on = 1;
    int flags = fcntl(socket->fd, F_GETFL);
    fcntl(socket->fd, F_SETFD, FD_CLOEXEC);
    if (flags >= 0 && !(flags & O_NONBLOCK)) {
        fcntl(socket->fd, F_SETFL, flags | O_NONBLOCK);
    }
    if (socket->addr.sa.sa_family != AF_UNIX) {
        /* None can fail on a TCP socket; accepted ones inherit both. */
        (void)setsockopt(socket->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        (void)setsockopt(socket->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    }
}

static void
take(int fd)
{
    struct lent *socket = &lent[nlent];
    socket->addr.len = sizeof(socket->addr.un);
    if (!is_listening_stream(fd) || getsockname(fd, &socket->addr.sa, &socket->addr.len) < 0) {
        log_warn("descriptor %d of the service manager: no listening stream socket: not used", fd);
        close(fd);
        return;
    }
    socket->fd = fd;
    socket->users = 0;
    addr_unmap(&socket->addr);
    prepare_socket(socket);
    nlent++;
}

void
activation_take(void)
{
    unsigned count = count_given();
    for (unsigned i = 0; i < count; i++) {
        take(FIRST_FD + (int)i);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}

void
activation_inherit(int fd)
{
    if (nlent < LENT_MAX) {
        take(fd);
    } else {
        close(fd);
    }
}

int
activation_get(unsigned i)
{
    return i < nlent ? lent[i].fd : -1;
}

static struct lent *
find(const struct addr *addr)
{
    for (unsigned i = 0; i < nlent; i++) {
        if (addr_eq(&lent[i].addr, addr)) {
            return &lent[i];
        }
    }
    return NULL;
}

int
activation_find(const struct addr *addr)
{
    const struct lent *socket = find(addr);
    return socket ? socket->fd : -1;
}

int
activation_borrow(const struct addr *addr)
{
    struct lent *socket = find(addr);
    if (!socket) {
        return -1;
    }
    socket->users++;
    return socket->fd;
}

void
activation_return(int fd)
{
    for (unsigned i = 0; i < nlent; i++) {
        if (lent[i].fd == fd) {
            lent[i].users--;
        }
    }
}

void
activation_warn_unused(void)
{
    for (unsigned i = 0; i < nlent; i++) {
        char text[ADDR_TEXT_MAX];
        if (lent[i].users == 0) {
            addr_format(&lent[i].addr, text);
            log_warn("socket %s: the service manager listens there, but no listener has this "
                     "address: who connects waits",
                     text);
        }
    }
}

void
activation_close(void)
{
    while (nlent > 0) {
        close(lent[--nlent].fd);
    }
}
