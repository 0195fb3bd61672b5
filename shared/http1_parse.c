/* SPDX-License-Identifier: Apache-2.0
 *
 * http1_parse.c - HTTP/1.x heads and trailer sections (RFC 9112), in one pass over the bytes.
 *
 * The cursor goes forward only. Every reader below stops at the first byte that cannot stand where
 * it stands, at the end of what has arrived, or behind the element; it never looks past the end.
 */
#include "shared/http1.h"

#include <limits.h>

#include "shared/http_head.h"

/* What readers return: 0 for done, NEED_MORE, or an enum reason. */
#define NEED_MORE (-1)

struct cursor {
    const char *at;
    const char *end; /* of what has arrived, or of what the limit lets be looked at */
};

enum head_kind { HEAD_REQUEST, HEAD_RESPONSE, HEAD_TRAILERS };

/* A head on its way; what must be known of it only until its end stands here, not in the message.
 */
struct head {
    struct cursor cursor;
    struct http_msg *m;
    enum head_kind kind;
    enum reason malformed; /* the reason for everything that breaks the grammar */
    struct http_field *host;
    bool has_upgrade_option;
    uint16_t nupgrades;
    struct slice upgrade; /* the value of the last of them */
};

/* CRLF or LF (RFC 9112 2.2). */
static int
read_line_end(struct cursor *c, enum reason malformed)
{
    const char *p = c->at;
    if (p < c->end && *p == '\r') {
        p++;
    }
    if (p == c->end) {
        return NEED_MORE;
    }
    if (*p != '\n') {
        return malformed;
    }
    c->at = p + 1;
    return 0;
}

/* "HTTP/1." DIGIT. Minors above 1 are 1 to us (RFC 9110 2.5). */
static int
read_version(struct cursor *c, struct http_msg *m, enum reason malformed)
{
    static const char name[] = "HTTP/1.";
    const size_t name_len = sizeof(name) - 1;
    size_t left = (size_t)(c->end - c->at);
    if (memcmp(c->at, name, left < name_len ? left : name_len) != 0) {
        return malformed;
    }
    if (left <= name_len) {
        return NEED_MORE;
    }
    char digit = c->at[name_len];
    if (!http_char_is(digit, HTTP_C_DIGIT)) {
        return malformed;
    }
    m->minor = digit != '0';
    c->at += name_len + 1;
    return 0;
}

/* RFC 9112 3.2.2; http and https only. A query without a path before it would have to be rewritten
 * and is refused. */
static int
set_absolute_target(struct http_msg *m, struct slice target)
{
    const char *end = target.ptr + target.len;
    const char *colon = memchr(target.ptr, ':', target.len);
    if (!colon || end - colon < 3 || colon[1] != '/' || colon[2] != '/') {
        return REASON_bad_request;
    }
    const char *path = colon + 3;
    while (path < end && *path != '/' && *path != '?') {
        path++;
    }
    m->scheme = slice_of(target.ptr, (size_t)(colon - target.ptr));
    m->authority = slice_of(colon + 3, (size_t)(path - colon - 3));
    if (!http_head_is_scheme(m->scheme) || !http_is_authority(m->authority, false) ||
        (path < end && *path == '?')) {
        return REASON_bad_request;
    }
    struct slice whole = slice_of(path, (size_t)(end - path));
    if (path == end) {
        whole = m->method == HTTP_OPTIONS ? SLICE("*") : SLICE("/");
    }
    return http_head_set_path(m, whole) ? 0 : REASON_bad_request;
}

static int
set_target(struct http_msg *m, struct slice target)
{
    if (m->method == HTTP_CONNECT) {
        return http_head_set_tunnel(m, target) ? 0 : REASON_bad_request;
    }
    return http_head_set_path(m, target) ? 0 : set_absolute_target(m, target);
}

/* method SP target SP version (RFC 9112 3), each separated by exactly one space. */
static int
read_request_line(struct cursor *c, struct http_msg *m)
{
    const char *method = c->at;
    const char *p = http_chars_skip(method, c->end, HTTP_C_TOKEN);
    if (p - method > HTTP_METHOD_MAX) {
        return REASON_bad_request;
    }
    if (p == c->end) {
        return NEED_MORE;
    }
    if (*p != ' ' || !http_head_set_method(m, slice_of(method, (size_t)(p - method)))) {
        return REASON_bad_request;
    }

    const char *target = p + 1;
    p = http_chars_skip(target, c->end, HTTP_C_TARGET);
    if (p == c->end) {
        return NEED_MORE;
    }
    if (p == target || *p != ' ' || set_target(m, slice_of(target, (size_t)(p - target))) != 0) {
        return REASON_bad_request;
    }
    c->at = p + 1;
    int rc = read_version(c, m, REASON_bad_request);
    return rc ? rc : read_line_end(c, REASON_bad_request);
}

