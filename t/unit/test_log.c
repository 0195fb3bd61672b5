/* SPDX-License-Identifier: Apache-2.0
 *
 * test_log.c - the lines of the error log, and that writing them never waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shared/log.h"
#include "t/unit/expect.h"
#include "t/unit/suites.h"

#define TIME "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}[+-][0-9]{2}:[0-9]{2}"

static int file;
static char text[16384];

static void
open_log(void)
{
    file = memfd_create("log", MFD_CLOEXEC);
    ck_assert_int_ge(file, 0);
    log_set_target(file, LOG_FORMAT_TEXT);
    log_set_process("worker 3");
}

static void
close_log(void)
{
    log_set_target(LOG_TO_STDERR, LOG_FORMAT_TEXT);
    close(file);
}

static const char *
written(void)
{
    ssize_t n = pread(file, text, sizeof(text) - 1, 0);
    ck_assert_int_ge(n, 0);
    text[n] = '\0';
    return text;
}

START_TEST(line_has_time_level_process_and_event)
{
    log_warn("backend %s: %s", "web/10.0.0.1:80", "connect timeout");
    expect_match(written(),
                 "^" TIME " warn worker 3: backend web/10\\.0\\.0\\.1:80: connect timeout\n$");
}
END_TEST

START_TEST(zone_is_local)
{
    setenv("TZ", "XXX-5:30", 1);
    log_info("x");
    expect_match(written(), "\\+05:30 info worker 3: x\n$");
}
END_TEST

static void
format_utc(char *buf, size_t size)
{
    struct timespec now; /* time() is some milliseconds behind it */
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    strftime(buf, size, "%Y-%m-%dT%H:%M:%S", gmtime_r(&now.tv_sec, &tm));
}

START_TEST(signal_handlers_write_utc)
{
    char before[32], after[32], all[64];
    setenv("TZ", "XXX-5:30", 1);
    format_utc(before, sizeof(before));
    log_write_in_signal(LOG_LEVEL_ERROR, "a \x01 call");
    format_utc(after, sizeof(after));
    snprintf(all, sizeof(all), "%.19s", written());
    ck_assert_str_ge(all, before);
    ck_assert_str_le(all, after);
    expect_match(text, "^.{19}\\.[0-9]{3}\\+00:00 error worker 3: a \\\\x01 call\n$");
}
END_TEST

START_TEST(signal_handlers_write_the_format_of_the_log)
{
    log_set_target(file, LOG_FORMAT_JSON);
    log_write_in_signal(LOG_LEVEL_ERROR, "a call");
    expect_match(written(),
                 "^\\{\"time\":\"" TIME "\",\"level\":\"error\",\"process\":\"worker 3\","
                 "\"message\":\"a call\"\\}\n$");
}
END_TEST

START_TEST(levels_above_are_silent)
{
    log_set_level(LOG_LEVEL_WARN);
    log_info("no");
    log_debug("no");
    ck_assert_str_eq(written(), "");
    log_error("yes");
    expect_match(written(), " error worker 3: yes\n$");
    ck_assert(!log_is_on(LOG_LEVEL_INFO));
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("deep");
    expect_match(written(), " debug worker 3: deep\n$");
}
END_TEST

START_TEST(what_is_not_printable_is_escaped)
{
    log_error("a\nb\x1b[31m \xc3\xa9 \"q\" \\");
    expect_match(written(), ": a\\\\x0ab\\\\x1b\\[31m \\\\xc3\\\\xa9 \"q\" \\\\\n$");
}
END_TEST

START_TEST(json_line_is_json)
{
    log_set_target(file, LOG_FORMAT_JSON);
    log_error("a\nb \"q\" \\");
    expect_match(written(),
                 "^\\{\"time\":\"" TIME "\",\"level\":\"error\",\"process\":\"worker 3\","
                 "\"message\":\"a\\\\\\\\x0ab \\\\\"q\\\\\" \\\\\\\\\"\\}\n$");
}
END_TEST

/* Events of n bytes that need escapes. */
static void
log_long(size_t n)
{
    char *event = malloc(n + 1);
    memset(event, '\x01', n);
    event[n] = '\0';
    log_error("%s", event);
    free(event);
}

START_TEST(line_is_cut_at_its_limit)
{
    log_long(10000);
    size_t len = strlen(written());
    ck_assert_uint_le(len, 4096);
    ck_assert_uint_gt(len, 4096 - 5);
    ck_assert_str_eq(text + len - 5, "\\x01\n");
}
END_TEST

START_TEST(json_line_that_is_cut_still_ends)
{
    log_set_target(file, LOG_FORMAT_JSON);
    log_long(10000);
    size_t len = strlen(written());
    ck_assert_uint_le(len, 4096);
    ck_assert_str_eq(text + len - 8, "\\\\x01\"}\n");
}
END_TEST

static void
name_journal(int fd)
{
    struct stat st;
    char stream[64];
    fstat(fd, &st);
    snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
}

START_TEST(journal_gets_a_priority_and_no_time)
{
    name_journal(file);
    log_set_target(file, LOG_FORMAT_TEXT);
    log_error("bad");
    log_info("good");
    ck_assert_str_eq(written(), "<3>error worker 3: bad\n<6>info worker 3: good\n");
}
END_TEST

