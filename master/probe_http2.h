/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_http2.h - an HTTP health check of a backend that speaks HTTP/2. No I/O.
 *
 * It asks and expects what probe_http.h does over HTTP/1. The exchange is in h2, with which the
 * caller goes on: see probe_h2.h.
 */
#ifndef MASTER_PROBE_HTTP2_H
#define MASTER_PROBE_HTTP2_H

#include "master/probe_h2.h"

struct probe_http2 {
    struct probe_h2 h2;
    struct probe_answer answer;
};

/* A check of that backend, with its request ready to leave. false without memory: fini all the
 * same. */
bool
probe_http2_init(struct probe_http2 *p, const struct conf_backend *backend);
void
probe_http2_fini(struct probe_http2 *p);

#endif
