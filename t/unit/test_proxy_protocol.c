/* SPDX-License-Identifier: Apache-2.0
 *
 * test_proxy_protocol.c - headers of the PROXY protocol, read and written.
 */
#include "shared/proxy_protocol.h"
#include "t/unit/suites.h"

#define SIGNATURE         "\r\n\r\n\0\r\nQUIT\n"
#define V2(head_and_body) SLICE(SIGNATURE head_and_body)
#define IPV4S             "\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb"

static int
parse(struct slice bytes, struct proxy_told *told)
{
    const char *why = NULL;
    int n = proxy_parse(bytes, told, &why);
    ck_assert_ptr_nonnull(why);
    return n;
}

static void
expect_ip(const struct addr_ip *ip, const char *text, unsigned port)
{
    char buf[ADDR_TEXT_MAX];
    addr_ip_format(ip, buf);
    ck_assert_str_eq(buf, text);
    ck_assert_uint_eq(ip->port, port);
}

/* The header is found whatever is behind it, and nothing is found before its end. */
static struct proxy_told
expect_header(struct slice header)
{
    char bytes[512];
    struct proxy_told told;
    ck_assert_uint_lt(header.len, sizeof(bytes) - 4);
    memcpy(bytes, header.ptr, header.len);
    memcpy(bytes + header.len, "GET ", 4);
    for (size_t i = 0; i < header.len; i++) {
        ck_assert_msg(parse(slice_of(bytes, i), &told) == 0, "whole after %zu bytes", i);
    }
    ck_assert_int_eq(parse(slice_of(bytes, header.len + 4), &told), (int)header.len);
    ck_assert_int_eq(parse(header, &told), (int)header.len);
    return told;
}

START_TEST(version_1_tells_ipv4)
{
    struct proxy_told told = expect_header(SLICE("PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"));
    ck_assert(told.has_addresses);
    expect_ip(&told.from, "192.0.2.7", 4711);
    expect_ip(&told.to, "198.51.100.1", 443);
}
END_TEST

START_TEST(version_1_tells_ipv6_and_maps_what_is_ipv4)
{
    struct proxy_told told =
        expect_header(SLICE("PROXY TCP6 ::ffff:192.0.2.7 2001:DB8::1 65535 0\r\n"));
    expect_ip(&told.from, "192.0.2.7", 65535);
    expect_ip(&told.to, "2001:db8::1", 0);
}
END_TEST

START_TEST(version_1_unknown_tells_nothing)
{
    ck_assert(!expect_header(SLICE("PROXY UNKNOWN\r\n")).has_addresses);
    ck_assert(!expect_header(SLICE("PROXY UNKNOWN who knows 1 2\r\n")).has_addresses);
}
END_TEST

START_TEST(version_1_may_be_107_bytes_long_and_not_more)
{
    char line[PROXY_V1_MAX + 1];
    struct proxy_told told;
    memset(line, 'x', sizeof(line));
    memcpy(line, "PROXY UNKNOWN ", 14);
    memcpy(line + PROXY_V1_MAX - 2, "\r\n", 2);
    ck_assert_int_eq(parse(slice_of(line, PROXY_V1_MAX), &told), PROXY_V1_MAX);
    memcpy(line + PROXY_V1_MAX - 2, "x\r\n", 3);
    ck_assert_int_eq(parse(slice_of(line, PROXY_V1_MAX - 1), &told), 0);
    ck_assert_int_eq(parse(slice_of(line, PROXY_V1_MAX), &told), -1);
    ck_assert_int_eq(parse(slice_of(line, PROXY_V1_MAX + 1), &told), -1);
}
END_TEST

static const char *const bad_lines[] = {
    "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n",
    "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 \r\n",
    "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 1\r\n",
    "PROXY TCP4  192.0.2.7 198.51.100.1 4711 443\r\n",
    "PROXY TCP4 192.0.2.7 198.51.100.1 4711  443\r\n",
    "PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
    "PROXY TCP4 192.0.2.7 198.51.100.1 4711 \r\n",
    "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
    "PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n",
    "PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
    "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\rx\r\n",
    "PROXY TCP4 192.0.2.007 198.51.100.1 4711 443\r\n",
    "PROXY TCP4 2001:db8::1 2001:db8::2 4711 443\r\n",
    "PROXY TCP6 192.0.2.7 198.51.100.1 4711 443\r\n",
    "PROXY TCP6 fe80::1%lo ::1 4711 443\r\n",
    "PROXY UDP4 192.0.2.7 198.51.100.1 4711 443\r\n",
    "PROXY UNKNOWNX\r\n",
    "PROXY \r\n",
    "PROXY\r\n",
    "PROXY TCP4\r\n",
    "proxy TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
    "GET / HTTP/1.1\r\n",
    "\r\n\r\n\r\n",
};

START_TEST(malformed_line_is_refused)
{
    struct proxy_told told;
    ck_assert_msg(parse(slice_from_str(bad_lines[_i]), &told) == -1, "%s", bad_lines[_i]);
}
END_TEST

