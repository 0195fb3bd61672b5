/* SPDX-License-Identifier: Apache-2.0
 *
 * test_balance.c - the algorithms against a made-up world: shares, exactness, and what is down.
 */
#include "worker/balance.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/maglev.h"
#include "conf/schedule.h"
#include "shared/ewma.h"
#include "shared/hash.h"
#include "t/unit/suites.h"

#define MEMBERS 8

/* What a view tells of: who is down, what runs, where the cursor stands. */
static struct world {
    struct conf_arena *arena;
    struct conf_upstream upstream;
    struct conf_pool pool;
    struct conf_backend backends[MEMBERS];
    struct conf_backend *members[MEMBERS];
    char ids[MEMBERS][32];
    bool is_down[MEMBERS];
    uint64_t active[MEMBERS];
    uint64_t cursor;
    uint64_t strangers; /* tickets that other workers take between two of ours */
    struct addr_ip client;
    uint64_t key, dice;
    uint64_t latency_us[MEMBERS];
    unsigned percent[MEMBERS]; /* of its turns that it takes; 0: all */
    unsigned counts[MEMBERS];
    unsigned nasked; /* how often one was looked at */
} world;

static bool
is_usable(const struct conf_backend *b, const void *arg)
{
    world.nasked++;
    return !((const struct world *)arg)->is_down[b->index];
}

static uint64_t
active(const struct conf_backend *b, const void *arg)
{
    return ((const struct world *)arg)->active[b->index];
}

static uint64_t
ticket(const struct conf_pool *pool, const void *arg)
{
    (void)pool;
    (void)arg;
    uint64_t mine = world.cursor;
    world.cursor += 1 + world.strangers;
    return mine;
}

static uint64_t
roll(const void *arg)
{
    (void)arg;
    return hash_finish(++world.dice);
}

static uint64_t
weight(const struct conf_backend *b, const void *arg)
{
    (void)arg;
    return b->weight * (world.percent[b->index] ? world.percent[b->index] : 100u);
}

static bool
takes_turn(const struct conf_backend *b, const void *arg)
{
    return world.percent[b->index] == 0 || roll(arg) % 100 < world.percent[b->index];
}

static uint64_t
latency_us(const struct conf_backend *b, const void *arg)
{
    return ((const struct world *)arg)->latency_us[b->index];
}

static void
begin(void)
{
    world = (struct world){.arena = conf_arena_new()};
}

static void
end(void)
{
    conf_arena_free(world.arena);
}

static void
build(enum conf_algorithm algorithm, const unsigned *weights, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        snprintf(world.ids[i], sizeof(world.ids[i]), "10.0.0.%u:8080", i + 1);
        world.backends[i] = (struct conf_backend){
            .id = world.ids[i], .weight = weights[i], .index = i, .upstream = &world.upstream};
        world.members[i] = &world.backends[i];
    }
    world.upstream.algorithm = algorithm;
    world.pool =
        (struct conf_pool){.upstream = &world.upstream, .backends = world.members, .nbackends = n};
    world.pool.schedule = schedule_build(world.arena, weights, n, &world.pool.schedule_len);
    if (n > 0) {
        world.pool.table = maglev_build(world.arena, world.members, n, &world.pool.table_len);
    }
}

static struct conf_backend *
pick(void)
{
    struct balance_view view = {.is_usable = is_usable,
                                .active = active,
                                .ticket = ticket,
                                .weight = weight,
                                .takes_turn = takes_turn,
                                .latency_us = latency_us,
                                .random = roll,
                                .key = hash_finish(world.key),
                                .client = &world.client,
                                .arg = &world};
    return balance_pick(&world.pool, &view);
}

static void
pick_many(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        world.key++;
        struct conf_backend *b = pick();
        ck_assert_ptr_nonnull(b);
        ck_assert(!world.is_down[b->index]);
        world.counts[b->index]++;
    }
}

static void
set_client(unsigned number)
{
    uint32_t ip = htonl(0x0a000000u + number);
    world.client = (struct addr_ip){.family = AF_INET, .port = (uint16_t)(number * 7)};
    memcpy(world.client.bytes, &ip, sizeof(ip));
}

