/* SPDX-License-Identifier: Apache-2.0
 *
 * test_status.c - /status.json and the status page, from a segment that the test makes; the last
 * verdicts.
 */
#include <check.h>
#include <json-c/json.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "master/json_out.h"
#include "master/status_json.h"
#include "master/status_page.h"
#include "master/usable.h"
#include "shared/clock.h"
#include "t/unit/suites.h"

static struct shm master, worker, monitor;
static struct conf_backend backends[3];
static struct breaker_rules rules;
static struct conf_upstream upstreams[2];
static struct conf_listener listener;
static struct conf conf;

static void
setup(void)
{
    ck_assert_int_eq(shm_create(&master), 0);
    ck_assert_int_eq(shm_map(&worker, master.fd, SHM_ROLE_WORKER, 0), 0);
    ck_assert_int_eq(shm_map(&monitor, master.fd, SHM_ROLE_MONITOR, 0), 0);
    shm_set(&worker.row->heartbeat_ms, 1);
    shm_set(&master.m->workers[0].pid, (uint64_t)getpid());
    shm_set(&master.m->workers[0].state, SHM_CHILD_SERVING);
    shm_set(&master.m->reload_ok, 1);
    rules = (struct breaker_rules){.window_ms = 10000,
                                   .min_requests = 1,
                                   .consecutive = 1,
                                   .open_for_ms = 10000,
                                   .half_open_requests = 1};
    for (unsigned i = 0; i < 3; i++) {
        backends[i] = (struct conf_backend){
            .id = "a", .address = "10.0.0.1:80", .slot = i, .weight = 1, .file_weight = 1};
        backends[i].upstream = &upstreams[i / 2];
    }
    upstreams[0] = (struct conf_upstream){.name = "site", .backends = backends, .nbackends = 2};
    upstreams[1] = (struct conf_upstream){.name = "api", .backends = backends + 2, .nbackends = 1};
    upstreams[1].breaker = &rules;
    for (unsigned i = 0; i < 2; i++) {
        upstreams[i].health.type = CONF_HEALTH_TCP;
    }
    listener = (struct conf_listener){.name = "web", .slot = 2, .mode = CONF_HTTP};
    conf = (struct conf){.refs = 1000,
                         .listeners = &listener,
                         .nlisteners = 1,
                         .upstreams = upstreams,
                         .nupstreams = 2};
}

static void
teardown(void)
{
    int fd = master.fd;
    shm_unmap(&monitor);
    shm_unmap(&worker);
    shm_unmap(&master);
    close(fd);
}

static char *
render(unsigned items_a_step)
{
    size_t len;
    struct status_json *s = status_json_begin(&monitor, &conf);
    while (!status_json_step(s, items_a_step)) {
    }
    char *text = status_json_take(s, &len);
    ck_assert_ptr_nonnull(text);
    ck_assert_uint_eq(len, strlen(text));
    return text;
}

/* The rendered text, read by another parser. For the caller to put. */
static struct json_object *
status(void)
{
    char *text = render(1);
    struct json_object *root = json_tokener_parse(text);
    ck_assert_msg(root != NULL, "not JSON: %s", text);
    free(text);
    return root;
}

static struct json_object *
get(struct json_object *object, const char *key)
{
    struct json_object *value = NULL;
    ck_assert_msg(json_object_object_get_ex(object, key, &value), "no %s", key);
    return value;
}

static struct json_object *
backend_of(struct json_object *root, unsigned upstream, unsigned backend)
{
    struct json_object *up = json_object_array_get_idx(get(root, "upstreams"), upstream);
    return json_object_array_get_idx(get(up, "backends"), backend);
}

static void
expect_text(struct json_object *object, const char *key, const char *expected)
{
    ck_assert_str_eq(json_object_get_string(get(object, key)), expected);
}

static void
expect_number(struct json_object *object, const char *key, int64_t expected)
{
    ck_assert_int_eq(json_object_get_int64(get(object, key)), expected);
}

/* ---- the text ---- */

