/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bundle.c - a configuration that went through a memfd is the same, and a broken one is
 * refused.
 */
#include "conf/bundle.h"

#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t/unit/conf_fixture.h"
#include "t/unit/suites.h"

static const char text[] =
    "{\"listeners\":[{\"name\":\"a\",\"address\":\"${HERE}:80\",\"upstream\":\"u\"},"
    "{\"name\":\"b\",\"address\":\":81\",\"mode\":\"tcp\",\"upstream\":\"u\"}],"
    "\"upstreams\":{\"t\":{\"backends\":[{\"address\":\"gone:1\"}]},\"u\":{\"backends\":["
    "{\"address\":\"three:80\",\"paths\":[\"/p\"]},{\"address\":\"unix:/x\"}]}}}";

/* A conf from a recorder, with slots as a master would give them, sealed. */
static int
seal(struct conf **loaded, bool with_keys)
{
    struct bundle_recorder *rec = bundle_recorder_new(fixture_source());
    struct conf *conf = fixture_load_from(text, bundle_recorder_source(rec));
    ck_assert_ptr_nonnull(conf);
    conf->gen = 7;
    conf->listeners[1].slot = 200;
    conf->upstreams[1].pools[0].slot = 31;
    conf->upstreams[1].pools[1].slot = 8191;
    conf->upstreams[1].backends[3].slot = 16383;
    int fd = bundle_seal(rec, "/etc/akashd/test.json", SLICE(text), conf, with_keys);
    ck_assert_int_ge(fd, 0);
    bundle_recorder_free(rec);
    *loaded = conf;
    return fd;
}

/* ---- what the monitor is not told ---- */

#define SECRET "sesame-of-forty-thieves"

static const char *
env_with_secret(struct conf_source *src, const char *name)
{
    (void)src;
    return strcmp(name, "SECRET") == 0 ? SECRET : NULL;
}

static int
list_one(struct conf_source *src, const char *pattern, struct slice *out, char *why,
         size_t why_size)
{
    (void)src, (void)pattern, (void)why, (void)why_size;
    *out = (struct slice){"/d/x.json", sizeof("/d/x.json")};
    return 0;
}

static int
read_included(struct conf_source *src, const char *path, struct slice *out, char *why,
              size_t why_size)
{
    (void)src, (void)path, (void)why, (void)why_size;
    *out = SLICE("{\"upstreams\":{\"v\":{\"backends\":[{\"address\":\"127.0.0.1:2\"}],"
                 "\"sticky\":{\"secret\":\"" SECRET "\"}}}} // " SECRET);
    return 0;
}

START_TEST(monitor_is_told_no_secret)
{
    static const char with_secrets[] =
        "{\"include\":[\"/d/*.json\"],\"listeners\":[{\"name\":\"a\",\"address\":\":80\","
        "\"upstream\":\"u\"}],\"upstreams\":{\"u\":{\"backends\":[{\"address\":\"three:80\"}],"
        "\"sticky\":{\"secret\":\"${SECRET}\",\"cookie\":\"c\"}},\"w\":{\"backends\":"
        "[{\"address\":\"127.0.0.1:1\"}],\"sticky\":{\"secret\":\"" SECRET "\"}}}} // " SECRET;
    struct conf_errors errors;
    struct conf_source source = *fixture_source();
    char bytes[65536];
    source.env = env_with_secret;
    source.list_files = list_one;
    source.read_file = read_included;
    struct bundle_recorder *rec = bundle_recorder_new(&source);
    struct conf *conf = fixture_load_from(with_secrets, bundle_recorder_source(rec));
    ck_assert_ptr_nonnull(conf);
    int fd = bundle_seal(rec, "/etc/akashd/test.json", SLICE(with_secrets), conf, _i == 0);
    ssize_t len = pread(fd, bytes, sizeof(bytes), 0);
    ck_assert_int_gt(len, 100);
    bool is_told = memmem(bytes, (size_t)len, SECRET, strlen(SECRET)) != NULL;
    ck_assert_int_eq(is_told, _i == 0);
    struct conf *again = bundle_load(fd, &errors);
    ck_assert_msg(again != NULL, "%s", errors.nerrors ? errors.errors[0] : "");
    ck_assert_str_eq(again->public_json, conf->public_json);
    ck_assert_uint_eq(again->nupstreams, 3);
    ck_assert_uint_eq(again->upstreams[0].nbackends, 3);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_str_eq(again->upstreams[i].sticky->cookie, conf->upstreams[i].sticky->cookie);
        is_told = strcmp(again->upstreams[i].sticky->secret, SECRET) == 0;
        ck_assert_int_eq(is_told, _i == 0);
    }
    conf_errors_fini(&errors);
    conf_unref(again);
    close(fd);
    bundle_recorder_free(rec);
    fixture_free(conf);
}
END_TEST

/* ---- the same ---- */