/* ---- what all of them owe ---- */

static const enum conf_algorithm all[] = {CONF_ROUND_ROBIN, CONF_W_ROUND_ROBIN, CONF_LEAST_CONN,
                                          CONF_IP_HASH,     CONF_RANDOM_TWO,    CONF_EWMA,
                                          CONF_HASH};

START_TEST(all_down_ends_and_gives_none)
{
    build(all[_i], (unsigned[]){1, 2, 256}, 3);
    world.strangers = 2;
    for (unsigned i = 0; i < 3; i++) {
        world.is_down[i] = true;
    }
    for (unsigned i = 0; i < 1000; i++) {
        set_client(i);
        ck_assert_ptr_null(pick());
    }
}
END_TEST

START_TEST(an_empty_pool_gives_none)
{
    build(all[_i], NULL, 0);
    ck_assert_ptr_null(pick());
}
END_TEST

START_TEST(one_that_is_left_gets_everything)
{
    build(all[_i], (unsigned[]){256, 1, 256, 255}, 4);
    world.is_down[0] = world.is_down[2] = world.is_down[3] = true;
    pick_many(500);
    ck_assert_uint_eq(world.counts[1], 500);
}
END_TEST

/* Other workers' tickets may step in time with the schedule, so that ours never meet the entry. */
START_TEST(one_that_is_left_is_found_whatever_others_take)
{
    build(all[_i], (unsigned[]){1, 1, 1, 1}, 4);
    world.strangers = 3;
    world.is_down[0] = world.is_down[1] = world.is_down[2] = true;
    pick_many(100);
    ck_assert_uint_eq(world.counts[3], 100);
}
END_TEST

/* ---- round robin ---- */

START_TEST(turns_are_exact)
{
    build(CONF_ROUND_ROBIN, (unsigned[]){1, 1, 1}, 3);
    pick_many(100000);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_ge(world.counts[i], 33333);
        ck_assert_uint_le(world.counts[i], 33334);
    }
}
END_TEST

START_TEST(weighted_turns_are_exact)
{
    build(_i == 0 ? CONF_ROUND_ROBIN : CONF_W_ROUND_ROBIN, (unsigned[]){1, 2, 5}, 3);
    pick_many(8 * 1000 + 3);
    ck_assert_uint_ge(world.counts[0], 1000);
    ck_assert_uint_le(world.counts[0], 1001);
    ck_assert_uint_ge(world.counts[1], 2000);
    ck_assert_uint_le(world.counts[1], 2001);
    ck_assert_uint_ge(world.counts[2], 5000);
    ck_assert_uint_le(world.counts[2], 5002);
}
END_TEST

START_TEST(share_of_one_that_is_down_is_spread_by_weight)
{
    build(CONF_W_ROUND_ROBIN, (unsigned[]){1, 6, 2}, 3);
    world.is_down[1] = true;
    pick_many(3000);
    ck_assert_uint_eq(world.counts[0], 1000);
    ck_assert_uint_eq(world.counts[2], 2000);
}
END_TEST

START_TEST(neighbour_of_one_that_is_down_is_not_doubled)
{
    build(CONF_ROUND_ROBIN, (unsigned[]){1, 1, 1}, 3);
    world.is_down[1] = true;
    pick_many(3000);
    ck_assert_uint_eq(world.counts[0], 1500);
    ck_assert_uint_eq(world.counts[2], 1500);
}
END_TEST

START_TEST(cursor_that_wraps_goes_on)
{
    build(CONF_ROUND_ROBIN, (unsigned[]){1, 1, 1, 1}, 4);
    world.cursor = UINT64_MAX - 1000;
    pick_many(2000);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(world.counts[i], 500);
    }
}
END_TEST

/* ---- least_conn ---- */

