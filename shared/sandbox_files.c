/* SPDX-License-Identifier: Apache-2.0
 *
 * sandbox_files.c - Landlock: which files a role may open.
 *
 * Constants are here by value: the headers of older releases know less than the kernels that run
 * there. What a kernel does not know is not asked of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shared/sandbox_private.h"
#include "shared/sanitized.h"

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule       445
#define SYS_landlock_restrict_self  446
#endif

#define ASK_VERSION     1u /* flag of landlock_create_ruleset */
#define RULE_PATH       1u
#define RIGHT_READ_FILE UINT64_C(1 << 2)
#define RIGHT_READ_DIR  UINT64_C(1 << 3)

/* Rights over files are bits from 0 on; each version of the ABI added some on top. */
static const uint64_t rights_of_abi[] = {
    [1] = (1 << 13) - 1, /* execute, write, read, remove, make */
    [2] = (1 << 14) - 1, /* refer: rename into another folder */
    [3] = (1 << 15) - 1, /* truncate */
    [4] = (1 << 15) - 1, /* (TCP ports: backends have any, and workers cannot bind) */
    [5] = (1 << 16) - 1, /* ioctl of devices */
};
#define ABI_OF_SCOPES 6
#define SCOPES        3u /* abstract Unix sockets, signals */

struct ruleset {
    uint64_t files;
    uint64_t net;
    uint64_t scopes;
};

struct path_rule {
    uint64_t rights;
    int32_t fd;
} __attribute__((packed));

static struct readable {
    const char *path;
    bool monitor;
    bool sanitizers;  /* what their reports are made from, and leaks are looked for in */
    bool is_watched;  /* it may be replaced by another file while this process lives */
    struct stat seen; /* at the time of the rule; zero: it was not there */
} readable[] = {
    {.path = "/etc/resolv.conf", .monitor = true, .is_watched = true},
    {.path = "/etc/hosts", .monitor = true, .is_watched = true},
    {.path = "/dev/urandom", .monitor = true}, /* c-ares: ids of queries */
    {.path = "/proc", .sanitizers = true},
    {.path = "/proc/self/exe", .sanitizers = true},
    {.path = "/usr", .sanitizers = true},
    {.path = "/lib", .sanitizers = true},
};
#define NREADABLE (sizeof(readable) / sizeof(readable[0]))

int
sandbox_landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, ASK_VERSION);
    return abi > 0 ? (int)abi : 0;
}

/* A path that is not there gives nothing to read. */
static int
allow_reading(int ruleset, const char *path, struct stat *st)
{
    struct path_rule rule = {.rights = RIGHT_READ_FILE, .fd = open(path, O_PATH | O_CLOEXEC)};
    if (rule.fd < 0) {
        return 0;
    }
    if (fstat(rule.fd, st) == 0 && S_ISDIR(st->st_mode)) {
        rule.rights |= RIGHT_READ_DIR;
    }
    long rc = syscall(SYS_landlock_add_rule, ruleset, RULE_PATH, &rule, 0);
    close(rule.fd);
    return (int)rc;
}

/* A rule is about a file, not its name. Programs that keep resolv.conf elsewhere, behind a link,
 * replace the file: its folder is theirs alone, so that what comes may be read too. /etc is not. */
static int
allow_what_follows(int ruleset, const char *path)
{
    struct stat st;
    char *real = realpath(path, NULL);
    char *slash = real ? strrchr(real, '/') : NULL;
    int rc = 0;
    if (slash && slash != real) {
        *slash = '\0';
        rc = strcmp(real, "/etc") == 0 ? 0 : allow_reading(ruleset, real, &st);
    }
    free(real);
    return rc;
}

static int
allow_role(int ruleset, enum sandbox_role role)
{
    for (size_t i = 0; i < NREADABLE; i++) {
        struct readable *r = &readable[i];
        bool is_of_role = r->monitor && role == SANDBOX_MONITOR;
        if (!is_of_role && !(r->sanitizers && IS_SANITIZED)) {
            continue;
        }
        if (allow_reading(ruleset, r->path, &r->seen) < 0 ||
            (r->is_watched && allow_what_follows(ruleset, r->path) < 0)) {
            return -1;
        }
    }
    return 0;
}

int
sandbox_close_files(enum sandbox_role role, int abi)
{
    int known = (int)(sizeof(rights_of_abi) / sizeof(rights_of_abi[0])) - 1;
    struct ruleset rules = {.files = rights_of_abi[abi < known ? abi : known],
                            .scopes = abi >= ABI_OF_SCOPES ? SCOPES : 0};
    /* An older kernel takes a longer struct if it ends in zeros. */
    int fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules), 0);
    if (fd < 0) {
        return -1;
    }
    int rc = allow_role(fd, role);
    if (rc == 0) {
        rc = (int)syscall(SYS_landlock_restrict_self, fd, 0);
    }
    int saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

static bool
is_lost(struct readable *r)
{
    struct stat now;
    if (stat(r->path, &now) < 0 || (now.st_dev == r->seen.st_dev && now.st_ino == r->seen.st_ino)) {
        return false;
    }
    r->seen = now; /* once is enough to be told */
    int fd = open(r->path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
    }
    return fd < 0;
}

const char *
sandbox_lost_file(void)
{
    for (size_t i = 0; i < NREADABLE; i++) {
        if (readable[i].is_watched && is_lost(&readable[i])) {
            return readable[i].path;
        }
    }
    return NULL;
}
