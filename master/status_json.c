/* SPDX-License-Identifier: Apache-2.0
 *
 * status_json.c - processes, listeners and backends of the segment, with the names of the conf.
 *
 * The text is written in steps, so that thousands of backends do not keep the monitor from its
 * probes.
 */
#include "master/status_json.h"

#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "conf/backend_state.h"
#include "config.h"
#include "master/health.h"
#include "master/json_out.h"
#include "master/metrics.h"
#include "master/row_sum.h"
#include "master/usable.h"
#include "shared/clock.h"
#include "shared/log.h"

struct status_json {
    struct json_out json;
    char *text;
    size_t len;
    const struct shm *shm;
    struct conf *conf;
    struct row_sum rows;
    unsigned listener, upstream, backend; /* the next ones */
    bool is_past_listeners;
    bool is_whole;
};

static uint64_t
ledger_sum(const struct status_json *s, size_t array, unsigned slot)
{
    return shm_gauge_read(s->shm, array + slot * sizeof(shm_u64));
}

static void
put_buckets(struct status_json *s, const char *key, size_t offset)
{
    json_out_open(&s->json, key, '[');
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        json_out_number(&s->json, NULL, row_sum_get(&s->rows, offset + i * sizeof(shm_u64)));
    }
    json_out_close(&s->json, ']');
}

/* ---- processes ---- */

static void
put_heartbeat(struct json_out *j, uint64_t heartbeat_ms)
{
    uint64_t now = clock_mono_ms();
    json_out_number(j, "heartbeat_age_ms", now > heartbeat_ms ? now - heartbeat_ms : 0);
}

static void
put_worker(struct status_json *s, unsigned row)
{
    static const char *const states[] = {"none", "starting", "serving", "retiring"};
    const struct shm_child *child = &s->shm->m->workers[row];
    const struct shm_row *r = s->shm->rows[row];
    uint64_t state = shm_get(&child->state);
    json_out_open(&s->json, NULL, '{');
    json_out_number(&s->json, "index", shm_get(&child->index));
    json_out_number(&s->json, "pid", shm_get(&child->pid));
    json_out_text(&s->json, "state", states[state < 4 ? state : 0]);
    json_out_bool(&s->json, "accepting", shm_get(&r->is_accepting) != 0);
    json_out_number(&s->json, "confs", shm_get(&r->confs));
    json_out_number(&s->json, "connections", shm_ledger_count(&r->ledger.connections));
    put_heartbeat(&s->json, shm_get(&r->heartbeat_ms));
    json_out_close(&s->json, '}');
}

static void
put_processes(struct status_json *s)
{
    const struct shm_master *m = s->shm->m;
    json_out_number(&s->json, "restarts", shm_get(&m->worker_restarts));
    json_out_open(&s->json, "monitor", '{');
    json_out_number(&s->json, "pid", shm_get(&m->monitor.pid));
    put_heartbeat(&s->json, shm_get(&s->shm->h->heartbeat_ms));
    json_out_close(&s->json, '}');
    json_out_open(&s->json, "workers", '[');
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        if (shm_get(&m->workers[i].pid)) {
            put_worker(s, i);
        }
    }
    json_out_close(&s->json, ']');
}

/* ---- reloads ---- */

static void
put_verdict(struct json_out *j, const struct verdict *v)
{
    json_out_open(j, NULL, '{');
    json_out_number(j, "number", v->number);
    json_out_number(j, "time_ms", v->when_us / 1000);
    json_out_bool(j, "successful", v->is_ok);
    json_out_text(j, "cause", v->cause);
    json_out_number(j, "generation", v->gen);
    json_out_number(j, "took_ms", v->took_ms);
    if (!v->is_ok) {
        json_out_text(j, "error", v->why);
    }
    json_out_close(j, '}');
}

/* The newest first. */
static void
put_history(struct status_json *s)
{
    struct verdict verdict;
    json_out_open(&s->json, "history", '[');
    for (unsigned age = 0; age < SHM_VERDICTS; age++) {
        if (shm_verdict_read(s->shm, age, &verdict)) {
            put_verdict(&s->json, &verdict);
        }
    }
    json_out_close(&s->json, ']');
}

