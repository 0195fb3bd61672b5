/* SPDX-License-Identifier: Apache-2.0
 *
 * lookup_channel.c - sockets and time of a c-ares channel, and its search list.
 */
#define CARES_NO_DEPRECATED
#include "master/lookup_channel.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define TIMEOUT_MS  1000 /* of the first try; c-ares doubles it */
#define TRIES       2
#define RESOLV_CONF "/etc/resolv.conf"

struct lookup_socket {
    struct list link;
    struct lookup *lookup;
    struct event *event;
    ares_socket_t fd;
};

/* ---- sockets and time ---- */

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct lookup *lookup = arg;
    ares_process_fd(lookup->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    lookup_arm(lookup);
}

void
lookup_arm(struct lookup *lookup)
{
    struct timeval room, *wait = ares_timeout(lookup->channel, NULL, &room);
    if (wait && !lookup->is_closing) {
        event_add(lookup->timer, wait);
    }
}

static void
on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct lookup *lookup = ((struct lookup_socket *)arg)->lookup; /* the socket may go now */
    ares_process_fd(lookup->channel, what & EV_READ ? fd : ARES_SOCKET_BAD,
                    what & EV_WRITE ? fd : ARES_SOCKET_BAD);
    lookup_arm(lookup);
}

static struct lookup_socket *
socket_find(struct lookup *lookup, ares_socket_t fd)
{
    list_for_each (it, &lookup->sockets) {
        struct lookup_socket *s = container_of(it, struct lookup_socket, link);
        if (s->fd == fd) {
            return s;
        }
    }
    return NULL;
}

static void
socket_free(struct lookup_socket *s)
{
    if (s->event) {
        event_free(s->event);
    }
    list_del(&s->link);
    free(s);
}

/* What c-ares wants to know of one of its sockets; neither: it closes it. */
static void
on_socket_state(void *arg, ares_socket_t fd, int wants_read, int wants_write)
{
    struct lookup *lookup = arg;
    struct lookup_socket *s = socket_find(lookup, fd);
    if (s) {
        socket_free(s);
    }
    if (!wants_read && !wants_write) {
        return;
    }
    short what = (short)((wants_read ? EV_READ : 0) | (wants_write ? EV_WRITE : 0) | EV_PERSIST);
    s = calloc(1, sizeof(*s));
    if (!s) {
        return; /* its query times out */
    }
    s->lookup = lookup;
    s->fd = fd;
    list_add_tail(&lookup->sockets, &s->link);
    s->event = event_new(lookup->base, fd, what, on_socket, s);
    if (s->event) {
        event_add(s->event, NULL);
    }
}

/* ---- the channel ---- */

static int
set_servers(struct lookup *lookup)
{
    struct ares_addr_port_node *nodes = calloc(lookup->nservers, sizeof(*nodes));
    for (unsigned i = 0; nodes && i < lookup->nservers; i++) {
        const struct addr *addr = &lookup->servers[i];
        nodes[i].family = addr->sa.sa_family;
        nodes[i].next = i + 1 < lookup->nservers ? &nodes[i + 1] : NULL;
        if (addr->sa.sa_family == AF_INET) {
            nodes[i].udp_port = nodes[i].tcp_port = ntohs(addr->in.sin_port);
            memcpy(&nodes[i].addr, &addr->in.sin_addr, 4);
        } else {
            nodes[i].udp_port = nodes[i].tcp_port = ntohs(addr->in6.sin6_port);
            memcpy(&nodes[i].addr, &addr->in6.sin6_addr, 16);
        }
    }
    int status = nodes ? ares_set_servers_ports(lookup->channel, nodes) : ARES_ENOMEM;
    free(nodes);
    return status == ARES_SUCCESS ? 0 : -1;
}

/* Ids of queries must not be foreseen, even where c-ares may not read /dev/urandom. */
static void
seed_rand(void)
{
    unsigned seed;
    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) == (ssize_t)sizeof(seed)) {
        srandom(seed); /* of glibc's rand() as well */
    }
}

