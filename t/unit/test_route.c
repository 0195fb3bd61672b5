/* SPDX-License-Identifier: Apache-2.0
 *
 * test_route.c - conditions of routes and what they come from in a file; rewriting; admission.
 */
#include "conf/route.h"

#include <check.h>

#include "t/unit/conf_fixture.h"
#include "t/unit/suites.h"

#define FILE_WITH(routes) \
    "{\"metrics\":false,\"listeners\":[{\"name\":\"l\",\"address\":\":80\"}],\"routes\":[" routes \
    "],\"upstreams\":{\"u\":{\"backends\":[{\"address\":\"127.0.0.1:1\"}]}}}"
#define CONDITION(text) FILE_WITH("{\"upstream\":\"u\"," text "}")

static bool
holds(const char *text, const struct http_msg *req)
{
    const struct pattern *gave_up = NULL;
    struct conf *conf = fixture_must_load(text);
    bool result = route_holds(&conf->routes[0], req, &gave_up);
    ck_assert_ptr_null(gave_up);
    fixture_free(conf);
    return result;
}

static bool
holds_for_query(const char *text, const char *target)
{
    struct http_msg req = {.method_text = SLICE("GET"), .target = slice_from_str(target)};
    return holds(text, &req);
}

START_TEST(parameters_are_decoded_and_one_of_several_is_enough)
{
    static const struct {
        const char *condition, *target;
        bool holds;
    } cases[] = {
        {CONDITION("\"query\":{\"a\":\"b\"}"), "/?a=b", true},
        {CONDITION("\"query\":{\"a\":\"b\"}"), "/?x&a=c&a=b", true},
        {CONDITION("\"query\":{\"a\":\"b\"}"), "/?%61=%62", true},
        {CONDITION("\"query\":{\"a\":\"b\"}"), "/?aa=b&a=bb", false},
        {CONDITION("\"query\":{\"a\":\"b\"}"), "/?", false},
        {CONDITION("\"query\":{\"a\":\"b\"}"), "/a=b", false},
        {CONDITION("\"query\":{\"a\":\"b c\"}"), "/?a=b+c", true},
        {CONDITION("\"query\":{\"a\":\"%\"}"), "/?a=%", true},
        {CONDITION("\"query\":{\"a\":\"%4\"}"), "/?a=%4", true},
        {CONDITION("\"query\":{\"a\":\"%zz\"}"), "/?a=%zz", true},
        {CONDITION("\"query\":{\"a\":\"\"}"), "/?a", true},
        {CONDITION("\"query\":{\"a\":{\"present\":true}}"), "/?a", true},
        {CONDITION("\"query\":{\"a\":{\"present\":true}}"), "/?b", false},
        {CONDITION("\"query\":{\"a\":{\"present\":false}}"), "/?b", true},
        {CONDITION("\"query\":{\"a\":{\"present\":false}}"), "/?a=1", false},
        {CONDITION("\"query\":{\"a\":{\"prefix\":\"x\"},\"b\":\"1\"}"), "/?b=1&a=xy", true},
        {CONDITION("\"query\":{\"a\":{\"prefix\":\"x\"},\"b\":\"1\"}"), "/?b=2&a=xy", false},
        {CONDITION("\"query\":{\"a\":{\"suffix\":\"xyz\"}}"), "/?a=yz", false},
        {CONDITION("\"query\":{\"a\":{\"regex\":\"^.$\"}}"), "/?a=%0a", false},
    };
    ck_assert_uint_eq(sizeof(cases) / sizeof(cases[0]), 19);
    ck_assert_int_eq(holds_for_query(cases[_i].condition, cases[_i].target), cases[_i].holds);
}
END_TEST

START_TEST(fields_that_go_do_not_count)
{
    struct http_field fields[] = {
        {.name = SLICE("X-Kind"), .value = SLICE("one"), .drop = true},
        {.name = SLICE("x-kind"), .value = SLICE("two")},
    };
    struct http_msg req = {
        .method_text = SLICE("GET"), .upgrade = SLICE("websocket"), .fields = fields, .nfields = 2};
    ck_assert(!holds(CONDITION("\"headers\":{\"x-kind\":\"one\"}"), &req));
    ck_assert(holds(CONDITION("\"headers\":{\"x-kind\":\"two\"}"), &req));
    ck_assert(holds(CONDITION("\"headers\":{\"Upgrade\":\"websocket\"}"), &req));
    ck_assert(!holds(CONDITION("\"headers\":{\"Upgrade\":{\"present\":false}}"), &req));
    ck_assert(holds(CONDITION("\"methods\":[\"PUT\",\"GET\"]"), &req));
    ck_assert(!holds(CONDITION("\"methods\":[\"get\"]"), &req));
}
END_TEST

START_TEST(pattern_that_is_not_decided_is_neither_yes_nor_no)
{
    const struct pattern *gave_up = NULL;
    struct conf *conf = fixture_must_load(CONDITION("\"path_regex\":\"^(a|a?)+$\""));
    struct http_msg req = {.path = SLICE("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab")};
    ck_assert(!route_holds(&conf->routes[0], &req, &gave_up));
    ck_assert_ptr_eq(gave_up, conf->routes[0].path_pattern);
    ck_assert_str_eq(pattern_text(gave_up), "^(a|a?)+$");
    fixture_free(conf);
}
END_TEST