static void
put_reload(struct status_json *s)
{
    const struct shm_master *m = s->shm->m;
    bool is_ok = shm_get(&m->reload_ok) != 0;
    json_out_open(&s->json, "reload", '{');
    json_out_bool(&s->json, "successful", is_ok);
    json_out_number(&s->json, "last_success", shm_get(&m->reload_success_s));
    if (!is_ok) {
        json_out_shared_text(&s->json, "error", m->verdict, sizeof(m->verdict));
    }
    put_history(s);
    json_out_close(&s->json, '}');
}

/* ---- what is counted once ---- */

/* Of exchanges, by reason; those that never happened are left out. */
static void
put_failures(struct status_json *s)
{
    json_out_open(&s->json, "failures", '{');
    for (unsigned r = REASON_none + 1; r < REASON_COUNT; r++) {
        size_t offset = offsetof(struct shm_row, failures) + r * sizeof(shm_u64);
        uint64_t n = row_sum_get(&s->rows, offset);
        if (n > 0) {
            json_out_number(&s->json, reason_table[r].token, n);
        }
    }
    json_out_close(&s->json, '}');
}

static void
put_bytes(struct status_json *s)
{
#define PUT_BYTES(name) \
    json_out_number(&s->json, #name, row_sum_get(&s->rows, offsetof(struct shm_row, name)));
    json_out_open(&s->json, "bytes", '{');
    PUT_BYTES(client_in)
    PUT_BYTES(client_out)
    PUT_BYTES(backend_in)
    PUT_BYTES(backend_out)
    json_out_close(&s->json, '}');
#undef PUT_BYTES
}

/* Limits of one name are one. */
static bool
is_first_of_name(const struct conf *conf, unsigned i)
{
    for (unsigned k = 0; k < i; k++) {
        if (strcmp(conf->rate_limits[k]->name, conf->rate_limits[i]->name) == 0) {
            return false;
        }
    }
    return true;
}

static void
put_rate_limits(struct status_json *s)
{
    json_out_open(&s->json, "rate_limits", '[');
    for (unsigned i = 0; i < s->conf->nrate_limits; i++) {
        const struct conf_rate_limit *limit = s->conf->rate_limits[i];
        size_t offset = offsetof(struct shm_row_limit, limited);
        if (is_first_of_name(s->conf, i)) {
            json_out_open(&s->json, NULL, '{');
            json_out_text(&s->json, "name", limit->name);
            json_out_number(&s->json, "limited",
                            row_sum_get(&s->rows, row_sum_limit_offset(limit->slot, offset)));
            json_out_close(&s->json, '}');
        }
    }
    json_out_close(&s->json, ']');
}

/* Upper bounds of all buckets but the last. */
static void
put_bounds(struct status_json *s)
{
    json_out_open(&s->json, "buckets_us", '[');
#define PUT_BOUND(us) json_out_number(&s->json, NULL, us);
    HISTOGRAM_BOUNDS(PUT_BOUND)
#undef PUT_BOUND
    json_out_close(&s->json, ']');
}

static void
put_difference(struct json_out *j, const char *key, const char *file, const char *said)
{
    json_out_open(j, key, '{');
    json_out_text(j, "file", file);
    json_out_text(j, "operator", said);
    json_out_close(j, '}');
}

static void
put_log_level(struct status_json *s)
{
    enum log_level level = operator_log_level(s->shm, s->conf);
    if (level != s->conf->log.level) {
        json_out_open(&s->json, "operator", '{');
        put_difference(&s->json, "log_level", log_level_name(s->conf->log.level),
                       log_level_name(level));
        json_out_close(&s->json, '}');
    }
}

static void
put_head(struct status_json *s)
{
    const struct shm_master *m = s->shm->m;
    json_out_text(&s->json, "version", PACKAGE_VERSION);
    json_out_number(&s->json, "time_ms", clock_wall_us() / 1000);
    json_out_number(&s->json, "clock_ms", clock_mono_ms());
    json_out_number(&s->json, "started", shm_get(&m->started_us) / 1000000);
    json_out_bool(&s->json, "draining", shm_get(&m->is_draining) != 0);
    json_out_number(&s->json, "generation", s->conf->gen);
    json_out_number(&s->json, "config_hash", shm_get(&m->conf_hash));
    json_out_number(&s->json, "confs", metrics_confs(s->shm));
    put_reload(s);
    put_processes(s);
    put_failures(s);
    put_bytes(s);
    put_rate_limits(s);
    put_bounds(s);
    json_out_number(&s->json, "connections",
                    shm_gauge_read(s->shm, offsetof(struct shm_ledger, connections)));
    json_out_number(&s->json, "max_connections", s->conf->max_connections);
    put_log_level(s);
}

/* ---- listeners ---- */

/* Answers by the first digit of their status. */
static void
put_codes(struct status_json *s, const struct conf_listener *l)
{
    static const char *const classes[] = {"1xx", "2xx", "3xx", "4xx", "5xx", "other"};
    uint64_t sums[6] = {0}, all = 0;
    for (unsigned c = 0; c < SHM_CODES; c++) {
        size_t offset = offsetof(struct shm_row_listener, codes[c]);
        sums[c / 100] += row_sum_get(&s->rows, row_sum_listener_offset(l->slot, offset));
    }
    json_out_open(&s->json, "codes", '{');
    for (unsigned i = 0; i < 6; i++) {
        json_out_number(&s->json, classes[i], sums[i]);
        all += sums[i];
    }
    json_out_close(&s->json, '}');
    json_out_number(&s->json, "requests", all);
}

static void
put_listener(struct status_json *s, const struct conf_listener *l)
{
    size_t accepted = offsetof(struct shm_row_listener, connections);
    size_t clients = offsetof(struct shm_row_listener, clients_refused);
    size_t requests = offsetof(struct shm_row_listener, requests_refused);
    size_t buckets = offsetof(struct shm_row_listener, duration.bucket);
    json_out_open(&s->json, NULL, '{');
    json_out_text(&s->json, "name", l->name);
    json_out_text(&s->json, "mode", l->mode == CONF_TCP ? "tcp" : "http");
    json_out_bool(&s->json, "tls", l->tls != NULL);
    json_out_open(&s->json, "addresses", '[');
    for (unsigned i = 0; i < l->naddrs; i++) {
        json_out_text(&s->json, NULL, l->addr_texts[i]);
    }
    json_out_close(&s->json, ']');
    json_out_number(&s->json, "connections",
                    ledger_sum(s, offsetof(struct shm_ledger, listeners), l->slot));
    json_out_number(&s->json, "max_connections", l->max_connections);
    if (l->requests_in_flight != 0) {
        json_out_number(&s->json, "requests_in_flight",
                        ledger_sum(s, offsetof(struct shm_ledger, listeners_requests), l->slot));
        json_out_number(&s->json, "requests_in_flight_max", l->requests_in_flight);
    }
    if (l->connections_per_client != 0) {
        json_out_number(&s->json, "connections_per_client_max", l->connections_per_client);
    }
    json_out_number(&s->json, "accepted",
                    row_sum_get(&s->rows, row_sum_listener_offset(l->slot, accepted)));
    json_out_number(&s->json, "clients_refused",
                    row_sum_get(&s->rows, row_sum_listener_offset(l->slot, clients)));
    json_out_number(&s->json, "requests_refused",
                    row_sum_get(&s->rows, row_sum_listener_offset(l->slot, requests)));
    if (l->mode == CONF_HTTP) {
        put_codes(s, l);
        put_buckets(s, "duration_buckets", row_sum_listener_offset(l->slot, buckets));
    }
    json_out_close(&s->json, '}');
}

/* ---- backends ---- */

static void
put_health(struct status_json *s, const struct conf_backend *b)
{
    const struct shm_health *h = &s->shm->h->backends[b->slot];
    if (b->upstream->health.type == CONF_HEALTH_OFF) {
        json_out_text(&s->json, "health", "off");
        return;
    }
    json_out_text(&s->json, "health", health_state_name(shm_health_get(s->shm, b->slot)));
    json_out_number(&s->json, "since", shm_get(&h->since_us) / 1000000);
    json_out_number(&s->json, "checked", shm_get(&h->checked_us) / 1000000);
    json_out_shared_text(&s->json, "last", h->last, sizeof(h->last));
}

static void
put_usable(struct status_json *s, const struct conf_backend *b)
{
    char why[USABLE_WHY_MAX];
    enum reason reason = usable_judge(s->shm, b, why);
    json_out_bool(&s->json, "usable", reason == REASON_none);
    if (reason != REASON_none) {
        json_out_text(&s->json, "reason", reason_table[reason].token);
        json_out_text(&s->json, "why", why);
    }
}

/* Counts and times are those of a breaker that is left to itself. */
static void
put_breaker(struct status_json *s, const struct conf_backend *b)
{
    static const char *const states[] = {"closed", "half-open", "open"};
    const struct breaker *breaker = &s->shm->s->backends[b->slot].breaker;
    uint64_t now = clock_mono_ms();
    uint32_t total, failed;
    if (!backend_has_breaker(s->shm, b)) {
        return;
    }
    json_out_text(&s->json, "breaker", states[backend_breaker(s->shm, b, now)]);
    if (b->upstream->breaker && backend_breaker_said(s->shm, b) == BREAKER_AUTO) {
        breaker_count(breaker, b->upstream->breaker, now, &total, &failed);
        json_out_number(&s->json, "breaker_total", total);
        json_out_number(&s->json, "breaker_failed", failed);
        json_out_number(&s->json, "breaker_open_ms", breaker_open_ms(breaker, now));
    }
}

/* Where the operator differs from the file. */
static void
put_operator(struct status_json *s, const struct conf_backend *b)
{
    const struct shm_operator *said = &s->shm->m->operators[b->slot];
    uint64_t weight = shm_get(&said->weight);
    enum conf_state state = backend_state(s->shm, b);
    enum breaker_said breaker = backend_breaker_said(s->shm, b);
    bool is_state = state != b->state, is_weight = weight != 0 && weight != b->file_weight;
    if (!is_state && !is_weight && breaker == BREAKER_AUTO) {
        return;
    }
    json_out_open(&s->json, "operator", '{');
    if (is_state) {
        put_difference(&s->json, "state", backend_state_name(b->state), backend_state_name(state));
    }
    if (is_weight) {
        json_out_open(&s->json, "weight", '{');
        json_out_number(&s->json, "file", b->file_weight);
        json_out_number(&s->json, "operator", weight);
        json_out_close(&s->json, '}');
    }
    if (breaker != BREAKER_AUTO) {
        put_difference(&s->json, "breaker", "auto",
                       breaker == BREAKER_SAID_OPEN ? "open" : "close");
    }
    json_out_close(&s->json, '}');
    json_out_number(&s->json, "operator_since", shm_get(&said->said_us) / 1000000);
}

static void
put_backend(struct status_json *s, const struct conf_backend *b)
{
    size_t buckets = offsetof(struct shm_row_backend, response.bucket);
    json_out_open(&s->json, NULL, '{');
    json_out_text(&s->json, "id", b->id);
    json_out_text(&s->json, "address", b->address);
    json_out_number(&s->json, "weight", b->weight);
    json_out_bool(&s->json, "backup", b->backup);
    json_out_number(&s->json, "max_connections", b->max_connections);
    json_out_text(&s->json, "state", backend_state_name(backend_state(s->shm, b)));
    put_operator(s, b);
    put_health(s, b);
    put_usable(s, b);
    put_breaker(s, b);
    json_out_number(&s->json, "active",
                    ledger_sum(s, offsetof(struct shm_ledger, backends_active), b->slot));
    json_out_number(&s->json, "open",
                    ledger_sum(s, offsetof(struct shm_ledger, backends_open), b->slot));
#define PUT_COUNTER(field, metric, help) \
    json_out_number(&s->json, #field, \
                    row_sum_get(&s->rows, row_sum_backend_offset( \
                                              b->slot, offsetof(struct shm_row_backend, field))));
    BACKEND_COUNTERS(PUT_COUNTER)
#undef PUT_COUNTER
    put_buckets(s, "response_buckets", row_sum_backend_offset(b->slot, buckets));
    json_out_close(&s->json, '}');
}

static void
open_upstream(struct status_json *s, const struct conf_upstream *up)
{
    static const char *const algorithms[] = {[CONF_ROUND_ROBIN] = "round_robin",
                                             [CONF_W_ROUND_ROBIN] = "w_round_robin",
                                             [CONF_LEAST_CONN] = "least_conn",
                                             [CONF_IP_HASH] = "ip_hash",
                                             [CONF_RANDOM_TWO] = "random_two",
                                             [CONF_EWMA] = "ewma",
                                             [CONF_HASH] = "hash"};
    json_out_open(&s->json, NULL, '{');
    json_out_text(&s->json, "name", up->name);
    json_out_text(&s->json, "algorithm", algorithms[up->algorithm]);
    json_out_number(&s->json, "waiting",
                    ledger_sum(s, offsetof(struct shm_ledger, upstreams_waiting), up->slot));
    json_out_open(&s->json, "backends", '[');
}

/* ---- steps ---- */

/* The next listener, or the end of their list. false: it has ended. */
static bool
step_listener(struct status_json *s)
{
    if (s->is_past_listeners) {
        return false;
    }
    if (s->listener < s->conf->nlisteners) {
        put_listener(s, &s->conf->listeners[s->listener++]);
        return true;
    }
    json_out_close(&s->json, ']');
    json_out_open(&s->json, "upstreams", '[');
    s->is_past_listeners = true;
    return true;
}

/* The next backend, or false. */
static bool
step_backend(struct status_json *s)
{
    if (s->upstream == s->conf->nupstreams) {
        return false;
    }
    const struct conf_upstream *up = &s->conf->upstreams[s->upstream];
    if (s->backend == 0) {
        open_upstream(s, up);
    }
    if (s->backend < up->nbackends) {
        put_backend(s, &up->backends[s->backend++]);
    }
    if (s->backend == up->nbackends) {
        json_out_close(&s->json, ']');
        json_out_close(&s->json, '}');
        s->upstream++;
        s->backend = 0;
    }
    return true;
}

struct status_json *
status_json_begin(const struct shm *shm, struct conf *conf)
{
    struct status_json *s = calloc(1, sizeof(*s));
    if (!s) {
        return NULL;
    }
    s->json.out = open_memstream(&s->text, &s->len);
    if (!s->json.out) {
        free(s);
        return NULL;
    }
    s->shm = shm;
    s->conf = conf_ref(conf);
    row_sum_init(&s->rows, shm);
    json_out_open(&s->json, NULL, '{');
    put_head(s);
    json_out_open(&s->json, "listeners", '[');
    return s;
}

bool
status_json_step(struct status_json *s, unsigned max_items)
{
    for (unsigned n = 0; !s->is_whole && n < max_items; n++) {
        if (!step_listener(s) && !step_backend(s)) {
            json_out_close(&s->json, ']');
            json_out_close(&s->json, '}');
            putc('\n', s->json.out);
            s->is_whole = true;
        }
    }
    return s->is_whole;
}

char *
status_json_take(struct status_json *s, size_t *len)
{
    bool is_whole = s->is_whole && !ferror(s->json.out);
    is_whole = fclose(s->json.out) == 0 && is_whole;
    char *text = is_whole ? s->text : NULL;
    *len = s->len;
    if (!is_whole) {
        free(s->text);
    }
    conf_unref(s->conf);
    free(s);
    return text;
}

char *
status_json_render(const struct shm *shm, struct conf *conf, size_t *len)
{
    struct status_json *s = status_json_begin(shm, conf);
    if (!s) {
        return NULL;
    }
    status_json_step(s, UINT_MAX);
    return status_json_take(s, len);
}
