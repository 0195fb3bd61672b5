/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_cert.c - certificates with their keys, parsed once in a process however many listeners use
 * them and however often the configuration is read.
 */
#include <ctype.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/tls_private.h"

#define CERT_BUCKETS 256

static struct list buckets[CERT_BUCKETS]; /* by the first byte of the digest */

void
tls_problem_set(struct tls_problem *problem, enum tls_part part, unsigned cert, const char *format,
                ...)
{
    va_list args;
    va_start(args, format);
    problem->part = part;
    problem->cert = cert;
    vsnprintf(problem->why, sizeof(problem->why), format, args);
    va_end(args);
    ERR_clear_error();
}

const char *
tls_last_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    return reason ? reason : "unknown reason";
}

static struct list *
bucket_of(const uint8_t *digest)
{
    struct list *bucket = &buckets[digest[0]];
    if (!bucket->next) {
        list_init(bucket);
    }
    return bucket;
}

static void
cert_free(struct tls_cert *cert)
{
    for (unsigned i = 0; i < cert->nnames; i++) {
        free(cert->names[i]);
    }
    free(cert->names);
    X509_free(cert->leaf);
    sk_X509_pop_free(cert->chain, X509_free);
    EVP_PKEY_free(cert->key);
    free(cert);
}

static bool
is_end_of_pem(void)
{
    unsigned long last = ERR_peek_last_error();
    return ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE;
}

static int
read_chain(struct tls_cert *cert, BIO *pem)
{
    cert->leaf = PEM_read_bio_X509(pem, NULL, NULL, NULL);
    cert->chain = sk_X509_new_null();
    if (!cert->leaf || !cert->chain) {
        return -1;
    }
    for (;;) {
        X509 *next = PEM_read_bio_X509(pem, NULL, NULL, NULL);
        if (!next) {
            return is_end_of_pem() ? 0 : -1;
        }
        if (sk_X509_push(cert->chain, next) == 0) {
            X509_free(next);
            return -1;
        }
    }
}

static int
load_chain(struct tls_cert *cert, const struct tls_cert_input *in, struct tls_problem *problem)
{
    BIO *pem = BIO_new_mem_buf(in->cert_pem.ptr, (int)in->cert_pem.len);
    int result = pem ? read_chain(cert, pem) : -1;
    BIO_free(pem);
    if (result < 0) {
        bool is_empty = !cert->leaf && is_end_of_pem();
        tls_problem_set(problem, TLS_PART_CERT, 0, "%s: %s", in->cert_path,
                        is_empty ? "no certificate in PEM form" : tls_last_reason());
    }
    ERR_clear_error();
    return result;
}

/* Nobody is there to type a passphrase. */
static int
on_passphrase(char *text, int size, int is_writing, void *was_asked)
{
    (void)text;
    (void)size;
    (void)is_writing;
    *(bool *)was_asked = true;
    return -1;
}

static int
load_key(struct tls_cert *cert, const struct tls_cert_input *in, struct tls_problem *problem)
{
    bool is_encrypted = false;
    BIO *pem = BIO_new_mem_buf(in->key_pem.ptr, (int)in->key_pem.len);
    if (pem) {
        cert->key = PEM_read_bio_PrivateKey(pem, NULL, on_passphrase, &is_encrypted);
    }
    BIO_free(pem);
    if (cert->key) {
        return 0;
    }
    tls_problem_set(problem, TLS_PART_KEY, 0, "%s: %s", in->key_path,
                    is_encrypted ? "the key is encrypted; an unencrypted one is needed"
                                 : "no private key in PEM form");
    return -1;
}

