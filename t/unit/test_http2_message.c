/* SPDX-License-Identifier: Apache-2.0
 *
 * test_http2_message.c - HTTP/2 field blocks: what they become, what is refused, and what is
 * written.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/http1.h"
#include "shared/http2.h"
#include "t/unit/suites.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define MAX_LINES    16

/* A block is written "name: value" in lines, the name with its colon where it is a pseudo-field. */
#define GET_LINES ":method: GET\n:scheme: http\n:path: /p?q\n:authority: h:81\n"

static const struct http_limits roomy = {8192, 64};

/* Memory for one test. */
static char memory[65536];
static size_t memory_used, memory_end;

static void *
alloc(void *owner, size_t len)
{
    (void)owner;
    size_t begin = (memory_used + 7) & ~(size_t)7;
    if (begin + len > memory_end) {
        return NULL;
    }
    memory_used = begin + len;
    return memory + begin;
}

static void
fresh_memory(void)
{
    memset(memory, 0xa5, sizeof(memory));
    memory_used = 0;
    memory_end = sizeof(memory);
}

/* One line, with "\\r", "\\n", "\\0" in it as the bytes that they name. */
static size_t
unescape(const char *from, size_t len, char *to)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (from[i] == '\\') {
            i++;
            to[n++] = (char)(from[i] == 'r' ? '\r' : from[i] == 'n' ? '\n' : '\0');
        } else {
            to[n++] = from[i];
        }
    }
    return n;
}

static void
give_line(struct http2_head *h, const char *line, size_t len)
{
    char text[512];
    size_t n = unescape(line, len, text);
    ck_assert(n > 1 && n < sizeof(text));
    const char *colon = memchr(text + 1, ':', n - 1);
    ck_assert_ptr_nonnull(colon);
    char *name = malloc((size_t)(colon - text) + 1); /* of exactly that size, for a sanitizer */
    size_t name_len = (size_t)(colon - text);
    memcpy(name, text, name_len);
    size_t begin = name_len + 1 < n && text[name_len + 1] == ' ' ? name_len + 2 : name_len + 1;
    char *value = malloc(n - begin + 1);
    memcpy(value, text + begin, n - begin);
    http2_head_field(h, slice_of(name, name_len), slice_of(value, n - begin), false);
    free(name);
    free(value);
}

static void
give_lines(struct http2_head *h, const char *lines)
{
    while (*lines) {
        size_t len = strcspn(lines, "\n");
        give_line(h, lines, len);
        lines += len + (lines[len] == '\n');
    }
}

static enum reason
read_request(struct http2_head *h, const struct http_limits *limits, const char *lines,
             bool is_last)
{
    fresh_memory();
    http2_head_begin(h, HTTP2_REQUEST, limits, alloc, NULL);
    give_lines(h, lines);
    return http2_head_end_request(h, is_last);
}

static enum reason
read_answer(struct http2_head *h, const char *lines, bool is_last, enum http_method method)
{
    fresh_memory();
    http2_head_begin(h, HTTP2_RESPONSE, &roomy, alloc, NULL);
    give_lines(h, lines);
    return http2_head_end_response(h, is_last, method, SLICE(""));
}

static enum reason
read_trailers(struct http2_head *h, const char *lines, bool is_last)
{
    fresh_memory();
    http2_head_begin(h, HTTP2_TRAILERS, &roomy, alloc, NULL);
    give_lines(h, lines);
    return http2_head_end_trailers(h, is_last);
}

static bool
has_field(const struct http_msg *m, const char *name, const char *value)
{
    for (size_t i = 0; i < m->nfields; i++) {
        if (slice_eq(m->fields[i].name, slice_from_str(name))) {
            return slice_eq(m->fields[i].value, slice_from_str(value));
        }
    }
    return false;
}

/* ---- requests ---- */

START_TEST(request_becomes_that_of_http1)
{
    struct http2_head h;
    ck_assert_int_eq(read_request(&h, &roomy, GET_LINES "accept: a\nx-own: b", true), REASON_none);
    const struct http_msg *m = &h.m;
    ck_assert_int_eq(m->method, HTTP_GET);
    ck_assert_int_eq(m->minor, 1);
    ck_assert(m->is_keep_alive && m->body == HTTP_BODY_NONE);
    ck_assert(slice_eq(m->method_text, SLICE("GET")) && slice_eq(m->target, SLICE("/p?q")));
    ck_assert(slice_eq(m->path, SLICE("/p")) && slice_eq(m->authority, SLICE("h:81")));
    ck_assert_uint_eq(m->scheme.len, 0);
    ck_assert_int_eq(m->nfields, 3);
    ck_assert_int_eq(m->fields[0].id, HTTP_FIELD_HOST);
    ck_assert(has_field(m, "host", "h:81") && has_field(m, "x-own", "b"));
}
END_TEST

