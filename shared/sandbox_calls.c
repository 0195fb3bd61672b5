/* SPDX-License-Identifier: Apache-2.0
 *
 * sandbox_calls.c - the system calls that each role may make.
 *
 * One table. The calls of a request stand in it without a condition: then a kernel from 5.11 on
 * knows without running the filter that they are let through. Whatever is not in the table ends the
 * process: no program, no process, no other kind of socket, no descriptor of another process.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/sandbox_private.h"
#include "shared/sanitized.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

/* ---- the table ---- */

enum verdict {
    NO,  /* SIGSYS */
    YES, /* let through */
    DENY /* answered with EACCES: what Landlock says, too */
};

struct call {
    const char *name;
    enum verdict worker, monitor;
    enum verdict sanitizers; /* instead, in a build with AddressSanitizer; NO: as the role says */
    /* Only if (argument number arg & mask) == value. Several rows of a call: if any fits. */
    unsigned arg;
    uint64_t mask; /* 0: whatever the arguments are */
    uint64_t value;
};

#define WHOLE UINT64_MAX /* a mask */
#define SELF  UINT64_MAX /* a value: the own process id */
/* Flags of open(2) that do more than read. O_TMPFILE holds O_DIRECTORY, which does not. */
#define CHANGES (O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY))

/* Seen with strace over all end-to-end tests, on glibc 2.36 with libevent 2.1 and OpenSSL 3.0, but
 * for siblings: what other versions and machines use instead. */
/* clang-format off */
#define ROW(name, worker, monitor, sanitizers) {name, worker, monitor, sanitizers, 0, 0, 0}
#define ROW_IF(name, worker, monitor, sanitizers, arg, mask, value) \
    {name, worker, monitor, sanitizers, arg, mask, value}
