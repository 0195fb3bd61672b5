/* SPDX-License-Identifier: Apache-2.0
 *
 * children.c - start a child and speak to it.
 */
#include "master/children.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "master/daemon.h"
#include "master/master.h"
#include "master/spawn.h"
#include "master/supervise.h"
#include "shared/clock.h"
#include "shared/log.h"

void
children_init(struct child children[CHILDREN_COUNT])
{
    memset(children, 0, sizeof(children[0]) * CHILDREN_COUNT);
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        children[i].row = i;
    }
}

const char *
child_name(const struct child *child)
{
    static char name[32];
    if (child_is_monitor(child)) {
        return "monitor";
    }
    snprintf(name, sizeof(name), "worker %u", child->index);
    return name;
}

static struct shm_child *
child_record(const struct child *child)
{
    struct shm_master *m = master.shm.m;
    return child_is_monitor(child) ? &m->monitor : &m->workers[child->row];
}

void
child_set_state(struct child *child, enum shm_child_state state)
{
    struct shm_child *record = child_record(child);
    child->state = state;
    shm_set(&record->index, child->index);
    shm_set(&record->state, state);
    shm_set(&record->pid, (uint64_t)child->pid);
}

/* ---- in the child ---- */

struct child_entry {
    struct child *child;
    struct shm shm;
    struct child_args args;
};

static int
child_enter(void *arg)
{
    struct child_entry *entry = arg;
    const struct child *child = entry->child;
    daemon_leave_terminal();
    /* What the master has read, private keys among it, is none of a child's memory: it gets its
     * bundle. The descriptors are closed already. */
    if (master.current.conf) {
        conf_unref(master.current.conf);
        master.current.conf = NULL;
    }
    int fd = master.shm.fd;
    shm_unmap(&master.shm);
    enum shm_role role = child_is_monitor(child) ? SHM_ROLE_MONITOR : SHM_ROLE_WORKER;
    unsigned row = child_is_monitor(child) ? 0 : child->row;
    if (shm_map(&entry->shm, fd, role, row) < 0) {
        return -1;
    }
    entry->args.shm = &entry->shm;
    entry->args.row = row;
    return 0;
}

static int
child_run(void *arg)
{
    struct child_entry *entry = arg;
    bool is_monitor = child_is_monitor(entry->child);
    child_main *run = is_monitor ? master.options->monitor : master.options->worker;
    return run(&entry->args);
}

/* ---- channel ---- */

static void
child_watch(struct child *child)
{
    if (channel_has_queued(&child->channel)) {
        event_add(child->writable, NULL);
    } else {
        event_del(child->writable);
    }
}

static void
child_on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct child *child = arg;
    (void)fd;
    (void)what;
    if (channel_flush(&child->channel) < 0) {
        child_unlink(child);
        return;
    }
    child_watch(child);
}

static void
child_on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct child *child = arg;
    (void)fd;
    (void)what;
    struct channel_msg msg;
    /* One message a turn: answering may end the child, and level triggering brings us back. */
    int rc = channel_recv(&child->channel, &msg);
    if (rc < 0) {
        child_unlink(child);
    } else if (rc > 0) {
        if (msg.fd >= 0) {
            close(msg.fd); /* children have none to give */
        }
        supervise_on_message(child, &msg);
    }
}

static int
child_link(struct child *child, int fd)
{
    channel_init(&child->channel, fd);
    child->is_linked = true;
    child->readable = event_new(master.base, fd, EV_READ | EV_PERSIST, child_on_readable, child);
    child->writable = event_new(master.base, fd, EV_WRITE | EV_PERSIST, child_on_writable, child);
    if (!child->readable || !child->writable || event_add(child->readable, NULL) < 0) {
        child_unlink(child);
        return -1;
    }
    return 0;
}

void
child_unlink(struct child *child)
{
    if (!child->is_linked) {
        return;
    }
    if (child->readable) {
        event_free(child->readable); /* before the close: the description may live on elsewhere */
    }
    if (child->writable) {
        event_free(child->writable);
    }
    child->readable = NULL;
    child->writable = NULL;
    channel_fini(&child->channel);
    child->is_linked = false;
}

static void
child_send_message(struct child *child, const struct channel_msg *msg)
{
    if (!child->is_linked) {
        return;
    }
    if (channel_send(&child->channel, msg) < 0) {
        child_unlink(child);
        return;
    }
    child_watch(child);
}

