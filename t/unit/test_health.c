/* SPDX-License-Identifier: Apache-2.0
 *
 * test_health.c - the judgement of probe results, and the times between probes.
 */
#include <check.h>
#include <string.h>

#include "master/health.h"
#include "t/unit/suites.h"

/* results: '+' passed, '-' failed; states: what each makes of it, 'u' up, 'd' down. */
struct run {
    enum shm_health_state begin;
    unsigned rise, fall;
    const char *results;
    const char *states;
};

static const struct run runs[] = {
    /* one result decides what was unknown */
    {SHM_HEALTH_UNKNOWN, 3, 3, "+", "u"},
    {SHM_HEALTH_UNKNOWN, 3, 3, "-", "d"},
    {SHM_HEALTH_UNKNOWN, 2, 3, "-++", "ddu"},
    {SHM_HEALTH_UNKNOWN, 2, 2, "+--", "uud"},
    /* fall failures in a row */
    {SHM_HEALTH_UP, 2, 3, "---", "uud"},
    {SHM_HEALTH_UP, 2, 3, "--+--", "uuuuu"},
    {SHM_HEALTH_UP, 2, 3, "--+---", "uuuuud"},
    {SHM_HEALTH_UP, 1, 1, "-", "d"},
    /* rise successes in a row */
    {SHM_HEALTH_DOWN, 2, 3, "++", "du"},
    {SHM_HEALTH_DOWN, 2, 3, "+-+-+", "ddddd"},
    {SHM_HEALTH_DOWN, 3, 1, "++-+++", "dddddu"},
    {SHM_HEALTH_DOWN, 1, 1, "+-+", "udu"},
    /* more of the same changes nothing */
    {SHM_HEALTH_UP, 2, 3, "+++++", "uuuuu"},
    {SHM_HEALTH_DOWN, 2, 3, "-----", "ddddd"},
};

START_TEST(judge_follows_rise_and_fall)
{
    const struct run *run = &runs[_i];
    struct health_streak s = {.state = run->begin};
    for (size_t i = 0; run->results[i]; i++) {
        s = health_judge(s, run->results[i] == '+', run->rise, run->fall);
        enum shm_health_state want = run->states[i] == 'u' ? SHM_HEALTH_UP : SHM_HEALTH_DOWN;
        ck_assert_msg(s.state == want, "run %d, result %zu: %s", _i, i + 1,
                      health_state_name(s.state));
    }
}
END_TEST

START_TEST(judge_counts_in_a_row)
{
    struct health_streak s = {.state = SHM_HEALTH_UP};
    s = health_judge(s, false, 2, 5);
    s = health_judge(s, false, 2, 5);
    ck_assert_uint_eq(s.failed, 2);
    ck_assert_uint_eq(s.passed, 0);
    s = health_judge(s, true, 2, 5);
    ck_assert_uint_eq(s.failed, 0);
    ck_assert_uint_eq(s.passed, 1);
}
END_TEST

START_TEST(judge_does_not_wrap)
{
    struct health_streak s = {.state = SHM_HEALTH_DOWN, .failed = UINT32_MAX};
    s = health_judge(s, false, 2, 5);
    ck_assert_uint_eq(s.failed, UINT32_MAX);
    ck_assert_int_eq(s.state, SHM_HEALTH_DOWN);
}
END_TEST

START_TEST(first_delay_is_within_a_second_and_the_interval)
{
    const uint32_t randoms[] = {0, 1, 499, 500, 501, 1000, 1001, UINT32_MAX};
    for (size_t i = 0; i < sizeof(randoms) / sizeof(randoms[0]); i++) {
        ck_assert_uint_le(health_first_delay_ms(500, randoms[i]), 500);
        ck_assert_uint_le(health_first_delay_ms(60000, randoms[i]), 1000);
    }
    ck_assert_uint_eq(health_first_delay_ms(500, 500), 500);
    ck_assert_uint_eq(health_first_delay_ms(60000, 1000), 1000);
}
END_TEST

START_TEST(next_delay_keeps_to_the_jitter)
{
    ck_assert_uint_eq(health_next_delay_ms(2000, 10, 0), 1800);
    ck_assert_uint_eq(health_next_delay_ms(2000, 10, 400), 2200);
    ck_assert_uint_eq(health_next_delay_ms(2000, 10, 401), 1800);
    ck_assert_uint_eq(health_next_delay_ms(2000, 0, UINT32_MAX), 2000);
    ck_assert_uint_eq(health_next_delay_ms(1, 10, UINT32_MAX), 1);
    ck_assert_uint_le(health_next_delay_ms(2000, 100, UINT32_MAX), 4000);
}
END_TEST

static struct conf_range range_200 = {200, 399};

static struct conf_upstream
upstream_sample(void)
{
    return (struct conf_upstream){.name = "web",
                                  .health = {.type = CONF_HEALTH_HTTP,
                                             .path = "/health",
                                             .interval = 2000,
                                             .timeout = 1000,
                                             .jitter_percent = 10,
                                             .rise = 2,
                                             .fall = 3,
                                             .expect = &range_200,
                                             .nexpect = 1}};
}

static struct conf_backend
backend_sample(struct conf_upstream *up, uint16_t port)
{
    struct conf_backend b = {.id = "a", .address = "127.0.0.1:80", .upstream = up};
    b.check_addr.len = sizeof(struct sockaddr_in);
    b.check_addr.in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    return b;
}

START_TEST(same_check_ignores_rise_and_fall)
{
    struct conf_upstream x = upstream_sample(), y = upstream_sample();
    struct conf_backend a = backend_sample(&x, 80), b = backend_sample(&y, 80);
    y.health.rise = 7;
    y.health.fall = 9;
    ck_assert(health_same_check(&a, &b));
}
END_TEST

START_TEST(same_check_sees_each_setting)
{
    struct conf_range other = {200, 299};
    struct conf_upstream_tls tls = {0};
    for (int i = 0; i < 11; i++) {
        struct conf_upstream x = upstream_sample(), y = upstream_sample();
        struct conf_backend a = backend_sample(&x, 80), b = backend_sample(&y, i == 0 ? 81 : 80);
        switch (i) {
        case 1: y.health.type = CONF_HEALTH_TCP; break;
        case 2: y.health.path = "/"; break;
        case 3: y.health.host = "example.com"; break;
        case 4: y.health.method = "HEAD"; break;
        case 5: y.health.body = "ok"; break;
        case 6: y.health.interval = 1000; break;
        case 7: y.health.timeout = 500; break;
        case 8: y.health.expect = &other; break;
        case 9: y.tls = &tls; break;
        case 10:
            x.tls = y.tls = &tls;
            b.tls_name = "b.test";
            break;
        }
        ck_assert_msg(!health_same_check(&a, &b), "setting %d", i);
    }
}
END_TEST

Suite *
health_suite(void)
{
    Suite *suite = suite_create("health");
    TCase *judge = tcase_create("judge");
    tcase_add_loop_test(judge, judge_follows_rise_and_fall, 0, sizeof(runs) / sizeof(runs[0]));
    tcase_add_test(judge, judge_counts_in_a_row);
    tcase_add_test(judge, judge_does_not_wrap);
    suite_add_tcase(suite, judge);
    TCase *times = tcase_create("schedule");
    tcase_add_test(times, first_delay_is_within_a_second_and_the_interval);
    tcase_add_test(times, next_delay_keeps_to_the_jitter);
    tcase_add_test(times, same_check_ignores_rise_and_fall);
    tcase_add_test(times, same_check_sees_each_setting);
    suite_add_tcase(suite, times);
    return suite;
}
