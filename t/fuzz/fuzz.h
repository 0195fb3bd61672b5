/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz.h - what a fuzz target gives to libFuzzer or to replay.c, and what it asks of its subject.
 */
#ifndef T_FUZZ_FUZZ_H
#define T_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* A broken promise ends the program, whatever NDEBUG says. */
#define FUZZ_EXPECT(promise) ((promise) ? (void)0 : abort())

/* len bytes in memory of exactly that size, so that a sanitizer sees a read past the end. */
static inline char *
fuzz_exact_copy(const void *bytes, size_t len)
{
    char *copy = calloc(1, len > 0 ? len : 1);
    FUZZ_EXPECT(copy != NULL);
    if (len > 0) {
        memcpy(copy, bytes, len);
    }
    return copy;
}

#endif
