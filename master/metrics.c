/* SPDX-License-Identifier: Apache-2.0
 *
 * metrics.c - the table of metric families, and their rendering.
 *
 * Most rows come from shared/counters.h. A family is written for one kind of item: once, for each
 * listener, or for each backend of the conf in force.
 */
#include "master/metrics.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/backend_state.h"
#include "config.h"
#include "master/lookup.h"
#include "master/row_sum.h"
#include "shared/clock.h"

enum family_span { ONCE, PER_LISTENER, PER_BACKEND, PER_LIMIT, PER_UPSTREAM };

struct item {
    const struct conf_listener *listener; /* PER_LISTENER */
    const struct conf_backend *backend;   /* PER_BACKEND */
    const struct conf_rate_limit *limit;  /* PER_LIMIT */
    const struct conf_upstream *upstream; /* PER_UPSTREAM */
};

struct family {
    const char *name;
    const char *type;
    const char *help;
    enum family_span span;
    void (*emit)(struct metrics *m, const struct family *f, const struct item *item);
    size_t offset;      /* of the value within its struct */
    const char *labels; /* literal */
};

struct metrics {
    FILE *out;
    char *text;
    size_t len;
    const struct shm *shm;
    struct conf *conf;
    struct row_sum rows;
    /* the next item */
    unsigned family, listener, upstream, backend, limit;
    bool has_headed; /* HELP and TYPE of the family are written */
};

/* ---- values ---- */

uint64_t
metrics_confs(const struct shm *shm)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        if (shm_get(&shm->m->workers[i].pid)) {
            uint64_t confs = shm_get(&shm->rows[i]->confs);
            most = confs > most ? confs : most;
        }
    }
    return most;
}

/* ---- writing ---- */

/* A label's value (text format 0.0.4): backslash, quote and newline are escaped. */
static void
put_label_value(FILE *out, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (*p == '\n') {
            fputs("\\n", out);
            continue;
        }
        if (*p == '\\' || *p == '"') {
            putc_unlocked('\\', out);
        }
        putc_unlocked(*p, out);
    }
}

static void
put_label(FILE *out, const char *name, const char *value)
{
    fprintf(out, "%s=\"", name);
    put_label_value(out, value);
    putc_unlocked('"', out);
}

/* name{labels of the item,more: the sample without its value. more may be "". */
static void
put_sample(struct metrics *m, const char *name, const char *suffix, const struct item *item,
           const char *more)
{
    bool has_item = item->listener || item->backend || item->limit || item->upstream;
    bool has_labels = has_item || *more;
    fprintf(m->out, "%s%s%s", name, suffix, has_labels ? "{" : "");
    if (item->listener) {
        put_label(m->out, "listener", item->listener->name);
    } else if (item->backend) {
        put_label(m->out, "upstream", item->backend->upstream->name);
        putc_unlocked(',', m->out);
        put_label(m->out, "backend", item->backend->id);
    }
    if (item->limit) {
        put_label(m->out, "name", item->limit->name);
    }
    if (item->upstream) {
        put_label(m->out, "upstream", item->upstream->name);
    }
    bool is_second = *more && has_item;
    fprintf(m->out, "%s%s%s ", is_second ? "," : "", more, has_labels ? "}" : "");
}

static void
put_count(struct metrics *m, const struct family *f, const struct item *item, const char *more,
          uint64_t value)
{
    put_sample(m, f->name, "", item, more);
    fprintf(m->out, "%llu\n", (unsigned long long)value);
}

static void
put_seconds(struct metrics *m, const struct family *f, const struct item *item, double value)
{
    put_sample(m, f->name, "", item, "");
    fprintf(m->out, "%.3f\n", value);
}

/* offset: of the struct shm_histogram within struct shm_row. */
static void
put_histogram(struct metrics *m, const struct family *f, const struct item *item, size_t offset)
{
#define BOUND(us) us,
    static const uint64_t bounds_us[] = {HISTOGRAM_BOUNDS(BOUND)};
#undef BOUND
    size_t bucket = offset + offsetof(struct shm_histogram, bucket);
    uint64_t total = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        char le[32] = "le=\"+Inf\"";
        if (i + 1 < HISTOGRAM_BUCKETS) {
            snprintf(le, sizeof(le), "le=\"%g\"", (double)bounds_us[i] / 1e6);
        }
        total += row_sum_get(&m->rows, bucket + i * sizeof(shm_u64));
        put_sample(m, f->name, "_bucket", item, le);
        fprintf(m->out, "%llu\n", (unsigned long long)total);
    }
    uint64_t sum_us = row_sum_get(&m->rows, offset + offsetof(struct shm_histogram, sum_us));
    put_sample(m, f->name, "_sum", item, "");
    fprintf(m->out, "%.6f\n", (double)sum_us / 1e6);
    put_sample(m, f->name, "_count", item, "");
    fprintf(m->out, "%llu\n", (unsigned long long)total);
}

