/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_page.c - the error pages of a listener: statuses, files, media types.
 */
#include "conf/build.h"
#include "conf/page.h"
#include "shared/http.h"

#define LOWEST  400
#define HIGHEST 599

/* "503", or "4xx" for all of them. */
static bool
parse_status(const char *text, struct conf_page *page)
{
    bool is_class = strcmp(text, "4xx") == 0 || strcmp(text, "5xx") == 0;
    if (strlen(text) != 3 || (!is_class && strspn(text, "0123456789") != 3)) {
        return false;
    }
    unsigned hundreds = (unsigned)(text[0] - '0') * 100;
    unsigned exact = hundreds + (unsigned)(text[1] - '0') * 10 + (unsigned)(text[2] - '0');
    page->from = (uint16_t)(is_class ? hundreds : exact);
    page->to = (uint16_t)(is_class ? hundreds + 99 : exact);
    return page->from >= LOWEST && page->to <= HIGHEST;
}

static const char *
type_of(const char *file)
{
    static const struct {
        const char *ending, *type;
    } types[] = {{".html", "text/html; charset=utf-8"},
                 {".htm", "text/html; charset=utf-8"},
                 {".json", "application/json"}};
    size_t len = file ? strlen(file) : 0;
    for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        size_t ending = strlen(types[i].ending);
        if (len > ending && strcmp(file + len - ending, types[i].ending) == 0) {
            return types[i].type;
        }
    }
    return "text/plain; charset=utf-8";
}

/* ---- the media type: RFC 9110 8.3.1 ---- */

/* A token from *at on; true: *at is behind it. */
static bool
skip_token(const char **at)
{
    const char *begin = *at;
    while (http_is_token(slice_of(*at, 1))) {
        ++*at;
    }
    return *at > begin;
}

static bool
skip_char(const char **at, char c)
{
    bool is_there = **at == c;
    *at += is_there;
    return is_there;
}

/* Printable ASCII only. What else RFC 9110 5.6.4 allows between quotes has no use here. */
static bool
skip_quoted(const char **at)
{
    if (!skip_char(at, '"')) {
        return false;
    }
    while (**at && **at != '"') {
        skip_char(at, '\\');
        if (**at < ' ' || **at > '~') {
            return false;
        }
        ++*at;
    }
    return skip_char(at, '"');
}

/* The grammar lets a parameter be missing between two semicolons, or at the end, and tabs stand for
 * spaces; nobody means that. */
static bool
skip_parameter(const char **at)
{
    *at += strspn(*at, " ");
    if (!skip_char(at, ';')) {
        return false;
    }
    *at += strspn(*at, " ");
    return skip_token(at) && skip_char(at, '=') && (skip_quoted(at) || skip_token(at));
}

static bool
is_media_type(const char *at)
{
    if (!skip_token(&at) || !skip_char(&at, '/') || !skip_token(&at)) {
        return false;
    }
    while (*at) {
        if (!skip_parameter(&at)) {
            return false;
        }
    }
    return true;
}

/* -T shows what is taken when the file says nothing. */
static void
set_type(struct conf_build *build, struct conf_page *page, struct node *node)
{
    if (!page->type) {
        page->type = type_of(page->file);
        struct node *made = node_new_text(build->arena, "type", page->type);
        made->is_default = true;
        node_append(node, made);
    } else if (!is_media_type(page->type)) {
        report_value(build->report, node_get(node, "type"), "expected a media type such as \"%s\"",
                     "text/html; charset=utf-8");
    }
}

/* ---- the text ---- */

/* An empty file is one that somebody failed to write; an empty body has been asked for. */
static void
check_text(struct conf_build *build, struct conf_page *page, struct node *from, struct slice text)
{
    if (text.len > PAGE_BYTES_MAX) {
        report_value(build->report, from, "longer than %d bytes", PAGE_BYTES_MAX);
    } else if (text.len == 0 && page->file) {
        report_value(build->report, from, "%s is empty; an empty answer is asked for by body: \"\"",
                     page->file);
    } else if (!page_split(build->arena, slice_of(conf_arena_copy(build->arena, text), text.len),
                           page)) {
        report_value(build->report, from, "more than %d words in braces that stand for something",
                     PAGE_WORDS_MAX);
    }
}

static void
read_text(struct conf_build *build, struct conf_page *page, struct node *node)
{
    struct node *from = node_get(node, page->file ? "file" : "body");
    struct slice text =
        page->file ? conf_read_file(build, node, "file", true) : slice_from_str(page->body);
    if (!from->is_bad) {
        check_text(build, page, from, text);
    }
}

static void
check_page(struct conf_build *build, struct conf_page *page, struct node *node)
{
    if (node->is_bad || node->kind != NODE_OBJECT) {
        return;
    }
    if (!parse_status(node->name, page)) {
        report_key(build->report, node, "expected a status from %d to %d, \"4xx\" or \"5xx\"",
                   LOWEST, HIGHEST);
    }
    if (!page->file == !page->body) {
        report_value(build->report, node, "expected either file or body");
        return;
    }
    set_type(build, page, node);
    read_text(build, page, node);
}

void
conf_check_pages(struct conf_build *build, struct conf_listener *listener, struct node *node)
{
    struct node *pages = node_get(node, "error_pages");
    struct node *child = pages ? pages->first : NULL;
    if (pages && listener->mode == CONF_TCP) {
        report_key(build->report, pages, "only in http mode");
    }
    for (unsigned i = 0; i < listener->npages && child; i++, child = child->next) {
        check_page(build, &listener->pages[i], child);
    }
}
