/* SPDX-License-Identifier: Apache-2.0
 *
 * stop.h - the ends of a master: a start that fails, a graceful stop, a successor.
 */
#ifndef MASTER_STOP_H
#define MASTER_STOP_H

#include "master/master.h"

/* The timers. 0 or -1. */
int
stop_open(void);
void
stop_close(void);

/* Give up while starting. What runs goes on. */
void
stop_failed(enum master_exit status);
/* Stop gracefully; again: at once. */
void
stop_request(const char *cause);
/* Another master is in charge: retire all workers, and end after the last. */
void
stop_replaced(void);

#endif
