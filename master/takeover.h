/* SPDX-License-Identifier: Apache-2.0
 *
 * takeover.h - the binary is replaced: the side of the master that comes. See upgrade.h.
 *
 * Started by a former master, this one serves beside it first: its workers accept on the same
 * sockets and count in the same segment, in rows of their own. It has no monitor, no control socket
 * and no pid file, and may reload nothing, until it is in charge. When the former master dies
 * meanwhile, it goes on alone. It must be the former master's child: a program in akashd's place
 * that starts it as a process of its own is refused.
 */
#ifndef MASTER_TAKEOVER_H
#define MASTER_TAKEOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Was this process started by a former master? */
bool
takeover_is_asked(void);
/* Receive what the former master has: its sockets become master's, and its segment with its
 * eventfds too, unless it is laid out otherwise, which is logged. 0, also when there is no former
 * master; -1 with why. */
int
takeover_begin(char *why, size_t why_size);
/* There is a former master, and it is in charge. */
bool
takeover_is_pending(void);
/* Its process id; 0: there is none. */
pid_t
takeover_former(void);

/* The segment is the former master's. */
bool
takeover_has_segment(void);

/* A step of the start is done. */
void
takeover_step(void);
/* All workers serve. master_take_charge() is called when the former master has let go. */
void
takeover_serve(void);
/* This process will end, and why. */
void
takeover_fail(const char *why);

void
takeover_fini(void);

#endif
