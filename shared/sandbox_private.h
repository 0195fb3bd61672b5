/* SPDX-License-Identifier: Apache-2.0
 *
 * sandbox_private.h - the walls of sandbox.h that have files of their own.
 */
#ifndef SHARED_SANDBOX_PRIVATE_H
#define SHARED_SANDBOX_PRIVATE_H

#include "shared/sandbox.h"

/* 0: none. */
int
sandbox_landlock_abi(void);
/* Both 0 or -1 with errno. */
int
sandbox_close_files(enum sandbox_role role, int abi);
int
sandbox_filter_calls(enum sandbox_role role);

/* Of a system call of this machine; "an unknown call" for others. Async-signal-safe once the names
 * are loaded. */
void
sandbox_load_names(void);
const char *
sandbox_call_name(int number);
/* The first row of the table that means nothing to libseccomp: misspelled, or newer than it. NULL:
 * none. */
const char *
sandbox_unknown_call(void);

#endif
