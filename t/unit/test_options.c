/* SPDX-License-Identifier: Apache-2.0
 *
 * test_options.c - the option table: its own soundness, types of values, suggestions, and what is
 * printed from it.
 */
#include "conf/options.h"

#include <check.h>
#include <json-c/json.h>
#include <stdlib.h>

#include "t/unit/conf_fixture.h"
#include "t/unit/suites.h"

/* ---- the table ---- */

START_TEST(every_row_has_help_and_no_row_stands_twice)
{
    for (size_t i = 0; i < option_table_len; i++) {
        const struct option *row = &option_table[i];
        ck_assert_msg(row->help && row->help[0], "%s has no help", row->key);
        ck_assert_msg(option_find(row->owner, row->key) == row, "%s stands twice", row->key);
        ck_assert_msg(!(row->flags & OPT_REQUIRED && row->fallback), "%s", row->key);
    }
}
END_TEST

/* Every default is a value that the file might have given. */
START_TEST(every_default_is_valid)
{
    struct conf *conf = fixture_must_load("{\"backends\":[{\"address\":\"127.0.0.1:1\"}]}");
    char *text = fixture_print(conf);
    struct conf *again = fixture_must_load(text);
    ck_assert_str_eq(again->json, text);
    conf_unref(again);
    free(text);
    fixture_free(conf);
}
END_TEST

/* ---- values ---- */

START_TEST(durations_are_read)
{
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"500ms", 500}, {"10s", 10000},
        {"5m", 300000}, {"1h", 3600000},
        {"0s", 0},      {"10", -1},
        {"", -1},       {"s", -1},
        {"-1s", -1},    {"1 s", -1},
        {"1.5s", -1},   {"1d", -1},
        {"1S", -1},     {"99999999999999999999s", -1},
    };
    uint64_t ms;
    int result = option_duration_parse(cases[_i].text, &ms);
    ck_assert_int_eq(result, cases[_i].ms < 0 ? -1 : 0);
    ck_assert(result < 0 || (int64_t)ms == cases[_i].ms);
}
END_TEST
#define DURATION_CASES 14

START_TEST(sizes_are_read)
{
    static const struct {
        const char *text;
        int64_t bytes;
    } cases[] = {
        {"64k", 65536}, {"1m", 1048576}, {"7", 7}, {"k", -1}, {"1g", -1}, {"1kb", -1}, {"-1", -1},
    };
    uint64_t bytes;
    int result = option_size_parse(cases[_i].text, &bytes);
    ck_assert_int_eq(result, cases[_i].bytes < 0 ? -1 : 0);
    ck_assert(result < 0 || (int64_t)bytes == cases[_i].bytes);
}
END_TEST
#define SIZE_CASES 7

START_TEST(durations_and_sizes_are_printed_with_the_greatest_unit)
{
    char buf[32];
    ck_assert_str_eq(option_duration_format(buf, sizeof(buf), 0), "0s");
    ck_assert_str_eq(option_duration_format(buf, sizeof(buf), 1500), "1500ms");
    ck_assert_str_eq(option_duration_format(buf, sizeof(buf), 90000), "90s");
    ck_assert_str_eq(option_duration_format(buf, sizeof(buf), 7200000), "2h");
    ck_assert_str_eq(option_size_format(buf, sizeof(buf), 0), "0");
    ck_assert_str_eq(option_size_format(buf, sizeof(buf), 2097152), "2m");
    ck_assert_str_eq(option_size_format(buf, sizeof(buf), 1000), "1000");
}
END_TEST

/* A value as read at a place of a long file. */
#define LONG(listener, upstream, top) \
    "{\"listeners\":[{\"name\":\"l\",\"address\":\":80\",\"upstream\":\"u\"" listener "}]," \
    "\"upstreams\":{\"u\":{\"backends\":[{\"address\":\"127.0.0.1:1\"}]" upstream "}}" top "}"

