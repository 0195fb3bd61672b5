/* SPDX-License-Identifier: Apache-2.0
 *
 * resolver.h - addresses of names, looked up by a short-lived unprivileged child.
 *
 * The master reads no byte from the network: the child speaks to the name servers and writes lines
 * "INDEX ADDRESS", which are parsed here as anything from outside.
 */
#ifndef MASTER_RESOLVER_H
#define MASTER_RESOLVER_H

#include <event2/event.h>
#include <stddef.h>

#include "master/identity.h"
#include "shared/addr.h"
#include "shared/slice.h"

#define RESOLVER_NAMES     4096
#define RESOLVER_ADDRESSES 32 /* kept of one name */
#define RESOLVER_WAIT_MS   5000

struct resolver_name {
    char *name;
    struct addr_ip addresses[RESOLVER_ADDRESSES];
    unsigned count;
};

struct resolver_names {
    struct resolver_name *list;
    unsigned count;
};

/* The entry of a name; NULL: not there. */
struct resolver_name *
resolver_names_find(const struct resolver_names *names, const char *name);
/* 0, or -1 when there are too many or memory is short. */
int
resolver_names_add(struct resolver_names *names, const char *name);
void
resolver_names_fini(struct resolver_names *names);
/* Take one line of the child: false when it is not one. */
bool
resolver_names_take(struct resolver_names *names, struct slice line);

struct resolver;
typedef void
resolver_done(void *arg);

/* Fill names and call done from the loop; what does not resolve within RESOLVER_WAIT_MS has no
 * address. NULL when no child could be made. names lives until done or resolver_cancel. */
struct resolver *
resolver_start(struct event_base *base, const struct identity *id, struct resolver_names *names,
               resolver_done *done, void *arg);
/* Forget it before done was called. */
void
resolver_cancel(struct resolver *r);

#endif
