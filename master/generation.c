/* SPDX-License-Identifier: Apache-2.0
 *
 * generation.c - load a configuration, and seal it into bundles.
 */
#include "master/generation.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "master/names.h"
#include "master/operator.h"
#include "master/resolver.h"

struct load_source {
    struct conf_source source; /* first: conf gets a pointer to it */
    struct conf_source *disk;
    struct resolver_names *names;
    bool is_collecting; /* names that are not known yet are noted down */
};

struct load {
    struct generation gen;
    struct event_base *base;
    struct identity id;
    struct resolver_names names;
    struct resolver *resolver;
    load_done *done;
    void *arg;
};

/* ---- the source of a conf in the master ---- */

static int
load_source_read_file(struct conf_source *src, const char *path, struct slice *out, char *why,
                      size_t why_size)
{
    struct load_source *s = (struct load_source *)src;
    return s->disk->read_file(s->disk, path, out, why, why_size);
}

static int
load_source_list_files(struct conf_source *src, const char *pattern, struct slice *out, char *why,
                       size_t why_size)
{
    struct load_source *s = (struct load_source *)src;
    return s->disk->list_files(s->disk, pattern, out, why, why_size);
}

/* Something that stands for an address: the conf that comes out is only to be looked at. */
static int
load_source_note(struct load_source *s, const char *name, uint16_t port, struct conf_found *out)
{
    bool is_srv = port == 0;
    if (!resolver_names_find(s->names, name, is_srv)) {
        resolver_names_add(s->names, name, is_srv);
    }
    struct addr_ip ip = {.family = AF_INET, .bytes = {127}};
    ip.bytes[1] = (uint8_t)(1 + s->names->count / 256);
    ip.bytes[2] = (uint8_t)s->names->count;
    ip.bytes[3] = 1;
    memset(out, 0, sizeof(*out));
    addr_from_ip(&ip, is_srv ? 1 : port, &out->addr);
    return 1;
}

static int
load_source_resolve(struct conf_source *src, const char *name, uint16_t port,
                    struct conf_found *out, int max)
{
    struct load_source *s = (struct load_source *)src;
    bool is_srv = port == 0;
    const struct resolver_name *found = resolver_names_find(s->names, name, is_srv);
    if (s->is_collecting) {
        return load_source_note(s, name, port, out);
    }
    unsigned n = 0;
    for (unsigned i = 0; found && i < found->count && n < (unsigned)max; i++) {
        out[n++] = found->found[i];
    }
    if (!found || n == 0 || found->is_partial) {
        n = names_keep_last(name, is_srv, out, n, (unsigned)max);
    }
    for (unsigned i = 0; !is_srv && i < n; i++) {
        names_set_port(&out[i], port);
    }
    return (int)n;
}

static bool
load_source_has_account(struct conf_source *src, const char *name, bool is_group)
{
    struct load_source *s = (struct load_source *)src;
    return !s->disk->has_account || s->disk->has_account(s->disk, name, is_group);
}

static struct conf_source *
load_source_new(struct resolver_names *names)
{
    struct load_source *s = calloc(1, sizeof(*s));
    if (!s) {
        return NULL;
    }
    s->source.read_file = load_source_read_file;
    s->source.list_files = load_source_list_files;
    s->source.resolve = load_source_resolve;
    s->source.has_account = load_source_has_account;
    s->source.weight = operator_weight_of;
    s->names = names;
    s->is_collecting = true;
    s->disk = conf_source_disk();
    if (!s->disk) {
        free(s);
        return NULL;
    }
    return &s->source;
}

static void
load_source_free(struct conf_source *source)
{
    struct load_source *s = (struct load_source *)source;
    if (s) {
        conf_source_disk_free(s->disk);
        free(s);
    }
}

/* ---- one error of our own ---- */

static void __attribute__((format(printf, 2, 3)))
errors_add(struct conf_errors *errors, const char *format, ...)
{
    char **list = realloc(errors->errors, (errors->nerrors + 1) * sizeof(*list));
    if (!list) {
        return;
    }
    errors->errors = list;
    va_list args;
    va_start(args, format);
    if (vasprintf(&list[errors->nerrors], format, args) >= 0) {
        errors->nerrors++;
    }
    va_end(args);
}

