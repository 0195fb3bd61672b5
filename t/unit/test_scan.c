/* SPDX-License-Identifier: Apache-2.0
 *
 * test_scan.c - the grammar of the configuration file, and the places of what stands in it.
 */
#include "conf/scan.h"

#include <check.h>

#include "t/unit/suites.h"

static struct conf_arena *arena;
static struct conf_errors errors;

static void
begin(void)
{
    arena = conf_arena_new();
    errors = (struct conf_errors){0};
}

static void
end(void)
{
    conf_arena_free(arena);
    conf_errors_fini(&errors);
}

static struct node *
scan_bytes(const char *text, size_t len)
{
    struct report *report = report_new("f");
    conf_errors_fini(&errors);
    struct node *root = scan_text(arena, slice_of(text, len), report);
    report_finish(report, &errors);
    return root;
}

static struct node *
scan(const char *text)
{
    return scan_bytes(text, strlen(text));
}

static struct node *
must_scan(const char *text)
{
    struct node *root = scan(text);
    ck_assert_msg(root && errors.nerrors == 0, "%s: %s", text,
                  errors.nerrors ? errors.errors[0] : "");
    return root;
}

static void
expect_error(const char *text, const char *error)
{
    ck_assert_msg(scan(text) == NULL, "accepted: %s", text);
    ck_assert_uint_eq(errors.nerrors, 1);
    ck_assert_str_eq(errors.errors[0], error);
}

static void
expect_place(const struct node *node, unsigned line, unsigned column)
{
    ck_assert_ptr_nonnull(node);
    ck_assert_uint_eq(node->at.line, line);
    ck_assert_uint_eq(node->at.column, column);
}

START_TEST(every_kind_of_value_is_read)
{
    const struct node *root = must_scan("{\"n\":null,\"t\":true,\"f\":false,\"i\":-12,\"r\":1.5,"
                                        "\"s\":\"x\",\"l\":[1,2],\"o\":{}}");
    ck_assert_int_eq(node_get(root, "n")->kind, NODE_NULL);
    ck_assert(node_get(root, "t")->yes);
    ck_assert(!node_get(root, "f")->yes);
    ck_assert_int_eq(node_get(root, "i")->number, -12);
    ck_assert(node_get(root, "r")->real == 1.5);
    ck_assert_str_eq(node_get(root, "s")->text, "x");
    ck_assert_uint_eq(node_get(root, "l")->count, 2);
    ck_assert_int_eq(node_get(root, "l")->last->number, 2);
    ck_assert_int_eq(node_get(root, "o")->kind, NODE_OBJECT);
}
END_TEST

START_TEST(whole_numbers_with_exponent_are_numbers)
{
    const struct node *root = must_scan("[1e3, 2.0, 99999999999999999999]");
    ck_assert_int_eq(root->first->kind, NODE_NUMBER);
    ck_assert_int_eq(root->first->number, 1000);
    ck_assert_int_eq(root->first->next->number, 2);
    ck_assert_int_eq(root->last->kind, NODE_REAL);
}
END_TEST

START_TEST(places_are_lines_and_columns_in_bytes)
{
    const struct node *root = must_scan("{\n  \"a\": 1,\r\n\t\"\xc3\xa9\":  [ 2,\n3 ] }");
    const struct node *list = node_get(root, "\xc3\xa9");
    expect_place(root, 1, 1);
    expect_place(node_get(root, "a"), 2, 8);
    ck_assert_uint_eq(node_get(root, "a")->key_at.column, 3);
    expect_place(list, 3, 9);
    expect_place(list->first, 3, 11);
    expect_place(list->last, 4, 1);
}
END_TEST

START_TEST(paths_name_keys_and_elements)
{
    char path[64];
    const struct node *root = must_scan("{\"a\":[0,{\"b\":1}]}");
    const struct node *element = node_get(root, "a")->last;
    ck_assert_str_eq(node_path(node_get(element, "b"), NULL, path, sizeof(path)), "a[1].b");
    ck_assert_str_eq(node_path(element, "c", path, sizeof(path)), "a[1].c");
    ck_assert_str_eq(node_path(root, NULL, path, sizeof(path)), "");
}
END_TEST

START_TEST(comments_are_blanks_and_places_stay)
{
    const struct node *root =
        must_scan("// one\n/* two\n */ { /* {\" */ \"a\" /**/ : // x\n 1 } // end");
    expect_place(root, 3, 5);
    expect_place(node_get(root, "a"), 4, 2);
    ck_assert_str_eq(node_get(must_scan("{\"a\":\"// no /* comment */\"}"), "a")->text,
                     "// no /* comment */");
}
END_TEST

START_TEST(escapes_are_decoded)
{
    const struct node *root = must_scan("[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\"]");
    ck_assert_str_eq(root->first->text, "\"\\/\b\f\n\r\t\xc3\xa9\xf0\x9f\x98\x80");
}
END_TEST

