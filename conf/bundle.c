/* SPDX-License-Identifier: Apache-2.0
 *
 * bundle.c - record the answers of a conf_source, and write them into a sealed memfd.
 */
#include "conf/bundle.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf/arena.h"
#include "conf/bundle_format.h"

/* ---- recording ---- */

struct bundle_recorder {
    struct conf_source source; /* first: what conf_load() is handed */
    struct conf_source *from;
    struct conf_arena *arena;
    struct answer *first, **last;
    struct conf_machine machine;
};

static struct answer *
record(struct bundle_recorder *rec, enum answer_kind kind, const char *question, uint32_t number)
{
    struct answer *answer = conf_arena_alloc(rec->arena, sizeof(*answer));
    answer->kind = kind;
    answer->question = conf_arena_copy(rec->arena, slice_from_str(question));
    answer->number = number;
    *rec->last = answer;
    rec->last = &answer->next;
    return answer;
}

static void
record_file(struct bundle_recorder *rec, enum answer_kind kind, const char *path,
            struct slice bytes)
{
    for (const struct answer *answer = rec->first; answer; answer = answer->next) {
        if (answer->kind == kind && strcmp(answer->question, path) == 0) {
            return;
        }
    }
    struct answer *answer = record(rec, kind, path, 0);
    answer->is_there = true;
    answer->bytes = bytes; /* lives as long as the source it came from */
}

static int
recorder_read_file(struct conf_source *src, const char *path, struct slice *out, char *why,
                   size_t why_size)
{
    struct bundle_recorder *rec = (struct bundle_recorder *)src;
    int result = rec->from->read_file(rec->from, path, out, why, why_size);
    if (result == 0) {
        record_file(rec, ANSWER_FILE, path, *out);
    }
    return result;
}

static int
recorder_read_public(struct conf_source *src, const char *path, struct slice *out, char *why,
                     size_t why_size)
{
    struct bundle_recorder *rec = (struct bundle_recorder *)src;
    int result = rec->from->read_public
                     ? rec->from->read_public(rec->from, path, out, why, why_size)
                     : rec->from->read_file(rec->from, path, out, why, why_size);
    if (result == 0) {
        record_file(rec, ANSWER_PUBLIC, path, *out);
    }
    return result;
}

static int
recorder_list_files(struct conf_source *src, const char *pattern, struct slice *out, char *why,
                    size_t why_size)
{
    struct bundle_recorder *rec = (struct bundle_recorder *)src;
    int result = rec->from->list_files(rec->from, pattern, out, why, why_size);
    if (result == 0) {
        record_file(rec, ANSWER_LIST, pattern, *out);
    }
    return result;
}

static int
recorder_resolve(struct conf_source *src, const char *name, uint16_t port, struct conf_found *out,
                 int max)
{
    struct bundle_recorder *rec = (struct bundle_recorder *)src;
    int n = rec->from->resolve(rec->from, name, port, out, max);
    struct answer *answer = record(rec, ANSWER_NAME, name, port);
    size_t len = n > 0 ? (size_t)n * sizeof(*out) : 0;
    answer->is_there = n > 0;
    answer->bytes = slice_of(conf_arena_copy(rec->arena, slice_of((const char *)out, len)), len);
    return n;
}

static const char *
recorder_env(struct conf_source *src, const char *name)
{
    struct bundle_recorder *rec = (struct bundle_recorder *)src;
    const char *value = rec->from->env ? rec->from->env(rec->from, name) : getenv(name);
    struct answer *answer = record(rec, ANSWER_ENV, name, 0);
    answer->is_there = value != NULL;
    answer->bytes = slice_from_str(value ? conf_arena_copy(rec->arena, slice_from_str(value)) : "");
    return value;
}

static unsigned
recorder_weight(struct conf_source *src, const char *upstream, const char *backend)
{
    struct bundle_recorder *rec = (struct bundle_recorder *)src;
    unsigned weight = rec->from->weight ? rec->from->weight(rec->from, upstream, backend) : 0;
    if (weight != 0) {
        const char *question = conf_arena_format(rec->arena, "%s/%s", upstream, backend);
        struct answer *answer = record(rec, ANSWER_WEIGHT, question, 0);
        answer->is_there = true;
        answer->bytes = slice_from_str(conf_arena_format(rec->arena, "%u", weight));
    }
    return weight;
}

static void
recorder_machine(struct conf_source *src, struct conf_machine *out)
{
    struct bundle_recorder *rec = (struct bundle_recorder *)src;
    if (rec->from->machine) {
        rec->from->machine(rec->from, out);
    } else {
        conf_machine_read(out);
    }
    rec->machine = *out;
}

static bool
recorder_has_account(struct conf_source *src, const char *name, bool is_group)
{
    struct bundle_recorder *rec = (struct bundle_recorder *)src;
    return !rec->from->has_account || rec->from->has_account(rec->from, name, is_group);
}

