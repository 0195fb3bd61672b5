/* SPDX-License-Identifier: Apache-2.0
 *
 * handoff.h - what the master that goes gives to the one that comes.
 *
 * The channel's descriptor is the only one that the new program inherits; a variable of the
 * environment names it, and behind a space the process id of the master that goes. The others come
 * as messages (shared/channel.h, CHANNEL_HAND_...).
 */
#ifndef MASTER_HANDOFF_H
#define MASTER_HANDOFF_H

#include "master/children.h"

#define HANDOFF_VARIABLE "AKASHD_UPGRADE"

struct handoff {
    int segment;               /* -1: none came */
    int wakes[CHILDREN_COUNT]; /* -1: none came */
    uint64_t last_gen;
};

void
handoff_init(struct handoff *in);
/* Send, or queue, all that this master has. 0, or -1 when the channel is broken. */
int
handoff_send(struct channel *to);
/* Wait for all of it, timeout_ms for each message; sockets go to set. 0, or -1 with why. What was
 * received is in *in either way. */
int
handoff_receive(struct channel *from, struct handoff *in, struct sockets *set, int timeout_ms,
                char *why, size_t why_size);
/* Close what nobody took (and set it to -1). */
void
handoff_fini(struct handoff *in);

#endif
