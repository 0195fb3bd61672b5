/* SPDX-License-Identifier: Apache-2.0
 *
 * lookup_channel.h - a c-ares channel in an event loop. For lookup.c alone.
 */
#ifndef MASTER_LOOKUP_CHANNEL_H
#define MASTER_LOOKUP_CHANNEL_H

#include <ares.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "master/lookup.h"
#include "shared/list.h"

struct lookup {
    struct event_base *base;
    ares_channel channel;
    struct ares_options saved; /* of the channel: its search list and ndots */
    int saved_mask;
    struct list sockets;
    struct event *timer;
    bool is_closing; /* callbacks free and tell nobody */
    struct addr *servers;
    unsigned nservers;
    struct stat seen; /* of resolv.conf when the channel was made */
};

/* After a query: wake up when c-ares has to do something about time. */
void
lookup_arm(struct lookup *lookup);
/* How many names stand for one that is not absolute, and the i-th of them. */
unsigned
lookup_candidates(const struct lookup *lookup, const char *name);
void
lookup_candidate(const struct lookup *lookup, const char *name, unsigned i, bool is_absolute,
                 char *buf, size_t size);

#endif
