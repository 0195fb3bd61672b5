/* SPDX-License-Identifier: Apache-2.0
 *
 * conn_verify.c - what no event tells: connections that are registered late, and resets that came
 * together with data.
 */
#include <sys/socket.h>

#include "worker/conn.h"
#include "worker/worker.h"

static struct list unwatched_conns = LIST_INIT(unwatched_conns);
static struct list unverified_conns = LIST_INIT(unverified_conns);

bool
conn_has_been_reset(struct conn *c)
{
    int error = 0;
    socklen_t len = sizeof(error);
    c->has_read = false;
    return getsockopt(c->io.fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0;
}

void
conn_watch_later(struct conn *c)
{
    if (!c->is_watched && c->is_open && list_is_empty(&c->link)) {
        list_add_tail(&unwatched_conns, &c->link);
    }
}

void
conn_verify_later(struct conn *c)
{
    if (c->is_open && c->has_read && !c->is_readable && !c->is_eof && list_is_empty(&c->link)) {
        list_add_tail(&unverified_conns, &c->link);
    }
}

void
conn_verify_all(void)
{
    struct list all = LIST_INIT(all);
    list_splice_tail(&all, &unwatched_conns);
    while (!list_is_empty(&all)) {
        struct conn *c = list_first(&all, struct conn, link);
        list_del(&c->link);
        conn_watch(c);
    }
    list_splice_tail(&all, &unverified_conns);
    while (!list_is_empty(&all)) {
        struct conn *c = list_first(&all, struct conn, link);
        list_del(&c->link);
        c->has_read = false;
        c->is_readable = true;
        c->on_event(c, CONN_READABLE);
        conn_flush_any();
    }
}
