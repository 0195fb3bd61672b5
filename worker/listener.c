/* SPDX-License-Identifier: Apache-2.0
 *
 * listener.c - accepting: see listener.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/log.h"
#include "worker/client_limit.h"
#include "worker/conn.h"
#include "worker/greet.h"
#include "worker/http1_client.h"
#include "worker/http2_client.h"
#include "worker/listener_private.h"
#include "worker/worker.h"

#define ACCEPT_BUDGET   64
#define PAUSE_MS        100 /* after EMFILE, unless a descriptor is freed before */
#define LOG_INTERVAL_MS 60000

/* A listening socket: our own, or adopted from a worker that is gone. */
struct socket {
    struct list link;
    struct event event;
    struct listener *listener; /* NULL: offered, or its listener has gone */
    char *text;                /* the address, as conf writes it */
    int fd;
    unsigned index; /* the worker's it was made for */
    bool is_open;   /* accepts */
};

static struct list listeners = LIST_INIT(listeners);
static struct list sockets = LIST_INIT(sockets);
static struct list offers = LIST_INIT(offers);
static struct event *pause_timer;
static bool is_paused;
static bool has_unused; /* there may be something to reap */

/* ---- sockets ---- */

static struct socket *
new_socket(struct slice text, unsigned index, int fd)
{
    struct socket *sock = calloc(1, sizeof(*sock));
    char *copy = sock ? strndup(text.ptr, text.len) : NULL;
    if (!copy) {
        free(sock);
        close(fd);
        log_error("listener %.*s: out of memory", SLICE_ARG(text));
        return NULL;
    }
    sock->text = copy;
    sock->fd = fd;
    sock->index = index;
    list_init(&sock->link);
    return sock;
}

static void
free_socket(struct socket *sock)
{
    if (sock->is_open) {
        event_del(&sock->event);
    }
    close(sock->fd);
    list_del(&sock->link);
    free(sock->text);
    free(sock);
}

static struct socket *
find_socket(struct list *list, const char *text, unsigned index)
{
    list_for_each (it, list) {
        struct socket *sock = container_of(it, struct socket, link);
        if (sock->index == index && strcmp(sock->text, text) == 0) {
            return sock;
        }
    }
    return NULL;
}

static void
accept_some(evutil_socket_t fd, short what, void *arg);

static void
open_socket(struct socket *sock)
{
    if (sock->is_open || is_paused) {
        return;
    }
    /* Level-triggered: what one turn's budget leaves is told again. */
    if (event_assign(&sock->event, worker.base, sock->fd, EV_READ | EV_PERSIST, accept_some,
                     sock) != 0 ||
        event_add(&sock->event, NULL) != 0) {
        log_error("listener %s: cannot watch the socket", sock->text);
        return;
    }
    sock->is_open = true;
}

/* ---- pausing ---- */

static void
pause_accepting(void)
{
    static struct log_limit limit;
    uint64_t suppressed;
    struct timeval tv = {.tv_usec = PAUSE_MS * 1000};
    shm_count(&worker.row->accept_pauses, 1);
    if (log_limit_pass(&limit, worker_now_ms(), LOG_INTERVAL_MS, &suppressed)) {
        log_warn("listener: accepting pauses: out of file descriptors (%llu more times before)",
                 (unsigned long long)suppressed);
    }
    is_paused = true;
    list_for_each (it, &sockets) {
        struct socket *sock = container_of(it, struct socket, link);
        if (sock->is_open) {
            event_del(&sock->event);
            sock->is_open = false;
        }
    }
    event_add(pause_timer, &tv);
}

void
listener_resume(void)
{
    if (!is_paused) {
        return;
    }
    is_paused = false;
    event_del(pause_timer);
    list_for_each (it, &sockets) {
        struct socket *sock = container_of(it, struct socket, link);
        if (sock->listener && worker.state == WORKER_SERVING) {
            open_socket(sock);
        }
    }
}

static void
on_pause_over(evutil_socket_t fd, short what, void *arg)
{
    listener_resume();
}

