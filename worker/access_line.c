/* SPDX-License-Identifier: Apache-2.0
 *
 * access_line.c - the formats of the access log: see access_line.h.
 */
#include "worker/access_line.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "shared/clock.h"
#include "worker/worker.h"

/* What is free beside the long values. A line is at most 4,095 bytes without its newline; in JSON
 * keys, numbers and names take less than 600 behind the path and names at most 3 * MAX_NAME. */
#define MAX_NAME     256
#define MAX_HOST     512
#define KEPT_LAST    256 /* for the last value, however long those before it are */
#define AFTER_TARGET (2 * KEPT_LAST + 64)
#define AFTER_PATH   (3 * MAX_NAME + 600 + 2 * KEPT_LAST)

struct line {
    char *at;
    char *end; /* behind the byte that is left for a newline */
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

static void
put_str(struct line *l, const char *text)
{
    size_t len = strlen(text), room = (size_t)(l->end - l->at) - 1;
    len = len < room ? len : room;
    memcpy(l->at, text, len);
    l->at += len;
}

/* At most max bytes, and so few that leave bytes stay free for what follows. Cut between bytes of
 * s. backslash: how one is written. */
static void
put_value(struct line *l, struct slice s, const char *backslash, size_t max, size_t leave)
{
    static const char hex[] = "0123456789abcdef";
    size_t room = (size_t)(l->end - l->at) - 1, nbackslash = strlen(backslash);
    room = room > leave ? room - leave : 0;
    const char *stop = l->at + (room < max ? room : max);
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        bool is_plain = c >= 0x20 && c <= 0x7e && c != '"' && c != '\\';
        if ((size_t)(stop - l->at) < (is_plain ? 1 : nbackslash + 3)) {
            return;
        }
        if (is_plain) {
            *l->at++ = (char)c;
            continue;
        }
        memcpy(l->at, backslash, nbackslash);
        l->at += nbackslash;
        *l->at++ = 'x';
        *l->at++ = hex[c >> 4];
        *l->at++ = hex[c & 15];
    }
}

/* An absent value as "-". */
static void
put_field(struct line *l, struct slice s, size_t max, size_t leave)
{
    put_value(l, s.len > 0 ? s : SLICE("-"), "\\", max, leave);
}

static void
put_json_text(struct line *l, const char *key, struct slice s, size_t max, size_t leave)
{
    put_str(l, ",\"");
    put_str(l, key);
    put_str(l, "\":\"");
    put_value(l, s, "\\\\", max, leave);
    put_str(l, "\"");
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

/* As the client has sent it, whatever a route drops. */
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
    put_str(l, text);
}

/* As ISO 8601 and RFC 3339 write it: with a colon in the zone, which strftime() leaves out. */
static void
put_iso_time(struct line *l)
{
    put_time(l, "%Y-%m-%dT%H:%M:%S%z");
    char minutes[] = {':', l->at[-2], l->at[-1], '\0'};
    l->at -= 2;
    put_str(l, minutes);
}

static void
put_client(struct line *l, const struct stream *s)
{
    char text[ADDR_TEXT_MAX];
    size_t n = addr_ip_format(&s->client_ip, text);
    put_value(l, slice_of(text, n), "\\", n, 0);
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
    put_str(l, " - - [");
    put_time(l, "%d/%b/%Y:%H:%M:%S %z");
    put_str(l, "] \"");
    if (http_of(s)->req.method_text.len > 0) {
        put_field(l, http_of(s)->req.method_text, MAX_NAME, 0);
        put_str(l, " ");
        put_field(l, target_of(s), SIZE_MAX, AFTER_TARGET);
        put_str(l, " ");
        put_str(l, protocol_of(s));
    } else {
        put_str(l, "-");
    }
    put(l, "\" %u %llu \"", s->status, (unsigned long long)s->client.bytes);
    put_field(l, field(s, HTTP_FIELD_REFERER), SIZE_MAX, KEPT_LAST + 8);
    put_str(l, "\" \"");
    put_field(l, field(s, HTTP_FIELD_USER_AGENT), SIZE_MAX, 1);
    put_str(l, "\"");
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
    put_str(l, "{\"time\":\"");
    put_iso_time(l);
    put_str(l, "\"");
    put_json_text(l, "id", http_of(s)->request_id, MAX_NAME, 0);
    put_json_text(l, "listener", slice_from_str(s->listener->name), MAX_NAME, 0);
    put_str(l, ",\"client\":\"");
    put_client(l, s);
    put_str(l, "\"");
    put_json_text(l, "method", http_of(s)->req.method_text, MAX_NAME, 0);
    put_json_text(l, "host", http_of(s)->req.authority, MAX_HOST, 0);
    put_json_text(l, "path", target_of(s), SIZE_MAX, AFTER_PATH);
    put(l, ",\"protocol\":\"%s\",\"status\":%u,\"reason\":\"%s\"", protocol_of(s), s->status,
        s->reason == REASON_none ? "" : reason_table[s->reason].token);
    put_json_text(l, "upstream", s->upstream_name, MAX_NAME, 0);
    put_json_text(l, "backend", s->backend_name, MAX_NAME, 0);
    put(l, ",\"tries\":%u,\"bytes_in\":%llu,\"bytes_out\":%llu", s->tries,
        (unsigned long long)s->bytes_in, (unsigned long long)s->client.bytes);
    put(l,
        ",\"request_s\":%.6f,\"queue_s\":%.6f,\"connect_s\":%.6f,\"response_s\":%.6f,\"total_s\":%.6f",
        seconds(s->first_us, s->begin_us), (double)s->queue_us / 1e6,
        seconds(s->connect_us, s->connected_us), seconds(http_of(s)->sent_us, http_of(s)->head_us),
        seconds(s->first_us, now));
    put_json_text(l, "tls", s->tls_version, MAX_NAME, 0);
    put(l, ",\"resumed\":%s", s->is_resumed ? "true" : "false");
    put_json_text(l, "user_agent", field(s, HTTP_FIELD_USER_AGENT), SIZE_MAX, KEPT_LAST + 32);
    put_json_text(l, "referer", field(s, HTTP_FIELD_REFERER), SIZE_MAX, 2);
    put_str(l, "}");
}

/* time client listener upstream/backend bytes_in bytes_out seconds reason */
static void
put_tcp(struct line *l, const struct stream *s)
{
    put_iso_time(l);
    put_str(l, " ");
    put_client(l, s);
    put(l, " %s %.*s/%.*s %llu %llu %.6f %s", s->listener->name, SLICE_ARG(s->upstream_name),
        SLICE_ARG(s->backend_name), (unsigned long long)s->bytes_in,
        (unsigned long long)s->client.bytes, seconds(s->first_us, worker_now_us()),
        s->reason == REASON_none ? "-" : reason_table[s->reason].token);
}

size_t
access_line_put(const struct stream *s, enum conf_access_format format, char *buf)
{
    struct line l = {buf, buf + ACCESS_LINE_MAX};
    if (format == CONF_ACCESS_JSON) {
        put_json(&l, s);
    } else if (format == CONF_ACCESS_TCP || s->is_tcp) {
        put_tcp(&l, s);
    } else {
        put_combined(&l, s);
    }
    return (size_t)(l.at - buf);
}
