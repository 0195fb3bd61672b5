/* SPDX-License-Identifier: Apache-2.0
 *
 * daemon.c - the background and the pid file of daemon.h.
 */
#include "master/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int parent = -1; /* where the waiting parent reads */

/* The parent: exit as the child's start came out. */
static void
wait_for_start(int fd)
{
    unsigned char status = MASTER_EXIT_START;
    ssize_t n;
    do {
        n = read(fd, &status, 1);
    } while (n < 0 && errno == EINTR);
    _exit(n == 1 ? status : MASTER_EXIT_START);
}

int
daemon_begin(void)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0) {
        return -1;
    }
    pid_t pid = fork();
    if (pid < 0) {
        return -1;
    }
    if (pid > 0) {
        close(fds[1]);
        wait_for_start(fds[0]);
    }
    close(fds[0]);
    parent = fds[1];
    return setsid() < 0 ? -1 : 0;
}

/* Standard error stays when it is the log's target: whoever started us may have led it somewhere.
 * Else it would only keep a terminal or a pipe from its end. */
static bool
needs_stderr(void)
{
    const struct conf *conf = master.current.conf;
    return !conf || strcmp(conf->log.target, "stderr") == 0;
}

void
daemon_leave_terminal(void)
{
    int null = master.options->is_daemon ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
    if (null < 0) {
        return;
    }
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    if (!needs_stderr()) {
        dup2(null, STDERR_FILENO);
    }
    close(null);
}

void
daemon_tell_parent(enum master_exit status)
{
    unsigned char byte = (unsigned char)status;
    if (parent < 0) {
        return;
    }
    daemon_leave_terminal();
    while (write(parent, &byte, 1) < 0 && errno == EINTR) {
    }
    close(parent);
    parent = -1;
}

const char *
daemon_pid_file(const struct master_options *options, const struct conf *conf)
{
    return options->pid_file ? options->pid_file : conf->pid_file;
}

int
daemon_write_pid(const char *path)
{
    char temporary[PATH_MAX];
    snprintf(temporary, sizeof(temporary), "%s.%ld", path, (long)getpid());
    FILE *file = fopen(temporary, "we");
    if (!file) {
        return -1;
    }
    fprintf(file, "%ld\n", (long)getpid());
    if (fclose(file) != 0 || rename(temporary, path) != 0) {
        int error = errno;
        unlink(temporary);
        errno = error;
        return -1;
    }
    return 0;
}
