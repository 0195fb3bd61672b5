/* SPDX-License-Identifier: Apache-2.0
 *
 * test_http.c - words, framing, hop-by-hop fields and paths of HTTP messages.
 */
#include <check.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/http.h"
#include "t/unit/suites.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define ROOM         40

static struct http_field room[ROOM];

static void
add_field(struct http_msg *m, const char *name, const char *value)
{
    struct http_field *f = &m->fields[m->nfields++];
    *f = (struct http_field){.name = slice_from_str(name), .value = slice_from_str(value)};
    f->id = (uint8_t)http_field_find_id(f->name);
}

static struct http_msg
msg_with(const char *name, const char *value)
{
    struct http_msg m = {.minor = 1, .fields = room, .max_fields = ROOM};
    if (name) {
        add_field(&m, name, value);
    }
    return m;
}

static bool
is_dropped(const struct http_msg *m, const char *name)
{
    for (size_t i = 0; i < m->nfields; i++) {
        if (slice_eq_nocase(m->fields[i].name, slice_from_str(name)) && m->fields[i].drop) {
            return true;
        }
    }
    return false;
}

START_TEST(every_known_field_is_found_in_any_case)
{
    for (int id = 1; id < HTTP_FIELD_COUNT; id++) {
        struct slice name = http_field_name((enum http_field_id)id);
        char upper[64];
        for (size_t i = 0; i < name.len; i++) {
            upper[i] = (char)toupper((unsigned char)name.ptr[i]);
        }
        ck_assert_int_eq(http_field_find_id(name), id);
        ck_assert_int_eq(http_field_find_id(slice_of(upper, name.len)), id);
        ck_assert_int_eq(http_field_find_id(slice_of(name.ptr, name.len - 1)), HTTP_FIELD_OTHER);
    }
}
END_TEST

START_TEST(one_changed_byte_makes_a_field_unknown)
{
    for (int id = 1; id < HTTP_FIELD_COUNT; id++) {
        struct slice name = http_field_name((enum http_field_id)id);
        for (size_t i = 0; i < name.len; i++) {
            char copy[64];
            memcpy(copy, name.ptr, name.len);
            copy[i] = (char)(copy[i] ^ (isalpha((unsigned char)copy[i]) ? 0x80 : 0x20));
            ck_assert_int_eq(http_field_find_id(slice_of(copy, name.len)), HTTP_FIELD_OTHER);
        }
    }
}
END_TEST

START_TEST(field_ids_of_unknown_names)
{
    ck_assert_int_eq(http_field_find_id(SLICE("")), HTTP_FIELD_OTHER);
    ck_assert_int_eq(http_field_find_id(SLICE("x")), HTTP_FIELD_OTHER);
    ck_assert_int_eq(http_field_find_id(SLICE("accept")), HTTP_FIELD_OTHER);
    ck_assert_int_eq(http_field_find_id(SLICE("content_length")), HTTP_FIELD_OTHER);
    ck_assert_uint_eq(http_field_name(HTTP_FIELD_OTHER).len, 0);
}
END_TEST

START_TEST(methods_are_known_by_exact_case)
{
    ck_assert_int_eq(http_method_from(SLICE("GET")), HTTP_GET);
    ck_assert_int_eq(http_method_from(SLICE("CONNECT")), HTTP_CONNECT);
    ck_assert_int_eq(http_method_from(SLICE("get")), HTTP_METHOD_OTHER);
    ck_assert_int_eq(http_method_from(SLICE("")), HTTP_METHOD_OTHER);
    ck_assert_int_eq(http_method_from(SLICE("GETS")), HTTP_METHOD_OTHER);
    ck_assert(http_method_is_idempotent(HTTP_DELETE));
    ck_assert(!http_method_is_idempotent(HTTP_POST));
    ck_assert(!http_method_is_idempotent(HTTP_PATCH));
    ck_assert(!http_method_is_idempotent(HTTP_METHOD_OTHER));
}
END_TEST

START_TEST(find_skips_dropped_fields)
{
    struct http_msg m = msg_with("Cookie", "a");
    add_field(&m, "cookie", "b");
    m.fields[0].drop = true;
    ck_assert_ptr_eq(http_msg_find(&m, HTTP_FIELD_COOKIE), &m.fields[1]);
    m.fields[1].drop = true;
    ck_assert_ptr_null(http_msg_find(&m, HTTP_FIELD_COOKIE));
}
END_TEST

