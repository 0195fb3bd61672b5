/* SPDX-License-Identifier: Apache-2.0
 *
 * logs.h - the files of the error log and the access log: opened by the master, which has the
 * rights, and sent to the children as LOG messages.
 */
#ifndef MASTER_LOGS_H
#define MASTER_LOGS_H

#include <stdbool.h>
#include <stddef.h>

#include "conf/conf.h"

struct log_file {
    char *path;
    int fd;
};

struct logs {
    struct log_file error;  /* path NULL: no file */
    struct log_file access; /* may be the same path, then with a descriptor of its own */
};

/* Open what conf names. 0, or -1 with a sentence in why; then nothing is open. */
int
logs_open(struct logs *logs, const struct conf *conf, char *why, size_t why_size);
/* Open each path anew; what cannot be opened keeps the old descriptor and is logged. */
void
logs_reopen(struct logs *logs);
void
logs_close(struct logs *logs);
/* Make this process log as conf says. */
void
logs_use(const struct logs *logs, const struct conf *conf);

#endif
