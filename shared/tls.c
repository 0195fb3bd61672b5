/* SPDX-License-Identifier: Apache-2.0
 *
 * tls.c - what one TLS listener offers: protocol settings, certificates by server name, client
 * certificates, ALPN.
 *
 * A tls_server has one SSL_CTX, set up once; another certificate than the default one is put into
 * the connection itself while its handshake runs. So all that decides who may resume a session or
 * must show a certificate is the same for every name, and a hundred names cost no hundred contexts.
 */
#include <assert.h>
#include <openssl/err.h>
#include <stdlib.h>

#include "shared/tls_private.h"

#define NAME_MAX_LEN 255
#define ALPN_MAX     256 /* bytes of the whole list in wire form */

/* The certificates of one name, by kind of key; NULL: none. */
struct tls_set {
    const struct tls_cert *certs[TLS_KEY_KINDS];
};

struct tls_name {
    const char *text; /* of one of the certificates; "*.suffix" is a wildcard */
    unsigned order;   /* position of its certificate */
    struct tls_set set;
};

struct tls_server {
    struct list link;
    unsigned refs;
    uint8_t digest[TLS_DIGEST_SIZE];
    SSL_CTX *openssl;
    struct tls_cert **certs;
    unsigned ncerts;
    struct tls_name *names; /* sorted by text */
    unsigned nnames;
    struct tls_set fallback; /* for clients that ask for no name, or for an unknown one */
    bool strict_sni;
    unsigned char alpn[ALPN_MAX];
    unsigned alpn_len;
};

static struct list servers = LIST_INIT(servers);

/* ---- names ---- */

static int
name_compare(const void *a, const void *b)
{
    const struct tls_name *left = a, *right = b;
    int order = strcmp(left->text, right->text);
    return order ? order : (left->order > right->order) - (left->order < right->order);
}

static int
name_search(const void *text, const void *name)
{
    return strcmp(text, ((const struct tls_name *)name)->text);
}

static const struct tls_set *
find_name(const struct tls_server *srv, const char *text)
{
    const struct tls_name *name =
        bsearch(text, srv->names, srv->nnames, sizeof(*srv->names), name_search);
    return name ? &name->set : NULL;
}

/* The certificates for a server name (RFC 6066 section 3): exact, then a wildcard for its first
 * label. NULL: unknown. */
static const struct tls_set *
find_set(const struct tls_server *srv, const char *asked)
{
    char name[NAME_MAX_LEN + 1];
    size_t len = asked ? strlen(asked) : 0;
    if (len > 1 && asked[len - 1] == '.') {
        len--;
    }
    if (len == 0 || len > NAME_MAX_LEN) {
        return NULL;
    }
    for (size_t i = 0; i < len; i++) {
        name[i] = (char)(asked[i] >= 'A' && asked[i] <= 'Z' ? asked[i] | 0x20 : asked[i]);
    }
    name[len] = '\0';
    const struct tls_set *set = name[0] == '*' ? NULL : find_name(srv, name);
    char *dot = strchr(name, '.');
    if (set || !dot || dot == name) {
        return set;
    }
    dot[-1] = '*';
    return find_name(srv, dot - 1);
}

static void
set_add(struct tls_set *set, const struct tls_cert *cert)
{
    if (!set->certs[cert->kind]) {
        set->certs[cert->kind] = cert;
    }
}

/* Sort, then give each name the first certificate of each kind that has it. */
static void
merge_names(struct tls_server *srv)
{
    unsigned last = 0;
    qsort(srv->names, srv->nnames, sizeof(*srv->names), name_compare);
    for (unsigned i = 0; i < srv->nnames; i++) {
        const struct tls_cert *cert = srv->certs[srv->names[i].order];
        if (i > 0 && strcmp(srv->names[i].text, srv->names[last].text) != 0) {
            srv->names[++last] = srv->names[i];
        }
        set_add(&srv->names[last].set, cert);
    }
    srv->nnames = srv->nnames ? last + 1 : 0;
}

