/* SPDX-License-Identifier: Apache-2.0
 *
 * splice.c - bulk without copies: see splice.h.
 *
 * Trap: EAGAIN with a pipe that is not empty says nothing about the socket that was read: many
 * small segments fill a pipe's slots long before its bytes. Only with an empty pipe does it mean
 * that the socket has nothing.
 *
 * Another: what was sent with SPLICE_F_MORE and fills no segment waits 200 ms for more. So more is
 * announced only when the pipe was full, and taken back when nothing comes after all.
 */
#include "worker/splice.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/list.h"
#include "worker/worker.h"

#define PIPE_BYTES  (256 * 1024)
#define ROUND_BYTES (4 * 1024 * 1024) /* in one call, then others have their turn */

struct splice_pipe {
    struct list link; /* in the pool */
    int read_fd, write_fd;
    uint32_t capacity;
    uint64_t bytes; /* in the pipe */
    bool is_corked; /* its last bytes were sent with SPLICE_F_MORE */
};

static struct list pool = LIST_INIT(pool);
static unsigned npipes;

static struct splice_pipe *
open_pipe(void)
{
    int fds[2];
    if (npipes >= SPLICE_MAX_PIPES || pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0) {
        return NULL;
    }
    struct splice_pipe *p = calloc(1, sizeof(*p));
    if (!p) {
        close(fds[0]);
        close(fds[1]);
        return NULL;
    }
    int got = fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES);
    if (got < 0) {
        got = fcntl(fds[1], F_GETPIPE_SZ);
    }
    p->capacity = got > 0 ? (uint32_t)got : 65536;
    p->read_fd = fds[0];
    p->write_fd = fds[1];
    npipes++;
    return p;
}

static void
close_pipe(struct splice_pipe *p)
{
    close(p->read_fd);
    close(p->write_fd);
    free(p);
    npipes--;
}

bool
splice_pipe_acquire(struct splice_pipe **pipe)
{
    if (*pipe) {
        return true;
    }
    if (list_is_empty(&pool)) {
        *pipe = open_pipe();
        return *pipe != NULL;
    }
    *pipe = list_first(&pool, struct splice_pipe, link);
    list_del(&(*pipe)->link);
    return true;
}

void
splice_pipe_release(struct splice_pipe **pipe)
{
    struct splice_pipe *p = *pipe;
    *pipe = NULL;
    if (!p) {
        return;
    }
    p->is_corked = false;
    if (p->bytes > 0) {
        close_pipe(p);
        return;
    }
    list_add_head(&pool, &p->link);
}

uint64_t
splice_pipe_bytes(const struct splice_pipe *pipe)
{
    return pipe ? pipe->bytes : 0;
}

bool
splice_is_possible(const struct conn *from, const struct conn *to)
{
    return to && from->io.ops == &transport_plain_ops && to->io.ops == &transport_plain_ops &&
           !conn_is_blocked(to) && !to->is_broken;
}

/* Socket to pipe. Returns bytes, or IO_AGAIN, IO_EOF, IO_ERROR. */
static ssize_t
fill(struct splice_pipe *p, struct conn *from, uint64_t max)
{
    size_t want = p->capacity - p->bytes < max ? (size_t)(p->capacity - p->bytes) : (size_t)max;
    ssize_t n =
        splice(from->io.fd, NULL, p->write_fd, NULL, want, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (n > 0) {
        p->bytes += (uint64_t)n;
        from->has_read = true;
        shm_count(from->side == CONN_CLIENT ? &worker.row->client_in : &worker.row->backend_in,
                  (uint64_t)n);
        return n;
    }
    if (n == 0) {
        from->is_eof = true;
        from->is_readable = false;
        return IO_EOF;
    }
    if (errno == EAGAIN || errno == EINTR) {
        return IO_AGAIN;
    }
    from->is_broken = true;
    from->is_eof = true;
    from->is_readable = false;
    return IO_ERROR;
}

/* Nothing follows for now: what waits for more in the socket leaves. To set TCP_NODELAY, which is
 * set already, does that. */
static void
uncork(struct splice_pipe *p, struct conn *to)
{
    int on = 1;
    if (p->is_corked) {
        p->is_corked = false;
        setsockopt(to->io.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
}

/* Pipe to socket. */
static ssize_t
drain(struct splice_pipe *p, struct conn *to, bool has_more)
{
    unsigned flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | (has_more ? SPLICE_F_MORE : 0);
    ssize_t n = splice(p->read_fd, NULL, to->io.fd, NULL, p->bytes, flags);
    if (n > 0) {
        p->bytes -= (uint64_t)n;
        p->is_corked = has_more;
        to->write_progress += (uint32_t)n;
        shm_count(to->side == CONN_CLIENT ? &worker.row->client_out : &worker.row->backend_out,
                  (uint64_t)n);
        return n;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return IO_AGAIN;
    }
    to->is_broken = true;
    return IO_ERROR;
}

/* The destination takes nothing: its deadline runs, and moves with progress. */
static enum splice_result
blocked(struct conn *to)
{
    bool has_moved = to->write_progress >= CONN_PROGRESS_BYTES;
    if (to->write_due_ms == 0 || has_moved) {
        to->write_progress = 0;
        conn_set_write_due(to, worker_now_ms() + to->send_timeout_ms);
    }
    to->is_splice_blocked = true;
    conn_watch(to);
    return SPLICE_BLOCKED;
}

enum splice_result
splice_move(struct splice_pipe *p, struct conn *from, struct conn *to, uint64_t max,
            uint64_t *moved, uint64_t *sent)
{
    *moved = 0;
    *sent = 0;
    to->is_splice_blocked = false;
    while (*sent < ROUND_BYTES) {
        bool is_starved = false;
        if (*moved < max && p->bytes < p->capacity && !from->is_eof) {
            ssize_t n = fill(p, from, max - *moved);
            if (n == IO_ERROR) {
                return SPLICE_BROKEN;
            }
            *moved += n > 0 ? (uint64_t)n : 0;
            is_starved = n == IO_AGAIN;
        }
        if (p->bytes == 0) {
            conn_set_write_due(to, 0);
            uncork(p, to);
            if (from->is_eof || *moved == max) {
                return from->is_eof ? SPLICE_EOF : SPLICE_STARVED;
            }
            if (is_starved) {
                from->is_readable = from->has_hup;
                return from->has_hup ? SPLICE_MORE : SPLICE_STARVED;
            }
            continue;
        }
        ssize_t n = drain(p, to, *moved < max && p->bytes == p->capacity);
        if (n == IO_ERROR) {
            return SPLICE_BROKEN;
        }
        if (n == IO_AGAIN) {
            return blocked(to);
        }
        *sent += (uint64_t)n;
    }
    return SPLICE_MORE;
}