/* Every byte against the words of the RFC. */
START_TEST(classes_of_all_bytes)
{
    for (int i = 1; i < 256; i++) {
        char c = (char)i;
        struct slice s = slice_of(&c, 1);
        bool is_visible = i > 0x20 && i < 0x7f;
        bool is_token = is_visible && !strchr("\"(),/:;<=>?@[\\]{}", i);
        ck_assert_int_eq(http_is_token(s), is_token);
        ck_assert_int_eq(http_is_field_value(s), is_visible || i == ' ' || i == '\t' || i > 0x7f);
        ck_assert_int_eq(http_is_target(s), is_visible && i != '#');
    }
    ck_assert(!http_is_token(slice_of("", 1)) && !http_is_field_value(slice_of("", 1)));
    ck_assert(!http_is_token(SLICE("")) && !http_is_target(SLICE("")));
    ck_assert(http_is_field_value(SLICE("")));
}
END_TEST

/* A bad byte is found at every place of a long value, whatever stands around it. */
START_TEST(control_characters_in_long_values)
{
    for (int i = 0; i < 256; i++) {
        bool is_good = (i >= 0x20 && i != 0x7f) || i == '\t';
        for (size_t at = 0; at < 21; at++) {
            char text[21];
            memset(text, at % 2 ? '\xff' : ' ', sizeof(text));
            text[at] = (char)i;
            ck_assert_int_eq(http_is_field_value(slice_of(text, sizeof(text))), is_good);
        }
    }
}
END_TEST

static const char *const good_authorities[] = {
    "a",
    "example.com",
    "example.com:80",
    "127.0.0.1:8080",
    "[::1]",
    "[::1]:443",
    "a_b-c.d~e",
    "[2001:db8:1111:2222:3333:4444:255.255.255.255]:65535",
    "h:",
    "[::1]:",
    "h:0",
    "x!$&'()*+;=y",
};

START_TEST(authorities_that_are_valid)
{
    ck_assert(http_is_authority(slice_from_str(good_authorities[_i]), false));
}
END_TEST

static const char *const bad_authorities[] = {
    "",    ":80",      "h:65536",  "h:000080",  "h:8x",   "h:80:80",      "u@h",
    "h/",  "h?",       "h#",       "a b",       "a,b",    "a%41",         "[",
    "[]",  "[::1",     "::1",      "[::1]x",    "[v1.a]", "[::1%25eth0]", "[::g]",
    "h\t", "\xc3\xa4", "[::1]:-1", "[1.2.3.4]", "h:+1",
};

START_TEST(authorities_that_are_not)
{
    ck_assert(!http_is_authority(slice_from_str(bad_authorities[_i]), false));
}
END_TEST

START_TEST(authority_limits)
{
    char text[HTTP_HOST_MAX + 2];
    memset(text, 'a', sizeof(text));
    ck_assert(http_is_authority(slice_of(text, HTTP_HOST_MAX), false));
    ck_assert(!http_is_authority(slice_of(text, HTTP_HOST_MAX + 1), false));
    ck_assert(http_is_authority(SLICE(""), true));
    ck_assert(!http_is_authority(SLICE("[::1\0]"), false));
}
END_TEST

START_TEST(lists_give_their_elements)
{
    struct slice list = SLICE(" ,a ,\t, b c,,d\t ");
    ck_assert(slice_eq(http_list_next(&list), SLICE("a")));
    ck_assert(slice_eq(http_list_next(&list), SLICE("b c")));
    ck_assert(slice_eq(http_list_next(&list), SLICE("d")));
    ck_assert_uint_eq(http_list_next(&list).len, 0);
    ck_assert_uint_eq(http_list_next(&list).len, 0);
}
END_TEST

#define L HTTP_SEEN_LENGTH
#define T HTTP_SEEN_CODING
#define C HTTP_SEEN_CHUNKED

