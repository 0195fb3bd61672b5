/* SPDX-License-Identifier: Apache-2.0
 *
 * exporter.h - the monitor's HTTP server: /metrics, /livez, /readyz, /status.json and the page
 * that shows it. Read-only.
 *
 * One request a connection, GET or HEAD, without a body. At most EXPORTER_CONNS_MAX connections: a
 * new one takes the place of the oldest that has not asked yet, and waits in the kernel's queue
 * while all are being answered. At most EXPORTER_HEAD_MAX bytes of head, and EXPORTER_DEADLINE_MS
 * from accept to the last byte, which nothing that the client does can move.
 */
#ifndef MASTER_EXPORTER_H
#define MASTER_EXPORTER_H

#include <event2/event.h>

#include "conf/conf.h"
#include "shared/shm.h"

#define EXPORTER_CONNS_MAX   64
#define EXPORTER_HEAD_MAX    8192
#define EXPORTER_DEADLINE_MS 10000

struct exporter;

/* base must have two priorities: the exporter has the second, behind the probes. NULL without
 * memory. */
struct exporter *
exporter_new(struct event_base *base, const struct shm *shm);
void
exporter_free(struct exporter *exporter);

/* What the pages are about from now on. conf is referenced. */
void
exporter_apply(struct exporter *exporter, struct conf *conf);

/* Accept on this listening, non-blocking socket instead of the former one, which is closed. Takes
 * fd; -1: accept nowhere. Connections that are open are served to their end. */
void
exporter_listen(struct exporter *exporter, int fd);
bool
exporter_is_listening(const struct exporter *exporter);

#endif
