/* SPDX-License-Identifier: Apache-2.0
 *
 * test_channel.c - messages, descriptors, queueing and nonsense over a channel.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/channel.h"
#include "t/unit/suites.h"

static struct channel a, b;

static void
open_pair(void)
{
    int fds[2];
    ck_assert_int_eq(channel_pair(fds), 0);
    channel_init(&a, fds[0]);
    channel_init(&b, fds[1]);
}

static void
close_pair(void)
{
    channel_fini(&a);
    channel_fini(&b);
}

static unsigned
count_fds(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

static struct channel_msg
message(uint64_t number, struct slice text, int fd)
{
    return (struct channel_msg){
        .type = CHANNEL_SOCKET, .gen = 7, .number = number, .fd = fd, .text = text};
}

START_TEST(message_arrives_whole)
{
    struct channel_msg in = message(42, SLICE("127.0.0.1:80"), -1), out;
    ck_assert_int_eq(channel_recv(&b, &out), 0);
    ck_assert_int_eq(channel_send(&a, &in), 0);
    ck_assert_int_eq(channel_recv(&b, &out), 1);
    ck_assert_int_eq(out.type, CHANNEL_SOCKET);
    ck_assert_uint_eq(out.gen, 7);
    ck_assert_uint_eq(out.number, 42);
    ck_assert_int_eq(out.fd, -1);
    ck_assert(slice_eq(out.text, SLICE("127.0.0.1:80")));
    ck_assert_int_eq(channel_recv(&b, &out), 0);
}
END_TEST

START_TEST(empty_and_longest_text_pass)
{
    char *text = malloc(CHANNEL_TEXT_MAX);
    memset(text, 'x', CHANNEL_TEXT_MAX);
    struct channel_msg in = message(1, slice_of(NULL, 0), -1), out;
    ck_assert_int_eq(channel_send(&a, &in), 0);
    in.text = slice_of(text, CHANNEL_TEXT_MAX);
    ck_assert_int_eq(channel_send(&a, &in), 0);
    ck_assert_int_eq(channel_recv(&b, &out), 1);
    ck_assert_uint_eq(out.text.len, 0);
    ck_assert_int_eq(channel_recv(&b, &out), 1);
    ck_assert(slice_eq(out.text, in.text));
    free(text);
}
END_TEST

START_TEST(descriptor_is_passed_and_owned_by_the_receiver)
{
    int pipe_fds[2];
    char byte = 0;
    ck_assert_int_eq(pipe(pipe_fds), 0);
    struct channel_msg in = message(1, SLICE("log"), pipe_fds[1]), out;
    ck_assert_int_eq(channel_send(&a, &in), 0);
    close(pipe_fds[1]);
    ck_assert_int_eq(channel_recv(&b, &out), 1);
    ck_assert_int_ge(out.fd, 0);
    ck_assert(fcntl(out.fd, F_GETFD) & FD_CLOEXEC);
    ck_assert_int_eq(write(out.fd, "k", 1), 1);
    ck_assert_int_eq(read(pipe_fds[0], &byte, 1), 1);
    ck_assert_int_eq(byte, 'k');
    close(out.fd);
    close(pipe_fds[0]);
}
END_TEST

/* Send until some are queued; returns how many messages there are in all. */
static uint64_t
overfill(int fd)
{
    uint64_t n = 0;
    for (; !channel_has_queued(&a) || n % 8 != 0; n++) {
        struct channel_msg in = message(n, SLICE("text that takes place"), fd);
        ck_assert_int_eq(channel_send(&a, &in), 0);
        ck_assert_uint_lt(n, 100000);
    }
    return n;
}

START_TEST(full_socket_queues_in_order_with_descriptors)
{
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    unsigned before = count_fds();
    uint64_t n = overfill(fd);
    ck_assert_uint_gt(count_fds(), before);
    ck_assert_int_eq(channel_flush(&a), 0);
    for (uint64_t i = 0; i < n; i++) {
        struct channel_msg out;
        while (channel_recv(&b, &out) == 0) {
            ck_assert_int_ge(channel_flush(&a), 0);
        }
        ck_assert_uint_eq(out.number, i);
        ck_assert_int_ge(out.fd, 0);
        close(out.fd);
    }
    ck_assert_int_eq(channel_flush(&a), 1);
    ck_assert(!channel_has_queued(&a));
    ck_assert_uint_eq(count_fds(), before);
    close(fd);
}
END_TEST

