/* SPDX-License-Identifier: Apache-2.0
 *
 * master.c - the control plane's loop: from the first configuration to the last child's end.
 */
#include "master/master.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "master/activation.h"
#include "master/adopt.h"
#include "master/advice.h"
#include "master/control.h"
#include "master/daemon.h"
#include "master/demo.h"
#include "master/heartbeat.h"
#include "master/names.h"
#include "master/notify.h"
#include "master/operator.h"
#include "master/process_stat.h"
#include "master/reload.h"
#include "master/rows.h"
#include "master/slots.h"
#include "master/stop.h"
#include "master/supervise.h"
#include "master/takeover.h"
#include "master/upgrade.h"
#include "shared/clock.h"
#include "shared/log.h"
#include "shared/sandbox.h"
#include "shared/title.h"

#define TICK_MS 1000

struct master master;

static const int signal_numbers[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGCHLD, SIGUSR1, SIGUSR2};
#define NSIGNALS (sizeof(signal_numbers) / sizeof(signal_numbers[0]))
static struct event *signals[NSIGNALS];
static struct event *tick, *watchdog;
static struct load *load; /* of the first configuration */

/* ---- progress ---- */

static void
log_ready(void)
{
    const struct conf *conf = master.current.conf;
    char where[512] = "";
    size_t len = 0;
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        for (unsigned a = 0; a < conf->listeners[i].naddrs && len < sizeof(where); a++) {
            int n = snprintf(where + len, sizeof(where) - len, "%s%s", len > 0 ? ", " : "",
                             conf->listeners[i].addr_texts[a]);
            len += n > 0 ? (size_t)n : 0;
        }
    }
    log_info("akashd: ready: %u worker%s, listening on %s", conf->workers,
             conf->workers == 1 ? "" : "s", where);
}

void
master_publish(void)
{
    struct shm_master *m = master.shm.m;
    shm_set(&m->pid, (uint64_t)getpid());
    shm_set(&m->gen, master.current.conf->gen);
    shm_set(&m->conf_hash, master.current.conf->hash);
}

/* cause: why there is a configuration now. */
static void
become_ready(const char *cause)
{
    const char *pid_file = daemon_pid_file(master.options, master.current.conf);
    master.state = MASTER_RUNNING;
    sockets_keep(&master.sockets);
    master_publish();
    process_stat_publish(master.shm.m);
    shm_set(&master.shm.m->started_us, clock_wall_us());
    reload_record(cause, 0, true, "");
    if (pid_file && daemon_write_pid(pid_file) < 0) {
        log_error("pid_file: %s: %s", pid_file, strerror(errno));
    }
    log_ready();
    activation_warn_unused();
    notify_send(NOTIFY_READY, "serving");
    daemon_tell_parent(MASTER_EXIT_OK);
}

void
master_take_charge(void)
{
    const struct conf *conf = master.current.conf;
    /* Addresses that are no longer served: the former workers take what is queued there. */
    sockets_own(&master.sockets);
    sockets_let_nobody_in(&master.sockets, conf);
    sockets_sweep(&master.sockets, conf);
    slots_sweep(&master.shm, conf, conf->gen);
    control_settle();
    become_ready("upgrade");
    rows_watch();
    supervise_want_monitor();
    adopt_settle();
}

void
master_on_children_changed(void)
{
    if (master.state == MASTER_STARTING && children_all_serve(master.current.conf->gen)) {
        if (takeover_is_pending()) {
            takeover_serve();
        } else {
            become_ready("start");
        }
    }
    upgrade_check();
    if (master.state == MASTER_RUNNING) {
        reload_check();
    }
    if (master.state == MASTER_REPLACED && !supervise_has_workers()) {
        event_base_loopbreak(master.base);
    }
    if (master.state == MASTER_DRAINING && !supervise_has_workers()) {
        master.state = MASTER_ENDING;
        supervise_end_monitor();
    }
    if (master.state == MASTER_ENDING && !supervise_has_monitor()) {
        event_base_loopbreak(master.base);
    }
}

/* ---- start ---- */

static void
fail_start(const char *why)
{
    log_error("%s", why);
    takeover_fail(why);
    stop_failed(MASTER_EXIT_START);
}

