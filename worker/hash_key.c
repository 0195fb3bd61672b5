/* SPDX-License-Identifier: Apache-2.0
 *
 * hash_key.c - what of a request is hashed: see hash_key.h.
 */
#include "worker/hash_key.h"

#include "shared/hash.h"

/* The value of "name=value" among pairs parted by sep, spaces before a pair not counting. */
static bool
find_pair(struct slice pairs, char sep, struct slice name, struct slice *value)
{
    while (pairs.len > 0) {
        const char *end = memchr(pairs.ptr, sep, pairs.len);
        size_t len = end ? (size_t)(end - pairs.ptr) : pairs.len;
        size_t from = 0;
        while (from < len && pairs.ptr[from] == ' ') {
            from++;
        }
        if (len - from > name.len && memcmp(pairs.ptr + from, name.ptr, name.len) == 0 &&
            pairs.ptr[from + name.len] == '=') {
            from += name.len + 1;
            *value = slice_of(pairs.ptr + from, len - from);
            return true;
        }
        len += end != NULL;
        pairs = slice_of(pairs.ptr + len, pairs.len - len);
    }
    return false;
}

bool
hash_key_cookie(const struct http_msg *req, struct slice name, struct slice *value)
{
    for (unsigned i = 0; i < req->nfields; i++) {
        if (req->fields[i].id == HTTP_FIELD_COOKIE &&
            find_pair(req->fields[i].value, ';', name, value)) {
            return true;
        }
    }
    return false;
}

bool
hash_key_query(const struct http_msg *req, struct slice name, struct slice *value)
{
    size_t from = req->path.len + 1;
    if (req->target.len <= from) {
        return false;
    }
    return find_pair(slice_of(req->target.ptr + from, req->target.len - from), '&', name, value);
}

static bool
find_field(const struct http_msg *req, struct slice name, struct slice *value)
{
    for (unsigned i = 0; i < req->nfields; i++) {
        if (!req->fields[i].drop && slice_eq_nocase(req->fields[i].name, name)) {
            *value = req->fields[i].value;
            return true;
        }
    }
    return false;
}

static bool
find_value(const struct conf_upstream *up, const struct http_msg *req, struct slice *value)
{
    switch (up->hash_kind) {
    case CONF_KEY_URI: *value = req->target; return true;
    case CONF_KEY_PATH: *value = req->path; return true;
    case CONF_KEY_HEADER: return find_field(req, up->hash_name, value);
    case CONF_KEY_COOKIE: return hash_key_cookie(req, up->hash_name, value);
    case CONF_KEY_QUERY: return hash_key_query(req, up->hash_name, value);
    default: return false;
    }
}

uint64_t
hash_key_of(const struct conf_upstream *up, const struct http_msg *req,
            const struct addr_ip *client)
{
    struct slice value = slice_of((const char *)client->bytes, sizeof(client->bytes));
    if (req) {
        find_value(up, req, &value);
    }
    return hash_finish(hash_bytes(HASH_BEGIN, value.ptr, value.len));
}
