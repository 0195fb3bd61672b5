/* SPDX-License-Identifier: Apache-2.0
 *
 * child.h - what a child process (worker or monitor) is given when it begins, and how it must
 * behave.
 *
 * The spawner has already: forked, dropped its parent's event base and every descriptor that is not
 * named here, mapped the segment in the child's role, dropped privileges, set the process title,
 * and set signals: INT, HUP, QUIT, USR1, USR2 and PIPE ignored, TERM default (the child installs
 * its own: retire). Configuration and listening sockets come over the channel, at start too:
 * SOCKET..., LOG..., PREPARE, then COMMIT. The child exits with 0 when retired and done, and at
 * once (status 0) when the channel closes. It writes heartbeat_ms of its row (monitor: of H) at
 * least once a second.
 */
#ifndef SHARED_CHILD_H
#define SHARED_CHILD_H

#include "shared/channel.h"
#include "shared/shm.h"

struct child_args {
    struct shm *shm; /* mapped in the child's role */
    unsigned row;    /* worker: its row in the segment */
    unsigned index;  /* worker: which of each address's sockets is its own */
    int channel_fd;
    const int *wakes; /* eventfds, one per row; wakes[SHM_ROWS] is the monitor's */
    int wake_fd;      /* its own among them */
};

typedef int
child_main(const struct child_args *args);

child_main worker_main;
child_main monitor_main;

/* Make somebody's loop turn. */
void
child_wake(int wake_fd);

#endif
