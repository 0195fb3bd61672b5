/* SPDX-License-Identifier: Apache-2.0
 *
 * test_metrics.c - the Prometheus page and readiness, from a segment that the test makes.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "master/metrics.h"
#include "master/process_stat.h"
#include "master/readyz.h"
#include "shared/clock.h"
#include "t/unit/suites.h"

/* The segment as the master and two workers map it. */
static struct shm master, workers[2], monitor;

static struct conf_backend backends[2];
static struct conf_upstream upstream;
static struct conf_listener listener;
static struct conf conf;

static void
setup(void)
{
    ck_assert_int_eq(shm_create(&master), 0);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(shm_map(&workers[i], master.fd, SHM_ROLE_WORKER, i), 0);
        shm_set(&workers[i].row->heartbeat_ms, 1);
        shm_set(&master.m->workers[i].pid, (uint64_t)getpid());
        shm_set(&master.m->workers[i].state, SHM_CHILD_SERVING);
    }
    ck_assert_int_eq(shm_map(&monitor, master.fd, SHM_ROLE_MONITOR, 0), 0);
    upstream = (struct conf_upstream){.name = "site", .backends = backends, .nbackends = 2};
    backends[0] = (struct conf_backend){.id = "10.0.0.1:80", .slot = 3, .upstream = &upstream};
    backends[1] =
        (struct conf_backend){.id = "unix:/a\"b\\c\nd", .slot = 16383, .upstream = &upstream};
    listener = (struct conf_listener){.name = "web", .slot = 2};
    conf = (struct conf){.refs = 1000,
                         .listeners = &listener,
                         .nlisteners = 1,
                         .upstreams = &upstream,
                         .nupstreams = 1};
}

static void
teardown(void)
{
    shm_unmap(&monitor);
    shm_unmap(&workers[0]);
    shm_unmap(&workers[1]);
    shm_unmap(&master);
}

static char *
render(unsigned items_a_step)
{
    size_t len;
    struct metrics *m = metrics_begin(&monitor, &conf);
    while (!metrics_step(m, items_a_step)) {
    }
    char *text = metrics_take(m, &len);
    ck_assert_ptr_nonnull(text);
    ck_assert_uint_eq(len, strlen(text));
    return text;
}

/* Is this a whole line of the page? */
static void
expect_line(const char *page, const char *line)
{
    size_t len = strlen(line);
    for (const char *p = page; (p = strstr(p, line)); p++) {
        if ((p == page || p[-1] == '\n') && p[len] == '\n') {
            return;
        }
    }
    ck_abort_msg("no line \"%s\" in:\n%s", line, page);
}

START_TEST(counters_are_sums_over_rows)
{
    shm_count(&workers[0].row->client_in, 1000);
    shm_count(&workers[1].row->client_in, 24);
    shm_count(&workers[0].row->backends[3].served, 5);
    shm_count(&workers[1].row->backends[3].served, 6);
    shm_count(&workers[1].row->listeners[2].connections, 9);
    char *page = render(1000);
    expect_line(page, "akash_bytes_total{direction=\"client_in\"} 1024");
    expect_line(page, "akash_bytes_total{direction=\"backend_out\"} 0");
    expect_line(page, "akash_backend_served_total{upstream=\"site\",backend=\"10.0.0.1:80\"} 11");
    expect_line(page, "akash_connections_total{listener=\"web\"} 9");
    free(page);
}
END_TEST

START_TEST(counters_stay_when_a_worker_has_ended)
{
    shm_count(&workers[1].row->backends[3].failures, 4);
    shm_set(&master.m->workers[1].pid, 0);
    char *page = render(1000);
    expect_line(page, "akash_backend_failures_total{upstream=\"site\",backend=\"10.0.0.1:80\"} 4");
    expect_line(page, "akash_workers 1");
    free(page);
}
END_TEST

