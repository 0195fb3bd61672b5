/* SPDX-License-Identifier: Apache-2.0
 *
 * names.c - changed addresses become a reload of what is in force.
 */
#include "master/names.h"

#include <stdlib.h>
#include <string.h>

#include "conf/bundle.h"
#include "master/found.h"
#include "master/master.h"
#include "master/reload.h"
#include "master/upgrade.h"
#include "shared/clock.h"
#include "shared/log.h"

#define GATHER_MS    20 /* changes of several names at one time are one reload */
#define LOG_EVERY_MS (10 * 60 * 1000ull)

/* What a name has, until a configuration has it. */
struct known {
    struct list link;
    char *host;
    bool is_srv;
    struct conf_found *found;
    unsigned n;
};

static struct {
    struct list changes; /* said by the monitor, not yet in force */
    struct list handed;  /* by a former master, for the first load */
    unsigned nhanded;
    struct event *timer;
    struct names_pace pace;
    struct log_limit held, full;
} names = {.changes = LIST_INIT(names.changes), .handed = LIST_INIT(names.handed)};

/* ---- what is known ---- */

static struct known *
known_find(struct list *list, const char *host, bool is_srv)
{
    list_for_each (it, list) {
        struct known *known = container_of(it, struct known, link);
        if (known->is_srv == is_srv && strcmp(known->host, host) == 0) {
            return known;
        }
    }
    return NULL;
}

static void
known_free(struct known *known)
{
    list_del(&known->link);
    free(known->host);
    free(known->found);
    free(known);
}

static void
known_free_all(struct list *list)
{
    list_for_each_safe (it, list) {
        known_free(container_of(it, struct known, link));
    }
}

/* In place of what was there. */
static void
known_put(struct list *list, const struct found_answer *answer)
{
    struct known *known = calloc(1, sizeof(*known));
    char *host = strndup(answer->host.ptr, answer->host.len);
    struct conf_found *found = calloc(answer->n, sizeof(*found));
    if (!known || !host || !found) {
        free(known);
        free(host);
        free(found);
        return; /* it is said again */
    }
    struct known *former = known_find(list, host, answer->is_srv);
    if (former) {
        known_free(former);
    }
    memcpy(found, answer->found, answer->n * sizeof(*found));
    *known = (struct known){.host = host, .is_srv = answer->is_srv, .found = found, .n = answer->n};
    list_add_tail(list, &known->link);
}

void
names_forget_changes(void)
{
    known_free_all(&names.changes);
}

/* ---- how often ---- */

uint64_t
names_pace_next(const struct names_pace *pace, uint64_t now_ms, bool *is_held)
{
    uint64_t credit_ms = (uint64_t)(NAMES_BURST - 1) * NAMES_REFILL_MS;
    uint64_t next = pace->last_ms ? pace->last_ms + NAMES_PAUSE_MS : now_ms;
    next = next > now_ms ? next : now_ms;
    *is_held = pace->debt_ms > next + credit_ms;
    return *is_held ? pace->debt_ms - credit_ms : next;
}

void
names_pace_take(struct names_pace *pace, uint64_t now_ms)
{
    uint64_t from = pace->debt_ms > now_ms ? pace->debt_ms : now_ms;
    pace->last_ms = now_ms;
    pace->debt_ms = from + NAMES_REFILL_MS;
}

/* ---- changes ---- */

void
names_tell_changes(void)
{
    list_for_each (it, &names.changes) {
        const struct known *known = container_of(it, struct known, link);
        const struct conf_name *name =
            conf_name_find(master.current.conf, slice_from_str(known->host), known->is_srv);
        char what[512];
        if (name) {
            found_describe(name->found, name->nfound, known->found, known->n, what, sizeof(what));
            log_info("name %s: addresses change: %s; has %u now", known->host, what, known->n);
        }
    }
}

/* Now, or as soon as all children serve. */
static bool
can_reload(void)
{
    return master.state == MASTER_STARTING ||
           (master.state == MASTER_RUNNING && !upgrade_is_running());
}

static void
schedule(void);

static bool
has_room(void)
{
    uint64_t suppressed;
    unsigned used = 0;
    for (unsigned i = 0; i < master.current.conf->nupstreams; i++) {
        used += master.current.conf->upstreams[i].nbackends;
    }
    if (shm_slots_room(&master.shm, SHM_BACKEND) >= (SHM_BACKENDS - used) / 4) {
        return true;
    }
    if (log_limit_pass(&names.full, clock_mono_ms(), LOG_EVERY_MS, &suppressed)) {
        log_warn("names: changed addresses are not followed: the segment has little room until "
                 "streams of older configurations end");
    }
    return false;
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    if (!can_reload() || (!list_is_empty(&names.changes) && !has_room())) {
        names_forget_changes();
    }
    if (list_is_empty(&names.changes)) {
        return;
    }
    if (master.state == MASTER_STARTING) {
        schedule();
        return;
    }
    names_pace_take(&names.pace, clock_mono_ms());
    reload_again("changed addresses of names", NULL);
}

