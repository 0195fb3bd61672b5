/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_client.c - what one upstream says of TLS, its backends, and the sessions they left.
 */
#include "shared/tls_client.h"

#include <assert.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#include "shared/clock.h"
#include "shared/tls_private.h"

/* A resumed session shows no certificate, so none is checked. After so long the backend must prove
 * again who it is, however often its sessions were renewed. */
#define PROOF_US (UINT64_C(3600) * 1000 * 1000)

#define ALPN_MAX 255

struct tls_client {
    struct list link;
    unsigned refs;
    uint8_t digest[TLS_DIGEST_SIZE];
    SSL_CTX *openssl;
    struct tls_trust *trust; /* NULL: nothing is verified */
    struct tls_cert *cert;   /* NULL: none to show */
};

struct tls_remote {
    unsigned refs;
    struct tls_client *client;
    SSL_SESSION *session; /* NULL: none */
    uint64_t proven_us;   /* wall clock of the full handshake that session comes from */
    char name[];          /* empty: none */
};

static struct list clients = LIST_INIT(clients);

/* ---- callbacks ---- */

/* The peer left a session; in TLS 1.3 also long after the handshake. */
static int
client_on_session(SSL *ssl, SSL_SESSION *session)
{
    const struct tls_outgoing *out = SSL_get_app_data(ssl);
    struct tls_remote *remote = out->remote;
    SSL_SESSION_free(remote->session);
    remote->session = session;
    remote->proven_us = SSL_session_reused(ssl) ? out->former_us : out->begun_us;
    return 1; /* the reference is ours */
}

/* Only when there is no certificate to show; the handshake goes on without. */
static int
client_on_asked(SSL *ssl, X509 **cert, EVP_PKEY **key)
{
    struct tls_outgoing *out = SSL_get_app_data(ssl);
    (void)cert;
    (void)key;
    out->was_asked = true;
    return 0;
}

/* ---- building ---- */

