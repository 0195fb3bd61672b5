/* SPDX-License-Identifier: Apache-2.0
 *
 * log.c - the error log: from an event to one line and one write.
 *
 * State is per process; a fork inherits it and sets its own name and target. The descriptor is the
 * caller's; the logger's socket is closed with log_set_target(), because a child closes every
 * descriptor that it was not given.
 */
#include "shared/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "shared/log_sink.h"
#include "shared/log_syslog.h"

#define LINE_MAX_LEN    4096
#define PROCESS_MAX_LEN 32

enum journal { JOURNAL_UNKNOWN, JOURNAL_NO, JOURNAL_YES };

static struct {
    int target;
    struct log_sink sink; /* of target, unless that is syslog */
    enum log_format format;
    enum log_level level;
    enum journal journal; /* UNKNOWN: the target has not been looked at */
    char process[PROCESS_MAX_LEN];
    uint64_t dropped;
    uint64_t told;  /* of dropped */
    uint64_t taken; /* of dropped */
} state = {.target = LOG_TO_STDERR,
           .sink = {.fd = LOG_TO_STDERR},
           .level = LOG_LEVEL_INFO,
           .process = "master"};

static const struct {
    const char *name;
    int priority; /* of syslog(3) and the journal */
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", LOG_ERR},
    [LOG_LEVEL_WARN] = {"warn", LOG_WARNING},
    [LOG_LEVEL_INFO] = {"info", LOG_INFO},
    [LOG_LEVEL_DEBUG] = {"debug", LOG_DEBUG},
};

/* A line being made; cut at its end, always with room for the newline. */
struct line {
    char text[LINE_MAX_LEN];
    size_t len;
    bool is_in_signal;
};

static const char hex[] = "0123456789abcdef";

/* ---- where lines go ---- */

static bool
is_journal(const struct stat *st)
{
    unsigned long long dev, ino;
    const char *stream = getenv("JOURNAL_STREAM");
    return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && dev == st->st_dev &&
           ino == st->st_ino;
}

static void
look_at_target(void)
{
    struct stat st;
    state.journal = JOURNAL_NO;
    log_sink_open(&state.sink, state.target);
    if (state.target >= 0 && fstat(state.target, &st) == 0) {
        state.journal = is_journal(&st) ? JOURNAL_YES : JOURNAL_NO;
    }
}

void
log_set_target(int target, enum log_format format)
{
    log_syslog_close();
    state.target = target;
    state.format = format;
    look_at_target();
}

void
log_own_stderr(void)
{
    struct stat st;
    if (fstat(STDERR_FILENO, &st) != 0 || !(S_ISFIFO(st.st_mode) || isatty(STDERR_FILENO))) {
        return;
    }
    int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0) {
        dup2(fd, STDERR_FILENO);
        close(fd);
    }
}

void
log_set_level(enum log_level level)
{
    state.level = level;
}

const char *
log_level_name(enum log_level level)
{
    return levels[level].name;
}

enum log_level
log_get_level(void)
{
    return state.level;
}

void
log_set_process(const char *name)
{
    snprintf(state.process, sizeof(state.process), "%s", name);
    state.dropped = state.told = state.taken = 0;
}

bool
log_is_on(enum log_level level)
{
    return level <= state.level;
}

uint64_t
log_dropped(void)
{
    return state.dropped;
}

uint64_t
log_take_dropped(void)
{
    uint64_t n = state.dropped - state.taken;
    state.taken = state.dropped;
    return n;
}

/* ---- writing ---- */

/* Count what was dropped. true: nothing. */
static bool
note_dropped(unsigned n)
{
    state.dropped += n;
    return n == 0;
}

/* ---- making a line ---- */

static void
line_add(struct line *l, const char *bytes, size_t len)
{
    size_t room = LINE_MAX_LEN - 1 - l->len;
    len = len < room ? len : room;
    memcpy(l->text + l->len, bytes, len);
    l->len += len;
}

static void
line_add_str(struct line *l, const char *text)
{
    line_add(l, text, strlen(text));
}

