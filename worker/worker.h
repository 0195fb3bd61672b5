/* SPDX-License-Identifier: Apache-2.0
 *
 * worker.h - the data plane process: its loop, its memory, its part of the segment.
 *
 * There is one worker in a process, so it is one object. A loop turn is: wait, run the callbacks of
 * what happened, run what asked to be run later, write the log lines, free what was closed.
 */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"
#include "shared/child.h"
#include "shared/clock.h"
#include "shared/http.h"
#include "shared/list.h"
#include "shared/shm.h"
#include "worker/timer.h"

#define WORKER_SCRATCH_BYTES 65536
#define WORKER_VERIFY_MS     256
#define WORKER_IDLE_GRACE_MS \
    2000 /* at retire an idle keep-alive client may still send one request */

struct backend;
struct listener;

enum worker_state {
    WORKER_STARTING, /* no configuration yet, or called back and waiting for the one in force */
    WORKER_SERVING,
    WORKER_RETIRING /* accepts nothing new; exits when the last client has gone */
};

struct worker {
    const struct child_args *args;
    struct event_base *base;
    struct channel channel;
    struct shm *shm;
    struct shm_row *row;
    enum worker_state state;

    struct conf *conf; /* what new streams use */

    uint64_t now_us; /* of this turn; 0: not read yet. Use worker_now_us() */
    struct wheel wheel;
    struct list runnable;     /* conns to be run again */
    struct list idle_clients; /* keep-alive clients between requests, longest idle first */
    struct list streams;      /* running exchanges */
    unsigned nclients;        /* client connections, all kinds */

    struct backend *backends[SHM_BACKENDS]; /* by slot; upstream.c */

    char *scratch; /* WORKER_SCRATCH_BYTES: what a read gives is consumed or kept before the next */
    char *head;    /* room for one head to be written */
    size_t head_size;
    struct http_field *fields; /* for parsing one head */
    unsigned max_fields;

    unsigned streams_cut; /* at the end of a drain */
    bool is_draining;     /* the whole server stops, not this worker alone */
};

extern struct worker worker;

/* Monotonic time, read once in a loop turn. */
static inline uint64_t
worker_now_us(void)
{
    if (worker.now_us == 0) {
        worker.now_us = clock_mono_us();
    }
    return worker.now_us;
}

static inline uint64_t
worker_now_ms(void)
{
    return worker_now_us() / 1000;
}

/* The head buffer; whatever still waits in it is written first. */
char *
worker_head_room(void);

/* No new exchange may begin on a connection that lives on: answers say Connection: close. */
static inline bool
worker_is_retiring(void)
{
    return worker.state == WORKER_RETIRING;
}

/* A client connection has come or gone. */
void
worker_client_opened(void);
void
worker_client_closed(void);

#endif
