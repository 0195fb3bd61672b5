/* SPDX-License-Identifier: Apache-2.0
 *
 * router.c - hosts in a table, paths of each host in a path_set.
 *
 * A host of the file is a key of the table as it is written, "*.suffix" without its asterisk; what
 * is for any host stands apart. Most listeners have one route for everything: it is found first.
 *
 * Routes that a host has for the same path are a chain, in the order of the file; the last of a
 * prefix is followed by the first of the next shorter one. The sets and the table know where chains
 * begin. A route without conditions ends the search where it is met.
 */
#include "conf/router.h"

#include <ctype.h>

#include "conf/path_set.h"
#include "conf/route.h"

#define HOST_MAX 255

/* The routes of one host. */
struct host_routes {
    const char *host; /* "www.example.com", ".example.com" for a wildcard; NULL: free, or any */
    uint32_t hash;
    struct path_set *exact, *prefixes; /* numbers of routes */
    int regex, pathless;               /* -1: none */
};

struct conf_router {
    const struct conf_route *only; /* there is nothing else to look for */
    const struct conf_route *last;
    const struct conf_route **routes;
    int *nexts; /* of each route the one that is tried after it; -1: none */
    struct host_routes *hosts;
    uint32_t mask;
    unsigned nhosts;
    bool has_wildcards;
    struct host_routes any;
};

#define HASH_START 2166136261u

/* From the end of a name to its beginning, so that one pass hashes every suffix. */
static uint32_t
hash_byte(uint32_t hash, char c)
{
    return (hash ^ (unsigned char)c) * 16777619u;
}

static uint32_t
hash_host(struct slice host)
{
    uint32_t hash = HASH_START;
    for (size_t i = host.len; i > 0; i--) {
        hash = hash_byte(hash, host.ptr[i - 1]);
    }
    return hash;
}

static struct host_routes *
find_slot(const struct conf_router *router, struct slice host, uint32_t hash)
{
    for (uint32_t at = hash & router->mask;; at = (at + 1) & router->mask) {
        struct host_routes *slot = &router->hosts[at];
        if (!slot->host || (slot->hash == hash && slice_eq(slice_from_str(slot->host), host))) {
            return slot;
        }
    }
}

/* ---- building ---- */

static struct host_routes *
claim_host(struct conf_router *router, const char *host)
{
    if (!host) {
        return &router->any;
    }
    router->has_wildcards |= host[0] == '*';
    const char *key = host[0] == '*' ? host + 1 : host;
    uint32_t hash = hash_host(slice_from_str(key));
    struct host_routes *slot = find_slot(router, slice_from_str(key), hash);
    if (!slot->host) {
        *slot = (struct host_routes){.host = key, .hash = hash, .regex = -1, .pathless = -1};
        router->nhosts++;
    }
    return slot;
}

/* Behind the last of the chain that begins with first. */
static void
append_route(struct conf_router *router, int first, int number)
{
    while (router->nexts[first] >= 0) {
        first = router->nexts[first];
    }
    router->nexts[first] = number;
}

static void
add_to_set(struct conf_router *router, struct path_set *set, const char *path, int number)
{
    int first = path_set_find_exact(set, slice_from_str(path));
    if (first >= 0) {
        append_route(router, first, number);
    } else {
        path_set_add(set, path, number);
    }
}

static void
add_to_chain(struct conf_router *router, int *first, int number)
{
    if (*first >= 0) {
        append_route(router, *first, number);
    } else {
        *first = number;
    }
}

/* How many routes a host has is not known beforehand: the first pass counts in pathless. */
static void
count_route(struct conf_router *router, const struct conf_route *route)
{
    struct host_routes *host = claim_host(router, route->host);
    host->pathless--;
}

static void
add_route(struct conf_router *router, struct conf_arena *arena, int number)
{
    const struct conf_route *route = router->routes[number];
    struct host_routes *host = claim_host(router, route->host);
    if (!host->prefixes) {
        unsigned n = (unsigned)(-1 - host->pathless);
        host->prefixes = path_set_new(arena, n);
        host->exact = path_set_new(arena, n);
        host->pathless = -1;
    }
    if (route->path_exact) {
        add_to_set(router, host->exact, route->path_exact, number);
    } else if (route->path) {
        add_to_set(router, host->prefixes, route->path, number);
    } else {
        add_to_chain(router, route->path_pattern ? &host->regex : &host->pathless, number);
    }
}

/* When all chains are whole. Prefixes of a path that are shorter than one of them are prefixes of
 * that one. */
static void
join_prefix(struct conf_router *router, int number)
{
    const struct conf_route *route = router->routes[number];
    struct slice path = slice_from_str(route->path);
    const struct path_set *set = claim_host(router, route->host)->prefixes;
    if (path.ptr && !route->path_exact && path_set_find_exact(set, path) == number) {
        int last = number;
        while (router->nexts[last] >= 0) {
            last = router->nexts[last];
        }
        router->nexts[last] = path_set_find_shorter(set, path);
    }
}

static bool
is_for_everything(const struct conf_route *route)
{
    return !route->host && !route->path && !route->path_exact && route_is_plain(route);
}

