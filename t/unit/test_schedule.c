/* SPDX-License-Identifier: Apache-2.0
 *
 * test_schedule.c - every member has its share, evenly spread.
 */
#include "conf/schedule.h"

#include <check.h>
#include <stdlib.h>

#include "t/unit/suites.h"

static struct conf_arena *arena;

static void
begin(void)
{
    arena = conf_arena_new();
}

static void
end(void)
{
    conf_arena_free(arena);
}

static unsigned
count(const uint16_t *schedule, unsigned len, unsigned member)
{
    unsigned n = 0;
    for (unsigned i = 0; i < len; i++) {
        n += schedule[i] == member;
    }
    return n;
}

START_TEST(weights_are_exact)
{
    unsigned len, weights[] = {1, 2, 5};
    const uint16_t *schedule = schedule_build(arena, weights, 3, &len);
    ck_assert_uint_eq(len, 8);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(count(schedule, len, i), weights[i]);
    }
}
END_TEST

START_TEST(equal_weights_take_turns)
{
    unsigned len, weights[] = {7, 7, 7};
    const uint16_t *schedule = schedule_build(arena, weights, 3, &len);
    ck_assert_uint_eq(len, 3);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(schedule[i], i);
    }
}
END_TEST

START_TEST(common_divisor_is_taken_out)
{
    unsigned len, weights[] = {100, 250};
    const uint16_t *schedule = schedule_build(arena, weights, 2, &len);
    ck_assert_uint_eq(len, 7);
    ck_assert_uint_eq(count(schedule, len, 0), 2);
}
END_TEST

/* After any number of turns nobody is a whole turn away from its share. */
static void
expect_smooth(const unsigned *weights, unsigned n)
{
    unsigned len, seen[64] = {0};
    const uint16_t *schedule = schedule_build(arena, weights, n, &len);
    for (unsigned i = 0; i < len; i++) {
        seen[schedule[i]]++;
        for (unsigned m = 0; m < n; m++) {
            long away = (long)seen[m] * (long)len - (long)(i + 1) * (long)weights[m];
            ck_assert_int_lt(labs(away), (long)len);
        }
    }
}

START_TEST(turns_are_evenly_spread)
{
    expect_smooth((const unsigned[]){1, 2, 5, 13, 256, 97}, 6);
    expect_smooth((const unsigned[]){5, 1, 1}, 3);
    expect_smooth((const unsigned[]){255, 256}, 2);
    expect_smooth((const unsigned[]){1, 1, 1, 1, 1, 1, 1, 1, 8}, 9);
}
END_TEST

START_TEST(light_members_stand_between_the_turns_of_a_heavy_one)
{
    unsigned len, weights[] = {4, 1, 1, 1, 1};
    const uint16_t *schedule = schedule_build(arena, weights, 5, &len);
    for (unsigned i = 0; i < len; i++) {
        ck_assert((schedule[i] == 0) == (i % 2 == 0));
    }
}
END_TEST

START_TEST(great_sums_are_scaled_and_everybody_keeps_a_turn)
{
    unsigned n = 2000, len;
    unsigned *weights = conf_arena_array(arena, n, sizeof(*weights));
    for (unsigned i = 0; i < n; i++) {
        weights[i] = i % 2 ? 256 : 1;
    }
    const uint16_t *schedule = schedule_build(arena, weights, n, &len);
    ck_assert_uint_le(len, SCHEDULE_MAX);
    ck_assert_uint_gt(len, SCHEDULE_MAX / 2);
    ck_assert_uint_eq(count(schedule, len, 0), 1);
    ck_assert_uint_eq(count(schedule, len, 1), count(schedule, len, 1999));
    ck_assert_uint_gt(count(schedule, len, 1), 50);
}
END_TEST

START_TEST(no_member_no_turn)
{
    unsigned len = 9;
    ck_assert_ptr_nonnull(schedule_build(arena, NULL, 0, &len));
    ck_assert_uint_eq(len, 0);
}
END_TEST

Suite *
schedule_suite(void)
{
    Suite *suite = suite_create("schedule");
    TCase *tc = tcase_create("schedule");
    tcase_add_checked_fixture(tc, begin, end);
    tcase_add_test(tc, weights_are_exact);
    tcase_add_test(tc, equal_weights_take_turns);
    tcase_add_test(tc, common_divisor_is_taken_out);
    tcase_add_test(tc, turns_are_evenly_spread);
    tcase_add_test(tc, light_members_stand_between_the_turns_of_a_heavy_one);
    tcase_add_test(tc, great_sums_are_scaled_and_everybody_keeps_a_turn);
    tcase_add_test(tc, no_member_no_turn);
    suite_add_tcase(suite, tc);
    return suite;
}
