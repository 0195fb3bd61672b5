/* SPDX-License-Identifier: Apache-2.0
 *
 * test_addr.c - addresses and networks from text and back.
 */
#include <arpa/inet.h>

#include "shared/addr.h"
#include "t/unit/suites.h"

static struct slice
str(const char *text)
{
    return slice_from_str(text);
}

static void
expect_same_text(const char *text, const char *canonical, enum addr_kind kind)
{
    struct addr_spec spec;
    const char *why = "";
    char out[ADDR_TEXT_MAX];
    ck_assert_msg(addr_parse(str(text), true, &spec, &why) == 0, "%s: %s", text, why);
    ck_assert_int_eq(spec.kind, kind);
    size_t n = addr_format(&spec.addr, out);
    ck_assert_str_eq(out, canonical);
    ck_assert_uint_eq(n, strlen(canonical));
}

START_TEST(parse_gives_canonical_text)
{
    expect_same_text("127.0.0.1:80", "127.0.0.1:80", ADDR_IP);
    expect_same_text("[::1]:8443", "[::1]:8443", ADDR_IP);
    expect_same_text("[2001:DB8:0:0::1]:1", "[2001:db8::1]:1", ADDR_IP);
    expect_same_text("[::ffff:10.0.0.1]:65535", "10.0.0.1:65535", ADDR_IP);
    expect_same_text(":80", ":80", ADDR_ANY);
    expect_same_text("0.0.0.0:1902", "0.0.0.0:1902", ADDR_IP);
    expect_same_text("unix:/run/a b.sock", "unix:/run/a b.sock", ADDR_UNIX);
}
END_TEST

START_TEST(parse_keeps_a_name_for_later)
{
    struct addr_spec spec;
    const char *why;
    const char *text = "web-1.example_x.org:8081";
    ck_assert_int_eq(addr_parse(str(text), false, &spec, &why), 0);
    ck_assert_int_eq(spec.kind, ADDR_NAME);
    ck_assert(spec.host.ptr == text);
    ck_assert(slice_eq(spec.host, SLICE("web-1.example_x.org")));
    ck_assert_uint_eq(spec.port, 8081);
}
END_TEST

START_TEST(srv_is_a_name_without_port_for_backends)
{
    static const char *const bad[] = {"srv:_http",       "srv:_http._tcp",    "srv:_http._tcp.",
                                      "srv:_http.tcp.x", "srv:_http._tcp..x", "srv:_http._tcp.x:80",
                                      "srv:_",           "srv:_http._tcp.x y"};
    struct addr_spec spec;
    const char *why;
    const char *text = "srv:_http._tcp.example.org";
    ck_assert_int_eq(addr_parse(str(text), false, &spec, &why), 0);
    ck_assert_int_eq(spec.kind, ADDR_SRV);
    ck_assert(slice_eq(spec.host, SLICE("_http._tcp.example.org")));
    ck_assert_int_eq(addr_parse(str(text), true, &spec, &why), -1);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(addr_parse(str(bad[i]), false, &spec, &why) == -1, "taken: %s", bad[i]);
    }
    ck_assert_int_eq(addr_parse(str("srv:80"), false, &spec, &why), 0); /* a host of that name */
    ck_assert_int_eq(spec.kind, ADDR_NAME);
}
END_TEST

static const char *const bad_addresses[] = {
    "",           "127.0.0.1",       "127.0.0.1:",     "127.0.0.1:0",   "127.0.0.1:65536",
    "1.2.3.4:+1", "1.2.3.4:80 ",     "1.2.3.4:000080", "10.0.0.256:80", "10.0.0:80",
    "::1:80",     "[::1]",           "[::1",           "[]:80",         "[127.0.0.1]:80",
    "[::1]x:80",  "[fe80::1%lo]:80", "a..b:80",        ".a:80",         "a b:80",
    "unix:",      "unix:relative",   "]:80",           "[:80",          "*:80",
};

START_TEST(parse_refuses_with_a_reason)
{
    for (size_t i = 0; i < sizeof(bad_addresses) / sizeof(bad_addresses[0]); i++) {
        struct addr_spec spec;
        const char *why = NULL;
        ck_assert_msg(addr_parse(str(bad_addresses[i]), true, &spec, &why) == -1, "%s",
                      bad_addresses[i]);
        ck_assert_msg(why && strlen(why) > 10, "%s", bad_addresses[i]);
    }
}
END_TEST

