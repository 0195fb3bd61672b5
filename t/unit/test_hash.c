/* SPDX-License-Identifier: Apache-2.0
 *
 * test_hash.c - Maglev's table, what is hashed, and the latency that is remembered.
 */
#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/arena.h"
#include "conf/maglev.h"
#include "shared/ewma.h"
#include "t/unit/suites.h"
#include "worker/hash_key.h"

#define MOST 1000

static struct conf_arena *arena;
static struct conf_backend backends[MOST];
static struct conf_backend *members[MOST];
static char ids[MOST][32];

static void
begin(void)
{
    arena = conf_arena_new();
    for (unsigned i = 0; i < MOST; i++) {
        snprintf(ids[i], sizeof(ids[i]), "10.0.%u.%u:8080", i / 256, i % 256);
        backends[i] = (struct conf_backend){.id = ids[i], .weight = 1, .index = i};
        members[i] = &backends[i];
    }
}

static void
end(void)
{
    conf_arena_free(arena);
}

/* ---- Maglev ---- */

static unsigned
count_of(const uint16_t *table, unsigned len, unsigned index)
{
    unsigned n = 0;
    for (unsigned i = 0; i < len; i++) {
        n += table[i] == index;
    }
    return n;
}

START_TEST(shares_are_equal_within_one_percent)
{
    static const unsigned numbers[] = {1, 2, 3, 10, 100, 655};
    unsigned len, n = numbers[_i];
    const uint16_t *table = maglev_build(arena, members, n, &len);
    for (unsigned i = 0; i < n; i++) {
        double share = (double)count_of(table, len, i) * n / len;
        ck_assert(share > 0.99 && share < 1.01);
    }
}
END_TEST

START_TEST(shares_follow_weights_within_one_percent)
{
    unsigned len;
    unsigned weights[] = {1, 2, 5, 256};
    for (unsigned i = 0; i < 4; i++) {
        backends[i].weight = weights[i];
    }
    const uint16_t *table = maglev_build(arena, members, 4, &len);
    for (unsigned i = 0; i < 4; i++) {
        double share = (double)count_of(table, len, i) * 264 / weights[i] / len;
        ck_assert(share > 0.99 && share < 1.01);
    }
}
END_TEST

START_TEST(one_that_leaves_moves_hardly_more_than_its_own)
{
    static const unsigned numbers[] = {3, 10, 50};
    unsigned len, less_len, n = numbers[_i], needless = 0;
    const uint16_t *table = maglev_build(arena, members, n, &len);
    struct conf_backend *left[MOST];
    unsigned gone = n / 2, nleft = 0;
    for (unsigned i = 0; i < n; i++) {
        if (i != gone) {
            left[nleft++] = members[i];
        }
    }
    const uint16_t *less = maglev_build(arena, left, nleft, &less_len);
    ck_assert_uint_eq(len, less_len);
    for (unsigned i = 0; i < len; i++) {
        needless += table[i] != gone && members[table[i]] != left[less[i]];
    }
    ck_assert_uint_le(needless, len * 2 / 100);
}
END_TEST

START_TEST(the_order_in_the_file_does_not_matter)
{
    unsigned len;
    struct conf_backend *turned[] = {members[2], members[0], members[1]};
    const uint16_t *table = maglev_build(arena, members, 3, &len);
    const uint16_t *other = maglev_build(arena, turned, 3, &len);
    for (unsigned i = 0; i < len; i++) {
        ck_assert_ptr_eq(members[table[i]], turned[other[i]]);
    }
}
END_TEST

START_TEST(a_thousand_have_their_share)
{
    unsigned len;
    const uint16_t *table = maglev_build(arena, members, MOST, &len);
    for (unsigned i = 0; i < MOST; i += 97) {
        double share = (double)count_of(table, len, i) * MOST / len;
        ck_assert(share > 0.99 && share < 1.01);
    }
}
END_TEST

/* ---- keys ---- */

static struct http_field fields[4];
static struct http_msg request = {.fields = fields};

static void
set_request(const char *target, const char *cookie)
{
    request.target = slice_from_str(target);
    request.path = slice_of(target, strcspn(target, "?"));
    fields[0] = (struct http_field){.name = SLICE("Cookie"),
                                    .id = HTTP_FIELD_COOKIE,
                                    .value = slice_from_str(cookie ? cookie : "")};
    fields[1] = (struct http_field){.name = SLICE("X-User"), .value = SLICE("ann")};
    request.nfields = 2;
}

