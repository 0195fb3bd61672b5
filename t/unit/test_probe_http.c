/* SPDX-License-Identifier: Apache-2.0
 *
 * test_probe_http.c - what an HTTP health check sends, and how it judges answers.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "master/probe_http.h"
#include "t/unit/suites.h"

static struct conf_range ranges[] = {{200, 299}, {304, 304}};

/* Feed text in pieces of that many bytes, then the end of the connection. why is "" when good. */
static void
judge(const char *text, size_t len, size_t piece, const char *method, const char *body, char *why)
{
    struct conf_health health = {
        .type = CONF_HEALTH_HTTP, .method = method, .body = body, .expect = ranges, .nexpect = 2};
    struct probe_answer a;
    probe_answer_init(&a, &health);
    enum probe_verdict verdict = PROBE_MORE;
    for (size_t at = 0; at < len && verdict == PROBE_MORE; at += piece) {
        verdict = probe_answer_feed(&a, text + at, len - at < piece ? len - at : piece);
    }
    if (verdict == PROBE_MORE) {
        verdict = probe_answer_end(&a);
    }
    strcpy(why, verdict == PROBE_GOOD ? "" : a.why);
    probe_answer_fini(&a);
}

struct answer {
    const char *text, *body, *why;
};

#define OK     "HTTP/1.1 200 OK\r\n"
#define ABSENT "the body does not have the text"
static const struct answer answers[] = {
    {OK "Content-Length: 0\r\n\r\n", NULL, ""},
    {OK "Content-Length: 1000\r\n\r\n", NULL, ""}, /* the body is not waited for */
    {"HTTP/1.0 200 OK\r\n\r\n", NULL, ""},
    {"HTTP/1.1 299 Odd\r\n\r\n", NULL, ""},
    {"HTTP/1.1 304 Not Modified\r\n\r\n", NULL, ""},
    {"HTTP/1.1 100 Continue\r\n\r\n" OK "\r\n", NULL, ""},
    {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 503 No\r\n\r\n", NULL, "status 503"},
    {"HTTP/1.1 300 Many\r\n\r\n", NULL, "status 300"},
    {"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", NULL, "status 101"},
    {"HTTP/1.1 500 Oops\r\n\r\nok", "ok", "status 500"},
    {"", NULL, "closed without an answer"},
    {"HTTP/1.1 200 OK\r\nContent-Le", NULL, "the answer was cut"},
    {"SSH-2.0-server\r\n\r\n", NULL, "malformed answer"},
    {OK "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", NULL, "malformed answer"},
    {OK "Content-Length: 8\r\n\r\nall fine", "fine", ""},
    {OK "Content-Length: 8\r\n\r\nall fine", "fines", ABSENT},
    {OK "Content-Length: 3\r\n\r\nall fine", "fine", ABSENT}, /* behind the body */
    {OK "Content-Length: 0\r\n\r\n", "fine", ABSENT},
    {OK "Content-Length: 9\r\n\r\nall", "fine", "the answer was cut"},
    {OK "\r\nall fine", "fine", ""},
    {OK "\r\nall", "fine", ABSENT},
    {OK "Transfer-Encoding: chunked\r\n\r\n2\r\nfi\r\n2\r\nne\r\n0\r\n\r\n", "fine", ""},
    {OK "Transfer-Encoding: chunked\r\n\r\n3\r\nfin\r\n0\r\n\r\n", "fine", ABSENT},
    {OK "Transfer-Encoding: chunked\r\n\r\n3\r\nfin\r\n", "fine", "the answer was cut"},
    {OK "Transfer-Encoding: chunked\r\n\r\nx\r\n", "fine", "malformed answer"},
};

START_TEST(answers_are_judged)
{
    const struct answer *a = &answers[_i];
    const size_t pieces[] = {1, 7, 65536};
    for (int i = 0; i < 3; i++) {
        char why[64];
        judge(a->text, strlen(a->text), pieces[i], NULL, a->body, why);
        ck_assert_msg(strcmp(why, a->why) == 0, "answer %d in pieces of %zu: \"%s\"", _i, pieces[i],
                      why);
    }
}
END_TEST

START_TEST(answer_to_head_has_no_body)
{
    const char *text = OK "Content-Length: 5\r\n\r\n";
    char why[64];
    judge(text, strlen(text), 100, "HEAD", NULL, why);
    ck_assert_str_eq(why, "");
    judge(text, strlen(text), 100, "HEAD", "x", why);
    ck_assert_str_eq(why, ABSENT);
}
END_TEST

START_TEST(only_the_beginning_of_a_body_is_searched)
{
    const char *head = OK "\r\n";
    size_t len = strlen(head) + PROBE_BODY_MAX + 100;
    char *text = malloc(len), why[64];
    memset(text, 'x', len);
    memcpy(text, head, strlen(head));
    memcpy(text + len - 4, "fine", 4);
    judge(text, len, 4096, NULL, "fine", why);
    ck_assert_str_eq(why, "the text is not at the beginning of the body");
    memcpy(text + strlen(head) + PROBE_BODY_MAX - 4, "fine", 4);
    judge(text, len, 4096, NULL, "fine", why);
    ck_assert_str_eq(why, "");
    free(text);
}
END_TEST

START_TEST(endless_head_is_refused)
{
    const char *begin = OK "X: ";
    size_t len = 2 * PROBE_HEAD_MAX;
    char *text = malloc(len), why[64];
    memset(text, 'x', len);
    memcpy(text, begin, strlen(begin));
    judge(text, len, 1000, NULL, NULL, why);
    ck_assert_str_eq(why, "the answer's head is too large");
    free(text);
}
END_TEST

static char *
request(const char *address, const char *host, const char *method)
{
    struct conf_upstream up = {
        .health = {
            .type = CONF_HEALTH_HTTP, .path = "/health?x=1", .host = host, .method = method}};
    struct conf_backend b = {.address = address, .upstream = &up};
    size_t len = 0;
    char *text = probe_request(&b, &len);
    ck_assert_uint_eq(len, strlen(text));
    return text;
}

START_TEST(request_asks_as_configured)
{
    char *text = request("10.0.0.1:8080", "site.example", "HEAD");
    ck_assert_str_eq(text, "HEAD /health?x=1 HTTP/1.1\r\nHost: site.example\r\n"
                           "User-Agent: akashd-health\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    free(text);
}
END_TEST

START_TEST(request_names_the_backend_at_default)
{
    char *tcp = request("10.0.0.1:8080", NULL, NULL), *local = request("unix:/run/a", NULL, NULL);
    ck_assert_ptr_nonnull(strstr(tcp, "GET /health?x=1 HTTP/1.1\r\nHost: 10.0.0.1:8080\r\n"));
    ck_assert_ptr_nonnull(strstr(local, "\r\nHost: localhost\r\n"));
    free(tcp);
    free(local);
}
END_TEST

Suite *
probe_http_suite(void)
{
    Suite *suite = suite_create("probe_http");
    TCase *tc = tcase_create("probe_http");
    tcase_add_loop_test(tc, answers_are_judged, 0, sizeof(answers) / sizeof(answers[0]));
    tcase_add_test(tc, answer_to_head_has_no_body);
    tcase_add_test(tc, only_the_beginning_of_a_body_is_searched);
    tcase_add_test(tc, endless_head_is_refused);
    tcase_add_test(tc, request_asks_as_configured);
    tcase_add_test(tc, request_names_the_backend_at_default);
    suite_add_tcase(suite, tc);
    return suite;
}
