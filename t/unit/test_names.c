/* SPDX-License-Identifier: Apache-2.0
 *
 * test_names.c - addresses of names as processes tell each other, what changed among them, and for
 * how long an answer is good.
 */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "master/follow.h"
#include "master/found.h"
#include "master/names.h"
#include "master/resolver.h"
#include "t/unit/suites.h"

static struct conf_found
found_of(const char *line, bool is_srv)
{
    struct conf_found found;
    ck_assert_msg(found_parse(slice_from_str(line), is_srv, &found) == 0, "%s", line);
    return found;
}

/* ---- lines ---- */

START_TEST(a_line_comes_back_as_it_was)
{
    static const struct {
        const char *line, *canonical;
        bool is_srv;
    } good[] = {
        {"192.0.2.7 0 0 0", "192.0.2.7 0 0 0", false},
        {"2001:DB8::7 0 0 0", "2001:db8::7 0 0 0", false},
        {"::ffff:192.0.2.7 0 0 0", "192.0.2.7 0 0 0", false},
        {"192.0.2.7 8080 10 65535", "192.0.2.7 8080 10 65535", true},
        {"::1 65535 0 0", "::1 65535 0 0", true},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        char line[FOUND_LINE_MAX];
        struct conf_found found = found_of(good[i].line, good[i].is_srv);
        size_t len = found_format(&found, line);
        ck_assert_str_eq(line, good[i].canonical);
        ck_assert_uint_eq(len, strlen(line));
    }
}
END_TEST

static const char *const bad_lines[] = {
    "",
    " ",
    "192.0.2.7",
    "192.0.2.7 ",
    "192.0.2.7 0 0",
    "192.0.2.7 0 0 ",
    "192.0.2.7 0 0 0 ",
    "192.0.2.7 0 0 0 0",
    "192.0.2.7  0 0 0",
    " 192.0.2.7 0 0 0",
    "192.0.2.7 0 0 00",
    "192.0.2.7 0 0 -1",
    "192.0.2.7 0 0 +0",
    "192.0.2.7 0 0 65536",
    "192.0.2.7 0 0 99999999999999999999",
    "192.0.2.7 0 0 0x1",
    "192.0.2.7 1 0 0", /* a port that no SRV record gave */
    "192.0.2.7 0 1 0",
    "192.0.2.7:80 0 0 0",
    "name 0 0 0",
    "[::1] 0 0 0",
    "fe80::1%lo 0 0 0",
    "0.0.0.0 0 0 0",
    "0.1.2.3 0 0 0",
    ":: 0 0 0",
    "224.0.0.1 0 0 0",
    "255.255.255.255 0 0 0",
    "ff02::1 0 0 0",
    "::ffff:0.0.0.0 0 0 0",
    "192.0.2.7 0 0 0\n",
};

START_TEST(nothing_else_is_a_line)
{
    struct conf_found found;
    for (size_t i = 0; i < sizeof(bad_lines) / sizeof(bad_lines[0]); i++) {
        ck_assert_msg(found_parse(slice_from_str(bad_lines[i]), false, &found) < 0, "taken: %s",
                      bad_lines[i]);
    }
    ck_assert_int_lt(found_parse(SLICE("192.0.2.7 0 1 1"), true, &found), 0);
    ck_assert_int_lt(found_parse(slice_of("192.0.2.7 0 0\0 0", 16), false, &found), 0);
}
END_TEST

/* ---- answers ---- */

START_TEST(an_answer_is_sorted_and_has_nothing_twice)
{
    struct found_answer answer;
    ck_assert_int_eq(found_answer_parse(SLICE("web.test\n192.0.2.9 0 0 0\n::1 0 0 0\n192.0.2.3 0 0 "
                                              "0\n192.0.2.9 0 0 0\n"),
                                        &answer),
                     0);
    ck_assert(slice_eq(answer.host, SLICE("web.test")));
    ck_assert(!answer.is_srv);
    char text[FOUND_ANSWER_MAX];
    size_t len = found_answer_format("web.test", false, answer.found, answer.n, text);
    ck_assert(slice_eq(slice_of(text, len),
                       SLICE("web.test\n192.0.2.3 0 0 0\n192.0.2.9 0 0 0\n::1 0 0 0\n")));
}
END_TEST

