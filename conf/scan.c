/* SPDX-License-Identifier: Apache-2.0
 *
 * scan.c - go over the text once: grammar, places, duplicate keys. scan_values.c does the rest.
 */
#include "conf/scan.h"

struct scanner {
    struct conf_arena *arena;
    struct report *report;
    const struct included *file;
    const char *text, *at, *end;
    const char *line_start;
    unsigned line;
    char *clean;       /* a copy of text with blanks where comments were */
    const char *wrong; /* the syntax error, at `at` */
    int depth;
    struct node **seen; /* keys of all objects, by object and name: open addressing */
    size_t nseen, seen_size;
};

static struct node *
scan_value(struct scanner *sc);

/* ---- places and failure ---- */

static struct place
place_here(const struct scanner *sc)
{
    return (struct place){sc->line, (unsigned)(sc->at - sc->line_start) + 1, sc->file};
}

static bool
fail(struct scanner *sc, const char *what)
{
    if (!sc->wrong) {
        sc->wrong = what;
    }
    return false;
}

static bool
next_is(const struct scanner *sc, char c)
{
    return sc->at < sc->end && *sc->at == c;
}

/* ---- UTF-8 (RFC 3629) ---- */

/* Bytes of the character at `at`, 0 when it is none. Overlong forms, surrogates and what is beyond
 * U+10FFFF are none. */
static size_t
utf8_length(const char *at, const char *end)
{
    static const struct {
        unsigned char first, last, low, high; /* range of the first byte, of the second one */
        size_t len;
    } forms[] = {
        {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
        {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    const unsigned char *byte = (const unsigned char *)at;
    size_t left = (size_t)(end - at);
    if (byte[0] < 0x80) {
        return 1;
    }
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (byte[0] >= forms[i].first && byte[0] <= forms[i].last && left >= forms[i].len &&
            byte[1] >= forms[i].low && byte[1] <= forms[i].high) {
            bool is_well = forms[i].len < 3 || (byte[2] & 0xc0) == 0x80;
            is_well = is_well && (forms[i].len < 4 || (byte[3] & 0xc0) == 0x80);
            return is_well ? forms[i].len : 0;
        }
    }
    return 0;
}

/* The first byte of the text that may not stand there is told before anything else. */
static bool
check_bytes(struct scanner *sc)
{
    while (sc->at < sc->end) {
        size_t len = utf8_length(sc->at, sc->end);
        if (len == 0) {
            return fail(sc, "not UTF-8");
        }
        if (*sc->at == '\0') {
            return fail(sc, "a NUL byte");
        }
        if (*sc->at == '\n') {
            sc->line++;
            sc->line_start = sc->at + 1;
        }
        sc->at += len;
    }
    sc->at = sc->line_start = sc->text;
    sc->line = 1;
    return true;
}

/* ---- white space and comments ---- */

static void
skip_byte(struct scanner *sc, bool is_comment)
{
    if (*sc->at == '\n') {
        sc->line++;
        sc->line_start = sc->at + 1;
    } else if (is_comment) {
        sc->clean[sc->at - sc->text] = ' ';
    }
    sc->at++;
}

static bool
skip_block_comment(struct scanner *sc)
{
    const char *from = sc->at;
    const char *close = memmem(from + 2, (size_t)(sc->end - from) - 2, "*/", 2);
    if (!close) {
        return fail(sc, "this comment does not end");
    }
    while (sc->at < close + 2) {
        skip_byte(sc, true);
    }
    return true;
}

static bool
skip_blanks(struct scanner *sc)
{
    while (sc->at < sc->end) {
        if (strchr(" \t\r\n", *sc->at)) {
            skip_byte(sc, false);
        } else if (*sc->at != '/' || sc->end - sc->at < 2) {
            return true;
        } else if (sc->at[1] == '/') {
            while (sc->at < sc->end && *sc->at != '\n') {
                skip_byte(sc, true);
            }
        } else if (sc->at[1] != '*') {
            return true;
        } else if (!skip_block_comment(sc)) {
            return false;
        }
    }
    return true;
}

/* ---- strings ---- */

static int
hex4(const struct scanner *sc, const char *at)
{
    int code = 0;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef";
        const char *digit = at + i < sc->end && at[i] ? strchr(digits, at[i] | 0x20) : NULL;
        if (!digit || (at[i] < '0')) {
            return -1;
        }
        code = code * 16 + (int)(digit - digits);
    }
    return code;
}

static char *
put_utf8(char *to, unsigned code)
{
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *to++ = (char)(0xe0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    } else {
        *to++ = (char)(0xf0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3f));
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    }
    return to;
}

