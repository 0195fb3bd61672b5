/* SPDX-License-Identifier: Apache-2.0
 *
 * upgrade.c - start the new binary, hand over, retire: see upgrade.h.
 */
#include "master/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "master/control.h"
#include "master/daemon.h"
#include "master/handoff.h"
#include "master/master.h"
#include "master/notify.h"
#include "master/reload.h"
#include "master/rows.h"
#include "master/slots.h"
#include "master/stop.h"
#include "master/supervise.h"
#include "shared/clock.h"
#include "shared/log.h"

#define SILENCE_S 10
#define STOP_S    5 /* the server is to stop: until the upgrade has come out */
#define LAST_S    1 /* from the end of its channel, or TERM, to its end */

enum upgrade_phase {
    UPGRADE_IDLE,
    UPGRADE_STARTING, /* the new master reads, forks, and says that it serves */
    UPGRADE_LEAVING,  /* our monitor ends */
    UPGRADE_GIVEN,    /* "yours" was said; it says when it is in charge */
    UPGRADE_FAILING,  /* it is to end */
    UPGRADE_DONE
};

static struct {
    enum upgrade_phase phase;
    pid_t pid;
    bool is_linked;
    struct channel channel;
    struct event *readable, *writable, *timer;
    struct list waiters;
    char why[1024];         /* it failed */
    const char *remembered; /* the cause of one that waits for a reload; NULL: none does */
    const char *stop_cause; /* the server is to stop when it has come out; NULL: it is not */
} upgrade = {.waiters = LIST_INIT(upgrade.waiters)};

/* ---- the program ---- */

const char *
upgrade_program(void)
{
    static char path[PATH_MAX * 2];
    char here[PATH_MAX];
    const char *started = (const char *)getauxval(AT_EXECFN);
    if (path[0] == '\0' && started && started[0] == '/') {
        snprintf(path, sizeof(path), "%s", started);
    } else if (path[0] == '\0' && started && getcwd(here, sizeof(here))) {
        snprintf(path, sizeof(path), "%s/%s", here, started);
    }
    return path[0] ? path : NULL;
}

/* In the child: what names the master by its process id names the new one. */
static void
set_environment(pid_t former, int channel_fd)
{
    char text[32];
    const char *watched = getenv("WATCHDOG_PID");
    snprintf(text, sizeof(text), "%d %ld", channel_fd, (long)former);
    setenv(HANDOFF_VARIABLE, text, 1);
    if (watched && strtol(watched, NULL, 10) == (long)former) {
        snprintf(text, sizeof(text), "%ld", (long)getpid());
        setenv("WATCHDOG_PID", text, 1);
    }
}

static void __attribute__((noreturn)) upgrade_exec(pid_t former, int channel_fd)
{
    static const int caught[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGCHLD, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof(caught) / sizeof(caught[0]); i++) {
        signal(caught[i], SIG_DFL);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    fcntl(channel_fd, F_SETFD, 0);
    set_environment(former, channel_fd);
    execv(upgrade_program(), master.options->argv);
    char why[PATH_MAX * 2 + 128];
    struct channel to_former;
    snprintf(why, sizeof(why), "%s: %s", upgrade_program(), strerror(errno));
    channel_init(&to_former, channel_fd);
    struct channel_msg msg = {.type = CHANNEL_FAILED, .fd = -1, .text = slice_from_str(why)};
    channel_send(&to_former, &msg);
    _exit(MASTER_EXIT_START);
}

static pid_t
upgrade_fork(int channel_fd)
{
    sigset_t all, before;
    pid_t former = getpid();
    sigfillset(&all);
    fflush(NULL);
    /* A signal between fork and exec would run our handler, which writes into our own pipe. */
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) {
        upgrade_exec(former, channel_fd);
    }
    int saved = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return pid;
}

/* ---- failure ---- */

static void
upgrade_set_timer(int seconds)
{
    struct timeval wait = {.tv_sec = seconds};
    if (upgrade.timer) {
        event_add(upgrade.timer, &wait);
    }
}

static void
upgrade_clear_timer(void)
{
    if (upgrade.timer) {
        event_del(upgrade.timer);
    }
}

