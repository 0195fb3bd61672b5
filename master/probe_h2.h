/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_h2.h - a health check over HTTP/2 (RFC 9113): one request, one answer. No I/O.
 *
 * The caller sends what probe_h2_output() gives, feeds what arrives, and looks at verdict after
 * each. What the answer means is its check's: probe_grpc.h, probe_http2.h. A backend may send
 * anything: max_bytes of it are looked at.
 */
#ifndef MASTER_PROBE_H2_H
#define MASTER_PROBE_H2_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>

#include "conf/conf.h"
#include "master/probe_http.h"
#include "shared/slice.h"

struct probe_h2;

/* What a check makes of its answer: it ends with probe_h2_pass() or probe_h2_fail(). */
struct probe_h2_check {
    size_t max_bytes; /* of the connection */
    /* A field, not :status; of trailers where has_head. */
    void (*on_field)(struct probe_h2 *h, struct slice name, struct slice value);
    /* A head has come whole, with that status; below 200 the final one follows. */
    void (*on_head)(struct probe_h2 *h);
    void (*on_body)(struct probe_h2 *h, struct slice bytes);
    /* The answer is whole. Not called when it has been judged. */
    void (*on_end)(struct probe_h2 *h);
};

struct probe_h2 {
    nghttp2_session *session;
    const struct probe_h2_check *check;
    enum probe_verdict verdict;
    size_t fed;      /* bytes of the connection */
    unsigned status; /* of HTTP; 0: no head has begun */
    bool has_head;   /* a head that is no interim one is whole: what follows are trailers */
    char why[64];
};

/* ---- for the caller ---- */

/* The next bytes to send, all of them, before this is called again; empty: none for now. */
struct slice
probe_h2_output(struct probe_h2 *h);
/* Bytes have come. */
void
probe_h2_feed(struct probe_h2 *h, const char *bytes, size_t len);
/* The backend has closed the connection. */
void
probe_h2_end(struct probe_h2 *h);

/* ---- for checks ---- */

/* false without memory: fini all the same. */
bool
probe_h2_init(struct probe_h2 *h, const struct probe_h2_check *check);
void
probe_h2_fini(struct probe_h2 *h);

/* The request, with pseudo-fields and user-agent before those n fields (PROBE_H2_FIELDS at most).
 * body may be NULL; its callback gets h. false without memory. */
#define PROBE_H2_FIELDS 3
bool
probe_h2_ask(struct probe_h2 *h, const struct conf_backend *backend, const char *method,
             const char *path, const nghttp2_nv *fields, size_t n,
             const nghttp2_data_provider *body);

/* Healthy, or not, and why. The first judgement stands. */
void
probe_h2_pass(struct probe_h2 *h);
void
probe_h2_fail(struct probe_h2 *h, const char *why);

static inline nghttp2_nv
probe_h2_field(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), 0};
}

#endif