void
generation_join_errors(const struct conf_errors *errors, char *buf, size_t size)
{
    size_t len = 0;
    buf[0] = '\0';
    for (unsigned i = 0; i < errors->nerrors && len < size; i++) {
        int n = snprintf(buf + len, size - len, "%s%s", i > 0 ? "\n" : "", errors->errors[i]);
        len += n > 0 ? (size_t)n : 0;
    }
    if (buf[0] == '\0') {
        snprintf(buf, size, "the configuration could not be loaded");
    }
}

/* ---- generations ---- */

void
generation_init(struct generation *gen)
{
    memset(gen, 0, sizeof(*gen));
    gen->bundle = -1;
    gen->public_bundle = -1;
    gen->logs.error.fd = -1;
    gen->logs.access.fd = -1;
}

static void
generation_drop_sources(struct generation *gen)
{
    if (gen->recorder) {
        bundle_recorder_free(gen->recorder);
        gen->recorder = NULL;
    }
    load_source_free(gen->source);
    gen->source = NULL;
    bundle_close(gen->former);
    gen->former = NULL;
    if (gen->text) {
        OPENSSL_cleanse(gen->text, gen->text_len); /* children that come must not inherit it */
    }
    free(gen->text);
    gen->text = NULL;
    free(gen->name);
    gen->name = NULL;
}

