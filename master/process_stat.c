/* SPDX-License-Identifier: Apache-2.0
 *
 * process_stat.c - sums over /proc/PID of the master, the workers and the monitor.
 *
 * The master does it: its children may open no file. The time of a worker that has ended is in its
 * parent's account of waited-for children, so the sum goes on growing; that of a former master is
 * missing after an upgrade, and the sum stands still until it is made up for.
 */
#include "master/process_stat.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define STAT_UTIME  14 /* numbers of fields as in proc(5) */
#define STAT_CUTIME 16
#define STAT_RSS    24

struct process_stat {
    uint64_t cpu_ms;
    uint64_t resident_bytes;
    uint64_t open_fds;
    uint64_t max_fds;
};

bool
process_stat_parse(const char *text, bool with_children, uint64_t *ticks, uint64_t *resident_pages)
{
    const char *at = strrchr(text, ')'); /* the name may hold spaces and parentheses */
    if (!at) {
        return false;
    }
    *ticks = 0;
    *resident_pages = 0;
    int field = 2;
    for (const char *p = at + 1; *p; field++) {
        p += strspn(p, " \n");
        long long value = 0;
        if (*p && field + 1 != 3 && sscanf(p, "%lld", &value) != 1) {
            return false;
        }
        int last_time = with_children ? STAT_CUTIME + 1 : STAT_CUTIME - 1;
        if (field + 1 >= STAT_UTIME && field + 1 <= last_time) {
            *ticks += (uint64_t)value;
        } else if (field + 1 == STAT_RSS) {
            *resident_pages = (uint64_t)value;
            return true;
        }
        p += strcspn(p, " \n");
    }
    return false;
}

/* How many descriptors a process has: Linux 6.2 and newer says it as the size of the folder. */
static uint64_t
count_fds(const char *path)
{
    struct stat st;
    uint64_t count = 0;
    if (stat(path, &st) == 0 && st.st_size > 0) {
        return (uint64_t)st.st_size;
    }
    DIR *dir = opendir(path);
    while (dir && readdir(dir)) {
        count++;
    }
    if (dir) {
        closedir(dir);
    }
    return count > 2 ? count - 2 : 0; /* "." and ".." */
}

static void
add_fds(pid_t pid, struct process_stat *out)
{
    char path[64];
    struct rlimit limit;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    uint64_t count = count_fds(path);
    out->open_fds += count;
    if (count > 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        out->max_fds += limit.rlim_cur;
    }
}

static void
add_usage(pid_t pid, bool with_children, struct process_stat *out)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    uint64_t ticks, pages;
    if (n <= 0) {
        return;
    }
    text[n] = '\0';
    if (process_stat_parse(text, with_children, &ticks, &pages)) {
        out->cpu_ms += ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
        out->resident_bytes += pages * (uint64_t)sysconf(_SC_PAGESIZE);
    }
}

static void
add_process(pid_t pid, bool with_children, struct process_stat *out)
{
    if (pid > 0) {
        add_usage(pid, with_children, out);
        add_fds(pid, out);
    }
}

void
process_stat_publish(struct shm_master *m)
{
    struct process_stat sum = {0};
    add_process(getpid(), true, &sum);
    add_process((pid_t)shm_get(&m->monitor.pid), false, &sum);
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        add_process((pid_t)shm_get(&m->workers[i].pid), false, &sum);
    }
    if (sum.cpu_ms > shm_get(&m->process.cpu_ms)) {
        shm_set(&m->process.cpu_ms, sum.cpu_ms);
    }
    shm_set(&m->process.resident_bytes, sum.resident_bytes);
    shm_set(&m->process.open_fds, sum.open_fds);
    shm_set(&m->process.max_fds, sum.max_fds);
}
