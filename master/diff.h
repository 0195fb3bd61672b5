/* SPDX-License-Identifier: Apache-2.0
 *
 * diff.h - what changes from one configuration to another, and whom that touches. Reads the segment
 * for numbers, changes nothing.
 *
 * Compared is the effective long form, that of -T, so that another way to write the same is no
 * change; and beside it what it does not show: the contents of certificates and of error pages, the
 * addresses of names.
 */
#ifndef MASTER_DIFF_H
#define MASTER_DIFF_H

#include "conf/conf.h"
#include "shared/shm.h"

struct json_object;

/* {"changes": [{"what": PATH, "from": ..., "to": ..., "touches": TEXT}, ...], "refused": KEY}:
 * "from" or "to" is missing when there is none; "refused" is the key that cannot change in place,
 * and missing when there is none. before has its slots. The caller's to put. */
struct json_object *
diff_confs(const struct shm *shm, const struct conf *before, const struct conf *after);

/* Where the operator differs from the file: [{"what": "upstreams.site.backends[a].weight",
 * "file": 1, "operator": 5}, ...] */
struct json_object *
diff_operators(const struct shm *shm, const struct conf *conf);

#endif
