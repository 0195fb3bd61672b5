/* SPDX-License-Identifier: Apache-2.0
 *
 * explain.h - which listener, route, upstream and backend would get a request now, and why. Asks
 * the same router, pools and states as the workers do; sends nothing.
 */
#ifndef MASTER_EXPLAIN_H
#define MASTER_EXPLAIN_H

#include <stddef.h>

#include "conf/conf.h"
#include "shared/shm.h"

struct json_object;

struct explain_question {
    const char *url;    /* http://, https:// or tcp:// */
    const char *host;   /* the Host field; NULL: the URL's */
    const char *method; /* NULL: GET */
    const char *client; /* an address; NULL: not known */
};

/* {"listener", "route", "upstream", "pool", "backends": [...], "backend", "why"}, as far as it
 * gets; or {"reason", "why"} where the way ends. NULL with why when the question cannot be
 * understood. */
struct json_object *
explain_request(const struct shm *shm, const struct conf *conf, const struct explain_question *q,
                char *why, size_t why_size);

#endif