static int
index_names(struct tls_server *srv)
{
    size_t n = 0;
    for (unsigned i = 0; i < srv->ncerts; i++) {
        n += srv->certs[i]->nnames;
    }
    srv->names = calloc(n + 1, sizeof(*srv->names));
    if (!srv->names) {
        return -1;
    }
    for (unsigned i = 0; i < srv->ncerts; i++) {
        for (unsigned k = 0; k < srv->certs[i]->nnames; k++) {
            srv->names[srv->nnames++] =
                (struct tls_name){.text = srv->certs[i]->names[k], .order = i};
        }
    }
    merge_names(srv);
    const struct tls_cert *first = srv->certs[0];
    set_add(&srv->fallback, first);
    if (first->nnames > 0) {
        srv->fallback = *find_name(srv, first->names[0]);
    }
    return 0;
}

/* ---- callbacks of the handshake ---- */

static int
server_on_name(SSL *ssl, int *alert, void *server)
{
    const struct tls_server *srv = server;
    const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (find_set(srv, asked)) {
        return SSL_TLSEXT_ERR_OK;
    }
    if (srv->strict_sni) {
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

/* Put the certificates of the name asked for into this connection. Not called when a session
 * resumes, because then none is shown. */
static int
server_on_cert(SSL *ssl, void *server)
{
    const struct tls_server *srv = server;
    const struct tls_set *set = find_set(srv, SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    if (!set || memcmp(set, &srv->fallback, sizeof(*set)) == 0) {
        return 1;
    }
    SSL_certs_clear(ssl);
    for (int kind = 0; kind < TLS_KEY_KINDS; kind++) {
        const struct tls_cert *cert = set->certs[kind];
        if (cert && SSL_use_cert_and_key(ssl, cert->leaf, cert->key, cert->chain, 1) != 1) {
            return 0;
        }
    }
    return 1;
}

/* Ours are in order of preference. None in common ends the handshake (RFC 7301 section 3.2). */
static int
server_on_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_len,
               const unsigned char *theirs, unsigned theirs_len, void *server)
{
    const struct tls_server *srv = server;
    unsigned char *match = NULL;
    (void)ssl;
    if (SSL_select_next_proto(&match, chosen_len, srv->alpn, srv->alpn_len, theirs, theirs_len) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *chosen = match;
    return SSL_TLSEXT_ERR_OK;
}

/* ---- building ---- */

static int
set_alpn(struct tls_server *srv, const struct tls_server_input *in, struct tls_problem *problem)
{
    for (const char *const *name = in->alpn; name && *name; name++) {
        size_t len = strlen(*name);
        if (len == 0 || srv->alpn_len + 1 + len > ALPN_MAX) {
            tls_problem_set(problem, TLS_PART_ALPN, 0, "%s",
                            len == 0 ? "a protocol name is empty" : "the list is too long");
            return -1;
        }
        srv->alpn[srv->alpn_len++] = (unsigned char)len;
        memcpy(srv->alpn + srv->alpn_len, *name, len);
        srv->alpn_len += (unsigned)len;
    }
    if (srv->alpn_len > 0) {
        SSL_CTX_set_alpn_select_cb(srv->openssl, server_on_alpn, srv);
    }
    return 0;
}

/* Each certificate must be acceptable to OpenSSL too (its security level, for one). */
static int
check_certs(struct tls_server *srv, const struct tls_server_input *in, struct tls_problem *problem)
{
    SSL *probe = SSL_new(srv->openssl);
    unsigned i = 0;
    for (; probe && i < srv->ncerts; i++) {
        const struct tls_cert *cert = srv->certs[i];
        if (SSL_use_cert_and_key(probe, cert->leaf, cert->key, cert->chain, 1) != 1) {
            break;
        }
    }
    SSL_free(probe);
    if (i < srv->ncerts) {
        tls_problem_set(problem, TLS_PART_CERT, i, "%s: %s", in->certs[i].cert_path,
                        tls_last_reason());
        return -1;
    }
    return 0;
}

static int
load_certs(struct tls_server *srv, const struct tls_server_input *in, struct tls_problem *problem)
{
    srv->certs = calloc(in->ncerts, sizeof(*srv->certs));
    if (!srv->certs) {
        tls_problem_set(problem, TLS_PART_NONE, 0, "out of memory");
        return -1;
    }
    for (unsigned i = 0; i < in->ncerts; i++) {
        srv->certs[i] = tls_cert_get(&in->certs[i], problem);
        if (!srv->certs[i]) {
            problem->cert = i;
            return -1;
        }
        srv->ncerts = i + 1;
    }
    return 0;
}

static int
set_fallback(struct tls_server *srv)
{
    for (int kind = 0; kind < TLS_KEY_KINDS; kind++) {
        const struct tls_cert *cert = srv->fallback.certs[kind];
        if (cert &&
            SSL_CTX_use_cert_and_key(srv->openssl, cert->leaf, cert->key, cert->chain, 1) != 1) {
            return -1;
        }
    }
    return 0;
}

static void
server_free(struct tls_server *srv)
{
    SSL_CTX_free(srv->openssl);
    for (unsigned i = 0; i < srv->ncerts; i++) {
        tls_cert_unref(srv->certs[i]);
    }
    free(srv->certs);
    free(srv->names);
    free(srv);
}

static int
server_build(struct tls_server *srv, const struct tls_server_input *in, struct tls_problem *problem)
{
    srv->strict_sni = in->strict_sni;
    if (index_names(srv) < 0) {
        tls_problem_set(problem, TLS_PART_NONE, 0, "out of memory");
        return -1;
    }
    srv->openssl = tls_context_make(in, problem);
    if (!srv->openssl || set_alpn(srv, in, problem) < 0 || check_certs(srv, in, problem) < 0) {
        return -1;
    }
    SSL_CTX_set_tlsext_servername_callback(srv->openssl, server_on_name);
    SSL_CTX_set_tlsext_servername_arg(srv->openssl, srv);
    SSL_CTX_set_cert_cb(srv->openssl, server_on_cert, srv);
    if (set_fallback(srv) < 0) {
        tls_problem_set(problem, TLS_PART_CERT, 0, "%s", tls_last_reason());
        return -1;
    }
    return 0;
}

static struct tls_server *
server_find(const uint8_t *digest)
{
    list_for_each (it, &servers) {
        struct tls_server *srv = container_of(it, struct tls_server, link);
        if (memcmp(srv->digest, digest, TLS_DIGEST_SIZE) == 0) {
            return srv;
        }
    }
    return NULL;
}

struct tls_server *
tls_server_get(const struct tls_server_input *in, struct tls_problem *problem)
{
    assert(in->ncerts > 0);
    struct tls_server *srv = calloc(1, sizeof(*srv));
    if (!srv) {
        tls_problem_set(problem, TLS_PART_NONE, 0, "out of memory");
        return NULL;
    }
    if (load_certs(srv, in, problem) < 0) {
        server_free(srv);
        return NULL;
    }
    tls_digest_server(in, srv->certs, srv->digest);
    struct tls_server *found = server_find(srv->digest);
    if (found || server_build(srv, in, problem) < 0) {
        server_free(srv);
        return found ? tls_server_ref(found) : NULL;
    }
    srv->refs = 1;
    list_add_head(&servers, &srv->link);
    ERR_clear_error();
    return srv;
}

struct tls_server *
tls_server_ref(struct tls_server *srv)
{
    srv->refs++;
    return srv;
}

void
tls_server_unref(struct tls_server *srv)
{
    if (srv && --srv->refs == 0) {
        list_del(&srv->link);
        server_free(srv);
    }
}

SSL *
tls_server_open(struct tls_server *srv)
{
    return SSL_new(srv->openssl);
}