static const char *const good_requests[] = {
    GET_LINES,
    GET_LINES "host: h:81",
    GET_LINES "host: H:81",
    ":path: /\n:method: GET\n:scheme: HTTPS\nhost: h",
    ":method: OPTIONS\n:scheme: https\n:path: *\n:authority: h",
    ":method: M-x!\n:scheme: http\n:path: /\n:authority: [::1]:80",
    ":method: CONNECT\n:authority: h:443",
    ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /chat\n:authority: h",
    GET_LINES "te: trailers",
    GET_LINES "te: Trailers",
    GET_LINES "x-empty:",
    GET_LINES "content-length: 0",
    GET_LINES "x-text: a \xff\x80\tb",
    GET_LINES "cookie: a=b\ncookie: c=d",
    GET_LINES "expect: 100-continue",
    GET_LINES "connection-x: a",
};

START_TEST(good_request_is_taken)
{
    struct http2_head h;
    ck_assert_int_eq(read_request(&h, &roomy, good_requests[_i], true), REASON_none);
    ck_assert_ptr_nonnull(http_msg_find(&h.m, HTTP_FIELD_HOST));
}
END_TEST

/* What RFC 9113 calls malformed, and what the HTTP/1 parser refuses. */
static const char *const bad_requests[] = {
    /* 8.3: pseudo-fields */
    "",
    ":scheme: http\n:path: /\n:authority: h",
    ":method: GET\n:path: /\n:authority: h",
    ":method: GET\n:scheme: http\n:authority: h",
    ":method: GET\n:scheme: http\n:path: /",
    GET_LINES ":method: GET",
    GET_LINES ":path: /",
    GET_LINES ":scheme: http",
    GET_LINES ":authority: h:81",
    GET_LINES ":status: 200",
    GET_LINES ":unknown: x",
    GET_LINES ":: x",
    GET_LINES ":protocol: websocket",
    ":Method: GET\n:scheme: http\n:path: /\n:authority: h",
    "x-own: a\n" GET_LINES,
    GET_LINES "x-own: a\n:path: /b",
    /* 8.3.1: what they hold; CVE-2021-39240, -39241, -39242 */
    ":method:\n:scheme: http\n:path: /\n:authority: h",
    ":method: GE T\n:scheme: http\n:path: /\n:authority: h",
    ":method: GET / HTTP/1.1\\r\\nX: y\n:scheme: http\n:path: /\n:authority: h",
    ":method: THIS-METHOD-HAS-MORE-THAN-32-BYTES\n:scheme: http\n:path: /\n:authority: h",
    ":method: GET\n:scheme: ftp\n:path: /\n:authority: h",
    ":method: GET\n:scheme:\n:path: /\n:authority: h",
    ":method: GET\n:scheme: http://x/?\n:path: /\n:authority: h",
    ":method: GET\n:scheme: http\n:path:\n:authority: h",
    ":method: GET\n:scheme: http\n:path: p\n:authority: h",
    ":method: GET\n:scheme: http\n:path: *\n:authority: h",
    ":method: GET\n:scheme: http\n:path: http://h/\n:authority: h",
    ":method: OPTIONS\n:scheme: http\n:path: **\n:authority: h",
    ":method: GET\n:scheme: http\n:path: /a b\n:authority: h",
    ":method: GET\n:scheme: http\n:path: /a#b\n:authority: h",
    ":method: GET\n:scheme: http\n:path: /a\\0b\n:authority: h",
    ":method: GET\n:scheme: http\n:path: /a\\r\\nX: y\n:authority: h",
    ":method: GET\n:scheme: http\n:path: /\x80\n:authority: h",
    ":method: GET\n:scheme: http\n:path: /\n:authority:",
    ":method: GET\n:scheme: http\n:path: /\n:authority: u@h",
    ":method: GET\n:scheme: http\n:path: /\n:authority: h, i",
    ":method: GET\n:scheme: http\n:path: /\n:authority: h:65536",
    ":method: GET\n:scheme: http\n:path: /\n:authority: h/x",
    GET_LINES "host: h",
    GET_LINES "host: i:81",
    GET_LINES "host: h:81\nhost: h:81",
    GET_LINES "host:",
    ":method: GET\n:scheme: http\n:path: /\nhost: a\nhost: a",
    ":method: GET\n:scheme: http\n:path: /\nhost: a b",
    ":method: CONNECT\n:authority: h",
    ":method: CONNECT\n:authority: h:",
    ":method: CONNECT",
    ":method: CONNECT\n:scheme: http\n:path: /\n:authority: h:80",
    ":method: CONNECT\n:protocol: websocket\n:path: /\n:authority: h",
    ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:authority: h",
    ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: x\n:authority: h",
    ":method: CONNECT\n:protocol: web socket\n:scheme: http\n:path: /\n:authority: h",
    ":method: CONNECT\n:protocol: h2c\n:scheme: http\n:path: /\n:authority: h",
    ":method: CONNECT\n:protocol:\n:scheme: http\n:path: /\n:authority: h",
    ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /\n:authority: h\n"
    "content-length: 0",
    /* 8.2.1: names and values */
    GET_LINES "X-own: a",
    GET_LINES "x-oWn: a",
    GET_LINES "x own: a",
    GET_LINES "x-own : a",
    GET_LINES "x\\r\\ny: a",
    GET_LINES "x\\0: a",
    GET_LINES "x\x80: a",
    GET_LINES "x-own: a\\r\\nb: c",
    GET_LINES "x-own: a\\nb",
    GET_LINES "x-own: a\\rb",
    GET_LINES "x-own: a\\0b",
    GET_LINES "x-own: \x7f",
    GET_LINES "x-own:  a",
    GET_LINES "x-own: a ",
    GET_LINES "x-own: \ta",
    GET_LINES "x-own: a\t",
    /* 8.2.2: connection-specific fields */
    GET_LINES "connection: close",
    GET_LINES "connection:",
    GET_LINES "proxy-connection: keep-alive",
    GET_LINES "keep-alive: 1",
    GET_LINES "transfer-encoding: chunked",
    GET_LINES "transfer-encoding: identity",
    GET_LINES "upgrade: h2c",
    GET_LINES "http2-settings: AAMAAABk",
    GET_LINES "te: gzip",
    GET_LINES "te: trailers, deflate",
    GET_LINES "te:",
    /* 8.1.1: lengths; CVE-2023-40225 */
    GET_LINES "content-length:",
    GET_LINES "content-length: +1",
    GET_LINES "content-length: -1",
    GET_LINES "content-length: 0x1",
    GET_LINES "content-length: 1 1",
    GET_LINES "content-length: 0, 0",
    GET_LINES "content-length: 9223372036854775808",
    GET_LINES "content-length: 0\ncontent-length: 0",
    GET_LINES "content-length: 1",
};

