/* SPDX-License-Identifier: Apache-2.0
 *
 * stop.c - the ends of a master: see stop.h.
 */
#include "master/stop.h"

#include <signal.h>

#include "master/control.h"
#include "master/daemon.h"
#include "master/notify.h"
#include "master/reload.h"
#include "master/rows.h"
#include "master/supervise.h"
#include "master/upgrade.h"
#include "shared/log.h"
#include "shared/title.h"

#define LAST_KILL_MS 1000 /* from the second signal to stop to KILL */

static struct event *lame, *last_kill;

void
stop_failed(enum master_exit status)
{
    if (master.state >= MASTER_RUNNING) {
        return; /* what runs goes on */
    }
    master.exit_status = status;
    supervise_kill_all();
    event_base_loopbreak(master.base);
}

static void
begin_drain(void)
{
    if (master.state >= MASTER_DRAINING) {
        return;
    }
    master.state = MASTER_DRAINING;
    sockets_let_nobody_in(&master.sockets, NULL);
    supervise_retire_all(master.current.conf->drain_timeout, END_SERVER);
    rows_signal_masters(SIGTERM);
    sockets_close_listeners(&master.sockets);
    master_on_children_changed();
}

static void
on_lame_over(evutil_socket_t fd, short what, void *arg)
{
    begin_drain();
}

static void
on_last_kill(evutil_socket_t fd, short what, void *arg)
{
    supervise_kill_all();
}

static void
stop_at_once(const char *cause)
{
    struct timeval wait = {.tv_sec = LAST_KILL_MS / 1000};
    log_info("akashd: %s again: stopping at once", cause);
    master.state = MASTER_DRAINING;
    event_add(last_kill, &wait);
    sockets_let_nobody_in(&master.sockets, NULL);
    supervise_retire_all(0, END_SERVER);
    rows_signal_masters(SIGTERM);
    rows_signal_masters(SIGINT); /* the second signal: at once */
    sockets_close_listeners(&master.sockets);
    master_on_children_changed();
}

static void
begin_stop(const char *cause)
{
    uint32_t ms = master.current.conf->lame_duck;
    struct timeval wait = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    log_info("akashd: %s: stopping: running streams have %u s", cause,
             master.current.conf->drain_timeout / 1000);
    master.state = MASTER_LAME;
    shm_set(&master.shm.m->is_draining, 1);
    notify_send(NOTIFY_STOPPING, "draining");
    reload_shutdown();
    upgrade_cancel();
    if (ms == 0) {
        begin_drain();
    } else {
        event_add(lame, &wait);
    }
}

/* Another master is in charge: it stops, and wants the workers that retire here to end too. */
static void
stop_former(uint32_t ms)
{
    log_info("akashd: this former process stops: running streams have %u s", ms / 1000);
    supervise_retire_all(ms, END_SERVER);
}

void
stop_request(const char *cause)
{
    master.stop_signals++;
    if (master.state < MASTER_RUNNING) {
        stop_failed(MASTER_EXIT_OK);
    } else if (master.state == MASTER_RUNNING && upgrade_postpones_stop(cause)) {
        log_info("akashd: %s: stopping as soon as the upgrade has come out", cause);
    } else if (master.state == MASTER_RUNNING) {
        begin_stop(cause);
    } else if (master.state < MASTER_ENDING) {
        stop_at_once(cause);
    } else if (master.state == MASTER_REPLACED) {
        stop_former(master.stop_signals > 1 ? 0 : master.current.conf->drain_timeout);
    }
}

void
stop_replaced(void)
{
    master.state = MASTER_REPLACED;
    master.stop_signals = 0;
    rows_fini();
    control_leave();
    daemon_remove_pid();
    sockets_lend(&master.sockets);
    supervise_retire_all(master.current.conf->retire_timeout, END_REPLACED);
    sockets_close_all(&master.sockets);
    title_set("akashd: former master %s", master.options->origin.path);
    master_on_children_changed();
}

int
stop_open(void)
{
    lame = event_new(master.base, -1, 0, on_lame_over, NULL);
    last_kill = event_new(master.base, -1, 0, on_last_kill, NULL);
    return lame && last_kill ? 0 : -1;
}

void
stop_close(void)
{
    if (lame) {
        event_free(lame);
    }
    if (last_kill) {
        event_free(last_kill);
    }
}
