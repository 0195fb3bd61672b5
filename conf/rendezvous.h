/* SPDX-License-Identifier: Apache-2.0
 *
 * rendezvous.h - weighted rendezvous hashing: what a backend draws for a client's address.
 *
 * It depends on ids and weights alone, so all workers, all machines and whoever explains agree.
 */
#ifndef CONF_RENDEZVOUS_H
#define CONF_RENDEZVOUS_H

#include <math.h>
#include <string.h>

#include "conf/conf.h"
#include "shared/hash.h"

/* -weight / ln(u) with u uniform in (0, 1): the winner's odds are in proportion to weight. */
static inline double
rendezvous_score(const struct conf_backend *b, const struct addr_ip *client)
{
    uint64_t h = hash_bytes(HASH_BEGIN, client->bytes, sizeof(client->bytes));
    h = hash_finish(hash_bytes(h, b->id, strlen(b->id)));
    double u = ((double)(h >> 11) + 0.5) * 0x1p-53;
    return -(double)b->weight / log(u);
}

#endif