START_TEST(an_answer_of_srv_records_says_so)
{
    struct found_answer answer;
    ck_assert_int_eq(found_answer_parse(SLICE("srv:_x._tcp.test\n192.0.2.9 80 1 2\n"), &answer), 0);
    ck_assert(answer.is_srv);
    ck_assert(slice_eq(answer.host, SLICE("_x._tcp.test")));
    ck_assert_uint_eq(answer.found[0].priority, 1);
    ck_assert_uint_eq(answer.found[0].weight, 2);
}
END_TEST

START_TEST(nothing_else_is_an_answer)
{
    static const char *const bad[] = {
        "",
        "\n",
        "web.test",
        "web.test\n",
        "\n192.0.2.9 0 0 0\n",
        "srv:\n192.0.2.9 80 0 0\n",
        "web.test\n192.0.2.9 0 0 0",
        "web.test\n192.0.2.9 0 0 0\n\n",
        "web.test\n192.0.2.9 80 0 0\n",
        "srv:web.test\n192.0.2.9 0 0 0\n",
        "web.test\n192.0.2.9 0 0 0\nx",
    };
    struct found_answer answer;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(found_answer_parse(slice_from_str(bad[i]), &answer) < 0, "taken: %s", bad[i]);
    }
}
END_TEST

/* "HOST\n" and n addresses. Returns the length. */
static size_t
many(char *text, size_t host_len, unsigned n)
{
    memset(text, 'a', host_len);
    size_t len = host_len;
    text[len++] = '\n';
    for (unsigned i = 0; i < n; i++) {
        len += (size_t)sprintf(text + len, "192.0.2.%u 0 0 0\n", i);
    }
    return len;
}

START_TEST(an_answer_has_its_bounds)
{
    static char text[65536];
    struct found_answer answer;
    size_t len = many(text, FOUND_HOST_MAX - 1, CONF_FOUND_MAX);
    ck_assert_int_eq(found_answer_parse(slice_of(text, len), &answer), 0);
    ck_assert_uint_eq(answer.n, CONF_FOUND_MAX);
    len = many(text, 10, CONF_FOUND_MAX + 1);
    ck_assert_int_lt(found_answer_parse(slice_of(text, len), &answer), 0);
    len = many(text, FOUND_HOST_MAX, 1);
    ck_assert_int_lt(found_answer_parse(slice_of(text, len), &answer), 0);
}
END_TEST

START_TEST(the_longest_answer_fits_its_room)
{
    static struct conf_found found[CONF_FOUND_MAX];
    char host[FOUND_HOST_MAX], text[FOUND_ANSWER_MAX];
    memset(host, 'a', sizeof(host) - 1);
    host[sizeof(host) - 1] = '\0';
    for (unsigned i = 0; i < CONF_FOUND_MAX; i++) {
        char line[FOUND_LINE_MAX];
        snprintf(line, sizeof(line), "2001:db8:ffff:ffff:ffff:ffff:ffff:ff%02x 65535 65535 65535",
                 i);
        found[i] = found_of(line, true);
    }
    struct found_answer answer;
    size_t len = found_answer_format(host, true, found, CONF_FOUND_MAX, text);
    ck_assert_uint_le(len, sizeof(text));
    ck_assert_int_eq(found_answer_parse(slice_of(text, len), &answer), 0);
    ck_assert(found_same(found, CONF_FOUND_MAX, answer.found, answer.n));
}
END_TEST

/* ---- changes ---- */

