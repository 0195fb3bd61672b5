/* SPDX-License-Identifier: Apache-2.0
 *
 * node.c - the tree of the configuration: links, paths, printing.
 */
#include "conf/node.h"

#include <inttypes.h>

#define SECRET_TEXT "(not told to this process)"
#define PATH_DEPTH  40 /* deeper than the scanner lets anything be */

struct node *
node_new(struct conf_arena *arena, enum node_kind kind, const char *name)
{
    struct node *node = conf_arena_alloc(arena, sizeof(*node));
    node->kind = kind;
    node->name = name;
    return node;
}

struct node *
node_new_text(struct conf_arena *arena, const char *name, const char *text)
{
    struct node *node = node_new(arena, NODE_STRING, name);
    node->text = text;
    return node;
}

struct node *
node_new_number(struct conf_arena *arena, const char *name, int64_t number)
{
    struct node *node = node_new(arena, NODE_NUMBER, name);
    node->number = number;
    return node;
}

struct node *
node_copy(struct conf_arena *arena, const struct node *node)
{
    struct node *copy = conf_arena_alloc(arena, sizeof(*copy));
    *copy = *node;
    copy->next = NULL;
    return copy;
}

struct node *
node_clone(struct conf_arena *arena, const struct node *node)
{
    struct node *clone = node_copy(arena, node);
    clone->first = clone->last = NULL;
    clone->count = 0;
    for (const struct node *child = node->first; child; child = child->next) {
        node_append(clone, node_clone(arena, child));
    }
    return clone;
}

/* Member child of a merged object: over base's, which may be NULL. */
static struct node *
merge_member(struct conf_arena *arena, const struct node *base, const struct node *child)
{
    bool are_objects = base && base->kind == NODE_OBJECT && child->kind == NODE_OBJECT;
    return are_objects ? node_merge(arena, base, child) : node_clone(arena, child);
}

struct node *
node_merge(struct conf_arena *arena, const struct node *base, const struct node *over)
{
    struct node *merged = node_copy(arena, over);
    merged->first = merged->last = NULL;
    merged->count = 0;
    for (const struct node *child = base->first; child; child = child->next) {
        if (!node_get(over, child->name)) {
            node_append(merged, node_clone(arena, child));
        }
    }
    for (const struct node *child = over->first; child; child = child->next) {
        node_append(merged, merge_member(arena, node_get(base, child->name), child));
    }
    return merged;
}

void
node_append(struct node *parent, struct node *child)
{
    child->next = NULL;
    if (parent->last) {
        parent->last->next = child;
    } else {
        parent->first = child;
    }
    parent->last = child;
    parent->count++;
}

void
node_remove(struct node *parent, struct node *child)
{
    struct node *before = NULL;
    for (struct node *at = parent->first; at && at != child; at = at->next) {
        before = at;
    }
    if (before) {
        before->next = child->next;
    } else {
        parent->first = child->next;
    }
    if (parent->last == child) {
        parent->last = before;
    }
    child->next = NULL;
    parent->count--;
}

struct node *
node_get(const struct node *parent, const char *name)
{
    if (!parent || parent->kind != NODE_OBJECT) {
        return NULL;
    }
    for (struct node *child = parent->first; child; child = child->next) {
        if (child->name && strcmp(child->name, name) == 0) {
            return child;
        }
    }
    return NULL;
}

const char *
node_text(const struct node *parent, const char *name)
{
    const struct node *node = node_get(parent, name);
    return node && node->kind == NODE_STRING && !node->is_bad ? node->text : NULL;
}

void
node_set_text(struct node *node, const char *text)
{
    node->kind = NODE_STRING;
    node->text = text;
}

void
node_set_number(struct node *node, int64_t number)
{
    node->kind = NODE_NUMBER;
    node->number = number;
}

void
node_stand_at(struct node *made, const struct node *origin)
{
    made->key_at = origin->key_at;
    made->at = origin->at;
    made->home = origin->home;
    made->key = origin->key;
    made->index = origin->index;
}

