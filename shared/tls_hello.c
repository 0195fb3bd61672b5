/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_hello.c - reading a ClientHello: see tls_hello.h.
 *
 * What the records carry is put together first; then it is one text of lengths and bytes, each of
 * which must end where what it is in ends.
 */
#include "shared/tls_hello.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define RECORD_HEADER     5
#define RECORD_HANDSHAKE  22
#define RECORD_BYTES_MAX  16384
#define MESSAGE_HEADER    4
#define CLIENT_HELLO      1
#define RANDOM_BYTES      32
#define SESSION_BYTES_MAX 32
#define EXTENSION_NAME    0
#define NAME_IS_HOST      0

/* ---- bytes with lengths before them ---- */

struct reader {
    struct slice left;
    const char *why; /* NULL: all is well so far */
};

static struct slice
take(struct reader *r, size_t len)
{
    if (r->why || len > r->left.len) {
        r->why = r->why ? r->why : "a length is beyond the end of the ClientHello";
        return slice_of("", 0);
    }
    struct slice taken = slice_of(r->left.ptr, len);
    r->left = slice_of(r->left.ptr + len, r->left.len - len);
    return taken;
}

static size_t
take_number(struct reader *r, size_t width)
{
    struct slice bytes = take(r, width);
    size_t number = 0;
    for (size_t i = 0; i < bytes.len; i++) {
        number = number << 8 | (uint8_t)bytes.ptr[i];
    }
    return number;
}

/* What has its length, of that many bytes, before it. */
static struct slice
take_counted(struct reader *r, size_t width)
{
    return take(r, take_number(r, width));
}

static void
expect(struct reader *r, bool is_so, const char *why)
{
    if (!r->why && !is_so) {
        r->why = why;
    }
}

/* ---- the name ---- */

static bool
is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
}

static bool
is_name(struct slice name)
{
    bool is_well = name.len > 0 && name.len <= TLS_HELLO_NAME_MAX && name.ptr[0] != '.';
    for (size_t i = 0; is_well && i < name.len; i++) {
        bool is_double = name.ptr[i] == '.' && i + 1 < name.len && name.ptr[i + 1] == '.';
        is_well = is_name_byte(name.ptr[i]) && !is_double;
    }
    return is_well;
}

static const char *
read_name(struct slice extension, struct tls_hello *told)
{
    struct reader r = {.left = extension};
    struct reader list = {.left = take_counted(&r, 2), .why = r.why};
    expect(&list, r.left.len == 0 && list.left.len > 0, "a list of names of the wrong length");
    bool is_host = take_number(&list, 1) == NAME_IS_HOST;
    struct slice name = take_counted(&list, 2);
    expect(&list, is_host && list.left.len == 0, "not one host name alone");
    expect(&list, is_name(name), "not the name of a host");
    if (!list.why) {
        memcpy(told->name, name.ptr, name.len);
        told->name_len = name.len;
    }
    return list.why;
}

static void
read_extensions(struct reader *r, struct slice extensions, struct tls_hello *told)
{
    struct reader in = {.left = extensions, .why = r->why};
    bool has_name = false;
    while (!in.why && in.left.len > 0) {
        size_t type = take_number(&in, 2);
        struct slice extension = take_counted(&in, 2);
        if (!in.why && type == EXTENSION_NAME) {
            expect(&in, !has_name, "two lists of names");
            has_name = true;
            in.why = in.why ? in.why : read_name(extension, told);
        }
    }
    r->why = in.why;
}

/* RFC 8446 4.1.2, which older versions read alike. */
static const char *
read_client_hello(struct slice body, struct tls_hello *told)
{
    struct reader r = {.left = body};
    size_t version = take_number(&r, 2);
    expect(&r, version >> 8 == 3, "a version that is none of TLS");
    take(&r, RANDOM_BYTES);
    struct slice session = take_counted(&r, 1);
    expect(&r, session.len <= SESSION_BYTES_MAX, "a session id that is too long");
    struct slice ciphers = take_counted(&r, 2);
    expect(&r, ciphers.len >= 2 && ciphers.len % 2 == 0, "a list of ciphers of the wrong length");
    struct slice compressions = take_counted(&r, 1);
    expect(&r, compressions.len > 0, "no compression method");
    if (!r.why && r.left.len > 0) {
        struct slice extensions = take_counted(&r, 2);
        expect(&r, r.left.len == 0, "bytes behind the extensions");
        read_extensions(&r, extensions, told);
    }
    return r.why;
}

