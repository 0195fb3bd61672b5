/* SPDX-License-Identifier: Apache-2.0
 *
 * status_json.h - the state of everything as one JSON object, for /status.json.
 */
#ifndef MASTER_STATUS_JSON_H
#define MASTER_STATUS_JSON_H

#include "conf/conf.h"
#include "shared/shm.h"

/* The text, for the caller to free; NULL without memory. */
char *
status_json_render(const struct shm *shm, const struct conf *conf, size_t *len);

#endif
