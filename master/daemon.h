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
/* Can the file be written, and is it no other living server's? other may be the former master (0:
 * there is none), whose file it may be, and whose upgrade is not hindered by a folder that is gone.
 * 0, or -1 with a sentence in why. */
int
daemon_check_pid(const char *path, pid_t other, char *why, size_t why_size);
/* Write it and lock it for as long as this process lives. The file appears whole or not at all. 0
 * or -1 with errno. */
int
daemon_write_pid(const char *path);
/* Remove what process pid, which was killed, may have left of that call. */
void
daemon_remove_unfinished(const char *path, pid_t pid);
/* Remove it, if it is still ours. */
void
daemon_remove_pid(void);

#endif