static void
upgrade_unlink(void)
{
    if (!upgrade.is_linked) {
        return;
    }
    if (upgrade.readable) {
        event_free(upgrade.readable);
    }
    if (upgrade.writable) {
        event_free(upgrade.writable);
    }
    channel_fini(&upgrade.channel);
    upgrade.is_linked = false;
}

/* It ends; when it has, this master is as before. TERM lets it remove its files, but once "yours"
 * was said it may be in charge at any moment, and would end this one as well. */
static void
upgrade_give_up(const char *why)
{
    bool is_gentle = upgrade.phase == UPGRADE_STARTING || upgrade.phase == UPGRADE_LEAVING;
    if (upgrade.why[0] == '\0') {
        snprintf(upgrade.why, sizeof(upgrade.why), "%s", why);
    }
    upgrade.phase = UPGRADE_FAILING;
    upgrade_set_timer(LAST_S);
    kill(upgrade.pid, is_gentle ? SIGTERM : SIGKILL);
}

/* It was killed, and had not come so far as to put them in the place of ours. */
static void
upgrade_remove_files(pid_t pid)
{
    const struct conf *conf = master.current.conf;
    const char *pid_file = daemon_pid_file(master.options, conf);
    char socket[PATH_MAX]; /* see control_open() */
    struct stat st;
    if (pid_file) {
        daemon_remove_unfinished(pid_file, pid);
    }
    snprintf(socket, sizeof(socket), "%s.new", conf->control.path ? conf->control.path : "");
    if (conf->control.path && lstat(socket, &st) == 0 && S_ISSOCK(st.st_mode)) {
        unlink(socket);
    }
}

static void
upgrade_go_on(void)
{
    char ignored[256];
    pid_t pid = upgrade.pid;
    upgrade.phase = UPGRADE_IDLE;
    upgrade.pid = 0;
    upgrade_unlink();
    upgrade_clear_timer();
    upgrade_remove_files(pid);
    rows_recover(pid);
    /* It may have claimed slots: as after a reload that was refused. */
    master.last_gen++;
    shm_slots_forget(&master.shm);
    slots_claim(&master.shm, master.current.conf, ignored, sizeof(ignored));
    slots_sweep(&master.shm, master.current.conf, master.last_gen);
    log_error("upgrade: refused: %s; this process (%ld) serves on", upgrade.why, (long)getpid());
    if (!master_is_stopping()) {
        master_publish();
        control_restore(master.current.conf);
        supervise_set_count(master.count);
        notify_send(NOTIFY_READY, "serving; the last upgrade was refused");
    }
    verdict_tell(&upgrade.waiters, false, upgrade.why);
    master_on_children_changed();
    const char *stop_cause = upgrade.stop_cause;
    upgrade.stop_cause = NULL;
    if (stop_cause) {
        stop_request(stop_cause);
    }
}

/* What it had said before its end stands in its channel. */
static void
upgrade_read_last(void)
{
    struct channel_msg msg;
    while (upgrade.is_linked && channel_recv(&upgrade.channel, &msg) > 0) {
        if (msg.type == CHANNEL_FAILED && upgrade.why[0] == '\0') {
            snprintf(upgrade.why, sizeof(upgrade.why), "%.*s", SLICE_ARG(msg.text));
        }
        if (msg.fd >= 0) {
            close(msg.fd);
        }
    }
}

void
upgrade_on_exit(pid_t pid, int status)
{
    char why[64];
    if (pid != upgrade.pid || pid == 0) {
        return;
    }
    if (upgrade.phase == UPGRADE_DONE) {
        log_warn("upgrade: the new master, process %ld, has ended", (long)pid);
        upgrade.pid = 0;
        upgrade_unlink();
        return;
    }
    upgrade_read_last();
    if (WIFSIGNALED(status)) {
        snprintf(why, sizeof(why), "the new binary was killed by signal %d", WTERMSIG(status));
    } else {
        snprintf(why, sizeof(why), "the new binary ended with status %d", WEXITSTATUS(status));
    }
    if (upgrade.why[0] == '\0') {
        snprintf(upgrade.why, sizeof(upgrade.why), "%s", why);
    }
    upgrade_go_on();
}

