/* SPDX-License-Identifier: Apache-2.0
 *
 * tls.h - TLS termination with OpenSSL 3; towards backends: tls_client.h.
 *
 * A tls_server is everything that one TLS listener needs: an SSL_CTX per certificate, chosen by SNI
 * (exact, wildcard, then the first), RSA and ECDSA side by side for the same names. It is
 * immutable, counted, and shared by all confs of a process whose inputs have the same digest, so
 * that a reload builds only what changed. It points into no conf.
 */
#ifndef SHARED_TLS_H
#define SHARED_TLS_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/shm.h"
#include "shared/slice.h"
#include "shared/transport.h"

enum tls_client_auth { TLS_AUTH_OFF, TLS_AUTH_OPTIONAL, TLS_AUTH_REQUIRE };

struct tls_cert_input {
    struct slice cert_pem, key_pem;   /* chain, leaf first; unencrypted key */
    const char *cert_path, *key_path; /* for messages */
};

struct tls_server_input {
    const char *listener; /* sessions are bound to listener, client_auth and client_ca */
    const struct tls_cert_input *certs;
    unsigned ncerts;
    unsigned min_version;                        /* 0x0303, 0x0304 */
    const char *ciphers, *ciphersuites, *curves; /* NULL: Mozilla intermediate */
    const char *const *alpn; /* NULL-terminated, in order of preference; NULL or empty: none */
    enum tls_client_auth client_auth;
    struct slice client_ca_pem;
    bool strict_sni; /* an unknown or missing server name ends the handshake */
    bool tickets;
};

struct tls_server;
struct tls_cert;

/* Which input was wrong, so that the caller can name its key and place. */
enum tls_part {
    TLS_PART_NONE,
    TLS_PART_CERT,
    TLS_PART_KEY,
    TLS_PART_CIPHERS,
    TLS_PART_CIPHERSUITES,
    TLS_PART_CURVES,
    TLS_PART_CLIENT_CA,
    TLS_PART_CA, /* of a tls_client */
    TLS_PART_ALPN
};
struct tls_problem {
    enum tls_part part;
    unsigned cert; /* index, for CERT and KEY */
    char why[256];
};

/* Parse a certificate chain and its key, and check that they belong together, or find the one with
 * the same bytes (count + 1). NULL with *problem filled (problem->cert is 0). */
struct tls_cert *
tls_cert_get(const struct tls_cert_input *in, struct tls_problem *problem);
void
tls_cert_unref(struct tls_cert *cert);

/* Parsing a new certificate or key takes up to 0.4 ms, and the authorities of a system are more
 * than a hundred. A process that must not stall gives each file that may be one to tls_warm(),
 * again until that returns true, a few calls each loop turn, then builds its servers and clients,
 * which find there what they need, and ends with tls_warm_end(). The bytes stay until then. What
 * cannot be parsed is left for tls_server_get() to report. */
bool
tls_warm(struct slice pem);
void
tls_warm_end(void);

/* Build or find one with the same inputs (count + 1). Inputs are copied as needed. An expired
 * certificate is no problem. NULL with *problem filled. */
struct tls_server *
tls_server_get(const struct tls_server_input *in, struct tls_problem *problem);
struct tls_server *
tls_server_ref(struct tls_server *srv);
void
tls_server_unref(struct tls_server *srv);

/* Once per worker: where ticket keys are. Without it (-t) the process makes a key of its own. */
void
tls_worker_init(const struct shm *shm);

/* Begin the server side on a connected socket. 0 or -1 (memory). The transport holds a reference to
 * srv. */
int
transport_tls_accept(struct transport *t, int fd, struct tls_server *srv);

/* After the handshake; of a client's transport (tls_client.h) too. */
struct slice
transport_tls_alpn(const struct transport *t); /* empty: none */
struct slice
transport_tls_version(const struct transport *t); /* "TLSv1.3" */
struct slice
transport_tls_server_name(const struct transport *t);
bool
transport_tls_has_peer_cert(
    const struct transport *t); /* that has been verified, or it had failed */
bool
transport_tls_is_resumed(const struct transport *t);
/* A sentence about the last failure, for the log; valid until the next call. */
const char *
transport_tls_error(const struct transport *t);

#endif
