/* SPDX-License-Identifier: Apache-2.0
 *
 * client_limit.h - limits.connections_per_client: connections of one client address, exactly over
 * all workers. The table is shared/clients.h.
 *
 * Who accepts or, behind the PROXY protocol, has read the header, takes a place for the address and
 * keeps it in conn.client_place; listener_release_client() gives it back.
 */
#ifndef WORKER_CLIENT_LIMIT_H
#define WORKER_CLIENT_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/addr.h"
#include "worker/listener.h"

/* Count one more connection of the client ip; IPv6 by /64. *place is for client_limit_give(); 0:
 * it is not counted, because nothing limits it. false: it has as many as it may. */
bool
client_limit_take(struct listener *l, const struct addr_ip *ip, uint32_t *place);
void
client_limit_give(uint32_t place);

/* The limit is new: what is connected counts too. */
void
client_limit_count_all(struct listener *l);

#endif
