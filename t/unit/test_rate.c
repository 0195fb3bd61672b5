/* SPDX-License-Identifier: Apache-2.0
 *
 * test_rate.c - GCRA is exact, nobody who is limited goes free, and the table stays what it is.
 */
#include "shared/rate.h"

#include <check.h>
#include <stdlib.h>

#include "t/unit/suites.h"

static const uint64_t secret[2] = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
static struct rate_table *table;

static void
begin(void)
{
    table = aligned_alloc(64, sizeof(*table));
    for (unsigned i = 0; i < RATE_SETS; i++) {
        for (unsigned way = 0; way < RATE_WAYS; way++) {
            atomic_init(&table->entries[i][way], 0);
        }
        atomic_init(&table->overflow[i], 0);
    }
}

static void
end(void)
{
    free(table);
}

static unsigned
hammer(uint64_t key, struct rate rate, uint64_t from_us, uint64_t until_us, uint64_t step_us)
{
    unsigned admitted = 0;
    for (uint64_t now = from_us; now < until_us; now += step_us) {
        admitted += rate_take(table, key, rate, now).is_admitted;
    }
    return admitted;
}

START_TEST(the_burst_then_the_rate)
{
    struct rate rate = {10000, 20}; /* 100/s */
    ck_assert_uint_eq(hammer(1, rate, 0, 10000000, 500), 20 + 999);
    ck_assert_uint_eq(hammer(1, rate, 3600000000, 3610000000, 500), 20 + 999);
}
END_TEST

START_TEST(a_refusal_says_when_to_come_again)
{
    struct rate rate = {1000000, 2};
    struct rate_verdict v = rate_take(table, 7, rate, 5000000);
    ck_assert(v.is_admitted);
    ck_assert_uint_eq(v.remaining, 1);
    ck_assert_uint_eq(v.reset_us, 1000000);
    ck_assert(rate_take(table, 7, rate, 5000000).is_admitted);
    v = rate_take(table, 7, rate, 5250000);
    ck_assert(!v.is_admitted);
    ck_assert_uint_eq(v.remaining, 0);
    ck_assert_uint_eq(v.retry_us, 750000);
    ck_assert_uint_eq(v.reset_us, 1750000);
    ck_assert(rate_take(table, 7, rate, 5250000 + v.retry_us).is_admitted);
}
END_TEST

START_TEST(refused_requests_cost_nothing)
{
    struct rate rate = {1000000, 1};
    ck_assert(rate_take(table, 3, rate, 0).is_admitted);
    ck_assert_uint_eq(hammer(3, rate, 1, 1000000, 100), 0);
    ck_assert(rate_take(table, 3, rate, 1000000).is_admitted);
}
END_TEST

/* Keys of one set, more than it has ways: the one that was there stays limited exactly. */
START_TEST(a_flood_of_others_frees_nobody)
{
    struct rate rate = {10000, 20};
    unsigned admitted = 0;
    uint64_t stranger = 2;
    for (uint64_t now = 0; now < 10000000; now += 500) {
        admitted += rate_take(table, UINT64_C(1) << 40 | 5, rate, now).is_admitted;
        for (int i = 0; i < 30; i++) {
            rate_take(table, stranger++ << 40 | 5, rate, now);
        }
    }
    ck_assert_uint_eq(admitted, 20 + 999);
}
END_TEST

START_TEST(strangers_without_a_place_are_limited_together)
{
    struct rate rate = {1000000, 1};
    for (uint64_t i = 1; i <= RATE_WAYS; i++) {
        ck_assert(rate_take(table, i << 40, rate, 0).is_admitted);
    }
    ck_assert(rate_take(table, UINT64_C(100) << 40, rate, 0).is_admitted);
    ck_assert(!rate_take(table, UINT64_C(101) << 40, rate, 0).is_admitted);
    ck_assert(rate_take(table, UINT64_C(102) << 40, rate, 1000000).is_admitted);
}
END_TEST

START_TEST(time_goes_round_without_harm)
{
    struct rate rate = {1000, 5};
    uint64_t near_end = (UINT64_C(1) << 40) - 2000;
    ck_assert_uint_eq(hammer(9, rate, near_end, near_end + 10000, 100), 5 + 9);
}
END_TEST

/* What is long past must not look far ahead one day. */
START_TEST(the_sweep_clears_what_has_passed)
{
    struct rate rate = {1000000, 1};
    rate_take(table, 4, rate, 0);
    rate_take(table, UINT64_C(1) << 40 | 5, rate, 3600000000);
    for (unsigned set = 0; set < RATE_SETS; set += 128) {
        rate_sweep(table, set, 128, 3600000000);
    }
    ck_assert_uint_eq(atomic_load(&table->entries[4][0]), 0);
    ck_assert_uint_ne(atomic_load(&table->entries[5][0]), 0);
}
END_TEST

/* The reference vector of SipHash-2-4 for 15 bytes, the first eight of which are the limit. */
START_TEST(the_key_is_siphash)
{
    const unsigned char bytes[] = {8, 9, 10, 11, 12, 13, 14};
    ck_assert_uint_eq(rate_key(secret, secret[0], bytes, sizeof(bytes)),
                      UINT64_C(0xa129ca6149be45e5));
}
END_TEST

Suite *
rate_suite(void)
{
    Suite *s = suite_create("rate");
    TCase *tc = tcase_create("rate");
    tcase_add_checked_fixture(tc, begin, end);
    tcase_add_test(tc, the_burst_then_the_rate);
    tcase_add_test(tc, a_refusal_says_when_to_come_again);
    tcase_add_test(tc, refused_requests_cost_nothing);
    tcase_add_test(tc, a_flood_of_others_frees_nobody);
    tcase_add_test(tc, strangers_without_a_place_are_limited_together);
    tcase_add_test(tc, time_goes_round_without_harm);
    tcase_add_test(tc, the_sweep_clears_what_has_passed);
    tcase_add_test(tc, the_key_is_siphash);
    suite_add_tcase(s, tc);
    return s;
}
