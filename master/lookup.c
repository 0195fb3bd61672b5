/* SPDX-License-Identifier: Apache-2.0
 *
 * lookup.c - questions to c-ares, and what its answers say.
 *
 * A `question` is one query of one type (A, AAAA, SRV). A `host` is a name whose addresses are
 * wanted: hosts file, then both questions for each name of the search list until one has an answer.
 * An `ask` is what a caller asked: one host, or SRV records and the hosts they point to.
 *
 * c-ares may call back before its call returns: every owner counts what it waits for, itself
 * included while it asks.
 */
#define CARES_NO_DEPRECATED /* of what newer versions have other names for */
#include "master/lookup.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/found.h"
#include "master/lookup_channel.h"

#define REPLY_MOST  512 /* addresses that are read of one reply */
#define TARGET_MOST 32  /* of SRV records */

/* Addresses of one family. */
struct family {
    enum lookup_result result;
    const char *why;
    uint32_t ttl_s;
    struct addr_ip *ips;
    unsigned n;
};

struct host {
    struct lookup *lookup;
    char name[FOUND_HOST_MAX];
    bool is_absolute; /* no search list */
    unsigned candidate;
    unsigned waiting;
    struct family families[2]; /* IPv4, IPv6 */
    void (*done)(struct host *host, void *arg);
    void *arg;
};

struct target {
    struct ask *ask;
    struct host *host; /* its answer, once there is one */
    uint16_t port, priority, weight;
    char name[FOUND_HOST_MAX];
};

struct ask {
    struct lookup *lookup;
    char name[FOUND_HOST_MAX];
    lookup_done *done;
    void *arg;
    unsigned candidate; /* SRV: of the search list */
    unsigned waiting;
    uint32_t ttl_s;
    const char *why;
    struct target *targets;
    unsigned ntargets;
};

/* ---- what a reply says ---- */

static enum lookup_result
result_of(int status, const char **why)
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
family_put(struct family *f, const struct addr_ip *ip, int ttl)
{
    uint32_t ttl_s = ttl > 0 ? (uint32_t)ttl : 0;
    if (found_is_usable(ip)) {
        f->ips[f->n++] = *ip;
        f->ttl_s = ttl_s < f->ttl_s ? ttl_s : f->ttl_s;
    }
}

static int
read_ipv4(struct family *f, unsigned char *bytes, int len)
{
    struct ares_addrttl list[REPLY_MOST];
    int n = REPLY_MOST;
    int status = ares_parse_a_reply(bytes, len, NULL, list, &n);
    for (int i = 0; status == ARES_SUCCESS && i < n; i++) {
        struct addr_ip ip = {.family = AF_INET};
        memcpy(ip.bytes, &list[i].ipaddr, 4);
        family_put(f, &ip, list[i].ttl);
    }
    return status;
}

