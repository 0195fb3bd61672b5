/* SPDX-License-Identifier: Apache-2.0
 *
 * identity.h - who the children are: the user and groups that they become when akashd is started as
 * root.
 */
#ifndef MASTER_IDENTITY_H
#define MASTER_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define IDENTITY_GROUPS 64

struct identity {
    bool is_other; /* false: not root, children stay who we are */
    uid_t uid;
    gid_t gid;
    gid_t groups[IDENTITY_GROUPS];
    int ngroups;
};

/* Look the names up. user NULL: akashd, or nobody where that does not exist; group NULL: the user's
 * own. 0, or -1 with a sentence in why that names the key. */
int
identity_find(struct identity *id, const char *user, const char *group, char *why, size_t why_size);

/* Become it, for good. 0 or -1 with errno. */
int
identity_assume(const struct identity *id);

#endif
