/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_policy.c - retries and timeouts: the words of retry.on, and what a route changes of its
 * upstream's.
 *
 * A route says only what is different. For each upstream that it leads to, the upstream's object
 * and the route's are merged, and read by the option table like any other: what a request follows
 * is one struct, made at load.
 */
#include "conf/build.h"

void
conf_read_retry_on(struct conf_retry *retry, struct node *object)
{
    static const char *const words[] = {"connect", "reset", "timeout", "502", "503", "504"};
    struct node *on = retry ? node_get(object, "on") : NULL;
    for (struct node *child = on ? on->first : NULL; child; child = child->next) {
        for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
            if (child->kind == NODE_STRING && strcmp(child->text, words[i]) == 0) {
                retry->on |= 1u << i;
            }
        }
    }
}

static bool
is_well(const struct node *node)
{
    bool all = !node->is_bad;
    for (const struct node *child = node->first; all && child; child = child->next) {
        all = is_well(child);
    }
    return all;
}

/* The upstream's member key, with what the route has of it. */
static struct node *
merge(struct conf_build *build, const struct conf_upstream *up, const char *key,
      const struct node *change)
{
    struct node *own = node_get(node_get(node_get(build->root, "upstreams"), up->name), key);
    bool is_object = own && own->kind == NODE_OBJECT && is_well(own); /* else off, or reported */
    return is_object ? node_merge(build->arena, own, change) : node_clone(build->arena, change);
}

static void
read_retry(struct conf_build *build, const struct conf_upstream *up, struct node *change,
           struct conf_policy *policy)
{
    if (change->kind == NODE_BOOL) {
        policy->retry = NULL;
        return;
    }
    struct node *merged = merge(build, up, "retry", change);
    policy->retry = conf_arena_alloc(build->arena, sizeof(*policy->retry));
    options_read(&build->reader, OWN_RETRY, merged, policy->retry);
    conf_read_retry_on(policy->retry, merged);
}

/* Bad ones have been reported, and are not to be so once more for each upstream. */
static bool
is_given(const struct node *node)
{
    return node && is_well(node);
}

const struct conf_policy *
conf_route_policy(struct conf_build *build, struct conf_upstream *up, struct node *route)
{
    struct node *retry = node_get(route, "retry"), *timeouts = node_get(route, "timeouts");
    if (!up || (!is_given(retry) && !is_given(timeouts))) {
        return up ? &up->policy : NULL;
    }
    struct conf_policy *policy = conf_arena_alloc(build->arena, sizeof(*policy));
    *policy = up->policy;
    if (is_given(retry)) {
        read_retry(build, up, retry, policy);
    }
    if (is_given(timeouts)) {
        options_read(&build->reader, OWN_UPSTREAM_TIMEOUTS, merge(build, up, "timeouts", timeouts),
                     &policy->timeouts);
    }
    return policy;
}

void
conf_check_route_policy(struct conf_build *build, struct node *route)
{
    static const char *const keys[] = {"retry", "timeouts"};
    struct node *budget = node_get(node_get(route, "retry"), "budget");
    if (budget) {
        report_key(build->report, budget, "of the upstream, all of whose requests share it");
    }
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct node *given = node_get(route, keys[i]);
        if (given && (node_get(route, "redirect") || node_get(route, "respond"))) {
            report_key(build->report, given, "only with upstream or split");
        }
    }
}
