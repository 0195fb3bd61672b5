/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_peer.h - for tests of TLS: certificates made on the spot, and an OpenSSL client at the other
 * end of a socketpair, in the same thread.
 */
#ifndef T_UNIT_TLS_PEER_H
#define T_UNIT_TLS_PEER_H

#include <openssl/ssl.h>

#include "shared/tls_client.h"

struct peer_cert {
    X509 *cert;
    EVP_PKEY *key;
    char *cert_pem, *key_pem;
};

/* What a test makes or is given, and drops only at its end. */
enum peer_kind {
    PEER_KEY,
    PEER_CERT,
    PEER_CLIENT, /* an SSL_CTX */
    PEER_SERVER,
    PEER_SESSION,
    PEER_TLS_CLIENT,
    PEER_REMOTE
};

/* Keep object, NULL or one reference of that kind, until peer_free_kept(). */
void
peer_keep(enum peer_kind kind, void *object);
/* The teardown of every test that uses this file: free what was kept, the newest first. */
void
peer_free_kept(void);

/* A key of "RSA" (2048 bits) or "EC" (P-256); kept. */
EVP_PKEY *
peer_key_make(const char *type);
/* A certificate for that key. names: DNS names and IPv4 addresses separated by commas, the first is
 * also the common name; days: from now, negative: expired; issuer NULL: self-signed. Kept, but not
 * its key. */
struct peer_cert *
peer_cert_make(EVP_PKEY *key, const char *names, int days, const struct peer_cert *issuer);
struct tls_cert_input
peer_cert_input(const struct peer_cert *cert);

/* The client that trusts everybody, with what the test sets on it; kept. */
SSL_CTX *
peer_client(void);

struct pair {
    struct transport t; /* the server's end, under test */
    SSL *ssl;           /* the client */
    int fd;             /* its socket */
    int handshake;      /* the server's last answer */
    int client_result;  /* and the client's, of SSL_do_handshake() */
};

/* Connect a client to srv. name: server name or NULL; session: to resume or NULL. */
void
pair_open(struct pair *p, struct tls_server *srv, SSL_CTX *client, const char *name,
          SSL_SESSION *session);
/* Run both sides until the server has an answer and the client too. Returns the server's. */
int
pair_handshake(struct pair *p);
/* Send "ping" and answer "pong"; after it the client has its ticket. */
void
pair_echo(struct pair *p);
/* Bytes from the client to the server; all of them must be accepted. */
void
pair_client_write(struct pair *p, const char *bytes, size_t len);
void
pair_close(struct pair *p);

#endif