START_TEST(bad_request_is_refused)
{
    struct http2_head h;
    ck_assert_int_eq(read_request(&h, &roomy, bad_requests[_i], true), REASON_bad_request);
}
END_TEST

START_TEST(bad_field_stays_refused)
{
    struct http2_head h;
    ck_assert_int_eq(read_request(&h, &roomy, "connection: x\n" GET_LINES, true),
                     REASON_bad_request);
}
END_TEST

static const struct {
    const char *fields;
    bool is_last;
    enum http_body_kind body;
} request_bodies[] = {
    {"", true, HTTP_BODY_NONE},
    {"", false, HTTP_BODY_CHUNKED},
    {"content-length: 0", true, HTTP_BODY_NONE},
    {"content-length: 0", false, HTTP_BODY_NONE},
    {"content-length: 12", false, HTTP_BODY_LENGTH},
};

START_TEST(body_of_a_request_is_framed)
{
    struct http2_head h;
    char lines[512];
    snprintf(lines, sizeof(lines), GET_LINES "%s", request_bodies[_i].fields);
    ck_assert_int_eq(read_request(&h, &roomy, lines, request_bodies[_i].is_last), REASON_none);
    ck_assert_int_eq(h.m.body, request_bodies[_i].body);
    ck_assert(h.m.body != HTTP_BODY_LENGTH || h.m.length == 12);
}
END_TEST

