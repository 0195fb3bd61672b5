/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc.c - gRPC over HTTP/2: see grpc.h.
 */
#include "shared/grpc.h"

#define TIMEOUT_DIGITS_MAX 8

const char *
grpc_code_name(unsigned code)
{
    static const char *const names[] = {
#define GRPC_CODE_NAME(name) #name,
        GRPC_CODES(GRPC_CODE_NAME)
#undef GRPC_CODE_NAME
    };
    return code < GRPC_CODE_COUNT ? names[code] : "OTHER";
}

unsigned
grpc_parse_code(struct slice value)
{
    unsigned code = 0;
    if (value.len == 0 || value.len > 2 || (value.len == 2 && value.ptr[0] == '0')) {
        return GRPC_CODE_COUNT;
    }
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9') {
            return GRPC_CODE_COUNT;
        }
        code = code * 10 + (unsigned)(value.ptr[i] - '0');
    }
    return code < GRPC_CODE_COUNT ? code : GRPC_CODE_COUNT;
}

enum grpc_code
grpc_code_of_status(unsigned status)
{
    switch (status) {
    case 400: return GRPC_INTERNAL;
    case 401: return GRPC_UNAUTHENTICATED;
    case 403: return GRPC_PERMISSION_DENIED;
    case 404: return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504: return GRPC_UNAVAILABLE;
    default: return GRPC_UNKNOWN;
    }
}

bool
grpc_is_content_type(struct slice value)
{
    struct slice type = SLICE("application/grpc");
    if (value.len < type.len || !slice_eq_nocase(slice_of(value.ptr, type.len), type)) {
        return false;
    }
    char next = value.len > type.len ? value.ptr[type.len] : ';';
    return next == '+' || next == ';' || next == ' ' || next == '\t';
}

/* Nanoseconds of a unit; 0: it is none. */
static uint64_t
unit_ns(char unit)
{
    switch (unit) {
    case 'H': return 3600000000000u;
    case 'M': return 60000000000u;
    case 'S': return 1000000000u;
    case 'm': return 1000000u;
    case 'u': return 1000u;
    case 'n': return 1u;
    default: return 0;
    }
}

bool
grpc_parse_timeout(struct slice value, uint64_t *ms)
{
    uint64_t n = 0;
    size_t digits = value.len - 1;
    if (value.len < 2 || digits > TIMEOUT_DIGITS_MAX) {
        return false;
    }
    for (size_t i = 0; i < digits; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9') {
            return false;
        }
        n = n * 10 + (uint64_t)(value.ptr[i] - '0');
    }
    /* 99,999,999 hours are 3.6e20 ns: more than 64 bits, so the two are not multiplied out. */
    uint64_t unit = unit_ns(value.ptr[digits]);
    *ms = unit >= 1000000u ? n * (unit / 1000000u) : (n * unit + 999999u) / 1000000u;
    return unit != 0;
}
