/* SPDX-License-Identifier: Apache-2.0
 *
 * test_budget.c - retries stay a bounded part of the requests.
 */
#include "shared/budget.h"

#include <check.h>

#include "t/unit/suites.h"

#define MIN 3

static uint64_t word;

static void
begin(void)
{
    word = 0;
}

static unsigned
take_all(uint32_t now_ms)
{
    unsigned n = 0;
    uint64_t next;
    for (; budget_take(word, now_ms, MIN, &next); n++) {
        word = next;
    }
    return n;
}

/* Every request fails and would be retried. Returns how many retries there were. */
static unsigned
outage(uint32_t from_ms, unsigned seconds, unsigned per_second)
{
    unsigned retries = 0;
    for (unsigned i = 0; i < seconds * per_second; i++) {
        uint32_t now = from_ms + i * 1000 / per_second;
        uint64_t next;
        word = budget_deposit(word, now, MIN, 1, 20);
        if (budget_take(word, now, MIN, &next)) {
            word = next;
            retries++;
        }
    }
    return retries;
}

START_TEST(it_begins_with_ten_seconds_worth)
{
    ck_assert_uint_eq(take_all(5000), MIN * 10);
    ck_assert_uint_eq(take_all(5000), 0);
}
END_TEST

START_TEST(without_requests_it_fills_to_the_same)
{
    take_all(5000);
    ck_assert_uint_ge(take_all(5000 + 1000), MIN - 1);
    ck_assert_uint_eq(take_all(5000 + 400000), MIN * 10);
}
END_TEST

START_TEST(an_outage_is_retried_by_its_arithmetic)
{
    static const unsigned rates[] = {1, 10, 100, 1000, 5000};
    unsigned rate = rates[_i], seconds = 60;
    unsigned retries = outage(1000, seconds, rate);
    ck_assert_uint_le(retries, rate * seconds / 5 + MIN * seconds + MIN * 10);
    ck_assert_uint_ge(retries, rate * seconds / 5);
}
END_TEST

START_TEST(what_is_saved_fades)
{
    for (unsigned i = 0; i < 100000; i++) { /* a minute of many requests, none retried */
        word = budget_deposit(word, 1000 + i * 60000 / 100000, MIN, 1, 20);
    }
    unsigned per_ten_seconds = 100000 / 6 / 5;
    ck_assert_uint_le(budget_read(word, 61000, MIN) / BUDGET_TOKEN, per_ten_seconds * 11 / 10 + 30);
    ck_assert_uint_lt(budget_read(word, 61000 + 60000, MIN) / BUDGET_TOKEN, 60);
}
END_TEST

START_TEST(deposits_in_one_go_are_the_same)
{
    uint64_t one_by_one = 0;
    for (unsigned i = 0; i < 16; i++) {
        one_by_one = budget_deposit(one_by_one, 7000, MIN, 1, 20);
    }
    ck_assert_uint_eq(one_by_one, budget_deposit(0, 7000, MIN, 16, 20));
}
END_TEST

Suite *
budget_suite(void)
{
    Suite *s = suite_create("budget");
    TCase *tc = tcase_create("budget");
    tcase_add_checked_fixture(tc, begin, NULL);
    tcase_add_test(tc, it_begins_with_ten_seconds_worth);
    tcase_add_test(tc, without_requests_it_fills_to_the_same);
    tcase_add_loop_test(tc, an_outage_is_retried_by_its_arithmetic, 0, 5);
    tcase_add_test(tc, what_is_saved_fades);
    tcase_add_test(tc, deposits_in_one_go_are_the_same);
    suite_add_tcase(s, tc);
    return s;
}
