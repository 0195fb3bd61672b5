/* SPDX-License-Identifier: Apache-2.0
 *
 * counters.h - every counter and histogram, one row each: segment, /metrics and status come from
 * here.
 *
 * A worker adds to its own row only; readers sum all rows. So no counter ever falls.
 */
#ifndef SHARED_COUNTERS_H
#define SHARED_COUNTERS_H

#include <stdint.h>

/* Upper bounds of the histogram buckets, microseconds; one more bucket is +Inf. */
#define HISTOGRAM_BOUNDS(X) \
    X(500) \
    X(1000) \
    X(2500) \
    X(5000) \
    X(10000) \
    X(25000) \
    X(50000) \
    X(100000) \
    X(250000) X(500000) X(1000000) X(2500000) X(5000000) X(10000000) X(30000000) X(60000000)
#define HISTOGRAM_BUCKETS 17

/*  name               metric name                      labels (literal)              help */
#define WORKER_COUNTERS(X) \
    X(client_in, "akash_bytes_total", "direction=\"client_in\"", "Bytes moved") \
    X(client_out, "akash_bytes_total", "direction=\"client_out\"", "Bytes moved") \
    X(backend_in, "akash_bytes_total", "direction=\"backend_in\"", "Bytes moved") \
    X(backend_out, "akash_bytes_total", "direction=\"backend_out\"", "Bytes moved") \
    X(tls_full, "akash_tls_handshakes_total", "resumed=\"no\"", "TLS handshakes with clients") \
    X(tls_resumed, "akash_tls_handshakes_total", "resumed=\"yes\"", "TLS handshakes with clients") \
    X(accept_pauses, "akash_accept_pauses_total", "", \
      "Times accepting paused for want of descriptors") \
    X(retries_refused, "akash_retries_refused_total", "", \
      "Retries that an upstream's budget did not allow") \
    X(log_dropped, "akash_log_lines_dropped_total", "", \
      "Log lines dropped because the target did not take them")

/* per listener */
#define LISTENER_COUNTERS(X) \
    X(connections, "akash_connections_total", "Client connections accepted") \
    X(clients_refused, "akash_clients_refused_total", \
      "Client connections refused because their address had connections_per_client of them") \
    X(clients_uncounted, "akash_clients_uncounted_total", \
      "Client connections let in uncounted because the table of addresses had no room") \
    X(requests_refused, "akash_requests_refused_total", \
      "Requests refused because requests_in_flight of them were under way")

/* per rate limit */
#define LIMIT_COUNTERS(X) \
    X(limited, "akash_rate_limited_total", \
      "Requests refused by the rate limit, or that would have been (dry_run)")

/* per backend */
#define BACKEND_COUNTERS(X) \
    X(served, "akash_backend_served_total", "Exchanges completed, whatever the status") \
    X(failures, "akash_backend_failures_total", \
      "Connects, resets, timeouts and malformed answers") \
    X(retries, "akash_backend_retries_total", "Exchanges sent again after this backend failed") \
    X(trips, "akash_breaker_trips_total", "Times the circuit breaker opened") \
    X(connects, "akash_backend_connects_total", "Connections opened to the backend")

/* per backend */
#define BACKEND_HISTOGRAMS(X) \
    X(response, "akash_backend_response_seconds", "Request sent to head of the answer") \
    X(connect, "akash_backend_connect_seconds", "Connect to connected")

#endif
