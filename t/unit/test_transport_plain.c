/* SPDX-License-Identifier: Apache-2.0
 *
 * test_transport_plain.c - bytes over a plain socket, and waking a process by its eventfd.
 */
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/child.h"
#include "shared/transport.h"
#include "t/unit/suites.h"

static struct transport t;
static int peer;

static void
open_pair(void)
{
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    transport_init_plain(&t, fds[0]);
    peer = fds[1];
}

static void
close_pair(void)
{
    t.ops->fini(&t);
    close(t.fd);
    close(peer);
}

static ssize_t
put(struct iovec *iov, int n)
{
    return t.ops->writev(&t, iov, n);
}

START_TEST(short_read_says_drained)
{
    char buf[8];
    ck_assert_int_eq(t.ops->handshake(&t), 1);
    ck_assert_int_eq(send(peer, "0123456789", 10, 0), 10);
    ck_assert_int_eq(t.ops->read(&t, buf, sizeof(buf)), 8);
    ck_assert(!(t.flags & TRANSPORT_DRAINED));
    ck_assert(!t.ops->pending(&t));
    ck_assert_int_eq(t.ops->read(&t, buf, sizeof(buf)), 2);
    ck_assert(t.flags & TRANSPORT_DRAINED);
    ck_assert_mem_eq(buf, "89", 2);
    ck_assert_int_eq(t.ops->read(&t, buf, sizeof(buf)), IO_AGAIN);
    ck_assert(t.flags & TRANSPORT_DRAINED);
    ck_assert_int_eq(send(peer, "01234567", 8, 0), 8);
    ck_assert_int_eq(t.ops->read(&t, buf, sizeof(buf)), 8);
    ck_assert(!(t.flags & TRANSPORT_DRAINED));
}
END_TEST

START_TEST(end_of_peer_is_eof)
{
    char buf[8];
    shutdown(peer, SHUT_WR);
    ck_assert_int_eq(t.ops->read(&t, buf, sizeof(buf)), IO_EOF);
}
END_TEST

START_TEST(pieces_are_gathered)
{
    char buf[16] = "";
    struct iovec iov[3] = {{"one ", 4}, {"two ", 4}, {"three", 5}};
    ck_assert_int_eq(put(iov, 3), 13);
    ck_assert_int_eq(recv(peer, buf, sizeof(buf), 0), 13);
    ck_assert_str_eq(buf, "one two three");
    ck_assert_int_eq(put(iov, 1), 4);
    ck_assert_int_eq(put(iov, 0), 0);
}
END_TEST

START_TEST(more_pieces_than_the_kernel_takes_are_cut)
{
    static struct iovec iov[1500];
    static char piece[64];
    for (int i = 0; i < 1500; i++) {
        iov[i] = (struct iovec){piece, sizeof(piece)};
    }
    ssize_t n = put(iov, 1500);
    ck_assert_int_gt(n, 0);
    ck_assert_int_lt(n, 1500 * (ssize_t)sizeof(piece));
}
END_TEST

/* What is joined before it is sent, and what is too long for that, arrives in order. */
START_TEST(pieces_of_any_size_arrive_in_order)
{
    static char sent[16384], got[sizeof(sent)];
    for (size_t i = 0; i < sizeof(sent); i++) {
        sent[i] = (char)(i % 251);
    }
    for (size_t len = 2; len <= sizeof(sent); len *= 2) {
        struct iovec iov[3] = {{sent, 1}, {sent + 1, len - 2}, {sent + len - 1, 1}};
        ck_assert_int_eq(put(iov, 3), (ssize_t)len);
        ck_assert_int_eq(recv(peer, got, sizeof(got), MSG_WAITALL | MSG_DONTWAIT), (ssize_t)len);
        ck_assert_mem_eq(got, sent, len);
    }
}
END_TEST

START_TEST(full_socket_says_again)
{
    static char block[65536];
    struct iovec iov[2] = {{block, sizeof(block)}, {block, sizeof(block)}};
    ssize_t n;
    int turns = 0;
    while ((n = put(iov, 2)) > 0) {
        ck_assert_int_lt(++turns, 1000);
    }
    ck_assert_int_eq(n, IO_AGAIN);
}
END_TEST

START_TEST(shutdown_is_seen_by_the_peer_and_the_other_way_stays)
{
    char buf[8];
    t.ops->shutdown(&t);
    ck_assert_int_eq(recv(peer, buf, sizeof(buf), 0), 0);
    ck_assert_int_eq(send(peer, "late", 4, 0), 4);
    ck_assert_int_eq(t.ops->read(&t, buf, sizeof(buf)), 4);
}
END_TEST

START_TEST(peer_that_is_gone_is_an_error_and_no_signal)
{
    struct iovec iov = {"x", 1};
    close(peer);
    ck_assert_int_eq(put(&iov, 1), IO_ERROR);
    peer = -1;
}
END_TEST

START_TEST(wake_is_seen_once_however_often)
{
    uint64_t count = 0;
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    child_wake(fd);
    child_wake(fd);
    ck_assert_int_eq(read(fd, &count, sizeof(count)), sizeof(count));
    ck_assert_uint_eq(count, 2);
    ck_assert_int_eq(read(fd, &count, sizeof(count)), -1);
    close(fd);
}
END_TEST

Suite *
transport_plain_suite(void)
{
    Suite *suite = suite_create("transport_plain");
    TCase *tc = tcase_create("transport_plain");
    tcase_add_checked_fixture(tc, open_pair, close_pair);
    tcase_add_test(tc, short_read_says_drained);
    tcase_add_test(tc, end_of_peer_is_eof);
    tcase_add_test(tc, pieces_are_gathered);
    tcase_add_test(tc, more_pieces_than_the_kernel_takes_are_cut);
    tcase_add_test(tc, pieces_of_any_size_arrive_in_order);
    tcase_add_test(tc, full_socket_says_again);
    tcase_add_test(tc, shutdown_is_seen_by_the_peer_and_the_other_way_stays);
    tcase_add_test(tc, peer_that_is_gone_is_an_error_and_no_signal);
    tcase_add_test(tc, wake_is_seen_once_however_often);
    suite_add_tcase(suite, tc);
    return suite;
}
