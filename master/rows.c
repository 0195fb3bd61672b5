/* SPDX-License-Identifier: Apache-2.0
 *
 * rows.c - rows of several masters on one segment: see rows.h.
 */
#include "master/rows.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "master/master.h"
#include "master/takeover.h"
#include "shared/list.h"
#include "shared/log.h"

#define RECOVER_RETRY_MS 10

/* Another master that has rows, or had this master's place. */
struct watched {
    struct list link;
    pid_t pid;
    int fd;            /* a pidfd; -1: it is dead */
    struct event *end; /* readable when it has ended; NULL: we are not in charge yet */
};

static struct list masters = LIST_INIT(masters);
static struct event *retry;

/* The id cannot be another process's as long as the descriptor is open. */
static int
process_open(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd;
}

static bool
process_has_ended(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

bool
rows_process_is_gone(pid_t pid)
{
    int fd = pid > 0 ? process_open(pid) : -1;
    if (fd < 0) {
        return pid <= 0 || errno == ESRCH;
    }
    bool is_gone = process_has_ended(fd);
    close(fd);
    return is_gone;
}

bool
rows_is_free(unsigned row)
{
    uint64_t owner = shm_get(&master.shm.m->workers[row].owner);
    return owner == 0 || owner == (uint64_t)getpid();
}

void
rows_take(unsigned row)
{
    shm_set(&master.shm.m->workers[row].owner, (uint64_t)getpid());
}

void
rows_give_back(unsigned row)
{
    shm_set(&master.shm.m->workers[row].owner, 0);
}

/* ---- room ---- */

static bool is_ended[SHM_ROWS]; /* by us, and not given back yet */

static bool
is_foreign(const struct shm_child *record)
{
    uint64_t owner = shm_get(&record->owner);
    return owner != 0 && owner != (uint64_t)getpid();
}

/* A worker of a former master that retires; the one with the oldest configuration. -1: none. */
static int
oldest_retiring(void)
{
    int oldest = -1;
    for (unsigned row = 0; row < SHM_ROWS; row++) {
        const struct shm_child *record = &master.shm.m->workers[row];
        if (!is_foreign(record) || is_ended[row] || shm_get(&record->pid) == 0 ||
            shm_get(&record->state) != SHM_CHILD_RETIRING) {
            continue;
        }
        if (oldest < 0 || shm_get(&master.shm.rows[row]->oldest_gen) <
                              shm_get(&master.shm.rows[oldest]->oldest_gen)) {
            oldest = (int)row;
        }
    }
    return oldest;
}

bool
rows_make_room(unsigned count)
{
    unsigned pending = 0;
    for (unsigned row = 0; row < SHM_ROWS; row++) {
        is_ended[row] = is_ended[row] && is_foreign(&master.shm.m->workers[row]);
        pending += is_ended[row];
    }
    for (; pending < count; pending++) {
        int row = oldest_retiring();
        if (row < 0) {
            return false;
        }
        const struct shm_child *record = &master.shm.m->workers[row];
        log_warn("worker %llu of master %llu: ended before its time: its row is needed",
                 (unsigned long long)shm_get(&record->index),
                 (unsigned long long)shm_get(&record->owner));
        kill((pid_t)shm_get(&record->pid), SIGKILL);
        is_ended[row] = true;
    }
    return true;
}

/* ---- of the dead ---- */

/* true: it is nobody's now. */
static bool
row_recover(unsigned row)
{
    struct shm_child *record = &master.shm.m->workers[row];
    if (!rows_process_is_gone((pid_t)shm_get(&record->pid))) {
        return false; /* it ends with its master, but not in the same instant */
    }
    shm_set(&record->pid, 0);
    shm_set(&record->state, SHM_CHILD_NONE);
    if (!shm_fold_row(&master.shm, row)) {
        return false;
    }
    rows_give_back(row);
    return true;
}

static bool
master_recover(pid_t owner)
{
    bool is_done = true;
    for (unsigned row = 0; row < SHM_ROWS; row++) {
        if (shm_get(&master.shm.m->workers[row].owner) == (uint64_t)owner) {
            is_done &= row_recover(row);
        }
    }
    return is_done;
}

static void
watched_free(struct watched *w)
{
    list_del(&w->link);
    if (w->end) {
        event_free(w->end);
    }
    if (w->fd >= 0) {
        close(w->fd);
    }
    free(w);
}

static void
recover_later(void)
{
    struct timeval wait = {.tv_usec = RECOVER_RETRY_MS * 1000};
    event_add(retry, &wait);
}

static void
on_retry(evutil_socket_t fd, short what, void *arg)
{
    bool is_done = true;
    list_for_each_safe (it, &masters) {
        struct watched *w = container_of(it, struct watched, link);
        if (w->fd >= 0 && !process_has_ended(w->fd)) {
            continue;
        }
        if (master_recover(w->pid)) {
            watched_free(w);
        } else {
            is_done = false;
        }
    }
    if (!is_done) {
        recover_later();
    }
}

static void
on_end(evutil_socket_t fd, short what, void *arg)
{
    struct watched *w = arg;
    event_del(w->end);
    on_retry(-1, 0, NULL);
}

static struct watched *
watched_find(pid_t pid)
{
    list_for_each (it, &masters) {
        struct watched *w = container_of(it, struct watched, link);
        if (w->pid == pid) {
            return w;
        }
    }
    return NULL;
}

static void
watched_arm(struct watched *w)
{
    w->end = w->end ? w->end : event_new(master.base, w->fd, EV_READ | EV_PERSIST, on_end, w);
    if (w->end) {
        event_add(w->end, NULL);
    }
}

/* NULL: it is watched already, or memory is short. */
static struct watched *
watched_new(pid_t pid, int fd)
{
    struct watched *w = watched_find(pid) ? NULL : calloc(1, sizeof(*w));
    if (w) {
        *w = (struct watched){.pid = pid, .fd = fd};
        list_add_tail(&masters, &w->link);
    }
    return w;
}

static void
watched_add(pid_t pid)
{
    int fd = process_open(pid);
    if (fd < 0 && errno != ESRCH) {
        log_warn("akashd: master %ld: cannot be watched: %s; its rows are lost when it is killed",
                 (long)pid, strerror(errno));
        return;
    }
    struct watched *w = watched_new(pid, fd);
    if (w && fd >= 0) {
        watched_arm(w);
    } else if (w) {
        recover_later();
    } else if (fd >= 0) {
        close(fd);
    }
}

static void
rows_init(void)
{
    if (!retry) {
        retry = event_new(master.base, -1, 0, on_retry, NULL);
    }
}

void
rows_watch(void)
{
    pid_t former = takeover_former();
    rows_init();
    list_for_each (it, &masters) {
        watched_arm(container_of(it, struct watched, link)); /* handed over, so with a pidfd */
    }
    if (former != 0 && former == getppid()) {
        watched_add(former);
    }
    for (unsigned row = 0; row < SHM_ROWS; row++) {
        pid_t owner = (pid_t)shm_get(&master.shm.m->workers[row].owner);
        if (owner != 0 && owner != getpid()) {
            watched_add(owner);
        }
    }
}

void
rows_recover(pid_t owner)
{
    rows_init();
    watched_add(owner);
}

int
rows_hand_over(struct channel *to)
{
    list_for_each (it, &masters) {
        const struct watched *w = container_of(it, struct watched, link);
        struct channel_msg msg = {
            .type = CHANNEL_HAND_MASTER, .number = (uint64_t)w->pid, .fd = w->fd};
        if (w->fd >= 0 && channel_send(to, &msg) < 0) {
            return -1;
        }
    }
    return 0;
}

void
rows_take_over(pid_t pid, int fd)
{
    if (pid <= 0 || !watched_new(pid, fd)) {
        close(fd);
    }
}

void
rows_signal_masters(int number)
{
    list_for_each (it, &masters) {
        const struct watched *w = container_of(it, struct watched, link);
        if (w->fd >= 0) {
            syscall(SYS_pidfd_send_signal, w->fd, number, NULL, 0);
        }
    }
}

void
rows_fini(void)
{
    while (!list_is_empty(&masters)) {
        watched_free(list_first(&masters, struct watched, link));
    }
    if (retry) {
        event_free(retry);
        retry = NULL;
    }
}
