/* SPDX-License-Identifier: Apache-2.0
 *
 * router.h - choose a route by host and path. Built once per listener when a conf is loaded.
 */
#ifndef CONF_ROUTER_H
#define CONF_ROUTER_H

#include "conf/conf.h"

/* The route for a request, or NULL. host: as received, may carry a port and a trailing dot and any
 * case; path: normalised. Order: (host: exact, longest wildcard, any), then (path: exact, longest
 * prefix), then place in the file. The first whose conditions all hold wins. The listener's own
 * upstream is the last route. */
const struct conf_route *
conf_router_find(const struct conf_router *router, struct slice host, struct slice path);

/* For conf_load: routes in the order of the file; last, when not NULL, comes after all of them. */
struct conf_router *
conf_router_new(struct conf_arena *arena, const struct conf_route *const *routes, unsigned n,
                const struct conf_route *last);

#endif
