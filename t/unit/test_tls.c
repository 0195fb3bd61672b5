/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tls.c - what a TLS listener offers: certificates, names, versions, sessions, client
 * certificates, and what it says about wrong input.
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/clock.h"
#include "shared/tls_private.h"
#include "t/unit/suites.h"
#include "t/unit/tls_peer.h"

/* The key, and the certificate for a.test, that tests use which want nothing special. */
static struct peer_cert *site;
static struct tls_cert_input site_input;

static void
setup(void)
{
    site = peer_cert_make(peer_key_make("EC"), "a.test", 30, NULL);
    site_input = peer_cert_input(site);
}

static struct tls_server_input
plain_input(void)
{
    return (struct tls_server_input){.listener = "web",
                                     .certs = &site_input,
                                     .ncerts = 1,
                                     .min_version = TLS1_2_VERSION,
                                     .tickets = true};
}

static struct tls_server *
must_get(const struct tls_server_input *in)
{
    struct tls_problem problem = {0};
    struct tls_server *srv = tls_server_get(in, &problem);
    ck_assert_msg(srv != NULL, "%s", problem.why);
    peer_keep(PEER_SERVER, srv);
    return srv;
}

static SSL_CTX *
client_of_version(int version)
{
    SSL_CTX *client = peer_client();
    SSL_CTX_set_min_proto_version(client, version);
    SSL_CTX_set_max_proto_version(client, version);
    return client;
}

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

START_TEST(handshake_and_bytes_of_each_version)
{
    struct tls_server_input in = plain_input();
    struct pair p;
    pair_open(&p, must_get(&in), client_of_version(versions[_i]), "a.test", NULL);
    ck_assert_int_eq(pair_handshake(&p), 1);
    pair_echo(&p);
    struct slice version = transport_tls_version(&p.t);
    ck_assert(slice_eq(version, _i == 0 ? SLICE("TLSv1.2") : SLICE("TLSv1.3")));
    ck_assert(slice_eq(transport_tls_server_name(&p.t), SLICE("a.test")));
    ck_assert_uint_eq(transport_tls_alpn(&p.t).len, 0);
    ck_assert(!transport_tls_is_resumed(&p.t));
    pair_close(&p);
}
END_TEST

START_TEST(min_version_refuses_older)
{
    struct tls_server_input in = plain_input();
    in.min_version = TLS1_3_VERSION;
    struct pair p;
    pair_open(&p, must_get(&in), client_of_version(TLS1_2_VERSION), NULL, NULL);
    ck_assert_int_eq(pair_handshake(&p), IO_ERROR);
    ck_assert_str_eq(transport_tls_error(&p.t), "unsupported protocol");
    pair_close(&p);
}
END_TEST

/* ---- names ---- */

static void
expect_cert(struct tls_server *srv, SSL_CTX *client, const char *name, const struct peer_cert *cert)
{
    struct pair p;
    pair_open(&p, srv, client, name, NULL);
    ck_assert_int_eq(pair_handshake(&p), 1);
    X509 *shown = SSL_get0_peer_certificate(p.ssl);
    ck_assert_msg(shown && X509_cmp(shown, cert->cert) == 0, "wrong certificate for %s",
                  name ? name : "no name");
    pair_close(&p);
}

START_TEST(certificate_by_server_name)
{
    struct peer_cert *other = peer_cert_make(site->key, "b.test,*.w.test", 30, NULL);
    struct peer_cert *exact = peer_cert_make(site->key, "x.w.test", 30, NULL);
    struct tls_cert_input certs[] = {site_input, peer_cert_input(other), peer_cert_input(exact)};
    struct tls_server_input in = plain_input();
    in.certs = certs;
    in.ncerts = 3;
    struct tls_server *srv = must_get(&in);
    SSL_CTX *client = client_of_version(versions[_i]);
    expect_cert(srv, client, "a.test", site);
    expect_cert(srv, client, "b.test", other);
    expect_cert(srv, client, "B.TesT", other);
    expect_cert(srv, client, "b.test.", other);
    expect_cert(srv, client, "y.w.test", other);
    expect_cert(srv, client, "x.w.test", exact);
    expect_cert(srv, client, "x.y.w.test", site);
    expect_cert(srv, client, "w.test", site);
    expect_cert(srv, client, "*.w.test", other);
    expect_cert(srv, client, "unknown", site);
    expect_cert(srv, client, NULL, site);
}
END_TEST

