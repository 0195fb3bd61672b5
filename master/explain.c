/* SPDX-License-Identifier: Apache-2.0
 *
 * explain.c - the way of a request: see explain.h.
 */
#include "master/explain.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/backend_state.h"
#include "conf/rendezvous.h"
#include "conf/route.h"
#include "conf/router.h"
#include "master/usable.h"
#include "shared/http.h"
#include "shared/reason.h"

#define TARGET_MOST 4096

struct url {
    bool is_tcp, is_tls;
    char host[256];
    unsigned port; /* 0: not given */
    struct slice path;
    struct slice target; /* path and query, as a client sends it */
};

struct way {
    const struct shm *shm;
    const struct conf *conf;
    const struct explain_question *q;
    struct addr_ip client; /* of q->client */
    bool fails_open;       /* health and breakers are not heeded */
    struct json_object *told;
};

static void
tell(struct way *w, const char *key, const char *text)
{
    json_object_object_add(w->told, key, json_object_new_string(text));
}

static void
tell_end(struct way *w, enum reason reason, const char *why)
{
    tell(w, "reason", reason_table[reason].token);
    tell(w, "why", why);
}

/* ---- the question ---- */

static int
take_scheme(const char **text, struct url *url)
{
    static const struct {
        const char *prefix;
        bool is_tcp, is_tls;
    } schemes[] = {{"http://", false, false}, {"https://", false, true}, {"tcp://", true, false}};
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t len = strlen(schemes[i].prefix);
        if (strncmp(*text, schemes[i].prefix, len) == 0) {
            url->is_tcp = schemes[i].is_tcp;
            url->is_tls = schemes[i].is_tls;
            *text += len;
            return 0;
        }
    }
    return -1;
}

/* Digits up to end; none is no port. */
static int
take_port(const char *text, const char *end, struct url *url)
{
    for (; text < end; text++) {
        if (*text < '0' || *text > '9') {
            return -1;
        }
        url->port = url->port * 10 + (unsigned)(*text - '0');
        if (url->port == 0 || url->port > UINT16_MAX) {
            return -1;
        }
    }
    return 0;
}

static int
parse_url(const char *text, struct url *url)
{
    memset(url, 0, sizeof(*url));
    if (take_scheme(&text, url) < 0) {
        return -1;
    }
    size_t len = strcspn(text, "/?#");
    const char *end = text + len;
    const char *colon = NULL;
    for (const char *at = text; at < end; at++) {
        colon = *at == ':' ? at : *at == ']' ? NULL : colon;
    }
    size_t host_len = colon ? (size_t)(colon - text) : len;
    if (host_len == 0 || host_len >= sizeof(url->host) || memchr(text, '@', len)) {
        return -1;
    }
    memcpy(url->host, text, host_len);
    url->path = slice_of(end, strcspn(end, "?#"));
    if (url->path.len == 0) {
        url->path = SLICE("/");
    }
    url->target = slice_of(end, strcspn(end, "#"));
    return colon ? take_port(colon + 1, end, url) : 0;
}

static int
check_question(const struct explain_question *q, struct url *url, struct addr_ip *client, char *why,
               size_t why_size)
{
    const char *expected = NULL;
    if (parse_url(q->url, url) < 0) {
        expected = "http://HOST[:PORT]/PATH, https://... or tcp://HOST:PORT";
    } else if (q->client && addr_ip_parse(slice_from_str(q->client), client) < 0) {
        expected = "an IP address of the client";
    } else if (q->method && !http_is_token(slice_from_str(q->method))) {
        expected = "a method such as GET";
    }
    if (expected) {
        snprintf(why, why_size, "expected %s", expected);
    }
    return expected ? -1 : 0;
}

/* ---- the listener ---- */

static unsigned
port_of(const struct addr *addr)
{
    switch (addr->sa.sa_family) {
    case AF_INET: return ntohs(addr->in.sin_port);
    case AF_INET6: return ntohs(addr->in6.sin6_port);
    default: return 0;
    }
}

