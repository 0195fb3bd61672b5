/* SPDX-License-Identifier: Apache-2.0
 *
 * metrics.h - the Prometheus page (text format 0.0.4), from the segment and the conf.
 *
 * A page over thousands of backends takes a while, so it is rendered in steps between which the
 * loop of the monitor turns. Counters are sums over all rows that ever had a worker.
 */
#ifndef MASTER_METRICS_H
#define MASTER_METRICS_H

#include "conf/conf.h"
#include "shared/shm.h"

struct metrics; /* a page in the making */

/* conf is referenced until the page is taken. NULL without memory. */
struct metrics *
metrics_begin(const struct shm *shm, struct conf *conf);

/* Render at least one and about max_items more items (a backend, listener or value of one family).
 * true when the page is complete. */
bool
metrics_step(struct metrics *m, unsigned max_items);

/* The text, for the caller to free; NULL when memory was short. Ends m, complete or not. */
char *
metrics_take(struct metrics *m, size_t *len);

/* How many conf generations are alive: the largest count of any live worker. */
uint64_t
metrics_confs(const struct shm *shm);

#endif
