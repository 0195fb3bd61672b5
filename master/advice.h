/* SPDX-License-Identifier: Apache-2.0
 *
 * advice.h - limits of the machine that are too small for the configuration: told once, at start.
 */
#ifndef MASTER_ADVICE_H
#define MASTER_ADVICE_H

#include <stddef.h>

#include "conf/conf.h"

#define ADVICE_MAX       3
#define ADVICE_TEXT_SIZE 256
#define ADVICE_UNKNOWN   (-1) /* a value that cannot be read: no advice about it */

struct advice_facts {
    long somaxconn;
    long tcp_migrate_req;
    unsigned long long open_files; /* of one process, the hard limit */
};

/* The lines that these facts deserve; returns how many. Pure. */
unsigned
advice_write(const struct conf *conf, const struct advice_facts *facts,
             char lines[ADVICE_MAX][ADVICE_TEXT_SIZE]);

/* Look at the machine and log the lines. */
void
advice_give(const struct conf *conf);

#endif
