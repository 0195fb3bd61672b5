/* SPDX-License-Identifier: Apache-2.0
 *
 * listener.h - accepting: listening sockets, accept-time limits, the first protocol of a
 * connection.
 *
 * A struct listener is the worker's view of a conf_listener. It is carried over by name when a conf
 * is applied, and lives until its last client has gone. While it is removed it keeps the last conf
 * that had it, for what is on its way already.
 */
#ifndef WORKER_LISTENER_H
#define WORKER_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"
#include "shared/list.h"
#include "shared/shm.h"

struct conn;

struct listener {
    struct list link;
    char *name;
    unsigned slot;
    struct conf *owner;         /* of conf; a reference */
    struct conf_listener *conf; /* what new streams use */
    bool is_removed; /* it has left the configuration: no further request after the next */
    bool is_stale;   /* while a conf is applied: not met in it yet */
    unsigned nclients;
    struct list clients; /* conn.owned */
    struct shm_gauge gauge;
    struct shm_row_listener *counters;
};

/* A socket the master gave for the conf that is being prepared. Takes fd. */
void
listener_offer_socket(struct slice text, int fd);
/* The prepared conf is given up: close what was offered for it. */
void
listener_forget_offers(void);
/* Serve this conf: sockets that are new are opened; those that have left are accepted from until
 * EAGAIN and closed; idle clients of removed listeners are closed. is_leaving: this worker retires
 * next, and has no sockets of new addresses. */
void
listener_apply(struct conf *conf, bool is_leaving);

/* Accept for another worker that is gone. Takes fd. */
void
listener_adopt(struct slice text, unsigned index, int fd);
void
listener_disown(struct slice text, unsigned index);

/* Retire: accept what is queued if no other process will, then close all sockets. */
void
listener_close_all(bool accept_queued);

/* Descriptors may be free again: accept. */
void
listener_resume(void);

/* The address of a client that has been accepted is known only now, as c->peer (it stood in a PROXY
 * header): count it. false: that address has too many connections; the client is told so where that
 * can be, and c is no longer the caller's. */
bool
listener_admit_address(struct listener *l, struct conn *c);

/* A client connection of l has ended: gauges. l is valid until the end of the loop turn. */
void
listener_release_client(struct listener *l, struct conn *c);
/* Free the removed listeners that have no client any more; once a loop turn. */
void
listener_reap(void);

#endif
