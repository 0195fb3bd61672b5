/* SPDX-License-Identifier: Apache-2.0
 *
 * process_stat.c - sums over /proc/PID of the master, the workers and the monitor.
 *
 * The time of a worker that has ended is in its parent's account of waited-for children, so the sum
 * goes on growing. The master is read first: a worker that is reaped in between is then missing
 * from one sample instead of counted twice, and the reader keeps the greater value.
 */
#include "master/process_stat.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define STAT_UTIME  14 /* numbers of fields as in proc(5) */
#define STAT_CUTIME 16
#define STAT_RSS    24

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

static void
add_usage(long long pid, bool with_children, struct process_stat *out)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%lld/stat", pid);
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
        out->cpu_s += (double)ticks / (double)sysconf(_SC_CLK_TCK);
        out->resident_bytes += pages * (uint64_t)sysconf(_SC_PAGESIZE);
    }
}

/* false when they may not be counted. */
static bool
add_fds(long long pid, struct process_stat *out)
{
    char path[64];
    struct rlimit limit;
    snprintf(path, sizeof(path), "/proc/%lld/fd", pid);
    DIR *dir = opendir(path);
    if (!dir) {
        return false;
    }
    while (readdir(dir)) {
        out->open_fds++;
    }
    closedir(dir);
    out->open_fds -= 2; /* "." and ".." */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        out->max_fds += limit.rlim_cur;
    }
    return true;
}

void
process_stat_read(const struct shm *shm, struct process_stat *out)
{
    *out = (struct process_stat){.has_fds = true};
    long long master = (long long)shm_get(&shm->m->pid);
    if (master > 0) {
        add_usage(master, true, out);
        add_fds(master, out);
    }
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        long long pid = (long long)shm_get(&shm->m->workers[i].pid);
        if (pid > 0) {
            add_usage(pid, false, out);
            out->has_fds = add_fds(pid, out) && out->has_fds;
        }
    }
    long long self = (long long)getpid();
    if (self != master) {
        add_usage(self, false, out);
        out->has_fds = add_fds(self, out) && out->has_fds;
    }
}
