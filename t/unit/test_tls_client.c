/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tls_client.c - TLS towards backends, against a server of plain OpenSSL: who is believed,
 * what is offered and shown, what is resumed and how it ends.
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/tls_private.h"
#include "t/unit/suites.h"
#include "t/unit/tls_peer.h"

static struct peer_cert *ca, *site;

static void
setup(void)
{
    ca = peer_cert_make(peer_key_make("EC"), "authority.test", 30, NULL);
    site = peer_cert_make(peer_key_make("EC"), "a.test,*.wild.test,127.0.0.1", 30, ca);
}

/* ---- both sides ---- */

/* A backend: an SSL_CTX with that certificate; kept. */
static SSL_CTX *
backend_of(const struct peer_cert *cert)
{
    SSL_CTX *backend = SSL_CTX_new(TLS_server_method());
    ck_assert_ptr_nonnull(backend);
    peer_keep(PEER_CLIENT, backend);
    ck_assert_int_eq(SSL_CTX_use_certificate(backend, cert->cert), 1);
    ck_assert_int_eq(SSL_CTX_use_PrivateKey(backend, cert->key), 1);
    return backend;
}

static struct tls_client_input
plain_input(void)
{
    return (struct tls_client_input){.verify = true,
                                     .ca_pem = slice_from_str(ca->cert_pem),
                                     .ca_path = "ca.pem",
                                     .min_version = TLS1_2_VERSION};
}

static struct tls_client *
must_get(const struct tls_client_input *in)
{
    struct tls_problem problem = {0};
    struct tls_client *client = tls_client_get(in, &problem);
    ck_assert_msg(client != NULL, "%s", problem.why);
    peer_keep(PEER_TLS_CLIENT, client);
    return client;
}

static struct tls_remote *
remote_of(const struct tls_client_input *in, const char *name)
{
    struct tls_remote *remote = tls_remote_new(must_get(in), name);
    ck_assert_ptr_nonnull(remote);
    peer_keep(PEER_REMOTE, remote);
    return remote;
}

/* Our end of a connection, and the backend's. */
struct link {
    struct transport t;
    SSL *ssl;
    int fd;
    int result;         /* our last answer */
    int backend_result; /* and the backend's, of SSL_do_handshake() */
};

static void
link_open(struct link *l, struct tls_remote *remote, SSL_CTX *backend, const char *alpn)
{
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    *l = (struct link){.fd = fds[1], .result = IO_AGAIN, .backend_result = -1};
    ck_assert_int_eq(transport_tls_connect(&l->t, fds[0], remote, alpn), 0);
    l->ssl = SSL_new(backend);
    SSL_set_fd(l->ssl, l->fd);
    SSL_set_accept_state(l->ssl);
}

static int
link_handshake(struct link *l)
{
    for (int turn = 0; turn < 50 && (l->result == IO_AGAIN || l->backend_result != 1); turn++) {
        if (l->result == IO_AGAIN) {
            l->result = l->t.ops->handshake(&l->t);
        }
        if (l->backend_result != 1) {
            l->backend_result = SSL_do_handshake(l->ssl);
        }
    }
    ERR_clear_error();
    return l->result;
}

/* A ping and a pong; after it we have the session. */
static void
link_echo(struct link *l)
{
    char buf[16];
    struct iovec ping = {"ping", 4};
    ck_assert_int_eq(l->t.ops->writev(&l->t, &ping, 1), 4);
    ck_assert_int_eq(SSL_read(l->ssl, buf, sizeof(buf)), 4);
    ck_assert_mem_eq(buf, "ping", 4);
    ck_assert_int_eq(SSL_write(l->ssl, "pong", 4), 4);
    ck_assert_int_eq(l->t.ops->read(&l->t, buf, sizeof(buf)), 4);
    ck_assert_mem_eq(buf, "pong", 4);
}

static void
link_close(struct link *l)
{
    SSL_free(l->ssl);
    int fd = l->t.fd;
    l->t.ops->fini(&l->t);
    close(fd);
    close(l->fd);
}

