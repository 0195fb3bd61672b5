/* SPDX-License-Identifier: Apache-2.0
 *
 * supervise.h - how many workers there are, and what happens when a child answers, dies or hangs.
 */
#ifndef MASTER_SUPERVISE_H
#define MASTER_SUPERVISE_H

#include "master/children.h"

/* What CHANNEL_RETIRE says. */
enum supervise_end {
    END_ONE,      /* the count has shrunk */
    END_SERVER,   /* the whole server stops */
    END_REPLACED, /* a new master has workers of its own */
};

/* Spawn, revive and retire until workers 0 to count - 1 and the monitor are wanted. */
void
supervise_set_count(unsigned count);

void
supervise_on_message(struct child *child, const struct channel_msg *msg);
/* SIGCHLD: reap all. */
void
supervise_reap(void);

/* Nobody is respawned any more. All workers retire within timeout_ms; at a shutdown those too that
 * retire already. */
void
supervise_retire_all(uint32_t timeout_ms, enum supervise_end why);
bool
supervise_has_workers(void);
bool
supervise_has_monitor(void);
void
supervise_end_monitor(void);
/* One that is ending begins anew then. */
void
supervise_want_monitor(void);
void
supervise_kill_all(void);

#endif
