/* SPDX-License-Identifier: Apache-2.0
 *
 * lookup.c - what a caller asks: the addresses of one host, or SRV records and the hosts they point
 * to; sorted and cut to one answer.
 *
 * An ask counts what it waits for, itself included while it asks: a host may be done before its
 * start returns.
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
#include "master/lookup_host.h"

#define TARGET_MOST 32 /* of SRV records */

struct target {
    struct ask *ask;
    struct lookup_host *host; /* its answer, once there is one */
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

/* ---- the answer ---- */

/* What is gathered before it is sorted and cut. */
struct gathering {
    struct conf_found *list;
    unsigned n, room;
};

static void
gather(struct gathering *all, const struct lookup_host *host, const struct target *target)
{
    for (int i = 0; i < 2; i++) {
        const struct lookup_family *f = &host->families[i];
        for (unsigned k = 0; f->result == LOOKUP_OK && k < f->n && all->n < all->room; k++) {
            struct conf_found *found = &all->list[all->n++];
            memset(found, 0, sizeof(*found));
            addr_from_ip(&f->ips[k], target ? target->port : 0, &found->addr);
            found->priority = target ? target->priority : 0;
            found->weight = target ? target->weight : 0;
        }
    }
}

static void
ask_free(struct ask *ask)
{
    for (unsigned i = 0; i < ask->ntargets; i++) {
        lookup_host_free(ask->targets[i].host);
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
on_host(struct lookup_host *host, void *arg)
{
    struct ask *ask = arg;
    struct conf_found list[2 * CONF_FOUND_MAX + 2 * LOOKUP_REPLY_MOST];
    struct gathering all = {list, 0, sizeof(list) / sizeof(list[0])};
    struct lookup_answer answer = {.result = LOOKUP_OK};
    bool is_ok = lookup_host_has(host, LOOKUP_OK),
         has_failed = lookup_host_has(host, LOOKUP_FAILED);
    if (!is_ok) {
        enum lookup_result result = has_failed ? LOOKUP_FAILED : LOOKUP_EMPTY;
        const char *why = lookup_host_why(host, result);
        lookup_host_free(host);
        ask_end(ask, result, why);
        return;
    }
    answer.is_partial = has_failed;
    answer.why = has_failed ? lookup_host_why(host, LOOKUP_FAILED) : NULL;
    answer.ttl_s = lookup_host_ttl(host);
    gather(&all, host, NULL);
    lookup_host_free(host);
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
        const struct lookup_host *host = ask->targets[i].host;
        if (!host || (!lookup_host_has(host, LOOKUP_OK) && lookup_host_has(host, LOOKUP_FAILED))) {
            free(all.list);
            ask_end(ask, LOOKUP_FAILED,
                    host ? lookup_host_why(host, LOOKUP_FAILED) : "out of memory");
            return;
        }
        uint32_t ttl_s = lookup_host_ttl(host);
        answer.ttl_s = ttl_s < answer.ttl_s ? ttl_s : answer.ttl_s;
        if (lookup_host_has(host, LOOKUP_OK) && lookup_host_has(host, LOOKUP_FAILED)) {
            answer.is_partial = true;
            answer.why = lookup_host_why(host, LOOKUP_FAILED);
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
on_target(struct lookup_host *host, void *arg)
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
        if (lookup_host_start(ask->lookup, target->name, true, on_target, target) < 0) {
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
    if (status == ARES_SUCCESS && !found_is_response(bytes, (size_t)len)) {
        status = ARES_EBADRESP;
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
    enum lookup_result result = lookup_result_of(status, &why);
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
    } else if (lookup_host_start(lookup, host, false, on_host, ask) < 0) {
        free(ask);
        return -1;
    }
    return 0;
}
