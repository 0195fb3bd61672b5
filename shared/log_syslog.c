/* SPDX-License-Identifier: Apache-2.0
 *
 * log_syslog.c - the logger's socket: see log_syslog.h.
 */
#include "shared/log_syslog.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

static int logger = -1;
static bool is_stream;

void
log_syslog_close(void)
{
    if (logger >= 0) {
        close(logger);
    }
    logger = -1;
}

/* 0 or -1. */
static int
open_logger(int type)
{
    static const struct sockaddr_un place = {.sun_family = AF_UNIX, .sun_path = _PATH_LOG};
    logger = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (logger < 0) {
        return -1;
    }
    if (connect(logger, (const struct sockaddr *)&place, sizeof(place)) != 0) {
        int why = errno;
        log_syslog_close();
        errno = why;
        return -1;
    }
    is_stream = type == SOCK_STREAM;
    return 0;
}

/* Loggers listen on datagrams, a few on a stream. */
static int
connect_logger(void)
{
    if (open_logger(SOCK_DGRAM) == 0) {
        return 0;
    }
    return errno == EPROTOTYPE ? open_logger(SOCK_STREAM) : -1;
}

/* A message on a stream ends with a NUL. */
static bool
send_message(struct iovec *parts, size_t nparts, size_t len)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = is_stream ? nparts : nparts - 1};
    ssize_t n = sendmsg(logger, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0 && (size_t)n < len) {
        log_syslog_close(); /* a stream that took a part: what follows must not be joined to it */
        errno = EAGAIN;
        return false;
    }
    return n >= 0;
}

bool
log_syslog(int priority, const char *text, size_t len)
{
    char head[96];
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    size_t n = (size_t)snprintf(head, sizeof(head), "<%d>", LOG_DAEMON | priority);
    n += strftime(head + n, sizeof(head) - n, "%b %e %H:%M:%S ", &tm);
    n += (size_t)snprintf(head + n, sizeof(head) - n, "akashd[%d]: ", (int)getpid());
    struct iovec parts[] = {{head, n}, {(char *)text, len}, {"", 1}};
    if (logger >= 0 && send_message(parts, 3, n + len)) {
        return true;
    }
    if (logger >= 0 && (errno == EAGAIN || errno == ENOBUFS || errno == EMSGSIZE)) {
        return false;
    }
    log_syslog_close(); /* the logger has gone; there may be another */
    return connect_logger() == 0 && send_message(parts, 3, n + len);
}