START_TEST(version_2_tells_ipv4)
{
    struct proxy_told told = expect_header(V2("\x21\x11\x00\x0c" IPV4S));
    ck_assert(told.has_addresses);
    expect_ip(&told.from, "192.0.2.7", 4711);
    expect_ip(&told.to, "198.51.100.1", 443);
}
END_TEST

START_TEST(version_2_tells_ipv6)
{
    struct proxy_told told = expect_header(
        V2("\x21\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\xff\xff"
           "\xc6\x33\x64\x01\x12\x67\x01\xbb"));
    expect_ip(&told.from, "2001:db8::7", 4711);
    expect_ip(&told.to, "198.51.100.1", 443);
}
END_TEST

START_TEST(version_2_local_tells_nothing_and_is_skipped_whole)
{
    ck_assert(!expect_header(V2("\x20\x00\x00\x00")).has_addresses);
    ck_assert(!expect_header(V2("\x20\x11\x00\x03xyz")).has_addresses);
    ck_assert(!expect_header(V2("\x21\x00\x00\x05\x04\x00\x02xy")).has_addresses);
}
END_TEST

START_TEST(version_2_of_a_unix_socket_tells_that)
{
    char header[16 + 216] = SIGNATURE "\x21\x31\x00\xd8/a";
    struct proxy_told told = expect_header(slice_of(header, sizeof(header)));
    ck_assert(told.has_addresses);
    ck_assert_uint_eq(told.from.family, AF_UNIX);
}
END_TEST

START_TEST(version_2_skips_what_it_does_not_know_and_checks_the_checksum)
{
    expect_header(V2("\x21\x11\x00\x12" IPV4S "\x04\x00\x03xyz"));
    expect_header(V2("\x21\x11\x00\x1c" IPV4S "\x02\x00\x06"
                     "a.test\x03\x00\x04"
                     "\x25\xf3\xd8\x5c"));
}
END_TEST

static const struct {
    const char *why;
    struct slice bytes;
} bad_headers[] = {
    {"version 1 in it", V2("\x11\x11\x00\x0c" IPV4S)},
    {"unknown command", V2("\x22\x11\x00\x0c" IPV4S)},
    {"datagrams", V2("\x21\x12\x00\x0c" IPV4S)},
    {"unknown family", V2("\x21\x41\x00\x0c" IPV4S)},
    {"no transport", V2("\x21\x10\x00\x0c" IPV4S)},
    {"addresses cut", V2("\x21\x11\x00\x0b" IPV4S)},
    {"tlv cut", V2("\x21\x11\x00\x0e" IPV4S "\x04\x00")},
    {"tlv beyond the end", V2("\x21\x11\x00\x10" IPV4S "\x04\x00\x02x")},
    {"checksum of another length", V2("\x21\x11\x00\x11" IPV4S "\x03\x00\x02xy")},
    {"checksum wrong", V2("\x21\x11\x00\x13" IPV4S "\x03\x00\x04xyzw")},
    {"too long", V2("\x21\x11\x10\x01")},
    {"another signature", SLICE("\r\n\r\n\0\r\nQUIX")},
};

START_TEST(malformed_header_is_refused)
{
    struct proxy_told told;
    ck_assert_msg(parse(bad_headers[_i].bytes, &told) == -1, "%s", bad_headers[_i].why);
}
END_TEST

START_TEST(version_2_may_be_as_long_as_is_said)
{
    static char header[PROXY_HEADER_MAX] = SIGNATURE "\x20\x00\x10";
    struct proxy_told told;
    ck_assert_int_eq(parse(slice_of(header, sizeof(header) - 1), &told), 0);
    ck_assert_int_eq(parse(slice_of(header, sizeof(header)), &told), PROXY_HEADER_MAX);
}
END_TEST

/* ---- writing ---- */

static struct proxy_said
said_of(const char *from, const char *to)
{
    struct proxy_said said = {0};
    ck_assert_int_eq(addr_ip_parse(slice_from_str(from), &said.from), 0);
    ck_assert_int_eq(addr_ip_parse(slice_from_str(to), &said.to), 0);
    said.from.port = 4711;
    said.to.port = 443;
    return said;
}

static void
expect_v1(const struct proxy_said *said, const char *line)
{
    char out[PROXY_V1_WRITTEN_MAX];
    size_t len = proxy_write_v1(said, out);
    ck_assert_str_eq(out, line);
    ck_assert_uint_eq(len, strlen(line));
}

START_TEST(version_1_is_written)
{
    struct proxy_said v4 = said_of("192.0.2.7", "198.51.100.1");
    struct proxy_said v6 = said_of("2001:db8::7", "2001:db8::1");
    struct proxy_said both = said_of("192.0.2.7", "2001:db8::1");
    struct proxy_said local = {.from.family = AF_UNIX, .to.family = AF_UNIX};
    expect_v1(&v4, "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n");
    expect_v1(&v6, "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n");
    expect_v1(&both, "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 4711 443\r\n");
    expect_v1(&local, "PROXY UNKNOWN\r\n");
    expect_v1(NULL, "PROXY UNKNOWN\r\n");
}
END_TEST

