/* SPDX-License-Identifier: Apache-2.0
 *
 * supervise.c - keep the wanted children alive.
 */
#include "master/supervise.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "master/adopt.h"
#include "master/demo.h"
#include "master/master.h"
#include "master/names.h"
#include "master/reload.h"
#include "master/rows.h"
#include "master/stop.h"
#include "master/takeover.h"
#include "master/upgrade.h"
#include "shared/clock.h"
#include "shared/log.h"

#define MONITOR_GRACE_MS 1000
#define RETIRE_GRACE_MS  10000
#define FOLD_RETRY_MS    10

/* ---- one child ---- */

static struct child *
supervise_worker(unsigned index)
{
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        struct child *child = &master.children[i];
        if (child->is_wanted && child->index == index) {
            return child;
        }
    }
    return NULL;
}

static void
respawn_after(struct child *child, uint32_t wait_ms)
{
    struct timeval wait = {.tv_sec = wait_ms / 1000, .tv_usec = (wait_ms % 1000) * 1000};
    event_add(child->respawn, &wait);
}

static void
respawn_cancel(struct child *child)
{
    if (child->respawn) {
        event_del(child->respawn);
    }
}

static bool
child_fold(struct child *child)
{
    if (child->is_unfolded && shm_fold_row(&master.shm, child->row)) {
        child->is_unfolded = false;
    }
    return !child->is_unfolded;
}

static bool
row_is_free(const struct child *child)
{
    return child->pid == 0 && !child->is_wanted && !child->is_unfolded;
}

/* Its row may be another master's next. */
static void
child_give_back(const struct child *child)
{
    if (row_is_free(child) && !child_is_monitor(child)) {
        rows_give_back(child->row);
    }
}

static void
child_spawn(struct child *child)
{
    if (!child_fold(child)) {
        /* Another worker is in the middle of a change of the same gauge. */
        respawn_after(child, FOLD_RETRY_MS);
        return;
    }
    if (reload_is_preparing()) {
        /* This child would get the configuration that is about to be replaced. */
        respawn_after(child, FOLD_RETRY_MS);
        return;
    }
    if (child_start(child) < 0) {
        uint32_t wait_ms = backoff_next(&child->backoff, false, 0);
        log_error("%s: could not start: %s; next try in %u ms", child_name(child), strerror(errno),
                  wait_ms);
        if (child->pid == 0) {
            respawn_after(child, wait_ms);
        }
    }
}

static void
respawn_on_event(evutil_socket_t fd, short what, void *arg)
{
    struct child *child = arg;
    if (child->is_wanted && child->pid == 0) {
        child_spawn(child);
    } else if (!child_fold(child)) {
        respawn_after(child, FOLD_RETRY_MS);
    } else {
        child_give_back(child);
    }
}

static void
child_want(struct child *child, unsigned index)
{
    if (!child->respawn) {
        child->respawn = event_new(master.base, -1, 0, respawn_on_event, child);
    }
    if (!child_is_monitor(child)) {
        rows_take(child->row);
    }
    child->is_wanted = true;
    child->index = index;
    child->backoff.early_deaths = 0;
    child_spawn(child);
}

static void
child_retire(struct child *child, uint32_t timeout_ms, enum supervise_end why)
{
    bool was_wanted = child->is_wanted;
    child->is_wanted = false;
    if (child->pid == 0) {
        if (was_wanted && !child->is_unfolded) {
            respawn_cancel(child);
            child_give_back(child);
        }
        return;
    }
    respawn_cancel(child);
    if (child->retired_ms == 0) {
        child->retired_ms = clock_mono_ms();
    }
    child->kill_ms = clock_mono_ms() + timeout_ms + RETIRE_GRACE_MS;
    child_set_state(child, SHM_CHILD_RETIRING);
    child_send(child, CHANNEL_RETIRE, (uint64_t)why, timeout_ms);
}

/* ---- the count ---- */

/* The worker that retires for the shortest time: the one to call back, or the one that retires for
 * the longest: the one to end when no row is free. */
static struct child *
supervise_retiring(int index, bool youngest)
{
    struct child *best = NULL;
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        struct child *child = &master.children[i];
        if (child->state != SHM_CHILD_RETIRING || !child->is_linked ||
            (index >= 0 && child->index != (unsigned)index)) {
            continue;
        }
        if (!best || (youngest ? child->retired_ms > best->retired_ms
                               : child->retired_ms < best->retired_ms)) {
            best = child;
        }
    }
    return best;
}

/* The row of its own index if free, so that a worker that comes back goes on counting there. */
static struct child *
supervise_free_row(unsigned index)
{
    if (row_is_free(&master.children[index]) && rows_is_free(index)) {
        return &master.children[index];
    }
    for (unsigned i = SHM_ROWS; i-- > 0;) {
        if (row_is_free(&master.children[i]) && rows_is_free(i)) {
            return &master.children[i];
        }
    }
    return NULL;
}