/* At least so many digits. */
static void
line_add_number(struct line *l, unsigned value, unsigned digits)
{
    char text[10];
    size_t n = 0;
    for (; value > 0 || n < digits; value /= 10) {
        text[sizeof(text) - ++n] = (char)('0' + value % 10);
    }
    line_add(l, text + sizeof(text) - n, n);
}

/* A day as year, month and day; years begin with March here, so that the leap day is their last. */
static void
line_add_date(struct line *l, unsigned days_since_1970)
{
    unsigned days = days_since_1970 + 719468; /* since 0000-03-01 */
    unsigned era = days / 146097, day = days % 146097;
    unsigned year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    day -= 365 * year + year / 4 - year / 100;
    unsigned month = (5 * day + 2) / 153;
    bool is_next_year = month >= 10;
    line_add_number(l, era * 400 + year + is_next_year, 4);
    line_add_str(l, "-");
    line_add_number(l, is_next_year ? month - 9 : month + 3, 2);
    line_add_str(l, "-");
    line_add_number(l, day - (153 * month + 2) / 5 + 1, 2);
}

/* localtime_r and gmtime_r take a lock. */
static void
line_add_utc(struct line *l, const struct timespec *now)
{
    unsigned seconds = (unsigned)(now->tv_sec % 86400);
    line_add_date(l, (unsigned)(now->tv_sec / 86400));
    line_add_str(l, "T");
    line_add_number(l, seconds / 3600, 2);
    line_add_str(l, ":");
    line_add_number(l, seconds / 60 % 60, 2);
    line_add_str(l, ":");
    line_add_number(l, seconds % 60, 2);
    line_add_str(l, ".");
    line_add_number(l, (unsigned)(now->tv_nsec / 1000000), 3);
    line_add_str(l, "+00:00");
}

