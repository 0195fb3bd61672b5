/* SPDX-License-Identifier: Apache-2.0
 *
 * test_conf_tls.c - TLS of a listener: files read, problems told where their key stands, and what
 * goes into a bundle.
 */
#include <check.h>
#include <stdlib.h>
#include <unistd.h>

#include "conf/bundle.h"
#include "t/unit/conf_fixture.h"
#include "t/unit/suites.h"
#include "t/unit/tls_peer.h"

static struct peer_cert *one, *other;
static struct conf_source source;

static int
read_pem(struct conf_source *src, const char *path, struct slice *out, char *why, size_t why_size)
{
    const struct {
        const char *path, *pem;
    } files[] = {
        {"/etc/akashd/one.crt", one->cert_pem},
        {"/etc/akashd/one.key", one->key_pem},
        {"/etc/akashd/other.key", other->key_pem},
        {"/etc/akashd/text", "text"},
    };
    (void)src;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (strcmp(files[i].path, path) == 0) {
            *out = slice_from_str(files[i].pem);
            return 0;
        }
    }
    snprintf(why, why_size, "No such file");
    return -1;
}

static void
begin(void)
{
    one = peer_cert_make(peer_key_make("EC"), "one.example", 30, NULL);
    other = peer_cert_make(peer_key_make("EC"), "other.example", 30, NULL);
    source = *fixture_source();
    source.read_file = read_pem;
}

/* The short form with what stands in it besides the backends. */
static const char *
with(const char *keys)
{
    static char text[1024];
    snprintf(text, sizeof(text), "{\"Backends\":[{\"address\":\"127.0.0.1:1\"}],\n%s}", keys);
    return text;
}

#define PAIR "\"certificates\":[{\"cert\":\"one.crt\",\"key\":\"one.key\"}]"

START_TEST(certificate_and_key_of_the_short_form_make_a_server)
{
    struct conf *conf = fixture_load_from(
        with("\"tls_cert_file\":\"one.crt\",\"tls_key_file\":\"one.key\""), &source);
    ck_assert_msg(conf != NULL, "%s", fixture_errors()->errors[0]);
    const struct conf_tls *tls = conf->listeners[0].tls;
    ck_assert_ptr_nonnull(tls->server);
    ck_assert_uint_eq(tls->ncerts, 1);
    ck_assert_uint_eq(tls->min_version, 0x0303);
    ck_assert_str_eq(tls->alpn[0], "h2");
    ck_assert_str_eq(tls->alpn[1], "http/1.1");
    ck_assert_ptr_null(tls->alpn[2]);
    ck_assert_int_eq(tls->client_auth, CONF_AUTH_OFF);
    fixture_free(conf);
}
END_TEST

START_TEST(tcp_listener_offers_only_what_is_asked)
{
    struct conf *conf = fixture_load_from(with("\"mode\":\"tcp\",\"tls\":{" PAIR "}"), &source);
    ck_assert_ptr_null(conf->listeners[0].tls->alpn[0]);
    fixture_free(conf);
    conf =
        fixture_load_from(with("\"mode\":\"tcp\",\"tls\":{" PAIR ",\"alpn\":[\"imap\"]}"), &source);
    ck_assert_str_eq(conf->listeners[0].tls->alpn[0], "imap");
    fixture_free(conf);
}
END_TEST

START_TEST(without_http2_only_http1_is_offered)
{
    struct conf *conf = fixture_load_from(with("\"http2\":false,\"tls\":{" PAIR "}"), &source);
    ck_assert_msg(conf != NULL, "%s", fixture_errors()->errors[0]);
    ck_assert(!conf->listeners[0].http2);
    ck_assert_str_eq(conf->listeners[0].tls->alpn[0], "http/1.1");
    ck_assert_ptr_null(conf->listeners[0].tls->alpn[1]);
    fixture_free(conf);
}
END_TEST

START_TEST(problems_are_told_where_their_key_stands)
{
    static const char *const cases[][2] = {
        {"\"tls_cert_file\":\"one.crt\",\"tls_key_file\":\"other.key\"", ":2:42: tls_key_file: "},
        {"\"tls_cert_file\":\"text\",\"tls_key_file\":\"one.key\"", ":2:17: tls_cert_file: "},
        {"\"tls_cert_file\":\"gone\",\"tls_key_file\":\"one.key\"",
         ":2:17: tls_cert_file: cannot read /etc/akashd/gone: No such file"},
        {"\"tls\":{" PAIR ",\"ciphers\":\"NOPE\"}", ":2:70: tls.ciphers: "},
        {"\"tls\":{" PAIR ",\"ciphersuites\":\"NOPE\"}", ":2:75: tls.ciphersuites: "},
        {"\"tls\":{" PAIR ",\"curves\":\"NOPE\"}", ":2:69: tls.curves: "},
        {"\"tls\":{" PAIR ",\"client_auth\":\"require\",\"client_ca\":\"text\"}",
         ":2:96: tls.client_ca: "},
        {"\"tls\":{" PAIR ",\"client_auth\":\"optional\"}",
         ":2:7: tls.client_ca: missing; client_auth needs it"},
        {"\"tls\":{" PAIR ",\"alpn\":[\"http/1.1\",\"h3\"]}", ":2:79: tls.alpn[1]: expected "},
        {"\"http2\":false,\"tls\":{" PAIR ",\"alpn\":[\"h2\"]}",
         ":2:82: tls.alpn[0]: expected \"http/1.1\" where http2 is false"},
        {"\"tls\":{" PAIR "},\"tls_cert_file\":\"one.crt\"", ":2:61: tls_cert_file: excluded"},
        {"\"tls\":{}", ":2:7: tls.certificates: missing"},
    };
    ck_assert_ptr_null(fixture_load_from(with(cases[_i][0]), &source));
    ck_assert_uint_eq(fixture_errors()->nerrors, 1);
    ck_assert_msg(strstr(fixture_errors()->errors[0], cases[_i][1]) != NULL, "got: %s",
                  fixture_errors()->errors[0]);
    fixture_free(NULL);
}
END_TEST
#define PROBLEMS 12

