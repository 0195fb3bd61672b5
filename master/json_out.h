/* SPDX-License-Identifier: Apache-2.0
 *
 * json_out.h - write JSON (RFC 8259) as it comes, without building it first. Keys are literals;
 * key is NULL for members of an array and for the whole.
 */
#ifndef MASTER_JSON_OUT_H
#define MASTER_JSON_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct json_out {
    FILE *out;
    bool has_member; /* the innermost object or array has one already */
};

/* '{' or '['. */
void
json_out_open(struct json_out *j, const char *key, char bracket);
/* '}' or ']', of what was opened last. */
void
json_out_close(struct json_out *j, char bracket);

void
json_out_number(struct json_out *j, const char *key, uint64_t value);
void
json_out_bool(struct json_out *j, const char *key, bool value);
void
json_out_text(struct json_out *j, const char *key, const char *text);
/* At most size bytes, up to a NUL, which another process may be writing: what is not printable
 * ASCII or a newline becomes '?'. */
void
json_out_shared_text(struct json_out *j, const char *key, const char *text, size_t size);

#endif