START_TEST(gauges_are_those_of_live_workers)
{
    for (unsigned i = 0; i < 2; i++) {
        struct shm_row *row = workers[i].row;
        shm_gauge_add(row,
                      (struct shm_gauge){&workers[i].s->connections, &row->ledger.connections});
        shm_gauge_add(row, (struct shm_gauge){&workers[i].s->backends[3].active,
                                              &row->ledger.backends_active[3]});
    }
    char *page = render(1000);
    expect_line(page, "akash_active_connections 2");
    expect_line(page,
                "akash_backend_active_connections{upstream=\"site\",backend=\"10.0.0.1:80\"} 2");
    free(page);
    shm_set(&master.m->workers[1].pid, 0);
    page = render(1000);
    expect_line(page, "akash_active_connections 1");
    free(page);
}
END_TEST

START_TEST(dropped_lines_are_those_of_all_processes)
{
    shm_count(&workers[0].row->log_dropped, 3);
    shm_count(&workers[1].row->log_dropped, 20);
    shm_count(&master.m->log_dropped, 100);
    shm_count(&monitor.h->log_dropped, 5000);
    char *page = render(1000);
    expect_line(page, "akash_log_lines_dropped_total 5123");
    free(page);
}
END_TEST

START_TEST(labels_are_escaped)
{
    char *page = render(1000);
    expect_line(page, "akash_backend_up{upstream=\"site\",backend=\"unix:/a\\\"b\\\\c\\nd\"} 1");
    free(page);
}
END_TEST

START_TEST(up_follows_the_health_state)
{
    shm_health_set(&monitor, 3, SHM_HEALTH_DOWN);
    shm_health_set(&monitor, 16383, SHM_HEALTH_UP);
    char *page = render(1000);
    expect_line(page, "akash_backend_up{upstream=\"site\",backend=\"10.0.0.1:80\"} 0");
    expect_line(page, "akash_backend_up{upstream=\"site\",backend=\"unix:/a\\\"b\\\\c\\nd\"} 1");
    free(page);
}
END_TEST

START_TEST(histogram_buckets_are_cumulative)
{
    struct shm_histogram *h = &workers[0].row->backends[3].response;
    shm_observe(h, 500);      /* le 0.0005 */
    shm_observe(h, 700);      /* le 0.001 */
    shm_observe(h, 61000000); /* +Inf */
    char *page = render(1000);
#define NAME "akash_backend_response_seconds"
#define WHO  "upstream=\"site\",backend=\"10.0.0.1:80\""
    expect_line(page, "# TYPE " NAME " histogram");
    expect_line(page, NAME "_bucket{" WHO ",le=\"0.0005\"} 1");
    expect_line(page, NAME "_bucket{" WHO ",le=\"0.001\"} 2");
    expect_line(page, NAME "_bucket{" WHO ",le=\"2.5\"} 2");
    expect_line(page, NAME "_bucket{" WHO ",le=\"60\"} 2");
    expect_line(page, NAME "_bucket{" WHO ",le=\"+Inf\"} 3");
    expect_line(page, NAME "_sum{" WHO "} 61.001200");
    expect_line(page, NAME "_count{" WHO "} 3");
    free(page);
}
END_TEST

START_TEST(only_seen_statuses_are_listed)
{
    shm_count(&workers[0].row->listeners[2].codes[0], 1);             /* 100 */
    shm_count(&workers[0].row->listeners[2].codes[503 - 100], 7);     /* 503 */
    shm_count(&workers[0].row->listeners[2].codes[SHM_CODES - 1], 2); /* other */
    char *page = render(1000);
    expect_line(page, "akash_requests_total{listener=\"web\",code=\"100\"} 1");
    expect_line(page, "akash_requests_total{listener=\"web\",code=\"503\"} 7");
    expect_line(page, "akash_requests_total{listener=\"web\",code=\"other\"} 2");
    ck_assert_ptr_null(strstr(page, "code=\"200\""));
    free(page);
}
END_TEST

