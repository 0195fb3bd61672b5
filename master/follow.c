/* SPDX-License-Identifier: Apache-2.0
 *
 * follow.c - when names are looked up again, and what is told of it.
 */
#include "master/follow.h"

#include <stdlib.h>
#include <string.h>

#include "master/found.h"
#include "shared/clock.h"
#include "shared/log.h"

#define LOG_EVERY_MS (10 * 60 * 1000ull) /* of a name that stays as bad as it is */
#define FIRST_MS     200                 /* a monitor's first lookups are spread over so long */
#define LEAST_MS     10                  /* between two looks at the clock */

struct followed {
    struct follow *follow;
    struct list link;
    char *host;
    bool is_srv, is_asking;
    bool is_gone; /* no conf has it: freed when its lookup ends */
    const struct conf_name *in_force;
    uint64_t due_ms;
    uint64_t good_until_ms;  /* of the last answer */
    struct conf_found *last; /* the last good answer; NULL: none yet */
    unsigned nlast;
    unsigned failures; /* in a row */
    const char *why;   /* of the last of them; NULL: it was told to be well */
    uint64_t logged_ms;
};

struct follow {
    struct event_base *base;
    struct shm *shm;
    follow_tell *tell;
    void *arg;
    struct lookup *lookup;
    struct addr *servers; /* that lookup was made with */
    unsigned nservers;
    struct list names; /* struct followed */
    unsigned nasking;
    struct event *timer;
};

/* ---- time ---- */

uint64_t
follow_good_for_ms(uint32_t ttl_s, uint32_t random)
{
    uint64_t s = ttl_s < FOLLOW_TTL_MIN_S   ? FOLLOW_TTL_MIN_S
                 : ttl_s > FOLLOW_TTL_MAX_S ? FOLLOW_TTL_MAX_S
                                            : ttl_s;
    uint64_t jitter_ms = s * 1000 / 10 < FOLLOW_JITTER_MS ? s * 1000 / 10 : FOLLOW_JITTER_MS;
    return s * 1000 + random % (jitter_ms + 1);
}

uint64_t
follow_retry_ms(unsigned failures, uint32_t random)
{
    unsigned doublings = failures > 6 ? 5 : failures - 1;
    uint64_t ms = (uint64_t)FOLLOW_RETRY_MIN_MS << doublings;
    ms = ms < FOLLOW_RETRY_MAX_MS ? ms : FOLLOW_RETRY_MAX_MS;
    return ms + random % (ms / 10 + 1);
}

/* Seeded by lookup_new(). */
static uint32_t
random_now(void)
{
    return (uint32_t)random();
}

/* ---- one name ---- */

static void
followed_free(struct followed *f)
{
    list_del(&f->link);
    free(f->host);
    free(f->last);
    free(f);
}

static bool
is_in_force(const struct followed *f)
{
    return f->last && found_same(f->last, f->nlast, f->in_force->found, f->in_force->nfound);
}

/* One line when it begins, when its cause changes, and now and then. */
static void
log_bad(struct followed *f, const char *why, const char *then)
{
    uint64_t now = clock_mono_ms();
    if (f->why && strcmp(f->why, why) == 0 && now - f->logged_ms < LOG_EVERY_MS) {
        return;
    }
    f->why = why;
    f->logged_ms = now;
    log_warn("name %s: %s; %s", f->host, why, then);
}

static void
log_good(struct followed *f)
{
    if (f->why) {
        log_info("name %s: resolves again", f->host);
    }
    f->why = NULL;
}

static bool
has_family(const struct lookup_answer *answer, sa_family_t family)
{
    for (unsigned i = 0; i < answer->n; i++) {
        if (answer->found[i].addr.sa.sa_family == family) {
            return true;
        }
    }
    return false;
}

/* The family that nothing is known of now keeps the addresses in force. */
static void
followed_complete(const struct followed *f, struct lookup_answer *answer)
{
    bool has_ipv4 = has_family(answer, AF_INET), has_ipv6 = has_family(answer, AF_INET6);
    for (unsigned i = 0; i < f->in_force->nfound && answer->n < CONF_FOUND_MAX; i++) {
        const struct conf_found *found = &f->in_force->found[i];
        if (found->addr.sa.sa_family == AF_INET ? !has_ipv4 : !has_ipv6) {
            answer->found[answer->n++] = *found;
        }
    }
    answer->n = conf_found_sort(answer->found, answer->n);
}