static void
supervise_revive(struct child *child)
{
    log_info("%s: revived", child_name(child));
    child->is_wanted = true;
    child->is_reviving = true;
    child->retired_ms = 0;
    child->kill_ms = 0;
    child_set_state(child, SHM_CHILD_STARTING);
    child->started_ms = clock_mono_ms();
    child_send(child, CHANNEL_REVIVE, 0, 0);
    child_prepare(child, &master.current, false);
}

/* false: every row is taken by another master. */
static bool
supervise_add_worker(unsigned index)
{
    struct child *child = supervise_retiring((int)index, true);
    if (child) {
        supervise_revive(child);
        return true;
    }
    child = supervise_free_row(index);
    if (child) {
        child_want(child, index);
        return true;
    }
    child = supervise_retiring(-1, false);
    if (!child) {
        return false;
    }
    log_warn("%s: ended before its time: its row is needed", child_name(child));
    child_kill(child, SIGKILL);
    child->is_wanted = true; /* its end makes room for the new one */
    child->index = index;
    return true;
}

static void
supervise_on_room(evutil_socket_t fd, short what, void *arg)
{
    if (!master_is_stopping()) {
        supervise_set_count(master.count);
    }
}

/* Their masters give the rows back when they have seen the ends. */
static void
supervise_wait_for_room(unsigned missing)
{
    const struct timeval wait = {.tv_usec = FOLD_RETRY_MS * 1000};
    if (!rows_make_room(missing)) {
        log_error("no row of the segment is free for %u workers", missing);
        takeover_fail("no row of the segment is free for all workers");
        stop_failed(MASTER_EXIT_START);
    } else {
        event_base_once(master.base, -1, EV_TIMEOUT, supervise_on_room, NULL, &wait);
    }
}

void
supervise_set_count(unsigned count)
{
    unsigned missing = 0;
    master.count = count;
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        struct child *child = &master.children[i];
        if (child->is_wanted && child->index >= count) {
            child_retire(child, master.current.conf->retire_timeout, END_ONE);
        }
    }
    for (unsigned index = 0; index < count; index++) {
        missing += !supervise_worker(index) && !supervise_add_worker(index);
    }
    if (missing > 0) {
        supervise_wait_for_room(missing);
    }
    if (!takeover_is_pending()) {
        supervise_want_monitor();
    }
}

void
supervise_want_monitor(void)
{
    struct child *monitor = &master.children[CHILDREN_MONITOR];
    if (monitor->pid != 0) {
        monitor->is_wanted = true;
    } else if (!monitor->is_wanted) {
        child_want(monitor, 0);
    }
}

/* ---- what children say ---- */

static void
child_commit(struct child *child)
{
    char why[256];
    enum socket_use use = child_is_monitor(child) ? SOCKET_OF_MONITOR : SOCKET_OF_WORKER;
    if (sockets_listen(&master.sockets, use, child->index, why, sizeof(why)) < 0) {
        log_error("%s", why);
        stop_failed(MASTER_EXIT_START);
    }
    child_send(child, CHANNEL_COMMIT, child->gen, 0);
}

static void
supervise_on_ready(struct child *child)
{
    child->is_ready = true;
    if (child->state == SHM_CHILD_STARTING) {
        child_commit(child);
    }
}

static void
supervise_on_refused(struct child *child, struct slice why)
{
    if (child->state != SHM_CHILD_STARTING) {
        reload_on_refused(child, why);
        return;
    }
    log_error("%s: refused the configuration: %.*s", child_name(child), SLICE_ARG(why));
    stop_failed(MASTER_EXIT_CONFIG);
    child_kill(child, SIGKILL);
}

static void
supervise_on_committed(struct child *child)
{
    child->is_committed = true;
    if (child->state == SHM_CHILD_STARTING) {
        child->serving_ms = clock_mono_ms();
        child->is_reviving = false;
        child_set_state(child, SHM_CHILD_SERVING);
        adopt_settle();
    }
}

void
supervise_on_message(struct child *child, const struct channel_msg *msg)
{
    if (msg->type == CHANNEL_DRAINED) {
        if (msg->number > 0) {
            log_warn("%s: cut %llu streams that had not ended in time", child_name(child),
                     (unsigned long long)msg->number);
        }
        master.cut += msg->number;
        return;
    }
    if (msg->type == CHANNEL_NAME && child_is_monitor(child)) {
        names_on_answer(msg->text);
        return;
    }
    if (msg->gen != child->gen || child->state == SHM_CHILD_RETIRING) {
        return; /* an answer to something older */
    }
    switch (msg->type) {
    case CHANNEL_READY: supervise_on_ready(child); break;
    case CHANNEL_REFUSED: supervise_on_refused(child, msg->text); break;
    case CHANNEL_COMMITTED: supervise_on_committed(child); break;
    default: log_warn("%s: sent a message of no known kind", child_name(child)); return;
    }
    master_on_children_changed();
}

