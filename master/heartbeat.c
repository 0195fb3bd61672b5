/* SPDX-License-Identifier: Apache-2.0
 *
 * heartbeat.c - children that give no sign of life, or do not end in time, are ended.
 */
#include "master/heartbeat.h"

#include <signal.h>

#include "master/master.h"
#include "shared/log.h"

#define HEARTBEAT_OLD_MS 10000
#define ABORT_GRACE_MS   1000

/* The age of the last sign of life. What a child wrote is only compared. */
static uint64_t
heartbeat_age(const struct child *child, uint64_t now_ms)
{
    uint64_t beat = child_is_monitor(child) ? shm_get(&master.shm.h->heartbeat_ms)
                                            : shm_get(&master.shm.rows[child->row]->heartbeat_ms);
    if (beat < child->started_ms) {
        beat = child->started_ms; /* its predecessor's */
    }
    return beat < now_ms ? now_ms - beat : 0;
}

static void
heartbeat_check(struct child *child, uint64_t now_ms)
{
    if (child->kill_ms != 0 && now_ms >= child->kill_ms) {
        child->kill_ms = now_ms + ABORT_GRACE_MS;
        child_kill(child, SIGKILL);
        return;
    }
    bool is_late =
        child->state == SHM_CHILD_STARTING && now_ms - child->started_ms > HEARTBEAT_OLD_MS;
    if (heartbeat_age(child, now_ms) <= HEARTBEAT_OLD_MS && !is_late) {
        if (!child->is_linked && child->kill_ms == 0) {
            child->kill_ms = now_ms + ABORT_GRACE_MS; /* it should have gone with its channel */
        }
        return;
    }
    if (child->kill_ms == 0 || child->state == SHM_CHILD_RETIRING) {
        log_error("%s: stuck: no sign of life for %d s, aborted", child_name(child),
                  HEARTBEAT_OLD_MS / 1000);
        child->kill_ms = now_ms + ABORT_GRACE_MS;
        child_kill(child, SIGABRT);
    }
}

void
heartbeat_tick(uint64_t now_ms)
{
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        if (master.children[i].pid != 0) {
            heartbeat_check(&master.children[i], now_ms);
        }
    }
}

bool
heartbeat_all_young(uint64_t now_ms)
{
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        const struct child *child = &master.children[i];
        if (child->pid != 0 && heartbeat_age(child, now_ms) > HEARTBEAT_OLD_MS) {
            return false;
        }
    }
    return true;
}