static int
open_wakes(void)
{
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        master.wakes[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (master.wakes[i] < 0) {
            return -1;
        }
    }
    return 0;
}

static int
open_segment(char *why, size_t size)
{
    if (takeover_has_segment()) {
        return 0;
    }
    if (shm_create(&master.shm) != 0 || open_wakes() != 0) {
        snprintf(why, size, "segment: %s", strerror(errno));
        return -1;
    }
    shm_keys_rotate(&master.shm, clock_wall_us() / 1000000);
    return 0;
}

/* Everything between a good configuration and the first fork; each step names what it failed on. */
static void
start(void)
{
    char why[512];
    struct conf *conf = master.current.conf;
    const char *pid_file = daemon_pid_file(master.options, conf);
    if ((pid_file && daemon_check_pid(pid_file, takeover_former(), why, sizeof(why)) < 0) ||
        identity_find(&master.identity, conf->user, conf->group, why, sizeof(why)) < 0 ||
        open_segment(why, sizeof(why)) < 0 ||
        slots_claim(&master.shm, conf, why, sizeof(why)) < 0 ||
        sockets_prepare(&master.sockets, conf, conf->workers, why, sizeof(why)) < 0 ||
        logs_open(&master.current.logs, conf, why, sizeof(why)) < 0 ||
        control_open(conf, why, sizeof(why)) < 0 ||
        generation_seal(&master.current, ++master.last_gen, why, sizeof(why)) < 0) {
        fail_start(why);
        return;
    }
    log_own_stderr();
    logs_use(&master.current.logs, conf);
    operator_apply_log_level();
    advice_give(conf);
    sandbox_advise();
    master.state = MASTER_STARTING;
    supervise_set_count(conf->workers);
}

static void
on_loaded(struct generation *gen, const struct conf_errors *errors, void *arg)
{
    load = NULL;
    for (unsigned i = 0; i < errors->nwarnings; i++) {
        log_warn("%s", errors->warnings[i]);
    }
    for (unsigned i = 0; i < errors->nerrors; i++) {
        fprintf(stderr, "%s\n", errors->errors[i]);
    }
    takeover_step();
    if (!gen->conf) {
        takeover_fail(errors->nerrors > 0 ? errors->errors[0] : "the configuration is wrong");
        stop_failed(MASTER_EXIT_CONFIG);
        return;
    }
    master.current = *gen;
    generation_init(gen);
    start();
}

/* ---- the loop ---- */

static void
reopen_logs(void)
{
    if (!master.current.conf) {
        return; /* none is open yet */
    }
    logs_reopen(&master.current.logs);
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        child_send_logs(&master.children[i], &master.current.logs);
    }
    log_info("akashd: SIGUSR1: log files reopened");
    if (master.state == MASTER_RUNNING) {
        rows_signal_masters(SIGUSR1);
    }
}

static void
on_signal(evutil_socket_t number, short what, void *arg)
{
    switch (number) {
    case SIGTERM: stop_request("SIGTERM"); break;
    case SIGINT: stop_request("SIGINT"); break;
    case SIGQUIT: stop_request("SIGQUIT"); break;
    case SIGHUP: reload_request("SIGHUP", NULL); break;
    case SIGCHLD: supervise_reap(); break;
    case SIGUSR1: reopen_logs(); break;
    default: upgrade_request("SIGUSR2", NULL);
    }
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
    uint64_t now = clock_mono_ms();
    if (master.state == MASTER_LOADING) {
        return;
    }
    if (!takeover_is_pending() && master.state != MASTER_REPLACED) {
        shm_set(&master.shm.m->heartbeat_ms, now);
        shm_keys_rotate(&master.shm, clock_wall_us() / 1000000);
        process_stat_publish(master.shm.m);
        shm_count(&master.shm.m->log_dropped, log_take_dropped());
    }
    heartbeat_tick(now);
}

static void
on_watchdog(evutil_socket_t fd, short what, void *arg)
{
    if (master.state != MASTER_REPLACED && heartbeat_all_young(clock_mono_ms())) {
        notify_send(NOTIFY_WATCHDOG, NULL);
    }
}

static struct event *
every(uint64_t ms, event_callback_fn on_event)
{
    struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    struct event *ev = event_new(master.base, -1, EV_PERSIST, on_event, NULL);
    if (ev) {
        event_add(ev, &tv);
    }
    return ev;
}

