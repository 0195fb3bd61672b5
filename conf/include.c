/* SPDX-License-Identifier: Apache-2.0
 *
 * include.c - merge the files that a configuration includes into its tree.
 *
 * Every node keeps its place in the file it came from, so that whatever is said of it later names
 * that file, and relative paths start at that file's folder. Workers load the same files from their
 * bundle; the monitor, which is not told secrets, has the whole as one text.
 */
#include <limits.h>
#include <stdarg.h>

#include "conf/build.h"
#include "conf/scan.h"

#define BYTES_MOST  (16u * 1024 * 1024) /* of all included files */
#define WHERE_BYTES 512

struct include {
    struct conf_build *build;
    const struct included *files[CONF_INCLUDE_MAX];
    unsigned nfiles;
    size_t nbytes;
    bool is_broken; /* something could not be read */
    bool is_full;   /* no more is read */
};

/* ---- merging ---- */

static void
report_twice(struct conf_build *build, struct node *node, const struct node *first)
{
    char where[WHERE_BYTES];
    report_where(build->report, first->key_at, where, sizeof(where));
    report_key(build->report, node, "duplicate key; it is at %s already", where);
}

static void
append_members(struct conf_build *build, struct node *to, struct node *from)
{
    struct node *next;
    for (struct node *child = from->first; child; child = next) {
        next = child->next;
        const struct node *first = from->kind == NODE_OBJECT ? node_get(to, child->name) : NULL;
        if (first) {
            report_twice(build, child, first);
        } else {
            node_append(to, child);
        }
    }
}

/* Lists and maps of objects: they grow. One of another kind is no list, and told so. */
static void
merge_container(struct conf_build *build, enum node_kind kind, struct node *to, struct node *from)
{
    char got[128];
    if (from->kind != kind) {
        report_value(build->report, from, "expected %s, got %s",
                     kind == NODE_LIST ? "a list" : "an object",
                     report_got(from, got, sizeof(got)));
    } else if (to->kind == kind) {
        append_members(build, to, from);
    }
}

static void
merge_member(struct conf_build *build, struct node *node)
{
    const struct option *row = option_find(OWN_TOP, node->name);
    struct node *first = node_get(build->root, node->name);
    if (strcmp(node->name, "include") == 0) {
        report_key(build->report, node, "an included file cannot include others");
    } else if (!first) {
        node_append(build->root, node);
    } else if (row && row->type == TYPE_OBJECT && row->flags & (OPT_LIST | OPT_MAP)) {
        merge_container(build, row->flags & OPT_MAP ? NODE_OBJECT : NODE_LIST, first, node);
    } else {
        report_twice(build, node, first);
    }
}

static void
merge_file(struct conf_build *build, struct node *root)
{
    char got[128];
    struct node *next;
    if (root->kind != NODE_OBJECT) {
        report_value(build->report, root, "expected an object, got %s",
                     report_got(root, got, sizeof(got)));
        return;
    }
    conf_expand(build, root);
    for (struct node *child = root->first; child; child = next) {
        next = child->next;
        merge_member(build, child);
    }
}

/* ---- reading ---- */

static bool
is_included(const struct include *inc, const char *path)
{
    for (unsigned i = 0; i < inc->nfiles; i++) {
        if (strcmp(inc->files[i]->path, path) == 0) {
            return true;
        }
    }
    return false;
}

/* "/etc/akashd/conf.d/a.json" is told as the file that includes it was: "conf.d/a.json" beside
 * "akashd.json", "etc/conf.d/a.json" beside "etc/akashd.json". */
static const struct included *
new_included(struct include *inc, const char *pattern, const char *path)
{
    struct conf_build *build = inc->build;
    struct included *file = conf_arena_alloc(build->arena, sizeof(*file));
    const char *slash = strrchr(build->name, '/'), *last = strrchr(path, '/');
    size_t hidden = strlen(build->base) + 1;
    bool is_below =
        pattern[0] != '/' && strlen(path) > hidden && strncmp(path, build->base, hidden - 1) == 0;
    int shown = is_below && slash ? (int)(slash - build->name) + 1 : 0;
    file->path = path;
    file->name = conf_arena_format(build->arena, "%.*s%s", shown, build->name,
                                   path + (is_below ? hidden : 0));
    file->folder = conf_arena_copy(build->arena, slice_of(path, (size_t)(last - path)));
    file->order = inc->nfiles + 1;
    return file;
}