/* ---- records ---- */

/* What has come of the message. */
struct message {
    size_t len;
    char bytes[TLS_HELLO_MAX];
};

static size_t
length_of(const struct message *m)
{
    const uint8_t *b = (const uint8_t *)m->bytes;
    return (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3];
}

/* The verdict on what has come of the message, whose present record has so much more of it. */
static enum tls_hello_verdict
judge(const struct message *m, size_t rest, struct tls_hello *told, const char **why)
{
    if (m->len > 0 && m->bytes[0] != CLIENT_HELLO) {
        *why = "not a ClientHello";
        return TLS_HELLO_BAD;
    }
    if (m->len < MESSAGE_HEADER) {
        return TLS_HELLO_MORE;
    }
    size_t len = length_of(m);
    if (len > TLS_HELLO_MAX - MESSAGE_HEADER - RECORD_HEADER) {
        *why = "a ClientHello that is too long";
        return TLS_HELLO_BAD;
    }
    if (m->len + rest > MESSAGE_HEADER + len) {
        *why = "a record that is longer than the ClientHello in it";
        return TLS_HELLO_BAD;
    }
    if (m->len < MESSAGE_HEADER + len) {
        return TLS_HELLO_MORE;
    }
    const char *wrong = read_client_hello(slice_of(m->bytes + MESSAGE_HEADER, len), told);
    *why = wrong ? wrong : *why;
    return wrong ? TLS_HELLO_BAD : TLS_HELLO_WHOLE;
}

/* Is that, as far as it goes, the header of a record that carries a part of a ClientHello? */
static bool
is_record(struct slice header)
{
    const uint8_t *b = (const uint8_t *)header.ptr;
    size_t len = header.len < RECORD_HEADER ? 1 : (size_t)b[3] << 8 | b[4];
    return (header.len < 1 || b[0] == RECORD_HANDSHAKE) && (header.len < 2 || b[1] == 3) &&
           len > 0 && len <= RECORD_BYTES_MAX;
}

static bool
is_other(struct slice bytes)
{
    return (bytes.len > 0 && (uint8_t)bytes.ptr[0] != RECORD_HANDSHAKE) ||
           (bytes.len > 1 && bytes.ptr[1] != 3);
}

enum tls_hello_verdict
tls_hello_parse(struct slice bytes, struct tls_hello *told, const char **why)
{
    struct message m;
    enum tls_hello_verdict verdict = TLS_HELLO_MORE;
    bool is_cut = bytes.len > TLS_HELLO_MAX;
    m.len = 0;
    told->name_len = 0;
    *why = "";
    if (is_other(bytes)) {
        return TLS_HELLO_OTHER;
    }
    bytes.len = is_cut ? TLS_HELLO_MAX : bytes.len;
    while (verdict == TLS_HELLO_MORE && bytes.len > 0) {
        size_t head = bytes.len < RECORD_HEADER ? bytes.len : RECORD_HEADER;
        if (!is_record(slice_of(bytes.ptr, head))) {
            *why = "a record that carries no part of a ClientHello";
            return TLS_HELLO_BAD;
        }
        const uint8_t *b = (const uint8_t *)bytes.ptr;
        size_t len = head < RECORD_HEADER ? 0 : (size_t)b[3] << 8 | b[4];
        size_t have = bytes.len - head < len ? bytes.len - head : len;
        memcpy(m.bytes + m.len, bytes.ptr + head, have);
        m.len += have;
        verdict = judge(&m, len - have, told, why);
        bytes = slice_of(bytes.ptr + head + have, bytes.len - head - have);
    }
    if (verdict == TLS_HELLO_MORE && is_cut) {
        *why = "a ClientHello that is too long";
        return TLS_HELLO_BAD;
    }
    return verdict;
}
