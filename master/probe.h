/* SPDX-License-Identifier: Apache-2.0
 *
 * probe.h - one health check of one backend: a TCP connect, an HTTP exchange in the version of its
 * upstream, or a gRPC call; with the TLS of its upstream, but without a certificate to show.
 *
 * One deadline covers all of it: connect, handshake, request, answer. It does not move, so a
 * backend that accepts and never answers, or drips bytes, fails.
 */
#ifndef MASTER_PROBE_H
#define MASTER_PROBE_H

#include <event2/event.h>

#include "conf/conf.h"

enum probe_result {
    PROBE_PASSED,
    PROBE_FAILED,
    PROBE_SKIPPED /* this host could not try: no descriptor, no port, no memory. Says nothing about
                     the backend */
};

struct probe;

/* why is "" when passed, else a few words: "connect timeout", "status 503". It is valid during the
 * call; the probe is gone when it is made. */
typedef void
probe_done(void *owner, enum probe_result result, const char *why);

/* Begin. done is called once, never from within this call, unless probe_cancel comes first. conf,
 * which backend belongs to, is referenced meanwhile. NULL without memory. */
struct probe *
probe_start(struct event_base *base, struct conf *conf, const struct conf_backend *backend,
            probe_done *done, void *owner);
void
probe_cancel(struct probe *probe);

#endif
