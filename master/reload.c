/* SPDX-License-Identifier: Apache-2.0
 *
 * reload.c - the transaction of a reload.
 */
#include "master/reload.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/adopt.h"
#include "master/diff.h"
#include "master/master.h"
#include "master/names.h"
#include "master/notify.h"
#include "master/operator.h"
#include "master/slots.h"
#include "master/supervise.h"
#include "master/upgrade.h"
#include "shared/clock.h"
#include "shared/log.h"

#define RELOAD_WAIT_S 10

enum reload_phase {
    RELOAD_IDLE,
    RELOAD_LOADING, /* names are being looked up */
    RELOAD_PREPARE, /* children build the conf */
    RELOAD_COMMIT   /* children change over; new workers start */
};

static struct {
    enum reload_phase phase;
    bool is_remembered;       /* asked for again meanwhile */
    bool is_again_remembered; /* the same, of what is in force */
    bool is_again;            /* what runs is of that kind: no verdict on the file */
    struct list waiters;      /* for the one that runs */
    struct list later;        /* for the one that is remembered */
    struct list later_again;
    struct load *load;
    struct generation next;      /* becomes master.current */
    struct json_object *changes; /* that were made; NULL: nobody asks */
    const char *cause;           /* of the one that runs */
    const char *cause_later;     /* of the one that is remembered */
    uint64_t begun_ms;
    bool takes_part[CHILDREN_COUNT];
    struct event *timer;
} reload;

static void
reload_begin(void);

/* ---- verdicts ---- */

void
reload_record(const char *cause, uint64_t took_ms, bool is_ok, const char *why)
{
    struct shm_master *m = master.shm.m;
    struct verdict verdict = {.when_us = clock_wall_us(),
                              .took_ms = took_ms,
                              .gen = master.current.conf->gen,
                              .is_ok = is_ok};
    snprintf(m->verdict, sizeof(m->verdict), "%s", why);
    snprintf(verdict.cause, sizeof(verdict.cause), "%s", cause);
    snprintf(verdict.why, sizeof(verdict.why), "%.*s", SHM_WHY_MAX - 1, why);
    shm_verdict_add(&master.shm, &verdict);
    shm_set(&m->reload_ok, is_ok);
    if (is_ok) {
        shm_set(&m->reload_success_s, verdict.when_us / 1000000);
    }
}

/* One event a line: a wrong file may have several errors. */
static void
log_refusal(const char *why)
{
    const char *end;
    for (; (end = strchr(why, '\n')); why = end + 1) {
        log_error("reload: refused: %.*s", (int)(end - why), why);
    }
    log_error("reload: refused: %s; the old configuration serves on", why);
}

static void
reload_end(bool is_ok, const char *why)
{
    reload.phase = RELOAD_IDLE;
    if (reload.timer) {
        event_del(reload.timer);
    }
    if (!reload.is_again) {
        shm_count(is_ok ? &master.shm.m->reloads : &master.shm.m->reloads_failed, 1);
        reload_record(reload.cause, clock_mono_ms() - reload.begun_ms, is_ok, why);
    }
    if (!is_ok) {
        log_refusal(why);
    }
    if (!master_is_stopping() && !reload.is_again) {
        notify_send(NOTIFY_READY, is_ok ? "serving" : "serving; the last reload was refused");
    }
    verdict_tell(&reload.waiters, is_ok, why);
    json_object_put(reload.changes);
    reload.changes = NULL;
    upgrade_check();
    reload_begin();
}

/* Before anything was claimed or sent. why may belong to next. */
static void
reload_refuse(const char *why)
{
    char copy[SHM_VERDICT_MAX];
    snprintf(copy, sizeof(copy), "%s", why);
    generation_fini(&reload.next);
    reload_end(false, copy);
}

/* After slots and sockets were taken, and perhaps children told. */
static void
reload_abort(const char *why)
{
    char copy[SHM_VERDICT_MAX], ignored[256];
    snprintf(copy, sizeof(copy), "%s", why);
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        struct child *child = &master.children[i];
        if (reload.takes_part[i] && child->state == SHM_CHILD_SERVING) {
            child_send(child, CHANNEL_ABORT, child->gen, 0);
            child->gen = master.current.conf->gen;
            child->is_committed = true;
        }
    }
    memset(reload.takes_part, 0, sizeof(reload.takes_part));
    sockets_undo(&master.sockets);
    /* The same identities have the same slots: this takes back what a changed address changed. */
    slots_claim(&master.shm, master.current.conf, ignored, sizeof(ignored));
    slots_sweep(&master.shm, master.current.conf, master.last_gen);
    reload_refuse(copy);
}

/* ---- commit ---- */

static void
reload_finish(void)
{
    sockets_sweep(&master.sockets, master.current.conf);
    log_info("reload: done: generation %llu, %u workers",
             (unsigned long long)master.current.conf->gen, children_serving());
    reload_end(true, "");
}

