/* SPDX-License-Identifier: Apache-2.0
 *
 * conn.c - connections: see conn.h.
 *
 * Output is gathered: conn_put() only remembers where bytes lie, one writev() takes them all, and
 * only what the socket refuses is copied.
 */
#include "worker/conn.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/sanitized.h"
#include "worker/worker.h"

#define GATHER_MAX          48
#define GATHER_COPY_BYTES   2048
#define FREE_LIST_MAX       1024
#define SCRATCH_WORTH_BYTES 16384 /* less room is not worth a read */

/* The output of one connection on its way to writev(). */
static struct {
    struct conn *conn;
    int n;
    unsigned copied;
    struct iovec iov[GATHER_MAX];
    char copies[GATHER_COPY_BYTES];
} gather;

/* Bytes at the beginning of the scratch memory that may still have to be written. */
static size_t scratch_used;

static struct list closed_conns = LIST_INIT(closed_conns);

/* Freed protocol objects of each kind, linked through their first word. */
static struct {
    void *first;
    unsigned count;
} free_lists[CONN_KINDS];

void *
conn_alloc(enum conn_kind kind, size_t size)
{
    void *memory = free_lists[kind].first;
    if (memory) {
        free_lists[kind].first = *(void **)memory;
        free_lists[kind].count--;
    } else {
        memory = malloc(size);
        if (!memory) {
            return NULL;
        }
    }
    memset(memory, 0, size);
    ((struct conn *)memory)->kind = kind;
    return memory;
}

static void
conn_free(struct conn *c)
{
    enum conn_kind kind = c->kind;
    if (!KEEPS_FREED(free_lists[kind].count, FREE_LIST_MAX)) {
        free(c);
        return;
    }
    *(void **)c = free_lists[kind].first;
    free_lists[kind].first = c;
    free_lists[kind].count++;
}

void
conn_reap(void)
{
    while (!list_is_empty(&closed_conns)) {
        struct conn *c = list_first(&closed_conns, struct conn, link);
        list_del(&c->link);
        conn_free(c);
    }
}

/* Bytes that were kept can be written again: tell the owner when all have left. */
static unsigned
write_kept(struct conn *c)
{
    struct iovec iov = {NULL, 0};
    while (conn_is_blocked(c)) {
        struct slice kept = buf_slice(c->out);
        iov.iov_base = (void *)kept.ptr;
        iov.iov_len = kept.len;
        ssize_t n = c->io.ops->writev(&c->io, &iov, kept.len > 0 ? 1 : 0);
        c->write_progress += c->io.pushed;
        if (n == IO_ERROR) {
            c->is_broken = true;
            return CONN_BROKEN;
        }
        if (n > 0) {
            shm_count(c->side == CONN_CLIENT ? &worker.row->client_out : &worker.row->backend_out,
                      (uint64_t)n);
            buf_consume(&c->out, (size_t)n);
            c->write_progress += (uint32_t)n;
        }
        if (n == IO_AGAIN || (n == 0 && conn_is_blocked(c)) || (size_t)n < kept.len) {
            break;
        }
    }
    if (!conn_is_blocked(c)) {
        conn_set_write_due(c, 0);
        if (c->is_shut) {
            conn_shutdown(c);
        }
        return CONN_WRITABLE;
    }
    if (c->write_progress >= CONN_PROGRESS_BYTES) {
        c->write_progress = 0;
        conn_set_write_due(c, worker_now_ms() + c->send_timeout_ms);
    }
    return 0;
}

static void
conn_on_event(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;
    unsigned happened = 0;
    (void)fd;
    if (what & (EV_READ | EV_CLOSED)) {
        c->is_readable = !c->is_eof;
        c->has_hup |= (what & EV_CLOSED) != 0;
        happened |= CONN_READABLE;
    }
    if (what & EV_WRITE) {
        happened |= c->is_paused ? CONN_READABLE : 0u; /* perhaps a reset, which is told so */
        if (c->is_connecting) {
            happened |= CONN_WRITABLE;
        } else if (conn_is_blocked(c)) {
            happened |= write_kept(c);
        } else if (c->is_splice_blocked) {
            c->is_splice_blocked = false;
            happened |= CONN_WRITABLE;
        }
    }
    if (happened) {
        c->on_event(c, happened);
        conn_flush_any();
    }
}

/* The timer goes off at the earlier of the two deadlines. */
static void
update_timer(struct conn *c)
{
    uint64_t due = c->read_due_ms;
    if (c->write_due_ms != 0 && (due == 0 || c->write_due_ms < due)) {
        due = c->write_due_ms;
    }
    timer_set(&worker.wheel, &c->timer, due);
}

static void
on_due(struct timer *t)
{
    struct conn *c = container_of(t, struct conn, timer);
    uint64_t now = worker_now_ms();
    unsigned happened = 0;
    if (c->read_due_ms != 0 && c->read_due_ms <= now) {
        c->read_due_ms = 0;
        happened |= CONN_READ_DUE;
    }
    if (c->write_due_ms != 0 && c->write_due_ms <= now) {
        c->write_due_ms = 0;
        happened |= CONN_WRITE_DUE;
    }
    update_timer(c);
    if (happened) {
        c->on_event(c, happened);
        conn_flush_any();
    }
}

