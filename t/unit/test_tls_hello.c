/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tls_hello.c - the server name of a ClientHello, however it is cut.
 */
#include "shared/tls_hello.h"

#include <openssl/ssl.h>

#include "t/unit/suites.h"

#define ROOM 20000

/* What is built up: a ClientHello from its parts, each of which a test may spoil. */
struct text {
    size_t len;
    char bytes[ROOM];
};

static void
put(struct text *t, const void *bytes, size_t len)
{
    ck_assert_uint_le(t->len + len, ROOM);
    memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
}

static void
put_number(struct text *t, size_t number, unsigned width)
{
    for (unsigned i = width; i > 0; i--) {
        char byte = (char)(number >> (8 * (i - 1)));
        put(t, &byte, 1);
    }
}

static void
put_counted(struct text *t, const struct text *inner, unsigned width)
{
    put_number(t, inner->len, width);
    put(t, inner->bytes, inner->len);
}

/* An extension server_name with these names, all of that type. */
static void
put_names(struct text *t, unsigned type, const char *one, const char *two)
{
    struct text list = {0}, extension = {0}, name = {0};
    put(&name, one, strlen(one));
    put_number(&list, type, 1);
    put_counted(&list, &name, 2);
    if (two) {
        put_number(&list, type, 1);
        put_number(&list, strlen(two), 2);
        put(&list, two, strlen(two));
    }
    put_counted(&extension, &list, 2);
    put_number(t, 0, 2);
    put_counted(t, &extension, 2);
}

/* The message around the extensions; NULL: it has none. */
static void
make_message(struct text *t, const struct text *extensions)
{
    struct text body = {0};
    put_number(&body, 0x0303, 2);
    for (unsigned i = 0; i < 32; i++) {
        put_number(&body, i, 1);
    }
    put_number(&body, 0, 1);
    put_number(&body, 2, 2);
    put_number(&body, 0x1301, 2);
    put_number(&body, 0x0100, 2);
    if (extensions) {
        put_counted(&body, extensions, 2);
    }
    t->len = 0;
    put_number(t, 1, 1);
    put_counted(t, &body, 3);
}

/* In records of at most so many bytes. */
static void
make_records(struct text *t, const struct text *message, size_t most)
{
    t->len = 0;
    for (size_t at = 0; at < message->len; at += most) {
        size_t len = message->len - at < most ? message->len - at : most;
        put_number(t, 0x160301, 3);
        put_number(t, len, 2);
        put(t, message->bytes + at, len);
    }
}

static enum tls_hello_verdict
parse(const struct text *t, size_t len, struct tls_hello *told)
{
    const char *why = NULL;
    enum tls_hello_verdict verdict = tls_hello_parse(slice_of(t->bytes, len), told, &why);
    ck_assert_ptr_nonnull(why);
    ck_assert_int_eq(verdict == TLS_HELLO_BAD, why[0] != '\0');
    return verdict;
}

/* Found whatever is behind it, and nothing is found before its end. */
static void
expect_name(const struct text *t, const char *name)
{
    struct tls_hello told;
    struct text more = *t;
    for (size_t i = 0; i < t->len; i++) {
        ck_assert_msg(parse(t, i, &told) == TLS_HELLO_MORE, "a verdict after %zu bytes", i);
    }
    put(&more, "\x14\x03\x03\x00\x01\x01", 6);
    for (size_t len = t->len; len <= more.len; len += 6) {
        ck_assert_int_eq(parse(&more, len, &told), TLS_HELLO_WHOLE);
        ck_assert_uint_eq(told.name_len, strlen(name));
        ck_assert_mem_eq(told.name, name, told.name_len);
    }
}

static void
expect_bad(const struct text *t)
{
    struct tls_hello told;
    ck_assert_int_eq(parse(t, t->len, &told), TLS_HELLO_BAD);
}

static void
expect_bad_extensions(const struct text *extensions)
{
    struct text message, records;
    make_message(&message, extensions);
    make_records(&records, &message, 16384);
    expect_bad(&records);
}

START_TEST(name_is_found_in_records_of_any_size)
{
    struct text extensions = {0}, message, records;
    put(&extensions, "\x0a\x0a\x00\x00", 4); /* GREASE */
    put_names(&extensions, 0, "Www.example-1.TEST", NULL);
    put(&extensions, "\x00\x17\x00\x00", 4);
    make_message(&message, &extensions);
    for (size_t most = 1; most <= message.len; most++) {
        make_records(&records, &message, most);
        expect_name(&records, "Www.example-1.TEST");
    }
}
END_TEST

START_TEST(hello_without_a_name_is_whole)
{
    struct text message, records, extensions = {0};
    make_message(&message, NULL);
    make_records(&records, &message, 16384);
    expect_name(&records, "");
    put(&extensions, "\x00\x17\x00\x00", 4);
    make_message(&message, &extensions);
    make_records(&records, &message, 7);
    expect_name(&records, "");
}
END_TEST

/* What OpenSSL sends, in all versions. */
START_TEST(hello_of_openssl_is_read)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(ctx, versions[_i]);
    SSL *ssl = SSL_new(ctx);
    BIO *out = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), out);
    ck_assert_int_eq(SSL_set_tlsext_host_name(ssl, "openssl.test"), 1);
    ck_assert_int_lt(SSL_connect(ssl), 1);
    char *bytes;
    long len = BIO_get_mem_data(out, &bytes);
    struct text t = {0};
    put(&t, bytes, (size_t)len);
    expect_name(&t, "openssl.test");
    SSL_free(ssl);
    SSL_CTX_free(ctx);
}
END_TEST

