/* SPDX-License-Identifier: Apache-2.0
 *
 * monitor.c - the monitor process: health probes, addresses of names, and the metrics port.
 *
 * What it needs at run time to look names up, for whoever fences it in, stands in lookup.h.
 *
 * Entered by monitor_main() (shared/child.h). The only SOCKET that the master sends here is that of
 * the metrics port, for the generation that is being prepared; without one the former socket stays,
 * if the address did. The process ends when it is told to retire, by TERM, or when the channel
 * closes: it has nothing to finish.
 */
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/backend_state.h"
#include "conf/bundle.h"
#include "master/exporter.h"
#include "master/follow.h"
#include "master/health.h"
#include "shared/child.h"
#include "shared/clock.h"
#include "shared/list.h"
#include "shared/log.h"
#include "shared/sandbox.h"

#define HEARTBEAT_MS    500
#define MMAP_FROM_BYTES (16 * 1024)

/* An open log target, as the master sent it. */
struct log_file {
    struct list link;
    int fd;
    char *path;
};

struct monitor {
    const struct child_args *args;
    struct event_base *base;
    struct channel channel;
    struct event readable, writable; /* of the channel */
    struct event wake, tick, term;
    struct health *health;
    struct follow *follow;
    struct exporter *exporter;
    struct list log_files;
    struct conf *conf;   /* in force; NULL before the first commit */
    struct conf *next;   /* prepared; NULL: none */
    int next_metrics_fd; /* -1: none came */
};

/* ---- the channel, outwards ---- */

static void
monitor_send(struct monitor *mon, enum channel_type type, uint64_t gen, const char *text)
{
    struct channel_msg msg = {.type = type, .gen = gen, .fd = -1, .text = slice_from_str(text)};
    if (channel_send(&mon->channel, &msg) < 0) {
        event_base_loopbreak(mon->base);
    } else if (channel_has_queued(&mon->channel)) {
        event_add(&mon->writable, NULL);
    }
}

static void
monitor_tell_name(const char *text, size_t len, void *arg)
{
    struct monitor *mon = arg;
    monitor_send(mon, CHANNEL_NAME, mon->conf->gen, text);
}

static void
monitor_on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct monitor *mon = arg;
    int sent = channel_flush(&mon->channel);
    if (sent != 0) {
        event_del(&mon->writable);
    }
    if (sent < 0) {
        event_base_loopbreak(mon->base);
    }
}

/* ---- log targets ---- */

static void
log_file_free(struct log_file *file)
{
    list_del(&file->link);
    close(file->fd);
    free(file->path);
    free(file);
}

static struct log_file *
log_file_find(struct monitor *mon, struct slice path)
{
    list_for_each (it, &mon->log_files) {
        struct log_file *file = container_of(it, struct log_file, link);
        if (slice_eq(slice_from_str(file->path), path)) {
            return file;
        }
    }
    return NULL;
}

static void
monitor_apply_level(struct monitor *mon)
{
    log_set_level(operator_log_level(mon->args->shm, mon->conf));
}

/* Write where the conf in force says, and close files that it does not name. */
static void
monitor_apply_log(struct monitor *mon)
{
    const struct conf_log *log = &mon->conf->log;
    struct log_file *file = log_file_find(mon, slice_from_str(log->target));
    int target = LOG_TO_STDERR;
    if (strcmp(log->target, "syslog") == 0) {
        target = LOG_TO_SYSLOG;
    } else if (file) {
        target = file->fd;
    }
    monitor_apply_level(mon);
    log_set_target(target, log->format);
    list_for_each_safe (it, &mon->log_files) {
        struct log_file *other = container_of(it, struct log_file, link);
        if (other != file) {
            log_file_free(other);
        }
    }
}

/* A file was opened for a generation to come, or again after it was moved away. Takes msg->fd. */
static void
monitor_take_log(struct monitor *mon, const struct channel_msg *msg)
{
    struct log_file *former = log_file_find(mon, msg->text);
    struct log_file *file = calloc(1, sizeof(*file));
    char *path = strndup(msg->text.ptr, msg->text.len);
    if (msg->fd < 0 || !file || !path) {
        free(file);
        free(path);
        return;
    }
    *file = (struct log_file){.fd = msg->fd, .path = path};
    list_add_head(&mon->log_files, &file->link);
    if (mon->conf && strcmp(mon->conf->log.target, path) == 0) {
        log_set_target(file->fd, mon->conf->log.format);
    }
    if (former) {
        log_file_free(former);
    }
}

