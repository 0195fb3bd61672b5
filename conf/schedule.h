/* SPDX-License-Identifier: Apache-2.0
 *
 * schedule.h - the order in which a pool's members take turns, by weight.
 *
 * A member of weight w stands w times in the schedule (weights divided by their greatest common
 * divisor), as evenly spread as possible. The schedule depends on the weights only, so that all
 * workers, and any number of machines, have the same.
 */
#ifndef CONF_SCHEDULE_H
#define CONF_SCHEDULE_H

#include <stdint.h>

#include "conf/arena.h"

#define SCHEDULE_MAX     65536 /* entries; greater sums of weights are scaled down */
#define SCHEDULE_MEMBERS 32768

/* n weights from 1 on, n at most SCHEDULE_MEMBERS. *len is 0 and the result not NULL for n 0. */
uint16_t *
schedule_build(struct conf_arena *arena, const unsigned *weights, unsigned n, unsigned *len);

#endif
