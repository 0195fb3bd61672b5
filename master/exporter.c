/* SPDX-License-Identifier: Apache-2.0
 *
 * exporter.c - accept, read one head, answer, close.
 *
 * A conn belongs to the exporter's list and ends in exporter_conn_close(), which is the last thing
 * that a callback does with it. Pages that are costly are shared by all who asked for them within a
 * second, and rendered in steps; their readers wait (CONN_WAIT) for the last one.
 */
#include "master/exporter.h"

#include <errno.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "master/exporter_conn.h"
#include "master/metrics.h"
#include "master/readyz.h"
#include "master/status_json.h"
#include "master/status_page.h"
#include "shared/clock.h"
#include "shared/log.h"

#define PAGE_LIFE_MS   1000
#define RENDER_ITEMS   128 /* of a page in one turn of the loop */
#define ACCEPT_PAUSE_S 1

/* A page that changes: how it is made, what is being made, and what was made last. */
struct rendering {
    const struct rendered *kind;
    struct exporter *exporter;
    void *making;        /* NULL: no page is in the making */
    uint64_t begun_ms;   /* when it began */
    struct event step;   /* while one is in the making */
    struct page *latest; /* NULL: none */
};

struct exporter {
    struct event_base *base;
    const struct shm *shm;
    struct conf *conf;
    int fd; /* listening; -1: none */
    struct event listening;
    struct event resume; /* after a pause of accepting */
    struct list conns;
    unsigned nconns;
    struct rendering metrics, status;
    struct page *html; /* NULL: nobody has asked yet */
    struct log_limit accept_limit;
};

/* ---- one connection ---- */

/* The oldest conn that has not asked for anything yet, or has its answer. NULL: all are being
 * answered. */
static struct exporter_conn *
exporter_find_idle(const struct exporter *exporter)
{
    list_for_each (it, (struct list *)&exporter->conns) {
        struct exporter_conn *c = container_of(it, struct exporter_conn, link);
        if (c->state == CONN_HEAD || c->state == CONN_LINGER) {
            return c;
        }
    }
    return NULL;
}

static void
exporter_update_accepting(struct exporter *exporter)
{
    bool has_room = exporter->nconns < EXPORTER_CONNS_MAX || exporter_find_idle(exporter);
    bool is_paused = evtimer_pending(&exporter->resume, NULL);
    if (exporter->fd < 0) {
        return;
    }
    if (has_room && !is_paused) {
        event_add(&exporter->listening, NULL);
    } else {
        event_del(&exporter->listening);
    }
}

void
exporter_on_conn_closed(struct exporter *exporter)
{
    exporter->nconns--;
    exporter_update_accepting(exporter);
}

/* ---- what can be asked for ---- */

static void *
begin_metrics(const struct exporter *exporter)
{
    return metrics_begin(exporter->shm, exporter->conf);
}

static bool
step_metrics(void *making)
{
    return metrics_step(making, RENDER_ITEMS);
}

static char *
take_metrics(void *making, size_t *len)
{
    return metrics_take(making, len);
}

static void *
begin_status(const struct exporter *exporter)
{
    return status_json_begin(exporter->shm, exporter->conf);
}

static bool
step_status(void *making)
{
    return status_json_step(making, RENDER_ITEMS);
}

static char *
take_status(void *making, size_t *len)
{
    return status_json_take(making, len);
}

struct rendered {
    const char *type;
    void *(*begin)(const struct exporter *exporter);
    bool (*step)(void *making); /* true: it is whole */
    char *(*take)(void *making, size_t *len);
};

static const struct rendered metrics_page = {"text/plain; version=0.0.4; charset=utf-8",
                                             begin_metrics, step_metrics, take_metrics};
static const struct rendered status_page = {"application/json", begin_status, step_status,
                                            take_status};

static void
answer_rendered(struct rendering *r, struct exporter_conn *c)
{
    r->latest->refs++;
    exporter_conn_answer(c, 200, r->kind->type, r->latest);
}

/* Whoever waits for the page has it, or 503 when memory was short. */
static void
rendering_finish(struct rendering *r)
{
    size_t len = 0;
    char *text = r->kind->take(r->making, &len);
    r->making = NULL;
    page_unref(r->latest);
    r->latest = page_new(text, len, r->begun_ms);
    list_for_each_safe (it, &r->exporter->conns) {
        struct exporter_conn *c = container_of(it, struct exporter_conn, link);
        if (c->state != CONN_WAIT || c->awaited != r) {
            continue;
        }
        if (r->latest) {
            answer_rendered(r, c);
        } else {
            exporter_conn_answer_status(c, 503);
        }
    }
}