static const struct {
    unsigned seen;
    int minor;
    const char *coding;
    uint64_t length;
    enum reason reason;
    enum http_body_kind body;
} request_cases[] = {
    {0, 1, NULL, 0, REASON_none, HTTP_BODY_NONE},
    {0, 0, NULL, 0, REASON_none, HTTP_BODY_NONE},
    {L, 1, NULL, 5, REASON_none, HTTP_BODY_LENGTH},
    {L, 0, NULL, 5, REASON_none, HTTP_BODY_LENGTH},
    {L, 1, NULL, 0, REASON_none, HTTP_BODY_NONE},
    {T | C, 1, "chunked", 0, REASON_none, HTTP_BODY_CHUNKED},
    {T | C, 0, "chunked", 0, REASON_bad_request, HTTP_BODY_NONE},
    {T | C | L, 1, "chunked", 5, REASON_bad_request, HTTP_BODY_NONE},
    {T | L, 1, "gzip, chunked", 5, REASON_bad_request, HTTP_BODY_NONE},
    {T, 1, "gzip, chunked", 0, REASON_unsupported, HTTP_BODY_NONE},
    {T, 1, "gzip , br,CHUNKED", 0, REASON_unsupported, HTTP_BODY_NONE},
    {T, 0, "gzip, chunked", 0, REASON_bad_request, HTTP_BODY_NONE},
    {T, 1, "gzip", 0, REASON_bad_request, HTTP_BODY_NONE},
    {T, 1, "chunked, gzip", 0, REASON_bad_request, HTTP_BODY_NONE},
    {T, 1, "chunked, chunked", 0, REASON_bad_request, HTTP_BODY_NONE},
    {T, 1, "gzip;q=1, chunked", 0, REASON_bad_request, HTTP_BODY_NONE},
    {T, 1, "\"chunked\"", 0, REASON_bad_request, HTTP_BODY_NONE},
    {T, 1, "xchunked", 0, REASON_bad_request, HTTP_BODY_NONE},
    {T, 1, "identity", 0, REASON_bad_request, HTTP_BODY_NONE},
    {T, 1, "", 0, REASON_bad_request, HTTP_BODY_NONE},
};

START_TEST(framing_of_requests)
{
    const char *coding = request_cases[_i].coding;
    struct http_msg m = msg_with(coding ? "transfer-encoding" : NULL, coding);
    m.minor = (uint8_t)request_cases[_i].minor;
    m.seen = (uint16_t)request_cases[_i].seen;
    m.length = request_cases[_i].length;
    ck_assert_int_eq(http_frame_request(&m), request_cases[_i].reason);
    ck_assert_int_eq(m.body, request_cases[_i].body);
    ck_assert_int_eq(m.is_keep_alive, request_cases[_i].reason == REASON_none && m.minor == 1);
}
END_TEST

START_TEST(two_coding_fields_are_not_a_list)
{
    struct http_msg m = msg_with("transfer-encoding", "gzip");
    add_field(&m, "transfer-encoding", "chunked");
    m.seen = HTTP_SEEN_CODING;
    ck_assert_int_eq(http_frame_request(&m), REASON_bad_request);
}
END_TEST

static const struct {
    int status;
    unsigned seen;
    int minor;
    enum http_method method;
    enum reason reason;
    enum http_body_kind body;
} response_cases[] = {
    {200, 0, 1, HTTP_GET, REASON_none, HTTP_BODY_CLOSE},
    {200, L, 1, HTTP_GET, REASON_none, HTTP_BODY_LENGTH},
    {200, T | C, 1, HTTP_GET, REASON_none, HTTP_BODY_CHUNKED},
    {200, T | C, 0, HTTP_GET, REASON_bad_response, HTTP_BODY_NONE},
    {200, T | C | L, 1, HTTP_GET, REASON_bad_response, HTTP_BODY_NONE},
    {200, T, 1, HTTP_GET, REASON_bad_response, HTTP_BODY_NONE},
    {200, L, 1, HTTP_HEAD, REASON_none, HTTP_BODY_NONE},
    {200, T | C, 1, HTTP_HEAD, REASON_none, HTTP_BODY_NONE},
    {200, T | C | L, 1, HTTP_HEAD, REASON_bad_response, HTTP_BODY_NONE},
    {200, 0, 1, HTTP_HEAD, REASON_none, HTTP_BODY_NONE},
    {204, L, 1, HTTP_GET, REASON_none, HTTP_BODY_NONE},
    {304, L, 1, HTTP_GET, REASON_none, HTTP_BODY_NONE},
    {304, 0, 1, HTTP_GET, REASON_none, HTTP_BODY_NONE},
    {100, 0, 1, HTTP_POST, REASON_none, HTTP_BODY_NONE},
    {101, 0, 1, HTTP_GET, REASON_none, HTTP_BODY_NONE},
    {200, 0, 1, HTTP_CONNECT, REASON_none, HTTP_BODY_NONE},
    {400, 0, 1, HTTP_CONNECT, REASON_none, HTTP_BODY_CLOSE},
};