struct bundle_recorder *
bundle_recorder_new(struct conf_source *from)
{
    struct bundle_recorder *rec = calloc(1, sizeof(*rec));
    if (!rec) {
        abort();
    }
    rec->from = from;
    rec->arena = conf_arena_new();
    rec->last = &rec->first;
    rec->source = (struct conf_source){
        .read_file = recorder_read_file,
        .read_public = recorder_read_public,
        .list_files = from->list_files ? recorder_list_files : NULL,
        .resolve = recorder_resolve,
        .machine = recorder_machine,
        .env = recorder_env,
        .weight = recorder_weight,
        .has_account = recorder_has_account,
        .without_keys = from->without_keys,
    };
    return rec;
}

struct conf_source *
bundle_recorder_source(struct bundle_recorder *rec)
{
    return &rec->source;
}

void
bundle_recorder_free(struct bundle_recorder *rec)
{
    if (rec) {
        conf_arena_free(rec->arena);
        free(rec);
    }
}

/* ---- writing ---- */

static void
put_bytes(FILE *out, struct slice s)
{
    uint32_t len = (uint32_t)s.len;
    fwrite(&len, sizeof(len), 1, out);
    fwrite(s.ptr ? s.ptr : "", 1, len, out);
    putc('\0', out);
}

static void
put_text(FILE *out, const char *text)
{
    put_bytes(out, slice_from_str(text));
}

static void
put_number(FILE *out, uint64_t number)
{
    fwrite(&number, sizeof(number), 1, out);
}

/* What included files and the environment say of the text stands in the long form, as far as it is
 * public. */
static bool
is_public(const struct answer *answer)
{
    switch (answer->kind) {
    case ANSWER_NAME:
    case ANSWER_WEIGHT:
    case ANSWER_PUBLIC: return true;
    case ANSWER_ENV: return strcmp(answer->question, CONF_CA_VARIABLE) == 0;
    default: return false;
    }
}

static void
put_answers(FILE *out, const struct bundle_recorder *rec, bool with_keys)
{
    for (const struct answer *answer = rec->first; answer; answer = answer->next) {
        if (!with_keys && !is_public(answer)) {
            continue;
        }
        put_number(out, answer->kind);
        put_text(out, answer->question);
        put_number(out, answer->number);
        put_number(out, answer->is_there);
        put_bytes(out, answer->bytes);
    }
    put_number(out, ANSWER_END);
}

static void
put_slots(FILE *out, const struct conf *conf)
{
    uint64_t npools = 0, nbackends = 0;
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        npools += conf->upstreams[i].npools;
        nbackends += conf->upstreams[i].nbackends;
    }
    put_number(out, conf->nlisteners);
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        put_number(out, conf->listeners[i].slot);
    }
    put_number(out, npools);
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        for (unsigned j = 0; j < conf->upstreams[i].npools; j++) {
            put_number(out, conf->upstreams[i].pools[j].slot);
        }
    }
    put_number(out, nbackends);
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        for (unsigned j = 0; j < conf->upstreams[i].nbackends; j++) {
            put_number(out, conf->upstreams[i].backends[j].slot);
        }
    }
    put_number(out, conf->nrate_limits);
    for (unsigned i = 0; i < conf->nrate_limits; i++) {
        put_number(out, conf->rate_limits[i]->slot);
    }
    put_number(out, conf->nroutes);
    for (unsigned i = 0; i < conf->nroutes; i++) {
        put_number(out, conf->routes[i].split.slot);
    }
}

static char *
folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = strndup(path, slash && slash > path ? (size_t)(slash - path) : 1);
    if (!folder) {
        abort();
    }
    return folder;
}

static void
put_bundle(FILE *out, const struct bundle_recorder *rec, const char *name, struct slice text,
           const struct conf *conf, bool with_keys)
{
    char *folder = folder_of(conf->path);
    put_number(out, BUNDLE_MAGIC);
    put_number(out, with_keys);
    put_number(out, conf->gen);
    put_number(out, conf->hash);
    put_number(out, rec->machine.processors);
    put_number(out, rec->machine.open_files);
    put_text(out, name);
    put_text(out, folder);
    put_bytes(out, with_keys ? text : slice_from_str(conf->public_json));
    put_answers(out, rec, with_keys);
    put_slots(out, conf);
    free(folder);
}

int
bundle_seal(struct bundle_recorder *rec, const char *name, struct slice text,
            const struct conf *conf, bool with_keys)
{
    char buffer[BUFSIZ];
    int fd = memfd_create("akashd bundle", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    FILE *out = copy < 0 ? NULL : fdopen(copy, "wb");
    if (!out) {
        goto fail;
    }
    copy = -1;
    setvbuf(out, buffer, _IOFBF, sizeof(buffer));
    put_bundle(out, rec, name, text, conf, with_keys);
    bool is_well = !ferror(out);
    is_well = fclose(out) == 0 && is_well;
    OPENSSL_cleanse(buffer, sizeof(buffer)); /* of keys */
    if (!is_well ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0) {
        goto fail;
    }
    return fd;

fail:
    if (copy >= 0) {
        close(copy);
    }
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}
