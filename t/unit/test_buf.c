/* SPDX-License-Identifier: Apache-2.0
 *
 * test_buf.c - kept bytes: in order, whole, and gone when eaten.
 */
#include "shared/buf.h"

#include <check.h>
#include <stdlib.h>

#include "t/unit/suites.h"

static struct buf *buf;

static void
end(void)
{
    buf_free(&buf);
}

static void
append(const char *text)
{
    ck_assert_int_eq(buf_append(&buf, text, strlen(text)), 0);
}

static void
expect(const char *text)
{
    ck_assert(slice_eq(buf_slice(buf), slice_from_str(text)));
    ck_assert_uint_eq(buf_len(buf), strlen(text));
}

START_TEST(nothing_kept_is_no_buffer)
{
    ck_assert_uint_eq(buf_len(buf), 0);
    ck_assert_uint_eq(buf_slice(buf).len, 0);
    append("");
    ck_assert_ptr_null(buf);
    buf_consume(&buf, 0);
    ck_assert_ptr_null(buf);
    buf_free(&buf);
}
END_TEST

START_TEST(bytes_come_out_in_order)
{
    append("one");
    append("two");
    expect("onetwo");
    buf_consume(&buf, 4);
    expect("wo");
    append("three");
    expect("wothree");
}
END_TEST

START_TEST(eaten_whole_is_freed)
{
    append("all");
    buf_consume(&buf, 2);
    ck_assert_ptr_nonnull(buf);
    buf_consume(&buf, 1);
    ck_assert_ptr_null(buf);
    append("again");
    expect("again");
}
END_TEST

START_TEST(nul_bytes_are_bytes)
{
    ck_assert_int_eq(buf_append(&buf, "a\0b", 3), 0);
    ck_assert_uint_eq(buf_len(buf), 3);
    ck_assert_mem_eq(buf_slice(buf).ptr, "a\0b", 3);
}
END_TEST

static unsigned char
byte_at(size_t i)
{
    return (unsigned char)(i * 31 + (i >> 8));
}

static void
append_run(size_t from, size_t len)
{
    char *bytes = malloc(len);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (char)byte_at(from + i);
    }
    ck_assert_int_eq(buf_append(&buf, bytes, len), 0);
    free(bytes);
}

static void
expect_run(size_t from, size_t len)
{
    struct slice kept = buf_slice(buf);
    ck_assert_uint_eq(kept.len, len);
    for (size_t i = 0; i < len; i++) {
        ck_assert_uint_eq((unsigned char)kept.ptr[i], byte_at(from + i));
    }
}

START_TEST(grows_and_keeps_what_it_has)
{
    append_run(0, 10);
    append_run(10, 100000);
    append_run(100010, 1);
    expect_run(0, 100011);
    buf_consume(&buf, 50000);
    append_run(100011, 200000);
    expect_run(50000, 250011);
}
END_TEST

/* A queue that is fed as fast as it is eaten slides; it must not grow with all that ever passed. */
START_TEST(a_steady_queue_does_not_grow)
{
    size_t put = 3000, eaten = 0;
    append_run(0, put);
    uint32_t cap = buf->cap;
    for (unsigned i = 0; i < 10000; i++) {
        buf_consume(&buf, 700);
        eaten += 700;
        append_run(put, 700);
        put += 700;
    }
    ck_assert_uint_eq(buf->cap, cap);
    expect_run(eaten, put - eaten);
}
END_TEST

START_TEST(what_does_not_fit_is_refused_and_nothing_lost)
{
    append("kept");
    ck_assert_int_eq(buf_append(&buf, "x", (size_t)UINT32_MAX), -1);
    expect("kept");
}
END_TEST

Suite *
buf_suite(void)
{
    Suite *suite = suite_create("buf");
    TCase *tc = tcase_create("buf");
    tcase_add_checked_fixture(tc, NULL, end);
    tcase_add_test(tc, nothing_kept_is_no_buffer);
    tcase_add_test(tc, bytes_come_out_in_order);
    tcase_add_test(tc, eaten_whole_is_freed);
    tcase_add_test(tc, nul_bytes_are_bytes);
    tcase_add_test(tc, grows_and_keeps_what_it_has);
    tcase_add_test(tc, a_steady_queue_does_not_grow);
    tcase_add_test(tc, what_does_not_fit_is_refused_and_nothing_lost);
    suite_add_tcase(suite, tc);
    return suite;
}
