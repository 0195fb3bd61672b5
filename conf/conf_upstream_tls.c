/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_upstream_tls.c - the TLS of an upstream: whom to trust, the name of each backend, what to
 * show.
 *
 * The monitor, whose bundle has no secrets, builds the same without the certificate.
 */
#include "conf/build.h"

/* Where systems keep the authorities that they trust; the first that can be read counts, after the
 * one that OpenSSL's variable names. */
static const char *const system_files[] = {
    "/etc/ssl/certs/ca-certificates.crt", /* Debian, Arch, Gentoo */
    "/etc/pki/tls/certs/ca-bundle.crt",   /* Fedora, RHEL */
    "/etc/ssl/ca-bundle.pem",             /* SUSE */
    "/etc/ssl/cert.pem",                  /* Alpine, BSD */
};

/* 0, or -1 when there is none. They are the machine's, and no part of the configuration's hash. */
static int
read_system_file(struct conf_build *build, struct tls_client_input *in)
{
    char why[200];
    struct conf_source *src = build->src;
    const char *named = conf_env(build, CONF_CA_VARIABLE);
    if (named && conf_source_read_public(src, named, &in->ca_pem, why, sizeof(why)) == 0) {
        in->ca_path = named;
        return 0;
    }
    for (size_t i = 0; i < sizeof(system_files) / sizeof(system_files[0]); i++) {
        if (conf_source_read_public(src, system_files[i], &in->ca_pem, why, sizeof(why)) == 0) {
            in->ca_path = system_files[i];
            return 0;
        }
    }
    return -1;
}

/* ---- names ---- */

static struct slice
behind_label(struct slice name)
{
    const char *dot = memchr(name.ptr, '.', name.len);
    size_t len = dot ? (size_t)(dot + 1 - name.ptr) : 0;
    return slice_of(name.ptr + len, name.len - len);
}

/* The host of a backend's address; NULL: it has none. */
static const char *
host_of(struct conf_build *build, const struct conf_backend *backend)
{
    struct addr_spec spec;
    struct addr_ip ip;
    const char *why;
    char text[ADDR_TEXT_MAX];
    if (addr_parse(slice_from_str(backend->address), false, &spec, &why) < 0 ||
        spec.kind == ADDR_UNIX) {
        return NULL;
    }
    if (spec.kind == ADDR_NAME || spec.kind == ADDR_SRV) {
        if (spec.kind == ADDR_SRV) {
            /* The service's domain is what was asked for (RFC 6125 2.3.1), not a target's name. */
            spec.host = behind_label(behind_label(spec.host));
        }
        bool has_dot = spec.host.len > 1 && spec.host.ptr[spec.host.len - 1] == '.';
        return conf_arena_copy(build->arena, slice_of(spec.host.ptr, spec.host.len - has_dot));
    }
    addr_ip_from_sockaddr(&spec.addr.sa, spec.addr.len, &ip);
    return conf_arena_copy(build->arena, slice_of(text, (size_t)addr_ip_format(&ip, text)));
}

static void
name_backends(struct conf_build *build, struct conf_upstream *up, struct node *node)
{
    const struct conf_upstream_tls *tls = up->tls;
    for (unsigned i = 0; i < up->nbackends; i++) {
        struct conf_backend *backend = &up->backends[i];
        backend->tls_name = tls->server_name ? tls->server_name : host_of(build, backend);
        if (tls->verify && !backend->tls_name) {
            report_missing(build->report, node, "server_name",
                           "missing; %s has no host that a certificate could be for",
                           backend->address);
            return;
        }
    }
}

/* ---- files ---- */

/* What everybody may see goes to the monitor as well. */
static void
check_is_public(struct conf_build *build, struct node *node, struct slice pem)
{
    static const char mark[] = "PRIVATE KEY";
    if (node && memmem(pem.ptr, pem.len, mark, sizeof(mark) - 1)) {
        report_value(build->report, node, "%s holds a private key", node->text);
    }
}

static bool
read_authorities(struct conf_build *build, struct node *node, struct tls_client_input *in)
{
    struct node *ca = node_get(node, "ca");
    if (!in->verify) {
        return true;
    }
    if (ca) {
        in->ca_path = ca->text;
        in->ca_pem = conf_read_file(build, node, "ca", true);
        check_is_public(build, ca, in->ca_pem);
        return !ca->is_bad;
    }
    if (read_system_file(build, in) < 0) {
        report_missing(build->report, node, "ca",
                       "missing; this system has no file of the authorities that it trusts");
        return false;
    }
    return true;
}

/* The certificate to show, unless this is the monitor. */
static bool
read_own(struct conf_build *build, const struct conf_upstream_tls *tls, struct node *node,
         struct tls_cert_input *cert)
{
    const struct node *cert_node = node_get(node, "cert"), *key_node = node_get(node, "key");
    if (!cert_node != !key_node) {
        report_missing(build->report, node, cert_node ? "key" : "cert", "missing; \"%s\" needs it",
                       cert_node ? "cert" : "key");
        return false;
    }
    *cert = (struct tls_cert_input){
        .cert_pem = conf_read_file(build, node, "cert", false),
        .key_pem = conf_read_file(build, node, "key", false),
        .cert_path = tls->cert.path,
        .key_path = tls->key.path,
    };
    return !cert_node || (!cert_node->is_bad && !key_node->is_bad);
}

static bool
is_same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* What an upstream before this one made of the same settings; NULL: nothing. With a thousand
 * upstreams the system's authorities are read and compared once. */
static struct tls_client *
find_built(const struct conf *conf, const struct conf_upstream_tls *tls)
{
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        const struct conf_upstream_tls *other = conf->upstreams[i].tls;
        if (other && other->client && other->verify == tls->verify &&
            other->min_version == tls->min_version && is_same_text(other->ca.path, tls->ca.path) &&
            is_same_text(other->cert.path, tls->cert.path) &&
            is_same_text(other->key.path, tls->key.path)) {
            return other->client;
        }
    }
    return NULL;
}

static struct node *
problem_node(struct node *tls, enum tls_part part)
{
    const char *key = part == TLS_PART_CA     ? "ca"
                      : part == TLS_PART_CERT ? "cert"
                      : part == TLS_PART_KEY  ? "key"
                                              : NULL;
    struct node *node = key ? node_get(tls, key) : NULL;
    return node ? node : tls;
}

static void
build_client(struct conf_build *build, struct conf_upstream_tls *tls, struct node *node)
{
    struct tls_problem problem = {0};
    struct tls_cert_input cert;
    struct tls_client_input in = {.verify = tls->verify, .min_version = tls->min_version};
    bool is_well = read_own(build, tls, node, &cert);
    is_well = read_authorities(build, node, &in) && is_well;
    in.cert = tls->cert.path && !build->src->without_keys ? &cert : NULL;
    tls->client = is_well ? tls_client_get(&in, &problem) : NULL;
    if (is_well && !tls->client) {
        report_value(build->report, problem_node(node, problem.part), "%s", problem.why);
    }
}

void
conf_check_upstream_tls(struct conf_build *build, struct conf_upstream *up, struct node *node)
{
    bool is_well = !node->is_bad;
    for (const struct node *child = node->first; child; child = child->next) {
        is_well = is_well && !child->is_bad;
    }
    if (!is_well) {
        return;
    }
    name_backends(build, up, node);
    if (build->src->without_keys && !build->src->read_public) {
        return; /* whoever loads it so only wants to look */
    }
    struct tls_client *built = find_built(build->conf, up->tls);
    if (built) {
        up->tls->client = tls_client_ref(built);
    } else {
        build_client(build, up->tls, node);
    }
}
