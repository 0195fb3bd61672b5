/* SPDX-License-Identifier: Apache-2.0
 *
 * timer.c - the wheel of timer.h.
 */
#include "worker/timer.h"

#include <assert.h>

void
wheel_init(struct wheel *w, uint64_t now_ms)
{
    for (unsigned i = 0; i < WHEEL_SLOTS; i++) {
        list_init(&w->slots[i]);
    }
    w->tick = now_ms / WHEEL_SLOT_MS;
    w->count = 0;
}

void
timer_init(struct timer *t, timer_fn *on_due)
{
    list_init(&t->link);
    t->on_due = on_due;
    t->due_ms = 0;
    t->slot_ms = 0;
}

/* The first slot whose time is not before due_ms, within one round of the wheel. */
static void
link_into_slot(struct wheel *w, struct timer *t)
{
    uint64_t tick = (t->due_ms + WHEEL_SLOT_MS - 1) / WHEEL_SLOT_MS;
    if (tick < w->tick) {
        tick = w->tick;
    }
    if (tick >= w->tick + WHEEL_SLOTS) {
        tick = w->tick + WHEEL_SLOTS - 1;
    }
    t->slot_ms = tick * WHEEL_SLOT_MS;
    list_add_tail(&w->slots[tick % WHEEL_SLOTS], &t->link);
    w->count++;
}

static void
unlink_from_slot(struct wheel *w, struct timer *t)
{
    list_del(&t->link);
    t->slot_ms = 0;
    assert(w->count > 0);
    w->count--;
}

void
timer_set(struct wheel *w, struct timer *t, uint64_t due_ms)
{
    t->due_ms = due_ms;
    if (due_ms == 0 || (t->slot_ms != 0 && t->slot_ms <= due_ms)) {
        return; /* looked at again when its slot comes round */
    }
    if (t->slot_ms != 0) {
        if (t->slot_ms < due_ms + WHEEL_SLOT_MS) {
            return;
        }
        unlink_from_slot(w, t);
    }
    link_into_slot(w, t);
}

void
timer_del(struct wheel *w, struct timer *t)
{
    t->due_ms = 0;
    if (t->slot_ms != 0) {
        unlink_from_slot(w, t);
    }
}

static void
run_slot(struct wheel *w, struct list *slot, uint64_t now_ms)
{
    struct list due = LIST_INIT(due);
    list_splice_tail(&due, slot);
    while (!list_is_empty(&due)) {
        struct timer *t = list_first(&due, struct timer, link);
        unlink_from_slot(w, t);
        if (t->due_ms == 0) {
            continue;
        }
        if (t->due_ms > now_ms) {
            link_into_slot(w, t);
            continue;
        }
        t->due_ms = 0;
        t->on_due(t);
    }
}

void
wheel_run(struct wheel *w, uint64_t now_ms)
{
    uint64_t last = now_ms / WHEEL_SLOT_MS;
    if (last >= w->tick + WHEEL_SLOTS) {
        w->tick = last - WHEEL_SLOTS + 1; /* a long sleep: one round sees every slot */
    }
    while (w->tick <= last) {
        struct list *slot = &w->slots[w->tick % WHEEL_SLOTS];
        w->tick++; /* before the slot runs, so that new timers go to later slots */
        run_slot(w, slot, now_ms);
    }
}
