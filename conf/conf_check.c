/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_check.c - what stands at the top of the file.
 */
#include "conf/build.h"
#include "shared/shm.h"

/* ---- names and addresses ---- */

struct conf_upstream *
conf_find_upstream(struct conf_build *build, struct node *object, const char *key)
{
    struct conf *conf = build->conf;
    const char *name = node_text(object, key);
    if (!name) {
        return NULL;
    }
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        if (conf->upstreams[i].name && strcmp(conf->upstreams[i].name, name) == 0) {
            return &conf->upstreams[i];
        }
    }
    report_value(build->report, node_get(object, key), "there is no upstream %s", name);
    return NULL;
}

int
conf_resolve_one(struct conf_build *build, struct node *node, bool may_be_any, struct addr *out)
{
    struct addr_spec spec;
    struct conf_found found[CONF_FOUND_MAX];
    const char *why = "not an address";
    if (addr_parse(slice_from_str(node->text), may_be_any, &spec, &why) < 0) {
        report_value(build->report, node, "%s", why);
        return -1;
    }
    if (spec.kind != ADDR_NAME) {
        *out = spec.addr;
        return 0;
    }
    const char *name = conf_arena_copy(build->arena, spec.host);
    if (build->src->resolve(build->src, name, spec.port, found, CONF_FOUND_MAX) < 1) {
        report_value(build->report, node, "%s does not resolve", name);
        return -1;
    }
    *out = found[0].addr;
    return 0;
}

/* "unix" is the network of all peers that have no address. */
static bool
read_network(const char *text, struct cidr *net)
{
    if (strcmp(text, "unix") == 0) {
        *net = (struct cidr){.net.family = AF_UNIX};
        return true;
    }
    return cidr_parse(slice_from_str(text), net) == 0;
}

void
conf_read_networks(struct conf_build *build, const struct node *list, struct cidr **out,
                   unsigned *n)
{
    *n = 0;
    *out = conf_arena_array(build->arena, list ? list->count : 0, sizeof(**out));
    for (struct node *child = list ? list->first : NULL; child; child = child->next) {
        if (child->kind == NODE_STRING && !child->is_bad &&
            read_network(child->text, &(*out)[*n])) {
            (*n)++;
        }
    }
}

/* ---- top level ---- */

/* A client and its backend take a descriptor each. */
static void
check_max_connections(struct conf_build *build, const struct conf_machine *machine)
{
    struct conf *conf = build->conf;
    struct node *node = node_get(build->root, "max_connections");
    uint64_t most = machine->open_files * conf->workers / 2;
    most = most > UINT32_MAX ? UINT32_MAX : most;
    if (!node || node->is_bad) {
        return;
    }
    if (node->is_default) {
        conf->max_connections = (uint32_t)most;
        node_set_number(node, (int64_t)most);
    } else if (conf->max_connections > most) {
        report_value(build->report, node,
                     "expected at most %u (half of the %llu open files of each of %u workers), "
                     "got %u",
                     (unsigned)most, (unsigned long long)machine->open_files, conf->workers,
                     conf->max_connections);
    }
}

static void
check_machine(struct conf_build *build)
{
    struct conf *conf = build->conf;
    struct conf_machine machine = {0};
    if (build->src->machine) {
        build->src->machine(build->src, &machine);
    } else {
        conf_machine_read(&machine);
    }
    conf->workers_auto = conf->workers == 0;
    if (conf->workers_auto) {
        conf->workers = machine.processors < SHM_WORKERS ? machine.processors : SHM_WORKERS;
        conf->workers += conf->workers == 0;
    }
    check_max_connections(build, &machine);
}

static void
check_metrics(struct conf_build *build)
{
    struct conf *conf = build->conf;
    struct node *metrics = node_get(build->root, "metrics");
    if (!metrics || metrics->kind != NODE_OBJECT) {
        return;
    }
    struct node *address = node_get(metrics, "address");
    struct node *allow = node_get(metrics, "allow");
    conf->has_metrics = true;
    conf->metrics_given = address && !address->is_default;
    if (node_text(metrics, "address")) {
        conf_resolve_one(build, address, true, &conf->metrics);
    }
    conf_read_networks(build, allow, &conf->metrics_allow, &conf->nmetrics_allow);
}

static void
check_resolvers(struct conf_build *build)
{
    struct conf *conf = build->conf;
    const struct node *list = node_get(build->root, "resolvers");
    struct addr_spec spec;
    const char *why;
    conf->resolvers =
        conf_arena_array(build->arena, list ? list->count : 0, sizeof(*conf->resolvers));
    for (struct node *child = list ? list->first : NULL; child; child = child->next) {
        if (child->kind != NODE_STRING || child->is_bad ||
            addr_parse(slice_from_str(child->text), false, &spec, &why) < 0) {
            continue; /* reported already */
        }
        if (spec.kind != ADDR_IP) {
            report_value(build->report, child,
                         "expected the IP address and port of a name server, got \"%s\"",
                         child->text);
            continue;
        }
        conf->resolvers[conf->nresolvers++] = spec.addr;
    }
}

static void
check_account(struct conf_build *build, struct node *object, const char *key, bool is_group)
{
    const char *name = node_text(object, key);
    if (name && build->src->has_account && !build->src->has_account(build->src, name, is_group)) {
        report_value(build->report, node_get(object, key), "there is no %s %s",
                     is_group ? "group" : "user", name);
    }
}

void
conf_check_top(struct conf_build *build)
{
    struct node *control = node_get(build->root, "control_socket");
    const struct node *path = node_get(control, "path");
    check_machine(build);
    check_metrics(build);
    check_resolvers(build);
    check_account(build, build->root, "user", false);
    check_account(build, build->root, "group", true);
    check_account(build, control, "group", true);
    build->conf->control.given = path && !path->is_default;
}
