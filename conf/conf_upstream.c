/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_upstream.c - the backends of an upstream, one for each address; its pools; its health check.
 */
#include <stdlib.h>

#include "conf/build.h"
#include "conf/maglev.h"
#include "conf/path_set.h"
#include "conf/schedule.h"
#include "shared/shm.h"
#include "shared/sticky.h"

/* ---- backends ---- */

/* The operator's goes before the file's. */
static void
set_weight(struct conf_build *build, struct conf_backend *b)
{
    struct conf_source *src = build->src;
    unsigned given = src->weight ? src->weight(src, b->upstream->name, b->id) : 0;
    b->file_weight = b->weight;
    b->weight = given ? given : b->weight;
}

/* The backends of an upstream while their number is not known. */
struct collection {
    struct conf_backend *backends;
    struct node **nodes; /* where each stands in the file */
    unsigned n, room;
};

static void
collect(struct conf_build *build, struct collection *all, const struct conf_backend *backend,
        struct node *node)
{
    if (all->n == all->room) {
        struct collection old = *all;
        all->room = old.room ? old.room * 2 : 8;
        all->backends = conf_arena_array(build->arena, all->room, sizeof(*all->backends));
        all->nodes = conf_arena_array(build->arena, all->room, sizeof(*all->nodes));
        if (old.n) {
            memcpy(all->backends, old.backends, old.n * sizeof(*old.backends));
            memcpy(all->nodes, old.nodes, old.n * sizeof(struct node *));
        }
    }
    all->backends[all->n] = *backend;
    all->nodes[all->n++] = node;
}

static void
ip_text(const struct addr *addr, char *buf)
{
    struct addr_ip ip;
    addr_ip_from_sockaddr(&addr->sa, addr->len, &ip);
    buf[addr_ip_format(&ip, buf)] = '\0';
}

static void
collect_named(struct conf_build *build, struct collection *all, const struct conf_backend *declared,
              const struct addr_spec *spec, struct node *node)
{
    struct conf_found found[CONF_FOUND_MAX];
    char place[ADDR_TEXT_MAX];
    bool is_srv = spec->kind == ADDR_SRV;
    unsigned n = conf_name_resolve(build, spec, found);
    if (n == 0) {
        report_warn(build->report, node_get(node, "address"), "%.*s does not resolve",
                    SLICE_ARG(spec->host));
    }
    for (unsigned i = 0; i < n; i++) {
        struct conf_backend backend = *declared;
        backend.addr = found[i].addr;
        if (is_srv) {
            addr_format(&found[i].addr, place);
            conf_name_weigh(found, n, i, &backend);
        } else {
            ip_text(&found[i].addr, place);
        }
        backend.id = conf_arena_format(build->arena, "%s@%s", declared->id, place);
        collect(build, all, &backend, node);
    }
}

static void
collect_declared(struct conf_build *build, struct collection *all,
                 const struct conf_backend *declared, struct node *node)
{
    struct addr_spec spec;
    const char *why;
    const char *text = node_text(node, "address");
    if (!text || addr_parse(slice_from_str(text), false, &spec, &why) < 0) {
        return; /* reported already */
    }
    struct conf_backend backend = *declared;
    backend.id = declared->id ? declared->id : text;
    if (spec.kind == ADDR_NAME || spec.kind == ADDR_SRV) {
        collect_named(build, all, &backend, &spec, node);
    } else {
        backend.addr = spec.addr;
        collect(build, all, &backend, node);
    }
}

struct identity {
    const char *id;
    struct node *node;
};

static int
compare_identities(const void *left, const void *right)
{
    const struct identity *a = left, *b = right;
    int order = strcmp(a->id, b->id);
    if (order != 0) {
        return order;
    }
    return a->node->at.line < b->node->at.line ? -1 : a->node->at.line > b->node->at.line;
}