static void
rendering_on_step(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct rendering *r = arg;
    if (r->kind->step(r->making)) {
        rendering_finish(r);
    } else {
        struct timeval now = {0};
        evtimer_add(&r->step, &now);
    }
}

/* The page of the last second, or a new one once it is whole. */
static void
rendering_serve(struct rendering *r, struct exporter_conn *c)
{
    if (r->latest && clock_mono_ms() - r->latest->born_ms < PAGE_LIFE_MS) {
        answer_rendered(r, c);
        return;
    }
    if (!r->making) {
        struct timeval now = {0};
        r->making = r->kind->begin(r->exporter);
        r->begun_ms = clock_mono_ms();
        if (!r->making) {
            exporter_conn_answer_status(c, 503);
            return;
        }
        evtimer_add(&r->step, &now);
    }
    exporter_conn_park(c, r);
}

static void
rendering_init(struct rendering *r, struct exporter *exporter, const struct rendered *kind)
{
    r->kind = kind;
    r->exporter = exporter;
    evtimer_assign(&r->step, exporter->base, rendering_on_step, r);
    event_priority_set(&r->step, 1);
}

/* One in the making keeps its conf and is completed. */
static void
rendering_forget(struct rendering *r)
{
    page_unref(r->latest);
    r->latest = NULL;
}

static void
rendering_fini(struct rendering *r)
{
    event_del(&r->step);
    rendering_forget(r);
    if (r->making) {
        size_t len;
        free(r->kind->take(r->making, &len));
    }
}

static void
serve_metrics(struct exporter *exporter, struct exporter_conn *c, struct slice query)
{
    (void)query;
    rendering_serve(&exporter->metrics, c);
}

/* Loopback, a Unix socket, or one of the networks of metrics.allow. */
static bool
peer_is_trusted(const struct exporter *exporter, const struct addr_ip *peer)
{
    static const uint8_t loopback6[16] = {[15] = 1};
    bool is_loopback = peer->family == AF_UNIX ||
                       (peer->family == AF_INET && peer->bytes[0] == 127) ||
                       (peer->family == AF_INET6 && memcmp(peer->bytes, loopback6, 16) == 0);
    for (unsigned i = 0; !is_loopback && i < exporter->conf->nmetrics_allow; i++) {
        if (cidr_contains(&exporter->conf->metrics_allow[i], peer)) {
            return true;
        }
    }
    return is_loopback;
}

static void
serve_status(struct exporter *exporter, struct exporter_conn *c, struct slice query)
{
    (void)query;
    if (!peer_is_trusted(exporter, &c->peer)) {
        exporter_conn_answer_status(c, 403);
        return;
    }
    rendering_serve(&exporter->status, c);
}

/* The same for everybody and always: what it shows comes from /status.json. */
static void
serve_page(struct exporter *exporter, struct exporter_conn *c, struct slice query)
{
    (void)query;
    if (!peer_is_trusted(exporter, &c->peer)) {
        exporter_conn_answer_status(c, 403);
        return;
    }
    if (!exporter->html) {
        size_t len = 0;
        const char *fields = NULL;
        char *text = status_page_make(&len, &fields);
        exporter->html = page_new(text, len, 0);
        if (!exporter->html) {
            exporter_conn_answer_status(c, 503);
            return;
        }
        exporter->html->fields = fields;
    }
    exporter->html->refs++;
    exporter_conn_answer(c, 200, "text/html; charset=utf-8", exporter->html);
}

static void
serve_livez(struct exporter *exporter, struct exporter_conn *c, struct slice query)
{
    (void)exporter;
    (void)query;
    exporter_conn_answer_text(c, 200, "alive\n");
}

static void
serve_readyz(struct exporter *exporter, struct exporter_conn *c, struct slice query)
{
    char text[READYZ_TEXT_MAX];
    int status = readyz_judge(exporter->shm, exporter->conf, query, text);
    exporter_conn_answer_text(c, status, text);
}

static const struct {
    const char *path;
    void (*serve)(struct exporter *exporter, struct exporter_conn *c, struct slice query);
} endpoints[] = {
    {"/metrics", serve_metrics},    {"/livez", serve_livez}, {"/readyz", serve_readyz},
    {"/status.json", serve_status}, {"/", serve_page},
};

