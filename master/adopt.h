/* SPDX-License-Identifier: Apache-2.0
 *
 * adopt.h - who accepts on the sockets of a worker that is not there.
 */
#ifndef MASTER_ADOPT_H
#define MASTER_ADOPT_H

#include "master/children.h"

/* Call when a worker began to serve, retires, or waits for its respawn: gives sockets without a
 * worker to serving ones, and back. */
void
adopt_settle(void);
/* That worker is gone, and what it had adopted is nobody's. */
void
adopt_forget(const struct child *child);

#endif
