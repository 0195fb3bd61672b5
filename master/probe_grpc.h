/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_grpc.h - a health check by gRPC: grpc.health.v1.Health/Check over HTTP/2. No I/O.
 *
 * The call is in h2, with which the caller goes on: see probe_h2.h. A backend may send anything:
 * PROBE_GRPC_MAX bytes of it are looked at, and the message of the answer is at most
 * PROBE_MESSAGE_MAX bytes long.
 */
#ifndef MASTER_PROBE_GRPC_H
#define MASTER_PROBE_GRPC_H

#include "conf/conf.h"
#include "master/probe_h2.h"
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
    struct probe_h2 h2;
    char *message; /* with its prefix, of the request */
    size_t message_len, message_sent;
    char answer[GRPC_PREFIX_BYTES + PROBE_MESSAGE_MAX];
    size_t answer_len;
    bool is_grpc; /* by its content-type */
    bool has_code;
    unsigned code; /* grpc-status, valid where has_code */
};

/* A check of that backend, with its request ready to leave. false without memory: fini all the
 * same. */
bool
probe_grpc_init(struct probe_grpc *g, const struct conf_backend *backend);
void
probe_grpc_fini(struct probe_grpc *g);

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
