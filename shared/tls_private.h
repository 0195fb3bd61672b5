/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_private.h - what the files of TLS share with each other and with nobody else.
 */
#ifndef SHARED_TLS_PRIVATE_H
#define SHARED_TLS_PRIVATE_H

#include <openssl/ssl.h>

#include "shared/list.h"
#include "shared/tls.h"
#include "shared/tls_client.h"

#define TLS_DIGEST_SIZE 32 /* SHA-256 */

/* One certificate of each kind may serve the same name; the client's abilities choose. */
enum tls_key_kind {
    TLS_KEY_RSA,
    TLS_KEY_RSA_PSS,
    TLS_KEY_EC,
    TLS_KEY_ED25519,
    TLS_KEY_ED448,
    TLS_KEY_KINDS
};

/* A parsed chain and key; counted, and found again by the digest of its bytes. */
struct tls_cert {
    struct list link;
    unsigned refs;
    uint8_t digest[2 * TLS_DIGEST_SIZE]; /* of the certificates' bytes, then of the key's */
    X509 *leaf;
    STACK_OF(X509) * chain; /* without the leaf */
    EVP_PKEY *key;
    enum tls_key_kind kind;
    char **names; /* DNS names, lower case */
    unsigned nnames;
};

/* Fill *problem and forget what OpenSSL has queued. */
void
tls_problem_set(struct tls_problem *problem, enum tls_part part, unsigned cert, const char *format,
                ...) __attribute__((format(printf, 4, 5)));
/* Why the last call of OpenSSL failed. */
const char *
tls_last_reason(void);

/* The certificates of a PEM text, at least one, with references of their own. NULL with *why. */
STACK_OF(X509) * tls_cert_list(struct slice pem, const char **why);

/* Digests of TLS_DIGEST_SIZE bytes: of what decides who may resume a session; of a file; of all
 * that a server is built from. */
void
tls_digest_sessions(const struct tls_server_input *in, uint8_t *digest);
void
tls_digest_file(struct slice bytes, uint8_t *digest);
void
tls_digest_server(const struct tls_server_input *in, struct tls_cert *const *certs,
                  uint8_t *digest);

/* ca: digest of the trusted file, NULL: nothing is verified. cert: NULL: none. */
void
tls_digest_client(const struct tls_client_input *in, const uint8_t *ca, const struct tls_cert *cert,
                  uint8_t *digest);
uint64_t
tls_digest_number(const uint8_t *digest, const char *text);

/* All of an SSL_CTX except names, certificates and ALPN. NULL with *problem filled. */
SSL_CTX *
tls_context_make(const struct tls_server_input *in, struct tls_problem *problem);

/* Tickets are encrypted with the keys of the segment. 0 or -1. */
int
tls_ticket_enable(SSL_CTX *openssl);

/* A new server-side SSL; NULL: memory. */
SSL *
tls_server_open(struct tls_server *srv);

/* The authorities of a PEM text, built or found (count + 1). NULL with *problem filled. */
struct tls_trust;
struct tls_trust *
tls_trust_get(struct slice pem, const char *path, struct tls_problem *problem);
void
tls_trust_unref(struct tls_trust *trust);
X509_STORE *
tls_trust_store(const struct tls_trust *trust);
const uint8_t *
tls_trust_digest(const struct tls_trust *trust);
bool
tls_trust_is_known(const uint8_t *digest);

/* What a client-side connection and its SSL know of each other: the SSL's app data. */
struct tls_outgoing {
    struct tls_remote *remote; /* a reference; NULL: the server side */
    uint64_t begun_us;         /* wall clock of the handshake */
    uint64_t former_us;        /* and of the one that the offered session comes from */
    bool was_asked;            /* for a certificate that we do not have */
};

/* A new client-side SSL with name, ALPN and the session to resume; NULL: memory. out->remote is
 * set, and out stays where it is as long as the SSL lives. */
SSL *
tls_remote_open(struct tls_outgoing *out, const char *alpn);
/* Its session led to nothing. */
void
tls_remote_forget(struct tls_remote *remote);

#endif
