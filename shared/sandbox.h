/* SPDX-License-Identifier: Apache-2.0
 *
 * sandbox.h - what a child process gives up before it meets a byte from outside.
 *
 * Four walls, each of which holds if another falls:
 *   capabilities   none, and no way to gain one: bounding set, securebits, no_new_privs
 *   Landlock       no file may be opened, made or executed; the monitor reads what it looks names
 * up with. No signal to, and no abstract Unix socket of, anybody outside. Sockets with a path, and
 * descriptors that are open or sent, stay usable. system calls   those of the role's column in
 * sandbox_calls.c. Another one ends the process with SIGSYS, and the log has its name: "sandbox:
 * execve refused" user           not here: identity.h A child calls sandbox_bound(), changes its
 * user, calls sandbox_drop_capabilities(), makes its event loop and what else it needs once, and
 * calls sandbox_enter() last.
 */
#ifndef SHARED_SANDBOX_H
#define SHARED_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

enum sandbox_role { SANDBOX_WORKER, SANDBOX_MONITOR };

/* What the kernel can do. */
struct sandbox_kernel {
    int landlock_abi; /* 0: it has no Landlock, or may not be asked */
    bool has_filters; /* of system calls */
};
void
sandbox_look(struct sandbox_kernel *out);
/* One line in the log if something is missing. */
void
sandbox_advise(void);

/* Load what libraries would load at their first use: OpenSSL's configuration, the time zone. Once
 * in the master, whose children then share it; whoever enters without gets it then. */
void
sandbox_warm_up(void);

/* For the master, as root: keep only the capabilities that it has a use for. 0 or -1 with errno. */
int
sandbox_trim_capabilities(void);

/* Empty the bounding set and let user id 0 mean nothing. Needs CAP_SETPCAP; without it nothing is
 * done, and nothing is lost: no_new_privs keeps what the set would give from coming back. */
void
sandbox_bound(void);

/* Give up every capability in every set, for good. 0 or -1 with errno. */
int
sandbox_drop_capabilities(void);

/* Close the file system and the system calls, for good. What the kernel cannot do (sandbox_look) is
 * left out. 0 or -1 with errno. The process must have one thread. */
int
sandbox_enter(enum sandbox_role role);

/* A file that the role reads has been replaced by another one, which it may not read: Landlock's
 * rules are about files, not about names. Its path, else NULL. A process that begins now may read
 * it. */
const char *
sandbox_lost_file(void);

#endif
