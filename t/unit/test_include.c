/* SPDX-License-Identifier: Apache-2.0
 *
 * test_include.c - files that a configuration includes: what becomes of them, and what is told of
 * them, with a few files in memory and, for patterns, some on the disk.
 */
#include <check.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/bundle.h"
#include "t/unit/conf_fixture.h"
#include "t/unit/suites.h"

#define BACKENDS  "{\"backends\":[{\"address\":\"127.0.0.1:1\"}]}"
#define LISTENER  "\"listeners\":[{\"name\":\"web\",\"address\":\":80\"}]"
#define UPSTREAMS "\"upstreams\":{\"u\":" BACKENDS "}"

/* ---- a disk of our own ---- */

#define FOLDER "/etc/akashd/"

static struct {
    const char *path, *text;
} files[8];
static char list[512];
static size_t list_len;
static const char *asked; /* the pattern */

static void
put_file(const char *path, const char *text)
{
    unsigned i = 0;
    while (files[i].path) {
        i++;
    }
    ck_assert_uint_lt(i, 7);
    files[i].path = path;
    files[i].text = text;
    memcpy(list + list_len, path, strlen(path) + 1);
    list_len += strlen(path) + 1;
}

static int
read_file(struct conf_source *src, const char *path, struct slice *out, char *why, size_t why_size)
{
    (void)src;
    for (unsigned i = 0; files[i].path; i++) {
        if (strcmp(files[i].path, path) == 0) {
            *out = slice_from_str(files[i].text);
            return 0;
        }
    }
    snprintf(why, why_size, "No such file or directory");
    return -1;
}

static int
list_files(struct conf_source *src, const char *pattern, struct slice *out, char *why,
           size_t why_size)
{
    (void)src;
    asked = pattern;
    if (strstr(pattern, "locked")) {
        snprintf(why, why_size, "Permission denied");
        return -1;
    }
    *out = strstr(pattern, "none") ? SLICE("") : slice_of(list, list_len);
    return 0;
}

static struct conf_source world;

static void
setup(void)
{
    world = *fixture_source();
    world.read_file = read_file;
    world.list_files = list_files;
    memset(files, 0, sizeof(files));
    list_len = 0;
}

static struct conf *
must_load(const char *text)
{
    struct conf *conf = fixture_load_from(text, &world);
    ck_assert_msg(conf != NULL, "%s",
                  fixture_errors()->nerrors ? fixture_errors()->errors[0] : "no error");
    return conf;
}

/* Exactly these errors, without the folder before them; NULL ends. */
static void
expect_errors(const char *text, ...)
{
    unsigned n = 0;
    va_list expected;
    ck_assert_ptr_null(fixture_load_from(text, &world));
    const struct conf_errors *have = fixture_errors();
    va_start(expected, text);
    for (const char *one; (one = va_arg(expected, const char *)); n++) {
        ck_assert_msg(n < have->nerrors, "not told: %s", one);
        ck_assert_str_eq(have->errors[n] + strlen(FOLDER), one);
    }
    va_end(expected);
    ck_assert_msg(n == have->nerrors, "one too many: %s", have->errors[n]);
    fixture_free(NULL);
}

/* ---- merging ---- */

START_TEST(lists_follow_in_the_order_of_the_files)
{
    put_file(FOLDER "d/a.json",
             "{\"listeners\":[{\"name\":\"a\",\"address\":\":81\"}],"
             "\"routes\":[{\"host\":\"a\",\"upstream\":\"b\"}],\"upstreams\":{\"a\":" BACKENDS
             "}}");
    put_file(FOLDER "d/b.json", "{\"routes\":[{\"host\":\"b\",\"upstream\":\"a\"}],"
                                "\"upstreams\":{\"b\":" BACKENDS "},\"lame_duck\":\"5s\"}");
    struct conf *conf = must_load("{\"include\":[\"d/*.json\"]," LISTENER "," UPSTREAMS
                                  ",\"routes\":[{\"host\":\"m\",\"upstream\":\"u\"}]}");
    ck_assert_str_eq(asked, FOLDER "d/*.json");
    ck_assert_uint_eq(conf->nlisteners, 2);
    ck_assert_str_eq(conf->listeners[0].name, "web");
    ck_assert_str_eq(conf->listeners[1].name, "a");
    ck_assert_uint_eq(conf->nroutes, 3);
    ck_assert_str_eq(conf->routes[0].host, "m");
    ck_assert_str_eq(conf->routes[1].host, "a");
    ck_assert_str_eq(conf->routes[2].host, "b");
    ck_assert_uint_eq(conf->nupstreams, 3);
    ck_assert_str_eq(conf->upstreams[2].name, "b");
    ck_assert_uint_eq(conf->lame_duck, 5000);
    fixture_free(conf);
}
END_TEST

