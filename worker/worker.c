/* SPDX-License-Identifier: Apache-2.0
 *
 * worker.c - the data plane process: its loop, what the master tells it, and its end.
 *
 * A configuration is prepared (built, checked, its sockets collected) and then committed or given
 * up. A worker that retires stops accepting, finishes what runs and exits; so does one whose master
 * has gone, at once.
 */
#include "worker/worker.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/bundle.h"
#include "shared/log.h"
#include "shared/sandbox.h"
#include "shared/tls.h"
#include "worker/access_log.h"
#include "worker/conn.h"
#include "worker/http1_client.h"
#include "worker/http2_session.h"
#include "worker/limit.h"
#include "worker/listener.h"
#include "worker/logs.h"
#include "worker/operator.h"
#include "worker/prepare.h"
#include "worker/queue.h"
#include "worker/sticky.h"
#include "worker/stream.h"
#include "worker/upstream.h"

#define HEARTBEAT_MS    500
#define HEAD_SLACK      8192 /* what is added to a head on its way, and a status line */
#define RUNNABLE_BUDGET 256

struct worker worker;

static struct conf *prepared;
static struct event *channel_event, *wake_event, *tick_event, *wheel_event, *verify_event,
    *retire_event;
static bool is_done;

/* ---- memory for heads ---- */

char *
worker_head_room(void)
{
    conn_flush_any();
    return worker.head;
}

/* Parsing and writing need room for the largest head that any listener allows. */
static int
make_room(const struct conf *conf)
{
    size_t bytes = 0;
    unsigned fields = 0;
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        const struct conf_listener *l = &conf->listeners[i];
        bytes = l->header_bytes > bytes ? l->header_bytes : bytes;
        fields = l->header_count > fields ? l->header_count : fields;
    }
    /* A field "a:b" grows by one byte for a space and one for CR when it is written strictly. */
    bytes = bytes * 2 + HEAD_SLACK;
    if (bytes > worker.head_size) {
        char *head = realloc(worker.head, bytes);
        if (!head) {
            return -1;
        }
        worker.head = head;
        worker.head_size = bytes;
    }
    if (fields > worker.max_fields) {
        struct http_field *all =
            realloc(worker.fields, (fields + LIMIT_FIELDS + STICKY_FIELDS) * sizeof(*all));
        if (!all) {
            return -1;
        }
        worker.fields = all;
        worker.max_fields = fields;
    }
    return 0;
}

/* ---- configuration ---- */

static void
answer(enum channel_type type, uint64_t gen, uint64_t number, const char *text)
{
    struct channel_msg msg = {
        .type = type, .gen = gen, .number = number, .fd = -1, .text = slice_from_str(text)};
    channel_send(&worker.channel, &msg);
}

static void
update_conf_counts(void)
{
    uint64_t oldest = worker.conf ? worker.conf->gen : 0;
    unsigned alive = conf_alive(&oldest);
    shm_set(&worker.row->confs, alive);
    shm_set(&worker.row->oldest_gen, oldest);
}

static void
forget_prepared(void)
{
    prepare_cancel();
    if (prepared) {
        conf_unref(prepared);
        prepared = NULL;
    }
    listener_forget_offers();
}

static void
on_prepared(int fd, uint64_t gen)
{
    struct conf_errors errors = {0};
    prepared = bundle_load(fd, &errors);
    if (prepared && make_room(prepared) != 0) {
        conf_unref(prepared);
        prepared = NULL;
    }
    if (prepared) {
        answer(CHANNEL_READY, gen, 0, "");
    } else {
        answer(CHANNEL_REFUSED, gen, 0, errors.nerrors > 0 ? errors.errors[0] : "out of memory");
        listener_forget_offers();
    }
    conf_errors_fini(&errors);
}

static void
on_prepare(const struct channel_msg *msg)
{
    if (prepared) {
        conf_unref(prepared);
        prepared = NULL;
    }
    prepare_begin(msg->fd, msg->gen, on_prepared);
}

