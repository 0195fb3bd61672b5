/* SPDX-License-Identifier: Apache-2.0
 *
 * lookup_host.c - questions to c-ares for the addresses of a host, and what its answers say.
 *
 * c-ares may call back before its call returns: a host counts what it waits for, itself included
 * while it asks.
 */
#define CARES_NO_DEPRECATED /* of what newer versions have other names for */
#include "master/lookup_host.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/lookup_channel.h"

/* ---- what a reply says ---- */

enum lookup_result
lookup_result_of(int status, const char **why)
{
    switch (status) {
    case ARES_SUCCESS: return LOOKUP_OK;
    case ARES_ENODATA: *why = "no address"; return LOOKUP_EMPTY;
    case ARES_ENOTFOUND: *why = "no such name"; return LOOKUP_EMPTY;
    case ARES_ESERVFAIL: *why = "the name server failed (SERVFAIL)"; break;
    case ARES_EREFUSED: *why = "the name server refused"; break;
    case ARES_ETIMEOUT: *why = "no answer in time"; break;
    case ARES_ECONNREFUSED: *why = "no name server can be reached"; break;
    case ARES_EFORMERR:
    case ARES_EBADRESP: *why = "the answer makes no sense"; break;
    case ARES_EBADNAME: *why = "not a name that can be asked for"; break;
    default: *why = "the lookup failed";
    }
    return LOOKUP_FAILED;
}

static void
family_put(struct lookup_family *f, const struct addr_ip *ip, int ttl)
{
    uint32_t ttl_s = ttl > 0 ? (uint32_t)ttl : 0;
    if (found_is_usable(ip)) {
        f->ips[f->n++] = *ip;
        f->ttl_s = ttl_s < f->ttl_s ? ttl_s : f->ttl_s;
    }
}

static int
read_ipv4(struct lookup_family *f, unsigned char *bytes, int len)
{
    struct ares_addrttl list[LOOKUP_REPLY_MOST];
    int n = LOOKUP_REPLY_MOST;
    int status = ares_parse_a_reply(bytes, len, NULL, list, &n);
    for (int i = 0; status == ARES_SUCCESS && i < n; i++) {
        struct addr_ip ip = {.family = AF_INET};
        memcpy(ip.bytes, &list[i].ipaddr, 4);
        family_put(f, &ip, list[i].ttl);
    }
    return status;
}

static int
read_ipv6(struct lookup_family *f, unsigned char *bytes, int len)
{
    struct ares_addr6ttl list[LOOKUP_REPLY_MOST];
    int n = LOOKUP_REPLY_MOST;
    int status = ares_parse_aaaa_reply(bytes, len, NULL, list, &n);
    for (int i = 0; status == ARES_SUCCESS && i < n; i++) {
        struct sockaddr_in6 sa = {.sin6_family = AF_INET6};
        struct addr_ip ip;
        memcpy(&sa.sin6_addr, &list[i].ip6addr, 16);
        addr_ip_from_sockaddr((struct sockaddr *)&sa, sizeof(sa), &ip); /* a mapped one is IPv4 */
        family_put(f, &ip, list[i].ttl);
    }
    return status;
}

static void
family_read(struct lookup_family *f, bool is_ipv6, int status, unsigned char *bytes, int len)
{
    f->n = 0;
    f->ttl_s = UINT32_MAX;
    if (status == ARES_SUCCESS && !found_is_response(bytes, (size_t)len)) {
        status = ARES_EBADRESP;
    }
    if (status == ARES_SUCCESS && !f->ips) {
        f->ips = calloc(LOOKUP_REPLY_MOST, sizeof(*f->ips));
        status = f->ips ? status : ARES_ENOMEM;
    }
    if (status == ARES_SUCCESS) {
        status = is_ipv6 ? read_ipv6(f, bytes, len) : read_ipv4(f, bytes, len);
    }
    if (status == ARES_SUCCESS && f->n == 0) {
        status = ARES_ENODATA;
    }
    f->result = lookup_result_of(status, &f->why);
}

/* ---- a host ---- */

void
lookup_host_free(struct lookup_host *host)
{
    if (host) {
        free(host->families[0].ips);
        free(host->families[1].ips);
        free(host);
    }
}

bool
lookup_host_has(const struct lookup_host *host, enum lookup_result result)
{
    return host->families[0].result == result || host->families[1].result == result;
}

static void
host_query(struct lookup_host *host);

static void
host_release(struct lookup_host *host)
{
    if (--host->waiting > 0) {
        return;
    }
    if (host->lookup->is_closing) {
        host->done(host, host->arg);
        return;
    }
    bool is_empty = !lookup_host_has(host, LOOKUP_OK) && !lookup_host_has(host, LOOKUP_FAILED);
    if (is_empty && !host->is_absolute &&
        host->candidate < lookup_candidates(host->lookup, host->name)) {
        host_query(host);
        return;
    }
    host->done(host, host->arg);
}

