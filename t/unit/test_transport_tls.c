/* SPDX-License-Identifier: Apache-2.0
 *
 * test_transport_tls.c - bytes through TLS: what is read, kept, written and refused.
 */
#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "t/unit/suites.h"
#include "t/unit/tls_peer.h"

#define BIG (3 * 1024 * 1024)

static struct tls_server *srv;
static SSL_CTX *client;
static char buf[70000];

static void
setup(void)
{
    static struct tls_cert_input cert;
    struct tls_problem problem;
    cert = peer_cert_input(peer_cert_make(peer_key_make("EC"), "a.test", 30, NULL));
    struct tls_server_input in = {.listener = "web",
                                  .certs = &cert,
                                  .ncerts = 1,
                                  .min_version = TLS1_2_VERSION,
                                  .tickets = true};
    srv = tls_server_get(&in, &problem);
    ck_assert_ptr_nonnull(srv);
    peer_keep(PEER_SERVER, srv);
    client = peer_client();
}

static void
connect_pair(struct pair *p)
{
    pair_open(p, srv, client, "a.test", NULL);
    ck_assert_int_eq(pair_handshake(p), 1);
    pair_echo(p);
}

static ssize_t
server_read(struct pair *p, size_t len)
{
    return p->t.ops->read(&p->t, buf, len);
}

static ssize_t
server_write(struct pair *p, const char *bytes, size_t len)
{
    struct iovec iov = {(char *)bytes, len};
    return p->t.ops->writev(&p->t, &iov, 1);
}

static bool
is_pending(const struct pair *p)
{
    return p->t.ops->pending(&p->t);
}

static bool
is_drained(const struct pair *p)
{
    return (p->t.flags & TRANSPORT_DRAINED) != 0;
}

static int
unread(int fd)
{
    int n = -1;
    ck_assert_int_eq(ioctl(fd, FIONREAD, &n), 0);
    return n;
}

/* ---- reading ---- */

START_TEST(read_takes_all_records_at_once_and_sees_the_socket_empty)
{
    struct pair p;
    connect_pair(&p);
    for (int i = 0; i < 3; i++) {
        pair_client_write(&p, "0123456789", 10);
    }
    ck_assert_int_eq(server_read(&p, sizeof(buf)), 30);
    ck_assert_mem_eq(buf, "012345678901234567890123456789", 30);
    ck_assert(is_drained(&p));
    ck_assert(!is_pending(&p));
    ck_assert_int_eq(server_read(&p, sizeof(buf)), IO_AGAIN);
    ck_assert(is_drained(&p));
    pair_close(&p);
}
END_TEST

START_TEST(small_reads_lose_nothing_without_a_new_edge)
{
    struct pair p;
    connect_pair(&p);
    for (int i = 0; i < 3; i++) {
        pair_client_write(&p, "0123456789", 10);
    }
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(server_read(&p, 3), 3);
        ck_assert_mem_eq(buf, &"01234567890123456789012345678901"[3 * i], 3);
        ck_assert_int_eq(unread(p.t.fd), 0);
        ck_assert_int_eq(is_pending(&p), i < 9);
        ck_assert_int_eq(is_drained(&p) && is_pending(&p), 0);
    }
    ck_assert_int_eq(server_read(&p, 3), IO_AGAIN);
    ck_assert(is_drained(&p));
    pair_close(&p);
}
END_TEST

START_TEST(record_in_pieces_waits_for_its_end)
{
    struct pair p;
    connect_pair(&p);
    BIO *wire = BIO_new(BIO_s_mem());
    SSL_set0_wbio(p.ssl, wire);
    pair_client_write(&p, "0123456789", 10);
    char *bytes;
    long len = BIO_get_mem_data(wire, &bytes);
    for (long i = 0; i < len; i++) {
        ck_assert_int_eq(server_read(&p, sizeof(buf)), IO_AGAIN);
        ck_assert(is_drained(&p));
        ck_assert(!is_pending(&p));
        ck_assert_int_eq(write(p.fd, bytes + i, 1), 1);
    }
    ck_assert_int_eq(server_read(&p, sizeof(buf)), 10);
    pair_close(&p);
}
END_TEST

START_TEST(small_read_of_a_big_record_finds_its_end)
{
    struct pair p;
    connect_pair(&p);
    static char big[16384];
    pair_client_write(&p, big, sizeof(big));
    pair_client_write(&p, big, sizeof(big));
    for (size_t got = 0; got < 2 * sizeof(big); got += 4096) {
        ck_assert_int_eq(server_read(&p, 4096), 4096);
        ck_assert(!is_drained(&p) || got + 4096 == 2 * sizeof(big));
    }
    ck_assert_int_eq(server_read(&p, 4096), IO_AGAIN);
    pair_close(&p);
}
END_TEST