START_TEST(journal_of_another_stream_is_none)
{
    name_journal(0);
    log_set_target(file, LOG_FORMAT_TEXT);
    log_error("bad");
    expect_match(written(), "^" TIME " error");
}
END_TEST

/* Lines until the target is full; how many went in. */
static unsigned
fill(void)
{
    unsigned n = 0;
    while (log_dropped() == 0) {
        log_info("line %u", n++);
        ck_assert_uint_lt(n, 1000000);
    }
    return n - 1;
}

static void
drain(int fd)
{
    ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    while (read(fd, text, sizeof(text)) > 0) {
    }
}

static void
expect_drops_are_told(int target, int reader)
{
    log_set_target(target, LOG_FORMAT_TEXT);
    ck_assert_uint_gt(fill(), 10);
    log_info("lost");
    ck_assert_uint_eq(log_dropped(), 2);
    ck_assert_int_eq(fcntl(target, F_GETFL) & O_NONBLOCK, 0);
    drain(reader);
    log_info("back");
    ssize_t n = read(reader, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    expect_match(text, " info worker 3: back\n.* warn worker 3: log: 2 lines dropped");
    log_info("again");
    n = read(reader, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    expect_match(text, "^" TIME " info worker 3: again\n$");
}

START_TEST(full_pipe_drops_counts_and_tells)
{
    int fds[2];
    ck_assert_int_eq(pipe(fds), 0);
    expect_drops_are_told(fds[1], fds[0]);
}
END_TEST

START_TEST(full_socket_drops_counts_and_tells)
{
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    expect_drops_are_told(fds[1], fds[0]);
}
END_TEST

START_TEST(errno_survives)
{
    log_set_target(9999, LOG_FORMAT_TEXT);
    errno = EXDEV;
    log_error("nowhere");
    ck_assert_int_eq(errno, EXDEV);
}
END_TEST

START_TEST(limit_passes_one_in_an_interval)
{
    struct log_limit limit = {0};
    uint64_t suppressed = 99;
    ck_assert(log_limit_pass(&limit, 1000, 60000, &suppressed));
    ck_assert_uint_eq(suppressed, 0);
    ck_assert(!log_limit_pass(&limit, 1001, 60000, &suppressed));
    ck_assert(!log_limit_pass(&limit, 60999, 60000, &suppressed));
    ck_assert(log_limit_pass(&limit, 61000, 60000, &suppressed));
    ck_assert_uint_eq(suppressed, 2);
    ck_assert(log_limit_pass(&limit, 121000, 60000, &suppressed));
    ck_assert_uint_eq(suppressed, 0);
}
END_TEST

START_TEST(escape_is_for_quoted_text)
{
    char buf[64];
    size_t n = log_escape(slice_of("a\"\\\0\x7f~ ", 7), buf, sizeof(buf));
    ck_assert_str_eq(buf, "a\\x22\\x5c\\x00\\x7f~ ");
    ck_assert_uint_eq(n, strlen(buf));
}
END_TEST

START_TEST(escape_never_overruns_nor_cuts_an_escape)
{
    char buf[8];
    memset(buf, '#', sizeof(buf));
    ck_assert_uint_eq(log_escape(SLICE("ab\n\n"), buf, 7), 6);
    ck_assert_str_eq(buf, "ab\\x0a");
    ck_assert_int_eq(buf[7], '#');
    ck_assert_uint_eq(log_escape(SLICE("ab\n"), buf, 6), 2);
    ck_assert_uint_eq(log_escape(SLICE("ab"), buf, 1), 0);
    ck_assert_str_eq(buf, "");
}
END_TEST

Suite *
log_suite(void)
{
    Suite *suite = suite_create("log");
    TCase *tc = tcase_create("log");
    tcase_add_checked_fixture(tc, open_log, close_log);
    tcase_add_test(tc, line_has_time_level_process_and_event);
    tcase_add_test(tc, zone_is_local);
    tcase_add_test(tc, signal_handlers_write_utc);
    tcase_add_test(tc, signal_handlers_write_the_format_of_the_log);
    tcase_add_test(tc, levels_above_are_silent);
    tcase_add_test(tc, what_is_not_printable_is_escaped);
    tcase_add_test(tc, json_line_is_json);
    tcase_add_test(tc, line_is_cut_at_its_limit);
    tcase_add_test(tc, json_line_that_is_cut_still_ends);
    tcase_add_test(tc, journal_gets_a_priority_and_no_time);
    tcase_add_test(tc, journal_of_another_stream_is_none);
    tcase_add_test(tc, full_pipe_drops_counts_and_tells);
    tcase_add_test(tc, full_socket_drops_counts_and_tells);
    tcase_add_test(tc, errno_survives);
    tcase_add_test(tc, limit_passes_one_in_an_interval);
    tcase_add_test(tc, escape_is_for_quoted_text);
    tcase_add_test(tc, escape_never_overruns_nor_cuts_an_escape);
    suite_add_tcase(suite, tc);
    return suite;
}