/* At the u of \uXXXX; a pair of surrogates is one character. */
static char *
scan_unicode(struct scanner *sc, char *to)
{
    int code = hex4(sc, sc->at + 1);
    if (code < 0) {
        fail(sc, "expected four hexadecimal digits after \\u");
        return NULL;
    }
    if (code == 0) {
        fail(sc, "a NUL character");
        return NULL;
    }
    sc->at += 5;
    if (code < 0xd800 || code > 0xdfff) {
        return put_utf8(to, (unsigned)code);
    }
    int low = code < 0xdc00 && sc->end - sc->at >= 6 && sc->at[0] == '\\' && sc->at[1] == 'u'
                  ? hex4(sc, sc->at + 2)
                  : -1;
    if (low < 0xdc00 || low > 0xdfff) {
        sc->at -= 6;
        fail(sc, "half of a surrogate pair");
        return NULL;
    }
    sc->at += 6;
    return put_utf8(to, 0x10000u + ((unsigned)(code - 0xd800) << 10) + (unsigned)(low - 0xdc00));
}

static char *
scan_escape(struct scanner *sc, char *to)
{
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    sc->at++;
    if (next_is(sc, 'u')) {
        return scan_unicode(sc, to);
    }
    const char *letter = sc->at < sc->end ? strchr(letters, *sc->at) : NULL;
    if (!letter) {
        sc->at--;
        fail(sc, "no such escape");
        return NULL;
    }
    *to++ = meant[letter - letters];
    sc->at++;
    return to;
}

/* At the opening quote. The decoded text, or NULL. */
static const char *
scan_string(struct scanner *sc)
{
    const char *opened = sc->at, *close = sc->at + 1;
    while (close < sc->end && *close != '"' && *close != '\n') {
        close += *close == '\\' && close + 1 < sc->end ? 2 : 1;
    }
    size_t most = (size_t)(close - sc->at);
    char *text = conf_arena_alloc(sc->arena, most + 1), *to = text;
    sc->at++;
    while (sc->at < sc->end && *sc->at != '"') {
        if ((unsigned char)*sc->at < 0x20) {
            fail(sc, *sc->at == '\n' ? "this string does not end" : "a control character");
            return NULL;
        }
        if (*sc->at != '\\') {
            *to++ = *sc->at++;
        } else if (!(to = scan_escape(sc, to))) {
            return NULL;
        }
    }
    if (sc->at == sc->end) {
        sc->at = opened;
        fail(sc, "this string does not end");
        return NULL;
    }
    sc->at++;
    return text;
}

/* ---- numbers and words ---- */

static size_t
skip_digits(struct scanner *sc)
{
    const char *from = sc->at;
    while (sc->at < sc->end && *sc->at >= '0' && *sc->at <= '9') {
        sc->at++;
    }
    return (size_t)(sc->at - from);
}

static bool
scan_number(struct scanner *sc, struct node *node)
{
    node->kind = NODE_NUMBER;
    if (next_is(sc, '-')) {
        sc->at++;
    }
    bool is_zero = next_is(sc, '0');
    size_t digits = skip_digits(sc);
    if (digits == 0 || (is_zero && digits > 1)) {
        return fail(sc, digits ? "a number does not begin with 0" : "expected a digit");
    }
    if (next_is(sc, '.')) {
        node->kind = NODE_REAL;
        sc->at++;
        if (!skip_digits(sc)) {
            return fail(sc, "expected a digit");
        }
    }
    if (next_is(sc, 'e') || next_is(sc, 'E')) {
        node->kind = NODE_REAL;
        sc->at++;
        if (next_is(sc, '+') || next_is(sc, '-')) {
            sc->at++;
        }
        if (!skip_digits(sc)) {
            return fail(sc, "expected a digit");
        }
    }
    return true;
}

static bool
scan_word(struct scanner *sc, struct node *node)
{
    static const struct {
        const char *word;
        enum node_kind kind;
    } words[] = {{"true", NODE_BOOL}, {"false", NODE_BOOL}, {"null", NODE_NULL}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t len = strlen(words[i].word);
        if ((size_t)(sc->end - sc->at) >= len && memcmp(sc->at, words[i].word, len) == 0) {
            sc->at += len;
            node->kind = words[i].kind;
            return true;
        }
    }
    return fail(sc, "expected a value");
}

/* ---- duplicate keys ---- */

static size_t
key_hash(const struct node *object, const char *key)
{
    uint64_t hash = 14695981039346656037u ^ (uintptr_t)object;
    for (; *key; key++) {
        hash = (hash ^ (unsigned char)*key) * 1099511628211u;
    }
    return (size_t)(hash ^ hash >> 29);
}

static struct node **
key_find(const struct scanner *sc, const struct node *object, const char *key)
{
    size_t at = key_hash(object, key) & (sc->seen_size - 1);
    while (sc->seen[at] && (sc->seen[at]->home != object || strcmp(sc->seen[at]->key, key) != 0)) {
        at = (at + 1) & (sc->seen_size - 1);
    }
    return &sc->seen[at];
}

