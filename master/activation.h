/* SPDX-License-Identifier: Apache-2.0
 *
 * activation.h - listening sockets that the service manager made: $LISTEN_FDS of sd_listen_fds(3).
 *
 * They are the manager's: it keeps descriptors of them, and clients that connect while akashd is
 * down wait in their queues. So nothing is done to one that would outlive this process: no filter,
 * no removed file, no shutdown. They are lent for a listener with the same address and come back;
 * this module alone closes them. All workers share one, for it cannot be split among them.
 */
#ifndef MASTER_ACTIVATION_H
#define MASTER_ACTIVATION_H

#include "shared/addr.h"

/* Take what the environment gives and remove it from there. To be called once, before any
 * descriptor is opened. What is no listening stream socket is closed, with a line in the log. */
void
activation_take(void);

/* One that a former master was given: it is ours now. */
void
activation_inherit(int fd);
/* The i-th, to be handed on; -1 after the last. */
int
activation_get(unsigned i);

/* The descriptor that listens on this address, or -1. */
int
activation_find(const struct addr *addr);

/* Lend it; -1: none has this address. It must be given back, not closed. */
int
activation_borrow(const struct addr *addr);
void
activation_return(int fd);

/* Say which ones no listener uses: who connects to them waits. */
void
activation_warn_unused(void);

void
activation_close(void);

#endif
