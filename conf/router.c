/* SPDX-License-Identifier: Apache-2.0
 *
 * router.c - hosts in a table, paths of each host in a path_set.
 *
 * A host of the file is a key of the table as it is written, "*.suffix" without its asterisk; what
 * is for any host stands apart. Most listeners have one route for everything: it is found first.
 */
#include "conf/router.h"

#include <ctype.h>

#include "conf/path_set.h"

#define HOST_MAX 255

/* The routes of one host. */
struct host_routes {
    const char *host; /* "www.example.com", ".example.com" for a wildcard; NULL: free, or any */
    uint32_t hash;
    struct path_set *exact, *prefixes; /* numbers of routes */
    int pathless;                      /* -1: none */
};

struct conf_router {
    const struct conf_route *only; /* there is nothing else to look for */
    const struct conf_route *last;
    const struct conf_route **routes;
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
        *slot = (struct host_routes){.host = key, .hash = hash, .pathless = -1};
        router->nhosts++;
    }
    return slot;
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
        path_set_add(host->exact, route->path_exact, number);
    } else if (route->path) {
        path_set_add(host->prefixes, route->path, number);
    } else if (host->pathless < 0) {
        host->pathless = number;
    }
}

static bool
is_for_everything(const struct conf_route *route)
{
    return !route->host && !route->path && !route->path_exact;
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
    router->last = last;
    router->any.pathless = -1;
    for (unsigned i = 0; i < n; i++) {
        router->routes[i] = routes[i];
        count_route(router, routes[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        add_route(router, arena, (int)i);
    }
    router->only = only_route(router, n);
    return router;
}

/* ---- finding ---- */

static int
find_in_host(const struct host_routes *host, struct slice path)
{
    int number = path_set_find_exact(host->exact, path);
    if (number < 0) {
        number = path_set_find(host->prefixes, path);
    }
    return number < 0 ? host->pathless : number;
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

/* Wildcards whose suffix the host has and that have a route for the path: the longest suffix. */
static int
find_wildcard(const struct conf_router *router, struct slice host, struct slice path)
{
    int found = -1;
    uint32_t hash = HASH_START;
    for (size_t i = host.len; i > 1; i--) {
        hash = hash_byte(hash, host.ptr[i - 1]);
        if (host.ptr[i - 1] != '.') {
            continue;
        }
        struct slice suffix = slice_of(host.ptr + i - 1, host.len - i + 1);
        const struct host_routes *slot = find_slot(router, suffix, hash);
        int number = slot->host ? find_in_host(slot, path) : -1;
        found = number < 0 ? found : number;
    }
    return found;
}

static int
find_by_host(const struct conf_router *router, struct slice received, struct slice path)
{
    char buf[HOST_MAX];
    struct slice host = normalise_host(received, buf);
    if (host.len == 0) {
        return -1;
    }
    const struct host_routes *slot = find_slot(router, host, hash_host(host));
    int number = slot->host && host.ptr[0] != '.' ? find_in_host(slot, path) : -1;
    if (number < 0 && router->has_wildcards) {
        number = find_wildcard(router, host, path);
    }
    return number;
}

const struct conf_route *
conf_router_find(const struct conf_router *router, struct slice host, struct slice path)
{
    if (router->only) {
        return router->only;
    }
    int number = router->nhosts ? find_by_host(router, host, path) : -1;
    if (number < 0) {
        number = find_in_host(&router->any, path);
    }
    return number < 0 ? router->last : router->routes[number];
}
