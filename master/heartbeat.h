/* SPDX-License-Identifier: Apache-2.0
 *
 * heartbeat.h - signs of life of the children.
 */
#ifndef MASTER_HEARTBEAT_H
#define MASTER_HEARTBEAT_H

#include <stdbool.h>
#include <stdint.h>

/* Once a second: abort who is stuck, kill whose deadline (child.kill_ms) is over. */
void
heartbeat_tick(uint64_t now_ms);
/* Are the heartbeats of all children young? */
bool
heartbeat_all_young(uint64_t now_ms);

#endif