static int
read_ipv6(struct family *f, unsigned char *bytes, int len)
{
    struct ares_addr6ttl list[REPLY_MOST];
    int n = REPLY_MOST;
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
family_read(struct family *f, bool is_ipv6, int status, unsigned char *bytes, int len)
{
    f->n = 0;
    f->ttl_s = UINT32_MAX;
    if (status == ARES_SUCCESS && !f->ips) {
        f->ips = calloc(REPLY_MOST, sizeof(*f->ips));
        status = f->ips ? status : ARES_ENOMEM;
    }
    if (status == ARES_SUCCESS) {
        status = is_ipv6 ? read_ipv6(f, bytes, len) : read_ipv4(f, bytes, len);
    }
    if (status == ARES_SUCCESS && f->n == 0) {
        status = ARES_ENODATA;
    }
    f->result = result_of(status, &f->why);
}

/* ---- a host ---- */

static void
host_free(struct host *host)
{
    if (host) {
        free(host->families[0].ips);
        free(host->families[1].ips);
        free(host);
    }
}

static bool
host_has(const struct host *host, enum lookup_result result)
{
    return host->families[0].result == result || host->families[1].result == result;
}

static void
host_query(struct host *host);

static void
host_release(struct host *host)
{
    if (--host->waiting > 0) {
        return;
    }
    if (host->lookup->is_closing) {
        host->done(host, host->arg);
        return;
    }
    bool is_empty = !host_has(host, LOOKUP_OK) && !host_has(host, LOOKUP_FAILED);
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
    struct host *host = arg;
    family_read(&host->families[0], false, status, bytes, len);
    host_release(host);
}

static void
on_ipv6(void *arg, int status, int timeouts, unsigned char *bytes, int len)
{
    struct host *host = arg;
    family_read(&host->families[1], true, status, bytes, len);
    host_release(host);
}

static void
host_query(struct host *host)
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
host_put(struct host *host, const struct sockaddr *sa, socklen_t len)
{
    struct addr_ip ip;
    addr_ip_from_sockaddr(sa, len, &ip);
    struct family *f = &host->families[ip.family == AF_INET6];
    if (!f->ips) {
        f->ips = calloc(REPLY_MOST, sizeof(*f->ips));
    }
    if (f->ips && f->n < REPLY_MOST) {
        ip.port = 0;
        family_put(f, &ip, LOOKUP_HOSTS_S);
        f->result = f->n > 0 ? LOOKUP_OK : f->result;
    }
}

static void
on_hosts_file(void *arg, int status, int timeouts, struct ares_addrinfo *list)
{
    struct host *host = arg;
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
host_is_local(struct host *host)
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
    if (!host_has(host, LOOKUP_OK) && is_localhost(host->name)) {
        host_put(host, (struct sockaddr *)&in, sizeof(in));
        host_put(host, (struct sockaddr *)&in6, sizeof(in6));
    }
    return host_has(host, LOOKUP_OK);
}

static int
host_start(struct lookup *lookup, const char *name, bool is_absolute,
           void (*done)(struct host *host, void *arg), void *arg)
{
    struct host *host = calloc(1, sizeof(*host));
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

/* ---- the answer ---- */

/* What is gathered before it is sorted and cut. */
struct gathering {
    struct conf_found *list;
    unsigned n, room;
};

static void
gather(struct gathering *all, const struct host *host, const struct target *target)
{
    for (int i = 0; i < 2; i++) {
        const struct family *f = &host->families[i];
        for (unsigned k = 0; f->result == LOOKUP_OK && k < f->n && all->n < all->room; k++) {
            struct conf_found *found = &all->list[all->n++];
            memset(found, 0, sizeof(*found));
            addr_from_ip(&f->ips[k], target ? target->port : 0, &found->addr);
            found->priority = target ? target->priority : 0;
            found->weight = target ? target->weight : 0;
        }
    }
}

static uint32_t
host_ttl(const struct host *host)
{
    uint32_t ttl_s = UINT32_MAX;
    for (int i = 0; i < 2; i++) {
        const struct family *f = &host->families[i];
        if (f->result == LOOKUP_OK && f->ttl_s < ttl_s) {
            ttl_s = f->ttl_s;
        }
    }
    return ttl_s;
}

static const char *
host_why(const struct host *host, enum lookup_result result)
{
    return host->families[host->families[0].result != result].why;
}

static void
ask_free(struct ask *ask)
{
    for (unsigned i = 0; i < ask->ntargets; i++) {
        host_free(ask->targets[i].host);
    }
    free(ask->targets);
    free(ask);
}

static void
ask_answer(struct ask *ask, struct lookup_answer *answer)
{
    if (!ask->lookup->is_closing) {
        ask->done(answer, ask->arg);
    }
    ask_free(ask);
}

static void
ask_end(struct ask *ask, enum lookup_result result, const char *why)
{
    struct lookup_answer answer = {.result = result, .why = why};
    ask_answer(ask, &answer);
}

static void
ask_found(struct ask *ask, struct gathering *all, struct lookup_answer *answer)
{
    answer->total = conf_found_sort(all->list, all->n);
    answer->n = answer->total < CONF_FOUND_MAX ? answer->total : CONF_FOUND_MAX;
    memcpy(answer->found, all->list, answer->n * sizeof(*all->list));
    ask_answer(ask, answer);
}

/* A or AAAA records. */
static void
on_host(struct host *host, void *arg)
{
    struct ask *ask = arg;
    struct conf_found list[2 * CONF_FOUND_MAX + 2 * REPLY_MOST];
    struct gathering all = {list, 0, sizeof(list) / sizeof(list[0])};
    struct lookup_answer answer = {.result = LOOKUP_OK};
    bool is_ok = host_has(host, LOOKUP_OK), has_failed = host_has(host, LOOKUP_FAILED);
    if (!is_ok) {
        enum lookup_result result = has_failed ? LOOKUP_FAILED : LOOKUP_EMPTY;
        const char *why = host_why(host, result);
        host_free(host);
        ask_end(ask, result, why);
        return;
    }
    answer.is_partial = has_failed;
    answer.why = has_failed ? host_why(host, LOOKUP_FAILED) : NULL;
    answer.ttl_s = host_ttl(host);
    gather(&all, host, NULL);
    host_free(host);
    ask_found(ask, &all, &answer);
}

/* ---- SRV records ---- */

/* A target that cannot be asked for makes the whole a failure: the others alone would say that it
 * has gone. */
static void
ask_merge(struct ask *ask)
{
    struct gathering all = {.room = TARGET_MOST * 2 * CONF_FOUND_MAX};
    struct lookup_answer answer = {.result = LOOKUP_OK, .ttl_s = ask->ttl_s};
    all.list = calloc(all.room, sizeof(*all.list));
    for (unsigned i = 0; all.list && i < ask->ntargets; i++) {
        const struct host *host = ask->targets[i].host;
        if (!host || (!host_has(host, LOOKUP_OK) && host_has(host, LOOKUP_FAILED))) {
            free(all.list);
            ask_end(ask, LOOKUP_FAILED, host ? host_why(host, LOOKUP_FAILED) : "out of memory");
            return;
        }
        uint32_t ttl_s = host_ttl(host);
        answer.ttl_s = ttl_s < answer.ttl_s ? ttl_s : answer.ttl_s;
        if (host_has(host, LOOKUP_OK) && host_has(host, LOOKUP_FAILED)) {
            answer.is_partial = true;
            answer.why = host_why(host, LOOKUP_FAILED);
        }
        gather(&all, host, &ask->targets[i]);
    }
    if (all.n == 0) {
        ask_end(ask, LOOKUP_EMPTY, "no target has an address");
    } else {
        ask_found(ask, &all, &answer);
    }
    free(all.list);
}

static void
ask_release(struct ask *ask)
{
    if (--ask->waiting > 0) {
        return;
    }
    if (ask->lookup->is_closing) {
        ask_free(ask);
    } else {
        ask_merge(ask);
    }
}

static void
on_target(struct host *host, void *arg)
{
    struct target *target = arg;
    target->host = host;
    ask_release(target->ask);
}

static int
compare_targets(const void *left, const void *right)
{
    const struct target *a = left, *b = right;
    int order = (int)a->priority - (int)b->priority;
    order = order != 0 ? order : (int)b->weight - (int)a->weight;
    order = order != 0 ? order : strcmp(a->name, b->name);
    return order != 0 ? order : (int)a->port - (int)b->port;
}

/* Those of the least priority and greatest weight. "." says that there is no such service (RFC
 * 2782). */
static int
ask_take_targets(struct ask *ask, struct ares_srv_reply *list)
{
    unsigned n = 0;
    for (struct ares_srv_reply *at = list; at; at = at->next) {
        n++;
    }
    ask->targets = calloc(n + 1, sizeof(*ask->targets));
    if (!ask->targets) {
        return ARES_ENOMEM;
    }
    n = 0;
    for (struct ares_srv_reply *at = list; at; at = at->next) {
        size_t len = at->host ? strlen(at->host) : 0;
        if (len == 0 || len >= FOUND_HOST_MAX || strcmp(at->host, ".") == 0 || at->port == 0) {
            continue;
        }
        ask->targets[n] = (struct target){
            .ask = ask, .port = at->port, .priority = at->priority, .weight = at->weight};
        memcpy(ask->targets[n++].name, at->host, len + 1);
    }
    qsort(ask->targets, n, sizeof(*ask->targets), compare_targets);
    ask->ntargets = n < TARGET_MOST ? n : TARGET_MOST;
    return n > 0 ? ARES_SUCCESS : ARES_ENODATA;
}

static void
ask_targets(struct ask *ask)
{
    ask->waiting = ask->ntargets + 1;
    for (unsigned i = 0; i < ask->ntargets; i++) {
        struct target *target = &ask->targets[i];
        if (host_start(ask->lookup, target->name, true, on_target, target) < 0) {
            ask->waiting--;
        }
    }
    ask_release(ask);
}

static void
ask_srv(struct ask *ask);

static void
on_srv(void *arg, int status, int timeouts, unsigned char *bytes, int len)
{
    struct ask *ask = arg;
    struct ares_srv_reply *list = NULL;
    const char *why = NULL;
    if (ask->lookup->is_closing) {
        ask_free(ask);
        return;
    }
    if (status == ARES_SUCCESS && found_least_ttl(bytes, (size_t)len, &ask->ttl_s) < 0) {
        status = len > 12 && bytes[6] == 0 && bytes[7] == 0 ? ARES_ENODATA : ARES_EBADRESP;
    }
    if (status == ARES_SUCCESS) {
        status = ares_parse_srv_reply(bytes, len, &list);
    }
    if (status == ARES_SUCCESS) {
        status = ask_take_targets(ask, list);
    }
    ares_free_data(list);
    enum lookup_result result = result_of(status, &why);
    if (result == LOOKUP_OK) {
        ask_targets(ask);
    } else if (result == LOOKUP_EMPTY &&
               ask->candidate < lookup_candidates(ask->lookup, ask->name)) {
        ask_srv(ask);
    } else {
        ask_end(ask, result, why);
    }
}

static void
ask_srv(struct ask *ask)
{
    char name[FOUND_HOST_MAX * 2];
    struct lookup *lookup = ask->lookup;
    free(ask->targets);
    ask->targets = NULL;
    ask->ntargets = 0;
    lookup_candidate(lookup, ask->name, ask->candidate++, false, name, sizeof(name));
    ares_query(lookup->channel, name, ns_c_in, ns_t_srv, on_srv, ask);
    lookup_arm(lookup);
}

int
lookup_ask(struct lookup *lookup, const char *host, bool is_srv, lookup_done *done, void *arg)
{
    struct ask *ask = lookup->channel ? calloc(1, sizeof(*ask)) : NULL;
    if (!ask) {
        return -1;
    }
    ask->lookup = lookup;
    ask->done = done;
    ask->arg = arg;
    snprintf(ask->name, sizeof(ask->name), "%s", host);
    if (is_srv) {
        ask_srv(ask);
    } else if (host_start(lookup, host, false, on_host, ask) < 0) {
        free(ask);
        return -1;
    }
    return 0;
}
