/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_short.c - turn the short form, in which the first Akash was configured, into the long one.
 *
 * Nodes move; each keeps its place and its path in the file. Values are not judged here but where
 * they arrive, except for host and listen, which become one address.
 */
#include "conf/build.h"

/* Move a key of from, if it is there, to another object under another name. */
static struct node *
move(struct node *from, const char *key, struct node *to, const char *name)
{
    struct node *node = node_get(from, key);
    if (node) {
        node_remove(from, node);
        node->name = name;
        node_append(to, node);
    }
    return node;
}

static struct node *
make_object(struct conf_build *build, const char *name)
{
    struct node *made = node_new(build->arena, NODE_OBJECT, name);
    made->at = build->root->at;
    return made;
}

static struct node *
add_text(struct conf_build *build, struct node *object, const char *name, const char *text)
{
    struct node *node = node_new_text(build->arena, name, text);
    node_stand_at(node, object);
    node_append(object, node);
    return node;
}

static void
add_number(struct conf_build *build, struct node *object, const char *name, int64_t number)
{
    if (!node_get(object, name)) {
        struct node *node = node_new_number(build->arena, name, number);
        node_stand_at(node, object);
        node_append(object, node);
    }
}

/* ---- listener ---- */

static struct node *
take_or_default(struct conf_build *build, const char *key, struct option_value *value)
{
    const struct option *row = option_find(OWN_SHORT, key);
    struct node *node = node_get(build->root, key);
    if (!node) {
        node = option_default(&build->reader, row, build->root);
    } else {
        node_remove(build->root, node);
    }
    option_read_one(&build->reader, row, node, value);
    return node;
}

static void
arrange_address(struct conf_build *build, struct node *listener)
{
    struct option_value host, port;
    struct node *host_node = take_or_default(build, "host", &host);
    struct node *port_node = take_or_default(build, "listen", &port);
    struct node *address = add_text(build, listener, "address", "");
    node_stand_at(address, host_node->is_default ? port_node : host_node);
    if (host_node->is_bad || port_node->is_bad) {
        address->is_bad = true;
        return;
    }
    bool is_bare_ipv6 = strchr(host.text, ':') && host.text[0] != '[';
    address->text = conf_arena_format(build->arena, is_bare_ipv6 ? "[%s]:%u" : "%s:%u", host.text,
                                      (unsigned)port.number);
}

static void
arrange_tls(struct conf_build *build, struct node *listener)
{
    struct node *root = build->root;
    struct node *cert = node_get(root, "tls_cert_file"), *key = node_get(root, "tls_key_file");
    struct node *tls = move(root, "tls", listener, "tls");
    struct node *one = cert ? cert : key;
    if (!one) {
        return;
    }
    if (tls) {
        report_key(build->report, one, "excluded by \"tls\"");
    } else if (!cert || !key) {
        report_key(build->report, one, "\"tls_cert_file\" and \"tls_key_file\" go together");
    }
    struct node *pair = make_object(build, NULL);
    move(root, "tls_cert_file", pair, "cert");
    move(root, "tls_key_file", pair, "key");
    if (one->is_bad) {
        return;
    }
    struct node *list = node_new(build->arena, NODE_LIST, "certificates");
    tls = make_object(build, "tls");
    node_stand_at(tls, cert);
    node_stand_at(list, cert);
    node_append(list, pair);
    node_append(tls, list);
    node_append(listener, tls);
}

/* ---- upstream ---- */

static void
arrange_backends(struct conf_build *build, struct node *upstream)
{
    struct node *root = build->root;
    struct node *first = node_get(root, "Backends"), *other = node_get(root, "backends");
    if (first && other) {
        report_key(build->report, other, "the same as \"Backends\" on line %u", first->key_at.line);
        node_remove(root, other);
    }
    move(root, first ? "Backends" : "backends", upstream, "backends");
    if (!first && !other) {
        report_missing(build->report, root, "Backends", "missing");
        add_text(build, upstream, "backends", "")->is_bad = true;
    }
}

static const struct {
    const char *key, *name;
} health_keys[] = {
    {"timeout_seconds", "timeout"},
    {"health_check_path", "path"},
    {"health_check_port", "port"},
    {"health_check_freq", "interval"},
};
#define HEALTH_KEYS (sizeof(health_keys) / sizeof(health_keys[0]))

static void
report_excluded_health_keys(struct conf_build *build)
{
    for (size_t i = 0; i < HEALTH_KEYS; i++) {
        struct node *node = node_get(build->root, health_keys[i].key);
        if (node) {
            report_key(build->report, node, "excluded by \"health_check\"");
            node_remove(build->root, node);
        }
    }
}

static void
add_short_default(struct conf_build *build, struct node *health, const char *key, const char *name)
{
    if (!node_get(health, name)) {
        const struct option *row = option_find(OWN_SHORT, key);
        struct node *node = option_default(&build->reader, row, build->root);
        node->name = name;
        node_append(health, node);
    }
}

