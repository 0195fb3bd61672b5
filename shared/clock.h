/* SPDX-License-Identifier: Apache-2.0
 *
 * clock.h - the two clocks. Deadlines and durations use the monotonic one, which is the same for
 * all processes of one host; logs and dates use the wall clock.
 */
#ifndef SHARED_CLOCK_H
#define SHARED_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t
clock_read_us(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

/* Monotonic microseconds. */
static inline uint64_t
clock_mono_us(void)
{
    return clock_read_us(CLOCK_MONOTONIC);
}

static inline uint64_t
clock_mono_ms(void)
{
    return clock_mono_us() / 1000u;
}

/* Microseconds since the epoch, UTC. */
static inline uint64_t
clock_wall_us(void)
{
    return clock_read_us(CLOCK_REALTIME);
}

#endif