void
conn_open(struct conn *c, enum conn_side side, conn_event_fn *on_event)
{
    c->on_event = on_event;
    c->side = side;
    list_init(&c->link);
    list_init(&c->owned);
    timer_init(&c->timer, on_due);
    c->is_open = true;
}

void
conn_become(struct conn *c, size_t size, conn_event_fn *on_event)
{
    memset((char *)c + sizeof(*c), 0, size - sizeof(*c));
    c->on_event = on_event;
}

static void
watch_for(struct conn *c, short what)
{
    c->is_watched = event_assign(&c->event, worker.base, c->io.fd,
                                 (short)(what | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST),
                                 conn_on_event, c) == 0 &&
                    event_add(&c->event, NULL) == 0;
    if (!c->is_watched) {
        c->is_broken = true;
        conn_run_later(c);
    }
}

void
conn_watch(struct conn *c)
{
    if (!c->is_watched && c->is_open) {
        watch_for(c, EV_READ);
    }
}

static void
set_paused(struct conn *c, bool is_paused)
{
    if (c->is_open && c->is_watched && c->is_paused != is_paused) {
        event_del(&c->event);
        c->is_paused = is_paused;
        watch_for(c, is_paused ? 0 : EV_READ);
    }
}

void
conn_pause(struct conn *c)
{
    set_paused(c, true);
}

void
conn_resume(struct conn *c)
{
    set_paused(c, false);
}

static void
drop_gathered(struct conn *c)
{
    if (gather.conn == c) {
        gather.conn = NULL;
        gather.n = 0;
        gather.copied = 0;
    }
}

static void
close_now(struct conn *c)
{
    drop_gathered(c);
    if (c->in) {
        conn_flush_any(); /* what was put for the other side may lie in it */
    }
    timer_del(&worker.wheel, &c->timer);
    c->io.ops->fini(&c->io);
    /* Nobody else has this socket, so closing takes it out of epoll as well; event_del() then only
     * forgets it (its epoll_ctl finds no descriptor). A shared one needs the other order. */
    close(c->io.fd);
    if (c->is_watched) {
        event_del(&c->event);
        c->is_watched = false;
    }
    c->io.fd = -1;
    buf_free(&c->in);
    buf_free(&c->out);
    list_del(&c->link);
    list_del(&c->owned);
    c->is_open = false;
    c->is_runnable = false;
    list_add_tail(&closed_conns, &c->link);
}

void
conn_close(struct conn *c)
{
    if (!c->is_open) {
        return;
    }
    if (c->io.tls && !c->is_broken && !c->is_connecting && !c->is_shut && !c->out) {
        c->io.flags |= TRANSPORT_ENDING;
        c->io.ops->shutdown(&c->io); /* close_notify */
    }
    close_now(c);
}

