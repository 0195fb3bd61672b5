/* SPDX-License-Identifier: Apache-2.0
 *
 * addr.c - addresses: from text, to text, compared. Nothing here asks a resolver.
 */
#include "shared/addr.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>

#define NAME_MAX_LEN  253 /* RFC 1035 2.3.4, in text without the last dot */
#define LABEL_MAX_LEN 63

/* ---- parsing ---- */

/* 1..65535, digits only. */
static bool
parse_port(struct slice text, uint16_t *port)
{
    unsigned value = 0;
    if (text.len == 0 || text.len > 5) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') {
            return false;
        }
        value = value * 10 + (unsigned)(text.ptr[i] - '0');
    }
    *port = (uint16_t)value;
    return value >= 1 && value <= 65535;
}

static void
unmap_ip(struct addr_ip *ip)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (ip->family == AF_INET6 && memcmp(ip->bytes, mapped, sizeof(mapped)) == 0) {
        memmove(ip->bytes, ip->bytes + 12, 4);
        memset(ip->bytes + 4, 0, 12);
        ip->family = AF_INET;
    }
}

/* As written: an IPv4-mapped address stays one. */
static int
parse_ip_raw(struct slice text, struct addr_ip *ip)
{
    char copy[INET6_ADDRSTRLEN];
    *ip = (struct addr_ip){.family = AF_UNSPEC};
    if (text.len == 0 || text.len >= sizeof(copy) || memchr(text.ptr, '\0', text.len)) {
        return -1;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    ip->family = memchr(text.ptr, ':', text.len) ? AF_INET6 : AF_INET;
    return inet_pton(ip->family, copy, ip->bytes) == 1 ? 0 : -1;
}

int
addr_ip_parse(struct slice text, struct addr_ip *ip)
{
    if (parse_ip_raw(text, ip) != 0) {
        return -1;
    }
    unmap_ip(ip);
    return 0;
}

static int
parse_unix(struct slice path, struct addr_spec *spec, const char **why)
{
    struct sockaddr_un *un = &spec->addr.un;
    if (path.len == 0 || path.ptr[0] != '/') {
        *why = "the path of a Unix socket must be absolute";
        return -1;
    }
    if (path.len >= sizeof(un->sun_path)) {
        *why = "the path of a Unix socket has at most 107 bytes";
        return -1;
    }
    if (memchr(path.ptr, '\0', path.len)) {
        *why = "the path of a Unix socket has a NUL in it";
        return -1;
    }
    spec->kind = ADDR_UNIX;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path.ptr, path.len);
    spec->addr.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len + 1);
    return 0;
}

static bool
is_label_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

/* Labels of letters, digits, '-' and '_' (which real hosts have), not empty; one last dot. */
static bool
is_name(struct slice host)
{
    size_t label = 0;
    if (host.len > 1 && host.ptr[host.len - 1] == '.') {
        host.len--;
    }
    if (host.len > NAME_MAX_LEN) {
        return false;
    }
    for (size_t i = 0; i < host.len; i++) {
        if (host.ptr[i] == '.' && label > 0) {
            label = 0;
        } else if (!is_label_char(host.ptr[i]) || ++label > LABEL_MAX_LEN) {
            return false;
        }
    }
    return label > 0;
}

/* "10.0.0.256" is a mistyped address and not a name to look up. */
static bool
looks_numeric(struct slice host)
{
    for (size_t i = 0; i < host.len; i++) {
        if (host.ptr[i] != '.' && (host.ptr[i] < '0' || host.ptr[i] > '9')) {
            return false;
        }
    }
    return true;
}

static int
parse_bracketed(struct slice host, struct addr_spec *spec, const char **why)
{
    struct addr_ip ip;
    if (!memchr(host.ptr, ':', host.len) || addr_ip_parse(host, &ip) != 0) {
        *why = "what stands in brackets is not an IPv6 address";
        return -1;
    }
    spec->kind = ADDR_IP;
    addr_from_ip(&ip, spec->port, &spec->addr);
    return 0;
}

static int
parse_host(struct slice host, struct addr_spec *spec, const char **why)
{
    struct addr_ip ip;
    if (memchr(host.ptr, ':', host.len)) {
        *why = "an IPv6 address stands in brackets, as in \"[::1]:80\"";
        return -1;
    }
    if (addr_ip_parse(host, &ip) == 0) {
        spec->kind = ADDR_IP;
        addr_from_ip(&ip, spec->port, &spec->addr);
        return 0;
    }
    if (looks_numeric(host) || !is_name(host)) {
        *why = looks_numeric(host) ? "not a valid IPv4 address" : "not a valid host name";
        return -1;
    }
    spec->kind = ADDR_NAME;
    spec->host = host;
    return 0;
}