/* ISO-8601 with milliseconds and the zone, in local time. */
static void
line_add_time(struct line *l)
{
    struct timespec now;
    struct tm tm;
    char text[64], zone[8];
    clock_gettime(CLOCK_REALTIME, &now);
    if (l->is_in_signal) {
        line_add_utc(l, &now);
        return;
    }
    localtime_r(&now.tv_sec, &tm);
    size_t n = strftime(text, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    strftime(zone, sizeof(zone), "%z", &tm);
    n += (size_t)snprintf(text + n, sizeof(text) - n, ".%03u%.3s:%.2s",
                          (unsigned)(now.tv_nsec / 1000000), zone, zone + 3);
    line_add(l, text, n);
}

/* How one byte of an event is written: text that callers quoted stays readable, so only what is not
 * printable is escaped; in JSON the two bytes that JSON minds as well. Returns 1..5. */
static size_t
escape_byte(unsigned char c, enum log_format format, char out[8])
{
    if (c < 0x20 || c > 0x7e) {
        bool is_json = format == LOG_FORMAT_JSON;
        char *end = stpcpy(out, is_json ? "\\\\x" : "\\x");
        *end++ = hex[c >> 4];
        *end++ = hex[c & 15];
        return (size_t)(end - out);
    }
    if (format == LOG_FORMAT_JSON && (c == '"' || c == '\\')) {
        out[0] = '\\';
        out[1] = (char)c;
        return 2;
    }
    out[0] = (char)c;
    return 1;
}

/* Leaves room for tail bytes; never cuts within an escape. */
static void
line_add_escaped(struct line *l, const char *text, size_t tail)
{
    char out[8];
    for (const char *p = text; *p; p++) {
        size_t n = escape_byte((unsigned char)*p, state.format, out);
        if (l->len + n + tail > LINE_MAX_LEN - 1) {
            return;
        }
        line_add(l, out, n);
    }
}

static void
line_text(struct line *l, enum log_level level, const char *event)
{
    if (state.journal != JOURNAL_YES && state.target != LOG_TO_SYSLOG) {
        line_add_time(l);
        line_add_str(l, " ");
    }
    line_add_str(l, levels[level].name);
    line_add_str(l, " ");
    line_add_str(l, state.process);
    line_add_str(l, ": ");
    line_add_escaped(l, event, 0);
}

static void
line_json(struct line *l, enum log_level level, const char *event)
{
    line_add_str(l, "{\"time\":\"");
    line_add_time(l);
    line_add_str(l, "\",\"level\":\"");
    line_add_str(l, levels[level].name);
    line_add_str(l, "\",\"process\":\"");
    line_add_escaped(l, state.process, 0);
    line_add_str(l, "\",\"message\":\"");
    line_add_escaped(l, event, 2);
    line_add_str(l, "\"}");
}

static void
line_fill(struct line *l, enum log_level level, const char *event)
{
    if (state.journal == JOURNAL_YES) {
        const char mark[] = {'<', (char)('0' + levels[level].priority), '>'};
        line_add(l, mark, sizeof(mark));
    }
    if (state.format == LOG_FORMAT_JSON) {
        line_json(l, level, event);
    } else {
        line_text(l, level, event);
    }
}

static bool
put_event(enum log_level level, const char *event)
{
    struct line l = {.len = 0};
    line_fill(&l, level, event);
    if (state.target == LOG_TO_SYSLOG) {
        return note_dropped(!log_syslog(levels[level].priority, l.text, l.len));
    }
    l.text[l.len++] = '\n';
    return note_dropped(log_sink_put(&state.sink, l.text, l.len));
}

static void
tell_dropped(void)
{
    char event[96];
    uint64_t dropped = state.dropped;
    snprintf(event, sizeof(event), "log: %llu lines dropped: the target did not take them",
             (unsigned long long)(dropped - state.told));
    if (put_event(LOG_LEVEL_WARN, event)) {
        state.told = dropped;
    }
}

void
log_write(enum log_level level, const char *format, ...)
{
    char event[LINE_MAX_LEN];
    va_list args;
    if (!log_is_on(level)) {
        return;
    }
    int saved = errno;
    if (state.journal == JOURNAL_UNKNOWN) {
        look_at_target();
    }
    va_start(args, format);
    vsnprintf(event, sizeof(event), format, args);
    va_end(args);
    if (put_event(level, event) && state.dropped != state.told) {
        tell_dropped();
    }
    errno = saved;
}

/* ---- in a signal handler ---- */

/* localtime_r takes a lock: without a time. */
static void
syslog_in_signal(enum log_level level, const char *event)
{
    static const struct sockaddr_un place = {.sun_family = AF_UNIX, .sun_path = _PATH_LOG};
    struct line l = {.is_in_signal = true};
    line_add_str(&l, "<");
    line_add_number(&l, (unsigned)(LOG_DAEMON | levels[level].priority), 2);
    line_add_str(&l, ">akashd[");
    line_add_number(&l, (unsigned)getpid(), 1);
    line_add_str(&l, "]: ");
    line_fill(&l, level, event);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) {
        if (connect(fd, (const struct sockaddr *)&place, sizeof(place)) == 0) {
            send(fd, l.text, l.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        close(fd);
    }
}

void
log_write_in_signal(enum log_level level, const char *event)
{
    struct line l = {.is_in_signal = true};
    if (state.target == LOG_TO_SYSLOG) {
        syslog_in_signal(level, event);
        return;
    }
    line_fill(&l, level, event);
    l.text[l.len++] = '\n';
    note_dropped(log_sink_put(&state.sink, l.text, l.len));
}

/* ---- what callers use beside it ---- */

bool
log_limit_pass(struct log_limit *limit, uint64_t now_ms, uint64_t interval_ms, uint64_t *suppressed)
{
    if (now_ms < limit->next_ms) {
        limit->suppressed++;
        return false;
    }
    *suppressed = limit->suppressed;
    *limit = (struct log_limit){.next_ms = now_ms + interval_ms};
    return true;
}

size_t
log_escape(struct slice s, char *buf, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        bool is_plain = c >= 0x20 && c <= 0x7e && c != '"' && c != '\\';
        if (n + (is_plain ? 1 : 4) >= cap) {
            break;
        }
        if (is_plain) {
            buf[n++] = (char)c;
        } else {
            buf[n++] = '\\';
            buf[n++] = 'x';
            buf[n++] = hex[c >> 4];
            buf[n++] = hex[c & 15];
        }
    }
    buf[n] = '\0';
    return n;
}
