/* SPDX-License-Identifier: Apache-2.0
 *
 * resolver.c - the child that asks for addresses, and the reading of its answers.
 */
#include "master/resolver.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "master/found.h"
#include "master/spawn.h"
#include "shared/log.h"

#define RESOLVER_LINE_MAX 128

struct resolver {
    struct resolver_names *names;
    const struct addr *servers; /* the child's, before it is forked */
    unsigned nservers;
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
resolver_names_find(const struct resolver_names *names, const char *name, bool is_srv)
{
    for (unsigned i = 0; i < names->count; i++) {
        if (names->list[i].is_srv == is_srv && strcmp(names->list[i].name, name) == 0) {
            return &names->list[i];
        }
    }
    return NULL;
}

int
resolver_names_add(struct resolver_names *names, const char *name, bool is_srv)
{
    if (names->count == RESOLVER_NAMES) {
        return -1;
    }
    if ((names->count & (names->count - 1)) == 0) {
        unsigned room = names->count ? names->count * 2 : 1;
        struct resolver_name *list = realloc(names->list, room * sizeof(*list));
        if (!list) {
            return -1;
        }
        names->list = list;
    }
    struct resolver_name *n = &names->list[names->count];
    *n = (struct resolver_name){.name = strdup(name), .is_srv = is_srv};
    if (!n->name) {
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
        free(names->list[i].found);
    }
    free(names->list);
    names->list = NULL;
    names->count = 0;
}

static bool
name_put(struct resolver_name *n, const struct conf_found *found)
{
    if (!n->found) {
        n->found = calloc(CONF_FOUND_MAX, sizeof(*n->found));
    }
    if (n->found && n->count < CONF_FOUND_MAX) {
        n->found[n->count++] = *found;
    }
    return n->found != NULL;
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
    struct resolver_name *n = &names->list[index];
    struct slice rest = slice_of(line.ptr + digits + 1, line.len - digits - 1);
    struct conf_found found;
    if (slice_eq(rest, SLICE("partial"))) {
        n->is_partial = true;
        return true;
    }
    return found_parse(rest, n->is_srv, &found) == 0 && name_put(n, &found);
}

/* ---- looking up ---- */

/* Names that are being looked up, a window of them at a time. */
struct round {
    struct event_base *base;
    struct lookup *lookup;
    const struct resolver_names *names;
    struct event *pump;
    unsigned next, asked, done;
    struct question {
        struct round *round;
        unsigned index;
    } * questions;
    resolver_sink *sink;
    void *arg;
};

static void
round_on_answer(const struct lookup_answer *answer, void *arg)
{
    const struct question *question = arg;
    struct round *round = question->round;
    round->sink(question->index, answer, round->arg);
    round->done++;
    event_active(round->pump, 0, 0);
}

/* Not from an answer: answers from a file come at once, one within the other. */
static void
round_on_pump(evutil_socket_t fd, short what, void *arg)
{
    struct round *round = arg;
    while (round->next < round->names->count && round->asked - round->done < RESOLVER_WINDOW) {
        struct question *question = &round->questions[round->next];
        const struct resolver_name *name = &round->names->list[round->next];
        *question = (struct question){round, round->next++};
        round->asked++;
        if (lookup_ask(round->lookup, name->name, name->is_srv, round_on_answer, question) < 0) {
            round->done++;
        }
    }
    if (round->done == round->names->count) {
        event_base_loopbreak(round->base);
    }
}

int
resolver_look_up(const struct resolver_names *names, const struct addr *servers, unsigned nservers,
                 resolver_sink *sink, void *arg)
{
    const struct timeval most = {.tv_sec = (RESOLVER_WAIT_MS - 500) / 1000,
                                 .tv_usec = (RESOLVER_WAIT_MS - 500) % 1000 * 1000};
    struct round round = {.base = event_base_new(), .names = names, .sink = sink, .arg = arg};
    round.questions = calloc(names->count, sizeof(*round.questions));
    if (round.base) {
        round.pump = event_new(round.base, -1, 0, round_on_pump, &round);
        round.lookup = lookup_new(round.base, servers, nservers);
    }
    bool is_well = round.questions && round.pump && round.lookup;
    if (is_well) {
        event_active(round.pump, 0, 0);
        /* One slow name server must not add up over many names. */
        event_base_loopexit(round.base, &most);
        event_base_dispatch(round.base);
    }
    lookup_free(round.lookup);
    if (round.pump) {
        event_free(round.pump);
    }
    if (round.base) {
        event_base_free(round.base);
    }
    free(round.questions);
    return is_well ? 0 : -1;
}

static void
keep_answer(unsigned index, const struct lookup_answer *answer, void *arg)
{
    struct resolver_name *n = &((struct resolver_names *)arg)->list[index];
    n->is_partial = answer->is_partial;
    for (unsigned i = 0; answer->result == LOOKUP_OK && i < answer->n; i++) {
        name_put(n, &answer->found[i]);
    }
}

void
resolver_fill(struct resolver_names *names, const struct addr *servers, unsigned nservers)
{
    resolver_look_up(names, servers, nservers, keep_answer, names);
}

/* ---- the child ---- */

static void
write_answer(unsigned index, const struct lookup_answer *answer, void *arg)
{
    const struct resolver *r = arg;
    char line[FOUND_LINE_MAX];
    if (answer->is_partial) {
        dprintf(r->fd, "%u partial\n", index);
    }
    for (unsigned i = 0; answer->result == LOOKUP_OK && i < answer->n; i++) {
        found_format(&answer->found[i], line);
        dprintf(r->fd, "%u %s\n", index, line);
    }
}

static int
resolver_child(void *arg)
{
    struct resolver *r = arg;
    return resolver_look_up(r->names, r->servers, r->nservers, write_answer, r) < 0;
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
               const struct addr *servers, unsigned nservers, resolver_done *done, void *arg)
{
    struct timeval wait = {.tv_sec = RESOLVER_WAIT_MS / 1000};
    int fds[2];
    struct resolver *r = calloc(1, sizeof(*r));
    if (!r || pipe2(fds, O_CLOEXEC) < 0) {
        free(r);
        return NULL;
    }
    r->names = names;
    r->servers = servers;
    r->nservers = nservers;
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
