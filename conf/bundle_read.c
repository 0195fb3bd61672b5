/* SPDX-License-Identifier: Apache-2.0
 *
 * bundle_read.c - a sealed memfd as a conf_source, and the conf that it holds.
 */
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "conf/arena.h"
#include "conf/bundle_format.h"
#include "shared/shm.h"

#define BYTES_MOST (1u << 30)

/* ---- the bytes ---- */

/* begin <= at <= end; once is_broken, every read gives nothing. */
struct cursor {
    const char *at, *end;
    bool is_broken;
};

static uint64_t
take_number(struct cursor *in)
{
    uint64_t number = 0;
    if (in->is_broken || (size_t)(in->end - in->at) < sizeof(number)) {
        in->is_broken = true;
        return 0;
    }
    memcpy(&number, in->at, sizeof(number));
    in->at += sizeof(number);
    return number;
}

/* With a NUL behind it. */
static struct slice
take_bytes(struct cursor *in)
{
    uint32_t len = 0;
    struct slice none = {"", 0};
    if (in->is_broken || (size_t)(in->end - in->at) < sizeof(len)) {
        in->is_broken = true;
        return none;
    }
    memcpy(&len, in->at, sizeof(len));
    in->at += sizeof(len);
    if ((size_t)(in->end - in->at) < (size_t)len + 1 || in->at[len] != '\0') {
        in->is_broken = true;
        return none;
    }
    struct slice s = slice_of(in->at, len);
    in->at += (size_t)len + 1;
    return s;
}

/* A string ends where its length says: no NUL stands inside. */
static const char *
take_text(struct cursor *in)
{
    struct slice s = take_bytes(in);
    if (strlen(s.ptr) != s.len) {
        in->is_broken = true;
        return "";
    }
    return s.ptr;
}

struct bundle {
    struct conf_source source; /* first: what conf_load() is handed */
    struct conf_arena *arena;
    void *map;
    size_t size;
    uint64_t gen, hash;
    struct conf_machine machine;
    const char *name, *folder;
    struct slice text;
    struct answer *answers;
    struct cursor slots;
};

static const struct answer *
find_answer(const struct bundle *bundle, enum answer_kind kind, const char *question,
            uint32_t number)
{
    for (const struct answer *answer = bundle->answers; answer; answer = answer->next) {
        if (answer->kind == kind && answer->number == number &&
            strcmp(answer->question, question) == 0) {
            return answer;
        }
    }
    return NULL;
}

static int
read_answer(struct conf_source *src, enum answer_kind kind, const char *path, struct slice *out,
            char *why, size_t why_size)
{
    const struct answer *answer = find_answer((struct bundle *)src, kind, path, 0);
    if (!answer) {
        snprintf(why, why_size, "not in the bundle");
        return -1;
    }
    *out = answer->bytes;
    return 0;
}

static int
bundle_read_file(struct conf_source *src, const char *path, struct slice *out, char *why,
                 size_t why_size)
{
    return read_answer(src, ANSWER_FILE, path, out, why, why_size);
}

static int
bundle_read_public(struct conf_source *src, const char *path, struct slice *out, char *why,
                   size_t why_size)
{
    return read_answer(src, ANSWER_PUBLIC, path, out, why, why_size);
}

static int
bundle_list_files(struct conf_source *src, const char *pattern, struct slice *out, char *why,
                  size_t why_size)
{
    return read_answer(src, ANSWER_LIST, pattern, out, why, why_size);
}

int
bundle_resolve(struct conf_source *src, const char *name, uint16_t port, struct conf_found *out,
               int max)
{
    const struct answer *answer = find_answer((struct bundle *)src, ANSWER_NAME, name, port);
    size_t n = answer ? answer->bytes.len / sizeof(*out) : 0;
    n = n > (size_t)max ? (size_t)max : n;
    if (n) {
        memcpy(out, answer->bytes.ptr, n * sizeof(*out));
    }
    return (int)n;
}

