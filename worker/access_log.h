/* SPDX-License-Identifier: Apache-2.0
 *
 * access_log.h - a line for each exchange, gathered over a loop turn and written at its end.
 */
#ifndef WORKER_ACCESS_LOG_H
#define WORKER_ACCESS_LOG_H

#include "shared/slice.h"
#include "worker/stream.h"

/* An open log file from the master, for a target by that path. Takes fd; replaces a former one. */
void
access_log_give(struct slice path, int fd);
/* Use what conf says from now on. */
void
access_log_apply(const struct conf *conf);
void
access_log_stream(const struct stream *s);
/* Write the lines of this turn. */
void
access_log_flush(void);

#endif