START_TEST(everything_may_stand_in_included_files)
{
    put_file(FOLDER "a.json", "/* first */{" LISTENER "}");
    put_file("/srv/b.json", "{" UPSTREAMS "}");
    struct conf *conf = must_load("{\"include\":[\"a.json\",\"/srv/b.json\"]}");
    ck_assert_uint_eq(conf->nlisteners, 1);
    ck_assert_uint_eq(conf->nupstreams, 1);
    fixture_free(conf);
}
END_TEST

START_TEST(one_path_needs_no_brackets_and_takes_the_environment)
{
    put_file(FOLDER "127.0.0.1.json", "{" UPSTREAMS "}");
    fixture_free(must_load("{\"include\":\"${HERE}.json\"," LISTENER "}"));
}
END_TEST

START_TEST(file_that_matches_twice_is_read_once)
{
    put_file(FOLDER "a.json", "{" UPSTREAMS "}");
    fixture_free(must_load("{\"include\":[\"a.json\",\"*.json\"]," LISTENER "}"));
}
END_TEST

START_TEST(pattern_may_match_nothing)
{
    fixture_free(must_load("{\"include\":[\"none/*.json\"]," LISTENER "," UPSTREAMS "}"));
}
END_TEST

START_TEST(environment_is_read_in_included_files)
{
    put_file(FOLDER "a.json", "{\"upstreams\":{\"u\":{\"backends\":[{\"address\":\"${HERE}:7\","
                              "\"id\":\"x\"}]}},\"pid_file\":\"$${a\"}");
    struct conf *conf = must_load("{\"include\":\"a.json\"," LISTENER "}");
    ck_assert_str_eq(conf->pid_file, FOLDER "${a");
    fixture_free(conf);
}
END_TEST

START_TEST(relative_paths_start_at_the_folder_of_their_own_file)
{
    put_file(FOLDER "d/a.json", "{" UPSTREAMS ",\"pid_file\":\"run/pid\"}");
    put_file("/b.json", "{\"log\":{\"target\":\"error.log\"}}");
    struct conf *conf = must_load("{\"include\":[\"d/a.json\",\"/b.json\"],"
                                  "\"access_log\":\"access.log\"," LISTENER "}");
    ck_assert_str_eq(conf->pid_file, FOLDER "d/run/pid");
    ck_assert_str_eq(conf->log.target, "/error.log");
    ck_assert_str_eq(conf->access_log.target, FOLDER "access.log");
    fixture_free(conf);
}
END_TEST

START_TEST(folder_of_the_file_is_no_pattern)
{
    struct conf_errors errors;
    struct conf *conf =
        conf_load("/etc/[a]*/x.json", SLICE("{\"include\":\"none*\"," LISTENER "," UPSTREAMS "}"),
                  &world, &errors);
    ck_assert_ptr_nonnull(conf);
    ck_assert_str_eq(asked, "/etc/\\[a]\\*/none*");
    conf_errors_fini(&errors);
    conf_unref(conf);
}
END_TEST

START_TEST(print_is_the_merged_file_and_stays_the_same)
{
    put_file(FOLDER "d/a.json", "{\"routes\":[{\"upstream\":\"u\"}],\"pid_file\":\"p\"}");
    struct conf *conf = must_load("{\"include\":\"d/*\"," LISTENER "," UPSTREAMS "}");
    char *text = fixture_print(conf);
    ck_assert_ptr_null(strstr(text, "include"));
    ck_assert_ptr_nonnull(strstr(text, "\"pid_file\": \"" FOLDER "d/p\""));
    fixture_free(conf);
    conf = must_load(text);
    char *again = fixture_print(conf);
    ck_assert_str_eq(again, text);
    fixture_free(conf);
    free(again);
    free(text);
}
END_TEST