START_TEST(other_protocols_are_told_by_their_first_bytes)
{
    static const char *const texts[] = {"GET / HTTP/1.1\r\n", "\x80\x2e\x01\x03\x01", "\x16\x02",
                                        "\x17\x03\x03"};
    struct text t = {0};
    struct tls_hello told;
    put(&t, texts[_i], strlen(texts[_i]));
    ck_assert_int_eq(parse(&t, t.len, &told), TLS_HELLO_OTHER);
    ck_assert_int_eq(parse(&t, 0, &told), TLS_HELLO_MORE);
}
END_TEST

START_TEST(names_that_are_none_are_refused)
{
    static const char *const names[] = {"",          ".a",  "a..b", "a b", "a/b",
                                        "a\xc3\xa4", "a\r", "a:1",  "*.a"};
    struct text extensions = {0};
    put_names(&extensions, 0, names[_i], NULL);
    expect_bad_extensions(&extensions);
}
END_TEST

START_TEST(lists_that_are_ambiguous_are_refused)
{
    struct text extensions = {0};
    put_names(&extensions, 0, "a.test", "b.test");
    expect_bad_extensions(&extensions);
    extensions.len = 0;
    put_names(&extensions, 0, "a.test", NULL);
    put_names(&extensions, 0, "a.test", NULL);
    expect_bad_extensions(&extensions);
    extensions.len = 0;
    put_names(&extensions, 1, "a.test", NULL);
    expect_bad_extensions(&extensions);
    extensions.len = 0;
    put(&extensions, "\0\0\0\2\0\0", 6); /* an empty list */
    expect_bad_extensions(&extensions);
    extensions.len = 0;
    put(&extensions, "\0\0\0\0", 4); /* none at all, as servers answer */
    expect_bad_extensions(&extensions);
}
END_TEST

/* A length that is one off does not fit what is in it, or what it is in. */
START_TEST(lengths_that_do_not_fit_are_refused)
{
    struct text extensions = {0}, message, records;
    struct tls_hello told;
    put_names(&extensions, 0, "a.test", NULL);
    make_message(&message, &extensions);
    /* session id, ciphers, compression, extensions, extension, list, name */
    static const size_t lengths[] = {38, 40, 43, 46, 50, 52, 55};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        for (int off = -1; off <= 1; off += 2) {
            struct text bad = message;
            bad.bytes[lengths[i]] = (char)(bad.bytes[lengths[i]] + off);
            make_records(&records, &bad, 16384);
            ck_assert_msg(parse(&records, records.len, &told) == TLS_HELLO_BAD, "length at %zu %+d",
                          lengths[i], off);
        }
    }
}
END_TEST

START_TEST(records_that_carry_something_else_are_refused)
{
    struct text message, records, extensions = {0};
    struct tls_hello told;
    put_names(&extensions, 0, "a.test", NULL);
    make_message(&message, &extensions);
    make_records(&records, &message, 20);
    records.bytes[25] = 23; /* the second record */
    expect_bad(&records);
    records.bytes[25] = 22;
    records.bytes[29] = 0; /* and it is empty */
    expect_bad(&records);
    make_records(&records, &message, 16384);
    records.bytes[4]++; /* the record goes on behind the message */
    ck_assert_int_eq(parse(&records, records.len, &told), TLS_HELLO_BAD);
    make_records(&records, &message, 16384);
    records.bytes[5] = 2; /* a ServerHello */
    expect_bad(&records);
    ck_assert_int_eq(parse(&records, 6, &told), TLS_HELLO_BAD);
}
END_TEST

START_TEST(hello_that_is_too_long_is_refused)
{
    struct text t = {0};
    struct tls_hello told;
    put(&t, "\x16\x03\x01\x40\x00\x01\x00\x40\x00", 9);
    expect_bad(&t); /* it says so */
    t.len = 0;
    for (unsigned i = 0; i < TLS_HELLO_MAX / 6 + 1; i++) { /* headers alone make it so */
        put(&t, "\x16\x03\x01\x00\x01", 5);
        put(&t, i == 0 ? "\x01" : i == 2 ? "\x20" : "\x00", 1);
    }
    ck_assert_int_eq(parse(&t, TLS_HELLO_MAX, &told), TLS_HELLO_MORE);
    expect_bad(&t);
}
END_TEST

Suite *
tls_hello_suite(void)
{
    Suite *suite = suite_create("tls_hello");
    TCase *tc = tcase_create("tls_hello");
    tcase_add_test(tc, name_is_found_in_records_of_any_size);
    tcase_add_test(tc, hello_without_a_name_is_whole);
    tcase_add_loop_test(tc, hello_of_openssl_is_read, 0, 2);
    tcase_add_loop_test(tc, other_protocols_are_told_by_their_first_bytes, 0, 4);
    tcase_add_loop_test(tc, names_that_are_none_are_refused, 0, 9);
    tcase_add_test(tc, lists_that_are_ambiguous_are_refused);
    tcase_add_test(tc, lengths_that_do_not_fit_are_refused);
    tcase_add_test(tc, records_that_carry_something_else_are_refused);
    tcase_add_test(tc, hello_that_is_too_long_is_refused);
    suite_add_tcase(suite, tc);
    return suite;
}