START_TEST(order_is_no_change_but_a_weight_is)
{
    struct conf_found a[] = {found_of("192.0.2.1 80 1 1", true),
                             found_of("192.0.2.2 80 1 1", true)};
    struct conf_found b[] = {a[1], a[0]};
    ck_assert(found_same(a, 2, b, 2));
    ck_assert(!found_same(a, 2, b, 1));
    ck_assert(found_same(a, 0, b, 0));
    b[0].weight = 2;
    ck_assert(!found_same(a, 2, b, 2));
}
END_TEST

START_TEST(a_change_is_described_within_its_room)
{
    struct conf_found a[] = {found_of("192.0.2.1 0 0 0", false), found_of("::1 0 0 0", false)};
    struct conf_found b[] = {found_of("192.0.2.9 0 0 0", false), a[1]};
    char text[256], small[40];
    found_describe(a, 2, b, 2, text, sizeof(text));
    ck_assert_str_eq(text, "+ 192.0.2.9, - 192.0.2.1");
    found_describe(a, 0, b, 2, text, sizeof(text));
    ck_assert_str_eq(text, "+ 192.0.2.9, + ::1");
    struct conf_found srv = found_of("::1 443 5 6", true);
    found_describe(a, 0, &srv, 1, text, sizeof(text));
    ck_assert_str_eq(text, "+ [::1]:443 (priority 5, weight 6)");
    struct conf_found list[CONF_FOUND_MAX];
    for (unsigned i = 0; i < CONF_FOUND_MAX; i++) {
        snprintf(text, sizeof(text), "192.0.2.%u 0 0 0", i);
        list[i] = found_of(text, false);
    }
    found_describe(list, CONF_FOUND_MAX / 2, list + CONF_FOUND_MAX / 2, CONF_FOUND_MAX / 2, text,
                   sizeof(text));
    ck_assert_uint_lt(strlen(text), sizeof(text));
    ck_assert(strstr(text, ", ...") && strstr(text, "- 192.0.2.0"));
    found_describe(list, 5, b, 2, small, sizeof(small));
    ck_assert_uint_lt(strlen(small), sizeof(small));
}
END_TEST

/* ---- time ---- */

#define HEADER(questions, answers) "\1\2\x81\x80\0" questions "\0" answers "\0\0\0\0"
#define QUESTION                   "\4_tcp\4test\0\0\x21\0\1"
#define RECORD(ttl)                "\xc0\x0c\0\x21\0\1" ttl "\0\1x"

static int
least_ttl(struct slice message, uint32_t *ttl)
{
    return found_least_ttl((const unsigned char *)message.ptr, message.len, ttl);
}

START_TEST(the_least_ttl_counts)
{
    uint32_t ttl;
    ck_assert_int_eq(
        least_ttl(SLICE(HEADER("\1", "\2") QUESTION RECORD("\0\0\1\0") RECORD("\0\0\0\5")), &ttl),
        0);
    ck_assert_uint_eq(ttl, 5);
    ck_assert_int_eq(least_ttl(SLICE(HEADER("\0", "\1") RECORD("\0\0\1\0")), &ttl), 0);
    ck_assert_uint_eq(ttl, 256);
    ck_assert_int_eq(least_ttl(SLICE(HEADER("\0", "\1") RECORD("\xff\0\0\0")), &ttl), 0);
    ck_assert_uint_eq(ttl, 0); /* the highest bit set is zero: RFC 2181 8 */
}
END_TEST

START_TEST(a_message_that_is_cut_has_no_ttl)
{
    static const char whole[] = HEADER("\1", "\1") QUESTION RECORD("\0\0\1\0");
    uint32_t ttl;
    ck_assert_int_eq(least_ttl(SLICE(whole), &ttl), 0);
    for (size_t len = 0; len < sizeof(whole) - 1; len++) {
        ck_assert_msg(least_ttl(slice_of(whole, len), &ttl) < 0, "taken: %zu bytes", len);
    }
    ck_assert_int_lt(least_ttl(SLICE(HEADER("\1", "\0") QUESTION), &ttl), 0);
    ck_assert_int_lt(least_ttl(SLICE(HEADER("\0", "\1") "\x80x\0\x21\0\1\0\0\0\1\0\0"), &ttl), 0);
}
END_TEST

