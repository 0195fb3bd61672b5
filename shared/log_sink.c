/* SPDX-License-Identifier: Apache-2.0
 *
 * log_sink.c - whole lines to a descriptor, without waiting: see log_sink.h.
 */
#include "shared/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static enum log_sink_kind
kind_of(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return LOG_SINK_POLLED;
    }
    if (S_ISREG(st.st_mode)) {
        return LOG_SINK_FILE;
    }
    if (S_ISSOCK(st.st_mode)) {
        return LOG_SINK_SOCKET;
    }
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_NONBLOCK) ? LOG_SINK_NONBLOCK : LOG_SINK_POLLED;
}

void
log_sink_open(struct log_sink *sink, int fd)
{
    *sink = (struct log_sink){.fd = fd, .kind = kind_of(fd)};
}

static bool
would_block(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    return poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT);
}

static ssize_t
put_piece(const struct log_sink *sink, const char *bytes, size_t len)
{
    ssize_t n;
    if (sink->kind == LOG_SINK_SOCKET) {
        return send(sink->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (sink->kind == LOG_SINK_POLLED && would_block(sink->fd)) {
        return -1;
    }
    do {
        n = write(sink->fd, bytes, len);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* How much goes in one write. */
static size_t
piece_len(const struct log_sink *sink, const char *lines, size_t len)
{
    if (sink->kind == LOG_SINK_FILE || len <= PIPE_BUF) {
        return len;
    }
    size_t n = PIPE_BUF;
    while (n > 0 && lines[n - 1] != '\n') {
        n--;
    }
    return n > 0 ? n : PIPE_BUF;
}

static unsigned
count_lines(const char *lines, size_t len)
{
    unsigned n = 0;
    for (const char *end = lines + len; lines < end; lines++) {
        n += *lines == '\n';
    }
    return n;
}

unsigned
log_sink_put(struct log_sink *sink, const char *lines, size_t len)
{
    if (sink->is_torn && put_piece(sink, "\n", 1) == 1) {
        sink->is_torn = false;
    }
    while (len > 0 && !sink->is_torn) {
        size_t piece = piece_len(sink, lines, len);
        ssize_t n = put_piece(sink, lines, piece);
        if (n <= 0) {
            break;
        }
        sink->is_torn = lines[n - 1] != '\n';
        lines += n;
        len -= (size_t)n;
        if ((size_t)n < piece) {
            break; /* a terminal that is slow, a disk that is full */
        }
    }
    return count_lines(lines, len);
}