static void
reload_listen(void)
{
    char why[256];
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        const struct child *child = &master.children[i];
        enum socket_use use = child_is_monitor(child) ? SOCKET_OF_MONITOR : SOCKET_OF_WORKER;
        if (reload.takes_part[i] &&
            sockets_listen(&master.sockets, use, child->index, why, sizeof(why)) < 0) {
            log_error("reload: %s", why); /* taken by somebody since it was bound */
        }
    }
}

static void
reload_take_over(void)
{
    struct generation former = master.current;
    if (!list_is_empty(&reload.waiters)) {
        reload.changes = diff_confs(&master.shm, former.conf, reload.next.conf);
    }
    master.current = reload.next;
    generation_init(&reload.next);
    logs_use(&master.current.logs, master.current.conf);
    operator_apply_log_level();
    generation_fini(&former);
    sockets_keep(&master.sockets);
    slots_sweep(&master.shm, master.current.conf, master.current.conf->gen);
    shm_set(&master.shm.m->gen, master.current.conf->gen);
    shm_set(&master.shm.m->conf_hash, master.current.conf->hash);
}

static void
reload_commit(void)
{
    struct timeval wait = {.tv_sec = RELOAD_WAIT_S};
    reload.phase = RELOAD_COMMIT;
    reload_listen();
    reload_take_over();
    sockets_let_nobody_in(&master.sockets, master.current.conf);
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        struct child *child = &master.children[i];
        if (reload.takes_part[i]) {
            bool leaves = !child_is_monitor(child) && child->index >= master.current.conf->workers;
            child_send(child, CHANNEL_COMMIT, master.current.conf->gen, leaves);
        }
    }
    memset(reload.takes_part, 0, sizeof(reload.takes_part));
    event_add(reload.timer, &wait);
    supervise_set_count(master.current.conf->workers);
    adopt_settle();
    reload_check();
}

/* ---- prepare ---- */

static bool
reload_all_ready(void)
{
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        if (reload.takes_part[i] && !master.children[i].is_ready) {
            return false;
        }
    }
    return true;
}

void
reload_check(void)
{
    if (reload.phase == RELOAD_PREPARE && reload_all_ready()) {
        reload_commit();
    } else if (reload.phase == RELOAD_COMMIT && children_all_serve(master.current.conf->gen)) {
        reload_finish();
    } else if (reload.phase == RELOAD_IDLE) {
        reload_begin();
    }
}

static void
reload_send(void)
{
    struct timeval wait = {.tv_sec = RELOAD_WAIT_S};
    reload.phase = RELOAD_PREPARE;
    event_add(reload.timer, &wait);
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        struct child *child = &master.children[i];
        reload.takes_part[i] = child->state == SHM_CHILD_SERVING && child->is_wanted;
        if (reload.takes_part[i]) {
            child_prepare(child, &reload.next, true);
        }
    }
    reload_check();
}

static bool
is_same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

const char *
reload_fixed_key(const struct conf *before, const struct conf *after)
{
    if (!is_same_text(before->user, after->user)) {
        return "user";
    }
    if (!is_same_text(before->group, after->group)) {
        return "group";
    }
    if (!is_same_text(before->control.path, after->control.path) ||
        !is_same_text(before->control.group, after->control.group) ||
        before->control.mode != after->control.mode) {
        return "control_socket";
    }
    if (!is_same_text(before->pid_file, after->pid_file)) {
        return "pid_file";
    }
    return NULL;
}

static void
reload_on_loaded(struct generation *gen, const struct conf_errors *errors, void *arg)
{
    char why[SHM_VERDICT_MAX] = "";
    (void)arg;
    reload.load = NULL;
    for (unsigned i = 0; i < errors->nwarnings && !reload.is_again; i++) {
        log_warn("%s", errors->warnings[i]);
    }
    if (!gen->conf) {
        generation_join_errors(errors, why, sizeof(why));
        reload_refuse(why);
        return;
    }
    reload.next = *gen;
    generation_init(gen);
    const char *key = reload_fixed_key(master.current.conf, reload.next.conf);
    if (key) {
        snprintf(why, sizeof(why), "%s: %s: cannot change while akashd runs; needs SIGUSR2",
                 master.options->origin.path, key);
        reload_refuse(why);
        return;
    }
    if (slots_claim(&master.shm, reload.next.conf, why, sizeof(why)) < 0 ||
        sockets_prepare(&master.sockets, reload.next.conf, reload.next.conf->workers, why,
                        sizeof(why)) < 0 ||
        logs_open(&reload.next.logs, reload.next.conf, why, sizeof(why)) < 0 ||
        generation_seal(&reload.next, ++master.last_gen, why, sizeof(why)) < 0) {
        reload_abort(why);
        return;
    }
    reload_send();
}

static void
reload_on_timeout(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    if (reload.phase == RELOAD_PREPARE) {
        for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
            if (reload.takes_part[i] && !master.children[i].is_ready) {
                char why[128];
                snprintf(why, sizeof(why), "%s: no answer in %d s", child_name(&master.children[i]),
                         RELOAD_WAIT_S);
                reload_abort(why);
                return;
            }
        }
    } else if (reload.phase == RELOAD_COMMIT) {
        log_warn("reload: not every process has changed over in %d s", RELOAD_WAIT_S);
        reload_finish();
    }
}

