/* SPDX-License-Identifier: Apache-2.0
 *
 * test_http1_chunked.c - chunked bodies, whole and in pieces of every size.
 */
#include <check.h>
#include <stdlib.h>

#include "shared/http1.h"
#include "t/unit/suites.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

struct decoded {
    enum http1_chunk_result result;
    char body[256];
    size_t len;
    size_t used; /* bytes of the input up to the trailer section */
};

/* Feed wire in pieces of step bytes, each a buffer of exactly that size. */
static struct decoded
decode(struct slice wire, size_t step)
{
    struct http1_chunked d = {0};
    struct decoded out = {.result = HTTP1_CHUNK_MORE};
    while (out.result == HTTP1_CHUNK_MORE && out.used < wire.len) {
        size_t len = wire.len - out.used < step ? wire.len - out.used : step;
        char *piece = malloc(len);
        ck_assert_ptr_nonnull(piece);
        memcpy(piece, wire.ptr + out.used, len);
        struct slice in = slice_of(piece, len);
        struct slice bytes;
        while ((out.result = http1_chunked_next(&d, &in, &bytes)) == HTTP1_CHUNK_DATA) {
            ck_assert_uint_gt(bytes.len, 0);
            memcpy(out.body + out.len, bytes.ptr, bytes.len);
            out.len += bytes.len;
        }
        out.used += len - in.len;
        free(piece);
    }
    return out;
}

static const struct {
    const char *wire, *body;
} good_bodies[] = {
    {"0\r\n", ""},
    {"5\r\nhello\r\n0\r\n", "hello"},
    {"1\r\na\r\nA\r\n0123456789\r\n2\r\n\r\n\r\n000\r\n", "a0123456789\r\n"},
    {"0000000000000003\r\nabc\r\n0\r\n", "abc"},
    {"1;a=b; c=\"d e\"\t\r\nx\r\n0;last\r\n", "x"},
    {"00b\r\n0\r\nfake\r\n\r\n\r\n0\r\n", "0\r\nfake\r\n\r\n"},
};

START_TEST(body_is_the_same_in_all_pieces)
{
    struct slice wire = slice_from_str(good_bodies[_i].wire);
    for (size_t step = 1; step <= wire.len; step++) {
        struct decoded out = decode(wire, step);
        ck_assert_int_eq(out.result, HTTP1_CHUNK_TRAILER);
        ck_assert_uint_eq(out.used, wire.len);
        ck_assert(slice_eq(slice_of(out.body, out.len), slice_from_str(good_bodies[_i].body)));
    }
}
END_TEST

START_TEST(prefix_of_a_body_wants_more)
{
    struct slice wire = slice_from_str(good_bodies[_i].wire);
    for (size_t len = 0; len < wire.len; len++) {
        ck_assert_int_eq(decode(slice_of(wire.ptr, len), 64).result, HTTP1_CHUNK_MORE);
    }
}
END_TEST

#define BYTES(text) \
    { \
        (text), sizeof(text) - 1 \
    }

static const struct slice bad_bodies[] = {
    BYTES("\r\n"),
    BYTES("g\r\n"),
    BYTES(" 5\r\n"),
    BYTES("5 \r\nhello"),
    BYTES("5 ;a\r\nhello"),
    BYTES("+5\r\n"),
    BYTES("-5\r\n"),
    BYTES("0x5\r\n"),
    BYTES("5_\r\n"),
    BYTES("5\nhello"),
    BYTES("5\rX"),
    BYTES("5\r\r\n"),
    BYTES("5;a\nhello"),
    BYTES("5;a\rb\r\n"),
    BYTES("5;a\0b\r\n"),
    BYTES("5;\x7f\r\n"),
    BYTES("1\r\nab"),
    BYTES("1\r\na\n0\r\n"),
    BYTES("1\r\na\rb"),
    BYTES("1\r\na0\r\n"),
    BYTES("8000000000000000\r\n"),
    BYTES("ffffffffffffffff\r\n"),
    BYTES("10000000000000000\r\n"),
    BYTES("00000000000000001\r\n"),
    BYTES("10000000000000005\r\nhello"),
    BYTES(";a\r\n"),
};

START_TEST(bad_body_is_refused_in_all_pieces)
{
    for (size_t step = 1; step <= bad_bodies[_i].len; step++) {
        ck_assert_int_eq(decode(bad_bodies[_i], step).result, HTTP1_CHUNK_BAD);
    }
}
END_TEST

