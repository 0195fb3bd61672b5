/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_http1_chunked.c - chunked bodies. However the bytes are cut into pieces, the body is the
 * same; and what is decoded, written again, decodes to itself.
 */
#include "shared/http1.h"
#include "t/fuzz/fuzz.h"

struct decoded {
    enum http1_chunk_result result;
    char *body;
    size_t len;
    size_t used; /* bytes read of the input */
};

/* Feed the bytes in pieces of step. The body is the caller's to free. */
static struct decoded
decode(const char *bytes, size_t len, size_t step)
{
    struct http1_chunked d = {0};
    struct decoded out = {.result = HTTP1_CHUNK_MORE, .body = malloc(len + 1)};
    FUZZ_EXPECT(out.body != NULL);
    while (out.result == HTTP1_CHUNK_MORE && out.used < len) {
        size_t size = len - out.used < step ? len - out.used : step;
        char *piece = fuzz_exact_copy(bytes + out.used, size);
        struct slice in = slice_of(piece, size);
        struct slice part;
        while ((out.result = http1_chunked_next(&d, &in, &part)) == HTTP1_CHUNK_DATA) {
            FUZZ_EXPECT(part.len > 0 && part.ptr + part.len == in.ptr);
            memcpy(out.body + out.len, part.ptr, part.len);
            out.len += part.len;
        }
        FUZZ_EXPECT(out.result != HTTP1_CHUNK_MORE || in.len == 0);
        FUZZ_EXPECT(d.ext_bytes <= HTTP1_CHUNK_EXT_MAX);
        out.used += size - in.len;
        free(piece);
    }
    return out;
}

static void
check_written_again(const struct decoded *body)
{
    char *wire = malloc(body->len + 64);
    FUZZ_EXPECT(wire != NULL);
    size_t len = 0;
    if (body->len > 0) {
        len = http1_write_chunk_size(body->len, wire);
        memcpy(wire + len, body->body, body->len);
        len += body->len;
        memcpy(wire + len, "\r\n", 2);
        len += 2;
    }
    len += http1_write_chunk_size(0, wire + len);
    struct decoded again = decode(wire, len, len);
    FUZZ_EXPECT(again.result == HTTP1_CHUNK_TRAILER && again.used == len);
    FUZZ_EXPECT(again.len == body->len && memcmp(again.body, body->body, body->len) == 0);
    free(again.body);
    free(wire);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static const size_t steps[] = {1, 2, 3, 7, 64};
    const char *text = (const char *)bytes;
    struct decoded whole = decode(text, len, len);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct decoded cut = decode(text, len, steps[i]);
        FUZZ_EXPECT(cut.result == whole.result && cut.used == whole.used);
        FUZZ_EXPECT(cut.len == whole.len && memcmp(cut.body, whole.body, whole.len) == 0);
        free(cut.body);
    }
    check_written_again(&whole);
    free(whole.body);
    return 0;
}
