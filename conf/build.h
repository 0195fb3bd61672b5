/* SPDX-License-Identifier: Apache-2.0
 *
 * build.h - what the parts of conf_load() hand to each other. Nobody else includes it.
 *
 * Order: scan, expand, conf_include, conf_arrange (the short form becomes the long one),
 * options_read, then the checks below, which give names, addresses and files their meaning. Each
 * goes on after an error, so that all of a file's errors are told at once, and passes by what was
 * found bad before.
 */
#ifndef CONF_BUILD_H
#define CONF_BUILD_H

#include <openssl/evp.h>

#include "conf/options.h"

struct conf_build {
    struct conf *conf;
    struct conf_arena *arena;
    struct report *report;
    struct conf_source *src;
    const char *name; /* of the file, as messages write it */
    const char *base; /* its folder, empty for the root: a '/' goes behind */
    struct option_reader reader;
    struct node *root;
    const struct node *include; /* NULL: nothing is included */
    EVP_MD_CTX *digest;         /* of files, and of the effective configuration */
    unsigned nbackends, npools; /* of all upstreams */
};

/* include.c: merge what the file includes into the tree. false: not all could be read, and what is
 * missing may be what the rest needs. */
bool
conf_include(struct conf_build *build);

/* conf_short.c */
void
conf_arrange(struct conf_build *build);

/* conf_upstream.c: backends, pools, schedules, health. */
void
conf_check_upstreams(struct conf_build *build);
/* conf_page.c */
void
conf_check_pages(struct conf_build *build, struct conf_listener *listener, struct node *node);
/* conf_policy.c: what the words of retry.on, a member of object, mean. */
void
conf_read_retry_on(struct conf_retry *retry, struct node *object);
/* The policy of a route (its node) to an upstream. After the upstreams. */
const struct conf_policy *
conf_route_policy(struct conf_build *build, struct conf_upstream *up, struct node *route);
/* What a route's retry and timeouts may not have; once for each route. */
void
conf_check_route_policy(struct conf_build *build, struct node *route);

/* conf_listener.c: addresses, upstreams, routers. After routes. */
void
conf_check_listeners(struct conf_build *build);
/* conf_tls.c */
void
conf_check_tls(struct conf_build *build, struct conf_listener *listener, struct node *node);
/* Read the file that a member of object names. Empty when there is none or it was reported.
 * is_public: it holds no secret, and the monitor has it too. */
struct slice
conf_read_file(struct conf_build *build, struct node *object, const char *key, bool is_public);
int
conf_source_read_public(struct conf_source *src, const char *path, struct slice *out, char *why,
                        size_t why_size);
/* conf_upstream_tls.c. After the backends. */
void
conf_check_upstream_tls(struct conf_build *build, struct conf_upstream *up, struct node *node);
/* conf_check.c: what stands at the top. */
void
conf_check_top(struct conf_build *build);
/* conf_route.c: conditions and actions. After upstreams. */
void
conf_check_routes(struct conf_build *build);

/* conf_limit.c: rate limits of listeners and routes. After both. */
void
conf_check_limits(struct conf_build *build);

/* The networks in a list that was read; errors have been told. */
void
conf_read_networks(struct conf_build *build, const struct node *list, struct cidr **out,
                   unsigned *n);

/* conf_name.c: the addresses of a name, sorted, no two alike; found has room for CONF_FOUND_MAX.
 * How many. */
unsigned
conf_name_resolve(struct conf_build *build, const struct addr_spec *spec, struct conf_found *found);
/* What its SRV record, found[i], says of a backend. */
void
conf_name_weigh(const struct conf_found *found, unsigned n, unsigned i,
                struct conf_backend *backend);

/* conf.c: ${NAME} in the strings of a tree. */
void
conf_expand(struct conf_build *build, struct node *node);
/* conf.c: a variable of the environment; NULL: not set. */
const char *
conf_env(struct conf_build *build, const char *name);

/* The upstream that a member of object names, reported when there is none. NULL: none, or not
 * given. */
struct conf_upstream *
conf_find_upstream(struct conf_build *build, struct node *object, const char *key);
/* The first address of a text that is well formed, names resolved. 0, or -1 reported at node. */
int
conf_resolve_one(struct conf_build *build, struct node *node, bool may_be_any, struct addr *out);

#endif