static const struct conf_route *
only_route(const struct conf_router *router, unsigned n)
{
    if (n == 0) {
        return router->last;
    }
    return n == 1 && is_for_everything(router->routes[0]) ? router->routes[0] : NULL;
}

struct conf_router *
conf_router_new(struct conf_arena *arena, const struct conf_route *const *routes, unsigned n,
                const struct conf_route *last)
{
    struct conf_router *router = conf_arena_alloc(arena, sizeof(*router));
    uint32_t size = 4;
    while (size < n * 2) {
        size *= 2;
    }
    router->mask = size - 1;
    router->hosts = conf_arena_array(arena, size, sizeof(*router->hosts));
    router->routes = conf_arena_array(arena, n, sizeof(*router->routes));
    router->nexts = conf_arena_array(arena, n, sizeof(*router->nexts));
    router->last = last;
    router->any.regex = router->any.pathless = -1;
    for (unsigned i = 0; i < n; i++) {
        router->routes[i] = routes[i];
        router->nexts[i] = -1;
        count_route(router, routes[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        add_route(router, arena, (int)i);
    }
    for (unsigned i = 0; i < n; i++) {
        join_prefix(router, (int)i);
    }
    router->only = only_route(router, n);
    return router;
}

/* ---- finding ---- */

/* What is looked for, and what is in the way. */
struct search {
    const struct conf_router *router;
    const struct http_msg *req;
    const struct pattern *gave_up;
};

/* The first of a chain whose conditions hold; -1: none. */
static int
first_that_holds(struct search *search, int number)
{
    while (number >= 0) {
        const struct conf_route *route = search->router->routes[number];
        if (route_is_plain(route) || route_holds(route, search->req, &search->gave_up)) {
            return number;
        }
        number = search->gave_up ? -1 : search->router->nexts[number];
    }
    return -1;
}

static int
find_in_host(struct search *search, const struct host_routes *host)
{
    struct slice path = search->req->path;
    int number = first_that_holds(search, path_set_find_exact(host->exact, path));
    if (number < 0) {
        number = first_that_holds(search, path_set_find(host->prefixes, path));
    }
    if (number < 0) {
        number = first_that_holds(search, host->regex);
    }
    return number < 0 ? first_that_holds(search, host->pathless) : number;
}

/* Lower case, without port and trailing dot. Empty: it is no host that a route could name. */
static struct slice
normalise_host(struct slice host, char *buf)
{
    const char *colon = host.len ? memrchr(host.ptr, ':', host.len) : NULL;
    const char *bracket = host.len ? memchr(host.ptr, ']', host.len) : NULL;
    if (colon && (!bracket || colon > bracket)) {
        host.len = (size_t)(colon - host.ptr);
    }
    if (host.len && host.ptr[host.len - 1] == '.') {
        host.len--;
    }
    if (host.len > HOST_MAX) {
        return slice_of(buf, 0);
    }
    for (size_t i = 0; i < host.len; i++) {
        buf[i] = (char)tolower((unsigned char)host.ptr[i]);
    }
    return slice_of(buf, host.len);
}

/* Wildcards whose suffix the host has and that have a route for the request: the longest suffix. */
static int
find_wildcard(struct search *search, struct slice host)
{
    int found = -1;
    uint32_t hash = HASH_START;
    for (size_t i = host.len; i > 1 && !search->gave_up; i--) {
        hash = hash_byte(hash, host.ptr[i - 1]);
        if (host.ptr[i - 1] != '.') {
            continue;
        }
        struct slice suffix = slice_of(host.ptr + i - 1, host.len - i + 1);
        const struct host_routes *slot = find_slot(search->router, suffix, hash);
        int number = slot->host ? find_in_host(search, slot) : -1;
        found = number < 0 ? found : number;
    }
    return found;
}

static int
find_by_host(struct search *search)
{
    char buf[HOST_MAX];
    struct slice host = normalise_host(search->req->authority, buf);
    if (host.len == 0) {
        return -1;
    }
    const struct host_routes *slot = find_slot(search->router, host, hash_host(host));
    int number = slot->host && host.ptr[0] != '.' ? find_in_host(search, slot) : -1;
    if (number < 0 && search->router->has_wildcards) {
        number = find_wildcard(search, host);
    }
    return number;
}

const struct conf_route *
conf_router_find(const struct conf_router *router, const struct http_msg *req,
                 const struct pattern **gave_up)
{
    *gave_up = NULL;
    if (router->only) {
        return router->only;
    }
    struct search search = {.router = router, .req = req};
    int number = router->nhosts ? find_by_host(&search) : -1;
    if (number < 0 && !search.gave_up) {
        number = find_in_host(&search, &router->any);
    }
    *gave_up = search.gave_up;
    if (search.gave_up) {
        return NULL;
    }
    return number < 0 ? router->last : router->routes[number];
}

const struct conf_route *
conf_router_find_name(const struct conf_router *router, struct slice name)
{
    const struct http_msg asked = {.authority = name, .path = SLICE("")};
    const struct pattern *gave_up;
    return conf_router_find(router, &asked, &gave_up);
}
