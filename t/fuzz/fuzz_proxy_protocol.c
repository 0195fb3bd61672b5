/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_proxy_protocol.c - what stands at the beginning of a connection. The verdict must not depend
 * on how the bytes come in pieces, and what was read can be written and read again.
 */
#include "shared/proxy_protocol.h"
#include "t/fuzz/fuzz.h"

static bool
is_same_ip(const struct addr_ip *a, const struct addr_ip *b)
{
    return a->family == b->family && a->port == b->port && memcmp(a->bytes, b->bytes, 16) == 0;
}

static void
expect_same_again(const struct proxy_told *told)
{
    struct proxy_said said = {.from = told->from, .to = told->to, .authority = SLICE("a.test")};
    char v1[PROXY_V1_WRITTEN_MAX], v2[PROXY_V2_WRITTEN_MAX];
    const char *why;
    struct proxy_told again;
    size_t len = proxy_write_v1(&said, v1);
    bool is_unix = told->from.family == AF_UNIX;
    FUZZ_EXPECT(proxy_parse(slice_of(v1, len), &again, &why) == (int)len);
    FUZZ_EXPECT(again.has_addresses == !is_unix);
    FUZZ_EXPECT(is_unix ||
                (is_same_ip(&again.from, &told->from) && is_same_ip(&again.to, &told->to)));
    len = proxy_write_v2(&said, v2);
    FUZZ_EXPECT(proxy_parse(slice_of(v2, len), &again, &why) == (int)len);
    FUZZ_EXPECT(again.has_addresses == !is_unix);
    FUZZ_EXPECT(is_unix ||
                (is_same_ip(&again.from, &told->from) && is_same_ip(&again.to, &told->to)));
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct proxy_told told, partly;
    const char *why = NULL;
    char *copy = fuzz_exact_copy(bytes, len);
    int n = proxy_parse(slice_of(copy, len), &told, &why);
    free(copy);
    FUZZ_EXPECT(n <= (int)len && n <= PROXY_HEADER_MAX && why && why[0]);
    FUZZ_EXPECT(n != 0 || len < PROXY_HEADER_MAX);
    size_t end = n > 0 ? (size_t)n : len;
    for (size_t i = 0; i < end && i < 300; i++) {
        copy = fuzz_exact_copy(bytes, i);
        int part = proxy_parse(slice_of(copy, i), &partly, &why);
        free(copy);
        FUZZ_EXPECT(part == 0 || (part < 0 && n < 0)); /* never whole before its end */
    }
    if (n > 0 && told.has_addresses) {
        expect_same_again(&told);
    }
    return 0;
}
