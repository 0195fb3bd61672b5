/* SPDX-License-Identifier: Apache-2.0
 *
 * retry.c - sending a request again: see retry.h.
 *
 * Streams that wait for their next attempt stand in one list, the soonest first, behind one timer.
 */
#include "worker/retry.h"

#include "shared/budget.h"
#include "worker/forward.h"
#include "worker/upstream.h"
#include "worker/worker.h"

#define KEPT_BODY_MAX 65536
#define DEPOSIT_BATCH 16 /* first attempts that a worker tells the others of in one go */
#define IN_MS(us)     ((uint32_t)((us) / 1000))

static struct list waiting = LIST_INIT(waiting);
static struct event *timer;
static uint8_t deposits[SHM_UPSTREAMS]; /* not told yet */

/* ---- the budget ---- */

static shm_u64 *
budget_of(const struct stream *s)
{
    return &worker.shm->s->upstreams[s->upstream->slot].budget;
}

static void
give_deposits(const struct stream *s)
{
    const struct conf_budget *rules = &s->policy->retry->budget;
    shm_u64 *word = budget_of(s);
    uint64_t seen = shm_get(word);
    uint32_t n = deposits[s->upstream->slot];
    deposits[s->upstream->slot] = 0;
    while (n > 0 && !shm_swap(word, &seen,
                              budget_deposit(seen, IN_MS(worker_now_us()), rules->min_per_second, n,
                                             rules->percent))) {
    }
}

void
retry_deposit(struct stream *s)
{
    if (s->policy->retry && ++deposits[s->upstream->slot] == DEPOSIT_BATCH) {
        give_deposits(s);
    }
}

static bool
take_token(const struct stream *s)
{
    uint32_t min_per_second = s->policy->retry->budget.min_per_second;
    shm_u64 *word = budget_of(s);
    uint64_t next;
    give_deposits(s);
    uint64_t seen = shm_get(word);
    while (budget_take(seen, IN_MS(worker_now_us()), min_per_second, &next)) {
        if (shm_swap(word, &seen, next)) {
            return true;
        }
    }
    return false;
}

bool
retry_pay(const struct stream *s)
{
    if (take_token(s)) {
        return true;
    }
    shm_count(&worker.row->retries_refused, 1);
    return false;
}

/* ---- the body ---- */

static bool
is_method_listed(const struct stream *s)
{
    for (char **method = s->policy->retry->methods; method && *method; method++) {
        if (slice_eq(s->http->req.method_text, slice_from_str(*method))) {
            return true;
        }
    }
    return false;
}

/* What may be sent twice, and what a backend may say it did nothing with. */
static bool
is_worth_keeping(const struct stream *s)
{
    return s->policy && s->policy->retry && !s->has_head &&
           (is_method_listed(s) || s->upstream->protocol == CONF_H2);
}

bool
retry_wants_body(const struct stream *s)
{
    return s->http->req.length <= KEPT_BODY_MAX && is_worth_keeping(s);
}

/* Called before the bytes are counted as sent. */
void
retry_keep_body(struct stream *s, struct slice bytes)
{
    size_t kept = buf_len(s->http->sent_body);
    if (bytes.len == 0 || kept != s->server.bytes || !is_worth_keeping(s)) {
        return; /* some have gone already that are not here */
    }
    if (kept + bytes.len > KEPT_BODY_MAX ||
        buf_append(&s->http->sent_body, bytes.ptr, bytes.len) != 0) {
        buf_free(&s->http->sent_body);
    }
}

bool
retry_has_body(const struct stream *s)
{
    return s->server.bytes == buf_len(s->http->sent_body) && !s->http->has_trailers;
}

/* ---- may it be? ---- */

static unsigned
cause_of(enum reason why)
{
    switch (why) {
    case REASON_connect_refused:
    case REASON_connect_failed:
    case REASON_connect_timeout:
    case REASON_backend_tls: return CONF_RETRY_CONNECT;
    case REASON_backend_reset: return CONF_RETRY_RESET;
    case REASON_response_timeout: return CONF_RETRY_TIMEOUT;
    case REASON_bad_response: return CONF_RETRY_502;
    default: return 0;
    }
}