/* ---- deaths ---- */

static void
describe_status(int status, char *buf, size_t size)
{
    if (WIFSIGNALED(status)) {
        snprintf(buf, size, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else {
        snprintf(buf, size, "exit status %d", WEXITSTATUS(status));
    }
}

/* It shall live: again, at once or after a while. */
static void
supervise_replace(struct child *child, const char *how, bool has_served, uint64_t served_ms)
{
    uint32_t wait_ms = backoff_next(&child->backoff, has_served, served_ms);
    if (!child_is_monitor(child)) {
        shm_count(&master.shm.m->worker_restarts, 1);
    }
    if (wait_ms == 0) {
        log_error("%s: died: %s, respawned", child_name(child), how);
        child_spawn(child);
        return;
    }
    log_error("%s: died: %s, respawned in %u ms", child_name(child), how, wait_ms);
    respawn_after(child, wait_ms);
    adopt_settle();
}

static void
supervise_on_exit(struct child *child, int status)
{
    char how[64];
    describe_status(status, how, sizeof(how));
    /* One that is called back may have ended by itself before it heard of it. */
    bool was_retiring = child->state == SHM_CHILD_RETIRING || (child->is_reviving && status == 0);
    bool has_served = child->serving_ms != 0;
    uint64_t served_ms = has_served ? clock_mono_ms() - child->serving_ms : 0;
    child_unlink(child);
    child->pid = 0;
    child->is_unfolded = !child_is_monitor(child);
    child_set_state(child, SHM_CHILD_NONE);
    adopt_forget(child);
    child_fold(child);
    if (master.state <= MASTER_STARTING) {
        char why[128];
        snprintf(why, sizeof(why), "%s: died before it was ready: %s", child_name(child), how);
        log_error("%s", why);
        takeover_fail(why);
        stop_failed(MASTER_EXIT_START);
    } else if (child->is_wanted && was_retiring) {
        child_want(child, child->index);
    } else if (child->is_wanted && child_is_monitor(child) && has_served && status == 0) {
        log_info("%s: ended, another one begins", child_name(child)); /* as it wished */
        child_spawn(child);
    } else if (child->is_wanted) {
        supervise_replace(child, how, has_served, served_ms);
    } else if (status != 0) {
        log_warn("%s: ended: %s", child_name(child), how);
    } else {
        log_info("%s: ended", child_name(child));
    }
    if (child->is_unfolded && child->pid == 0) {
        respawn_after(child, FOLD_RETRY_MS);
    }
    child_give_back(child);
    adopt_settle();
    reload_on_death(child);
    master_on_children_changed();
}

/* What a dying child had sent stands in its channel: how many streams it cut. */
static void
supervise_read_last(struct child *child)
{
    struct channel_msg msg;
    while (child->is_linked && channel_recv(&child->channel, &msg) > 0) {
        if (msg.type == CHANNEL_DRAINED || msg.type == CHANNEL_REFUSED) {
            supervise_on_message(child, &msg);
        }
    }
}

void
supervise_reap(void)
{
    pid_t pid;
    int status;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
            if (master.children[i].pid == pid) {
                supervise_read_last(&master.children[i]);
                supervise_on_exit(&master.children[i], status);
            }
        }
        demo_on_exit(pid, status);
        upgrade_on_exit(pid, status);
    }
}

/* ---- the end ---- */

void
supervise_retire_all(uint32_t timeout_ms, enum supervise_end why)
{
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        struct child *child = &master.children[i];
        if (why == END_SERVER || child->state != SHM_CHILD_RETIRING) {
            child_retire(child, timeout_ms, why);
        }
    }
    struct child *monitor = &master.children[CHILDREN_MONITOR];
    monitor->is_wanted = false;
    respawn_cancel(monitor);
}

bool
supervise_has_workers(void)
{
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        if (master.children[i].pid != 0) {
            return true;
        }
    }
    return false;
}

bool
supervise_has_monitor(void)
{
    return master.children[CHILDREN_MONITOR].pid != 0;
}

void
supervise_end_monitor(void)
{
    child_retire(&master.children[CHILDREN_MONITOR], 0, END_SERVER);
    master.children[CHILDREN_MONITOR].kill_ms = clock_mono_ms() + MONITOR_GRACE_MS;
}

void
supervise_kill_all(void)
{
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        child_kill(&master.children[i], SIGKILL);
    }
}
