/* SPDX-License-Identifier: Apache-2.0
 *
 * test_access_log.c - an exchange as a line, in each format: bytes of clients, and what is cut.
 */
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "t/unit/expect.h"
#include "t/unit/suites.h"
#include "worker/access_line.h"

static char line[ACCESS_LINE_MAX + 1];
static struct http_field fields[2];
static struct stream_http http;
static struct listener listener;
static struct stream s;

static void
set_up(void)
{
    memset(&http, 0, sizeof(http));
    memset(&s, 0, sizeof(s));
    fields[0] = (struct http_field){.id = HTTP_FIELD_USER_AGENT, .value = SLICE("curl/8")};
    fields[1] = (struct http_field){.id = HTTP_FIELD_REFERER, .value = SLICE("http://a/")};
    listener.name = "web";
    http.req.method_text = SLICE("GET");
    http.req.authority = SLICE("test");
    http.req.target = SLICE("/path?q=1");
    http.req.minor = 1;
    http.req.fields = fields;
    http.req.nfields = 2;
    http.request_id = SLICE("0123456789abcdef");
    s.http = &http;
    s.listener = &listener;
    s.status = 200;
    s.client.bytes = 12;
    s.bytes_in = 3;
    s.upstream_name = SLICE("site");
    s.backend_name = SLICE("10.0.0.1:80");
    ck_assert_int_eq(addr_ip_parse(SLICE("192.0.2.7"), &s.client_ip), 0);
}

static const char *
put(enum conf_access_format format)
{
    memset(line, '#', sizeof(line));
    size_t n = access_line_put(&s, format, line);
    ck_assert_uint_lt(n, ACCESS_LINE_MAX);
    ck_assert_int_eq(line[ACCESS_LINE_MAX], '#');
    line[n] = '\0';
    ck_assert_uint_eq(strlen(line), n);
    return line;
}

/* The line as JSON, which it must be to the letter. */
static struct json_object *
parse(const char *text)
{
    struct json_tokener *tokener = json_tokener_new();
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    struct json_object *root = json_tokener_parse_ex(tokener, text, (int)strlen(text) + 1);
    ck_assert_msg(root && json_tokener_get_error(tokener) == json_tokener_success, "not JSON: %s",
                  text);
    json_tokener_free(tokener);
    return root;
}

static const char *
value(struct json_object *root, const char *key)
{
    struct json_object *found;
    ck_assert_msg(json_object_object_get_ex(root, key, &found), "no %s in %s", key, line);
    return json_object_get_string(found);
}

static struct slice
filled(char with, size_t len)
{
    static char room[3][65536];
    static unsigned next;
    char *at = room[next++ % 3];
    memset(at, with, len);
    return slice_of(at, len);
}

START_TEST(combined_is_what_tools_parse)
{
    expect_match(put(CONF_ACCESS_COMBINED),
                 "^192\\.0\\.2\\.7 - - \\[[0-9]{2}/[A-Z][a-z]{2}/[0-9]{4}(:[0-9]{2}){3} "
                 "[+-][0-9]{4}\\] \"GET /path\\?q=1 HTTP/1\\.1\" 200 12 \"http://a/\" \"curl/8\"$");
}
END_TEST

START_TEST(combined_says_what_is_not_there)
{
    http.req.nfields = 0;
    http.req.method_text = SLICE("");
    s.status = 400;
    expect_match(put(CONF_ACCESS_COMBINED), "\\] \"-\" 400 12 \"-\" \"-\"$");
}
END_TEST

START_TEST(tcp_has_names_bytes_seconds_and_reason)
{
    s.http = NULL;
    s.is_tcp = true;
    s.reason = REASON_backend_reset;
    expect_match(put(CONF_ACCESS_TCP), "^[0-9T:-]{19}[+-][0-9]{2}:[0-9]{2} 192\\.0\\.2\\.7 web "
                                       "site/10\\.0\\.0\\.1:80 3 12 0\\.000000 backend_reset$");
    char before[ACCESS_LINE_MAX + 1];
    strcpy(before, line);
    ck_assert_str_eq(strchr(put(CONF_ACCESS_COMBINED), ' '),
                     strchr(before, ' ')); /* but the time */
}
END_TEST

