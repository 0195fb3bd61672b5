/* SPDX-License-Identifier: Apache-2.0
 *
 * log.h - the error log: one event a line, written with one write(2).
 *
 * Line: ISO-8601 time with milliseconds and zone, level, process, then "object: what: why". json on
 * request. Bytes outside printable ASCII are written as \xHH; a line has at most 4,096 bytes. A
 * pipe or terminal is polled before the write and the line is dropped and counted when it would
 * block. Under systemd (JOURNAL_STREAM names the target's device and inode) a line begins with
 * "<priority>" and has no time of its own.
 */
#ifndef SHARED_LOG_H
#define SHARED_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/slice.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* Where log lines go. target is LOG_TO_STDERR, LOG_TO_SYSLOG, or an open descriptor. The log does
 * not own the descriptor. Before the first call lines go to standard error at level info. */
#define LOG_TO_STDERR 2
#define LOG_TO_SYSLOG (-1)
void
log_set_target(int target, enum log_format format);
/* Others write to the same pipe or terminal as our standard error, and it may fill up between a
 * poll and a write: this process opens it once more, if it may, as a description of its own that
 * does not wait. The one that was inherited stays as it is. Call log_set_target() after it. */
void
log_own_stderr(void);
void
log_set_level(enum log_level level);
const char *
log_level_name(enum log_level level);
enum log_level
log_get_level(void);

/* How this process is called in its lines: "master", "worker 0", "monitor". Copied. What its
 * parent has dropped is not its own. */
void
log_set_process(const char *name);

bool
log_is_on(enum log_level level);

void
log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same of a text as it is, for signal handlers: calls nothing that is not async-signal-safe, so
 * its time is UTC. Whatever the level is. */
void
log_write_in_signal(enum log_level level, const char *event);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) \
    do { \
        if (log_is_on(LOG_LEVEL_DEBUG)) { \
            log_write(LOG_LEVEL_DEBUG, __VA_ARGS__); \
        } \
    } while (0)

/* At most one line in interval_ms for each call site: static struct log_limit. Suppressed events
 * are counted and told with the next line: use as: if (log_limit_pass(&limit, now_ms, 60000,
 * &suppressed)) log_warn(...). */
struct log_limit {
    uint64_t next_ms;
    uint64_t suppressed;
};
bool
log_limit_pass(struct log_limit *limit, uint64_t now_ms, uint64_t interval_ms,
               uint64_t *suppressed);

/* Copy s into buf (at least cap bytes, cap > 0), bytes outside printable ASCII, '"' and '\' as
 * \xHH; NUL-terminated, cut to fit. Returns the length. */
size_t
log_escape(struct slice s, char *buf, size_t cap);

/* Lines that this process has dropped, because the target would have blocked or failed. */
uint64_t
log_dropped(void);
/* How many since the last call: for the metric. */
uint64_t
log_take_dropped(void);

#endif
