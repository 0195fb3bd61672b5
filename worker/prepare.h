/* SPDX-License-Identifier: Apache-2.0
 *
 * prepare.h - what takes long in a new configuration, done a little each loop turn.
 *
 * Certificates and keys are parsed ahead, so that building the conf afterwards delays no request.
 */
#ifndef WORKER_PREPARE_H
#define WORKER_PREPARE_H

#include <stdint.h>

/* The bundle may now be built; what was parsed is forgotten when this returns. fd stays prepare's.
 */
typedef void
prepare_done_fn(int fd, uint64_t gen);

/* Begin with a bundle, in place of one that was begun before; takes no ownership of fd. done is
 * called from here when there is little to do, else in a later loop turn. */
void
prepare_begin(int fd, uint64_t gen, prepare_done_fn *done);
/* Give up; done is not called. */
void
prepare_cancel(void);

#endif
