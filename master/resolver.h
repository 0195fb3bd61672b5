/* SPDX-License-Identifier: Apache-2.0
 *
 * resolver.h - addresses of names, looked up by a short-lived unprivileged child.
 *
 * The master reads no byte from the network: the child speaks to the name servers (lookup.h) and
 * writes lines "INDEX IP PORT PRIORITY WEIGHT" (found.h) and "INDEX partial", which are parsed here
 * as anything from outside. While akashd runs, the monitor looks again: follow.h.
 */
#ifndef MASTER_RESOLVER_H
#define MASTER_RESOLVER_H

#include <event2/event.h>
#include <stddef.h>

#include "master/identity.h"
#include "master/lookup.h"
#include "shared/slice.h"

#define RESOLVER_NAMES   CONF_NAMES_MAX
#define RESOLVER_WAIT_MS 5000
#define RESOLVER_WINDOW  64 /* names that are looked up at one time */

struct resolver_name {
    char *name;
    bool is_srv;
    bool is_partial; /* nothing is known of one of IPv4 and IPv6 */
    struct conf_found *found;
    unsigned count;
};

struct resolver_names {
    struct resolver_name *list;
    unsigned count;
};

/* The entry of a name; NULL: not there. */
struct resolver_name *
resolver_names_find(const struct resolver_names *names, const char *name, bool is_srv);
/* 0, or -1 when there are too many or memory is short. */
int
resolver_names_add(struct resolver_names *names, const char *name, bool is_srv);
void
resolver_names_fini(struct resolver_names *names);
/* Take one line of the child: false when it is not one. */
bool
resolver_names_take(struct resolver_names *names, struct slice line);

typedef void
resolver_sink(unsigned index, const struct lookup_answer *answer, void *arg);
/* Here and now, on a loop of its own: sink is called for what is answered in time. 0 or -1. */
int
resolver_look_up(const struct resolver_names *names, const struct addr *servers, unsigned nservers,
                 resolver_sink *sink, void *arg);
/* The same into names themselves; not in the master. */
void
resolver_fill(struct resolver_names *names, const struct addr *servers, unsigned nservers);

struct resolver;
typedef void
resolver_done(void *arg);

/* Fill names and call done from the loop; what does not resolve within RESOLVER_WAIT_MS has no
 * address. servers: name servers to ask (see lookup.h), needed no longer than this call. NULL when
 * no child could be made. names lives until done or resolver_cancel. */
struct resolver *
resolver_start(struct event_base *base, const struct identity *id, struct resolver_names *names,
               const struct addr *servers, unsigned nservers, resolver_done *done, void *arg);
/* Forget it before done was called. */
void
resolver_cancel(struct resolver *r);

#endif