START_TEST(json_has_all_keys)
{
    static const char *const keys[] = {
        "time",       "id",       "listener",  "client",    "method",     "host",
        "path",       "protocol", "status",    "reason",    "upstream",   "backend",
        "tries",      "bytes_in", "bytes_out", "request_s", "queue_s",    "connect_s",
        "response_s", "total_s",  "tls",       "resumed",   "user_agent", "referer",
    };
    struct json_object *root = parse(put(CONF_ACCESS_JSON));
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        value(root, keys[i]);
    }
    ck_assert_int_eq(json_object_object_length(root), sizeof(keys) / sizeof(keys[0]));
    ck_assert_str_eq(value(root, "path"), "/path?q=1");
    ck_assert_str_eq(value(root, "client"), "192.0.2.7");
    ck_assert_str_eq(value(root, "bytes_in"), "3");
    ck_assert_str_eq(value(root, "referer"), "http://a/");
    json_object_put(root);
}
END_TEST

START_TEST(hostile_bytes_read_the_same_in_every_format)
{
    fields[0].value = slice_of("a\"\\\n\0\x7f\xff\t{}", 10);
    static const char escaped[] = "a\\x22\\x5c\\x0a\\x00\\x7f\\xff\\x09{}";
    char end[64];
    snprintf(end, sizeof(end), " \"%s\"", escaped);
    const char *text = put(CONF_ACCESS_COMBINED);
    ck_assert_str_eq(text + strlen(text) - strlen(end), end);
    struct json_object *root = parse(put(CONF_ACCESS_JSON));
    ck_assert_str_eq(value(root, "user_agent"), escaped);
    ck_assert_ptr_null(strstr(line, "\\u"));
    json_object_put(root);
}
END_TEST

/* Every value as long as it can be, of bytes that are escaped (1) and that are not. */
static void
make_long(char with)
{
    http.req.target = filled(with, 65536);
    fields[0].value = fields[1].value = filled(with, 65536);
    http.request_id = http.req.method_text = filled(with, 4000);
    http.req.authority = s.upstream_name = s.backend_name = s.tls_version = http.request_id;
    s.client.bytes = s.bytes_in = s.queue_us = UINT64_MAX;
    s.first_us = 1;
    s.tries = UINT16_MAX;
    s.reason = REASON_response_timeout;
    ck_assert_int_eq(addr_ip_parse(SLICE("1111:2222:3333:4444:5555:6666:7777:8888"), &s.client_ip),
                     0);
}

START_TEST(json_that_is_cut_is_still_json)
{
    make_long(_i == 0 ? '\1' : 'x');
    listener.name = _i == 0 ? "web" : strndup(http.request_id.ptr, 4000);
    struct json_object *root = parse(put(CONF_ACCESS_JSON));
    ck_assert_int_eq(json_object_object_length(root), 24);
    ck_assert_uint_ge(strlen(value(root, "path")), 500);
    ck_assert_uint_ge(strlen(value(root, "user_agent")), 150);
    ck_assert_uint_ge(strlen(value(root, "referer")), 150);
    ck_assert_str_eq(value(root, "bytes_out"), "18446744073709551615");
    json_object_put(root);
}
END_TEST

START_TEST(json_with_one_long_value_uses_the_room)
{
    fields[0].value = filled('x', 65536);
    struct json_object *root = parse(put(CONF_ACCESS_JSON));
    ck_assert_uint_gt(strlen(line), 3700);
    ck_assert_str_eq(value(root, "referer"), "http://a/");
    json_object_put(root);
}
END_TEST

START_TEST(combined_that_is_cut_keeps_its_form)
{
    make_long(_i == 0 ? '\1' : 'x');
    expect_match(
        put(CONF_ACCESS_COMBINED),
        "\\] \"[^\" ]+ [^\" ]{2000,} HTTP/1\\.1\" 200 [0-9]+ \"[^\"]{200,}\" \"[^\"]{200,}\"$");
}
END_TEST

Suite *
access_log_suite(void)
{
    Suite *suite = suite_create("access_log");
    TCase *tc = tcase_create("access_log");
    tcase_add_checked_fixture(tc, set_up, NULL);
    tcase_add_test(tc, combined_is_what_tools_parse);
    tcase_add_test(tc, combined_says_what_is_not_there);
    tcase_add_test(tc, tcp_has_names_bytes_seconds_and_reason);
    tcase_add_test(tc, json_has_all_keys);
    tcase_add_test(tc, hostile_bytes_read_the_same_in_every_format);
    tcase_add_loop_test(tc, json_that_is_cut_is_still_json, 0, 2);
    tcase_add_test(tc, json_with_one_long_value_uses_the_room);
    tcase_add_loop_test(tc, combined_that_is_cut_keeps_its_form, 0, 2);
    suite_add_tcase(suite, tc);
    return suite;
}