static void
check_identities(struct conf_build *build, const char *upstream, const struct collection *all)
{
    struct identity *ids = conf_arena_array(build->arena, all->n, sizeof(*ids));
    for (unsigned i = 0; i < all->n; i++) {
        ids[i] = (struct identity){all->backends[i].id, all->nodes[i]};
        if (strlen(upstream) + strlen(ids[i].id) + 2 > SHM_ID_MAX) {
            report_value(build->report, all->nodes[i], "the id %s is too long; give it another",
                         ids[i].id);
        }
    }
    if (all->n) {
        qsort(ids, all->n, sizeof(*ids), compare_identities);
    }
    for (unsigned i = 1; i < all->n; i++) {
        if (strcmp(ids[i - 1].id, ids[i].id) == 0) {
            report_value(build->report, ids[i].node,
                         "the id %s is that of the backend on line %u; give it another", ids[i].id,
                         ids[i - 1].node->at.line);
        }
    }
}

static void
set_port(struct addr *addr, uint16_t port)
{
    if (addr->sa.sa_family == AF_INET) {
        addr->in.sin_port = htons(port);
    } else if (addr->sa.sa_family == AF_INET6) {
        addr->in6.sin6_port = htons(port);
    }
}

static void
check_backends(struct conf_build *build, struct conf_upstream *up, struct node *node)
{
    struct collection all = {0};
    struct node *backends = node_get(node, "backends");
    struct node *child = backends ? backends->first : NULL;
    for (unsigned i = 0; i < up->nbackends && child; i++, child = child->next) {
        collect_declared(build, &all, &up->backends[i], child);
    }
    check_identities(build, up->name, &all);
    up->backends = conf_arena_array(build->arena, all.n, sizeof(*up->backends));
    up->nbackends = all.n;
    for (unsigned i = 0; i < all.n; i++) {
        struct conf_backend *backend = &up->backends[i];
        *backend = all.backends[i];
        backend->upstream = up;
        backend->index = i;
        backend->check_addr = backend->addr;
        set_weight(build, backend);
        if (up->health.port) {
            set_port(&backend->check_addr, up->health.port);
        }
    }
    build->nbackends += all.n;
}

/* ---- pools ---- */

struct listing {
    const char *path;
    struct conf_backend *backend;
};

static int
compare_listings(const void *left, const void *right)
{
    const struct listing *a = left, *b = right;
    int order = strcmp(a->path, b->path);
    if (order != 0) {
        return order;
    }
    return a->backend->index < b->backend->index ? -1 : a->backend->index > b->backend->index;
}

/* The orders that its algorithm needs. */
static void
order_pool(struct conf_build *build, struct conf_pool *pool)
{
    unsigned *weights = conf_arena_array(build->arena, pool->nbackends, sizeof(*weights));
    for (unsigned i = 0; i < pool->nbackends; i++) {
        weights[i] = pool->backends[i]->weight ? pool->backends[i]->weight : 1;
    }
    pool->schedule = schedule_build(build->arena, weights, pool->nbackends, &pool->schedule_len);
    if (pool->upstream->algorithm == CONF_HASH && pool->nbackends > 0) {
        pool->table = maglev_build(build->arena, pool->backends, pool->nbackends, &pool->table_len);
    }
}

/* Backups are a pool behind the pool. Where there is nobody else they are none. */
static void
part_backups(struct conf_build *build, struct conf_pool *pool)
{
    struct conf_pool *backups = conf_arena_alloc(build->arena, sizeof(*backups));
    unsigned n = 0;
    *backups = (struct conf_pool){.upstream = pool->upstream, .id = pool->id};
    backups->backends = conf_arena_array(build->arena, pool->nbackends, sizeof(*backups->backends));
    for (unsigned i = 0; i < pool->nbackends; i++) {
        n += pool->backends[i]->backup;
    }
    if (n == 0 || n == pool->nbackends) {
        return;
    }
    unsigned kept = 0;
    for (unsigned i = 0; i < pool->nbackends; i++) {
        struct conf_backend *b = pool->backends[i];
        if (b->backup) {
            backups->backends[backups->nbackends++] = b;
        } else {
            pool->backends[kept++] = b;
        }
    }
    pool->nbackends = kept;
    order_pool(build, backups);
    pool->backups = backups;
}