START_TEST(fewest_in_flight_is_chosen)
{
    build(CONF_LEAST_CONN, (unsigned[]){1, 1, 1}, 3);
    world.active[0] = 5;
    world.active[1] = 2;
    world.active[2] = 9;
    pick_many(50);
    ck_assert_uint_eq(world.counts[1], 50);
    world.is_down[1] = true;
    pick_many(50);
    ck_assert_uint_eq(world.counts[0], 50);
}
END_TEST

START_TEST(in_flight_grows_in_proportion_to_weight)
{
    build(CONF_LEAST_CONN, (unsigned[]){1, 2, 5}, 3);
    for (unsigned i = 0; i < 800; i++) {
        world.active[pick()->index]++;
    }
    ck_assert_uint_eq(world.active[0], 100);
    ck_assert_uint_eq(world.active[1], 200);
    ck_assert_uint_eq(world.active[2], 500);
}
END_TEST

START_TEST(idle_equals_take_turns)
{
    build(CONF_LEAST_CONN, (unsigned[]){3, 3, 3}, 3);
    pick_many(300);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(world.counts[i], 100);
    }
}
END_TEST

START_TEST(idle_ones_take_turns_by_weight)
{
    build(CONF_LEAST_CONN, (unsigned[]){1, 3, 4}, 3);
    pick_many(800);
    ck_assert_uint_ge(world.counts[0], 98);
    ck_assert_uint_le(world.counts[0], 102);
    ck_assert_uint_ge(world.counts[1], 298);
    ck_assert_uint_le(world.counts[1], 302);
    world.active[1] = world.active[2] =
        1; /* which is less for them than the first request for it */
    pick_many(800);
    ck_assert_uint_le(world.counts[0], 102);
}
END_TEST

START_TEST(great_loads_and_weights_do_not_overflow)
{
    build(CONF_LEAST_CONN, (unsigned[]){256, 1}, 2);
    world.active[0] = 255ull << 40;
    world.active[1] = 1ull << 40;
    pick_many(10);
    ck_assert_uint_eq(world.counts[0], 10);
}
END_TEST

/* ---- ip_hash ---- */

#define CLIENTS 20000

static uint8_t homes[CLIENTS];

static void
settle(void)
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        set_client(i);
        homes[i] = (uint8_t)pick()->index;
        world.counts[homes[i]]++;
    }
}

START_TEST(a_client_stays_whatever_its_port_and_the_load)
{
    build(CONF_IP_HASH, (unsigned[]){1, 1, 1}, 3);
    settle();
    world.cursor = 12345;
    world.active[0] = 1000;
    for (unsigned i = 0; i < CLIENTS; i++) {
        set_client(i);
        world.client.port++;
        ck_assert_uint_eq(pick()->index, homes[i]);
    }
}
END_TEST

START_TEST(only_clients_of_one_that_went_away_move)
{
    build(CONF_IP_HASH, (unsigned[]){1, 2, 1, 3, 1}, 5);
    settle();
    world.is_down[3] = true;
    for (unsigned i = 0; i < CLIENTS; i++) {
        set_client(i);
        unsigned now = pick()->index;
        ck_assert_uint_ne(now, 3);
        ck_assert(homes[i] == 3 || now == homes[i]);
    }
    world.is_down[3] = false;
    for (unsigned i = 0; i < CLIENTS; i++) {
        set_client(i);
        ck_assert_uint_eq(pick()->index, homes[i]);
    }
}
END_TEST

START_TEST(clients_of_one_that_went_away_are_spread)
{
    build(CONF_IP_HASH, (unsigned[]){1, 1, 1, 1}, 4);
    settle();
    world.is_down[0] = true;
    unsigned moved[MEMBERS] = {0};
    for (unsigned i = 0; i < CLIENTS; i++) {
        set_client(i);
        moved[homes[i] == 0 ? pick()->index : 0]++;
    }
    for (unsigned i = 1; i < 4; i++) {
        ck_assert_uint_gt(moved[i], world.counts[0] / 3 * 9 / 10);
    }
}
END_TEST