static void
on_silence(evutil_socket_t fd, short what, void *arg)
{
    char why[64];
    snprintf(why, sizeof(why), "the new binary was silent for %d s", SILENCE_S);
    upgrade_give_up(upgrade.stop_cause ? "akashd is stopping" : why);
}

/* ---- what the new one says ---- */

static void
upgrade_send(enum channel_type type, uint64_t number)
{
    struct channel_msg msg = {.type = type, .number = number, .fd = -1};
    if (upgrade.is_linked && channel_send(&upgrade.channel, &msg) == 0 &&
        channel_has_queued(&upgrade.channel)) {
        event_add(upgrade.writable, NULL);
    }
}

static void
upgrade_say_yours(void)
{
    if (!supervise_has_monitor()) {
        upgrade.phase = UPGRADE_GIVEN;
        upgrade_send(CHANNEL_YOURS, 0);
    }
}

static void
upgrade_on_serves(void)
{
    if (upgrade.phase != UPGRADE_STARTING) {
        return;
    }
    upgrade.phase = UPGRADE_LEAVING;
    supervise_end_monitor();
    upgrade_say_yours();
}

static void
upgrade_on_taken(void)
{
    if (upgrade.phase != UPGRADE_GIVEN) {
        return;
    }
    upgrade.phase = UPGRADE_DONE;
    event_del(upgrade.timer);
    notify_main_pid(upgrade.pid);
    log_info("upgrade: done: process %ld is in charge; this one ends with its last stream, within "
             "%u s",
             (long)upgrade.pid, master.current.conf->retire_timeout / 1000);
    verdict_tell(&upgrade.waiters, true, "");
    if (reload_is_awaited()) {
        kill(upgrade.pid, SIGHUP); /* it may have read the file too early */
    }
    stop_replaced();
    if (upgrade.stop_cause) {
        kill(upgrade.pid, SIGTERM); /* it stops, and this one with it */
    }
}

static void
upgrade_on_message(const struct channel_msg *msg)
{
    switch (msg->type) {
    case CHANNEL_STEP: break;
    case CHANNEL_SERVES: upgrade_on_serves(); break;
    case CHANNEL_TAKEN: upgrade_on_taken(); return;
    case CHANNEL_FAILED:
        snprintf(upgrade.why, sizeof(upgrade.why), "%.*s", SLICE_ARG(msg->text));
        break;
    default: log_warn("upgrade: the new master sent a message of no known kind"); return;
    }
    if (upgrade.phase != UPGRADE_DONE && upgrade.phase != UPGRADE_FAILING && !upgrade.stop_cause) {
        upgrade_set_timer(SILENCE_S);
    }
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct channel_msg msg;
    int rc = channel_recv(&upgrade.channel, &msg);
    if (rc > 0) {
        if (msg.fd >= 0) {
            close(msg.fd);
        }
        upgrade_on_message(&msg);
    } else if (rc < 0) {
        upgrade_unlink();
        if (upgrade.phase != UPGRADE_DONE) {
            upgrade_set_timer(LAST_S); /* its status says more than the end of its channel */
        }
    }
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
    int rc = channel_flush(&upgrade.channel);
    if (rc != 0) {
        event_del(upgrade.writable); /* sent, or broken: then reading tells */
    }
}

/* ---- the beginning ---- */

static int
upgrade_link(int fd)
{
    channel_init(&upgrade.channel, fd);
    upgrade.is_linked = true;
    upgrade.readable = event_new(master.base, fd, EV_READ | EV_PERSIST, on_readable, NULL);
    upgrade.writable = event_new(master.base, fd, EV_WRITE | EV_PERSIST, on_writable, NULL);
    if (!upgrade.timer) {
        upgrade.timer = event_new(master.base, -1, 0, on_silence, NULL);
    }
    return upgrade.readable && upgrade.writable && upgrade.timer &&
                   event_add(upgrade.readable, NULL) == 0
               ? 0
               : -1;
}

