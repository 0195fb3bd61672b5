/* SPDX-License-Identifier: Apache-2.0
 *
 * upgrade.h - the binary is replaced: the side of the master that goes.
 *
 * It starts the program at the path of the first start, with the same arguments, and hands it over
 * a channel all that lives on: the segment, the eventfds, the listening sockets. The new master
 * (takeover.h) reads the configuration, forks its workers, and says when they serve. Then this one
 * ends its monitor and says "yours"; the new one takes the control socket and the pid file, starts
 * its monitor and says so; then this one's workers retire, and it exits after the last.
 *
 * Until the new one has said that it is in charge, nothing is lost: when it ends, or is silent for
 * 10 s, this one goes on.
 */
#ifndef MASTER_UPGRADE_H
#define MASTER_UPGRADE_H

#include <stdbool.h>
#include <sys/types.h>

#include "master/verdict.h"

/* The absolute path by which this program was started; NULL: not known. */
const char *
upgrade_program(void);

/* cause is a literal, for the log: "SIGUSR2". waiter may be NULL. While a reload runs it is
 * remembered, and begins after it. */
void
upgrade_request(const char *cause, struct verdict_waiter *waiter);
/* A new master is starting: no reload may begin. */
bool
upgrade_is_running(void);
/* Look again: has the monitor gone, has the reload ended that an upgrade waits for? */
void
upgrade_check(void);
/* A process that is no worker and no monitor has ended. */
void
upgrade_on_exit(pid_t pid, int status);
/* The server is to stop, for cause (a literal). true: an upgrade is under way, and what comes of it
 * is awaited, for a few seconds: then who is in charge stops. What the new workers have accepted is
 * finished so. false: nothing is in the way, or it was asked before. */
bool
upgrade_postpones_stop(const char *cause);
/* The server stops: the new master, if there is one that is not in charge yet, ends. */
void
upgrade_cancel(void);
void
upgrade_fini(void);

#endif