START_TEST(an_added_one_takes_only_for_itself)
{
    build(CONF_IP_HASH, (unsigned[]){1, 1, 1}, 3);
    settle();
    build(CONF_IP_HASH, (unsigned[]){1, 1, 1, 1}, 4);
    for (unsigned i = 0; i < CLIENTS; i++) {
        set_client(i);
        unsigned now = pick()->index;
        ck_assert(now == 3 || now == homes[i]);
    }
}
END_TEST

START_TEST(shares_of_clients_follow_weights)
{
    build(CONF_IP_HASH, (unsigned[]){1, 2, 5}, 3);
    settle();
    unsigned share = CLIENTS / 8;
    ck_assert_uint_gt(world.counts[0], share * 9 / 10);
    ck_assert_uint_lt(world.counts[0], share * 11 / 10);
    ck_assert_uint_gt(world.counts[1], 2 * share * 9 / 10);
    ck_assert_uint_lt(world.counts[1], 2 * share * 11 / 10);
    ck_assert_uint_gt(world.counts[2], 5 * share * 19 / 20);
    ck_assert_uint_lt(world.counts[2], 5 * share * 21 / 20);
}
END_TEST

START_TEST(place_in_the_file_does_not_matter)
{
    build(CONF_IP_HASH, (unsigned[]){1, 1, 1}, 3);
    settle();
    struct conf_backend *first = world.members[0];
    world.members[0] = world.members[2];
    world.members[2] = first;
    for (unsigned i = 0; i < CLIENTS; i++) {
        set_client(i);
        ck_assert_uint_eq(pick()->index, homes[i]);
    }
}
END_TEST

/* ---- hash ---- */

START_TEST(a_key_stays_where_it_is)
{
    build(CONF_HASH, (unsigned[]){1, 2, 1, 3, 1}, 5);
    for (world.key = 0; world.key < CLIENTS; world.key++) {
        homes[world.key] = (uint8_t)pick()->index;
    }
    world.is_down[3] = true;
    for (world.key = 0; world.key < CLIENTS; world.key++) {
        unsigned now = pick()->index;
        ck_assert(homes[world.key] == 3 ? now != 3 : now == homes[world.key]);
        world.counts[now] += homes[world.key] == 3;
    }
    for (unsigned i = 0; i < 5; i++) { /* those of one spread over all others */
        ck_assert(i == 3 || world.counts[i] > 500 * world.backends[i].weight);
    }
}
END_TEST

START_TEST(a_hot_key_spills_over_at_a_quarter_above_the_share)
{
    build(CONF_HASH, (unsigned[]){1, 1, 1, 1}, 4);
    for (unsigned i = 0; i < 400; i++) { /* all of them stay in flight */
        world.active[pick()->index]++;
    }
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_le(world.active[i], 126);
        ck_assert_uint_gt(world.active[i], 20);
    }
}
END_TEST

/* Three of eight are out: each of the others has a fifth of the load, not an eighth. */
START_TEST(keys_stay_where_they_are_while_others_are_down)
{
    build(CONF_HASH, (unsigned[]){1, 1, 1, 1, 1, 1, 1, 1}, 8);
    world.is_down[1] = world.is_down[4] = world.is_down[5] = true;
    for (world.key = 0; world.key < CLIENTS; world.key++) {
        homes[world.key] = (uint8_t)pick()->index;
    }
    for (unsigned i = 0; i < 8; i++) {
        world.active[i] = world.is_down[i] ? 0 : 20;
    }
    world.active[0] = 10; /* it would take what the others seemed to have too much of */
    for (world.key = 0; world.key < CLIENTS; world.key++) {
        ck_assert_uint_eq(pick()->index, homes[world.key]);
    }
}
END_TEST

START_TEST(nobody_is_looked_for_where_nobody_is)
{
    build(all[_i], (unsigned[]){1, 1, 1, 1}, 4);
    for (unsigned i = 0; i < 4; i++) {
        world.is_down[i] = true;
    }
    world.nasked = 0;
    ck_assert_ptr_null(pick());
    ck_assert_uint_lt(world.nasked, 100);
}
END_TEST

