/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_conf.c - configuration files. Whatever is accepted prints as a file that is accepted and
 * prints the same; whatever is refused has at least one error with the file's name.
 *
 * A byte 1, which no JSON has, ends a file: the first one is the configuration, the others are what
 * it may include, by the names /fuzz/d/0.json, 1.json and so on.
 */
#include "conf/conf.h"
#include "t/fuzz/fuzz.h"

#define INCLUDED_MOST 4

static struct slice included[INCLUDED_MOST];
static unsigned nincluded;

/* The configuration; what follows it becomes included files. */
static struct slice
split(struct slice text)
{
    struct slice first = text;
    nincluded = 0;
    for (size_t i = 0; i < text.len && nincluded < INCLUDED_MOST; i++) {
        if (text.ptr[i] == 1) {
            struct slice *before = nincluded ? &included[nincluded - 1] : &first;
            before->len = (size_t)(text.ptr + i - before->ptr);
            included[nincluded++] = slice_of(text.ptr + i + 1, text.len - i - 1);
        }
    }
    return first;
}

static int
read_included(struct conf_source *src, const char *path, struct slice *out, char *why,
              size_t why_size)
{
    (void)src;
    for (unsigned i = 0; i < nincluded; i++) {
        char name[32];
        snprintf(name, sizeof(name), "/fuzz/d/%u.json", i);
        if (strcmp(name, path) == 0) {
            *out = included[i];
            return 0;
        }
    }
    snprintf(why, why_size, "no file");
    return -1;
}

/* Whatever the pattern. */
static int
list_included(struct conf_source *src, const char *pattern, struct slice *out, char *why,
              size_t why_size)
{
    (void)src;
    (void)why;
    (void)why_size;
    static const char names[] = "/fuzz/d/0.json\0/fuzz/d/1.json\0/fuzz/d/2.json\0/fuzz/d/3.json";
    FUZZ_EXPECT(pattern[0] == '/');
    *out = slice_of(names, nincluded * sizeof("/fuzz/d/0.json"));
    return 0;
}

/* A name has as many addresses as its first byte says. */
static int
resolve(struct conf_source *src, const char *name, uint16_t port, struct conf_found *out, int max)
{
    (void)src;
    int n = (unsigned char)name[0] % 4;
    FUZZ_EXPECT(n <= max);
    for (int i = 0; i < n; i++) {
        memset(&out[i], 0, sizeof(out[i]));
        struct addr *addr = &out[i].addr;
        addr->len = sizeof(addr->in);
        addr->in.sin_family = AF_INET;
        addr->in.sin_port = htons(port ? port : (uint16_t)(1 + i));
        addr->in.sin_addr.s_addr = htonl(0x7f000001u + (uint32_t)(3 - i));
        out[i].weight = port ? 0 : (uint16_t)(name[0] * 300 * i);
    }
    return n;
}

static void
machine(struct conf_source *src, struct conf_machine *out)
{
    (void)src;
    *out = (struct conf_machine){.processors = 2, .open_files = 4096};
}

static const char *
env(struct conf_source *src, const char *name)
{
    (void)src;
    return name[0] == 'A' ? "${x" : NULL;
}

/* -T of a conf, as text that the caller frees. */
static char *
print(const struct conf *conf, size_t *len)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, len);
    FUZZ_EXPECT(out != NULL);
    conf_print(conf, out);
    FUZZ_EXPECT(fclose(out) == 0);
    return text;
}

static void
expect_fixed_point(struct conf *conf, struct conf_source *src)
{
    size_t len = 0, again_len = 0;
    struct conf_errors errors;
    char *text = print(conf, &len);
    struct conf *again = conf_load("/fuzz/akashd.json", slice_of(text, len), src, &errors);
    FUZZ_EXPECT(again != NULL);
    char *again_text = print(again, &again_len);
    FUZZ_EXPECT(len == again_len && memcmp(text, again_text, len) == 0);
    conf_errors_fini(&errors);
    conf_unref(again);
    free(text);
    free(again_text);
}

static void
expect_pools(struct conf *conf)
{
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        struct conf_pool *pool = conf_upstream_pool(&conf->upstreams[i], SLICE("/api/x"));
        FUZZ_EXPECT(pool->nbackends == 0 || pool->schedule_len > 0);
        for (unsigned j = 0; j < pool->schedule_len; j++) {
            FUZZ_EXPECT(pool->schedule[j] < pool->nbackends);
        }
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct conf_source source = {
        .read_file = read_included,
        .list_files = list_included,
        .resolve = resolve,
        .machine = machine,
        .env = env,
        .without_keys = true,
    };
    struct conf_errors errors;
    char *text = fuzz_exact_copy(bytes, len);
    struct conf *conf =
        conf_load("/fuzz/akashd.json", split(slice_of(text, len)), &source, &errors);
    FUZZ_EXPECT(conf ? errors.nerrors == 0 : errors.nerrors > 0);
    for (unsigned i = 0; i < errors.nerrors; i++) {
        FUZZ_EXPECT(strncmp(errors.errors[i], "/fuzz/akashd.json:", 18) == 0 ||
                    strncmp(errors.errors[i], "/fuzz/d/", 8) == 0);
    }
    conf_errors_fini(&errors);
    free(text);
    if (conf) {
        expect_pools(conf);
        expect_fixed_point(conf, &source);
        conf_unref(conf);
    }
    return 0;
}