START_TEST(fini_drops_the_queue_and_its_descriptors)
{
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    unsigned before = count_fds();
    overfill(fd);
    close_pair();
    ck_assert_uint_eq(count_fds(), before - 2);
    close(fd);
    open_pair();
}
END_TEST

START_TEST(peer_that_is_gone_is_told)
{
    struct channel_msg in = message(1, SLICE("x"), -1), out;
    channel_fini(&b);
    ck_assert_int_eq(channel_send(&a, &in), -1);
    ck_assert_int_eq(channel_recv(&a, &out), -1);
}
END_TEST

START_TEST(what_was_sent_before_the_end_is_read_first)
{
    struct channel_msg in = message(9, SLICE("last words"), -1), out;
    ck_assert_int_eq(channel_send(&a, &in), 0);
    channel_fini(&a);
    ck_assert_int_eq(channel_recv(&b, &out), 1);
    ck_assert_uint_eq(out.number, 9);
    ck_assert_int_eq(channel_recv(&b, &out), -1);
}
END_TEST

struct head {
    uint32_t type, text_len;
    uint64_t gen, number;
};

static void
expect_nonsense(const void *bytes, size_t len)
{
    struct channel_msg out;
    ck_assert_int_eq(send(a.fd, bytes, len, 0), (ssize_t)len);
    ck_assert_int_eq(channel_recv(&b, &out), -1);
}

START_TEST(nonsense_breaks_the_channel)
{
    static char big[CHANNEL_TEXT_MAX + 64];
    struct head head = {.type = CHANNEL_READY, .text_len = 0};
    expect_nonsense("short", 5);
    expect_nonsense(&head, sizeof(head) - 1);
    expect_nonsense(&(struct head){.type = 0}, sizeof(head));
    expect_nonsense(&(struct head){.type = CHANNEL_NAME + 1}, sizeof(head));
    expect_nonsense(&(struct head){.type = CHANNEL_READY, .text_len = 1}, sizeof(head));
    expect_nonsense(&(struct head){.type = CHANNEL_READY, .text_len = UINT32_MAX}, sizeof(head));
    head.text_len = sizeof(big) - sizeof(head);
    memcpy(big, &head, sizeof(head));
    expect_nonsense(big, sizeof(big));
}
END_TEST

START_TEST(surplus_descriptors_are_closed)
{
    struct head head = {.type = CHANNEL_READY};
    struct iovec iov = {&head, sizeof(head)};
    union {
        char bytes[CMSG_SPACE(3 * sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    int fds[3] = {0, 1, 2};
    *cmsg = (struct cmsghdr){CMSG_LEN(sizeof(fds)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(cmsg), fds, sizeof(fds));
    unsigned before = count_fds();
    struct channel_msg out;
    ck_assert_int_eq(sendmsg(a.fd, &msg, 0), sizeof(head));
    ck_assert_int_eq(channel_recv(&b, &out), -1);
    ck_assert_uint_eq(count_fds(), before);
}
END_TEST

Suite *
channel_suite(void)
{
    Suite *suite = suite_create("channel");
    TCase *tc = tcase_create("channel");
    tcase_add_checked_fixture(tc, open_pair, close_pair);
    tcase_add_test(tc, message_arrives_whole);
    tcase_add_test(tc, empty_and_longest_text_pass);
    tcase_add_test(tc, descriptor_is_passed_and_owned_by_the_receiver);
    tcase_add_test(tc, full_socket_queues_in_order_with_descriptors);
    tcase_add_test(tc, fini_drops_the_queue_and_its_descriptors);
    tcase_add_test(tc, peer_that_is_gone_is_told);
    tcase_add_test(tc, what_was_sent_before_the_end_is_read_first);
    tcase_add_test(tc, nonsense_breaks_the_channel);
    tcase_add_test(tc, surplus_descriptors_are_closed);
    suite_add_tcase(suite, tc);
    return suite;
}
