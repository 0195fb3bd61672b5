/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_tls_hello.c - a ClientHello that is passed through. The verdict must not depend on how the
 * bytes come in pieces, and a name that is told is one.
 */
#include "shared/tls_hello.h"
#include "t/fuzz/fuzz.h"

static enum tls_hello_verdict
parse(const uint8_t *bytes, size_t len, struct tls_hello *told)
{
    const char *why = NULL;
    char *copy = fuzz_exact_copy(bytes, len);
    enum tls_hello_verdict verdict = tls_hello_parse(slice_of(copy, len), told, &why);
    free(copy);
    FUZZ_EXPECT(why && (verdict == TLS_HELLO_BAD) == (why[0] != '\0'));
    return verdict;
}

/* Once there is a verdict it stays. */
static void
expect_same_before(const uint8_t *bytes, size_t len, enum tls_hello_verdict last)
{
    enum tls_hello_verdict seen = TLS_HELLO_MORE;
    struct tls_hello told;
    for (size_t i = 0; i <= len && i < 600; i++) {
        enum tls_hello_verdict now = parse(bytes, i, &told);
        FUZZ_EXPECT(now == seen || seen == TLS_HELLO_MORE);
        seen = now;
    }
    FUZZ_EXPECT(seen == TLS_HELLO_MORE || seen == last);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct tls_hello told;
    enum tls_hello_verdict verdict = parse(bytes, len, &told);
    FUZZ_EXPECT(verdict != TLS_HELLO_MORE || len <= TLS_HELLO_MAX);
    FUZZ_EXPECT(told.name_len <= TLS_HELLO_NAME_MAX);
    if (verdict == TLS_HELLO_WHOLE && told.name_len > 0) {
        FUZZ_EXPECT(!memchr(told.name, '\0', told.name_len) && told.name[0] != '.');
    }
    expect_same_before(bytes, len, verdict);
    return 0;
}
