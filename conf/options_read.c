/* SPDX-License-Identifier: Apache-2.0
 *
 * options_read.c - read the tree by the option table: unknown keys, defaults, values, storing.
 */
#include "conf/options.h"
#include "conf/scan.h"

#include <assert.h>
#include <json-c/json.h>

void
option_reader_init(struct option_reader *reader, struct conf_arena *arena, struct report *report,
                   const char *folder)
{
    *reader = (struct option_reader){
        .arena = arena,
        .report = report,
        .folder = folder,
        .defaults = conf_arena_array(arena, option_table_len, sizeof(struct node *)),
    };
}

/* ---- defaults ---- */

static struct node *
make_default(struct option_reader *reader, const struct option *row)
{
    struct report *report = report_new("default");
    struct conf_errors none;
    struct node *node = scan_text(reader->arena, slice_from_str(row->fallback), report);
    report_finish(report, &none);
    conf_errors_fini(&none);
    assert(node);
    node->is_default = true;
    for (struct node *child = node->first; child; child = child->next) {
        child->is_default = true;
    }
    return node;
}

struct node *
option_default(struct option_reader *reader, const struct option *row, struct node *object)
{
    struct node **made = &reader->defaults[row - option_table];
    if (!*made) {
        *made = make_default(reader, row);
    }
    struct node *node = node_clone(reader->arena, *made);
    node->name = node->key = row->key;
    node->home = object;
    node->at = object->at;
    return node;
}

/* ---- storing ---- */

static void
store(void *base, const struct option *row, const struct option_value *value)
{
    char *to = (char *)base + row->offset;
    if (row->width == 0) {
        return;
    }
    if (option_is_text(row->type)) {
        memcpy(to, &value->text, sizeof(value->text));
        return;
    }
    uint8_t byte = (uint8_t)value->number;
    uint16_t half = (uint16_t)value->number;
    uint32_t word = (uint32_t)value->number;
    switch (row->width) {
    case 1: memcpy(to, &byte, 1); break;
    case 2: memcpy(to, &half, 2); break;
    case 4: memcpy(to, &word, 4); break;
    default: assert(row->width == 8); memcpy(to, &value->number, 8);
    }
}

static void
complain(struct option_reader *reader, const struct option *row, struct node *node, const char *why)
{
    char expected[256], got[128];
    bool is_element = row->flags & OPT_LIST && node->kind != NODE_LIST && !node->name;
    struct option one = *row;
    one.flags &= is_element ? ~(unsigned)(OPT_LIST | OPT_ONE) : ~0u;
    report_got(node, got, sizeof(got));
    if (row->flags & OPT_SECRET) { /* messages go to logs */
        report_value(reader->report, node, "expected a string of %llu to %llu bytes",
                     (unsigned long long)row->min, (unsigned long long)row->max);
    } else if (why) {
        report_value(reader->report, node, "%s: %s", got, why);
    } else {
        option_expected(&one, expected, sizeof(expected));
        report_value(reader->report, node, "expected %s, got %s", expected, got);
    }
}

bool
option_read_one(struct option_reader *reader, const struct option *row, struct node *node,
                struct option_value *value)
{
    const char *why = NULL;
    *value = (struct option_value){0};
    if (node->is_bad) {
        return false;
    }
    if (!option_read_value(reader, row, node, value, &why)) {
        complain(reader, row, node, why);
        return false;
    }
    return true;
}

/* ---- objects, lists, maps ---- */

static void *
target_of(struct option_reader *reader, const struct option *row, void *base)
{
    char *to = (char *)base + row->offset;
    if (row->flags & OPT_PARTIAL) {
        return conf_arena_alloc(reader->arena, option_objects[row->object].size);
    }
    if (!(row->flags & OPT_POINTER)) {
        return row->width ? (void *)to : base;
    }
    void *made = conf_arena_alloc(reader->arena, option_objects[row->object].size);
    memcpy(to, &made, sizeof(made));
    return made;
}

/* Room for the elements of a list or map of objects, hung into base. */
static char *
make_array(struct option_reader *reader, const struct option *row, const struct node *node,
           void *base)
{
    unsigned n = node->count;
    char *array = conf_arena_array(reader->arena, n, option_objects[row->object].size);
    if (row->width) {
        memcpy((char *)base + row->offset, &array, sizeof(array));
        memcpy((char *)base + row->count_offset, &n, sizeof(n));
    }
    return array;
}

/* "/path" for {"path": "/path"}; "off" for false. */
static void
expand_shorthand(struct option_reader *reader, const struct option *row, struct node *node)
{
    if (node->kind != NODE_STRING) {
        return;
    }
    if (row->flags & OPT_FALSE && strcmp(node->text, "off") == 0) {
        node->kind = NODE_BOOL;
        node->yes = false;
    } else if (row->shorthand) {
        struct node *element = node_copy(reader->arena, node);
        element->name = row->shorthand;
        node->kind = NODE_OBJECT;
        node->first = node->last = NULL;
        node->count = 0;
        node_append(node, element);
    }
}

