/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc.h - what of gRPC over HTTP/2 a proxy and a health check have to know. Pure.
 */
#ifndef SHARED_GRPC_H
#define SHARED_GRPC_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/slice.h"

/* In front of each message: a flag (1: compressed) and the length, 4 bytes, big-endian. */
#define GRPC_PREFIX_BYTES 5

/* Status codes, in the order of their numbers. */
#define GRPC_CODES(X) \
    X(OK) \
    X(CANCELLED) \
    X(UNKNOWN) \
    X(INVALID_ARGUMENT) \
    X(DEADLINE_EXCEEDED) \
    X(NOT_FOUND) \
    X(ALREADY_EXISTS) \
    X(PERMISSION_DENIED) \
    X(RESOURCE_EXHAUSTED) \
    X(FAILED_PRECONDITION) \
    X(ABORTED) \
    X(OUT_OF_RANGE) \
    X(UNIMPLEMENTED) \
    X(INTERNAL) \
    X(UNAVAILABLE) \
    X(DATA_LOSS) \
    X(UNAUTHENTICATED)

enum grpc_code {
#define GRPC_CODE_ENUM(name) GRPC_##name,
    GRPC_CODES(GRPC_CODE_ENUM)
#undef GRPC_CODE_ENUM
        GRPC_CODE_COUNT
};

/* "UNAVAILABLE"; "OTHER" for a number that no code has. */
const char *
grpc_code_name(unsigned code);

/* The number that a grpc-status says: GRPC_CODE_COUNT for anything that is no code. */
unsigned
grpc_parse_code(struct slice value);

/* What an answer without grpc-status means, by its HTTP status. */
enum grpc_code
grpc_code_of_status(unsigned status);

/* Is a body of this content-type made of gRPC messages? application/grpc, also with +proto and
 * such, or with parameters; not application/grpc-web. */
bool
grpc_is_content_type(struct slice value);

/* grpc-timeout: 1 to 8 digits and a unit (H M S m u n), rounded up to milliseconds. false: it is
 * malformed. */
bool
grpc_parse_timeout(struct slice value, uint64_t *ms);

#endif
