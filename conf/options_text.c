/* SPDX-License-Identifier: Apache-2.0
 *
 * options_text.c - durations and sizes as people write them, and what a row expects, in words.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>

#include "conf/options.h"

/* ---- durations and sizes ---- */

struct unit {
    const char *name;
    uint64_t factor;
};

/* The greatest first: the canonical form takes the first that divides. */
static const struct unit duration_units[] = {
    {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0}};
static const struct unit size_units[] = {{"m", 1024 * 1024}, {"k", 1024}, {"", 1}, {NULL, 0}};

static int
parse_with_unit(const char *text, const struct unit *units, uint64_t *out)
{
    if (!isdigit((unsigned char)text[0]) || strlen(text) > 18) {
        return -1;
    }
    char *rest;
    uint64_t number = strtoull(text, &rest, 10);
    for (; units->name; units++) {
        if (strcmp(rest, units->name) == 0) {
            return __builtin_mul_overflow(number, units->factor, out) ? -1 : 0;
        }
    }
    return -1;
}

int
option_duration_parse(const char *text, uint64_t *ms)
{
    return parse_with_unit(text, duration_units, ms);
}

int
option_size_parse(const char *text, uint64_t *bytes)
{
    return parse_with_unit(text, size_units, bytes);
}

static const struct unit *
unit_for(const struct unit *units, uint64_t number)
{
    while (units[1].name && number % units->factor != 0) {
        units++;
    }
    return units;
}

const char *
option_duration_format(char *buf, size_t size, uint64_t ms)
{
    const struct unit *unit = ms ? unit_for(duration_units, ms) : &duration_units[2];
    snprintf(buf, size, "%" PRIu64 "%s", ms / unit->factor, unit->name);
    return buf;
}

const char *
option_size_format(char *buf, size_t size, uint64_t bytes)
{
    const struct unit *unit = bytes ? unit_for(size_units, bytes) : &size_units[2];
    snprintf(buf, size, "%" PRIu64 "%s", bytes / unit->factor, unit->name);
    return buf;
}

/* ---- what is expected, in words ---- */

static void
expect_words(const char *words, FILE *out)
{
    while (*words) {
        size_t len = strcspn(words, "|");
        fprintf(out, "\"%.*s\"", (int)len, words);
        words += len + (words[len] == '|');
        if (*words) {
            fputs(strchr(words, '|') ? ", " : " or ", out);
        }
    }
}

static void
expect_one(const struct option *row, FILE *out)
{
    char low[32], high[32];
    switch (row->type) {
    case TYPE_COUNT:
        if (row->max == UINT32_MAX) {
            fprintf(out, "a number of at least %" PRIu64, row->min);
        } else {
            fprintf(out, "a number from %" PRIu64 " to %" PRIu64, row->min, row->max);
        }
        break;
    case TYPE_WORKERS: fprintf(out, "a number from 1 to %" PRIu64 " or \"auto\"", row->max); break;
    case TYPE_DURATION:
        fprintf(out, "a duration from %s to %s such as \"10s\", or a number of seconds",
                option_duration_format(low, sizeof(low), row->min),
                option_duration_format(high, sizeof(high), row->max));
        break;
    case TYPE_SIZE:
        fprintf(out, "a size from %s to %s, in bytes or such as \"64k\"",
                option_size_format(low, sizeof(low), row->min),
                option_size_format(high, sizeof(high), row->max));
        break;
    case TYPE_WORD:
    case TYPE_KEY: expect_words(row->words, out); break;
    case TYPE_OBJECT: fputs("an object", out); break;
    default: fputs(option_type_expected(row->type), out);
    }
}

static void
expect_form(const struct option *row, FILE *out)
{
    if (row->flags & OPT_MAP) {
        fputs("an object whose keys are names", out);
    } else if (row->flags & OPT_LIST && !(row->flags & OPT_ONE)) {
        fputs(row->type == TYPE_OBJECT ? "a list of objects" : "a list", out);
    } else {
        expect_one(row, out);
        if (row->flags & OPT_ONE) {
            fputs(", or a list of them", out);
        }
        if (row->shorthand) {
            fprintf(out, ", or its %s alone", row->shorthand);
        }
        if (row->flags & OPT_FALSE) {
            fputs(", or false", out);
        }
    }
}

const char *
option_expected(const struct option *row, char *buf, size_t size)
{
    memset(buf, 0, size);
    FILE *out = fmemopen(buf, size, "w");
    if (out) {
        expect_form(row, out);
        fclose(out);
        buf[size - 1] = '\0';
    }
    return buf;
}
