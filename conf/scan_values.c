/* SPDX-License-Identifier: Apache-2.0
 *
 * scan_values.c - let json-c decode the values of a tree that the scanner made.
 *
 * The two are joined by key and by index, so a disagreement can only make a value bad, never be
 * followed blindly.
 */
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>

#include "conf/scan.h"

#define WHOLE_MOST 9007199254740992.0 /* a double holds every whole number below it */

static bool
attach(struct conf_arena *arena, struct node *node, struct json_object *json);

static void
attach_members(struct conf_arena *arena, struct node *node, struct json_object *json)
{
    for (struct node *child = node->first; child; child = child->next) {
        struct json_object *value = NULL;
        if (node->kind == NODE_OBJECT) {
            json_object_object_get_ex(json, child->key, &value);
        } else if (child->index < json_object_array_length(json)) {
            value = json_object_array_get_idx(json, child->index);
        }
        if (!attach(arena, child, value)) {
            child->kind = NODE_NULL; /* of a key that stands twice json-c keeps the other value */
            child->first = child->last = NULL;
            child->count = 0;
            child->is_bad = true;
        }
    }
}

static void
attach_number(struct node *node, struct json_object *json)
{
    if (node->kind == NODE_NUMBER) {
        node->number = json_object_get_int64(json);
        if (node->number == INT64_MAX || node->number == INT64_MIN) {
            node->kind = NODE_REAL;
            node->real = node->number > 0 ? HUGE_VAL : -HUGE_VAL;
        }
    } else {
        node->real = json_object_get_double(json);
        if (node->real == floor(node->real) && fabs(node->real) < WHOLE_MOST) { /* 1e3 */
            node_set_number(node, (int64_t)node->real);
        }
    }
}

/* false: json-c has another kind of value there. */
static bool
attach(struct conf_arena *arena, struct node *node, struct json_object *json)
{
    static const enum json_type kinds[] = {
        [NODE_NULL] = json_type_null,     [NODE_BOOL] = json_type_boolean,
        [NODE_NUMBER] = json_type_int,    [NODE_REAL] = json_type_double,
        [NODE_STRING] = json_type_string, [NODE_LIST] = json_type_array,
        [NODE_OBJECT] = json_type_object,
    };
    if (json_object_get_type(json) != kinds[node->kind]) {
        return false;
    }
    if (node->kind >= NODE_LIST) {
        attach_members(arena, node, json);
    } else if (node->kind == NODE_STRING) {
        size_t len = (size_t)json_object_get_string_len(json);
        node->text = conf_arena_copy(arena, slice_of(json_object_get_string(json), len));
    } else if (node->kind == NODE_BOOL) {
        node->yes = json_object_get_boolean(json);
    } else if (node->kind != NODE_NULL) {
        attach_number(node, json);
    }
    return true;
}

const char *
scan_values(struct conf_arena *arena, struct node *root, const char *clean, size_t len)
{
    struct json_tokener *tokener = json_tokener_new_ex(SCAN_DEPTH + 2);
    if (!tokener) {
        abort();
    }
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    struct json_object *json = json_tokener_parse_ex(tokener, clean, (int)len + 1);
    enum json_tokener_error error = json_tokener_get_error(tokener);
    bool is_well = error == json_tokener_success && attach(arena, root, json);
    json_object_put(json);
    json_tokener_free(tokener);
    if (is_well) {
        return NULL;
    }
    return error == json_tokener_success ? "this is no JSON document"
                                         : json_tokener_error_desc(error);
}
