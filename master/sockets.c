/* SPDX-License-Identifier: Apache-2.0
 *
 * sockets.c - bind, listen and close.
 */
#include "master/sockets.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "master/activation.h"
#include "shared/log.h"

#define METRICS_BACKLOG 64

/* What is to be there. */
struct wanted {
    const char *text;
    const struct addr *addr;
    enum socket_use use;
    unsigned index;
    int backlog;
};

static void
socket_set(int fd, int level, int name, int value)
{
    /* None of these can fail on a socket of this kind; without it akashd is slower, not wrong. */
    (void)setsockopt(fd, level, name, &value, sizeof(value));
}

static int
socket_open(const struct addr *addr, const char *text, bool is_in_group)
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

static int
close_keeping_errno(int fd)
{
    int saved = errno;
    if (fd >= 0) {
        close(fd);
    }
    errno = saved;
    return -1;
}

static int
socket_bind(const struct addr *addr, const char *text, bool is_in_group)
{
    int fd = socket_open(addr, text, is_in_group);
    if (fd < 0 || bind(fd, &addr->sa, addr->len) < 0) {
        return close_keeping_errno(fd);
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

static int
unix_bind(const struct addr *addr)
{
    if (addr->un.sun_path[0] != '\0' && unix_remove_stale(addr) < 0) {
        return -1;
    }
    int fd = socket_bind(addr, "", false);
    /* As a TCP port, it is for every user of this host; a folder can keep them out. */
    if (fd >= 0 && addr->un.sun_path[0] != '\0' && chmod(addr->un.sun_path, 0666) < 0) {
        return close_keeping_errno(fd);
    }
    return fd;
}

/* Another server on this address must be an error, not a partner: bound once without SO_REUSEPORT,
 * which fails when anybody listens there. */
static int
tcp_bind_first(const struct addr *addr, const char *text)
{
    int fd = socket_bind(addr, text, false);
    if (fd < 0) {
        return -1;
    }
    close(fd);
    return socket_bind(addr, text, true);
}

/* ":80" on a host without IPv6 is all IPv4 addresses. */
static void
addr_fall_back(struct addr *addr, const char *text)
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

static struct listen_socket *
sockets_find(const struct sockets *set, const struct wanted *w, bool any_index)
{
    for (unsigned i = 0; i < set->count; i++) {
        struct listen_socket *s = &set->list[i];
        if (s->use == w->use && (any_index || s->index == w->index) &&
            strcmp(s->text, w->text) == 0) {
            return s;
        }
    }
    return NULL;
}

static struct listen_socket *
sockets_append(struct sockets *set, const char *text)
{
    if (set->count == set->capacity) {
        unsigned capacity = set->capacity ? set->capacity * 2 : 16;
        struct listen_socket *list = realloc(set->list, capacity * sizeof(*list));
        if (!list) {
            return NULL;
        }
        set->list = list;
        set->capacity = capacity;
    }
    char *copy = strdup(text);
    if (!copy) {
        return NULL;
    }
    struct listen_socket *s = &set->list[set->count++];
    memset(s, 0, sizeof(*s));
    s->text = copy;
    s->fd = -1;
    s->adopter = -1;
    s->is_new = true;
    return s;
}

static int
wanted_bind(struct sockets *set, const struct wanted *w, struct addr *bound)
{
    *bound = *w->addr;
    addr_fall_back(bound, w->text);
    int lent = activation_borrow(bound);
    if (lent >= 0) {
        return lent;
    }
    if (bound->sa.sa_family == AF_UNIX) {
        return unix_bind(bound);
    }
    if (w->use == SOCKET_OF_MONITOR) {
        return socket_bind(bound, w->text, false);
    }
    if (sockets_find(set, w, true)) {
        return socket_bind(bound, w->text, true);
    }
    return tcp_bind_first(bound, w->text);
}

static int
sockets_add(struct sockets *set, const struct wanted *w, char *why, size_t why_size)
{
    struct listen_socket *s = sockets_find(set, w, false);
    if (s) {
        s->backlog = w->backlog;
        return 0;
    }
    struct addr bound;
    int fd = wanted_bind(set, w, &bound);
    s = fd < 0 ? NULL : sockets_append(set, w->text);
    if (!s) {
        snprintf(why, why_size, "%s: cannot listen: %s", w->text, strerror(errno));
        return close_keeping_errno(fd);
    }
    s->addr = *w->addr;
    s->bound = bound;
    s->use = w->use;
    s->index = w->index;
    s->backlog = w->backlog;
    s->fd = fd;
    s->is_lent = activation_find(&bound) == fd;
    return 0;
}

/* Sockets that cannot be one of a group. */
static bool
is_for_all(const struct addr *addr, const char *text)
{
    struct addr bound = *addr;
    addr_fall_back(&bound, text);
    return bound.sa.sa_family == AF_UNIX || activation_find(&bound) >= 0;
}

static int
sockets_add_listener(struct sockets *set, const struct conf_listener *l, unsigned nworkers,
                     char *why, size_t why_size)
{
    for (unsigned a = 0; a < l->naddrs; a++) {
        bool is_one = is_for_all(&l->addrs[a], l->addr_texts[a]);
        struct wanted w = {.text = l->addr_texts[a],
                           .addr = &l->addrs[a],
                           .use = is_one ? SOCKET_OF_ALL : SOCKET_OF_WORKER,
                           .backlog = (int)l->backlog};
        for (w.index = 0; w.index < (is_one ? 1 : nworkers); w.index++) {
            if (sockets_add(set, &w, why, why_size) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

static int
sockets_add_metrics(struct sockets *set, const struct conf *conf, char *why, size_t why_size)
{
    char text[ADDR_TEXT_MAX];
    if (!conf->has_metrics) {
        return 0;
    }
    addr_format(&conf->metrics, text);
    struct wanted w = {
        .text = text, .addr = &conf->metrics, .use = SOCKET_OF_MONITOR, .backlog = METRICS_BACKLOG};
    if (sockets_add(set, &w, why, why_size) == 0) {
        return 0;
    }
    if (conf->metrics_given) {
        return -1;
    }
    log_warn("metrics: %s; going on without", why);
    return 0;
}

int
sockets_prepare(struct sockets *set, const struct conf *conf, unsigned nworkers, char *why,
                size_t why_size)
{
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        if (sockets_add_listener(set, &conf->listeners[i], nworkers, why, why_size) < 0) {
            return -1;
        }
    }
    return sockets_add_metrics(set, conf, why, why_size);
}

static void
socket_remove_file(struct listen_socket *s)
{
    if (s->bound.sa.sa_family == AF_UNIX && s->bound.un.sun_path[0] != '\0') {
        unlink(s->bound.un.sun_path);
        s->bound.un.sun_path[0] = '\0'; /* another may stand there soon */
    }
}

static void
socket_fini(struct listen_socket *s)
{
    if (s->is_lent) {
        activation_return(s->fd);
    } else {
        close(s->fd);
        socket_remove_file(s);
    }
    free(s->text);
}

static void
sockets_remove(struct sockets *set, unsigned i)
{
    socket_fini(&set->list[i]);
    set->list[i] = set->list[--set->count];
}

void
sockets_undo(struct sockets *set)
{
    for (unsigned i = set->count; i-- > 0;) {
        if (set->list[i].is_new) {
            sockets_remove(set, i);
        } else {
            set->list[i].backlog = set->list[i].backlog_now;
        }
    }
}

void
sockets_keep(struct sockets *set)
{
    for (unsigned i = 0; i < set->count; i++) {
        set->list[i].is_new = false;
    }
}

bool
sockets_belongs(const struct listen_socket *s, enum socket_use use, unsigned index)
{
    if (use == SOCKET_OF_MONITOR || s->use == SOCKET_OF_MONITOR) {
        return s->use == use;
    }
    return s->use == SOCKET_OF_ALL || s->index == index;
}

int
sockets_listen(struct sockets *set, enum socket_use use, unsigned index, char *why, size_t why_size)
{
    for (unsigned i = 0; i < set->count; i++) {
        struct listen_socket *s = &set->list[i];
        if (!sockets_belongs(s, use, index) || s->backlog == s->backlog_now) {
            continue;
        }
        if (listen(s->fd, s->backlog) < 0) {
            snprintf(why, why_size, "%s: cannot listen: %s", s->text, strerror(errno));
            return -1;
        }
        s->backlog_now = s->backlog;
    }
    return 0;
}

static bool
listener_has(const struct conf_listener *l, const char *text)
{
    for (unsigned a = 0; a < l->naddrs; a++) {
        if (strcmp(l->addr_texts[a], text) == 0) {
            return true;
        }
    }
    return false;
}

static bool
conf_has(const struct conf *conf, const struct listen_socket *s)
{
    if (s->use == SOCKET_OF_MONITOR) {
        return conf->has_metrics && addr_eq(&conf->metrics, &s->addr);
    }
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        if (listener_has(&conf->listeners[i], s->text)) {
            return true;
        }
    }
    return false;
}

/* The segments that open a connection are dropped: their senders repeat them after a second and are
 * refused then. Handshakes under way end well. */
static void
socket_drop_syn(int fd)
{
    static struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13), /* flags, RFC 9293 3.1 */
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TH_SYN | TH_ACK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TH_SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    const struct sock_fprog filter = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) != 0) {
        log_warn("listening socket: no filter: %s; clients that come as it closes are reset",
                 strerror(errno));
    }
}

void
sockets_let_nobody_in(struct sockets *set, const struct conf *conf)
{
    for (unsigned i = 0; i < set->count; i++) {
        struct listen_socket *s = &set->list[i];
        if (s->use == SOCKET_OF_MONITOR || s->is_lent || (conf && conf_has(conf, s))) {
            continue;
        }
        if (s->bound.sa.sa_family == AF_UNIX) {
            socket_remove_file(s);
        } else {
            socket_drop_syn(s->fd);
        }
    }
}

void
sockets_sweep(struct sockets *set, const struct conf *conf)
{
    for (unsigned i = set->count; i-- > 0;) {
        if (!conf_has(conf, &set->list[i])) {
            sockets_remove(set, i);
        }
    }
}

void
sockets_close_listeners(struct sockets *set)
{
    for (unsigned i = set->count; i-- > 0;) {
        if (set->list[i].use != SOCKET_OF_MONITOR) {
            sockets_remove(set, i);
        }
    }
}

void
sockets_close_all(struct sockets *set)
{
    while (set->count > 0) {
        sockets_remove(set, set->count - 1);
    }
    free(set->list);
    memset(set, 0, sizeof(*set));
}
