/* SPDX-License-Identifier: Apache-2.0
 *
 * report.c - collect errors and warnings, order them by place, render each to one line.
 */
#include "conf/report.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>

#define PATH_BYTES  512
#define WHAT_BYTES  768
#define WHERE_BYTES (PATH_MAX * 2 + 32)

#define FINDINGS_MAX 10000 /* a file of nothing but errors must not cost without bound */

struct finding {
    struct place place; /* without the file, which may be gone before the report */
    unsigned file;      /* 0 for the one that was loaded, then those it includes, in their order */
    unsigned order;     /* of two at one place, the one found first stands first */
    bool is_warning;
    char *text;
};

struct report {
    const char *file;
    struct finding *findings;
    unsigned n, room;
    unsigned nerrors;
    unsigned unheard; /* beyond FINDINGS_MAX */
};

static void *
or_die(void *memory)
{
    if (!memory) {
        abort();
    }
    return memory;
}

struct report *
report_new(const char *file)
{
    struct report *report = or_die(calloc(1, sizeof(*report)));
    report->file = file;
    return report;
}

bool
report_has_errors(const struct report *report)
{
    return report->nerrors > 0;
}

const char *
report_where(const struct report *report, struct place place, char *buf, size_t size)
{
    const char *name = place.file ? place.file->name : report->file;
    if (place.line == 0) {
        snprintf(buf, size, "%s", name);
    } else {
        snprintf(buf, size, "%s:%u:%u", name, place.line, place.column);
    }
    return buf;
}

static char *
render(const struct report *report, struct place place, const char *path, const char *what)
{
    char *text = NULL, where[WHERE_BYTES];
    report_where(report, place, where, sizeof(where));
    int len = asprintf(&text, "%s: %s%s%s", where, path, path[0] ? ": " : "", what);
    return len < 0 ? or_die(NULL) : text;
}

static void
add(struct report *report, bool is_warning, struct place place, const char *path, const char *what)
{
    report->nerrors += !is_warning;
    if (report->n == FINDINGS_MAX) {
        report->unheard++;
        return;
    }
    if (report->n == report->room) {
        report->room = report->room ? report->room * 2 : 16;
        report->findings =
            or_die(realloc(report->findings, report->room * sizeof(*report->findings)));
    }
    report->findings[report->n] = (struct finding){
        .place = {place.line, place.column, NULL},
        .file = place.file ? place.file->order : 0,
        .order = report->n,
        .is_warning = is_warning,
        .text = render(report, place, path, what),
    };
    report->n++;
}

/* A value that we made up stands where its object stands. */
static struct place
place_of(const struct node *node, bool of_key)
{
    return of_key && node->key_at.line ? node->key_at : node->at;
}

static void
add_at(struct report *report, struct node *node, const char *key, bool of_key, const char *format,
       va_list args)
{
    char path[PATH_BYTES], what[WHAT_BYTES];
    vsnprintf(what, sizeof(what), format, args);
    add(report, false, place_of(node, of_key), node_path(node, key, path, sizeof(path)), what);
    node->is_bad = true;
}

void
report_value(struct report *report, struct node *node, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_at(report, node, NULL, false, format, args);
    va_end(args);
}

void
report_key(struct report *report, struct node *node, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_at(report, node, NULL, true, format, args);
    va_end(args);
}

void
report_missing(struct report *report, struct node *object, const char *key, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_at(report, object, key, false, format, args);
    va_end(args);
}

void
report_place(struct report *report, struct place place, const char *what)
{
    add(report, false, place, "", what);
}

void
report_warn(struct report *report, const struct node *node, const char *format, ...)
{
    char path[PATH_BYTES], what[WHAT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    add(report, true, node->at, node_path(node, NULL, path, sizeof(path)), what);
}

static int
compare(const void *left, const void *right)
{
    const struct finding *a = left, *b = right;
    if (a->file != b->file) {
        return a->file < b->file ? -1 : 1;
    }
    if (a->place.line != b->place.line) {
        return a->place.line < b->place.line ? -1 : 1;
    }
    if (a->place.column != b->place.column) {
        return a->place.column < b->place.column ? -1 : 1;
    }
    return a->order < b->order ? -1 : a->order > b->order;
}

static bool
is_repeated(const char *text, char *const *texts, unsigned n)
{
    for (unsigned i = n; i > 0; i--) {
        if (strcmp(texts[i - 1], text) == 0) {
            return true;
        }
    }
    return false;
}

/* A value that went to two places (a timeout of the short form) is complained about once. */
static void
keep(struct finding *finding, char **texts, unsigned *n, unsigned *left_out)
{
    if (is_repeated(finding->text, texts, *n)) {
        free(finding->text);
    } else if (*n == REPORT_MAX) {
        free(finding->text);
        (*left_out)++;
    } else {
        texts[(*n)++] = finding->text;
    }
}

static void
say_left_out(const struct report *report, char **texts, unsigned *n, unsigned left_out)
{
    if (left_out && asprintf(&texts[*n], "%s: and %u more", report->file, left_out) >= 0) {
        (*n)++;
    }
}

void
report_finish(struct report *report, struct conf_errors *errors)
{
    unsigned errors_left = report->unheard, warnings_left = 0;
    *errors = (struct conf_errors){
        .errors = or_die(calloc(REPORT_MAX + 1, sizeof(char *))),
        .warnings = or_die(calloc(REPORT_MAX + 1, sizeof(char *))),
    };
    if (report->n) {
        qsort(report->findings, report->n, sizeof(*report->findings), compare);
    }
    for (unsigned i = 0; i < report->n; i++) {
        struct finding *finding = &report->findings[i];
        if (finding->is_warning) {
            keep(finding, errors->warnings, &errors->nwarnings, &warnings_left);
        } else {
            keep(finding, errors->errors, &errors->nerrors, &errors_left);
        }
    }
    say_left_out(report, errors->errors, &errors->nerrors, errors_left);
    say_left_out(report, errors->warnings, &errors->nwarnings, warnings_left);
    free(report->findings);
    free(report);
}

static void
free_texts(char **texts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        free(texts[i]);
    }
    free(texts);
}

void
conf_errors_fini(struct conf_errors *errors)
{
    free_texts(errors->errors, errors->nerrors);
    free_texts(errors->warnings, errors->nwarnings);
    *errors = (struct conf_errors){0};
}

static void
got_string(const char *text, char *buf, size_t size)
{
    char shown[64];
    size_t len = strlen(text);
    log_escape(slice_of(text, len > 40 ? 40 : len), shown, sizeof(shown));
    snprintf(buf, size, "\"%s%s\"", shown, len > 40 ? "..." : "");
}

const char *
report_got(const struct node *node, char *buf, size_t size)
{
    switch (node->kind) {
    case NODE_NULL: snprintf(buf, size, "null"); break;
    case NODE_BOOL: snprintf(buf, size, "%s", node->yes ? "true" : "false"); break;
    case NODE_NUMBER: snprintf(buf, size, "%" PRId64, node->number); break;
    case NODE_REAL: snprintf(buf, size, "%g", node->real); break;
    case NODE_STRING: got_string(node->text, buf, size); break;
    case NODE_LIST: snprintf(buf, size, "a list"); break;
    case NODE_OBJECT: snprintf(buf, size, "an object"); break;
    }
    return buf;
}
