/* SPDX-License-Identifier: Apache-2.0
 *
 * proxy_protocol.c - the PROXY protocol: see proxy_protocol.h. Sections are those of HAProxy's
 * proxy-protocol.txt.
 */
#include "shared/proxy_protocol.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define V2_HEAD 16 /* signature, version and command, family and transport, length */

#define COMMAND_LOCAL 0x20
#define COMMAND_PROXY 0x21

#define FAMILY_UNSPEC 0x00
#define FAMILY_TCP4   0x11
#define FAMILY_TCP6   0x21
#define FAMILY_UNIX   0x31

#define TLV_ALPN        0x01
#define TLV_AUTHORITY   0x02
#define TLV_CRC32C      0x03
#define TLV_UNIQUE_ID   0x05
#define TLV_SSL         0x20
#define TLV_SSL_VERSION 0x21

#define SSL_CLIENT    0x01
#define SSL_CERT_CONN 0x02 /* a certificate came in this connection */
#define SSL_CERT_SESS 0x04 /* in this one or another of its TLS session */

#define TLV_VALUE_MAX 255

static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";

/* ---- CRC32c ---- */

/* RFC 3720 B.4, four bits at a time. */
static uint32_t
crc32c_add(uint32_t crc, const char *bytes, size_t len)
{
    static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
                                       0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                                       0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                       0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    for (size_t i = 0; i < len; i++) {
        crc ^= (unsigned char)bytes[i];
        crc = (crc >> 4) ^ table[crc & 15];
        crc = (crc >> 4) ^ table[crc & 15];
    }
    return crc;
}

/* Of a header, as if the four bytes at where were zero. */
static uint32_t
crc32c_without(const char *header, size_t len, size_t where)
{
    static const char zeros[4];
    uint32_t crc = crc32c_add(UINT32_MAX, header, where);
    crc = crc32c_add(crc, zeros, sizeof(zeros));
    return ~crc32c_add(crc, header + where + 4, len - where - 4);
}

/* ---- numbers ---- */

static unsigned
get16(const char *at)
{
    const unsigned char *byte = (const unsigned char *)at;
    return (unsigned)byte[0] << 8 | byte[1];
}