/* ---- families ---- */

static void
emit_build_info(struct metrics *m, const struct family *f, const struct item *item)
{
    put_count(m, f, item, "version=\"" PACKAGE_VERSION "\"", 1);
}

static void
emit_workers(struct metrics *m, const struct family *f, const struct item *item)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        n += shm_get(&m->shm->m->workers[i].pid) &&
             shm_get(&m->shm->m->workers[i].state) != SHM_CHILD_RETIRING;
    }
    put_count(m, f, item, "", n);
}

static void
emit_confs(struct metrics *m, const struct family *f, const struct item *item)
{
    put_count(m, f, item, "", metrics_confs(m->shm));
}

/* A value of M. */
static void
emit_master(struct metrics *m, const struct family *f, const struct item *item)
{
    put_count(m, f, item, f->labels, shm_get((const shm_u64 *)((char *)m->shm->m + f->offset)));
}

/* By enum lookup_result. */
static void
emit_lookups(struct metrics *m, const struct family *f, const struct item *item)
{
    static const char *const labels[LOOKUP_RESULTS] = {
        [LOOKUP_OK] = "result=\"ok\"",
        [LOOKUP_EMPTY] = "result=\"empty\"",
        [LOOKUP_FAILED] = "result=\"failed\"",
    };
    for (unsigned i = 0; i < LOOKUP_RESULTS; i++) {
        put_count(m, f, item, labels[i], shm_get(&m->shm->h->dns_lookups[i]));
    }
}

static void
emit_names_failing(struct metrics *m, const struct family *f, const struct item *item)
{
    put_count(m, f, item, "", shm_get(&m->shm->h->names_failing));
}

/* Lines that master and monitor have dropped count with those of the workers. */
static uint64_t
dropped_elsewhere(const struct metrics *m)
{
    return shm_get(&m->shm->m->log_dropped) + shm_get(&m->shm->h->log_dropped);
}

static void
emit_row_counter(struct metrics *m, const struct family *f, const struct item *item)
{
    uint64_t more = f->offset == offsetof(struct shm_row, log_dropped) ? dropped_elsewhere(m) : 0;
    put_count(m, f, item, f->labels, row_sum_get(&m->rows, f->offset) + more);
}

static void
emit_active_connections(struct metrics *m, const struct family *f, const struct item *item)
{
    put_count(m, f, item, "", shm_gauge_read(m->shm, offsetof(struct shm_ledger, connections)));
}

static void
emit_failures(struct metrics *m, const struct family *f, const struct item *item)
{
    for (unsigned r = REASON_none + 1; r < REASON_COUNT; r++) {
        char label[64];
        snprintf(label, sizeof(label), "reason=\"%s\"", reason_table[r].token);
        put_count(m, f, item, label,
                  row_sum_get(&m->rows, offsetof(struct shm_row, failures) + r * sizeof(shm_u64)));
    }
}

static void
emit_listener_connections(struct metrics *m, const struct family *f, const struct item *item)
{
    size_t offset = offsetof(struct shm_ledger, listeners) + item->listener->slot * sizeof(shm_u64);
    put_count(m, f, item, "", shm_gauge_read(m->shm, offset));
}

/* Nothing where they are not limited, and so not counted. */
static void
emit_listener_requests(struct metrics *m, const struct family *f, const struct item *item)
{
    if (item->listener->requests_in_flight != 0) {
        size_t entry = item->listener->slot * sizeof(shm_u64);
        put_count(m, f, item, "",
                  shm_gauge_read(m->shm, offsetof(struct shm_ledger, listeners_requests) + entry));
    }
}

static void
emit_listener_counter(struct metrics *m, const struct family *f, const struct item *item)
{
    put_count(m, f, item, "",
              row_sum_get(&m->rows, row_sum_listener_offset(item->listener->slot, f->offset)));
}

