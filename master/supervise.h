/* SPDX-License-Identifier: Apache-2.0
 *
 * supervise.h - how many workers there are, and what happens when a child answers, dies or hangs.
 */
#ifndef MASTER_SUPERVISE_H
#define MASTER_SUPERVISE_H

#include "master/children.h"

/* Spawn, revive and retire until workers 0 to count - 1 and the monitor are wanted. */
void
supervise_set_count(unsigned count);

void
supervise_on_message(struct child *child, const struct channel_msg *msg);
/* SIGCHLD: reap all. */
void
supervise_reap(void);
/* Once a second: heartbeats, and deadlines of killing. */
void
supervise_tick(uint64_t now_ms);

/* Are the heartbeats of all children young? */
bool
supervise_is_healthy(uint64_t now_ms);
/* Does every wanted child serve generation gen? */
bool
supervise_all_serve(uint64_t gen);
/* Is a child between its fork and its first COMMITTED? */
bool
supervise_is_starting(void);
unsigned
supervise_serving_workers(void);

/* Shutdown: nobody is respawned any more. All workers retire within timeout_ms; a second call
 * shortens it. */
void
supervise_retire_all(uint32_t timeout_ms);
bool
supervise_has_workers(void);
bool
supervise_has_monitor(void);
void
supervise_end_monitor(void);
void
supervise_kill_all(void);

#endif