static int
channel_open(struct lookup *lookup)
{
    seed_rand();
    /* lookups: the hosts file is all that ares_getaddrinfo() is asked for. */
    struct ares_options options = {.timeout = TIMEOUT_MS,
                                   .tries = TRIES,
                                   .lookups = (char *)"f",
                                   .sock_state_cb = on_socket_state,
                                   .sock_state_cb_data = lookup};
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
    memset(&lookup->seen, 0, sizeof(lookup->seen));
    stat(RESOLV_CONF, &lookup->seen);
    if (ares_init_options(&lookup->channel, &options, mask) != ARES_SUCCESS) {
        lookup->channel = NULL;
        return -1;
    }
    memset(&lookup->saved, 0, sizeof(lookup->saved));
    return ares_save_options(lookup->channel, &lookup->saved, &lookup->saved_mask) ==
                       ARES_SUCCESS &&
                   (lookup->nservers == 0 || set_servers(lookup) == 0)
               ? 0
               : -1;
}

static void
channel_close(struct lookup *lookup)
{
    event_del(lookup->timer);
    if (lookup->channel) {
        ares_destroy(lookup->channel); /* calls back for what was asked */
        ares_destroy_options(&lookup->saved);
    }
    lookup->channel = NULL;
    list_for_each_safe (it, &lookup->sockets) {
        socket_free(container_of(it, struct lookup_socket, link));
    }
}

int
lookup_refresh(struct lookup *lookup)
{
    struct stat now = {0};
    stat(RESOLV_CONF, &now);
    bool is_same = now.st_ino == lookup->seen.st_ino && now.st_size == lookup->seen.st_size &&
                   now.st_mtim.tv_sec == lookup->seen.st_mtim.tv_sec &&
                   now.st_mtim.tv_nsec == lookup->seen.st_mtim.tv_nsec;
    if (is_same && lookup->channel) {
        return 0;
    }
    channel_close(lookup);
    return channel_open(lookup);
}

struct lookup *
lookup_new(struct event_base *base, const struct addr *servers, unsigned nservers)
{
    struct lookup *lookup = calloc(1, sizeof(*lookup));
    if (!lookup || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
        free(lookup);
        return NULL;
    }
    lookup->base = base;
    list_init(&lookup->sockets);
    lookup->timer = event_new(base, -1, 0, on_timer, lookup);
    lookup->servers = calloc(nservers + 1, sizeof(*servers));
    if (lookup->servers && nservers > 0) {
        memcpy(lookup->servers, servers, nservers * sizeof(*servers));
        lookup->nservers = nservers;
    }
    if (!lookup->timer || !lookup->servers || channel_open(lookup) < 0) {
        lookup_free(lookup);
        return NULL;
    }
    return lookup;
}

void
lookup_free(struct lookup *lookup)
{
    if (!lookup) {
        return;
    }
    lookup->is_closing = true;
    if (lookup->timer) {
        channel_close(lookup);
        event_free(lookup->timer);
    }
    ares_library_cleanup();
    free(lookup->servers);
    free(lookup);
}

/* ---- the search list ---- */

static unsigned
count_dots(const char *name)
{
    unsigned dots = 0;
    for (; *name; name++) {
        dots += *name == '.';
    }
    return dots;
}

static bool
ends_in_dot(const char *name)
{
    size_t len = strlen(name);
    return len > 0 && name[len - 1] == '.';
}

unsigned
lookup_candidates(const struct lookup *lookup, const char *name)
{
    return ends_in_dot(name) ? 1 : (unsigned)lookup->saved.ndomains + 1;
}

void
lookup_candidate(const struct lookup *lookup, const char *name, unsigned i, bool is_absolute,
                 char *buf, size_t size)
{
    unsigned ndomains = (unsigned)lookup->saved.ndomains;
    bool is_first = count_dots(name) >= (unsigned)lookup->saved.ndots; /* as it stands */
    bool is_itself = is_absolute || ends_in_dot(name) || i == (is_first ? 0 : ndomains);
    if (is_itself) {
        snprintf(buf, size, "%s", name);
    } else {
        snprintf(buf, size, "%s.%s", name, lookup->saved.domains[i - is_first]);
    }
}
