/* SPDX-License-Identifier: Apache-2.0
 *
 * diff.c - differences of two configurations: see diff.h.
 */
#include "master/diff.h"

#include <json-c/json.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "conf/page.h"
#include "master/reload.h"

#define PATH_MOST  512
#define TOUCH_MOST 256

struct diff {
    const struct shm *shm;
    const struct conf *before, *after;
    struct json_object *changes;
    /* where the walk is; NULL: not below one */
    const char *listener, *upstream, *backend;
};

/* ---- whom a change touches ---- */

static const struct conf_listener *
find_listener(const struct conf *conf, const char *name)
{
    for (unsigned i = 0; name && i < conf->nlisteners; i++) {
        if (strcmp(conf->listeners[i].name, name) == 0) {
            return &conf->listeners[i];
        }
    }
    return NULL;
}

static const struct conf_upstream *
find_upstream(const struct conf *conf, const char *name)
{
    for (unsigned i = 0; name && i < conf->nupstreams; i++) {
        if (strcmp(conf->upstreams[i].name, name) == 0) {
            return &conf->upstreams[i];
        }
    }
    return NULL;
}

static uint64_t
backend_gauge(const struct diff *d, size_t array, unsigned slot)
{
    return shm_gauge_read(d->shm, array + slot * sizeof(shm_u64));
}

/* Of one backend as declared (all addresses of a name), or of all when backend is NULL. */
static void
touch_backends(const struct diff *d, const char *backend, char *buf)
{
    const struct conf_upstream *up = find_upstream(d->before, d->upstream);
    uint64_t active = 0, open = 0;
    size_t len = backend ? strlen(backend) : 0;
    for (unsigned i = 0; up && i < up->nbackends; i++) {
        const struct conf_backend *b = &up->backends[i];
        if (backend && (strncmp(b->id, backend, len) != 0 || (b->id[len] && b->id[len] != '@'))) {
            continue;
        }
        active += backend_gauge(d, offsetof(struct shm_ledger, backends_active), b->slot);
        open += backend_gauge(d, offsetof(struct shm_ledger, backends_open), b->slot);
    }
    snprintf(buf, TOUCH_MOST,
             "%llu running exchanges end there, tunnels within %u s; %llu idle "
             "connections are closed",
             (unsigned long long)active, d->before->retire_timeout / 1000,
             (unsigned long long)(open > active ? open - active : 0));
}

static void
touch_clients(const struct diff *d, char *buf)
{
    const struct conf_listener *l = find_listener(d->before, d->listener);
    size_t entry = offsetof(struct shm_ledger, listeners) + (l ? l->slot : 0) * sizeof(shm_u64);
    uint64_t clients = l ? shm_gauge_read(d->shm, entry) : 0;
    snprintf(buf, TOUCH_MOST,
             "%llu clients: idle ones are closed, running requests end, tunnels "
             "end within %u s",
             (unsigned long long)clients, d->before->retire_timeout / 1000);
}

static bool
is_fixed(const char *path)
{
    static const char *const keys[] = {"user", "group", "control_socket", "pid_file"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        size_t len = strlen(keys[i]);
        if (strncmp(path, keys[i], len) == 0 && (path[len] == '\0' || path[len] == '.')) {
            return true;
        }
    }
    return false;
}

static bool
ends_with(const char *path, const char *ending)
{
    size_t len = strlen(path), n = strlen(ending);
    return len >= n && strcmp(path + len - n, ending) == 0;
}

static void
describe_touch(const struct diff *d, const char *path, bool is_removed, bool is_added, char *buf)
{
    bool is_whole = path[strlen(path) - 1] == ']';
    snprintf(buf, TOUCH_MOST, "nobody: new streams only");
    if (is_fixed(path)) {
        snprintf(buf, TOUCH_MOST, "refused: needs SIGUSR2");
    } else if (strcmp(path, "workers") == 0) {
        snprintf(buf, TOUCH_MOST, "clients of workers that retire have %u s",
                 d->before->retire_timeout / 1000);
    } else if (d->listener && ((is_removed && is_whole) || ends_with(path, "].mode") ||
                               (ends_with(path, "].tls") && (is_removed || is_added)))) {
        touch_clients(d, buf);
    } else if (d->backend && ((is_removed && is_whole) || ends_with(path, "].state") ||
                              ends_with(path, "].address"))) {
        touch_backends(d, d->backend, buf);
    } else if (d->upstream && !d->backend &&
               (ends_with(path, ".protocol") || ends_with(path, ".tls") ||
                (is_removed && strchr(path, '.') == strrchr(path, '.')))) {
        touch_backends(d, NULL, buf);
    }
}

