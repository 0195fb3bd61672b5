/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_route.c - routes: conditions, patterns, and the one action of each.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "conf/build.h"
#include "conf/pattern.h"
#include "conf/schedule.h"
#include "shared/hash.h"
#include "shared/http.h"
#include "shared/shm.h"

/* ---- listeners ---- */

static const struct conf_listener *
find_listener(const struct conf *conf, const char *name)
{
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        if (conf->listeners[i].name && strcmp(conf->listeners[i].name, name) == 0) {
            return &conf->listeners[i];
        }
    }
    return NULL;
}

/* A listener that passes TLS through knows of a connection the server's name, and nothing else. */
static void
check_tcp_route(struct conf_build *build, const struct conf_listener *listener, struct node *place,
                struct node *node)
{
    static const char *const keys[] = {"listeners", "host",  "upstream",
                                       "split",     "retry", "timeouts"};
    if (listener->tls) {
        report_value(build->report, place,
                     "listener %s is in tcp mode and ends TLS itself: it has no routes",
                     listener->name);
    } else if (!node_get(node, "host")) {
        report_value(build->report, place,
                     "listener %s is in tcp mode, where a route goes by host (the name that TLS "
                     "asks for) alone",
                     listener->name);
    }
    for (struct node *child = node->first; child; child = child->next) {
        bool is_known = false;
        for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
            is_known |= strcmp(child->name, keys[i]) == 0;
        }
        if (!is_known && !child->is_default) {
            report_key(build->report, child, "not with listener %s, which is in tcp mode",
                       listener->name);
        }
    }
}

static void
check_route_listeners(struct conf_build *build, struct node *node)
{
    struct node *list = node_get(node, "listeners");
    for (struct node *child = list ? list->first : NULL; child; child = child->next) {
        if (child->kind != NODE_STRING || child->is_bad) {
            continue;
        }
        const struct conf_listener *listener = find_listener(build->conf, child->text);
        if (!listener) {
            report_value(build->report, child, "there is no listener %s", child->text);
        } else if (listener->mode == CONF_TCP) {
            check_tcp_route(build, listener, child, node);
        }
    }
}

/* ---- conditions ---- */

/* The pattern that a member of object is; NULL: none, or it was reported. */
static struct pattern *
read_pattern(struct conf_build *build, struct node *object, const char *key)
{
    char why[160];
    const char *text = node_text(object, key);
    struct pattern *pattern = text ? pattern_new(build->arena, text, why, sizeof(why)) : NULL;
    if (text && !pattern) {
        report_value(build->report, node_get(object, key), "not a regular expression: %s", why);
    }
    return pattern;
}

static void
read_match(struct conf_build *build, struct conf_match *match, struct node *node)
{
    const char *const texts[] = {match->exact, match->prefix, match->suffix, match->regex};
    static const enum conf_match_kind kinds[] = {CONF_MATCH_EXACT, CONF_MATCH_PREFIX,
                                                 CONF_MATCH_SUFFIX, CONF_MATCH_REGEX};
    unsigned given = node_get(node, "present") != NULL;
    match->name = node->name;
    match->kind = CONF_MATCH_PRESENT;
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (texts[i]) {
            match->kind = kinds[i];
            match->text = slice_from_str(texts[i]);
            given++;
        }
    }
    match->pattern = read_pattern(build, node, "regex");
    if (node->kind == NODE_OBJECT && !node->is_bad && given != 1) {
        report_value(build->report, node,
                     "expected exactly one of exact, prefix, suffix, regex and present");
    }
}

static void
read_matches(struct conf_build *build, struct conf_match *matches, unsigned n, struct node *map)
{
    struct node *child = map ? map->first : NULL;
    for (unsigned i = 0; i < n && child; i++, child = child->next) {
        read_match(build, &matches[i], child);
    }
}

/* A field's name, that a member of map has. */
static void
check_field_names(struct conf_build *build, struct node *map)
{
    for (struct node *child = map ? map->first : NULL; child; child = child->next) {
        if (child->name && !http_is_token(slice_from_str(child->name))) {
            report_key(build->report, child, "not the name of a field");
        }
    }
}