START_TEST(one_read_makes_one_system_call)
{
    struct pair p;
    connect_pair(&p);
    static char big[16384];
    for (int i = 0; i < 4; i++) {
        pair_client_write(&p, big, sizeof(big));
    }
    int before = unread(p.t.fd);
    ck_assert_int_eq(server_read(&p, 20000), 16384); /* and a part of the second record */
    int taken = before - unread(p.t.fd);
    ck_assert_int_ge(taken, 20000);
    ck_assert_int_le(taken, 21000);
    ck_assert(!is_drained(&p));
    pair_close(&p);
}
END_TEST

START_TEST(request_sent_with_the_end_of_the_handshake_is_read)
{
    struct pair p;
    pair_open(&p, srv, client, "a.test", NULL);
    ck_assert_int_ne(SSL_do_handshake(p.ssl), 1);
    ck_assert_int_eq(p.t.ops->handshake(&p.t), IO_AGAIN);
    ck_assert_int_eq(SSL_do_handshake(p.ssl), 1);
    pair_client_write(&p, "early", 5);
    ck_assert_int_eq(p.t.ops->handshake(&p.t), 1);
    ck_assert_int_eq(unread(p.t.fd), 0);
    ck_assert(is_pending(&p));
    ck_assert_int_eq(server_read(&p, sizeof(buf)), 5);
    ck_assert_mem_eq(buf, "early", 5);
    pair_close(&p);
}
END_TEST

START_TEST(close_notify_is_eof_and_leaves_writing_possible)
{
    struct pair p;
    connect_pair(&p);
    SSL_shutdown(p.ssl);
    shutdown(p.fd, SHUT_WR);
    ck_assert_int_eq(server_read(&p, sizeof(buf)), IO_EOF);
    ck_assert_int_eq(p.t.flags & TRANSPORT_TRUNCATED, 0);
    ck_assert_int_eq(server_write(&p, "bye", 3), 3);
    p.t.ops->shutdown(&p.t);
    ck_assert_int_eq(server_write(&p, "x", 1), IO_ERROR);
    ck_assert_int_eq(errno, EPIPE);
    ck_assert_int_eq(SSL_read(p.ssl, buf, sizeof(buf)), 3);
    ck_assert_int_eq(SSL_read(p.ssl, buf, sizeof(buf)), 0);
    ck_assert_int_eq(SSL_get_error(p.ssl, 0), SSL_ERROR_ZERO_RETURN);
    pair_close(&p);
}
END_TEST

START_TEST(close_notify_behind_data_is_told_though_no_fin_comes)
{
    struct pair p;
    connect_pair(&p);
    pair_client_write(&p, "last", 4);
    SSL_shutdown(p.ssl);
    ck_assert_int_eq(server_read(&p, sizeof(buf)), 4);
    ck_assert(is_pending(&p));
    ck_assert(!is_drained(&p));
    ck_assert_int_eq(server_read(&p, sizeof(buf)), IO_EOF);
    ck_assert(!is_pending(&p));
    pair_close(&p);
}
END_TEST

START_TEST(fin_without_close_notify_is_truncation)
{
    struct pair p;
    connect_pair(&p);
    pair_client_write(&p, "part", 4);
    shutdown(p.fd, SHUT_WR);
    ck_assert_int_eq(server_read(&p, sizeof(buf)), 4);
    ck_assert_int_eq(server_read(&p, sizeof(buf)), IO_ERROR);
    ck_assert_int_ne(p.t.flags & TRANSPORT_TRUNCATED, 0);
    ck_assert_str_eq(transport_tls_error(&p.t),
                     "the peer closed the connection without close_notify");
    ck_assert_int_eq(server_read(&p, sizeof(buf)), IO_ERROR);
    ck_assert_int_eq(server_write(&p, "bye", 3), 3); /* it may still read */
    ck_assert_int_eq(SSL_read(p.ssl, buf, sizeof(buf)), 3);
    pair_close(&p);
}
END_TEST