static void
close_if_open(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

void
generation_fini(struct generation *gen)
{
    if (gen->conf) {
        conf_unref(gen->conf);
    }
    close_if_open(gen->bundle);
    close_if_open(gen->public_bundle);
    logs_close(&gen->logs);
    generation_drop_sources(gen);
    generation_init(gen);
}

int
generation_seal(struct generation *gen, uint64_t number, char *why, size_t why_size)
{
    struct slice text = slice_of(gen->text, gen->text_len);
    gen->conf->gen = number;
    gen->bundle = bundle_seal(gen->recorder, gen->name, text, gen->conf, true);
    gen->public_bundle = bundle_seal(gen->recorder, gen->name, text, gen->conf, false);
    if (gen->bundle < 0 || gen->public_bundle < 0) {
        snprintf(why, why_size, "cannot make the bundle: %s", strerror(errno));
        return -1;
    }
    generation_drop_sources(gen);
    return 0;
}

/* ---- loading ---- */

static int
origin_read(const struct generation_origin *origin, struct generation *gen,
            struct conf_errors *errors)
{
    struct slice text = slice_from_str(origin->text);
    char why[512] = "";
    if (!origin->text &&
        gen->source->read_file(gen->source, origin->path, &text, why, sizeof(why)) < 0) {
        errors_add(errors, "%s: %s", origin->path, why);
        return -1;
    }
    gen->name = strdup(origin->path);
    gen->text = malloc(text.len + 1);
    if (!gen->name || !gen->text) {
        errors_add(errors, "%s: out of memory", origin->path);
        return -1;
    }
    memcpy(gen->text, text.ptr, text.len);
    gen->text[text.len] = '\0';
    gen->text_len = text.len;
    return 0;
}

/* Build gen->conf from its text; a former one is let go only afterwards, so that what it shares
 * with the new one is not built twice. */
static void
generation_build(struct generation *gen, struct conf_errors *errors)
{
    struct conf *former = gen->conf;
    struct bundle_recorder *former_recorder = gen->recorder;
    gen->recorder = bundle_recorder_new(gen->source);
    gen->conf = NULL;
    if (gen->recorder) {
        gen->conf = conf_load(gen->name, slice_of(gen->text, gen->text_len),
                              bundle_recorder_source(gen->recorder), errors);
    } else {
        errors_add(errors, "%s: out of memory", gen->name);
    }
    if (former_recorder) {
        bundle_recorder_free(former_recorder);
    }
    if (former) {
        conf_unref(former);
    }
}

/* The same with the addresses that were found. */
static void
generation_build_named(struct generation *gen, struct conf_errors *errors)
{
    ((struct load_source *)gen->source)->is_collecting = false;
    generation_build(gen, errors);
}

static void
generation_load(struct generation *gen, const struct generation_origin *origin,
                struct resolver_names *names, struct conf_errors *errors)
{
    generation_init(gen);
    gen->source = load_source_new(names);
    if (!gen->source) {
        errors_add(errors, "%s: out of memory", origin->path);
    } else if (origin_read(origin, gen, errors) == 0) {
        generation_build(gen, errors);
    }
}

void
load_again(const struct generation *now, struct generation *gen, struct conf_errors *errors)
{
    generation_init(gen);
    gen->former = bundle_open(now->bundle);
    if (!gen->former) {
        errors_add(errors, "the bundle in force cannot be read: %s", strerror(errno));
        return;
    }
    struct slice text = bundle_text(gen->former);
    struct conf_source *source = bundle_source(gen->former);
    source->weight = operator_weight_of;
    source->resolve = names_resolve_again;
    gen->name = strdup(bundle_name(gen->former));
    gen->text = malloc(text.len + 1);
    gen->recorder = bundle_recorder_new(source);
    if (!gen->name || !gen->text || !gen->recorder) {
        errors_add(errors, "out of memory");
        return;
    }
    memcpy(gen->text, text.ptr, text.len + 1);
    gen->text_len = text.len;
    gen->conf = conf_load_from(gen->name, bundle_folder(gen->former), text,
                               bundle_recorder_source(gen->recorder), errors);
}

static void
load_finish(struct load *load, struct conf_errors *errors)
{
    load->done(&load->gen, errors, load->arg);
    conf_errors_fini(errors);
    resolver_names_fini(&load->names);
    generation_fini(&load->gen); /* what done did not take */
    free(load);
}

static void
load_on_resolved(void *arg)
{
    struct load *load = arg;
    struct conf_errors errors = {0};
    load->resolver = NULL;
    generation_build_named(&load->gen, &errors);
    load_finish(load, &errors);
}

/* true: the answers will come. */
static bool
load_ask_names(struct load *load)
{
    char why[256];
    const struct conf *conf = load->gen.conf;
    if (identity_find(&load->id, conf->user, conf->group, why, sizeof(why)) < 0) {
        return false; /* a user that does not exist is told by whoever takes the conf */
    }
    load->resolver = resolver_start(load->base, &load->id, &load->names, conf->resolvers,
                                    conf->nresolvers, load_on_resolved, load);
    return load->resolver != NULL;
}

struct load *
load_start(const struct generation_origin *origin, struct event_base *base, load_done *done,
           void *arg)
{
    struct conf_errors errors = {0};
    struct load *load = calloc(1, sizeof(*load));
    if (!load) {
        struct generation none;
        generation_init(&none);
        errors_add(&errors, "%s: out of memory", origin->path);
        done(&none, &errors, arg);
        conf_errors_fini(&errors);
        return NULL;
    }
    load->base = base;
    load->done = done;
    load->arg = arg;
    generation_load(&load->gen, origin, &load->names, &errors);
    if (load->gen.conf && load->names.count > 0) {
        conf_errors_fini(&errors); /* they come again */
        if (load_ask_names(load)) {
            return load;
        }
        generation_build_named(&load->gen, &errors);
    }
    load_finish(load, &errors);
    return NULL;
}

void
load_cancel(struct load *load)
{
    if (load->resolver) {
        resolver_cancel(load->resolver);
    }
    resolver_names_fini(&load->names);
    generation_fini(&load->gen);
    free(load);
}

void
load_here(const struct generation_origin *origin, struct generation *gen,
          struct conf_errors *errors)
{
    struct resolver_names names = {0};
    generation_load(gen, origin, &names, errors);
    if (gen->conf && names.count > 0) {
        conf_errors_fini(errors);
        resolver_fill(&names, gen->conf->resolvers, gen->conf->nresolvers);
        generation_build_named(gen, errors);
    }
    generation_drop_sources(gen);
    resolver_names_fini(&names);
}