START_TEST(values_of_every_type_are_accepted)
{
    static const char *const cases[] = {
        LONG(",\"limits\":{\"header_bytes\":\"8k\",\"body_bytes\":1048576}", "", ""),
        LONG(",\"timeouts\":{\"idle\":1.5,\"send\":2,\"header\":\"3ms\"}", "", ""),
        LONG("", ",\"health_check\":{\"jitter\":\"20%\",\"port\":\"81\"}", ""),
        LONG("", ",\"health_check\":{\"expect\":204}", ""),
        LONG("", ",\"health_check\":{\"expect\":\"200,301-302\",\"method\":\"HEAD\"}", ""),
        LONG("", ",\"health_check\":false", ",\"metrics\":false,\"access_log\":\"off\""),
        LONG("", "", ",\"metrics\":\"[::1]:9100\",\"workers\":2"),
        LONG("", "", ",\"metrics\":{\"allow\":[\"10.0.0.0/8\",\"::1\"]}"),
        LONG("", "", ",\"control_socket\":{\"mode\":\"0660\",\"group\":\"staff\"}"),
        LONG("", "", ",\"log\":{\"target\":\"syslog\",\"level\":\"debug\",\"format\":\"json\"}"),
        LONG("", "", ",\"routes\":[{\"host\":\"*.a.B\",\"path\":\"/x\",\"upstream\":\"u\"}]"),
        LONG("", "", ",\"user\":\"somebody\",\"group\":\"staff\",\"pid_file\":\"x.pid\""),
    };
    fixture_free(fixture_must_load(cases[_i]));
}
END_TEST
#define GOOD_CASES 12

#define BAD_CASES 44

