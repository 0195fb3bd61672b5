/* SPDX-License-Identifier: Apache-2.0
 *
 * test_http1_parse.c - HTTP/1 heads: what is read, what is refused, and after which byte.
 */
#include <check.h>
#include <stdlib.h>

#include "shared/http1.h"
#include "t/unit/suites.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define MAX_FIELDS   16

static struct http_field fields[MAX_FIELDS];
static const struct http_limits roomy = {8192, MAX_FIELDS};

/* A copy of exactly that size, so that a sanitizer sees a read past the end. */
static char *
exact_copy(const char *bytes, size_t len)
{
    char *copy = malloc(len > 0 ? len : 1);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, bytes, len);
    return copy;
}

static int
parse(struct slice head, struct http_msg *m)
{
    *m = (struct http_msg){.fields = fields, .max_fields = MAX_FIELDS};
    return http1_parse_request(head.ptr, head.len, &roomy, m);
}

static int
parse_answer(struct slice head, enum http_method method, struct http_msg *m)
{
    *m = (struct http_msg){.fields = fields, .max_fields = MAX_FIELDS};
    return http1_parse_response(head.ptr, head.len, &roomy, method, m);
}

static int
parse_text(const char *text, struct http_msg *m)
{
    return parse(slice_from_str(text), m);
}

#define HOST "Host: h\r\n"

static const char *const good_requests[] = {
    "GET / HTTP/1.1\r\n" HOST "\r\n",
    "GET / HTTP/1.1\n"
    "Host: h\n"
    "\n",
    "\r\nGET / HTTP/1.1\r\n" HOST "\r\n",
    "\nGET / HTTP/1.1\r\n" HOST "\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.9\r\n" HOST "\r\n",
    "POST /a?b=/c HTTP/1.1\r\nHost:h\r\nContent-Length: 17\r\nX:\t \r\n\r\n",
    "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: ChunKed\r\nEmpty:\r\nA: b\tc \t\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\n" HOST "\r\n",
    "OPTIONS http://x HTTP/1.1\r\n" HOST "\r\n",
    "GET HTTPS://x:1/y?z HTTP/1.1\r\n" HOST "\r\n",
    "CONNECT x:443 HTTP/1.1\r\n" HOST "\r\n",
    "M!#$%&'*+-.^_`|~ /\" HTTP/1.1\r\n" HOST "Obs: \xff\x80 text of more than eight bytes\r\n\r\n",
    "GET / HTTP/1.1\r\n" HOST "Connection: , close ,,TE\r\nConnection: keep-alive\r\n\r\n",
};

START_TEST(prefix_of_a_good_request_is_incomplete)
{
    struct slice whole = slice_from_str(good_requests[_i]);
    struct http_msg m;
    for (size_t len = 0; len < whole.len; len++) {
        char *copy = exact_copy(whole.ptr, len);
        ck_assert_msg(parse(slice_of(copy, len), &m) == 0, "%zu bytes", len);
        ck_assert_uint_eq(http1_head_end(copy, len, 0), 0);
        free(copy);
    }
    ck_assert_int_eq(parse(whole, &m), (int)whole.len);
    ck_assert_uint_eq(http1_head_end(whole.ptr, whole.len, 0), whole.len);
}
END_TEST

START_TEST(bytes_behind_the_head_do_not_count)
{
    char text[512];
    struct http_msg m;
    size_t len = strlen(good_requests[_i]);
    strcat(strcpy(text, good_requests[_i]), "\x16garbage\r\n\r\n");
    ck_assert_int_eq(parse_text(text, &m), (int)len);
    ck_assert_uint_eq(http1_head_end(text, strlen(text), 0), len);
}
END_TEST

START_TEST(head_end_is_found_from_any_earlier_length)
{
    struct slice whole = slice_from_str(good_requests[_i]);
    for (size_t from = 0; from < whole.len; from++) {
        ck_assert_uint_eq(http1_head_end(whole.ptr, whole.len, from), whole.len);
    }
}
END_TEST