static int
open_loop(void)
{
    struct event_config *config = event_config_new();
    signal(SIGPIPE, SIG_IGN); /* of a client of the control socket that has gone */
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    master.base = event_base_new_with_config(config);
    event_config_free(config);
    if (!master.base) {
        return -1;
    }
    for (size_t i = 0; i < NSIGNALS; i++) {
        signals[i] = evsignal_new(master.base, signal_numbers[i], on_signal, NULL);
        if (!signals[i] || event_add(signals[i], NULL) != 0) {
            return -1;
        }
    }
    tick = every(TICK_MS, on_tick);
    uint64_t watchdog_ms = notify_watchdog_ms();
    watchdog = watchdog_ms ? every(watchdog_ms, on_watchdog) : NULL;
    return tick && stop_open() == 0 ? 0 : -1;
}

/* At the very end: a signal that comes now (a new master passes its own on to a former one) must
 * not become the exit status. */
static void
block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < NSIGNALS; i++) {
        sigaddset(&set, signal_numbers[i]);
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
}

static void
close_loop(void)
{
    block_signals();
    for (size_t i = 0; i < NSIGNALS; i++) {
        if (signals[i]) {
            event_free(signals[i]);
        }
    }
    struct event *timers[] = {tick, watchdog};
    for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++) {
        if (timers[i]) {
            event_free(timers[i]);
        }
    }
}

static void
raise_open_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Nobody is left behind, and no port is held, when the master has gone. */
static void
close_children(void)
{
    supervise_kill_all();
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        struct child *child = &master.children[i];
        child_unlink(child);
        if (child->pid > 0) {
            waitpid(child->pid, NULL, 0);
        }
        if (child->respawn) {
            event_free(child->respawn);
        }
    }
}

static void
clean_up(void)
{
    if (master.exit_status == MASTER_EXIT_OK && master.state >= MASTER_ENDING) {
        log_info("akashd: %s: %llu streams were cut",
                 master.state == MASTER_REPLACED ? "this former process has ended" : "stopped",
                 (unsigned long long)master.cut);
        daemon_remove_pid();
    }
    if (load) {
        load_cancel(load);
    }
    control_close();
    demo_stop();
    upgrade_fini();
    close_children();
    sockets_close_all(&master.sockets);
    activation_close();
    rows_fini();
    takeover_fini();
    names_fini();
    generation_fini(&master.current);
    close_loop();
    stop_close();
    event_base_free(master.base);
    notify_close();
}

static struct generation_origin
origin_of_demo(void)
{
    char why[256];
    struct generation_origin origin = {.path = "demo.json"};
    if (identity_find(&master.identity, NULL, NULL, why, sizeof(why)) < 0) {
        log_error("%s", why);
        return origin;
    }
    origin.text = demo_start(master.base, &master.identity);
    return origin;
}

enum master_exit
master_run(struct master_options *options)
{
    master.options = options;
    raise_open_files();
    generation_init(&master.current);
    children_init(master.children);
    log_set_process("master");
    activation_take();
    notify_open();
    sandbox_warm_up();
    if (geteuid() == 0 && sandbox_trim_capabilities() < 0) {
        log_error("akashd: capabilities: %s", strerror(errno));
        return MASTER_EXIT_START;
    }
    if (open_loop() != 0) {
        log_error("akashd: no event loop: %s", strerror(errno));
        return MASTER_EXIT_START;
    }
    if (options->is_demo) {
        options->origin = origin_of_demo();
        if (!options->origin.text) {
            log_error("demo: could not start: %s", strerror(errno));
            return MASTER_EXIT_START;
        }
    }
    title_set("akashd: master %s", options->origin.path);
    umask(022);
    char why[256];
    upgrade_program(); /* the folder that a relative path began in may not be ours for ever */
    if (takeover_begin(why, sizeof(why)) < 0) {
        log_error("upgrade: %s", why);
        return MASTER_EXIT_START;
    }
    struct load *begun = load_start(&options->origin, master.base, on_loaded, NULL);
    if (begun) {
        load = begun; /* else on_loaded has been called already */
    }
    if (master.exit_status == MASTER_EXIT_OK) {
        event_base_dispatch(master.base);
    }
    clean_up();
    return master.exit_status;
}
