/* SPDX-License-Identifier: Apache-2.0
 *
 * logs.h - the log files that the master has opened for this worker: for its own events and for
 * the access log.
 */
#ifndef WORKER_LOGS_H
#define WORKER_LOGS_H

#include "conf/conf.h"
#include "shared/slice.h"

/* An open file for a target by that path. Takes fd; replaces a former one at once. */
void
logs_give(struct slice path, int fd);
/* Log as conf, worker.conf, says from now on, and close files that it does not name. */
void
logs_apply(const struct conf *conf);
/* Once a second: count and say what was dropped. */
void
logs_tick(void);

#endif