static void
followed_tell(const struct followed *f)
{
    static char text[FOUND_ANSWER_MAX + 1];
    size_t len = found_answer_format(f->host, f->is_srv, f->last, f->nlast, text);
    text[len] = '\0';
    f->follow->tell(text, len, f->follow->arg);
}

static void
followed_keep(struct followed *f, const struct lookup_answer *answer)
{
    struct conf_found *last = realloc(f->last, answer->n * sizeof(*last));
    if (last) {
        memcpy(last, answer->found, answer->n * sizeof(*last));
        f->last = last;
        f->nlast = answer->n;
    }
}

static void
followed_take(struct followed *f, const struct lookup_answer *given)
{
    uint64_t now = clock_mono_ms();
    struct lookup_answer answer = *given;
    if (answer.is_partial) {
        followed_complete(f, &answer);
        log_bad(f, answer.why, "of IPv4 or IPv6; of that its last addresses stay");
    } else if (answer.total > answer.n) {
        log_bad(f, "it has too many addresses", "64 are used");
    } else {
        log_good(f);
    }
    f->failures = answer.is_partial ? f->failures + 1 : 0;
    followed_keep(f, &answer);
    f->good_until_ms = now + follow_good_for_ms(answer.ttl_s, random_now());
    if (answer.is_partial) {
        uint64_t retry_ms = now + follow_retry_ms(f->failures, random_now());
        f->good_until_ms = retry_ms < f->good_until_ms ? retry_ms : f->good_until_ms;
    }
    f->due_ms = f->good_until_ms;
    if (!is_in_force(f)) {
        followed_tell(f);
        f->due_ms = f->due_ms < now + FOLLOW_TELL_MS ? f->due_ms : now + FOLLOW_TELL_MS;
    }
}

static void
followed_fail(struct followed *f, const char *why)
{
    f->failures++;
    f->due_ms = clock_mono_ms() + follow_retry_ms(f->failures, random_now());
    log_bad(f, why, f->in_force->nfound > 0 ? "its last addresses stay" : "it has had none yet");
}

/* ---- all of them ---- */

static void
follow_count_failing(const struct follow *follow)
{
    uint64_t failing = 0;
    list_for_each (it, &follow->names) {
        const struct followed *f = container_of(it, struct followed, link);
        failing += !f->is_gone && f->failures > 0;
    }
    shm_set(&follow->shm->h->names_failing, failing);
}

static void
follow_arm(struct follow *follow)
{
    uint64_t now = clock_mono_ms(), due = UINT64_MAX;
    list_for_each (it, &follow->names) {
        const struct followed *f = container_of(it, struct followed, link);
        if (!f->is_asking && f->due_ms < due) {
            due = f->due_ms;
        }
    }
    if (due == UINT64_MAX || follow->nasking >= FOLLOW_WINDOW) {
        return;
    }
    uint64_t wait_ms = due > now + LEAST_MS ? due - now : LEAST_MS;
    struct timeval wait = {.tv_sec = (time_t)(wait_ms / 1000),
                           .tv_usec = (suseconds_t)(wait_ms % 1000) * 1000};
    event_add(follow->timer, &wait);
}

static void
on_answer(const struct lookup_answer *answer, void *arg)
{
    struct followed *f = arg;
    struct follow *follow = f->follow;
    follow->nasking--;
    f->is_asking = false;
    shm_count(&follow->shm->h->dns_lookups[answer->result], 1);
    if (f->is_gone) {
        followed_free(f);
    } else if (answer->result == LOOKUP_OK) {
        followed_take(f, answer);
    } else {
        followed_fail(f, answer->why);
    }
    follow_count_failing(follow);
    follow_arm(follow);
}

static void
followed_ask(struct followed *f)
{
    struct follow *follow = f->follow;
    follow->nasking++;
    f->is_asking = true;
    if (!follow->lookup || lookup_ask(follow->lookup, f->host, f->is_srv, on_answer, f) < 0) {
        follow->nasking--;
        f->is_asking = false;
        followed_fail(f, "out of memory or descriptors");
    }
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct follow *follow = arg;
    uint64_t now = clock_mono_ms();
    if (!follow->lookup) {
        follow->lookup = lookup_new(follow->base, follow->servers, follow->nservers);
    } else {
        lookup_refresh(follow->lookup);
    }
    list_for_each_safe (it, &follow->names) {
        struct followed *f = container_of(it, struct followed, link);
        if (!f->is_asking && f->due_ms <= now && follow->nasking < FOLLOW_WINDOW) {
            followed_ask(f);
        }
    }
    follow_arm(follow);
}