void
child_send(struct child *child, enum channel_type type, uint64_t gen, uint64_t number)
{
    struct channel_msg msg = {.type = type, .gen = gen, .number = number, .fd = -1};
    child_send_message(child, &msg);
}

void
child_send_socket(struct child *child, enum channel_type type, const struct listen_socket *s)
{
    struct channel_msg msg = {.type = type,
                              .number = s->index,
                              .fd = type == CHANNEL_DISOWN ? -1 : s->fd,
                              .text = slice_from_str(s->text)};
    child_send_message(child, &msg);
}

static void
child_send_log(struct child *child, const struct log_file *file)
{
    if (file->path) {
        struct channel_msg msg = {
            .type = CHANNEL_LOG, .fd = file->fd, .text = slice_from_str(file->path)};
        child_send_message(child, &msg);
    }
}

void
child_send_logs(struct child *child, const struct logs *logs)
{
    child_send_log(child, &logs->error);
    if (!child_is_monitor(child)) {
        child_send_log(child, &logs->access);
    }
}

void
child_prepare(struct child *child, const struct generation *gen, bool only_new_sockets)
{
    enum socket_use use = child_is_monitor(child) ? SOCKET_OF_MONITOR : SOCKET_OF_WORKER;
    for (unsigned i = 0; i < master.sockets.count; i++) {
        const struct listen_socket *s = &master.sockets.list[i];
        if (sockets_belongs(s, use, child->index) && (s->is_new || !only_new_sockets)) {
            child_send_socket(child, CHANNEL_SOCKET, s);
        }
    }
    child_send_logs(child, &gen->logs);
    child->gen = gen->conf->gen;
    child->is_ready = false;
    child->is_committed = false;
    struct channel_msg msg = {.type = CHANNEL_PREPARE,
                              .gen = child->gen,
                              .fd = child_is_monitor(child) ? gen->public_bundle : gen->bundle};
    child_send_message(child, &msg);
}

/* ---- life ---- */

static pid_t
child_fork(struct child *child, int channel_fd)
{
    static struct child_entry entry; /* the child's own copy after fork */
    int keep[CHILDREN_COUNT + 2];
    unsigned nkeep = 0;
    memcpy(keep, master.wakes, sizeof(master.wakes));
    nkeep += CHILDREN_COUNT;
    keep[nkeep++] = master.shm.fd;
    keep[nkeep++] = channel_fd;
    entry.child = child;
    entry.args = (struct child_args){.index = child->index,
                                     .channel_fd = channel_fd,
                                     .wakes = master.wakes,
                                     .wake_fd = master.wakes[child->row]};
    struct spawn_plan plan = {.name = child_name(child),
                              .base = master.base,
                              .id = &master.identity,
                              .keep = keep,
                              .nkeep = nkeep,
                              .prepare = child_enter,
                              .run = child_run,
                              .arg = &entry};
    return spawn_process(&plan);
}

int
child_start(struct child *child)
{
    int fds[2];
    if (channel_pair(fds) < 0) {
        return -1;
    }
    child->pid = child_fork(child, fds[1]);
    close(fds[1]);
    if (child->pid < 0 || child_link(child, fds[0]) < 0) {
        int saved = errno;
        if (child->pid < 0) {
            close(fds[0]);
            child->pid = 0;
        }
        errno = saved;
        return -1; /* one that was forked exits: its channel is closed */
    }
    child->started_ms = clock_mono_ms();
    child->serving_ms = 0;
    child->retired_ms = 0;
    child->kill_ms = 0;
    child->is_reviving = false;
    child_set_state(child, SHM_CHILD_STARTING);
    child_prepare(child, &master.current, false);
    return 0;
}

void
child_kill(struct child *child, int signal_number)
{
    if (child->pid > 0) {
        kill(child->pid, signal_number);
    }
}

/* ---- all of them ---- */

bool
children_all_serve(uint64_t gen)
{
    unsigned workers = 0;
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        const struct child *child = &master.children[i];
        if (child->is_wanted &&
            (child->state != SHM_CHILD_SERVING || child->gen != gen || !child->is_committed)) {
            return false;
        }
        workers += child->is_wanted && !child_is_monitor(child);
    }
    return workers >= master.count; /* one may still wait for a row */
}

bool
children_is_starting(void)
{
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        if (master.children[i].state == SHM_CHILD_STARTING) {
            return true;
        }
    }
    return false;
}

unsigned
children_serving(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        count += master.children[i].state == SHM_CHILD_SERVING;
    }
    return count;
}