START_TEST(framing_of_responses)
{
    struct http_msg m = msg_with(NULL, NULL);
    m.status = (uint16_t)response_cases[_i].status;
    m.minor = (uint8_t)response_cases[_i].minor;
    m.seen = (uint16_t)response_cases[_i].seen;
    m.length = (m.seen & L) ? 7 : 0;
    ck_assert_int_eq(http_frame_response(&m, response_cases[_i].method), response_cases[_i].reason);
    ck_assert_int_eq(m.body, response_cases[_i].body);
    ck_assert_int_eq(m.is_keep_alive, response_cases[_i].reason == REASON_none &&
                                          response_cases[_i].body != HTTP_BODY_CLOSE);
}
END_TEST

#undef L
#undef T
#undef C

static const struct {
    int minor;
    unsigned seen;
    bool expected;
} keep_alive_cases[] = {
    {1, 0, true},
    {1, HTTP_SEEN_CLOSE, false},
    {1, HTTP_SEEN_CLOSE | HTTP_SEEN_KEEP_ALIVE, false},
    {0, 0, false},
    {0, HTTP_SEEN_KEEP_ALIVE, true},
    {0, HTTP_SEEN_CLOSE | HTTP_SEEN_KEEP_ALIVE, false},
};

START_TEST(keep_alive_by_version_and_option)
{
    struct http_msg m = msg_with(NULL, NULL);
    m.minor = (uint8_t)keep_alive_cases[_i].minor;
    m.seen = (uint16_t)keep_alive_cases[_i].seen;
    ck_assert_int_eq(http_frame_request(&m), REASON_none);
    ck_assert_int_eq(m.is_keep_alive, keep_alive_cases[_i].expected);
}
END_TEST

START_TEST(hop_by_hop_fields_are_dropped)
{
    static const char *const hop[] = {"Connection", "Keep-Alive",       "Proxy-Connection",
                                      "TE",         "Upgrade",          "HTTP2-Settings",
                                      "X-Named",    "transfer-encoding"};
    struct http_msg m = msg_with("Connection", "keep-alive, x-nAMED");
    for (int i = 1; i < COUNT(hop); i++) {
        add_field(&m, hop[i], "v");
    }
    add_field(&m, "X-Kept", "v");
    add_field(&m, "Content-Length", "1");
    m.seen = HTTP_SEEN_OPTIONS;
    ck_assert(http_strip_hop_by_hop(&m));
    for (int i = 0; i < COUNT(hop); i++) {
        ck_assert_msg(is_dropped(&m, hop[i]), "%s", hop[i]);
    }
    ck_assert(!is_dropped(&m, "X-Kept") && !is_dropped(&m, "Content-Length"));
}
END_TEST

static const char *const end_to_end[] = {
    "Host",          "Content-Length",  "Transfer-Encoding", "Cookie",
    "Authorization", "X-Forwarded-For", "close, Host",       "X-Request-ID",
    "Set-Cookie",    "Forwarded",       "x-forwarded-proto", "Content-Type",
    "Expect",        "X-Real-IP",       "Cache-Control",     "a b",
};

START_TEST(connection_may_not_name_end_to_end_fields)
{
    struct http_msg m = msg_with("Connection", end_to_end[_i]);
    m.seen = HTTP_SEEN_OPTIONS;
    ck_assert(!http_strip_hop_by_hop(&m));
}
END_TEST

