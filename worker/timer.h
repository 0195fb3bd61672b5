/* SPDX-License-Identifier: Apache-2.0
 *
 * timer.h - deadlines on one wheel: 1,024 slots of 64 ms, O(1), links inside the owners.
 *
 * A deadline that moves later costs one store: the timer stays in its slot and is linked anew when
 * the slot comes round. A due time of 0 is none. A timer fires at most 64 ms late, never early.
 */
#ifndef WORKER_TIMER_H
#define WORKER_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/list.h"

#define WHEEL_SLOT_MS 64
#define WHEEL_SLOTS   1024

struct timer;
typedef void
timer_fn(struct timer *t);

struct timer {
    struct list link;
    timer_fn *on_due;
    uint64_t due_ms;  /* monotonic; 0: none */
    uint64_t slot_ms; /* when its slot comes round; 0: not linked */
};

struct wheel {
    struct list slots[WHEEL_SLOTS];
    uint64_t tick; /* the next slot to be looked at, in units of WHEEL_SLOT_MS */
    unsigned count;
};

void
wheel_init(struct wheel *w, uint64_t now_ms);
void
timer_init(struct timer *t, timer_fn *on_due);
/* Set or move the deadline; 0 takes it away. */
void
timer_set(struct wheel *w, struct timer *t, uint64_t due_ms);
void
timer_del(struct wheel *w, struct timer *t);
/* Call the on_due of every timer that is due. It may set or delete any timer. */
void
wheel_run(struct wheel *w, uint64_t now_ms);

#endif
