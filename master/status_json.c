/* SPDX-License-Identifier: Apache-2.0
 *
 * status_json.c - processes, listeners and backends of the segment, with the names of the conf.
 */
#include "master/status_json.h"

#include <json-c/json.h>
#include <stddef.h>
#include <stdlib.h>

#include "conf/backend_state.h"
#include "config.h"
#include "master/health.h"
#include "master/metrics.h"
#include "master/readyz.h"
#include "master/row_sum.h"
#include "shared/clock.h"

static const char *const state_names[] = {"ready", "drain", "maint"};

static void
add_number(struct json_object *to, const char *key, uint64_t value)
{
    json_object_object_add(to, key, json_object_new_int64((int64_t)value));
}

static void
add_text(struct json_object *to, const char *key, const char *text)
{
    json_object_object_add(to, key, json_object_new_string(text));
}

/* A text of the segment that another process may be writing: bounded, printable ASCII. */
static void
add_shared_text(struct json_object *to, const char *key, const char *text, size_t size)
{
    char copy[SHM_VERDICT_MAX];
    size_t len = 0;
    size = size < sizeof(copy) ? size : sizeof(copy);
    for (; len + 1 < size && text[len]; len++) {
        char c = text[len];
        copy[len] = (c >= ' ' && c <= '~') || c == '\n' ? c : '?';
    }
    copy[len] = '\0';
    add_text(to, key, copy);
}

static void
add_bool(struct json_object *to, const char *key, bool value)
{
    json_object_object_add(to, key, json_object_new_boolean(value));
}

static void
add_heartbeat(struct json_object *to, uint64_t heartbeat_ms)
{
    uint64_t now = clock_mono_ms();
    add_number(to, "heartbeat_age_ms", now > heartbeat_ms ? now - heartbeat_ms : 0);
}

static struct json_object *
worker_object(const struct shm *shm, unsigned row)
{
    static const char *const states[] = {"none", "starting", "serving", "retiring"};
    const struct shm_child *child = &shm->m->workers[row];
    struct json_object *to = json_object_new_object();
    uint64_t state = shm_get(&child->state);
    add_number(to, "index", shm_get(&child->index));
    add_number(to, "pid", shm_get(&child->pid));
    add_text(to, "state", states[state < 4 ? state : 0]);
    add_bool(to, "accepting", shm_get(&shm->rows[row]->is_accepting) != 0);
    add_number(to, "confs", shm_get(&shm->rows[row]->confs));
    add_heartbeat(to, shm_get(&shm->rows[row]->heartbeat_ms));
    return to;
}

static struct json_object *
workers_array(const struct shm *shm)
{
    struct json_object *array = json_object_new_array();
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        if (shm_get(&shm->m->workers[i].pid)) {
            json_object_array_add(array, worker_object(shm, i));
        }
    }
    return array;
}

static struct json_object *
listener_object(const struct shm *shm, const struct row_sum *rows, const struct conf_listener *l)
{
    struct json_object *to = json_object_new_object();
    struct json_object *addresses = json_object_new_array();
    add_text(to, "name", l->name);
    add_text(to, "mode", l->mode == CONF_TCP ? "tcp" : "http");
    for (unsigned i = 0; i < l->naddrs; i++) {
        json_object_array_add(addresses, json_object_new_string(l->addr_texts[i]));
    }
    json_object_object_add(to, "addresses", addresses);
    size_t gauge = offsetof(struct shm_ledger, listeners) + l->slot * sizeof(shm_u64);
    add_number(to, "connections", shm_gauge_read(shm, gauge));
    if (l->requests_in_flight != 0) {
        size_t requests = offsetof(struct shm_ledger, listeners_requests);
        add_number(to, "requests_in_flight",
                   shm_gauge_read(shm, requests + l->slot * sizeof(shm_u64)));
        add_number(to, "requests_in_flight_max", l->requests_in_flight);
    }
    if (l->connections_per_client != 0) {
        add_number(to, "connections_per_client_max", l->connections_per_client);
    }
    size_t accepted = offsetof(struct shm_row_listener, connections);
    add_number(to, "accepted", row_sum_get(rows, row_sum_listener_offset(l->slot, accepted)));
    return to;
}

static void
add_health(struct json_object *to, const struct shm *shm, const struct conf_backend *b)
{
    const struct shm_health *h = &shm->h->backends[b->slot];
    bool is_checked = b->upstream->health.type != CONF_HEALTH_OFF;
    add_text(to, "health", is_checked ? health_state_name(shm_health_get(shm, b->slot)) : "off");
    add_bool(to, "usable", readyz_is_usable(shm, b));
    if (is_checked) {
        add_number(to, "since", shm_get(&h->since_us) / 1000000);
        add_number(to, "checked", shm_get(&h->checked_us) / 1000000);
        add_shared_text(to, "last", h->last, sizeof(h->last));
    }
}

static void
add_breaker(struct json_object *to, const struct shm *shm, const struct conf_backend *b)
{
    static const char *const states[] = {"closed", "half-open", "open"};
    if (backend_has_breaker(shm, b)) {
        add_text(to, "breaker", states[backend_breaker(shm, b, clock_mono_ms())]);
    }
}

static struct json_object *
difference(struct json_object *file, struct json_object *said)
{
    struct json_object *to = json_object_new_object();
    json_object_object_add(to, "file", file);
    json_object_object_add(to, "operator", said);
    return to;
}

