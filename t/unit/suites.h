/* SPDX-License-Identifier: Apache-2.0
 *
 * suites.h - one row for each unit test file, t/unit/test_NAME.c.
 */
#ifndef T_UNIT_SUITES_H
#define T_UNIT_SUITES_H

#include <check.h>

#define UNIT_SUITES(X) \
    X(scan) \
    X(access_log) \
    X(log_sink) \
    X(options) \
    X(conf) \
    X(schedule) \
    X(rate) \
    X(breaker) \
    X(budget) \
    X(hash) \
    X(router) \
    X(route) \
    X(bundle) \
    X(include) \
    X(conf_tls) \
    X(tls) \
    X(tls_client) \
    X(transport_tls) \
    X(addr) \
    X(proxy_protocol) \
    X(tls_hello) \
    X(page) \
    X(channel) \
    X(shm) \
    X(shm_fold) \
    X(clients) \
    X(sticky) \
    X(log) \
    X(title) \
    X(sandbox) \
    X(transport_plain) \
    X(probe_http) \
    X(probe_grpc) \
    X(probe_http2) \
    X(grpc) \
    X(metrics) \
    X(status) \
    X(health) \
    X(http) \
    X(http1_chunked) \
    X(http1_parse) \
    X(http2_message) \
    X(websocket) \
    X(buf) \
    X(timer) \
    X(balance) \
    X(names) \
    X(master_pure)

#define DECLARE_SUITE(name) Suite *name##_suite(void);
UNIT_SUITES(DECLARE_SUITE)
#undef DECLARE_SUITE

#endif
