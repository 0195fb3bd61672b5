/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_message.c - a field block becomes a message (RFC 9113 8.2, 8.3): see http2.h.
 */
#include "shared/http2.h"

#include "shared/http_head.h"

#define FIELD_OVERHEAD 32 /* RFC 9113 6.5.2 */
#define FIELDS_FIRST   24 /* room for fields, to begin with */
#define COOKIE_FIRST   512

/* Pseudo-fields, and the blocks that may have them (RFC 9113 8.3.1, 8.3.2, RFC 8441 4). */
#define PSEUDO_METHOD    0x01
#define PSEUDO_SCHEME    0x02
#define PSEUDO_AUTHORITY 0x04
#define PSEUDO_PATH      0x08
#define PSEUDO_PROTOCOL  0x10
#define PSEUDO_STATUS    0x20

static const struct {
    struct slice name;
    uint8_t bit;
    uint8_t kind;
} pseudo_table[] = {
    {{":method", sizeof(":method") - 1}, PSEUDO_METHOD, HTTP2_REQUEST},
    {{":path", sizeof(":path") - 1}, PSEUDO_PATH, HTTP2_REQUEST},
    {{":scheme", sizeof(":scheme") - 1}, PSEUDO_SCHEME, HTTP2_REQUEST},
    {{":authority", sizeof(":authority") - 1}, PSEUDO_AUTHORITY, HTTP2_REQUEST},
    {{":protocol", sizeof(":protocol") - 1}, PSEUDO_PROTOCOL, HTTP2_REQUEST},
    {{":status", sizeof(":status") - 1}, PSEUDO_STATUS, HTTP2_RESPONSE},
};
#define PSEUDO_COUNT (sizeof(pseudo_table) / sizeof(pseudo_table[0]))

void
http2_head_begin(struct http2_head *h, enum http2_block kind, const struct http_limits *limits,
                 http2_alloc_fn *alloc, void *owner)
{
    *h = (struct http2_head){
        .m = {.minor = 1, .is_keep_alive = true},
        .alloc = alloc,
        .owner = owner,
        .bytes_left = limits->header_bytes,
        .count_left = limits->header_count,
        .kind = (uint8_t)kind,
    };
}

static enum reason
malformed(const struct http2_head *h)
{
    return h->kind == HTTP2_REQUEST ? REASON_bad_request : REASON_bad_response;
}

static enum reason
too_large(const struct http2_head *h, struct slice name)
{
    if (h->kind == HTTP2_RESPONSE) {
        return REASON_bad_response;
    }
    return slice_eq(name, SLICE(":path")) ? REASON_uri_too_long : REASON_header_too_large;
}

/* A copy of len bytes; ptr is NULL when there is no memory. */
static struct slice
copy_bytes(struct http2_head *h, struct slice bytes)
{
    char *copy = h->alloc(h->owner, bytes.len > 0 ? bytes.len : 1);
    if (copy && bytes.len > 0) {
        memcpy(copy, bytes.ptr, bytes.len);
    }
    return slice_of(copy, bytes.len);
}

/* ---- pseudo-fields ---- */

/* Three digits (RFC 9113 8.3.2). There is no 101 in HTTP/2 (8.6). */
static bool
set_status(struct http_msg *m, struct slice value)
{
    if (value.len != 3) {
        return false;
    }
    for (int i = 0; i < 3; i++) {
        if (!http_is_status_digit(value.ptr[i], i)) {
            return false;
        }
        m->status = (uint16_t)(m->status * 10 + (value.ptr[i] - '0'));
    }
    return m->status != 101;
}

/* Octets are judged here, and what they may mean together at the end of the block. */
static bool
set_pseudo(struct http2_head *h, uint8_t bit, struct slice value)
{
    struct http_msg *m = &h->m;
    switch (bit) {
    case PSEUDO_METHOD: return http_head_set_method(m, value);
    case PSEUDO_PATH: m->target = value; return http_is_target(value);
    case PSEUDO_SCHEME: return http_head_is_scheme(value);
    case PSEUDO_AUTHORITY: m->authority = value; return http_is_authority(value, false);
    case PSEUDO_PROTOCOL: m->upgrade = http_upgrade_protocol(value); return m->upgrade.len > 0;
    default: return set_status(m, value);
    }
}

