/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_peer.c - certificates and clients for tests of TLS.
 */
#include "t/unit/tls_peer.h"

#include <check.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct kept {
    struct kept *older;
    enum peer_kind kind;
    void *object;
};

static struct kept *newest;

void
peer_keep(enum peer_kind kind, void *object)
{
    struct kept *kept = malloc(sizeof(*kept));
    ck_assert_ptr_nonnull(kept);
    *kept = (struct kept){newest, kind, object};
    newest = kept;
}

static void
cert_free(struct peer_cert *cert)
{
    X509_free(cert->cert);
    free(cert->cert_pem);
    free(cert->key_pem);
    free(cert);
}

static void
object_free(enum peer_kind kind, void *object)
{
    switch (kind) {
    case PEER_KEY: EVP_PKEY_free(object); break;
    case PEER_CERT: cert_free(object); break;
    case PEER_CLIENT: SSL_CTX_free(object); break;
    case PEER_SERVER: tls_server_unref(object); break;
    case PEER_TLS_CLIENT: tls_client_unref(object); break;
    case PEER_REMOTE: tls_remote_unref(object); break;
    case PEER_SESSION: SSL_SESSION_free(object); break;
    }
}

void
peer_free_kept(void)
{
    while (newest) {
        struct kept *kept = newest;
        newest = kept->older;
        object_free(kept->kind, kept->object);
        free(kept);
    }
}

EVP_PKEY *
peer_key_make(const char *type)
{
    EVP_PKEY *key = strcmp(type, "RSA") == 0 ? EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048)
                                             : EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    ck_assert_ptr_nonnull(key);
    peer_keep(PEER_KEY, key);
    return key;
}

static void
add_extension(X509 *cert, int nid, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    ck_assert_ptr_nonnull(extension);
    ck_assert_int_eq(X509_add_ext(cert, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static void
add_names(X509 *cert, const char *names)
{
    char value[512] = "", copy[256];
    snprintf(copy, sizeof(copy), "%s", names);
    X509_NAME *subject = X509_get_subject_name(cert);
    for (char *save = NULL, *name = strtok_r(copy, ",", &save); name;
         name = strtok_r(NULL, ",", &save)) {
        if (value[0] == '\0') {
            X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (unsigned char *)name, -1, -1,
                                       0);
        }
        size_t len = strlen(value);
        bool is_ip = strspn(name, "0123456789.") == strlen(name);
        snprintf(value + len, sizeof(value) - len, "%s%s:%s", len ? "," : "", is_ip ? "IP" : "DNS",
                 name);
    }
    add_extension(cert, NID_subject_alt_name, value);
    add_extension(cert, NID_basic_constraints, "CA:TRUE");
}

static char *
text_of(BIO *pem)
{
    char *text = NULL;
    long len = BIO_get_mem_data(pem, &text);
    char *copy = strndup(text, (size_t)len);
    BIO_free(pem);
    return copy;
}

struct peer_cert *
peer_cert_make(EVP_PKEY *key, const char *names, int days, const struct peer_cert *issuer)
{
    static long serial = 1;
    struct peer_cert *made = calloc(1, sizeof(*made));
    X509 *cert = X509_new();
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(cert), -864000);
    X509_gmtime_adj(X509_getm_notAfter(cert), days * 86400L);
    X509_set_pubkey(cert, key);
    add_names(cert, names);
    X509_set_issuer_name(cert, X509_get_subject_name(issuer ? issuer->cert : cert));
    ck_assert_int_gt(X509_sign(cert, issuer ? issuer->key : key, EVP_sha256()), 0);
    BIO *cert_pem = BIO_new(BIO_s_mem()), *key_pem = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(cert_pem, cert);
    PEM_write_bio_PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL);
    *made = (struct peer_cert){cert, key, text_of(cert_pem), text_of(key_pem)};
    peer_keep(PEER_CERT, made);
    return made;
}

struct tls_cert_input
peer_cert_input(const struct peer_cert *cert)
{
    return (struct tls_cert_input){slice_from_str(cert->cert_pem), slice_from_str(cert->key_pem),
                                   "site.crt", "site.key"};
}

SSL_CTX *
peer_client(void)
{
    SSL_CTX *client = SSL_CTX_new(TLS_client_method());
    ck_assert_ptr_nonnull(client);
    SSL_CTX_set_verify(client, SSL_VERIFY_NONE, NULL);
    peer_keep(PEER_CLIENT, client);
    return client;
}

void
pair_open(struct pair *p, struct tls_server *srv, SSL_CTX *client, const char *name,
          SSL_SESSION *session)
{
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    *p = (struct pair){.fd = fds[1], .handshake = IO_AGAIN, .client_result = -1};
    ck_assert_int_eq(transport_tls_accept(&p->t, fds[0], srv), 0);
    p->ssl = SSL_new(client);
    SSL_set_fd(p->ssl, p->fd);
    if (name) {
        SSL_set_tlsext_host_name(p->ssl, name);
    }
    if (session) {
        SSL_set_session(p->ssl, session);
    }
    SSL_set_connect_state(p->ssl);
}

int
pair_handshake(struct pair *p)
{
    bool is_client_over = false;
    for (int turn = 0; turn < 50; turn++) {
        if (!is_client_over) {
            p->client_result = SSL_do_handshake(p->ssl);
            is_client_over =
                p->client_result == 1 || SSL_get_error(p->ssl, -1) != SSL_ERROR_WANT_READ;
        }
        if (p->handshake == IO_AGAIN) {
            p->handshake = p->t.ops->handshake(&p->t);
        }
        if (p->handshake != IO_AGAIN && is_client_over) {
            break;
        }
    }
    return p->handshake;
}

void
pair_client_write(struct pair *p, const char *bytes, size_t len)
{
    ck_assert_int_eq(SSL_write(p->ssl, bytes, (int)len), (int)len);
}

void
pair_echo(struct pair *p)
{
    char buf[16];
    pair_client_write(p, "ping", 4);
    ck_assert_int_eq(p->t.ops->read(&p->t, buf, sizeof(buf)), 4);
    ck_assert_mem_eq(buf, "ping", 4);
    struct iovec answer = {"pong", 4};
    ck_assert_int_eq(p->t.ops->writev(&p->t, &answer, 1), 4);
    ck_assert_int_eq(SSL_read(p->ssl, buf, sizeof(buf)), 4);
    ck_assert_mem_eq(buf, "pong", 4);
}

void
pair_close(struct pair *p)
{
    SSL_free(p->ssl);
    int fd = p->t.fd;
    p->t.ops->fini(&p->t);
    close(fd);
    close(p->fd);
}
