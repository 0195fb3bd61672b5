/* SPDX-License-Identifier: Apache-2.0
 *
 * spawn.h - fork a process that keeps nothing of its parent but what it is given.
 */
#ifndef MASTER_SPAWN_H
#define MASTER_SPAWN_H

#include <sys/types.h>

#include "master/identity.h"

struct event_base;

struct spawn_plan {
    const char *name;          /* in its title behind "akashd: ", and in its log lines */
    struct event_base *base;   /* the parent's; dropped in the child */
    const struct identity *id; /* whom it becomes, after prepare() */
    const int *keep;           /* descriptors that stay open besides 0, 1 and 2 */
    unsigned nkeep;
    int (*prepare)(void *arg); /* in the child, still privileged; 0 or -1. May be NULL */
    int (*run)(void *arg);     /* in the child; its exit status */
    void *arg;
};

/* Returns the child's pid, or -1 with errno. In the child it does not return. The child's signals
 * are as shared/child.h promises; it is killed when the master dies. */
pid_t
spawn_process(const struct spawn_plan *plan);

#endif
