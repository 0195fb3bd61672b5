/* SPDX-License-Identifier: Apache-2.0
 *
 * reason.h - why an exchange failed: one row each. The token is the same word in the access log, in
 * the metric's label, on the error page and in akashctl.
 */
#ifndef SHARED_REASON_H
#define SHARED_REASON_H

/*    token, status, what it is to a client of gRPC (grpc.h), text for people (ASCII without '%') */
#define REASONS(X) \
    X(none, 0, OK, "") \
    X(bad_request, 400, INTERNAL, "the request is malformed") \
    X(denied, 403, PERMISSION_DENIED, "this client is not admitted here") \
    X(no_route, 404, UNIMPLEMENTED, "nothing is served here") \
    X(method, 405, INTERNAL, "this method is not allowed") \
    X(header_timeout, 408, DEADLINE_EXCEEDED, "the request head took too long") \
    X(body_timeout, 408, DEADLINE_EXCEEDED, "the request body took too long") \
    X(body_too_large, 413, RESOURCE_EXHAUSTED, "the request body is too large") \
    X(uri_too_long, 414, RESOURCE_EXHAUSTED, "the request target is too long") \
    X(rate_limited, 429, RESOURCE_EXHAUSTED, "too many requests") \
    X(header_too_large, 431, RESOURCE_EXHAUSTED, "the request head is too large") \
    X(client_closed, 499, CANCELLED, "the client went away") \
    X(internal, 500, INTERNAL, "internal error") \
    X(unsupported, 501, UNIMPLEMENTED, "not supported") \
    X(connect_refused, 502, UNAVAILABLE, "the backend refused the connection") \
    X(connect_failed, 502, UNAVAILABLE, "the backend could not be reached") \
    X(backend_reset, 502, UNAVAILABLE, "the backend closed the connection") \
    X(bad_response, 502, INTERNAL, "the backend's answer is malformed") \
    X(backend_tls, 502, UNAVAILABLE, "there is no TLS connection with the backend") \
    X(no_backend, 503, UNAVAILABLE, "no backend is available") \
    X(breaker_open, 503, UNAVAILABLE, "the circuit breaker of every backend is open") \
    X(queue_full, 503, RESOURCE_EXHAUSTED, "too many requests wait for a backend") \
    X(queue_timeout, 503, UNAVAILABLE, "waiting for a backend took too long") \
    X(over_limit, 503, RESOURCE_EXHAUSTED, "too many connections or requests") \
    X(draining, 503, UNAVAILABLE, "the server is shutting down") \
    X(connect_timeout, 504, UNAVAILABLE, "connecting to the backend took too long") \
    X(response_timeout, 504, DEADLINE_EXCEEDED, "the backend's answer took too long") \
    X(total_timeout, 504, DEADLINE_EXCEEDED, "the exchange took too long") \
    X(response_cut, 0, UNAVAILABLE, "the backend stopped in mid-answer") \
    X(send_timeout, 0, CANCELLED, "the peer did not read") \
    X(handshake_failed, 0, UNAVAILABLE, "the TLS handshake failed") \
    X(tunnel_idle, 0, DEADLINE_EXCEEDED, "no byte either way for too long") \
    X(drain_cut, 0, UNAVAILABLE, "cut at the end of the drain time")

enum reason {
#define REASON_ENUM(token, ...) REASON_##token,
    REASONS(REASON_ENUM)
#undef REASON_ENUM
        REASON_COUNT
};

struct reason_info {
    const char *token;
    int status; /* 0: no answer is made */
    int grpc_code;
    const char *text;
};

extern const struct reason_info reason_table[REASON_COUNT];

#endif
