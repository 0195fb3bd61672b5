/* SPDX-License-Identifier: Apache-2.0
 *
 * route.c - conditions of routes, and what else is decided by a route alone: see route.h.
 */
#include "conf/route.h"

#include <stdlib.h>

/* ---- values ---- */

static bool
ends_with(struct slice s, struct slice suffix)
{
    return s.len >= suffix.len &&
           slice_eq(slice_of(s.ptr + s.len - suffix.len, suffix.len), suffix);
}

static bool
finds(const struct pattern *pattern, struct slice text, const struct pattern **gave_up)
{
    enum pattern_verdict verdict = pattern_find(pattern, text);
    if (verdict == PATTERN_GAVE_UP) {
        *gave_up = pattern;
    }
    return verdict == PATTERN_YES;
}

static bool
value_holds(const struct conf_match *match, struct slice value, const struct pattern **gave_up)
{
    switch (match->kind) {
    case CONF_MATCH_EXACT: return slice_eq(value, match->text);
    case CONF_MATCH_PREFIX: return slice_starts_with(value, match->text);
    case CONF_MATCH_SUFFIX: return ends_with(value, match->text);
    case CONF_MATCH_REGEX: return finds(match->pattern, value, gave_up);
    default: return match->present;
    }
}

/* ---- fields ---- */

/* One of several fields of the name is enough. */
static bool
field_holds(const struct conf_match *match, const struct http_msg *req,
            const struct pattern **gave_up)
{
    struct slice name = slice_from_str(match->name);
    bool is_there = false;
    if (req->upgrade.len > 0 && slice_eq_nocase(name, SLICE("upgrade"))) {
        return value_holds(match, req->upgrade, gave_up);
    }
    for (unsigned i = 0; i < req->nfields; i++) {
        const struct http_field *f = &req->fields[i];
        if (f->drop || !slice_eq_nocase(f->name, name)) {
            continue;
        }
        is_there = true;
        if (value_holds(match, f->value, gave_up)) {
            return true;
        }
    }
    return !is_there && match->kind == CONF_MATCH_PRESENT && !match->present;
}

/* ---- the query ---- */

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* As a form writes it: '+' is a space, %XX a byte. The memory is that of the next one, too. */
static struct slice
decode(struct slice text)
{
    static char *room;
    static size_t size;
    if (text.len > size) {
        free(room);
        size = text.len < 1024 ? 1024 : text.len;
        room = malloc(size);
        if (!room) {
            abort();
        }
    }
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        bool is_escape = text.ptr[i] == '%' && i + 2 < text.len &&
                         hex_digit(text.ptr[i + 1]) >= 0 && hex_digit(text.ptr[i + 2]) >= 0;
        if (is_escape) {
            room[len++] = (char)(hex_digit(text.ptr[i + 1]) << 4 | hex_digit(text.ptr[i + 2]));
            i += 2;
        } else {
            room[len++] = text.ptr[i] == '+' ? ' ' : text.ptr[i];
        }
    }
    return slice_of(room, len);
}

/* Up to the separator, which *rest loses too. */
static struct slice
cut_at(struct slice *rest, char separator)
{
    const char *at = rest->len ? memchr(rest->ptr, separator, rest->len) : NULL;
    struct slice head = at ? slice_of(rest->ptr, (size_t)(at - rest->ptr)) : *rest;
    size_t used = head.len + (at != NULL);
    *rest = slice_of(rest->ptr + used, rest->len - used);
    return head;
}

/* One of several parameters of the name is enough. */
static bool
parameter_holds(const struct conf_match *match, const struct http_msg *req,
                const struct pattern **gave_up)
{
    struct slice query = req->target;
    struct slice wanted = slice_from_str(match->name);
    bool is_there = false;
    cut_at(&query, '?');
    while (query.len > 0) {
        struct slice value = cut_at(&query, '&');
        bool is_it = value.len > 0 && slice_eq(decode(cut_at(&value, '=')), wanted);
        if (!is_it) {
            continue;
        }
        is_there = true;
        if (value_holds(match, decode(value), gave_up)) {
            return true;
        }
    }
    return !is_there && match->kind == CONF_MATCH_PRESENT && !match->present;
}

/* ---- the whole ---- */

static bool
method_holds(char *const *methods, struct slice method)
{
    for (; *methods; methods++) {
        if (slice_eq(slice_from_str(*methods), method)) {
            return true;
        }
    }
    return false;
}

bool
route_holds(const struct conf_route *route, const struct http_msg *req,
            const struct pattern **gave_up)
{
    bool holds = !route->methods || method_holds(route->methods, req->method_text);
    if (holds && route->path_pattern) {
        holds = finds(route->path_pattern, req->path, gave_up);
    }
    for (unsigned i = 0; i < route->nheaders && holds; i++) {
        holds = field_holds(&route->headers[i], req, gave_up);
    }
    for (unsigned i = 0; i < route->nquery && holds; i++) {
        holds = parameter_holds(&route->query[i], req, gave_up);
    }
    return holds && !*gave_up;
}

/* ---- what follows ---- */

static size_t
without_slash(struct slice path)
{
    return path.len > 0 && path.ptr[path.len - 1] == '/' ? path.len - 1 : path.len;
}

void
route_rewrite_path(const struct conf_route *route, struct slice path, struct slice *first,
                   struct slice *rest)
{
    struct slice prefix = slice_from_str(route->rewrite->path_prefix);
    if (route->path_exact) {
        *first = prefix;
        *rest = slice_of(path.ptr + path.len, 0);
        return;
    }
    size_t matched = without_slash(slice_from_str(route->path));
    *rest = slice_of(path.ptr + matched, path.len - matched);
    *first = rest->len > 0 ? slice_of(prefix.ptr, without_slash(prefix)) : prefix;
}

static bool
is_in(const struct cidr *nets, unsigned n, const struct addr_ip *ip)
{
    for (unsigned i = 0; i < n; i++) {
        if (cidr_contains(&nets[i], ip)) {
            return true;
        }
    }
    return false;
}

bool
route_admits(const struct conf_route *route, const struct addr_ip *client)
{
    if (is_in(route->deny, route->ndeny, client)) {
        return false;
    }
    return route->nallow == 0 || is_in(route->allow, route->nallow, client);
}
