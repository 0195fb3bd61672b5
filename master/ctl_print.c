/* SPDX-License-Identifier: Apache-2.0
 *
 * ctl_print.c - see ctl_print.h.
 */
#include "master/ctl_print.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/counters.h"

/* ---- reading JSON ---- */

static struct json_object *
get(struct json_object *object, const char *key)
{
    struct json_object *value = NULL;
    json_object_object_get_ex(object, key, &value);
    return value;
}

static const char *
text(struct json_object *object, const char *key)
{
    struct json_object *value = get(object, key);
    return value ? json_object_get_string(value) : "-";
}

static uint64_t
number(struct json_object *object, const char *key)
{
    return (uint64_t)json_object_get_int64(get(object, key));
}

static size_t
length(struct json_object *list)
{
    return json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
}

/* The member of a list whose key has that text. */
static struct json_object *
find(struct json_object *list, const char *key, const char *wanted)
{
    for (size_t i = 0; i < length(list); i++) {
        struct json_object *member = json_object_array_get_idx(list, i);
        if (strcmp(text(member, key), wanted) == 0) {
            return member;
        }
    }
    return NULL;
}

/* How much a counter has grown; one that began anew has grown by what it is. */
static uint64_t
growth(struct json_object *before, struct json_object *now, const char *key)
{
    uint64_t was = before ? number(before, key) : 0, is = number(now, key);
    return is >= was ? is - was : is;
}

/* How often a second; seconds is the time between the two answers. */
static unsigned long long
rate(struct json_object *before, struct json_object *now, const char *key, double seconds)
{
    return (unsigned long long)((double)growth(before, now, key) / seconds + 0.5);
}

/* ---- latency ---- */

#define BOUND(us) us,
static const uint64_t bounds_us[] = {HISTOGRAM_BOUNDS(BOUND)};
#undef BOUND

/* The buckets of the seconds between, or, where nothing happened, of all time. */
static uint64_t
fill_buckets(struct json_object *was, struct json_object *is, uint64_t out[HISTOGRAM_BUCKETS])
{
    uint64_t all = 0, grown = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t w = i < length(was)
                         ? (uint64_t)json_object_get_int64(json_object_array_get_idx(was, i))
                         : 0;
        uint64_t n =
            i < length(is) ? (uint64_t)json_object_get_int64(json_object_array_get_idx(is, i)) : 0;
        out[i] = n >= w ? n - w : n;
        grown += out[i];
        all += n;
    }
    for (size_t i = 0; grown == 0 && i < length(is) && i < HISTOGRAM_BUCKETS; i++) {
        out[i] = (uint64_t)json_object_get_int64(json_object_array_get_idx(is, i));
    }
    return grown ? grown : all;
}

/* By straight lines between the bounds; what is beyond the last is that bound. */
static double
quantile_ms(const uint64_t buckets[HISTOGRAM_BUCKETS], uint64_t total, double q)
{
    double rank = q * (double)total, below = 0;
    for (size_t i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
        double from = i ? (double)bounds_us[i - 1] : 0, to = (double)bounds_us[i];
        if (buckets[i] && below + (double)buckets[i] >= rank) {
            return (from + (to - from) * (rank - below) / (double)buckets[i]) / 1000;
        }
        below += (double)buckets[i];
    }
    return (double)bounds_us[HISTOGRAM_BUCKETS - 2] / 1000;
}

/* key: of the buckets in both. */
static void
print_latency(struct json_object *before, struct json_object *now, const char *key)
{
    static const double quantiles[] = {0.5, 0.95, 0.99};
    uint64_t buckets[HISTOGRAM_BUCKETS];
    uint64_t total = fill_buckets(get(before, key), get(now, key), buckets);
    for (size_t i = 0; i < 3; i++) {
        if (total == 0) {
            printf(" %8s", "-");
        } else {
            printf(" %8.1f", quantile_ms(buckets, total, quantiles[i]));
        }
    }
}

/* ---- status ---- */

static void
print_workers(struct json_object *status)
{
    struct json_object *list = get(status, "workers");
    printf("\n%-8s %-8s %-10s %s\n", "WORKER", "PID", "STATE", "CONFS");
    for (size_t i = 0; i < length(list); i++) {
        struct json_object *w = json_object_array_get_idx(list, i);
        printf("%-8s %-8s %-10s %s\n", text(w, "index"), text(w, "pid"), text(w, "state"),
               text(w, "confs"));
    }
}

