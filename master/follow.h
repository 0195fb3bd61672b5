/* SPDX-License-Identifier: Apache-2.0
 *
 * follow.h - names of backends are looked up again when their answers are no longer good: in the
 * monitor.
 *
 * A name is due when the least time to live of its records is over (FOLLOW_TTL_MIN_S to
 * FOLLOW_TTL_MAX_S), plus up to FOLLOW_JITTER_MS. An answer that differs from the addresses in
 * force is told, and told again until a configuration has it. An empty or failed answer is nothing
 * to tell: the next try comes after FOLLOW_RETRY_MIN_MS, doubling to FOLLOW_RETRY_MAX_MS. What the
 * process needs for that: lookup.h.
 */
#ifndef MASTER_FOLLOW_H
#define MASTER_FOLLOW_H

#include <event2/event.h>

#include "conf/conf.h"
#include "master/lookup.h"
#include "shared/shm.h"

#define FOLLOW_TTL_MIN_S    1
#define FOLLOW_TTL_MAX_S    3600
#define FOLLOW_JITTER_MS    250
#define FOLLOW_RETRY_MIN_MS 1000
#define FOLLOW_RETRY_MAX_MS 30000
#define FOLLOW_TELL_MS      5000 /* until it is told again */
#define FOLLOW_WINDOW       32   /* lookups at one time */

/* text (len bytes, with a NUL behind) is for the master, see found.h. */
typedef void
follow_tell(const char *text, size_t len, void *arg);

struct follow;
/* NULL: out of memory. */
struct follow *
follow_new(struct event_base *base, struct shm *shm, follow_tell *tell, void *arg);
/* The names of a conf that came in force. It must live until the next one has been applied. */
void
follow_apply(struct follow *follow, const struct conf *conf);
void
follow_free(struct follow *follow);

/* Pure: until a name is due again. ttl_s as the records say. */
uint64_t
follow_good_for_ms(uint32_t ttl_s, uint32_t random);
/* After so many failures in a row, at least 1. */
uint64_t
follow_retry_ms(unsigned failures, uint32_t random);

#endif
