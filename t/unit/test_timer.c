/* SPDX-License-Identifier: Apache-2.0
 *
 * test_timer.c - the wheel: never early, at most a slot late, whatever is set or deleted meanwhile.
 */
#include "worker/timer.h"

#include <check.h>
#include <stdlib.h>

#include "t/unit/suites.h"

#define START_MS 1000003u /* no multiple of a slot */
#define ROUND_MS ((uint64_t)WHEEL_SLOTS * WHEEL_SLOT_MS)

struct alarm {
    struct timer timer;
    unsigned fired;
    uint64_t fired_ms;
    uint64_t again_ms;    /* set anew by its own callback, so much later; 0: not */
    struct alarm *victim; /* deleted by the callback */
};

static struct wheel wheel;
static uint64_t now_ms;

static void
on_due(struct timer *t)
{
    struct alarm *a = container_of(t, struct alarm, timer);
    a->fired++;
    a->fired_ms = now_ms;
    if (a->again_ms != 0) {
        timer_set(&wheel, t, now_ms + a->again_ms);
    }
    if (a->victim) {
        timer_del(&wheel, &a->victim->timer);
    }
}

static void
begin(void)
{
    now_ms = START_MS;
    wheel_init(&wheel, now_ms);
}

static void
run_to(uint64_t ms)
{
    now_ms = ms;
    wheel_run(&wheel, now_ms);
}

/* As the loop does it: a look at every slot. */
static void
walk_to(uint64_t ms)
{
    while (now_ms + WHEEL_SLOT_MS < ms) {
        run_to(now_ms + WHEEL_SLOT_MS);
    }
    run_to(ms);
}

START_TEST(fires_once_and_not_early)
{
    struct alarm a = {.fired = 0};
    timer_init(&a.timer, on_due);
    timer_set(&wheel, &a.timer, START_MS + 500);
    for (uint64_t ms = START_MS; ms < START_MS + 500; ms++) {
        run_to(ms);
        ck_assert_uint_eq(a.fired, 0);
    }
    walk_to(START_MS + 500 + WHEEL_SLOT_MS);
    ck_assert_uint_eq(a.fired, 1);
    walk_to(START_MS + 3 * ROUND_MS);
    ck_assert_uint_eq(a.fired, 1);
    ck_assert_uint_eq(wheel.count, 0);
}
END_TEST

static void
expect_punctual(uint64_t after_ms)
{
    struct alarm a = {.fired = 0};
    timer_init(&a.timer, on_due);
    uint64_t due = now_ms + after_ms;
    timer_set(&wheel, &a.timer, due);
    while (a.fired == 0 && now_ms < due + 2 * ROUND_MS) {
        run_to(now_ms + 1);
    }
    ck_assert_uint_eq(a.fired, 1);
    ck_assert_uint_ge(a.fired_ms, due);
    ck_assert_uint_lt(a.fired_ms, due + WHEEL_SLOT_MS);
}

START_TEST(is_at_most_a_slot_late)
{
    for (uint64_t after = 1; after < 200; after += 7) {
        expect_punctual(after);
    }
    expect_punctual(ROUND_MS - 1);
    expect_punctual(ROUND_MS);
    expect_punctual(ROUND_MS + 1);
    expect_punctual(3 * ROUND_MS + 17);
}
END_TEST

START_TEST(what_is_due_already_fires_at_the_next_look)
{
    struct alarm a = {.fired = 0};
    timer_init(&a.timer, on_due);
    walk_to(START_MS + 10000);
    timer_set(&wheel, &a.timer, START_MS);
    walk_to(START_MS + 10000 + WHEEL_SLOT_MS);
    ck_assert_uint_eq(a.fired, 1);
}
END_TEST

START_TEST(moving_later_counts_from_the_new_time)
{
    struct alarm a = {.fired = 0};
    timer_init(&a.timer, on_due);
    for (unsigned i = 0; i < 100; i++) {
        timer_set(&wheel, &a.timer, now_ms + 1000);
        walk_to(now_ms + 900);
        ck_assert_uint_eq(a.fired, 0);
        ck_assert_uint_eq(wheel.count, 1);
    }
    walk_to(now_ms + 100 + WHEEL_SLOT_MS);
    ck_assert_uint_eq(a.fired, 1);
}
END_TEST

START_TEST(moving_earlier_counts_from_the_new_time)
{
    struct alarm a = {.fired = 0};
    timer_init(&a.timer, on_due);
    timer_set(&wheel, &a.timer, START_MS + 60000);
    timer_set(&wheel, &a.timer, START_MS + 200);
    ck_assert_uint_eq(wheel.count, 1);
    walk_to(START_MS + 200 + WHEEL_SLOT_MS);
    ck_assert_uint_eq(a.fired, 1);
    ck_assert_uint_ge(a.fired_ms, START_MS + 200);
}
END_TEST

