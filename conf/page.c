/* SPDX-License-Identifier: Apache-2.0
 *
 * page.c - error pages: see page.h.
 */
#include "conf/page.h"

#include <stdio.h>

#define STATUS_LEN 3

static const struct {
    const char *text;
    enum conf_page_word word;
} words[] = {{"{status}", CONF_PAGE_STATUS},
             {"{reason}", CONF_PAGE_REASON},
             {"{request_id}", CONF_PAGE_REQUEST_ID}};

/* ---- loading ---- */

/* The first word in text that stands for something; where it begins. CONF_PAGE_END: none. */
static enum conf_page_word
next_word(struct slice text, size_t *at, size_t *len)
{
    for (*at = 0; *at < text.len; ++*at) {
        for (unsigned i = 0; text.ptr[*at] == '{' && i < sizeof(words) / sizeof(words[0]); i++) {
            *len = strlen(words[i].text);
            if (*len <= text.len - *at && memcmp(text.ptr + *at, words[i].text, *len) == 0) {
                return words[i].word;
            }
        }
    }
    *len = 0;
    return CONF_PAGE_END;
}

bool
page_split(struct conf_arena *arena, struct slice text, struct conf_page *page)
{
    page->pieces = conf_arena_array(arena, PAGE_WORDS_MAX + 1, sizeof(*page->pieces));
    page->npieces = 0;
    enum conf_page_word word;
    do {
        size_t at, len;
        if (page->npieces == PAGE_WORDS_MAX + 1) {
            return false;
        }
        word = next_word(text, &at, &len);
        page->pieces[page->npieces++] =
            (struct conf_page_piece){.text = slice_of(text.ptr, at), .then = word};
        text = slice_of(text.ptr + at + len, text.len - at - len);
    } while (word != CONF_PAGE_END);
    return true;
}

/* ---- answering ---- */

const struct conf_page *
page_find(const struct conf_listener *listener, unsigned status)
{
    const struct conf_page *found = NULL;
    for (unsigned i = 0; i < listener->npages; i++) {
        const struct conf_page *page = &listener->pages[i];
        bool is_for = status >= page->from && status <= page->to;
        if (is_for && (!found || page->from == page->to)) {
            found = page;
        }
    }
    return found;
}

bool
page_eq(const struct conf_page *a, const struct conf_page *b)
{
    bool is_same = a->npieces == b->npieces;
    for (unsigned i = 0; is_same && i < a->npieces; i++) {
        const struct conf_page_piece *one = &a->pieces[i], *other = &b->pieces[i];
        is_same = slice_eq(one->text, other->text) && one->then == other->then;
    }
    return is_same;
}

static size_t
word_size(enum conf_page_word word, const struct page_facts *facts)
{
    switch (word) {
    case CONF_PAGE_STATUS: return STATUS_LEN;
    case CONF_PAGE_REASON: return facts->reason.len;
    case CONF_PAGE_REQUEST_ID: return facts->request_id.len;
    default: return 0;
    }
}

size_t
page_size(const struct conf_page *page, const struct page_facts *facts)
{
    size_t size = 0;
    for (unsigned i = 0; i < page->npieces; i++) {
        size += page->pieces[i].text.len + word_size(page->pieces[i].then, facts);
    }
    return size;
}

static bool
is_harmless(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr(".:_-", c));
}

static char *
write_harmless(struct slice text, char *out)
{
    for (size_t i = 0; i < text.len; i++) {
        *out++ = is_harmless(text.ptr[i]) ? text.ptr[i] : '_';
    }
    return out;
}

static char *
write_word(enum conf_page_word word, const struct page_facts *facts, char *out)
{
    char status[STATUS_LEN + 1];
    switch (word) {
    case CONF_PAGE_STATUS:
        snprintf(status, sizeof(status), "%03u", facts->status % 1000);
        return write_harmless(slice_of(status, STATUS_LEN), out);
    case CONF_PAGE_REASON: return write_harmless(facts->reason, out);
    case CONF_PAGE_REQUEST_ID: return write_harmless(facts->request_id, out);
    default: return out;
    }
}

char *
page_write(const struct conf_page *page, const struct page_facts *facts, char *out)
{
    for (unsigned i = 0; i < page->npieces; i++) {
        const struct conf_page_piece *piece = &page->pieces[i];
        memcpy(out, piece->text.ptr, piece->text.len);
        out = write_word(piece->then, facts, out + piece->text.len);
    }
    return out;
}