static void
reload_load(void)
{
    reload.is_remembered = false;
    reload.is_again = false;
    reload.cause = reload.cause_later;
    reload.begun_ms = clock_mono_ms();
    list_splice_tail(&reload.waiters, &reload.later);
    notify_send(NOTIFY_RELOADING, "reloading");
    struct load *load = load_start(&master.options->origin, master.base, reload_on_loaded, NULL);
    if (load) {
        reload.load = load; /* else it has ended already, and perhaps another has begun */
    }
}

static void
reload_load_again(void)
{
    struct conf_errors errors = {0};
    struct generation gen;
    reload.is_again_remembered = false;
    reload.is_again = true;
    list_splice_tail(&reload.waiters, &reload.later_again);
    names_tell_changes();
    load_again(&master.current, &gen, &errors);
    names_forget_changes();
    reload_on_loaded(&gen, &errors, NULL);
    conf_errors_fini(&errors);
    generation_fini(&gen);
}

/* Begin what is remembered, unless one runs or a child is in the middle of its start: it would be
 * told two generations at one time. */
static void
reload_begin(void)
{
    if (reload.phase != RELOAD_IDLE || master.state != MASTER_RUNNING || upgrade_is_running() ||
        children_is_starting()) {
        return;
    }
    if (!reload.timer) {
        reload.timer = event_new(master.base, -1, 0, reload_on_timeout, NULL);
    }
    if (!reload.is_remembered && !reload.is_again_remembered) {
        return;
    }
    reload.phase = RELOAD_LOADING;
    generation_init(&reload.next);
    if (reload.is_again_remembered) {
        reload_load_again();
    } else {
        reload_load();
    }
}

/* ---- from outside ---- */

static void
reload_init(void)
{
    if (!reload.later.next) {
        list_init(&reload.waiters);
        list_init(&reload.later);
        list_init(&reload.later_again);
    }
}

/* true: not now; waiter has been told. */
static bool
reload_is_refused(const char *cause, struct verdict_waiter *waiter)
{
    /* A signal is remembered: nobody would hear that it was refused. */
    const char *refusal = master_is_stopping()             ? "akashd is stopping"
                          : waiter && upgrade_is_running() ? "an upgrade is under way"
                                                           : NULL;
    reload_init();
    if (waiter) {
        list_init(&waiter->link);
    }
    if (!refusal) {
        return false;
    }
    log_warn("reload: %s: refused: %s", cause, refusal);
    if (waiter) {
        waiter->done(waiter, false, refusal);
    }
    return true;
}

void
reload_request(const char *cause, struct verdict_waiter *waiter)
{
    if (reload_is_refused(cause, waiter)) {
        return;
    }
    log_info("reload: asked for by %s%s", cause,
             upgrade_is_running()          ? "; runs after the upgrade that is under way"
             : reload.phase == RELOAD_IDLE ? ""
                                           : "; runs after the one that is under way");
    reload.is_remembered = true;
    reload.cause_later = cause;
    if (waiter) {
        list_add_tail(&reload.later, &waiter->link);
    }
    reload_begin();
}

void
reload_again(const char *cause, struct verdict_waiter *waiter)
{
    if (reload_is_refused(cause, waiter)) {
        return;
    }
    reload.is_again_remembered = true;
    if (waiter) {
        list_add_tail(&reload.later_again, &waiter->link);
    }
    reload_begin();
}

struct json_object *
reload_changes(void)
{
    return reload.changes;
}

bool
reload_is_preparing(void)
{
    return reload.phase == RELOAD_PREPARE;
}

bool
reload_is_awaited(void)
{
    return reload.phase != RELOAD_IDLE || reload.is_remembered ||
           (reload.later_again.next && !list_is_empty(&reload.later_again));
}

void
reload_on_refused(const struct child *child, struct slice why)
{
    if (reload.phase == RELOAD_PREPARE && reload.takes_part[child->row]) {
        char text[SHM_VERDICT_MAX];
        snprintf(text, sizeof(text), "%s: %.*s", child_name(child), SLICE_ARG(why));
        reload_abort(text);
    }
}

void
reload_on_death(const struct child *child)
{
    if (reload.phase == RELOAD_PREPARE && reload.takes_part[child->row]) {
        char text[128];
        snprintf(text, sizeof(text), "%s died while it prepared", child_name(child));
        reload_abort(text);
    }
}

void
reload_shutdown(void)
{
    if (!reload.later.next) {
        return; /* none was ever asked for */
    }
    reload.is_remembered = false;
    reload.is_again_remembered = false;
    if (reload.load) {
        load_cancel(reload.load);
        reload.load = NULL;
    }
    if (reload.phase == RELOAD_LOADING) {
        reload_refuse("akashd is stopping");
    } else if (reload.phase == RELOAD_PREPARE) {
        reload_abort("akashd is stopping");
    }
    verdict_tell(&reload.later, false, "akashd is stopping");
    verdict_tell(&reload.later_again, false, "akashd is stopping");
    if (reload.timer) {
        event_free(reload.timer);
        reload.timer = NULL;
    }
}