START_TEST(zero_takes_the_deadline_away)
{
    struct alarm a = {.fired = 0};
    timer_init(&a.timer, on_due);
    timer_set(&wheel, &a.timer, START_MS + 200);
    timer_set(&wheel, &a.timer, 0);
    walk_to(START_MS + 2 * ROUND_MS);
    ck_assert_uint_eq(a.fired, 0);
    ck_assert_uint_eq(wheel.count, 0);
    timer_set(&wheel, &a.timer, now_ms + 200);
    walk_to(now_ms + 200 + WHEEL_SLOT_MS);
    ck_assert_uint_eq(a.fired, 1);
}
END_TEST

START_TEST(a_deleted_one_leaves_nothing_behind)
{
    struct alarm *a = calloc(1, sizeof(*a));
    timer_init(&a->timer, on_due);
    timer_set(&wheel, &a->timer, START_MS + 200);
    timer_del(&wheel, &a->timer);
    ck_assert_uint_eq(wheel.count, 0);
    timer_del(&wheel, &a->timer);
    free(a);
    walk_to(START_MS + ROUND_MS); /* a sanitizer sees what would be left */
}
END_TEST

START_TEST(a_callback_may_set_its_own_timer_again)
{
    struct alarm a = {.again_ms = 1000};
    timer_init(&a.timer, on_due);
    timer_set(&wheel, &a.timer, START_MS + 1000);
    walk_to(START_MS + 60000);
    ck_assert_uint_ge(a.fired, 60000 / (1000 + WHEEL_SLOT_MS) - 1);
    ck_assert_uint_le(a.fired, 60);
}
END_TEST

START_TEST(a_callback_may_delete_a_neighbour_that_is_due_too)
{
    struct alarm first = {.fired = 0}, second = {.fired = 0};
    timer_init(&first.timer, on_due);
    timer_init(&second.timer, on_due);
    first.victim = &second;
    timer_set(&wheel, &first.timer, START_MS + 200);
    timer_set(&wheel, &second.timer, START_MS + 200);
    walk_to(START_MS + 1000);
    ck_assert_uint_eq(first.fired, 1);
    ck_assert_uint_eq(second.fired, 0);
    ck_assert_uint_eq(wheel.count, 0);
}
END_TEST

/* A process that was stopped, or a machine that slept, comes back much later. */
START_TEST(a_long_sleep_loses_none)
{
    static struct alarm many[2 * WHEEL_SLOTS];
    for (unsigned i = 0; i < 2 * WHEEL_SLOTS; i++) {
        many[i] = (struct alarm){.fired = 0};
        timer_init(&many[i].timer, on_due);
        timer_set(&wheel, &many[i].timer, START_MS + 1 + i * WHEEL_SLOT_MS);
    }
    run_to(START_MS + 5 * ROUND_MS);
    for (unsigned i = 0; i < 2 * WHEEL_SLOTS; i++) {
        ck_assert_uint_eq(many[i].fired, 1);
    }
    ck_assert_uint_eq(wheel.count, 0);
}
END_TEST

START_TEST(a_sleep_fires_only_what_is_due)
{
    struct alarm soon = {.fired = 0}, later = {.fired = 0};
    timer_init(&soon.timer, on_due);
    timer_init(&later.timer, on_due);
    timer_set(&wheel, &soon.timer, START_MS + 1000);
    timer_set(&wheel, &later.timer, START_MS + 3 * ROUND_MS);
    run_to(START_MS + 2 * ROUND_MS);
    ck_assert_uint_eq(soon.fired, 1);
    ck_assert_uint_eq(later.fired, 0);
    walk_to(START_MS + 3 * ROUND_MS + WHEEL_SLOT_MS);
    ck_assert_uint_eq(later.fired, 1);
    ck_assert_uint_ge(later.fired_ms, START_MS + 3 * ROUND_MS);
}
END_TEST

Suite *
timer_suite(void)
{
    Suite *suite = suite_create("timer");
    TCase *tc = tcase_create("timer");
    tcase_add_checked_fixture(tc, begin, NULL);
    tcase_add_test(tc, fires_once_and_not_early);
    tcase_add_test(tc, is_at_most_a_slot_late);
    tcase_add_test(tc, what_is_due_already_fires_at_the_next_look);
    tcase_add_test(tc, moving_later_counts_from_the_new_time);
    tcase_add_test(tc, moving_earlier_counts_from_the_new_time);
    tcase_add_test(tc, zero_takes_the_deadline_away);
    tcase_add_test(tc, a_deleted_one_leaves_nothing_behind);
    tcase_add_test(tc, a_callback_may_set_its_own_timer_again);
    tcase_add_test(tc, a_callback_may_delete_a_neighbour_that_is_due_too);
    tcase_add_test(tc, a_long_sleep_loses_none);
    tcase_add_test(tc, a_sleep_fires_only_what_is_due);
    suite_add_tcase(suite, tc);
    return suite;
}
