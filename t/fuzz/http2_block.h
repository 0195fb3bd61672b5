/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_block.h - what the fuzz targets of HTTP/2 field blocks share.
 *
 * Input: a byte of flags, then fields: length of the name, length of the value (high bit of the
 * first: never indexed), name, value.
 */
#ifndef T_FUZZ_HTTP2_BLOCK_H
#define T_FUZZ_HTTP2_BLOCK_H

#include "shared/http1.h"
#include "shared/http2.h"
#include "t/fuzz/fuzz.h"

#define BLOCK_FIELDS 20
#define BLOCK_MEMORY 65536
#define BLOCK_TEXT   65536

static const struct http_limits block_limits = {4096, BLOCK_FIELDS};
/* HTTP/1 has one field more, for :authority, and writes what stands for one in more bytes. */
static const struct http_limits text_limits = {BLOCK_TEXT, BLOCK_FIELDS + 4};

static struct {
    size_t used;
    _Alignas(16) char bytes[BLOCK_MEMORY];
} block_memory;

static void *
block_alloc(void *owner, size_t len)
{
    size_t begin = (block_memory.used + 15) & ~(size_t)15;
    FUZZ_EXPECT(owner == &block_memory);
    if (begin + len > BLOCK_MEMORY) {
        return NULL;
    }
    block_memory.used = begin + len;
    return block_memory.bytes + begin;
}

static void
block_begin(struct http2_head *h, enum http2_block kind)
{
    block_memory.used = 0;
    http2_head_begin(h, kind, &block_limits, block_alloc, &block_memory);
}

/* Once refused, always refused, for the same reason. */
static void
block_give(struct http2_head *h, struct slice name, struct slice value, bool never_index)
{
    enum reason before = (enum reason)h->why;
    char *name_copy = fuzz_exact_copy(name.ptr, name.len);
    char *value_copy = fuzz_exact_copy(value.ptr, value.len);
    enum reason why = http2_head_field(h, slice_of(name_copy, name.len),
                                       slice_of(value_copy, value.len), never_index);
    FUZZ_EXPECT(before == REASON_none || why == before);
    free(name_copy);
    free(value_copy);
}

static void
block_read(struct http2_head *h, const uint8_t *bytes, size_t len)
{
    while (len >= 2) {
        size_t name = bytes[0] & 0x7fu;
        size_t value = bytes[1];
        bool never_index = (bytes[0] & 0x80) != 0;
        bytes += 2;
        len -= 2;
        name = name < len ? name : len;
        value = value < len - name ? value : len - name;
        block_give(h, slice_of((const char *)bytes, name),
                   slice_of((const char *)bytes + name, value), never_index);
        bytes += name + value;
        len -= name + value;
    }
}

static char *
text_put(char *out, struct slice s)
{
    if (s.len > 0) {
        memcpy(out, s.ptr, s.len);
    }
    return out + s.len;
}

static char *
text_put_fields(char *out, const struct http_msg *m)
{
    for (size_t i = 0; i < m->nfields; i++) {
        out = text_put(out, m->fields[i].name);
        out = text_put(out, SLICE(": "));
        out = text_put(out, m->fields[i].value);
        out = text_put(out, SLICE("\r\n"));
    }
    return out;
}

/* The fields of a that b must have, too, in the same order; b may have extra ones at its end. */
static void
block_expect_fields(const struct http_msg *a, const struct http_msg *b, size_t extra)
{
    FUZZ_EXPECT(a->nfields + extra == b->nfields);
    for (size_t i = 0; i < a->nfields; i++) {
        FUZZ_EXPECT(slice_eq(a->fields[i].name, b->fields[i].name));
        FUZZ_EXPECT(slice_eq(a->fields[i].value, b->fields[i].value));
        FUZZ_EXPECT(a->fields[i].id == b->fields[i].id);
    }
}

#endif