/* Known, of this kind of block, once, and before all others (RFC 9113 8.3). */
static uint8_t
judge_pseudo(const struct http2_head *h, struct slice name)
{
    for (size_t i = 0; i < PSEUDO_COUNT; i++) {
        uint8_t bit = pseudo_table[i].bit;
        if (slice_eq(name, pseudo_table[i].name)) {
            bool is_good = pseudo_table[i].kind == h->kind && !(h->pseudo & bit) && !h->has_fields;
            return is_good ? bit : 0;
        }
    }
    return 0;
}

static enum reason
take_pseudo(struct http2_head *h, struct slice name, struct slice value)
{
    uint8_t bit = judge_pseudo(h, name);
    if (bit == 0) {
        return malformed(h);
    }
    struct slice copy = copy_bytes(h, value);
    if (!copy.ptr) {
        return REASON_internal;
    }
    h->pseudo |= bit;
    return set_pseudo(h, bit, copy) ? REASON_none : malformed(h);
}

/* ---- fields ---- */

/* A lower-case token (RFC 9113 8.2.1). */
static bool
is_field_name(struct slice name)
{
    if (name.len > HTTP_FIELD_NAME_MAX || !http_is_token(name)) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] >= 'A' && name.ptr[i] <= 'Z') {
            return false;
        }
    }
    return true;
}

/* No control characters, no white space around it (RFC 9113 8.2.1). */
static bool
is_value(struct slice value)
{
    return http_is_field_value(value) &&
           (value.len == 0 ||
            (!http_char_is_ows(value.ptr[0]) && !http_char_is_ows(value.ptr[value.len - 1])));
}

/* Connection-specific fields are malformed, but for "te: trailers" of a request (RFC 9113 8.2.2).
 */
static bool
is_allowed(const struct http2_head *h, const struct http_field *f)
{
    if (f->id == HTTP_FIELD_TE) {
        return h->kind == HTTP2_REQUEST && slice_eq_nocase(f->value, SLICE("trailers"));
    }
    return !http_is_hop_by_hop(f);
}

/* Make room for more fields. The array doubles, so the memory given up is bounded. */
static bool
grow(struct http2_head *h)
{
    struct http_msg *m = &h->m;
    size_t room = m->max_fields > 0 ? 2u * m->max_fields : FIELDS_FIRST;
    if (room + HTTP2_SPARE_FIELDS > UINT16_MAX) {
        return false;
    }
    struct http_field *fields = h->alloc(h->owner, (room + HTTP2_SPARE_FIELDS) * sizeof(*fields));
    if (!fields) {
        return false;
    }
    if (m->nfields > 0) {
        memcpy(fields, m->fields, m->nfields * sizeof(*fields));
    }
    m->fields = fields;
    m->max_fields = (uint16_t)room;
    return true;
}

/* A place for one more field, or NULL. */
static struct http_field *
add_room(struct http2_head *h)
{
    struct http_msg *m = &h->m;
    if (m->nfields == m->max_fields && !grow(h)) {
        return NULL;
    }
    return &m->fields[m->nfields++];
}

/* The Host field that HTTP/1 has, for :authority. */
static enum reason
add_host(struct http2_head *h)
{
    h->has_fields = true;
    if (h->kind != HTTP2_REQUEST || h->m.authority.len == 0) {
        return REASON_none;
    }
    struct http_field *f = add_room(h);
    if (!f) {
        return REASON_internal;
    }
    *f = (struct http_field){
        .name = http_field_name(HTTP_FIELD_HOST), .value = h->m.authority, .id = HTTP_FIELD_HOST};
    return REASON_none;
}

static enum reason
add_field(struct http2_head *h, const struct http_field *f)
{
    bool is_known = f->id != HTTP_FIELD_OTHER;
    struct slice name =
        is_known ? http_field_name((enum http_field_id)f->id) : copy_bytes(h, f->name);
    struct slice value = copy_bytes(h, f->value);
    struct http_field *added = name.ptr && value.ptr ? add_room(h) : NULL;
    if (!added) {
        return REASON_internal;
    }
    *added = *f;
    added->name = name;
    added->value = value;
    return REASON_none;
}

