/* SPDX-License-Identifier: Apache-2.0
 *
 * path_set.h - numbers by path: exact, or by the longest prefix of whole segments.
 *
 * /api is a prefix of /api and of /api/x, not of /apix; /api/ of what begins with it. A lookup goes
 * over the path once, and no further than the longest path in the set is long.
 */
#ifndef CONF_PATH_SET_H
#define CONF_PATH_SET_H

#include "conf/arena.h"

struct path_set;

/* A set for at most n paths. */
struct path_set *
path_set_new(struct conf_arena *arena, unsigned n);
/* Of two equal paths the first stays. path is kept by reference. value is not negative. */
void
path_set_add(struct path_set *set, const char *path, int value);

/* -1: none. set may be NULL: empty. */
int
path_set_find(const struct path_set *set, struct slice path);
/* The longest prefix that is shorter than path itself. */
int
path_set_find_shorter(const struct path_set *set, struct slice path);
int
path_set_find_exact(const struct path_set *set, struct slice path);

#endif
