/* SPDX-License-Identifier: Apache-2.0
 *
 * report.h - errors and warnings about a configuration file, collected and put in order.
 */
#ifndef CONF_REPORT_H
#define CONF_REPORT_H

#include "conf/conf.h"
#include "conf/node.h"

#define REPORT_MAX 100 /* errors that are told one by one; more are counted */

struct report;

/* file: as messages write it; outlives the report. */
struct report *
report_new(const char *file);
/* Move what was found into errors, by place, and free the report. */
void
report_finish(struct report *report, struct conf_errors *errors);
bool
report_has_errors(const struct report *report);

/* The value of node is wrong; marks it. */
void
report_value(struct report *report, struct node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Its key is. */
void
report_key(struct report *report, struct node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A member of object that is not there is missed. */
void
report_missing(struct report *report, struct node *object, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* At a place without a path: syntax. */
void
report_place(struct report *report, struct place place, const char *what);
void
report_warn(struct report *report, const struct node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "conf.d/a.json:14:17", for messages that speak of another place. Returns buf. */
const char *
report_where(const struct report *report, struct place place, char *buf, size_t size);

/* What was found instead, for messages: "\"heavy\"", "12", "a list". Returns buf. */
const char *
report_got(const struct node *node, char *buf, size_t size);

#endif
