/* SPDX-License-Identifier: Apache-2.0
 *
 * hash.h - one spread of bytes over 64 bits, the same on every machine and in every version: what
 * is chosen by it must not move with an upgrade. No secret: see rate_key() for keys that strangers
 * may choose to our harm.
 */
#ifndef SHARED_HASH_H
#define SHARED_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_BEGIN UINT64_C(0xcbf29ce484222325)

/* FNV-1a. */
static inline uint64_t
hash_bytes(uint64_t h, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < len; i++) {
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    }
    return h;
}

/* Spread every bit over all (splitmix64). */
static inline uint64_t
hash_finish(uint64_t h)
{
    h = (h ^ (h >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ (h >> 27)) * UINT64_C(0x94d049bb133111eb);
    return h ^ (h >> 31);
}

#endif