/* Where the operator differs from the file. */
static void
add_operator(struct json_object *to, const struct shm *shm, const struct conf_backend *b)
{
    struct json_object *said = json_object_new_object();
    uint64_t weight = shm_get(&shm->m->operators[b->slot].weight);
    enum conf_state state = backend_state(shm, b);
    if (state != b->state) {
        json_object_object_add(said, "state",
                               difference(json_object_new_string(state_names[b->state]),
                                          json_object_new_string(state_names[state])));
    }
    if (weight != 0 && weight != b->file_weight) {
        json_object_object_add(said, "weight",
                               difference(json_object_new_int64(b->file_weight),
                                          json_object_new_int64((int64_t)weight)));
    }
    if (backend_breaker_said(shm, b) != BREAKER_AUTO) {
        bool is_open = backend_breaker_said(shm, b) == BREAKER_SAID_OPEN;
        json_object_object_add(said, "breaker",
                               difference(json_object_new_string("auto"),
                                          json_object_new_string(is_open ? "open" : "close")));
    }
    if (json_object_object_length(said) > 0) {
        json_object_object_add(to, "operator", said);
    } else {
        json_object_put(said);
    }
}

/* Of the time to an answer's head; the bounds are those of the metrics. */
static void
add_buckets(struct json_object *to, const struct row_sum *rows, const struct conf_backend *b)
{
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        size_t offset = offsetof(struct shm_row_backend, response.bucket[i]);
        uint64_t n = row_sum_get(rows, row_sum_backend_offset(b->slot, offset));
        json_object_array_add(list, json_object_new_int64((int64_t)n));
    }
    json_object_object_add(to, "response_buckets", list);
}

static struct json_object *
backend_object(const struct shm *shm, const struct row_sum *rows, const struct conf_backend *b)
{
    struct json_object *to = json_object_new_object();
    size_t entry = b->slot * sizeof(shm_u64);
    add_text(to, "id", b->id);
    add_text(to, "address", b->address);
    add_number(to, "weight", b->weight);
    add_text(to, "state", state_names[backend_state(shm, b)]);
    add_operator(to, shm, b);
    add_health(to, shm, b);
    add_breaker(to, shm, b);
    add_number(to, "active",
               shm_gauge_read(shm, offsetof(struct shm_ledger, backends_active) + entry));
    add_number(to, "open", shm_gauge_read(shm, offsetof(struct shm_ledger, backends_open) + entry));
#define ADD_COUNTER(field, metric, help) \
    add_number(to, #field, \
               row_sum_get(rows, row_sum_backend_offset( \
                                     b->slot, offsetof(struct shm_row_backend, field))));
    BACKEND_COUNTERS(ADD_COUNTER)
#undef ADD_COUNTER
    add_buckets(to, rows, b);
    return to;
}

static struct json_object *
upstream_object(const struct shm *shm, const struct row_sum *rows, const struct conf_upstream *up)
{
    struct json_object *to = json_object_new_object();
    struct json_object *backends = json_object_new_array();
    add_text(to, "name", up->name);
    for (unsigned i = 0; i < up->nbackends; i++) {
        json_object_array_add(backends, backend_object(shm, rows, &up->backends[i]));
    }
    json_object_object_add(to, "backends", backends);
    return to;
}

static struct json_object *
reload_object(const struct shm *shm)
{
    struct json_object *to = json_object_new_object();
    bool is_ok = shm_get(&shm->m->reload_ok) != 0;
    add_bool(to, "successful", is_ok);
    add_number(to, "last_success", shm_get(&shm->m->reload_success_s));
    if (!is_ok) {
        add_shared_text(to, "error", shm->m->verdict, sizeof(shm->m->verdict));
    }
    return to;
}

static struct json_object *
monitor_object(const struct shm *shm)
{
    struct json_object *to = json_object_new_object();
    add_number(to, "pid", shm_get(&shm->m->monitor.pid));
    add_heartbeat(to, shm_get(&shm->h->heartbeat_ms));
    return to;
}

static void
add_processes(struct json_object *root, const struct shm *shm, const struct conf *conf)
{
    add_text(root, "version", PACKAGE_VERSION);
    add_number(root, "started", shm_get(&shm->m->started_us) / 1000000);
    add_bool(root, "draining", shm_get(&shm->m->is_draining) != 0);
    add_number(root, "generation", conf->gen);
    add_number(root, "config_hash", shm_get(&shm->m->conf_hash));
    add_number(root, "confs", metrics_confs(shm));
    json_object_object_add(root, "reload", reload_object(shm));
    add_number(root, "restarts", shm_get(&shm->m->worker_restarts));
    json_object_object_add(root, "monitor", monitor_object(shm));
    json_object_object_add(root, "workers", workers_array(shm));
}

static void
add_traffic(struct json_object *root, const struct shm *shm, const struct conf *conf)
{
    struct row_sum rows;
    struct json_object *listeners = json_object_new_array();
    struct json_object *upstreams = json_object_new_array();
    row_sum_init(&rows, shm);
    add_number(root, "connections", shm_gauge_read(shm, offsetof(struct shm_ledger, connections)));
    for (unsigned i = 0; i < conf->nlisteners; i++) {
        json_object_array_add(listeners, listener_object(shm, &rows, &conf->listeners[i]));
    }
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        json_object_array_add(upstreams, upstream_object(shm, &rows, &conf->upstreams[i]));
    }
    json_object_object_add(root, "listeners", listeners);
    json_object_object_add(root, "upstreams", upstreams);
}

char *
status_json_render(const struct shm *shm, const struct conf *conf, size_t *len)
{
    struct json_object *root = json_object_new_object();
    add_processes(root, shm, conf);
    add_traffic(root, shm, conf);
    const int flags = JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE;
    const char *text = json_object_to_json_string_length(root, flags, len);
    char *copy = text ? malloc(*len + 1) : NULL;
    if (copy) {
        memcpy(copy, text, *len);
        copy[(*len)++] = '\n';
    }
    json_object_put(root);
    return copy;
}
