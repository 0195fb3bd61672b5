/* SPDX-License-Identifier: Apache-2.0
 *
 * bind.h - one socket, made and bound; it does not listen yet. All return it, or -1 with errno.
 */
#ifndef MASTER_BIND_H
#define MASTER_BIND_H

#include <stdbool.h>

#include "shared/addr.h"

/* text is the address as conf writes it: one that begins with ':' is of both IP versions. In a
 * group: SO_REUSEPORT. */
int
bind_socket(const struct addr *addr, const char *text, bool is_in_group);
/* The first of a group: fails when anybody listens there already, which the others cannot see. */
int
bind_first(const struct addr *addr, const char *text);
/* A Unix socket for every user; the file of a server that has gone is removed. */
int
bind_unix(const struct addr *addr);
/* ":80" on a host without IPv6 is all IPv4 addresses. */
void
bind_fall_back(struct addr *addr, const char *text);
/* Close fd if it is one, keep errno; -1. */
int
bind_give_up(int fd);

#endif
