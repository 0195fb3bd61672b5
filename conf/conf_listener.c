/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_listener.c - listeners: addresses, where they lead, their routers.
 */
#include "conf/build.h"
#include "conf/router.h"
#include "shared/shm.h"

#define ADDRESSES_MOST 64

/* ---- addresses ---- */

static bool
is_taken(const struct conf_build *build, const struct conf_listener *until, const char *text)
{
    for (const struct conf_listener *other = build->conf->listeners; other <= until; other++) {
        for (unsigned i = 0; i < other->naddrs; i++) {
            if (strcmp(other->addr_texts[i], text) == 0) {
                return true;
            }
        }
    }
    return false;
}

static void
add_address(struct conf_build *build, struct conf_listener *listener, struct node *node)
{
    char text[ADDR_TEXT_MAX];
    struct addr *addr = &listener->addrs[listener->naddrs];
    if (conf_resolve_one(build, node, true, addr) < 0) {
        return;
    }
    size_t len = addr_format(addr, text);
    if (is_taken(build, listener, conf_arena_copy(build->arena, slice_of(text, len)))) {
        report_value(build->report, node, "%.*s is listened on already", (int)len, text);
        return;
    }
    listener->addr_texts[listener->naddrs++] = conf_arena_copy(build->arena, slice_of(text, len));
}

static void
check_addresses(struct conf_build *build, struct conf_listener *listener, struct node *node)
{
    struct node *list = node_get(node, "address");
    unsigned n = list && list->kind == NODE_LIST ? list->count : 0;
    listener->naddrs = 0;
    if (n > ADDRESSES_MOST) {
        report_value(build->report, list, "%u addresses; there may be %d", n, ADDRESSES_MOST);
        return;
    }
    listener->addrs = conf_arena_array(build->arena, n, sizeof(*listener->addrs));
    listener->addr_texts = conf_arena_array(build->arena, n, sizeof(*listener->addr_texts));
    for (struct node *child = n ? list->first : NULL; child; child = child->next) {
        if (!child->is_bad) {
            add_address(build, listener, child);
        }
    }
}

/* ---- where it leads ---- */

static bool
is_for(const struct conf_route *route, const struct conf_listener *listener)
{
    for (char **name = route->listeners; name && *name; name++) {
        if (strcmp(*name, listener->name) == 0) {
            return true;
        }
    }
    return route->listeners == NULL && listener->mode == CONF_HTTP;
}

static void
make_router(struct conf_build *build, struct conf_listener *listener, struct node *node)
{
    const struct conf *conf = build->conf;
    const struct conf_route **routes =
        conf_arena_array(build->arena, conf->nroutes, sizeof(*routes));
    struct conf_route *last = NULL;
    unsigned n = 0;
    for (unsigned i = 0; i < conf->nroutes; i++) {
        if (is_for(&conf->routes[i], listener)) {
            routes[n++] = &conf->routes[i];
        }
    }
    if (listener->upstream) {
        last = conf_arena_alloc(build->arena, sizeof(*last));
        last->upstream = listener->upstream;
        last->policy = &listener->upstream->policy;
    }
    if (n > 0 || listener->mode == CONF_HTTP) {
        listener->router = conf_router_new(build->arena, routes, n, last);
    }
    if (n == 0 && !last && !node_get(node, "upstream")) {
        report_warn(build->report, node, "no route leads anywhere: every request is answered 404");
    }
}

static void
check_name(struct conf_build *build, struct conf_listener *listener, struct node *node)
{
    for (struct conf_listener *other = build->conf->listeners; other < listener; other++) {
        if (other->name && strcmp(other->name, listener->name) == 0) {
            report_value(build->report, node_get(node, "name"), "there is a listener %s already",
                         listener->name);
            return;
        }
    }
}

static void
check_listener(struct conf_build *build, struct conf_listener *listener, struct node *node)
{
    check_addresses(build, listener, node);
    conf_read_networks(build, node_get(node, "accept_proxy"), &listener->accept_proxy,
                       &listener->naccept_proxy);
    conf_read_networks(build, node_get(node, "trusted_proxies"), &listener->trusted_proxies,
                       &listener->ntrusted_proxies);
    if (!listener->name) {
        return;
    }
    check_name(build, listener, node);
    listener->upstream = conf_find_upstream(build, node, "upstream");
    if (listener->mode == CONF_TCP && !node_get(node, "upstream")) {
        report_missing(build->report, node, "upstream", "missing; tcp mode needs it");
    } else {
        make_router(build, listener, node);
    }
    if (listener->mode == CONF_TCP && listener->requests_in_flight != 0) {
        report_key(build->report, node_get(node_get(node, "limits"), "requests_in_flight"),
                   "only in http mode");
    }
    conf_check_pages(build, listener, node);
    if (listener->tls) {
        conf_check_tls(build, listener, node_get(node, "tls"));
    }
}

void
conf_check_listeners(struct conf_build *build)
{
    struct conf *conf = build->conf;
    struct node *listeners = node_get(build->root, "listeners");
    struct node *child = listeners ? listeners->first : NULL;
    if (conf->nlisteners > SHM_LISTENERS) {
        report_value(build->report, listeners, "%u listeners; there may be %d", conf->nlisteners,
                     SHM_LISTENERS);
        return;
    }
    for (unsigned i = 0; i < conf->nlisteners && child; i++, child = child->next) {
        check_listener(build, &conf->listeners[i], child);
    }
}