/* ---- the walk ---- */

static void
diff_add(struct diff *d, const char *path, struct json_object *from, struct json_object *to)
{
    char touches[TOUCH_MOST];
    struct json_object *change = json_object_new_object();
    describe_touch(d, path, !to, !from, touches);
    json_object_object_add(change, "what", json_object_new_string(path));
    if (from) {
        json_object_object_add(change, "from", json_object_get(from));
    }
    if (to) {
        json_object_object_add(change, "to", json_object_get(to));
    }
    json_object_object_add(change, "touches", json_object_new_string(touches));
    json_object_array_add(d->changes, change);
}

static void
walk(struct diff *d, const char *path, struct json_object *from, struct json_object *to);

static struct json_object *
member(struct json_object *object, const char *key)
{
    struct json_object *value = NULL;
    json_object_object_get_ex(object, key, &value);
    return value;
}

static void
walk_member(struct diff *d, const char *path, const char *key, struct json_object *from,
            struct json_object *to)
{
    char below[PATH_MOST];
    snprintf(below, sizeof(below), "%s%s%s", path, path[0] ? "." : "", key);
    bool is_upstream = strcmp(path, "upstreams") == 0;
    if (is_upstream) {
        d->upstream = key;
    }
    walk(d, below, from, to);
    if (is_upstream) {
        d->upstream = NULL;
    }
}

static void
walk_object(struct diff *d, const char *path, struct json_object *from, struct json_object *to)
{
    json_object_object_foreach(from, key, value)
    {
        walk_member(d, path, key, value, member(to, key));
    }
    json_object_object_foreach(to, other, added)
    {
        if (!json_object_object_get_ex(from, other, NULL)) {
            walk_member(d, path, other, NULL, added);
        }
    }
}

/* What an element of a list is known by; a route: what it matches. */
static void
identity(struct json_object *element, char *buf, size_t size)
{
    static const char *const keys[] = {"name", "id", "address", "cert"};
    static const char *const matches[] = {"listeners", "host", "path", "path_exact"};
    size_t len = 0;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct json_object *value = member(element, keys[i]);
        if (json_object_is_type(value, json_type_string)) {
            snprintf(buf, size, "%s", json_object_get_string(value));
            return;
        }
    }
    buf[0] = '\0';
    for (size_t i = 0; i < sizeof(matches) / sizeof(matches[0]) && len < size; i++) {
        struct json_object *value = member(element, matches[i]);
        if (value) {
            int n = snprintf(buf + len, size - len, "%s%s=%s", len ? " " : "", matches[i],
                             json_object_get_string(value));
            len += n > 0 ? (size_t)n : 0;
        }
    }
}

static struct json_object *
find_element(struct json_object *list, const char *id)
{
    char other[PATH_MOST];
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *element = json_object_array_get_idx(list, i);
        identity(element, other, sizeof(other));
        if (strcmp(id, other) == 0) {
            return element;
        }
    }
    return NULL;
}

static void
walk_element(struct diff *d, const char *path, const char *id, struct json_object *from,
             struct json_object *to)
{
    char below[PATH_MOST * 2];
    snprintf(below, sizeof(below), "%s[%s]", path, id);
    const char **place = strcmp(path, "listeners") == 0                ? &d->listener
                         : d->upstream && ends_with(path, ".backends") ? &d->backend
                                                                       : NULL;
    if (place) {
        *place = id;
    }
    walk(d, below, from, to);
    if (place) {
        *place = NULL;
    }
}