/* ---- listeners without clients ---- */

/* Freed only at the end of the turn: the client's stream ends after it, and still counts here. */
static void
drop_if_unused(struct listener *l)
{
    has_unused |= l->is_removed && l->nclients == 0;
}

void
listener_client_left(struct listener *l)
{
    drop_if_unused(l);
    listener_resume();
}

void
listener_reap(void)
{
    if (!has_unused) {
        return;
    }
    has_unused = false;
    list_for_each_safe (it, &listeners) {
        struct listener *l = container_of(it, struct listener, link);
        if (l->is_removed && l->nclients == 0) {
            list_del(&l->link);
            conf_unref(l->owner);
            free(l->name);
            free(l);
        }
    }
}

/* ---- accepting ---- */

/* Accept one. 1: did, 0: the queue is empty, -1: pause. */
static int
accept_one(struct socket *sock)
{
    struct addr from;
    from.len = sizeof(from.un);
    int fd = accept4(sock->fd, &from.sa, &from.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        listener_take_client(sock->listener, fd, &from.sa, from.len);
        return 1;
    }
    switch (errno) {
    case EAGAIN: return 0;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM: pause_accepting(); return -1;
    default: return 1; /* the client went away while it was queued */
    }
}

static void
accept_some(evutil_socket_t fd, short what, void *arg)
{
    struct socket *sock = arg;
    for (int i = 0; i < ACCEPT_BUDGET && accept_one(sock) == 1; i++) {
    }
    conn_flush_any();
}

static void
accept_all(struct socket *sock)
{
    /* What was queued when it left; not what a flood adds meanwhile. */
    for (uint32_t i = 0; sock->listener && i < sock->listener->conf->backlog; i++) {
        if (accept_one(sock) != 1) {
            break;
        }
    }
    conn_flush_any();
}

/* ---- configuration ---- */

void
listener_offer_socket(struct slice text, int fd)
{
    struct socket *sock = new_socket(text, worker.args->index, fd);
    if (sock) {
        list_add_tail(&offers, &sock->link);
    }
}

void
listener_forget_offers(void)
{
    while (!list_is_empty(&offers)) {
        free_socket(list_first(&offers, struct socket, link));
    }
}

/* The one that goes on as cl. When its clients would have to speak something else, it is another
 * listener, whatever its name: those that are connected end under the conf they came with. */
static struct listener *
find_listener(const struct conf_listener *cl)
{
    list_for_each (it, &listeners) {
        struct listener *l = container_of(it, struct listener, link);
        if (!l->is_removed && strcmp(l->name, cl->name) == 0 && l->conf->mode == cl->mode &&
            (l->conf->tls != NULL) == (cl->tls != NULL)) {
            return l;
        }
    }
    return NULL;
}

static struct listener *
open_listener(const struct conf_listener *cl)
{
    struct listener *l = calloc(1, sizeof(*l));
    if (!l || !(l->name = strdup(cl->name))) {
        free(l);
        return NULL;
    }
    l->slot = cl->slot;
    l->gauge = (struct shm_gauge){&worker.shm->s->listeners[cl->slot].connections,
                                  &worker.row->ledger.listeners[cl->slot]};
    l->counters = &worker.row->listeners[cl->slot];
    list_init(&l->clients);
    list_add_tail(&listeners, &l->link);
    return l;
}

/* Give l the sockets of its addresses: those it has, and those that were offered. */
static void
take_sockets(struct listener *l, struct list *kept, bool is_leaving)
{
    for (unsigned i = 0; i < l->conf->naddrs; i++) {
        const char *text = l->conf->addr_texts[i];
        struct socket *offered = find_socket(&offers, text, worker.args->index);
        struct socket *sock = find_socket(&sockets, text, worker.args->index);
        if (!sock) {
            sock = offered;
        }
        if (!sock) {
            if (!is_leaving) {
                log_error("listener %s: no socket for %s", l->name, text);
            }
            continue;
        }
        list_del(&sock->link);
        list_add_tail(kept, &sock->link);
        sock->listener = l;
        open_socket(sock);
    }
    /* Adopted ones go with the address as well. */
    list_for_each_safe (it, &sockets) {
        struct socket *sock = container_of(it, struct socket, link);
        for (unsigned i = 0; i < l->conf->naddrs; i++) {
            if (strcmp(sock->text, l->conf->addr_texts[i]) == 0) {
                list_del(&sock->link);
                list_add_tail(kept, &sock->link);
                sock->listener = l;
                break;
            }
        }
    }
}

