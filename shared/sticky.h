/* SPDX-License-Identifier: Apache-2.0
 *
 * sticky.h - the value of the cookie that keeps a client on one backend. Pure.
 *
 * 44 characters of base64url (RFC 4648 5) for 33 bytes: the version, 8 bytes that stand for the
 * backend, the second (wall clock, 8 bytes, big endian; 0: never) at which it expires, and 16 bytes
 * of HMAC-SHA256 over all that with the secret. What stands for a backend is made of the secret,
 * the upstream's name and the backend's id: it does not tell them, and any machine with the same
 * file makes and understands the same.
 */
#ifndef SHARED_STICKY_H
#define SHARED_STICKY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/slice.h"

#define STICKY_LEN 44

/* What stands for a backend; never 0. 0: no memory. */
uint64_t
sticky_tag(struct slice secret, const char *upstream, const char *backend);

/* Write STICKY_LEN characters. false: no memory. */
bool
sticky_write(struct slice secret, uint64_t tag, uint64_t expires_s, char *out);
/* false: it is not ours, has been altered, or has expired at now_s. */
bool
sticky_read(struct slice secret, struct slice value, uint64_t now_s, uint64_t *tag,
            uint64_t *expires_s);

/* The pairs of a Cookie field (RFC 6265 4.2.1) without those of that name, "; " between them, into
 * out, which has room for twice field.len bytes; *nremoved grows by those left out. Returns the
 * length. */
size_t
sticky_strip(struct slice field, struct slice name, char *out, unsigned *nremoved);

#endif