/* What is wrong is told at the pattern; the rest of the configuration is not judged without it. */
static bool __attribute__((format(printf, 3, 4)))
fail(struct include *inc, struct node *pattern, const char *format, ...)
{
    char what[PATH_MAX * 2];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    report_value(inc->build->report, pattern, "%s", what);
    inc->is_broken = true;
    return false;
}

static bool
read_included(struct include *inc, struct node *pattern, const struct included *file,
              struct slice *text)
{
    char why[200] = "";
    struct conf_build *build = inc->build;
    if (strcmp(file->path, build->conf->path) == 0) {
        return fail(inc, pattern, "the file cannot include itself");
    }
    if (inc->nfiles == CONF_INCLUDE_MAX) {
        inc->is_full = true;
        return fail(inc, pattern, "more than %d files", CONF_INCLUDE_MAX);
    }
    if (build->src->read_file(build->src, file->path, text, why, sizeof(why)) < 0) {
        return fail(inc, pattern, "cannot read %s: %s", file->name, why);
    }
    inc->nbytes += text->len;
    if (inc->nbytes > BYTES_MOST) {
        inc->is_full = true;
        return fail(inc, pattern, "more than 16 MB with %s", file->name);
    }
    return true;
}

static void
include_file(struct include *inc, struct node *pattern, const char *path)
{
    struct conf_build *build = inc->build;
    struct slice text;
    if (is_included(inc, path)) {
        return;
    }
    const struct included *file = new_included(inc, pattern->text, path);
    if (!read_included(inc, pattern, file, &text)) {
        return;
    }
    inc->files[inc->nfiles++] = file;
    struct node *root = scan_included(build->arena, file, text, build->report);
    if (root) {
        merge_file(build, root);
    } else {
        inc->is_broken = true;
    }
}

/* ---- patterns ---- */

/* The folder's own name is no pattern. */
static const char *
absolute_pattern(const struct conf_build *build, const char *pattern)
{
    if (pattern[0] == '/') {
        return pattern;
    }
    const char *base = build->base;
    char *quoted = conf_arena_alloc(build->arena, strlen(base) * 2 + 1), *to = quoted;
    for (; *base; base++) {
        if (strchr("*?[\\", *base)) {
            *to++ = '\\';
        }
        *to++ = *base;
    }
    return conf_arena_format(build->arena, "%s/%s", quoted, pattern);
}

static void
include_matches(struct include *inc, struct node *pattern)
{
    char why[200] = "there is no disk here";
    struct conf_build *build = inc->build;
    struct conf_source *src = build->src;
    const char *absolute = absolute_pattern(build, pattern->text);
    struct slice list;
    if (!src->list_files || src->list_files(src, absolute, &list, why, sizeof(why)) < 0) {
        fail(inc, pattern, "cannot list %s: %s", pattern->text, why);
        return;
    }
    size_t len;
    for (const char *path = list.ptr; path < list.ptr + list.len && !inc->is_full;
         path += len + 1) {
        len = strlen(path);
        if (path[0] == '/') {
            include_file(inc, pattern, conf_arena_copy(build->arena, slice_of(path, len)));
        }
    }
}

static void
include_pattern(struct include *inc, struct node *pattern)
{
    const char *text = pattern->text;
    if (pattern->is_bad) {
        inc->is_broken = true;
    } else if (strpbrk(text, "*?[")) {
        include_matches(inc, pattern);
    } else if (text[0] == '/') {
        include_file(inc, pattern, text);
    } else {
        include_file(inc, pattern,
                     conf_arena_format(inc->build->arena, "%s/%s", inc->build->base, text));
    }
}

bool
conf_include(struct conf_build *build)
{
    struct include inc = {.build = build};
    struct node *list = node_get(build->root, "include");
    if (!list) {
        return true;
    }
    build->include = list;
    node_remove(build->root, list);
    option_read_row(&build->reader, option_find(OWN_TOP, "include"), list, NULL);
    inc.is_broken = list->is_bad;
    struct node *child = list->kind == NODE_LIST ? list->first : NULL;
    for (; child && !inc.is_full; child = child->next) {
        include_pattern(&inc, child);
    }
    return !inc.is_broken;
}
