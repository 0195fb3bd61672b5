/* SPDX-License-Identifier: Apache-2.0
 *
 * test_breaker.c - the breaker against a clock of its own.
 */
#include "shared/breaker.h"

#include <check.h>

#include "t/unit/suites.h"

#define SECOND 1000u

static struct breaker b;
static uint64_t now;
static const struct breaker_rules rules = {.window_ms = 10 * SECOND,
                                           .min_requests = 20,
                                           .error_percent = 50,
                                           .consecutive = 5,
                                           .open_for_ms = 10 * SECOND,
                                           .half_open_requests = 3};

static void
begin(void)
{
    breaker_reset(&b);
    now = 1000 * SECOND;
}

static enum breaker_change
ordinary(bool is_failure)
{
    return breaker_report(&b, &rules, now, 0, is_failure, true);
}

static void
trip(void)
{
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(ordinary(true), BREAKER_SAME);
    }
    ck_assert_int_eq(ordinary(true), BREAKER_TRIPPED);
}

static breaker_permit
probe(void)
{
    breaker_permit permit;
    enum breaker_change change;
    ck_assert(breaker_is_passable(&b, &rules, now));
    ck_assert(breaker_enter(&b, &rules, now, &permit, &change));
    ck_assert_uint_ne(permit, 0);
    return permit;
}

static bool
enter(void)
{
    breaker_permit permit;
    enum breaker_change change;
    return breaker_enter(&b, &rules, now, &permit, &change);
}

START_TEST(failures_in_a_row_open_it_once)
{
    trip();
    ck_assert_int_eq(breaker_state(&b, now), BREAKER_OPEN);
    ck_assert_int_eq(ordinary(true), BREAKER_SAME);
    ck_assert(!enter());
    ck_assert(!breaker_is_passable(&b, &rules, now));
    ck_assert_uint_eq(breaker_open_ms(&b, now + 4 * SECOND), 6 * SECOND);
}
END_TEST

START_TEST(a_success_ends_a_row)
{
    for (unsigned i = 0; i < 10; i++) {
        for (unsigned j = 0; j < 4; j++) {
            ck_assert_int_eq(ordinary(true), BREAKER_SAME);
        }
        for (unsigned j = 0; j < 9; j++) {
            ck_assert_int_eq(ordinary(false), BREAKER_SAME);
        }
    }
    ck_assert_int_eq(breaker_state(&b, now), BREAKER_CLOSED);
}
END_TEST

START_TEST(the_error_rate_counts_from_a_minimum_on)
{
    for (unsigned i = 0; i < 9; i++) {
        ck_assert_int_eq(ordinary(false), BREAKER_SAME);
        ck_assert_int_eq(ordinary(true), BREAKER_SAME);
    }
    ck_assert_int_eq(ordinary(false), BREAKER_SAME); /* 9 of 19 */
    ck_assert_int_eq(ordinary(true), BREAKER_TRIPPED);
}
END_TEST

START_TEST(what_is_older_than_the_window_does_not_count)
{
    uint32_t total, failed;
    for (unsigned i = 0; i < 60; i++) {
        ck_assert_int_eq(ordinary(i % 4 == 0), BREAKER_SAME);
    }
    breaker_count(&b, &rules, now, &total, &failed);
    ck_assert_uint_eq(total, 60);
    ck_assert_uint_eq(failed, 15);
    now += 11 * SECOND;
    breaker_count(&b, &rules, now, &total, &failed);
    ck_assert_uint_eq(total, 0);
}
END_TEST

static void
expect_probes(uint32_t granted, uint32_t well)
{
    uint32_t got_granted, got_well;
    breaker_probes(&b, &got_granted, &got_well);
    ck_assert_uint_eq(got_granted, granted);
    ck_assert_uint_eq(got_well, well);
}