static int
parse_any(bool may_be_any, struct addr_spec *spec, const char **why)
{
    struct addr_ip any = {.family = AF_INET6};
    if (!may_be_any) {
        *why = "the host is missing: only a listener may leave it out";
        return -1;
    }
    spec->kind = ADDR_ANY;
    addr_from_ip(&any, spec->port, &spec->addr);
    return 0;
}

/* "_service._proto.name" (RFC 2782). */
static int
parse_srv(struct slice host, bool may_be_any, struct addr_spec *spec, const char **why)
{
    const char *proto = host.len ? memchr(host.ptr, '.', host.len) : NULL;
    size_t rest = proto ? host.len - (size_t)(proto + 1 - host.ptr) : 0;
    const char *name = rest ? memchr(proto + 1, '.', rest) : NULL;
    if (may_be_any) {
        *why = "SRV records are for backends";
        return -1;
    }
    if (!name || proto[1] != '_' || name + 1 == host.ptr + host.len || !is_name(host)) {
        *why = "not the name of SRV records, as in \"srv:_http._tcp.example.com\"";
        return -1;
    }
    spec->kind = ADDR_SRV;
    spec->host = host;
    return 0;
}

int
addr_parse(struct slice text, bool may_be_any, struct addr_spec *spec, const char **why)
{
    *spec = (struct addr_spec){.kind = ADDR_IP};
    if (slice_starts_with(text, SLICE("srv:_"))) {
        return parse_srv(slice_of(text.ptr + 4, text.len - 4), may_be_any, spec, why);
    }
    if (slice_starts_with(text, SLICE("unix:"))) {
        return parse_unix(slice_of(text.ptr + 5, text.len - 5), spec, why);
    }
    const char *colon = text.len ? memrchr(text.ptr, ':', text.len) : NULL;
    if (!colon || (text.ptr[0] == '[' && colon[-1] != ']')) {
        *why = "the port is missing";
        return -1;
    }
    struct slice host = slice_of(text.ptr, (size_t)(colon - text.ptr));
    if (!parse_port(slice_of(colon + 1, text.len - host.len - 1), &spec->port)) {
        *why = "the port is not a number from 1 to 65535";
        return -1;
    }
    if (host.len == 0) {
        return parse_any(may_be_any, spec, why);
    }
    if (host.ptr[0] == '[') {
        return parse_bracketed(slice_of(host.ptr + 1, host.len - 2), spec, why);
    }
    return parse_host(host, spec, why);
}

/* ---- networks ---- */

/* 0..max without leading zeros, digits only; -1 otherwise. */
static int
parse_bits(struct slice text, int max)
{
    int bits = 0;
    if (text.len == 0 || text.len > 3 || (text.len > 1 && text.ptr[0] == '0')) {
        return -1;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') {
            return -1;
        }
        bits = bits * 10 + (text.ptr[i] - '0');
    }
    return bits <= max ? bits : -1;
}

static bool
has_bits_behind(const struct addr_ip *ip, unsigned bits)
{
    for (unsigned i = bits; i < 128; i++) {
        if (ip->bytes[i / 8] & (0x80u >> (i % 8))) {
            return true;
        }
    }
    return false;
}

int
cidr_parse(struct slice text, struct cidr *net)
{
    const char *slash = text.len ? memchr(text.ptr, '/', text.len) : NULL;
    size_t ip_len = slash ? (size_t)(slash - text.ptr) : text.len;
    struct addr_ip *ip = &net->net;
    if (parse_ip_raw(slice_of(text.ptr, ip_len), ip) != 0) {
        return -1;
    }
    int max = ip->family == AF_INET ? 32 : 128;
    int bits = slash ? parse_bits(slice_of(slash + 1, text.len - ip_len - 1), max) : max;
    if (bits < 0 || has_bits_behind(ip, (unsigned)bits)) {
        return -1;
    }
    int family = ip->family;
    unmap_ip(ip);
    if (ip->family != family) {
        bits -= 96; /* the bits behind the prefix are zero, ffff is not: so there are 96 or more */
    }
    net->bits = (uint8_t)bits;
    return 0;
}

bool
cidr_contains(const struct cidr *net, const struct addr_ip *ip)
{
    unsigned whole = net->bits / 8, rest = net->bits % 8;
    if (net->net.family != ip->family || memcmp(net->net.bytes, ip->bytes, whole) != 0) {
        return false;
    }
    return rest == 0 || ((net->net.bytes[whole] ^ ip->bytes[whole]) >> (8 - rest)) == 0;
}

/* ---- from one form to another ---- */

