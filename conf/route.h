/* SPDX-License-Identifier: Apache-2.0
 *
 * route.h - the conditions of a route besides host and path: do they hold for a request?
 */
#ifndef CONF_ROUTE_H
#define CONF_ROUTE_H

#include "conf/conf.h"
#include "conf/pattern.h"
#include "shared/http.h"

/* Has it none? */
static inline bool
route_is_plain(const struct conf_route *route)
{
    return !route->methods && route->nheaders == 0 && route->nquery == 0 && !route->path_pattern;
}

/* Do all hold? Fields that are not forwarded do not count, save for Upgrade. Where a pattern gave
 * up *gave_up becomes that pattern, and the result is false. */
bool
route_holds(const struct conf_route *route, const struct http_msg *req,
            const struct pattern **gave_up);

/* The path that is forwarded in place of path, which the route has matched; its two pieces: what
 * comes first, and what remains of path. */
void
route_rewrite_path(const struct conf_route *route, struct slice path, struct slice *first,
                   struct slice *rest);

/* May a client with that address come? deny goes before allow. */
bool
route_admits(const struct conf_route *route, const struct addr_ip *client);

#endif