static void
key_grow(struct scanner *sc)
{
    struct scanner old = *sc;
    sc->seen_size = old.seen_size ? old.seen_size * 2 : 256;
    sc->seen = conf_arena_array(sc->arena, sc->seen_size, sizeof(*sc->seen));
    for (size_t i = 0; i < old.seen_size; i++) {
        if (old.seen[i]) {
            *key_find(sc, old.seen[i]->home, old.seen[i]->key) = old.seen[i];
        }
    }
}

/* false: the object has the key already. */
static bool
key_add(struct scanner *sc, struct node *node)
{
    if (sc->nseen * 2 >= sc->seen_size) {
        key_grow(sc);
    }
    struct node **seen = key_find(sc, node->home, node->key);
    if (*seen) {
        report_key(sc->report, node, "duplicate key; it is on line %u already",
                   (*seen)->key_at.line);
        return false;
    }
    *seen = node;
    sc->nseen++;
    return true;
}

/* ---- objects and lists ---- */

static bool
scan_member(struct scanner *sc, struct node *object)
{
    if (!next_is(sc, '"')) {
        return fail(sc, object->count ? "expected a key after the comma" : "expected a key or '}'");
    }
    struct place key_at = place_here(sc);
    const char *key = scan_string(sc);
    if (!key || !skip_blanks(sc)) {
        return false;
    }
    if (!next_is(sc, ':')) {
        return fail(sc, "expected ':'");
    }
    sc->at++;
    struct node *node = skip_blanks(sc) ? scan_value(sc) : NULL;
    if (!node) {
        return false;
    }
    node->home = object;
    node->key = node->name = key;
    node->key_at = key_at;
    if (key_add(sc, node)) {
        node_append(object, node);
    }
    return true;
}

static bool
scan_element(struct scanner *sc, struct node *list)
{
    struct node *node = scan_value(sc);
    if (!node) {
        return false;
    }
    node->home = list;
    node->index = list->count;
    node_append(list, node);
    return true;
}

/* At the opening bracket. */
static bool
scan_members(struct scanner *sc, struct node *node, char close)
{
    bool (*scan_one)(struct scanner *, struct node *) = close == '}' ? scan_member : scan_element;
    sc->at++;
    if (!skip_blanks(sc)) {
        return false;
    }
    bool is_first = true;
    while (!is_first || !next_is(sc, close)) {
        if (!scan_one(sc, node) || !skip_blanks(sc)) {
            return false;
        }
        is_first = false;
        if (next_is(sc, close)) {
            break;
        }
        if (!next_is(sc, ',')) {
            return fail(sc, close == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
        }
        sc->at++;
        if (!skip_blanks(sc)) {
            return false;
        }
    }
    sc->at++;
    return true;
}

static bool
scan_container(struct scanner *sc, struct node *node, char close)
{
    if (sc->depth == SCAN_DEPTH) {
        return fail(sc, "nested too deep");
    }
    node->kind = close == '}' ? NODE_OBJECT : NODE_LIST;
    sc->depth++;
    bool is_well = scan_members(sc, node, close);
    sc->depth--;
    return is_well;
}

static struct node *
scan_value(struct scanner *sc)
{
    struct node *node = node_new(sc->arena, NODE_NULL, NULL);
    node->at = place_here(sc);
    bool is_well;
    if (next_is(sc, '{')) {
        is_well = scan_container(sc, node, '}');
    } else if (next_is(sc, '[')) {
        is_well = scan_container(sc, node, ']');
    } else if (next_is(sc, '"')) {
        node->kind = NODE_STRING;
        node->text = scan_string(sc);
        is_well = node->text != NULL;
    } else if (sc->at < sc->end && (*sc->at == '-' || (*sc->at >= '0' && *sc->at <= '9'))) {
        is_well = scan_number(sc, node);
    } else {
        is_well = scan_word(sc, node);
    }
    return is_well ? node : NULL;
}

struct node *
scan_included(struct conf_arena *arena, const struct included *file, struct slice text,
              struct report *report)
{
    struct scanner sc = {
        .arena = arena,
        .report = report,
        .file = file,
        .text = text.ptr,
        .at = text.ptr,
        .end = text.ptr + text.len,
        .line_start = text.ptr,
        .line = 1,
    };
    if (text.len >= INT32_MAX) {
        report_place(report, place_here(&sc), "this file is too long");
        return NULL;
    }
    sc.clean = conf_arena_copy(arena, text);
    struct node *root = NULL;
    if (check_bytes(&sc) && skip_blanks(&sc)) {
        root = scan_value(&sc);
    }
    if (root && skip_blanks(&sc) && sc.at < sc.end) {
        fail(&sc, "expected the end of the file");
    }
    if (!sc.wrong) {
        sc.wrong = scan_values(arena, root, sc.clean, text.len);
    }
    if (sc.wrong) {
        report_place(report, place_here(&sc), sc.wrong);
        return NULL;
    }
    return root;
}

struct node *
scan_text(struct conf_arena *arena, struct slice text, struct report *report)
{
    return scan_included(arena, NULL, text, report);
}
