/* SPDX-License-Identifier: Apache-2.0
 *
 * queue.c - waiting for a place at a backend: see queue.h.
 */
#include "worker/queue.h"

#include <stdlib.h>

#include "worker/upstream_private.h"
#include "worker/worker.h"

#define RETRY_MS 50 /* a wake-up that was lost costs so much */

/* The streams of this worker that wait for one upstream. Made at the first need, and kept. */
struct queue {
    struct list link;    /* queues, while somebody waits */
    struct list streams; /* stream.queue_link, first come first */
    unsigned slot;       /* of the upstream */
    bool is_due;         /* a place may be free */
};

static struct queue *by_slot[SHM_UPSTREAMS];
static struct list queues = LIST_INIT(queues);
static bool is_any_due;
static uint64_t ticked_ms;

static struct shm_gauge
waiting_gauge(unsigned slot)
{
    return shm_gauge_waiting(worker.shm, worker.row, slot);
}

static struct queue *
find_queue(unsigned slot)
{
    struct queue *q = by_slot[slot];
    if (!q && (q = calloc(1, sizeof(*q)))) {
        list_init(&q->link);
        list_init(&q->streams);
        q->slot = slot;
        by_slot[slot] = q;
    }
    return q;
}

static void
make_due(struct queue *q)
{
    if (q && !list_is_empty(&q->streams)) {
        q->is_due = true;
        is_any_due = true;
    }
}

/* ---- between workers ---- */

static bool
has_waiting(unsigned row, unsigned slot)
{
    return shm_get(&worker.shm->m->workers[row].pid) != 0 &&
           shm_ledger_count(&worker.shm->rows[row]->ledger.upstreams_waiting[slot]) > 0;
}

/* The row whose turn it is among those with somebody waiting; -1: none. */
static int
next_row(const struct backend *b)
{
    unsigned slot = b->upstream_slot;
    if (!b->has_queue || shm_get(&worker.shm->s->upstreams[slot].waiting) == 0) {
        return -1;
    }
    uint64_t turn = shm_turn_get(worker.shm, slot);
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        unsigned row = (unsigned)((turn + i) % SHM_ROWS);
        if (has_waiting(row, slot)) {
            return (int)row;
        }
    }
    return -1;
}

static void
give_place(const struct backend *b, unsigned row)
{
    shm_turn_set(worker.shm, b->upstream_slot, row + 1);
    if (row == worker.args->row) {
        make_due(by_slot[b->upstream_slot]);
    } else {
        child_wake(worker.args->wakes[row]);
    }
}

bool
queue_is_wanted_elsewhere(const struct backend *b)
{
    int row = next_row(b);
    if (row == (int)worker.args->row) {
        give_place(b, (unsigned)row);
    }
    return row >= 0 && row != (int)worker.args->row;
}

void
queue_on_closed(const struct backend *b)
{
    int row = next_row(b);
    if (row >= 0) {
        give_place(b, (unsigned)row);
    }
}

void
queue_on_room(const struct backend *b)
{
    if (b->has_queue) {
        make_due(by_slot[b->upstream_slot]);
    }
}

/* Those who hold idle connections to full backends are asked to give them up. */
static void
ask_others(const struct conf_upstream *up)
{
    uint64_t open = 0, active = 0;
    for (unsigned i = 0; i < up->nbackends; i++) {
        open += shm_get(&worker.shm->s->backends[up->backends[i].slot].open);
        active += shm_get(&worker.shm->s->backends[up->backends[i].slot].active);
    }
    for (unsigned row = 0; open > active && row < SHM_ROWS; row++) {
        if (row != worker.args->row && shm_get(&worker.shm->m->workers[row].pid) != 0) {
            child_wake(worker.args->wakes[row]);
        }
    }
}

static void
give_up_idle(const struct conf_upstream *up)
{
    uint64_t waiting = shm_get(&worker.shm->s->upstreams[up->slot].waiting);
    uint64_t own = shm_ledger_count(&worker.row->ledger.upstreams_waiting[up->slot]);
    for (unsigned i = 0; i < up->nbackends && waiting > own; i++) {
        struct backend *b = worker.backends[up->backends[i].slot];
        while (b && waiting > own && upstream_close_oldest_idle(b)) {
            waiting--;
        }
    }
}

void
queue_on_wake(void)
{
    for (unsigned i = 0; worker.conf && i < worker.conf->nupstreams; i++) {
        const struct conf_upstream *up = &worker.conf->upstreams[i];
        if (shm_get(&worker.shm->s->upstreams[up->slot].waiting) > 0) {
            make_due(by_slot[up->slot]);
            give_up_idle(up);
        }
    }
}

