/* SPDX-License-Identifier: Apache-2.0
 *
 * readyz.h - is this host ready for traffic? The answer of /readyz.
 */
#ifndef MASTER_READYZ_H
#define MASTER_READYZ_H

#include "conf/conf.h"
#include "shared/shm.h"

#define READYZ_TEXT_MAX 512

/* The status to answer, and one line of text into buf of READYZ_TEXT_MAX bytes. 200: not draining,
 * a worker accepts, and what query asks for ("upstream=NAME", repeatable, or "all") has a usable
 * backend; 503: not so, the text has the reason; 400: the query is not understood. */
int
readyz_judge(const struct shm *shm, const struct conf *conf, struct slice query, char *buf);

#endif
