/* SPDX-License-Identifier: Apache-2.0
 *
 * sticky.c - see sticky.h.
 */
#include "worker/sticky.h"

#include <stdio.h>

#include "shared/sticky.h"
#include "worker/hash_key.h"
#include "worker/upstream.h"
#include "worker/worker.h"

#define ATTRIBUTES_MAX 400 /* name, path and all, without the value */

static uint64_t
now_s(void)
{
    return clock_wall_us() / 1000000;
}

static struct conf_backend *
find_backend(const struct conf_upstream *up, uint64_t tag)
{
    for (unsigned i = 0; i < up->nbackends; i++) {
        if (up->backends[i].sticky_tag == tag) {
            return &up->backends[i];
        }
    }
    return NULL;
}

static void
strip(struct stream *s, struct slice name)
{
    struct http_msg *m = &s->http->req;
    for (unsigned i = 0; i < m->nfields; i++) {
        struct http_field *f = &m->fields[i];
        char *room =
            f->id == HTTP_FIELD_COOKIE && !f->drop ? stream_alloc(s, 2 * f->value.len) : NULL;
        unsigned nremoved = 0;
        size_t len = room ? sticky_strip(f->value, name, room, &nremoved) : 0;
        if (nremoved > 0) {
            f->value = slice_of(room, len);
            f->drop = len == 0;
            f->is_plain = false; /* it stands no more behind its name */
        }
    }
}

void
sticky_begin(struct stream *s)
{
    const struct conf_sticky *sticky = s->upstream->sticky;
    struct slice value;
    uint64_t tag, expires_s;
    if (!sticky) {
        return;
    }
    struct slice name = slice_from_str(sticky->cookie);
    if (!hash_key_cookie(&s->http->req, name, &value)) {
        return;
    }
    if (sticky_read(slice_from_str(sticky->secret), value, now_s(), &tag, &expires_s)) {
        uint64_t ttl_s = sticky->ttl / 1000;
        s->http->sticky = find_backend(s->upstream, tag);
        s->http->is_sticky_old =
            (ttl_s != 0) != (expires_s != 0) || (ttl_s != 0 && expires_s - now_s() < ttl_s / 2);
    }
    strip(s, name);
}

static bool
is_in_pool(const struct conf_pool *pool, const struct conf_backend *b)
{
    for (unsigned i = 0; pool && i < pool->nbackends; i++) {
        if (pool->backends[i] == b) {
            return true;
        }
    }
    return pool && pool->backups && is_in_pool(pool->backups, b);
}

struct conf_backend *
sticky_backend(const struct stream *s)
{
    struct conf_backend *b = s->http ? s->http->sticky : NULL;
    return b && (s->upstream->npools == 1 || is_in_pool(s->pool, b)) ? b : NULL;
}

static bool
has_tried(const struct stream *s, const struct conf_backend *b)
{
    for (unsigned i = 0; i < s->tries && i < STREAM_MAX_TRIES; i++) {
        if (s->tried[i] == b->index) {
            return true;
        }
    }
    return false;
}

/* Its own backend could not serve this request, and will the next. */
static bool
is_only_full(const struct stream *s)
{
    const struct conf_backend *own = sticky_backend(s);
    if (!own || has_tried(s, own)) {
        return false;
    }
    enum reason why = upstream_usable(own);
    return why == REASON_none || why == REASON_over_limit;
}

static struct slice
make_cookie(struct stream *s)
{
    const struct conf_sticky *sticky = s->upstream->sticky;
    uint64_t ttl_s = sticky->ttl / 1000;
    char value[STICKY_LEN + 1] = "", age[32] = "";
    char *text = stream_alloc(s, STICKY_LEN + ATTRIBUTES_MAX);
    if (!text || !sticky_write(slice_from_str(sticky->secret), s->backend->sticky_tag,
                               ttl_s ? now_s() + ttl_s : 0, value)) {
        return SLICE("");
    }
    if (ttl_s) {
        snprintf(age, sizeof(age), "; Max-Age=%llu", (unsigned long long)ttl_s);
    }
    bool is_secure = sticky->secure || s->conf_listener->tls;
    int len =
        snprintf(text, STICKY_LEN + ATTRIBUTES_MAX, "%s=%s; Path=%s%s; HttpOnly; SameSite=Lax%s",
                 sticky->cookie, value, sticky->path, age, is_secure ? "; Secure" : "");
    return slice_of(text, (size_t)len);
}

void
sticky_put_field(struct stream *s, struct http_msg *m)
{
    if (!s->upstream->sticky || !s->backend) {
        return;
    }
    bool is_own = s->backend == s->http->sticky;
    if (is_own ? !s->http->is_sticky_old : is_only_full(s)) {
        return;
    }
    struct slice cookie = make_cookie(s);
    if (cookie.len > 0) {
        m->fields[m->nfields++] = (struct http_field){
            .name = SLICE("Set-Cookie"), .value = cookie, .id = HTTP_FIELD_SET_COOKIE};
    }
}
