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
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "master/bind.h"

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

/* The file as it was written: a new master may have put its own in that place. */
static struct {
    char *path;
    int fd; /* keeps the lock */
} pid_file = {.fd = -1};

static long
read_pid(int fd)
{
    char text[32] = "";
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    return n > 0 ? strtol(text, NULL, 10) : 0;
}

/* Where it is written first. */
static void
unfinished_path(const char *path, pid_t pid, char buf[PATH_MAX])
{
    snprintf(buf, PATH_MAX, "%s.%ld", path, (long)pid);
}

/* What writing will meet, before anything else is begun. */
static int
try_to_write(const char *path)
{
    char temporary[PATH_MAX];
    struct stat there;
    unfinished_path(path, getpid(), temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        return -1;
    }
    close(fd);
    unlink(temporary);
    if (lstat(path, &there) == 0 && S_ISDIR(there.st_mode)) {
        errno = EISDIR;
        return -1;
    }
    return 0;
}

int
daemon_check_pid(const char *path, pid_t other, char *why, size_t why_size)
{
    if (other == 0 && try_to_write(path) < 0) {
        snprintf(why, why_size, "pid_file: %s: %s", path, strerror(errno));
        return -1;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return 0; /* none */
    }
    bool is_taken = flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    long pid = read_pid(fd);
    close(fd);
    if (!is_taken || (other != 0 && pid == (long)other)) {
        return 0;
    }
    snprintf(why, why_size, "pid_file: %s: akashd runs already, process %ld", path, pid);
    return -1;
}

static int
write_locked(int fd)
{
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || dprintf(fd, "%ld\n", (long)getpid()) < 0) {
        return -1;
    }
    return 0;
}

int
daemon_write_pid(const char *path)
{
    char temporary[PATH_MAX];
    unfinished_path(path, getpid(), temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    char *copy = fd < 0 ? NULL : strdup(path);
    if (!copy) {
        return bind_give_up(fd);
    }
    if (write_locked(fd) < 0 || rename(temporary, path) < 0) {
        int error = errno;
        unlink(temporary);
        free(copy);
        errno = error;
        return bind_give_up(fd);
    }
    pid_file.path = copy;
    pid_file.fd = fd;
    return 0;
}

void
daemon_remove_unfinished(const char *path, pid_t pid)
{
    char temporary[PATH_MAX];
    unfinished_path(path, pid, temporary);
    unlink(temporary);
}

void
daemon_remove_pid(void)
{
    struct stat own, there;
    if (pid_file.fd < 0) {
        return;
    }
    if (fstat(pid_file.fd, &own) == 0 && lstat(pid_file.path, &there) == 0 &&
        own.st_dev == there.st_dev && own.st_ino == there.st_ino) {
        unlink(pid_file.path);
    }
    close(pid_file.fd);
    free(pid_file.path);
    pid_file.path = NULL;
    pid_file.fd = -1;
}
