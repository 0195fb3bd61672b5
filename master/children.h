/* SPDX-License-Identifier: Apache-2.0
 *
 * children.h - the master's side of each worker and of the monitor: its process and its channel.
 *
 * What happens to children is decided in supervise.c; here they are started and spoken to.
 */
#ifndef MASTER_CHILDREN_H
#define MASTER_CHILDREN_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "master/backoff.h"
#include "master/generation.h"
#include "master/sockets.h"
#include "shared/channel.h"
#include "shared/child.h"
#include "shared/shm.h"

#define CHILDREN_COUNT   (SHM_ROWS + 1)
#define CHILDREN_MONITOR SHM_ROWS /* its place in the table, and in wakes */

struct child {
    unsigned row;   /* place in the table; CHILDREN_MONITOR or the row in the segment */
    unsigned index; /* worker: which of each address's sockets is its own */
    bool is_wanted; /* a process shall be here; else it retires or there is none */
    pid_t pid;      /* 0: none */
    enum shm_child_state state;

    bool is_linked; /* channel and its events are open */
    struct channel channel;
    struct event *readable;
    struct event *writable;

    uint64_t gen;      /* of the last PREPARE */
    bool is_ready;     /* answered READY to it */
    bool is_committed; /* answered COMMITTED */
    bool is_reviving;  /* was retiring, and has not committed since */

    uint64_t started_ms, serving_ms, retired_ms; /* monotonic; 0: not yet */
    uint64_t kill_ms;                            /* 0: none; then KILL */
    bool is_unfolded;                            /* died; its ledger is still to be taken out */
    struct backoff backoff;
    struct event *respawn; /* timer */
};

/* Is it the monitor? */
static inline bool
child_is_monitor(const struct child *child)
{
    return child->row == CHILDREN_MONITOR;
}

void
children_init(struct child children[CHILDREN_COUNT]);
/* How a child is called in logs and titles: "worker 3", "monitor". The text is good until the next
 * call. */
const char *
child_name(const struct child *child);
void
child_set_state(struct child *child, enum shm_child_state state);

/* Fork it; it gets its sockets, log files and the configuration in force. 0 or -1 with errno. */
int
child_start(struct child *child);
/* Send what belongs to a generation: sockets (only new ones when the child has the others), log
 * files, the bundle. */
void
child_prepare(struct child *child, const struct generation *gen, bool only_new_sockets);
void
child_send_logs(struct child *child, const struct logs *logs);
void
child_send(struct child *child, enum channel_type type, uint64_t gen, uint64_t number);
void
child_send_socket(struct child *child, enum channel_type type, const struct listen_socket *s);
void
child_kill(struct child *child, int signal_number);
/* Close its channel: a child that lives exits then. */
void
child_unlink(struct child *child);

/* Does every wanted child serve generation gen? */
bool
children_all_serve(uint64_t gen);
/* Is a child between its fork and its first COMMITTED? */
bool
children_is_starting(void);
unsigned
children_serving(void);

#endif