START_TEST(one_bad_option_saves_no_other)
{
    struct http_msg m = msg_with("Connection", "Set-Cookie, X-Named");
    add_field(&m, "X-Named", "v");
    add_field(&m, "Set-Cookie", "v");
    m.seen = HTTP_SEEN_OPTIONS;
    m.status = 200;
    ck_assert(!http_strip_hop_by_hop(&m));
    ck_assert(is_dropped(&m, "X-Named") && !is_dropped(&m, "Set-Cookie"));
}
END_TEST

START_TEST(response_may_list_transfer_encoding)
{
    struct http_msg m = msg_with("Connection", "Transfer-Encoding");
    m.seen = HTTP_SEEN_OPTIONS;
    m.status = 200;
    ck_assert(http_strip_hop_by_hop(&m));
}
END_TEST

START_TEST(connection_names_a_limited_number_of_fields)
{
    char value[4 * HTTP_OPTIONS_MAX + 4] = "";
    for (int i = 0; i < HTTP_OPTIONS_MAX; i++) {
        strcat(value, "x,");
    }
    struct http_msg m = msg_with("Connection", value);
    m.seen = HTTP_SEEN_OPTIONS;
    ck_assert(http_strip_hop_by_hop(&m));
    add_field(&m, "Connection", "y");
    ck_assert(!http_strip_hop_by_hop(&m));
}
END_TEST

START_TEST(length_is_dropped_where_it_would_lie)
{
    struct http_msg m = msg_with("Content-Length", "3");
    m.body = HTTP_BODY_CHUNKED;
    ck_assert(http_strip_hop_by_hop(&m) && is_dropped(&m, "Content-Length"));
    m = msg_with("Content-Length", "3");
    m.status = 204;
    ck_assert(http_strip_hop_by_hop(&m) && is_dropped(&m, "Content-Length"));
    m = msg_with("Content-Length", "3");
    m.status = 304;
    ck_assert(http_strip_hop_by_hop(&m) && !is_dropped(&m, "Content-Length"));
}
END_TEST

START_TEST(trailers_may_not_frame_or_route)
{
    static const char *const bad[] = {"Content-Length", "transfer-encoding", "HOST",
                                      "Authorization",  "X-Forwarded-For",   "Connection",
                                      "Trailer",        "Content-Encoding"};
    struct http_msg m = msg_with("X-Checksum", "1");
    ck_assert(http_is_trailer_allowed(&m.fields[0]));
    for (int i = 0; i < COUNT(bad); i++) {
        m = msg_with(bad[i], "1");
        ck_assert_msg(!http_is_trailer_allowed(&m.fields[0]), "%s", bad[i]);
    }
}
END_TEST

static const struct {
    const char *path, *expected; /* NULL: refused */
} path_cases[] = {
    {"/", "/"},
    {"/a/b", "/a/b"},
    {"/a/./b", "/a/b"},
    {"/a/../b", "/b"},
    {"/a/b/..", "/a/"},
    {"/a/b/.", "/a/b/"},
    {"/.", "/"},
    {"/..", "/"},
    {"/../../x", "/x"},
    {"/a/%2e%2E/b", "/b"},
    {"/a/.%2e/b", "/b"},
    {"/a/%2e./b", "/b"},
    {"/a/%2E/b", "/a/b"},
    {"/a/...", "/a/..."},
    {"/a/..b/.c", "/a/..b/.c"},
    {"/a//../b", "/a/b"},
    {"//a", "//a"},
    {"/a/%2fb%5C", "/a/%2fb%5C"},
    {"/a/..%2fb", "/a/..%2fb"},
    {"/%252e%252e/", "/%252e%252e/"},
    {"/mid/content=5/../6", "/mid/6"},
    {"/%61dmin", "/admin"},
    {"/%41%7A%30%39%2D%5F%7e", "/Az09-_~"},
    {"/%2561", "/%2561"},
    {"/%40%5B%60%7B%2f%3A%2c%21%C1%E1", "/%40%5B%60%7B%2f%3A%2c%21%C1%E1"},
    {"/%61/%2E%2E/%62", "/b"},
    {"/%61%2e/..%2fb", "/a./..%2fb"},
    {"/x/%2e%2E%2e/%2e", "/x/.../"},
    {"/a/b/c/./../../g", "/a/g"},
    {"*", "*"},
    {"/%00", NULL},
    {"/a/../%00", NULL},
    {"/%", NULL},
    {"/%4", NULL},
    {"/%4g", NULL},
    {"/%g4", NULL},
    {"/a#b", NULL},
};

