/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sticky.c - cookies that name a backend: what is told from what is forged, old, or strange.
 */
#include "shared/sticky.h"

#include <check.h>
#include <string.h>

#include "t/unit/suites.h"

#define SECRET SLICE("a secret of some length")

static char text[STICKY_LEN];

static struct slice
cookie(uint64_t tag, uint64_t expires_s)
{
    ck_assert(sticky_write(SECRET, tag, expires_s, text));
    return slice_of(text, STICKY_LEN);
}

START_TEST(what_is_written_is_read)
{
    uint64_t tag = 0, expires_s = 1;
    ck_assert(sticky_read(SECRET, cookie(77, 0), 5000, &tag, &expires_s));
    ck_assert(tag == 77 && expires_s == 0);
    ck_assert(sticky_read(SECRET, cookie(UINT64_MAX, 5001), 5000, &tag, &expires_s));
    ck_assert(tag == UINT64_MAX && expires_s == 5001);
}
END_TEST

START_TEST(it_ends_in_its_second)
{
    uint64_t tag, expires_s;
    ck_assert(sticky_read(SECRET, cookie(1, 100), 99, &tag, &expires_s));
    ck_assert(!sticky_read(SECRET, cookie(1, 100), 100, &tag, &expires_s));
}
END_TEST

START_TEST(whatever_is_altered_is_refused)
{
    uint64_t tag, expires_s;
    for (int at = 0; at < STICKY_LEN; at++) {
        cookie(1, 0);
        text[at] = text[at] == 'A' ? 'B' : 'A';
        ck_assert(!sticky_read(SECRET, slice_of(text, STICKY_LEN), 1, &tag, &expires_s));
        text[at] = '=';
        ck_assert(!sticky_read(SECRET, slice_of(text, STICKY_LEN), 1, &tag, &expires_s));
    }
    cookie(1, 0);
    for (size_t len = 0; len < STICKY_LEN; len++) {
        ck_assert(!sticky_read(SECRET, slice_of(text, len), 1, &tag, &expires_s));
    }
    ck_assert(!sticky_read(SLICE("another secret, as long"), slice_of(text, STICKY_LEN), 1, &tag,
                           &expires_s));
}
END_TEST

START_TEST(tags_depend_on_secret_upstream_and_id)
{
    uint64_t tag = sticky_tag(SECRET, "site", "a:1");
    ck_assert_uint_ne(tag, 0);
    ck_assert_uint_eq(tag, sticky_tag(SECRET, "site", "a:1"));
    ck_assert_uint_ne(tag, sticky_tag(SECRET, "site", "a:2"));
    ck_assert_uint_ne(tag, sticky_tag(SECRET, "sit", "ea:1"));
    ck_assert_uint_ne(tag, sticky_tag(SLICE("another secret, as long"), "site", "a:1"));
}
END_TEST

static const struct {
    const char *field, *rest;
    unsigned removed;
} fields[] = {
    {"akash=1", "", 1},
    {"a=1; akash=2; b=3", "a=1; b=3", 1},
    {"akash=1; a=1;akash=2", "a=1", 2},
    {"a=1;b=2", "a=1; b=2", 0},
    {"akashx=1; xakash=2; akash", "akashx=1; xakash=2; akash", 0},
    {" ;; akash= ; \t", "", 1},
    {"", "", 0},
    {"a=\"x; akash=1\"", "a=\"x", 1},
};

START_TEST(a_field_goes_on_without_it)
{
    char out[64];
    unsigned removed = 0;
    struct slice field = slice_from_str(fields[_i].field);
    size_t len = sticky_strip(field, SLICE("akash"), out, &removed);
    ck_assert_uint_eq(removed, fields[_i].removed);
    ck_assert(slice_eq(slice_of(out, len), slice_from_str(fields[_i].rest)));
}
END_TEST

Suite *
sticky_suite(void)
{
    Suite *s = suite_create("sticky");
    TCase *tc = tcase_create("sticky");
    tcase_add_test(tc, what_is_written_is_read);
    tcase_add_test(tc, it_ends_in_its_second);
    tcase_add_test(tc, whatever_is_altered_is_refused);
    tcase_add_test(tc, tags_depend_on_secret_upstream_and_id);
    tcase_add_loop_test(tc, a_field_goes_on_without_it, 0, sizeof(fields) / sizeof(fields[0]));
    suite_add_tcase(s, tc);
    return s;
}