START_TEST(exactly_three_go_through_half_open)
{
    trip();
    now += 10 * SECOND;
    ck_assert_int_eq(breaker_state(&b, now), BREAKER_HALF_OPEN);
    breaker_permit permits[3];
    for (unsigned i = 0; i < 3; i++) {
        permits[i] = probe();
    }
    ck_assert(!enter());
    ck_assert(!breaker_is_passable(&b, &rules, now));
    ck_assert_int_eq(breaker_report(&b, &rules, now, permits[0], false, true), BREAKER_SAME);
    ck_assert_int_eq(breaker_report(&b, &rules, now, permits[1], false, true), BREAKER_SAME);
    ck_assert(!enter());
    ck_assert_int_eq(breaker_report(&b, &rules, now, permits[2], false, true), BREAKER_RECOVERED);
    ck_assert_int_eq(breaker_state(&b, now), BREAKER_CLOSED);
    ck_assert_int_eq(ordinary(true), BREAKER_SAME); /* the old failures are forgotten */
}
END_TEST

START_TEST(a_failed_probe_opens_it_for_twice_as_long)
{
    trip();
    now += 10 * SECOND;
    breaker_permit permit = probe();
    breaker_report(&b, &rules, now, probe(), false, true);
    ck_assert_int_eq(breaker_report(&b, &rules, now, permit, true, true), BREAKER_PROBE_FAILED);
    expect_probes(2, 1);
    ck_assert_uint_eq(breaker_open_ms(&b, now), 20 * SECOND);
    now += 20 * SECOND;
    permit = probe();
    expect_probes(1, 0);
    breaker_report(&b, &rules, now, permit, true, true);
    ck_assert_uint_eq(breaker_open_ms(&b, now), 40 * SECOND);
}
END_TEST

START_TEST(the_time_it_stays_open_has_an_end)
{
    trip();
    for (unsigned i = 0; i < 40; i++) {
        now += breaker_open_ms(&b, now);
        breaker_report(&b, &rules, now, probe(), true, true);
    }
    ck_assert_uint_eq(breaker_open_ms(&b, now), BREAKER_OPEN_MAX_MS);
}
END_TEST

START_TEST(after_a_while_of_health_it_begins_anew)
{
    trip();
    now += 10 * SECOND;
    breaker_permit permits[] = {probe(), probe(), probe()};
    for (unsigned i = 0; i < 3; i++) {
        breaker_report(&b, &rules, now, permits[i], false, true);
    }
    now += _i == 0 ? 1 * SECOND : 60 * SECOND;
    trip();
    ck_assert_uint_eq(breaker_open_ms(&b, now), (_i == 0 ? 20 : 10) * SECOND);
}
END_TEST

START_TEST(results_that_never_come_are_failures)
{
    trip();
    now += 10 * SECOND;
    breaker_permit lost = probe();
    now += 10 * SECOND;
    breaker_permit permit;
    enum breaker_change change;
    ck_assert(!breaker_enter(&b, &rules, now, &permit, &change)); /* the period has ended badly */
    ck_assert_int_eq(change, BREAKER_PROBES_LATE);
    expect_probes(1, 0);
    ck_assert_uint_eq(breaker_open_ms(&b, now), 20 * SECOND);
    ck_assert_int_eq(breaker_report(&b, &rules, now, lost, false, true), BREAKER_SAME);
    ck_assert_int_eq(breaker_state(&b, now), BREAKER_OPEN);
    now += 20 * SECOND;
    breaker_permit next = probe();
    ck_assert_uint_ne(next, lost);
    ck_assert_int_eq(breaker_report(&b, &rules, now, lost, true, true), BREAKER_SAME);
    ck_assert_int_eq(breaker_state(&b, now), BREAKER_HALF_OPEN);
}
END_TEST

