/* SPDX-License-Identifier: Apache-2.0
 *
 * reply.c - error answers: see reply.h.
 */
#include "worker/reply.h"

#include <stdio.h>

#include "conf/page.h"
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

/* Fields that a status requires (RFC 9110 10.2.1, 10.2.3). Health and limits change within seconds;
 * a rate limit knows better, and says so itself. */
static void
add_for_status(struct reply *r, enum reason why)
{
    if (r->head.status == 405) {
        add(r, SLICE("Allow"), SLICE("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"));
    } else if (r->head.status == 503 && why != REASON_rate_limited) {
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

static void
make_text(struct reply *r, enum reason why, unsigned status, struct slice id)
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
    add_for_status(r, why);
}

/* ---- pages ---- */

#define TYPE_AT   1 /* where make_text() has put these fields */
#define LENGTH_AT 2

static struct page_facts
facts_of(const struct reply *r, enum reason why, struct slice id)
{
    return (struct page_facts){.status = r->head.status,
                               .reason = slice_from_str(reason_table[why].token),
                               .request_id = id};
}

/* The page, written into room, takes the place of the text. */
static void
put_page(struct reply *r, const struct conf_page *page, const struct page_facts *facts, char *room)
{
    r->body = slice_of(room, (size_t)(page_write(page, facts, room) - room));
    r->head.length = r->body.len;
    int digits = snprintf(r->text, sizeof(r->text), "%zu", r->body.len);
    r->fields[TYPE_AT].value = slice_from_str(page->type);
    r->fields[LENGTH_AT].value = slice_of(r->text, (size_t)digits);
}

void
reply_make_early(struct reply *r, const struct conf_listener *l, enum reason why, struct slice id)
{
    static char room[PAGE_BYTES_MAX + PAGE_WORDS_MAX * STREAM_ID_LEN];
    unsigned status = (unsigned)reason_table[why].status;
    make_text(r, why, status, id);
    const struct conf_page *page = page_find(l, status);
    struct page_facts facts = facts_of(r, why, id);
    if (page && page_size(page, &facts) <= sizeof(room)) {
        put_page(r, page, &facts, room);
    }
}

static void
make_for_http(struct reply *r, struct stream *s, enum reason why)
{
    make_text(r, why, s->status, s->http->request_id);
    const struct conf_page *page = page_find(s->conf_listener, s->status);
    if (page) {
        struct page_facts facts = facts_of(r, why, s->http->request_id);
        char *room = stream_alloc(s, page_size(page, &facts) + 1);
        if (room) {
            put_page(r, page, &facts, room);
        }
    }
}

/* ---- gRPC ---- */

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
        make_for_http(r, s, why);
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

/* Does it lie in the reply, with what goes before it? */
static bool
is_own_text(const struct reply *r)
{
    return r->body.ptr == r->text;
}

static size_t
write_http1(char *out, const struct reply *r, bool is_close, bool is_head)
{
    char *end = out + snprintf(out, REPLY_MAX, "HTTP/1.1 %u %.*s\r\n", r->head.status,
                               SLICE_ARG(http_status_phrase(r->head.status)));
    end = http1_put_fields(end, &r->head);
    if (is_close) {
        end = http1_put_slice(end, SLICE("Connection: close\r\n"));
    }
    end = http1_put_slice(end, SLICE("\r\n"));
    if (!is_head && is_own_text(r)) {
        end = http1_put_slice(end, r->body);
    }
    return (size_t)(end - out);
}

void
reply_put_http1(struct conn *c, const struct reply *r, bool is_close, bool is_head)
{
    char head[REPLY_MAX];
    conn_put_copy(c, head, write_http1(head, r, is_close, is_head));
    if (!is_head && !is_own_text(r)) {
        conn_put(c, r->body.ptr, r->body.len);
        conn_flush(c); /* it does not stay there */
    }
}
