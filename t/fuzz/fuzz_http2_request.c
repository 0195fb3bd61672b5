/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_http2_request.c - field blocks of requests. What is accepted is, written as HTTP/1, exactly
 * one request with the same meaning; and written as HTTP/2 it becomes the same again.
 */
#include "t/fuzz/http2_block.h"

#define FLAG_LAST 1

static char text[BLOCK_TEXT];
static struct http_field fields[BLOCK_FIELDS + 4];

static size_t
write_http1(const struct http_msg *m)
{
    char *out = text_put(text, m->method_text);
    out = text_put(out, SLICE(" "));
    out = text_put(out, m->target);
    out = text_put(out, SLICE(" HTTP/1.1\r\n"));
    out = text_put_fields(out, m);
    if (m->body == HTTP_BODY_CHUNKED) {
        out = text_put(out, SLICE("Transfer-Encoding: chunked\r\n"));
    }
    if (m->upgrade.len > 0) {
        out = text_put(out, SLICE("Connection: upgrade\r\nUpgrade: "));
        out = text_put(out, m->upgrade);
        out = text_put(out, SLICE("\r\n"));
    }
    return (size_t)(text_put(out, SLICE("\r\n")) - text);
}

static void
check_as_http1(const struct http_msg *m)
{
    struct http_msg again = {.fields = fields, .max_fields = BLOCK_FIELDS + 4};
    size_t len = write_http1(m);
    size_t extra = (m->body == HTTP_BODY_CHUNKED) + (m->upgrade.len > 0 ? 2u : 0u);
    char *copy = fuzz_exact_copy(text, len);
    FUZZ_EXPECT(http1_parse_request(copy, len, &text_limits, &again) == (int)len);
    FUZZ_EXPECT(again.method == m->method && slice_eq(again.method_text, m->method_text));
    FUZZ_EXPECT(slice_eq(again.target, m->target) && slice_eq(again.path, m->path));
    FUZZ_EXPECT(slice_eq(again.authority, m->authority));
    FUZZ_EXPECT(slice_eq(again.upgrade, m->upgrade));
    FUZZ_EXPECT(again.body == m->body);
    FUZZ_EXPECT(again.body != HTTP_BODY_LENGTH || again.length == m->length);
    FUZZ_EXPECT(again.is_keep_alive && again.scheme.len == 0);
    block_expect_fields(m, &again, extra);
    free(copy);
}

/* What was put, given again. */
static void
block_give_put(struct http2_head *h, const nghttp2_nv *nv, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        block_give(h, slice_of((const char *)nv[i].name, nv[i].namelen),
                   slice_of((const char *)nv[i].value, nv[i].valuelen),
                   nv[i].flags & NGHTTP2_NV_FLAG_NO_INDEX);
    }
}

static void
check_as_http2(const struct http_msg *first, bool is_last)
{
    static nghttp2_nv put[BLOCK_FIELDS + 1 + HTTP2_PUT_EXTRA];
    static char keep[BLOCK_MEMORY];
    struct http_msg m = *first;
    struct http2_head h;
    FUZZ_EXPECT(
        http_strip_hop_by_hop(&m)); /* "te" alone is one: it is written from what was seen */
    size_t n = http2_put_request(&m, SLICE("http"), put);
    FUZZ_EXPECT(n <= http2_put_max(&m));
    /* The message lies in the memory that the second one takes: copy what is given. */
    char *at = keep;
    for (size_t i = 0; i < n; i++) {
        put[i].name = memcpy(at, put[i].name, put[i].namelen);
        at += put[i].namelen;
        put[i].value = memcpy(at, put[i].value, put[i].valuelen);
        at += put[i].valuelen;
    }
    struct http_limits more = {block_limits.header_bytes * 2, BLOCK_FIELDS + 4};
    uint8_t method = m.method, body = m.body;
    uint16_t seen = m.seen;
    block_memory.used = 0;
    http2_head_begin(&h, HTTP2_REQUEST, &more, block_alloc, &block_memory);
    block_give_put(&h, put, n);
    FUZZ_EXPECT(http2_head_end_request(&h, is_last) == REASON_none);
    FUZZ_EXPECT(h.m.method == method && h.m.body == body && h.m.seen == seen);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct http2_head h;
    if (len == 0) {
        return 0;
    }
    bool is_last = bytes[0] & FLAG_LAST;
    block_begin(&h, HTTP2_REQUEST);
    block_read(&h, bytes + 1, len - 1);
    enum reason why = http2_head_end_request(&h, is_last);
    FUZZ_EXPECT(why == REASON_none || why == REASON_bad_request || why == REASON_uri_too_long ||
                why == REASON_header_too_large);
    if (why == REASON_none) {
        check_as_http1(&h.m);
        check_as_http2(&h.m, is_last);
    }
    return 0;
}