static void
check_conditions(struct conf_build *build, struct conf_route *route, struct node *node)
{
    static const char *const paths[] = {"path", "path_exact", "path_regex"};
    const char *first = NULL;
    for (unsigned i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        struct node *path = node_get(node, paths[i]);
        if (path && first) {
            report_key(build->report, path, "excluded by \"%s\"", first);
        }
        first = path && !first ? paths[i] : first;
    }
    route->path_pattern = read_pattern(build, node, "path_regex");
    check_field_names(build, node_get(node, "headers"));
    read_matches(build, route->headers, route->nheaders, node_get(node, "headers"));
    read_matches(build, route->query, route->nquery, node_get(node, "query"));
}

/* ---- fields that are changed ---- */

/* What frames a message, or is for one connection, is akashd's own; Host is for rewrite. */
static bool
is_untouchable(const char *name)
{
    struct http_field f = {.id = (uint8_t)http_field_find_id(slice_from_str(name))};
    return http_is_hop_by_hop(&f) || f.id == HTTP_FIELD_CONTENT_LENGTH || f.id == HTTP_FIELD_HOST ||
           f.id == HTTP_FIELD_TRAILER || f.id == HTTP_FIELD_EXPECT ||
           f.id == HTTP_FIELD_SEC_WEBSOCKET_KEY || f.id == HTTP_FIELD_SEC_WEBSOCKET_ACCEPT;
}

static const char *
why_bad_name(const char *name)
{
    if (!http_is_token(slice_from_str(name))) {
        return "not the name of a field";
    }
    return is_untouchable(name) ? "this field is not changed by routes" : NULL;
}

static bool
is_good_value(const char *value)
{
    size_t len = strlen(value);
    bool has_space = len > 0 && (strchr(" \t", value[0]) || strchr(" \t", value[len - 1]));
    return !has_space && http_is_field_value(slice_from_str(value));
}

static void
check_pairs(struct conf_build *build, struct node *map)
{
    for (struct node *child = map ? map->first : NULL; child; child = child->next) {
        const char *why = child->name ? why_bad_name(child->name) : NULL;
        if (why) {
            report_key(build->report, child, "%s", why);
        } else if (child->kind == NODE_STRING && !child->is_bad && !is_good_value(child->text)) {
            report_value(build->report, child, "not the value of a field");
        }
    }
}

static void
check_edit(struct conf_build *build, struct node *edit)
{
    const struct node *remove = node_get(edit, "remove");
    check_pairs(build, node_get(edit, "set"));
    check_pairs(build, node_get(edit, "add"));
    for (struct node *child = remove ? remove->first : NULL; child; child = child->next) {
        const char *why =
            child->kind == NODE_STRING && !child->is_bad ? why_bad_name(child->text) : NULL;
        if (why) {
            report_value(build->report, child, "%s", why);
        }
    }
}

/* ---- actions ---- */

static void
check_one_action(struct conf_build *build, struct node *node)
{
    static const char *const actions[] = {"upstream", "split", "redirect", "respond"};
    const char *first = NULL;
    for (unsigned i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        struct node *action = node_get(node, actions[i]);
        if (action && first) {
            report_key(build->report, action, "excluded by \"%s\"", first);
        }
        first = action && !first ? actions[i] : first;
    }
    if (!first && node->kind == NODE_OBJECT && !node->is_bad) {
        report_value(build->report, node, "expected one of upstream, split, redirect and respond");
    }
}

/* The cursor stays as long as the route does: it is known by all that the route says. */
static const char *
name_split(struct conf_build *build, const struct node *node)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out) {
        abort();
    }
    node_print(node, out);
    if (fclose(out) != 0) {
        abort();
    }
    uint64_t hash = hash_finish(hash_bytes(HASH_BEGIN, text, len));
    free(text);
    return conf_arena_format(build->arena, "split:%016" PRIx64, hash);
}