static void
schedule(void)
{
    bool is_held;
    uint64_t suppressed, now = clock_mono_ms();
    uint64_t due = names_pace_next(&names.pace, now, &is_held);
    uint64_t wait_ms = due > now + GATHER_MS ? due - now : GATHER_MS;
    struct timeval wait = {.tv_sec = (time_t)(wait_ms / 1000),
                           .tv_usec = (suseconds_t)(wait_ms % 1000) * 1000};
    if (is_held && log_limit_pass(&names.held, now, LOG_EVERY_MS, &suppressed)) {
        log_warn("names: addresses change so often that they are followed every %d s only",
                 NAMES_REFILL_MS / 1000);
    }
    if (!names.timer) {
        names.timer = event_new(master.base, -1, 0, on_timer, NULL);
    }
    if (names.timer && !event_pending(names.timer, EV_TIMEOUT, NULL)) {
        event_add(names.timer, &wait);
    }
}

void
names_on_answer(struct slice text)
{
    static struct found_answer answer;
    if (found_answer_parse(text, &answer) < 0) {
        log_warn("names: what the monitor says of a name makes no sense");
        return;
    }
    const struct conf_name *name =
        can_reload() ? conf_name_find(master.current.conf, answer.host, answer.is_srv) : NULL;
    if (!name) {
        return; /* it was of an older configuration */
    }
    if (!found_same(name->found, name->nfound, answer.found, answer.n)) {
        known_put(&names.changes, &answer);
        schedule();
        return;
    }
    struct known *change = known_find(&names.changes, name->host, name->is_srv);
    if (change) {
        known_free(change); /* it is again as it was */
    }
}

/* ---- for who builds a configuration ---- */

void
names_set_port(struct conf_found *found, uint16_t port)
{
    if (found->addr.sa.sa_family == AF_INET) {
        found->addr.in.sin_port = htons(port);
    } else {
        found->addr.in6.sin6_port = htons(port);
    }
}

int
names_resolve_again(struct conf_source *src, const char *name, uint16_t port,
                    struct conf_found *out, int max)
{
    const struct known *change = known_find(&names.changes, name, port == 0);
    if (!change) {
        return bundle_resolve(src, name, port, out, max);
    }
    unsigned n = 0;
    for (; n < change->n && n < (unsigned)max; n++) {
        out[n] = change->found[n];
        if (port != 0) {
            names_set_port(&out[n], port);
        }
    }
    return (int)n;
}

static bool
has_family(const struct conf_found *found, unsigned n, sa_family_t family)
{
    for (unsigned i = 0; i < n; i++) {
        if (found[i].addr.sa.sa_family == family) {
            return true;
        }
    }
    return false;
}

unsigned
names_keep_last(const char *name, bool is_srv, struct conf_found *out, unsigned n, unsigned max)
{
    const struct conf_name *now =
        master.current.conf ? conf_name_find(master.current.conf, slice_from_str(name), is_srv)
                            : NULL;
    const struct known *handed =
        master.current.conf ? NULL : known_find(&names.handed, name, is_srv);
    const struct conf_found *last = now ? now->found : handed ? handed->found : NULL;
    unsigned nlast = now ? now->nfound : handed ? handed->n : 0, came = n;
    for (unsigned i = 0; i < nlast && n < max; i++) {
        if (!has_family(out, came, last[i].addr.sa.sa_family)) {
            out[n++] = last[i];
        }
    }
    if (came == 0 && n > 0) {
        log_warn("name %s: does not resolve; its last addresses stay", name);
    }
    return n;
}

/* ---- upgrades ---- */

int
names_hand_over(struct channel *to)
{
    static char text[FOUND_ANSWER_MAX];
    const struct conf *conf = master.current.conf;
    for (unsigned i = 0; i < conf->nnames; i++) {
        const struct conf_name *name = &conf->names[i];
        size_t len = found_answer_format(name->host, name->is_srv, name->found, name->nfound, text);
        struct channel_msg msg = {.type = CHANNEL_HAND_NAME, .fd = -1, .text = slice_of(text, len)};
        if (name->nfound > 0 && channel_send(to, &msg) < 0) {
            return -1;
        }
    }
    return 0;
}

void
names_take_over(struct slice text)
{
    static struct found_answer answer;
    if (names.nhanded < CONF_NAMES_MAX && found_answer_parse(text, &answer) == 0) {
        names.nhanded++;
        known_put(&names.handed, &answer);
    }
}

void
names_fini(void)
{
    known_free_all(&names.changes);
    known_free_all(&names.handed);
    if (names.timer) {
        event_free(names.timer);
        names.timer = NULL;
    }
}
