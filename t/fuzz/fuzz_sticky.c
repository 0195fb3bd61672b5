/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_sticky.c - Cookie fields of strangers: what is left of them is no longer than they were and
 * has no such cookie any more, and no value is taken for ours but those that we have made.
 */
#include "shared/sticky.h"
#include "t/fuzz/fuzz.h"

#define SECRET SLICE("a secret of some length")

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    char *copy = fuzz_exact_copy((const char *)bytes, len);
    char *out = malloc(2 * len + 1);
    struct slice field = slice_of(copy, len);
    unsigned removed = 0, again = 0;
    size_t left = sticky_strip(field, SLICE("akash"), out, &removed);
    /* "a;b" becomes "a; b" */
    FUZZ_EXPECT(left <= 2 * len);
    char *twice = malloc(2 * left + 1);
    FUZZ_EXPECT(sticky_strip(slice_of(out, left), SLICE("akash"), twice, &again) == left);
    FUZZ_EXPECT(again == 0 && memcmp(out, twice, left) == 0);
    uint64_t tag, expires_s;
    if (sticky_read(SECRET, field, 1000, &tag, &expires_s)) {
        char ours[STICKY_LEN];
        FUZZ_EXPECT(sticky_write(SECRET, tag, expires_s, ours));
        FUZZ_EXPECT(len == STICKY_LEN && memcmp(ours, copy, len) == 0);
    }
    free(twice);
    free(out);
    free(copy);
    return 0;
}
