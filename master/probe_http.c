/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_http.c - the request of an HTTP health check, and the judgement of its answer.
 *
 * The parser is the one that the data plane uses, so a backend whose answers akashd could not
 * forward is not healthy either.
 */
#include "master/probe_http.h"

#include <stdio.h>
#include <stdlib.h>

#define PROBE_FIELDS_MAX 128

const char *
probe_host(const struct conf_backend *backend)
{
    const char *host = backend->upstream->health.host;
    if (host) {
        return host;
    }
    bool is_unix = strncmp(backend->address, "unix:", 5) == 0;
    return is_unix ? "localhost" : backend->address;
}

char *
probe_request(const struct conf_backend *backend, size_t *len)
{
    const struct conf_health *health = &backend->upstream->health;
    char *text = NULL;
    int n = asprintf(&text,
                     "%s %s HTTP/1.1\r\n"
                     "Host: %s\r\n"
                     "User-Agent: akashd-health\r\n"
                     "Accept: */*\r\n"
                     "Connection: close\r\n"
                     "\r\n",
                     health->method ? health->method : "GET", health->path ? health->path : "/",
                     probe_host(backend));
    if (n < 0) {
        return NULL;
    }
    *len = (size_t)n;
    return text;
}

void
probe_answer_init(struct probe_answer *a, const struct conf_health *health)
{
    *a = (struct probe_answer){.health = health};
    a->method = http_method_from(slice_from_str(health->method ? health->method : "GET"));
}

void
probe_answer_fini(struct probe_answer *a)
{
    free(a->head);
    free(a->body);
    a->head = NULL;
    a->body = NULL;
}

static enum probe_verdict
answer_bad(struct probe_answer *a, const char *why)
{
    snprintf(a->why, sizeof(a->why), "%s", why);
    return PROBE_BAD;
}

static bool
answer_is_expected(const struct conf_health *health, unsigned status)
{
    for (unsigned i = 0; i < health->nexpect; i++) {
        if (status >= health->expect[i].from && status <= health->expect[i].to) {
            return true;
        }
    }
    return false;
}

/* Keep decoded bytes of the body and look for the text where it may newly be. */
enum probe_verdict
probe_answer_body(struct probe_answer *a, struct slice piece)
{
    size_t wanted = strlen(a->health->body);
    size_t from = a->body_len >= wanted ? a->body_len - wanted + 1 : 0;
    size_t room = PROBE_BODY_MAX - a->body_len;
    size_t take = piece.len < room ? piece.len : room;
    memcpy(a->body + a->body_len, piece.ptr, take);
    a->body_len += take;
    if (memmem(a->body + from, a->body_len - from, a->health->body, wanted)) {
        return PROBE_GOOD;
    }
    if (a->body_len == PROBE_BODY_MAX) {
        return answer_bad(a, "the text is not at the beginning of the body");
    }
    return PROBE_MORE;
}

enum probe_verdict
probe_answer_body_end(struct probe_answer *a)
{
    return answer_bad(a, "the body does not have the text");
}

static enum probe_verdict
answer_feed_length(struct probe_answer *a, struct slice in)
{
    if (in.len > a->left) {
        in.len = (size_t)a->left;
    }
    a->left -= in.len;
    enum probe_verdict verdict = probe_answer_body(a, in);
    return verdict == PROBE_MORE && a->left == 0 ? probe_answer_body_end(a) : verdict;
}

static enum probe_verdict
answer_feed_chunked(struct probe_answer *a, struct slice in)
{
    for (;;) {
        struct slice piece;
        enum probe_verdict verdict = PROBE_MORE;
        switch (http1_chunked_next(&a->chunked, &in, &piece)) {
        case HTTP1_CHUNK_MORE: return PROBE_MORE;
        case HTTP1_CHUNK_DATA: verdict = probe_answer_body(a, piece); break;
        case HTTP1_CHUNK_TRAILER: return probe_answer_body_end(a);
        case HTTP1_CHUNK_BAD: return answer_bad(a, "malformed answer");
        }
        if (verdict != PROBE_MORE) {
            return verdict;
        }
    }
}

