/* SPDX-License-Identifier: Apache-2.0
 *
 * test_master_pure.c - the master's pure parts: command line, control requests, messages to the
 * service manager, waits before a respawn, keys that stand fast, advice about the machine.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/advice.h"
#include "master/backoff.h"
#include "master/cmdline.h"
#include "master/control_request.h"
#include "master/notify.h"
#include "master/reload.h"
#include "t/unit/suites.h"

/* ---- command line ---- */

#define ARGS_MAX 8
static struct cmdline line;
static char why[256];

/* Words apart by one space, as a shell would give them; -1 or 0. */
static int
parse(const char *words)
{
    static char copy[256];
    char *argv[ARGS_MAX + 1] = {"akashd"};
    int argc = 1;
    snprintf(copy, sizeof(copy), "%s", words);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        ck_assert_int_lt(argc, ARGS_MAX);
        argv[argc++] = word;
    }
    return cmdline_parse(argc, argv, &line, why, sizeof(why));
}

START_TEST(config_has_four_spellings)
{
    static const char *const spellings[] = {"-c f.json", "--config f.json", "-config f.json",
                                            "-config=f.json"};
    for (size_t i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++) {
        ck_assert_int_eq(parse(spellings[i]), 0);
        ck_assert_str_eq(line.config, "f.json");
        ck_assert_int_eq(line.action, CMDLINE_RUN);
    }
}
END_TEST

START_TEST(flags_are_taken_in_any_order)
{
    ck_assert_int_eq(parse("-D -p run.pid -config f.json"), 0);
    ck_assert(line.is_daemon);
    ck_assert_str_eq(line.pid_file, "run.pid");
    ck_assert_str_eq(line.config, "f.json");
    ck_assert_int_eq(parse("-c f.json -t"), 0);
    ck_assert_int_eq(line.action, CMDLINE_CHECK);
    ck_assert(!line.is_daemon);
    ck_assert_int_eq(parse("-Tc f.json"), 0);
    ck_assert_int_eq(line.action, CMDLINE_PRINT_CONF);
}
END_TEST

START_TEST(printing_needs_no_configuration)
{
    ck_assert_int_eq(parse("--print-schema"), 0);
    ck_assert_int_eq(line.action, CMDLINE_PRINT_SCHEMA);
    ck_assert_int_eq(parse("--print-manual"), 0);
    ck_assert_int_eq(line.action, CMDLINE_PRINT_MANUAL);
    ck_assert_int_eq(parse("-v"), 0);
    ck_assert_int_eq(line.action, CMDLINE_VERSION);
    ck_assert_int_eq(parse("-V"), 0);
    ck_assert_int_eq(line.action, CMDLINE_BUILD);
    ck_assert_int_eq(parse("-t -h"), 0);
    ck_assert_int_eq(line.action, CMDLINE_HELP);
}
END_TEST