static bool
may_retry(const struct stream *s, unsigned cause)
{
    const struct conf_retry *rules = s->policy ? s->policy->retry : NULL;
    if (!rules || !(rules->on & cause) || s->tries >= rules->attempts || s->has_head) {
        return false;
    }
    if (cause == CONF_RETRY_CONNECT) {
        return true; /* no byte was sent */
    }
    return s->http && is_method_listed(s) && retry_has_body(s);
}

/* ---- waiting ---- */

static void
set_timer(void);

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    while (!list_is_empty(&waiting)) {
        struct stream_http *http = list_first(&waiting, struct stream_http, waiting);
        if (http->retry_at_us > worker_now_us()) {
            break;
        }
        struct stream *s = stream_of_http(http);
        retry_forget(s);
        upstream_acquire(s, s->pool);
    }
    conn_flush_any();
    set_timer();
}

static void
set_timer(void)
{
    if (list_is_empty(&waiting)) {
        return;
    }
    uint64_t at = list_first(&waiting, struct stream_http, waiting)->retry_at_us;
    uint64_t wait = at > worker_now_us() ? at - worker_now_us() : 0;
    struct timeval tv = {.tv_sec = (time_t)(wait / 1000000),
                         .tv_usec = (suseconds_t)(wait % 1000000)};
    event_add(timer, &tv);
}

static void
wait_until(struct stream_http *http, uint64_t at_us)
{
    struct list *behind = waiting.prev;
    http->retry_at_us = at_us;
    while (behind != &waiting &&
           container_of(behind, struct stream_http, waiting)->retry_at_us > at_us) {
        behind = behind->prev;
    }
    list_add_head(behind, &http->waiting);
    set_timer();
}

void
retry_forget(struct stream *s)
{
    if (s->http && s->http->retry_at_us != 0) {
        list_del(&s->http->waiting);
        s->http->retry_at_us = 0;
    }
}

/* Full jitter: anything up to a limit that doubles, so that those who failed together do not come
 * back together. */
static uint64_t
backoff_us(const struct stream *s)
{
    const struct conf_backoff *rules = &s->policy->retry->backoff;
    unsigned doublings = s->tries > 16 ? 16 : s->tries - 1u;
    uint64_t limit = (uint64_t)rules->base << doublings;
    limit = limit < rules->max ? limit : rules->max;
    return limit ? forward_random() % (limit * 1000) : 0;
}

/* ---- beginning ---- */

static void
mark_tried(struct stream *s)
{
    if (s->tries < STREAM_MAX_TRIES) {
        s->tried[s->tries] = (uint16_t)s->backend->index;
    }
    s->tries++;
}

/* The server's end goes, and with it what the backend may still send. */
static void
begin_again(struct stream *s)
{
    shm_count(&s->taken->counters->retries, 1);
    mark_tried(s);
    if (s->server.ops) {
        s->server.ops->abort(s, &s->server, s->reason);
    }
    stream_leave_backend(s);
    if (!timer) {
        timer = evtimer_new(worker.base, on_timer, NULL);
    }
    uint64_t wait = s->http && timer ? backoff_us(s) : 0;
    if (wait == 0) {
        upstream_acquire(s, s->pool);
    } else {
        wait_until(s->http, worker_now_us() + wait);
    }
}

static bool
begin(struct stream *s, unsigned cause, enum reason why)
{
    if (!may_retry(s, cause)) {
        return false;
    }
    if (cause == CONF_RETRY_CONNECT) {
        take_token(s); /* if there is one */
    } else if (!retry_pay(s)) {
        return false;
    }
    s->reason = why; /* what is answered when no other backend is left */
    begin_again(s);
    return true;
}

bool
retry_begin(struct stream *s, enum reason why)
{
    return begin(s, cause_of(why), why);
}

bool
retry_begin_status(struct stream *s, unsigned status)
{
    switch (status) {
    case 502: return begin(s, CONF_RETRY_502, REASON_none);
    case 503: return begin(s, CONF_RETRY_503, REASON_none);
    case 504: return begin(s, CONF_RETRY_504, REASON_none);
    default: return false;
    }
}