static bool
listens_on(const struct conf_listener *l, unsigned port)
{
    for (unsigned i = 0; i < l->naddrs; i++) {
        if (port_of(&l->addrs[i]) == port) {
            return true;
        }
    }
    return false;
}

/* By port, when one is given or somebody has the scheme's; else the first of that kind. */
static const struct conf_listener *
find_listener(const struct conf *conf, const struct url *url)
{
    unsigned port = url->port ? url->port : url->is_tls ? 443 : 80;
    const struct conf_listener *first = NULL;
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        const struct conf_listener *l = &conf->listeners[i];
        bool is_kind = url->is_tcp ? l->mode == CONF_TCP
                                   : l->mode == CONF_HTTP && (l->tls != NULL) == url->is_tls;
        if (is_kind && listens_on(l, port)) {
            return l;
        }
        first = is_kind && !first ? l : first;
    }
    return url->port ? NULL : first;
}

/* ---- the backend ---- */

static bool
is_said_out(const struct way *w, const struct conf_backend *b)
{
    return backend_state(w->shm, b) != CONF_READY ||
           backend_breaker_said(w->shm, b) == BREAKER_SAID_OPEN;
}

static bool
is_usable(const struct way *w, const struct conf_backend *b)
{
    char ignored[USABLE_WHY_MAX];
    enum reason reason = usable_judge(w->shm, b, ignored);
    return reason == REASON_none ||
           (w->fails_open && reason != REASON_over_limit && !is_said_out(w, b));
}

static const struct conf_backend *
pick_by_turn(const struct way *w, const struct conf_pool *pool)
{
    uint64_t ticket = shm_get(&w->shm->s->upstreams[pool->slot].cursor);
    for (unsigned i = 0; i < pool->schedule_len; i++) {
        unsigned at = (unsigned)((ticket + i) % pool->schedule_len);
        const struct conf_backend *b = pool->backends[pool->schedule[at]];
        if (is_usable(w, b)) {
            return b;
        }
    }
    return NULL;
}

static void
tell_pick(struct way *w, const struct conf_backend *b, const char *why)
{
    if (b) {
        tell(w, "backend", b->id);
    }
    tell(w, "why", why);
}

static void
pick_least(struct way *w, const struct conf_pool *pool)
{
    const struct conf_backend *best = NULL;
    uint64_t best_active = 0;
    unsigned nidle = 0;
    for (unsigned i = 0; i < pool->nbackends; i++) {
        const struct conf_backend *b = pool->backends[i];
        uint64_t active = shm_get(&w->shm->s->backends[b->slot].active);
        if (!is_usable(w, b)) {
            continue;
        }
        nidle += active == 0;
        if (!best || (active + 1) * best->weight < (best_active + 1) * b->weight) {
            best = b;
            best_active = active;
        }
    }
    if (nidle > 1 && best_active == 0) {
        tell_pick(w, NULL, "those that are idle take turns, by weight");
    } else {
        tell_pick(w, best, "it has the fewest exchanges for its weight now");
    }
}

static const struct conf_backend *
pick_by_client(const struct way *w, const struct conf_pool *pool, const struct addr_ip *client)
{
    const struct conf_backend *best = NULL;
    for (unsigned i = 0; i < pool->nbackends; i++) {
        const struct conf_backend *b = pool->backends[i];
        if (is_usable(w, b) &&
            (!best || rendezvous_score(b, client) > rendezvous_score(best, client))) {
            best = b;
        }
    }
    return best;
}

