/* SPDX-License-Identifier: Apache-2.0
 *
 * status_json.h - the state of everything as one JSON object: /status.json, the status page, and
 * akashctl status.
 *
 * Times that end in _ms are milliseconds; since, checked, started and last_success are seconds
 * since the epoch. clock_ms is monotonic: growth of counters between two texts, by the difference
 * of their clock_ms, is a rate. A part that nothing is known of is missing.
 */
#ifndef MASTER_STATUS_JSON_H
#define MASTER_STATUS_JSON_H

#include "conf/conf.h"
#include "shared/shm.h"

struct status_json;

/* A text in the making, of conf, which is referenced. NULL without memory. */
struct status_json *
status_json_begin(const struct shm *shm, struct conf *conf);
/* Write some more: about max_items backends or listeners. true: it is whole. */
bool
status_json_step(struct status_json *s, unsigned max_items);
/* End it, whole or not. The text, for the caller to free; NULL: memory was short, or it is not
 * whole. */
char *
status_json_take(struct status_json *s, size_t *len);

/* All at once: the text, for the caller to free; NULL without memory. */
char *
status_json_render(const struct shm *shm, struct conf *conf, size_t *len);

#endif