void
addr_from_ip(const struct addr_ip *ip, uint16_t port, struct addr *out)
{
    memset(out, 0, sizeof(*out));
    if (ip->family == AF_INET) {
        out->in.sin_family = AF_INET;
        out->in.sin_port = htons(port);
        memcpy(&out->in.sin_addr, ip->bytes, 4);
        out->len = sizeof(out->in);
    } else if (ip->family == AF_INET6) {
        out->in6.sin6_family = AF_INET6;
        out->in6.sin6_port = htons(port);
        memcpy(&out->in6.sin6_addr, ip->bytes, 16);
        out->len = sizeof(out->in6);
    }
}

void
addr_ip_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct addr_ip *out)
{
    *out = (struct addr_ip){.family = AF_UNIX};
    if (len >= sizeof(struct sockaddr_in) && sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
        out->family = AF_INET;
        out->port = ntohs(in->sin_port);
        memcpy(out->bytes, &in->sin_addr, 4);
    } else if (len >= sizeof(struct sockaddr_in6) && sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;
        out->family = AF_INET6;
        out->port = ntohs(in6->sin6_port);
        memcpy(out->bytes, &in6->sin6_addr, 16);
        unmap_ip(out);
    }
}

void
addr_unmap(struct addr *a)
{
    struct addr_ip ip;
    if (a->sa.sa_family != AF_INET6) {
        return;
    }
    addr_ip_from_sockaddr(&a->sa, a->len, &ip);
    if (ip.family == AF_INET) {
        addr_from_ip(&ip, ip.port, a);
    }
}

int
addr_bind_source(int fd, const struct addr *to, const struct addr_ip *sources, unsigned n,
                 unsigned turn)
{
    for (unsigned i = 0; i < n; i++) {
        const struct addr_ip *ip = &sources[(turn + i) % n];
        if (ip->family == to->sa.sa_family) {
            struct addr from;
            int on = 1;
            addr_from_ip(ip, 0, &from);
            setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
            return bind(fd, &from.sa, from.len);
        }
    }
    return 0;
}

static struct slice
unix_path(const struct addr *a)
{
    size_t max = a->len - offsetof(struct sockaddr_un, sun_path);
    if (a->len <= offsetof(struct sockaddr_un, sun_path)) {
        return SLICE("");
    }
    return slice_of(a->un.sun_path, strnlen(a->un.sun_path, max));
}

size_t
addr_format(const struct addr *a, char *buf)
{
    char host[INET6_ADDRSTRLEN];
    int n;
    if (a->sa.sa_family == AF_INET) {
        inet_ntop(AF_INET, &a->in.sin_addr, host, sizeof(host));
        n = snprintf(buf, ADDR_TEXT_MAX, "%s:%u", host, ntohs(a->in.sin_port));
    } else if (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr)) {
        n = snprintf(buf, ADDR_TEXT_MAX, ":%u", ntohs(a->in6.sin6_port));
    } else if (a->sa.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &a->in6.sin6_addr, host, sizeof(host));
        n = snprintf(buf, ADDR_TEXT_MAX, "[%s]:%u", host, ntohs(a->in6.sin6_port));
    } else {
        struct slice path = unix_path(a);
        n = snprintf(buf, ADDR_TEXT_MAX, "unix:%.*s", SLICE_ARG(path));
    }
    return (size_t)n;
}

/* By hand, because every forwarded request writes one. */
static size_t
format_ipv4(const uint8_t *bytes, char *buf)
{
    char *end = buf;
    for (int i = 0; i < 4; i++) {
        unsigned b = bytes[i];
        if (b >= 100) {
            *end++ = (char)('0' + b / 100);
        }
        if (b >= 10) {
            *end++ = (char)('0' + b / 10 % 10);
        }
        *end++ = (char)('0' + b % 10);
        *end++ = '.';
    }
    end[-1] = '\0';
    return (size_t)(end - buf) - 1;
}

size_t
addr_ip_format(const struct addr_ip *ip, char *buf)
{
    if (ip->family == AF_INET) {
        return format_ipv4(ip->bytes, buf);
    }
    if (ip->family == AF_UNIX) {
        memcpy(buf, "unix:", sizeof("unix:"));
    } else if (!inet_ntop(ip->family, ip->bytes, buf, INET6_ADDRSTRLEN)) {
        buf[0] = '\0';
    }
    return strlen(buf);
}

bool
addr_eq(const struct addr *a, const struct addr *b)
{
    if (a->sa.sa_family != b->sa.sa_family) {
        return false;
    }
    switch (a->sa.sa_family) {
    case AF_INET:
        return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    case AF_INET6:
        return a->in6.sin6_port == b->in6.sin6_port &&
               a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
               memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, 16) == 0;
    default: return slice_eq(unix_path(a), unix_path(b));
    }
}