/* A backend with little to do: each probe comes long after the one before. */
START_TEST(probes_that_went_well_may_come_seldom)
{
    trip();
    now += 10 * SECOND;
    for (unsigned i = 0; i < 3; i++) {
        now += 3600 * SECOND;
        ck_assert_int_eq(breaker_state(&b, now), BREAKER_HALF_OPEN);
        breaker_permit permit = probe();
        now += SECOND;
        ck_assert_int_eq(breaker_report(&b, &rules, now, permit, false, true),
                         i == 2 ? BREAKER_RECOVERED : BREAKER_SAME);
    }
    ck_assert_int_eq(breaker_state(&b, now), BREAKER_CLOSED);
}
END_TEST

/* The time for a result counts from the first that is under way. */
START_TEST(a_late_probe_among_good_ones_is_late)
{
    trip();
    now += 10 * SECOND;
    breaker_permit permit = probe();
    ck_assert_int_eq(breaker_report(&b, &rules, now, permit, false, true), BREAKER_SAME);
    now += 100 * SECOND;
    probe();
    now += 9 * SECOND;
    probe();
    ck_assert_int_eq(breaker_state(&b, now), BREAKER_HALF_OPEN);
    now += SECOND;
    breaker_permit late;
    enum breaker_change change;
    ck_assert(!breaker_enter(&b, &rules, now, &late, &change));
    ck_assert_int_eq(change, BREAKER_PROBES_LATE);
    expect_probes(3, 1);
}
END_TEST

START_TEST(a_probe_without_result_gives_its_place_back)
{
    trip();
    now += 10 * SECOND;
    breaker_permit permits[] = {probe(), probe(), probe()};
    breaker_leave(&b, permits[1]);
    breaker_permit again = probe();
    ck_assert(!enter());
    breaker_report(&b, &rules, now, permits[0], false, true);
    breaker_report(&b, &rules, now, permits[2], false, true);
    ck_assert_int_eq(breaker_report(&b, &rules, now, again, false, true), BREAKER_RECOVERED);
}
END_TEST

START_TEST(it_does_not_trip_where_it_may_not)
{
    for (unsigned i = 0; i < 100; i++) {
        ck_assert_int_eq(breaker_report(&b, &rules, now, 0, true, false), BREAKER_SAME);
    }
    ck_assert_int_eq(breaker_state(&b, now), BREAKER_CLOSED);
    ck_assert_int_eq(ordinary(true), BREAKER_TRIPPED);
}
END_TEST

START_TEST(the_clock_may_go_round)
{
    now = (UINT64_C(1) << 32) - 3 * SECOND;
    trip();
    ck_assert(!enter());
    now += 10 * SECOND;
    breaker_report(&b, &rules, now, probe(), true, true);
    ck_assert_uint_eq(breaker_open_ms(&b, now), 20 * SECOND);
}
END_TEST

Suite *
breaker_suite(void)
{
    Suite *s = suite_create("breaker");
    TCase *tc = tcase_create("breaker");
    tcase_add_checked_fixture(tc, begin, NULL);
    tcase_add_test(tc, failures_in_a_row_open_it_once);
    tcase_add_test(tc, a_success_ends_a_row);
    tcase_add_test(tc, the_error_rate_counts_from_a_minimum_on);
    tcase_add_test(tc, what_is_older_than_the_window_does_not_count);
    tcase_add_test(tc, exactly_three_go_through_half_open);
    tcase_add_test(tc, a_failed_probe_opens_it_for_twice_as_long);
    tcase_add_test(tc, the_time_it_stays_open_has_an_end);
    tcase_add_loop_test(tc, after_a_while_of_health_it_begins_anew, 0, 2);
    tcase_add_test(tc, results_that_never_come_are_failures);
    tcase_add_test(tc, probes_that_went_well_may_come_seldom);
    tcase_add_test(tc, a_late_probe_among_good_ones_is_late);
    tcase_add_test(tc, a_probe_without_result_gives_its_place_back);
    tcase_add_test(tc, it_does_not_trip_where_it_may_not);
    tcase_add_test(tc, the_clock_may_go_round);
    suite_add_tcase(s, tc);
    return s;
}
