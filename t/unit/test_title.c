/* SPDX-License-Identifier: Apache-2.0
 *
 * test_title.c - titles in a made-up argument area: title.c cannot tell it from the kernel's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "shared/title.h"
#include "t/unit/suites.h"

/* As the kernel lays it out: arguments, then the environment, then something else. */
static char area[] = "/opt/akashd\0-c\0file\0A=1\0B=2\0#";
#define AREA_SIZE (sizeof(area) - 2)

static char *args[] = {area, area + 12, area + 15, NULL};
static char *env[] = {area + 20, area + 24, NULL};

static void
init(void)
{
    environ = env;
    title_init(3, args);
}

START_TEST(arguments_and_environment_outlive_a_title)
{
    init();
    title_set("akashd: worker %u", 12);
    ck_assert_str_eq(args[0], "/opt/akashd");
    ck_assert_str_eq(args[1], "-c");
    ck_assert_str_eq(args[2], "file");
    ck_assert_ptr_null(args[3]);
    ck_assert_str_eq(getenv("A"), "1");
    ck_assert_str_eq(getenv("B"), "2");
    ck_assert_ptr_null(environ[2]);
    ck_assert_str_eq(program_invocation_short_name, "akashd");
}
END_TEST

START_TEST(title_takes_the_place_and_no_more)
{
    char longest[AREA_SIZE];
    init();
    title_set("akashd: worker %u", 12);
    ck_assert_str_eq(area, "akashd: worker 12");
    title_set("%s", "short");
    ck_assert_str_eq(area, "short");
    for (size_t i = 5; i < AREA_SIZE; i++) {
        ck_assert_int_eq(area[i], 0);
    }
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    title_set("%sx and more", longest);
    ck_assert_str_eq(area, longest);
    ck_assert_int_eq(area[AREA_SIZE], '#');
}
END_TEST

START_TEST(gap_ends_the_area)
{
    char other[] = "C=3";
    char *far_env[] = {other, NULL};
    environ = far_env;
    title_init(3, args);
    title_set("%s", "a title that is longer than the arguments");
    ck_assert_str_eq(area, "a title that is lon");
    ck_assert_str_eq(area + 20, "A=1");
    ck_assert_str_eq(other, "C=3");
}
END_TEST

START_TEST(process_is_called_akashd)
{
    char name[16] = "";
    init();
    title_set("akashd: monitor");
    prctl(PR_GET_NAME, name);
    ck_assert_str_eq(name, "akashd");
}
END_TEST

START_TEST(title_without_init_does_nothing)
{
    title_set("akashd: monitor");
    ck_assert_str_eq(area, "/opt/akashd");
}
END_TEST

Suite *
title_suite(void)
{
    Suite *suite = suite_create("title");
    TCase *tc = tcase_create("title");
    tcase_add_test(tc, arguments_and_environment_outlive_a_title);
    tcase_add_test(tc, title_takes_the_place_and_no_more);
    tcase_add_test(tc, gap_ends_the_area);
    tcase_add_test(tc, process_is_called_akashd);
    tcase_add_test(tc, title_without_init_does_nothing);
    suite_add_tcase(suite, tc);
    return suite;
}
