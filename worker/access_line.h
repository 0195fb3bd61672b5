/* SPDX-License-Identifier: Apache-2.0
 *
 * access_line.h - an exchange as a line of the access log, in each format.
 *
 * Bytes outside printable ASCII, '"' and '\' are \xHH in every format; in JSON that backslash is
 * escaped, so that a value reads the same there. A line that would be too long loses the ends of
 * its long values, never its own.
 */
#ifndef WORKER_ACCESS_LINE_H
#define WORKER_ACCESS_LINE_H

#include <stddef.h>

#include "conf/conf.h"
#include "worker/stream.h"

#define ACCESS_LINE_MAX 4096 /* with its newline */

/* Write the line of s into buf, which has ACCESS_LINE_MAX bytes. Returns its length, below
 * ACCESS_LINE_MAX; there is no newline yet. */
size_t
access_line_put(const struct stream *s, enum conf_access_format format, char *buf);

#endif
