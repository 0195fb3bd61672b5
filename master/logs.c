/* SPDX-License-Identifier: Apache-2.0
 *
 * logs.c - open and reopen log files.
 */
#include "master/logs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_FILE_MODE 0640

static int
log_file_open_as(const char *path, int mode)
{
    /* O_NONBLOCK: neither this nor a write may wait for a reader of a FIFO. A file does not mind,
     * and the flag belongs to this description alone. */
    return open(path, mode | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, LOG_FILE_MODE);
}

static bool
is_fifo(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

/* Only what akashd may read it opens both ways. fd: for writing alone, -1 when there is no reader.
 */
static int
keep_one_way(const char *path, int fd, const char **why)
{
    if (fd >= 0) {
        log_warn("log %s: akashd may not read this FIFO: lines are dropped while nobody does",
                 path);
    } else if (errno == EACCES || errno == EPERM) {
        *why = "nobody reads this FIFO, and akashd may not either: begin its reader first, or let "
               "akashd's user read it";
    } else {
        *why = strerror(errno);
    }
    return fd;
}

/* A FIFO is opened both ways: then it needs no reader, keeps what one that begins again has not
 * read yet, and is no error meanwhile. -1: why says why not. */
static int
log_file_open(const char *path, const char **why)
{
    int fd = log_file_open_as(path, O_WRONLY | O_APPEND | O_CREAT);
    bool has_reader = fd >= 0;
    if (fd < 0 && errno != ENXIO) {
        *why = strerror(errno);
        return -1;
    }
    if (has_reader && !is_fifo(fd)) {
        return fd;
    }
    int both = log_file_open_as(path, O_RDWR | O_APPEND);
    if (both < 0) {
        return keep_one_way(path, fd, why);
    }
    if (has_reader) {
        close(fd);
    } else {
        log_warn(
            "log %s: nobody reads this FIFO: lines wait in it, and are dropped when it is full",
            path);
    }
    return both;
}

static bool
is_file_target(const char *target)
{
    return target && target[0] == '/';
}

static int
log_file_init(struct log_file *file, const char *target, char *why, size_t why_size)
{
    file->path = NULL;
    file->fd = -1;
    if (!is_file_target(target)) {
        return 0;
    }
    const char *cause = "out of memory";
    file->fd = log_file_open(target, &cause);
    file->path = file->fd < 0 ? NULL : strdup(target);
    if (!file->path) {
        snprintf(why, why_size, "%s: cannot open: %s", target, cause);
        return -1;
    }
    return 0;
}

static void
log_file_fini(struct log_file *file)
{
    if (file->fd >= 0) {
        close(file->fd);
    }
    free(file->path);
    file->path = NULL;
    file->fd = -1;
}

int
logs_open(struct logs *logs, const struct conf *conf, char *why, size_t why_size)
{
    logs->access = (struct log_file){NULL, -1};
    if (log_file_init(&logs->error, conf->log.target, why, why_size) < 0 ||
        log_file_init(&logs->access, conf->access_log.target, why, why_size) < 0) {
        logs_close(logs);
        return -1;
    }
    return 0;
}

static void
log_file_reopen(struct log_file *file)
{
    if (!file->path) {
        return;
    }
    const char *cause;
    int fd = log_file_open(file->path, &cause);
    if (fd < 0) {
        log_error("log %s: cannot reopen: %s; the old file is kept", file->path, cause);
        return;
    }
    /* The number stays: log_set_target() was given it. */
    if (dup3(fd, file->fd, O_CLOEXEC) < 0) {
        log_error("log %s: cannot reopen: %s; the old file is kept", file->path, strerror(errno));
    }
    close(fd);
}

void
logs_reopen(struct logs *logs)
{
    log_file_reopen(&logs->error);
    log_file_reopen(&logs->access);
}

void
logs_close(struct logs *logs)
{
    log_file_fini(&logs->error);
    log_file_fini(&logs->access);
}

void
logs_use(const struct logs *logs, const struct conf *conf)
{
    int target = LOG_TO_STDERR;
    if (logs->error.fd >= 0) {
        target = logs->error.fd;
    } else if (conf->log.target && strcmp(conf->log.target, "syslog") == 0) {
        target = LOG_TO_SYSLOG;
    }
    log_set_target(target, conf->log.format);
    log_set_level(conf->log.level);
}