START_TEST(strict_sni_refuses_unknown_and_missing)
{
    struct tls_server_input in = plain_input();
    in.strict_sni = true;
    struct tls_server *srv = must_get(&in);
    const char *const refused[] = {NULL, "b.test"};
    for (int i = 0; i < 2; i++) {
        struct pair p;
        pair_open(&p, srv, peer_client(), refused[i], NULL);
        ck_assert_int_eq(pair_handshake(&p), IO_ERROR);
        ck_assert_int_ne(p.client_result, 1);
        pair_close(&p);
    }
    expect_cert(srv, peer_client(), "a.test", site);
}
END_TEST

START_TEST(rsa_and_ecdsa_serve_one_name)
{
    struct peer_cert *rsa = peer_cert_make(peer_key_make("RSA"), "a.test", 30, NULL);
    struct peer_cert *rsa_b = peer_cert_make(rsa->key, "b.test", 30, NULL);
    struct peer_cert *ec_b = peer_cert_make(site->key, "b.test,c.test", 30, NULL);
    struct tls_cert_input certs[] = {peer_cert_input(rsa), site_input, peer_cert_input(rsa_b),
                                     peer_cert_input(ec_b)};
    struct tls_server_input in = plain_input();
    in.certs = certs;
    in.ncerts = 4;
    struct tls_server *srv = must_get(&in);
    SSL_CTX *wants_rsa = client_of_version(versions[_i]);
    SSL_CTX *wants_ec = client_of_version(versions[_i]);
    SSL_CTX_set1_sigalgs_list(wants_rsa, "rsa_pss_rsae_sha256");
    SSL_CTX_set1_sigalgs_list(wants_ec, "ECDSA+SHA256");
    expect_cert(srv, wants_rsa, "a.test", rsa);
    expect_cert(srv, wants_ec, "a.test", site);
    expect_cert(srv, wants_rsa, NULL, rsa);
    expect_cert(srv, wants_ec, NULL, site);
    expect_cert(srv, wants_rsa, "b.test", rsa_b);
    expect_cert(srv, wants_ec, "b.test", ec_b);
    expect_cert(srv, client_of_version(versions[_i]), "b.test", ec_b);
    expect_cert(srv, wants_ec, "c.test", ec_b);
    struct pair p; /* c.test has no RSA certificate, and another name's is none for it */
    pair_open(&p, srv, wants_rsa, "c.test", NULL);
    ck_assert_int_eq(pair_handshake(&p), IO_ERROR);
    pair_close(&p);
}
END_TEST

START_TEST(intermediates_are_sent)
{
    struct peer_cert *root = peer_cert_make(peer_key_make("EC"), "root", 30, NULL);
    struct peer_cert *middle = peer_cert_make(peer_key_make("EC"), "middle", 30, root);
    struct peer_cert *leaf = peer_cert_make(site->key, "a.test", 30, middle);
    char chain[8192];
    snprintf(chain, sizeof(chain), "%s%s", leaf->cert_pem, middle->cert_pem);
    struct tls_cert_input cert = peer_cert_input(leaf);
    cert.cert_pem = slice_from_str(chain);
    struct tls_server_input in = plain_input();
    in.certs = &cert;
    SSL_CTX *client = peer_client();
    X509_STORE_add_cert(SSL_CTX_get_cert_store(client), root->cert);
    SSL_CTX_set_verify(client, SSL_VERIFY_PEER, NULL);
    expect_cert(must_get(&in), client, "a.test", leaf);
}
END_TEST

/* ---- ALPN ---- */