static void
on_commit(const struct channel_msg *msg)
{
    if (!prepared) {
        return;
    }
    struct conf *old = worker.conf;
    worker.conf = prepared;
    prepared = NULL;
    upstream_apply(worker.conf);
    operator_heed_again();
    logs_apply(worker.conf);
    if (worker.state == WORKER_STARTING) {
        worker.state = WORKER_SERVING;
    }
    listener_apply(worker.conf, msg->number == 1);
    stream_limit_tunnels(worker.conf->retire_timeout);
    shm_set(&worker.row->is_accepting, worker.state == WORKER_SERVING);
    if (old) {
        conf_unref(old);
    }
    answer(CHANNEL_COMMITTED, msg->gen, 0, "");
}

/* ---- retire ---- */

static void
cut_streams(void)
{
    while (!list_is_empty(&worker.streams)) {
        stream_fail(list_first(&worker.streams, struct stream, link), REASON_drain_cut);
        worker.streams_cut++;
    }
    is_done = true;
}

static void
on_retire_due(evutil_socket_t fd, short what, void *arg)
{
    cut_streams();
}

static void
check_drained(void)
{
    if (worker.state == WORKER_RETIRING && worker.nclients == 0) {
        is_done = true;
    }
}

static void
on_retire(const struct channel_msg *msg)
{
    uint64_t ms = msg->number;
    struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
    worker.state = WORKER_RETIRING;
    worker.is_draining = msg->gen == 1;
    shm_set(&worker.row->is_accepting, 0);
    event_add(retire_event, &tv);
    /* Nobody may come to a socket that is queued on now: the other descriptors may close too. */
    listener_close_all(msg->gen != 0);
    upstream_close_idle();
    check_drained();
}

/* It serves again with the next COMMIT: its sockets were closed, and come with that. */
static void
on_revive(void)
{
    if (worker.state != WORKER_RETIRING || worker.is_draining) {
        return;
    }
    worker.state = WORKER_STARTING;
    event_del(retire_event);
}

void
worker_client_opened(void)
{
    worker.nclients++;
}

void
worker_client_closed(void)
{
    assert(worker.nclients > 0);
    worker.nclients--;
    check_drained();
}

/* ---- the channel ---- */

/* Descriptors that a message brings are its receiver's; PREPARE's is only read. */
static void
on_message(const struct channel_msg *msg)
{
    switch (msg->type) {
    case CHANNEL_SOCKET: listener_offer_socket(msg->text, msg->fd); return;
    case CHANNEL_LOG: logs_give(msg->text, msg->fd); return;
    case CHANNEL_ADOPT: listener_adopt(msg->text, (unsigned)msg->number, msg->fd); return;
    case CHANNEL_PREPARE: on_prepare(msg); break;
    case CHANNEL_COMMIT: on_commit(msg); break;
    case CHANNEL_ABORT: forget_prepared(); break;
    case CHANNEL_DISOWN: listener_disown(msg->text, (unsigned)msg->number); break;
    case CHANNEL_RETIRE: on_retire(msg); break;
    case CHANNEL_REVIVE: on_revive(); break;
    default: log_error("channel: unexpected message %d", (int)msg->type);
    }
    if (msg->fd >= 0) {
        close(msg->fd);
    }
}

static void
on_channel(evutil_socket_t fd, short what, void *arg)
{
    struct channel_msg msg;
    int r;
    while ((r = channel_recv(&worker.channel, &msg)) == 1) {
        on_message(&msg);
    }
    if (r < 0) {
        is_done = true; /* the master has gone */
    }
}

static void
on_wake(evutil_socket_t fd, short what, void *arg)
{
    uint64_t n;
    if (read(worker.args->wake_fd, &n, sizeof(n)) < 0 && errno != EAGAIN) {
        log_error("wake descriptor: %s", strerror(errno));
    }
    operator_heed();
    queue_on_wake();
}

/* ---- the loop ---- */

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
    shm_set(&worker.row->heartbeat_ms, worker_now_ms());
    update_conf_counts();
    stream_cut_tunnels();
    limit_sweep();
    operator_heed();
    logs_tick();
}

