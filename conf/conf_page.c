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

/* RFC 9110 8.3.1; what is behind the type is not looked into. */
static bool
is_media_type(const char *text)
{
    const char *slash = strchr(text, '/');
    size_t end = strcspn(text, "; ");
    return slash && slash < text + end && http_is_field_value(slice_from_str(text)) &&
           http_is_token(slice_of(text, (size_t)(slash - text))) &&
           http_is_token(slice_of(slash + 1, (size_t)(text + end - slash - 1)));
}

static void
read_text(struct conf_build *build, struct conf_page *page, struct node *node)
{
    struct node *from = node_get(node, page->file ? "file" : "body");
    struct slice text =
        page->file ? conf_read_file(build, node, "file", true) : slice_from_str(page->body);
    if (text.len > PAGE_BYTES_MAX) {
        report_value(build->report, from, "longer than %d bytes", PAGE_BYTES_MAX);
        return;
    }
    text = slice_of(conf_arena_copy(build->arena, text), text.len);
    if (!page_split(build->arena, text, page)) {
        report_value(build->report, from, "more than %d words in braces that stand for something",
                     PAGE_WORDS_MAX);
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
    page->type = page->type ? page->type : type_of(page->file);
    if (!is_media_type(page->type)) {
        report_value(build->report, node_get(node, "type"), "expected a media type such as \"%s\"",
                     "text/html; charset=utf-8");
    }
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