/* Only statuses that were seen: there are 502. */
static void
emit_requests(struct metrics *m, const struct family *f, const struct item *item)
{
    size_t codes =
        row_sum_listener_offset(item->listener->slot, offsetof(struct shm_row_listener, codes));
    for (unsigned i = 0; i < SHM_CODES; i++) {
        uint64_t n = row_sum_get(&m->rows, codes + i * sizeof(shm_u64));
        char label[32] = "code=\"other\"";
        if (i + 100 <= 599) {
            snprintf(label, sizeof(label), "code=\"%u\"", i + 100);
        }
        if (n > 0) {
            put_count(m, f, item, label, n);
        }
    }
}

/* The same of gRPC: nothing where none is spoken. */
static void
emit_grpc_requests(struct metrics *m, const struct family *f, const struct item *item)
{
    size_t codes = row_sum_listener_offset(item->listener->slot,
                                           offsetof(struct shm_row_listener, grpc_codes));
    for (unsigned i = 0; i < SHM_GRPC_CODES; i++) {
        uint64_t n = row_sum_get(&m->rows, codes + i * sizeof(shm_u64));
        char label[40];
        snprintf(label, sizeof(label), "code=\"%s\"", grpc_code_name(i));
        if (n > 0) {
            put_count(m, f, item, label, n);
        }
    }
}

static void
emit_listener_histogram(struct metrics *m, const struct family *f, const struct item *item)
{
    put_histogram(m, f, item, row_sum_listener_offset(item->listener->slot, f->offset));
}

static void
emit_backend_up(struct metrics *m, const struct family *f, const struct item *item)
{
    put_count(m, f, item, "", shm_health_get(m->shm, item->backend->slot) != SHM_HEALTH_DOWN);
}

/* offset: of the array in struct shm_ledger. */
static void
emit_backend_gauge(struct metrics *m, const struct family *f, const struct item *item)
{
    size_t offset = f->offset + item->backend->slot * sizeof(shm_u64);
    put_count(m, f, item, "", shm_gauge_read(m->shm, offset));
}

static void
emit_backend_counter(struct metrics *m, const struct family *f, const struct item *item)
{
    put_count(m, f, item, "",
              row_sum_get(&m->rows, row_sum_backend_offset(item->backend->slot, f->offset)));
}

static void
emit_limit_counter(struct metrics *m, const struct family *f, const struct item *item)
{
    put_count(m, f, item, "",
              row_sum_get(&m->rows, row_sum_limit_offset(item->limit->slot, f->offset)));
}

static void
emit_backend_histogram(struct metrics *m, const struct family *f, const struct item *item)
{
    put_histogram(m, f, item, row_sum_backend_offset(item->backend->slot, f->offset));
}

static void
emit_waiting(struct metrics *m, const struct family *f, const struct item *item)
{
    size_t offset =
        offsetof(struct shm_ledger, upstreams_waiting) + item->upstream->slot * sizeof(shm_u64);
    put_count(m, f, item, "", shm_gauge_read(m->shm, offset));
}

/* 0 closed, 1 half-open, 2 open. */
static void
emit_breaker_state(struct metrics *m, const struct family *f, const struct item *item)
{
    if (backend_has_breaker(m->shm, item->backend)) {
        put_count(m, f, item, "", backend_breaker(m->shm, item->backend, clock_mono_ms()));
    }
}

static void
emit_backend_checks(struct metrics *m, const struct family *f, const struct item *item)
{
    const struct shm_health *h = &m->shm->h->backends[item->backend->slot];
    put_count(m, f, item, "result=\"passed\"", shm_get(&h->checks_passed));
    put_count(m, f, item, "result=\"failed\"", shm_get(&h->checks_failed));
}

static void
emit_process_cpu(struct metrics *m, const struct family *f, const struct item *item)
{
    put_seconds(m, f, item, (double)shm_get(&m->shm->m->process.cpu_ms) / 1e3);
}

static void
emit_process_start(struct metrics *m, const struct family *f, const struct item *item)
{
    put_seconds(m, f, item, (double)shm_get(&m->shm->m->started_us) / 1e6);
}

static void
emit_process_gauge(struct metrics *m, const struct family *f, const struct item *item)
{
    put_count(m, f, item, "", shm_get((const shm_u64 *)((const char *)m->shm->m + f->offset)));
}

