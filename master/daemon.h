/* SPDX-License-Identifier: Apache-2.0
 *
 * daemon.h - the background, and the pid file.
 */
#ifndef MASTER_DAEMON_H
#define MASTER_DAEMON_H

#include "master/master.h"

/* Go to the background: the parent waits for daemon_tell_parent() and exits with that status (with
 * START when the child dies without a word). Returns in the child. 0 or -1 with errno. */
int
daemon_begin(void);
/* The start has come to its end, well or not. Nothing happens without daemon_begin. */
void
daemon_tell_parent(enum master_exit status);

/* -D: stop using the terminal or pipe of whoever started us; nothing without -D. Each child does it
 * for itself. */
void
daemon_leave_terminal(void);

/* The path that counts: the command line's, else the configuration's; NULL: none. */
const char *
daemon_pid_file(const struct master_options *options, const struct conf *conf);
/* 0 or -1 with errno. The file appears whole or not at all. */
int
daemon_write_pid(const char *path);

#endif