START_TEST(extended_connect_is_a_get_that_upgrades)
{
    struct http2_head h;
    ck_assert_int_eq(read_request(&h, &roomy,
                                  ":method: CONNECT\n:protocol: websocket\n:scheme: http\n"
                                  ":path: /chat?a\n:authority: h",
                                  false),
                     REASON_none);
    ck_assert_int_eq(h.m.method, HTTP_GET);
    ck_assert(slice_eq(h.m.upgrade, SLICE("websocket")) && slice_eq(h.m.path, SLICE("/chat")));
    ck_assert(h.m.body == HTTP_BODY_NONE && (h.m.seen & HTTP_SEEN_UPGRADE));
}
END_TEST

START_TEST(plain_connect_stays_one)
{
    struct http2_head h;
    ck_assert_int_eq(read_request(&h, &roomy, ":method: CONNECT\n:authority: h:443", false),
                     REASON_none);
    ck_assert_int_eq(h.m.method, HTTP_CONNECT);
    ck_assert(slice_eq(h.m.target, SLICE("h:443")) && h.m.upgrade.len == 0);
}
END_TEST

START_TEST(cookies_are_joined)
{
    struct http2_head h;
    char lines[4096] = GET_LINES "cookie: a=b\nx: y\ncookie:\n";
    for (int i = 0; i < 60; i++) {
        strcat(lines, "cookie: crumb=0123456789\n");
    }
    struct http_limits few = {8192, 3}; /* crumbs are one field */
    ck_assert_int_eq(read_request(&h, &few, lines, true), REASON_none);
    ck_assert_int_eq(h.m.nfields, 3);
    const struct http_field *cookie = http_msg_find(&h.m, HTTP_FIELD_COOKIE);
    ck_assert_uint_eq(cookie->value.len, 3 + 60 * 18);
    ck_assert(slice_starts_with(cookie->value, SLICE("a=b; crumb=0123456789; crumb=")));
}
END_TEST

START_TEST(cookie_crumbs_count_towards_the_limit)
{
    struct http2_head h;
    char lines[4096] = GET_LINES;
    for (int i = 0; i < 30; i++) {
        strcat(lines, "cookie: a\n");
    }
    struct http_limits tight = {1024, 64};
    ck_assert_int_eq(read_request(&h, &tight, lines, true), REASON_header_too_large);
}
END_TEST

START_TEST(limits_hold_before_anything_is_copied)
{
    struct http2_head h;
    static char big[20000];
    memset(big, 'a', sizeof(big));
    struct http_limits tight = {4096, 3};
    fresh_memory();
    http2_head_begin(&h, HTTP2_REQUEST, &tight, alloc, NULL);
    give_lines(&h, GET_LINES);
    size_t before = memory_used;
    ck_assert_int_eq(http2_head_field(&h, SLICE("x"), slice_of(big, sizeof(big)), false),
                     REASON_header_too_large);
    ck_assert_int_eq(http2_head_field(&h, SLICE("x"), SLICE("y"), false), REASON_header_too_large);
    ck_assert_int_eq(http2_head_end_request(&h, true), REASON_header_too_large);
    ck_assert_uint_eq(memory_used, before);

    http2_head_begin(&h, HTTP2_REQUEST, &tight, alloc, NULL);
    ck_assert_int_eq(http2_head_field(&h, SLICE(":path"), slice_of(big, sizeof(big)), false),
                     REASON_uri_too_long);
}
END_TEST

START_TEST(fields_are_counted)
{
    struct http2_head h;
    struct http_limits three = {8192, 3};
    ck_assert_int_eq(read_request(&h, &three, GET_LINES "a: 1\nb: 2\nc: 3", true), REASON_none);
    ck_assert_int_eq(h.m.nfields, 4); /* and Host, which stands for :authority */
    ck_assert_int_eq(read_request(&h, &three, GET_LINES "a: 1\nb: 2\nc: 3\nd: 4", true),
                     REASON_header_too_large);
}
END_TEST

START_TEST(many_fields_keep_their_order_and_spare_room)
{
    struct http2_head h;
    struct http_limits many = {65535, 200};
    fresh_memory();
    http2_head_begin(&h, HTTP2_REQUEST, &many, alloc, NULL);
    give_lines(&h, GET_LINES);
    for (int i = 0; i < 200; i++) {
        char name[16];
        int len = snprintf(name, sizeof(name), "n%d", i);
        ck_assert_int_eq(http2_head_field(&h, slice_of(name, (size_t)len), SLICE("v"), i % 2 == 1),
                         REASON_none);
    }
    ck_assert_int_eq(http2_head_end_request(&h, true), REASON_none);
    ck_assert_int_eq(h.m.nfields, 201);
    ck_assert(slice_eq(h.m.fields[200].name, SLICE("n199")) && h.m.fields[200].is_secret);
    ck_assert(!h.m.fields[199].is_secret);
}
END_TEST