START_TEST(a_question_is_no_response)
{
    static const unsigned char response[12] = {1, 2, 0x81, 0x80}, question[12] = {1, 2, 0x01};
    ck_assert(found_is_response(response, 12));
    ck_assert(!found_is_response(response, 11));
    ck_assert(!found_is_response(question, 12));
}
END_TEST

START_TEST(an_answer_is_good_for_its_ttl_and_less_than_a_second)
{
    static const struct {
        uint32_t ttl_s;
        uint64_t least_ms, most_ms;
    } cases[] = {{0, 1000, 1100},
                 {1, 1000, 1100},
                 {2, 2000, 2200},
                 {60, 60000, 60250},
                 {3600, 3600000, 3600250},
                 {86400, 3600000, 3600250},
                 {UINT32_MAX, 3600000, 3600250}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (uint32_t random = 0; random < 1000; random++) {
            uint64_t ms = follow_good_for_ms(cases[i].ttl_s, random * 7919);
            ck_assert_uint_ge(ms, cases[i].least_ms);
            ck_assert_uint_le(ms, cases[i].most_ms);
        }
    }
}
END_TEST

START_TEST(tries_after_failures_come_more_and_more_slowly)
{
    uint64_t before = 0;
    for (unsigned failures = 1; failures < 100; failures++) {
        uint64_t ms = follow_retry_ms(failures, 0);
        ck_assert_uint_ge(ms, before);
        ck_assert_uint_ge(ms, FOLLOW_RETRY_MIN_MS);
        ck_assert_uint_le(follow_retry_ms(failures, UINT32_MAX), FOLLOW_RETRY_MAX_MS * 11 / 10);
        before = ms;
    }
    ck_assert_uint_eq(before, FOLLOW_RETRY_MAX_MS);
    ck_assert_uint_eq(follow_retry_ms(UINT32_MAX, 0), FOLLOW_RETRY_MAX_MS);
}
END_TEST

/* ---- the resolver's child ---- */

START_TEST(answers_of_the_resolver)
{
    struct resolver_names names = {0};
    ck_assert_int_eq(resolver_names_add(&names, "a.example", false), 0);
    ck_assert_int_eq(resolver_names_add(&names, "b.example", false), 0);
    ck_assert_int_eq(resolver_names_add(&names, "b.example", true), 0);
    ck_assert(resolver_names_take(&names, SLICE("1 192.0.2.7 0 0 0")));
    ck_assert(resolver_names_take(&names, SLICE("1 2001:db8::7 0 0 0")));
    ck_assert(resolver_names_take(&names, SLICE("1 partial")));
    ck_assert(resolver_names_take(&names, SLICE("2 2001:db8::7 1 2 3")));
    ck_assert_uint_eq(resolver_names_find(&names, "a.example", false)->count, 0);
    ck_assert_uint_eq(resolver_names_find(&names, "b.example", false)->count, 2);
    ck_assert(resolver_names_find(&names, "b.example", false)->is_partial);
    ck_assert_uint_eq(resolver_names_find(&names, "b.example", true)->count, 1);
    ck_assert_ptr_null(resolver_names_find(&names, "a.example", true));
    resolver_names_fini(&names);
}
END_TEST

START_TEST(nonsense_of_the_resolver_is_not_taken)
{
    static const char *const bad[] = {
        "",
        "0",
        "0 ",
        " 127.0.0.1 0 0 0",
        "1 ::1 0 0 0",
        "-1 ::1 0 0 0",
        "0 name 0 0 0",
        "0 ::1",
        "99999999999 ::1 0 0 0",
        "0  ::1 0 0 0",
        "x ::1 0 0 0",
        "0 ::1 0 0 0 ",
        "0 ::1 80 0 0",
        "0 partially",
        "0 partial ",
    };
    struct resolver_names names = {0};
    ck_assert_int_eq(resolver_names_add(&names, "a.example", false), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(!resolver_names_take(&names, slice_from_str(bad[i])), "taken: %s", bad[i]);
    }
    ck_assert_uint_eq(names.list[0].count, 0);
    for (int i = 0; i < 2 * CONF_FOUND_MAX; i++) {
        ck_assert(resolver_names_take(&names, SLICE("0 ::1 0 0 0")));
    }
    ck_assert_uint_eq(names.list[0].count, CONF_FOUND_MAX);
    resolver_names_fini(&names);
}
END_TEST

