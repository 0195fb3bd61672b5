/* SPDX-License-Identifier: Apache-2.0
 *
 * cmdline.h - what the command line asks for. Pure: reads argv, prints nothing.
 */
#ifndef MASTER_CMDLINE_H
#define MASTER_CMDLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum cmdline_action {
    CMDLINE_RUN,
    CMDLINE_CHECK,        /* -t */
    CMDLINE_PRINT_CONF,   /* -T */
    CMDLINE_PRINT_SCHEMA, /* --print-schema */
    CMDLINE_PRINT_MANUAL, /* --print-manual */
    CMDLINE_VERSION,      /* -v */
    CMDLINE_BUILD,        /* -V */
    CMDLINE_HELP          /* -h */
};

struct cmdline {
    enum cmdline_action action;
    const char *config;   /* points into argv; NULL: none */
    const char *pid_file; /* NULL: the configuration's */
    bool is_daemon;
    bool is_demo;
};

/* Fill *out from argv. "-config FILE" and "-config=FILE", as the first Akash has them, are read as
 * --config; argv is rewritten and reordered for that. 0, or -1 with a sentence in why. */
int
cmdline_parse(int argc, char **argv, struct cmdline *out, char *why, size_t why_size);

void
cmdline_print_usage(FILE *out);

#endif
