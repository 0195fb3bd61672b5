/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_probe_http2.c - answers to HTTP health checks over HTTP/2. The first byte is the size of the
 * pieces in which the answer comes: the judgement must not depend on it.
 */
#include "master/probe_http2.h"
#include "t/fuzz/fuzz.h"

static struct conf_range expect = {200, 399};

static void
drain(struct probe_h2 *h)
{
    while (probe_h2_output(h).len > 0) {
    }
}

static enum probe_verdict
judge(const char *body, const char *buf, size_t len, size_t piece)
{
    struct conf_upstream upstream = {
        .health = {.type = CONF_HEALTH_HTTP, .body = body, .expect = &expect, .nexpect = 1}};
    struct conf_backend backend = {.address = "127.0.0.1:1", .upstream = &upstream};
    struct probe_http2 p;
    FUZZ_EXPECT(probe_http2_init(&p, &backend));
    drain(&p.h2);
    for (size_t at = 0; at < len && p.h2.verdict == PROBE_MORE; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        char *copy = fuzz_exact_copy(buf + at, n);
        probe_h2_feed(&p.h2, copy, n);
        free(copy);
        drain(&p.h2);
    }
    if (p.h2.verdict == PROBE_MORE) {
        probe_h2_end(&p.h2);
    }
    enum probe_verdict verdict = p.h2.verdict;
    FUZZ_EXPECT(verdict == PROBE_GOOD || (verdict == PROBE_BAD && p.h2.why[0]));
    probe_http2_fini(&p);
    return verdict;
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0) {
        return 0;
    }
    const char *buf = (const char *)bytes + 1;
    size_t piece = bytes[0] ? bytes[0] : 1;
    const char *const bodies[] = {NULL, "ok"};
    for (int i = 0; i < 2; i++) {
        FUZZ_EXPECT(judge(bodies[i], buf, len - 1, piece) == judge(bodies[i], buf, len - 1, len));
    }
    return 0;
}
