/* SPDX-License-Identifier: Apache-2.0
 *
 * spawn.c - fork, and in the child: drop the event base, the descriptors, the privileges.
 */
#include "master/spawn.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/sandbox.h"
#include "shared/title.h"

#define SPAWN_KEEP_MAX 256

static int
compare_fds(const void *a, const void *b)
{
    int x = *(const int *)a;
    int y = *(const int *)b;
    return (x > y) - (x < y);
}

/* Close everything above 2 that is not in keep. */
static void
spawn_close_others(const int *keep, unsigned nkeep)
{
    int sorted[SPAWN_KEEP_MAX];
    unsigned n = nkeep < SPAWN_KEEP_MAX ? nkeep : SPAWN_KEEP_MAX;
    memcpy(sorted, keep, n * sizeof(int));
    qsort(sorted, n, sizeof(int), compare_fds);
    unsigned from = 3;
    for (unsigned i = 0; i < n; i++) {
        if (sorted[i] < (int)from) {
            continue;
        }
        if (sorted[i] > (int)from) {
            close_range(from, (unsigned)sorted[i] - 1, 0);
        }
        from = (unsigned)sorted[i] + 1;
    }
    close_range(from, ~0u, 0);
}

static void
spawn_set_signals(void)
{
    static const int ignored[] = {SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE};
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++) {
        signal(ignored[i], SIG_IGN);
    }
    signal(SIGTERM, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Killed when the master dies: the second net below the channel that closes. A change of user
 * clears it, so it comes last; the master may have died before. */
static int
spawn_tie_to(pid_t master_pid)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
        return -1;
    }
    if (getppid() != master_pid) {
        errno = ESRCH;
        return -1;
    }
    return 0;
}

static void __attribute__((noreturn)) spawn_enter(const struct spawn_plan *plan, pid_t master_pid)
{
    /* A plain free would remove the parent's registrations from the shared epoll set. */
    event_reinit(plan->base);
    event_base_free(plan->base);
    log_own_stderr();
    log_set_target(LOG_TO_STDERR, LOG_FORMAT_TEXT);
    log_set_process(plan->name);
    title_set("akashd: %s", plan->name);
    spawn_close_others(plan->keep, plan->nkeep);
    if (plan->prepare && plan->prepare(plan->arg) < 0) {
        log_error("%s: could not start: %s", plan->name, strerror(errno));
        exit(2);
    }
    sandbox_bound();
    if (identity_assume(plan->id) < 0 || sandbox_drop_capabilities() < 0) {
        log_error("%s: could not give up privileges: %s", plan->name, strerror(errno));
        exit(2);
    }
    if (spawn_tie_to(master_pid) < 0) {
        exit(2);
    }
    spawn_set_signals();
    exit(plan->run(plan->arg));
}

pid_t
spawn_process(const struct spawn_plan *plan)
{
    sigset_t all, before;
    sigfillset(&all);
    pid_t master_pid = getpid();
    fflush(NULL);
    /* A signal between fork and spawn_set_signals would run the master's handler in the child. */
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) {
        spawn_enter(plan, master_pid);
    }
    int saved = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return pid;
}