/* ---- streams ---- */

static void
refuse(struct stream *s, enum reason why)
{
    s->queued_us = 0;
    stream_fail(s, why);
}

void
queue_wait(struct stream *s)
{
    const struct conf_upstream *up = s->upstream;
    struct queue *q = up->queue_size ? find_queue(up->slot) : NULL;
    bool is_back = s->queued_us != 0; /* another was quicker: it keeps its place */
    if (!q) {
        refuse(s, REASON_over_limit);
        return;
    }
    if (is_back) {
        shm_gauge_add(worker.row, waiting_gauge(up->slot));
    } else if (!shm_gauge_try_add(worker.row, waiting_gauge(up->slot), up->queue_size)) {
        refuse(s, REASON_queue_full);
        return;
    }
    if (list_is_empty(&q->streams)) {
        list_add_tail(&queues, &q->link);
    }
    if (is_back) {
        list_add_head(&q->streams, &s->queue_link);
        return;
    }
    s->queued_us = worker_now_us();
    list_add_tail(&q->streams, &s->queue_link);
    ask_others(up);
}

void
queue_forget(struct stream *s)
{
    if (list_is_empty(&s->queue_link)) {
        return;
    }
    struct queue *q = by_slot[s->upstream->slot];
    list_del(&s->queue_link);
    shm_gauge_sub(worker.row, waiting_gauge(q->slot));
    if (list_is_empty(&q->streams)) {
        list_del(&q->link);
    }
}

static bool
is_any_usable(const struct conf_pool *pool)
{
    for (unsigned i = 0; i < pool->nbackends; i++) {
        if (upstream_usable(pool->backends[i]) != REASON_over_limit) {
            return true; /* or there is another reason to be told */
        }
    }
    return pool->nbackends == 0 || (pool->backups && is_any_usable(pool->backups));
}

/* As long as the first has somewhere to go. */
static void
serve(struct queue *q)
{
    q->is_due = false;
    while (!list_is_empty(&q->streams)) {
        struct stream *s = list_first(&q->streams, struct stream, queue_link);
        if (!is_any_usable(s->pool)) {
            return;
        }
        queue_forget(s);
        uint64_t since = s->queued_us;
        upstream_acquire(s, s->pool);
        if (!list_is_empty(&s->queue_link)) {
            return; /* another was quicker */
        }
        if (s->state != STREAM_DONE) {
            s->queue_us += worker_now_us() - since;
            s->queued_us = 0;
        }
    }
}

/* Each of those that are there now, once, whatever serving one does to the others. */
static void
visit_all(void (*visit)(struct queue *q))
{
    unsigned n = 0;
    list_for_each (it, &queues) {
        n++;
    }
    for (; n > 0 && !list_is_empty(&queues); n--) {
        struct queue *q = list_first(&queues, struct queue, link);
        list_del(&q->link);
        list_add_tail(&queues, &q->link);
        visit(q);
    }
    conn_flush_any();
}

static void
serve_if_due(struct queue *q)
{
    if (q->is_due) {
        serve(q);
    }
}

void
queue_run(void)
{
    if (is_any_due) {
        is_any_due = false;
        visit_all(serve_if_due);
    }
}

static bool
is_overdue(const struct stream *s)
{
    uint64_t timeout_us = (uint64_t)s->policy->timeouts.queue * 1000;
    return timeout_us != 0 && worker_now_us() - s->queued_us >= timeout_us;
}

/* Routes may have timeouts of their own, so any of them may be the next. They are failed when all
 * have been found: that may do things to the queue. */
static void
expire(struct queue *q)
{
    struct list overdue = LIST_INIT(overdue);
    list_for_each_safe (it, &q->streams) {
        if (is_overdue(container_of(it, struct stream, queue_link))) {
            list_del(it);
            list_add_tail(&overdue, it);
        }
    }
    if (list_is_empty(&q->streams)) {
        list_del(&q->link);
    }
    while (!list_is_empty(&overdue)) {
        struct stream *s = list_first(&overdue, struct stream, queue_link);
        s->queue_us += worker_now_us() - s->queued_us;
        stream_fail(s, REASON_queue_timeout);
    }
}

void
queue_tick(void)
{
    if (list_is_empty(&queues)) {
        return;
    }
    visit_all(expire);
    if (worker_now_ms() - ticked_ms >= RETRY_MS) {
        ticked_ms = worker_now_ms();
        visit_all(make_due);
    }
}