START_TEST(values_of_the_wrong_form_are_told)
{
    static const struct {
        const char *text, *what;
    } cases[] = {
        {LONG(",\"backlog\":0", "", ""), "listeners[0].backlog: expected a number from 1 to "
                                         "1048576, got 0"},
        {LONG(",\"backlog\":-1", "", ""), "got -1"},
        {LONG(",\"backlog\":\"1\"", "", ""), "got \"1\""},
        {LONG(",\"backlog\":1.5", "", ""), "got 1.5"},
        {LONG(",\"backlog\":null", "", ""), "got null"},
        {LONG(",\"backlog\":[1]", "", ""), "got a list"},
        {LONG(",\"mode\":\"HTTP\"", "", ""), "expected \"http\" or \"tcp\", got \"HTTP\""},
        {LONG(",\"forwarded_headers\":1", "", ""), "expected true or false, got 1"},
        {LONG(",\"limits\":[]", "", ""), "listeners[0].limits: expected an object, got a list"},
        {LONG(",\"limits\":{\"header_bytes\":\"1g\"}", "", ""),
         "listeners[0].limits.header_bytes: expected a size from 512 to 1m"},
        {LONG(",\"timeouts\":{\"idle\":\"1000h\"}", "", ""),
         "listeners[0].timeouts.idle: expected a duration from 0s to 720h"},
        {LONG(",\"timeouts\":{\"idle\":-1}", "", ""), "got -1"},
        {LONG("", ",\"algorithm\":\"fastest\"", ""),
         "upstreams.u.algorithm: expected \"round_robin\", \"w_round_robin\", \"least_conn\", "
         "\"ip_hash\", \"random_two\", \"ewma\" or \"hash\", got \"fastest\""},
        {LONG("", ",\"health_check\":true", ""), "expected an object, or false, got true"},
        {LONG("", ",\"health_check\":{\"port\":\"99999\"}", ""), "expected a port from 1 to 65535"},
        {LONG("", ",\"health_check\":{\"jitter\":101}", ""), "expected a percentage"},
        {LONG("", ",\"health_check\":{\"expect\":\"99\"}", ""), "expected status codes"},
        {LONG("", ",\"health_check\":{\"expect\":\"200-\"}", ""), "expected status codes"},
        {LONG("", ",\"health_check\":{\"expect\":\"300-200\"}", ""), "expected status codes"},
        {LONG("", ",\"health_check\":{\"path\":\"x\"}", ""),
         "expected a path that begins with '/'"},
        {LONG("", ",\"health_check\":{\"path\":\"/a b\"}", ""), "expected a path"},
        {LONG("", ",\"health_check\":{\"host\":\"a\\r\\nb\"}", ""), "expected a host name"},
        {LONG("", ",\"health_check\":{\"method\":\"G T\"}", ""), "expected a method"},
        {LONG("", ",\"source\":[\"10.0.0.1\",\"10.0.0.0/8\"]", ""),
         "upstreams.u.source[1]: expected an address such as"},
        {LONG("", ",\"source\":\"127.0.0.2:80\"", ""), "source: expected an address"},
        {LONG("", ",\"sticky\":{\"secret\":\"too short\"}", ""),
         "upstreams.u.sticky.secret: expected a string of 16 to 255 bytes"},
        {LONG("", "", ",\"metrics\":true"), "metrics: expected an object, or its address alone"},
        {LONG("", "", ",\"metrics\":{\"allow\":[\"x\"]}"), "metrics.allow[0]: expected a network"},
        {LONG("", "", ",\"control_socket\":{\"mode\":\"0900\"}"), "expected permissions in octal"},
        {LONG("", "", ",\"control_socket\":{\"mode\":600}"), "expected permissions in octal"},
        {LONG("", "", ",\"workers\":0"), "workers: expected a number from 1 to 64 or \"auto\""},
        {LONG("", "", ",\"workers\":65"), "got 65"},
        {LONG("", "", ",\"workers\":\"many\""), "got \"many\""},
        {LONG("", "", ",\"user\":\"no one\""), "expected a name of letters"},
        {LONG("", "", ",\"pid_file\":\"\""), "expected a path"},
        {LONG("", "", ",\"routes\":[{\"host\":\"a*\",\"upstream\":\"u\"}]"), "routes[0].host: "},
        {LONG("", "", ",\"routes\":[{\"host\":\"*.\",\"upstream\":\"u\"}]"), "routes[0].host: "},
        {LONG("", "", ",\"routes\":[{\"path\":\"/a?b\",\"upstream\":\"u\"}]"), "routes[0].path: "},
        {LONG("", "", ",\"routes\":[{\"path\":\"/a/./b\",\"upstream\":\"u\"}]"),
         "has the segments . and .."},
        {LONG("", "", ",\"routes\":[{\"path\":\"/%7Ea\",\"upstream\":\"u\"}]"),
         "escapes of letters, digits and -._~"},
        {LONG("", "", ",\"routes\":[{\"path\":\"/%2\",\"upstream\":\"u\"}]"),
         "a percent escape is no byte"},
        {LONG("", "", ",\"routes\":[{\"listeners\":[],\"upstream\":\"u\"}]"),
         "routes[0].listeners: expected at least one element"},
        {LONG("", "", ",\"routes\":[{}]"),
         "routes[0]: expected one of upstream, split, redirect and respond"},
        {LONG("", "", ",\"access_log\":{\"format\":\"json\"}"), "access_log.target: missing"},
    };
    _Static_assert(sizeof(cases) / sizeof(cases[0]) == BAD_CASES, "each of them is tried");
    ck_assert_msg(fixture_load(cases[_i].text) == NULL, "accepted: %s", cases[_i].text);
    ck_assert_uint_eq(fixture_errors()->nerrors, 1);
    ck_assert_msg(strstr(fixture_errors()->errors[0], cases[_i].what) != NULL, "got: %s",
                  fixture_errors()->errors[0]);
    ck_assert_ptr_null(strstr(fixture_errors()->errors[0], "too short")); /* a secret is not told */
    fixture_free(NULL);
}
END_TEST