/* SP and three digits, 100 to 599. */
static int
read_status(struct cursor *c, struct http_msg *m)
{
    if (c->at == c->end) {
        return NEED_MORE;
    }
    if (*c->at != ' ') {
        return REASON_bad_response;
    }
    const char *p = c->at + 1;
    for (int i = 0; i < 3; i++, p++) {
        if (p == c->end) {
            return NEED_MORE;
        }
        if (!http_is_status_digit(*p, i)) {
            return REASON_bad_response;
        }
        m->status = (uint16_t)(m->status * 10 + (*p - '0'));
    }
    c->at = p;
    return 0;
}

/* version SP status [SP phrase] (RFC 9112 4); the space before an empty phrase may be missing. */
static int
read_status_line(struct cursor *c, struct http_msg *m)
{
    int rc = read_version(c, m, REASON_bad_response);
    rc = rc ? rc : read_status(c, m);
    if (rc) {
        return rc;
    }
    if (c->at < c->end && *c->at == ' ') {
        const char *phrase = c->at + 1;
        c->at = http_chars_skip_value(phrase, c->end);
        m->phrase = slice_of(phrase, (size_t)(c->at - phrase));
    }
    return read_line_end(c, REASON_bad_response);
}

/* name ":" OWS value OWS (RFC 9112 5). White space before the name (obsolete folding) or before the
 * colon stops the name early and is so refused. */
static int
read_field(struct cursor *c, struct http_field *f, enum reason malformed)
{
    const char *name = c->at;
    const char *colon = http_chars_skip(name, c->end, HTTP_C_TOKEN);
    if (colon - name > HTTP_FIELD_NAME_MAX) {
        return malformed;
    }
    if (colon == c->end) {
        return NEED_MORE;
    }
    if (colon == name || *colon != ':') {
        return malformed;
    }
    const char *value = colon + 1;
    while (value < c->end && http_char_is_ows(*value)) {
        value++;
    }
    const char *line_end = http_chars_skip_value(value, c->end);
    c->at = line_end;
    int rc = read_line_end(c, malformed);
    if (rc) {
        return rc;
    }
    const char *value_end = line_end;
    while (value_end > value && http_char_is_ows(value_end[-1])) {
        value_end--;
    }
    f->name = slice_of(name, (size_t)(colon - name));
    f->value = slice_of(value, (size_t)(value_end - value));
    f->id = (uint8_t)http_field_find_id(f->name);
    f->drop = false;
    f->is_secret = false;
    f->is_plain =
        value == colon + 2 && colon[1] == ' ' && value_end == line_end && c->at == line_end + 2;
    return 0;
}

static int
note_coding(struct head *h, struct slice value)
{
    bool is_first = !(h->m->seen & HTTP_SEEN_CODING);
    h->m->seen |= HTTP_SEEN_CODING;
    if (is_first && slice_eq_nocase(value, SLICE("chunked"))) {
        h->m->seen |= HTTP_SEEN_CHUNKED;
    } else {
        h->m->seen &= (uint16_t)~HTTP_SEEN_CHUNKED;
    }
    return 0;
}

static void
note_option(struct head *h, struct slice option)
{
    if (slice_eq_nocase(option, SLICE("keep-alive"))) {
        h->m->seen |= HTTP_SEEN_KEEP_ALIVE;
    } else if (slice_eq_nocase(option, SLICE("close"))) {
        h->m->seen |= HTTP_SEEN_CLOSE;
    } else if (slice_eq_nocase(option, SLICE("upgrade"))) {
        h->has_upgrade_option = true;
    } else if (!slice_eq_nocase(option, SLICE("te"))) {
        h->m->seen |= HTTP_SEEN_OPTIONS;
    }
}

/* A list of tokens (RFC 9110 7.6.1). */
static int
note_connection(struct head *h, struct slice value)
{
    struct slice option;
    while ((option = http_list_next(&value)).len > 0) {
        if (!http_is_token(option)) {
            return h->malformed;
        }
        note_option(h, option);
    }
    return 0;
}

static int
note_host(struct head *h, struct http_field *f)
{
    if (h->host || !http_is_authority(f->value, false)) {
        return h->malformed;
    }
    h->host = f;
    return 0;
}

/* Remember what the fields say about framing and the connection. In trailers they say nothing. */
static int
note_field(struct head *h, struct http_field *f)
{
    if (h->kind == HEAD_TRAILERS) {
        return 0;
    }
    switch (f->id) {
    case HTTP_FIELD_CONNECTION: return note_connection(h, f->value);
    case HTTP_FIELD_CONTENT_LENGTH:
        return http_head_note_length(h->m, f->value) ? 0 : (int)h->malformed;
    case HTTP_FIELD_TRANSFER_ENCODING: return note_coding(h, f->value);
    case HTTP_FIELD_HOST: return h->kind == HEAD_REQUEST ? note_host(h, f) : 0;
    case HTTP_FIELD_EXPECT: http_head_note_expect(h->m, f->value); return 0;
    case HTTP_FIELD_TE: http_head_note_te(h->m, f->value); return 0;
    case HTTP_FIELD_UPGRADE:
        h->nupgrades++;
        h->upgrade = f->value;
        return 0;
    default: return 0;
    }
}

