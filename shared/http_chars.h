/* SPDX-License-Identifier: Apache-2.0
 *
 * http_chars.h - the classes of bytes that HTTP's grammar is made of, one table for all of them.
 *
 * For the parsers of shared/ only. One look-up decides about a byte, whatever the class.
 */
#ifndef SHARED_HTTP_CHARS_H
#define SHARED_HTTP_CHARS_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define HTTP_C_TOKEN  0x01 /* tchar (RFC 9110 5.6.2) */
#define HTTP_C_VALUE  0x02 /* VCHAR, SP, HTAB, obs-text (RFC 9110 5.5) */
#define HTTP_C_TARGET 0x04 /* visible ASCII except '#' */
#define HTTP_C_HOST   0x08 /* reg-name without pct-encoded and ',' : see http_is_authority */
#define HTTP_C_DIGIT  0x10
#define HTTP_C_HEX    0x20

extern const uint8_t http_chars[256];

static inline bool
http_char_is(char c, uint8_t class)
{
    return (http_chars[(uint8_t)c] & class) != 0;
}

/* Optional white space (RFC 9110 5.6.3). */
static inline bool
http_char_is_ows(char c)
{
    return c == ' ' || c == '\t';
}

/* The first byte of [p, end) that is not of the class, or end. */
static inline const char *
http_chars_skip(const char *p, const char *end, uint8_t class)
{
    while (p < end && http_char_is(*p, class)) {
        p++;
    }
    return p;
}

/* The value of a byte of HTTP_C_HEX. */
static inline unsigned
http_hex_digit(char c)
{
    return (c & 0x0f) + ((c & 0x40) ? 9 : 0);
}

/* 8 bytes as a number whose lowest byte is the first one. */
static inline uint64_t
http_chars_load(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    return le64toh(word);
}

/* High bits at bytes that are control characters, HTAB included. The lowest one is exact; there may
 * be false ones above it. */
static inline uint64_t
http_chars_controls(uint64_t word)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t below_space = (word - ones * 0x20) & ~word;
    uint64_t del = word ^ (ones * 0x7f);
    return (below_space | ((del - ones) & ~del)) & (ones * 0x80);
}

/* As http_chars_skip for HTTP_C_VALUE, 8 bytes at a time. */
static inline const char *
http_chars_skip_value(const char *p, const char *end)
{
    while (end - p >= 8) {
        uint64_t hits = http_chars_controls(http_chars_load(p));
        if (hits == 0) {
            p += 8;
            continue;
        }
        p += __builtin_ctzll(hits) / 8;
        if (*p != '\t') {
            return p;
        }
        p++;
    }
    return http_chars_skip(p, end, HTTP_C_VALUE);
}

/* Lower case for 8 bytes at once: right for letters, digits and '-', and no other byte becomes one
 * of these (0x20 is added only to bytes that have 0x40). */
static inline uint64_t
http_chars_lower(uint64_t word)
{
    return word | ((word & UINT64_C(0x4040404040404040)) >> 1);
}

#endif
