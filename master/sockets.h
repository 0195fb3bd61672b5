/* SPDX-License-Identifier: Apache-2.0
 *
 * sockets.h - the listening sockets: made and kept by the master, one per address and worker index.
 *
 * Queued clients of a socket are reset when its last descriptor is closed, so the master keeps all
 * of them: a worker may die and its successor accepts what waited. A new socket is bound, but does
 * not listen until its worker is ready, so that undoing it resets nobody. Unix sockets cannot join
 * a group, and neither can one that the service manager made (activation.h): it is shared by all
 * workers. The monitor's socket for metrics is one of these too.
 */
#ifndef MASTER_SOCKETS_H
#define MASTER_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/conf.h"
#include "shared/addr.h"
#include "shared/slice.h"

enum socket_use {
    SOCKET_OF_WORKER, /* index says whose */
    SOCKET_OF_ALL,    /* Unix or lent: every worker accepts on it */
    SOCKET_OF_MONITOR
};

struct listen_socket {
    char *text; /* the address as conf writes it: its identity */
    enum socket_use use;
    unsigned index;
    int fd;
    int backlog;       /* wanted */
    int backlog_now;   /* 0: does not listen yet */
    bool is_lent;      /* the service manager's: given back, never closed nor filtered */
    bool is_new;       /* made by the reload that is being prepared */
    bool is_borrowed;  /* another process has it too: its file stays, and clients may come */
    int adopter;       /* row of the worker that accepts in the place of the missing one; -1 */
    struct addr bound; /* to remove a Unix socket's file */
};

struct sockets {
    struct listen_socket *list;
    unsigned count;
    unsigned capacity;
};

/* Take over a socket of a former master, of which text, use, index, backlog and fd are
 * filled; the set owns fd. It is borrowed until sockets_own. 0 or -1 with errno. */
int
sockets_inherit(struct sockets *set, const struct listen_socket *former);
/* The former master lets go of them: they are ours alone, or another's alone. */
void
sockets_own(struct sockets *set);
void
sockets_lend(struct sockets *set);

/* Make what conf needs for worker indexes below nworkers and what is not there yet. The default
 * address of metrics may be taken: that is logged. 0, or -1 with a sentence in why that names the
 * address; nothing is undone then. */
int
sockets_prepare(struct sockets *set, const struct conf *conf, unsigned nworkers, char *why,
                size_t why_size);
/* Close what the last sockets_prepare made. */
void
sockets_undo(struct sockets *set);
/* What was prepared stays. */
void
sockets_keep(struct sockets *set);

/* Listen on the sockets of one worker index and on those of all (or those of the monitor). 0, or -1
 * with why. */
int
sockets_listen(struct sockets *set, enum socket_use use, unsigned index, char *why,
               size_t why_size);

/* Take no more clients on the listeners' sockets whose address is not in conf (NULL: on any), so
 * that those who accept until nothing is left leave nobody behind. To be called before they are
 * told. */
void
sockets_let_nobody_in(struct sockets *set, const struct conf *conf);
/* Close the sockets whose address is not in conf. */
void
sockets_sweep(struct sockets *set, const struct conf *conf);
/* The server stops: close those of the workers, which accept what is queued on theirs and then
 * close the last descriptor; new clients are refused from then on. */
void
sockets_close_listeners(struct sockets *set);
/* Close all; files of Unix sockets are removed. */
void
sockets_close_all(struct sockets *set);

/* Is it one of those that the worker with this index (or the monitor) accepts on? */
bool
sockets_belongs(const struct listen_socket *s, enum socket_use use, unsigned index);

#endif
