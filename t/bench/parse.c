/* SPDX-License-Identifier: Apache-2.0
 *
 * parse.c - nanoseconds that one message head takes to parse: "parse [MILLISECONDS per head]".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/http1.h"

#define ROUNDS 10000

static const char wrk_head[] =
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:1902\r\nConnection: keep-alive\r\n\r\n";

static const char curl_head[] = "GET /index.html HTTP/1.1\r\nHost: 127.0.0.1:1902\r\n"
                                "User-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";

static const char browser_head[] =
    "GET /static/app/main.4f2a9c1b.js?v=20261124 HTTP/1.1\r\n"
    "Host: www.example.com\r\n"
    "Connection: keep-alive\r\n"
    "sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n"
    "sec-ch-ua-mobile: ?0\r\n"
    "sec-ch-ua-platform: \"Linux\"\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.0.0 Safari/537.36\r\n"
    "Accept: */*\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "Sec-Fetch-Mode: no-cors\r\n"
    "Sec-Fetch-Dest: script\r\n"
    "Referer: https://www.example.com/account/overview\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
    "Cookie: session=5f2b7a90c1d84e3fa6; theme=dark; consent=all\r\n"
    "If-None-Match: \"66f1-1924f8\"\r\n\r\n";

static const char response_head[] = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\n"
                                    "Date: Tue, 24 Nov 2026 14:00:00 GMT\r\n"
                                    "Content-Type: text/plain\r\nContent-Length: 1024\r\n"
                                    "Connection: keep-alive\r\n\r\n";

static const struct {
    const char *name;
    struct slice head;
} rows[] = {
    {"request, wrk", {wrk_head, sizeof(wrk_head) - 1}},
    {"request, curl", {curl_head, sizeof(curl_head) - 1}},
    {"request, browser", {browser_head, sizeof(browser_head) - 1}},
    {"response", {response_head, sizeof(response_head) - 1}},
};

static uint64_t
now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void
parse_once(struct slice head)
{
    static struct http_field fields[100];
    static const struct http_limits limits = {32768, 100};
    struct http_msg m = {.fields = fields, .max_fields = 100};
    int len = head.ptr[0] == 'H' ? http1_parse_response(head.ptr, head.len, &limits, HTTP_GET, &m)
                                 : http1_parse_request(head.ptr, head.len, &limits, &m);
    if (len != (int)head.len || !http_strip_hop_by_hop(&m)) {
        fprintf(stderr, "parse: a head was refused: %d\n", len);
        exit(1);
    }
}

/* The best of the rounds that fit: what others do on the machine only adds. */
static double
best_ns(struct slice head, uint64_t budget_ns)
{
    uint64_t best = UINT64_MAX;
    uint64_t began = now_ns();
    for (uint64_t at = began; at - began < budget_ns;) {
        for (int i = 0; i < ROUNDS; i++) {
            parse_once(head);
        }
        uint64_t end = now_ns();
        best = end - at < best ? end - at : best;
        at = end;
    }
    return (double)best / ROUNDS;
}

int
main(int argc, char **argv)
{
    uint64_t budget_ns = (uint64_t)(argc > 1 ? atoi(argv[1]) : 300) * 1000000u;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        printf("%-18s %4zu bytes %7.1f ns\n", rows[i].name, rows[i].head.len,
               best_ns(rows[i].head, budget_ns));
    }
    return 0;
}