START_TEST(lack_of_memory_is_told)
{
    struct http2_head h;
    fresh_memory();
    for (memory_end = 0; memory_end < 1600; memory_end += 8) {
        memory_used = 0;
        http2_head_begin(&h, HTTP2_REQUEST, &roomy, alloc, NULL);
        give_lines(&h, GET_LINES "x-own: value\ncookie: a\ncookie: b");
        enum reason why = http2_head_end_request(&h, true);
        ck_assert(why == REASON_internal || (why == REASON_none && h.m.nfields == 3));
    }
}
END_TEST

START_TEST(te_and_expect_are_noted)
{
    struct http2_head h;
    read_request(&h, &roomy, GET_LINES "te: trailers\nexpect: 100-continue", true);
    ck_assert_uint_eq(h.m.seen, HTTP_SEEN_TRAILERS | HTTP_SEEN_CONTINUE);
    read_request(&h, &roomy, GET_LINES "expect: other", true);
    ck_assert_uint_eq(h.m.seen, HTTP_SEEN_OTHER_EXPECT);
}
END_TEST

/* ---- answers ---- */

static const struct {
    const char *lines;
    bool is_last;
    enum http_method method;
    enum http_body_kind body;
} good_answers[] = {
    {":status: 200", true, HTTP_GET, HTTP_BODY_NONE},
    {":status: 200", false, HTTP_GET, HTTP_BODY_CHUNKED},
    {":status: 200\ncontent-length: 5", false, HTTP_GET, HTTP_BODY_LENGTH},
    {":status: 200\ncontent-length: 0", false, HTTP_GET, HTTP_BODY_NONE},
    {":status: 200\ncontent-length: 5", true, HTTP_HEAD, HTTP_BODY_NONE},
    {":status: 200\ncontent-length: 5", false, HTTP_HEAD, HTTP_BODY_NONE},
    {":status: 304\ncontent-length: 5", true, HTTP_GET, HTTP_BODY_NONE},
    {":status: 204", true, HTTP_GET, HTTP_BODY_NONE},
    {":status: 100", false, HTTP_POST, HTTP_BODY_NONE},
    {":status: 103\nlink: x", false, HTTP_GET, HTTP_BODY_NONE},
    {":status: 599\nset-cookie: a\nset-cookie: b", true, HTTP_GET, HTTP_BODY_NONE},
};

START_TEST(good_answer_is_taken)
{
    struct http2_head h;
    ck_assert_int_eq(
        read_answer(&h, good_answers[_i].lines, good_answers[_i].is_last, good_answers[_i].method),
        REASON_none);
    ck_assert_int_eq(h.m.body, good_answers[_i].body);
    ck_assert(h.m.is_keep_alive && h.m.fields != NULL);
}
END_TEST

static const struct {
    const char *lines;
    bool is_last;
} bad_answers[] = {
    {"", true},
    {"x: y", true},
    {":status: 20", true},
    {":status: 2000", true},
    {":status: 099", true},
    {":status: 600", true},
    {":status: 2x0", true},
    {":status: +20", true},
    {":status: 200\n:status: 200", true},
    {":status: 200\n:path: /", true},
    {":method: GET\n:status: 200", true},
    {"x: y\n:status: 200", true},
    {":status: 101", false},
    {":status: 100", true},
    {":status: 200\ncontent-length: 5", true},
    {":status: 200\ncontent-length: 5\ncontent-length: 5", false},
    {":status: 200\ncontent-length: a", false},
    {":status: 200\ntransfer-encoding: chunked", false},
    {":status: 200\nconnection: close", true},
    {":status: 200\nupgrade: x", true},
    {":status: 200\nte: trailers", true},
    {":status: 200\nX: y", true},
    {":status: 200\nx: a\\r\\nb: c", true},
    {":status: 200\nx: a\\0", true},
};

START_TEST(bad_answer_is_refused)
{
    struct http2_head h;
    ck_assert_int_eq(read_answer(&h, bad_answers[_i].lines, bad_answers[_i].is_last, HTTP_GET),
                     REASON_bad_response);
}
END_TEST

