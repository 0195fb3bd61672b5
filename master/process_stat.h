/* SPDX-License-Identifier: Apache-2.0
 *
 * process_stat.h - what the process tree uses, from /proc.
 */
#ifndef MASTER_PROCESS_STAT_H
#define MASTER_PROCESS_STAT_H

#include "shared/shm.h"

struct process_stat {
    double cpu_s; /* of master, workers and monitor, and of those that have ended */
    uint64_t resident_bytes;
    bool has_fds; /* a process that has dropped its privileges may not look at the others' */
    uint64_t open_fds;
    uint64_t max_fds; /* soft limits of the processes that open_fds counts */
};

/* The pids are those in M. Processes that are gone count as nothing. */
void
process_stat_read(const struct shm *shm, struct process_stat *out);

/* One process: the text of /proc/PID/stat. with_children adds the time of children that were waited
 * for. false when the text is not understood. */
bool
process_stat_parse(const char *text, bool with_children, uint64_t *ticks, uint64_t *resident_pages);

#endif
