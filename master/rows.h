/* SPDX-License-Identifier: Apache-2.0
 *
 * rows.h - which rows of the segment are this master's.
 *
 * Beside this master there may be former ones, whose workers still retire, and for a short time the
 * one to come. Each row's record names the master that has it. Only a master that starts or is in
 * charge takes rows; a row is given back when its worker has gone and its ledger is folded. What a
 * master that died could not give back is recovered by the one in charge.
 */
#ifndef MASTER_ROWS_H
#define MASTER_ROWS_H

#include <stdbool.h>
#include <sys/types.h>

#include "shared/channel.h"
#include "shared/child.h"

/* It is nobody's, or ours. */
bool
rows_is_free(unsigned row);
void
rows_take(unsigned row);
void
rows_give_back(unsigned row);

/* Every row is taken: end workers of former masters that retire, the oldest first, until count rows
 * are about to become free. false: there are not so many. */
bool
rows_make_room(unsigned count);

/* In charge from now on: recover the rows of every other master that dies. */
void
rows_watch(void);
/* That master is dead: recover its rows, as soon as its workers are dead too. */
void
rows_recover(pid_t owner);
/* An upgrade: tell the next master which former ones live; -1: the channel is broken. One whose
 * segment is another has no row that names it. */
int
rows_hand_over(struct channel *to);
/* From the former master. Takes fd, a pidfd. */
void
rows_take_over(pid_t pid, int fd);
/* In charge: a signal for every former master that still lives. */
void
rows_signal_masters(int number);
void
rows_fini(void);

/* Has a process that need not be our child ended? */
bool
rows_process_is_gone(pid_t pid);

#endif
