/* SPDX-License-Identifier: Apache-2.0
 *
 * tls_hello.h - the beginning of a TLS connection that is passed through unopened: for whom is it?
 *
 * Pure: the bytes that have come so far go in, a verdict comes out. A ClientHello may be cut into
 * records and pieces of any size (RFC 8446 5.1); its server_name (RFC 6066 3) is all that is read
 * of what it offers. Where its outer name stands for a hidden one (ECH), that is what is told.
 */
#ifndef SHARED_TLS_HELLO_H
#define SHARED_TLS_HELLO_H

#include "shared/slice.h"

/* The longest ClientHello with its record headers: many times what any client sends. */
#define TLS_HELLO_MAX      16384
#define TLS_HELLO_NAME_MAX 255

enum tls_hello_verdict {
    TLS_HELLO_MORE,  /* so far it is one */
    TLS_HELLO_WHOLE, /* *told is filled */
    TLS_HELLO_OTHER, /* the first bytes are not those of a TLS handshake (nor is SSL 2) */
    TLS_HELLO_BAD    /* it begins as one and is none, or is too long; *why in words */
};

struct tls_hello {
    char name[TLS_HELLO_NAME_MAX]; /* letters, digits, '.', '-' and '_', as received */
    size_t name_len;               /* 0: it names no server */
};

/* why is never NULL afterwards. */
enum tls_hello_verdict
tls_hello_parse(struct slice bytes, struct tls_hello *told, const char **why);

#endif
