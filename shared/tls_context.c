/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_context.c - set up the SSL_CTX of a listener: versions, ciphers, sessions, client
 * certificates. Server names, certificates and ALPN are tls.c's.
 */
#include <openssl/err.h>
#include <stdio.h>

#include "shared/tls_private.h"

/* Mozilla's intermediate profile without finite-field DHE, which costs a server far more than its
 * attacker. */
#define DEFAULT_CIPHERS \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:" \
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" \
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define DEFAULT_CIPHERSUITES \
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define DEFAULT_CURVES "X25519:P-256:P-384"

#define WORD_MAX_LEN 64

/* A resumed session lives no longer than the oldest key that decrypts its ticket. One with a client
 * certificate is checked again sooner. */
#define SESSION_S        (12 * 3600)
#define SESSION_CLIENT_S 3600

/* Try each word of a list separated by colons, so that a wrong one can be named. OpenSSL itself
 * passes over words that it does not know. 0, or -1 with the word. */
static int
check_words(const char *list, int (*try_word)(SSL_CTX *, const char *), SSL_CTX *openssl,
            char *word)
{
    while (*list) {
        size_t len = strcspn(list, ":, ");
        snprintf(word, WORD_MAX_LEN, "%.*s", (int)len, list);
        bool is_operator = strchr("!-+@", word[0]) != NULL; /* an empty word too */
        if (len >= WORD_MAX_LEN || (!is_operator && try_word(openssl, word) != 1)) {
            return -1;
        }
        list += len + (list[len] != '\0');
    }
    return 0;
}

static int
try_ciphersuite(SSL_CTX *openssl, const char *word)
{
    static const char *const known[] = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                        "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_CCM_SHA256",
                                        "TLS_AES_128_CCM_8_SHA256"};
    (void)openssl;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(word, known[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

static int
set_curves(SSL_CTX *openssl, const char *list)
{
    return (int)SSL_CTX_set1_groups_list(openssl, list);
}

static int
set_lists(SSL_CTX *openssl, const struct tls_server_input *in, struct tls_problem *problem)
{
    const struct {
        enum tls_part part;
        const char *kind, *list, *fallback;
        int (*try_word)(SSL_CTX *, const char *);
        int (*set)(SSL_CTX *, const char *);
    } lists[] = {
        {TLS_PART_CIPHERS, "cipher", in->ciphers, DEFAULT_CIPHERS, SSL_CTX_set_cipher_list,
         SSL_CTX_set_cipher_list},
        {TLS_PART_CIPHERSUITES, "TLS 1.3 cipher suite", in->ciphersuites, DEFAULT_CIPHERSUITES,
         try_ciphersuite, SSL_CTX_set_ciphersuites},
        {TLS_PART_CURVES, "curve", in->curves, DEFAULT_CURVES, set_curves, set_curves},
    };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        const char *list = lists[i].list ? lists[i].list : lists[i].fallback;
        char word[WORD_MAX_LEN] = "";
        if (check_words(list, lists[i].try_word, openssl, word) < 0) {
            tls_problem_set(problem, lists[i].part, 0, "\"%s\" is no %s that OpenSSL knows here",
                            word, lists[i].kind);
            return -1;
        }
        if (*list == '\0' || lists[i].set(openssl, list) != 1) {
            tls_problem_set(problem, lists[i].part, 0, "no usable %s in \"%s\"", lists[i].kind,
                            list);
            return -1;
        }
    }
    return 0;
}

/* Trust them and name them to clients. 0 or -1. */
static int
trust_all(SSL_CTX *openssl, STACK_OF(X509) * authorities)
{
    for (int i = 0; i < sk_X509_num(authorities); i++) {
        X509 *ca = sk_X509_value(authorities, i);
        if (X509_STORE_add_cert(SSL_CTX_get_cert_store(openssl), ca) != 1 ||
            SSL_CTX_add_client_CA(openssl, ca) != 1) {
            return -1;
        }
    }
    return 0;
}

static int
set_client_auth(SSL_CTX *openssl, const struct tls_server_input *in, struct tls_problem *problem)
{
    if (in->client_auth == TLS_AUTH_OFF) {
        return 0;
    }
    const char *why = NULL;
    STACK_OF(X509) *authorities = tls_cert_list(in->client_ca_pem, &why);
    if (!authorities || trust_all(openssl, authorities) < 0) {
        tls_problem_set(problem, TLS_PART_CLIENT_CA, 0, "%s", why ? why : tls_last_reason());
        sk_X509_pop_free(authorities, X509_free);
        return -1;
    }
    sk_X509_pop_free(authorities, X509_free);
    ERR_clear_error();
    int is_required = in->client_auth == TLS_AUTH_REQUIRE;
    SSL_CTX_set_verify(openssl,
                       SSL_VERIFY_PEER | (is_required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    SSL_CTX_set_timeout(openssl, SESSION_CLIENT_S);
    return 0;
}

/* A session is good only where the same would have been asked of the client (CVE-2025-23419). */
static void
bind_sessions(SSL_CTX *openssl, const struct tls_server_input *in)
{
    uint8_t meaning[TLS_DIGEST_SIZE];
    tls_digest_sessions(in, meaning);
    SSL_CTX_set_session_id_context(openssl, meaning, sizeof(meaning));
}

static int
set_sessions(SSL_CTX *openssl, const struct tls_server_input *in)
{
    bind_sessions(openssl, in);
    SSL_CTX_set_session_cache_mode(openssl, SSL_SESS_CACHE_OFF);
    if (!in->tickets) {
        SSL_CTX_set_options(openssl, SSL_OP_NO_TICKET);
        return SSL_CTX_set_num_tickets(openssl, 0) == 1 ? 0 : -1;
    }
    SSL_CTX_set_timeout(openssl, SESSION_S);
    return SSL_CTX_set_num_tickets(openssl, 1) == 1 ? tls_ticket_enable(openssl) : -1;
}

static int
set_protocol(SSL_CTX *openssl, const struct tls_server_input *in)
{
    if (SSL_CTX_set_min_proto_version(openssl, (int)in->min_version) != 1 ||
        SSL_CTX_set_max_proto_version(openssl, 0) != 1) {
        return -1;
    }
    SSL_CTX_set_options(openssl, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    /* Without NO_AUTO_CHAIN each handshake would search the trust store for intermediates. */
    SSL_CTX_set_mode(openssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_read_ahead(openssl, 0);
    return 0;
}

SSL_CTX *
tls_context_make(const struct tls_server_input *in, struct tls_problem *problem)
{
    SSL_CTX *openssl = SSL_CTX_new(TLS_server_method());
    if (!openssl || set_protocol(openssl, in) < 0 || set_sessions(openssl, in) < 0) {
        tls_problem_set(problem, TLS_PART_NONE, 0, "%s", tls_last_reason());
        SSL_CTX_free(openssl);
        return NULL;
    }
    if (set_lists(openssl, in, problem) < 0 || set_client_auth(openssl, in, problem) < 0) {
        SSL_CTX_free(openssl);
        return NULL;
    }
    return openssl;
}