START_TEST(parse_refuses_any_where_a_host_is_needed)
{
    struct addr_spec spec;
    const char *why;
    ck_assert_int_eq(addr_parse(str(":80"), false, &spec, &why), -1);
}
END_TEST

START_TEST(parse_refuses_text_with_nul)
{
    struct addr_spec spec;
    const char *why;
    ck_assert_int_eq(addr_parse(slice_of("unix:/a\0b", 9), true, &spec, &why), -1);
    ck_assert_int_eq(addr_parse(slice_of("1.2.3.4\0:80", 11), true, &spec, &why), -1);
}
END_TEST

START_TEST(unix_path_fits_or_is_refused)
{
    char text[160] = "unix:/";
    struct addr_spec spec;
    const char *why;
    char out[ADDR_TEXT_MAX];
    memset(text + 6, 'x', 106);
    ck_assert_int_eq(addr_parse(str(text), true, &spec, &why), 0);
    addr_format(&spec.addr, out);
    ck_assert_str_eq(out, text);
    strcat(text, "x");
    ck_assert_int_eq(addr_parse(str(text), true, &spec, &why), -1);
}
END_TEST

START_TEST(name_has_limits)
{
    char text[300];
    struct addr_spec spec;
    const char *why;
    memset(text, 'a', 63);
    strcpy(text + 63, ":80");
    ck_assert_int_eq(addr_parse(str(text), true, &spec, &why), 0);
    strcpy(text + 63, "a:80");
    ck_assert_int_eq(addr_parse(str(text), true, &spec, &why), -1);
    for (int i = 0; i < 254; i++) {
        text[i] = i % 2 ? '.' : 'a';
    }
    strcpy(text + 253, ":80");
    ck_assert_int_eq(addr_parse(str(text), true, &spec, &why), 0);
    strcpy(text + 253, ".aa:80");
    ck_assert_int_eq(addr_parse(str(text), true, &spec, &why), -1);
}
END_TEST

START_TEST(mapped_ipv4_from_the_kernel_is_ipv4)
{
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(77)};
    struct addr_ip ip;
    char out[ADDR_TEXT_MAX];
    inet_pton(AF_INET6, "::ffff:192.0.2.9", &in6.sin6_addr);
    addr_ip_from_sockaddr((struct sockaddr *)&in6, sizeof(in6), &ip);
    ck_assert_int_eq(ip.family, AF_INET);
    ck_assert_uint_eq(ip.port, 77);
    addr_ip_format(&ip, out);
    ck_assert_str_eq(out, "192.0.2.9");

    struct addr a = {.len = sizeof(in6), .in6 = in6};
    addr_unmap(&a);
    ck_assert_uint_eq(a.len, sizeof(struct sockaddr_in));
    addr_format(&a, out);
    ck_assert_str_eq(out, "192.0.2.9:77");
}
END_TEST

START_TEST(unix_peer_has_only_a_family)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct addr_ip ip, none = {.family = AF_UNIX};
    char out[ADDR_TEXT_MAX];
    addr_ip_from_sockaddr((struct sockaddr *)&un, sizeof(sa_family_t), &ip);
    ck_assert_mem_eq(&ip, &none, sizeof(ip));
    ck_assert_uint_eq(addr_ip_format(&ip, out), 5);
    ck_assert_str_eq(out, "unix:");
}
END_TEST

START_TEST(ip_parse_takes_bare_addresses_only)
{
    struct addr_ip ip;
    ck_assert_int_eq(addr_ip_parse(str("::ffff:1.2.3.4"), &ip), 0);
    ck_assert_int_eq(ip.family, AF_INET);
    ck_assert_int_eq(addr_ip_parse(str("::"), &ip), 0);
    ck_assert_int_eq(addr_ip_parse(str("[::1]"), &ip), -1);
    ck_assert_int_eq(addr_ip_parse(str("1.2.3.4:80"), &ip), -1);
    ck_assert_int_eq(addr_ip_parse(str("01.2.3.4"), &ip), -1);
    ck_assert_int_eq(addr_ip_parse(str(""), &ip), -1);
}
END_TEST

static bool
is_within(const char *net_text, const char *ip_text)
{
    struct cidr net;
    struct addr_ip ip;
    ck_assert_msg(cidr_parse(str(net_text), &net) == 0, "%s", net_text);
    ck_assert_msg(addr_ip_parse(str(ip_text), &ip) == 0, "%s", ip_text);
    return cidr_contains(&net, &ip);
}