START_TEST(good_answer_to_an_upgrade_is_101)
{
    struct http2_head h;
    fresh_memory();
    http2_head_begin(&h, HTTP2_RESPONSE, &roomy, alloc, NULL);
    give_lines(&h, ":status: 200\nx: y");
    ck_assert_int_eq(http2_head_end_response(&h, false, HTTP_GET, SLICE("websocket")), REASON_none);
    ck_assert_int_eq(h.m.status, 101);
    ck_assert(slice_eq(h.m.phrase, SLICE("Switching Protocols")));
    ck_assert(slice_eq(h.m.upgrade, SLICE("websocket")) && h.m.body == HTTP_BODY_NONE);

    http2_head_begin(&h, HTTP2_RESPONSE, &roomy, alloc, NULL);
    give_lines(&h, ":status: 403\ncontent-length: 2");
    ck_assert_int_eq(http2_head_end_response(&h, false, HTTP_GET, SLICE("websocket")), REASON_none);
    ck_assert(h.m.status == 403 && h.m.upgrade.len == 0 && h.m.body == HTTP_BODY_LENGTH);
}
END_TEST

/* ---- trailers ---- */

START_TEST(trailers_are_filtered)
{
    struct http2_head h;
    ck_assert_int_eq(
        read_trailers(&h, "grpc-status: 0\ncontent-length: 5\nhost: x\nx-sum: 1", true),
        REASON_none);
    ck_assert_int_eq(h.m.nfields, 2);
    ck_assert(has_field(&h.m, "grpc-status", "0") && has_field(&h.m, "x-sum", "1"));
}
END_TEST

START_TEST(bad_trailers_are_refused)
{
    static const char *const bad[] = {":status: 200", ":path: /",      "connection: x",
                                      "X: y",         "x: a\\r\\nb:c", "te: trailers"};
    struct http2_head h;
    for (int i = 0; i < COUNT(bad); i++) {
        ck_assert_msg(read_trailers(&h, bad[i], true) == REASON_bad_response, "%s", bad[i]);
    }
    ck_assert_int_eq(read_trailers(&h, "x: y", false), REASON_bad_response);
}
END_TEST

/* ---- out ---- */

static struct slice
put_name(const nghttp2_nv *nv)
{
    return slice_of((const char *)nv->name, nv->namelen);
}

static struct slice
put_value(const nghttp2_nv *nv)
{
    return slice_of((const char *)nv->value, nv->valuelen);
}

static void
expect_put(const nghttp2_nv *nv, size_t n, const char *const *lines)
{
    for (size_t i = 0; i < n; i++) {
        char text[256];
        ck_assert_msg(lines[i] != NULL, "%.*s is too many", SLICE_ARG(put_name(&nv[i])));
        snprintf(text, sizeof(text), "%.*s: %.*s", SLICE_ARG(put_name(&nv[i])),
                 SLICE_ARG(put_value(&nv[i])));
        ck_assert_str_eq(text, lines[i]);
    }
    ck_assert_ptr_null(lines[n]);
}

static struct http_field fields[MAX_LINES];

static void
parse_http1(const char *head, struct http_msg *m)
{
    *m = (struct http_msg){.fields = fields, .max_fields = MAX_LINES};
    ck_assert_int_gt(http1_parse_request(head, strlen(head), &roomy, m), 0);
}

START_TEST(request_of_http1_is_put)
{
    struct http_msg m;
    nghttp2_nv out[MAX_LINES + HTTP2_PUT_EXTRA];
    parse_http1(
        "POST /p?q HTTP/1.1\r\nHost: h\r\nCookie: a; b\r\nConnection: x-hop, te\r\nX-Hop: 1\r\n"
        "Keep-Alive: 1\r\nTE: gzip, trailers\r\nTransfer-Encoding: chunked\r\n"
        "Authorization: s\r\nx-own: v\r\n\r\n",
        &m);
    ck_assert(http_strip_hop_by_hop(&m));
    size_t n = http2_put_request(&m, SLICE("https"), out);
    static const char *const lines[] = {":method: POST", ":scheme: https", ":authority: h",
                                        ":path: /p?q",   "cookie: a; b",   "authorization: s",
                                        "x-own: v",      "te: trailers",   NULL};
    expect_put(out, n, lines);
}
END_TEST