static void
fill_pool(struct conf_build *build, struct conf_pool *pool, struct conf_upstream *up,
          const char *path)
{
    pool->upstream = up;
    pool->id = path ? conf_arena_format(build->arena, "%s:%s", up->name, path) : up->name;
    part_backups(build, pool);
    order_pool(build, pool);
}

/* Backends without paths, or all where every one has some. */
static void
make_first_pool(struct conf_build *build, struct conf_upstream *up)
{
    struct conf_pool *pool = &up->pools[0];
    pool->backends = conf_arena_array(build->arena, up->nbackends, sizeof(*pool->backends));
    for (unsigned i = 0; i < up->nbackends; i++) {
        if (!up->backends[i].paths || !up->backends[i].paths[0]) {
            pool->backends[pool->nbackends++] = &up->backends[i];
        }
    }
    if (pool->nbackends == 0) {
        for (unsigned i = 0; i < up->nbackends; i++) {
            pool->backends[pool->nbackends++] = &up->backends[i];
        }
    }
    fill_pool(build, pool, up, NULL);
}

static unsigned
list_paths(struct conf_build *build, const struct conf_upstream *up, struct listing **out)
{
    unsigned n = 0;
    for (unsigned i = 0; i < up->nbackends; i++) {
        for (char **path = up->backends[i].paths; path && *path; path++) {
            n++;
        }
    }
    *out = conf_arena_array(build->arena, n, sizeof(**out));
    n = 0;
    for (unsigned i = 0; i < up->nbackends; i++) {
        for (char **path = up->backends[i].paths; path && *path; path++) {
            (*out)[n++] = (struct listing){*path, &up->backends[i]};
        }
    }
    if (n) {
        qsort(*out, n, sizeof(**out), compare_listings);
    }
    return n;
}

/* One pool of the listings from `first` on that have its path. Returns the number of the next. */
static unsigned
make_pool(struct conf_build *build, struct conf_upstream *up, const struct listing *listings,
          unsigned first, unsigned n)
{
    const char *path = listings[first].path;
    struct conf_pool *pool = &up->pools[up->npools];
    unsigned end = first;
    while (end < n && strcmp(listings[end].path, path) == 0) {
        end++;
    }
    pool->backends = conf_arena_array(build->arena, end - first, sizeof(*pool->backends));
    for (unsigned i = first; i < end; i++) {
        bool is_repeated = i > first && listings[i].backend == listings[i - 1].backend;
        if (!is_repeated) {
            pool->backends[pool->nbackends++] = listings[i].backend;
        }
    }
    fill_pool(build, pool, up, path);
    up->pool_paths[up->npools - 1] = conf_arena_copy(build->arena, slice_from_str(path));
    path_set_add(up->pool_set, path, (int)up->npools);
    up->npools++;
    return end;
}

static void
make_pools(struct conf_build *build, struct conf_upstream *up, struct node *node)
{
    struct listing *listings;
    unsigned n = list_paths(build, up, &listings);
    up->pools = conf_arena_array(build->arena, (size_t)n + 1, sizeof(*up->pools));
    up->pool_paths = conf_arena_array(build->arena, (size_t)n + 1, sizeof(*up->pool_paths));
    up->npools = 1;
    up->pool_set = n ? path_set_new(build->arena, n) : NULL;
    make_first_pool(build, up);
    for (unsigned i = 0; i < n;) {
        i = make_pool(build, up, listings, i, n);
    }
    for (unsigned i = 1; i < up->npools; i++) {
        if (strlen(up->pools[i].id) + 1 > SHM_ID_MAX) {
            report_value(build->report, node_get(node, "backends"), "the path %.80s... is too long",
                         up->pool_paths[i - 1]);
        }
    }
    build->npools += up->npools;
}

/* ---- health ---- */