/* One whole connection. Returns whether it was resumed. */
static bool
visit(struct tls_remote *remote, SSL_CTX *backend)
{
    struct link l;
    link_open(&l, remote, backend, NULL);
    ck_assert_msg(link_handshake(&l) == 1, "%s", transport_tls_error(&l.t));
    link_echo(&l);
    bool is_resumed = SSL_session_reused(l.ssl) == 1;
    ck_assert_int_eq(is_resumed, transport_tls_is_resumed(&l.t));
    link_close(&l);
    return is_resumed;
}

static void
expect_refusal(struct tls_remote *remote, SSL_CTX *backend, const char *why)
{
    struct link l;
    link_open(&l, remote, backend, NULL);
    ck_assert_int_eq(link_handshake(&l), IO_ERROR);
    ck_assert_str_eq(transport_tls_error(&l.t), why);
    ck_assert_int_ne(l.backend_result, 1); /* it learns of it */
    link_close(&l);
}

/* ---- who is believed ---- */

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

START_TEST(bytes_pass_in_each_version)
{
    struct tls_client_input in = plain_input();
    SSL_CTX *backend = backend_of(site);
    SSL_CTX_set_max_proto_version(backend, versions[_i]);
    ck_assert(!visit(remote_of(&in, "a.test"), backend));
}
END_TEST

static const struct {
    const char *name, *why; /* why NULL: accepted */
} names[] = {
    {"a.test", NULL},
    {"A.TEST", NULL},
    {"x.wild.test", NULL},
    {"127.0.0.1", NULL},
    {"b.test", "certificate verify failed: hostname mismatch"},
    {"y.x.wild.test", "certificate verify failed: hostname mismatch"},
    {"127.0.0.2", "certificate verify failed: IP address mismatch"},
};

START_TEST(certificate_must_have_the_name)
{
    struct tls_client_input in = plain_input();
    struct tls_remote *remote = remote_of(&in, names[_i].name);
    if (names[_i].why) {
        expect_refusal(remote, backend_of(site), names[_i].why);
    } else {
        visit(remote, backend_of(site));
    }
}
END_TEST

/* RFC 9525: what stands in the subject is no name. */
START_TEST(common_name_alone_is_no_name)
{
    struct tls_client_input in = plain_input();
    X509_NAME *subject = X509_get_subject_name(site->cert);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)"b.test", -1, -1,
                               0);
    int at = X509_get_ext_by_NID(site->cert, NID_subject_alt_name, -1);
    X509_EXTENSION_free(X509_delete_ext(site->cert, at));
    ck_assert_int_gt(X509_sign(site->cert, ca->key, EVP_sha256()), 0);
    expect_refusal(remote_of(&in, "b.test"), backend_of(site),
                   "certificate verify failed: hostname mismatch");
}
END_TEST

START_TEST(certificate_of_a_stranger_is_refused)
{
    struct tls_client_input in = plain_input();
    struct peer_cert *other = peer_cert_make(peer_key_make("EC"), "a.test", 30, NULL);
    expect_refusal(remote_of(&in, "a.test"), backend_of(other),
                   "certificate verify failed: self-signed certificate");
    in.ca_pem = slice_from_str(other->cert_pem);
    expect_refusal(remote_of(&in, "a.test"), backend_of(site),
                   "certificate verify failed: unable to get local issuer certificate");
}
END_TEST

START_TEST(expired_certificate_is_refused)
{
    struct tls_client_input in = plain_input();
    struct peer_cert *old = peer_cert_make(peer_key_make("EC"), "a.test", -1, ca);
    expect_refusal(remote_of(&in, "a.test"), backend_of(old),
                   "certificate verify failed: certificate has expired");
}
END_TEST

START_TEST(anybody_is_believed_where_nothing_is_verified)
{
    struct tls_client_input in = {.min_version = TLS1_2_VERSION};
    struct peer_cert *old = peer_cert_make(peer_key_make("EC"), "b.test", -1, NULL);
    visit(remote_of(&in, "a.test"), backend_of(old));
    visit(remote_of(&in, NULL), backend_of(old));
}
END_TEST

START_TEST(authority_may_be_the_certificate_itself)
{
    struct tls_client_input in = plain_input();
    in.ca_pem = slice_from_str(site->cert_pem);
    visit(remote_of(&in, "a.test"), backend_of(site));
}
END_TEST

/* ---- what is offered and shown ---- */