#define GAUGE(name, help, span, emit, offset)   {name, "gauge", help, span, emit, offset, ""},
#define COUNTER(name, help, span, emit, offset) {name, "counter", help, span, emit, offset, ""},
#define ROW_COUNTER(field, name, labels, help) \
    {name, "counter", help, ONCE, emit_row_counter, offsetof(struct shm_row, field), labels},
#define LISTENER_COUNTER(field, name, help) \
    COUNTER(name, help, PER_LISTENER, emit_listener_counter, \
            offsetof(struct shm_row_listener, field))
#define BACKEND_COUNTER(field, name, help) \
    COUNTER(name, help, PER_BACKEND, emit_backend_counter, offsetof(struct shm_row_backend, field))
#define LIMIT_COUNTER(field, name, help) \
    COUNTER(name, help, PER_LIMIT, emit_limit_counter, offsetof(struct shm_row_limit, field))
#define BACKEND_HISTOGRAM(field, name, help) \
    {name, \
     "histogram", \
     help, \
     PER_BACKEND, \
     emit_backend_histogram, \
     offsetof(struct shm_row_backend, field), \
     ""},

/* Rows with the same name stand together: the first one's help is that of the family. */
/* clang-format off */
static const struct family families[] = {
    GAUGE("akash_build_info", "Version of the monitor that wrote this page",
          ONCE, emit_build_info, 0)
    GAUGE("akash_workers", "Worker processes, retiring ones not counted", ONCE, emit_workers, 0)
    COUNTER("akash_worker_restarts_total", "Workers started in place of one that died",
            ONCE, emit_master, offsetof(struct shm_master, worker_restarts))
    GAUGE("akash_confs", "Generations of the configuration that are still in use",
          ONCE, emit_confs, 0)
    GAUGE("akash_config_last_reload_successful", "Whether the last reload took effect",
          ONCE, emit_master, offsetof(struct shm_master, reload_ok))
    GAUGE("akash_config_last_reload_success_timestamp_seconds",
          "When a configuration last took effect",
          ONCE, emit_master, offsetof(struct shm_master, reload_success_s))
    GAUGE("akash_config_hash", "First 48 bits of the digest of the configuration in force",
          ONCE, emit_master, offsetof(struct shm_master, conf_hash))
    COUNTER("akash_dns_lookups_total", "Lookups of names of backends", ONCE, emit_lookups, 0)
    GAUGE("akash_dns_names_failing",
          "Names of backends whose last lookup gave no address, or failed in part",
          ONCE, emit_names_failing, 0)
    GAUGE("akash_active_connections", "Client connections", ONCE, emit_active_connections, 0)
    WORKER_COUNTERS(ROW_COUNTER)
    COUNTER("akash_failures_total", "Exchanges that failed", ONCE, emit_failures, 0)
    GAUGE("akash_listener_connections", "Client connections",
          PER_LISTENER, emit_listener_connections, 0)
    GAUGE("akash_listener_requests_in_flight", "Requests under way, where they are limited",
          PER_LISTENER, emit_listener_requests, 0)
    LISTENER_COUNTERS(LISTENER_COUNTER)
    COUNTER("akash_requests_total", "Requests answered", PER_LISTENER, emit_requests, 0)
    COUNTER("akash_grpc_requests_total", "gRPC calls ended, by what the client was told",
            PER_LISTENER, emit_grpc_requests, 0)
    {"akash_request_duration_seconds", "histogram", "Request received to answer sent",
     PER_LISTENER, emit_listener_histogram, offsetof(struct shm_row_listener, duration), ""},
    LIMIT_COUNTERS(LIMIT_COUNTER)
    GAUGE("akash_queue_waiting", "Requests and streams that wait for a place at a backend",
          PER_UPSTREAM, emit_waiting, 0)
    GAUGE("akash_backend_up", "0 when health checks found the backend down",
          PER_BACKEND, emit_backend_up, 0)
    GAUGE("akash_backend_active_connections", "Exchanges under way",
          PER_BACKEND, emit_backend_gauge, offsetof(struct shm_ledger, backends_active))
    GAUGE("akash_backend_open_connections", "Connections to the backend, busy and idle",
          PER_BACKEND, emit_backend_gauge, offsetof(struct shm_ledger, backends_open))
    BACKEND_COUNTERS(BACKEND_COUNTER)
    GAUGE("akash_breaker_state", "Circuit breaker: 0 closed, 1 half-open, 2 open",
          PER_BACKEND, emit_breaker_state, 0)
    COUNTER("akash_backend_checks_total", "Health checks", PER_BACKEND, emit_backend_checks, 0)
    BACKEND_HISTOGRAMS(BACKEND_HISTOGRAM)
    COUNTER("process_cpu_seconds_total", "User and system time of all processes",
            ONCE, emit_process_cpu, 0)
    GAUGE("process_start_time_seconds", "When the master started", ONCE, emit_process_start, 0)
    GAUGE("process_resident_memory_bytes", "Resident memory of all processes, shared pages in each",
          ONCE, emit_process_gauge, offsetof(struct shm_master, process.resident_bytes))
    GAUGE("process_open_fds", "Open descriptors of all processes",
          ONCE, emit_process_gauge, offsetof(struct shm_master, process.open_fds))
    GAUGE("process_max_fds", "Limit of open descriptors of the same processes",
          ONCE, emit_process_gauge, offsetof(struct shm_master, process.max_fds))
};
/* clang-format on */
#define NFAMILIES (sizeof(families) / sizeof(families[0]))