START_TEST(damaged_record_ends_the_connection)
{
    struct pair p;
    connect_pair(&p);
    const char damaged[] = "\x17\x03\x03\x00\x20________________________________";
    ck_assert_int_eq(write(p.fd, damaged, sizeof(damaged) - 1), sizeof(damaged) - 1);
    ck_assert_int_eq(server_read(&p, sizeof(buf)), IO_ERROR);
    ck_assert_int_eq(errno, EPROTO);
    ck_assert_int_eq(p.t.flags & TRANSPORT_TRUNCATED, 0);
    ck_assert_int_eq(server_write(&p, "bye", 3), IO_ERROR);
    ck_assert_int_le(SSL_read(p.ssl, buf, sizeof(buf)), 0); /* it was told by an alert */
    ck_assert_int_eq(ERR_GET_REASON(ERR_peek_error()), SSL_R_SSLV3_ALERT_BAD_RECORD_MAC);
    pair_close(&p);
}
END_TEST

START_TEST(key_update_is_answered)
{
    struct pair p;
    connect_pair(&p);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(SSL_key_update(p.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        pair_echo(&p);
    }
    pair_close(&p);
}
END_TEST

/* ---- writing ---- */

static int records_seen;

static void
on_message(int is_write, int version, int type, const void *bytes, size_t len, SSL *ssl, void *arg)
{
    (void)version;
    (void)bytes;
    (void)len;
    (void)ssl;
    (void)arg;
    records_seen += !is_write && type == SSL3_RT_HEADER;
}

START_TEST(small_pieces_become_one_record)
{
    struct pair p;
    connect_pair(&p);
    static char body[64 * 1024];
    memset(body, 'b', sizeof(body));
    struct iovec iov[] = {{"head", 4}, {NULL, 0}, {"er\r\n", 4}, {body, 1000}};
    SSL_set_msg_callback(p.ssl, on_message);
    ck_assert_int_eq(p.t.ops->writev(&p.t, iov, 4), 1008);
    ck_assert_int_eq(SSL_read(p.ssl, buf, sizeof(buf)), 1008);
    ck_assert_mem_eq(buf, "header\r\nbbbb", 12);
    ck_assert_int_eq(records_seen, 1);
    records_seen = 0;
    iov[3].iov_len = sizeof(body);
    ck_assert_int_eq(p.t.ops->writev(&p.t, iov, 4), 8 + 65536);
    for (int got = 0; got < 8 + 65536;) {
        int n = SSL_read(p.ssl, buf, sizeof(buf));
        ck_assert_int_gt(n, 0);
        got += n;
    }
    ck_assert_int_eq(records_seen, 5);
    pair_close(&p);
}
END_TEST

START_TEST(nothing_is_taken_while_ciphertext_waits)
{
    struct pair p;
    connect_pair(&p);
    setsockopt(p.t.fd, SOL_SOCKET, SO_SNDBUF, &(int){4096}, sizeof(int));
    static char body[64 * 1024];
    ck_assert_int_eq(server_write(&p, body, sizeof(body)), sizeof(body));
    ck_assert_int_ne(p.t.flags & TRANSPORT_WANT_WRITE, 0);
    ck_assert_int_eq(server_write(&p, "x", 1), IO_AGAIN);
    ck_assert_int_eq(p.t.ops->writev(&p.t, NULL, 0), IO_AGAIN);
    p.t.ops->shutdown(&p.t);
    int got = 0;
    for (int n; (n = SSL_read(p.ssl, buf, sizeof(buf))) != 0;) {
        if (n < 0) {
            ck_assert_int_eq(SSL_get_error(p.ssl, n), SSL_ERROR_WANT_READ);
            ck_assert_int_ne(p.t.flags & TRANSPORT_WANT_WRITE, 0);
            p.t.ops->writev(&p.t, NULL, 0);
            ck_assert_int_gt(p.t.pushed, 0);
            continue;
        }
        got += n;
    }
    ck_assert_int_eq(got, sizeof(body));
    ck_assert_int_eq(SSL_get_error(p.ssl, 0), SSL_ERROR_ZERO_RETURN);
    ck_assert_int_eq(p.t.flags & TRANSPORT_WANT_WRITE, 0);
    ck_assert_int_eq(p.t.ops->writev(&p.t, NULL, 0), 0);
    pair_close(&p);
}
END_TEST

/* One turn of an event loop for the server, which is woken only by edges: it reads until the socket
 * is empty and writes until it is full. */
static void
server_turn(struct pair *p, size_t *got, size_t *sent, const char *big)
{
    do {
        ssize_t n = server_read(p, 5000);
        if (n == IO_AGAIN) {
            break;
        }
        ck_assert_int_gt(n, 0);
        ck_assert_int_eq(memcmp(buf, big + *got, (size_t)n), 0);
        *got += (size_t)n;
    } while (!is_drained(p) || is_pending(p));
    while (*sent < BIG || p->t.flags & TRANSPORT_WANT_WRITE) {
        struct iovec iov[2] = {{(char *)big + *sent, (BIG - *sent) / 3}, {NULL, 0}};
        iov[1] = (struct iovec){(char *)big + *sent + iov[0].iov_len, BIG - *sent - iov[0].iov_len};
        ssize_t n = p->t.ops->writev(&p->t, iov, 2);
        ck_assert_int_ne(n, IO_ERROR);
        if (n <= 0) {
            break;
        }
        *sent += (size_t)n;
    }
}

START_TEST(much_moves_both_ways_through_small_sockets)
{
    struct pair p;
    connect_pair(&p);
    for (int i = 0; i < 2; i++) {
        setsockopt(i ? p.fd : p.t.fd, SOL_SOCKET, SO_SNDBUF, &(int){4096}, sizeof(int));
    }
    SSL_set_mode(p.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
    char *big = malloc(BIG);
    for (size_t i = 0; i < BIG; i++) {
        big[i] = (char)(i * 31 + (i >> 9));
    }
    size_t got = 0, sent = 0, client_got = 0, client_sent = 0;
    for (int turn = 0; turn < 100000 && (got < BIG || client_got < BIG); turn++) {
        size_t left = BIG - client_sent;
        int n = left ? SSL_write(p.ssl, big + client_sent, left < 20000 ? (int)left : 20000) : 0;
        client_sent += n > 0 ? (size_t)n : 0;
        server_turn(&p, &got, &sent, big);
        static char in[20000];
        n = SSL_read(p.ssl, in, sizeof(in));
        if (n > 0) {
            ck_assert_int_eq(memcmp(in, big + client_got, (size_t)n), 0);
            client_got += (size_t)n;
        }
    }
    ck_assert_uint_eq(got, BIG);
    ck_assert_uint_eq(client_got, BIG);
    free(big);
    pair_close(&p);
}
END_TEST

START_TEST(writing_to_a_closed_peer_is_an_error)
{
    struct pair p;
    connect_pair(&p);
    shutdown(p.fd, SHUT_RDWR);
    ck_assert_int_eq(server_write(&p, "x", 1), IO_ERROR);
    ck_assert_int_eq(errno, EPIPE);
    p.t.ops->shutdown(&p.t);
    pair_close(&p);
}
END_TEST

/* ---- handshakes that fail ---- */

static void
expect_refusal(const char *bytes, size_t len, bool has_fin, const char *error)
{
    struct pair p;
    pair_open(&p, srv, client, NULL, NULL);
    ck_assert_int_eq(write(p.fd, bytes, len), (ssize_t)len);
    if (has_fin) {
        shutdown(p.fd, SHUT_WR);
        for (int i = 0; i < 3 && p.t.ops->handshake(&p.t) == IO_AGAIN; i++) {
        }
    }
    ck_assert_int_eq(p.t.ops->handshake(&p.t), IO_ERROR);
    ck_assert_str_eq(transport_tls_error(&p.t), error);
    ck_assert_int_eq(p.t.ops->handshake(&p.t), IO_ERROR);
    ck_assert_uint_eq(transport_tls_server_name(&p.t).len, 0);
    p.t.ops->shutdown(&p.t);
    pair_close(&p);
}

START_TEST(what_is_not_tls_is_refused_by_name)
{
    expect_refusal("GET / HTTP/1.1\r\n\r\n", 18, false, "HTTP request on a TLS port");
    expect_refusal("PATCH / HTTP/1.1\r\n", 18, false, "HTTP request on a TLS port");
    expect_refusal("P", 1, false, "HTTP request on a TLS port");
    expect_refusal("\0\0\0", 3, false, "not TLS");
    expect_refusal("\x80\x2e\x01\x03\x01", 5, false, "not TLS");
    expect_refusal("\x16\x03\x01\xff\xff", 5, false, "not TLS");
    expect_refusal("\x16garbage.", 9, false, "not TLS");
    expect_refusal("\x16\x03\x01\0\x05\x01\0\0\x01\xff", 10, false, "length too short");
    expect_refusal("\x16\x03\x01\0\x04\x02\0\0\0", 9, false, "unexpected message");
    expect_refusal("", 0, true, "the peer closed the connection");
    expect_refusal("\x16\x03\x01\x02", 4, true, "the peer closed the connection");
    expect_refusal("\x16\x03\x01\0\x05\x01\0\0\x20\x03", 10, true,
                   "the peer closed the connection");
}
END_TEST

START_TEST(handshake_without_end_is_refused)
{
    struct pair p;
    /* Records of a ClientHello of 96 KB. */
    static char record[5 + 16384] = "\x16\x03\x01\x40\0\x01\x01\x80\0\x03\x03";
    pair_open(&p, srv, client, NULL, NULL);
    int result = IO_AGAIN;
    for (int i = 0; i < 5 && result == IO_AGAIN; i++) {
        ck_assert_int_eq(write(p.fd, record, sizeof(record)), sizeof(record));
        result = p.t.ops->handshake(&p.t);
        memset(record + 5, 0, 11);
    }
    ck_assert_int_eq(result, IO_ERROR);
    ck_assert_str_eq(transport_tls_error(&p.t), "too many bytes without meaning");
    pair_close(&p);
}
END_TEST

START_TEST(hello_in_single_bytes_is_read)
{
    struct pair p;
    pair_open(&p, srv, client, "a.test", NULL);
    BIO *wire = BIO_new(BIO_s_mem());
    SSL_set0_wbio(p.ssl, wire);
    SSL_do_handshake(p.ssl);
    char *bytes;
    long len = BIO_get_mem_data(wire, &bytes);
    for (long i = 0; i < len; i++) {
        ck_assert_int_eq(unread(p.fd), 0);
        ck_assert_int_eq(write(p.fd, bytes + i, 1), 1);
        ck_assert_int_eq(p.t.ops->handshake(&p.t), IO_AGAIN);
        ck_assert(is_drained(&p));
    }
    ck_assert_int_gt(unread(p.fd), 0); /* the server's answer */
    SSL_set_fd(p.ssl, p.fd);
    ck_assert_int_eq(pair_handshake(&p), 1);
    pair_echo(&p);
    pair_close(&p);
}
END_TEST

START_TEST(two_handshakes_may_alternate)
{
    struct pair a, b;
    pair_open(&a, srv, client, "a.test", NULL);
    pair_open(&b, srv, client, "b.test", NULL);
    for (int i = 0; i < 3; i++) {
        a.client_result = SSL_do_handshake(a.ssl);
        b.client_result = SSL_do_handshake(b.ssl);
        a.handshake = a.t.ops->handshake(&a.t);
        b.handshake = b.t.ops->handshake(&b.t);
    }
    ck_assert_int_eq(a.handshake, 1);
    ck_assert_int_eq(b.handshake, 1);
    pair_close(&a);
    pair_echo(&b);
    pair_close(&b);
}
END_TEST

Suite *
transport_tls_suite(void)
{
    Suite *suite = suite_create("transport_tls");
    TCase *bytes = tcase_create("bytes");
    tcase_add_checked_fixture(bytes, setup, peer_free_kept);
    tcase_set_timeout(bytes, 60);
    tcase_add_test(bytes, read_takes_all_records_at_once_and_sees_the_socket_empty);
    tcase_add_test(bytes, small_reads_lose_nothing_without_a_new_edge);
    tcase_add_test(bytes, record_in_pieces_waits_for_its_end);
    tcase_add_test(bytes, small_read_of_a_big_record_finds_its_end);
    tcase_add_test(bytes, one_read_makes_one_system_call);
    tcase_add_test(bytes, request_sent_with_the_end_of_the_handshake_is_read);
    tcase_add_test(bytes, close_notify_is_eof_and_leaves_writing_possible);
    tcase_add_test(bytes, close_notify_behind_data_is_told_though_no_fin_comes);
    tcase_add_test(bytes, fin_without_close_notify_is_truncation);
    tcase_add_test(bytes, damaged_record_ends_the_connection);
    tcase_add_test(bytes, key_update_is_answered);
    tcase_add_test(bytes, small_pieces_become_one_record);
    tcase_add_test(bytes, nothing_is_taken_while_ciphertext_waits);
    tcase_add_test(bytes, much_moves_both_ways_through_small_sockets);
    tcase_add_test(bytes, writing_to_a_closed_peer_is_an_error);
    suite_add_tcase(suite, bytes);
    TCase *handshakes = tcase_create("handshakes");
    tcase_add_checked_fixture(handshakes, setup, peer_free_kept);
    tcase_add_test(handshakes, what_is_not_tls_is_refused_by_name);
    tcase_add_test(handshakes, handshake_without_end_is_refused);
    tcase_add_test(handshakes, hello_in_single_bytes_is_read);
    tcase_add_test(handshakes, two_handshakes_may_alternate);
    suite_add_tcase(suite, handshakes);
    return suite;
}
