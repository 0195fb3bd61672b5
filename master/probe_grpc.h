/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_grpc.h - a health check by gRPC: grpc.health.v1.Health/Check over HTTP/2. No I/O.
 *
 * The caller sends what probe_grpc_output() gives, feeds what arrives, and looks at verdict after
 * each. A backend may send anything: PROBE_GRPC_MAX bytes of it are looked at, and the message of
 * the answer is at most PROBE_MESSAGE_MAX bytes long.
 */
#ifndef MASTER_PROBE_GRPC_H
#define MASTER_PROBE_GRPC_H

#include <nghttp2/nghttp2.h>

#include "conf/conf.h"
#include "master/probe_http.h"
#include "shared/grpc.h"

#define PROBE_GRPC_MAX    65536
#define PROBE_MESSAGE_MAX 1024
#define PROBE_SERVICE_MAX 1024

/* grpc.health.v1.HealthCheckResponse.ServingStatus */
enum probe_serving {
    PROBE_SERVING_UNKNOWN,
    PROBE_SERVING,
    PROBE_NOT_SERVING,
    PROBE_SERVICE_UNKNOWN
};

struct probe_grpc {
    nghttp2_session *session;
    enum probe_verdict verdict;
    char *message; /* with its prefix, of the request; then of the answer */
    size_t message_len, message_sent;
    char answer[GRPC_PREFIX_BYTES + PROBE_MESSAGE_MAX];
    size_t answer_len;
    size_t fed;      /* bytes of the connection */
    unsigned status; /* of HTTP; 0: no head has begun */
    bool has_head;   /* a head that is no interim one is whole: what follows are trailers */
    bool is_grpc;    /* by its content-type */
    bool has_code;
    unsigned code; /* grpc-status, valid where has_code */
    char why[64];
};

/* A check of that backend, with its request ready to leave. false without memory: fini all the
 * same. */
bool
probe_grpc_init(struct probe_grpc *g, const struct conf_backend *backend);
void
probe_grpc_fini(struct probe_grpc *g);

/* The next bytes to send, all of them, before this is called again; empty: none for now. */
struct slice
probe_grpc_output(struct probe_grpc *g);
/* Bytes have come. */
void
probe_grpc_feed(struct probe_grpc *g, const char *bytes, size_t len);
/* The backend has closed the connection. */
void
probe_grpc_end(struct probe_grpc *g);

/* ---- messages ---- */

/* HealthCheckRequest{service} behind its prefix: the length, out has room for
 * PROBE_SERVICE_MAX + 16. */
size_t
probe_grpc_write_request(char *out, struct slice service);

/* HealthCheckResponse behind its prefix, exactly one in all of bytes. false: it is malformed. A
 * number of *serving that enum probe_serving does not have is well-formed. */
bool
probe_grpc_read_answer(struct slice bytes, uint64_t *serving);

#endif