static void
check_split(struct conf_build *build, struct conf_split *split, struct node *node)
{
    struct node *list = node_get(node, "split");
    struct node *child = list ? list->first : NULL;
    unsigned *weights = conf_arena_array(build->arena, split->nshares, sizeof(*weights));
    bool is_well = split->nshares > 0;
    for (unsigned i = 0; i < split->nshares && child; i++, child = child->next) {
        split->shares[i].upstream = conf_find_upstream(build, child, "upstream");
        split->shares[i].policy = conf_route_policy(build, split->shares[i].upstream, node);
        weights[i] = split->shares[i].weight;
        is_well = is_well && split->shares[i].upstream && weights[i] > 0;
    }
    if (split->nshares > SCHEDULE_MAX / 1000) {
        report_value(build->report, list, "%u shares; there may be %d", split->nshares,
                     SCHEDULE_MAX / 1000);
    } else if (is_well) {
        split->schedule =
            schedule_build(build->arena, weights, split->nshares, &split->schedule_len);
        split->id = name_split(build, node);
        build->npools++;
    }
}

static void
check_authority(struct conf_build *build, struct node *object)
{
    const char *host = node_text(object, "host");
    if (host && !http_is_authority(slice_from_str(host), false)) {
        report_value(build->report, node_get(object, "host"),
                     "expected a host name or an IP address, with or without a port");
    }
}

static void
check_redirect(struct conf_build *build, const struct conf_redirect *redirect, struct node *node)
{
    bool is_known = redirect->status <= 303 || redirect->status >= 307;
    struct node *status = node_get(node, "status");
    if (status && !status->is_bad && !is_known) {
        report_value(build->report, status, "expected 301, 302, 303, 307 or 308");
    }
    if (!node_get(node, "scheme") && !node_get(node, "host") && !node_get(node, "path") &&
        node->kind == NODE_OBJECT) {
        report_value(build->report, node, "expected scheme, host or path: it leads to itself");
    }
    check_authority(build, node);
}

static void
check_respond(struct conf_build *build, const struct conf_respond *respond, struct node *node)
{
    bool is_bodiless = respond->status == 204 || respond->status == 304;
    if (is_bodiless && respond->body && respond->body[0]) {
        report_value(build->report, node_get(node, "body"), "an answer %u has no body",
                     respond->status);
    }
}

static void
check_action(struct conf_build *build, struct conf_route *route, struct node *node)
{
    check_one_action(build, node);
    conf_check_route_policy(build, node);
    route->upstream = conf_find_upstream(build, node, "upstream");
    route->policy = conf_route_policy(build, route->upstream, node);
    check_split(build, &route->split, node);
    if (route->redirect) {
        check_redirect(build, route->redirect, node_get(node, "redirect"));
    }
    if (route->respond) {
        check_respond(build, route->respond, node_get(node, "respond"));
    }
    if (route->rewrite && (route->redirect || route->respond)) {
        report_key(build->report, node_get(node, "rewrite"), "only with upstream or split");
    }
    check_authority(build, node_get(node, "rewrite"));
    check_edit(build, node_get(node, "request_headers"));
    check_edit(build, node_get(node, "response_headers"));
}

void
conf_check_routes(struct conf_build *build)
{
    struct conf *conf = build->conf;
    struct node *routes = node_get(build->root, "routes");
    struct node *child = routes ? routes->first : NULL;
    for (unsigned i = 0; i < conf->nroutes && child; i++, child = child->next) {
        struct conf_route *route = &conf->routes[i];
        check_route_listeners(build, child);
        check_conditions(build, route, child);
        check_action(build, route, child);
        conf_read_networks(build, node_get(child, "allow"), &route->allow, &route->nallow);
        conf_read_networks(build, node_get(child, "deny"), &route->deny, &route->ndeny);
    }
    if (build->npools > SHM_UPSTREAMS) {
        report_value(build->report, routes, "%u pools and splits; there may be %d", build->npools,
                     SHM_UPSTREAMS);
    }
}
