/* SPDX-License-Identifier: Apache-2.0
 *
 * reload.h - a new configuration for live processes, as a transaction: prepare, then commit or
 * abort.
 *
 * One runs at a time. A request that comes meanwhile is remembered and run after it. So is a signal
 * that comes during an upgrade: by the new master, which may have read the file before.
 */
#ifndef MASTER_RELOAD_H
#define MASTER_RELOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "master/children.h"
#include "master/verdict.h"
#include "shared/slice.h"

struct json_object;

/* cause is a literal, for the log and the history: "SIGHUP". waiter may be NULL. */
void
reload_request(const char *cause, struct verdict_waiter *waiter);

/* Put in force again what is, with what operators said; no file is read. */
void
reload_again(const char *cause, struct verdict_waiter *waiter);

/* How the configuration in force came to be, or why another did not: kept in the segment. */
void
reload_record(const char *cause, uint64_t took_ms, bool is_ok, const char *why);

/* While waiters are told: what was changed, see diff_confs(). NULL: nothing was, or it is not
 * known. */
struct json_object *
reload_changes(void);

/* Between the first message of prepare and its end. */
bool
reload_is_preparing(void);
/* One runs, or waits that somebody asked for. One of what is in force alone waits for an upgrade,
 * and is not needed after it. */
bool
reload_is_awaited(void);

/* A child that serves refused. */
void
reload_on_refused(const struct child *child, struct slice why);
void
reload_on_death(const struct child *child);
/* Look again whether everybody has answered. */
void
reload_check(void);
/* Abort what runs and refuse what waits: the server stops. */
void
reload_shutdown(void);

/* The keys that cannot change in place: NULL, or the name of one that differs. */
const char *
reload_fixed_key(const struct conf *before, const struct conf *after);

#endif
