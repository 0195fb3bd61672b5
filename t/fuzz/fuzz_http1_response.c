/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_http1_response.c - response heads and trailer sections. The first byte says which method was
 * asked with, or that the rest is a trailer section.
 */
#include "shared/http1.h"
#include "t/fuzz/fuzz.h"

#define MAX_FIELDS 20
#define TRAILERS   '#'

static const struct http_limits limits = {2048, MAX_FIELDS};
static struct http_field fields[MAX_FIELDS];

static int
parse(char kind, const char *buf, size_t len, struct http_msg *m)
{
    *m = (struct http_msg){.fields = fields, .max_fields = MAX_FIELDS};
    if (kind == TRAILERS) {
        return http1_parse_trailers(buf, len, &limits, m);
    }
    enum http_method method = kind == 'H' ? HTTP_HEAD : kind == 'C' ? HTTP_CONNECT : HTTP_GET;
    return http1_parse_response(buf, len, &limits, method, m);
}

static void
check_prefixes(char kind, const char *buf, size_t len, int whole)
{
    for (size_t cut = 0; cut < len; cut += 1 + cut / 8) {
        struct http_msg m;
        char *copy = fuzz_exact_copy(buf, cut);
        int result = parse(kind, copy, cut, &m);
        bool is_behind_head = whole > 0 && cut >= (size_t)whole;
        FUZZ_EXPECT(result == (is_behind_head ? whole : 0) || (whole < 0 && result < 0));
        free(copy);
    }
}

static void
check_framing(const struct http_msg *m, char kind)
{
    const struct http_field *length = http_msg_find(m, HTTP_FIELD_CONTENT_LENGTH);
    const struct http_field *coding = http_msg_find(m, HTTP_FIELD_TRANSFER_ENCODING);
    FUZZ_EXPECT(m->status >= 100 && m->status <= 599 && http_is_field_value(m->phrase));
    FUZZ_EXPECT(!length || !coding);
    FUZZ_EXPECT(m->body != HTTP_BODY_CHUNKED || (coding && m->minor == 1));
    FUZZ_EXPECT(m->body != HTTP_BODY_LENGTH || (length && m->length > 0));
    FUZZ_EXPECT(m->body != HTTP_BODY_CLOSE || (!length && !coding && !m->is_keep_alive));
    if (m->status < 200 || m->status == 204 || m->status == 304 || kind == 'H') {
        FUZZ_EXPECT(m->body == HTTP_BODY_NONE);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0) {
        return 0;
    }
    struct http_msg m;
    char kind = (char)bytes[0];
    size_t rest = len - 1;
    char *buf = fuzz_exact_copy(bytes + 1, rest);
    check_prefixes(kind, buf, rest, parse(kind, buf, rest, &m));
    int head = parse(kind, buf, rest, &m);
    if (head > 0) {
        for (size_t i = 0; i < m.nfields; i++) {
            FUZZ_EXPECT(http_is_token(m.fields[i].name));
            FUZZ_EXPECT(http_is_field_value(m.fields[i].value));
        }
        if (kind != TRAILERS) {
            FUZZ_EXPECT(http1_head_end(buf, rest, 0) == (size_t)head);
            check_framing(&m, kind);
            http_strip_hop_by_hop(&m);
            FUZZ_EXPECT(!http_msg_find(&m, HTTP_FIELD_TRANSFER_ENCODING));
        }
    }
    free(buf);
    return 0;
}
