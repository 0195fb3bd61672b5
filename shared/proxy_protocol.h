/* SPDX-License-Identifier: Apache-2.0
 *
 * proxy_protocol.h - the PROXY protocol of HAProxy, versions 1 and 2: what stands before the first
 * byte of a connection and says whose it is. Pure: bytes to addresses, and back.
 *
 * Headers are read strictly: what can be read in two ways is malformed. A header of version 1 is at
 * most 107 bytes long; of one of version 2, PROXY_V2_BODY_MAX bytes may follow the first 16.
 */
#ifndef SHARED_PROXY_PROTOCOL_H
#define SHARED_PROXY_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/addr.h"
#include "shared/slice.h"

#define PROXY_V1_MAX      107
#define PROXY_V2_BODY_MAX 4096
#define PROXY_HEADER_MAX  (16 + PROXY_V2_BODY_MAX) /* the longest that is read */

/* What a header says. */
struct proxy_told {
    bool has_addresses;      /* false: LOCAL or UNKNOWN, the connection's own addresses count */
    struct addr_ip from, to; /* of the client; AF_UNIX: no address worth having */
};

/* Read the header that bytes begin with. Returns its length; 0: more must come; -1: it is none, and
 * *why is a static sentence. Never more than PROXY_HEADER_MAX bytes must come. */
int
proxy_parse(struct slice bytes, struct proxy_told *out, const char **why);

/* What we say of a client. Empty slices are left out. */
struct proxy_said {
    struct addr_ip from, to; /* unless both are IP, none are said */
    struct slice alpn, authority, unique_id;
    struct slice tls_version; /* as "TLSv1.3"; empty: no TLS */
    bool has_cert;            /* the client has shown a certificate */
    bool is_resumed;          /* in an earlier connection of its TLS session */
    bool is_verified;         /* and it was good */
};

#define PROXY_V1_WRITTEN_MAX 108  /* with NUL */
#define PROXY_V2_WRITTEN_MAX 1100 /* each of the slices is left out above 255 bytes */

/* Write a header into out, which has room for the longest. Return its length. said NULL: nobody
 * speaks but we ourselves, as in health checks (LOCAL, UNKNOWN). */
size_t
proxy_write_v1(const struct proxy_said *said, char *out);
size_t
proxy_write_v2(const struct proxy_said *said, char *out);

#endif
