/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_http1_request.c - request heads. What is accepted must be strict when it is written again,
 * and must not depend on how many of its bytes had come.
 */
#include "shared/http1.h"
#include "t/fuzz/fuzz.h"

#define MAX_FIELDS 20

static const struct http_limits limits = {2048, MAX_FIELDS};
static struct http_field fields[MAX_FIELDS];

static int
parse(const char *buf, size_t len, struct http_msg *m)
{
    *m = (struct http_msg){.fields = fields, .max_fields = MAX_FIELDS};
    return http1_parse_request(buf, len, &limits, m);
}

/* Every beginning of the head is incomplete when the whole is good. */
static void
check_prefixes(const char *buf, size_t len, int whole)
{
    for (size_t cut = 0; cut < len; cut += 1 + cut / 8) {
        struct http_msg m;
        char *copy = fuzz_exact_copy(buf, cut);
        int result = parse(copy, cut, &m);
        bool is_behind_head = whole > 0 && cut >= (size_t)whole;
        FUZZ_EXPECT(result == (is_behind_head ? whole : 0) || (whole < 0 && result < 0));
        free(copy);
    }
}

static void
check_target(const struct http_msg *m)
{
    FUZZ_EXPECT(http_is_token(m->method_text) && http_is_target(m->target));
    FUZZ_EXPECT(m->minor == 0 || m->authority.len > 0);
    FUZZ_EXPECT(http_is_authority(m->authority, m->minor == 0));
    if (m->method != HTTP_CONNECT) {
        FUZZ_EXPECT(m->target.ptr[0] == '/' || slice_eq(m->target, SLICE("*")));
        FUZZ_EXPECT(slice_starts_with(m->target, m->path) &&
                    !memchr(m->path.ptr, '?', m->path.len));
    }
}

static void
check_field(const struct http_field *f)
{
    FUZZ_EXPECT(http_is_token(f->name) && http_is_field_value(f->value));
    FUZZ_EXPECT(f->id == http_field_find_id(f->name));
    FUZZ_EXPECT(f->value.len == 0 || (!strchr(" \t", f->value.ptr[0]) &&
                                      !strchr(" \t", f->value.ptr[f->value.len - 1])));
    if (f->is_plain) {
        FUZZ_EXPECT(memcmp(f->name.ptr + f->name.len, ": ", 2) == 0);
        FUZZ_EXPECT(f->value.ptr == f->name.ptr + f->name.len + 2);
        FUZZ_EXPECT(memcmp(f->value.ptr + f->value.len, "\r\n", 2) == 0);
    }
}

/* A body is framed in one way only, told by fields that say nothing else. */
static void
check_framing(const struct http_msg *m)
{
    const struct http_field *length = http_msg_find(m, HTTP_FIELD_CONTENT_LENGTH);
    const struct http_field *coding = http_msg_find(m, HTTP_FIELD_TRANSFER_ENCODING);
    FUZZ_EXPECT(!length || !coding);
    FUZZ_EXPECT(m->body != HTTP_BODY_CLOSE);
    FUZZ_EXPECT((m->body == HTTP_BODY_CHUNKED) == (coding != NULL));
    FUZZ_EXPECT(!coding || slice_eq_nocase(coding->value, SLICE("chunked")));
    FUZZ_EXPECT((m->body == HTTP_BODY_LENGTH) == (length && m->length > 0));
    FUZZ_EXPECT(m->length <= INT64_MAX);
}

static void
check_path(struct slice path)
{
    char *out = malloc(path.len + 1);
    struct slice once;
    struct slice twice;
    FUZZ_EXPECT(out != NULL);
    if (path.len > 0 && http_path_normalize(path, out, &once)) {
        char *copy = fuzz_exact_copy(once.ptr, once.len);
        FUZZ_EXPECT(once.len > 0 && once.ptr[0] == path.ptr[0]);
        FUZZ_EXPECT(http_path_normalize(slice_of(copy, once.len), out, &twice));
        FUZZ_EXPECT(twice.ptr == copy && twice.len == once.len);
        free(copy);
    }
    free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct http_msg m;
    char *buf = fuzz_exact_copy(bytes, len);
    check_prefixes(buf, len, parse(buf, len, &m));
    int head = parse(buf, len, &m);
    if (head > 0) {
        FUZZ_EXPECT(http1_head_end(buf, len, 0) == (size_t)head);
        check_target(&m);
        check_path(m.path);
        check_framing(&m);
        for (size_t i = 0; i < m.nfields; i++) {
            check_field(&m.fields[i]);
        }
        if (http_strip_hop_by_hop(&m) && m.minor > 0) {
            FUZZ_EXPECT(http_msg_find(&m, HTTP_FIELD_HOST) != NULL);
        }
        FUZZ_EXPECT(!http_msg_find(&m, HTTP_FIELD_CONNECTION));
    }
    free(buf);
    return 0;
}
