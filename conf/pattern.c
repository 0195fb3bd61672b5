/* SPDX-License-Identifier: Apache-2.0
 *
 * pattern.c - PCRE2 in a configuration's arena: see pattern.h.
 *
 * Compiled code lies in the arena and goes with it. What matching needs is one for the process,
 * which has one thread, and lives as long.
 */
#include "conf/pattern.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MATCH_LIMIT 100000 /* steps: some milliseconds */
#define DEPTH_LIMIT 10000
#define HEAP_LIMIT  4096 /* KB */
#define NEST_LIMIT  50

/* Bytes are bytes: (*UTF) in an expression is refused, and so is \C. */
#define OPTIONS (PCRE2_NEVER_UTF | PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY)

struct pattern {
    const char *text;
    pcre2_code *code;
};

static void *
take(PCRE2_SIZE size, void *arena)
{
    return conf_arena_alloc(arena, size);
}

static void
leave(void *memory, void *arena)
{
    (void)memory; /* it goes with the arena */
    (void)arena;
}

static void *
must(void *made)
{
    if (!made) {
        abort();
    }
    return made;
}

struct pattern *
pattern_new(struct conf_arena *arena, const char *text, char *why, size_t size)
{
    pcre2_general_context *memory = must(pcre2_general_context_create(take, leave, arena));
    pcre2_compile_context *rules = must(pcre2_compile_context_create(memory));
    struct pattern *pattern = conf_arena_alloc(arena, sizeof(*pattern));
    int error;
    PCRE2_SIZE offset;
    pcre2_set_parens_nest_limit(rules, NEST_LIMIT);
    pattern->text = text;
    pattern->code = pcre2_compile((PCRE2_SPTR)text, strlen(text), OPTIONS, &error, &offset, rules);
    if (!pattern->code) {
        PCRE2_UCHAR message[120];
        pcre2_get_error_message(error, message, sizeof(message));
        snprintf(why, size, "%s at offset %zu", (char *)message, (size_t)offset);
        return NULL;
    }
    return pattern;
}

/* What all matches share. */
static struct {
    pcre2_match_data *found;
    pcre2_match_context *limits;
} matching;

static void
prepare_matching(void)
{
    matching.found = must(pcre2_match_data_create(1, NULL));
    matching.limits = must(pcre2_match_context_create(NULL));
    pcre2_set_match_limit(matching.limits, MATCH_LIMIT);
    pcre2_set_depth_limit(matching.limits, DEPTH_LIMIT);
    pcre2_set_heap_limit(matching.limits, HEAP_LIMIT);
}

enum pattern_verdict
pattern_find(const struct pattern *pattern, struct slice text)
{
    if (!matching.found) {
        prepare_matching();
    }
    int r = pcre2_match(pattern->code, (PCRE2_SPTR)(text.ptr ? text.ptr : ""), text.len, 0, 0,
                        matching.found, matching.limits);
    if (r >= 0) {
        return PATTERN_YES;
    }
    return r == PCRE2_ERROR_NOMATCH ? PATTERN_NO : PATTERN_GAVE_UP;
}

const char *
pattern_text(const struct pattern *pattern)
{
    return pattern->text;
}
