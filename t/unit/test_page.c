/* SPDX-License-Identifier: Apache-2.0
 *
 * test_page.c - error pages: words that stand for something, and which page it is.
 */
#include "conf/page.h"

#include <stdlib.h>

#include "t/unit/conf_fixture.h"
#include "t/unit/suites.h"

#define LISTENER(pages) \
    "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\n\"error_pages\":{" pages "}}"

static const char *
rendered(const struct conf_page *page, const char *id)
{
    static char text[1024];
    struct page_facts facts = {
        .status = 503, .reason = SLICE("no_backend"), .request_id = slice_from_str(id)};
    size_t size = page_size(page, &facts);
    ck_assert_uint_lt(size, sizeof(text));
    char *end = page_write(page, &facts, text);
    ck_assert_uint_eq((size_t)(end - text), size);
    *end = '\0';
    return text;
}

START_TEST(words_in_braces_stand_for_what_is_known)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"plain", "plain"},
        {"{status}", "503"},
        {"<b>{status}</b> {reason} ({request_id})!", "<b>503</b> no_backend (id-1)!"},
        {"{status}{status}", "503503"},
        {"{ status } {statu {{status}} {x}", "{ status } {statu {503} {x}"},
        {"{request_id", "{request_id"},
    };
    struct conf *conf = fixture_must_load(LISTENER("\"503\":{\"body\":\"x\"}"));
    struct conf_page page = {0};
    ck_assert(page_split(conf->arena, slice_from_str(cases[_i][0]), &page));
    ck_assert_str_eq(rendered(&page, "id-1"), cases[_i][1]);
    fixture_free(conf);
}
END_TEST

START_TEST(request_id_means_nothing_in_a_page)
{
    struct conf *conf = fixture_must_load(LISTENER("\"503\":{\"body\":\"{request_id}\"}"));
    ck_assert_str_eq(rendered(&conf->listeners[0].pages[0], "a-B.9:_<script>\"'&;\\ \x80"),
                     "a-B.9:__script________");
    fixture_free(conf);
}
END_TEST

START_TEST(words_are_bounded)
{
    char text[20 * 8 + 1] = "";
    struct conf_page page = {0};
    struct conf *conf = fixture_must_load(LISTENER("\"503\":{\"body\":\"x\"}"));
    for (unsigned i = 0; i < PAGE_WORDS_MAX; i++) {
        strcat(text, "{status}");
    }
    ck_assert(page_split(conf->arena, slice_from_str(text), &page));
    strcat(text, "{status}");
    ck_assert(!page_split(conf->arena, slice_from_str(text), &page));
    fixture_free(conf);
}
END_TEST

START_TEST(exact_status_goes_before_its_class)
{
    struct conf *conf = fixture_must_load(LISTENER(
        "\"5xx\":{\"body\":\"five\"},\"503\":{\"body\":\"{}\",\"type\":\"application/json\"},"
        "\"404\":{\"body\":\"\"}"));
    const struct conf_listener *l = &conf->listeners[0];
    ck_assert_str_eq(page_find(l, 503)->body, "{}");
    ck_assert_str_eq(page_find(l, 503)->type, "application/json");
    ck_assert_str_eq(page_find(l, 502)->body, "five");
    ck_assert_str_eq(page_find(l, 502)->type, "text/plain; charset=utf-8");
    ck_assert_str_eq(page_find(l, 404)->body, "");
    ck_assert_ptr_null(page_find(l, 400));
    fixture_free(conf);
}
END_TEST

START_TEST(same_pages_have_the_same_text_and_words)
{
    static const char *const others[] = {"",
                                         "a {status} ",
                                         "a {status} c",
                                         "b {status} b",
                                         "a {reason} b",
                                         "a {status} b{status}",
                                         "a status b"};
    struct conf *conf = fixture_must_load(LISTENER("\"503\":{\"body\":\"a {status} b\"}"));
    const struct conf_page *page = &conf->listeners[0].pages[0];
    struct conf_page other = {0};
    ck_assert(page_split(conf->arena, slice_from_str("a {status} b"), &other));
    ck_assert(page_eq(page, &other));
    ck_assert(page_split(conf->arena, slice_from_str(others[_i]), &other));
    ck_assert(!page_eq(page, &other));
    ck_assert(!page_eq(&other, page));
    fixture_free(conf);
}
END_TEST

START_TEST(errors_have_places)
{
    fixture_expect_errors(
        LISTENER(
            "\"200\":{\"body\":\"x\"},\"6xx\":{\"body\":\"x\"},\n\"500\":{},\"501\":\"/nowhere\",\n"
            "\"502\":{\"body\":\"x\",\"type\":\"html\"},\"503\":{\"body\":\"x\",\"file\":\"y\"}"),
        "2:16: error_pages.200: expected a status from 400 to 599, \"4xx\" or \"5xx\"",
        "2:35: error_pages.6xx: expected a status from 400 to 599, \"4xx\" or \"5xx\"",
        "3:7: error_pages.500: expected either file or body",
        "3:16: error_pages.501: cannot read /nowhere: No such file",
        "4:26: error_pages.502.type: expected a media type such as \"text/html; charset=utf-8\"",
        "4:40: error_pages.503: expected either file or body", NULL);
}
END_TEST