static void
arrange_health(struct conf_build *build, struct node *upstream)
{
    struct node *health = node_get(build->root, "health_check");
    if (health) {
        report_excluded_health_keys(build);
        move(build->root, "health_check", upstream, "health_check");
    } else {
        health = make_object(build, "health_check");
        for (size_t i = 0; i < HEALTH_KEYS; i++) {
            move(build->root, health_keys[i].key, health, health_keys[i].name);
        }
        add_text(build, health, "type", node_get(health, "path") ? "http" : "tcp");
        add_short_default(build, health, "timeout_seconds", "timeout");
        add_short_default(build, health, "health_check_freq", "interval");
        node_append(upstream, health);
    }
    if (health->kind == NODE_OBJECT) {
        add_number(build, health, "rise", 1);
        add_number(build, health, "fall", 1);
    }
}

/* ---- both ---- */

static void
split_timeout(struct conf_build *build, struct node *child, struct node *client,
              struct node *server)
{
    bool is_client = option_find(OWN_LISTENER_TIMEOUTS, child->name);
    bool is_server = option_find(OWN_UPSTREAM_TIMEOUTS, child->name);
    if (is_client) {
        node_append(client, node_copy(build->arena, child));
    }
    if (is_server) {
        node_append(server, node_copy(build->arena, child));
    }
    if (!is_client && !is_server) {
        const char *meant = option_suggest(OWN_LISTENER_TIMEOUTS, child->name, false);
        meant = meant ? meant : option_suggest(OWN_UPSTREAM_TIMEOUTS, child->name, false);
        report_key(build->report, child,
                   meant ? "unknown key; did you mean \"%s\"?" : "unknown key", meant);
    }
}

static void
arrange_timeouts(struct conf_build *build, struct node *listener, struct node *upstream)
{
    struct node *timeouts = move(build->root, "timeouts", listener, "timeouts");
    if (!timeouts || timeouts->kind != NODE_OBJECT) {
        return;
    }
    struct node *server = make_object(build, "timeouts");
    struct node *child = timeouts->first;
    timeouts->first = timeouts->last = NULL;
    timeouts->count = 0;
    while (child) {
        struct node *next = child->next;
        split_timeout(build, child, timeouts, server);
        child = next;
    }
    node_append(upstream, server);
}

static const struct option *
find_short(const char *key)
{
    if (strcmp(key, "backends") == 0) {
        return option_find(OWN_SHORT, "Backends");
    }
    for (const struct option *row = option_table; row < option_table + option_table_len; row++) {
        if (option_is_short(row) && strcmp(row->key, key) == 0) {
            return row;
        }
    }
    return NULL;
}

static void
report_unknown(struct conf_build *build)
{
    struct node *next;
    for (struct node *child = build->root->first; child; child = next) {
        next = child->next;
        if (find_short(child->name)) {
            continue;
        }
        const char *meant = option_suggest(OWN_TOP, child->name, true);
        report_key(build->report, child,
                   meant ? "unknown key; did you mean \"%s\"?" : "unknown key", meant);
        node_remove(build->root, child);
    }
}

/* The keys of an object's owner that may stand at the top of the short form. */
static void
move_rows(struct conf_build *build, enum option_owner owner, struct node *to)
{
    for (const struct option *row = option_table; row < option_table + option_table_len; row++) {
        if (row->owner == owner && row->flags & OPT_SHORT) {
            move(build->root, row->key, to, row->key);
        }
    }
}

static void
arrange_short(struct conf_build *build)
{
    struct node *root = build->root;
    report_unknown(build);
    struct node *listener = make_object(build, NULL), *upstream = make_object(build, "default");
    add_text(build, listener, "name", "default");
    add_text(build, listener, "upstream", "default");
    arrange_address(build, listener);
    arrange_tls(build, listener);
    arrange_timeouts(build, listener, upstream);
    move_rows(build, OWN_LISTENER, listener);
    arrange_backends(build, upstream);
    arrange_health(build, upstream);
    move_rows(build, OWN_UPSTREAM, upstream);

    struct node *listeners = node_new(build->arena, NODE_LIST, "listeners");
    struct node *upstreams = make_object(build, "upstreams");
    node_append(listeners, listener);
    node_append(upstreams, upstream);
    node_append(root, listeners);
    node_append(root, upstreams);
}

/* ---- which form it is ---- */

static const struct node *
find_long_key(const struct conf_build *build)
{
    static const char *const keys[] = {"listeners", "upstreams", "routes"};
    if (build->include) {
        return build->include;
    }
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const struct node *node = node_get(build->root, keys[i]);
        if (node) {
            return node;
        }
    }
    return NULL;
}

static void
report_mixed_keys(struct conf_build *build, const struct node *long_key)
{
    struct node *next;
    for (struct node *child = build->root->first; child; child = next) {
        next = child->next;
        const struct option *row = find_short(child->name);
        if (row && row->owner != OWN_TOP) {
            report_key(build->report, child, "a key of the short form cannot stand beside \"%s\"",
                       long_key->name);
            node_remove(build->root, child);
        }
    }
}

void
conf_arrange(struct conf_build *build)
{
    const struct node *long_key = find_long_key(build);
    if (long_key) {
        report_mixed_keys(build, long_key);
    } else {
        arrange_short(build);
    }
}
