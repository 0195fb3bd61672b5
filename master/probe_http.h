/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_http.h - what an HTTP health check asks, and what it makes of the answer. No I/O.
 *
 * The answer is fed as it arrives. A backend may send anything: the head is bounded by
 * PROBE_HEAD_MAX, and of a body only PROBE_BODY_MAX decoded bytes are looked at.
 */
#ifndef MASTER_PROBE_HTTP_H
#define MASTER_PROBE_HTTP_H

#include "conf/conf.h"
#include "shared/http1.h"

#define PROBE_HEAD_MAX 16384
#define PROBE_BODY_MAX 65536

enum probe_verdict {
    PROBE_MORE, /* feed more bytes, or tell of the end */
    PROBE_GOOD, /* healthy; the rest of the answer does not matter */
    PROBE_BAD   /* not healthy: why tells */
};

struct probe_answer {
    const struct conf_health *health;
    enum http_method method;
    char *head;     /* bytes of heads; NULL until the first */
    size_t filled;  /* of head */
    size_t scanned; /* of head, without an end in it: scanned <= filled */
    bool is_in_body;
    enum http_body_kind kind;
    uint64_t left; /* HTTP_BODY_LENGTH */
    struct http1_chunked chunked;
    char *body;      /* decoded bytes; NULL unless health->body is wanted */
    size_t body_len; /* at most PROBE_BODY_MAX */
    char why[64];
};

/* The Host (or :authority) of a check: what is configured, else the backend's address as the file
 * has it. */
const char *
probe_host(const struct conf_backend *backend);

/* The request of a check of that backend, allocated; NULL without memory. */
char *
probe_request(const struct conf_backend *backend, size_t *len);

/* health must outlive the answer. */
void
probe_answer_init(struct probe_answer *a, const struct conf_health *health);
void
probe_answer_fini(struct probe_answer *a);

/* Bytes of the answer have come. Not called again after another verdict than PROBE_MORE. */
enum probe_verdict
probe_answer_feed(struct probe_answer *a, const char *bytes, size_t len);

/* The backend has closed the connection: PROBE_GOOD or PROBE_BAD. */
enum probe_verdict
probe_answer_end(struct probe_answer *a);

/* The same where another has read head and framing: a final status has come (once), decoded bytes
 * of the body (while the verdict is PROBE_MORE), and its end. */
enum probe_verdict
probe_answer_status(struct probe_answer *a, unsigned status);
enum probe_verdict
probe_answer_body(struct probe_answer *a, struct slice piece);
enum probe_verdict
probe_answer_body_end(struct probe_answer *a);

#endif
