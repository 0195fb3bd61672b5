/* SPDX-License-Identifier: Apache-2.0
 *
 * sandbox.c - capabilities, what is loaded before, what is said of a refused call, and the order of
 * it all.
 */
#include "shared/sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/sandbox_private.h"

#define LAST_CAPABILITY 63 /* of the 64 bits that the kernel has for them */

/* ---- capabilities ---- */

static int
set_capabilities(uint64_t kept)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
    sets[0].permitted = sets[0].effective = (uint32_t)kept;
    sets[1].permitted = sets[1].effective = (uint32_t)(kept >> 32);
    return (int)syscall(SYS_capset, &header, sets);
}

static uint64_t
permitted_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
    if (syscall(SYS_capget, &header, sets) < 0) {
        return 0;
    }
    return sets[0].permitted | (uint64_t)sets[1].permitted << 32;
}

int
sandbox_trim_capabilities(void)
{
    static const int needed[] = {
        CAP_NET_BIND_SERVICE, /* ports below 1024 */
        CAP_NET_ADMIN,        /* some kernels ask for it before a socket takes a filter */
        CAP_SETUID,           /* children become another user */
        CAP_SETGID,
        CAP_KILL,    /* ... and are signalled and ended */
        CAP_SETPCAP, /* ... and empty their bounding set */
        CAP_CHOWN,   /* group and mode of the control socket */
        CAP_FOWNER,
        CAP_DAC_OVERRIDE, /* keys and logs that are not root's */
    };
    uint64_t kept = 0;
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        kept |= UINT64_C(1) << needed[i];
    }
    return set_capabilities(permitted_capabilities() & kept);
}

void
sandbox_bound(void)
{
    for (int cap = 0; cap <= LAST_CAPABILITY; cap++) {
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); /* EINVAL: the kernel has no such capability */
    }
    prctl(PR_SET_SECUREBITS,
          SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
              SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED | SECBIT_KEEP_CAPS_LOCKED,
          0, 0, 0);
}

int
sandbox_drop_capabilities(void)
{
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return set_capabilities(0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -1 : 0;
}

/* ---- before ---- */

/* With TZ unset the C library looks at /etc/localtime whenever a time is written. With this value
 * it reads the same file, once. */
static void
load_time_zone(void)
{
    setenv("TZ", ":/etc/localtime", 0);
    tzset();
}

void
sandbox_warm_up(void)
{
    static bool is_warm; /* also in children */
    if (is_warm) {
        return;
    }
    is_warm = true;
    load_time_zone();
    OPENSSL_init_ssl(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS |
                         OPENSSL_INIT_LOAD_CRYPTO_STRINGS,
                     NULL);
    sandbox_load_names();
}

/* ---- a refused call ---- */

/* The process is to die of the signal, as it would have done without us. */
static void
on_refused(int number, siginfo_t *info, void *context)
{
    char event[64] = "sandbox: ";
    char *end = stpncpy(event + strlen(event), sandbox_call_name(info->si_syscall), 40);
    strcpy(end, " refused");
    log_write_in_signal(LOG_LEVEL_ERROR, event);
    raise(number);
}

static int
watch_refusals(void)
{
    struct sigaction action = {.sa_sigaction = on_refused,
                               .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER};
    return sigaction(SIGSYS, &action, NULL);
}

/* ---- all ---- */

void
sandbox_look(struct sandbox_kernel *out)
{
    out->landlock_abi = sandbox_landlock_abi();
    /* Without a filter the answer of a kernel that has them is EFAULT. */
    out->has_filters = prctl(PR_SET_SECCOMP, 2, NULL, 0, 0) < 0 && errno == EFAULT;
}

void
sandbox_advise(void)
{
    struct sandbox_kernel kernel;
    sandbox_look(&kernel);
    if (kernel.landlock_abi > 0 && kernel.has_filters) {
        return;
    }
    log_warn("sandbox: the kernel has no %s: workers and monitor do without",
             kernel.has_filters        ? "Landlock"
             : kernel.landlock_abi > 0 ? "filters of system calls"
                                       : "Landlock and no filters of system calls");
}

int
sandbox_enter(enum sandbox_role role)
{
    struct sandbox_kernel kernel;
    sandbox_look(&kernel);
    sandbox_warm_up();
    if (sandbox_drop_capabilities() < 0 || watch_refusals() < 0) {
        return -1;
    }
    if (kernel.landlock_abi > 0 && sandbox_close_files(role, kernel.landlock_abi) < 0) {
        return -1;
    }
    return kernel.has_filters ? sandbox_filter_calls(role) : 0;
}