void
exporter_serve(struct exporter *exporter, struct exporter_conn *c, struct slice path,
               struct slice query)
{
    for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++) {
        if (slice_eq(path, slice_from_str(endpoints[i].path))) {
            endpoints[i].serve(exporter, c, query);
            return;
        }
    }
    exporter_conn_answer_status(c, 404);
}

/* ---- accepting ---- */

/* Out of descriptors: the queue stays readable, so looking at it again at once burns the CPU. */
static void
exporter_pause(struct exporter *exporter, int error)
{
    uint64_t suppressed;
    const struct timeval tv = {.tv_sec = ACCEPT_PAUSE_S};
    evtimer_add(&exporter->resume, &tv);
    if (log_limit_pass(&exporter->accept_limit, clock_mono_ms(), 60000, &suppressed)) {
        log_warn("metrics: accepting pauses for a second: %s", strerror(error));
    }
}

static void
exporter_on_resume(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    exporter_update_accepting(arg);
}

/* Serve an accepted socket, in the place of an idle conn when there is no room. */
static void
exporter_take(struct exporter *exporter, int fd, const struct addr *from,
              struct exporter_conn *idle)
{
    if (idle) {
        exporter_conn_close(idle);
    }
    struct exporter_conn *c = exporter_conn_open(exporter, exporter->base, fd, from);
    if (c) {
        list_add_tail(&exporter->conns, &c->link);
        exporter->nconns++;
    }
}

static void
exporter_on_readable(evutil_socket_t listening, short what, void *arg)
{
    (void)what;
    struct exporter *exporter = arg;
    for (unsigned i = 0; i < EXPORTER_CONNS_MAX; i++) {
        bool is_full = exporter->nconns == EXPORTER_CONNS_MAX;
        struct exporter_conn *idle = is_full ? exporter_find_idle(exporter) : NULL;
        if (is_full && !idle) {
            break;
        }
        struct addr from = {.len = sizeof(from.un)};
        int fd = accept4(listening, &from.sa, &from.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            bool is_over = errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
            if (!is_over) {
                exporter_pause(exporter, errno);
            }
            break;
        }
        exporter_take(exporter, fd, &from, idle);
    }
    exporter_update_accepting(exporter);
}

/* ---- life ---- */

struct exporter *
exporter_new(struct event_base *base, const struct shm *shm)
{
    struct exporter *exporter = calloc(1, sizeof(*exporter));
    if (!exporter) {
        return NULL;
    }
    exporter->base = base;
    exporter->shm = shm;
    exporter->fd = -1;
    list_init(&exporter->conns);
    evtimer_assign(&exporter->resume, base, exporter_on_resume, exporter);
    event_priority_set(&exporter->resume, 1);
    rendering_init(&exporter->metrics, exporter, &metrics_page);
    rendering_init(&exporter->status, exporter, &status_page);
    return exporter;
}

void
exporter_free(struct exporter *exporter)
{
    exporter_listen(exporter, -1);
    list_for_each_safe (it, &exporter->conns) {
        exporter_conn_close(container_of(it, struct exporter_conn, link));
    }
    event_del(&exporter->resume);
    rendering_fini(&exporter->metrics);
    rendering_fini(&exporter->status);
    page_unref(exporter->html);
    if (exporter->conf) {
        conf_unref(exporter->conf);
    }
    free(exporter);
}

void
exporter_apply(struct exporter *exporter, struct conf *conf)
{
    struct conf *before = exporter->conf;
    exporter->conf = conf_ref(conf);
    rendering_forget(&exporter->metrics);
    rendering_forget(&exporter->status);
    if (before) {
        conf_unref(before);
    }
}

void
exporter_listen(struct exporter *exporter, int fd)
{
    if (exporter->fd >= 0) {
        event_del(&exporter->listening);
        close(exporter->fd);
    }
    exporter->fd = fd;
    if (fd >= 0) {
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        event_assign(&exporter->listening, exporter->base, fd, EV_READ | EV_PERSIST,
                     exporter_on_readable, exporter);
        event_priority_set(&exporter->listening, 1);
        exporter_update_accepting(exporter);
    }
}

bool
exporter_is_listening(const struct exporter *exporter)
{
    return exporter->fd >= 0;
}