static void
print_listeners(struct json_object *before, struct json_object *now, double seconds)
{
    struct json_object *list = get(now, "listeners");
    printf("\n%-20s %-5s %8s %8s %8s %8s %8s %8s %8s %8s  %s\n", "LISTENER", "MODE", "CLIENTS",
           "NEW/S", "REQ/S", "5XX/S", "REFUSED", "P50 MS", "P95 MS", "P99 MS", "ADDRESSES");
    for (size_t i = 0; i < length(list); i++) {
        struct json_object *l = json_object_array_get_idx(list, i);
        struct json_object *was = find(get(before, "listeners"), "name", text(l, "name"));
        printf("%-20s %-5s %8s %8llu %8llu %8llu %8llu", text(l, "name"), text(l, "mode"),
               text(l, "connections"), rate(was, l, "accepted", seconds),
               rate(was, l, "requests", seconds),
               rate(get(was, "codes"), get(l, "codes"), "5xx", seconds),
               (unsigned long long)(number(l, "clients_refused") + number(l, "requests_refused")));
        print_latency(was, l, "duration_buckets");
        printf(" ");
        struct json_object *addresses = get(l, "addresses");
        for (size_t a = 0; a < length(addresses); a++) {
            printf(" %s", json_object_get_string(json_object_array_get_idx(addresses, a)));
        }
        printf("\n");
    }
}

/* The operator's or the file's word goes before the health. */
static const char *
state_of(struct json_object *b)
{
    const char *state = text(b, "state");
    return strcmp(state, "ready") == 0 ? text(b, "health") : state;
}

static void
print_reason(struct json_object *b)
{
    struct json_object *said = get(b, "operator");
    if (get(said, "state")) {
        printf("  the operator says so; the file: %s", text(get(said, "state"), "file"));
    } else if (strcmp(state_of(b), "down") == 0) {
        printf("  %s", text(b, "last"));
    }
    if (get(said, "breaker")) {
        printf("  breaker %s by the operator; the file: auto", text(b, "breaker"));
    } else if (get(b, "breaker") && strcmp(text(b, "breaker"), "closed") != 0) {
        printf("  breaker %s", text(b, "breaker"));
    }
    if (get(said, "weight")) {
        printf("  weight by the operator; the file: %s", text(get(said, "weight"), "file"));
    }
    printf("\n");
}

/* How it is with all of its backends. */
static void
print_sums(struct json_object *was_up, struct json_object *up, double seconds)
{
    struct json_object *list = get(up, "backends");
    unsigned long long served = 0, failures = 0;
    size_t usable = 0;
    for (size_t i = 0; i < length(list); i++) {
        struct json_object *b = json_object_array_get_idx(list, i);
        struct json_object *was = find(get(was_up, "backends"), "id", text(b, "id"));
        served += rate(was, b, "served", seconds);
        failures += rate(was, b, "failures", seconds);
        usable += json_object_get_boolean(get(b, "usable"));
    }
    printf("\nUPSTREAM %s: %s, %zu of %zu usable, %s waiting, %llu requests/s, %llu failures/s\n",
           text(up, "name"), text(up, "algorithm"), usable, length(list), text(up, "waiting"),
           served, failures);
}

static void
print_upstream(struct json_object *before, struct json_object *up, double seconds)
{
    struct json_object *list = get(up, "backends");
    struct json_object *was_up = find(get(before, "upstreams"), "name", text(up, "name"));
    print_sums(was_up, up, seconds);
    printf("  %-26s %-8s %6s %7s %6s %8s %8s %8s %8s %8s  %s\n", "BACKEND", "STATE", "WEIGHT",
           "ACTIVE", "OPEN", "REQ/S", "FAILED", "P50 MS", "P95 MS", "P99 MS", "WHY");
    for (size_t i = 0; i < length(list); i++) {
        struct json_object *b = json_object_array_get_idx(list, i);
        struct json_object *was = find(get(was_up, "backends"), "id", text(b, "id"));
        printf("  %-26s %-8s %6s %7s %6s %8llu %8s", text(b, "id"), state_of(b), text(b, "weight"),
               text(b, "active"), text(b, "open"), rate(was, b, "served", seconds),
               text(b, "failures"));
        print_latency(was, b, "response_buckets");
        print_reason(b);
    }
}

