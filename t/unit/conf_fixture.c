/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_fixture.c - a conf_source that touches nothing, and loading with it.
 */
#include "t/unit/conf_fixture.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdarg.h>
#include <stdlib.h>

#define FILE_NAME "/etc/akashd/test.json"

static struct conf_errors kept;

static int
no_file(struct conf_source *src, const char *path, struct slice *out, char *why, size_t why_size)
{
    (void)src;
    (void)path;
    (void)out;
    snprintf(why, why_size, "No such file");
    return -1;
}

static int
put(struct conf_found *found, int family, const char *text, uint16_t port)
{
    struct addr *out = &found->addr;
    memset(found, 0, sizeof(*found));
    out->sa.sa_family = (sa_family_t)family;
    if (family == AF_INET) {
        inet_pton(AF_INET, text, &out->in.sin_addr);
        out->in.sin_port = htons(port);
        out->len = sizeof(out->in);
    } else {
        inet_pton(AF_INET6, text, &out->in6.sin6_addr);
        out->in6.sin6_port = htons(port);
        out->len = sizeof(out->in6);
    }
    return 1;
}

/* Of an SRV record. */
static int
put_record(struct conf_found *found, const char *text, uint16_t port, uint16_t priority,
           uint16_t weight)
{
    put(found, AF_INET, text, port);
    found->priority = priority;
    found->weight = weight;
    return 1;
}

/* "one" has one address, "three" has three and one of them twice, in disorder; "_srv._tcp.x" has
 * records of two priorities, "_even._tcp.x" has two without weight. */
static int
resolve(struct conf_source *src, const char *name, uint16_t port, struct conf_found *out, int max)
{
    (void)src;
    ck_assert_int_ge(max, 4);
    if (strcmp(name, "one") == 0) {
        return put(out, AF_INET, "192.0.2.1", port);
    }
    if (strcmp(name, "three") == 0) {
        return put(&out[0], AF_INET6, "2001:db8::1", port) +
               put(&out[1], AF_INET, "192.0.2.9", port) + put(&out[2], AF_INET, "192.0.2.3", port) +
               put(&out[3], AF_INET, "192.0.2.9", port);
    }
    if (strcmp(name, "_srv._tcp.x") == 0) {
        ck_assert_uint_eq(port, 0);
        return put_record(&out[0], "192.0.2.2", 8080, 10, 30000) +
               put_record(&out[1], "192.0.2.1", 8081, 10, 60000) +
               put_record(&out[2], "192.0.2.3", 80, 20, 1);
    }
    if (strcmp(name, "_even._tcp.x") == 0) {
        return put_record(&out[0], "192.0.2.2", 80, 1, 0) +
               put_record(&out[1], "192.0.2.1", 80, 1, 0);
    }
    return 0;
}

static void
machine(struct conf_source *src, struct conf_machine *out)
{
    (void)src;
    *out = (struct conf_machine){.processors = 2, .open_files = 1000};
}

static const char *
env(struct conf_source *src, const char *name)
{
    (void)src;
    if (strcmp(name, "HERE") == 0) {
        return "127.0.0.1";
    }
    return strcmp(name, "EMPTY") == 0 ? "" : NULL;
}

static bool
has_account(struct conf_source *src, const char *name, bool is_group)
{
    (void)src;
    return strcmp(name, is_group ? "staff" : "somebody") == 0;
}

static struct conf_source world = {
    .read_file = no_file,
    .resolve = resolve,
    .machine = machine,
    .env = env,
    .has_account = has_account,
};

struct conf_source *
fixture_source(void)
{
    return &world;
}

struct conf *
fixture_load_from(const char *text, struct conf_source *src)
{
    conf_errors_fini(&kept);
    return conf_load(FILE_NAME, slice_from_str(text), src, &kept);
}

struct conf *
fixture_load(const char *text)
{
    return fixture_load_from(text, &world);
}

const struct conf_errors *
fixture_errors(void)
{
    return &kept;
}

struct conf *
fixture_must_load(const char *text)
{
    struct conf *conf = fixture_load(text);
    ck_assert_msg(conf != NULL, "%s", kept.nerrors ? kept.errors[0] : "no error");
    ck_assert_uint_eq(kept.nerrors, 0);
    return conf;
}

void
fixture_expect_errors(const char *text, ...)
{
    unsigned n = 0;
    va_list expected;
    ck_assert_ptr_null(fixture_load(text));
    va_start(expected, text);
    for (const char *one; (one = va_arg(expected, const char *)); n++) {
        ck_assert_msg(n < kept.nerrors, "not told: %s", one);
        ck_assert_str_eq(kept.errors[n] + strlen(FILE_NAME ":"), one);
    }
    va_end(expected);
    ck_assert_msg(n == kept.nerrors, "one too many: %s", kept.errors[n]);
    conf_errors_fini(&kept);
}

char *
fixture_print(const struct conf *conf)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    conf_print(conf, out);
    fclose(out);
    return text;
}

void
fixture_free(struct conf *conf)
{
    conf_unref(conf);
    conf_errors_fini(&kept);
}
