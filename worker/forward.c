/* SPDX-License-Identifier: Apache-2.0
 *
 * forward.c - what changes in a message on its way: see forward.h.
 */
#include "worker/forward.h"

#include <stdlib.h>
#include <sys/random.h>

#include "shared/websocket.h"
#include "worker/worker.h"

#define REQUEST_ID_MAX 128
#define EXTRA_FIELDS   7 /* at most as many as set_forwarded(), set_host() and set_key() add */

/* Ids need not be secret, but must not repeat: a random start, then a counter, mixed (splitmix64).
 */
uint64_t
forward_random(void)
{
    static uint64_t state;
    if (state == 0 && getrandom(&state, sizeof(state), 0) != (ssize_t)sizeof(state)) {
        state = clock_wall_us() ^ ((uint64_t)worker.args->row << 56);
    }
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 16 hexadecimal digits of a number in which no digit is more than another: all high halves of its
 * bytes, then all low ones. */
static void
write_random_hex(uint64_t random, char *out)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    for (int i = 0; i < 2; i++) {
        uint64_t digits = random >> (4 - 4 * i) & (ones * 0x0f);
        uint64_t letters = ((digits + ones * 6) >> 4) & ones; /* 1 where the digit is above 9 */
        digits += ones * '0' + letters * ('a' - '0' - 10);
        memcpy(out + 8 * i, &digits, sizeof(digits));
    }
}

struct slice
forward_new_id(char *out)
{
    write_random_hex(forward_random(), out);
    write_random_hex(forward_random(), out + 16);
    return slice_of(out, STREAM_ID_LEN);
}

void
forward_make_id(struct stream *s)
{
    if (s->http->request_id.len == 0) {
        s->http->request_id = forward_new_id(s->http->id);
    }
}

static void
add_field(struct http_msg *m, enum http_field_id id, struct slice name, struct slice value)
{
    m->fields[m->nfields++] = (struct http_field){.name = name, .value = value, .id = (uint8_t)id};
}

/* Move the fields out of the worker's memory, with room for those to be added. */
static int
own_fields(struct stream *s)
{
    struct http_msg *m = &s->http->req;
    size_t room = (size_t)m->nfields + EXTRA_FIELDS;
    struct http_field *fields = stream_alloc(s, room * sizeof(*fields));
    if (!fields) {
        return -1;
    }
    memcpy(fields, m->fields, m->nfields * sizeof(*fields));
    m->fields = fields;
    m->max_fields = (uint16_t)room;
    return 0;
}

/* Sets of fields that have an id. */
#define FIELD(name) (UINT64_C(1) << HTTP_FIELD_##name)
_Static_assert(HTTP_FIELD_COUNT <= 64, "a set is one word");

static uint64_t
fields_of(const struct http_msg *m)
{
    uint64_t set = 0;
    for (unsigned i = 0; i < m->nfields; i++) {
        set |= UINT64_C(1) << m->fields[i].id;
    }
    return set;
}

static void
drop_fields(struct http_msg *m, uint64_t set)
{
    for (unsigned i = 0; i < m->nfields; i++) {
        m->fields[i].drop |= (set >> m->fields[i].id & 1) != 0;
    }
}

/* RFC 9112 3.2.2: the authority of an absolute target replaces Host. A HTTP/1.0 request without
 * Host gets the upstream's name, since it goes on as HTTP/1.1. */
static void
set_host(struct http_msg *m)
{
    bool is_absolute = m->scheme.len > 0;
    if (is_absolute) {
        drop_fields(m, FIELD(HOST));
    }
    if (is_absolute || !http_msg_find(m, HTTP_FIELD_HOST)) {
        struct slice host = m->authority.len > 0 ? m->authority : SLICE("localhost");
        add_field(m, HTTP_FIELD_HOST, SLICE("Host"), host);
    }
}

/* "a, b" of all X-Forwarded-For fields that came, and the client's address. */
static struct slice
forwarded_for(struct stream *s, uint64_t came)
{
    struct http_msg *m = &s->http->req;
    unsigned nfields = came & FIELD(X_FORWARDED_FOR) ? m->nfields : 0;
    size_t len = ADDR_TEXT_MAX;
    for (unsigned i = 0; i < nfields; i++) {
        if (m->fields[i].id == HTTP_FIELD_X_FORWARDED_FOR) {
            len += m->fields[i].value.len + 2;
        }
    }
    char *text = stream_alloc(s, len);
    if (!text) {
        return SLICE("");
    }
    char *end = text;
    for (unsigned i = 0; i < nfields; i++) {
        struct http_field *f = &m->fields[i];
        if (f->id == HTTP_FIELD_X_FORWARDED_FOR && f->value.len > 0) {
            memcpy(end, f->value.ptr, f->value.len);
            end += f->value.len;
            memcpy(end, ", ", 2);
            end += 2;
        }
    }
    end += addr_ip_format(&s->http->peer_ip, end);
    return slice_of(text, (size_t)(end - text));
}

