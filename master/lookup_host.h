/* SPDX-License-Identifier: Apache-2.0
 *
 * lookup_host.h - the addresses of one name: hosts file, then A and AAAA questions for each name of
 * the search list until one has an answer. For lookup.c.
 */
#ifndef MASTER_LOOKUP_HOST_H
#define MASTER_LOOKUP_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "master/found.h"
#include "master/lookup.h"
#include "shared/addr.h"

#define LOOKUP_REPLY_MOST 512 /* addresses that are read of one reply */

/* Addresses of one family. */
struct lookup_family {
    enum lookup_result result;
    const char *why;
    uint32_t ttl_s;
    struct addr_ip *ips;
    unsigned n;
};

struct lookup_host {
    struct lookup *lookup;
    char name[FOUND_HOST_MAX];
    bool is_absolute; /* no search list */
    unsigned candidate;
    unsigned waiting;
    struct lookup_family families[2]; /* IPv4, IPv6 */
    void (*done)(struct lookup_host *host, void *arg);
    void *arg;
};

/* What a status of c-ares means; why: in words, left alone where it is OK. */
enum lookup_result
lookup_result_of(int status, const char **why);

/* done is called once, maybe before this returns, also when the lookup closes; the host is its to
 * free. is_absolute: no search list. 0, or -1: out of memory. */
int
lookup_host_start(struct lookup *lookup, const char *name, bool is_absolute,
                  void (*done)(struct lookup_host *host, void *arg), void *arg);
/* NULL is allowed. */
void
lookup_host_free(struct lookup_host *host);
/* One family or the other has that result. */
bool
lookup_host_has(const struct lookup_host *host, enum lookup_result result);
/* The least of what was found. */
uint32_t
lookup_host_ttl(const struct lookup_host *host);
/* Why a family has that result. */
const char *
lookup_host_why(const struct lookup_host *host, enum lookup_result result);

#endif