/* ---- random_two, ewma, slow start, backups ---- */

START_TEST(two_drawn_leave_the_loaded_one_alone)
{
    build(CONF_RANDOM_TWO, (unsigned[]){1, 1, 1, 1}, 4);
    world.active[2] = 100;
    pick_many(10000);
    ck_assert_uint_eq(world.counts[2], 0); /* of two different ones it is never the lesser */
    for (unsigned i = 0; i < 4; i++) {
        ck_assert(i == 2 || (world.counts[i] > 2800 && world.counts[i] < 3800));
    }
}
END_TEST

START_TEST(two_idle_ones_are_drawn_by_weight)
{
    build(CONF_RANDOM_TWO, (unsigned[]){1, 3}, 2);
    pick_many(10000);
    ck_assert_uint_gt(world.counts[0], 2200);
    ck_assert_uint_lt(world.counts[0], 2800);
}
END_TEST

START_TEST(idle_one_that_just_came_up_takes_part_of_its_turns)
{
    static const enum conf_algorithm ramped[] = {CONF_ROUND_ROBIN, CONF_LEAST_CONN,
                                                 CONF_RANDOM_TWO};
    build(ramped[_i], (unsigned[]){1, 1, 1, 1}, 4);
    world.percent[1] = 10;
    pick_many(31000);
    ck_assert_uint_gt(world.counts[1], 500);
    ck_assert_uint_lt(world.counts[1], 1500);
}
END_TEST

START_TEST(two_drawn_follow_weights)
{
    build(CONF_RANDOM_TWO, (unsigned[]){1, 3}, 2);
    for (unsigned i = 0; i < 4000; i++) {
        world.active[pick()->index]++;
    }
    ck_assert_uint_gt(world.active[1], 2900);
    ck_assert_uint_lt(world.active[1], 3100);
}
END_TEST

START_TEST(the_slow_one_gets_what_its_latency_is_worth)
{
    build(CONF_EWMA, (unsigned[]){1, 1, 1}, 3);
    world.latency_us[0] = world.latency_us[1] = 1000;
    world.latency_us[2] = 20000;
    for (unsigned i = 0; i < 410; i++) {
        world.active[pick()->index]++;
    }
    ck_assert_uint_ge(world.active[2], 9);
    ck_assert_uint_le(world.active[2], 11);
    ck_assert_uint_ge(world.active[0], 199);
}
END_TEST

START_TEST(one_that_just_came_up_takes_part_of_its_turns)
{
    static const enum conf_algorithm ramped[] = {CONF_ROUND_ROBIN, CONF_LEAST_CONN, CONF_EWMA};
    build(ramped[_i], (unsigned[]){1, 1, 1, 1}, 4);
    world.percent[1] = 10;
    for (unsigned i = 0; i < 3100; i++) {
        struct conf_backend *b = pick();
        world.active[b->index]++;
    }
    ck_assert_uint_gt(world.active[1], 60);
    ck_assert_uint_lt(world.active[1], 140);
}
END_TEST

START_TEST(backups_serve_only_when_all_others_are_down)
{
    static struct conf_pool backups;
    build(all[_i], (unsigned[]){1, 1, 1, 1}, 4);
    unsigned n = world.pool.schedule_len;
    backups = world.pool;
    backups.backends = &world.members[2];
    backups.nbackends = 2;
    backups.schedule = schedule_build(world.arena, (unsigned[]){1, 1}, 2, &n);
    backups.schedule_len = n;
    backups.table = maglev_build(world.arena, backups.backends, 2, &backups.table_len);
    world.pool.nbackends = 2;
    world.pool.schedule = backups.schedule;
    world.pool.schedule_len = n;
    world.pool.table = backups.table;
    world.pool.backups = &backups;
    pick_many(500);
    ck_assert_uint_eq(world.counts[2] + world.counts[3], 0);
    world.is_down[0] = world.is_down[1] = true;
    pick_many(500);
    ck_assert_uint_eq(world.counts[2] + world.counts[3], 500);
    if (all[_i] == CONF_ROUND_ROBIN || all[_i] == CONF_W_ROUND_ROBIN ||
        all[_i] == CONF_LEAST_CONN) {
        ck_assert_uint_eq(world.counts[2], 250);
    }
}
END_TEST

