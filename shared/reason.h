/* SPDX-License-Identifier: Apache-2.0
 *
 * reason.h - why an exchange failed: one row each. The token is the same word in the access log, in
 * the metric's label, on the error page and in akashctl.
 */
#ifndef SHARED_REASON_H
#define SHARED_REASON_H

/*    token                status  text for people */
#define REASONS(X) \
    X(none, 0, "") \
    X(bad_request, 400, "the request is malformed") \
    X(no_route, 404, "nothing is served here") \
    X(method, 405, "this method is not allowed") \
    X(header_timeout, 408, "the request head took too long") \
    X(body_timeout, 408, "the request body took too long") \
    X(body_too_large, 413, "the request body is too large") \
    X(uri_too_long, 414, "the request target is too long") \
    X(rate_limited, 429, "too many requests") \
    X(header_too_large, 431, "the request head is too large") \
    X(client_closed, 499, "the client went away") \
    X(internal, 500, "internal error") \
    X(unsupported, 501, "not supported") \
    X(connect_refused, 502, "the backend refused the connection") \
    X(connect_failed, 502, "the backend could not be reached") \
    X(backend_reset, 502, "the backend closed the connection") \
    X(bad_response, 502, "the backend's answer is malformed") \
    X(backend_tls, 502, "there is no TLS connection with the backend") \
    X(no_backend, 503, "no backend is available") \
    X(over_limit, 503, "too many connections") \
    X(draining, 503, "the server is shutting down") \
    X(connect_timeout, 504, "connecting to the backend took too long") \
    X(response_timeout, 504, "the backend's answer took too long") \
    X(total_timeout, 504, "the exchange took too long") \
    X(response_cut, 0, "the backend stopped in mid-answer") \
    X(send_timeout, 0, "the peer did not read") \
    X(handshake_failed, 0, "the TLS handshake failed") \
    X(tunnel_idle, 0, "no byte either way for too long") \
    X(drain_cut, 0, "cut at the end of the drain time")

enum reason {
#define REASON_ENUM(token, status, text) REASON_##token,
    REASONS(REASON_ENUM)
#undef REASON_ENUM
        REASON_COUNT
};

struct reason_info {
    const char *token;
    int status; /* 0: no answer is made */
    const char *text;
};

extern const struct reason_info reason_table[REASON_COUNT];

#endif