START_TEST(prefix_takes_the_place_of_what_was_matched)
{
    static const struct {
        const char *path, *exact, *to, *received, *result;
    } cases[] = {
        {"/a", NULL, "/b", "/a", "/b"},       {"/a", NULL, "/b", "/a/x", "/b/x"},
        {"/a", NULL, "/b/", "/a/x", "/b/x"},  {"/a/", NULL, "/b", "/a/x", "/b/x"},
        {"/a", NULL, "/", "/a", "/"},         {"/a", NULL, "/", "/a/", "/"},
        {"/a", NULL, "/", "/a/x", "/x"},      {"/", NULL, "/b", "/x", "/b/x"},
        {NULL, NULL, "/b", "/x/y", "/b/x/y"}, {NULL, "/x/y", "/b", "/x/y", "/b"},
    };
    struct conf_rewrite rewrite = {.path_prefix = cases[_i].to};
    struct conf_route route = {
        .path = cases[_i].path, .path_exact = cases[_i].exact, .rewrite = &rewrite};
    struct slice first, rest;
    char text[64];
    route_rewrite_path(&route, slice_from_str(cases[_i].received), &first, &rest);
    snprintf(text, sizeof(text), "%.*s%.*s", SLICE_ARG(first), SLICE_ARG(rest));
    ck_assert_str_eq(text, cases[_i].result);
}
END_TEST

START_TEST(deny_goes_before_allow)
{
    struct conf *conf = fixture_must_load(
        CONDITION("\"allow\":[\"10.0.0.0/8\",\"::1\"],\"deny\":[\"10.1.0.0/16\"]"));
    static const struct {
        const char *ip;
        bool may;
    } cases[] = {
        {"10.2.0.1", true}, {"10.1.0.1", false}, {"::1", true}, {"::2", false}, {"11.0.0.1", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct addr_ip ip;
        ck_assert_int_eq(addr_ip_parse(slice_from_str(cases[i].ip), &ip), 0);
        ck_assert_msg(route_admits(&conf->routes[0], &ip) == cases[i].may, "%s", cases[i].ip);
    }
    fixture_free(conf);
}
END_TEST

START_TEST(errors_of_routes_have_places)
{
    fixture_expect_errors(
        FILE_WITH("\n{\"path\":\"/v1\",\"path_regex\":\"(a\",\"upstream\":\"u\",\"respond\":{}},\n"
                  "{\"headers\":{\"a:b\":\"c\",\"X\":{\"prefix\":\"a\",\"suffix\":\"b\"}},"
                  "\"split\":[{\"upstream\":\"zz\"}]},\n"
                  "{\"redirect\":{\"status\":305,\"host\":\"a b\"}},\n"
                  "{\"respond\":{\"status\":204,\"body\":\"x\"},\"rewrite\":{\"host\":\"y\"},"
                  "\"response_headers\":{\"set\":{\"Content-Length\":\"1\",\"X\":\" a\"},"
                  "\"remove\":[\"TE\"]}},\n"
                  "{\"headers\":{\"Y\":{\"regex\":\"a(b\"}},\"upstream\":\"u\"}"),
        "2:15: routes[0].path_regex: excluded by \"path\"",
        "2:48: routes[0].respond: excluded by \"upstream\"",
        "3:13: routes[1].headers.a:b: not the name of a field",
        "3:27: routes[1].headers.X: expected exactly one of exact, prefix, suffix, regex and "
        "present",
        "3:77: routes[1].split[0].upstream: there is no upstream zz",
        "4:23: routes[2].redirect.status: expected 301, 302, 303, 307 or 308",
        "4:34: routes[2].redirect.host: expected a host name or an IP address, with or without a "
        "port",
        "5:33: routes[3].respond.body: an answer 204 has no body",
        "5:38: routes[3].rewrite: only with upstream or split",
        "5:88: routes[3].response_headers.set.Content-Length: this field is not changed by routes",
        "5:113: routes[3].response_headers.set.X: not the value of a field",
        "5:129: routes[3].response_headers.remove[0]: this field is not changed by routes",
        "6:26: routes[4].headers.Y.regex: not a regular expression: missing closing parenthesis at "
        "offset 3",
        NULL);
}
END_TEST

Suite *
route_suite(void)
{
    Suite *suite = suite_create("route");
    TCase *tc = tcase_create("route");
    tcase_add_loop_test(tc, parameters_are_decoded_and_one_of_several_is_enough, 0, 19);
    tcase_add_test(tc, fields_that_go_do_not_count);
    tcase_add_test(tc, pattern_that_is_not_decided_is_neither_yes_nor_no);
    tcase_add_loop_test(tc, prefix_takes_the_place_of_what_was_matched, 0, 10);
    tcase_add_test(tc, deny_goes_before_allow);
    tcase_add_test(tc, errors_of_routes_have_places);
    suite_add_tcase(suite, tc);
    return suite;
}