START_TEST(steps_of_any_size_make_the_same_text)
{
    char *one = render(1), *all = render(1000);
    ck_assert_ptr_nonnull(strstr(one, "\"upstreams\":[{\"name\":\"site\""));
    /* The clocks differ; all else, and so the length, does not. */
    ck_assert_uint_eq(strlen(one), strlen(all));
    ck_assert_str_eq(strstr(one, "\"listeners\""), strstr(all, "\"listeners\""));
    free(one);
    free(all);
}
END_TEST

START_TEST(nothing_configured_is_still_an_object)
{
    conf.nlisteners = conf.nupstreams = 0;
    struct json_object *root = status();
    ck_assert_uint_eq(json_object_array_length(get(root, "listeners")), 0);
    ck_assert_uint_eq(json_object_array_length(get(root, "upstreams")), 0);
    json_object_put(root);
}
END_TEST

START_TEST(a_text_cut_short_is_none)
{
    size_t len;
    struct status_json *s = status_json_begin(&monitor, &conf);
    ck_assert(!status_json_step(s, 1));
    ck_assert_ptr_null(status_json_take(s, &len));
}
END_TEST

START_TEST(counters_are_told_by_their_names)
{
    shm_count(&worker.row->backends[1].served, 7);
    shm_count(&worker.row->backends[1].response.bucket[2], 3);
    shm_count(&worker.row->listeners[2].codes[404 - 100], 2);
    shm_count(&worker.row->listeners[2].codes[503 - 100], 1);
    shm_count(&worker.row->listeners[2].codes[SHM_CODES - 1], 1);
    shm_count(&worker.row->failures[REASON_queue_full], 4);
    struct json_object *root = status();
    struct json_object *b = backend_of(root, 0, 1);
    struct json_object *l = json_object_array_get_idx(get(root, "listeners"), 0);
    expect_number(b, "served", 7);
    ck_assert_int_eq(json_object_get_int(json_object_array_get_idx(get(b, "response_buckets"), 2)),
                     3);
    expect_number(get(l, "codes"), "4xx", 2);
    expect_number(get(l, "codes"), "5xx", 1);
    expect_number(l, "requests", 4);
    expect_number(get(root, "failures"), "queue_full", 4);
    ck_assert(!json_object_object_get_ex(get(root, "failures"), "denied", NULL));
    json_object_put(root);
}
END_TEST

START_TEST(probe_results_with_anything_in_them_are_text)
{
    const char *hostile = "</script><img src=x>\"\\\x01\x7f\xff\n";
    snprintf(monitor.h->backends[0].last, sizeof(monitor.h->backends[0].last), "%s", hostile);
    shm_health_set(&monitor, 0, SHM_HEALTH_DOWN);
    struct json_object *root = status();
    expect_text(backend_of(root, 0, 0), "last", "</script><img src=x>\"\\???\n");
    expect_text(backend_of(root, 0, 0), "why", "down: </script><img src=x>\"\\????");
    memset(monitor.h->backends[0].last, 'x', sizeof(monitor.h->backends[0].last));
    json_object_put(root);
    root = status();
    ck_assert_uint_eq(strlen(json_object_get_string(get(backend_of(root, 0, 0), "last"))),
                      sizeof(monitor.h->backends[0].last));
    json_object_put(root);
}
END_TEST

START_TEST(control_characters_are_escaped)
{
    char *text = NULL;
    size_t len;
    struct json_out j = {.out = open_memstream(&text, &len)};
    json_out_open(&j, NULL, '[');
    json_out_text(&j, NULL, "a\"b\\c\n\t\x1f");
    json_out_open(&j, NULL, '{');
    json_out_bool(&j, "yes", true);
    json_out_bool(&j, "no", false);
    json_out_close(&j, '}');
    json_out_number(&j, NULL, UINT64_MAX);
    json_out_close(&j, ']');
    fclose(j.out);
    ck_assert_str_eq(text, "[\"a\\\"b\\\\c\\u000a\\u0009\\u001f\",{\"yes\":true,\"no\":false},"
                           "18446744073709551615]");
    free(text);
}
END_TEST