static const char *
bundle_env(struct conf_source *src, const char *name)
{
    const struct answer *answer = find_answer((struct bundle *)src, ANSWER_ENV, name, 0);
    return answer && answer->is_there ? answer->bytes.ptr : NULL;
}

static unsigned
bundle_weight(struct conf_source *src, const char *upstream, const char *backend)
{
    char question[SHM_ID_MAX * 2];
    snprintf(question, sizeof(question), "%s/%s", upstream, backend);
    const struct answer *answer = find_answer((struct bundle *)src, ANSWER_WEIGHT, question, 0);
    unsigned long weight = answer ? strtoul(answer->bytes.ptr, NULL, 10) : 0;
    return weight <= CONF_WEIGHT_MAX ? (unsigned)weight : 0;
}

static void
bundle_machine(struct conf_source *src, struct conf_machine *out)
{
    *out = ((struct bundle *)src)->machine;
}

/* An address that a kernel call can be given. */
static bool
is_address_list(struct slice bytes)
{
    struct conf_found found;
    for (size_t at = 0; at < bytes.len; at += sizeof(found)) {
        if (bytes.len - at < sizeof(found)) {
            return false;
        }
        memcpy(&found, bytes.ptr + at, sizeof(found));
        const struct addr *addr = &found.addr;
        bool is_ipv4 = addr->sa.sa_family == AF_INET && addr->len == sizeof(addr->in);
        bool is_ipv6 = addr->sa.sa_family == AF_INET6 && addr->len == sizeof(addr->in6);
        if (!is_ipv4 && !is_ipv6) {
            return false;
        }
    }
    return true;
}

static void
take_answers(struct bundle *bundle, struct cursor *in)
{
    struct answer **last = &bundle->answers;
    for (;;) {
        uint64_t kind = take_number(in);
        if (in->is_broken || kind == ANSWER_END) {
            return;
        }
        struct answer *answer = conf_arena_alloc(bundle->arena, sizeof(*answer));
        answer->kind = (enum answer_kind)kind;
        answer->question = take_text(in);
        answer->number = (uint32_t)take_number(in);
        answer->is_there = take_number(in) != 0;
        answer->bytes = take_bytes(in);
        if (kind > ANSWER_LIST || (kind == ANSWER_NAME && !is_address_list(answer->bytes))) {
            in->is_broken = true;
            return;
        }
        *last = answer;
        last = &answer->next;
    }
}

static bool
take_bundle(struct bundle *bundle)
{
    struct cursor in = {bundle->map, (const char *)bundle->map + bundle->size, false};
    if (take_number(&in) != BUNDLE_MAGIC) {
        return false;
    }
    bundle->source.without_keys = take_number(&in) == 0;
    bundle->gen = take_number(&in);
    bundle->hash = take_number(&in);
    bundle->machine.processors = (unsigned)take_number(&in);
    bundle->machine.open_files = take_number(&in);
    bundle->name = take_text(&in);
    bundle->folder = take_text(&in);
    bundle->text = take_bytes(&in);
    take_answers(bundle, &in);
    bundle->slots = in;
    return !in.is_broken;
}

struct bundle *
bundle_open(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > BYTES_MOST) {
        return NULL;
    }
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
        return NULL;
    }
    struct conf_arena *arena = conf_arena_new();
    struct bundle *bundle = conf_arena_alloc(arena, sizeof(*bundle));
    bundle->arena = arena;
    bundle->map = map;
    bundle->size = (size_t)st.st_size;
    bundle->source = (struct conf_source){
        .read_file = bundle_read_file,
        .read_public = bundle_read_public,
        .list_files = bundle_list_files,
        .resolve = bundle_resolve,
        .machine = bundle_machine,
        .env = bundle_env,
        .weight = bundle_weight,
    };
    if (!take_bundle(bundle)) {
        bundle_close(bundle);
        return NULL;
    }
    return bundle;
}

void
bundle_close(struct bundle *bundle)
{
    if (bundle) {
        munmap(bundle->map, bundle->size);
        conf_arena_free(bundle->arena);
    }
}

