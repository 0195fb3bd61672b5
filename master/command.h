/* SPDX-License-Identifier: Apache-2.0
 *
 * command.h - requests of the control socket that are answered at once.
 */
#ifndef MASTER_COMMAND_H
#define MASTER_COMMAND_H

#include <stdbool.h>

#include "conf/conf.h"
#include "master/control_request.h"

struct json_object;

/* {"ok": true}, or {"ok": false, "error": why}. The caller's. */
struct json_object *
command_reply(bool is_ok, const char *why);
/* Status, config, explain, log, ready, drain, maint. */
struct json_object *
command_answer(const struct control_request *request);
/* What a reload with that configuration would change: {"ok": true, "diff": {...}}. */
struct json_object *
command_diff(const struct conf *after);
/* {"ok": true, "diff": {...}} for a reload that has changed what diff says; takes diff, NULL: not
 * known. */
struct json_object *
command_changed(struct json_object *diff);

#endif
