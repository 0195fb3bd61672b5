/* SPDX-License-Identifier: Apache-2.0
 *
 * maglev.h - the lookup table of consistent hashing (Eisenbud and others, NSDI 2016).
 *
 * A prime number of entries, each with an index into the pool's backends, in proportion to weight
 * within 1 %. It depends on ids and weights only, not on the order in the file, so that any number
 * of machines has the same; when a backend leaves, hardly an entry changes that was not its own.
 */
#ifndef CONF_MAGLEV_H
#define CONF_MAGLEV_H

#include <stdint.h>

#include "conf/conf.h"

#define MAGLEV_SMALL 65537
#define MAGLEV_LARGE 655373 /* for more than MAGLEV_SMALL / 100 backends */

/* n backends (1 to 65,535) with id and weight. *len is set to the number of entries. */
uint16_t *
maglev_build(struct conf_arena *arena, struct conf_backend *const *backends, unsigned n,
             unsigned *len);

#endif