/* "200-399,404": the option table has seen to the form. */
static void
parse_expect(struct conf_build *build, struct conf_health *health, const char *text)
{
    unsigned n = 1;
    for (const char *at = text; *at; at++) {
        n += *at == ',';
    }
    health->expect = conf_arena_array(build->arena, n, sizeof(*health->expect));
    for (unsigned i = 0; i < n; i++) {
        char *rest;
        struct conf_range *range = &health->expect[i];
        range->from = range->to = (uint16_t)strtoul(text, &rest, 10);
        if (*rest == '-') {
            range->to = (uint16_t)strtoul(rest + 1, &rest, 10);
        }
        text = *rest ? rest + 1 : rest;
    }
    health->nexpect = n;
}

/* It would never pass. */
static void
check_health(struct conf_build *build, const struct conf_health *health, struct node *node)
{
    if (health->body && health->body[0] && health->method && strcmp(health->method, "HEAD") == 0) {
        report_value(build->report, node_get(node, "body"), "an answer to HEAD has no body");
    }
}

static void
parse_hash_key(struct conf_upstream *up)
{
    static const char *const words[] = {"client_ip", "uri", "path", "header:", "cookie:", "query:"};
    for (unsigned i = 0; up->hash_key && i < sizeof(words) / sizeof(words[0]); i++) {
        size_t len = strlen(words[i]);
        if (strncmp(up->hash_key, words[i], len) == 0) {
            up->hash_kind = (enum conf_key_kind)i;
            up->hash_name = slice_from_str(up->hash_key + len);
        }
    }
}

static void
parse_source(struct conf_build *build, struct conf_upstream *up, const struct node *list)
{
    up->source.addrs =
        conf_arena_array(build->arena, list ? list->count : 0, sizeof(*up->source.addrs));
    for (struct node *child = list ? list->first : NULL; child; child = child->next) {
        struct addr_ip *ip = &up->source.addrs[up->source.count];
        if (child->kind == NODE_STRING && !child->is_bad &&
            addr_ip_parse(slice_from_str(child->text), ip) == 0) {
            up->source.count++;
        }
    }
}

static void
check_upstream(struct conf_build *build, struct conf_upstream *up, struct node *node)
{
    const char *expect = node_text(node_get(node, "health_check"), "expect");
    up->name = node->name;
    if (expect) {
        parse_expect(build, &up->health, expect);
    }
    check_health(build, &up->health, node_get(node, "health_check"));
    parse_hash_key(up);
    conf_read_retry_on(up->policy.retry, node_get(node, "retry"));
    parse_source(build, up, node_get(node, "source"));
    if (up->send_proxy && up->protocol == CONF_H2) {
        report_value(build->report, node_get(node, "send_proxy"),
                     "not with protocol h2, whose connections carry requests of many clients");
    }
    check_backends(build, up, node);
    for (unsigned i = 0; up->sticky && up->sticky->secret && i < up->nbackends; i++) {
        struct conf_backend *b = &up->backends[i];
        b->sticky_tag = sticky_tag(slice_from_str(up->sticky->secret), up->name, b->id);
    }
    if (up->tls) {
        conf_check_upstream_tls(build, up, node_get(node, "tls"));
    }
    if (build->nbackends <= SHM_BACKENDS) {
        make_pools(build, up, node);
    }
}

void
conf_check_upstreams(struct conf_build *build)
{
    struct conf *conf = build->conf;
    struct node *upstreams = node_get(build->root, "upstreams");
    struct node *child = upstreams ? upstreams->first : NULL;
    for (unsigned i = 0; i < conf->nupstreams && child; i++, child = child->next) {
        check_upstream(build, &conf->upstreams[i], child);
    }
    if (conf->nnames > CONF_NAMES_MAX) {
        report_value(build->report, upstreams, "%u names of backends; there may be %d",
                     conf->nnames, CONF_NAMES_MAX);
    }
    if (build->nbackends > SHM_BACKENDS) {
        report_value(build->report, upstreams, "%u backends; there may be %d", build->nbackends,
                     SHM_BACKENDS);
    }
    if (build->npools > SHM_UPSTREAMS) {
        report_value(build->report, upstreams,
                     "%u upstreams and paths of backends; there may be %d", build->npools,
                     SHM_UPSTREAMS);
    }
}
