/* SPDX-License-Identifier: Apache-2.0
 *
 * operator.h - heed what an operator has said, as it stands in the segment.
 *
 * Choosing a backend reads the state itself; here is what must happen at once when it changes.
 */
#ifndef WORKER_OPERATOR_H
#define WORKER_OPERATOR_H

/* Look whether anything has changed; called when the master wakes us, and at every tick. */
void
operator_heed(void);
/* The same after a new configuration, which has set what the file says. */
void
operator_heed_again(void);

#endif