/* Cookie crumbs are one field (RFC 9113 8.2.3), whose memory doubles too. */
static enum reason
join_cookie(struct http2_head *h, const struct http_field *f)
{
    struct http_field *whole = &h->m.fields[h->cookie - 1];
    size_t len = whole->value.len + 2 + f->value.len;
    char *text = (char *)whole->value.ptr; /* our own copy: see add_field */
    if (len > h->cookie_cap) {
        size_t cap = 2 * len > COOKIE_FIRST ? 2 * len : COOKIE_FIRST;
        text = h->alloc(h->owner, cap);
        if (!text) {
            return REASON_internal;
        }
        memcpy(text, whole->value.ptr, whole->value.len);
        h->cookie_cap = (uint32_t)cap;
    }
    memcpy(text + whole->value.len, "; ", 2);
    memcpy(text + whole->value.len + 2, f->value.ptr, f->value.len);
    whole->value = slice_of(text, len);
    whole->is_secret |= f->is_secret;
    return REASON_none;
}

static enum reason
take_cookie(struct http2_head *h, const struct http_field *f)
{
    if (f->value.len == 0) {
        return REASON_none; /* nothing to join */
    }
    if (h->cookie != 0) {
        return join_cookie(h, f);
    }
    enum reason why = add_field(h, f);
    h->cookie = h->m.nfields;
    h->cookie_cap = (uint32_t)f->value.len;
    return why;
}

/* Host beside :authority says the same or is refused (RFC 9113 8.3.1); alone it stands for it. */
static enum reason
take_host(struct http2_head *h, const struct http_field *f)
{
    if (h->has_host || !http_is_authority(f->value, false)) {
        return REASON_bad_request;
    }
    h->has_host = true;
    if (h->m.authority.len > 0) {
        return slice_eq_nocase(h->m.authority, f->value) ? REASON_none : REASON_bad_request;
    }
    enum reason why = add_field(h, f);
    if (why == REASON_none) {
        h->m.authority = h->m.fields[h->m.nfields - 1].value;
    }
    return why;
}

static enum reason
take_request_field(struct http2_head *h, const struct http_field *f)
{
    switch (f->id) {
    case HTTP_FIELD_HOST: return take_host(h, f);
    case HTTP_FIELD_COOKIE: return take_cookie(h, f);
    case HTTP_FIELD_EXPECT: http_head_note_expect(&h->m, f->value); break;
    case HTTP_FIELD_TE: http_head_note_te(&h->m, f->value); break;
    default: break;
    }
    return add_field(h, f);
}

static enum reason
take_field(struct http2_head *h, const struct http_field *f)
{
    if (!is_field_name(f->name) || !is_value(f->value) || !is_allowed(h, f)) {
        return malformed(h);
    }
    if (h->kind == HTTP2_TRAILERS) {
        return http_is_trailer_allowed(f) ? add_field(h, f) : REASON_none;
    }
    enum reason why = h->has_fields ? REASON_none : add_host(h);
    if (why != REASON_none) {
        return why;
    }
    if (f->id == HTTP_FIELD_CONTENT_LENGTH && !http_head_note_length(&h->m, f->value)) {
        return malformed(h);
    }
    return h->kind == HTTP2_REQUEST ? take_request_field(h, f) : add_field(h, f);
}

/* Is there room for it? Before anything is copied. */
static bool
charge(struct http2_head *h, struct slice name, struct slice value, bool is_counted)
{
    size_t bytes = name.len + value.len + FIELD_OVERHEAD;
    if (bytes > h->bytes_left || (is_counted && h->count_left == 0)) {
        return false;
    }
    h->bytes_left -= (uint32_t)bytes;
    h->count_left = (uint16_t)(h->count_left - is_counted);
    return true;
}

enum reason
http2_head_field(struct http2_head *h, struct slice name, struct slice value, bool never_index)
{
    if (h->why != REASON_none) {
        return (enum reason)h->why;
    }
    bool is_pseudo = name.len > 0 && name.ptr[0] == ':';
    struct http_field f = {.name = name, .value = value, .is_secret = never_index};
    f.id = is_pseudo ? HTTP_FIELD_OTHER : (uint8_t)http_field_find_id(name);
    bool is_joined = f.id == HTTP_FIELD_COOKIE && h->cookie != 0;
    if (!charge(h, name, value, !is_pseudo && !is_joined)) {
        h->why = (uint8_t)too_large(h, name);
    } else {
        h->why = (uint8_t)(is_pseudo ? take_pseudo(h, name, value) : take_field(h, &f));
    }
    return (enum reason)h->why;
}

