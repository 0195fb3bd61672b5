/* SPDX-License-Identifier: Apache-2.0
 *
 * resolver.c - the child that asks for addresses, and the reading of its answers.
 */
#include "master/resolver.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "master/spawn.h"
#include "shared/clock.h"
#include "shared/log.h"

#define RESOLVER_LINE_MAX 128

struct resolver {
    struct resolver_names *names;
    resolver_done *done;
    void *arg;
    struct event *readable; /* its timeout is the deadline */
    int fd;
    pid_t pid;
    char buf[RESOLVER_LINE_MAX * 32];
    size_t filled;
};

/* ---- names ---- */

struct resolver_name *
resolver_names_find(const struct resolver_names *names, const char *name)
{
    for (unsigned i = 0; i < names->count; i++) {
        if (strcmp(names->list[i].name, name) == 0) {
            return &names->list[i];
        }
    }
    return NULL;
}

int
resolver_names_add(struct resolver_names *names, const char *name)
{
    if (names->count == RESOLVER_NAMES) {
        return -1;
    }
    struct resolver_name *list = realloc(names->list, (names->count + 1) * sizeof(*list));
    if (!list) {
        return -1;
    }
    names->list = list;
    memset(&list[names->count], 0, sizeof(*list));
    list[names->count].name = strdup(name);
    if (!list[names->count].name) {
        return -1;
    }
    names->count++;
    return 0;
}

void
resolver_names_fini(struct resolver_names *names)
{
    for (unsigned i = 0; i < names->count; i++) {
        free(names->list[i].name);
    }
    free(names->list);
    names->list = NULL;
    names->count = 0;
}

bool
resolver_names_take(struct resolver_names *names, struct slice line)
{
    size_t digits = 0;
    unsigned index = 0;
    while (digits < line.len && digits < 5 && line.ptr[digits] >= '0' && line.ptr[digits] <= '9') {
        index = index * 10 + (unsigned)(line.ptr[digits++] - '0');
    }
    if (digits == 0 || digits == line.len || line.ptr[digits] != ' ' || index >= names->count) {
        return false;
    }
    struct addr_ip ip;
    if (addr_ip_parse(slice_of(line.ptr + digits + 1, line.len - digits - 1), &ip) < 0) {
        return false;
    }
    struct resolver_name *n = &names->list[index];
    if (n->count < RESOLVER_ADDRESSES) {
        n->addresses[n->count++] = ip;
    }
    return true;
}

/* ---- the child ---- */

static void
lookup_write(int fd, unsigned index, const struct addrinfo *found)
{
    for (const struct addrinfo *ai = found; ai; ai = ai->ai_next) {
        struct addr_ip ip;
        char text[ADDR_TEXT_MAX];
        addr_ip_from_sockaddr(ai->ai_addr, ai->ai_addrlen, &ip);
        addr_ip_format(&ip, text);
        dprintf(fd, "%u %s\n", index, text);
    }
}

/* Wait for all, at most RESOLVER_WAIT_MS: one slow name server must not add up over many names. */
static void
lookup_wait(struct gaicb **requests, int count)
{
    uint64_t end_ms = clock_mono_ms() + RESOLVER_WAIT_MS - 500;
    for (int i = 0; i < count; i++) {
        const struct gaicb *one = requests[i];
        uint64_t now_ms;
        while (gai_error(requests[i]) == EAI_INPROGRESS && (now_ms = clock_mono_ms()) < end_ms) {
            uint64_t left = end_ms - now_ms;
            struct timespec wait = {.tv_sec = (time_t)(left / 1000),
                                    .tv_nsec = (long)(left % 1000) * 1000000};
            gai_suspend(&one, 1, &wait);
        }
    }
}

static int
resolver_child(void *arg)
{
    struct resolver *r = arg;
    static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    unsigned count = r->names->count;
    struct gaicb *lookups = calloc(count, sizeof(*lookups));
    struct gaicb **requests = calloc(count, sizeof(struct gaicb *));
    if (!lookups || !requests) {
        _exit(1);
    }
    for (unsigned i = 0; i < count; i++) {
        lookups[i].ar_name = r->names->list[i].name;
        lookups[i].ar_request = &hints;
        requests[i] = &lookups[i];
    }
    if (getaddrinfo_a(GAI_NOWAIT, requests, (int)count, NULL) != 0) {
        _exit(1);
    }
    lookup_wait(requests, (int)count);
    for (unsigned i = 0; i < count; i++) {
        if (gai_error(requests[i]) == 0) {
            lookup_write(r->fd, i, lookups[i].ar_result);
        }
    }
    _exit(0); /* threads that still wait for a name server go with it */
}

/* ---- the master ---- */

static void
resolver_free(struct resolver *r)
{
    event_free(r->readable);
    close(r->fd);
    free(r);
}

void
resolver_cancel(struct resolver *r)
{
    kill(r->pid, SIGKILL);
    resolver_free(r);
}

static void
resolver_parse(struct resolver *r)
{
    char *start = r->buf;
    char *end;
    while ((end = memchr(start, '\n', r->filled - (size_t)(start - r->buf)))) {
        resolver_names_take(r->names, slice_of(start, (size_t)(end - start)));
        start = end + 1;
    }
    r->filled -= (size_t)(start - r->buf);
    memmove(r->buf, start, r->filled);
    if (r->filled == sizeof(r->buf)) {
        r->filled = 0; /* no line is so long */
    }
}

static void
resolver_finish(struct resolver *r)
{
    resolver_done *done = r->done;
    void *arg = r->arg;
    resolver_cancel(r);
    done(arg);
}

static void
resolver_on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct resolver *r = arg;
    if (what & EV_TIMEOUT) {
        log_warn("names: no answer in %d ms", RESOLVER_WAIT_MS);
        resolver_finish(r);
        return;
    }
    ssize_t n = read(fd, r->buf + r->filled, sizeof(r->buf) - r->filled);
    if (n > 0) {
        r->filled += (size_t)n;
        resolver_parse(r);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        resolver_finish(r);
    }
}

/* Takes over both ends of the pipe. */
static int
resolver_fork(struct resolver *r, struct event_base *base, const struct identity *id, int fds[2])
{
    r->fd = fds[1];
    struct spawn_plan plan = {.name = "resolver",
                              .base = base,
                              .id = id,
                              .keep = &fds[1],
                              .nkeep = 1,
                              .run = resolver_child,
                              .arg = r};
    r->pid = spawn_process(&plan);
    close(fds[1]);
    r->fd = fds[0];
    if (r->pid < 0) {
        close(fds[0]);
        return -1;
    }
    return 0;
}

struct resolver *
resolver_start(struct event_base *base, const struct identity *id, struct resolver_names *names,
               resolver_done *done, void *arg)
{
    struct timeval wait = {.tv_sec = RESOLVER_WAIT_MS / 1000};
    int fds[2];
    struct resolver *r = calloc(1, sizeof(*r));
    if (!r || pipe2(fds, O_CLOEXEC) < 0) {
        free(r);
        return NULL;
    }
    r->names = names;
    r->done = done;
    r->arg = arg;
    if (resolver_fork(r, base, id, fds) < 0) {
        free(r);
        return NULL;
    }
    fcntl(r->fd, F_SETFL, O_NONBLOCK);
    r->readable = event_new(base, r->fd, EV_READ | EV_PERSIST, resolver_on_readable, r);
    if (!r->readable || event_add(r->readable, &wait) < 0) {
        kill(r->pid, SIGKILL);
        close(r->fd);
        free(r->readable);
        free(r);
        return NULL;
    }
    return r;
}