static void
upgrade_begin(void)
{
    int fds[2];
    if (channel_pair(fds) < 0) {
        snprintf(upgrade.why, sizeof(upgrade.why), "no channel: %s", strerror(errno));
        return;
    }
    pid_t pid = upgrade_fork(fds[1]);
    close(fds[1]);
    if (pid < 0) {
        snprintf(upgrade.why, sizeof(upgrade.why), "cannot fork: %s", strerror(errno));
        close(fds[0]);
        return;
    }
    upgrade.pid = pid;
    upgrade.phase = UPGRADE_STARTING;
    if (upgrade_link(fds[0]) < 0) {
        upgrade_give_up("out of memory");
        return;
    }
    if (handoff_send(&upgrade.channel) < 0) {
        upgrade_set_timer(LAST_S); /* it has ended already: its status says why */
        return;
    }
    if (channel_has_queued(&upgrade.channel)) {
        event_add(upgrade.writable, NULL);
    }
    upgrade_set_timer(SILENCE_S);
}

static const char *
reason_to_refuse(void)
{
    if (master.state == MASTER_REPLACED) {
        return "this process was replaced already";
    }
    if (master.state != MASTER_RUNNING) {
        return "akashd is not in service";
    }
    if (upgrade.phase != UPGRADE_IDLE || upgrade.remembered) {
        return "an upgrade is under way";
    }
    return upgrade_program() ? NULL : "the path of the program is not known";
}

/* What cannot even begin is told to those who wait. */
static void
upgrade_start(const char *cause)
{
    upgrade.why[0] = '\0';
    upgrade.remembered = NULL;
    log_info("upgrade: asked for by %s: starting %s", cause, upgrade_program());
    upgrade_begin();
    if (upgrade.phase == UPGRADE_IDLE) {
        log_warn("upgrade: %s: refused: %s", cause, upgrade.why);
        verdict_tell(&upgrade.waiters, false, upgrade.why);
    }
}

void
upgrade_request(const char *cause, struct verdict_waiter *waiter)
{
    const char *refusal = reason_to_refuse();
    if (waiter) {
        list_init(&waiter->link);
    }
    if (refusal) {
        log_warn("upgrade: %s: refused: %s", cause, refusal);
        if (waiter) {
            waiter->done(waiter, false, refusal);
        }
        return;
    }
    if (waiter) {
        list_add_tail(&upgrade.waiters, &waiter->link);
    }
    if (reload_is_awaited()) {
        log_info("upgrade: asked for by %s; begins after the reload that is under way", cause);
        upgrade.remembered = cause;
    } else {
        upgrade_start(cause);
    }
}

void
upgrade_check(void)
{
    if (upgrade.phase == UPGRADE_LEAVING) {
        upgrade_say_yours();
    } else if (upgrade.remembered && master.state == MASTER_RUNNING && !reload_is_awaited()) {
        upgrade_start(upgrade.remembered);
    }
}

bool
upgrade_is_running(void)
{
    return upgrade.phase != UPGRADE_IDLE && upgrade.phase != UPGRADE_DONE;
}

bool
upgrade_postpones_stop(const char *cause)
{
    if (!upgrade_is_running() || upgrade.stop_cause) {
        return false;
    }
    upgrade.stop_cause = cause;
    if (upgrade.phase != UPGRADE_FAILING) {
        upgrade_set_timer(STOP_S);
    }
    return true;
}

void
upgrade_cancel(void)
{
    upgrade.stop_cause = NULL; /* it was asked again */
    if (upgrade.remembered) {
        upgrade.remembered = NULL;
        verdict_tell(&upgrade.waiters, false, "akashd is stopping");
    }
    if (upgrade_is_running()) {
        upgrade_give_up("akashd is stopping");
    }
}

void
upgrade_fini(void)
{
    if (upgrade_is_running()) {
        kill(upgrade.pid, SIGKILL);
        waitpid(upgrade.pid, NULL, 0);
        upgrade_remove_files(upgrade.pid);
    }
    upgrade_unlink();
    if (upgrade.timer) {
        event_free(upgrade.timer);
        upgrade.timer = NULL;
    }
}
