/* SPDX-License-Identifier: Apache-2.0
 *
 * test_conf_tls.c - TLS of listeners and of upstreams: files read, problems told where their key
 * stands, and what goes into a bundle.
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
static const char *system_pem; /* what the system trusts; NULL: it has no such file */

static int
read_pem(struct conf_source *src, const char *path, struct slice *out, char *why, size_t why_size)
{
    const struct {
        const char *path, *pem;
    } files[] = {
        {"/etc/akashd/one.crt", one->cert_pem},     {"/etc/akashd/one.key", one->key_pem},
        {"/etc/akashd/other.key", other->key_pem},  {"/etc/akashd/text", "text"},
        {"/etc/akashd/other.crt", other->cert_pem}, {"/etc/ssl/cert.pem", system_pem},
    };
    (void)src;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (strcmp(files[i].path, path) == 0 && files[i].pem) {
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
    system_pem = NULL;
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

/* ---- upstreams ---- */

/* The long form with an upstream that has these keys, on line 2. */
static const char *
upstream_with(const char *address, const char *keys)
{
    static char text[1024];
    snprintf(text, sizeof(text),
             "{\"listeners\":[{\"name\":\"web\",\"address\":\":80\",\"upstream\":\"up\"}],"
             "\"upstreams\":{\"up\":{\"backends\":[{\"address\":\"%s\"}],\n%s}}}",
             address, keys);
    return text;
}

static struct conf *
must_load(const char *text)
{
    struct conf *conf = fixture_load_from(text, &source);
    ck_assert_msg(conf != NULL, "%s", fixture_errors()->errors[0]);
    return conf;
}

static const struct {
    const char *address, *keys, *name;
} backend_names[] = {
    {"one:443", "\"tls\":{\"ca\":\"one.crt\"}", "one"},
    {"one.:443", "\"tls\":{\"verify\":false}", NULL}, /* it does not resolve: no backend */
    {"127.0.0.1:443", "\"tls\":{\"ca\":\"one.crt\"}", "127.0.0.1"},
    {"[2001:DB8::1]:443", "\"tls\":{\"ca\":\"one.crt\"}", "2001:db8::1"},
    {"127.0.0.1:443", "\"tls\":{\"ca\":\"one.crt\",\"server_name\":\"x.test\"}", "x.test"},
    {"unix:/run/a.sock", "\"tls\":{\"ca\":\"one.crt\",\"server_name\":\"x.test\"}", "x.test"},
    {"unix:/run/a.sock", "\"tls\":{\"verify\":false}", NULL},
};

START_TEST(backend_must_have_the_name_of_its_address)
{
    struct conf *conf = must_load(upstream_with(backend_names[_i].address, backend_names[_i].keys));
    const struct conf_upstream *up = &conf->upstreams[0];
    ck_assert_ptr_nonnull(up->tls->client);
    ck_assert_uint_eq(up->tls->min_version, 0x0303);
    if (up->nbackends == 0 || !backend_names[_i].name) {
        ck_assert_ptr_null(backend_names[_i].name);
    } else {
        ck_assert_str_eq(up->backends[0].tls_name, backend_names[_i].name);
    }
    fixture_free(conf);
}
END_TEST

START_TEST(upstreams_with_the_same_tls_share_it)
{
    struct conf *a = must_load(upstream_with("one:443", "\"tls\":{\"ca\":\"one.crt\"}"));
    struct conf *b = must_load(upstream_with("one:444", "\"tls\":{\"ca\":\"one.crt\"}"));
    struct conf *c = must_load(upstream_with("one:444", "\"tls\":{\"ca\":\"other.crt\"}"));
    ck_assert_ptr_eq(a->upstreams[0].tls->client, b->upstreams[0].tls->client);
    ck_assert_ptr_ne(a->upstreams[0].tls->client, c->upstreams[0].tls->client);
    conf_unref(c);
    conf_unref(b);
    fixture_free(a);
}
END_TEST

START_TEST(without_ca_the_system_is_asked)
{
    const char *text = upstream_with("one:443", "\"tls\":{}");
    ck_assert_ptr_null(fixture_load_from(text, &source));
    ck_assert_ptr_nonnull(
        strstr(fixture_errors()->errors[0], ":2:7: upstreams.up.tls.ca: missing"));
    fixture_free(NULL);
    system_pem = other->cert_pem;
    struct conf *conf = must_load(text);
    struct conf *same = must_load(upstream_with("one:443", "\"tls\":{\"ca\":\"other.crt\"}"));
    ck_assert_ptr_eq(conf->upstreams[0].tls->client, same->upstreams[0].tls->client);
    conf_unref(same);
    fixture_free(conf);
}
END_TEST

static const struct {
    const char *address, *keys, *want;
} upstream_problems[] = {
    {"one:443", "\"tls\":{\"ca\":\"gone\"}",
     ":2:13: upstreams.up.tls.ca: cannot read /etc/akashd/gone: No such file"},
    {"one:443", "\"tls\":{\"ca\":\"text\"}",
     ":2:13: upstreams.up.tls.ca: /etc/akashd/text: no certificate in PEM form"},
    {"one:443", "\"tls\":{\"ca\":\"one.key\"}",
     ":2:13: upstreams.up.tls.ca: /etc/akashd/one.key holds a private key"},
    {"one:443", "\"tls\":{\"ca\":\"one.crt\",\"cert\":\"one.crt\"}",
     ":2:7: upstreams.up.tls.key: missing; \"cert\" needs it"},
    {"one:443", "\"tls\":{\"ca\":\"one.crt\",\"key\":\"one.key\"}",
     ":2:7: upstreams.up.tls.cert: missing; \"key\" needs it"},
    {"one:443", "\"tls\":{\"ca\":\"one.crt\",\"cert\":\"one.crt\",\"key\":\"other.key\"}",
     ":2:46: upstreams.up.tls.key: /etc/akashd/other.key: does not match the certificate in "
     "/etc/akashd/one.crt"},
    {"one:443", "\"tls\":{\"verify\":false,\"cert\":\"text\",\"key\":\"one.key\"}",
     ":2:30: upstreams.up.tls.cert: /etc/akashd/text: no certificate in PEM form"},
    {"unix:/run/a.sock", "\"tls\":{\"ca\":\"one.crt\"}",
     ":2:7: upstreams.up.tls.server_name: missing; unix:/run/a.sock has no host that a "
     "certificate could be for"},
    {"one:443", "\"tls\":{\"ca\":\"one.crt\",\"min_version\":\"1.1\"}",
     ":2:37: upstreams.up.tls.min_version: expected "},
    {"one:443", "\"tls\":{\"ca\":\"one.crt\",\"sni\":\"x\"}",
     ":2:23: upstreams.up.tls.sni: unknown key"},
    {"one:443", "\"tls\":true", ":2:7: upstreams.up.tls: expected an object"},
};

START_TEST(problems_of_an_upstream_are_told_where_their_key_stands)
{
    const char *text = upstream_with(upstream_problems[_i].address, upstream_problems[_i].keys);
    ck_assert_ptr_null(fixture_load_from(text, &source));
    ck_assert_uint_eq(fixture_errors()->nerrors, 1);
    ck_assert_msg(strstr(fixture_errors()->errors[0], upstream_problems[_i].want) != NULL,
                  "got: %s", fixture_errors()->errors[0]);
    fixture_free(NULL);
}
END_TEST

#define UPSTREAM_PAIR "\"tls\":{\"ca\":\"other.crt\",\"cert\":\"one.crt\",\"key\":\"one.key\"}"

/* The monitor probes with the authorities and without the certificate. */
START_TEST(bundles_carry_what_their_reader_may_see)
{
    uint64_t hash;
    const char *text = upstream_with("one:443", UPSTREAM_PAIR);
    struct conf *full = must_load(text);
    struct conf *worker = through_bundle(text, true, &hash);
    struct conf *monitor = through_bundle(text, false, &hash);
    ck_assert_ptr_eq(worker->upstreams[0].tls->client, full->upstreams[0].tls->client);
    ck_assert_ptr_nonnull(monitor->upstreams[0].tls->client);
    ck_assert_ptr_ne(monitor->upstreams[0].tls->client, full->upstreams[0].tls->client);
    struct conf *bare = must_load(upstream_with("one:443", "\"tls\":{\"ca\":\"other.crt\"}"));
    ck_assert_ptr_eq(monitor->upstreams[0].tls->client, bare->upstreams[0].tls->client);
    ck_assert_uint_eq(monitor->hash, hash);
    conf_unref(bare);
    conf_unref(monitor);
    conf_unref(worker);
    fixture_free(full);
}
END_TEST

START_TEST(system_authorities_come_with_the_bundle)
{
    uint64_t hash;
    system_pem = other->cert_pem;
    const char *text = upstream_with("one:443", "\"tls\":{}");
    for (int with_keys = 0; with_keys < 2; with_keys++) {
        struct conf *conf = through_bundle(text, with_keys, &hash);
        ck_assert_ptr_nonnull(conf->upstreams[0].tls->client);
        conf_unref(conf);
    }
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
    TCase *up = tcase_create("upstream");
    tcase_add_checked_fixture(up, begin, peer_free_kept);
    tcase_add_loop_test(up, backend_must_have_the_name_of_its_address, 0,
                        sizeof(backend_names) / sizeof(backend_names[0]));
    tcase_add_test(up, upstreams_with_the_same_tls_share_it);
    tcase_add_test(up, without_ca_the_system_is_asked);
    tcase_add_loop_test(up, problems_of_an_upstream_are_told_where_their_key_stands, 0,
                        sizeof(upstream_problems) / sizeof(upstream_problems[0]));
    tcase_add_test(up, bundles_carry_what_their_reader_may_see);
    tcase_add_test(up, system_authorities_come_with_the_bundle);
    suite_add_tcase(suite, up);
    return suite;
}