START_TEST(least_conn_gives_equals_the_same_beside_one_that_is_down)
{
    build(CONF_LEAST_CONN, (unsigned[]){1, 1, 1}, 3);
    world.is_down[1] = true;
    pick_many(100);
    ck_assert_uint_eq(world.counts[0], 50);
    ck_assert_uint_eq(world.counts[2], 50);
}
END_TEST

START_TEST(round_robin_among_nobody_takes_no_turn)
{
    build(CONF_ROUND_ROBIN, (unsigned[]){1, 1}, 2);
    world.is_down[0] = world.is_down[1] = true;
    ck_assert_ptr_null(pick());
    ck_assert_uint_eq(world.cursor, 0);
}
END_TEST

Suite *
balance_suite(void)
{
    Suite *suite = suite_create("balance");
    TCase *tc = tcase_create("balance");
    int nall = sizeof(all) / sizeof(all[0]);
    tcase_add_checked_fixture(tc, begin, end);
    tcase_add_loop_test(tc, all_down_ends_and_gives_none, 0, nall);
    tcase_add_loop_test(tc, an_empty_pool_gives_none, 0, nall);
    tcase_add_loop_test(tc, one_that_is_left_gets_everything, 0, nall);
    tcase_add_loop_test(tc, one_that_is_left_is_found_whatever_others_take, 0, nall);
    tcase_add_test(tc, turns_are_exact);
    tcase_add_loop_test(tc, weighted_turns_are_exact, 0, 2);
    tcase_add_test(tc, share_of_one_that_is_down_is_spread_by_weight);
    tcase_add_test(tc, neighbour_of_one_that_is_down_is_not_doubled);
    tcase_add_test(tc, cursor_that_wraps_goes_on);
    tcase_add_test(tc, fewest_in_flight_is_chosen);
    tcase_add_test(tc, in_flight_grows_in_proportion_to_weight);
    tcase_add_test(tc, idle_equals_take_turns);
    tcase_add_test(tc, idle_ones_take_turns_by_weight);
    tcase_add_test(tc, great_loads_and_weights_do_not_overflow);
    tcase_add_test(tc, a_client_stays_whatever_its_port_and_the_load);
    tcase_add_test(tc, only_clients_of_one_that_went_away_move);
    tcase_add_test(tc, clients_of_one_that_went_away_are_spread);
    tcase_add_test(tc, an_added_one_takes_only_for_itself);
    tcase_add_test(tc, shares_of_clients_follow_weights);
    tcase_add_test(tc, place_in_the_file_does_not_matter);
    tcase_add_test(tc, a_key_stays_where_it_is);
    tcase_add_test(tc, a_hot_key_spills_over_at_a_quarter_above_the_share);
    tcase_add_test(tc, keys_stay_where_they_are_while_others_are_down);
    tcase_add_test(tc, two_drawn_leave_the_loaded_one_alone);
    tcase_add_test(tc, two_idle_ones_are_drawn_by_weight);
    tcase_add_loop_test(tc, idle_one_that_just_came_up_takes_part_of_its_turns, 0, 3);
    tcase_add_test(tc, two_drawn_follow_weights);
    tcase_add_test(tc, the_slow_one_gets_what_its_latency_is_worth);
    tcase_add_loop_test(tc, one_that_just_came_up_takes_part_of_its_turns, 0, 3);
    tcase_add_loop_test(tc, backups_serve_only_when_all_others_are_down, 0, nall);
    tcase_add_test(tc, least_conn_gives_equals_the_same_beside_one_that_is_down);
    tcase_add_test(tc, round_robin_among_nobody_takes_no_turn);
    tcase_add_loop_test(tc, nobody_is_looked_for_where_nobody_is, 0, nall);
    suite_add_tcase(suite, tc);
    return suite;
}