START_TEST(misspelt_keys_are_suggested)
{
    ck_assert_str_eq(option_suggest(OWN_TOP, "algoritm", true), "algorithm");
    ck_assert_str_eq(option_suggest(OWN_TOP, "Backend", true), "Backends");
    ck_assert_str_eq(option_suggest(OWN_BACKEND, "wieght", false), "weight");
    ck_assert_str_eq(option_suggest(OWN_TLS, "min-version", false), "min_version");
    ck_assert_ptr_null(option_suggest(OWN_BACKEND, "sticky", false));
    ck_assert_ptr_null(option_suggest(OWN_TOP, "", true));
}
END_TEST

/* ---- what is printed ---- */

static char *
read_whole(const char *name)
{
    char path[4096], *text = calloc(1, 1 << 20);
    const char *top = getenv("srcdir");
    snprintf(path, sizeof(path), "%s/%s", top ? top : ".", name);
    FILE *in = fopen(path, "r");
    ck_assert_msg(in != NULL, "%s: set srcdir to the top of the sources", path);
    size_t len = fread(text, 1, (1 << 20) - 1, in);
    ck_assert_uint_gt(len, 0);
    fclose(in);
    return text;
}

static void
expect_committed(const char *name, void (*print)(FILE *))
{
    char *printed = NULL, *committed = read_whole(name);
    size_t len = 0;
    FILE *out = open_memstream(&printed, &len);
    print(out);
    fclose(out);
    ck_assert_msg(strcmp(printed, committed) == 0, "%s is not what is printed", name);
    free(printed);
    free(committed);
}

START_TEST(committed_schema_is_what_is_printed)
{
    expect_committed("conf/akashd.schema.json", conf_print_schema);
}
END_TEST

START_TEST(committed_manual_is_what_is_printed)
{
    expect_committed("conf/akashd.json.5", conf_print_manual);
}
END_TEST

static unsigned
count_keys(struct json_object *defs, const struct option *row)
{
    unsigned n = 0;
    json_object_object_foreach(defs, name, def)
    {
        struct json_object *properties;
        (void)name;
        ck_assert(json_object_object_get_ex(def, "properties", &properties));
        n += json_object_object_get_ex(properties, row->key, NULL);
    }
    return n;
}

START_TEST(schema_is_json_and_has_every_key)
{
    char *text = read_whole("conf/akashd.schema.json");
    struct json_object *schema = json_tokener_parse(text), *defs;
    ck_assert_ptr_nonnull(schema);
    ck_assert(json_object_object_get_ex(schema, "$defs", &defs));
    for (size_t i = 0; i < option_table_len; i++) {
        ck_assert_msg(count_keys(defs, &option_table[i]) > 0, "%s", option_table[i].key);
    }
    json_object_put(schema);
    free(text);
}
END_TEST

Suite *
options_suite(void)
{
    Suite *suite = suite_create("options");
    TCase *tc = tcase_create("options");
    tcase_add_test(tc, every_row_has_help_and_no_row_stands_twice);
    tcase_add_test(tc, every_default_is_valid);
    tcase_add_loop_test(tc, durations_are_read, 0, DURATION_CASES);
    tcase_add_loop_test(tc, sizes_are_read, 0, SIZE_CASES);
    tcase_add_test(tc, durations_and_sizes_are_printed_with_the_greatest_unit);
    tcase_add_loop_test(tc, values_of_every_type_are_accepted, 0, GOOD_CASES);
    tcase_add_loop_test(tc, values_of_the_wrong_form_are_told, 0, BAD_CASES);
    tcase_add_test(tc, misspelt_keys_are_suggested);
    tcase_add_test(tc, committed_schema_is_what_is_printed);
    tcase_add_test(tc, committed_manual_is_what_is_printed);
    tcase_add_test(tc, schema_is_json_and_has_every_key);
    suite_add_tcase(suite, tc);
    return suite;
}
