/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_limit.c - rate limits of listeners and routes.
 */
#include "conf/build.h"
#include "shared/shm.h"

static void
check_burst(struct conf_build *build, struct conf_rate_limit *limit, struct node *node)
{
    struct rate *rate = &limit->rate;
    if (rate->burst == 0) {
        rate->burst = rate->interval_us < 1000000 ? 1000000 / rate->interval_us : 1;
        struct node *made = node_new_number(build->arena, "burst", rate->burst);
        made->is_default = true;
        node_append(node, made);
    }
    if ((uint64_t)rate->burst * rate->interval_us > RATE_US_MAX) {
        report_value(build->report, node_get(node, "burst"),
                     "a burst of %u would take more than three days to come back at this rate",
                     rate->burst);
    }
}

static bool
is_alike(const struct conf_rate_limit *a, const struct conf_rate_limit *b)
{
    return a->rate.interval_us == b->rate.interval_us && a->rate.burst == b->rate.burst &&
           strcmp(a->key, b->key) == 0 && a->ipv6_prefix == b->ipv6_prefix;
}

/* Limits of one name count together, so they must mean the same. */
static void
check_name(struct conf_build *build, const struct conf_rate_limit *limit, struct node *node)
{
    for (unsigned i = 0; i < build->conf->nrate_limits; i++) {
        const struct conf_rate_limit *other = build->conf->rate_limits[i];
        if (strcmp(other->name, limit->name) == 0 && !is_alike(other, limit)) {
            report_value(build->report, node_get(node, "name"),
                         "there is another rate limit %s, with another rate, burst or key",
                         limit->name);
            return;
        }
    }
}

static void
check_limit(struct conf_build *build, struct conf_rate_limit *limit, struct node *node)
{
    struct conf *conf = build->conf;
    static const char header[] = "header:";
    if (!limit || !node || node->is_bad || !limit->name || limit->rate.interval_us == 0 ||
        !limit->key) {
        return;
    }
    if (strncmp(limit->key, header, sizeof(header) - 1) == 0) {
        limit->header = slice_from_str(limit->key + sizeof(header) - 1);
    }
    conf_read_networks(build, node_get(node, "exempt"), &limit->exempt, &limit->nexempt);
    check_burst(build, limit, node);
    check_name(build, limit, node);
    if (conf->nrate_limits == SHM_LIMITS) {
        report_value(build->report, node, "there may be %d rate limits", SHM_LIMITS);
        return;
    }
    conf->rate_limits[conf->nrate_limits++] = limit;
}

void
conf_check_limits(struct conf_build *build)
{
    struct conf *conf = build->conf;
    struct node *listeners = node_get(build->root, "listeners");
    struct node *routes = node_get(build->root, "routes");
    struct node *child = listeners ? listeners->first : NULL;
    conf->rate_limits =
        conf_arena_array(build->arena, conf->nlisteners + conf->nroutes, sizeof(void *));
    for (unsigned i = 0; i < conf->nlisteners && child; i++, child = child->next) {
        struct conf_listener *listener = &conf->listeners[i];
        check_limit(build, listener->rate_limit, node_get(child, "rate_limit"));
        if (listener->rate_limit && listener->mode == CONF_TCP) {
            report_key(build->report, node_get(child, "rate_limit"), "only in http mode");
        }
    }
    child = routes ? routes->first : NULL;
    for (unsigned i = 0; i < conf->nroutes && child; i++, child = child->next) {
        check_limit(build, conf->routes[i].rate_limit, node_get(child, "rate_limit"));
    }
}
