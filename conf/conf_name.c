/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_name.c - names of backends: their addresses in an order of ours, and what SRV records say.
 */
#include <stdlib.h>

#include "conf/build.h"

/* ---- order ---- */

static void
set_port(struct addr *addr, uint16_t port)
{
    if (addr->sa.sa_family == AF_INET) {
        addr->in.sin_port = htons(port);
    } else {
        addr->in6.sin6_port = htons(port);
    }
}

static int
compare_places(const struct conf_found *a, const struct conf_found *b)
{
    struct addr_ip ip_a, ip_b;
    char text_a[ADDR_TEXT_MAX], text_b[ADDR_TEXT_MAX];
    if (a->addr.sa.sa_family != b->addr.sa.sa_family) {
        return a->addr.sa.sa_family < b->addr.sa.sa_family ? -1 : 1;
    }
    addr_ip_from_sockaddr(&a->addr.sa, a->addr.len, &ip_a);
    addr_ip_from_sockaddr(&b->addr.sa, b->addr.len, &ip_b);
    addr_ip_format(&ip_a, text_a);
    addr_ip_format(&ip_b, text_b);
    int order = strcmp(text_a, text_b);
    return order != 0 ? order : (int)ip_a.port - (int)ip_b.port;
}

static int
compare_found(const void *left, const void *right)
{
    const struct conf_found *a = left, *b = right;
    int order = compare_places(a, b);
    if (order != 0) {
        return order;
    }
    order = (int)a->priority - (int)b->priority;
    return order != 0 ? order : (int)b->weight - (int)a->weight;
}

unsigned
conf_found_sort(struct conf_found *found, unsigned n)
{
    unsigned kept = 0;
    if (n > 1) {
        qsort(found, n, sizeof(*found), compare_found);
    }
    for (unsigned i = 0; i < n; i++) {
        if (kept == 0 || compare_places(&found[kept - 1], &found[i]) != 0) {
            found[kept++] = found[i];
        }
    }
    return kept;
}

/* ---- names ---- */

struct conf_name *
conf_name_find(const struct conf *conf, struct slice host, bool is_srv)
{
    for (unsigned i = 0; i < conf->nnames; i++) {
        struct conf_name *name = &conf->names[i];
        if (name->is_srv == is_srv && slice_eq(slice_from_str(name->host), host)) {
            return name;
        }
    }
    return NULL;
}

/* Remember it for whoever looks it up again. */
static void
keep_name(struct conf_build *build, const char *host, bool is_srv, const struct conf_found *found,
          unsigned n)
{
    struct conf *conf = build->conf;
    if (conf_name_find(conf, slice_from_str(host), is_srv)) {
        return;
    }
    if ((conf->nnames & (conf->nnames - 1)) == 0) {
        struct conf_name *former = conf->names;
        unsigned room = conf->nnames ? conf->nnames * 2 : 1;
        conf->names = conf_arena_array(build->arena, room, sizeof(*conf->names));
        if (former) {
            memcpy(conf->names, former, conf->nnames * sizeof(*former));
        }
    }
    struct conf_name *name = &conf->names[conf->nnames++];
    *name = (struct conf_name){.host = host, .is_srv = is_srv, .nfound = n};
    name->found = conf_arena_array(build->arena, n, sizeof(*found));
    for (unsigned i = 0; i < n; i++) {
        name->found[i] = found[i];
        if (!is_srv) {
            set_port(&name->found[i].addr, 0);
        }
    }
}

unsigned
conf_name_resolve(struct conf_build *build, const struct addr_spec *spec, struct conf_found *found)
{
    const char *host = conf_arena_copy(build->arena, spec->host);
    bool is_srv = spec->kind == ADDR_SRV;
    int n = build->src->resolve(build->src, host, is_srv ? 0 : spec->port, found, CONF_FOUND_MAX);
    /* A name server may turn the order round at each answer; ours is the same. */
    unsigned kept = conf_found_sort(found, n > 0 ? (unsigned)n : 0);
    keep_name(build, host, is_srv, found, kept);
    return kept;
}

/* ---- SRV records ---- */

/* Weights of records go to 65535, ours to 256: scaled down alike, but none to nothing. Records that
 * are all of weight 0 make no difference among them. */
void
conf_name_weigh(const struct conf_found *found, unsigned n, unsigned i,
                struct conf_backend *backend)
{
    unsigned most = 0;
    uint16_t first = found[0].priority;
    for (unsigned k = 0; k < n; k++) {
        most = found[k].weight > most ? found[k].weight : most;
        first = found[k].priority < first ? found[k].priority : first;
    }
    unsigned weight = found[i].weight;
    if (most > CONF_WEIGHT_MAX) {
        weight = weight * CONF_WEIGHT_MAX / most;
    }
    if (most > 0) {
        backend->weight = weight > 0 ? weight : 1;
    }
    backend->backup = backend->backup || found[i].priority > first;
}