static int
note_name(SSL *ssl, int *alert, void *seen)
{
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    (void)alert;
    snprintf(seen, 64, "%s", name ? name : "none");
    return SSL_TLSEXT_ERR_OK;
}

START_TEST(names_are_sent_and_addresses_are_not)
{
    char seen[64];
    struct tls_client_input in = plain_input();
    SSL_CTX *backend = backend_of(site);
    SSL_CTX_set_tlsext_servername_callback(backend, note_name);
    SSL_CTX_set_tlsext_servername_arg(backend, seen);
    visit(remote_of(&in, "a.test"), backend);
    ck_assert_str_eq(seen, "a.test");
    visit(remote_of(&in, "127.0.0.1"), backend);
    ck_assert_str_eq(seen, "none");
}
END_TEST

static int
choose_h2(SSL *ssl, const unsigned char **chosen, unsigned char *len, const unsigned char *offered,
          unsigned offered_len, void *arg)
{
    (void)ssl;
    (void)arg;
    if (offered_len != 3 || memcmp(offered, "\002h2", 3) != 0) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    *chosen = offered + 1;
    *len = 2;
    return SSL_TLSEXT_ERR_OK;
}

START_TEST(the_protocol_is_offered_and_the_choice_is_told)
{
    struct tls_client_input in = plain_input();
    struct tls_remote *remote = remote_of(&in, "a.test");
    SSL_CTX *backend = backend_of(site);
    SSL_CTX_set_alpn_select_cb(backend, choose_h2, NULL);
    const char *const offers[] = {"h2", "http/1.1", NULL};
    for (int i = 0; i < 3; i++) {
        struct link l;
        link_open(&l, remote, backend, offers[i]);
        ck_assert_int_eq(link_handshake(&l), 1);
        ck_assert(slice_eq(transport_tls_alpn(&l.t), i == 0 ? SLICE("h2") : SLICE("")));
        link_close(&l);
    }
}
END_TEST

static SSL_CTX *
backend_that_asks(int version)
{
    SSL_CTX *backend = backend_of(site);
    SSL_CTX_set_max_proto_version(backend, version);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(backend), ca->cert);
    SSL_CTX_set_verify(backend, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_session_id_context(backend, (const unsigned char *)"x", 1);
    return backend;
}

START_TEST(certificate_is_shown_to_who_asks)
{
    struct peer_cert *own = peer_cert_make(peer_key_make("EC"), "proxy.test", 30, ca);
    struct tls_cert_input cert = peer_cert_input(own);
    struct tls_client_input in = plain_input();
    in.cert = &cert;
    visit(remote_of(&in, "a.test"), backend_that_asks(versions[_i]));
}
END_TEST

START_TEST(who_asks_in_vain_is_known)
{
    struct tls_client_input in = plain_input();
    struct link l;
    link_open(&l, remote_of(&in, "a.test"), backend_that_asks(versions[_i]), NULL);
    link_handshake(&l); /* in TLS 1.3 we are done before the backend is */
    ck_assert_int_ne(l.backend_result, 1);
    ck_assert(transport_tls_was_asked(&l.t));
    link_close(&l);
    link_open(&l, remote_of(&in, "a.test"), backend_of(site), NULL);
    ck_assert_int_eq(link_handshake(&l), 1);
    ck_assert(!transport_tls_was_asked(&l.t));
    link_close(&l);
}
END_TEST

START_TEST(older_version_than_allowed_is_refused)
{
    struct tls_client_input in = plain_input();
    in.min_version = TLS1_3_VERSION;
    SSL_CTX *backend = backend_of(site);
    visit(remote_of(&in, "a.test"), backend);
    SSL_CTX_set_max_proto_version(backend, TLS1_2_VERSION);
    expect_refusal(remote_of(&in, "a.test"), backend, "tlsv1 alert protocol version");
}
END_TEST

/* ---- sessions ---- */

START_TEST(second_connection_resumes)
{
    struct tls_client_input in = plain_input();
    struct tls_remote *remote = remote_of(&in, "a.test");
    SSL_CTX *backend = backend_of(site);
    SSL_CTX_set_max_proto_version(backend, versions[_i]);
    ck_assert(!visit(remote, backend));
    for (int i = 0; i < 3; i++) {
        ck_assert(visit(remote, backend));
    }
}
END_TEST

