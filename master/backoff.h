/* SPDX-License-Identifier: Apache-2.0
 *
 * backoff.h - how long to wait before a child that died is started again. Pure.
 *
 * A child that served for a while is replaced at once. One that dies soon after is waited for: up
 * to a fifth of a second if it had begun to serve (a successor is due within one), up to half a minute if
 * it never did.
 */
#ifndef MASTER_BACKOFF_H
#define MASTER_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

#define BACKOFF_GOOD_MS        1000 /* a life of this length clears the record */
#define BACKOFF_FIRST_MS       50
#define BACKOFF_SERVED_MAX_MS  200
#define BACKOFF_STARTUP_MAX_MS 30000

struct backoff {
    unsigned early_deaths; /* in a row */
};

/* A child has died that served for served_ms (0 when it never began). Returns the wait in
 * milliseconds. */
static inline uint32_t
backoff_next(struct backoff *b, bool has_served, uint64_t served_ms)
{
    if (has_served && served_ms >= BACKOFF_GOOD_MS) {
        b->early_deaths = 0;
        return 0;
    }
    uint32_t max_ms = has_served ? BACKOFF_SERVED_MAX_MS : BACKOFF_STARTUP_MAX_MS;
    unsigned doublings = b->early_deaths < 16 ? b->early_deaths : 16;
    uint32_t wait_ms = (uint32_t)BACKOFF_FIRST_MS << doublings;
    b->early_deaths++;
    return wait_ms < max_ms ? wait_ms : max_ms;
}

#endif