static uint32_t
get32(const char *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static char *
put16(char *out, unsigned value)
{
    out[0] = (char)(value >> 8);
    out[1] = (char)value;
    return out + 2;
}

static void
put32(char *out, uint32_t value)
{
    put16(out, value >> 16);
    put16(out + 2, value & 0xffff);
}

/* ---- reading version 1 ---- */

/* Up to the next space, which is cut off too; the last word has none behind it. */
static struct slice
take_word(struct slice *rest)
{
    const char *space = rest->len ? memchr(rest->ptr, ' ', rest->len) : NULL;
    size_t len = space ? (size_t)(space - rest->ptr) : rest->len;
    struct slice word = slice_of(rest->ptr, len);
    size_t used = len + (space != NULL);
    *rest = slice_of(rest->ptr + used, rest->len - used);
    return word;
}

/* 0 to 65535, without leading zeros. */
static bool
take_port(struct slice *rest, uint16_t *port)
{
    struct slice word = take_word(rest);
    unsigned value = 0;
    if (word.len == 0 || word.len > 5 || (word.len > 1 && word.ptr[0] == '0')) {
        return false;
    }
    for (size_t i = 0; i < word.len; i++) {
        if (word.ptr[i] < '0' || word.ptr[i] > '9') {
            return false;
        }
        value = value * 10 + (unsigned)(word.ptr[i] - '0');
    }
    *port = (uint16_t)value;
    return value <= UINT16_MAX;
}

static bool
take_ip(struct slice *rest, bool is_v6, struct addr_ip *ip)
{
    struct slice word = take_word(rest);
    bool has_colon = word.len > 0 && memchr(word.ptr, ':', word.len) != NULL;
    return has_colon == is_v6 && addr_ip_parse(word, ip) == 0;
}

/* What stands between "PROXY " and the end of the line (section 2.1). */
static bool
read_v1_line(struct slice line, struct proxy_told *out)
{
    struct slice protocol = take_word(&line);
    if (slice_eq(protocol, SLICE("UNKNOWN"))) {
        return true;
    }
    bool is_v6 = slice_eq(protocol, SLICE("TCP6"));
    if (!is_v6 && !slice_eq(protocol, SLICE("TCP4"))) {
        return false;
    }
    out->has_addresses = true;
    bool is_read = take_ip(&line, is_v6, &out->from) && take_ip(&line, is_v6, &out->to) &&
                   take_port(&line, &out->from.port) && take_port(&line, &out->to.port);
    return is_read && line.len == 0 && line.ptr[-1] != ' '; /* nothing behind the last word */
}

static int
parse_v1(struct slice bytes, struct proxy_told *out, const char **why)
{
    const size_t begin = sizeof("PROXY ") - 1;
    size_t most = bytes.len < PROXY_V1_MAX ? bytes.len : PROXY_V1_MAX;
    const char *lf = memchr(bytes.ptr, '\n', most);
    if (!lf) {
        *why = "its line of version 1 does not end";
        return most == PROXY_V1_MAX ? -1 : 0;
    }
    size_t len = (size_t)(lf - bytes.ptr) + 1;
    *why = "a malformed line of version 1";
    if (len < begin + 2 || lf[-1] != '\r') {
        return -1;
    }
    struct slice line = slice_of(bytes.ptr + begin, len - begin - 2);
    bool has_cr = line.len > 0 && memchr(line.ptr, '\r', line.len);
    return !has_cr && read_v1_line(line, out) ? (int)len : -1;
}

/* ---- reading version 2 ---- */

static void
read_ip(int family, const char *at, const char *port, struct addr_ip *out)
{
    struct addr_ip raw = {.family = (uint8_t)family};
    struct addr addr;
    memcpy(raw.bytes, at, family == AF_INET ? 4 : 16);
    addr_from_ip(&raw, (uint16_t)get16(port), &addr);
    addr_ip_from_sockaddr(&addr.sa, addr.len, out); /* ::ffff:a.b.c.d is a.b.c.d */
}

/* Bytes of addresses, or -1: they do not fit, or are of a kind that no stream has. */
static int
read_addresses(unsigned family, struct slice body, struct proxy_told *out)
{
    bool is_v4 = family == FAMILY_TCP4;
    size_t one = is_v4 ? 4 : 16;
    size_t need = 2 * one + 4;
    switch (family) {
    case FAMILY_UNSPEC: return 0;
    case FAMILY_UNIX:
        out->has_addresses = true;
        out->from.family = out->to.family = AF_UNIX;
        return body.len >= 216 ? 216 : -1;
    case FAMILY_TCP4:
    case FAMILY_TCP6: break;
    default: return -1;
    }
    if (body.len < need) {
        return -1;
    }
    out->has_addresses = true;
    int af = is_v4 ? AF_INET : AF_INET6;
    read_ip(af, body.ptr, body.ptr + 2 * one, &out->from);
    read_ip(af, body.ptr + one, body.ptr + 2 * one + 2, &out->to);
    return (int)need;
}

/* Section 2.2: each has a type, a length and a value. They must fill the header exactly, and where
 * there is a checksum it must be right. */
static bool
check_tlvs(struct slice header, size_t at, const char **why)
{
    *why = "what stands behind its addresses is malformed";
    while (at < header.len) {
        if (header.len - at < 3) {
            return false;
        }
        unsigned type = (unsigned char)header.ptr[at];
        size_t len = get16(header.ptr + at + 1);
        at += 3;
        if (len > header.len - at || (type == TLV_CRC32C && len != 4)) {
            return false;
        }
        if (type == TLV_CRC32C &&
            get32(header.ptr + at) != crc32c_without(header.ptr, header.len, at)) {
            *why = "its checksum is wrong";
            return false;
        }
        at += len;
    }
    return true;
}

static int
parse_v2(struct slice bytes, struct proxy_told *out, const char **why)
{
    if (bytes.len < V2_HEAD) {
        return 0;
    }
    unsigned command = (unsigned char)bytes.ptr[12];
    unsigned family = (unsigned char)bytes.ptr[13];
    size_t len = get16(bytes.ptr + 14);
    *why = "a version or command that is not known";
    if (command != COMMAND_LOCAL && command != COMMAND_PROXY) {
        return -1;
    }
    *why = "it is too long";
    if (len > PROXY_V2_BODY_MAX) {
        return -1;
    }
    if (bytes.len < V2_HEAD + len) {
        return 0;
    }
    if (command == COMMAND_LOCAL) { /* the receiver must discard the rest, whatever it is */
        return (int)(V2_HEAD + len);
    }
    *why = "its addresses are malformed";
    int used = read_addresses(family, slice_of(bytes.ptr + V2_HEAD, len), out);
    if (used < 0) {
        return -1;
    }
    if (family == FAMILY_UNSPEC) { /* nothing is said of what lies there */
        return (int)(V2_HEAD + len);
    }
    size_t end = V2_HEAD + len;
    return check_tlvs(slice_of(bytes.ptr, end), V2_HEAD + (size_t)used, why) ? (int)end : -1;
}

static bool
begins_with(struct slice bytes, const char *what, size_t len)
{
    size_t n = bytes.len < len ? bytes.len : len;
    return memcmp(bytes.ptr, what, n) == 0;
}

int
proxy_parse(struct slice bytes, struct proxy_told *out, const char **why)
{
    *out = (struct proxy_told){0};
    *why = "there is none";
    if (bytes.len == 0) {
        return 0;
    }
    if (begins_with(bytes, signature, sizeof(signature))) {
        return parse_v2(bytes, out, why);
    }
    if (begins_with(bytes, "PROXY ", 6)) {
        return bytes.len < 6 ? 0 : parse_v1(bytes, out, why);
    }
    return -1;
}

/* ---- writing ---- */

static bool
is_ip(const struct addr_ip *ip)
{
    return ip->family == AF_INET || ip->family == AF_INET6;
}

/* As 16 bytes: IPv4 is mapped where the other one is IPv6. */
static void
map_ip(const struct addr_ip *ip, char *out)
{
    static const char prefix[12] = "\0\0\0\0\0\0\0\0\0\0\xff\xff";
    if (ip->family == AF_INET6) {
        memcpy(out, ip->bytes, 16);
        return;
    }
    memcpy(out, prefix, sizeof(prefix));
    memcpy(out + sizeof(prefix), ip->bytes, 4);
}

size_t
proxy_write_v1(const struct proxy_said *said, char *out)
{
    char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN], raw[16];
    if (!said || !is_ip(&said->from) || !is_ip(&said->to)) {
        return (size_t)snprintf(out, PROXY_V1_WRITTEN_MAX, "PROXY UNKNOWN\r\n");
    }
    bool is_v4 = said->from.family == AF_INET && said->to.family == AF_INET;
    if (is_v4) {
        inet_ntop(AF_INET, said->from.bytes, from, sizeof(from));
        inet_ntop(AF_INET, said->to.bytes, to, sizeof(to));
    } else {
        map_ip(&said->from, raw);
        inet_ntop(AF_INET6, raw, from, sizeof(from));
        map_ip(&said->to, raw);
        inet_ntop(AF_INET6, raw, to, sizeof(to));
    }
    return (size_t)snprintf(out, PROXY_V1_WRITTEN_MAX, "PROXY %s %s %s %u %u\r\n",
                            is_v4 ? "TCP4" : "TCP6", from, to, said->from.port, said->to.port);
}

