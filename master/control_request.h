/* SPDX-License-Identifier: Apache-2.0
 *
 * control_request.h - what a client of the control socket asks: one line of JSON. Pure.
 */
#ifndef MASTER_CONTROL_REQUEST_H
#define MASTER_CONTROL_REQUEST_H

#include <stddef.h>

#include "shared/slice.h"

#define CONTROL_LINE_MAX 65536

enum control_command {
    CONTROL_RELOAD,
    CONTROL_STATUS,
    CONTROL_STOP,
    CONTROL_UPGRADE,
    CONTROL_BAD /* not one of them; why says what is wrong */
};

/* line has no newline. {"command": "reload"}; unknown keys are errors. */
enum control_command
control_request_parse(struct slice line, char *why, size_t why_size);

#endif