static struct conf *
through_bundle(const char *text, bool with_keys, uint64_t *hash)
{
    struct bundle_recorder *rec = bundle_recorder_new(&source);
    struct conf *conf = fixture_load_from(text, bundle_recorder_source(rec));
    struct conf_errors errors;
    ck_assert_ptr_nonnull(conf);
    *hash = conf->hash;
    int fd = bundle_seal(rec, conf->path, slice_from_str(text), conf, with_keys);
    struct conf *again = bundle_load(fd, &errors);
    ck_assert_msg(again != NULL, "%s", errors.nerrors ? errors.errors[0] : "");
    conf_errors_fini(&errors);
    close(fd);
    bundle_recorder_free(rec);
    fixture_free(conf);
    return again;
}

START_TEST(worker_builds_tls_from_the_bundle)
{
    uint64_t hash;
    struct conf *conf = through_bundle(with("\"tls\":{" PAIR "}"), true, &hash);
    ck_assert_ptr_nonnull(conf->listeners[0].tls->server);
    ck_assert_uint_eq(conf->hash, hash);
    conf_unref(conf);
}
END_TEST

START_TEST(monitor_has_the_same_conf_without_keys)
{
    uint64_t hash;
    struct conf *conf = through_bundle(with("\"tls\":{" PAIR "}"), false, &hash);
    ck_assert_ptr_nonnull(conf->listeners[0].tls);
    ck_assert_ptr_null(conf->listeners[0].tls->server);
    ck_assert_uint_eq(conf->hash, hash);
    conf_unref(conf);
}
END_TEST

START_TEST(bundle_without_keys_holds_no_key)
{
    static char bytes[65536];
    const char *text = with("\"tls\":{" PAIR "}");
    struct bundle_recorder *rec = bundle_recorder_new(&source);
    struct conf *conf = fixture_load_from(text, bundle_recorder_source(rec));
    for (int with_keys = 0; with_keys < 2; with_keys++) {
        int fd = bundle_seal(rec, conf->path, slice_from_str(text), conf, with_keys);
        ssize_t len = pread(fd, bytes, sizeof(bytes), 0);
        bool holds = memmem(bytes, (size_t)len, "PRIVATE KEY", 11) != NULL;
        ck_assert_int_eq(holds, with_keys);
        close(fd);
    }
    bundle_recorder_free(rec);
    fixture_free(conf);
}
END_TEST

START_TEST(hash_follows_the_files)
{
    const char *text = with("\"tls\":{" PAIR "}");
    struct conf *a = fixture_load_from(text, &source);
    struct peer_cert *kept = one;
    one = other;
    other = kept;
    struct conf *b = fixture_load_from(
        with("\"tls\":{\"certificates\":[{\"cert\":\"one.crt\",\"key\":\"one.key\"}]}"), &source);
    ck_assert_str_eq(a->json, b->json);
    ck_assert_uint_ne(a->hash, b->hash);
    conf_unref(b);
    fixture_free(a);
}
END_TEST

Suite *
conf_tls_suite(void)
{
    Suite *suite = suite_create("conf_tls");
    TCase *tc = tcase_create("conf_tls");
    tcase_add_checked_fixture(tc, begin, peer_free_kept);
    tcase_add_test(tc, certificate_and_key_of_the_short_form_make_a_server);
    tcase_add_test(tc, tcp_listener_offers_only_what_is_asked);
    tcase_add_test(tc, without_http2_only_http1_is_offered);
    tcase_add_loop_test(tc, problems_are_told_where_their_key_stands, 0, PROBLEMS);
    tcase_add_test(tc, worker_builds_tls_from_the_bundle);
    tcase_add_test(tc, monitor_has_the_same_conf_without_keys);
    tcase_add_test(tc, bundle_without_keys_holds_no_key);
    tcase_add_test(tc, hash_follows_the_files);
    suite_add_tcase(suite, tc);
    return suite;
}