static char *
put_tlv(char *out, unsigned type, struct slice value)
{
    if (value.len == 0 || value.len > TLV_VALUE_MAX) {
        return out;
    }
    *out++ = (char)type;
    out = put16(out, (unsigned)value.len);
    memcpy(out, value.ptr, value.len);
    return out + value.len;
}

/* Section 2.2.6: verify is 0 only for a certificate that was shown and is good. */
static char *
put_ssl(char *out, const struct proxy_said *said)
{
    if (said->tls_version.len == 0) {
        return out;
    }
    unsigned client = SSL_CLIENT;
    if (said->has_cert) {
        client |= said->is_resumed ? SSL_CERT_SESS : SSL_CERT_SESS | SSL_CERT_CONN;
    }
    char *value = out + 3;
    value[0] = (char)client;
    put32(value + 1, said->has_cert && said->is_verified ? 0 : 1);
    char *end = put_tlv(value + 5, TLV_SSL_VERSION, said->tls_version);
    *out = (char)TLV_SSL;
    put16(out + 1, (unsigned)(end - value));
    return end;
}

/* Returns what is behind them; *family says what they are. */
static char *
put_addresses(char *out, const struct proxy_said *said, unsigned *family)
{
    *family = FAMILY_UNSPEC;
    if (!is_ip(&said->from) || !is_ip(&said->to)) {
        return out;
    }
    if (said->from.family == AF_INET && said->to.family == AF_INET) {
        *family = FAMILY_TCP4;
        memcpy(out, said->from.bytes, 4);
        memcpy(out + 4, said->to.bytes, 4);
        out += 8;
    } else {
        *family = FAMILY_TCP6;
        map_ip(&said->from, out);
        map_ip(&said->to, out + 16);
        out += 32;
    }
    return put16(put16(out, said->from.port), said->to.port);
}

size_t
proxy_write_v2(const struct proxy_said *said, char *out)
{
    unsigned family = FAMILY_UNSPEC;
    char *end = out + V2_HEAD;
    memcpy(out, signature, sizeof(signature));
    out[12] = said ? COMMAND_PROXY : COMMAND_LOCAL;
    if (said) {
        end = put_addresses(end, said, &family);
        end = put_tlv(end, TLV_ALPN, said->alpn);
        end = put_tlv(end, TLV_AUTHORITY, said->authority);
        end = put_tlv(end, TLV_UNIQUE_ID, said->unique_id);
        end = put_ssl(end, said);
        end = put_tlv(end, TLV_CRC32C, slice_of("\0\0\0\0", 4));
    }
    size_t len = (size_t)(end - out);
    out[13] = (char)family;
    put16(out + 14, (unsigned)(len - V2_HEAD));
    if (said) {
        put32(end - 4, crc32c_without(out, len, len - 4));
    }
    return len;
}
