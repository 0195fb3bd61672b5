/* SPDX-License-Identifier: Apache-2.0
 *
 * machine.c - what the machine grants this process: processors and open files.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "conf/conf.h"

#define OPEN_FILES_MOST 1048576 /* the kernel's own bound (fs.nr_open) unless somebody moved it */

static unsigned
affinity_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        return (unsigned)CPU_COUNT(&set);
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}

static bool
read_line(const char *path, char *buf, size_t size)
{
    FILE *in = fopen(path, "re");
    if (!in) {
        return false;
    }
    bool is_read = fgets(buf, (int)size, in) != NULL;
    fclose(in);
    return is_read;
}

/* The group of the unified hierarchy, "" for its root. */
static void
read_group(char *buf, size_t size)
{
    char line[512];
    buf[0] = '\0';
    FILE *in = fopen("/proc/self/cgroup", "re");
    while (in && fgets(line, sizeof(line), in)) {
        if (strncmp(line, "0::/", 4) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(buf, size, "%s", line[4] ? line + 3 : "");
        }
    }
    if (in) {
        fclose(in);
    }
}

/* cpu.max of the group and of all above it: "max 100000" or "150000 100000". The whole processors
 * of the smallest. */
static unsigned
quota_count(unsigned most)
{
    char group[512], path[600], line[64];
    read_group(group, sizeof(group));
    for (;;) {
        unsigned long quota, period;
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", group);
        if (read_line(path, line, sizeof(line)) && sscanf(line, "%lu %lu", &quota, &period) == 2 &&
            period > 0 && quota / period < most) {
            most = (unsigned)(quota / period);
        }
        char *slash = strrchr(group, '/');
        if (!slash) {
            return most ? most : 1;
        }
        *slash = '\0';
    }
}

void
conf_machine_read(struct conf_machine *out)
{
    struct rlimit files;
    out->processors = quota_count(affinity_count());
    out->open_files = OPEN_FILES_MOST;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max < OPEN_FILES_MOST) {
        out->open_files = files.rlim_max;
    }
}