static int
handshake_with_alpn(struct pair *p, const char *offer)
{
    static const char *const ours[] = {"h2", "http/1.1", NULL};
    struct tls_server_input in = plain_input();
    in.alpn = ours;
    pair_open(p, must_get(&in), peer_client(), "a.test", NULL);
    if (offer) {
        SSL_set_alpn_protos(p->ssl, (const unsigned char *)offer, (unsigned)strlen(offer));
    }
    return pair_handshake(p);
}

START_TEST(alpn_is_chosen_in_our_order)
{
    struct pair p;
    ck_assert_int_eq(handshake_with_alpn(&p, "\x08http/1.1\x02h2"), 1);
    ck_assert(slice_eq(transport_tls_alpn(&p.t), SLICE("h2")));
    pair_close(&p);
    ck_assert_int_eq(handshake_with_alpn(&p, "\x08http/1.1"), 1);
    ck_assert(slice_eq(transport_tls_alpn(&p.t), SLICE("http/1.1")));
    pair_close(&p);
    ck_assert_int_eq(handshake_with_alpn(&p, NULL), 1);
    ck_assert_uint_eq(transport_tls_alpn(&p.t).len, 0);
    pair_close(&p);
}
END_TEST

START_TEST(alpn_with_nothing_in_common_is_refused)
{
    struct pair p;
    ck_assert_int_eq(handshake_with_alpn(&p, "\x04smtp"), IO_ERROR);
    ck_assert_int_ne(p.client_result, 1);
    pair_close(&p);
}
END_TEST

/* ---- sessions ---- */

