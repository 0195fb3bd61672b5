/* SPDX-License-Identifier: Apache-2.0
 *
 * names.h - addresses of names while akashd runs: the master's side.
 *
 * The monitor looks names up again (follow.h) and says which addresses a name has now. That is
 * taken as anything from outside: parsed strictly (found.h), only for names of the configuration in
 * force, only as addresses. What differs from what is in force becomes a reload of the last bundle
 * with the new addresses, at most one each NAMES_PAUSE_MS, and when NAMES_BURST came in a row one
 * each NAMES_REFILL_MS: a name server may say something else each time it is asked. When that is
 * refused the change is forgotten: the monitor says it again.
 *
 * Each new address takes a slot of the segment, and gives it back only when no stream of an older
 * configuration runs any more. A quarter of those that the configuration in force leaves free is for
 * the operator's reloads.
 */
#ifndef MASTER_NAMES_H
#define MASTER_NAMES_H

#include "conf/conf.h"
#include "shared/channel.h"
#include "shared/shm.h"
#include "shared/slice.h"

#define NAMES_PAUSE_MS  500
#define NAMES_REFILL_MS 5000
#define NAMES_BURST     10

/* When reloads by names were. All zero: there was none. */
struct names_pace {
    uint64_t last_ms;
    uint64_t debt_ms; /* all would be evenly spread until then */
};

/* Pure: when the next one may be, at the earliest; *is_held: because there were so many. */
uint64_t
names_pace_next(const struct names_pace *pace, uint64_t now_ms, bool *is_held);
void
names_pace_take(struct names_pace *pace, uint64_t now_ms);

/* From the monitor. */
void
names_on_answer(struct slice text);

/* As conf_source.resolve of a bundle that is loaded again: what has changed, else what was. */
int
names_resolve_again(struct conf_source *src, const char *name, uint16_t port,
                    struct conf_found *out, int max);
/* Log them, before they go into a configuration. */
void
names_tell_changes(void);
/* The changes have gone into a configuration, or are to be forgotten. */
void
names_forget_changes(void);

/* A load found n addresses of a name: all, none, or only those of one family. To what is missing
 * add what is in force, or what a former master had. Returns how many there are now. */
unsigned
names_keep_last(const char *name, bool is_srv, struct conf_found *out, unsigned n, unsigned max);
void
names_set_port(struct conf_found *found, uint16_t port);

/* An upgrade: tell the next master what names have; -1: the channel is broken. */
int
names_hand_over(struct channel *to);
/* From the former master. */
void
names_take_over(struct slice text);

void
names_fini(void);

#endif
