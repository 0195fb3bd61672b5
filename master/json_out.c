/* SPDX-License-Identifier: Apache-2.0
 *
 * json_out.c - see json_out.h.
 */
#include "master/json_out.h"

static void
begin_member(struct json_out *j, const char *key)
{
    if (j->has_member) {
        putc_unlocked(',', j->out);
    }
    j->has_member = true;
    if (key) {
        fprintf(j->out, "\"%s\":", key);
    }
}

void
json_out_open(struct json_out *j, const char *key, char bracket)
{
    begin_member(j, key);
    putc_unlocked(bracket, j->out);
    j->has_member = false;
}

void
json_out_close(struct json_out *j, char bracket)
{
    putc_unlocked(bracket, j->out);
    j->has_member = true;
}

void
json_out_number(struct json_out *j, const char *key, uint64_t value)
{
    begin_member(j, key);
    fprintf(j->out, "%llu", (unsigned long long)value);
}

void
json_out_bool(struct json_out *j, const char *key, bool value)
{
    begin_member(j, key);
    fputs(value ? "true" : "false", j->out);
}

static void
put_char(FILE *out, unsigned char c)
{
    if (c == '"' || c == '\\') {
        putc_unlocked('\\', out);
        putc_unlocked(c, out);
    } else if (c < ' ') {
        fprintf(out, "\\u%04x", c);
    } else {
        putc_unlocked(c, out);
    }
}

void
json_out_text(struct json_out *j, const char *key, const char *text)
{
    begin_member(j, key);
    putc_unlocked('"', j->out);
    for (; *text; text++) {
        put_char(j->out, (unsigned char)*text);
    }
    putc_unlocked('"', j->out);
}

void
json_out_shared_text(struct json_out *j, const char *key, const char *text, size_t size)
{
    begin_member(j, key);
    putc_unlocked('"', j->out);
    for (size_t i = 0; i < size && text[i]; i++) {
        char c = text[i];
        bool is_plain = (c >= ' ' && c <= '~') || c == '\n';
        put_char(j->out, is_plain ? (unsigned char)c : '?');
    }
    putc_unlocked('"', j->out);
}
