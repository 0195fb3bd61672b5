/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_ticket.c - session tickets (RFC 5077, RFC 8446 section 4.6.1) encrypted with the keys that
 * the master keeps in the segment, so that a session resumes on any worker and after a reload.
 */
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "shared/clock.h"
#include "shared/shm.h"
#include "shared/tls_private.h"

#define TICKET_NAME_SIZE 16
#define TICKET_IV_SIZE   16

static const struct shm *ticket_shm;
static EVP_CIPHER *ticket_cipher; /* fetched once: a fetch costs more than the encryption */

void
tls_worker_init(const struct shm *shm)
{
    ticket_shm = shm;
}

/* The key of a process that has no segment; it lives as long as the process. */
static bool
own_key_find(const uint8_t *name, struct shm_ticket_key *key, bool *is_current)
{
    static struct shm_ticket_key own;
    if (own.born_s == 0) {
        if (RAND_bytes((unsigned char *)&own, sizeof(own)) != 1) {
            return false;
        }
        own.born_s = 1;
    }
    *key = own;
    *is_current = true;
    return !name || CRYPTO_memcmp(name, own.name, TICKET_NAME_SIZE) == 0;
}

static bool
key_find(const uint8_t *name, struct shm_ticket_key *key, bool *is_current)
{
    if (!ticket_shm) {
        return own_key_find(name, key, is_current);
    }
    return shm_keys_find(ticket_shm, name, clock_wall_us() / 1000000u, key, is_current);
}

static int
key_apply(struct shm_ticket_key *key, const unsigned char *iv, EVP_CIPHER_CTX *cipher,
          EVP_MAC_CTX *mac, int is_encrypting)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->hmac, sizeof(key->hmac)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SHA256"}, 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_CipherInit_ex2(cipher, ticket_cipher, key->aes, iv, is_encrypting, NULL) == 1 &&
           EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* Answers as OpenSSL wants them: -1 failure, 0 no ticket or not ours, 1 good, 2 good and to be
 * renewed. A client uses a TLS 1.3 ticket once (RFC 8446 section C.4), so it always gets the next
 * one. */
static int
ticket_on_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
              EVP_MAC_CTX *mac, int is_encrypting)
{
    struct shm_ticket_key key;
    bool is_current = false;
    if (!key_find(is_encrypting ? NULL : name, &key, &is_current)) {
        return 0;
    }
    if (is_encrypting) {
        memcpy(name, key.name, TICKET_NAME_SIZE);
        if (RAND_bytes(iv, TICKET_IV_SIZE) != 1) {
            OPENSSL_cleanse(&key, sizeof(key));
            return -1;
        }
    }
    int is_good = key_apply(&key, iv, cipher, mac, is_encrypting);
    OPENSSL_cleanse(&key, sizeof(key));
    if (!is_good) {
        return -1;
    }
    return is_encrypting || (is_current && SSL_version(ssl) != TLS1_3_VERSION) ? 1 : 2;
}

int
tls_ticket_enable(SSL_CTX *openssl)
{
    if (!ticket_cipher) {
        ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    }
    if (!ticket_cipher) {
        return -1;
    }
    return SSL_CTX_set_tlsext_ticket_key_evp_cb(openssl, ticket_on_key) == 1 ? 0 : -1;
}
