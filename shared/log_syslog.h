/* SPDX-License-Identifier: Apache-2.0
 *
 * log_syslog.h - lines to the system's logger, as syslog(3) sends them (RFC 3164), but without
 * waiting: syslog(3) blocks while the logger's socket is full.
 */
#ifndef SHARED_LOG_SYSLOG_H
#define SHARED_LOG_SYSLOG_H

#include <stdbool.h>
#include <stddef.h>

/* One message of facility daemon, from akashd. priority as in syslog(3). Connects when it must.
 * false: the logger did not take it. Not async-signal-safe. */
bool
log_syslog(int priority, const char *text, size_t len);

/* Close the connection. Before a child closes descriptors that it does not know of. */
void
log_syslog_close(void);

#endif
