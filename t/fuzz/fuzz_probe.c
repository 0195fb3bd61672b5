/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_probe.c - answers to HTTP health checks. The first byte is the size of the pieces in which
 * the answer comes: the judgement must not depend on it.
 */
#include "master/probe_http.h"
#include "t/fuzz/fuzz.h"

static struct conf_range expect = {200, 399};

static enum probe_verdict
judge(const char *body, const char *buf, size_t len, size_t piece)
{
    struct conf_health health = {.body = body, .expect = &expect, .nexpect = 1};
    struct probe_answer a;
    enum probe_verdict verdict = PROBE_MORE;
    probe_answer_init(&a, &health);
    for (size_t at = 0; at < len && verdict == PROBE_MORE; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        char *copy = fuzz_exact_copy(buf + at, n);
        verdict = probe_answer_feed(&a, copy, n);
        free(copy);
    }
    if (verdict == PROBE_MORE) {
        verdict = probe_answer_end(&a);
    }
    FUZZ_EXPECT(verdict == PROBE_GOOD || (verdict == PROBE_BAD && a.why[0]));
    probe_answer_fini(&a);
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
