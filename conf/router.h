/* SPDX-License-Identifier: Apache-2.0
 *
 * router.h - choose the route of a request. Built once per listener when a conf is loaded.
 */
#ifndef CONF_ROUTER_H
#define CONF_ROUTER_H

#include "conf/conf.h"

struct http_msg;
struct pattern;

/* The route for a request, or NULL. Its authority is as received, may carry a port and a trailing
 * dot and any case; its path is normalised. Order: (host: exact, longest wildcard, any), then
 * (path: exact, longest prefix, regular expression, any), then place in the file. The first whose
 * conditions all hold wins. The listener's own upstream is the last route.
 *
 * Where a pattern gave up nobody knows which route it is: NULL, and *gave_up is that pattern, else
 * NULL. */
const struct conf_route *
conf_router_find(const struct conf_router *router, const struct http_msg *req,
                 const struct pattern **gave_up);

/* The same for a connection of TLS that is passed through and asks for that name; empty: for none.
 */
const struct conf_route *
conf_router_find_name(const struct conf_router *router, struct slice name);

/* For conf_load: routes in the order of the file; last, when not NULL, comes after all of them. */
struct conf_router *
conf_router_new(struct conf_arena *arena, const struct conf_route *const *routes, unsigned n,
                const struct conf_route *last);

#endif
