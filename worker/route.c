/* SPDX-License-Identifier: Apache-2.0
 *
 * route.c - what becomes of a request by its route: see route.h.
 *
 * Which route it is, and what can be said of it without a stream, is decided in conf/.
 */
#include "worker/route.h"

#include <stdio.h>

#include "conf/route.h"
#include "conf/router.h"
#include "shared/http_head.h"
#include "shared/log.h"
#include "worker/reply.h"
#include "worker/stream_private.h"
#include "worker/worker.h"

#define TELL_EVERY_MS 10000

/* ---- finding ---- */

static void
tell_gave_up(const struct stream *s, const struct pattern *pattern)
{
    static struct log_limit limit;
    uint64_t suppressed;
    char text[128];
    if (log_limit_pass(&limit, worker_now_ms(), TELL_EVERY_MS, &suppressed)) {
        log_escape(slice_from_str(pattern_text(pattern)), text, sizeof(text));
        log_warn("listener %s: the regular expression \"%s\" took too long on a request, which was "
                 "answered 500 (%llu more since the last line)",
                 s->conf_listener->name, text, (unsigned long long)suppressed);
    }
}

enum reason
route_find(struct stream *s)
{
    const struct pattern *gave_up;
    const struct conf_route *route =
        conf_router_find(s->conf_listener->router, &s->http->req, &gave_up);
    if (gave_up) {
        tell_gave_up(s, gave_up);
        return REASON_internal;
    }
    if (!route) {
        return REASON_no_route;
    }
    s->http->route = route;
    return route_admits(route, &s->client_ip) ? REASON_none : REASON_denied;
}

/* ---- fields ---- */

static bool
is_removed(const struct conf_edit *edit, struct slice name)
{
    for (char **it = edit->remove; it && *it; it++) {
        if (slice_eq_nocase(slice_from_str(*it), name)) {
            return true;
        }
    }
    for (unsigned i = 0; i < edit->nset; i++) {
        if (slice_eq_nocase(slice_from_str(edit->set[i].name), name)) {
            return true;
        }
    }
    return false;
}

static void
put_pairs(struct http_msg *m, const struct conf_pair *pairs, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct slice name = slice_from_str(pairs[i].name);
        m->fields[m->nfields++] = (struct http_field){.name = name,
                                                      .value = slice_from_str(pairs[i].value),
                                                      .id = (uint8_t)http_field_find_id(name)};
    }
}

/* The message's fields move to where there is room for more. */
static bool
edit_fields(struct stream *s, struct http_msg *m, const struct conf_edit *edit)
{
    size_t room = (size_t)m->nfields + edit->nset + edit->nadd;
    struct http_field *fields = stream_alloc(s, (room + 1) * sizeof(*fields));
    if (!fields) {
        return false;
    }
    memcpy(fields, m->fields, m->nfields * sizeof(*fields));
    m->fields = fields;
    m->max_fields = (uint16_t)room;
    for (unsigned i = 0; i < m->nfields; i++) {
        fields[i].drop |= is_removed(edit, fields[i].name);
    }
    put_pairs(m, edit->set, edit->nset);
    put_pairs(m, edit->add, edit->nadd);
    return true;
}

void
route_edit_answer(struct stream *s, struct http_msg *m)
{
    const struct conf_edit *edit = s->http->route->response_headers;
    if (edit && !edit_fields(s, m, edit)) {
        log_warn("no memory for response_headers: the answer goes without");
    }
}

/* ---- rewriting ---- */

static bool
rewrite_path(struct stream *s)
{
    struct http_msg *m = &s->http->req;
    struct slice first, rest;
    if (m->path.len == 0 || m->path.ptr[0] != '/') {
        return true; /* "*" */
    }
    route_rewrite_path(s->http->route, m->path, &first, &rest);
    size_t query = m->target.len - m->path.len;
    char *target = stream_alloc(s, first.len + rest.len + query);
    if (!target) {
        return false;
    }
    memcpy(target, first.ptr, first.len);
    memcpy(target + first.len, rest.ptr, rest.len);
    memcpy(target + first.len + rest.len, m->target.ptr + m->path.len, query);
    if (s->http->spelled.len > 0) {
        s->http->spelled = SLICE("");
    } else {
        s->http->target = m->target;
    }
    m->path = slice_of(target, first.len + rest.len);
    m->target = slice_of(target, m->path.len + query);
    return true;
}

static bool
rewrite_host(struct stream *s, const char *host)
{
    static const struct conf_edit none;
    struct http_msg *m = &s->http->req;
    struct conf_pair pair = {"Host", host};
    for (unsigned i = 0; i < m->nfields; i++) {
        m->fields[i].drop |= m->fields[i].id == HTTP_FIELD_HOST;
    }
    struct conf_edit edit = none;
    edit.add = &pair;
    edit.nadd = 1;
    return edit_fields(s, m, &edit);
}

