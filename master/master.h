/* SPDX-License-Identifier: Apache-2.0
 *
 * master.h - the control plane process: starts the others, keeps them alive, reloads, stops.
 *
 * There is one master in a process, so it is one object. One libevent loop carries signals, timers,
 * the channels of the children and the control socket; nothing in it waits.
 */
#ifndef MASTER_MASTER_H
#define MASTER_MASTER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "master/children.h"
#include "master/generation.h"
#include "master/identity.h"
#include "master/sockets.h"
#include "shared/child.h"
#include "shared/shm.h"

enum master_exit { MASTER_EXIT_OK, MASTER_EXIT_CONFIG, MASTER_EXIT_START };

struct master_options {
    struct generation_origin origin;
    char **argv;          /* of main(): what an upgrade starts the new binary with */
    const char *pid_file; /* NULL: the configuration's */
    bool is_daemon;
    bool is_demo;
    child_main *worker;
    child_main *monitor;
};

enum master_state {
    MASTER_LOADING,  /* the first configuration is being read */
    MASTER_STARTING, /* children are forked; not all serve yet */
    MASTER_RUNNING,
    MASTER_LAME,     /* asked to stop: not ready any more, still accepting */
    MASTER_DRAINING, /* workers retire */
    MASTER_ENDING,   /* the monitor goes last */
    MASTER_REPLACED  /* another is in charge; our workers retire */
};

struct master {
    const struct master_options *options;
    struct event_base *base;
    enum master_state state;
    enum master_exit exit_status;

    struct shm shm;
    int wakes[CHILDREN_COUNT]; /* eventfds, one per row, the monitor's last */
    struct identity identity;  /* of the children */
    struct child children[CHILDREN_COUNT];
    struct sockets sockets;
    struct generation current; /* in force */
    uint64_t last_gen;         /* number given last */
    unsigned count;            /* workers wanted */
    uint64_t cut;              /* streams cut by retiring workers */
    unsigned stop_signals;
};

extern struct master master;

/* Run until told to stop. */
enum master_exit
master_run(struct master_options *options);

/* A child began to serve or has gone: whoever waits for that looks again. */
void
master_on_children_changed(void);
/* The former master has let go: this one is in charge. */
void
master_take_charge(void);
/* Say in the segment who is in charge, and what is in force. */
void
master_publish(void);
static inline bool
master_is_stopping(void)
{
    return master.state >= MASTER_LAME;
}

#endif
