/* SPDX-License-Identifier: Apache-2.0
 *
 * health.h - when backends are probed, and what the results make of them.
 *
 * The pure part decides; struct health drives it: a schedule for each backend of the conf in force,
 * probes (at most HEALTH_PROBES_MAX at one time), and the states in the segment.
 */
#ifndef MASTER_HEALTH_H
#define MASTER_HEALTH_H

#include <event2/event.h>

#include "conf/conf.h"
#include "shared/shm.h"

#define HEALTH_PROBES_MAX 256
/* Passive failures bring the next probe forward, but not closer to the last one than this. */
#define HEALTH_HURRY_MS 100

/* ---- pure ---- */

/* A backend's state and its results in a row; one of passed and failed is 0. */
struct health_streak {
    enum shm_health_state state;
    unsigned passed, failed;
};

/* The streak after one more result. From unknown one result decides; from up, fall failures in a
 * row; from down, rise successes in a row. */
struct health_streak
health_judge(struct health_streak before, bool is_passed, unsigned rise, unsigned fall);

/* Milliseconds to the first probe: spread over min(interval, 1 s). */
uint32_t
health_first_delay_ms(uint32_t interval_ms, uint32_t random);
/* Milliseconds from one probe's start to the next: interval, jitter_percent more or less. */
uint32_t
health_next_delay_ms(uint32_t interval_ms, uint32_t jitter_percent, uint32_t random);

/* Do two backends' checks ask the same thing of the same address in the same way? Rise and fall do
 * not matter. */
bool
health_same_check(const struct conf_backend *a, const struct conf_backend *b);

/* "up", "down", "unknown". */
const char *
health_state_name(enum shm_health_state state);

/* ---- the driver ---- */

struct health;

/* base must have two priorities: probes have the first. NULL without memory. */
struct health *
health_new(struct event_base *base, struct shm *shm);
void
health_free(struct health *health);

/* Probe what conf says, from now on. A slot that is still about the same backend keeps its state
 * (also that of a former monitor, from the segment), its schedule and a probe under way; another
 * begins as unknown. conf is referenced. 0, or -1 without memory: some backends are not probed. */
int
health_apply(struct health *health, struct conf *conf);

/* Look for what operators have said since the last call: who comes back from maintenance has come
 * up now. health_apply() does it too. */
void
health_heed(struct health *health);

/* Look for passive failures that workers have counted since the last call. */
void
health_hurry(struct health *health);

#endif
