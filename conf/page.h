/* SPDX-License-Identifier: Apache-2.0
 *
 * page.h - error pages: what akashd answers in place of its own short text.
 *
 * A page is taken to pieces when it is loaded. {status}, {reason} and {request_id} stand for what
 * is known of an answer; other braces are text. A request id, which a client may have chosen, is
 * written with what is no letter, digit or one of ".:_-" as '_': it means nothing in HTML, JSON or
 * a URL.
 */
#ifndef CONF_PAGE_H
#define CONF_PAGE_H

#include "conf/arena.h"
#include "conf/conf.h"

#define PAGE_BYTES_MAX 65536 /* of a page as it is in its file */
#define PAGE_WORDS_MAX 16    /* that stand for something */

/* What is known of an answer. */
struct page_facts {
    unsigned status; /* 100 to 999 */
    struct slice reason, request_id;
};

/* Take text, which the arena must keep, to pieces. Returns false when too many words stand for
 * something. */
bool
page_split(struct conf_arena *arena, struct slice text, struct conf_page *page);

/* The page of a listener for that status: its own before that of its class. NULL: none. */
const struct conf_page *
page_find(const struct conf_listener *listener, unsigned status);

/* They answer with the same bytes, whatever the status and its facts. */
bool
page_eq(const struct conf_page *a, const struct conf_page *b);

/* Bytes that page_write() writes. */
size_t
page_size(const struct conf_page *page, const struct page_facts *facts);
/* Returns the end of what was written. */
char *
page_write(const struct conf_page *page, const struct page_facts *facts, char *out);

#endif
