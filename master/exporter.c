/* SPDX-License-Identifier: Apache-2.0
 *
 * exporter.c - accept, read one head, answer, close.
 *
 * A conn belongs to the exporter's list and ends in exporter_conn_close(), which is the last thing
 * that a callback does with it. Pages that are costly are shared by all who asked for them within a
 * second; /metrics is rendered in steps, and its readers wait (CONN_WAIT) for the last one.
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
#include "shared/clock.h"
#include "shared/log.h"

#define PAGE_LIFE_MS   1000
#define RENDER_ITEMS   128 /* of a metrics page in one turn of the loop */
#define ACCEPT_PAUSE_S 1

struct exporter {
    struct event_base *base;
    const struct shm *shm;
    struct conf *conf;
    int fd; /* listening; -1: none */
    struct event listening;
    struct event resume; /* after a pause of accepting */
    struct event render;
    struct list conns;
    unsigned nconns;
    struct metrics *rendering; /* NULL: no page is in the making */
    uint64_t rendering_ms;     /* when it began */
    struct page *metrics;      /* the last ones; NULL: none */
    struct page *status;
    struct log_limit accept_limit;
};

/* ---- pages ---- */

static bool
page_is_fresh(const struct page *page)
{
    return page && clock_mono_ms() - page->born_ms < PAGE_LIFE_MS;
}

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

static void
answer_metrics(struct exporter *exporter, struct exporter_conn *c)
{
    struct page *page = exporter->metrics;
    page->refs++;
    exporter_conn_answer(c, 200, "text/plain; version=0.0.4; charset=utf-8", page);
}

/* Whoever waits for the page has it, or 503 when memory was short. */
static void
exporter_finish_rendering(struct exporter *exporter)
{
    size_t len = 0;
    char *text = metrics_take(exporter->rendering, &len);
    exporter->rendering = NULL;
    page_unref(exporter->metrics);
    exporter->metrics = page_new(text, len, exporter->rendering_ms);
    list_for_each_safe (it, &exporter->conns) {
        struct exporter_conn *c = container_of(it, struct exporter_conn, link);
        if (c->state != CONN_WAIT) {
            continue;
        }
        if (exporter->metrics) {
            answer_metrics(exporter, c);
        } else {
            exporter_conn_answer_status(c, 503);
        }
    }
}

static void
exporter_on_render(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct exporter *exporter = arg;
    if (metrics_step(exporter->rendering, RENDER_ITEMS)) {
        exporter_finish_rendering(exporter);
    } else {
        struct timeval now = {0};
        evtimer_add(&exporter->render, &now);
    }
}

static void
serve_metrics(struct exporter *exporter, struct exporter_conn *c, struct slice query)
{
    (void)query;
    if (page_is_fresh(exporter->metrics)) {
        answer_metrics(exporter, c);
        return;
    }
    if (!exporter->rendering) {
        struct timeval now = {0};
        exporter->rendering = metrics_begin(exporter->shm, exporter->conf);
        exporter->rendering_ms = clock_mono_ms();
        if (!exporter->rendering) {
            exporter_conn_answer_status(c, 503);
            return;
        }
        evtimer_add(&exporter->render, &now);
    }
    exporter_conn_park(c);
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
    if (!page_is_fresh(exporter->status)) {
        size_t len = 0;
        char *text = status_json_render(exporter->shm, exporter->conf, &len);
        page_unref(exporter->status);
        exporter->status = page_new(text, len, clock_mono_ms());
    }
    if (!exporter->status) {
        exporter_conn_answer_status(c, 503);
        return;
    }
    exporter->status->refs++;
    exporter_conn_answer(c, 200, "application/json", exporter->status);
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
    {"/metrics", serve_metrics},
    {"/livez", serve_livez},
    {"/readyz", serve_readyz},
    {"/status.json", serve_status},
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
    evtimer_assign(&exporter->render, base, exporter_on_render, exporter);
    event_priority_set(&exporter->resume, 1);
    event_priority_set(&exporter->render, 1);
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
    event_del(&exporter->render);
    if (exporter->rendering) {
        size_t len;
        free(metrics_take(exporter->rendering, &len));
    }
    page_unref(exporter->metrics);
    page_unref(exporter->status);
    if (exporter->conf) {
        conf_unref(exporter->conf);
    }
    free(exporter);
}

/* Pages of the former conf are forgotten; one in the making keeps its conf and is completed. */
void
exporter_apply(struct exporter *exporter, struct conf *conf)
{
    struct conf *before = exporter->conf;
    exporter->conf = conf_ref(conf);
    page_unref(exporter->metrics);
    page_unref(exporter->status);
    exporter->metrics = NULL;
    exporter->status = NULL;
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