START_TEST(request_is_taken_apart)
{
    struct http_msg m;
    int len = parse_text("POST /p/q?r HTTP/1.1\r\nHost: www:81\r\nCONTENT-length: 12\r\n"
                         "X-Tight:v\r\nX-Wide: \t v \r\n\r\n",
                         &m);
    ck_assert_int_gt(len, 0);
    ck_assert_int_eq(m.method, HTTP_POST);
    ck_assert_int_eq(m.minor, 1);
    ck_assert(slice_eq(m.method_text, SLICE("POST")));
    ck_assert(slice_eq(m.target, SLICE("/p/q?r")) && slice_eq(m.path, SLICE("/p/q")));
    ck_assert(slice_eq(m.authority, SLICE("www:81")));
    ck_assert_int_eq(m.nfields, 4);
    ck_assert_int_eq(m.fields[1].id, HTTP_FIELD_CONTENT_LENGTH);
    ck_assert(slice_eq(m.fields[1].name, SLICE("CONTENT-length")));
    ck_assert(slice_eq(m.fields[2].value, SLICE("v")) && slice_eq(m.fields[3].value, SLICE("v")));
    ck_assert(m.body == HTTP_BODY_LENGTH && m.length == 12 && m.is_keep_alive);
}
END_TEST

static const struct {
    const char *line;
    bool is_plain;
} plain_cases[] = {
    {"A: b\r\n", true},   {"A: \r\n", true},    {"A: b\n", false},
    {"A:b\r\n", false},   {"A:  b\r\n", false}, {"A:\tb\r\n", false},
    {"A: b \r\n", false}, {"A:\r\n", false},    {"A: b c\r\n", true},
};

START_TEST(plain_fields_are_those_in_our_own_form)
{
    char text[128] = "GET / HTTP/1.0\r\n";
    struct http_msg m;
    strcat(strcat(text, plain_cases[_i].line), "\r\n");
    ck_assert_int_gt(parse_text(text, &m), 0);
    ck_assert_int_eq(m.fields[0].is_plain, plain_cases[_i].is_plain);
    if (m.fields[0].is_plain) {
        ck_assert_ptr_eq(m.fields[0].name.ptr + 3, m.fields[0].value.ptr);
    }
}
END_TEST

static const struct {
    const char *line, *scheme, *authority, *target, *path;
} target_cases[] = {
    {"GET http://t:8/a?b HTTP/1.1", "http", "t:8", "/a?b", "/a"},
    {"GET http://t HTTP/1.1", "http", "t", "/", "/"},
    {"OPTIONS http://t HTTP/1.1", "http", "t", "*", "*"},
    {"OPTIONS http://t/ HTTP/1.1", "http", "t", "/", "/"},
    {"OPTIONS * HTTP/1.1", "", "h", "*", "*"},
    {"GET //x/?? HTTP/1.1", "", "h", "//x/??", "//x/"},
    {"CONNECT t:1 HTTP/1.1", "", "t:1", "t:1", ""},
};

START_TEST(targets_have_four_forms)
{
    char text[128];
    struct http_msg m;
    strcat(strcpy(text, target_cases[_i].line), "\r\n" HOST "\r\n");
    ck_assert_int_gt(parse_text(text, &m), 0);
    ck_assert(slice_eq(m.scheme, slice_from_str(target_cases[_i].scheme)));
    ck_assert(slice_eq(m.authority, slice_from_str(target_cases[_i].authority)));
    ck_assert(slice_eq(m.target, slice_from_str(target_cases[_i].target)));
    ck_assert(slice_eq(m.path, slice_from_str(target_cases[_i].path)));
}
END_TEST

START_TEST(absolute_target_replaces_host)
{
    struct http_msg m;
    ck_assert_int_gt(parse_text("GET http://t/ HTTP/1.1\r\nHost: other\r\n\r\n", &m), 0);
    ck_assert(slice_eq(m.fields[0].value, SLICE("t")) && !m.fields[0].is_plain);
    ck_assert_int_gt(parse_text("GET http://t/ HTTP/1.0\r\n\r\n", &m), 0);
    ck_assert(slice_eq(m.authority, SLICE("t")));
    ck_assert_int_gt(parse_text("GET / HTTP/1.0\r\n\r\n", &m), 0);
    ck_assert_uint_eq(m.authority.len, 0);
}
END_TEST

#define REQUEST(fields) "GET / HTTP/1.1\r\n" HOST fields "\r\n\r\n"
#define BAD(text) \
    { \
        {(text), sizeof(text) - 1}, REASON_bad_request \
    }

