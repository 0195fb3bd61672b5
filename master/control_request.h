/* SPDX-License-Identifier: Apache-2.0
 *
 * control_request.h - what a client of the control socket asks: one line of JSON. Pure.
 *
 * An object of "command" and what that command takes; the table is in control_request.c, the manual
 * in akashctl.1.
 */
#ifndef MASTER_CONTROL_REQUEST_H
#define MASTER_CONTROL_REQUEST_H

#include <stddef.h>
#include <stdint.h>

#include "shared/slice.h"

/* A diff brings the text of a configuration. */
#define CONTROL_LINE_MAX (4 * 1024 * 1024)

enum control_command {
    CONTROL_RELOAD,
    CONTROL_STATUS,
    CONTROL_STOP,
    CONTROL_UPGRADE,
    CONTROL_READY,
    CONTROL_DRAIN,
    CONTROL_MAINT,
    CONTROL_WEIGHT,
    CONTROL_BREAKER,
    CONTROL_LOG,
    CONTROL_CONFIG,
    CONTROL_DIFF,
    CONTROL_EXPLAIN,
    CONTROL_BAD /* not one of them; why says what is wrong */
};

struct json_object;

/* NULL: not given. */
struct control_request {
    enum control_command command;
    const char *backend;
    const char *state; /* of its breaker */
    const char *level;
    const char *name, *text; /* of a configuration; both or neither */
    const char *url, *host, *method, *client;
    int64_t weight;
    struct json_object *json; /* owns the texts */
};

/* line has no newline. On CONTROL_BAD why says what is wrong. Call fini in either case. */
enum control_command
control_request_parse(struct slice line, struct control_request *out, char *why, size_t why_size);
void
control_request_fini(struct control_request *request);

#endif