static void
read_elements(struct option_reader *reader, const struct option *row, struct node *node, void *base)
{
    char *array = make_array(reader, row, node, base);
    size_t i = 0;
    for (struct node *child = node->first; child; child = child->next, i++) {
        expand_shorthand(reader, row, child);
        options_read(reader, row->object, child, array + i * option_objects[row->object].size);
    }
}

static void
read_strings(struct option_reader *reader, const struct option *row, struct node *node, void *base)
{
    const char **texts = conf_arena_array(reader->arena, (size_t)node->count + 1, sizeof(*texts));
    unsigned n = 0;
    for (struct node *child = node->first; child; child = child->next) {
        struct option_value value;
        if (option_read_one(reader, row, child, &value)) {
            texts[n++] = value.text;
        }
    }
    if (row->width) {
        memcpy((char *)base + row->offset, &texts, sizeof(texts));
    }
}

/* The members of a map of texts. */
static void
read_pairs(struct option_reader *reader, const struct option *row, struct node *node, void *base)
{
    struct conf_pair *pairs = conf_arena_array(reader->arena, node->count, sizeof(*pairs));
    struct option one = *row;
    unsigned n = 0;
    one.flags = 0;
    for (struct node *child = node->first; child; child = child->next) {
        struct option_value value;
        if (option_read_one(reader, &one, child, &value)) {
            pairs[n++] = (struct conf_pair){child->name, value.text};
        }
    }
    memcpy((char *)base + row->offset, &pairs, sizeof(pairs));
    memcpy((char *)base + row->count_offset, &n, sizeof(n));
}

/* One value in place of a list of one. */
static void
wrap_in_list(struct option_reader *reader, struct node *node)
{
    struct node *element = node_copy(reader->arena, node);
    element->name = NULL;
    node->kind = NODE_LIST;
    node->first = node->last = NULL;
    node->count = 0;
    node_append(node, element);
}

static void
read_list(struct option_reader *reader, const struct option *row, struct node *node, void *base)
{
    if (row->flags & OPT_ONE && node->kind == NODE_STRING) {
        wrap_in_list(reader, node);
    }
    if (node->kind != NODE_LIST) {
        complain(reader, row, node, NULL);
    } else if (row->flags & OPT_NONEMPTY && node->count == 0) {
        report_value(reader->report, node, "expected at least one element");
    } else if (row->type == TYPE_OBJECT) {
        read_elements(reader, row, node, base);
    } else {
        read_strings(reader, row, node, base);
    }
}

/* Whether its members may be called so at all is for those to say who know what they are. */
static void
check_any_key(struct option_reader *reader, struct node *child)
{
    size_t len = strlen(child->name);
    for (const char *at = child->name; *at; at++) {
        if (*at <= ' ' || *at >= 0x7f) {
            len = 0;
        }
    }
    if (len == 0 || len > 256) {
        report_key(reader->report, child, "expected a name of 1 to 256 visible ASCII characters");
    }
}

static void
check_map_key(struct option_reader *reader, const struct option *row, struct node *child)
{
    size_t len = strlen(child->name);
    if (row->flags & OPT_ANY_KEY) {
        check_any_key(reader, child);
        return;
    }
    size_t good = strspn(child->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                      "0123456789._-");
    if (len == 0 || len > 64 || good != len) {
        report_key(reader->report, child,
                   "expected a name of 1 to 64 letters, digits, '.', '_' and '-'");
    }
}

static void
read_map(struct option_reader *reader, const struct option *row, struct node *node, void *base)
{
    if (node->kind != NODE_OBJECT) {
        complain(reader, row, node, NULL);
        return;
    }
    if (row->flags & OPT_NONEMPTY && node->count == 0) {
        report_value(reader->report, node, "expected at least one member");
    }
    for (struct node *child = node->first; child; child = child->next) {
        check_map_key(reader, row, child);
    }
    if (row->type == TYPE_OBJECT) {
        read_elements(reader, row, node, base);
    } else {
        read_pairs(reader, row, node, base);
    }
}

static void
read_object(struct option_reader *reader, const struct option *row, struct node *node, void *base)
{
    expand_shorthand(reader, row, node);
    if (row->flags & OPT_FALSE && node->kind == NODE_BOOL && !node->yes) {
        return;
    }
    if (node->kind != NODE_OBJECT) {
        complain(reader, row, node, NULL);
        return;
    }
    bool was_partial = reader->is_partial;
    reader->is_partial |= (row->flags & OPT_PARTIAL) != 0;
    options_read(reader, row->object, node, target_of(reader, row, base));
    reader->is_partial = was_partial;
}

