/* SPDX-License-Identifier: Apache-2.0
 *
 * log_sink.h - a descriptor that takes lines, written to without waiting.
 *
 * Only files may block, as the page cache does. A socket is asked not to wait, a pipe or terminal
 * of our own has O_NONBLOCK, and one that was inherited is polled before each write: a pipe that
 * polls as writable has room for PIPE_BUF bytes. So whatever is no file gets pieces of at most
 * that, of whole lines, which a pipe takes whole or not at all.
 */
#ifndef SHARED_LOG_SINK_H
#define SHARED_LOG_SINK_H

#include <stdbool.h>
#include <stddef.h>

enum log_sink_kind { LOG_SINK_POLLED, LOG_SINK_NONBLOCK, LOG_SINK_SOCKET, LOG_SINK_FILE };

struct log_sink {
    int fd; /* the caller's */
    enum log_sink_kind kind;
    bool is_torn; /* its last line was taken in part: a newline goes first */
};

/* Look at fd. */
void
log_sink_open(struct log_sink *sink, int fd);

/* Write lines, each with its newline and at most PIPE_BUF bytes long. Returns how many were
 * dropped, because they would have blocked or could not be written. Async-signal-safe. */
unsigned
log_sink_put(struct log_sink *sink, const char *lines, size_t len);

#endif