START_TEST(hash_follows_an_included_file)
{
    uint64_t hashes[3];
    static const char *const texts[] = {"{\"lame_duck\":1}", "{\"lame_duck\":2}",
                                        "{ \"lame_duck\":1 }"};
    for (int i = 0; i < 3; i++) {
        setup();
        put_file(FOLDER "a.json", texts[i]);
        struct conf *conf = must_load("{\"include\":\"a.json\"," LISTENER "," UPSTREAMS "}");
        hashes[i] = conf->hash;
        fixture_free(conf);
    }
    ck_assert_uint_ne(hashes[0], hashes[1]);
    ck_assert_uint_eq(hashes[0], hashes[2]);
}
END_TEST

/* The children have no files: what they need is in the bundle, the monitor's as well. */
START_TEST(bundle_carries_included_files)
{
    const char *text = "{\"include\":[\"d/*\",\"none*\"]," LISTENER "}";
    struct conf_errors errors;
    put_file(FOLDER "d/a.json", "{" UPSTREAMS ",\"pid_file\":\"p\"}");
    struct bundle_recorder *rec = bundle_recorder_new(&world);
    struct conf *conf = fixture_load_from(text, bundle_recorder_source(rec));
    ck_assert_ptr_nonnull(conf);
    int fd = bundle_seal(rec, FOLDER "test.json", slice_from_str(text), conf, _i == 0);
    ck_assert_int_ge(fd, 0);
    setup(); /* the files are gone */
    struct conf *again = bundle_load(fd, &errors);
    ck_assert_msg(again != NULL, "%s", errors.nerrors ? errors.errors[0] : "");
    ck_assert_str_eq(again->json, conf->json);
    ck_assert_uint_eq(again->hash, conf->hash);
    close(fd);
    bundle_recorder_free(rec);
    conf_errors_fini(&errors);
    conf_unref(again);
    fixture_free(conf);
}
END_TEST

/* ---- errors ---- */

START_TEST(errors_name_the_file_and_come_in_its_order)
{
    put_file(FOLDER "d/a.json", "{\n  \"routes\": [ { \"upstream\": \"gone\" } ],\n"
                                "  \"upstream\": 1\n}");
    put_file(FOLDER "d/b.json", "{\"upstreams\":{\"b\":{\"backends\":[{\"address\":\"x\"}]}}}");
    expect_errors("{\n\n\n\n\"include\":\"d/*\"," LISTENER "," UPSTREAMS ",\"drain\":0}",
                  "test.json:5:121: drain: unknown key",
                  "d/a.json:2:29: routes[0].upstream: there is no upstream gone",
                  "d/a.json:3:3: upstream: unknown key; did you mean \"upstreams\"?",
                  "d/b.json:1:43: upstreams.b.backends[0].address: \"x\": the port is missing",
                  NULL);
}
END_TEST

START_TEST(name_in_two_files_is_told_with_both)
{
    put_file(FOLDER "d/a.json", "{" UPSTREAMS ",\n\"user\":\"somebody\"}");
    put_file(FOLDER "d/b.json", "{\"user\":\"somebody\",\n \"log\":{}}");
    expect_errors(
        "{\"include\":\"d/*\"," LISTENER "," UPSTREAMS ",\"log\":{}}",
        "d/a.json:1:15: upstreams.u: duplicate key; it is at " FOLDER "test.json:1:76 already",
        "d/b.json:1:2: user: duplicate key; it is at " FOLDER "d/a.json:2:1 already",
        "d/b.json:2:2: log: duplicate key; it is at " FOLDER "test.json:1:122 already", NULL);
}
END_TEST

