/* SPDX-License-Identifier: Apache-2.0
 *
 * lookup.h - ask for the addresses of a name: /etc/hosts, then name servers, with c-ares.
 *
 * In the monitor, and in the short-lived child that a load makes; never in the master. What it
 * needs at run time, for whoever fences the process in:
 *   files    /etc/resolv.conf at lookup_new() and when it has changed (stat), /etc/hosts at each
 *            lookup, /dev/urandom whenever resolv.conf is read (query ids). Neither nsswitch.conf
 *            nor any module of the C library's resolver is used.
 *   sockets  UDP to name servers, TCP for answers that are too long: socket, fcntl, setsockopt,
 *            connect, sendto, writev, recvfrom
 *   uname    the search list of a machine whose resolv.conf has none
 *   getrandom, once for each channel
 * Without /dev/urandom c-ares 1.18 takes its ids from rand(): it is seeded here so that strangers
 * cannot foresee them, but a fence does better to leave the file open. Nothing is loaded lazily.
 */
#ifndef MASTER_LOOKUP_H
#define MASTER_LOOKUP_H

#include <event2/event.h>

#include "conf/conf.h"

#define LOOKUP_HOSTS_S 60 /* /etc/hosts knows no time to live */

enum lookup_result {
    LOOKUP_OK,
    LOOKUP_EMPTY, /* there is no such name, or it has no address */
    LOOKUP_FAILED /* no answer, or none to rely on */
};
#define LOOKUP_RESULTS 3

struct lookup_answer {
    enum lookup_result result;
    const char *why; /* not OK, or is_partial: in words; static */
    bool is_partial; /* one of IPv4 and IPv6 failed: nothing is known of it */
    uint32_t ttl_s;  /* OK: of what was found, as its records say */
    struct conf_found found[CONF_FOUND_MAX]; /* sorted, no two alike; without port unless SRV */
    unsigned n;
    unsigned total; /* before what was too many was left out */
};

struct lookup;
typedef void
lookup_done(const struct lookup_answer *answer, void *arg);

/* servers: none: those of /etc/resolv.conf. NULL: out of memory or descriptors. */
struct lookup *
lookup_new(struct event_base *base, const struct addr *servers, unsigned nservers);
/* done is not called any more for what was asked. */
void
lookup_free(struct lookup *lookup);

/* Take notice of a changed resolv.conf: from the loop, never from done. What was asked before fails
 * then. 0, or -1: there is no channel. */
int
lookup_refresh(struct lookup *lookup);

/* done is called once, maybe before this returns; within some 10 s. Where the name is not
 * absolute the search list of resolv.conf is gone through. 0, or -1: out of memory. */
int
lookup_ask(struct lookup *lookup, const char *host, bool is_srv, lookup_done *done, void *arg);

#endif
