/* SPDX-License-Identifier: Apache-2.0
 *
 * operator.h - what operators say of backends, and of the log: kept in the segment until revoked.
 *
 * It goes before what the file says, survives reloads, crashes and upgrades, and is revoked by
 * saying the same as the file. A state is read by the workers at each choice; a weight takes effect
 * with reload_again().
 */
#ifndef MASTER_OPERATOR_H
#define MASTER_OPERATOR_H

#include "conf/conf.h"

/* name is UPSTREAM/BACKEND; a backend of a name means all of its addresses. 0, or -1 with why. */
int
operator_set_state(const char *name, enum conf_state state, char *why, size_t why_size);
/* 0, or -1 with why. */
int
operator_set_weight(const char *name, unsigned weight, char *why, size_t why_size);

/* The breaker of the backend is open, or closed, whatever happens; BREAKER_AUTO: it begins anew, by
 * the rules of the file. 0, or -1 with why. */
int
operator_set_breaker(const char *name, enum breaker_said said, char *why, size_t why_size);

/* level as in the configuration, or "file". 0, or -1 with why. */
int
operator_set_log_level(const char *level, char *why, size_t why_size);
/* The level of this process: the operator's, else that of the configuration in force. */
void
operator_apply_log_level(void);

/* For a conf_source: what operators gave a backend; 0: nothing. */
unsigned
operator_weight_of(struct conf_source *src, const char *upstream, const char *backend);

extern const char *const operator_state_names[];   /* by enum conf_state */
extern const char *const operator_breaker_names[]; /* by enum breaker_said */
#define OPERATOR_BREAKERS 3

#endif