START_TEST(bad_body_stays_bad)
{
    struct http1_chunked d = {0};
    struct slice in = SLICE("x0\r\n");
    struct slice bytes;
    ck_assert_int_eq(http1_chunked_next(&d, &in, &bytes), HTTP1_CHUNK_BAD);
    ck_assert_int_eq(http1_chunked_next(&d, &in, &bytes), HTTP1_CHUNK_BAD);
}
END_TEST

START_TEST(trailer_section_is_left_alone)
{
    struct decoded out = decode(SLICE("1\r\na\r\n0\r\nX: y\r\n\r\n"), 64);
    ck_assert_int_eq(out.result, HTTP1_CHUNK_TRAILER);
    ck_assert_uint_eq(out.used, strlen("1\r\na\r\n0\r\n"));
}
END_TEST

START_TEST(largest_size_has_63_bits)
{
    struct http1_chunked d = {0};
    struct slice in = SLICE("7fffffffffffffff\r\nab");
    struct slice bytes;
    ck_assert_int_eq(http1_chunked_next(&d, &in, &bytes), HTTP1_CHUNK_DATA);
    ck_assert_uint_eq(bytes.len, 2);
    ck_assert_uint_eq(d.left, (uint64_t)INT64_MAX - 2);
    ck_assert_int_eq(http1_chunked_next(&d, &in, &bytes), HTTP1_CHUNK_MORE);
}
END_TEST

/* Extensions of as many bytes as given, over two chunks. */
static enum http1_chunk_result
decode_with_extensions(size_t first, size_t second)
{
    static char wire[2 * HTTP1_CHUNK_EXT_MAX];
    char *p = wire;
    *p++ = '1';
    memset(p, ';', first);
    memcpy(p + first, "\r\na\r\n0", 6);
    p += first + 6;
    memset(p, ';', second);
    memcpy(p + second, "\r\n", 2);
    p += second + 2;
    return decode(slice_of(wire, (size_t)(p - wire)), sizeof(wire)).result;
}

START_TEST(extensions_are_bounded_over_the_body)
{
    const size_t half = HTTP1_CHUNK_EXT_MAX / 2;
    ck_assert_int_eq(decode_with_extensions(half, half), HTTP1_CHUNK_TRAILER);
    ck_assert_int_eq(decode_with_extensions(half, half + 1), HTTP1_CHUNK_BAD);
    ck_assert_int_eq(decode_with_extensions(HTTP1_CHUNK_EXT_MAX, 0), HTTP1_CHUNK_TRAILER);
    ck_assert_int_eq(decode_with_extensions(HTTP1_CHUNK_EXT_MAX, 1), HTTP1_CHUNK_BAD);
    ck_assert_int_eq(decode_with_extensions(HTTP1_CHUNK_EXT_MAX + 1, 0), HTTP1_CHUNK_BAD);
}
END_TEST

static const struct {
    uint64_t size;
    const char *line;
} size_lines[] = {
    {0, "0\r\n"},   {9, "9\r\n"},           {10, "a\r\n"},
    {16, "10\r\n"}, {0x1fffe, "1fffe\r\n"}, {UINT64_MAX, "ffffffffffffffff\r\n"},
};

START_TEST(sizes_are_written_in_hex)
{
    char buf[20];
    size_t len = http1_write_chunk_size(size_lines[_i].size, buf);
    ck_assert(slice_eq(slice_of(buf, len), slice_from_str(size_lines[_i].line)));
}
END_TEST

Suite *
http1_chunked_suite(void)
{
    Suite *s = suite_create("http1_chunked");
    TCase *tc = tcase_create("chunked");
    tcase_add_loop_test(tc, body_is_the_same_in_all_pieces, 0, COUNT(good_bodies));
    tcase_add_loop_test(tc, prefix_of_a_body_wants_more, 0, COUNT(good_bodies));
    tcase_add_loop_test(tc, bad_body_is_refused_in_all_pieces, 0, COUNT(bad_bodies));
    tcase_add_test(tc, bad_body_stays_bad);
    tcase_add_test(tc, trailer_section_is_left_alone);
    tcase_add_test(tc, largest_size_has_63_bits);
    tcase_add_test(tc, extensions_are_bounded_over_the_body);
    tcase_add_loop_test(tc, sizes_are_written_in_hex, 0, COUNT(size_lines));
    suite_add_tcase(s, tc);
    return s;
}
