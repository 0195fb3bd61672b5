/* SPDX-License-Identifier: Apache-2.0
 *
 * identity.c - find the unprivileged user and become it.
 */
#include "master/identity.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct passwd *
identity_find_user(const char *user)
{
    if (user) {
        return getpwnam(user);
    }
    const struct passwd *pw = getpwnam("akashd");
    return pw ? pw : getpwnam("nobody");
}

int
identity_find(struct identity *id, const char *user, const char *group, char *why, size_t why_size)
{
    memset(id, 0, sizeof(*id));
    if (geteuid() != 0) {
        return 0;
    }
    const struct passwd *pw = identity_find_user(user);
    if (!pw) {
        snprintf(why, why_size, "user: there is no user %s", user ? user : "akashd or nobody");
        return -1;
    }
    const struct group *gr = group ? getgrnam(group) : NULL;
    if (group && !gr) {
        snprintf(why, why_size, "group: there is no group %s", group);
        return -1;
    }
    id->is_other = true;
    id->uid = pw->pw_uid;
    id->gid = gr ? gr->gr_gid : pw->pw_gid;
    id->ngroups = IDENTITY_GROUPS;
    if (getgrouplist(pw->pw_name, id->gid, id->groups, &id->ngroups) < 0) {
        snprintf(why, why_size, "user: %s is in more than %d groups", pw->pw_name, IDENTITY_GROUPS);
        return -1;
    }
    return 0;
}

int
identity_assume(const struct identity *id)
{
    if (!id->is_other) {
        return 0;
    }
    if (setgroups((size_t)id->ngroups, id->groups) < 0 || setgid(id->gid) < 0 ||
        setuid(id->uid) < 0) {
        return -1;
    }
    /* What was dropped must not come back. */
    if (id->uid != 0 && setuid(0) == 0) {
        errno = EPERM;
        return -1;
    }
    return 0;
}
