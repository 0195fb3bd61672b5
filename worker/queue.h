/* SPDX-License-Identifier: Apache-2.0
 *
 * queue.h - streams that wait because every backend they may go to is full.
 *
 * A cap holds over all workers, and so does the size of the queue. Within a worker those who came
 * first are served first; between workers, whoever gives a place back passes it on in turns: it
 * closes its connection and wakes the next worker that has somebody waiting.
 */
#ifndef WORKER_QUEUE_H
#define WORKER_QUEUE_H

#include <stdbool.h>

#include "worker/stream.h"
#include "worker/upstream.h"

/* s finds every backend of s->pool full: it waits, or fails with queue_full, or with over_limit
 * where the upstream has no queue. */
void
queue_wait(struct stream *s);
/* s ends while it waits, or goes on. Allowed for one that does not wait. */
void
queue_forget(struct stream *s);

/* A connection to b would become idle. true: another worker's stream is to have its place, so it
 * should be closed. Otherwise one of ours gets it, or nobody waits. */
bool
queue_is_wanted_elsewhere(const struct backend *b);
/* A connection to b has been closed: its place goes to whose turn it is. */
void
queue_on_closed(const struct backend *b);
/* An exchange with b has ended, which may leave room on a connection that others share. */
void
queue_on_room(const struct backend *b);

/* Another process has woken us: give up what others wait for, and serve our own. */
void
queue_on_wake(void);
/* At the end of a loop turn: those that can go on do. */
void
queue_run(void);
/* A few times a second: those that have waited for too long fail. */
void
queue_tick(void);

#endif