/* A whole connection; returns the session that the client could resume, kept, or NULL. */
static SSL_SESSION *
visit(struct tls_server *srv, SSL_CTX *client, const char *name, SSL_SESSION *session,
      bool *was_resumed)
{
    struct pair p;
    pair_open(&p, srv, client, name, session);
    ck_assert_int_eq(pair_handshake(&p), 1);
    pair_echo(&p);
    *was_resumed = transport_tls_is_resumed(&p.t);
    ck_assert_int_eq(*was_resumed, SSL_session_reused(p.ssl));
    SSL_SESSION *next = SSL_get1_session(p.ssl);
    peer_keep(PEER_SESSION, next);
    SSL_set_shutdown(p.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    pair_close(&p);
    return SSL_SESSION_is_resumable(next) ? next : NULL;
}

START_TEST(session_resumes_on_another_server_of_the_listener)
{
    struct tls_server_input in = plain_input();
    struct tls_server *first = must_get(&in);
    in.curves = "P-256"; /* as after a reload */
    struct tls_server *second = must_get(&in);
    ck_assert_ptr_ne(first, second);
    SSL_CTX *client = client_of_version(versions[_i]);
    bool was_resumed;
    SSL_SESSION *session = visit(first, client, "a.test", NULL, &was_resumed);
    ck_assert(!was_resumed);
    ck_assert_ptr_nonnull(session);
    session = visit(second, client, "a.test", session, &was_resumed);
    ck_assert(was_resumed);
    visit(first, client, "a.test", session, &was_resumed);
    ck_assert(was_resumed);
}
END_TEST

START_TEST(tickets_use_the_keys_of_the_segment)
{
    static struct shm shm, other;
    uint64_t now = clock_wall_us() / 1000000u;
    ck_assert_int_eq(shm_create(&shm), 0);
    ck_assert_int_eq(shm_create(&other), 0);
    shm_keys_rotate(&shm, now - 13 * 3600);
    shm_keys_rotate(&other, now);
    struct tls_server_input in = plain_input();
    struct tls_server *srv = must_get(&in);
    SSL_CTX *client = client_of_version(versions[_i]);
    bool was_resumed;
    tls_worker_init(&shm);
    SSL_SESSION *old = visit(srv, client, "a.test", NULL, &was_resumed);
    shm_keys_rotate(&shm, now);
    SSL_SESSION *renewed = visit(srv, client, "a.test", old, &was_resumed);
    ck_assert(was_resumed);
    const unsigned char *old_ticket, *new_ticket;
    size_t len;
    SSL_SESSION_get0_ticket(old, &old_ticket, &len);
    SSL_SESSION_get0_ticket(renewed, &new_ticket, &len);
    ck_assert_mem_ne(old_ticket, new_ticket, 16); /* the names of the keys */
    visit(srv, client, "a.test", renewed, &was_resumed);
    ck_assert(was_resumed);
    tls_worker_init(&other);
    visit(srv, client, "a.test", renewed, &was_resumed);
    ck_assert(!was_resumed);
    tls_worker_init(NULL);
    shm_unmap(&shm);
    shm_unmap(&other);
}
END_TEST

START_TEST(no_key_in_the_segment_means_no_ticket)
{
    static struct shm shm;
    ck_assert_int_eq(shm_create(&shm), 0);
    tls_worker_init(&shm);
    struct tls_server_input in = plain_input();
    bool was_resumed;
    SSL_CTX *client = client_of_version(versions[_i]);
    ck_assert_ptr_null(visit(must_get(&in), client, "a.test", NULL, &was_resumed));
    tls_worker_init(NULL);
    shm_unmap(&shm);
}
END_TEST

START_TEST(one_ticket_a_handshake)
{
    struct tls_server_input in = plain_input();
    struct pair p;
    SSL_CTX *client = client_of_version(TLS1_3_VERSION);
    SSL_CTX_set_session_cache_mode(client, SSL_SESS_CACHE_CLIENT);
    pair_open(&p, must_get(&in), client, "a.test", NULL);
    pair_handshake(&p);
    pair_echo(&p);
    ck_assert_int_eq(SSL_CTX_sess_number(client), 1);
    pair_close(&p);
}
END_TEST

START_TEST(tickets_can_be_off)
{
    struct tls_server_input in = plain_input();
    in.tickets = false;
    bool was_resumed;
    SSL_CTX *client = client_of_version(versions[_i]);
    ck_assert_ptr_null(visit(must_get(&in), client, "a.test", NULL, &was_resumed));
}
END_TEST

/* ---- client certificates ---- */

static SSL_CTX *
client_with_cert(int version, const struct peer_cert *cert)
{
    SSL_CTX *client = client_of_version(version);
    ck_assert_int_eq(SSL_CTX_use_cert_and_key(client, cert->cert, cert->key, NULL, 1), 1);
    return client;
}

static struct tls_server_input
auth_input(enum tls_client_auth auth, const struct peer_cert *ca)
{
    struct tls_server_input in = plain_input();
    in.client_auth = auth;
    in.client_ca_pem = slice_from_str(ca->cert_pem);
    return in;
}

START_TEST(client_certificates)
{
    struct peer_cert *ca = peer_cert_make(peer_key_make("EC"), "ca", 30, NULL);
    struct peer_cert *good = peer_cert_make(site->key, "client", 30, ca);
    struct peer_cert *expired = peer_cert_make(site->key, "client", -1, ca);
    struct peer_cert *stranger = peer_cert_make(site->key, "client", 30, NULL);
    const struct {
        enum tls_client_auth auth;
        const struct peer_cert *cert;
        const char *error; /* NULL: accepted */
    } cases[] = {
        {TLS_AUTH_OFF, NULL, NULL},
        {TLS_AUTH_OFF, stranger, NULL},
        {TLS_AUTH_OPTIONAL, NULL, NULL},
        {TLS_AUTH_OPTIONAL, good, NULL},
        {TLS_AUTH_OPTIONAL, stranger, "client certificate: self-signed certificate"},
        {TLS_AUTH_REQUIRE, NULL, "peer did not return a certificate"},
        {TLS_AUTH_REQUIRE, good, NULL},
        {TLS_AUTH_REQUIRE, expired, "client certificate: certificate has expired"},
        {TLS_AUTH_REQUIRE, stranger, "client certificate: self-signed certificate"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tls_server_input in = auth_input(cases[i].auth, ca);
        SSL_CTX *client = cases[i].cert ? client_with_cert(versions[_i], cases[i].cert)
                                        : client_of_version(versions[_i]);
        struct pair p;
        pair_open(&p, must_get(&in), client, "a.test", NULL);
        int expected = cases[i].error ? IO_ERROR : 1;
        ck_assert_msg(pair_handshake(&p) == expected, "case %zu: %s", i, transport_tls_error(&p.t));
        ck_assert_str_eq(transport_tls_error(&p.t), cases[i].error ? cases[i].error : "");
        pair_close(&p);
    }
}
END_TEST

START_TEST(session_keeps_its_client_certificate)
{
    struct peer_cert *ca = peer_cert_make(peer_key_make("EC"), "ca", 30, NULL);
    struct peer_cert *good = peer_cert_make(site->key, "client", 30, ca);
    struct tls_server_input in = auth_input(TLS_AUTH_REQUIRE, ca);
    struct tls_server *srv = must_get(&in);
    SSL_CTX *client = client_with_cert(versions[_i], good);
    bool was_resumed;
    SSL_SESSION *session = visit(srv, client, "a.test", NULL, &was_resumed);
    ck_assert_ptr_nonnull(visit(srv, client, "a.test", session, &was_resumed));
    ck_assert(was_resumed);
}
END_TEST

/* CVE-2025-23419: a session made where no certificate, or one of another CA, was asked for must not
 * stand in for one, whatever the server name. */
START_TEST(session_does_not_cross_what_it_was_made_for)
{
    struct peer_cert *ca = peer_cert_make(peer_key_make("EC"), "ca", 30, NULL);
    struct peer_cert *other_ca = peer_cert_make(peer_key_make("EC"), "ca", 30, NULL);
    struct peer_cert *named = peer_cert_make(site->key, "b.test", 30, NULL);
    struct peer_cert *good = peer_cert_make(site->key, "client", 30, ca);
    struct peer_cert *other_good = peer_cert_make(site->key, "client", 30, other_ca);
    struct tls_cert_input certs[] = {site_input, peer_cert_input(named)};
    struct tls_server_input inputs[] = {auth_input(TLS_AUTH_OFF, ca), auth_input(TLS_AUTH_OFF, ca),
                                        auth_input(TLS_AUTH_OPTIONAL, ca),
                                        auth_input(TLS_AUTH_REQUIRE, ca),
                                        auth_input(TLS_AUTH_REQUIRE, other_ca)};
    const size_t n = sizeof(inputs) / sizeof(inputs[0]);
    inputs[1].listener = "admin";
    for (size_t i = 0; i < n; i++) {
        inputs[i].certs = certs;
        inputs[i].ncerts = 2;
    }
    bool was_resumed;
    for (size_t from = 0; from < n; from++) {
        const struct peer_cert *made_with = from == n - 1 ? other_good : good;
        for (size_t to = 0; to < n; to++) {
            const struct peer_cert *shown = to == n - 1 ? other_good : good;
            SSL_SESSION *session =
                visit(must_get(&inputs[from]), client_with_cert(versions[_i], made_with), "a.test",
                      NULL, &was_resumed);
            visit(must_get(&inputs[to]), client_with_cert(versions[_i], shown), "b.test", session,
                  &was_resumed);
            ck_assert_msg(from == to || !was_resumed, "resumed from %zu to %zu", from, to);
        }
    }
    SSL_SESSION *open =
        visit(must_get(&inputs[0]), client_of_version(versions[_i]), "a.test", NULL, &was_resumed);
    struct pair p;
    pair_open(&p, must_get(&inputs[3]), client_of_version(versions[_i]), "b.test", open);
    ck_assert_int_eq(pair_handshake(&p), IO_ERROR);
    pair_close(&p);
}
END_TEST

START_TEST(renegotiation_is_refused)
{
    struct tls_server_input in = plain_input();
    struct pair p;
    char buf[16];
    pair_open(&p, must_get(&in), client_of_version(TLS1_2_VERSION), "a.test", NULL);
    ck_assert_int_eq(pair_handshake(&p), 1);
    ck_assert_int_eq(SSL_renegotiate(p.ssl), 1);
    ck_assert_int_ne(SSL_do_handshake(p.ssl), 1);
    ck_assert_int_lt((int)p.t.ops->read(&p.t, buf, sizeof(buf)), 0);
    int result = SSL_do_handshake(p.ssl);
    ck_assert_int_ne(result, 1);
    ck_assert_int_eq(SSL_get_error(p.ssl, result), SSL_ERROR_SSL);
    ck_assert_int_eq(ERR_GET_REASON(ERR_peek_error()), SSL_R_NO_RENEGOTIATION);
    pair_close(&p);
}
END_TEST

/* ---- wrong input ---- */

static void
expect_problem(const struct tls_server_input *in, enum tls_part part, unsigned cert,
               const char *why)
{
    struct tls_problem problem = {0};
    ck_assert_ptr_null(tls_server_get(in, &problem));
    ck_assert_str_eq(problem.why, why);
    ck_assert_int_eq(problem.part, part);
    ck_assert_uint_eq(problem.cert, cert);
    ck_assert_uint_eq(ERR_peek_error(), 0);
}

START_TEST(certificate_problems_are_named)
{
    struct peer_cert *other = peer_cert_make(peer_key_make("EC"), "b.test", 30, NULL);
    struct tls_cert_input certs[] = {site_input, peer_cert_input(other)};
    struct tls_server_input in = plain_input();
    in.certs = certs;
    in.ncerts = 2;
    certs[1].key_pem = slice_from_str(site->key_pem);
    expect_problem(&in, TLS_PART_KEY, 1, "site.key: does not match the certificate in site.crt");
    certs[1].key_pem = SLICE("");
    expect_problem(&in, TLS_PART_KEY, 1, "site.key: no private key in PEM form");
    certs[1].key_pem = slice_from_str(other->key_pem);
    certs[1].cert_pem = SLICE("nothing");
    expect_problem(&in, TLS_PART_CERT, 1, "site.crt: no certificate in PEM form");
    BIO *pem = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(pem, other->key, EVP_aes_128_cbc(), NULL, 0, NULL, (char[]){"word"});
    char *text;
    long len = BIO_get_mem_data(pem, &text);
    certs[1] = peer_cert_input(other);
    certs[1].key_pem = slice_of(text, (size_t)len);
    expect_problem(&in, TLS_PART_KEY, 1,
                   "site.key: the key is encrypted; an unencrypted one is needed");
    BIO_free(pem);
}
END_TEST

START_TEST(damaged_certificate_is_a_problem)
{
    struct tls_cert_input cert = site_input;
    char damaged[4096];
    snprintf(damaged, sizeof(damaged), "%s", site->cert_pem);
    memset(strchr(damaged, '\n') + 1, 'A', 8);
    cert.cert_pem = slice_from_str(damaged);
    struct tls_server_input in = plain_input();
    in.certs = &cert;
    struct tls_problem problem;
    ck_assert_ptr_null(tls_server_get(&in, &problem));
    ck_assert_int_eq(problem.part, TLS_PART_CERT);
}
END_TEST

START_TEST(weak_certificate_is_a_problem)
{
    EVP_PKEY *weak = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)512);
    peer_keep(PEER_KEY, weak);
    struct tls_cert_input cert = peer_cert_input(peer_cert_make(weak, "a.test", 30, NULL));
    struct tls_server_input in = plain_input();
    in.certs = &cert;
    expect_problem(&in, TLS_PART_CERT, 0, "site.crt: ee key too small");
}
END_TEST