void
option_read_row(struct option_reader *reader, const struct option *row, struct node *node,
                void *base)
{
    struct option_value value;
    if (node->is_bad) {
        return;
    }
    if (row->flags & OPT_MAP) {
        read_map(reader, row, node, base);
    } else if (row->flags & OPT_LIST) {
        read_list(reader, row, node, base);
    } else if (row->type == TYPE_OBJECT) {
        read_object(reader, row, node, base);
    } else if (option_read_one(reader, row, node, &value)) {
        node->is_secret = (row->flags & OPT_SECRET) != 0;
        reader->has_secret |= node->is_secret;
        store(base, row, &value);
    }
}

/* ---- defaults that depend on what else is given ---- */

static bool
is_text(const struct node *object, const char *key, const char *text)
{
    const char *have = node_text(object, key);
    return have && strcmp(have, text) == 0;
}

/* Has a health check of that type such a key? */
static bool
is_of_check(const struct option *row, const struct node *object)
{
    return !(row->flags & OPT_HTTP) || is_text(object, "type", "http") ||
           (row->flags & OPT_GRPC && is_text(object, "type", "grpc"));
}

static void
report_key_of_check(struct option_reader *reader, const struct option *row, struct node *child)
{
    report_key(reader->report, child,
               row->flags & OPT_GRPC ? "only a check of type \"http\" or \"grpc\" has this"
                                     : "only a check of type \"http\" has this");
}

/* A health check that says what HTTP is to look like is one of type http. */
static void
complete_health(struct option_reader *reader, struct node *object)
{
    struct node *type = node_get(object, "type");
    bool is_known = is_text(object, "type", "tcp") || is_text(object, "type", "grpc");
    for (struct node *child = object->first; child; child = child->next) {
        const struct option *row = option_find(OWN_HEALTH, child->name);
        if (!row || !(row->flags & OPT_HTTP)) {
            continue;
        }
        if (is_known && !is_of_check(row, object)) {
            report_key_of_check(reader, row, child);
        } else if (!type) {
            type = node_new_text(reader->arena, "type", "http");
            node_stand_at(type, object);
            node_append(object, type);
            return;
        }
    }
}

static bool
is_false(struct node *object, const char *key)
{
    const struct node *value = node_get(object, key);
    return value && value->kind == NODE_BOOL && !value->yes;
}

/* What is offered unless the file says so: in tcp mode nothing, without http2 only HTTP/1.1. */
static void
complete_listener(struct option_reader *reader, struct node *object)
{
    struct node *tls = node_get(object, "tls");
    bool is_tcp = is_text(object, "mode", "tcp");
    if (!tls || tls->kind != NODE_OBJECT || node_get(tls, "alpn") ||
        (!is_tcp && !is_false(object, "http2"))) {
        return;
    }
    struct node *alpn = node_new(reader->arena, NODE_LIST, "alpn");
    node_stand_at(alpn, tls);
    node_append(tls, alpn);
    if (!is_tcp) {
        struct node *only = node_new_text(reader->arena, NULL, "http/1.1");
        node_stand_at(only, tls);
        node_append(alpn, only);
    }
}

static bool
has_default(const struct option *row, const struct node *object)
{
    return row->fallback && is_of_check(row, object);
}

/* ---- the walk ---- */

static void
report_unknown_keys(struct option_reader *reader, enum option_owner owner, struct node *object)
{
    for (struct node *child = object->first; child; child = child->next) {
        if (option_find(owner, child->name)) {
            continue;
        }
        const char *meant = option_suggest(owner, child->name, false);
        report_key(reader->report, child,
                   meant ? "unknown key; did you mean \"%s\"?" : "unknown key", meant);
    }
}

void
options_read(struct option_reader *reader, enum option_owner owner, struct node *object, void *base)
{
    if (object->kind != NODE_OBJECT) {
        char got[128];
        report_got(object, got, sizeof(got));
        report_value(reader->report, object, "expected an object, got %s", got);
        return;
    }
    report_unknown_keys(reader, owner, object);
    if (owner == OWN_HEALTH) {
        complete_health(reader, object);
    } else if (owner == OWN_LISTENER) {
        complete_listener(reader, object);
    }
    struct node given = *object;
    object->first = object->last = NULL;
    object->count = 0;
    for (const struct option *row = option_table; row < option_table + option_table_len; row++) {
        if (row->owner != owner) {
            continue;
        }
        struct node *node = node_get(&given, row->key);
        if (!node && !reader->is_partial && has_default(row, &given)) {
            node = option_default(reader, row, object);
        }
        if (node) {
            /* The rest of what was given stays reachable: a copy goes into the new order. */
            node = node_copy(reader->arena, node);
            option_read_row(reader, row, node, base);
            node_append(object, node);
        } else if (row->flags & OPT_REQUIRED) {
            report_missing(reader->report, object, row->key, "missing");
        }
    }
}