const char *
bundle_name(const struct bundle *bundle)
{
    return bundle->name;
}

const char *
bundle_folder(const struct bundle *bundle)
{
    return bundle->folder;
}

struct slice
bundle_text(const struct bundle *bundle)
{
    return bundle->text;
}

struct conf_source *
bundle_source(struct bundle *bundle)
{
    return &bundle->source;
}

bool
bundle_file(const struct bundle *bundle, unsigned i, struct slice *bytes)
{
    for (const struct answer *answer = bundle->answers; answer; answer = answer->next) {
        bool is_file = answer->kind == ANSWER_FILE || answer->kind == ANSWER_PUBLIC;
        if (is_file && i-- == 0) {
            *bytes = answer->bytes;
            return true;
        }
    }
    return false;
}

const char *
bundle_host(const struct bundle *bundle, unsigned i, uint16_t *port)
{
    for (const struct answer *answer = bundle->answers; answer; answer = answer->next) {
        if (answer->kind == ANSWER_NAME && i-- == 0) {
            *port = (uint16_t)answer->number;
            return answer->question;
        }
    }
    return NULL;
}

/* ---- slots ---- */

static unsigned
take_slot(struct cursor *in, unsigned limit)
{
    uint64_t slot = take_number(in);
    in->is_broken |= slot >= limit;
    return in->is_broken ? 0 : (unsigned)slot;
}

static void
expect_count(struct cursor *in, uint64_t count)
{
    in->is_broken |= take_number(in) != count;
}

/* false: they are not those of this conf. */
static bool
take_slots(struct conf *conf, struct cursor in)
{
    uint64_t npools = 0, nbackends = 0;
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        npools += conf->upstreams[i].npools;
        nbackends += conf->upstreams[i].nbackends;
    }
    expect_count(&in, conf->nlisteners);
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        conf->listeners[i].slot = take_slot(&in, SHM_LISTENERS);
    }
    expect_count(&in, npools);
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        for (unsigned j = 0; j < conf->upstreams[i].npools; j++) {
            conf->upstreams[i].pools[j].slot = take_slot(&in, SHM_UPSTREAMS);
        }
        conf->upstreams[i].slot = conf->upstreams[i].pools[0].slot;
    }
    expect_count(&in, nbackends);
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        for (unsigned j = 0; j < conf->upstreams[i].nbackends; j++) {
            conf->upstreams[i].backends[j].slot = take_slot(&in, SHM_BACKENDS);
        }
    }
    expect_count(&in, conf->nrate_limits);
    for (unsigned i = 0; i < conf->nrate_limits; i++) {
        conf->rate_limits[i]->slot = take_slot(&in, SHM_LIMITS);
    }
    expect_count(&in, conf->nroutes);
    for (unsigned i = 0; i < conf->nroutes; i++) {
        conf->routes[i].split.slot = take_slot(&in, SHM_UPSTREAMS);
    }
    return !in.is_broken && in.at == in.end;
}

static void
set_error(struct conf_errors *errors, const char *text)
{
    conf_errors_fini(errors);
    errors->errors = calloc(1, sizeof(char *));
    if (!errors->errors || !(errors->errors[0] = strdup(text))) {
        abort();
    }
    errors->nerrors = 1;
}

struct conf *
bundle_load(int fd, struct conf_errors *errors)
{
    *errors = (struct conf_errors){0};
    struct bundle *bundle = bundle_open(fd);
    if (!bundle) {
        set_error(errors, "the bundle is broken");
        return NULL;
    }
    struct conf *conf =
        conf_load_from(bundle->name, bundle->folder, bundle->text, &bundle->source, errors);
    if (conf && !take_slots(conf, bundle->slots)) {
        set_error(errors, "the bundle's slots are not those of its configuration");
        conf_unref(conf);
        conf = NULL;
    }
    if (conf) {
        conf->gen = bundle->gen;
        conf->hash = bundle->hash;
    }
    bundle_close(bundle);
    return conf;
}