static void
pick(struct way *w, const struct conf_pool *pool)
{
    switch (pool->upstream->algorithm) {
    case CONF_ROUND_ROBIN:
    case CONF_W_ROUND_ROBIN:
        tell_pick(w, pick_by_turn(w, pool), "it has the next turn, unless others come first");
        return;
    case CONF_LEAST_CONN: pick_least(w, pool); return;
    case CONF_IP_HASH:
        if (w->q->client) {
            tell_pick(w, pick_by_client(w, pool, &w->client), "the client's address chooses it");
        } else {
            tell_pick(w, NULL, "the client's address chooses; say --client ADDRESS");
        }
        return;
    case CONF_HASH: tell_pick(w, NULL, "the hash_key of the request chooses"); return;
    default: tell_pick(w, NULL, "latency, load or the draw of the moment choose"); return;
    }
}

static struct json_object *
backend_object(const struct way *w, const struct conf_backend *b, bool *is_any)
{
    char why[USABLE_WHY_MAX];
    struct json_object *to = json_object_new_object();
    bool is_usable_now = usable_judge(w->shm, b, why) == REASON_none;
    json_object_object_add(to, "id", json_object_new_string(b->id));
    json_object_object_add(to, "weight", json_object_new_int64(b->weight));
    json_object_object_add(to, "usable", json_object_new_boolean(is_usable_now));
    if (!is_usable_now) {
        json_object_object_add(to, "why", json_object_new_string(why));
    }
    *is_any |= is_usable_now;
    return to;
}

static bool
has_usable(const struct way *w, const struct conf_pool *pool)
{
    bool is_any = false;
    for (unsigned i = 0; i < pool->nbackends; i++) {
        is_any |= is_usable(w, pool->backends[i]);
    }
    return is_any;
}

static bool
has_reason(const struct way *w, const struct conf_pool *pool, enum reason reason)
{
    char ignored[USABLE_WHY_MAX];
    for (unsigned i = 0; i < pool->nbackends; i++) {
        if (usable_judge(w->shm, pool->backends[i], ignored) == reason) {
            return true;
        }
    }
    return pool->backups && has_reason(w, pool->backups, reason);
}

/* The reason that the request is answered with, as workers choose it. */
static void
tell_none(struct way *w, const struct conf_pool *pool)
{
    if (has_reason(w, pool, REASON_over_limit)) {
        tell_end(w, REASON_over_limit,
                 pool->upstream->queue_size
                     ? "who is not out of service is full: it waits for a place"
                     : "who is not out of service is full");
    } else if (has_reason(w, pool, REASON_breaker_open)) {
        tell_end(w, REASON_breaker_open, "no backend is usable");
    } else {
        tell_end(w, REASON_no_backend, "no backend is usable");
    }
}

static bool
tell_backends(struct way *w, const struct conf_pool *pool)
{
    bool is_any = false;
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < pool->nbackends; i++) {
        json_object_array_add(list, backend_object(w, pool->backends[i], &is_any));
    }
    json_object_object_add(w->told, "backends", list);
    return is_any;
}

static void
pick_backup(struct way *w, const struct conf_pool *pool)
{
    struct conf_pool backups = *pool->backups;
    backups.slot = pool->slot; /* they share its cursor */
    pick(w, &backups);
}

/* fail_open: who is down or ejected is chosen after all, rather than nobody. */
static void
follow_open(struct way *w, const struct conf_pool *pool)
{
    w->fails_open = pool->upstream->fail_open;
    bool is_any = has_usable(w, pool);
    if (!is_any && !(pool->backups && has_usable(w, pool->backups))) {
        tell_none(w, pool);
        return;
    }
    tell(w, "fail_open", "no backend is usable, and what is known of them may be wrong");
    if (is_any) {
        pick(w, pool);
    } else {
        pick_backup(w, pool);
    }
}

static void
follow_pool(struct way *w, const struct conf_pool *pool)
{
    tell(w, "upstream", pool->upstream->name);
    tell(w, "pool", pool->id);
    if (tell_backends(w, pool)) {
        pick(w, pool);
    } else if (pool->backups && tell_backends(w, pool->backups)) {
        pick_backup(w, pool);
    } else {
        follow_open(w, pool);
    }
}

/* ---- the route ---- */