/* The elements that both have stand in another order. */
static bool
is_reordered(struct json_object *from, struct json_object *to)
{
    char id[PATH_MOST], next[PATH_MOST];
    size_t at = 0, n = json_object_array_length(to);
    for (size_t i = 0; i < json_object_array_length(from); i++) {
        identity(json_object_array_get_idx(from, i), id, sizeof(id));
        if (!find_element(to, id)) {
            continue;
        }
        for (; at < n; at++) {
            identity(json_object_array_get_idx(to, at), next, sizeof(next));
            if (find_element(from, next)) {
                break;
            }
        }
        if (at == n || strcmp(id, next) != 0) {
            return true;
        }
        at++;
    }
    return false;
}

static void
add_order(struct diff *d, const char *path, struct json_object *from, struct json_object *to)
{
    struct json_object *orders[2] = {json_object_new_array(), json_object_new_array()};
    struct json_object *lists[2] = {from, to};
    char below[PATH_MOST], id[PATH_MOST];
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < json_object_array_length(lists[side]); i++) {
            identity(json_object_array_get_idx(lists[side], i), id, sizeof(id));
            json_object_array_add(orders[side], json_object_new_string(id));
        }
    }
    snprintf(below, sizeof(below), "%s: order", path);
    diff_add(d, below, orders[0], orders[1]);
    json_object_put(orders[0]);
    json_object_put(orders[1]);
}

static void
walk_list(struct diff *d, const char *path, struct json_object *from, struct json_object *to)
{
    char id[PATH_MOST];
    for (size_t i = 0; i < json_object_array_length(from); i++) {
        struct json_object *element = json_object_array_get_idx(from, i);
        identity(element, id, sizeof(id));
        walk_element(d, path, id, element, find_element(to, id));
    }
    for (size_t i = 0; i < json_object_array_length(to); i++) {
        struct json_object *element = json_object_array_get_idx(to, i);
        identity(element, id, sizeof(id));
        if (!find_element(from, id)) {
            walk_element(d, path, id, NULL, element);
        }
    }
    if (is_reordered(from, to)) {
        add_order(d, path, from, to);
    }
}

static bool
is_list_of_objects(struct json_object *list)
{
    return json_object_is_type(list, json_type_array) &&
           (json_object_array_length(list) == 0 ||
            json_object_is_type(json_object_array_get_idx(list, 0), json_type_object));
}

/* Upstreams and routes stand in containers: one that is missing has no members. */
static bool
is_container(const char *path)
{
    return strcmp(path, "routes") == 0 || strcmp(path, "upstreams") == 0;
}

static void
walk(struct diff *d, const char *path, struct json_object *from, struct json_object *to)
{
    struct json_object *empty = NULL;
    if (is_container(path) && (!from || !to)) {
        bool is_list = json_object_is_type(from ? from : to, json_type_array);
        empty = is_list ? json_object_new_array() : json_object_new_object();
        from = from ? from : empty;
        to = to ? to : empty;
    }
    if (from && to && json_object_equal(from, to)) {
        ; /* nothing */
    } else if (json_object_is_type(from, json_type_object) &&
               json_object_is_type(to, json_type_object)) {
        walk_object(d, path, from, to);
    } else if (is_list_of_objects(from) && is_list_of_objects(to) &&
               (json_object_array_length(from) > 0 || json_object_array_length(to) > 0)) {
        walk_list(d, path, from, to);
    } else {
        diff_add(d, path, from, to);
    }
    json_object_put(empty);
}

/* ---- what the long form does not show ---- */

/* A TLS context that is the same by digest is the same object, in all confs of a process. */
static void
diff_listener_tls(struct diff *d, const struct conf_listener *was, const struct conf_listener *now)
{
    char path[PATH_MOST];
    if (was->tls && now->tls && was->tls->server != now->tls->server) {
        snprintf(path, sizeof(path), "listeners[%s].tls: what it is made of", now->name);
        diff_add(d, path, NULL, NULL);
    }
}

static const struct conf_page *
find_page(const struct conf_listener *l, const struct conf_page *like)
{
    for (unsigned i = 0; i < l->npages; i++) {
        if (l->pages[i].from == like->from && l->pages[i].to == like->to) {
            return &l->pages[i];
        }
    }
    return NULL;
}