START_TEST(syntax_errors_are_told_with_their_place)
{
    static const char *const cases[][2] = {
        {"", "f:1:1: expected a value"},
        {"{\"a\":1,}", "f:1:8: expected a key after the comma"},
        {"{,}", "f:1:2: expected a key or '}'"},
        {"{\"a\" 1}", "f:1:6: expected ':'"},
        {"{\"a\":1 \"b\":2}", "f:1:8: expected ',' or '}'"},
        {"[1 2]", "f:1:4: expected ',' or ']'"},
        {"[1,]", "f:1:4: expected a value"},
        {"[", "f:1:2: expected a value"},
        {"{\n\"a\": tru }", "f:2:6: expected a value"},
        {"{} x", "f:1:4: expected the end of the file"},
        {"[01]", "f:1:4: a number does not begin with 0"},
        {"[1.]", "f:1:4: expected a digit"},
        {"[-]", "f:1:3: expected a digit"},
        {"[1e]", "f:1:4: expected a digit"},
        {"[+1]", "f:1:2: expected a value"},
        {"[NaN]", "f:1:2: expected a value"},
        {"['a']", "f:1:2: expected a value"},
        {"[\"a]", "f:1:2: this string does not end"},
        {"[\"a\n\"]", "f:1:4: this string does not end"},
        {"[\"a\tb\"]", "f:1:4: a control character"},
        {"[\"\\x\"]", "f:1:3: no such escape"},
        {"[\"\\u12g4\"]", "f:1:4: expected four hexadecimal digits after \\u"},
        {"[\"\\u0000\"]", "f:1:4: a NUL character"},
        {"[\"\\ud800\"]", "f:1:3: half of a surrogate pair"},
        {"[\"\\udc00\\ud800\"]", "f:1:3: half of a surrogate pair"},
        {"[1] /* x", "f:1:5: this comment does not end"},
        {"[1] /", "f:1:5: expected the end of the file"},
        {"[\"\xc0\x80\"]", "f:1:3: not UTF-8"},
        {"[\"\xed\xa0\x80\"]", "f:1:3: not UTF-8"},
        {"[\"\xf4\x90\x80\x80\"]", "f:1:3: not UTF-8"},
        {"[] // \xff", "f:1:7: not UTF-8"},
    };
    expect_error(cases[_i][0], cases[_i][1]);
}
END_TEST
#define SYNTAX_CASES 31

START_TEST(nul_bytes_are_refused)
{
    ck_assert_ptr_null(scan_bytes("[1]\0", 4));
    ck_assert_str_eq(errors.errors[0], "f:1:4: a NUL byte");
}
END_TEST

START_TEST(nesting_is_bounded)
{
    char text[2 * SCAN_DEPTH + 3] = "";
    memset(text, '[', SCAN_DEPTH);
    memset(text + SCAN_DEPTH, ']', SCAN_DEPTH);
    must_scan(text);
    memset(text, '[', SCAN_DEPTH + 1);
    memset(text + SCAN_DEPTH + 1, ']', SCAN_DEPTH + 1);
    expect_error(text, "f:1:33: nested too deep");
}
END_TEST

START_TEST(duplicate_keys_are_told_and_left_out)
{
    const struct node *root = scan("{\"a\":1,\n\"b\":2,\"\\u0061\":3,\"o\":{\"a\":4}}");
    ck_assert_uint_eq(errors.nerrors, 1);
    ck_assert_str_eq(errors.errors[0], "f:2:7: a: duplicate key; it is on line 1 already");
    ck_assert_uint_eq(root->count, 3);
}
END_TEST

START_TEST(duplicate_of_another_kind_is_bad_and_not_followed)
{
    const struct node *root = scan("{\"a\":{\"b\":[1]},\"a\":2}");
    ck_assert_uint_eq(errors.nerrors, 1);
    ck_assert(node_get(root, "a")->is_bad);
    ck_assert_ptr_null(node_get(root, "a")->first);
}
END_TEST

Suite *
scan_suite(void)
{
    Suite *suite = suite_create("scan");
    TCase *tc = tcase_create("scan");
    tcase_add_checked_fixture(tc, begin, end);
    tcase_add_test(tc, every_kind_of_value_is_read);
    tcase_add_test(tc, whole_numbers_with_exponent_are_numbers);
    tcase_add_test(tc, places_are_lines_and_columns_in_bytes);
    tcase_add_test(tc, paths_name_keys_and_elements);
    tcase_add_test(tc, comments_are_blanks_and_places_stay);
    tcase_add_test(tc, escapes_are_decoded);
    tcase_add_loop_test(tc, syntax_errors_are_told_with_their_place, 0, SYNTAX_CASES);
    tcase_add_test(tc, nul_bytes_are_refused);
    tcase_add_test(tc, nesting_is_bounded);
    tcase_add_test(tc, duplicate_keys_are_told_and_left_out);
    tcase_add_test(tc, duplicate_of_another_kind_is_bad_and_not_followed);
    suite_add_tcase(suite, tc);
    return suite;
}
