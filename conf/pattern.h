/* SPDX-License-Identifier: Apache-2.0
 *
 * pattern.h - regular expressions of the configuration, against what strangers send.
 *
 * PCRE2 without JIT. What one match may cost is bounded, whatever the expression and the text: a
 * match that is not decided by then is given up, which is neither yes nor no.
 */
#ifndef CONF_PATTERN_H
#define CONF_PATTERN_H

#include "conf/arena.h"

#define PATTERN_MAX 1024 /* bytes of an expression */

struct pattern;

enum pattern_verdict { PATTERN_NO, PATTERN_YES, PATTERN_GAVE_UP };

/* NULL: it is malformed. why (at least 160 bytes) says how and where then. The pattern lives in the
 * arena, and so does text, by reference. */
struct pattern *
pattern_new(struct conf_arena *arena, const char *text, char *why, size_t size);

/* Is it found anywhere in text? */
enum pattern_verdict
pattern_find(const struct pattern *pattern, struct slice text);

/* As in the file. */
const char *
pattern_text(const struct pattern *pattern);

#endif
