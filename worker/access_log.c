/* SPDX-License-Identifier: Apache-2.0
 *
 * access_log.c - a line for each exchange: see access_log.h.
 *
 * Lines of one loop turn are gathered and leave together: a file's in one write.
 */
#include "worker/access_log.h"

#include <string.h>
#include <syslog.h>

#include "shared/log.h"
#include "shared/log_sink.h"
#include "shared/log_syslog.h"
#include "worker/access_line.h"
#include "worker/worker.h"

#define GATHER_BYTES 65536
#define TELL_MS      10000

static struct log_sink sink = {.fd = -1}; /* -1: off, or syslog */
static bool is_syslog;
static enum conf_access_format format;
static char lines[GATHER_BYTES];
static size_t nbytes;
static struct {
    uint64_t lines; /* dropped, and not yet said */
    uint64_t due_ms;
} untold;

void
access_log_apply(const struct conf *conf, int fd)
{
    access_log_flush(); /* gathered lines belong to the file they were made for */
    const char *target = conf->access_log.target;
    format = conf->access_log.format;
    is_syslog = target && strcmp(target, "syslog") == 0;
    log_sink_open(&sink, fd);
}

static void
note_dropped(unsigned n)
{
    if (n > 0) {
        shm_count(&worker.row->log_dropped, n);
        untold.lines += n;
    }
}

void
access_log_tick(void)
{
    if (untold.lines == 0 || worker_now_ms() < untold.due_ms) {
        return;
    }
    const char *target = worker.conf ? worker.conf->access_log.target : NULL;
    log_warn("access_log: %s: %llu lines dropped: the target did not take them",
             target ? target : "off", (unsigned long long)untold.lines);
    untold.lines = 0;
    untold.due_ms = worker_now_ms() + TELL_MS;
}

void
access_log_stream(const struct stream *s)
{
    if (sink.fd < 0 && !is_syslog) {
        return;
    }
    if (nbytes + ACCESS_LINE_MAX > GATHER_BYTES) {
        access_log_flush();
    }
    char *line = lines + nbytes;
    size_t len = access_line_put(s, format, line);
    if (is_syslog) {
        note_dropped(!log_syslog(LOG_INFO, line, len));
        return;
    }
    line[len] = '\n';
    nbytes += len + 1;
}

void
access_log_flush(void)
{
    if (nbytes > 0) {
        note_dropped(log_sink_put(&sink, lines, nbytes));
        nbytes = 0;
    }
}
