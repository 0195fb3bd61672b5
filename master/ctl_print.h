/* SPDX-License-Identifier: Apache-2.0
 *
 * ctl_print.h - answers of the control socket in words and tables, on standard output.
 */
#ifndef MASTER_CTL_PRINT_H
#define MASTER_CTL_PRINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;

/* Tables of now; rates and latencies are those since before, so many seconds ago. clears: from the
 * top of the screen. */
void
ctl_print_status(struct json_object *before, struct json_object *now, double seconds, bool clears);
/* is_future: what would change, not what has. */
void
ctl_print_diff(struct json_object *diff, bool is_future);
void
ctl_print_explain(struct json_object *explain);

/* The whole file, NUL-terminated, for the caller to free; NULL with errno. */
char *
ctl_read_file(const char *path);

#endif
