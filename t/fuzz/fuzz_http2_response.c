/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_http2_response.c - field blocks of answers and of trailers. What is accepted is, written as
 * HTTP/1, exactly one answer with the same meaning; trailers hold nothing that may not be there.
 */
#include "t/fuzz/http2_block.h"

#define FLAG_LAST     1
#define FLAG_HEAD     2
#define FLAG_TRAILERS 4
#define FLAG_UPGRADE  8

static char text[BLOCK_TEXT];
static struct http_field fields[BLOCK_FIELDS + 4];

static size_t
write_http1(const struct http_msg *m)
{
    char status[3];
    nghttp2_nv put[BLOCK_FIELDS + HTTP2_PUT_EXTRA];
    char *out = text_put(text, SLICE("HTTP/1.1 "));
    http2_put_response(m, status, put);
    out = text_put(out, m->status == 101 ? SLICE("101") : slice_of(status, 3));
    out = text_put(out, SLICE(" "));
    out = text_put(out, m->phrase);
    out = text_put(out, SLICE("\r\n"));
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

/* HTTP/1 frames by length or by the end of the connection what HTTP/2 has ended with the head. */
static void
check_body(const struct http_msg *m, const struct http_msg *again, bool is_last)
{
    if (is_last) {
        FUZZ_EXPECT(m->body == HTTP_BODY_NONE);
        FUZZ_EXPECT(again->body == HTTP_BODY_NONE || again->body == HTTP_BODY_CLOSE);
        return;
    }
    FUZZ_EXPECT(again->body == m->body);
    FUZZ_EXPECT(again->body != HTTP_BODY_LENGTH || again->length == m->length);
}

static void
check_as_http1(const struct http_msg *m, enum http_method method, bool is_last)
{
    struct http_msg again = {.fields = fields, .max_fields = BLOCK_FIELDS + 4};
    size_t len = write_http1(m);
    size_t extra = (m->body == HTTP_BODY_CHUNKED) + (m->upgrade.len > 0 ? 2u : 0u);
    char *copy = fuzz_exact_copy(text, len);
    FUZZ_EXPECT(http1_parse_response(copy, len, &text_limits, method, &again) == (int)len);
    FUZZ_EXPECT(again.status == m->status && slice_eq(again.upgrade, m->upgrade));
    check_body(m, &again, is_last);
    block_expect_fields(m, &again, extra);
    free(copy);
}

static void
check_trailers(const struct http_msg *m)
{
    struct http_msg again = {.fields = fields, .max_fields = BLOCK_FIELDS + 4};
    char *end = text_put(text_put_fields(text, m), SLICE("\r\n"));
    size_t len = (size_t)(end - text);
    FUZZ_EXPECT(http1_parse_trailers(text, len, &text_limits, &again) == (int)len);
    block_expect_fields(m, &again, 0);
    for (size_t i = 0; i < m->nfields; i++) {
        FUZZ_EXPECT(http_is_trailer_allowed(&m->fields[i]));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct http2_head h;
    if (len == 0) {
        return 0;
    }
    bool is_last = bytes[0] & FLAG_LAST;
    bool is_trailers = bytes[0] & FLAG_TRAILERS;
    enum http_method method = bytes[0] & FLAG_HEAD ? HTTP_HEAD : HTTP_GET;
    struct slice upgrade = bytes[0] & FLAG_UPGRADE ? SLICE("websocket") : SLICE("");
    block_begin(&h, is_trailers ? HTTP2_TRAILERS : HTTP2_RESPONSE);
    block_read(&h, bytes + 1, len - 1);
    enum reason why = is_trailers ? http2_head_end_trailers(&h, is_last)
                                  : http2_head_end_response(&h, is_last, method, upgrade);
    FUZZ_EXPECT(why == REASON_none || why == REASON_bad_response ||
                (is_trailers && why == REASON_header_too_large));
    if (why == REASON_none && is_trailers) {
        check_trailers(&h.m);
    } else if (why == REASON_none) {
        check_as_http1(&h.m, method, is_last);
    }
    return 0;
}