static enum probe_verdict
answer_feed_body(struct probe_answer *a, struct slice in)
{
    switch (a->kind) {
    case HTTP_BODY_LENGTH: return answer_feed_length(a, in);
    case HTTP_BODY_CHUNKED: return answer_feed_chunked(a, in);
    case HTTP_BODY_CLOSE: return probe_answer_body(a, in);
    case HTTP_BODY_NONE: break;
    }
    return probe_answer_body_end(a);
}

enum probe_verdict
probe_answer_status(struct probe_answer *a, unsigned status)
{
    if (!answer_is_expected(a->health, status)) {
        snprintf(a->why, sizeof(a->why), "status %u", status);
        return PROBE_BAD;
    }
    if (!a->health->body || a->health->body[0] == '\0') {
        return PROBE_GOOD;
    }
    a->body = malloc(PROBE_BODY_MAX);
    return a->body ? PROBE_MORE : answer_bad(a, "out of memory");
}

/* A final head of head_len bytes has come. */
static enum probe_verdict
answer_judge_head(struct probe_answer *a, const struct http_msg *msg, size_t head_len)
{
    enum probe_verdict verdict = probe_answer_status(a, msg->status);
    if (verdict != PROBE_MORE) {
        return verdict;
    }
    a->is_in_body = true;
    a->kind = (enum http_body_kind)msg->body;
    a->left = msg->length;
    return answer_feed_body(a, slice_of(a->head + head_len, a->filled - head_len));
}

/* Parse what stands in head; interim answers (RFC 9110 15.2) are passed over. */
static enum probe_verdict
answer_take_heads(struct probe_answer *a)
{
    static const struct http_limits limits = {.header_bytes = PROBE_HEAD_MAX,
                                              .header_count = PROBE_FIELDS_MAX};
    for (;;) {
        size_t end = http1_head_end(a->head, a->filled, a->scanned);
        a->scanned = a->filled;
        if (end == 0) {
            return a->filled < PROBE_HEAD_MAX ? PROBE_MORE
                                              : answer_bad(a, "the answer's head is too large");
        }
        struct http_field fields[PROBE_FIELDS_MAX];
        struct http_msg msg = {.fields = fields, .max_fields = PROBE_FIELDS_MAX};
        int len = http1_parse_response(a->head, end, &limits, a->method, &msg);
        if (len <= 0) {
            return answer_bad(a, "malformed answer");
        }
        if (msg.status >= 200 || msg.status == 101) {
            return answer_judge_head(a, &msg, (size_t)len);
        }
        a->filled -= (size_t)len;
        memmove(a->head, a->head + len, a->filled);
        a->scanned = 0;
    }
}

static enum probe_verdict
answer_feed_head(struct probe_answer *a, struct slice *in)
{
    if (!a->head && !(a->head = malloc(PROBE_HEAD_MAX))) {
        return answer_bad(a, "out of memory");
    }
    size_t room = PROBE_HEAD_MAX - a->filled;
    size_t take = in->len < room ? in->len : room;
    memcpy(a->head + a->filled, in->ptr, take);
    a->filled += take;
    in->ptr += take;
    in->len -= take;
    return answer_take_heads(a);
}

enum probe_verdict
probe_answer_feed(struct probe_answer *a, const char *bytes, size_t len)
{
    struct slice in = slice_of(bytes, len);
    enum probe_verdict verdict = PROBE_MORE;
    while (verdict == PROBE_MORE && in.len > 0 && !a->is_in_body) {
        verdict = answer_feed_head(a, &in);
    }
    if (verdict == PROBE_MORE && in.len > 0) {
        verdict = answer_feed_body(a, in);
    }
    return verdict;
}

enum probe_verdict
probe_answer_end(struct probe_answer *a)
{
    if (a->is_in_body && a->kind == HTTP_BODY_CLOSE) {
        return probe_answer_body_end(a);
    }
    return answer_bad(a, a->is_in_body || a->filled > 0 ? "the answer was cut"
                                                        : "closed without an answer");
}
