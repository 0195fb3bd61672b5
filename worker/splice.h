/* SPDX-License-Identifier: Apache-2.0
 *
 * splice.h - move bytes from socket to socket through a pipe, without copying them.
 *
 * Pipes are pooled and capped; without one the caller copies. A pipe that holds bytes when its
 * stream ends is closed, not pooled.
 */
#ifndef WORKER_SPLICE_H
#define WORKER_SPLICE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/conn.h"

#define SPLICE_MIN_BYTES 16384 /* below this a copy costs less */
#define SPLICE_MAX_PIPES 64

struct splice_pipe;

/* Give *pipe a pipe if it has none. false: none is left. */
bool
splice_pipe_acquire(struct splice_pipe **pipe);
void
splice_pipe_release(struct splice_pipe **pipe);
/* Bytes that were read and not yet written. */
uint64_t
splice_pipe_bytes(const struct splice_pipe *pipe);

/* May bytes go from one to the other so: both plain, nothing kept in between. */
bool
splice_is_possible(const struct conn *from, const struct conn *to);

enum splice_result {
    SPLICE_MORE,    /* the budget is used up, both can go on */
    SPLICE_STARVED, /* from has nothing to read now, the pipe is empty */
    SPLICE_BLOCKED, /* to takes nothing now: it will have an edge when it does */
    SPLICE_EOF,     /* from has ended, the pipe is empty */
    SPLICE_BROKEN   /* one of them is broken: see is_broken */
};
/* Move at most max bytes; *moved is what was read from from, *sent what to has taken. */
enum splice_result
splice_move(struct splice_pipe *pipe, struct conn *from, struct conn *to, uint64_t max,
            uint64_t *moved, uint64_t *sent);

#endif