/* ---- configurations ---- */

static void
monitor_forget_next(struct monitor *mon)
{
    if (mon->next) {
        conf_unref(mon->next);
        mon->next = NULL;
    }
    if (mon->next_metrics_fd >= 0) {
        close(mon->next_metrics_fd);
        mon->next_metrics_fd = -1;
    }
}

static void
monitor_prepare(struct monitor *mon, const struct channel_msg *msg)
{
    struct conf_errors errors = {0};
    if (mon->next) {
        conf_unref(mon->next);
    }
    mon->next = bundle_load(msg->fd, &errors);
    if (mon->next) {
        monitor_send(mon, CHANNEL_READY, msg->gen, "");
    } else {
        const char *why = errors.nerrors > 0 ? errors.errors[0] : "the bundle cannot be read";
        monitor_send(mon, CHANNEL_REFUSED, msg->gen, why);
    }
    conf_errors_fini(&errors);
}

/* The metrics port of the conf in force, before being that of the former one. */
static void
monitor_apply_metrics(struct monitor *mon, const struct conf *before)
{
    const struct conf *conf = mon->conf;
    bool is_same = before && before->has_metrics && conf->has_metrics &&
                   addr_eq(&before->metrics, &conf->metrics);
    if (mon->next_metrics_fd >= 0) {
        exporter_listen(mon->exporter, mon->next_metrics_fd);
        mon->next_metrics_fd = -1;
    } else if (!is_same) {
        exporter_listen(mon->exporter, -1);
    }
}

static void
monitor_commit(struct monitor *mon, uint64_t gen)
{
    struct conf *before = mon->conf;
    if (!mon->next || mon->next->gen != gen) {
        log_error("monitor: commit of generation %llu: it was not prepared",
                  (unsigned long long)gen);
        return;
    }
    mon->conf = mon->next;
    mon->next = NULL;
    monitor_apply_log(mon);
    if (health_apply(mon->health, mon->conf) < 0) {
        log_error("monitor: out of memory: not every backend is probed");
    }
    follow_apply(mon->follow, mon->conf); /* before the former conf goes */
    exporter_apply(mon->exporter, mon->conf);
    monitor_apply_metrics(mon, before);
    if (before) {
        conf_unref(before);
    }
    monitor_send(mon, CHANNEL_COMMITTED, gen, "");
}

/* ---- the channel, inwards ---- */

/* Takes the descriptor of the message where it keeps it, and sets it to -1. */
static void
monitor_on_message(struct monitor *mon, struct channel_msg *msg)
{
    switch (msg->type) {
    case CHANNEL_SOCKET:
        if (msg->fd >= 0) {
            if (mon->next_metrics_fd >= 0) {
                close(mon->next_metrics_fd);
            }
            mon->next_metrics_fd = msg->fd;
            msg->fd = -1;
        }
        break;
    case CHANNEL_LOG:
        monitor_take_log(mon, msg);
        msg->fd = -1;
        break;
    case CHANNEL_PREPARE: monitor_prepare(mon, msg); break;
    case CHANNEL_COMMIT: monitor_commit(mon, msg->gen); break;
    case CHANNEL_ABORT: monitor_forget_next(mon); break;
    case CHANNEL_RETIRE: event_base_loopbreak(mon->base); break;
    default: break; /* of workers */
    }
}

static void
monitor_on_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct monitor *mon = arg;
    struct channel_msg msg;
    int got;
    while ((got = channel_recv(&mon->channel, &msg)) > 0) {
        monitor_on_message(mon, &msg);
        if (msg.fd >= 0) {
            close(msg.fd);
        }
    }
    if (got < 0) {
        event_base_loopbreak(mon->base);
    }
}

/* ---- the loop ---- */

static void
monitor_on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct monitor *mon = arg;
    uint64_t count;
    if (read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count)) {
        if (mon->conf) {
            monitor_apply_level(mon);
        }
        health_heed(mon->health);
        health_hurry(mon->health);
    }
}

