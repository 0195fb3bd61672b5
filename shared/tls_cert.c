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

/* A file that was parsed ahead; each part may be NULL. */
struct warm_file {
    struct list link;
    uint8_t digest[TLS_DIGEST_SIZE];
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    BIO *rest; /* certificates that are still to be parsed; NULL: none */
    const char *text;
};
static struct list warm_files = LIST_INIT(warm_files); /* the newest first */

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
read_chain(BIO *pem, X509 **leaf, STACK_OF(X509) * *chain)
{
    *leaf = PEM_read_bio_X509(pem, NULL, NULL, NULL);
    *chain = sk_X509_new_null();
    if (!*leaf || !*chain) {
        return -1;
    }
    for (;;) {
        X509 *next = PEM_read_bio_X509(pem, NULL, NULL, NULL);
        if (!next) {
            return is_end_of_pem() ? 0 : -1;
        }
        if (sk_X509_push(*chain, next) == 0) {
            X509_free(next);
            return -1;
        }
    }
}

/* The errors of OpenSSL stay queued. */
static int
parse_chain(struct slice text, X509 **leaf, STACK_OF(X509) * *chain)
{
    BIO *pem = BIO_new_mem_buf(text.ptr ? text.ptr : "", (int)text.len);
    int result = pem ? read_chain(pem, leaf, chain) : -1;
    BIO_free(pem);
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

static EVP_PKEY *
parse_key(struct slice text, bool *is_encrypted)
{
    BIO *pem = BIO_new_mem_buf(text.ptr, (int)text.len);
    EVP_PKEY *key = pem ? PEM_read_bio_PrivateKey(pem, NULL, on_passphrase, is_encrypted) : NULL;
    BIO_free(pem);
    return key;
}

static const struct warm_file *
warm_find(const uint8_t *digest)
{
    list_for_each (it, &warm_files) {
        const struct warm_file *file = container_of(it, struct warm_file, link);
        if (memcmp(file->digest, digest, TLS_DIGEST_SIZE) == 0) {
            return file;
        }
    }
    return NULL;
}

/* From what was parsed ahead, else from the text. The errors of OpenSSL stay queued. */
static int
find_chain(const uint8_t *digest, struct slice text, X509 **leaf, STACK_OF(X509) * *chain)
{
    const struct warm_file *file = warm_find(digest);
    if (!file || !file->leaf || file->rest) {
        return parse_chain(text, leaf, chain);
    }
    X509_up_ref(file->leaf);
    *leaf = file->leaf;
    *chain = X509_chain_up_ref(file->chain);
    return *chain ? 0 : -1;
}

/* Why find_chain() failed. */
static const char *
chain_problem(const X509 *leaf)
{
    return !leaf && is_end_of_pem() ? "no certificate in PEM form" : tls_last_reason();
}

STACK_OF(X509) * tls_cert_list(struct slice pem, const char **why)
{
    uint8_t digest[TLS_DIGEST_SIZE];
    X509 *leaf = NULL;
    STACK_OF(X509) *all = NULL;
    tls_digest_file(pem, digest);
    if (find_chain(digest, pem, &leaf, &all) == 0 && sk_X509_unshift(all, leaf) > 0) {
        ERR_clear_error();
        return all;
    }
    *why = chain_problem(leaf);
    X509_free(leaf);
    sk_X509_pop_free(all, X509_free);
    ERR_clear_error();
    return NULL;
}

static int
load_chain(struct tls_cert *cert, const struct tls_cert_input *in, struct tls_problem *problem)
{
    int result = find_chain(cert->digest, in->cert_pem, &cert->leaf, &cert->chain);
    if (result < 0) {
        tls_problem_set(problem, TLS_PART_CERT, 0, "%s: %s", in->cert_path,
                        chain_problem(cert->leaf));
    }
    ERR_clear_error();
    return result;
}

static int
load_key(struct tls_cert *cert, const struct tls_cert_input *in, struct tls_problem *problem)
{
    const struct warm_file *file = warm_find(cert->digest + TLS_DIGEST_SIZE);
    bool is_encrypted = false;
    if (file && file->key) {
        EVP_PKEY_up_ref(file->key);
        cert->key = file->key;
        return 0;
    }
    cert->key = parse_key(in->key_pem, &is_encrypted);
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
cert_load(const struct tls_cert_input *in, const uint8_t *digest, struct tls_problem *problem)
{
    struct tls_cert *cert = calloc(1, sizeof(*cert));
    if (!cert) {
        tls_problem_set(problem, TLS_PART_CERT, 0, "out of memory");
        return NULL;
    }
    memcpy(cert->digest, digest, sizeof(cert->digest));
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
    uint8_t digest[2 * TLS_DIGEST_SIZE];
    tls_digest_file(in->cert_pem, digest);
    tls_digest_file(in->key_pem, digest + TLS_DIGEST_SIZE);
    struct list *bucket = bucket_of(digest);
    list_for_each (it, bucket) {
        struct tls_cert *found = container_of(it, struct tls_cert, link);
        if (memcmp(found->digest, digest, sizeof(digest)) == 0) {
            found->refs++;
            return found;
        }
    }
    struct tls_cert *cert = cert_load(in, digest, problem);
    if (cert) {
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

/* ---- files parsed ahead ---- */

static bool
is_in_use(const uint8_t *digest)
{
    for (unsigned i = 0; i < CERT_BUCKETS; i++) {
        if (!buckets[i].next) {
            continue;
        }
        list_for_each (it, &buckets[i]) {
            const struct tls_cert *cert = container_of(it, struct tls_cert, link);
            if (memcmp(cert->digest, digest, TLS_DIGEST_SIZE) == 0 ||
                memcmp(cert->digest + TLS_DIGEST_SIZE, digest, TLS_DIGEST_SIZE) == 0) {
                return true;
            }
        }
    }
    return false;
}

static void
warm_free(struct warm_file *file)
{
    X509_free(file->leaf);
    sk_X509_pop_free(file->chain, X509_free);
    EVP_PKEY_free(file->key);
    BIO_free(file->rest);
    free(file);
}

static bool
has_text(struct slice bytes, struct slice text)
{
    return memmem(bytes.ptr, bytes.len, text.ptr, text.len) != NULL;
}

static struct warm_file *
warm_begin(struct slice pem, const uint8_t *digest)
{
    bool is_encrypted;
    struct warm_file *file = calloc(1, sizeof(*file));
    if (!file) {
        return NULL;
    }
    memcpy(file->digest, digest, sizeof(file->digest));
    file->text = pem.ptr;
    if (has_text(pem, SLICE("PRIVATE KEY"))) {
        file->key = parse_key(pem, &is_encrypted);
    }
    if (has_text(pem, SLICE("BEGIN CERTIFICATE"))) {
        file->chain = sk_X509_new_null();
        file->rest = file->chain ? BIO_new_mem_buf(pem.ptr, (int)pem.len) : NULL;
    }
    list_add_head(&warm_files, &file->link);
    return file;
}

/* No more certificates can be had. What is malformed counts as not parsed. */
static void
warm_finish(struct warm_file *file, bool is_well)
{
    BIO_free(file->rest);
    file->rest = NULL;
    if (!is_well) {
        X509_free(file->leaf);
        file->leaf = NULL;
    }
}

/* Parse one more certificate. true: there was none. */
static bool
warm_step(struct warm_file *file)
{
    X509 *cert = file->rest ? PEM_read_bio_X509(file->rest, NULL, NULL, NULL) : NULL;
    if (!cert) {
        warm_finish(file, is_end_of_pem());
    } else if (!file->leaf) {
        file->leaf = cert;
    } else if (sk_X509_push(file->chain, cert) == 0) {
        X509_free(cert);
        warm_finish(file, false);
    }
    ERR_clear_error();
    return file->rest == NULL;
}

bool
tls_warm(struct slice pem)
{
    uint8_t digest[TLS_DIGEST_SIZE];
    struct warm_file *file =
        list_is_empty(&warm_files) ? NULL : list_first(&warm_files, struct warm_file, link);
    if (!file || !file->rest || file->text != pem.ptr) {
        tls_digest_file(pem, digest);
        bool is_known = is_in_use(digest) || tls_trust_is_known(digest) || warm_find(digest);
        file = is_known ? NULL : warm_begin(pem, digest);
    }
    return !file || warm_step(file);
}

void
tls_warm_end(void)
{
    list_for_each_safe (it, &warm_files) {
        warm_free(container_of(it, struct warm_file, link));
    }
    list_init(&warm_files);
}
