/* SPDX-License-Identifier: Apache-2.0
 *
 * reply.c - error answers: see reply.h.
 */
#include "worker/reply.h"

#include <stdio.h>

#include "worker/forward.h"
#include "worker/grpc.h"
#include "worker/http1_body.h"
#include "worker/limit.h"
#include "worker/worker.h"

static struct slice
date_now(void)
{
    static char text[32];
    static uint64_t at_s;
    uint64_t now_s = clock_wall_us() / 1000000u;
    if (now_s != at_s) {
        at_s = now_s;
        http_date(now_s, text);
    }
    return slice_from_str(text);
}

static void
add(struct reply *r, struct slice name, struct slice value)
{
    r->fields[r->head.nfields++] = (struct http_field){.name = name, .value = value};
}

/* Fields that a status requires (RFC 9110 10.2.1, 10.2.3). Health and limits change within seconds.
 */
static void
add_for_status(struct reply *r)
{
    if (r->head.status == 405) {
        add(r, SLICE("Allow"), SLICE("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"));
    } else if (r->head.status == 503) {
        add(r, SLICE("Retry-After"), SLICE("1"));
    }
}

/* Body and, behind it, its length. */
static struct slice
write_text(struct reply *r, enum reason why, struct slice id)
{
    const struct reason_info *info = &reason_table[why];
    int len = snprintf(r->text, sizeof(r->text) - 8, "%u %.*s\nreason: %s (%s)\nrequest id: %.*s\n",
                       r->head.status, SLICE_ARG(http_status_phrase(r->head.status)), info->token,
                       info->text, SLICE_ARG(id));
    r->body = slice_of(r->text, (size_t)len);
    int digits = snprintf(r->text + len, 8, "%d", len);
    return slice_of(r->text + len, (size_t)digits);
}

void
reply_make(struct reply *r, enum reason why, unsigned status, struct slice id)
{
    r->head = (struct http_msg){.status = (uint16_t)status,
                                .minor = 1,
                                .body = HTTP_BODY_LENGTH,
                                .fields = r->fields,
                                .max_fields = REPLY_FIELDS};
    struct slice length = write_text(r, why, id);
    r->head.length = r->body.len;
    add(r, SLICE("Date"), date_now());
    add(r, SLICE("Content-Type"), SLICE("text/plain; charset=utf-8"));
    add(r, SLICE("Content-Length"), length);
    add(r, SLICE("Cache-Control"), SLICE("no-store"));
    add(r, SLICE("X-Request-ID"), id);
    add_for_status(r);
}

/* A client of gRPC is told by fields alone. */
static void
make_grpc(struct reply *r, const struct stream *s, enum reason why)
{
    _Static_assert(REPLY_TEXT >= GRPC_FAILURE_TEXT, "its fields point into text");
    r->head = (struct http_msg){
        .status = s->status, .minor = 1, .fields = r->fields, .max_fields = REPLY_FIELDS};
    r->body = SLICE("");
    add(r, SLICE("Date"), date_now());
    add(r, SLICE("Content-Type"), SLICE("application/grpc"));
    grpc_put_failure(&r->fields[r->head.nfields], r->text, why);
    r->head.nfields += GRPC_FAILURE_FIELDS;
    add(r, SLICE("X-Request-ID"), s->http->request_id);
    if (!s->is_http2) {
        add(r, SLICE("Content-Length"), SLICE("0")); /* HTTP/1 has no other way to say it */
    }
}

void
reply_make_for(struct reply *r, struct stream *s, enum reason why)
{
    forward_make_id(s);
    if (s->is_grpc) {
        make_grpc(r, s, why);
    } else {
        reply_make(r, why, s->status, s->http->request_id);
    }
    if (why == REASON_rate_limited) {
        limit_put_fields(s, &r->head);
    }
}

void
reply_make_own(struct reply *r, struct stream *s, unsigned status, struct slice body)
{
    bool has_length = status != 204 && status != 304;
    r->head = (struct http_msg){.status = (uint16_t)status,
                                .minor = 1,
                                .phrase = http_status_phrase((int)status),
                                .fields = r->fields,
                                .max_fields = REPLY_FIELDS};
    r->body = body;
    forward_make_id(s);
    add(r, SLICE("Date"), date_now());
    add(r, SLICE("X-Request-ID"), s->http->request_id);
    if (body.len > 0) {
        add(r, SLICE("Content-Type"), SLICE("text/plain; charset=utf-8"));
    }
    if (has_length) {
        int digits = snprintf(r->text, sizeof(r->text), "%zu", body.len);
        add(r, SLICE("Content-Length"), slice_of(r->text, (size_t)digits));
    }
    if (body.len > 0 && s->http->req.method != HTTP_HEAD) {
        r->head.body = HTTP_BODY_LENGTH;
        r->head.length = body.len;
    }
    limit_put_fields(s, &r->head);
}

size_t
reply_write_http1(char *out, const struct reply *r, bool is_close, bool is_head)
{
    char *end = out + snprintf(out, REPLY_MAX, "HTTP/1.1 %u %.*s\r\n", r->head.status,
                               SLICE_ARG(http_status_phrase(r->head.status)));
    end = http1_put_fields(end, &r->head);
    if (is_close) {
        end = http1_put_slice(end, SLICE("Connection: close\r\n"));
    }
    end = http1_put_slice(end, SLICE("\r\n"));
    if (!is_head) {
        end = http1_put_slice(end, r->body);
    }
    return (size_t)(end - out);
}