static void
set_trust(struct tls_client *client)
{
    if (client->trust) {
        SSL_CTX_set1_cert_store(client->openssl, tls_trust_store(client->trust));
    }
    SSL_CTX_set_verify(client->openssl, client->trust ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
}

static int
set_cert(struct tls_client *client, const struct tls_client_input *in, struct tls_problem *problem)
{
    const struct tls_cert *cert = client->cert;
    if (!cert) {
        SSL_CTX_set_client_cert_cb(client->openssl, client_on_asked);
        return 0;
    }
    if (SSL_CTX_use_cert_and_key(client->openssl, cert->leaf, cert->key, cert->chain, 1) != 1) {
        tls_problem_set(problem, TLS_PART_CERT, 0, "%s: %s", in->cert->cert_path,
                        tls_last_reason());
        return -1;
    }
    return 0;
}

static int
set_protocol(SSL_CTX *openssl, unsigned min_version)
{
    if (SSL_CTX_set_min_proto_version(openssl, (int)min_version) != 1 ||
        SSL_CTX_set_max_proto_version(openssl, 0) != 1) {
        return -1;
    }
    SSL_CTX_set_options(openssl, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(openssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_read_ahead(openssl, 0);
    SSL_CTX_set_session_cache_mode(openssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(openssl, client_on_session);
    return 0;
}

static int
load_files(struct tls_client *client, const struct tls_client_input *in,
           struct tls_problem *problem)
{
    if (in->verify) {
        client->trust = tls_trust_get(in->ca_pem, in->ca_path, problem);
    }
    if (in->cert && (client->trust || !in->verify)) {
        client->cert = tls_cert_get(in->cert, problem);
    }
    return (!in->verify || client->trust) && (!in->cert || client->cert) ? 0 : -1;
}

static int
client_build(struct tls_client *client, const struct tls_client_input *in,
             struct tls_problem *problem)
{
    client->openssl = SSL_CTX_new(TLS_client_method());
    if (!client->openssl || set_protocol(client->openssl, in->min_version) < 0) {
        tls_problem_set(problem, TLS_PART_NONE, 0, "%s", tls_last_reason());
        return -1;
    }
    set_trust(client);
    return set_cert(client, in, problem);
}

static void
client_free(struct tls_client *client)
{
    SSL_CTX_free(client->openssl);
    tls_cert_unref(client->cert);
    tls_trust_unref(client->trust);
    free(client);
}

static struct tls_client *
client_find(const uint8_t *digest)
{
    list_for_each (it, &clients) {
        struct tls_client *client = container_of(it, struct tls_client, link);
        if (memcmp(client->digest, digest, TLS_DIGEST_SIZE) == 0) {
            return client;
        }
    }
    return NULL;
}

struct tls_client *
tls_client_get(const struct tls_client_input *in, struct tls_problem *problem)
{
    struct tls_client *client = calloc(1, sizeof(*client));
    if (!client) {
        tls_problem_set(problem, TLS_PART_NONE, 0, "out of memory");
        return NULL;
    }
    if (load_files(client, in, problem) < 0) {
        client_free(client);
        return NULL;
    }
    tls_digest_client(in, client->trust ? tls_trust_digest(client->trust) : NULL, client->cert,
                      client->digest);
    struct tls_client *found = client_find(client->digest);
    if (found || client_build(client, in, problem) < 0) {
        client_free(client);
        return found ? tls_client_ref(found) : NULL;
    }
    client->refs = 1;
    list_add_head(&clients, &client->link);
    ERR_clear_error();
    return client;
}

struct tls_client *
tls_client_ref(struct tls_client *client)
{
    client->refs++;
    return client;
}

void
tls_client_unref(struct tls_client *client)
{
    if (client && --client->refs == 0) {
        list_del(&client->link);
        client_free(client);
    }
}

uint64_t
tls_client_identity(const struct tls_client *client, const char *name)
{
    return tls_digest_number(client->digest, name);
}

/* ---- one backend ---- */

struct tls_remote *
tls_remote_new(struct tls_client *client, const char *name)
{
    size_t len = name ? strlen(name) : 0;
    assert(len > 0 || !client->trust);
    struct tls_remote *remote = calloc(1, sizeof(*remote) + len + 1);
    if (!remote) {
        return NULL;
    }
    remote->refs = 1;
    remote->client = tls_client_ref(client);
    if (len > 0) {
        memcpy(remote->name, name, len);
    }
    return remote;
}

struct tls_remote *
tls_remote_ref(struct tls_remote *remote)
{
    remote->refs++;
    return remote;
}

void
tls_remote_unref(struct tls_remote *remote)
{
    if (remote && --remote->refs == 0) {
        tls_remote_forget(remote);
        tls_client_unref(remote->client);
        free(remote);
    }
}

bool
tls_remote_is_for(const struct tls_remote *remote, const struct tls_client *client,
                  const char *name)
{
    return remote->client == client && strcmp(remote->name, name ? name : "") == 0;
}

void
tls_remote_forget(struct tls_remote *remote)
{
    SSL_SESSION_free(remote->session);
    remote->session = NULL;
}

/* ---- one connection ---- */

/* RFC 9525: a name is looked for in subjectAltName alone; addresses are no SNI (RFC 6066 3). */
static int
set_name(SSL *ssl, const char *name)
{
    if (name[0] == '\0' || X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1) {
        return 1;
    }
    SSL_set_hostflags(ssl,
                      X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

static int
set_alpn(SSL *ssl, const char *alpn)
{
    unsigned char list[1 + ALPN_MAX];
    size_t len = alpn ? strlen(alpn) : 0;
    assert(len <= ALPN_MAX);
    list[0] = (unsigned char)len;
    if (len == 0) {
        return 1;
    }
    memcpy(list + 1, alpn, len);
    return SSL_set_alpn_protos(ssl, list, (unsigned)len + 1) == 0;
}

/* A session that OpenSSL does not want is no failure. */
static void
set_session(SSL *ssl, struct tls_outgoing *out)
{
    struct tls_remote *remote = out->remote;
    uint64_t now = clock_wall_us();
    bool is_recent = now >= remote->proven_us && now - remote->proven_us < PROOF_US;
    if (remote->session && !is_recent) {
        tls_remote_forget(remote);
    }
    if (remote->session && SSL_SESSION_is_resumable(remote->session)) {
        SSL_set_session(ssl, remote->session);
    }
    out->begun_us = now;
    out->former_us = remote->proven_us;
}

SSL *
tls_remote_open(struct tls_outgoing *out, const char *alpn)
{
    struct tls_remote *remote = out->remote;
    SSL *ssl = SSL_new(remote->client->openssl);
    ERR_clear_error();
    if (!ssl || !set_name(ssl, remote->name) || !set_alpn(ssl, alpn)) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_app_data(ssl, out);
    SSL_set_connect_state(ssl);
    set_session(ssl, out);
    ERR_clear_error();
    return ssl;
}
