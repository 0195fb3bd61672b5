/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_digest.c - SHA-256 of what TLS is built from, to find again what was built already, and to
 * tell sessions apart.
 */
#include <openssl/evp.h>
#include <stdlib.h>

#include "shared/tls_private.h"

static void
digest_bytes(EVP_MD_CTX *hash, const void *bytes, size_t len)
{
    uint64_t prefix = len; /* so that two neighbours never read as one */
    if (EVP_DigestUpdate(hash, &prefix, sizeof(prefix)) != 1 ||
        EVP_DigestUpdate(hash, bytes, len) != 1) {
        abort(); /* only for want of memory */
    }
}

static void
digest_text(EVP_MD_CTX *hash, const char *text)
{
    digest_bytes(hash, text ? text : "", text ? strlen(text) + 1 : 0);
}

static EVP_MD_CTX *
digest_begin(void)
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    if (!hash || EVP_DigestInit_ex(hash, EVP_sha256(), NULL) != 1) {
        abort(); /* only for want of memory */
    }
    return hash;
}

static void
digest_end(EVP_MD_CTX *hash, uint8_t *digest)
{
    if (EVP_DigestFinal_ex(hash, digest, NULL) != 1) {
        abort(); /* only for want of memory */
    }
    EVP_MD_CTX_free(hash);
}

/* Who may resume: the same would have been asked of him on the same listener. */
static void
digest_identity(EVP_MD_CTX *hash, const struct tls_server_input *in)
{
    digest_text(hash, in->listener);
    digest_bytes(hash, &in->client_auth, sizeof(in->client_auth));
    digest_bytes(hash, in->client_ca_pem.ptr, in->client_ca_pem.len);
}

void
tls_digest_sessions(const struct tls_server_input *in, uint8_t *digest)
{
    EVP_MD_CTX *hash = digest_begin();
    digest_identity(hash, in);
    digest_end(hash, digest);
}

void
tls_digest_file(struct slice bytes, uint8_t *digest)
{
    EVP_MD_CTX *hash = digest_begin();
    digest_bytes(hash, bytes.ptr, bytes.len);
    digest_end(hash, digest);
}

void
tls_digest_server(const struct tls_server_input *in, struct tls_cert *const *certs, uint8_t *digest)
{
    EVP_MD_CTX *hash = digest_begin();
    digest_identity(hash, in);
    digest_bytes(hash, &in->ncerts, sizeof(in->ncerts));
    for (unsigned i = 0; i < in->ncerts; i++) {
        digest_bytes(hash, certs[i]->digest, sizeof(certs[i]->digest));
    }
    digest_bytes(hash, &in->min_version, sizeof(in->min_version));
    digest_text(hash, in->ciphers);
    digest_text(hash, in->ciphersuites);
    digest_text(hash, in->curves);
    for (const char *const *name = in->alpn; name && *name; name++) {
        digest_text(hash, *name);
    }
    digest_bytes(hash, (bool[]){in->strict_sni, in->tickets}, 2 * sizeof(bool));
    digest_end(hash, digest);
}

void
tls_digest_client(const struct tls_client_input *in, const uint8_t *ca, const struct tls_cert *cert,
                  uint8_t *digest)
{
    EVP_MD_CTX *hash = digest_begin();
    digest_bytes(hash, &in->verify, sizeof(in->verify));
    digest_bytes(hash, ca ? ca : digest, ca ? TLS_DIGEST_SIZE : 0);
    digest_bytes(hash, cert ? cert->digest : digest, cert ? sizeof(cert->digest) : 0);
    digest_bytes(hash, &in->min_version, sizeof(in->min_version));
    digest_end(hash, digest);
}

uint64_t
tls_digest_number(const uint8_t *digest, const char *text)
{
    uint8_t both[TLS_DIGEST_SIZE];
    uint64_t number;
    EVP_MD_CTX *hash = digest_begin();
    digest_bytes(hash, digest, TLS_DIGEST_SIZE);
    digest_text(hash, text);
    digest_end(hash, both);
    memcpy(&number, both, sizeof(number));
    return number;
}
