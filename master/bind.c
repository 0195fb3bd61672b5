/* SPDX-License-Identifier: Apache-2.0
 *
 * bind.c - make and bind sockets: see bind.h.
 */
#include "master/bind.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void
socket_set(int fd, int level, int name, int value)
{
    /* None of these can fail on a socket of this kind; without it akashd is slower, not wrong. */
    (void)setsockopt(fd, level, name, &value, sizeof(value));
}

static int
bind_open(const struct addr *addr, const char *text, bool is_in_group)
{
    int family = addr->sa.sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || family == AF_UNIX) {
        return fd;
    }
    socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (is_in_group) {
        socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    }
    if (family == AF_INET6) {
        socket_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, text[0] != ':'); /* ":80" is both */
    }
    /* Accepted sockets inherit these two: no system call for each. */
    socket_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    socket_set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    return fd;
}

int
bind_give_up(int fd)
{
    int saved = errno;
    if (fd >= 0) {
        close(fd);
    }
    errno = saved;
    return -1;
}

int
bind_socket(const struct addr *addr, const char *text, bool is_in_group)
{
    int fd = bind_open(addr, text, is_in_group);
    if (fd < 0 || bind(fd, &addr->sa, addr->len) < 0) {
        return bind_give_up(fd);
    }
    return fd;
}

/* A socket file whose server is gone is in nobody's use: remove it. 0, or -1 with EADDRINUSE. */
static int
unix_remove_stale(const struct addr *addr)
{
    struct stat st;
    if (lstat(addr->un.sun_path, &st) < 0) {
        return errno == ENOENT ? 0 : -1;
    }
    if (!S_ISSOCK(st.st_mode)) {
        errno = EEXIST;
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    int rc = connect(fd, &addr->sa, addr->len);
    bool is_stale = rc < 0 && errno == ECONNREFUSED;
    close(fd);
    if (!is_stale) {
        errno = EADDRINUSE;
        return -1;
    }
    return unlink(addr->un.sun_path);
}

int
bind_unix(const struct addr *addr)
{
    if (addr->un.sun_path[0] != '\0' && unix_remove_stale(addr) < 0) {
        return -1;
    }
    int fd = bind_socket(addr, "", false);
    /* As a TCP port, it is for every user of this host; a folder can keep them out. */
    if (fd >= 0 && addr->un.sun_path[0] != '\0' && chmod(addr->un.sun_path, 0666) < 0) {
        return bind_give_up(fd);
    }
    return fd;
}

/* Another server on this address must be an error, not a partner: bound once without SO_REUSEPORT,
 * which fails when anybody listens there. */
int
bind_first(const struct addr *addr, const char *text)
{
    int fd = bind_socket(addr, text, false);
    if (fd < 0) {
        return -1;
    }
    close(fd);
    return bind_socket(addr, text, true);
}

void
bind_fall_back(struct addr *addr, const char *text)
{
    if (addr->sa.sa_family != AF_INET6 || text[0] != ':') {
        return;
    }
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        close(fd);
        return;
    }
    in_port_t port = addr->in6.sin6_port;
    memset(addr, 0, sizeof(*addr));
    addr->len = sizeof(addr->in);
    addr->in.sin_family = AF_INET;
    addr->in.sin_port = port;
}
