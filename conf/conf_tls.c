/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_tls.c - the TLS of a listener: read its files, build what the workers use.
 */
#include "conf/build.h"

int
conf_source_read_public(struct conf_source *src, const char *path, struct slice *out, char *why,
                        size_t why_size)
{
    return src->read_public ? src->read_public(src, path, out, why, why_size)
                            : src->read_file(src, path, out, why, why_size);
}

struct slice
conf_read_file(struct conf_build *build, struct node *object, const char *key, bool is_public)
{
    char why[200] = "";
    struct slice bytes = {"", 0};
    struct node *node = node_get(object, key);
    const char *path = node_text(object, key);
    if (!path || (!is_public && build->src->without_keys)) {
        return bytes;
    }
    int result = is_public ? conf_source_read_public(build->src, path, &bytes, why, sizeof(why))
                           : build->src->read_file(build->src, path, &bytes, why, sizeof(why));
    if (result < 0) {
        report_value(build->report, node, "cannot read %s: %s", path, why);
        return (struct slice){"", 0};
    }
    EVP_DigestUpdate(build->digest, bytes.ptr, bytes.len);
    return bytes;
}

static bool
read_certificates(struct conf_build *build, const struct conf_tls *tls, struct node *list,
                  struct tls_cert_input *certs)
{
    bool is_well = list != NULL && !list->is_bad;
    struct node *pair = list ? list->first : NULL;
    for (unsigned i = 0; i < tls->ncerts && pair; i++, pair = pair->next) {
        certs[i] = (struct tls_cert_input){
            .cert_pem = conf_read_file(build, pair, "cert", false),
            .key_pem = conf_read_file(build, pair, "key", false),
            .cert_path = tls->certs[i].cert.path,
            .key_path = tls->certs[i].key.path,
        };
        const struct node *cert = node_get(pair, "cert"), *key = node_get(pair, "key");
        is_well = is_well && !pair->is_bad && cert && key && !cert->is_bad && !key->is_bad;
    }
    return is_well;
}

static struct node *
nth(struct node *list, unsigned n)
{
    struct node *child = list ? list->first : NULL;
    while (child && n--) {
        child = child->next;
    }
    return child;
}

/* The node that tls.c complains about. */
static struct node *
problem_node(struct node *tls, const struct tls_problem *problem)
{
    static const char *const keys[] = {
        [TLS_PART_NONE] = NULL,
        [TLS_PART_CERT] = "cert",
        [TLS_PART_KEY] = "key",
        [TLS_PART_CIPHERS] = "ciphers",
        [TLS_PART_CIPHERSUITES] = "ciphersuites",
        [TLS_PART_CURVES] = "curves",
        [TLS_PART_CLIENT_CA] = "client_ca",
        [TLS_PART_ALPN] = "alpn",
    };
    struct node *object = tls;
    if (problem->part == TLS_PART_CERT || problem->part == TLS_PART_KEY) {
        object = nth(node_get(tls, "certificates"), problem->cert);
    }
    const char *key = keys[problem->part];
    struct node *node = key ? node_get(object, key) : NULL;
    return node ? node : tls;
}

/* What an http listener cannot speak must not be offered. */
static bool
can_speak(const struct conf_listener *listener, const char *protocol)
{
    return strcmp(protocol, "http/1.1") == 0 || (listener->http2 && strcmp(protocol, "h2") == 0);
}

static void
check_alpn(struct conf_build *build, const struct conf_listener *listener, struct node *tls)
{
    struct node *alpn = node_get(tls, "alpn");
    for (struct node *child = alpn ? alpn->first : NULL; child; child = child->next) {
        if (listener->mode == CONF_HTTP && child->kind == NODE_STRING && !child->is_bad &&
            !can_speak(listener, child->text)) {
            char got[128];
            report_value(build->report, child, "expected %s, got %s",
                         listener->http2 ? "\"h2\" or \"http/1.1\" in http mode"
                                         : "\"http/1.1\" where http2 is false",
                         report_got(child, got, sizeof(got)));
        }
    }
}

static void
build_server(struct conf_build *build, struct conf_listener *listener, struct node *node,
             struct tls_cert_input *certs, struct slice client_ca)
{
    struct conf_tls *tls = listener->tls;
    struct tls_problem problem = {0};
    struct tls_server_input input = {
        .listener = listener->name,
        .certs = certs,
        .ncerts = tls->ncerts,
        .min_version = tls->min_version,
        .ciphers = tls->ciphers,
        .ciphersuites = tls->ciphersuites,
        .curves = tls->curves,
        .alpn = (const char *const *)tls->alpn,
        .client_auth = (enum tls_client_auth)tls->client_auth,
        .client_ca_pem = client_ca,
        .strict_sni = tls->strict_sni,
        .tickets = tls->tickets,
    };
    tls->server = tls_server_get(&input, &problem);
    if (!tls->server) {
        report_value(build->report, problem_node(node, &problem), "%s", problem.why);
    }
}

void
conf_check_tls(struct conf_build *build, struct conf_listener *listener, struct node *node)
{
    struct conf_tls *tls = listener->tls;
    struct tls_cert_input *certs = conf_arena_array(build->arena, tls->ncerts, sizeof(*certs));
    check_alpn(build, listener, node);
    bool is_well = read_certificates(build, tls, node_get(node, "certificates"), certs);
    struct slice client_ca = conf_read_file(build, node, "client_ca", false);
    const struct node *ca_node = node_get(node, "client_ca");
    if (tls->client_auth != CONF_AUTH_OFF && !ca_node) {
        report_missing(build->report, node, "client_ca", "missing; client_auth needs it");
    }
    for (const struct node *child = node->first; child; child = child->next) {
        is_well = is_well && !child->is_bad;
    }
    if (is_well && !node->is_bad && !build->src->without_keys) {
        build_server(build, listener, node, certs, client_ca);
    }
}