void
conn_reset(struct conn *c)
{
    if (!c->is_open) {
        return;
    }
    if (!c->is_broken) {
        conn_flush(c); /* what came before the cut may be read */
    }
    struct linger none = {.l_onoff = 1, .l_linger = 0};
    setsockopt(c->io.fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    close_now(c);
}

ssize_t
conn_read(struct conn *c, char *buf, size_t len)
{
    c->io.flags &= (uint8_t)~TRANSPORT_DRAINED;
    ssize_t n = c->is_last ? IO_EOF : c->io.ops->read(&c->io, buf, len);
    if (n > 0) {
        /* A FIN that came with the data gives no second edge: after EV_CLOSED read to the end. Of a
         * plain socket a short read was that, since nothing comes behind a FIN. */
        if ((c->io.flags & TRANSPORT_DRAINED) && !c->io.ops->pending(&c->io)) {
            c->is_readable = c->has_hup;
            c->is_last = c->has_hup && !c->io.tls;
        }
        c->has_read = true;
        shm_count(c->side == CONN_CLIENT ? &worker.row->client_in : &worker.row->backend_in,
                  (uint64_t)n);
        return n;
    }
    c->is_readable = false;
    c->has_read &= c->io.tls != NULL; /* its reads need not ask the socket */
    if (n == IO_EOF) {
        c->is_eof = true;
    } else if (n == IO_ERROR) {
        c->is_eof = true;
        c->is_broken = true;
    }
    return n;
}

static void
keep_output(struct conn *c, const char *bytes, size_t len)
{
    if (!c->out && !(c->io.flags & TRANSPORT_WANT_WRITE)) {
        c->write_progress = 0;
    }
    if (buf_append(&c->out, bytes, len) != 0) {
        c->is_broken = true;
    }
}

void
conn_put(struct conn *c, const char *bytes, size_t len)
{
    if (len == 0 || !c->is_open || c->is_broken) {
        return;
    }
    if (conn_is_blocked(c)) {
        keep_output(c, bytes, len);
        return;
    }
    if (gather.conn != c || gather.n == GATHER_MAX) {
        conn_flush_any();
        if (conn_is_blocked(c)) {
            keep_output(c, bytes, len);
            return;
        }
        gather.conn = c;
    }
    struct iovec *last = gather.n > 0 ? &gather.iov[gather.n - 1] : NULL;
    if (last && (char *)last->iov_base + last->iov_len == bytes) {
        last->iov_len += len;
        return;
    }
    gather.iov[gather.n++] = (struct iovec){(void *)bytes, len};
}

void
conn_put_copy(struct conn *c, const char *bytes, size_t len)
{
    assert(len <= GATHER_COPY_BYTES);
    if (gather.conn != c || gather.n == GATHER_MAX || gather.copied + len > GATHER_COPY_BYTES) {
        conn_flush_any();
        gather.copied = 0; /* also what was copied for one that was blocked and kept it */
    }
    char *copy = gather.copies + gather.copied;
    memcpy(copy, bytes, len);
    gather.copied += (unsigned)len;
    conn_put(c, copy, len);
}

ssize_t
conn_read_scratch(struct conn *c, size_t max, char **bytes)
{
    if (!gather.conn || WORKER_SCRATCH_BYTES - scratch_used < SCRATCH_WORTH_BYTES) {
        conn_flush_any();
        scratch_used = 0;
    }
    size_t room = WORKER_SCRATCH_BYTES - scratch_used;
    *bytes = worker.scratch + scratch_used;
    ssize_t n = conn_read(c, *bytes, max < room ? max : room);
    scratch_used += n > 0 ? (size_t)n : 0;
    return n;
}

/* Copy what is behind the first done bytes of the gathered output. */
static void
keep_rest(struct conn *c, struct iovec *iov, int n, size_t done)
{
    for (int i = 0; i < n; i++) {
        if (done >= iov[i].iov_len) {
            done -= iov[i].iov_len;
            continue;
        }
        keep_output(c, (char *)iov[i].iov_base + done, iov[i].iov_len - done);
        done = 0;
    }
}

void
conn_flush(struct conn *c)
{
    if (gather.conn != c) {
        return;
    }
    int n = gather.n;
    gather.conn = NULL;
    gather.n = 0;
    gather.copied = 0;
    ssize_t done = c->io.ops->writev(&c->io, gather.iov, n);
    if (done == IO_ERROR) {
        c->is_broken = true;
        conn_run_later(c);
        return;
    }
    if (done > 0) {
        shm_count(c->side == CONN_CLIENT ? &worker.row->client_out : &worker.row->backend_out,
                  (uint64_t)done);
    }
    keep_rest(c, gather.iov, n, done > 0 ? (size_t)done : 0);
    if (conn_is_blocked(c)) {
        conn_watch(c);
    }
    if (conn_is_blocked(c) && c->write_due_ms == 0) {
        conn_set_write_due(c, worker_now_ms() + c->send_timeout_ms);
    }
}

void
conn_flush_last(struct conn *c)
{
    c->io.flags |= TRANSPORT_ENDING;
    conn_flush(c);
    if (conn_is_blocked(c)) { /* the end will be later */
        c->io.flags &= (uint8_t)~TRANSPORT_ENDING;
    }
}

void
conn_flush_any(void)
{
    if (gather.conn) {
        conn_flush(gather.conn);
    }
}

void
conn_shutdown(struct conn *c)
{
    c->is_shut = true;
    conn_flush_last(c);
    if (conn_is_blocked(c) || !c->is_open || c->is_broken) {
        return;
    }
    c->io.ops->shutdown(&c->io);
    if (c->io.flags & TRANSPORT_WANT_WRITE) {
        c->io.flags &= (uint8_t)~TRANSPORT_ENDING; /* close_notify waits for the socket */
    } else if (c->io.tls) {
        shutdown(c->io.fd, SHUT_WR);
    }
}

void
conn_run_later(struct conn *c)
{
    if (c->is_runnable || !c->is_open) {
        return;
    }
    c->is_runnable = true;
    list_del(&c->link);
    list_add_tail(&worker.runnable, &c->link);
}

void
conn_set_read_due(struct conn *c, uint64_t due_ms)
{
    c->read_due_ms = due_ms;
    c->read_progress = 0;
    update_timer(c);
}

void
conn_set_write_due(struct conn *c, uint64_t due_ms)
{
    if (c->send_timeout_ms == 0) {
        due_ms = 0;
    }
    c->write_due_ms = due_ms;
    update_timer(c);
}

void
conn_read_progressed(struct conn *c, size_t n, uint32_t timeout_ms)
{
    c->read_progress += (uint32_t)n;
    if (c->read_progress >= CONN_PROGRESS_BYTES && c->read_due_ms != 0) {
        conn_set_read_due(c, worker_now_ms() + timeout_ms);
    }
}