START_TEST(another_name_or_setting_does_not_resume)
{
    struct tls_client_input in = plain_input();
    SSL_CTX *backend = backend_of(site);
    visit(remote_of(&in, "a.test"), backend);
    ck_assert(!visit(remote_of(&in, "x.wild.test"), backend));
    in.verify = false;
    struct tls_remote *careless = remote_of(&in, "b.test");
    visit(careless, backend);
    ck_assert(visit(careless, backend));
    in.verify = true;
    expect_refusal(remote_of(&in, "b.test"), backend,
                   "certificate verify failed: hostname mismatch");
}
END_TEST

START_TEST(session_that_led_to_a_failure_is_forgotten)
{
    struct tls_client_input in = plain_input();
    struct tls_remote *remote = remote_of(&in, "a.test");
    SSL_CTX *backend = backend_of(site);
    visit(remote, backend);
    struct link l;
    link_open(&l, remote, backend, NULL);
    shutdown(l.fd, SHUT_RDWR);
    ck_assert_int_eq(l.t.ops->handshake(&l.t), IO_ERROR);
    link_close(&l);
    ck_assert(!visit(remote, backend));
}
END_TEST

START_TEST(remote_lives_as_long_as_its_connections)
{
    struct tls_client_input in = plain_input();
    struct tls_problem problem;
    struct tls_client *client = tls_client_get(&in, &problem);
    struct tls_remote *remote = tls_remote_new(client, "a.test");
    struct link l;
    link_open(&l, remote, backend_of(site), NULL);
    tls_remote_unref(remote);
    tls_client_unref(client);
    ck_assert_int_eq(link_handshake(&l), 1);
    link_echo(&l); /* the tickets arrive now */
    link_close(&l);
}
END_TEST

/* ---- the end ---- */

START_TEST(end_with_and_without_close_notify)
{
    struct tls_client_input in = plain_input();
    struct link l;
    char byte;
    for (int is_told = 0; is_told < 2; is_told++) {
        link_open(&l, remote_of(&in, "a.test"), backend_of(site), NULL);
        ck_assert_int_eq(link_handshake(&l), 1);
        link_echo(&l);
        if (is_told) {
            SSL_shutdown(l.ssl);
        }
        shutdown(l.fd, SHUT_WR);
        ck_assert_int_eq(l.t.ops->read(&l.t, &byte, 1), is_told ? IO_EOF : IO_ERROR);
        ck_assert_int_eq(l.t.flags & TRANSPORT_TRUNCATED, is_told ? 0 : TRANSPORT_TRUNCATED);
        link_close(&l);
    }
}
END_TEST

START_TEST(peer_without_tls_is_told_apart)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    struct tls_client_input in = plain_input();
    struct link l;
    link_open(&l, remote_of(&in, "a.test"), backend_of(site), NULL);
    ck_assert_int_eq(l.t.ops->handshake(&l.t), IO_AGAIN);
    ck_assert_int_eq(write(l.fd, answer, sizeof(answer)), sizeof(answer));
    ck_assert_int_eq(l.t.ops->handshake(&l.t), IO_ERROR);
    ck_assert_str_eq(transport_tls_error(&l.t), "not TLS");
    link_close(&l);
}
END_TEST

START_TEST(peer_that_leaves_in_the_handshake)
{
    struct tls_client_input in = plain_input();
    struct link l;
    link_open(&l, remote_of(&in, "a.test"), backend_of(site), NULL);
    ck_assert_int_eq(l.t.ops->handshake(&l.t), IO_AGAIN);
    shutdown(l.fd, SHUT_WR);
    ck_assert_int_eq(l.t.ops->handshake(&l.t), IO_ERROR);
    ck_assert_str_eq(transport_tls_error(&l.t), "the peer closed the connection");
    link_close(&l);
}
END_TEST

