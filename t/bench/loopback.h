/* SPDX-License-Identifier: Apache-2.0
 *
 * loopback.h - what the programs of the benchmark share: sockets on 127.0.0.1, a clock, and dying.
 */
#ifndef BENCH_LOOPBACK_H
#define BENCH_LOOPBACK_H

#include <netinet/in.h>
#include <stdint.h>

/* Print what failed and errno, and exit with 1: nothing here is worth measuring after a failure. */
_Noreturn void
fail(const char *what);

/* 127.0.0.1 and the port that the text names. */
struct sockaddr_in
loopback_address(const char *port);

/* Returns a non-blocking listening socket whose accepted sockets have TCP_NODELAY. */
int
loopback_listen(const char *port);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t
now_ns(void);

#endif