START_TEST(wrong_usage_names_what_is_wrong)
{
    static const struct {
        const char *words, *why;
    } wrong[] = {
        {"-x", "-x"},
        {"-tx", "-x"},
        {"--nonsense", "--nonsense"},
        {"-c", "-c"},
        {"--config", "--config"},
        {"-t", "no configuration"},
        {"-c f.json more", "more"},
        {"--demo -c f.json", "--demo"},
        {"--demo -t", "no configuration"},
        {"--demo -T", "no configuration"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_assert_int_eq(parse(wrong[i].words), -1);
        ck_assert_msg(strstr(why, wrong[i].why), "%s: %s", wrong[i].words, why);
    }
}
END_TEST

/* ---- control requests ---- */

static enum control_command
request(const char *text)
{
    struct control_request parsed;
    why[0] = '\0';
    enum control_command command =
        control_request_parse(slice_from_str(text), &parsed, why, sizeof(why));
    control_request_fini(&parsed);
    return command;
}

START_TEST(requests_that_are_known)
{
    ck_assert_int_eq(request("{\"command\":\"reload\"}"), CONTROL_RELOAD);
    ck_assert_int_eq(request(" { \"command\" : \"status\" }"), CONTROL_STATUS);
    ck_assert_int_eq(request("{\"command\":\"stop\"}"), CONTROL_STOP);
    ck_assert_int_eq(request("{\"command\":\"drain\",\"backend\":\"a/b:80\"}"), CONTROL_DRAIN);
    ck_assert_int_eq(request("{\"command\":\"breaker\",\"backend\":\"a/b:80\",\"state\":\"open\"}"),
                     CONTROL_BREAKER);
    ck_assert_int_eq(request("{\"command\":\"explain\",\"url\":\"http://a/\"}"), CONTROL_EXPLAIN);
    ck_assert_int_eq(request("{\"command\":\"diff\",\"name\":\"/f\",\"text\":\"{\\\"a\\\":1}\"}"),
                     CONTROL_DIFF);
}
END_TEST

START_TEST(anything_else_is_refused_with_a_reason)
{
    static const char *const bad[] = {
        "{\"command\": \"status\", \"command\": \"stop\"}",
        "",
        "{}",
        "[]",
        "5",
        "null",
        "{\"command\":\"reload\"",
        "{\"command\":\"reload\"} x",
        "{\"command\":\"Reload\"}",
        "{\"command\":\"reload\\u0000x\"}",
        "{\"command\":1}",
        "{\"command\":null}",
        "{\"command\":\"stop\",\"now\":true}",
        "{\"command\":\"drain\"}",
        "{\"command\":\"drain\",\"backend\":5}",
        "{\"command\":\"drain\",\"backend\":\"a\",\"backend\":\"b\"}",
        "{\"command\":\"drain\",\"backend\":\"a\",\"weight\":1}",
        "{\"command\":\"weight\",\"backend\":\"a\",\"weight\":\"1\"}",
        "{\"command\":\"weight\",\"backend\":\"a\",\"weight\":1.5}",
        "{\"command\":\"explain\",\"url\":[\"a\"]}",
        "{'command':'stop'}",
        "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(request(bad[i]) == CONTROL_BAD, "taken: %s", bad[i]);
        ck_assert_str_ne(why, "");
    }
}
END_TEST

START_TEST(refusals_name_the_member)
{
    static const struct {
        const char *line, *why;
    } cases[] = {
        {"{\"command\":\"diff\",\"text\":\"{}\"}", "diff: \"name\" is missing"},
        {"{\"command\":\"diff\",\"name\":\"/f\"}", "diff: \"text\" is missing"},
        {"{\"command\":\"diff\",\"name\":\"/f\",\"text\":null}", "\"text\": expected a text"},
        {"{\"command\":\"diff\",\"name\":\"/f\",\"text\":{}}", "\"text\": expected a text"},
        {"{\"command\":\"diff\",\"url\":\"http://a/\"}", "diff: takes no \"url\""},
        {"{\"command\":\"ready\"}", "ready: \"backend\" is missing"},
        {"{\"command\":\"drain\",\"backend\":5}", "\"backend\": expected a text"},
        {"{\"command\":\"maint\",\"backend\":\"a/b\",\"weight\":1}", "maint: takes no \"weight\""},
        {"{\"command\":\"weight\",\"weight\":1}", "weight: \"backend\" is missing"},
        {"{\"command\":\"weight\",\"backend\":\"a/b\"}", "weight: \"weight\" is missing"},
        {"{\"command\":\"weight\",\"backend\":\"a/b\",\"weight\":\"1\"}",
         "\"weight\": expected a whole number"},
        {"{\"command\":\"breaker\",\"backend\":\"a/b\"}", "breaker: \"state\" is missing"},
        {"{\"command\":\"breaker\",\"state\":\"open\"}", "breaker: \"backend\" is missing"},
        {"{\"command\":\"log\"}", "log: \"level\" is missing"},
        {"{\"command\":\"log\",\"level\":true}", "\"level\": expected a text"},
        {"{\"command\":\"explain\",\"host\":\"a\"}", "explain: \"url\" is missing"},
        {"{\"command\":\"explain\",\"url\":\"http://a/\",\"client\":7}",
         "\"client\": expected a text"},
        {"{\"command\":\"status\",\"name\":\"x\"}", "status: takes no \"name\""},
        {"{\"command\":\"stop\",\"now\":true}", "\"now\": no command takes it"},
        {"{\"command\":\"fly\"}", "unknown command"},
        {"{\"backend\":\"a/b\"}", "\"command\" is missing"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_int_eq(request(cases[i].line), CONTROL_BAD);
        ck_assert_str_eq(why, cases[i].why);
    }
}
END_TEST

/* ---- the service manager ---- */

START_TEST(messages_to_the_service_manager)
{
    char buf[128];
    struct notify_message ready = {.event = NOTIFY_READY, .status = "two\nlines", .main_pid = 42};
    ck_assert_uint_eq(notify_build(&ready, buf, sizeof(buf)), strlen(buf));
    ck_assert_str_eq(buf, "READY=1\nMAINPID=42\nSTATUS=two lines");
    struct notify_message reloading = {.event = NOTIFY_RELOADING, .mono_us = 1234567};
    notify_build(&reloading, buf, sizeof(buf));
    ck_assert_str_eq(buf, "RELOADING=1\nMONOTONIC_USEC=1234567\n");
    struct notify_message stopping = {.event = NOTIFY_STOPPING};
    notify_build(&stopping, buf, sizeof(buf));
    ck_assert_str_eq(buf, "STOPPING=1\n");
    struct notify_message watchdog = {.event = NOTIFY_WATCHDOG};
    notify_build(&watchdog, buf, sizeof(buf));
    ck_assert_str_eq(buf, "WATCHDOG=1\n");
}
END_TEST

START_TEST(message_is_cut_to_its_buffer)
{
    char buf[24];
    struct notify_message message = {.event = NOTIFY_STATUS,
                                     .status = "a status that is far too long"};
    size_t len = notify_build(&message, buf, sizeof(buf));
    ck_assert_uint_eq(len, sizeof(buf) - 1);
    ck_assert_str_eq(buf, "STATUS=a status that is");
}
END_TEST

/* ---- respawn ---- */

START_TEST(good_life_is_replaced_at_once)
{
    struct backoff b = {.early_deaths = 5};
    ck_assert_uint_eq(backoff_next(&b, true, BACKOFF_GOOD_MS), 0);
    ck_assert_uint_eq(b.early_deaths, 0);
}
END_TEST

START_TEST(early_deaths_wait_longer_and_longer)
{
    struct backoff served = {0}, never = {0};
    uint32_t before = 0;
    for (int i = 0; i < 100; i++) {
        uint32_t wait_ms = backoff_next(&never, false, 0);
        ck_assert_uint_ge(wait_ms, before);
        ck_assert_uint_le(wait_ms, BACKOFF_STARTUP_MAX_MS);
        before = wait_ms;
        /* A successor of one that served is due within a second. */
        ck_assert_uint_le(backoff_next(&served, true, 1), BACKOFF_SERVED_MAX_MS);
    }
    ck_assert_uint_eq(before, BACKOFF_STARTUP_MAX_MS);
}
END_TEST

/* ---- reload ---- */

START_TEST(keys_that_need_a_new_process)
{
    struct conf before = {.user = "a", .pid_file = "/p", .control = {.path = "/c", .mode = 0600}};
    struct conf after = before;
    ck_assert_ptr_null(reload_fixed_key(&before, &after));
    after.user = "b";
    ck_assert_str_eq(reload_fixed_key(&before, &after), "user");
    after = before;
    after.group = "g";
    ck_assert_str_eq(reload_fixed_key(&before, &after), "group");
    after = before;
    after.pid_file = NULL;
    ck_assert_str_eq(reload_fixed_key(&before, &after), "pid_file");
    after = before;
    after.control.mode = 0660;
    ck_assert_str_eq(reload_fixed_key(&before, &after), "control_socket");
    after = before;
    after.workers = 7;
    ck_assert_ptr_null(reload_fixed_key(&before, &after));
}
END_TEST

/* ---- advice ---- */

static unsigned
advise(const struct conf *conf, const struct advice_facts *facts)
{
    static char lines[ADVICE_MAX][ADVICE_TEXT_SIZE];
    unsigned n = advice_write(conf, facts, lines);
    size_t len = 0;
    why[0] = '\0';
    for (unsigned i = 0; i < n && len < sizeof(why); i++) {
        len += (size_t)snprintf(why + len, sizeof(why) - len, "%s", lines[i]);
    }
    return n;
}

START_TEST(advice_is_given_where_a_limit_is_met)
{
    struct conf_listener listeners[] = {{.name = "a", .backlog = 512},
                                        {.name = "b", .backlog = 4096}};
    struct conf conf = {.listeners = listeners, .nlisteners = 2, .workers = 2};
    struct advice_facts good = {.somaxconn = 4096, .tcp_migrate_req = 1, .open_files = 1048576};
    conf.max_connections = 1048576;
    ck_assert_uint_eq(advise(&conf, &good), 0);

    struct advice_facts facts = good;
    facts.somaxconn = 128;
    ck_assert_uint_eq(advise(&conf, &facts), 1);
    ck_assert_ptr_nonnull(
        strstr(why, "somaxconn is 128: it cuts the backlog of 4096 of listener b"));

    facts = good;
    facts.tcp_migrate_req = 0;
    ck_assert_uint_eq(advise(&conf, &facts), 1);
    ck_assert_ptr_nonnull(strstr(why, "tcp_migrate_req is 0"));

    facts = good;
    facts.open_files = 1024;
    conf.max_connections = 1024;
    ck_assert_uint_eq(advise(&conf, &facts), 1);
    ck_assert_ptr_nonnull(strstr(why, "limited to 1024 a process, and clients to 1024 by that"));
    conf.max_connections = 1000; /* somebody's choice */
    ck_assert_uint_eq(advise(&conf, &facts), 0);
}
END_TEST

START_TEST(advice_is_silent_about_what_it_cannot_see)
{
    struct conf_listener listeners[] = {{.name = "a", .backlog = 512}};
    struct conf conf = {.listeners = listeners, .nlisteners = 1, .workers = 1};
    struct advice_facts facts = {ADVICE_UNKNOWN, ADVICE_UNKNOWN, 1048576};
    ck_assert_uint_eq(advise(&conf, &facts), 0);
}
END_TEST

Suite *
master_pure_suite(void)
{
    Suite *suite = suite_create("master_pure");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, config_has_four_spellings);
    tcase_add_test(tc, flags_are_taken_in_any_order);
    tcase_add_test(tc, printing_needs_no_configuration);
    tcase_add_test(tc, wrong_usage_names_what_is_wrong);
    tcase_add_test(tc, requests_that_are_known);
    tcase_add_test(tc, anything_else_is_refused_with_a_reason);
    tcase_add_test(tc, refusals_name_the_member);
    tcase_add_test(tc, messages_to_the_service_manager);
    tcase_add_test(tc, message_is_cut_to_its_buffer);
    tcase_add_test(tc, good_life_is_replaced_at_once);
    tcase_add_test(tc, early_deaths_wait_longer_and_longer);
    tcase_add_test(tc, keys_that_need_a_new_process);
    tcase_add_test(tc, advice_is_given_where_a_limit_is_met);
    tcase_add_test(tc, advice_is_silent_about_what_it_cannot_see);
    suite_add_tcase(suite, tc);
    return suite;
}