static const struct {
    struct slice text;
    enum reason reason;
} bad_requests[] = {
    /* the request line */
    BAD("\x16\x03\x01"),
    BAD("\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n"),
    BAD("\rGET"),
    BAD(" GET / HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET  / HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET /  HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET\t/ HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET / HTTP/1.1 \r\n" HOST "\r\n"),
    BAD("GET /\r\n"),
    BAD("GET / a HTTP/1.1\r\n" HOST "\r\n"),
    BAD("G(T / HTTP/1.1\r\n" HOST "\r\n"),
    BAD("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG"),
    BAD("GET /#a HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET /\x7f HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET /\0 HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET a HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET * HTTP/1.1\r\n" HOST "\r\n"),
    BAD("OPTIONS ** HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET h:80 HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET ftp://h/ HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET http://u@h/ HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET http:///a HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET http:/h/a HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET http: HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET http://h?a HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET http://h:99999/ HTTP/1.1\r\n" HOST "\r\n"),
    BAD("CONNECT / HTTP/1.1\r\n" HOST "\r\n"),
    BAD("CONNECT h HTTP/1.1\r\n" HOST "\r\n"),
    BAD("CONNECT h: HTTP/1.1\r\n" HOST "\r\n"),
    BAD("CONNECT http://h/ HTTP/1.1\r\n" HOST "\r\n"),
    BAD("GET / HTTP/2.0\r\n"),
    BAD("GET / http/1.1\r\n"),
    BAD("GET / HTTP/1.x\r\n"),
    BAD("GET / HTTP/1.10\r\n"),
    BAD("GET / HTTP/01.1\r\n"),
    BAD("GET / HTTP/1.1\rX"),
    BAD("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    /* field lines */
    BAD("GET / HTTP/1.1\r\n X: a\r\n" HOST "\r\n"),
    BAD(REQUEST("X: a\r\n folded")),
    BAD(REQUEST("X: a\r\n\tfolded")),
    BAD(REQUEST("X : a")),
    BAD(REQUEST("X\t: a")),
    BAD(REQUEST(": a")),
    BAD(REQUEST("X")),
    BAD(REQUEST("X y: a")),
    BAD(REQUEST("X\x0b: a")),
    BAD(REQUEST("X\xe4: a")),
    BAD(REQUEST("X: a\rb")),
    BAD(REQUEST("X: a\r\rb")),
    BAD(REQUEST("X: \0")),
    BAD(REQUEST("X: a\x7f")),
    BAD(REQUEST("X: \x0b")),
    BAD(REQUEST("X: a\r\r")),
    /* Host */
    BAD("GET / HTTP/1.1\r\n\r\n"),
    BAD("GET http://h/ HTTP/1.1\r\n\r\n"),
    BAD(REQUEST("Host: h")),
    BAD("GET / HTTP/1.0\r\n" HOST HOST "\r\n"),
    BAD("GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    BAD("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    BAD("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    BAD("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    BAD("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    BAD("GET / HTTP/1.0\r\nHost: a@b\r\n\r\n"),
    /* framing */
    BAD(REQUEST("Content-Length:")),
    BAD(REQUEST("Content-Length: +5")),
    BAD(REQUEST("Content-Length: -5")),
    BAD(REQUEST("Content-Length: 0x5")),
    BAD(REQUEST("Content-Length: 5 5")),
    BAD(REQUEST("Content-Length: 5,5")),
    BAD(REQUEST("Content-Length: 5, 6")),
    BAD(REQUEST("Content-Length: 5_")),
    BAD(REQUEST("Content-Length: 5\r\nContent-Length: 5")),
    BAD(REQUEST("Content-Length: 5\r\ncontent-length: 6")),
    BAD(REQUEST("Content-Length: 9223372036854775808")),
    BAD(REQUEST("Content-Length: 18446744073709551621")),
    BAD(REQUEST("Content-Length: 5\r\nTransfer-Encoding: chunked")),
    BAD(REQUEST("Transfer-Encoding: chunked\r\nContent-Length: 5")),
    BAD(REQUEST("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")),
    BAD(REQUEST("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip")),
    BAD(REQUEST("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked")),
    BAD(REQUEST("Transfer-Encoding: identity")),
    BAD(REQUEST("Transfer-Encoding:")),
    BAD(REQUEST("Transfer-Encoding: xchunked")),
    BAD(REQUEST("Transfer-Encoding: chunked;a=b")),
    BAD(REQUEST("Transfer-Encoding: \"chunked\"")),
    BAD(REQUEST("Transfer-Encoding: chunked, chunked")),
    BAD(REQUEST("Transfer-Encoding: chunked, identity")),
    BAD(REQUEST("Transfer-Encoding: \x0b"
                "chunked")),
    BAD(REQUEST("Transfer-Encoding: ch\xfenked")),
    BAD(REQUEST("Transfer-Encoding : chunked")),
    BAD("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    {SLICE(REQUEST("Transfer-Encoding: gzip, chunked")), REASON_unsupported},
    /* Connection */
    BAD(REQUEST("Connection: a b")),
    BAD(REQUEST("Connection: close; x")),
    BAD(REQUEST("Connection: \"close\"")),
};

START_TEST(bad_request_is_refused)
{
    struct http_msg m;
    ck_assert_int_eq(parse(bad_requests[_i].text, &m), -(int)bad_requests[_i].reason);
}
END_TEST

/* Once refused, always refused, and for the same reason: more bytes do not heal a head. */
START_TEST(bad_request_stays_refused)
{
    struct slice text = bad_requests[_i].text;
    struct http_msg m;
    bool is_refused = false;
    for (size_t len = 0; len <= text.len; len++) {
        char *copy = exact_copy(text.ptr, len);
        int result = parse(slice_of(copy, len), &m);
        free(copy);
        ck_assert_int_eq(result, is_refused || result ? -(int)bad_requests[_i].reason : 0);
        is_refused = result != 0;
    }
    ck_assert(is_refused);
}
END_TEST

START_TEST(length_may_use_63_bits)
{
    struct http_msg m;
    ck_assert_int_gt(parse_text(REQUEST("Content-Length: 9223372036854775807"), &m), 0);
    ck_assert_uint_eq(m.length, INT64_MAX);
    ck_assert_int_gt(parse_text(REQUEST("Content-Length: 0000000000000000000000000007"), &m), 0);
    ck_assert_uint_eq(m.length, 7);
}
END_TEST

static const struct {
    const char *lines;
    unsigned seen;
} seen_cases[] = {
    {"X: y", 0},
    {"Content-Length: 0", HTTP_SEEN_LENGTH},
    {"Transfer-Encoding: CHUNKED", HTTP_SEEN_CODING | HTTP_SEEN_CHUNKED},
    {"Connection: Close", HTTP_SEEN_CLOSE},
    {"Connection: te, keep-alive", HTTP_SEEN_KEEP_ALIVE},
    {"Connection: x-y", HTTP_SEEN_OPTIONS},
    {"Connection: keep-alive, Upgrade", HTTP_SEEN_KEEP_ALIVE},
    {"Connection: upgrade\r\nUpgrade: websocket", HTTP_SEEN_UPGRADE},
    {"Upgrade: websocket\r\nConnection: upgrade", HTTP_SEEN_UPGRADE},
    {"TE: gzip, Trailers", HTTP_SEEN_TRAILERS},
    {"TE: trailers;q=1", 0},
    {"Upgrade: websocket", 0},
    {"Expect: 100-Continue", HTTP_SEEN_CONTINUE},
    {"Expect: 100-continue, x", HTTP_SEEN_OTHER_EXPECT},
    {"Expect:", HTTP_SEEN_OTHER_EXPECT},
    {"Expect: 100-continue\r\nExpect: 100-continue", HTTP_SEEN_OTHER_EXPECT},
};

START_TEST(fields_are_noted)
{
    char text[256];
    struct http_msg m;
    strcat(strcpy(text, "GET / HTTP/1.1\r\n" HOST), seen_cases[_i].lines);
    ck_assert_int_gt(parse_text(strcat(text, "\r\n\r\n"), &m), 0);
    ck_assert_uint_eq(m.seen, seen_cases[_i].seen);
}
END_TEST

/* What may be passed on as Upgrade: one protocol that is not HTTP again. */
static const struct {
    const char *lines;
    const char *upgrade;
} upgrade_cases[] = {
    {"Connection: upgrade\r\nUpgrade: websocket", "websocket"},
    {"Upgrade: WebSocket\r\nConnection: keep-alive, UPGRADE", "WebSocket"},
    {"Connection: upgrade\r\nUpgrade: \t SPDY/3.1 ", "SPDY/3.1"},
    {"Upgrade: websocket", ""},
    {"Connection: upgrade", ""},
    {"Connection: upgrade\r\nUpgrade:", ""},
    {"Connection: upgrade\r\nUpgrade: websocket, foo", ""},
    {"Connection: upgrade\r\nUpgrade: websocket,", ""},
    {"Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket", ""},
    {"Connection: upgrade\r\nUpgrade: web socket", ""},
    {"Connection: upgrade\r\nUpgrade: foo/", ""},
    {"Connection: upgrade\r\nUpgrade: /1", ""},
    {"Connection: upgrade\r\nUpgrade: foo/1/2", ""},
    {"Connection: upgrade\r\nUpgrade: h2c", ""},
    {"Connection: upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: AAMAAABk", ""},
    {"Connection: upgrade\r\nUpgrade: h2", ""},
    {"Connection: upgrade\r\nUpgrade: HTTP/2.0", ""},
    {"Connection: upgrade\r\nUpgrade: TLS/1.3", ""},
};

START_TEST(upgrade_is_one_protocol_that_may_be_passed_on)
{
    char text[256];
    struct http_msg m;
    strcat(strcpy(text, "GET / HTTP/1.1\r\n" HOST), upgrade_cases[_i].lines);
    ck_assert_int_gt(parse_text(strcat(text, "\r\n\r\n"), &m), 0);
    ck_assert(slice_eq(m.upgrade, slice_from_str(upgrade_cases[_i].upgrade)));
}
END_TEST

START_TEST(old_version_knows_no_upgrade_and_no_continue)
{
    struct http_msg m;
    ck_assert_int_gt(parse_text("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n"
                                "Expect: 100-continue\r\n\r\n",
                                &m),
                     0);
    ck_assert_uint_eq(m.seen, 0);
    ck_assert_uint_eq(m.upgrade.len, 0);
}
END_TEST

START_TEST(head_may_fill_the_limit_and_no_more)
{
    struct slice head = SLICE(REQUEST("X: y"));
    struct http_msg m = {.fields = fields, .max_fields = MAX_FIELDS};
    struct http_limits limits = {(uint32_t)head.len, 2};
    ck_assert_int_eq(http1_parse_request(head.ptr, head.len, &limits, &m), (int)head.len);
    limits.header_bytes--;
    ck_assert_int_eq(http1_parse_request(head.ptr, head.len, &limits, &m),
                     -REASON_header_too_large);
    ck_assert_int_eq(http1_parse_request(head.ptr, head.len - 1, &limits, &m),
                     -REASON_header_too_large);
    ck_assert_int_eq(http1_parse_request(head.ptr, head.len - 2, &limits, &m), 0);
    limits = (struct http_limits){(uint32_t)head.len, 1};
    ck_assert_int_eq(http1_parse_request(head.ptr, head.len, &limits, &m),
                     -REASON_header_too_large);
}
END_TEST

START_TEST(request_line_alone_may_be_too_long)
{
    struct slice head = SLICE("GET /a/long/target HTTP/1.1\r\n");
    struct http_msg m = {.fields = fields, .max_fields = MAX_FIELDS};
    struct http_limits limits = {(uint32_t)head.len - 1, 2};
    ck_assert_int_eq(http1_parse_request(head.ptr, head.len, &limits, &m), -REASON_uri_too_long);
    limits.header_bytes++;
    ck_assert_int_eq(http1_parse_request(head.ptr, head.len, &limits, &m),
                     -REASON_header_too_large);
}
END_TEST

START_TEST(room_in_fields_is_a_limit_too)
{
    struct slice head = SLICE(REQUEST("X: y"));
    struct http_msg m = {.fields = fields, .max_fields = 1};
    ck_assert_int_eq(http1_parse_request(head.ptr, head.len, &roomy, &m), -REASON_header_too_large);
}
END_TEST

START_TEST(field_name_is_bounded)
{
    char text[1024] = "GET / HTTP/1.0\r\n";
    size_t begin = strlen(text);
    struct http_msg m;
    memset(text + begin, 'n', HTTP_FIELD_NAME_MAX);
    strcpy(text + begin + HTTP_FIELD_NAME_MAX, ":v\r\n\r\n");
    ck_assert_int_gt(parse_text(text, &m), 0);
    memset(text + begin, 'n', HTTP_FIELD_NAME_MAX + 1);
    text[begin + HTTP_FIELD_NAME_MAX + 1] = '\0';
    ck_assert_int_eq(parse_text(text, &m), -REASON_bad_request);
}
END_TEST

static const char *const good_answers[] = {
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
    "HTTP/1.1 200\r\n\r\n",
    "HTTP/1.1 200 \r\n\r\n",
    "HTTP/1.0 599 n\xc3\xa4in\tx \r\n\r\n",
    "HTTP/1.1 100 Continue\n\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nHost: a b\r\n\r\n",
};

START_TEST(prefix_of_a_good_response_is_incomplete)
{
    struct slice whole = slice_from_str(good_answers[_i]);
    struct http_msg m;
    for (size_t len = 0; len < whole.len; len++) {
        char *copy = exact_copy(whole.ptr, len);
        ck_assert_msg(parse_answer(slice_of(copy, len), HTTP_GET, &m) == 0, "%zu bytes", len);
        free(copy);
    }
    ck_assert_int_eq(parse_answer(whole, HTTP_GET, &m), (int)whole.len);
}
END_TEST

START_TEST(response_is_taken_apart)
{
    struct http_msg m;
    ck_assert_int_gt(parse_answer(SLICE("HTTP/1.0 404 Not  Found\r\nServer: x\r\n"
                                        "Connection: keep-alive\r\n\r\n"),
                                  HTTP_HEAD, &m),
                     0);
    ck_assert_int_eq(m.status, 404);
    ck_assert_int_eq(m.minor, 0);
    ck_assert(slice_eq(m.phrase, SLICE("Not  Found")));
    ck_assert(m.body == HTTP_BODY_NONE && m.is_keep_alive && m.nfields == 2);
}
END_TEST

#define BYTES(text) \
    { \
        (text), sizeof(text) - 1 \
    }

static const struct slice bad_answers[] = {
    BYTES("\r\nHTTP/1.1 200 OK\r\n\r\n"),
    BYTES("ICY 200 OK\r\n\r\n"),
    BYTES("HTTP/2 200\r\n\r\n"),
    BYTES("HTTP/1.1200 OK\r\n\r\n"),
    BYTES("HTTP/1.1  200 OK\r\n\r\n"),
    BYTES("HTTP/1.1 099 OK\r\n\r\n"),
    BYTES("HTTP/1.1 600 OK\r\n\r\n"),
    BYTES("HTTP/1.1 20\r\n\r\n"),
    BYTES("HTTP/1.1 2000\r\n\r\n"),
    BYTES("HTTP/1.1 200OK\r\n\r\n"),
    BYTES("HTTP/1.1 200 O\0K\r\n\r\n"),
    BYTES("HTTP/1.1 200 O\rK\r\n\r\n"),
    BYTES("HTTP/1.1 200 OK\r\nX : a\r\n\r\n"),
    BYTES("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"),
    BYTES("HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n"),
    BYTES("HTTP/1.1 200 OK\r\nX: \0\r\n\r\n"),
    BYTES("HTTP/1.1 200 OK\r\n: a\r\n\r\n"),
    BYTES("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"),
    BYTES("HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n"),
    BYTES("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
    BYTES("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
    BYTES("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    BYTES("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
    BYTES("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    BYTES("HTTP/1.1 200 OK\r\nConnection: a b\r\n\r\n"),
};

START_TEST(bad_response_is_refused)
{
    struct http_msg m;
    ck_assert_int_eq(parse_answer(bad_answers[_i], HTTP_GET, &m), -REASON_bad_response);
}
END_TEST

START_TEST(too_large_response_is_bad)
{
    struct slice head = slice_from_str(good_answers[0]);
    struct http_msg m = {.fields = fields, .max_fields = MAX_FIELDS};
    struct http_limits limits = {(uint32_t)head.len - 1, 9};
    ck_assert_int_eq(http1_parse_response(head.ptr, head.len, &limits, HTTP_GET, &m),
                     -REASON_bad_response);
    limits = (struct http_limits){8192, 0};
    ck_assert_int_eq(http1_parse_response(head.ptr, head.len, &limits, HTTP_GET, &m),
                     -REASON_bad_response);
}
END_TEST

static int
parse_trailer_text(struct slice text, struct http_msg *m)
{
    *m = (struct http_msg){.fields = fields, .max_fields = MAX_FIELDS};
    return http1_parse_trailers(text.ptr, text.len, &roomy, m);
}

START_TEST(trailers_are_read_to_their_empty_line)
{
    struct slice whole = SLICE("X-Sum: 1\r\nContent-Length: a, b\r\n\r\n");
    struct http_msg m;
    for (size_t len = 0; len < whole.len; len++) {
        ck_assert_int_eq(parse_trailer_text(slice_of(whole.ptr, len), &m), 0);
    }
    ck_assert_int_eq(parse_trailer_text(whole, &m), (int)whole.len);
    ck_assert(m.nfields == 2 && m.seen == 0);
    ck_assert_int_eq(parse_trailer_text(SLICE("\r\nGET"), &m), 2);
    ck_assert_int_eq(m.nfields, 0);
}
END_TEST

START_TEST(bad_trailers_are_refused)
{
    struct http_msg m;
    struct http_limits limits = {4, MAX_FIELDS};
    ck_assert_int_eq(parse_trailer_text(SLICE(" X: 1\r\n\r\n"), &m), -REASON_bad_request);
    ck_assert_int_eq(parse_trailer_text(SLICE("X: 1\rY"), &m), -REASON_bad_request);
    ck_assert_int_eq(http1_parse_trailers("X: 1", 4, &limits, &m), -REASON_header_too_large);
}
END_TEST

static TCase *
requests_case(void)
{
    TCase *tc = tcase_create("requests");
    tcase_add_loop_test(tc, prefix_of_a_good_request_is_incomplete, 0, COUNT(good_requests));
    tcase_add_loop_test(tc, bytes_behind_the_head_do_not_count, 0, COUNT(good_requests));
    tcase_add_loop_test(tc, head_end_is_found_from_any_earlier_length, 0, COUNT(good_requests));
    tcase_add_test(tc, request_is_taken_apart);
    tcase_add_loop_test(tc, plain_fields_are_those_in_our_own_form, 0, COUNT(plain_cases));
    tcase_add_loop_test(tc, targets_have_four_forms, 0, COUNT(target_cases));
    tcase_add_test(tc, absolute_target_replaces_host);
    tcase_add_loop_test(tc, bad_request_is_refused, 0, COUNT(bad_requests));
    tcase_add_loop_test(tc, bad_request_stays_refused, 0, COUNT(bad_requests));
    tcase_add_test(tc, length_may_use_63_bits);
    tcase_add_loop_test(tc, fields_are_noted, 0, COUNT(seen_cases));
    tcase_add_loop_test(tc, upgrade_is_one_protocol_that_may_be_passed_on, 0, COUNT(upgrade_cases));
    tcase_add_test(tc, old_version_knows_no_upgrade_and_no_continue);
    tcase_add_test(tc, head_may_fill_the_limit_and_no_more);
    tcase_add_test(tc, request_line_alone_may_be_too_long);
    tcase_add_test(tc, room_in_fields_is_a_limit_too);
    tcase_add_test(tc, field_name_is_bounded);
    return tc;
}

static TCase *
responses_case(void)
{
    TCase *tc = tcase_create("responses");
    tcase_add_loop_test(tc, prefix_of_a_good_response_is_incomplete, 0, COUNT(good_answers));
    tcase_add_test(tc, response_is_taken_apart);
    tcase_add_loop_test(tc, bad_response_is_refused, 0, COUNT(bad_answers));
    tcase_add_test(tc, too_large_response_is_bad);
    tcase_add_test(tc, trailers_are_read_to_their_empty_line);
    tcase_add_test(tc, bad_trailers_are_refused);
    return tc;
}

Suite *
http1_parse_suite(void)
{
    Suite *s = suite_create("http1_parse");
    suite_add_tcase(s, requests_case());
    suite_add_tcase(s, responses_case());
    return s;
}
