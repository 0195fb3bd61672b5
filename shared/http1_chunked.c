/* SPDX-License-Identifier: Apache-2.0
 *
 * http1_chunked.c - chunked bodies (RFC 9112 7.1), read without copying and written.
 *
 * Stricter than heads: a line of chunk framing ends in CRLF and in nothing else, nothing but an
 * extension may follow the size, and a size has at most 16 digits and 63 bits.
 */
#include "shared/http1.h"

#include "shared/http_chars.h"

enum chunk_state {
    CHUNK_SIZE,      /* first digit of a size */
    CHUNK_SIZE_MORE, /* more digits, ';' or CR */
    CHUNK_EXT,       /* an extension, up to CR */
    CHUNK_SIZE_LF,   /* the LF of the size's line */
    CHUNK_BYTES,     /* left bytes of content */
    CHUNK_CR,        /* the CR behind the content */
    CHUNK_LF,        /* its LF */
    CHUNK_END,       /* the last chunk has passed: the trailer section is not ours */
    CHUNK_BROKEN     /* for good */
};

#define SIZE_DIGITS_MAX 16
#define SIZE_MAX_VALUE  ((uint64_t)INT64_MAX)

static enum chunk_state
add_digit(struct http1_chunked *d, char c)
{
    if (d->digits == SIZE_DIGITS_MAX || d->left > (SIZE_MAX_VALUE >> 4)) {
        return CHUNK_BROKEN;
    }
    d->left = d->left * 16 + http_hex_digit(c);
    d->digits++;
    return CHUNK_SIZE_MORE;
}

static enum chunk_state
after_digit(struct http1_chunked *d, char c)
{
    if (http_char_is(c, HTTP_C_HEX)) {
        return add_digit(d, c);
    }
    if (c == '\r') {
        return CHUNK_SIZE_LF;
    }
    if (c == ';' && d->ext_bytes < HTTP1_CHUNK_EXT_MAX) {
        d->ext_bytes++;
        return CHUNK_EXT;
    }
    return CHUNK_BROKEN;
}

static enum chunk_state
in_extension(struct http1_chunked *d, char c)
{
    if (c == '\r') {
        return CHUNK_SIZE_LF;
    }
    if (!http_char_is(c, HTTP_C_VALUE) || d->ext_bytes >= HTTP1_CHUNK_EXT_MAX) {
        return CHUNK_BROKEN;
    }
    d->ext_bytes++;
    return CHUNK_EXT;
}

static enum chunk_state
after_size(struct http1_chunked *d, char c)
{
    if (c != '\n') {
        return CHUNK_BROKEN;
    }
    d->digits = 0;
    return d->left > 0 ? CHUNK_BYTES : CHUNK_END;
}

/* One byte of framing moves the state. */
static enum chunk_state
next_state(struct http1_chunked *d, char c)
{
    switch ((enum chunk_state)d->state) {
    case CHUNK_SIZE: return http_char_is(c, HTTP_C_HEX) ? add_digit(d, c) : CHUNK_BROKEN;
    case CHUNK_SIZE_MORE: return after_digit(d, c);
    case CHUNK_EXT: return in_extension(d, c);
    case CHUNK_SIZE_LF: return after_size(d, c);
    case CHUNK_CR: return c == '\r' ? CHUNK_LF : CHUNK_BROKEN;
    case CHUNK_LF: return c == '\n' ? CHUNK_SIZE : CHUNK_BROKEN;
    default: return CHUNK_BROKEN;
    }
}

static enum http1_chunk_result
take_bytes(struct http1_chunked *d, struct slice *in, struct slice *data)
{
    size_t len = in->len < d->left ? in->len : (size_t)d->left;
    *data = slice_of(in->ptr, len);
    *in = slice_of(in->ptr + len, in->len - len);
    d->left -= len;
    if (d->left == 0) {
        d->state = CHUNK_CR;
    }
    return HTTP1_CHUNK_DATA;
}

enum http1_chunk_result
http1_chunked_next(struct http1_chunked *d, struct slice *in, struct slice *data)
{
    for (;;) {
        if (d->state == CHUNK_END) {
            return HTTP1_CHUNK_TRAILER;
        }
        if (d->state == CHUNK_BROKEN) {
            return HTTP1_CHUNK_BAD;
        }
        if (in->len == 0) {
            return HTTP1_CHUNK_MORE;
        }
        if (d->state == CHUNK_BYTES) {
            return take_bytes(d, in, data);
        }
        d->state = (uint8_t)next_state(d, in->ptr[0]);
        *in = slice_of(in->ptr + 1, in->len - 1);
    }
}

size_t
http1_write_chunk_size(uint64_t size, char *buf)
{
    int digits = 1;
    while (digits < SIZE_DIGITS_MAX && (size >> (4 * digits)) != 0) {
        digits++;
    }
    for (int i = 0; i < digits; i++) {
        buf[i] = "0123456789abcdef"[(size >> (4 * (digits - 1 - i))) & 0xf];
    }
    memcpy(buf + digits, "\r\n", 2);
    return (size_t)digits + 2;
}