static const struct call calls[] = {
    /*                worker monitor sanitizers */
    /* what a request is made of */
    ROW("read",          YES, YES, NO),
    ROW("readv",         YES, YES, NO),
    ROW("recvfrom",      YES, YES, NO),
    ROW("recvmsg",       YES, YES, NO),
    ROW("write",         YES, YES, NO),
    ROW("writev",        YES, YES, NO),
    ROW("sendto",        YES, YES, NO),
    ROW("sendmsg",       YES, YES, NO),
    ROW("splice",        YES, NO,  NO),
    ROW("epoll_wait",    YES, YES, NO),
    ROW("epoll_pwait",   YES, YES, NO), /* sibling: machines without epoll_wait */
    ROW("epoll_pwait2",  YES, YES, NO), /* sibling: libevent 2.2 */
    ROW("epoll_ctl",     YES, YES, NO),
    ROW("accept4",       YES, YES, NO),
    ROW("close",         YES, YES, NO),
    ROW("shutdown",      YES, YES, NO),
    ROW("connect",       YES, YES, NO), /* also by path, to Unix sockets */
    ROW("bind",          YES, YES, NO), /* to a source address; listen(2) is the master's */
    ROW("setsockopt",    YES, YES, NO),
    ROW("getsockopt",    YES, YES, NO),
    ROW("getsockname",   YES, YES, NO),
    ROW("getpeername",   YES, YES, NO),
    ROW_IF("socket",     YES, YES, NO, 0, WHOLE, AF_INET),
    ROW_IF("socket",     YES, YES, NO, 0, WHOLE, AF_INET6),
    ROW_IF("socket",     YES, YES, NO, 0, WHOLE, AF_UNIX),
    ROW("pipe2",         YES, NO,  NO), /* for splice */
    ROW("fcntl",         YES, YES, NO),
    ROW("fcntl64",       YES, YES, NO), /* sibling: 32 bits */
    ROW("eventfd2",      YES, NO,  NO), /* a descriptor to spare, for when there is none */
    ROW("timerfd_settime",   YES, YES, NO), /* sibling: libevent with EVENT_PRECISE_TIMER */
    ROW("timerfd_settime64", YES, YES, NO),

    /* time, where the vDSO has no clock; 32 bits */
    ROW("clock_gettime",   YES, YES, NO),
    ROW("clock_gettime64", YES, YES, NO),
    ROW("gettimeofday",    YES, YES, NO),
    ROW("time",            YES, YES, NO),

    /* memory: none that can be executed */
    ROW_IF("mmap",       YES, YES, NO, 2, PROT_EXEC, 0),
    ROW_IF("mmap2",      YES, YES, NO, 2, PROT_EXEC, 0), /* sibling: 32 bits */
    ROW_IF("mprotect",   YES, YES, NO, 2, PROT_EXEC, 0), /* heaps of malloc that grow */
    ROW("munmap",        YES, YES, NO),
    ROW("mremap",        YES, YES, NO),
    ROW("madvise",       YES, YES, NO),
    ROW("brk",           YES, YES, NO),
    ROW_IF("prctl",      YES, YES, NO, 0, WHOLE, PR_SET_VMA), /* sibling: glibc names its heaps */
    ROW("futex",         YES, YES, NO), /* locks of OpenSSL, though there is one thread */
    ROW("futex_time64",  YES, YES, NO),
    ROW("getrandom",     YES, YES, NO),

    /* logs: a pipe is asked whether it takes a line; a bundle is read as a file */
    ROW("poll",          YES, YES, NO),
    ROW("ppoll",         YES, YES, NO), /* sibling: machines without poll */
    ROW("ppoll_time64",  YES, YES, NO),
    ROW("lseek",         YES, YES, NO),
    ROW("_llseek",       YES, YES, NO),
    ROW("fstat",         YES, YES, NO),
    ROW("fstat64",       YES, YES, NO),
    ROW("newfstatat",    YES, YES, NO), /* fstat of glibc from 2.33 on */
    ROW("fstatat64",     YES, YES, NO),
    ROW("statx",         YES, YES, NO), /* the same on 32 bits, and to come */

    /* files: the monitor's are those that Landlock lets it read. To a worker libraries that ask for
     * something they can do without are told that they may not. */
    ROW_IF("openat",     DENY, YES, YES, 2, CHANGES, O_RDONLY),
    ROW_IF("open",       DENY, YES, YES, 1, CHANGES, O_RDONLY),
    ROW("stat",          DENY, YES, YES), /* sibling: glibc before 2.33 */
    ROW("stat64",        DENY, YES, YES),
    ROW("access",        DENY, DENY, DENY),
    ROW("faccessat",     DENY, DENY, DENY),
    ROW("faccessat2",    DENY, DENY, DENY),
    ROW("readlink",      DENY, DENY, YES),
    ROW("readlinkat",    DENY, DENY, YES),

    /* names are asked for over UDP; what a resolver is set up with */
    ROW("recvmmsg",      NO,  YES, NO),
    ROW("sendmmsg",      NO,  YES, NO),
    ROW_IF("ioctl",      NO,  YES, NO, 1, WHOLE, FIONREAD),
    ROW("uname",         NO,  YES, NO), /* the domain of names without one */

    /* itself: who it is, TERM in the monitor, and an end by abort(3) */
    ROW("sysinfo",       YES, YES, NO), /* qsort(3) of glibc up to 2.36 asks how much memory there is */
    ROW("getpid",        YES, YES, NO),
    ROW("gettid",        YES, YES, NO),
    ROW("rt_sigaction",  YES, YES, NO),
    ROW("rt_sigprocmask", YES, YES, NO),
    ROW("rt_sigreturn",  YES, YES, NO),
    ROW("sigreturn",     YES, YES, NO),
    ROW("restart_syscall", YES, YES, NO), /* poll after a stop */
    ROW_IF("tgkill",     YES, YES, YES, 0, WHOLE, SELF),
    ROW("exit",          YES, YES, NO),
    ROW("exit_group",    YES, YES, NO),

    /* LeakSanitizer: a task of its own stops this one and looks through its memory; reports */
    ROW_IF("clone",      NO,  NO,  YES, 0, CLONE_VM, CLONE_VM),
    ROW("ptrace",        NO,  NO,  YES),
    ROW("wait4",         NO,  NO,  YES),
    ROW("prctl",         NO,  NO,  YES), /* who may look: PR_SET_DUMPABLE, PR_SET_PTRACER */
    ROW("sched_yield",   NO,  NO,  YES),
    ROW("sigaltstack",   NO,  NO,  YES),
    ROW("getppid",       NO,  NO,  YES),
    ROW("getdents",      NO,  NO,  YES),
    ROW("getdents64",    NO,  NO,  YES),
    ROW("getrlimit",     NO,  NO,  YES),
    ROW("prlimit64",     NO,  NO,  YES),
    ROW("sched_getaffinity", NO, NO, YES),
    ROW("pipe",          NO,  NO,  YES),
    ROW_IF("ioctl",      NO,  NO,  YES, 1, WHOLE, TCGETS),
};
/* clang-format on */
#define NCALLS (sizeof(calls) / sizeof(calls[0]))

