/* SPDX-License-Identifier: Apache-2.0
 *
 * access_log.c - a line for each exchange: see access_log.h.
 *
 * Lines of one loop turn are gathered and leave in one write.
 */
#include "worker/access_log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "shared/log.h"
#include "worker/upstream.h"
#include "worker/worker.h"

#define LINE_MAX_BYTES 4096
#define GATHER_BYTES   65536

struct target {
    struct list link;
    char *path;
    int fd;
};

static struct list targets = LIST_INIT(targets);
static int current = -1; /* descriptor; -1: off */
static bool is_syslog, is_file;
static enum conf_access_format format;
static char lines[GATHER_BYTES];
static size_t nbytes;
static unsigned nlines;

static bool
is_regular_file(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static struct target *
find_target(struct slice path)
{
    list_for_each (it, &targets) {
        struct target *t = container_of(it, struct target, link);
        if (slice_eq(slice_from_str(t->path), path)) {
            return t;
        }
    }
    return NULL;
}

void
access_log_give(struct slice path, int fd)
{
    struct target *t = find_target(path);
    if (!t) {
        t = calloc(1, sizeof(*t));
        if (!t || !(t->path = strndup(path.ptr, path.len))) {
            free(t);
            close(fd);
            return;
        }
        list_add_tail(&targets, &t->link);
        t->fd = fd;
        return;
    }
    access_log_flush(); /* gathered lines belong to the file they were made for */
    if (current == t->fd) {
        current = fd;
    }
    close(t->fd);
    t->fd = fd;
}

void
access_log_apply(const struct conf *conf)
{
    access_log_flush();
    const char *target = conf->access_log.target;
    format = conf->access_log.format;
    is_syslog = target && strcmp(target, "syslog") == 0;
    current = -1;
    if (!target || is_syslog) {
        return;
    }
    if (strcmp(target, "stderr") == 0) {
        current = STDERR_FILENO;
    } else {
        struct target *t = find_target(slice_from_str(target));
        if (!t) {
            log_error("access_log: %s: the master gave no file", target);
            return;
        }
        current = t->fd;
    }
    is_file = is_regular_file(current);
}

/* ---- lines ---- */

struct line {
    char *at;
    char *end;
};

static void
put(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void
put(struct line *l, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(l->at, (size_t)(l->end - l->at), fmt, args);
    va_end(args);
    if (n > 0) {
        size_t room = (size_t)(l->end - l->at);
        l->at += (size_t)n < room ? (size_t)n : room - 1;
    }
}

/* Bytes outside printable ASCII, quotes and backslashes as \xHH; an absent value as absent. */
static void
put_escaped(struct line *l, struct slice s, const char *absent)
{
    if (s.len == 0) {
        put(l, "%s", absent);
        return;
    }
    size_t room = (size_t)(l->end - l->at);
    if (room > 1) {
        l->at += log_escape(s, l->at, room);
    }
}

static void
put_json_text(struct line *l, const char *key, struct slice s)
{
    put(l, ",\"%s\":\"", key);
    for (size_t i = 0; i < s.len && l->end - l->at > 8; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\') {
            put(l, "\\u%04x", c);
        } else {
            *l->at++ = (char)c;
        }
    }
    put(l, "\"");
}

/* A tunnel has none of it: empty values. */
static const struct stream_http *
http_of(const struct stream *s)
{
    static const struct stream_http none;
    return s->http ? s->http : &none;
}

/* What the client asked for, whatever the backend got. */
static struct slice
target_of(const struct stream *s)
{
    const struct stream_http *http = http_of(s);
    return http->target.len > 0 ? http->target : http->req.target;
}

static struct slice
field(const struct stream *s, enum http_field_id id)
{
    for (unsigned i = 0; i < http_of(s)->req.nfields; i++) {
        if (http_of(s)->req.fields[i].id == id) {
            return http_of(s)->req.fields[i].value;
        }
    }
    return SLICE("");
}

static void
put_time(struct line *l, const char *fmt)
{
    static char text[64];
    static const char *text_format;
    static time_t at;
    time_t now = (time_t)(clock_wall_us() / 1000000u);
    if (now != at || fmt != text_format) {
        struct tm tm;
        localtime_r(&now, &tm);
        strftime(text, sizeof(text), fmt, &tm);
        at = now;
        text_format = fmt;
    }
    put(l, "%s", text);
}

static void
put_client(struct line *l, const struct stream *s)
{
    char text[ADDR_TEXT_MAX];
    size_t n = addr_ip_format(&s->client_ip, text);
    put(l, "%.*s", (int)n, text);
}

static const char *
protocol_of(const struct stream *s)
{
    if (s->is_tcp) {
        return "tcp";
    }
    return s->is_http2 ? "HTTP/2.0" : http_of(s)->req.minor ? "HTTP/1.1" : "HTTP/1.0";
}

static void
put_combined(struct line *l, const struct stream *s)
{
    put_client(l, s);
    put(l, " - - [");
    put_time(l, "%d/%b/%Y:%H:%M:%S %z");
    put(l, "] \"");
    if (http_of(s)->req.method_text.len > 0) {
        put_escaped(l, http_of(s)->req.method_text, "-");
        put(l, " ");
        put_escaped(l, target_of(s), "-");
        put(l, " %s", protocol_of(s));
    } else {
        put(l, "-");
    }
    put(l, "\" %u %llu \"", s->status, (unsigned long long)s->client.bytes);
    put_escaped(l, field(s, HTTP_FIELD_REFERER), "-");
    put(l, "\" \"");
    put_escaped(l, field(s, HTTP_FIELD_USER_AGENT), "-");
    put(l, "\"");
}

static double
seconds(uint64_t from_us, uint64_t to_us)
{
    return from_us != 0 && to_us > from_us ? (double)(to_us - from_us) / 1e6 : 0.0;
}

static void
put_json(struct line *l, const struct stream *s)
{
    uint64_t now = worker_now_us();
    put(l, "{\"time\":\"");
    put_time(l, "%Y-%m-%dT%H:%M:%S%z");
    put(l, "\"");
    put_json_text(l, "id", http_of(s)->request_id);
    put_json_text(l, "listener", slice_from_str(s->listener->name));
    put(l, ",\"client\":\"");
    put_client(l, s);
    put(l, "\"");
    put_json_text(l, "method", http_of(s)->req.method_text);
    put_json_text(l, "host", http_of(s)->req.authority);
    put_json_text(l, "path", target_of(s));
    put(l, ",\"protocol\":\"%s\",\"status\":%u,\"reason\":\"%s\"", protocol_of(s), s->status,
        s->reason == REASON_none ? "" : reason_table[s->reason].token);
    put_json_text(l, "upstream", s->upstream_name);
    put_json_text(l, "backend", s->backend_name);
    put(l, ",\"tries\":%u,\"bytes_in\":%llu,\"bytes_out\":%llu", s->tries + (s->connected_us != 0),
        (unsigned long long)s->bytes_in, (unsigned long long)s->client.bytes);
    put(l,
        ",\"request_s\":%.6f,\"queue_s\":%.6f,\"connect_s\":%.6f,\"response_s\":%.6f,\"total_s\":%.6f",
        seconds(s->first_us, s->begin_us), (double)s->queue_us / 1e6,
        seconds(s->connect_us, s->connected_us), seconds(http_of(s)->sent_us, http_of(s)->head_us),
        seconds(s->first_us, now));
    put_json_text(l, "tls", s->tls_version);
    put(l, ",\"resumed\":%s", s->is_resumed ? "true" : "false");
    put_json_text(l, "user_agent", field(s, HTTP_FIELD_USER_AGENT));
    put_json_text(l, "referer", field(s, HTTP_FIELD_REFERER));
    put(l, "}");
}

/* time client listener upstream/backend bytes_in bytes_out seconds reason */
static void
put_tcp(struct line *l, const struct stream *s)
{
    put_time(l, "%Y-%m-%dT%H:%M:%S%z");
    put(l, " ");
    put_client(l, s);
    put(l, " %s %.*s/%.*s %llu %llu %.6f %s", s->listener->name, SLICE_ARG(s->upstream_name),
        SLICE_ARG(s->backend_name), (unsigned long long)s->bytes_in,
        (unsigned long long)s->client.bytes, seconds(s->first_us, worker_now_us()),
        s->reason == REASON_none ? "-" : reason_table[s->reason].token);
}

static void
write_line(struct line *l, const struct stream *s)
{
    switch (format) {
    case CONF_ACCESS_JSON: put_json(l, s); break;
    case CONF_ACCESS_TCP: put_tcp(l, s); break;
    default:
        if (s->is_tcp) {
            put_tcp(l, s);
        } else {
            put_combined(l, s);
        }
    }
}

void
access_log_stream(const struct stream *s)
{
    if (current < 0 && !is_syslog) {
        return;
    }
    if (nbytes + LINE_MAX_BYTES > GATHER_BYTES) {
        access_log_flush();
    }
    struct line l = {lines + nbytes, lines + nbytes + LINE_MAX_BYTES - 1};
    write_line(&l, s);
    if (is_syslog) {
        syslog(LOG_INFO, "%.*s", (int)(l.at - (lines + nbytes)), lines + nbytes);
        return;
    }
    *l.at++ = '\n';
    nbytes = (size_t)(l.at - lines);
    nlines++;
}

void
access_log_flush(void)
{
    if (nbytes == 0) {
        return;
    }
    if (current >= 0 && !log_put_line(current, is_file, lines, nbytes)) {
        shm_count(&worker.row->log_dropped, nlines);
    }
    nbytes = 0;
    nlines = 0;
}