static bool
is_trusted(const struct conf_listener *l, const struct addr_ip *ip)
{
    for (unsigned i = 0; i < l->ntrusted_proxies; i++) {
        if (cidr_contains(&l->trusted_proxies[i], ip)) {
            return true;
        }
    }
    return false;
}

/* The last element of a list, which it is cut off from. */
static struct slice
take_last(struct slice *list)
{
    size_t from = list->len;
    while (from > 0 && list->ptr[from - 1] != ',') {
        from--;
    }
    struct slice last = slice_trim(slice_of(list->ptr + from, list->len - from));
    list->len = from > 0 ? from - 1 : 0;
    return last;
}

/* Some proxies append the port: "192.0.2.1:4711", "[2001:db8::1]:4711", and some the brackets
 * alone. */
static int
parse_said(struct slice text, struct addr_ip *ip)
{
    struct slice host = text;
    const char *colon = text.len ? memrchr(text.ptr, ':', text.len) : NULL;
    if (text.len > 0 && text.ptr[0] == '[') {
        const char *end = memchr(text.ptr, ']', text.len);
        host = end ? slice_of(text.ptr + 1, (size_t)(end - text.ptr) - 1) : host;
    } else if (colon && memchr(text.ptr, ':', text.len) == colon) {
        host.len = (size_t)(colon - text.ptr);
    }
    return addr_ip_parse(host, ip);
}

/* Each proxy appended the address it saw, so they are believed from the right, as long as who said
 * it is trusted. The first one that is not is the client. */
static void
find_client(struct stream *s)
{
    struct http_msg *m = &s->http->req;
    const struct conf_listener *l = s->conf_listener;
    s->http->peer_ip = s->client_ip;
    s->http->is_peer_trusted = is_trusted(l, &s->client_ip);
    for (unsigned i = m->nfields; i-- > 0 && is_trusted(l, &s->client_ip);) {
        struct slice list = m->fields[i].value;
        while (m->fields[i].id == HTTP_FIELD_X_FORWARDED_FOR && list.len > 0 &&
               is_trusted(l, &s->client_ip)) {
            struct addr_ip said;
            if (parse_said(take_last(&list), &said) != 0) {
                return;
            }
            s->client_ip = said;
        }
    }
}

/* A request id that is kept is at most 128 of [A-Za-z0-9._-]. */
static bool
is_good_id(struct slice id)
{
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-')) {
            return false;
        }
    }
    return id.len > 0 && id.len <= REQUEST_ID_MAX;
}

/* From anyone who is not trusted these fields say nothing: they are ours to set or to remove. */
#define FORWARDED_FIELDS \
    (FIELD(FORWARDED) | FIELD(X_REAL_IP) | FIELD(X_FORWARDED_PROTO) | FIELD(X_FORWARDED_HOST))
/* Written anew: with one address more; kept where it is good. */
#define WRITTEN_FIELDS (FIELD(X_FORWARDED_FOR) | FIELD(X_REQUEST_ID))

/* came: the fields of the request. */
static void
drop_forwarded(struct stream *s, uint64_t came)
{
    struct http_msg *m = &s->http->req;
    uint64_t unwanted = came & (WRITTEN_FIELDS | FORWARDED_FIELDS);
    if (s->http->is_peer_trusted) {
        unwanted &= ~FORWARDED_FIELDS;
        const struct http_field *id = http_msg_find(m, HTTP_FIELD_X_REQUEST_ID);
        if (id && is_good_id(id->value)) {
            s->http->request_id = id->value;
        }
    }
    if (unwanted) {
        drop_fields(m, unwanted);
    }
}

static void
add_if_missing(struct http_msg *m, uint64_t came, enum http_field_id id, struct slice name,
               struct slice value)
{
    bool is_there = (came >> id & 1) != 0 && http_msg_find(m, id);
    if (value.len > 0 && !is_there) {
        add_field(m, id, name, value);
    }
}