START_TEST(included_file_is_an_object_that_includes_nothing)
{
    put_file(FOLDER "d/a.json", "[]");
    put_file(FOLDER "d/b.json", "{\"include\":\"c\"}");
    put_file(FOLDER "d/c.json", "{\"listeners\":{},\"upstreams\":[]}");
    expect_errors("{\"include\":\"d/*\"," LISTENER "," UPSTREAMS "}",
                  "d/a.json:1:1: expected an object, got a list",
                  "d/b.json:1:2: include: an included file cannot include others",
                  "d/c.json:1:14: listeners: expected a list, got an object",
                  "d/c.json:1:29: upstreams: expected an object, got a list", NULL);
}
END_TEST

START_TEST(short_form_includes_nothing)
{
    put_file(FOLDER "a.json", "{\"listen\":80," UPSTREAMS "}");
    expect_errors("{\"include\":\"a.json\",\"Backends\":[]," LISTENER "}",
                  "test.json:1:21: Backends: a key of the short form cannot stand beside "
                  "\"include\"",
                  "a.json:1:2: listen: a key of the short form cannot stand beside \"include\"",
                  NULL);
}
END_TEST

/* What could not be read may be what the rest misses: no word of that. */
START_TEST(file_that_is_not_there_is_told_at_its_name)
{
    put_file(FOLDER "b.json", "{\"routes\":[\n{]");
    put_file(FOLDER "c.json", "{\"routes\":[{\"upstream\":\"u\"}]}");
    expect_errors(
        "{\"include\":[\n  \"a.json\", \"b.json\", \"c.json\", \"/d.json\"]," LISTENER "}",
        "test.json:2:3: include[0]: cannot read " FOLDER "a.json: No such file or directory",
        "test.json:2:33: include[3]: cannot read /d.json: No such file or directory",
        "b.json:2:2: expected a key or '}'", NULL);
}
END_TEST

static const struct {
    const char *include, *error;
} wrong[] = {
    {"\"locked/*\"", "test.json:1:12: include: cannot list locked/*: Permission denied"},
    {"\"test.json\"", "test.json:1:12: include: the file cannot include itself"},
    {"[\"*\"]", "test.json:1:13: include[0]: the file cannot include itself"},
    {"7", "test.json:1:12: include: expected a string, or a list of them, got 7"},
    {"[7]", "test.json:1:13: include[0]: expected a string, got 7"},
    {"[\"${GONE}\"]", "test.json:1:13: include[0]: the environment has no GONE"},
};

START_TEST(wrong_include_is_told_where_it_stands)
{
    char text[256];
    put_file(FOLDER "test.json", "{}");
    snprintf(text, sizeof(text), "{\"include\":%s," LISTENER "}", wrong[_i].include);
    expect_errors(text, wrong[_i].error, NULL);
}
END_TEST

START_TEST(source_without_a_disk_has_no_patterns)
{
    world.list_files = NULL;
    expect_errors("{\"include\":\"d/*\"," LISTENER "," UPSTREAMS "}",
                  "test.json:1:12: include: cannot list d/*: there is no disk here", NULL);
}
END_TEST

/* ---- bounds ---- */

static int
read_megabyte(struct conf_source *src, const char *path, struct slice *out, char *why,
              size_t why_size)
{
    static char text[1 << 20];
    (void)src;
    (void)path;
    (void)why;
    (void)why_size;
    memset(text, ' ', sizeof(text));
    memcpy(text, "{}", 2);
    *out = slice_of(text, sizeof(text));
    return 0;
}

static int
read_empty(struct conf_source *src, const char *path, struct slice *out, char *why, size_t why_size)
{
    (void)src;
    (void)path;
    (void)why;
    (void)why_size;
    *out = SLICE("{}");
    return 0;
}

static void
load_many(unsigned n,
          int (*reader)(struct conf_source *, const char *, struct slice *, char *, size_t))
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    fputs("{\"include\":[", out);
    for (unsigned i = 0; i < n; i++) {
        fprintf(out, "%s\"f%u\"", i ? "," : "", i);
    }
    fputs("]," LISTENER "," UPSTREAMS "}", out);
    fclose(out);
    world.read_file = reader;
    struct conf *conf = fixture_load_from(text, &world);
    conf_unref(conf);
    free(text);
}

