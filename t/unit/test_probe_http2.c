/* SPDX-License-Identifier: Apache-2.0
 *
 * test_probe_http2.c - what an HTTP health check asks over HTTP/2, and how it judges answers, which
 * are frames without Huffman coding.
 */
#include <check.h>

#include "master/probe_http2.h"
#include "t/unit/suites.h"

static struct conf_range expect[] = {{200, 399}};

/* Frames of stream 1, after empty SETTINGS. */
#define FRAME(len, type, flags, payload) "\0\0" len type flags "\0\0\0\1" payload
#define HEAD(flags, status)              FRAME("\x0d", "\1", flags, "\0\7:status\3" status)
#define DATA(len, flags, bytes)          FRAME(len, "\0", flags, bytes)
#define OPEN                             "\4" /* END_HEADERS */
#define LAST                             "\5" /* and END_STREAM */

struct answer {
    const char *bytes;
    size_t len;
    const char *body; /* what is wanted in it */
    const char *why;  /* "": healthy; NULL: not decided yet */
};

#define A(bytes, body, why) \
    { \
        bytes, sizeof(bytes) - 1, body, why \
    }
static const struct answer answers[] = {
    A(HEAD(LAST, "200"), NULL, ""),
    A(HEAD(OPEN, "399"), NULL, ""), /* the rest does not matter */
    A(HEAD(LAST, "404"), NULL, "status 404"),
    A(HEAD(OPEN, "103") HEAD(LAST, "200"), NULL, ""),
    A(HEAD(OPEN, "103"), NULL, NULL),
    A(HEAD(LAST, "103"), NULL, "malformed answer"),
    A(HEAD(LAST, "20x"), NULL, "malformed answer"),
    A(HEAD(OPEN, "099") DATA("\2", "\1", "ok"), "ok", "malformed answer"),
    A(HEAD(OPEN, "200") DATA("\5", "\1", "is ok"), "ok", ""),
    A(HEAD(OPEN, "200") DATA("\1", "\0", "o") DATA("\1", "\0", "k"), "ok", ""),
    A(HEAD(OPEN, "200") DATA("\5", "\0", "is no"), "ok", NULL),
    A(HEAD(OPEN, "200") DATA("\5", "\1", "is no"), "ok", "the body does not have the text"),
    A(HEAD(LAST, "200"), "ok", "the body does not have the text"),
    A(HEAD(OPEN, "200") HEAD(LAST, "200"), "ok", "malformed answer"), /* :status in trailers */
    A(HEAD(OPEN, "500") DATA("\2", "\1", "ok"), "ok", "status 500"),
    A(FRAME("\4", "\3", "\0", "\0\0\0\2"), NULL, "reset: INTERNAL_ERROR"),
    A("HTTP/1.1 200 OK\r\n\r\n", NULL, "malformed answer"),
};

static enum probe_verdict
judge(const struct answer *a, size_t piece, char why[64])
{
    struct conf_upstream upstream = {
        .health = {.type = CONF_HEALTH_HTTP, .body = a->body, .expect = expect, .nexpect = 1}};
    struct conf_backend backend = {.address = "127.0.0.1:1", .upstream = &upstream};
    struct probe_http2 p;
    ck_assert(probe_http2_init(&p, &backend));
    probe_h2_feed(&p.h2, "\0\0\0\4\0\0\0\0\0", a->bytes[0] ? 0 : 9);
    for (size_t at = 0; at < a->len && p.h2.verdict == PROBE_MORE; at += piece) {
        while (probe_h2_output(&p.h2).len > 0) {
        }
        probe_h2_feed(&p.h2, a->bytes + at, a->len - at < piece ? a->len - at : piece);
    }
    while (p.h2.verdict == PROBE_MORE && probe_h2_output(&p.h2).len > 0) {
    }
    enum probe_verdict verdict = p.h2.verdict;
    memcpy(why, p.h2.why, 64);
    probe_http2_fini(&p);
    return verdict;
}

START_TEST(answer_is_judged)
{
    const struct answer *a = &answers[_i];
    const size_t pieces[] = {1, 7, 65536};
    for (int i = 0; i < 3; i++) {
        char why[64];
        enum probe_verdict verdict = judge(a, pieces[i], why);
        ck_assert_str_eq(why, a->why ? a->why : "");
        ck_assert_int_eq(verdict, !a->why ? PROBE_MORE : a->why[0] ? PROBE_BAD : PROBE_GOOD);
    }
}
END_TEST

START_TEST(request_says_what_is_configured)
{
    struct conf_upstream upstream = {
        .health = {
            .type = CONF_HEALTH_HTTP, .method = "HEAD", .path = "/alive", .host = "shop.test"}};
    struct conf_backend backend = {.address = "127.0.0.1:1", .upstream = &upstream};
    struct probe_http2 p;
    char sent[1024];
    size_t len = 0;
    ck_assert(probe_http2_init(&p, &backend));
    for (struct slice out; (out = probe_h2_output(&p.h2)).len > 0; len += out.len) {
        memcpy(sent + len, out.ptr, out.len);
    }
    nghttp2_hd_inflater *inflater;
    ck_assert_int_eq(nghttp2_hd_inflate_new(&inflater), 0);
    size_t head = 24 + 9 + 12; /* preface, SETTINGS of two */
    ck_assert_int_eq(sent[head + 3], NGHTTP2_HEADERS);
    ck_assert_int_eq(sent[head + 4], NGHTTP2_FLAG_END_STREAM | NGHTTP2_FLAG_END_HEADERS);
    char fields[512] = "";
    const uint8_t *at = (const uint8_t *)sent + head + 9;
    size_t left = len - head - 9;
    for (int flags = 0; !(flags & NGHTTP2_HD_INFLATE_FINAL);) {
        nghttp2_nv nv;
        ssize_t n = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, at, left, 1);
        ck_assert_int_ge(n, 0);
        at += n;
        left -= (size_t)n;
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            size_t used = strlen(fields);
            snprintf(fields + used, sizeof(fields) - used, "%s=%s\n", nv.name, nv.value);
        }
    }
    ck_assert_str_eq(fields, ":method=HEAD\n:scheme=http\n:path=/alive\n:authority=shop.test\n"
                             "user-agent=akashd-health\naccept=*/*\n");
    nghttp2_hd_inflate_del(inflater);
    probe_http2_fini(&p);
}
END_TEST

START_TEST(endless_answer_is_bounded)
{
    static char pings[17 * 10000] = "";
    for (size_t at = 0; at < sizeof(pings); at += 17) {
        memcpy(pings + at, "\0\0\x08\6\0\0\0\0\0", 9);
    }
    struct answer endless = {pings, sizeof(pings), NULL, NULL};
    char why[64];
    ck_assert_int_eq(judge(&endless, 16384, why), PROBE_BAD);
    ck_assert_str_eq(why, "the answer is too large");
}
END_TEST

Suite *
probe_http2_suite(void)
{
    Suite *suite = suite_create("probe_http2");
    TCase *c = tcase_create("probe_http2");
    tcase_add_loop_test(c, answer_is_judged, 0, sizeof(answers) / sizeof(answers[0]));
    tcase_add_test(c, request_says_what_is_configured);
    tcase_add_test(c, endless_answer_is_bounded);
    suite_add_tcase(suite, c);
    return suite;
}
