/* SPDX-License-Identifier: Apache-2.0
 *
 * logs.c - who writes to which log file: see logs.h.
 */
#include "worker/logs.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/list.h"
#include "shared/log.h"
#include "worker/access_log.h"
#include "worker/worker.h"

struct log_file {
    struct list link;
    char *path;
    int fd;
};

static struct list files = LIST_INIT(files);

static struct log_file *
find_file(struct slice path)
{
    list_for_each (it, &files) {
        struct log_file *file = container_of(it, struct log_file, link);
        if (slice_eq(slice_from_str(file->path), path)) {
            return file;
        }
    }
    return NULL;
}

static struct log_file *
add_file(struct slice path)
{
    struct log_file *file = calloc(1, sizeof(*file));
    if (!file || !(file->path = strndup(path.ptr, path.len))) {
        free(file);
        return NULL;
    }
    file->fd = -1;
    list_add_tail(&files, &file->link);
    return file;
}

/* The descriptor of a target. missing: where there is none, because it is off, syslog, or has not
 * been given. */
static int
target_fd(const char *target, int missing)
{
    if (!target || strcmp(target, "syslog") == 0) {
        return missing;
    }
    if (strcmp(target, "stderr") == 0) {
        return STDERR_FILENO;
    }
    struct log_file *file = find_file(slice_from_str(target));
    if (!file) {
        log_error("log: %s: the master gave no file", target);
    }
    return file ? file->fd : missing;
}

static void
use(const struct conf *conf)
{
    bool is_syslog = strcmp(conf->log.target, "syslog") == 0;
    log_set_target(is_syslog ? LOG_TO_SYSLOG : target_fd(conf->log.target, STDERR_FILENO),
                   conf->log.format);
    access_log_apply(conf, target_fd(conf->access_log.target, -1));
}

void
logs_give(struct slice path, int fd)
{
    struct log_file *file = find_file(path);
    if (!file && !(file = add_file(path))) {
        close(fd);
        return;
    }
    int former = file->fd;
    file->fd = fd;
    if (worker.conf) {
        use(worker.conf); /* the lines gathered so far go to the former one */
    }
    if (former >= 0) {
        close(former);
    }
}

static bool
is_named(const struct conf *conf, const char *path)
{
    return strcmp(conf->log.target, path) == 0 ||
           (conf->access_log.target && strcmp(conf->access_log.target, path) == 0);
}

void
logs_apply(const struct conf *conf)
{
    use(conf);
    list_for_each_safe (it, &files) {
        struct log_file *file = container_of(it, struct log_file, link);
        if (!is_named(conf, file->path)) {
            list_del(&file->link);
            close(file->fd);
            free(file->path);
            free(file);
        }
    }
}

void
logs_tick(void)
{
    access_log_tick();
    shm_count(&worker.row->log_dropped, log_take_dropped());
}
