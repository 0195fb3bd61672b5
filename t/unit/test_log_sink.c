/* SPDX-License-Identifier: Apache-2.0
 *
 * test_log_sink.c - many lines to a target that is slow: none is torn, all are accounted for.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/log_sink.h"
#include "t/unit/suites.h"

#define LINE_BYTES 1000
#define NLINES     60

static char lines[NLINES * LINE_BYTES];
static char text[1 << 20];

static void
set_up(void)
{
    memset(lines, 'x', sizeof(lines));
    for (unsigned i = 0; i < NLINES; i++) {
        lines[i * LINE_BYTES] = '^';
        lines[(i + 1) * LINE_BYTES - 1] = '\n';
    }
}

/* How many whole lines are there; none is torn. */
static unsigned
read_whole_lines(int fd)
{
    size_t len = 0;
    ssize_t n;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    while ((n = read(fd, text + len, sizeof(text) - len)) > 0) {
        len += (size_t)n;
    }
    ck_assert_uint_eq(len % LINE_BYTES, 0);
    for (size_t at = 0; at < len; at += LINE_BYTES) {
        ck_assert_int_eq(memcmp(text + at, lines, LINE_BYTES), 0);
    }
    return (unsigned)(len / LINE_BYTES);
}

/* Batches that do not fit: this test would never end if a write waited. */
static void
expect_accounts(int reader, int writer)
{
    struct log_sink sink;
    unsigned given = 0, dropped = 0;
    log_sink_open(&sink, writer);
    for (unsigned i = 0; i < 20; i++) {
        given += NLINES;
        dropped += log_sink_put(&sink, lines, sizeof(lines));
    }
    ck_assert_uint_gt(dropped, NLINES);
    ck_assert_uint_lt(dropped, given);
    ck_assert_uint_eq(read_whole_lines(reader) + dropped, given);
    ck_assert_uint_eq(log_sink_put(&sink, lines, 3 * LINE_BYTES), 0);
    ck_assert_uint_eq(read_whole_lines(reader), 3);
}

START_TEST(pipe_that_others_may_use_takes_whole_lines)
{
    int fds[2];
    ck_assert_int_eq(pipe(fds), 0);
    expect_accounts(fds[0], fds[1]);
    ck_assert_int_eq(fcntl(fds[1], F_GETFL) & O_NONBLOCK, 0);
}
END_TEST

START_TEST(pipe_of_our_own_takes_whole_lines)
{
    int fds[2];
    ck_assert_int_eq(pipe2(fds, O_NONBLOCK), 0);
    expect_accounts(fds[0], fds[1]);
}
END_TEST

START_TEST(socket_takes_whole_lines)
{
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    expect_accounts(fds[0], fds[1]);
}
END_TEST

START_TEST(file_gets_all_in_one_write)
{
    struct log_sink sink;
    int fd = memfd_create("log", MFD_CLOEXEC);
    log_sink_open(&sink, fd);
    ck_assert_int_eq(sink.kind, LOG_SINK_FILE);
    ck_assert_uint_eq(log_sink_put(&sink, lines, sizeof(lines)), 0);
    lseek(fd, 0, SEEK_SET);
    ck_assert_uint_eq(read_whole_lines(fd), NLINES);
}
END_TEST

START_TEST(what_cannot_be_written_is_dropped)
{
    struct log_sink sink;
    log_sink_open(&sink, 9999);
    ck_assert_uint_eq(log_sink_put(&sink, lines, 2 * LINE_BYTES), 2);
}
END_TEST

START_TEST(line_behind_a_torn_one_is_its_own)
{
    struct log_sink sink;
    int fd = memfd_create("log", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    log_sink_open(&sink, fd);
    sink.is_torn = true; /* as a full disk leaves it */
    ck_assert_uint_eq(log_sink_put(&sink, "a\n", 2), 0);
    ck_assert_uint_eq(log_sink_put(&sink, "b\n", 2), 0);
    ck_assert_int_eq(pread(fd, text, sizeof(text), 0), 5);
    ck_assert_int_eq(memcmp(text, "\na\nb\n", 5), 0);
}
END_TEST

Suite *
log_sink_suite(void)
{
    Suite *suite = suite_create("log_sink");
    TCase *tc = tcase_create("log_sink");
    tcase_add_checked_fixture(tc, set_up, NULL);
    tcase_add_test(tc, pipe_that_others_may_use_takes_whole_lines);
    tcase_add_test(tc, pipe_of_our_own_takes_whole_lines);
    tcase_add_test(tc, socket_takes_whole_lines);
    tcase_add_test(tc, file_gets_all_in_one_write);
    tcase_add_test(tc, what_cannot_be_written_is_dropped);
    tcase_add_test(tc, line_behind_a_torn_one_is_its_own);
    suite_add_tcase(suite, tc);
    return suite;
}