/* What names are looked up with is only read by a monitor that began after it came. */
static void
monitor_check_files(struct monitor *mon)
{
    const char *lost = mon->conf && mon->conf->nnames > 0 ? sandbox_lost_file() : NULL;
    if (lost) {
        log_info("sandbox: %s is another file now: another monitor begins and reads it", lost);
        event_base_loopbreak(mon->base);
    }
}

static void
monitor_on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct monitor *mon = arg;
    shm_set(&mon->args->shm->h->heartbeat_ms, clock_mono_ms());
    shm_count(&mon->args->shm->h->log_dropped, log_take_dropped());
    health_hurry(mon->health);
    monitor_check_files(mon);
}

static void
monitor_on_term(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct monitor *mon = arg;
    event_base_loopbreak(mon->base);
}

static struct event_base *
monitor_base_new(void)
{
    struct event_config *config = event_config_new();
    if (!config) {
        return NULL;
    }
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    if (base) {
        event_base_priority_init(base, 2); /* probes, then the exporter */
    }
    return base;
}

static void
monitor_add(struct event *event, const struct timeval *every)
{
    event_priority_set(event, 0);
    event_add(event, every);
}

static int
monitor_init(struct monitor *mon, const struct child_args *args)
{
    const struct timeval every = {.tv_usec = HEARTBEAT_MS * 1000};
    *mon = (struct monitor){.args = args, .next_metrics_fd = -1};
    list_init(&mon->log_files);
    channel_init(&mon->channel, args->channel_fd);
    mon->base = monitor_base_new();
    if (!mon->base) {
        return -1;
    }
    mon->health = health_new(mon->base, args->shm);
    mon->follow = follow_new(mon->base, args->shm, monitor_tell_name, mon);
    mon->exporter = exporter_new(mon->base, args->shm);
    if (!mon->health || !mon->follow || !mon->exporter) {
        return -1;
    }
    struct event_base *base = mon->base;
    event_assign(&mon->readable, base, args->channel_fd, EV_READ | EV_PERSIST, monitor_on_readable,
                 mon);
    event_assign(&mon->writable, base, args->channel_fd, EV_WRITE | EV_PERSIST, monitor_on_writable,
                 mon);
    event_assign(&mon->wake, base, args->wake_fd, EV_READ | EV_PERSIST, monitor_on_wake, mon);
    event_assign(&mon->tick, base, -1, EV_PERSIST, monitor_on_tick, mon);
    evsignal_assign(&mon->term, base, SIGTERM, monitor_on_term, mon);
    monitor_add(&mon->readable, NULL);
    event_priority_set(&mon->writable, 0);
    monitor_add(&mon->wake, NULL);
    monitor_add(&mon->tick, &every);
    monitor_add(&mon->term, NULL);
    return 0;
}

static void
monitor_fini(struct monitor *mon)
{
    event_del(&mon->readable);
    event_del(&mon->writable);
    event_del(&mon->wake);
    event_del(&mon->tick);
    event_del(&mon->term);
    exporter_free(mon->exporter);
    health_free(mon->health);
    follow_free(mon->follow);
    monitor_forget_next(mon);
    if (mon->conf) {
        conf_unref(mon->conf);
    }
    log_set_target(LOG_TO_STDERR, LOG_FORMAT_TEXT);
    list_for_each_safe (it, &mon->log_files) {
        log_file_free(container_of(it, struct log_file, link));
    }
    channel_fini(&mon->channel);
    event_base_free(mon->base);
}

int
monitor_main(const struct child_args *args)
{
    struct monitor mon;
    log_set_process("monitor");
    /* Pages of metrics live among the small and lasting: what is large has a mapping of its own, or
     * the heap grows with every reload. Also, glibc would raise the bound by itself. */
    mallopt(M_MMAP_THRESHOLD, MMAP_FROM_BYTES);
    if (monitor_init(&mon, args) < 0) {
        log_error("monitor: cannot start: out of memory or descriptors");
        return 1;
    }
    if (sandbox_enter(SANDBOX_MONITOR) < 0) {
        log_error("sandbox: could not be entered: %s", strerror(errno));
        return 1;
    }
    shm_set(&args->shm->h->heartbeat_ms, clock_mono_ms());
    event_base_dispatch(mon.base);
    monitor_fini(&mon);
    return 0;
}