START_TEST(there_are_only_so_many_names)
{
    struct resolver_names names = {0};
    char name[32];
    for (unsigned i = 0; i < RESOLVER_NAMES; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        ck_assert_int_eq(resolver_names_add(&names, name, false), 0);
    }
    ck_assert_int_lt(resolver_names_add(&names, "more", false), 0);
    resolver_names_fini(&names);
}
END_TEST

/* ---- how often names make a reload ---- */

START_TEST(a_change_now_and_then_waits_for_the_pause_alone)
{
    struct names_pace pace = {0};
    bool is_held;
    uint64_t now = 1000;
    ck_assert_uint_eq(names_pace_next(&pace, now, &is_held), now);
    for (int i = 0; i < 1000; i++) {
        names_pace_take(&pace, now);
        ck_assert_uint_eq(names_pace_next(&pace, now, &is_held), now + NAMES_PAUSE_MS);
        ck_assert(!is_held);
        now += NAMES_REFILL_MS;
    }
}
END_TEST

START_TEST(changes_without_end_are_spread)
{
    struct names_pace pace = {0};
    bool is_held = false;
    unsigned taken = 0;
    const uint64_t begun = 1000000, end = begun + 60 * 60 * 1000;
    uint64_t now = begun;
    for (; now < end; now = names_pace_next(&pace, now, &is_held)) {
        names_pace_take(&pace, now);
        taken++;
        ck_assert(taken < NAMES_BURST || (now - begun) / NAMES_REFILL_MS + NAMES_BURST >= taken);
    }
    ck_assert(is_held);
    ck_assert_uint_le(taken, (end - begun) / NAMES_REFILL_MS + NAMES_BURST);
    /* After a rest it is as it was. */
    now += (uint64_t)NAMES_BURST * NAMES_REFILL_MS;
    ck_assert_uint_eq(names_pace_next(&pace, now, &is_held), now);
    ck_assert(!is_held);
}
END_TEST

Suite *
names_suite(void)
{
    Suite *suite = suite_create("names");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, a_line_comes_back_as_it_was);
    tcase_add_test(tc, nothing_else_is_a_line);
    tcase_add_test(tc, an_answer_is_sorted_and_has_nothing_twice);
    tcase_add_test(tc, an_answer_of_srv_records_says_so);
    tcase_add_test(tc, nothing_else_is_an_answer);
    tcase_add_test(tc, an_answer_has_its_bounds);
    tcase_add_test(tc, the_longest_answer_fits_its_room);
    tcase_add_test(tc, order_is_no_change_but_a_weight_is);
    tcase_add_test(tc, a_change_is_described_within_its_room);
    tcase_add_test(tc, the_least_ttl_counts);
    tcase_add_test(tc, a_message_that_is_cut_has_no_ttl);
    tcase_add_test(tc, a_question_is_no_response);
    tcase_add_test(tc, an_answer_is_good_for_its_ttl_and_less_than_a_second);
    tcase_add_test(tc, tries_after_failures_come_more_and_more_slowly);
    tcase_add_test(tc, answers_of_the_resolver);
    tcase_add_test(tc, nonsense_of_the_resolver_is_not_taken);
    tcase_add_test(tc, there_are_only_so_many_names);
    tcase_add_test(tc, a_change_now_and_then_waits_for_the_pause_alone);
    tcase_add_test(tc, changes_without_end_are_spread);
    suite_add_tcase(suite, tc);
    return suite;
}
