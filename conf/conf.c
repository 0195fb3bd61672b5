/* SPDX-License-Identifier: Apache-2.0
 *
 * conf.c - from the text of a file to an immutable struct conf.
 */
#include "conf/conf.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <unistd.h>

#include "conf/build.h"
#include "conf/path_set.h"
#include "conf/scan.h"

/* ---- the environment ---- */

const char *
conf_env(struct conf_build *build, const char *name)
{
    return build->src->env ? build->src->env(build->src, name) : getenv(name);
}

static bool
is_name(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!is_letter && (i == 0 || c < '0' || c > '9')) {
            return false;
        }
    }
    return s.len > 0;
}

/* At "${" of the node's text: write what stands for it. The end of the reference, NULL: reported.
 */
static const char *
expand_one(struct conf_build *build, struct node *node, const char *at, FILE *out)
{
    const char *close = strchr(at, '}');
    struct slice name = {at + 2, close ? (size_t)(close - at - 2) : 0};
    if (!is_name(name)) {
        report_value(build->report, node,
                     "expected a name and '}' after \"${\"; a literal one is written \"$${\"");
        return NULL;
    }
    const char *value = conf_env(build, conf_arena_copy(build->arena, name));
    if (!value) {
        report_value(build->report, node, "the environment has no %.*s", SLICE_ARG(name));
        return NULL;
    }
    fputs(value, out);
    return close + 1;
}

static void
expand_text(struct conf_build *build, struct node *node)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    const char *at = node->text;
    while (out && at && *at) {
        if (strncmp(at, "$${", 3) == 0) {
            fputs("${", out);
            at += 3;
        } else if (strncmp(at, "${", 2) == 0) {
            at = expand_one(build, node, at, out);
        } else {
            putc(*at++, out);
        }
    }
    if (!out || fclose(out) != 0) {
        abort();
    }
    node->text = conf_arena_copy(build->arena, slice_of(text, len));
    OPENSSL_cleanse(text, len);
    free(text);
}

void
conf_expand(struct conf_build *build, struct node *node)
{
    if (node->kind == NODE_STRING && strstr(node->text, "${")) {
        expand_text(build, node);
    }
    for (struct node *child = node->first; child; child = child->next) {
        conf_expand(build, child);
    }
}

/* ---- the whole ---- */

static char *
print_tree(struct conf_build *build, void (*print)(const struct node *node, FILE *out))
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out) {
        abort();
    }
    print(build->root, out);
    if (fclose(out) != 0) {
        abort();
    }
    char *copy = conf_arena_copy(build->arena, slice_of(text, len));
    OPENSSL_cleanse(text, len);
    free(text);
    return copy;
}

/* The effective configuration as text, and the digest of it and of the files. */
static void
seal(struct conf_build *build)
{
    struct conf *conf = build->conf;
    uint8_t digest[EVP_MAX_MD_SIZE];
    conf->json = print_tree(build, node_print);
    conf->public_json =
        build->reader.has_secret ? print_tree(build, node_print_public) : conf->json;
    EVP_DigestUpdate(build->digest, conf->json, strlen(conf->json));
    EVP_DigestFinal_ex(build->digest, digest, NULL);
    for (int i = 0; i < 6; i++) {
        conf->hash = conf->hash << 8 | digest[i];
    }
}

static void
read_tree(struct conf_build *build)
{
    struct node *root = build->root;
    if (root->kind != NODE_OBJECT) {
        char got[128];
        report_value(build->report, root, "expected an object, got %s",
                     report_got(root, got, sizeof(got)));
        return;
    }
    conf_expand(build, root);
    if (!conf_include(build)) {
        return;
    }
    conf_arrange(build);
    options_read(&build->reader, OWN_TOP, root, build->conf);
    conf_check_top(build);
    conf_check_upstreams(build);
    conf_check_routes(build);
    conf_check_listeners(build);
    conf_check_limits(build);
    seal(build);
}

static struct list alive_confs = LIST_INIT(alive_confs);

static struct conf *
conf_new(const char *name, const char *folder)
{
    struct conf_arena *arena = conf_arena_new();
    struct conf *conf = conf_arena_alloc(arena, sizeof(*conf));
    const char *slash = strrchr(name, '/');
    conf->arena = arena;
    conf->refs = 1;
    list_add_tail(&alive_confs, &conf->alive);
    conf->path = conf_arena_format(arena, "%s/%s", strcmp(folder, "/") == 0 ? "" : folder,
                                   slash ? slash + 1 : name);
    return conf;
}

struct conf *
conf_load_from(const char *name, const char *folder, struct slice text, struct conf_source *src,
               struct conf_errors *errors)
{
    struct conf *conf = conf_new(name, folder);
    struct conf_build build = {
        .conf = conf,
        .arena = conf->arena,
        .report = report_new(name),
        .src = src,
        .name = name,
        .base = strcmp(folder, "/") == 0 ? "" : folder,
        .digest = EVP_MD_CTX_new(),
    };
    if (!build.digest || !EVP_DigestInit_ex(build.digest, EVP_sha256(), NULL)) {
        abort();
    }
    option_reader_init(&build.reader, build.arena, build.report,
                       conf_arena_copy(build.arena, slice_from_str(folder)));
    build.root = scan_text(build.arena, text, build.report);
    if (build.root) {
        read_tree(&build);
    }
    EVP_MD_CTX_free(build.digest);
    if (report_has_errors(build.report)) {
        conf_unref(conf);
        conf = NULL;
    }
    report_finish(build.report, errors);
    return conf;
}

struct conf *
conf_load(const char *name, struct slice text, struct conf_source *src, struct conf_errors *errors)
{
    char folder[PATH_MAX * 2 + 2], here[PATH_MAX];
    const char *slash = strrchr(name, '/');
    int len = slash ? (int)(slash - name) : 0;
    if (name[0] != '/' && !getcwd(here, sizeof(here))) {
        here[0] = '\0';
    }
    if (name[0] == '/') {
        snprintf(folder, sizeof(folder), "%.*s", len ? len : 1, name);
    } else {
        snprintf(folder, sizeof(folder), "%s%s%.*s", here, len ? "/" : "", len, name);
    }
    return conf_load_from(name, folder, text, src, errors);
}

struct conf *
conf_ref(struct conf *conf)
{
    conf->refs++;
    return conf;
}

void
conf_unref(struct conf *conf)
{
    if (!conf || --conf->refs > 0) {
        return;
    }
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        struct conf_tls *tls = conf->listeners[i].tls;
        if (tls && tls->server) {
            tls_server_unref(tls->server);
        }
    }
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        if (conf->upstreams[i].tls) {
            tls_client_unref(conf->upstreams[i].tls->client);
        }
    }
    list_del(&conf->alive);
    conf_arena_free(conf->arena);
}

unsigned
conf_alive(uint64_t *oldest_gen)
{
    unsigned count = 0;
    list_for_each (it, &alive_confs) {
        uint64_t gen = container_of(it, struct conf, alive)->gen;
        *oldest_gen = count == 0 || gen < *oldest_gen ? gen : *oldest_gen;
        count++;
    }
    return count;
}

struct conf_pool *
conf_upstream_pool(struct conf_upstream *up, struct slice path)
{
    if (up->npools == 1) {
        return &up->pools[0];
    }
    int number = path_set_find(up->pool_set, path);
    return &up->pools[number < 0 ? 0 : number];
}

void
conf_print(const struct conf *conf, FILE *out)
{
    fputs(conf->json, out);
}