static void
expect_same(const struct conf *a, const struct conf *b)
{
    ck_assert_str_eq(a->json, b->json);
    ck_assert_str_eq(a->path, b->path);
    ck_assert_uint_eq(a->hash, b->hash);
    ck_assert_uint_eq(a->gen, b->gen);
    ck_assert_uint_eq(b->listeners[1].slot, 200);
    ck_assert_uint_eq(b->upstreams[1].slot, 31);
    ck_assert_uint_eq(b->upstreams[1].pools[1].slot, 8191);
    ck_assert_uint_eq(b->upstreams[1].backends[3].slot, 16383);
    ck_assert_uint_eq(a->workers, b->workers);
    ck_assert_uint_eq(a->max_connections, b->max_connections);
    for (unsigned i = 0; i < a->upstreams[1].nbackends; i++) {
        ck_assert_str_eq(a->upstreams[1].backends[i].id, b->upstreams[1].backends[i].id);
        ck_assert(addr_eq(&a->upstreams[1].backends[i].addr, &b->upstreams[1].backends[i].addr));
    }
}

START_TEST(bundle_gives_the_same_conf)
{
    struct conf *conf, *again;
    struct conf_errors errors;
    int fd = seal(&conf, _i == 0);
    again = bundle_load(fd, &errors);
    ck_assert_msg(again != NULL, "%s", errors.nerrors ? errors.errors[0] : "");
    ck_assert_uint_eq(errors.nwarnings, 1);
    expect_same(conf, again);
    close(fd);
    conf_errors_fini(&errors);
    conf_unref(again);
    fixture_free(conf);
}
END_TEST

START_TEST(bundle_is_sealed)
{
    struct conf *conf;
    int fd = seal(&conf, true);
    ck_assert_int_lt(write(fd, "x", 1), 0);
    ck_assert_int_lt(ftruncate(fd, 1), 0);
    ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
    fixture_free(conf);
}
END_TEST

static int
memory_of(const void *bytes, size_t len)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
    return fd;
}

static bool
loads(const void *bytes, size_t len)
{
    struct conf_errors errors;
    int fd = memory_of(bytes, len);
    struct conf *conf = bundle_load(fd, &errors);
    bool is_loaded = conf != NULL;
    ck_assert(is_loaded || errors.nerrors > 0);
    close(fd);
    conf_errors_fini(&errors);
    conf_unref(conf);
    return is_loaded;
}

START_TEST(cut_bundle_is_refused_wherever_it_is_cut)
{
    struct conf *conf;
    char bytes[65536];
    int fd = seal(&conf, true);
    ssize_t len = pread(fd, bytes, sizeof(bytes) - 1, 0);
    ck_assert_int_gt(len, 100);
    ck_assert(loads(bytes, (size_t)len));
    for (ssize_t cut = 0; cut < len; cut += cut < 64 ? 1 : 13) {
        ck_assert_msg(!loads(bytes, (size_t)cut), "cut at %zd", cut);
    }
    bytes[len] = '\0';
    ck_assert(!loads(bytes, (size_t)len + 1));
    close(fd);
    fixture_free(conf);
}
END_TEST

START_TEST(slot_beyond_the_segment_is_refused)
{
    struct conf *conf;
    char bytes[65536];
    int fd = seal(&conf, true);
    ssize_t len = pread(fd, bytes, sizeof(bytes), 0);
    uint64_t slot = 16384; /* the last backend's is the last number */
    memcpy(bytes + len - sizeof(slot), &slot, sizeof(slot));
    ck_assert(!loads(bytes, (size_t)len));
    close(fd);
    fixture_free(conf);
}
END_TEST

START_TEST(any_byte_may_be_wrong_without_harm)
{
    struct conf *conf;
    char bytes[65536];
    int fd = seal(&conf, true);
    ssize_t len = pread(fd, bytes, sizeof(bytes), 0);
    for (ssize_t at = 0; at < len; at += 3) {
        char kept = bytes[at];
        bytes[at] = (char)~kept;
        loads(bytes, (size_t)len);
        bytes[at] = kept;
    }
    ck_assert(loads(bytes, (size_t)len));
    close(fd);
    fixture_free(conf);
}
END_TEST

START_TEST(opened_bundle_names_its_hosts)
{
    struct conf *conf;
    uint16_t port = 0;
    int fd = seal(&conf, true);
    struct bundle *bundle = bundle_open(fd);
    ck_assert_str_eq(bundle_name(bundle), "/etc/akashd/test.json");
    ck_assert_str_eq(bundle_folder(bundle), "/etc/akashd");
    ck_assert(slice_eq(bundle_text(bundle), SLICE(text)));
    ck_assert_str_eq(bundle_host(bundle, 0, &port), "gone");
    ck_assert_uint_eq(port, 1);
    ck_assert_str_eq(bundle_host(bundle, 1, &port), "three");
    ck_assert_ptr_null(bundle_host(bundle, 2, &port));
    bundle_close(bundle);
    close(fd);
    fixture_free(conf);
}
END_TEST

Suite *
bundle_suite(void)
{
    Suite *suite = suite_create("bundle");
    TCase *tc = tcase_create("bundle");
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, bundle_gives_the_same_conf, 0, 2);
    tcase_add_loop_test(tc, monitor_is_told_no_secret, 0, 2);
    tcase_add_test(tc, bundle_is_sealed);
    tcase_add_test(tc, cut_bundle_is_refused_wherever_it_is_cut);
    tcase_add_test(tc, slot_beyond_the_segment_is_refused);
    tcase_add_test(tc, any_byte_may_be_wrong_without_harm);
    tcase_add_test(tc, opened_bundle_names_its_hosts);
    suite_add_tcase(suite, tc);
    return suite;
}
