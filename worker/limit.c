/* SPDX-License-Identifier: Apache-2.0
 *
 * limit.c - rate limits of requests: see limit.h. The arithmetic and the table are shared/rate.c.
 */
#include "worker/limit.h"

#include <stdio.h>

#include "worker/worker.h"

#define SWEEP_SETS 128 /* of 32,768 at each beat of the heart: all in two minutes */

static bool
is_exempt(const struct conf_rate_limit *limit, const struct addr_ip *ip)
{
    for (unsigned i = 0; i < limit->nexempt; i++) {
        if (cidr_contains(&limit->exempt[i], ip)) {
            return true;
        }
    }
    return false;
}

/* The address, of IPv6 as much as tells clients apart: one of them has a whole network. */
static struct addr_ip
client_of(const struct stream *s, const struct conf_rate_limit *limit)
{
    struct addr_ip ip = s->client_ip;
    if (ip.family == AF_INET) {
        return ip;
    }
    for (unsigned bit = limit->ipv6_prefix; bit < 128; bit++) {
        ip.bytes[bit / 8] &= (uint8_t) ~(0x80u >> bit % 8);
    }
    return ip;
}

/* false: the request has no such key, and is not limited. */
static bool
key_of(const struct stream *s, const struct conf_rate_limit *limit, uint64_t *key)
{
    const uint64_t *secret = worker.shm->m->rate_secret;
    if (limit->header.len == 0) {
        struct addr_ip ip = client_of(s, limit);
        *key = rate_key(secret, limit->slot, ip.bytes, sizeof(ip.bytes));
        return true;
    }
    const struct http_msg *req = &s->http->req;
    for (unsigned i = 0; i < req->nfields; i++) {
        if (!req->fields[i].drop && slice_eq_nocase(req->fields[i].name, limit->header)) {
            struct slice value = req->fields[i].value;
            *key = rate_key(secret, limit->slot, value.ptr, value.len);
            return true;
        }
    }
    return false;
}

static void
keep_verdict(struct stream *s, const struct conf_rate_limit *limit, const struct rate_verdict *v)
{
    struct limit_said *said = &s->http->limit;
    if (said->limit != 0 && said->remaining <= v->remaining && v->is_admitted) {
        return;
    }
    said->limit = limit->rate.burst;
    said->remaining = v->remaining;
    said->reset_s = (uint32_t)((v->reset_us + 999999) / 1000000);
    said->retry_s = (uint32_t)((v->retry_us + 999999) / 1000000);
}

bool
limit_take(struct stream *s, const struct conf_rate_limit *limit)
{
    uint64_t key;
    if (is_exempt(limit, &s->client_ip) || !key_of(s, limit, &key)) {
        return true;
    }
    struct rate_verdict v = rate_take(&worker.shm->s->rates, key, limit->rate, worker_now_us());
    if (!v.is_admitted) {
        shm_count(&worker.row->limits[limit->slot].limited, 1);
    }
    if (limit->dry_run) {
        return true;
    }
    keep_verdict(s, limit, &v);
    return v.is_admitted;
}

static void
put_field(struct stream *s, struct http_msg *m, struct slice name, uint32_t number)
{
    char *text = stream_alloc(s, 11);
    if (text) {
        int len = snprintf(text, 11, "%u", number);
        m->fields[m->nfields++] =
            (struct http_field){.name = name, .value = slice_of(text, (size_t)len)};
    }
}

void
limit_put_fields(struct stream *s, struct http_msg *m)
{
    const struct limit_said *said = &s->http->limit;
    if (said->limit == 0) {
        return;
    }
    put_field(s, m, SLICE("RateLimit-Limit"), said->limit);
    put_field(s, m, SLICE("RateLimit-Remaining"), said->remaining);
    put_field(s, m, SLICE("RateLimit-Reset"), said->reset_s);
    if (said->retry_s > 0) {
        put_field(s, m, SLICE("Retry-After"), said->retry_s);
    }
}

/* One worker does it for all. */
void
limit_sweep(void)
{
    static unsigned at;
    if (worker.args->index == 0 && worker.conf && worker.conf->nrate_limits > 0) {
        rate_sweep(&worker.shm->s->rates, at, SWEEP_SETS, worker_now_us());
        at = (at + SWEEP_SETS) % RATE_SETS;
    }
}