/* ---- configurations ---- */

static struct followed *
follow_find(struct follow *follow, const struct conf_name *name)
{
    list_for_each (it, &follow->names) {
        struct followed *f = container_of(it, struct followed, link);
        if (f->is_srv == name->is_srv && strcmp(f->host, name->host) == 0) {
            return f;
        }
    }
    return NULL;
}

static struct followed *
follow_add(struct follow *follow, const struct conf_name *name)
{
    struct followed *f = calloc(1, sizeof(*f));
    char *host = strdup(name->host);
    if (!f || !host) {
        log_error("name %s: out of memory: it is not looked up again", name->host);
        free(f);
        free(host);
        return NULL;
    }
    f->follow = follow;
    f->host = host;
    f->is_srv = name->is_srv;
    f->due_ms = clock_mono_ms() + random_now() % FIRST_MS;
    list_add_tail(&follow->names, &f->link);
    return f;
}

/* Another configuration's addresses of a name: as they were told, or newer, or older. */
static void
followed_use(struct followed *f, const struct conf_name *name)
{
    f->in_force = name;
    f->is_gone = false;
    if (f->last) {
        f->due_ms = is_in_force(f) ? f->good_until_ms : clock_mono_ms();
    }
}

/* Other name servers: what was asked of the former ones is asked again. */
static void
follow_use_servers(struct follow *follow, const struct conf *conf)
{
    bool is_same = follow->lookup && follow->nservers == conf->nresolvers;
    for (unsigned i = 0; is_same && i < conf->nresolvers; i++) {
        is_same = addr_eq(&follow->servers[i], &conf->resolvers[i]);
    }
    if (is_same) {
        return;
    }
    lookup_free(follow->lookup);
    follow->lookup = NULL;
    follow->nasking = 0;
    list_for_each_safe (it, &follow->names) {
        struct followed *f = container_of(it, struct followed, link);
        f->is_asking = false;
        f->due_ms = clock_mono_ms();
    }
    free(follow->servers);
    follow->servers = calloc(conf->nresolvers + 1, sizeof(*follow->servers));
    follow->nservers = follow->servers ? conf->nresolvers : 0;
    for (unsigned i = 0; i < follow->nservers; i++) {
        follow->servers[i] = conf->resolvers[i];
    }
}

void
follow_apply(struct follow *follow, const struct conf *conf)
{
    list_for_each (it, &follow->names) {
        container_of(it, struct followed, link)->is_gone = true;
    }
    follow_use_servers(follow, conf);
    for (unsigned i = 0; i < conf->nnames; i++) {
        struct followed *f = follow_find(follow, &conf->names[i]);
        f = f ? f : follow_add(follow, &conf->names[i]);
        if (f) {
            followed_use(f, &conf->names[i]);
        }
    }
    list_for_each_safe (it, &follow->names) {
        struct followed *f = container_of(it, struct followed, link);
        if (f->is_gone && !f->is_asking) {
            followed_free(f);
        }
    }
    follow_count_failing(follow);
    follow_arm(follow);
}

struct follow *
follow_new(struct event_base *base, struct shm *shm, follow_tell *tell, void *arg)
{
    struct follow *follow = calloc(1, sizeof(*follow));
    if (!follow) {
        return NULL;
    }
    *follow = (struct follow){.base = base, .shm = shm, .tell = tell, .arg = arg};
    list_init(&follow->names);
    follow->timer = event_new(base, -1, 0, on_timer, follow);
    if (!follow->timer) {
        free(follow);
        return NULL;
    }
    return follow;
}

void
follow_free(struct follow *follow)
{
    if (!follow) {
        return;
    }
    lookup_free(follow->lookup);
    list_for_each_safe (it, &follow->names) {
        followed_free(container_of(it, struct followed, link));
    }
    event_free(follow->timer);
    free(follow->servers);
    free(follow);
}
