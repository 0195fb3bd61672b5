/* SPDX-License-Identifier: Apache-2.0
 *
 * reply.c - error answers in HTTP/1.
 */
#include "worker/reply.h"

#include <stdio.h>

#include "worker/worker.h"

#define RETRY_AFTER_S 1 /* what a 503 asks for: health and limits change within seconds */

/* Fields that a status requires (RFC 9110 10.2.1, 10.2.3). */
static const char *
status_fields(int status)
{
    switch (status) {
    case 405: return "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n";
    case 503: return "Retry-After: 1\r\n";
    default: return "";
    }
}

static const char *
date_now(void)
{
    static char text[32];
    static uint64_t at_s;
    uint64_t now_s = clock_wall_us() / 1000000u;
    if (now_s != at_s) {
        at_s = now_s;
        http_date(now_s, text);
    }
    return text;
}

size_t
reply_write(char *out, struct slice id, enum reason why, bool is_close, bool is_head)
{
    _Static_assert(RETRY_AFTER_S == 1, "status_fields says so too");
    const struct reason_info *r = &reason_table[why];
    struct slice phrase = http_status_phrase(r->status);
    char body[384];
    int body_len = snprintf(body, sizeof(body), "%d %.*s\nreason: %s (%s)\nrequest id: %.*s\n",
                            r->status, SLICE_ARG(phrase), r->token, r->text, SLICE_ARG(id));
    int n = snprintf(out, REPLY_MAX,
                     "HTTP/1.1 %d %.*s\r\n"
                     "Date: %s\r\n"
                     "Content-Type: text/plain; charset=utf-8\r\n"
                     "Content-Length: %d\r\n"
                     "Cache-Control: no-store\r\n"
                     "X-Request-ID: %.*s\r\n"
                     "%s%s\r\n%s",
                     r->status, SLICE_ARG(phrase), date_now(), body_len, SLICE_ARG(id),
                     status_fields(r->status), is_close ? "Connection: close\r\n" : "",
                     is_head ? "" : body);
    return n < REPLY_MAX ? (size_t)n : REPLY_MAX - 1;
}
