/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_private.h - what the files of TLS termination share with each other and with nobody else.
 */
#ifndef SHARED_TLS_PRIVATE_H
#define SHARED_TLS_PRIVATE_H

#include <openssl/ssl.h>

#include "shared/list.h"
#include "shared/tls.h"

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

/* Digests of TLS_DIGEST_SIZE bytes: of what decides who may resume a session; of a file; of all
 * that a server is built from. */
void
tls_digest_sessions(const struct tls_server_input *in, uint8_t *digest);
void
tls_digest_file(struct slice bytes, uint8_t *digest);
void
tls_digest_server(const struct tls_server_input *in, struct tls_cert *const *certs,
                  uint8_t *digest);

/* All of an SSL_CTX except names, certificates and ALPN. NULL with *problem filled. */
SSL_CTX *
tls_context_make(const struct tls_server_input *in, struct tls_problem *problem);

/* Tickets are encrypted with the keys of the segment. 0 or -1. */
int
tls_ticket_enable(SSL_CTX *openssl);

/* A new server-side SSL; NULL: memory. */
SSL *
tls_server_open(struct tls_server *srv);

#endif