/* Of the same file; another file or text shows in the long form. */
static void
diff_pages(struct diff *d, const struct conf_listener *was, const struct conf_listener *now)
{
    char path[PATH_MOST];
    for (unsigned i = 0; i < now->npages; i++) {
        const struct conf_page *page = &now->pages[i], *former = find_page(was, page);
        if (page->file && former && former->file && strcmp(page->file, former->file) == 0 &&
            !page_eq(page, former)) {
            bool is_class = page->from != page->to;
            snprintf(path, sizeof(path), "listeners[%s].error_pages.%u%s: what is in its file",
                     now->name, is_class ? page->from / 100U : page->from, is_class ? "xx" : "");
            diff_add(d, path, NULL, NULL);
        }
    }
}

static void
diff_files(struct diff *d)
{
    char path[PATH_MOST];
    for (unsigned i = 0; i < d->after->nlisteners; i++) {
        const struct conf_listener *now = &d->after->listeners[i];
        const struct conf_listener *was = find_listener(d->before, now->name);
        if (was) {
            diff_listener_tls(d, was, now);
            diff_pages(d, was, now);
        }
    }
    for (unsigned i = 0; i < d->after->nupstreams; i++) {
        const struct conf_upstream *now = &d->after->upstreams[i];
        const struct conf_upstream *was = find_upstream(d->before, now->name);
        if (was && was->tls && now->tls && was->tls->client != now->tls->client) {
            snprintf(path, sizeof(path), "upstreams.%s.tls: what it is made of", now->name);
            diff_add(d, path, NULL, NULL);
        }
    }
}

static const struct conf_backend *
find_backend(const struct conf_upstream *up, const char *id)
{
    for (unsigned i = 0; i < up->nbackends; i++) {
        if (strcmp(up->backends[i].id, id) == 0) {
            return &up->backends[i];
        }
    }
    return NULL;
}

static bool
has_declared(const struct conf_upstream *up, const char *address)
{
    for (unsigned i = 0; i < up->nbackends; i++) {
        if (strcmp(up->backends[i].address, address) == 0) {
            return true;
        }
    }
    return false;
}

/* Addresses of names that in has and not_in has not, though both have the name. */
static void
diff_addresses(struct diff *d, const struct conf_upstream *in, const struct conf_upstream *not_in,
               bool is_added)
{
    char path[PATH_MOST];
    for (unsigned i = 0; i < in->nbackends; i++) {
        const struct conf_backend *b = &in->backends[i];
        if (find_backend(not_in, b->id) || !strchr(b->id, '@') ||
            !has_declared(not_in, b->address)) {
            continue;
        }
        struct json_object *address = json_object_new_string(b->id);
        snprintf(path, sizeof(path), "upstreams.%s.backends[%s]", in->name, b->id);
        d->upstream = in->name;
        d->backend = b->id;
        diff_add(d, path, is_added ? NULL : address, is_added ? address : NULL);
        d->upstream = NULL;
        d->backend = NULL;
        json_object_put(address);
    }
}

static void
diff_names(struct diff *d)
{
    for (unsigned i = 0; i < d->after->nupstreams; i++) {
        const struct conf_upstream *now = &d->after->upstreams[i];
        const struct conf_upstream *was = find_upstream(d->before, now->name);
        if (was) {
            diff_addresses(d, was, now, false);
            diff_addresses(d, now, was, true);
        }
    }
}

struct json_object *
diff_confs(const struct shm *shm, const struct conf *before, const struct conf *after)
{
    struct diff d = {.shm = shm, .before = before, .after = after};
    struct json_object *result = json_object_new_object();
    struct json_object *from = json_tokener_parse(before->json);
    struct json_object *to = json_tokener_parse(after->json);
    const char *fixed = reload_fixed_key(before, after);
    d.changes = json_object_new_array();
    walk(&d, "", from, to);
    diff_files(&d);
    diff_names(&d);
    json_object_object_add(result, "changes", d.changes);
    if (fixed) {
        json_object_object_add(result, "refused", json_object_new_string(fixed));
    }
    json_object_put(from);
    json_object_put(to);
    return result;
}