START_TEST(version_2_is_written_with_all_that_is_known)
{
    struct proxy_said said = said_of("192.0.2.7", "198.51.100.1");
    char out[PROXY_V2_WRITTEN_MAX];
    said.alpn = SLICE("h2");
    said.authority = SLICE("a.test");
    said.unique_id = SLICE("id-1");
    said.tls_version = SLICE("TLSv1.3");
    struct slice want = V2("\x21\x11\x00\x3a" IPV4S "\x01\x00\x02h2\x02\x00\x06"
                           "a.test\x05\x00\x04id-1\x20\x00\x0f\x01\x00\x00\x00\x01\x21\x00\x07"
                           "TLSv1.3\x03\x00\x04"
                           "\xeb\xee\x9a\xcb");
    size_t len = proxy_write_v2(&said, out);
    ck_assert_uint_eq(len, want.len);
    ck_assert_mem_eq(out, want.ptr, want.len);
    expect_header(slice_of(out, len));
}
END_TEST

/* The value of PP2_TYPE_SSL, which is the first of its TLVs here. */
static const char *
written_ssl(bool has_cert, bool is_verified, bool is_resumed)
{
    static char out[PROXY_V2_WRITTEN_MAX];
    struct proxy_said said = said_of("192.0.2.7", "198.51.100.1");
    said.tls_version = SLICE("TLSv1.2");
    said.has_cert = has_cert;
    said.is_verified = is_verified;
    said.is_resumed = is_resumed;
    proxy_write_v2(&said, out);
    ck_assert_int_eq(out[28], 0x20);
    return out + 31;
}

START_TEST(version_2_says_whether_a_certificate_was_good)
{
    ck_assert_mem_eq(written_ssl(false, true, false), "\x01\x00\x00\x00\x01", 5);
    ck_assert_mem_eq(written_ssl(true, true, false), "\x07\x00\x00\x00\x00", 5);
    ck_assert_mem_eq(written_ssl(true, true, true), "\x05\x00\x00\x00\x00", 5);
    ck_assert_mem_eq(written_ssl(true, false, false), "\x07\x00\x00\x00\x01", 5);
}
END_TEST

START_TEST(version_2_local_is_written_for_ourselves)
{
    char out[PROXY_V2_WRITTEN_MAX];
    ck_assert_uint_eq(proxy_write_v2(NULL, out), 16);
    ck_assert_mem_eq(out, SIGNATURE "\x20\x00\x00\x00", 16);
}
END_TEST

START_TEST(version_2_fits_whatever_is_said)
{
    static char text[300];
    char out[PROXY_V2_WRITTEN_MAX];
    struct proxy_said said = said_of("2001:db8::7", "2001:db8::1");
    memset(text, 'x', sizeof(text));
    said.alpn = said.authority = said.unique_id = said.tls_version = slice_of(text, 255);
    size_t len = proxy_write_v2(&said, out);
    ck_assert_uint_lt(len, sizeof(out) + 1);
    said.authority = slice_of(text, 256);
    ck_assert_uint_eq(proxy_write_v2(&said, out), len - 258);
}
END_TEST

Suite *
proxy_protocol_suite(void)
{
    Suite *suite = suite_create("proxy_protocol");
    TCase *reading = tcase_create("reading");
    TCase *writing = tcase_create("writing");
    tcase_add_test(reading, version_1_tells_ipv4);
    tcase_add_test(reading, version_1_tells_ipv6_and_maps_what_is_ipv4);
    tcase_add_test(reading, version_1_unknown_tells_nothing);
    tcase_add_test(reading, version_1_may_be_107_bytes_long_and_not_more);
    tcase_add_loop_test(reading, malformed_line_is_refused, 0,
                        sizeof(bad_lines) / sizeof(bad_lines[0]));
    tcase_add_test(reading, version_2_tells_ipv4);
    tcase_add_test(reading, version_2_tells_ipv6);
    tcase_add_test(reading, version_2_local_tells_nothing_and_is_skipped_whole);
    tcase_add_test(reading, version_2_of_a_unix_socket_tells_that);
    tcase_add_test(reading, version_2_skips_what_it_does_not_know_and_checks_the_checksum);
    tcase_add_test(reading, version_2_may_be_as_long_as_is_said);
    tcase_add_loop_test(reading, malformed_header_is_refused, 0,
                        sizeof(bad_headers) / sizeof(bad_headers[0]));
    tcase_add_test(writing, version_1_is_written);
    tcase_add_test(writing, version_2_is_written_with_all_that_is_known);
    tcase_add_test(writing, version_2_says_whether_a_certificate_was_good);
    tcase_add_test(writing, version_2_local_is_written_for_ourselves);
    tcase_add_test(writing, version_2_fits_whatever_is_said);
    suite_add_tcase(suite, reading);
    suite_add_tcase(suite, writing);
    return suite;
}
