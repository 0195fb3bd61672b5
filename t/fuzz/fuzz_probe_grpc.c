/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_probe_grpc.c - answers to gRPC health checks. The first byte is the size of the pieces in
 * which the answer comes: the judgement must not depend on it. The bytes are also read as a message
 * alone.
 */
#include "master/probe_grpc.h"
#include "t/fuzz/fuzz.h"

static enum probe_verdict
judge(const char *buf, size_t len, size_t piece)
{
    struct conf_upstream upstream = {
        .health = {.type = CONF_HEALTH_GRPC, .path = "/a.B", .timeout = 1000}};
    struct conf_backend backend = {.address = "127.0.0.1:1", .upstream = &upstream};
    struct probe_grpc g;
    FUZZ_EXPECT(probe_grpc_init(&g, &backend));
    while (probe_h2_output(&g.h2).len > 0) {
    }
    for (size_t at = 0; at < len && g.h2.verdict == PROBE_MORE; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        char *copy = fuzz_exact_copy(buf + at, n);
        probe_h2_feed(&g.h2, copy, n);
        free(copy);
        while (probe_h2_output(&g.h2).len > 0) {
        }
    }
    if (g.h2.verdict == PROBE_MORE) {
        probe_h2_end(&g.h2);
    }
    enum probe_verdict verdict = g.h2.verdict;
    FUZZ_EXPECT(verdict == PROBE_GOOD || (verdict == PROBE_BAD && g.h2.why[0]));
    probe_grpc_fini(&g);
    return verdict;
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    uint64_t serving;
    if (len == 0) {
        return 0;
    }
    const char *buf = (const char *)bytes + 1;
    size_t piece = bytes[0] ? bytes[0] : 1;
    char *copy = fuzz_exact_copy(buf, len - 1);
    probe_grpc_read_answer(slice_of(copy, len - 1), &serving);
    free(copy);
    FUZZ_EXPECT(judge(buf, len - 1, piece) == judge(buf, len - 1, len));
    return 0;
}