START_TEST(wrong_words_are_named)
{
    struct tls_server_input in = plain_input();
    in.ciphers = "ECDHE-RSA-AES128-GCM-SHA256:ROT13";
    expect_problem(&in, TLS_PART_CIPHERS, 0, "\"ROT13\" is no cipher that OpenSSL knows here");
    in.ciphers = "!aNULL";
    expect_problem(&in, TLS_PART_CIPHERS, 0, "no usable cipher in \"!aNULL\"");
    in = plain_input();
    in.ciphersuites = "TLS_AES_128_GCM_SHA256:TLS_ROT13";
    expect_problem(&in, TLS_PART_CIPHERSUITES, 0,
                   "\"TLS_ROT13\" is no TLS 1.3 cipher suite that OpenSSL knows here");
    in = plain_input();
    in.curves = "X25519:round";
    expect_problem(&in, TLS_PART_CURVES, 0, "\"round\" is no curve that OpenSSL knows here");
    in = plain_input();
    in.client_auth = TLS_AUTH_REQUIRE;
    expect_problem(&in, TLS_PART_CLIENT_CA, 0, "no certificate in PEM form");
    in = plain_input();
    in.alpn = (const char *const[]){"h2", "", NULL};
    expect_problem(&in, TLS_PART_ALPN, 0, "a protocol name is empty");
}
END_TEST

