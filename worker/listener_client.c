/* SPDX-License-Identifier: Apache-2.0
 *
 * listener_client.c - clients of a listener: admitted within the limits, or refused; counted until
 * they leave. See listener.h.
 */
#include <stdlib.h>
#include <unistd.h>

#include "shared/tls.h"
#include "worker/client_limit.h"
#include "worker/conn.h"
#include "worker/greet.h"
#include "worker/http1_client.h"
#include "worker/http2_client.h"
#include "worker/listener_private.h"
#include "worker/tcp.h"
#include "worker/worker.h"

#define REFUSED_LINGER_MAX 64 /* clients that are told 503 at one time */

static unsigned nrefused; /* lingering after a refusal */

/* ---- a client leaves ---- */

static struct shm_gauge
all_connections(void)
{
    return shm_gauge_connections(worker.shm, worker.row);
}

static void
uncount_client(struct listener *l, uint32_t place)
{
    shm_gauge_sub(worker.row, all_connections());
    shm_gauge_sub(worker.row, l->gauge);
    client_limit_give(place);
}

void
listener_release_client(struct listener *l, struct conn *c)
{
    if (c->is_refused) {
        nrefused--;
    } else {
        uncount_client(l, c->client_place);
    }
    list_del(&c->owned);
    l->nclients--;
    worker_client_closed();
    listener_client_left(l);
}

/* ---- limits ---- */

/* Close this worker's longest idle keep-alive client. false: there is none. */
static bool
close_longest_idle(void)
{
    if (list_is_empty(&worker.idle_clients)) {
        return false;
    }
    struct conn *c = list_first(&worker.idle_clients, struct conn, link);
    if (c->is_http2) {
        http2_client_close_idle(c);
    } else {
        http1_client_close_idle(c);
    }
    return true;
}

static bool
count_client(struct listener *l)
{
    struct shm_gauge all = all_connections();
    if (!shm_gauge_try_add(worker.row, all, worker.conf->max_connections)) {
        return false;
    }
    if (!shm_gauge_try_add(worker.row, l->gauge, l->conf->max_connections)) {
        shm_gauge_sub(worker.row, all);
        return false;
    }
    return true;
}

static bool
admit_address(struct listener *l, const struct addr_ip *ip, uint32_t *place)
{
    bool is_in = client_limit_take(l, ip, place);
    if (!is_in) {
        shm_count(&l->counters->clients_refused, 1);
    }
    return is_in;
}

/* The address first: who has too many must not cost an idle client its connection. */
static bool
admit(struct listener *l, const struct addr_ip *ip, uint32_t *place)
{
    *place = 0;
    if (!greet_expects_header(l, ip) && !admit_address(l, ip, place)) {
        return false;
    }
    if (count_client(l) || (close_longest_idle() && count_client(l))) {
        return true;
    }
    client_limit_give(*place);
    return false;
}

/* ---- a client comes ---- */

static int
set_transport(struct conn *c, struct listener *l, int fd)
{
    if (!l->conf->tls) {
        transport_init_plain(&c->io, fd);
        return 0;
    }
    return transport_tls_accept(&c->io, fd, l->conf->tls->server);
}

static struct conn *
open_client(struct listener *l, int fd, const struct addr_ip *peer)
{
    bool is_tcp = l->conf->mode == CONF_TCP;
    struct conn *c = conn_alloc(is_tcp ? CONN_TCP_CLIENT : CONN_HTTP_CLIENT,
                                is_tcp ? tcp_client_size() : http1_client_size());
    if (!c || set_transport(c, l, fd) != 0) {
        free(c);
        close(fd);
        return NULL;
    }
    c->peer = *peer;
    conn_open(c, CONN_CLIENT, NULL);
    list_add_tail(&l->clients, &c->owned);
    l->nclients++;
    worker_client_opened();
    return c;
}

/* Over the limit: an HTTP client is told so, others are closed without a handshake. */
static bool
can_be_told(const struct listener *l)
{
    return l->conf->mode == CONF_HTTP && !l->conf->tls && nrefused < REFUSED_LINGER_MAX;
}

/* It is not counted as a connection any more. */
static void
tell_refused(struct listener *l, struct conn *c)
{
    nrefused++;
    c->is_refused = true;
    shm_count(&l->counters->codes[503 - 100], 1);
    http1_client_refuse(c, l, REASON_over_limit);
}

static void
refuse_client(struct listener *l, int fd, const struct addr_ip *peer)
{
    shm_count(&worker.row->failures[REASON_over_limit], 1);
    if (!can_be_told(l)) {
        close(fd);
        return;
    }
    struct conn *c = open_client(l, fd, peer);
    if (c) {
        tell_refused(l, c);
    }
}

bool
listener_admit_address(struct listener *l, struct conn *c)
{
    client_limit_give(c->client_place); /* of the proxy's, if the limit came meanwhile */
    if (admit_address(l, &c->peer, &c->client_place)) {
        return true;
    }
    shm_count(&worker.row->failures[REASON_over_limit], 1);
    if (can_be_told(l)) {
        uncount_client(l, c->client_place);
        tell_refused(l, c);
    } else {
        listener_release_client(l, c);
        conn_close(c);
    }
    return false;
}

void
listener_take_client(struct listener *l, int fd, const struct sockaddr *sa, socklen_t len)
{
    struct addr_ip peer;
    uint32_t place;
    addr_ip_from_sockaddr(sa, len, &peer);
    shm_count(&l->counters->connections, 1);
    if (!admit(l, &peer, &place)) {
        refuse_client(l, fd, &peer);
        return;
    }
    struct conn *c = open_client(l, fd, &peer);
    if (c) {
        c->client_place = place;
        greet_client(c, l);
    } else {
        uncount_client(l, place);
    }
}
