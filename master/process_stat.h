/* SPDX-License-Identifier: Apache-2.0
 *
 * process_stat.h - what the process tree uses, from /proc.
 */
#ifndef MASTER_PROCESS_STAT_H
#define MASTER_PROCESS_STAT_H

#include "shared/shm.h"

/* Sum up what this process (the master), the workers and the monitor in M use, and leave it in
 * m->process. */
void
process_stat_publish(struct shm_master *m);

/* One process: the text of /proc/PID/stat. with_children adds the time of children that were waited
 * for. false when the text is not understood. */
bool
process_stat_parse(const char *text, bool with_children, uint64_t *ticks, uint64_t *resident_pages);

#endif