START_TEST(chosen_ciphers_and_curves_are_used)
{
    struct tls_server_input in = plain_input();
    in.ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305:!aNULL";
    in.ciphersuites = "TLS_CHACHA20_POLY1305_SHA256";
    in.curves = "P-384";
    struct pair p;
    pair_open(&p, must_get(&in), client_of_version(versions[_i]), "a.test", NULL);
    ck_assert_int_eq(pair_handshake(&p), 1);
    const char *expected =
        _i == 0 ? "ECDHE-ECDSA-CHACHA20-POLY1305" : "TLS_CHACHA20_POLY1305_SHA256";
    ck_assert_str_eq(SSL_get_cipher_name(p.ssl), expected);
    EVP_PKEY *share;
    ck_assert_int_eq(SSL_get_peer_tmp_key(p.ssl, &share), 1);
    ck_assert_int_eq(EVP_PKEY_get_bits(share), 384);
    EVP_PKEY_free(share);
    pair_close(&p);
}
END_TEST

START_TEST(expired_certificate_is_served)
{
    struct peer_cert *expired = peer_cert_make(site->key, "a.test", -1, NULL);
    struct tls_cert_input cert = peer_cert_input(expired);
    struct tls_server_input in = plain_input();
    in.certs = &cert;
    expect_cert(must_get(&in), peer_client(), "a.test", expired);
}
END_TEST