static int
empty_file(struct conf_source *src, const char *path, struct slice *out, char *why, size_t why_size)
{
    (void)src, (void)path, (void)why, (void)why_size;
    *out = (struct slice){"", 0};
    return 0;
}

START_TEST(empty_file_is_a_mistake_and_an_empty_body_is_not)
{
    struct conf_source empty = *fixture_source();
    empty.read_file = empty_file;
    empty.read_public = NULL;
    ck_assert_ptr_null(fixture_load_from(LISTENER("\"503\":\"/x.html\""), &empty));
    ck_assert_uint_eq(fixture_errors()->nerrors, 1);
    ck_assert_msg(strstr(fixture_errors()->errors[0], "2:22: error_pages.503: /x.html is empty"),
                  "%s", fixture_errors()->errors[0]);
    fixture_free(NULL);
    fixture_free(fixture_must_load(LISTENER("\"503\":{\"body\":\"\"}")));
}
END_TEST

#define TYPED(type) LISTENER("\"503\":{\"body\":\"x\",\"type\":\"" type "\"}")

START_TEST(media_type_has_well_formed_parameters)
{
    static const char *const good[] = {
        "a/b",
        "text/html;charset=utf-8",
        "text/html ; charset=utf-8;x=y",
        "a/b; c=\\\"d;e \\\\\\\" f=\\\"; g=h",
        "a/b; c=\\\"\\\"",
    };
    static const char *const bad[] = {
        "a",
        "/b",
        "a/",
        "a/b/c",
        "a/b ",
        " a/b",
        "a/b c",
        "a/b;",
        "a/b; ",
        "a/b;;c=d",
        "a/b; c",
        "a/b; c=",
        "a/b; =d",
        "a/b; c =d",
        "a/b; c= d",
        "a/b; c=d e",
        "a/b; c=d ",
        "a/b, c/d",
        "a/b; c=d; ",
        "a/b; c=\\\"d",
        "a/b; c=\\\"d\\\\",
        "a/b; c=\\\"d\\\"e",
        "a/b; c=\\\"d\\u000a\\\"",
        "a/b; c=\\\"d\\\\\\u000d\\\"",
        "a/b; c=d\\r\\nX: y",
        "a/b;\\tc=d",
        "a/b; c=\\\"\\u007f\\\"",
        "a/b; c=\\u00e9",
        "a/b\\u0001",
    };
    char text[512];
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(text, sizeof(text), TYPED("%s"), good[i]);
        fixture_free(fixture_must_load(text));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text), TYPED("%s"), bad[i]);
        ck_assert_msg(!fixture_load(text), "taken: %s", bad[i]);
        ck_assert_msg(strstr(fixture_errors()->errors[0], "2:41: error_pages.503.type: "), "%s",
                      fixture_errors()->errors[0]);
        fixture_free(NULL);
    }
}
END_TEST

START_TEST(default_type_is_printed)
{
    struct conf *conf = fixture_must_load(LISTENER(
        "\"404\":{\"body\":\"x\"},\"503\":{\"body\":\"{}\",\"type\":\"application/json\"}"));
    char *text = fixture_print(conf);
    ck_assert_msg(strstr(text, "\"type\": \"text/plain; charset=utf-8\""), "%s", text);
    ck_assert_msg(strstr(text, "\"type\": \"application/json\""), "%s", text);
    struct conf *again = fixture_must_load(text);
    ck_assert_str_eq(again->json, text);
    ck_assert_uint_eq(again->hash, conf->hash);
    free(text);
    conf_unref(again);
    fixture_free(conf);
}
END_TEST

Suite *
page_suite(void)
{
    Suite *suite = suite_create("page");
    TCase *tc = tcase_create("page");
    tcase_add_loop_test(tc, words_in_braces_stand_for_what_is_known, 0, 7);
    tcase_add_test(tc, request_id_means_nothing_in_a_page);
    tcase_add_test(tc, words_are_bounded);
    tcase_add_test(tc, exact_status_goes_before_its_class);
    tcase_add_loop_test(tc, same_pages_have_the_same_text_and_words, 0, 7);
    tcase_add_test(tc, errors_have_places);
    tcase_add_test(tc, empty_file_is_a_mistake_and_an_empty_body_is_not);
    tcase_add_test(tc, media_type_has_well_formed_parameters);
    tcase_add_test(tc, default_type_is_printed);
    suite_add_tcase(suite, tc);
    return suite;
}