/* ---- names ---- */

#define NUMBERS 512 /* numbers of calls are below it; in 2026 the highest is 470 */

static char name_text[NUMBERS * 16];
static uint16_t name_at[NUMBERS]; /* into name_text; 0: no such call */

void
sandbox_load_names(void)
{
    size_t used = 1;
    for (int number = 0; number < NUMBERS; number++) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
        size_t size = name ? strlen(name) + 1 : 0;
        if (name && used + size <= sizeof(name_text)) {
            memcpy(name_text + used, name, size);
            name_at[number] = (uint16_t)used;
            used += size;
        }
        free(name);
    }
}

const char *
sandbox_call_name(int number)
{
    bool is_known = number >= 0 && number < NUMBERS && name_at[number] > 0;
    return is_known ? name_text + name_at[number] : "an unknown call";
}

const char *
sandbox_unknown_call(void)
{
    for (size_t i = 0; i < NCALLS; i++) {
        if (seccomp_syscall_resolve_name(calls[i].name) == __NR_SCMP_ERROR) {
            return calls[i].name;
        }
    }
    return NULL;
}

/* ---- the filter ---- */

static enum verdict
verdict_of(const struct call *call, enum sandbox_role role)
{
    if (IS_SANITIZED && call->sanitizers != NO) {
        return call->sanitizers;
    }
    return role == SANDBOX_WORKER ? call->worker : call->monitor;
}

static int
add_call(scmp_filter_ctx filter, const struct call *call, enum verdict verdict)
{
    int number = seccomp_syscall_resolve_name(call->name);
    uint32_t action = verdict == YES ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EACCES);
    if (number == __NR_SCMP_ERROR || verdict == NO) {
        return 0; /* a library that is older than the call: nobody here makes it */
    }
    if (call->mask == 0) {
        return seccomp_rule_add(filter, action, number, 0);
    }
    uint64_t value = call->value == SELF ? (uint64_t)getpid() : call->value;
    return seccomp_rule_add(filter, action, number, 1,
                            SCMP_CMP(call->arg, SCMP_CMP_MASKED_EQ, call->mask, value));
}

static int
set_attributes(scmp_filter_ctx filter)
{
    /* No code of others runs here that speculation would have to be kept from. */
    seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
    seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree */
    int rc = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    return rc < 0 ? rc : seccomp_attr_set(filter, SCMP_FLTATR_API_SYSRAWRC, 1);
}

int
sandbox_filter_calls(enum sandbox_role role)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
    if (!filter) {
        errno = ENOMEM;
        return -1;
    }
    int rc = set_attributes(filter);
    for (size_t i = 0; rc == 0 && i < NCALLS; i++) {
        rc = add_call(filter, &calls[i], verdict_of(&calls[i], role));
    }
    rc = rc == 0 ? seccomp_load(filter) : rc;
    seccomp_release(filter);
    errno = -rc;
    return rc == 0 ? 0 : -1;
}
