/* SPDX-License-Identifier: Apache-2.0
 *
 * addr.h - network addresses: sockets, client addresses, networks (CIDR).
 *
 * ::ffff:a.b.c.d is a.b.c.d everywhere: addr_unmap() is applied to whatever comes from the kernel
 * or from text.
 */
#ifndef SHARED_ADDR_H
#define SHARED_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "shared/slice.h"

#define ADDR_TEXT_MAX 128 /* longest text of addr_format, with NUL */

/* A socket address that can be bound or connected to. */
struct addr {
    socklen_t len;
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
};

/* A peer, compact enough to stand in every connection. family is AF_INET, AF_INET6 or AF_UNIX
 * (then the rest is zero); an IPv4 address stands in the first four bytes. */
struct addr_ip {
    uint8_t bytes[16];
    uint16_t port; /* host order */
    uint8_t family;
};

struct cidr {
    struct addr_ip net;
    uint8_t bits;
};

/* What an address in the configuration may be: see addr_parse. */
enum addr_kind { ADDR_IP, ADDR_NAME, ADDR_SRV, ADDR_UNIX, ADDR_ANY };

struct addr_spec {
    enum addr_kind kind;
    struct addr addr;  /* ADDR_IP, ADDR_UNIX; ADDR_ANY: [::]:port (dual stack) */
    struct slice host; /* ADDR_NAME, ADDR_SRV: points into the text given */
    uint16_t port;     /* ADDR_NAME, ADDR_IP, ADDR_ANY */
};

/* Parse "127.0.0.1:80", "[::1]:80", "name:80", "unix:/path", ":80" (only when may_be_any) and
 * "srv:_http._tcp.name", which has no port (only when not may_be_any: nobody listens there).
 * 0, or -1 with *why set to a static sentence. A port is 1..65535. */
int
addr_parse(struct slice text, bool may_be_any, struct addr_spec *spec, const char **why);

/* Parse an IP address without port ("10.0.0.1", "::1"; no brackets). 0 or -1. */
int
addr_ip_parse(struct slice text, struct addr_ip *ip);

/* "10.0.0.0/8", "::1/128", "10.0.0.1" (all bits). Bits beyond the prefix must be zero. 0 or -1. */
int
cidr_parse(struct slice text, struct cidr *net);
bool
cidr_contains(const struct cidr *net, const struct addr_ip *ip);

void
addr_from_ip(const struct addr_ip *ip, uint16_t port, struct addr *out);
void
addr_ip_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct addr_ip *out);

/* Turn an IPv4-mapped IPv6 address into IPv4, in place. */
void
addr_unmap(struct addr *a);

/* Canonical text: "127.0.0.1:80", "[::1]:80", "unix:/path", ":80" for the dual-stack any address.
 * Returns the length without NUL; buf holds ADDR_TEXT_MAX bytes. */
size_t
addr_format(const struct addr *a, char *buf);

/* The address alone, without brackets and port ("unix:" for a Unix socket). Returns its length. */
size_t
addr_ip_format(const struct addr_ip *ip, char *buf);

/* Before a connect() to to: from the next of these n addresses, of which turn chooses one of to's
 * family; the port is the kernel's choice at the connect(). None of that family: from any. 0, or -1
 * with errno. */
int
addr_bind_source(int fd, const struct addr *to, const struct addr_ip *sources, unsigned n,
                 unsigned turn);
bool
addr_eq(const struct addr *a, const struct addr *b);

#endif
