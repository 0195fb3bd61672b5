/* SPDX-License-Identifier: Apache-2.0
 *
 * listener_private.h - what the files of listener share.
 *
 * listener.c         sockets, accepting, what a configuration changes
 * listener_client.c  the clients that were accepted
 */
#ifndef WORKER_LISTENER_PRIVATE_H
#define WORKER_LISTENER_PRIVATE_H

#include <sys/socket.h>

#include "worker/listener.h"

/* A client has been accepted, from sa. Takes fd. */
void
listener_take_client(struct listener *l, int fd, const struct sockaddr *sa, socklen_t len);
/* One has gone: l may have served, and there may be descriptors to accept with. */
void
listener_client_left(struct listener *l);

#endif
