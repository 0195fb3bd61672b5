/* SPDX-License-Identifier: Apache-2.0
 *
 * adopt.c - survivors accept for the missing.
 *
 * Clients that wait in a socket's queue are lost when it is closed, and wait for ever when nobody
 * accepts; so a worker that serves takes the sockets of one that does not.
 */
#include "master/adopt.h"

#include "master/master.h"

static struct child *
adopt_worker(unsigned index)
{
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        struct child *child = &master.children[i];
        if (child->is_wanted && child->index == index) {
            return child;
        }
    }
    return NULL;
}

/* The serving worker for a missing index, spread evenly. NULL: none serves. */
static struct child *
adopt_survivor(unsigned index)
{
    struct child *serving[SHM_ROWS];
    unsigned count = 0;
    for (unsigned i = 0; i < SHM_ROWS; i++) {
        struct child *child = &master.children[i];
        if (child->is_wanted && child->state == SHM_CHILD_SERVING) {
            serving[count++] = child;
        }
    }
    return count > 0 ? serving[index % count] : NULL;
}

static void
adopt_give(struct listen_socket *s)
{
    struct child *survivor = adopt_survivor(s->index);
    if (s->adopter < 0 && s->backlog_now > 0 && survivor) {
        s->adopter = (int)survivor->row;
        child_send_socket(survivor, CHANNEL_ADOPT, s);
    }
}

static void
adopt_return(struct listen_socket *s)
{
    if (s->adopter >= 0) {
        child_send_socket(&master.children[s->adopter], CHANNEL_DISOWN, s);
        s->adopter = -1;
    }
}

void
adopt_settle(void)
{
    for (unsigned i = 0; i < master.sockets.count; i++) {
        struct listen_socket *s = &master.sockets.list[i];
        if (s->use != SOCKET_OF_WORKER) {
            continue;
        }
        const struct child *own = adopt_worker(s->index);
        if (own && own->state == SHM_CHILD_SERVING) {
            adopt_return(s);
        } else if (!own || own->state == SHM_CHILD_NONE) {
            adopt_give(s); /* one that is starting has its sockets already */
        }
    }
}

void
adopt_forget(const struct child *child)
{
    for (unsigned i = 0; i < master.sockets.count; i++) {
        struct listen_socket *s = &master.sockets.list[i];
        if (s->use == SOCKET_OF_WORKER && s->adopter == (int)child->row) {
            s->adopter = -1;
        }
    }
}