START_TEST(cookies_are_found_by_their_whole_name)
{
    struct slice value = SLICE("");
    set_request("/", "xid=1; id=2;id3=4; empty=");
    ck_assert(hash_key_cookie(&request, SLICE("id"), &value));
    ck_assert(slice_eq(value, SLICE("2")));
    ck_assert(hash_key_cookie(&request, SLICE("id3"), &value));
    ck_assert(slice_eq(value, SLICE("4")));
    ck_assert(hash_key_cookie(&request, SLICE("empty"), &value));
    ck_assert_uint_eq(value.len, 0);
    ck_assert(!hash_key_cookie(&request, SLICE("i"), &value));
    ck_assert(!hash_key_cookie(&request, SLICE("empt"), &value));
}
END_TEST

START_TEST(parameters_are_found_in_the_query_alone)
{
    struct slice value = SLICE("");
    set_request("/id=9?x=1&id=2&id=3", NULL);
    ck_assert(hash_key_query(&request, SLICE("id"), &value));
    ck_assert(slice_eq(value, SLICE("2")));
    ck_assert(!hash_key_query(&request, SLICE("d"), &value));
    set_request("/id=9?", NULL);
    ck_assert(!hash_key_query(&request, SLICE("id"), &value));
    set_request("/id=9", NULL);
    ck_assert(!hash_key_query(&request, SLICE("id"), &value));
}
END_TEST

START_TEST(what_is_not_there_is_the_address)
{
    struct addr_ip client = {.family = AF_INET, .bytes = {10, 0, 0, 1}, .port = 1};
    struct addr_ip same = {.family = AF_INET, .bytes = {10, 0, 0, 1}, .port = 2};
    struct conf_upstream up = {.hash_kind = CONF_KEY_HEADER, .hash_name = SLICE("x-user")};
    set_request("/a?b", NULL);
    uint64_t by_field = hash_key_of(&up, &request, &client);
    uint64_t by_address = hash_key_of(&up, NULL, &client);
    ck_assert_uint_ne(by_field, by_address);
    ck_assert_uint_eq(by_address, hash_key_of(&up, NULL, &same));
    up.hash_name = SLICE("x-nobody");
    ck_assert_uint_eq(by_address, hash_key_of(&up, &request, &same));
    up.hash_kind = CONF_KEY_URI;
    uint64_t by_uri = hash_key_of(&up, &request, &client);
    up.hash_kind = CONF_KEY_PATH;
    ck_assert_uint_ne(by_uri, hash_key_of(&up, &request, &client));
}
END_TEST

/* ---- latency ---- */

START_TEST(a_peak_counts_at_once_and_decays)
{
    uint64_t word = ewma_next(0, 1000, 500);
    ck_assert_uint_eq(ewma_read(word, 1000), 500);
    word = ewma_next(word, 1001, 20000);
    ck_assert_uint_eq(ewma_read(word, 1001), 20000);
    word = ewma_next(word, 1001 + EWMA_HALF_MS, 500);
    ck_assert_uint_eq(ewma_read(word, 1001 + EWMA_HALF_MS), 500 + 19500 / 2);
}
END_TEST

START_TEST(silence_forgives)
{
    uint64_t word = ewma_next(0, 1000, 20000);
    ck_assert_uint_eq(ewma_read(word, 1000 + EWMA_HALF_MS), 10000);
    ck_assert_uint_eq(ewma_read(word, 1000 + EWMA_HALF_MS / 2), 15000);
    ck_assert_uint_eq(ewma_read(word, 1000 + 40 * EWMA_HALF_MS), 0);
}
END_TEST

START_TEST(the_clock_may_go_round)
{
    uint64_t word = ewma_next(0, UINT32_MAX - 10, 8000);
    ck_assert_uint_eq(ewma_read(word, (uint32_t)(UINT32_MAX - 10 + EWMA_HALF_MS)), 4000);
}
END_TEST

Suite *
hash_suite(void)
{
    Suite *s = suite_create("hash");
    TCase *tc = tcase_create("hash");
    tcase_add_checked_fixture(tc, begin, end);
    tcase_add_loop_test(tc, shares_are_equal_within_one_percent, 0, 6);
    tcase_add_test(tc, shares_follow_weights_within_one_percent);
    tcase_add_loop_test(tc, one_that_leaves_moves_hardly_more_than_its_own, 0, 3);
    tcase_add_test(tc, the_order_in_the_file_does_not_matter);
    tcase_add_test(tc, a_thousand_have_their_share);
    tcase_add_test(tc, cookies_are_found_by_their_whole_name);
    tcase_add_test(tc, parameters_are_found_in_the_query_alone);
    tcase_add_test(tc, what_is_not_there_is_the_address);
    tcase_add_test(tc, a_peak_counts_at_once_and_decays);
    tcase_add_test(tc, silence_forgives);
    tcase_add_test(tc, the_clock_may_go_round);
    suite_add_tcase(s, tc);
    return s;
}
