/* SPDX-License-Identifier: Apache-2.0
 *
 * control.h - the control socket: one line of JSON each way.
 *
 * {"command": "reload"} is answered by {"ok": true, ...} or {"ok": false, "error": "..."}. The
 * commands stand in control_request.h, and with all that they take and answer in akashctl.1.
 *
 * Who may ask is decided by the file's mode and group. A client has 10 s for its line; at most 32
 * are served at one time, and one more costs the one its place that has been silent longest and
 * waits for nothing; none can make the master wait.
 */
#ifndef MASTER_CONTROL_H
#define MASTER_CONTROL_H

#include <stddef.h>

#include "conf/conf.h"

/* Open it as conf says. A socket that answers is never replaced. 0, or -1 with a sentence in why.
 * The default path that cannot be made is a warning. */
int
control_open(const struct conf *conf, char *why, size_t why_size);
/* Beside a former master control_open made it under another name: put it in the former's place. */
void
control_settle(void);
/* Another has put its own in our place and is gone: open it again, if that is needed. */
void
control_restore(const struct conf *conf);
/* Let nobody in any more; whoever waits for an answer gets it. */
void
control_leave(void);
void
control_close(void);

#endif