static void
set_forwarded(struct stream *s)
{
    struct http_msg *m = &s->http->req;
    uint64_t came = fields_of(m);
    struct slice xff = forwarded_for(s, came);
    drop_forwarded(s, came);
    forward_make_id(s);
    add_field(m, HTTP_FIELD_X_FORWARDED_FOR, SLICE("X-Forwarded-For"), xff);
    add_if_missing(m, came, HTTP_FIELD_X_FORWARDED_PROTO, SLICE("X-Forwarded-Proto"),
                   s->conf_listener->tls ? SLICE("https") : SLICE("http"));
    add_if_missing(m, came, HTTP_FIELD_X_FORWARDED_HOST, SLICE("X-Forwarded-Host"), m->authority);
    add_field(m, HTTP_FIELD_X_REQUEST_ID, SLICE("X-Request-ID"), s->http->request_id);
}

/* So that what was routed is what is forwarded. Who has only escaped more than he had to finds the
 * routes of what he means, and may have signed what he wrote: see forward_spelled(). */
static enum reason
normalize_path(struct stream *s)
{
    struct http_msg *m = &s->http->req;
    if (m->path.len == 0 || m->path.ptr[0] != '/') {
        return REASON_none; /* "*" */
    }
    if (!memchr(m->path.ptr, '%', m->path.len) && !memchr(m->path.ptr, '.', m->path.len)) {
        return REASON_none;
    }
    char *room = stream_alloc(s, m->target.len);
    struct slice path;
    if (!room) {
        return REASON_internal;
    }
    switch (http_path_normalize(m->path, room, &path)) {
    case HTTP_PATH_BAD: return REASON_bad_request;
    case HTTP_PATH_NORMAL: return REASON_none;
    case HTTP_PATH_UNESCAPED:
        s->http->target = m->target;
        s->http->spelled = m->path;
        break;
    case HTTP_PATH_RESOLVED: break;
    }
    size_t query = m->target.len - m->path.len;
    memcpy(room + path.len, m->target.ptr + m->path.len, query);
    m->path = path;
    m->target = slice_of(room, path.len + query);
    return REASON_none;
}

/* RFC 9110 7.8: an upgrade may be ignored. It is where its answer would be read in two ways: a 101
 * to HEAD; a WebSocket that is not asked for as RFC 6455 4.1 says. */
static bool
may_upgrade(const struct http_msg *m)
{
    if (http_is_websocket(m->upgrade)) {
        return m->method == HTTP_GET && m->body == HTTP_BODY_NONE;
    }
    return m->method != HTTP_HEAD;
}

/* RFC 8441 5: over HTTP/2 a WebSocket is asked for without a key. It gets one here, as HTTP/1 has
 * it; who speaks HTTP/2 with the backend leaves it out again. */
static enum reason
set_key(struct stream *s)
{
    uint64_t random[WEBSOCKET_RANDOM_BYTES / sizeof(uint64_t)] = {forward_random(),
                                                                  forward_random()};
    char *key = stream_alloc(s, WEBSOCKET_KEY_LEN + 1);
    if (!key) {
        return REASON_internal;
    }
    drop_fields(&s->http->req, FIELD(SEC_WEBSOCKET_KEY));
    add_field(&s->http->req, HTTP_FIELD_SEC_WEBSOCKET_KEY, SLICE("Sec-WebSocket-Key"),
              websocket_write_key(random, key));
    return REASON_none;
}

/* What it takes to become another protocol. */
static enum reason
set_upgrade(struct stream *s)
{
    struct http_msg *m = &s->http->req;
    if (!may_upgrade(m)) {
        m->upgrade = SLICE("");
    }
    return s->is_http2 && http_is_websocket(m->upgrade) ? set_key(s) : REASON_none;
}

enum reason
forward_request(struct stream *s)
{
    if (own_fields(s) != 0) {
        return REASON_internal;
    }
    enum reason why = normalize_path(s);
    if (why != REASON_none) {
        return why;
    }
    if (!http_strip_hop_by_hop(&s->http->req)) {
        return REASON_bad_request;
    }
    set_host(&s->http->req);
    find_client(s);
    if (s->conf_listener->forwarded_headers) {
        set_forwarded(s);
    }
    return set_upgrade(s);
}

void
forward_spelled(struct stream *s)
{
    if (s->http->spelled.len > 0) {
        s->http->req.path = s->http->spelled;
        s->http->req.target = s->http->target;
    }
}

bool
forward_response(struct http_msg *m)
{
    return http_strip_hop_by_hop(m);
}