/* ---- the page ---- */

struct metrics *
metrics_begin(const struct shm *shm, struct conf *conf)
{
    struct metrics *m = calloc(1, sizeof(*m));
    if (!m) {
        return NULL;
    }
    m->out = open_memstream(&m->text, &m->len);
    if (!m->out) {
        free(m);
        return NULL;
    }
    m->shm = shm;
    m->conf = conf_ref(conf);
    row_sum_init(&m->rows, shm);
    return m;
}

/* Limits of one name are one. */
static bool
next_limit(struct metrics *m, struct item *item)
{
    while (m->limit < m->conf->nrate_limits) {
        const struct conf_rate_limit *limit = m->conf->rate_limits[m->limit++];
        unsigned first = 0;
        while (strcmp(m->conf->rate_limits[first]->name, limit->name) != 0) {
            first++;
        }
        if (m->conf->rate_limits[first] == limit) {
            item->limit = limit;
            return true;
        }
    }
    return false;
}

/* The next item of the family, or false when it has no more. */
static bool
next_item(struct metrics *m, enum family_span span, struct item *item)
{
    *item = (struct item){0};
    if (span == ONCE) {
        return m->listener++ == 0;
    }
    if (span == PER_LISTENER) {
        if (m->listener == m->conf->nlisteners) {
            return false;
        }
        item->listener = &m->conf->listeners[m->listener++];
        return true;
    }
    if (span == PER_LIMIT) {
        return next_limit(m, item);
    }
    if (span == PER_UPSTREAM) {
        if (m->upstream == m->conf->nupstreams) {
            return false;
        }
        item->upstream = &m->conf->upstreams[m->upstream++];
        return true;
    }
    for (; m->upstream < m->conf->nupstreams; m->upstream++, m->backend = 0) {
        struct conf_upstream *up = &m->conf->upstreams[m->upstream];
        if (m->backend < up->nbackends) {
            item->backend = &up->backends[m->backend++];
            return true;
        }
    }
    return false;
}

static void
head_family(struct metrics *m, const struct family *f)
{
    bool is_first = f == families || strcmp(f->name, f[-1].name) != 0;
    if (is_first && !m->has_headed) {
        fprintf(m->out, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name, f->type);
    }
    m->has_headed = true;
}

bool
metrics_step(struct metrics *m, unsigned max_items)
{
    for (unsigned n = 0; m->family < NFAMILIES; n++) {
        const struct family *f = &families[m->family];
        struct item item;
        if (n > max_items) {
            return false;
        }
        head_family(m, f);
        if (next_item(m, f->span, &item)) {
            f->emit(m, f, &item);
            continue;
        }
        m->family++;
        m->listener = m->upstream = m->backend = m->limit = 0;
        m->has_headed = false;
    }
    return true;
}

char *
metrics_take(struct metrics *m, size_t *len)
{
    bool is_whole = !ferror(m->out) && m->family == NFAMILIES;
    is_whole = fclose(m->out) == 0 && is_whole;
    char *text = is_whole ? m->text : NULL;
    *len = m->len;
    if (!is_whole) {
        free(m->text);
    }
    conf_unref(m->conf);
    free(m);
    return text;
}
