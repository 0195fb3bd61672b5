/* SPDX-License-Identifier: Apache-2.0
 *
 * verdict.h - somebody who waits for how a reload or an upgrade comes out.
 */
#ifndef MASTER_VERDICT_H
#define MASTER_VERDICT_H

#include <stdbool.h>

#include "shared/list.h"

struct verdict_waiter {
    struct list link; /* may be removed at any time */
    /* why is "" when it succeeded. Called once, from the loop. */
    void (*done)(struct verdict_waiter *waiter, bool is_ok, const char *why);
};

static inline void
verdict_tell(struct list *waiters, bool is_ok, const char *why)
{
    while (!list_is_empty(waiters)) {
        struct verdict_waiter *w = list_first(waiters, struct verdict_waiter, link);
        list_del(&w->link);
        w->done(w, is_ok, why);
    }
}

#endif