/* Fields up to and including the empty line. */
static int
read_fields(struct head *h, const struct http_limits *limits)
{
    struct cursor *c = &h->cursor;
    struct http_msg *m = h->m;
    uint16_t room = limits->header_count < m->max_fields ? limits->header_count : m->max_fields;
    while (c->at < c->end && *c->at != '\r' && *c->at != '\n') {
        if (m->nfields == room) {
            return REASON_header_too_large;
        }
        struct http_field *f = &m->fields[m->nfields];
        int rc = read_field(c, f, h->malformed);
        if (rc == 0 && f->id != HTTP_FIELD_OTHER) {
            rc = note_field(h, f);
        }
        if (rc) {
            return rc;
        }
        m->nfields++;
    }
    return read_line_end(c, h->malformed);
}

/* What only a whole head can tell. HTTP/1.0 knows neither Upgrade nor 100-continue (RFC 9110 7.8,
 * 10.1.1): they are not seen. */
static void
close_head(struct head *h)
{
    struct http_msg *m = h->m;
    if (h->has_upgrade_option && h->nupgrades > 0) {
        m->seen |= HTTP_SEEN_UPGRADE;
    }
    if (m->minor == 0) {
        m->seen &= (uint16_t) ~(HTTP_SEEN_UPGRADE | HTTP_SEEN_CONTINUE);
    }
    if ((m->seen & HTTP_SEEN_UPGRADE) && h->nupgrades == 1) {
        m->upgrade = http_upgrade_protocol(h->upgrade);
    }
}

/* RFC 9112 3.2: HTTP/1.1 needs a Host, and the target's authority takes its place (3.2.2). */
static int
judge_request(struct head *h)
{
    struct http_msg *m = h->m;
    close_head(h);
    if (!h->host && m->minor >= 1) {
        return REASON_bad_request;
    }
    if (h->host && m->authority.len == 0) {
        m->authority = h->host->value;
    } else if (h->host && !slice_eq(h->host->value, m->authority)) {
        h->host->value = m->authority;
        h->host->is_plain = false;
    }
    return http_frame_request(m);
}

/* Nothing of *m counts but the room for fields. */
static struct head
head_begin(const char *buf, size_t len, const struct http_limits *limits, struct http_msg *m)
{
    size_t most = limits->header_bytes < INT_MAX ? limits->header_bytes : INT_MAX;
    *m = (struct http_msg){.fields = m->fields, .max_fields = m->max_fields};
    return (struct head){.cursor = {buf, buf + (len < most ? len : most)}, .m = m};
}

/* Turn what the readers said into what the caller gets. too_large: the reason when the head has not
 * ended within the limit. */
static int
head_result(const struct head *h, const char *buf, const struct http_limits *limits, int rc,
            enum reason too_large)
{
    if (rc == 0) {
        return (int)(h->cursor.at - buf);
    }
    if (rc != NEED_MORE) {
        return -rc;
    }
    return (size_t)(h->cursor.end - buf) >= limits->header_bytes ? -(int)too_large : 0;
}

int
http1_parse_request(const char *buf, size_t len, const struct http_limits *limits,
                    struct http_msg *m)
{
    struct head h = head_begin(buf, len, limits, m);
    enum reason too_large = REASON_uri_too_long;
    int rc = 0;
    h.kind = HEAD_REQUEST;
    h.malformed = REASON_bad_request;
    if (len > 0 && (*buf == '\r' || *buf == '\n')) {
        rc = read_line_end(&h.cursor, h.malformed);
    }
    rc = rc ? rc : read_request_line(&h.cursor, m);
    if (rc == 0) {
        too_large = REASON_header_too_large;
        rc = read_fields(&h, limits);
    }
    rc = rc ? rc : judge_request(&h);
    return head_result(&h, buf, limits, rc, too_large);
}

int
http1_parse_response(const char *buf, size_t len, const struct http_limits *limits,
                     enum http_method request_method, struct http_msg *m)
{
    struct head h = head_begin(buf, len, limits, m);
    h.kind = HEAD_RESPONSE;
    h.malformed = REASON_bad_response;
    int rc = read_status_line(&h.cursor, m);
    rc = rc ? rc : read_fields(&h, limits);
    if (rc == 0) {
        close_head(&h);
        rc = http_frame_response(m, request_method);
    }
    rc = rc > 0 ? REASON_bad_response : rc; /* whatever it is, the backend is to blame */
    return head_result(&h, buf, limits, rc, REASON_bad_response);
}

int
http1_parse_trailers(const char *buf, size_t len, const struct http_limits *limits,
                     struct http_msg *m)
{
    struct head h = head_begin(buf, len, limits, m);
    h.kind = HEAD_TRAILERS;
    h.malformed = REASON_bad_request;
    int rc = read_fields(&h, limits);
    return head_result(&h, buf, limits, rc, REASON_header_too_large);
}

size_t
http1_head_end(const char *buf, size_t len, size_t from)
{
    const char *end = buf + len;
    const char *p = buf + from;
    while (p < end && (p = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        size_t at = (size_t)(p - buf);
        if ((at >= 1 && p[-1] == '\n') || (at >= 2 && p[-1] == '\r' && p[-2] == '\n')) {
            return at + 1;
        }
        p++;
    }
    return 0;
}