static void
print_key(FILE *out, const char *key, bool is_first)
{
    if (!is_first) {
        putc('.', out);
    }
    for (int i = 0; key[i] && i < 64; i++) {
        unsigned char c = (unsigned char)key[i];
        if (c < 0x20 || c >= 0x7f) {
            fprintf(out, "\\x%02X", c);
        } else {
            putc(c, out);
        }
    }
}

const char *
node_path(const struct node *node, const char *key, char *buf, size_t size)
{
    const struct node *chain[PATH_DEPTH];
    int depth = 0;
    for (; node && node->home && depth < PATH_DEPTH; node = node->home) {
        chain[depth++] = node;
    }
    buf[0] = '\0';
    FILE *out = fmemopen(buf, size, "w");
    if (!out) {
        return buf;
    }
    setvbuf(out, NULL, _IOFBF, size);
    bool is_first = true;
    while (depth-- > 0) {
        if (chain[depth]->key) {
            print_key(out, chain[depth]->key, is_first);
        } else {
            fprintf(out, "[%u]", chain[depth]->index);
        }
        is_first = false;
    }
    if (key) {
        print_key(out, key, is_first);
    }
    fclose(out);
    buf[size - 1] = '\0';
    return buf;
}

/* Of a value "${" is escaped, which conf_expand() reads back; keys are not expanded. */
static void
print_string(const char *text, bool is_key, FILE *out)
{
    putc('"', out);
    for (const char *at = text; *at; at++) {
        unsigned char c = (unsigned char)*at;
        if (c == '"' || c == '\\') {
            fprintf(out, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            fprintf(out, "\\u%04x", c);
        } else if (c == '$' && at[1] == '{' && !is_key) {
            fputs("$$", out);
        } else {
            putc(c, out);
        }
    }
    putc('"', out);
}

static bool
is_flat(const struct node *node)
{
    for (const struct node *child = node->first; child; child = child->next) {
        if (child->kind >= NODE_LIST) {
            return false;
        }
    }
    return node->count < 4;
}

static void
print_level(const struct node *node, int level, bool is_public, FILE *out);

static void
print_members(const struct node *node, int level, bool is_flat_list, bool is_public, FILE *out)
{
    for (const struct node *child = node->first; child; child = child->next) {
        if (!is_flat_list) {
            fprintf(out, "\n%*s", (level + 1) * 2, "");
        }
        if (node->kind == NODE_OBJECT) {
            print_string(child->name, true, out);
            fputs(": ", out);
        }
        print_level(child, level + 1, is_public, out);
        if (child->next) {
            fputs(is_flat_list ? ", " : ",", out);
        }
    }
    if (!is_flat_list) {
        fprintf(out, "\n%*s", level * 2, "");
    }
}

static void
print_level(const struct node *node, int level, bool is_public, FILE *out)
{
    switch (node->kind) {
    case NODE_NULL: fputs("null", out); break;
    case NODE_BOOL: fputs(node->yes ? "true" : "false", out); break;
    case NODE_NUMBER: fprintf(out, "%" PRId64, node->number); break;
    case NODE_REAL: fprintf(out, "%.17g", node->real); break;
    case NODE_STRING:
        print_string(is_public && node->is_secret ? SECRET_TEXT : node->text, false, out);
        break;
    case NODE_LIST:
        putc('[', out);
        print_members(node, level, is_flat(node), is_public, out);
        putc(']', out);
        break;
    case NODE_OBJECT:
        putc('{', out);
        print_members(node, level, node->count == 0, is_public, out);
        putc('}', out);
        break;
    }
}

void
node_print(const struct node *node, FILE *out)
{
    print_level(node, 0, false, out);
    putc('\n', out);
}

void
node_print_public(const struct node *node, FILE *out)
{
    print_level(node, 0, true, out);
    putc('\n', out);
}