/* ---- usable ---- */

START_TEST(a_backend_without_fault_is_usable)
{
    struct json_object *root = status();
    ck_assert(json_object_get_boolean(get(backend_of(root, 0, 0), "usable")));
    ck_assert(!json_object_object_get_ex(backend_of(root, 0, 0), "why", NULL));
    json_object_put(root);
}
END_TEST

START_TEST(what_the_operator_says_comes_first_with_its_time)
{
    shm_health_set(&monitor, 0, SHM_HEALTH_DOWN);
    shm_set(&master.m->operators[0].state, 1 + CONF_MAINT);
    shm_set(&master.m->operators[0].weight, 9);
    shm_set(&master.m->operators[0].said_us, 1700000000u * UINT64_C(1000000));
    struct json_object *root = status();
    struct json_object *b = backend_of(root, 0, 0);
    expect_text(b, "why", "maint, says the operator");
    expect_text(b, "reason", "no_backend");
    expect_text(get(get(b, "operator"), "state"), "file", "ready");
    expect_number(get(get(b, "operator"), "weight"), "operator", 9);
    expect_number(b, "operator_since", 1700000000);
    json_object_put(root);
}
END_TEST

START_TEST(an_open_breaker_is_told_with_its_counts)
{
    struct breaker *breaker = &master.s->backends[2].breaker;
    breaker_report(breaker, &rules, clock_mono_ms(), 0, true, true);
    struct json_object *root = status();
    struct json_object *b = backend_of(root, 1, 0);
    expect_text(b, "breaker", "open");
    expect_text(b, "reason", "breaker_open");
    expect_text(b, "why", "its breaker is open");
    int64_t left = json_object_get_int64(get(b, "breaker_open_ms"));
    ck_assert(left > 0 && left <= 10000);
    ck_assert(!json_object_object_get_ex(backend_of(root, 0, 0), "breaker", NULL));
    json_object_put(root);
}
END_TEST

static void
open_connections(unsigned slot, unsigned open, unsigned active)
{
    shm_set(&worker.row->ledger.backends_open[slot], open);
    shm_set(&worker.row->ledger.backends_active[slot], active);
    shm_set(&worker.row->ledger.upstreams_open[0], open);
}

START_TEST(a_backend_is_full_when_every_connection_is_busy)
{
    char why[USABLE_WHY_MAX];
    backends[0].max_connections = 4;
    open_connections(0, 4, 3);
    ck_assert_int_eq(usable_judge(&monitor, &backends[0], why), REASON_none);
    open_connections(0, 4, 4);
    ck_assert_int_eq(usable_judge(&monitor, &backends[0], why), REASON_over_limit);
    ck_assert_str_eq(why, "has its 4 connections");
    backends[0].max_connections = 0;
    upstreams[0].max_connections = 4;
    ck_assert_int_eq(usable_judge(&monitor, &backends[0], why), REASON_over_limit);
    ck_assert_str_eq(why, "its upstream has its 4 connections");
    upstreams[0].protocol = CONF_H2; /* streams have room where connections have none */
    ck_assert_int_eq(usable_judge(&monitor, &backends[0], why), REASON_none);
}
END_TEST

/* ---- verdicts ---- */

static void
add_verdict(uint64_t gen, const char *why)
{
    struct verdict v = {
        .when_us = gen * 1000, .gen = gen, .is_ok = *why == '\0', .cause = "SIGHUP"};
    snprintf(v.why, sizeof(v.why), "%s", why);
    shm_verdict_add(&master, &v);
}

START_TEST(before_the_first_verdict_there_is_none)
{
    struct verdict v;
    ck_assert(!shm_verdict_read(&monitor, 0, &v));
    add_verdict(1, "");
    ck_assert(shm_verdict_read(&monitor, 0, &v));
    ck_assert(!shm_verdict_read(&monitor, 1, &v));
    ck_assert(v.number == 1 && v.is_ok && v.gen == 1);
    ck_assert_str_eq(v.cause, "SIGHUP");
}
END_TEST