/* Clients of a listener that has gone: idle ones may send one more request. */
static void
drain_clients(struct listener *l)
{
    list_for_each_safe (it, &l->clients) {
        struct conn *c = container_of(it, struct conn, owned);
        if (greet_is_under_way(c)) {
            greet_drain(c);
        } else if (c->kind != CONN_HTTP_CLIENT) {
            continue;
        } else if (c->is_http2) {
            http2_client_drain(c);
        } else {
            http1_client_drain(c);
        }
    }
}

static void
update_listener(struct listener *l, struct conf *conf, struct conf_listener *cl)
{
    bool is_newly_limited = l->owner && l->conf->connections_per_client == 0;
    if (l->owner) {
        conf_unref(l->owner);
    }
    l->owner = conf_ref(conf);
    l->conf = cl;
    if (is_newly_limited && cl->connections_per_client != 0) {
        client_limit_count_all(l);
    }
}

void
listener_apply(struct conf *conf, bool is_leaving)
{
    struct list kept = LIST_INIT(kept);
    if (!pause_timer) {
        pause_timer = event_new(worker.base, -1, 0, on_pause_over, NULL);
    }
    list_for_each (it, &listeners) {
        container_of(it, struct listener, link)->is_stale = true;
    }
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        struct conf_listener *cl = &conf->listeners[i];
        struct listener *l = find_listener(cl);
        l = l ? l : open_listener(cl);
        if (!l) {
            log_error("listener %s: out of memory", cl->name);
            continue;
        }
        l->is_stale = false;
        update_listener(l, conf, cl);
        take_sockets(l, &kept, is_leaving);
    }
    /* What is left has gone from the configuration: nobody queued there may be lost. */
    while (!list_is_empty(&sockets)) {
        struct socket *sock = list_first(&sockets, struct socket, link);
        accept_all(sock);
        free_socket(sock);
    }
    list_splice_tail(&sockets, &kept);
    listener_forget_offers();
    list_for_each_safe (it, &listeners) {
        struct listener *l = container_of(it, struct listener, link);
        if (l->is_stale && !l->is_removed) {
            l->is_removed = true;
            drain_clients(l);
            drop_if_unused(l);
        }
    }
}

void
listener_adopt(struct slice text, unsigned index, int fd)
{
    struct socket *sock = new_socket(text, index, fd);
    if (!sock) {
        return;
    }
    struct socket *own = find_socket(&sockets, sock->text, worker.args->index);
    if (!own || !own->listener || worker.state != WORKER_SERVING) {
        free_socket(sock);
        return;
    }
    sock->listener = own->listener;
    list_add_tail(&sockets, &sock->link);
    open_socket(sock);
}

void
listener_disown(struct slice text, unsigned index)
{
    list_for_each_safe (it, &sockets) {
        struct socket *sock = container_of(it, struct socket, link);
        if (sock->index == index && index != worker.args->index &&
            slice_eq(slice_from_str(sock->text), text)) {
            free_socket(sock); /* its own worker has it: nothing that is queued is lost */
        }
    }
}

void
listener_close_all(bool accept_queued)
{
    while (!list_is_empty(&sockets)) {
        struct socket *sock = list_first(&sockets, struct socket, link);
        if (accept_queued) {
            accept_all(sock);
        }
        free_socket(sock);
    }
    list_for_each_safe (it, &listeners) {
        drain_clients(container_of(it, struct listener, link));
    }
}