START_TEST(close_notify_in_the_handshake_ends_it)
{
    static const char alert[] = {21, 3, 3, 0, 2, 1, 0};
    struct tls_client_input in = plain_input();
    struct link l;
    link_open(&l, remote_of(&in, "a.test"), backend_of(site), NULL);
    ck_assert_int_eq(l.t.ops->handshake(&l.t), IO_AGAIN);
    ck_assert_int_eq(write(l.fd, alert, sizeof(alert)), sizeof(alert));
    ck_assert_int_eq(l.t.ops->handshake(&l.t), IO_ERROR);
    ck_assert_str_eq(transport_tls_error(&l.t), "the peer closed the connection");
    link_close(&l);
}
END_TEST

/* ---- input ---- */

START_TEST(same_inputs_are_one_client)
{
    struct tls_client_input in = plain_input();
    struct tls_client *client = must_get(&in);
    ck_assert_ptr_eq(must_get(&in), client);
    struct tls_cert_input cert = peer_cert_input(site);
    struct tls_client_input others[4] = {in, in, in, in};
    others[0].verify = false;
    others[1].min_version = TLS1_3_VERSION;
    others[2].ca_pem = slice_from_str(site->cert_pem);
    others[3].cert = &cert;
    uint64_t identity = tls_client_identity(client, "a.test");
    ck_assert_uint_ne(tls_client_identity(client, "b.test"), identity);
    for (int i = 0; i < 4; i++) {
        ck_assert_ptr_ne(must_get(&others[i]), client);
        ck_assert_uint_ne(tls_client_identity(must_get(&others[i]), "a.test"), identity);
    }
}
END_TEST

START_TEST(wrong_inputs_are_named)
{
    struct tls_problem problem = {0};
    struct tls_client_input in = plain_input();
    in.ca_pem = SLICE("text");
    ck_assert_ptr_null(tls_client_get(&in, &problem));
    ck_assert_int_eq(problem.part, TLS_PART_CA);
    ck_assert_str_eq(problem.why, "ca.pem: no certificate in PEM form");
    in = plain_input();
    struct tls_cert_input cert = peer_cert_input(site);
    cert.key_pem = slice_from_str(ca->key_pem);
    in.cert = &cert;
    ck_assert_ptr_null(tls_client_get(&in, &problem));
    ck_assert_int_eq(problem.part, TLS_PART_KEY);
    ck_assert_str_eq(problem.why, "site.key: does not match the certificate in site.crt");
}
END_TEST

Suite *
tls_client_suite(void)
{
    Suite *suite = suite_create("tls_client");
    TCase *tc = tcase_create("tls_client");
    tcase_add_checked_fixture(tc, setup, peer_free_kept);
    tcase_add_loop_test(tc, bytes_pass_in_each_version, 0, 2);
    tcase_add_loop_test(tc, certificate_must_have_the_name, 0, sizeof(names) / sizeof(names[0]));
    tcase_add_test(tc, common_name_alone_is_no_name);
    tcase_add_test(tc, certificate_of_a_stranger_is_refused);
    tcase_add_test(tc, expired_certificate_is_refused);
    tcase_add_test(tc, anybody_is_believed_where_nothing_is_verified);
    tcase_add_test(tc, authority_may_be_the_certificate_itself);
    tcase_add_test(tc, names_are_sent_and_addresses_are_not);
    tcase_add_test(tc, the_protocol_is_offered_and_the_choice_is_told);
    tcase_add_loop_test(tc, certificate_is_shown_to_who_asks, 0, 2);
    tcase_add_loop_test(tc, who_asks_in_vain_is_known, 0, 2);
    tcase_add_test(tc, older_version_than_allowed_is_refused);
    tcase_add_loop_test(tc, second_connection_resumes, 0, 2);
    tcase_add_test(tc, another_name_or_setting_does_not_resume);
    tcase_add_test(tc, session_that_led_to_a_failure_is_forgotten);
    tcase_add_test(tc, remote_lives_as_long_as_its_connections);
    tcase_add_test(tc, end_with_and_without_close_notify);
    tcase_add_test(tc, peer_without_tls_is_told_apart);
    tcase_add_test(tc, peer_that_leaves_in_the_handshake);
    tcase_add_test(tc, close_notify_in_the_handshake_ends_it);
    tcase_add_test(tc, same_inputs_are_one_client);
    tcase_add_test(tc, wrong_inputs_are_named);
    suite_add_tcase(suite, tc);
    return suite;
}