static bool
change_request(struct stream *s)
{
    const struct conf_route *route = s->http->route;
    const struct conf_rewrite *rewrite = route->rewrite;
    if (rewrite && rewrite->path_prefix && !rewrite_path(s)) {
        return false;
    }
    if (rewrite && rewrite->host && !rewrite_host(s, rewrite->host)) {
        return false;
    }
    return !route->request_headers || edit_fields(s, &s->http->req, route->request_headers);
}

/* ---- answers of our own ---- */

static struct slice
scheme_of(const struct stream *s)
{
    const struct http_field *said = http_msg_find(&s->http->req, HTTP_FIELD_X_FORWARDED_PROTO);
    bool is_said = s->http->is_peer_trusted && said && http_head_is_scheme(said->value);
    if (is_said) {
        return said->value;
    }
    return s->conf_listener->tls ? SLICE("https") : SLICE("http");
}

/* Another scheme has another port. */
static struct slice
without_port(struct slice authority)
{
    const char *colon = authority.len ? memrchr(authority.ptr, ':', authority.len) : NULL;
    const char *bracket = authority.len ? memrchr(authority.ptr, ']', authority.len) : NULL;
    return colon && (!bracket || colon > bracket)
               ? slice_of(authority.ptr, (size_t)(colon - authority.ptr))
               : authority;
}

/* Behind '?', with it; empty where the new path has one. */
static struct slice
query_for(const struct http_msg *req, const struct conf_redirect *to)
{
    size_t from = to->path && strchr(to->path, '?') ? req->target.len : req->path.len;
    return slice_of(req->target.ptr + from, req->target.len - from);
}

/* An absolute URL, or a path alone to who has not said which host it wants (HTTP/1.0). */
static struct slice
location(struct stream *s, const struct conf_redirect *to)
{
    const struct http_msg *req = &s->http->req;
    static const char *const schemes[] = {"", "http", "https"};
    struct slice scheme = to->scheme ? slice_from_str(schemes[to->scheme]) : scheme_of(s);
    struct slice host = to->scheme ? without_port(req->authority) : req->authority;
    struct slice path = req->path.len > 0 && req->path.ptr[0] == '/' ? req->path : SLICE("/");
    struct slice query = query_for(req, to);
    host = to->host ? slice_from_str(to->host) : host;
    path = to->path ? slice_from_str(to->path) : path;
    const char *slashes = host.len ? "://" : "";
    scheme.len = host.len ? scheme.len : 0;
    size_t size = scheme.len + 3 + host.len + path.len + query.len + 1;
    char *text = stream_alloc(s, size);
    if (!text) {
        return slice_of(NULL, 0);
    }
    int len = snprintf(text, size, "%.*s%s%.*s%.*s%.*s", SLICE_ARG(scheme), slashes,
                       SLICE_ARG(host), SLICE_ARG(path), SLICE_ARG(query));
    return slice_of(text, (size_t)len);
}

static void
answer(struct stream *s, struct reply *r)
{
    route_edit_answer(s, &r->head);
    stream_answer(s, &r->head, r->body);
}

static void
redirect(struct stream *s, const struct conf_redirect *to)
{
    struct reply r;
    struct slice where = location(s, to);
    if (!where.ptr) {
        stream_fail(s, REASON_internal);
        return;
    }
    reply_make_own(&r, s, to->status, SLICE(""));
    r.fields[r.head.nfields++] =
        (struct http_field){.name = SLICE("Location"), .value = where, .id = HTTP_FIELD_LOCATION};
    answer(s, &r);
}

static void
respond(struct stream *s, const struct conf_respond *with)
{
    struct reply r;
    reply_make_own(&r, s, with->status, slice_from_str(with->body));
    answer(s, &r);
}

/* ---- the whole ---- */

static void
draw_share(struct stream *s, const struct conf_split *split)
{
    uint64_t ticket = shm_cursor_next(worker.shm, split->slot);
    const struct conf_share *share = &split->shares[split->schedule[ticket % split->schedule_len]];
    s->upstream = share->upstream;
    s->policy = share->policy;
}

static void
lead_to_upstream(struct stream *s, const struct conf_route *route)
{
    if (!route->upstream) {
        draw_share(s, &route->split);
        return;
    }
    s->upstream = route->upstream;
    s->policy = route->policy;
}

void
route_follow_tcp(struct stream *s, struct slice server_name)
{
    const struct conf_listener *l = s->conf_listener;
    if (l->router) {
        lead_to_upstream(s, conf_router_find_name(l->router, server_name));
        return;
    }
    s->upstream = l->upstream;
    s->policy = &l->upstream->policy;
}

bool
route_follow(struct stream *s)
{
    const struct conf_route *route = s->http->route;
    if (route->redirect) {
        redirect(s, route->redirect);
        return false;
    }
    if (route->respond) {
        respond(s, route->respond);
        return false;
    }
    if ((route->rewrite || route->request_headers) && !change_request(s)) {
        stream_fail(s, REASON_internal);
        return false;
    }
    lead_to_upstream(s, route);
    return true;
}