START_TEST(upgrade_is_put_as_extended_connect)
{
    struct http_msg m;
    nghttp2_nv out[MAX_LINES + HTTP2_PUT_EXTRA];
    parse_http1(
        "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", &m);
    size_t n = http2_put_request(&m, SLICE("http"), out);
    static const char *const lines[] = {":method: CONNECT", ":protocol: websocket", ":scheme: http",
                                        ":authority: h",    ":path: /chat",         NULL};
    expect_put(out, n, lines);
}
END_TEST

START_TEST(answer_is_put)
{
    char status[3];
    nghttp2_nv out[MAX_LINES + HTTP2_PUT_EXTRA];
    struct http_msg m = {.fields = fields, .max_fields = MAX_LINES};
    const char *head = "HTTP/1.1 207 X\r\nConnection: close\r\nContent-Length: 1\r\nSet-Cookie: "
                       "a\r\nProxy-Connection: a\r\n\r\n";
    ck_assert_int_gt(http1_parse_response(head, strlen(head), &roomy, HTTP_GET, &m), 0);
    m.fields[2].is_secret = true;
    size_t n = http2_put_response(&m, status, out);
    static const char *const lines[] = {":status: 207", "content-length: 1", "set-cookie: a", NULL};
    expect_put(out, n, lines);
    ck_assert_int_eq(out[2].flags, NGHTTP2_NV_FLAG_NO_INDEX | NGHTTP2_NV_FLAG_NO_COPY_NAME);

    m.status = 101;
    http2_put_response(&m, status, out);
    ck_assert(slice_eq(put_value(&out[0]), SLICE("200")));
}
END_TEST

START_TEST(trailers_are_put)
{
    nghttp2_nv out[MAX_LINES + HTTP2_PUT_EXTRA];
    struct http_msg m = {.fields = fields, .max_fields = MAX_LINES};
    const char *text =
        "x-sum: 1\r\nContent-Length: 4\r\nHost: x\r\nTE: x\r\ngrpc-status: 0\r\n\r\n";
    ck_assert_int_gt(http1_parse_trailers(text, strlen(text), &roomy, &m), 0);
    static const char *const lines[] = {"x-sum: 1", "grpc-status: 0", NULL};
    expect_put(out, http2_put_trailers(&m, out), lines);
}
END_TEST

static TCase *
requests_case(void)
{
    TCase *tc = tcase_create("requests");
    tcase_add_test(tc, request_becomes_that_of_http1);
    tcase_add_loop_test(tc, good_request_is_taken, 0, COUNT(good_requests));
    tcase_add_loop_test(tc, bad_request_is_refused, 0, COUNT(bad_requests));
    tcase_add_test(tc, bad_field_stays_refused);
    tcase_add_loop_test(tc, body_of_a_request_is_framed, 0, COUNT(request_bodies));
    tcase_add_test(tc, extended_connect_is_a_get_that_upgrades);
    tcase_add_test(tc, plain_connect_stays_one);
    tcase_add_test(tc, cookies_are_joined);
    tcase_add_test(tc, cookie_crumbs_count_towards_the_limit);
    tcase_add_test(tc, limits_hold_before_anything_is_copied);
    tcase_add_test(tc, fields_are_counted);
    tcase_add_test(tc, many_fields_keep_their_order_and_spare_room);
    tcase_add_test(tc, lack_of_memory_is_told);
    tcase_add_test(tc, te_and_expect_are_noted);
    return tc;
}

static TCase *
answers_case(void)
{
    TCase *tc = tcase_create("answers");
    tcase_add_loop_test(tc, good_answer_is_taken, 0, COUNT(good_answers));
    tcase_add_loop_test(tc, bad_answer_is_refused, 0, COUNT(bad_answers));
    tcase_add_test(tc, good_answer_to_an_upgrade_is_101);
    tcase_add_test(tc, trailers_are_filtered);
    tcase_add_test(tc, bad_trailers_are_refused);
    return tc;
}

static TCase *
out_case(void)
{
    TCase *tc = tcase_create("out");
    tcase_add_test(tc, request_of_http1_is_put);
    tcase_add_test(tc, upgrade_is_put_as_extended_connect);
    tcase_add_test(tc, answer_is_put);
    tcase_add_test(tc, trailers_are_put);
    return tc;
}

Suite *
http2_message_suite(void)
{
    Suite *s = suite_create("http2_message");
    suite_add_tcase(s, requests_case());
    suite_add_tcase(s, answers_case());
    suite_add_tcase(s, out_case());
    return s;
}