START_TEST(files_are_bounded_in_number)
{
    load_many(CONF_INCLUDE_MAX, read_empty);
    ck_assert_uint_eq(fixture_errors()->nerrors, 0);
    load_many(CONF_INCLUDE_MAX + 2, read_empty);
    ck_assert_uint_eq(fixture_errors()->nerrors, 1);
    ck_assert_ptr_nonnull(
        strstr(fixture_errors()->errors[0], "include[1024]: more than 1024 files"));
    fixture_free(NULL);
}
END_TEST

START_TEST(files_are_bounded_in_size)
{
    load_many(16, read_megabyte);
    ck_assert_uint_eq(fixture_errors()->nerrors, 0);
    load_many(18, read_megabyte);
    ck_assert_uint_eq(fixture_errors()->nerrors, 1);
    ck_assert_ptr_nonnull(
        strstr(fixture_errors()->errors[0], "include[16]: more than 16 MB with " FOLDER "f16"));
    fixture_free(NULL);
}
END_TEST

/* ---- the disk ---- */

static char folder[64];

static void
make(const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void
expect_list(const char *pattern, ...)
{
    char path[128], why[64];
    struct conf_source *disk = conf_source_disk();
    struct slice found;
    va_list expected;
    snprintf(path, sizeof(path), "%s/%s", folder, pattern);
    for (int i = 0; i < 2; i++) { /* also from memory */
        ck_assert_int_eq(disk->list_files(disk, path, &found, why, sizeof(why)), 0);
        const char *at = found.ptr;
        va_start(expected, pattern);
        for (const char *one; (one = va_arg(expected, const char *)); at += strlen(at) + 1) {
            ck_assert(at < found.ptr + found.len);
            ck_assert_str_eq(at + strlen(folder) + 1, one);
        }
        va_end(expected);
        ck_assert_ptr_eq(at, found.ptr + found.len);
        make("later.json"); /* one load sees one state */
    }
    conf_source_disk_free(disk);
}

START_TEST(disk_lists_in_the_order_of_bytes)
{
    char command[128];
    strcpy(folder, "/tmp/akash-include-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    make("b.json");
    make("B.json");
    make("a.json");
    make("10.json");
    make("9.json");
    make(".hidden.json");
    make("a.json~");
    expect_list("*.json", "10.json", "9.json", "B.json", "a.json", "b.json", NULL);
    expect_list("[ab].json", "a.json", "b.json", NULL);
    expect_list("*.conf", NULL);
    expect_list("none/*.json", NULL);
    expect_list("a.json/*", NULL);
    snprintf(command, sizeof(command), "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

Suite *
include_suite(void)
{
    Suite *suite = suite_create("include");
    TCase *tc = tcase_create("include");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, lists_follow_in_the_order_of_the_files);
    tcase_add_test(tc, everything_may_stand_in_included_files);
    tcase_add_test(tc, one_path_needs_no_brackets_and_takes_the_environment);
    tcase_add_test(tc, file_that_matches_twice_is_read_once);
    tcase_add_test(tc, pattern_may_match_nothing);
    tcase_add_test(tc, environment_is_read_in_included_files);
    tcase_add_test(tc, relative_paths_start_at_the_folder_of_their_own_file);
    tcase_add_test(tc, folder_of_the_file_is_no_pattern);
    tcase_add_test(tc, print_is_the_merged_file_and_stays_the_same);
    tcase_add_test(tc, hash_follows_an_included_file);
    tcase_add_loop_test(tc, bundle_carries_included_files, 0, 2);
    tcase_add_test(tc, errors_name_the_file_and_come_in_its_order);
    tcase_add_test(tc, name_in_two_files_is_told_with_both);
    tcase_add_test(tc, included_file_is_an_object_that_includes_nothing);
    tcase_add_test(tc, short_form_includes_nothing);
    tcase_add_test(tc, file_that_is_not_there_is_told_at_its_name);
    tcase_add_loop_test(tc, wrong_include_is_told_where_it_stands, 0,
                        sizeof(wrong) / sizeof(wrong[0]));
    tcase_add_test(tc, source_without_a_disk_has_no_patterns);
    tcase_add_test(tc, files_are_bounded_in_number);
    tcase_add_test(tc, files_are_bounded_in_size);
    tcase_add_test(tc, disk_lists_in_the_order_of_bytes);
    suite_add_tcase(suite, tc);
    return suite;
}
