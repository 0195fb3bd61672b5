/* SPDX-License-Identifier: Apache-2.0
 *
 * notify.c - READY, RELOADING, STOPPING, STATUS and WATCHDOG for a service of Type=notify.
 */
#include "master/notify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/clock.h"

static struct {
    int fd;
    struct sockaddr_un addr;
    socklen_t addr_len;
} notify = {.fd = -1};

static int
notify_lines(const struct notify_message *message, char *buf, size_t size)
{
    switch (message->event) {
    case NOTIFY_READY:
        return snprintf(buf, size, "READY=1\nMAINPID=%ld\n", (long)message->main_pid);
    case NOTIFY_RELOADING:
        return snprintf(buf, size, "RELOADING=1\nMONOTONIC_USEC=%llu\n",
                        (unsigned long long)message->mono_us);
    case NOTIFY_STOPPING: return snprintf(buf, size, "STOPPING=1\n");
    case NOTIFY_WATCHDOG: return snprintf(buf, size, "WATCHDOG=1\n");
    case NOTIFY_MAIN_PID: return snprintf(buf, size, "MAINPID=%ld\n", (long)message->main_pid);
    case NOTIFY_STATUS: break;
    }
    buf[0] = '\0';
    return 0;
}

size_t
notify_build(const struct notify_message *message, char *buf, size_t size)
{
    int n = notify_lines(message, buf, size);
    size_t len = n < 0 ? 0 : (size_t)n < size ? (size_t)n : size - 1;
    if (!message->status) {
        return len;
    }
    size_t start = len + sizeof("STATUS=") - 1;
    n = snprintf(buf + len, size - len, "STATUS=%s", message->status);
    len = n < 0 ? len : len + (size_t)n < size ? len + (size_t)n : size - 1;
    for (size_t i = start; i < len; i++) {
        if (buf[i] == '\n') {
            buf[i] = ' ';
        }
    }
    return len;
}

void
notify_open(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    if (!path || (path[0] != '/' && path[0] != '@') ||
        strlen(path) >= sizeof(notify.addr.sun_path)) {
        return;
    }
    size_t len = strlen(path);
    notify.addr.sun_family = AF_UNIX;
    memcpy(notify.addr.sun_path, path, len);
    if (path[0] == '@') {
        notify.addr.sun_path[0] = '\0'; /* a name in the abstract namespace */
    }
    notify.addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    notify.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

void
notify_close(void)
{
    if (notify.fd >= 0) {
        close(notify.fd);
        notify.fd = -1;
    }
}

static void
notify_put(const struct notify_message *message)
{
    char buf[2048];
    if (notify.fd >= 0) {
        size_t len = notify_build(message, buf, sizeof(buf));
        sendto(notify.fd, buf, len, MSG_NOSIGNAL, (struct sockaddr *)&notify.addr, notify.addr_len);
    }
}

void
notify_send(enum notify_event event, const char *status)
{
    struct notify_message message = {
        .event = event, .status = status, .mono_us = clock_mono_us(), .main_pid = getpid()};
    notify_put(&message);
}

void
notify_main_pid(pid_t pid)
{
    struct notify_message message = {.event = NOTIFY_MAIN_PID, .main_pid = pid};
    notify_put(&message);
}

uint64_t
notify_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");
    if (notify.fd < 0 || !usec || (pid && strtoll(pid, NULL, 10) != (long long)getpid())) {
        return 0;
    }
    uint64_t ms = strtoull(usec, NULL, 10) / 2000;
    return ms > 0 ? ms : 1;
}
