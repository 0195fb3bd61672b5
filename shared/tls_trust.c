/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_trust.c - sets of authorities, parsed once in a process however many upstreams trust them:
 * the system's has some hundred certificates.
 */
#include <openssl/err.h>
#include <stdlib.h>

#include "shared/tls_private.h"

struct tls_trust {
    struct list link;
    unsigned refs;
    uint8_t digest[TLS_DIGEST_SIZE]; /* of the file's bytes */
    X509_STORE *store;
};

static struct list trusts = LIST_INIT(trusts);

static struct tls_trust *
trust_find(const uint8_t *digest)
{
    list_for_each (it, &trusts) {
        struct tls_trust *trust = container_of(it, struct tls_trust, link);
        if (memcmp(trust->digest, digest, TLS_DIGEST_SIZE) == 0) {
            return trust;
        }
    }
    return NULL;
}

bool
tls_trust_is_known(const uint8_t *digest)
{
    return trust_find(digest) != NULL;
}

static X509_STORE *
make_store(STACK_OF(X509) * authorities)
{
    X509_STORE *store = X509_STORE_new();
    for (int i = 0; store && i < sk_X509_num(authorities); i++) {
        if (X509_STORE_add_cert(store, sk_X509_value(authorities, i)) != 1) {
            X509_STORE_free(store);
            return NULL;
        }
    }
    /* Whom the file names is trusted, also when another authority has signed it. */
    if (store) {
        X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
    }
    return store;
}

static X509_STORE *
load_store(struct slice pem, const char *path, struct tls_problem *problem)
{
    const char *why = NULL;
    STACK_OF(X509) *authorities = tls_cert_list(pem, &why);
    if (!authorities) {
        tls_problem_set(problem, TLS_PART_CA, 0, "%s: %s", path, why);
        return NULL;
    }
    X509_STORE *store = make_store(authorities);
    if (!store) {
        tls_problem_set(problem, TLS_PART_CA, 0, "%s: %s", path, tls_last_reason());
    }
    sk_X509_pop_free(authorities, X509_free);
    return store;
}

struct tls_trust *
tls_trust_get(struct slice pem, const char *path, struct tls_problem *problem)
{
    uint8_t digest[TLS_DIGEST_SIZE];
    tls_digest_file(pem, digest);
    struct tls_trust *trust = trust_find(digest);
    if (trust) {
        trust->refs++;
        return trust;
    }
    X509_STORE *store = load_store(pem, path, problem);
    if (!store) {
        return NULL;
    }
    trust = calloc(1, sizeof(*trust));
    if (!trust) {
        X509_STORE_free(store);
        tls_problem_set(problem, TLS_PART_NONE, 0, "out of memory");
        return NULL;
    }
    memcpy(trust->digest, digest, sizeof(digest));
    trust->refs = 1;
    trust->store = store;
    list_add_head(&trusts, &trust->link);
    return trust;
}

X509_STORE *
tls_trust_store(const struct tls_trust *trust)
{
    return trust->store;
}

const uint8_t *
tls_trust_digest(const struct tls_trust *trust)
{
    return trust->digest;
}

void
tls_trust_unref(struct tls_trust *trust)
{
    if (trust && --trust->refs == 0) {
        list_del(&trust->link);
        X509_STORE_free(trust->store);
        free(trust);
    }
}