START_TEST(paths_are_made_normal)
{
    struct slice path = slice_from_str(path_cases[_i].path);
    const char *expected = path_cases[_i].expected;
    char *out = malloc(path.len);
    struct slice result;
    enum http_path is = http_path_normalize(path, out, &result);
    ck_assert_int_eq(is != HTTP_PATH_BAD, expected != NULL);
    if (expected) {
        ck_assert_msg(slice_eq(result, slice_from_str(expected)), "%.*s", SLICE_ARG(result));
        bool is_same = strcmp(expected, path_cases[_i].path) == 0;
        ck_assert_ptr_eq(result.ptr, is_same ? path.ptr : out);
        ck_assert_int_eq(is == HTTP_PATH_NORMAL, is_same);
    }
    free(out);
}
END_TEST

START_TEST(dates_have_the_fixed_form)
{
    char buf[30];
    http_date(0, buf);
    ck_assert_str_eq(buf, "Thu, 01 Jan 1970 00:00:00 GMT");
    http_date(784111777, buf);
    ck_assert_str_eq(buf, "Sun, 06 Nov 1994 08:49:37 GMT");
    http_date(1709251199, buf);
    ck_assert_str_eq(buf, "Thu, 29 Feb 2024 23:59:59 GMT");
}
END_TEST

START_TEST(every_reason_with_a_status_has_a_phrase)
{
    for (int i = 0; i < REASON_COUNT; i++) {
        int status = reason_table[i].status;
        if (status != 0 && status != 499) { /* 499 is for the log only */
            ck_assert_msg(http_status_phrase(status).len > 0, "%d", status);
        }
    }
    ck_assert_uint_eq(http_status_phrase(299).len, 0);
}
END_TEST

static TCase *
words_case(void)
{
    TCase *tc = tcase_create("words");
    tcase_add_test(tc, every_known_field_is_found_in_any_case);
    tcase_add_test(tc, one_changed_byte_makes_a_field_unknown);
    tcase_add_test(tc, field_ids_of_unknown_names);
    tcase_add_test(tc, methods_are_known_by_exact_case);
    tcase_add_test(tc, find_skips_dropped_fields);
    tcase_add_test(tc, classes_of_all_bytes);
    tcase_add_test(tc, control_characters_in_long_values);
    tcase_add_loop_test(tc, authorities_that_are_valid, 0, COUNT(good_authorities));
    tcase_add_loop_test(tc, authorities_that_are_not, 0, COUNT(bad_authorities));
    tcase_add_test(tc, authority_limits);
    tcase_add_test(tc, lists_give_their_elements);
    tcase_add_test(tc, dates_have_the_fixed_form);
    tcase_add_test(tc, every_reason_with_a_status_has_a_phrase);
    return tc;
}

static TCase *
messages_case(void)
{
    TCase *tc = tcase_create("messages");
    tcase_add_loop_test(tc, framing_of_requests, 0, COUNT(request_cases));
    tcase_add_test(tc, two_coding_fields_are_not_a_list);
    tcase_add_loop_test(tc, framing_of_responses, 0, COUNT(response_cases));
    tcase_add_loop_test(tc, keep_alive_by_version_and_option, 0, COUNT(keep_alive_cases));
    tcase_add_test(tc, hop_by_hop_fields_are_dropped);
    tcase_add_loop_test(tc, connection_may_not_name_end_to_end_fields, 0, COUNT(end_to_end));
    tcase_add_test(tc, one_bad_option_saves_no_other);
    tcase_add_test(tc, response_may_list_transfer_encoding);
    tcase_add_test(tc, connection_names_a_limited_number_of_fields);
    tcase_add_test(tc, length_is_dropped_where_it_would_lie);
    tcase_add_test(tc, trailers_may_not_frame_or_route);
    tcase_add_loop_test(tc, paths_are_made_normal, 0, COUNT(path_cases));
    return tc;
}

Suite *
http_suite(void)
{
    Suite *s = suite_create("http");
    suite_add_tcase(s, words_case());
    suite_add_tcase(s, messages_case());
    return s;
}
