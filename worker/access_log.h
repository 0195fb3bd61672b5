/* SPDX-License-Identifier: Apache-2.0
 *
 * access_log.h - a line for each exchange, gathered over a loop turn and written at its end.
 */
#ifndef WORKER_ACCESS_LOG_H
#define WORKER_ACCESS_LOG_H

#include "conf/conf.h"
#include "worker/stream.h"

/* Use what conf says from now on. fd: its target, the caller's; -1: off, or syslog. */
void
access_log_apply(const struct conf *conf, int fd);
/* Say how many lines were dropped; now and then. */
void
access_log_tick(void);
void
access_log_stream(const struct stream *s);
/* Write the lines of this turn. */
void
access_log_flush(void);

#endif