START_TEST(every_reason_is_listed)
{
    shm_count(&workers[1].row->failures[REASON_connect_timeout], 3);
    char *page = render(1000);
    expect_line(page, "akash_failures_total{reason=\"connect_timeout\"} 3");
    expect_line(page, "akash_failures_total{reason=\"drain_cut\"} 0");
    ck_assert_ptr_null(strstr(page, "reason=\"none\""));
    free(page);
}
END_TEST

START_TEST(confs_are_the_most_of_any_live_worker)
{
    shm_set(&workers[0].row->confs, 2);
    shm_set(&workers[1].row->confs, 3);
    ck_assert_uint_eq(metrics_confs(&monitor), 3);
    shm_set(&master.m->workers[1].pid, 0);
    ck_assert_uint_eq(metrics_confs(&monitor), 2);
}
END_TEST

/* The page without what differs from one moment to the next. */
static char *
without_process(char *page)
{
    char *from = strstr(page, "# HELP process_cpu_seconds_total");
    ck_assert_ptr_nonnull(from);
    *from = '\0';
    return page;
}

START_TEST(steps_make_the_same_page)
{
    shm_count(&workers[0].row->backends[3].served, 5);
    char *whole = without_process(render(100000)), *stepped = without_process(render(0));
    ck_assert_str_eq(whole, stepped);
    free(whole);
    free(stepped);
}
END_TEST

START_TEST(each_family_has_one_heading)
{
    char *page = render(1000);
    for (char *p = page; (p = strstr(p, "# TYPE ")); p++) {
        char heading[128];
        size_t len = strcspn(p, "\n");
        ck_assert_uint_lt(len, sizeof(heading));
        memcpy(heading, p, len);
        heading[len] = '\0';
        ck_assert_msg(!strstr(p + 1, heading), "twice: %s", heading);
    }
    free(page);
}
END_TEST

START_TEST(process_stat_adds_up_fields)
{
    const char *text = "42 (a b) c) S 1 42 42 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 1 0 "
                       "12345 1000000 77 18446744073709551615 1 1 0\n";
    uint64_t ticks, pages;
    ck_assert(process_stat_parse(text, false, &ticks, &pages));
    ck_assert_uint_eq(ticks, 33);
    ck_assert_uint_eq(pages, 77);
    ck_assert(process_stat_parse(text, true, &ticks, &pages));
    ck_assert_uint_eq(ticks, 110);
    ck_assert(!process_stat_parse("42 (x) S 1 2", false, &ticks, &pages));
    ck_assert(!process_stat_parse("", false, &ticks, &pages));
}
END_TEST

static int
ready(const char *query)
{
    char text[READYZ_TEXT_MAX];
    return readyz_judge(&monitor, &conf, slice_from_str(query), text);
}

START_TEST(ready_while_a_worker_accepts)
{
    ck_assert_int_eq(ready(""), 503);
    shm_set(&workers[1].row->is_accepting, 1);
    ck_assert_int_eq(ready(""), 200);
    shm_set(&master.m->workers[1].pid, 0);
    ck_assert_int_eq(ready(""), 503);
}
END_TEST

START_TEST(not_ready_while_draining)
{
    shm_set(&workers[0].row->is_accepting, 1);
    shm_set(&master.m->is_draining, 1);
    ck_assert_int_eq(ready(""), 503);
    ck_assert_int_eq(ready("all"), 503);
}
END_TEST

START_TEST(ready_upstreams_need_a_usable_backend)
{
    shm_set(&workers[0].row->is_accepting, 1);
    ck_assert_int_eq(ready("upstream=site"), 200);
    ck_assert_int_eq(ready("all"), 200);
    shm_health_set(&monitor, 3, SHM_HEALTH_DOWN);
    ck_assert_int_eq(ready("upstream=site"), 200);
    backends[1].state = CONF_MAINT;
    ck_assert_int_eq(ready("upstream=site"), 503);
    ck_assert_int_eq(ready("all"), 503);
    ck_assert_int_eq(ready(""), 200);
}
END_TEST