/* ---- whole blocks ---- */

static enum reason
refuse(struct http2_head *h, enum reason why)
{
    h->why = (uint8_t)why;
    return why;
}

/* RFC 9113 8.5, and RFC 8441 4 where :protocol is there. */
static bool
judge_connect(struct http2_head *h)
{
    struct http_msg *m = &h->m;
    uint8_t form = h->pseudo & (PSEUDO_SCHEME | PSEUDO_PATH | PSEUDO_PROTOCOL);
    if (form == 0) {
        return http_head_set_tunnel(m, m->authority);
    }
    if (form != (PSEUDO_SCHEME | PSEUDO_PATH | PSEUDO_PROTOCOL) || (m->seen & HTTP_SEEN_LENGTH)) {
        return false;
    }
    m->method_text = SLICE("GET");
    m->method = HTTP_GET;
    m->seen |= HTTP_SEEN_UPGRADE;
    return http_head_set_path(m, m->target);
}

/* RFC 9113 8.3.1. */
static bool
judge_pseudo_request(struct http2_head *h)
{
    struct http_msg *m = &h->m;
    uint8_t needed = PSEUDO_METHOD | PSEUDO_SCHEME | PSEUDO_PATH;
    if (m->authority.len == 0) {
        return false;
    }
    if (m->method == HTTP_CONNECT) {
        return judge_connect(h);
    }
    return (h->pseudo & (needed | PSEUDO_PROTOCOL)) == needed && http_head_set_path(m, m->target);
}

/* What has no end yet and no length is CHUNKED to us; what has an end cannot lack bytes. */
static bool
frame_request(struct http_msg *m, bool is_last)
{
    if (http_frame_request(m) != REASON_none || (is_last && m->body != HTTP_BODY_NONE)) {
        return false;
    }
    bool is_open = !is_last && !(m->seen & (HTTP_SEEN_LENGTH | HTTP_SEEN_UPGRADE));
    m->body = is_open ? HTTP_BODY_CHUNKED : m->body;
    return true;
}

enum reason
http2_head_end_request(struct http2_head *h, bool is_last)
{
    if (h->why == REASON_none && !h->has_fields) {
        h->why = (uint8_t)add_host(h);
    }
    if (h->why != REASON_none) {
        return (enum reason)h->why;
    }
    bool is_good = judge_pseudo_request(h) && frame_request(&h->m, is_last);
    return refuse(h, is_good ? REASON_none : REASON_bad_request);
}

static bool
frame_response(struct http_msg *m, bool is_last, enum http_method request_method)
{
    if (http_frame_response(m, request_method) != REASON_none) {
        return false;
    }
    m->is_keep_alive = true;
    m->phrase = http_status_phrase(m->status);
    if (is_last) {
        bool is_short = m->body == HTTP_BODY_LENGTH;
        m->body = HTTP_BODY_NONE;
        return m->status >= 200 && !is_short;
    }
    m->body = m->body == HTTP_BODY_CLOSE ? HTTP_BODY_CHUNKED : m->body;
    return true;
}

enum reason
http2_head_end_response(struct http2_head *h, bool is_last, enum http_method request_method,
                        struct slice upgrade)
{
    if (h->why != REASON_none) {
        return (enum reason)h->why;
    }
    struct http_msg *m = &h->m;
    if (!m->fields && !grow(h)) {
        return refuse(h, REASON_internal);
    }
    bool is_upgrade = upgrade.len > 0 && m->status >= 200 && m->status < 300;
    if (!(h->pseudo & PSEUDO_STATUS) || (is_upgrade && (m->seen & HTTP_SEEN_LENGTH))) {
        return refuse(h, REASON_bad_response);
    }
    if (is_upgrade) {
        m->status = 101;
        m->phrase = http_status_phrase(m->status);
        m->upgrade = upgrade;
        m->seen |= HTTP_SEEN_UPGRADE;
        return REASON_none; /* a tunnel: no body, whether or not the backend has ended its part */
    }
    return refuse(h,
                  frame_response(m, is_last, request_method) ? REASON_none : REASON_bad_response);
}

enum reason
http2_head_end_trailers(struct http2_head *h, bool is_last)
{
    if (h->why == REASON_none && !is_last) {
        return refuse(h, malformed(h)); /* RFC 9113 8.1 */
    }
    return (enum reason)h->why;
}
