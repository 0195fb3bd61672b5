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
#include <unistd.h>

#include "master/activation.h"
#include "master/bind.h"
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
socket_learn_address(struct listen_socket *s)
{
    s->bound.len = sizeof(s->bound.un);
    return getsockname(s->fd, &s->bound.sa, &s->bound.len);
}

int
sockets_inherit(struct sockets *set, const struct listen_socket *former)
{
    struct listen_socket *s = sockets_append(set, former->text);
    if (!s) {
        return -1;
    }
    s->fd = former->fd;
    s->use = former->use;
    s->index = former->index;
    s->backlog = former->backlog;
    s->backlog_now = former->backlog;
    s->is_new = false;
    s->is_borrowed = true;
    return socket_learn_address(s);
}

void
sockets_own(struct sockets *set)
{
    for (unsigned i = 0; i < set->count; i++) {
        set->list[i].is_borrowed = false;
    }
}

void
sockets_lend(struct sockets *set)
{
    for (unsigned i = 0; i < set->count; i++) {
        set->list[i].is_borrowed = true;
    }
}

static int
wanted_bind(struct sockets *set, const struct wanted *w, struct addr *bound)
{
    *bound = *w->addr;
    bind_fall_back(bound, w->text);
    int lent = activation_borrow(bound);
    if (lent >= 0) {
        return lent;
    }
    if (bound->sa.sa_family == AF_UNIX) {
        return bind_unix(bound);
    }
    if (w->use == SOCKET_OF_MONITOR) {
        return bind_socket(bound, w->text, false);
    }
    if (sockets_find(set, w, true)) {
        return bind_socket(bound, w->text, true);
    }
    return bind_first(bound, w->text);
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
        return bind_give_up(fd);
    }
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
    bind_fall_back(&bound, text);
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
    if (!s->is_borrowed && s->bound.sa.sa_family == AF_UNIX && s->bound.un.sun_path[0] != '\0') {
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
        char text[ADDR_TEXT_MAX];
        addr_format(&conf->metrics, text);
        return conf->has_metrics && strcmp(text, s->text) == 0;
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
socket_drop_syn(const struct listen_socket *s)
{
    static struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13), /* flags, RFC 9293 3.1 */
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TH_SYN | TH_ACK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TH_SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    const struct sock_fprog filter = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    if (setsockopt(s->fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) != 0) {
        log_info(
            "listener %s: closes without a filter (%s%s): who connects in that instant is reset",
            s->text, strerror(errno), errno == EPERM ? ", it takes CAP_NET_ADMIN here" : "");
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
            socket_drop_syn(s);
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