START_TEST(same_inputs_are_built_once)
{
    struct tls_server_input in = plain_input();
    struct tls_problem problem;
    struct tls_cert *cert = tls_cert_get(&site_input, &problem);
    struct tls_server *srv = must_get(&in);
    ck_assert_ptr_eq(must_get(&in), srv);
    struct tls_cert_input copy = site_input;
    char text[4096];
    snprintf(text, sizeof(text), "%s", site->cert_pem);
    copy.cert_pem = slice_from_str(text);
    in.certs = &copy;
    ck_assert_ptr_eq(must_get(&in), srv);
    ck_assert_ptr_eq(tls_cert_get(&copy, &problem), cert);
    in.listener = "other";
    ck_assert_ptr_ne(must_get(&in), srv);
    text[0] = ' '; /* the inputs were copied */
    expect_cert(srv, peer_client(), "a.test", site);
    tls_cert_unref(cert);
    tls_cert_unref(cert);
}
END_TEST

/* Returns how many steps it took. */
static unsigned
warm(struct slice pem)
{
    unsigned steps = 1;
    while (!tls_warm(pem)) {
        steps++;
    }
    return steps;
}

START_TEST(long_file_is_parsed_a_certificate_at_a_time)
{
    char *two = NULL;
    const char *why = NULL;
    ck_assert_int_gt(asprintf(&two, "%s%s", site->cert_pem, site->cert_pem), 0);
    ck_assert_uint_eq(warm(slice_from_str(two)), 3);
    ck_assert_uint_eq(warm(slice_from_str(two)), 1); /* known */
    STACK_OF(X509) *all = tls_cert_list(slice_from_str(two), &why);
    ck_assert_int_eq(sk_X509_num(all), 2);
    sk_X509_pop_free(all, X509_free);
    tls_warm_end();
    ck_assert(!tls_warm(slice_from_str(two))); /* given up half-way */
    all = tls_cert_list(slice_from_str(two), &why);
    ck_assert_int_eq(sk_X509_num(all), 2);
    sk_X509_pop_free(all, X509_free);
    tls_warm_end();
    free(two);
}
END_TEST

