/* SPDX-License-Identifier: Apache-2.0
 *
 * scan.h - strict JSON with comments, read with the place of every key and value.
 *
 * The grammar is RFC 8259's plus comments (// to the end of the line, and between slash-star and
 * star-slash). The text is UTF-8 without NUL, also not as \u0000, and without halves of surrogate
 * pairs. Nesting is bounded. json-c, which decodes the values, is given the text without comments;
 * alone it would swallow duplicate keys and keep no positions.
 */
#ifndef CONF_SCAN_H
#define CONF_SCAN_H

#include "conf/node.h"
#include "conf/report.h"

#define SCAN_DEPTH 32

/* Read text into a tree. A syntax error is reported, alone, and NULL returned. Duplicate keys are
 * reported and left out of the tree, which is returned all the same. */
struct node *
scan_text(struct conf_arena *arena, struct slice text, struct report *report);
/* The same for the text of an included file, in which all places then are. */
struct node *
scan_included(struct conf_arena *arena, const struct included *file, struct slice text,
              struct report *report);

/* For both: fill in the values of a tree from the text without comments, followed by a NUL.
 * NULL, or what is wrong with it in json-c's eyes (a static text). */
const char *
scan_values(struct conf_arena *arena, struct node *root, const char *clean, size_t len);

#endif