START_TEST(cidr_contains_its_addresses_and_no_others)
{
    ck_assert(is_within("10.0.0.0/8", "10.255.255.255"));
    ck_assert(!is_within("10.0.0.0/8", "11.0.0.0"));
    ck_assert(is_within("192.0.2.128/25", "192.0.2.200"));
    ck_assert(!is_within("192.0.2.128/25", "192.0.2.127"));
    ck_assert(is_within("10.0.0.1", "10.0.0.1"));
    ck_assert(!is_within("10.0.0.1", "10.0.0.2"));
    ck_assert(is_within("0.0.0.0/0", "8.8.8.8"));
    ck_assert(!is_within("0.0.0.0/0", "::1"));
    ck_assert(!is_within("::/0", "8.8.8.8"));
    ck_assert(is_within("2001:db8::/33", "2001:db8:7fff::1"));
    ck_assert(!is_within("2001:db8::/33", "2001:db8:8000::1"));
    ck_assert(is_within("::1/128", "::1"));
    ck_assert(is_within("::ffff:10.0.0.0/104", "10.1.2.3"));
    ck_assert(!is_within("::ffff:10.0.0.0/104", "12.1.2.3"));
}
END_TEST

static const char *const bad_networks[] = {
    "",
    "10.0.0.0/",
    "10.0.0.0/33",
    "10.0.0.0/08",
    "10.0.0.0/-1",
    "10.0.0.1/8",
    "/8",
    "::1/129",
    "::1/127",
    "10.0.0.0/8/8",
    "10.0.0.0/ 8",
    "name/8",
    "::ffff:0/95",
    "[::1]/128",
    "10.0.0.0/0008",
};

START_TEST(cidr_refuses_what_is_not_a_network)
{
    for (size_t i = 0; i < sizeof(bad_networks) / sizeof(bad_networks[0]); i++) {
        struct cidr net;
        ck_assert_msg(cidr_parse(str(bad_networks[i]), &net) == -1, "%s", bad_networks[i]);
    }
}
END_TEST

static bool
is_same(const char *a_text, const char *b_text)
{
    struct addr_spec a, b;
    const char *why;
    ck_assert_int_eq(addr_parse(str(a_text), true, &a, &why), 0);
    ck_assert_int_eq(addr_parse(str(b_text), true, &b, &why), 0);
    return addr_eq(&a.addr, &b.addr);
}

START_TEST(eq_compares_what_is_bound)
{
    ck_assert(is_same("1.2.3.4:80", "[::ffff:1.2.3.4]:80"));
    ck_assert(!is_same("1.2.3.4:80", "1.2.3.4:81"));
    ck_assert(!is_same("1.2.3.4:80", "1.2.3.5:80"));
    ck_assert(is_same("[::1]:80", "[0::1]:80"));
    ck_assert(!is_same("[::1]:80", "[::2]:80"));
    ck_assert(is_same("unix:/a", "unix:/a"));
    ck_assert(!is_same("unix:/a", "unix:/ab"));
    ck_assert(!is_same("unix:/a", "1.2.3.4:80"));
}
END_TEST

Suite *
addr_suite(void)
{
    Suite *suite = suite_create("addr");
    TCase *tc = tcase_create("addr");
    tcase_add_test(tc, parse_gives_canonical_text);
    tcase_add_test(tc, parse_keeps_a_name_for_later);
    tcase_add_test(tc, srv_is_a_name_without_port_for_backends);
    tcase_add_test(tc, parse_refuses_with_a_reason);
    tcase_add_test(tc, parse_refuses_any_where_a_host_is_needed);
    tcase_add_test(tc, parse_refuses_text_with_nul);
    tcase_add_test(tc, unix_path_fits_or_is_refused);
    tcase_add_test(tc, name_has_limits);
    tcase_add_test(tc, mapped_ipv4_from_the_kernel_is_ipv4);
    tcase_add_test(tc, unix_peer_has_only_a_family);
    tcase_add_test(tc, ip_parse_takes_bare_addresses_only);
    tcase_add_test(tc, cidr_contains_its_addresses_and_no_others);
    tcase_add_test(tc, cidr_refuses_what_is_not_a_network);
    tcase_add_test(tc, eq_compares_what_is_bound);
    suite_add_tcase(suite, tc);
    return suite;
}