static int
check_pair(struct tls_cert *cert, const struct tls_cert_input *in, struct tls_problem *problem)
{
    static const int ids[TLS_KEY_KINDS] = {EVP_PKEY_RSA, EVP_PKEY_RSA_PSS, EVP_PKEY_EC,
                                           EVP_PKEY_ED25519, EVP_PKEY_ED448};
    int id = EVP_PKEY_get_base_id(cert->key);
    int kind = 0;
    while (kind < TLS_KEY_KINDS && ids[kind] != id) {
        kind++;
    }
    if (kind == TLS_KEY_KINDS) {
        tls_problem_set(problem, TLS_PART_KEY, 0, "%s: this kind of key is not for TLS",
                        in->key_path);
        return -1;
    }
    cert->kind = (enum tls_key_kind)kind;
    if (X509_check_private_key(cert->leaf, cert->key) != 1) {
        tls_problem_set(problem, TLS_PART_KEY, 0, "%s: does not match the certificate in %s",
                        in->key_path, in->cert_path);
        return -1;
    }
    return 0;
}

/* 0, also when the name is none that a client can ask for; -1: memory. */
static int
add_name(struct tls_cert *cert, const ASN1_STRING *name)
{
    int len = ASN1_STRING_length(name);
    const char *text = (const char *)ASN1_STRING_get0_data(name);
    if (len <= 0 || len > 255 || memchr(text, '\0', (size_t)len)) {
        return 0;
    }
    char **names = realloc(cert->names, (cert->nnames + 1) * sizeof(*names));
    if (!names) {
        return -1;
    }
    cert->names = names;
    char *copy = strndup(text, (size_t)len);
    if (!copy) {
        return -1;
    }
    for (char *at = copy; *at; at++) {
        *at = (char)tolower((unsigned char)*at);
    }
    names[cert->nnames++] = copy;
    return 0;
}

static int
add_common_name(struct tls_cert *cert)
{
    X509_NAME *subject = X509_get_subject_name(cert->leaf);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0) {
        return 0;
    }
    return add_name(cert, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

/* The DNS names of subjectAltName; only without any the common name (RFC 6125 section 6.4.4). */
static int
load_names(struct tls_cert *cert)
{
    GENERAL_NAMES *alts = X509_get_ext_d2i(cert->leaf, NID_subject_alt_name, NULL, NULL);
    int result = 0;
    for (int i = 0; result == 0 && i < sk_GENERAL_NAME_num(alts); i++) {
        const GENERAL_NAME *alt = sk_GENERAL_NAME_value(alts, i);
        if (alt->type == GEN_DNS) {
            result = add_name(cert, alt->d.dNSName);
        }
    }
    GENERAL_NAMES_free(alts);
    if (result == 0 && cert->nnames == 0) {
        result = add_common_name(cert);
    }
    return result;
}

static struct tls_cert *
cert_load(const struct tls_cert_input *in, struct tls_problem *problem)
{
    struct tls_cert *cert = calloc(1, sizeof(*cert));
    if (!cert) {
        tls_problem_set(problem, TLS_PART_CERT, 0, "out of memory");
        return NULL;
    }
    if (load_chain(cert, in, problem) < 0 || load_key(cert, in, problem) < 0 ||
        check_pair(cert, in, problem) < 0) {
        cert_free(cert);
        return NULL;
    }
    if (load_names(cert) < 0) {
        tls_problem_set(problem, TLS_PART_CERT, 0, "out of memory");
        cert_free(cert);
        return NULL;
    }
    ERR_clear_error();
    return cert;
}

struct tls_cert *
tls_cert_get(const struct tls_cert_input *in, struct tls_problem *problem)
{
    uint8_t digest[TLS_DIGEST_SIZE];
    tls_digest_cert(in, digest);
    struct list *bucket = bucket_of(digest);
    list_for_each (it, bucket) {
        struct tls_cert *found = container_of(it, struct tls_cert, link);
        if (memcmp(found->digest, digest, sizeof(digest)) == 0) {
            found->refs++;
            return found;
        }
    }
    struct tls_cert *cert = cert_load(in, problem);
    if (cert) {
        memcpy(cert->digest, digest, sizeof(digest));
        cert->refs = 1;
        list_add_head(bucket, &cert->link);
    }
    return cert;
}

void
tls_cert_unref(struct tls_cert *cert)
{
    if (cert && --cert->refs == 0) {
        list_del(&cert->link);
        cert_free(cert);
    }
}