START_TEST(the_last_sixteen_verdicts_are_kept)
{
    struct verdict v;
    for (uint64_t gen = 1; gen <= 40; gen++) {
        add_verdict(gen, gen % 2 ? "akashd.json:1:2: \x1b[31mwrong" : "");
    }
    for (unsigned age = 0; age < SHM_VERDICTS; age++) {
        ck_assert(shm_verdict_read(&monitor, age, &v));
        ck_assert_uint_eq(v.number, 40 - age);
        ck_assert_uint_eq(v.gen, 40 - age);
        ck_assert_str_eq(v.why, v.gen % 2 ? "akashd.json:1:2: ?[31mwrong" : "");
    }
    ck_assert(!shm_verdict_read(&monitor, SHM_VERDICTS, &v));
    struct json_object *root = status();
    struct json_object *history = get(get(root, "reload"), "history");
    ck_assert_uint_eq(json_object_array_length(history), SHM_VERDICTS);
    expect_number(json_object_array_get_idx(history, 0), "number", 40);
    json_object_put(root);
}
END_TEST

START_TEST(a_verdict_being_written_is_not_read)
{
    struct verdict v;
    add_verdict(1, "");
    shm_set(&master.m->verdicts[0].number, 0);
    ck_assert(!shm_verdict_read(&monitor, 0, &v));
}
END_TEST

/* ---- the page ---- */

/* The policy must have the hash of what stands between these tags. */
static void
expect_hash(const char *page, const char *fields, const char *open, const char *close)
{
    char text[64] = "'sha256-";
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n;
    const char *from = strstr(page, open), *to = strstr(page, close);
    ck_assert(from && to && from < to);
    from += strlen(open);
    ck_assert_ptr_null(strstr(from, open)); /* there is no other */
    EVP_Digest(from, (size_t)(to - from), digest, &n, EVP_sha256(), NULL);
    EVP_EncodeBlock((unsigned char *)text + strlen(text), digest, (int)n);
    ck_assert_msg(strstr(fields, text) != NULL, "no %s in %s", text, fields);
}

START_TEST(the_policy_admits_what_the_page_has_and_nothing_else)
{
    size_t len;
    const char *fields;
    char *page = status_page_make(&len, &fields);
    ck_assert_ptr_nonnull(page);
    ck_assert_uint_eq(len, strlen(page));
    expect_hash(page, fields, "<style>", "</style>");
    expect_hash(page, fields, "<script>", "</script>");
    ck_assert_ptr_nonnull(strstr(fields, "default-src 'none';"));
    ck_assert_ptr_null(strstr(fields, "unsafe"));
    ck_assert_ptr_null(strstr(page, "{style}"));
    ck_assert_ptr_null(strstr(page, "innerHTML"));
    free(page);
}
END_TEST

Suite *
status_suite(void)
{
    Suite *suite = suite_create("status");
    TCase *tc = tcase_create("status");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, steps_of_any_size_make_the_same_text);
    tcase_add_test(tc, nothing_configured_is_still_an_object);
    tcase_add_test(tc, a_text_cut_short_is_none);
    tcase_add_test(tc, counters_are_told_by_their_names);
    tcase_add_test(tc, probe_results_with_anything_in_them_are_text);
    tcase_add_test(tc, control_characters_are_escaped);
    tcase_add_test(tc, a_backend_without_fault_is_usable);
    tcase_add_test(tc, what_the_operator_says_comes_first_with_its_time);
    tcase_add_test(tc, an_open_breaker_is_told_with_its_counts);
    tcase_add_test(tc, a_backend_is_full_when_every_connection_is_busy);
    tcase_add_test(tc, before_the_first_verdict_there_is_none);
    tcase_add_test(tc, the_last_sixteen_verdicts_are_kept);
    tcase_add_test(tc, a_verdict_being_written_is_not_read);
    tcase_add_test(tc, the_policy_admits_what_the_page_has_and_nothing_else);
    suite_add_tcase(suite, tc);
    return suite;
}