static void
tell_route(struct way *w, const struct conf_route *route)
{
    struct json_object *to = json_object_new_object();
    if (route->host) {
        json_object_object_add(to, "host", json_object_new_string(route->host));
    }
    if (route->path) {
        json_object_object_add(to, "path", json_object_new_string(route->path));
    }
    if (route->path_exact) {
        json_object_object_add(to, "path_exact", json_object_new_string(route->path_exact));
    }
    if (route->path_regex) {
        json_object_object_add(to, "path_regex", json_object_new_string(route->path_regex));
    }
    json_object_object_add(w->told, "route", to);
}

/* The share of a split whose turn is next. */
static struct conf_upstream *
next_share(const struct way *w, const struct conf_split *split)
{
    uint64_t ticket = shm_get(&w->shm->s->upstreams[split->slot].cursor);
    return split->shares[split->schedule[ticket % split->schedule_len]].upstream;
}

static void
follow_route(struct way *w, const struct conf_route *route, struct slice path)
{
    tell_route(w, route);
    if (w->q->client && !route_admits(route, &w->client)) {
        tell_end(w, REASON_denied, "allow or deny of the route keep this client out");
    } else if (route->redirect) {
        tell(w, "why", "the route sends the client elsewhere");
    } else if (route->respond) {
        tell(w, "why", "akashd itself answers");
    } else if (route->split.schedule) {
        follow_pool(w, conf_upstream_pool(next_share(w, &route->split), path));
    } else {
        follow_pool(w, conf_upstream_pool(route->upstream, path));
    }
}

static void
follow_http(struct way *w, const struct conf_listener *l, const struct url *url)
{
    char room[TARGET_MOST];
    struct slice path;
    const char *host = w->q->host ? w->q->host : url->host;
    const char *method = w->q->method ? w->q->method : "GET";
    if (strcmp(method, "CONNECT") == 0 || strcmp(method, "TRACE") == 0) {
        tell_end(w, REASON_method, "CONNECT and TRACE are not served");
        return;
    }
    if (url->path.len >= sizeof(room) || !http_path_normalize(url->path, room, &path)) {
        tell_end(w, REASON_bad_request, "the path leads out of the root, or is malformed");
        return;
    }
    struct http_msg req = {.method_text = slice_from_str(method),
                           .authority = slice_from_str(host),
                           .target = url->target,
                           .path = path};
    const struct pattern *gave_up;
    const struct conf_route *route = conf_router_find(l->router, &req, &gave_up);
    if (gave_up) {
        tell_end(w, REASON_internal, "a regular expression takes too long on this path");
        return;
    }
    if (!route) {
        tell_end(w, REASON_no_route, "no route of this listener matches, and it has no upstream");
        return;
    }
    follow_route(w, route, path);
}

/* TLS that is passed through may ask for the host of the question; anything else has the default.
 */
static void
follow_tcp(struct way *w, const struct conf_listener *l, const struct url *url)
{
    if (l->router) {
        const char *host = w->q->host ? w->q->host : url->host;
        follow_route(w, conf_router_find_name(l->router, slice_from_str(host)), SLICE(""));
    } else {
        follow_pool(w, conf_upstream_pool(l->upstream, SLICE("")));
    }
}

struct json_object *
explain_request(const struct shm *shm, const struct conf *conf, const struct explain_question *q,
                char *why, size_t why_size)
{
    struct url url;
    struct way way = {.shm = shm, .conf = conf, .q = q};
    if (check_question(q, &url, &way.client, why, why_size) < 0) {
        return NULL;
    }
    way.told = json_object_new_object();
    const struct conf_listener *l = find_listener(conf, &url);
    if (!l) {
        tell(&way, "why", "no listener of this kind has this port");
        return way.told;
    }
    tell(&way, "listener", l->name);
    if (l->mode == CONF_TCP) {
        follow_tcp(&way, l, &url);
    } else {
        follow_http(&way, l, &url);
    }
    return way.told;
}
