/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_http2.c - an HTTP health check over HTTP/2: see probe_http2.h.
 */
#include "master/probe_http2.h"

#define MAX_BYTES (2 * PROBE_BODY_MAX) /* a body, a head, and frames around them */

static struct probe_http2 *
http2_of(struct probe_h2 *h)
{
    return container_of(h, struct probe_http2, h2);
}

static void
take(struct probe_http2 *p, enum probe_verdict verdict)
{
    if (verdict == PROBE_GOOD) {
        probe_h2_pass(&p->h2);
    } else if (verdict == PROBE_BAD) {
        probe_h2_fail(&p->h2, p->answer.why);
    }
}

static void
on_field(struct probe_h2 *h, struct slice name, struct slice value)
{
    (void)h;
    (void)name;
    (void)value; /* nghttp2 has judged them: the status alone counts */
}

static void
on_head(struct probe_h2 *h)
{
    struct probe_http2 *p = http2_of(h);
    if (h->has_head) {
        take(p, probe_answer_status(&p->answer, h->status));
    }
}

static void
on_body(struct probe_h2 *h, struct slice bytes)
{
    struct probe_http2 *p = http2_of(h);
    take(p, probe_answer_body(&p->answer, bytes));
}

static void
on_end(struct probe_h2 *h)
{
    struct probe_http2 *p = http2_of(h);
    take(p, probe_answer_body_end(&p->answer));
}

static const struct probe_h2_check http_check = {
    .max_bytes = MAX_BYTES,
    .on_field = on_field,
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
};

bool
probe_http2_init(struct probe_http2 *p, const struct conf_backend *backend)
{
    const struct conf_health *health = &backend->upstream->health;
    const nghttp2_nv accept = probe_h2_field("accept", "*/*");
    probe_answer_init(&p->answer, health);
    return probe_h2_init(&p->h2, &http_check) &&
           probe_h2_ask(&p->h2, backend, health->method ? health->method : "GET",
                        health->path ? health->path : "/", &accept, 1, NULL);
}

void
probe_http2_fini(struct probe_http2 *p)
{
    probe_h2_fini(&p->h2);
    probe_answer_fini(&p->answer);
}
