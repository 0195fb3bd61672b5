/* SPDX-License-Identifier: Apache-2.0
 *
 * notify.h - tell the service manager how we are: the sd_notify protocol over $NOTIFY_SOCKET.
 *
 * Without that variable every call does nothing. A datagram that does not fit is lost: the manager
 * is never waited for.
 */
#ifndef MASTER_NOTIFY_H
#define MASTER_NOTIFY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum notify_event {
    NOTIFY_READY,
    NOTIFY_RELOADING,
    NOTIFY_STOPPING,
    NOTIFY_STATUS,
    NOTIFY_MAIN_PID, /* another process is the main one now */
    NOTIFY_WATCHDOG
};

struct notify_message {
    enum notify_event event;
    const char *status; /* NULL: none */
    uint64_t mono_us;   /* RELOADING */
    pid_t main_pid;     /* READY, MAIN_PID */
};

/* The datagram for an event; returns its length, at most size - 1; a newline in the status becomes
 * a space. */
size_t
notify_build(const struct notify_message *message, char *buf, size_t size);

/* Open the socket that the environment names. */
void
notify_open(void);
void
notify_close(void);
void
notify_send(enum notify_event event, const char *status);
void
notify_main_pid(pid_t pid);

/* How often the manager wants to hear WATCHDOG, in milliseconds (half of WATCHDOG_USEC); 0: never.
 */
uint64_t
notify_watchdog_ms(void);

#endif