static void
on_ipv4(void *arg, int status, int timeouts, unsigned char *bytes, int len)
{
    struct lookup_host *host = arg;
    family_read(&host->families[0], false, status, bytes, len);
    host_release(host);
}

static void
on_ipv6(void *arg, int status, int timeouts, unsigned char *bytes, int len)
{
    struct lookup_host *host = arg;
    family_read(&host->families[1], true, status, bytes, len);
    host_release(host);
}

static void
host_query(struct lookup_host *host)
{
    char name[FOUND_HOST_MAX * 2];
    lookup_candidate(host->lookup, host->name, host->is_absolute ? 0 : host->candidate,
                     host->is_absolute, name, sizeof(name));
    host->candidate++;
    host->waiting = 3;
    ares_query(host->lookup->channel, name, ns_c_in, ns_t_a, on_ipv4, host);
    ares_query(host->lookup->channel, name, ns_c_in, ns_t_aaaa, on_ipv6, host);
    lookup_arm(host->lookup);
    host_release(host);
}

static void
host_put(struct lookup_host *host, const struct sockaddr *sa, socklen_t len)
{
    struct addr_ip ip;
    addr_ip_from_sockaddr(sa, len, &ip);
    struct lookup_family *f = &host->families[ip.family == AF_INET6];
    if (!f->ips) {
        f->ips = calloc(LOOKUP_REPLY_MOST, sizeof(*f->ips));
    }
    if (f->ips && f->n < LOOKUP_REPLY_MOST) {
        ip.port = 0;
        family_put(f, &ip, LOOKUP_HOSTS_S);
        f->result = f->n > 0 ? LOOKUP_OK : f->result;
    }
}

static void
on_hosts_file(void *arg, int status, int timeouts, struct ares_addrinfo *list)
{
    struct lookup_host *host = arg;
    for (struct ares_addrinfo_node *at = list ? list->nodes : NULL; at; at = at->ai_next) {
        host_put(host, at->ai_addr, at->ai_addrlen);
    }
    ares_freeaddrinfo(list);
}

/* localhost and what is below it never leave the machine (RFC 6761 6.3). */
static bool
is_localhost(const char *name)
{
    static const char word[] = "localhost";
    size_t len = strlen(name);
    len -= len > 1 && name[len - 1] == '.';
    size_t word_len = sizeof(word) - 1;
    return len >= word_len && strncasecmp(name + len - word_len, word, word_len) == 0 &&
           (len == word_len || name[len - word_len - 1] == '.');
}

/* true: no name server needs to be asked. */
static bool
host_is_local(struct lookup_host *host)
{
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_flags = ARES_AI_NOSORT};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    for (int i = 0; i < 2; i++) {
        host->families[i].result = LOOKUP_EMPTY;
        host->families[i].ttl_s = UINT32_MAX;
    }
    /* The channel's lookups are the file alone: it answers before it returns. */
    ares_getaddrinfo(host->lookup->channel, host->name, NULL, &hints, on_hosts_file, host);
    if (!lookup_host_has(host, LOOKUP_OK) && is_localhost(host->name)) {
        host_put(host, (struct sockaddr *)&in, sizeof(in));
        host_put(host, (struct sockaddr *)&in6, sizeof(in6));
    }
    return lookup_host_has(host, LOOKUP_OK);
}

int
lookup_host_start(struct lookup *lookup, const char *name, bool is_absolute,
                  void (*done)(struct lookup_host *host, void *arg), void *arg)
{
    struct lookup_host *host = calloc(1, sizeof(*host));
    if (!host) {
        return -1;
    }
    host->lookup = lookup;
    host->is_absolute = is_absolute;
    host->done = done;
    host->arg = arg;
    snprintf(host->name, sizeof(host->name), "%s", name);
    if (host_is_local(host)) {
        done(host, arg);
    } else {
        host_query(host);
    }
    return 0;
}

/* ---- what was found ---- */

uint32_t
lookup_host_ttl(const struct lookup_host *host)
{
    uint32_t ttl_s = UINT32_MAX;
    for (int i = 0; i < 2; i++) {
        const struct lookup_family *f = &host->families[i];
        if (f->result == LOOKUP_OK && f->ttl_s < ttl_s) {
            ttl_s = f->ttl_s;
        }
    }
    return ttl_s;
}

const char *
lookup_host_why(const struct lookup_host *host, enum lookup_result result)
{
    return host->families[host->families[0].result != result].why;
}