START_TEST(ready_upstreams_need_a_breaker_that_is_not_open)
{
    static const struct breaker_rules rules = {.window_ms = 10000,
                                               .min_requests = 1,
                                               .consecutive = 1,
                                               .open_for_ms = 1000000,
                                               .half_open_requests = 1};
    upstream.breaker = (struct breaker_rules *)&rules;
    shm_set(&workers[0].row->is_accepting, 1);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(ready("upstream=site"), 200);
        breaker_report(&master.s->backends[backends[i].slot].breaker, &rules, clock_mono_ms(), 0,
                       true, true);
    }
    ck_assert_int_eq(ready("upstream=site"), 503);
}
END_TEST

START_TEST(ready_upstreams_that_fail_open_heed_people_alone)
{
    upstream.fail_open = true;
    shm_set(&workers[0].row->is_accepting, 1);
    shm_health_set(&monitor, 3, SHM_HEALTH_DOWN);
    shm_health_set(&monitor, 16383, SHM_HEALTH_DOWN);
    ck_assert_int_eq(ready("upstream=site"), 200);
    backends[0].state = backends[1].state = CONF_MAINT;
    ck_assert_int_eq(ready("upstream=site"), 503);
}
END_TEST

START_TEST(ready_query_is_strict)
{
    shm_set(&workers[0].row->is_accepting, 1);
    ck_assert_int_eq(ready("upstream=s%69te"), 200);
    ck_assert_int_eq(ready("upstream=site&upstream=site"), 200);
    ck_assert_int_eq(ready("upstream=site&upstream=other"), 503);
    ck_assert_int_eq(ready("upstream=other"), 503);
    ck_assert_int_eq(ready("upstream="), 503);
    ck_assert_int_eq(ready("upstraem=site"), 400);
    ck_assert_int_eq(ready("upstream=s%6"), 400);
    ck_assert_int_eq(ready("upstream=%00"), 400);
    ck_assert_int_eq(ready("upstream=s%zzte"), 400);
}
END_TEST

Suite *
metrics_suite(void)
{
    Suite *suite = suite_create("metrics");
    TCase *page = tcase_create("page");
    tcase_add_checked_fixture(page, setup, teardown);
    tcase_add_test(page, counters_are_sums_over_rows);
    tcase_add_test(page, counters_stay_when_a_worker_has_ended);
    tcase_add_test(page, gauges_are_those_of_live_workers);
    tcase_add_test(page, labels_are_escaped);
    tcase_add_test(page, dropped_lines_are_those_of_all_processes);
    tcase_add_test(page, up_follows_the_health_state);
    tcase_add_test(page, histogram_buckets_are_cumulative);
    tcase_add_test(page, only_seen_statuses_are_listed);
    tcase_add_test(page, every_reason_is_listed);
    tcase_add_test(page, confs_are_the_most_of_any_live_worker);
    tcase_add_test(page, steps_make_the_same_page);
    tcase_add_test(page, each_family_has_one_heading);
    tcase_add_test(page, process_stat_adds_up_fields);
    suite_add_tcase(suite, page);
    TCase *ready_case = tcase_create("readyz");
    tcase_add_checked_fixture(ready_case, setup, teardown);
    tcase_add_test(ready_case, ready_while_a_worker_accepts);
    tcase_add_test(ready_case, not_ready_while_draining);
    tcase_add_test(ready_case, ready_upstreams_need_a_usable_backend);
    tcase_add_test(ready_case, ready_upstreams_need_a_breaker_that_is_not_open);
    tcase_add_test(ready_case, ready_upstreams_that_fail_open_heed_people_alone);
    tcase_add_test(ready_case, ready_query_is_strict);
    suite_add_tcase(suite, ready_case);
    return suite;
}