void
ctl_print_status(struct json_object *before, struct json_object *now, double seconds, bool clears)
{
    struct json_object *bytes = get(now, "bytes"), *were = get(before, "bytes");
    struct json_object *upstreams = get(now, "upstreams");
    struct json_object *reload = get(now, "reload");
    if (clears) {
        fputs("\033[H\033[2J", stdout);
    }
    printf("akashd %s, generation %s, configuration %s, %s clients, %llu bytes/s in, %llu out%s\n",
           text(now, "version"), text(now, "generation"), text(now, "config_hash"),
           text(now, "connections"), rate(were, bytes, "client_in", seconds),
           rate(were, bytes, "client_out", seconds),
           json_object_get_boolean(get(now, "draining")) ? ", draining" : "");
    if (!json_object_get_boolean(get(reload, "successful"))) {
        printf("the last reload was refused: %s\n", text(reload, "error"));
    }
    struct json_object *level = get(get(now, "operator"), "log_level");
    if (level) {
        printf("log level %s by the operator; the file: %s\n", text(level, "operator"),
               text(level, "file"));
    }
    print_workers(now);
    print_listeners(before, now, seconds);
    for (size_t i = 0; i < length(upstreams); i++) {
        print_upstream(before, json_object_array_get_idx(upstreams, i), seconds);
    }
}

/* ---- differences ---- */

static void
print_value(struct json_object *value)
{
    fputs(json_object_to_json_string_ext(value,
                                         JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
          stdout);
}

static void
print_change(struct json_object *change)
{
    struct json_object *from = get(change, "from"), *to = get(change, "to");
    printf("%c %s", from && !to ? '-' : to && !from ? '+' : '~', text(change, "what"));
    if (from || to) {
        printf(": ");
    }
    if (from) {
        print_value(from);
    }
    if (from && to) {
        printf(" -> ");
    }
    if (to) {
        print_value(to);
    }
    printf("\n    touches %s\n", text(change, "touches"));
}

void
ctl_print_diff(struct json_object *diff, bool is_future)
{
    struct json_object *changes = get(diff, "changes"), *said = get(diff, "operator");
    if (get(diff, "refused")) {
        printf("a reload would be refused: %s cannot change while akashd runs\n",
               text(diff, "refused"));
    }
    if (length(changes) == 0) {
        puts(is_future ? "nothing would change" : "nothing has changed");
    }
    for (size_t i = 0; i < length(changes); i++) {
        print_change(json_object_array_get_idx(changes, i));
    }
    for (size_t i = 0; i < length(said); i++) {
        struct json_object *entry = json_object_array_get_idx(said, i);
        printf("! %s: the file says %s, the operator %s\n", text(entry, "what"),
               text(entry, "file"), text(entry, "operator"));
    }
}

/* ---- explanations ---- */

void
ctl_print_explain(struct json_object *explain)
{
    json_object_object_foreach(explain, key, value)
    {
        if (strcmp(key, "backends") != 0) {
            printf("%-10s ", key);
            json_object_is_type(value, json_type_string)
                ? (void)fputs(json_object_get_string(value), stdout)
                : print_value(value);
            printf("\n");
            continue;
        }
        for (size_t i = 0; i < length(value); i++) {
            struct json_object *b = json_object_array_get_idx(value, i);
            printf("%-10s %s, weight %s: %s\n", i == 0 ? "among" : "", text(b, "id"),
                   text(b, "weight"), get(b, "why") ? text(b, "why") : "usable");
        }
    }
}

/* ---- files ---- */

char *
ctl_read_file(const char *path)
{
    char *content = NULL;
    size_t size = 0;
    FILE *file = fopen(path, "re");
    if (!file) {
        return NULL;
    }
    if (getdelim(&content, &size, '\0', file) < 0 && ferror(file)) {
        free(content);
        content = NULL;
    }
    fclose(file);
    return content;
}