START_TEST(files_parsed_ahead_are_used_and_still_checked)
{
    struct peer_cert *other = peer_cert_make(peer_key_make("EC"), "b.test", 30, NULL);
    struct tls_cert_input certs[] = {peer_cert_input(other), site_input};
    struct tls_server_input in = plain_input();
    in.certs = certs;
    in.ncerts = 2;
    warm(SLICE("no PEM at all"));
    warm(SLICE("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"));
    for (int i = 0; i < 2; i++) {
        warm(certs[i].cert_pem);
        warm(certs[i].key_pem);
    }
    certs[0].key_pem = site_input.key_pem;
    expect_problem(&in, TLS_PART_KEY, 0, "site.key: does not match the certificate in site.crt");
    certs[0].key_pem = slice_from_str(other->key_pem);
    struct tls_server *srv = must_get(&in);
    tls_warm_end();
    warm(certs[0].cert_pem); /* now in use: nothing to do */
    tls_warm_end();
    expect_cert(srv, peer_client(), "b.test", other);
    expect_cert(srv, peer_client(), "a.test", site);
}
END_TEST

Suite *
tls_suite(void)
{
    Suite *suite = suite_create("tls");
    TCase *names = tcase_create("names");
    tcase_add_checked_fixture(names, setup, peer_free_kept);
    tcase_add_loop_test(names, handshake_and_bytes_of_each_version, 0, 2);
    tcase_add_test(names, min_version_refuses_older);
    tcase_add_loop_test(names, certificate_by_server_name, 0, 2);
    tcase_add_test(names, strict_sni_refuses_unknown_and_missing);
    tcase_add_loop_test(names, rsa_and_ecdsa_serve_one_name, 0, 2);
    tcase_add_test(names, intermediates_are_sent);
    tcase_add_test(names, alpn_is_chosen_in_our_order);
    tcase_add_test(names, alpn_with_nothing_in_common_is_refused);
    tcase_add_test(names, renegotiation_is_refused);
    suite_add_tcase(suite, names);
    TCase *sessions = tcase_create("sessions");
    tcase_add_checked_fixture(sessions, setup, peer_free_kept);
    tcase_add_loop_test(sessions, session_resumes_on_another_server_of_the_listener, 0, 2);
    tcase_add_loop_test(sessions, tickets_use_the_keys_of_the_segment, 0, 2);
    tcase_add_loop_test(sessions, no_key_in_the_segment_means_no_ticket, 0, 2);
    tcase_add_test(sessions, one_ticket_a_handshake);
    tcase_add_loop_test(sessions, tickets_can_be_off, 0, 2);
    tcase_add_loop_test(sessions, client_certificates, 0, 2);
    tcase_add_loop_test(sessions, session_keeps_its_client_certificate, 0, 2);
    tcase_add_loop_test(sessions, session_does_not_cross_what_it_was_made_for, 0, 2);
    suite_add_tcase(suite, sessions);
    TCase *input = tcase_create("input");
    tcase_add_checked_fixture(input, setup, peer_free_kept);
    tcase_add_test(input, certificate_problems_are_named);
    tcase_add_test(input, damaged_certificate_is_a_problem);
    tcase_add_test(input, weak_certificate_is_a_problem);
    tcase_add_test(input, wrong_words_are_named);
    tcase_add_loop_test(input, chosen_ciphers_and_curves_are_used, 0, 2);
    tcase_add_test(input, expired_certificate_is_served);
    tcase_add_test(input, files_parsed_ahead_are_used_and_still_checked);
    tcase_add_test(input, long_file_is_parsed_a_certificate_at_a_time);
    tcase_add_test(input, same_inputs_are_built_once);
    suite_add_tcase(suite, input);
    return suite;
}
