/* SPDX-License-Identifier: Apache-2.0
 *
 * readyz.c - readiness from the segment and the conf. No I/O.
 */
#include "master/readyz.h"

#include <ctype.h>
#include <stdio.h>

#include "conf/backend_state.h"
#include "shared/clock.h"

#define NAME_TEXT_MAX 256

/* Would a request be sent to this backend? Where the upstream fails open only what a person has
 * said keeps it away. One that has its connections is usable: that passes within moments. */
static bool
is_usable(const struct shm *shm, const struct conf_backend *b)
{
    if (backend_state(shm, b) != CONF_READY || backend_breaker_said(shm, b) == BREAKER_SAID_OPEN) {
        return false;
    }
    return b->upstream->fail_open || (shm_health_get(shm, b->slot) != SHM_HEALTH_DOWN &&
                                      backend_breaker(shm, b, clock_mono_ms()) != BREAKER_OPEN);
}

static bool
is_accepting(const struct shm *shm)
{
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        if (shm_get(&shm->m->workers[i].pid) && shm_get(&shm->rows[i]->is_accepting)) {
            return true;
        }
    }
    return false;
}

static bool
has_usable_backend(const struct shm *shm, const struct conf_upstream *up)
{
    for (unsigned i = 0; i < up->nbackends; i++) {
        if (is_usable(shm, &up->backends[i])) {
            return true;
        }
    }
    return false;
}

/* Look at the upstreams of that name, or at all when name is NULL. */
static int
judge_upstreams(const struct shm *shm, const struct conf *conf, const char *name, char *buf)
{
    bool is_found = !name;
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        const struct conf_upstream *up = &conf->upstreams[i];
        if (name && strcmp(up->name, name) != 0) {
            continue;
        }
        is_found = true;
        if (!has_usable_backend(shm, up)) {
            snprintf(buf, READYZ_TEXT_MAX, "not ready: upstream %.256s has no usable backend\n",
                     up->name);
            return 503;
        }
    }
    if (!is_found) {
        snprintf(buf, READYZ_TEXT_MAX, "not ready: there is no upstream of that name\n");
        return 503;
    }
    return 200;
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    int lower = tolower((unsigned char)c);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Undo percent encoding (RFC 3986 2.1). false: broken, too long or with a NUL. */
static bool
decode_name(struct slice in, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++) {
        int c = (unsigned char)in.ptr[i];
        if (c == '%') {
            int high = i + 2 < in.len ? hex_digit(in.ptr[i + 1]) : -1;
            int low = i + 2 < in.len ? hex_digit(in.ptr[i + 2]) : -1;
            c = high < 0 || low < 0 ? 0 : high * 16 + low;
            i += 2;
        }
        if (c == 0 || n + 1 >= size) {
            return false;
        }
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return true;
}

static int
judge_parameter(const struct shm *shm, const struct conf *conf, struct slice parameter, char *buf)
{
    const struct slice key = SLICE("upstream=");
    char name[NAME_TEXT_MAX];
    if (slice_eq(parameter, SLICE("all")) || slice_eq(parameter, SLICE("all="))) {
        return judge_upstreams(shm, conf, NULL, buf);
    }
    if (slice_starts_with(parameter, key) &&
        decode_name(slice_of(parameter.ptr + key.len, parameter.len - key.len), name,
                    sizeof(name))) {
        return judge_upstreams(shm, conf, name, buf);
    }
    snprintf(buf, READYZ_TEXT_MAX, "the query is upstream=NAME, repeatable, or all\n");
    return 400;
}

int
readyz_judge(const struct shm *shm, const struct conf *conf, struct slice query, char *buf)
{
    if (shm_get(&shm->m->is_draining)) {
        snprintf(buf, READYZ_TEXT_MAX, "not ready: draining\n");
        return 503;
    }
    if (!is_accepting(shm)) {
        snprintf(buf, READYZ_TEXT_MAX, "not ready: no worker accepts\n");
        return 503;
    }
    while (query.len > 0) {
        const char *amp = memchr(query.ptr, '&', query.len);
        size_t len = amp ? (size_t)(amp - query.ptr) : query.len;
        int status = judge_parameter(shm, conf, slice_of(query.ptr, len), buf);
        if (status != 200) {
            return status;
        }
        len += amp != NULL;
        query = slice_of(query.ptr + len, query.len - len);
    }
    snprintf(buf, READYZ_TEXT_MAX, "ready\n");
    return 200;
}