static void
on_verify(evutil_socket_t fd, short what, void *arg)
{
    conn_verify_all();
}

static void
on_wheel(evutil_socket_t fd, short what, void *arg)
{
    wheel_run(&worker.wheel, worker_now_ms());
    queue_tick();
}

/* Conns that asked to be run again; those that ask while this runs have the next turn. */
static void
run_runnable(void)
{
    for (unsigned i = 0; i < RUNNABLE_BUDGET && !list_is_empty(&worker.runnable); i++) {
        struct conn *c = list_first(&worker.runnable, struct conn, link);
        list_del(&c->link);
        c->is_runnable = false;
        c->on_event(c, CONN_READABLE | (c->is_broken ? CONN_BROKEN : 0));
        conn_flush_any();
    }
}

static void
turn(void)
{
    int flags = EVLOOP_ONCE | (list_is_empty(&worker.runnable) ? 0 : EVLOOP_NONBLOCK);
    worker.now_us = 0;
    event_base_loop(worker.base, flags);
    run_runnable();
    queue_run();
    http2_session_flush_all();
    conn_flush_any();
    access_log_flush();
    stream_reap();
    conn_reap();
    listener_reap();
}

static struct event *
watch(evutil_socket_t fd, short what, event_callback_fn on_event)
{
    struct event *ev = event_new(worker.base, fd, what | EV_PERSIST, on_event, NULL);
    if (ev && fd >= 0) {
        event_add(ev, NULL);
    }
    return ev;
}

static struct event *
watch_every(unsigned ms, event_callback_fn on_event)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    struct event *ev = event_new(worker.base, -1, EV_PERSIST, on_event, NULL);
    if (ev) {
        event_add(ev, &tv);
    }
    return ev;
}

static int
open_base(void)
{
    struct event_config *config = event_config_new();
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    worker.base = event_base_new_with_config(config);
    event_config_free(config);
    if (!worker.base) {
        return -1;
    }
    channel_event = watch(worker.channel.fd, EV_READ, on_channel);
    wake_event = watch(worker.args->wake_fd, EV_READ, on_wake);
    tick_event = watch_every(HEARTBEAT_MS, on_tick);
    wheel_event = watch_every(WHEEL_SLOT_MS, on_wheel);
    verify_event = watch_every(WORKER_VERIFY_MS, on_verify);
    retire_event = event_new(worker.base, -1, 0, on_retire_due, NULL);
    return channel_event && wake_event && tick_event && wheel_event && verify_event && retire_event
               ? 0
               : -1;
}

static int
init(const struct child_args *args)
{
    worker.args = args;
    worker.shm = args->shm;
    worker.row = args->shm->row;
    worker.now_us = clock_mono_us();
    list_init(&worker.runnable);
    list_init(&worker.idle_clients);
    list_init(&worker.streams);
    wheel_init(&worker.wheel, worker_now_ms());
    channel_init(&worker.channel, args->channel_fd);
    worker.scratch = malloc(WORKER_SCRATCH_BYTES);
    tls_worker_init(worker.shm);
    return worker.scratch ? open_base() : -1;
}

/* What is left when the process ends; sanitizers look for the rest. */
static void
fini(void)
{
    access_log_flush();
    logs_tick();
    answer(CHANNEL_DRAINED, 0, worker.streams_cut, "");
    channel_flush(&worker.channel);
    listener_close_all(false);
}

int
worker_main(const struct child_args *args)
{
    if (init(args) != 0) {
        log_error("worker: out of memory");
        return 2;
    }
    if (sandbox_enter(SANDBOX_WORKER) != 0) {
        log_error("sandbox: could not be entered: %s", strerror(errno));
        return 2;
    }
    on_tick(-1, 0, NULL);
    while (!is_done) {
        turn();
        channel_flush(&worker.channel);
    }
    cut_streams();
    http2_session_flush_all();
    fini();
    return 0;
}
