/* SPDX-License-Identifier: Apache-2.0
 *
 * demo.h - the demonstration: two small HTTP backends in processes of their own, and a
 * configuration for them.
 */
#ifndef MASTER_DEMO_H
#define MASTER_DEMO_H

#include <sys/types.h>

#include "master/identity.h"

struct event_base;

/* Start the backends. Returns the text of the configuration (static), or NULL with errno. */
const char *
demo_start(struct event_base *base, const struct identity *id);
/* A child that is none of ours in children.h has ended. */
void
demo_on_exit(pid_t pid, int status);
void
demo_stop(void);

#endif
