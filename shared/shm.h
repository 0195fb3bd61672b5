/* SPDX-License-Identifier: Apache-2.0
 *
 * shm.h - the segment: one truth for all processes.
 *
 * One sparse memfd, mapped shared, made by the master and inherited. Fixed arrays, no allocator, no
 * lock; C11 atomics of at most 8 bytes. Regions are page-aligned and laid out by who writes them;
 * each process maps only its own regions writable:
 *
 *   M     master     identities and slots, reload verdict, workers' pids, operator's states
 *   keys  master     ticket keys; the monitor does not map them
 *   H     monitor    health of each backend, epoch
 *   S     workers    gauges and cursors that all share (the master corrects them after a death)
 *   W[i]  worker i   heartbeat, counters, histograms, and its ledger of the gauges in S
 *
 * Pages that nobody has touched cost nothing, but reading one makes it: walk arrays only as far as
 * the slots in use (shm_slots_end).
 *
 * The master never uses a value that a child wrote as an index, a size or a pointer.
 * Atomic access happens in shm.c and in the inline functions below, nowhere else.
 */
#ifndef SHARED_SHM_H
#define SHARED_SHM_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/breaker.h"
#include "shared/clients.h"
#include "shared/counters.h"
#include "shared/grpc.h"
#include "shared/rate.h"
#include "shared/reason.h"

#define SHM_ROWS        128 /* workers alive at one time, retiring ones included */
#define SHM_WORKERS     64  /* greatest number of workers of one master */
#define SHM_LISTENERS   256
#define SHM_UPSTREAMS   8192 /* pools have slots here too */
#define SHM_BACKENDS    16384
#define SHM_LIMITS      1024 /* names of rate limits */
#define SHM_ID_MAX      192  /* bytes of an identity, NUL included */
#define SHM_TICKET_KEYS 4
#define SHM_VERDICT_MAX 4096
#define SHM_VERDICTS    16   /* of the last reloads */
#define SHM_WHY_MAX     1024 /* bytes of an older verdict, NUL included */
#define SHM_CAUSE_MAX   32
#define SHM_CODES       502                   /* status 100..599 and, last, other */
#define SHM_GRPC_CODES  (GRPC_CODE_COUNT + 1) /* and, last, other */

#define SHM_CACHE_LINE 64
typedef _Atomic uint64_t shm_u64;

enum shm_kind { SHM_LISTENER, SHM_UPSTREAM, SHM_BACKEND, SHM_LIMIT };
#define SHM_KINDS 4

/* Counters and histograms that one process alone writes: no read-modify-write needed. Relaxed,
 * because each is read by itself and orders nothing else. */
static inline void
shm_count(shm_u64 *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline uint64_t
shm_get(const shm_u64 *v)
{
    return atomic_load_explicit((shm_u64 *)v, memory_order_relaxed);
}

static inline void
shm_set(shm_u64 *v, uint64_t n)
{
    atomic_store_explicit(v, n, memory_order_relaxed);
}

/* Compare and swap of a word that decides by itself; *seen is what is there when it fails. */
static inline bool
shm_swap(shm_u64 *word, uint64_t *seen, uint64_t next)
{
    return atomic_compare_exchange_strong_explicit(word, seen, next, memory_order_relaxed,
                                                   memory_order_relaxed);
}

struct shm_histogram {
    shm_u64 bucket[HISTOGRAM_BUCKETS]; /* not cumulative */
    shm_u64 sum_us;
};
void
shm_observe(struct shm_histogram *h, uint64_t us);

/* ---- M ---- */

/* One slot: who has it. id is written before state with release. */
enum shm_slot_state { SHM_SLOT_FREE, SHM_SLOT_USED, SHM_SLOT_REMOVED };
struct shm_slot {
    shm_u64 state;           /* enum shm_slot_state */
    shm_u64 removed_gen;     /* generation that removed it */
    char id[SHM_ID_MAX];     /* listener, limit: name; upstream: "name" or pool id; backend:
                              * "upstream/id"
                              */
    char detail[SHM_ID_MAX]; /* backend: address, tls, protocol, send_proxy: when it changes, health
                                is lost */
};

struct shm_ticket_key {
    uint8_t name[16];
    uint8_t aes[32];
    uint8_t hmac[32];
    uint64_t born_s; /* wall clock; 0: empty */
};

enum shm_child_state { SHM_CHILD_NONE, SHM_CHILD_STARTING, SHM_CHILD_SERVING, SHM_CHILD_RETIRING };

struct shm_child {
    shm_u64 pid;   /* 0: none */
    shm_u64 state; /* enum shm_child_state */
    shm_u64 index; /* worker index */
    shm_u64 owner; /* pid of the master that has this row; 0: free */
};

/* What an operator has said of a backend; in force until revoked. */
struct shm_operator {
    shm_u64 state;   /* 0: nothing; else 1 + enum conf_state */
    shm_u64 weight;  /* 0: nothing */
    shm_u64 breaker; /* enum breaker_said */
    shm_u64 said_us; /* wall clock of the last word */
};

/* How a configuration came into force, or why not: see shm_verdict_add(). */
struct shm_verdict {
    shm_u64 number;  /* from 1 on; 0: none, or being written */
    shm_u64 when_us; /* wall clock of its end */
    shm_u64 took_ms;
    shm_u64 gen; /* in force after it */
    shm_u64 is_ok;
    char cause[SHM_CAUSE_MAX]; /* "SIGHUP" */
    char why[SHM_WHY_MAX];     /* "" when it succeeded */
};

/* What the processes of M use together. */
struct shm_process {
    shm_u64 cpu_ms; /* also of those that have ended; never falls */
    shm_u64 resident_bytes;
    shm_u64 open_fds;
    shm_u64 max_fds; /* soft limits of the processes that open_fds counts */
};

struct shm_master {
    uint64_t layout_hash; /* of sizes and versions: shm_layout_hash() */
    shm_u64 started_us;   /* wall clock */
    shm_u64 gen;          /* committed generation */
    shm_u64 conf_hash;
    shm_u64 is_draining;
    shm_u64 reload_ok;        /* akash_config_last_reload_successful */
    shm_u64 reload_success_s; /* wall clock of the last that succeeded */
    shm_u64 reloads, reloads_failed;
    shm_u64 worker_restarts;
    shm_u64 heartbeat_ms;
    shm_u64 pid;
    shm_u64 slots_end[SHM_KINDS]; /* slots from here on have never been used */
    struct shm_child workers[SHM_ROWS];
    struct shm_child monitor;
    shm_u64 operator_epoch; /* goes up with every change of what follows */
    shm_u64 log_level;      /* the operator's; 0: none, else 1 + enum log_level */
    struct shm_operator operators[SHM_BACKENDS];
    char verdict[SHM_VERDICT_MAX]; /* text of the last reload's failure, NUL-terminated; for people
                                    */
    shm_u64 verdicts_told;
    struct shm_verdict verdicts[SHM_VERDICTS]; /* number n at (n - 1) % SHM_VERDICTS */
    struct shm_slot listeners[SHM_LISTENERS];
    struct shm_slot upstreams[SHM_UPSTREAMS];
    struct shm_slot backends[SHM_BACKENDS];
    struct shm_slot limits[SHM_LIMITS];
    uint64_t rate_secret[2]; /* of rate_key(); written once */
    struct shm_process process;
    shm_u64 log_dropped; /* lines that masters dropped */
};

/* Ticket keys have a page of their own: the monitor does not map it. keys[index] encrypts. */
struct shm_keys {
    shm_u64 version; /* odd while the master writes */
    shm_u64 index;
    struct shm_ticket_key keys[SHM_TICKET_KEYS];
};

/* ---- H ---- */

enum shm_health_state { SHM_HEALTH_UNKNOWN, SHM_HEALTH_UP, SHM_HEALTH_DOWN };
struct shm_health {
    shm_u64 state;    /* enum shm_health_state; stored with release */
    shm_u64 identity; /* hash of the slot's id and detail that the state is about; 0: none */
    shm_u64 since_us; /* wall clock of the last change */
    shm_u64 risen_us; /* wall clock of the last change from down to up, or maint to ready */
    shm_u64 checked_us;
    shm_u64 checks_failed; /* counters of probes */
    shm_u64 checks_passed;
    char last[128]; /* result of the last probe in words: "connect timeout" */
};
struct shm_monitor {
    shm_u64 heartbeat_ms;   /* monotonic */
    shm_u64 epoch;          /* goes up with every change of any state */
    shm_u64 dns_lookups[3]; /* of names of backends, by their result: master/lookup.h */
    shm_u64 names_failing;  /* names whose last lookup gave nothing, or not all */
    shm_u64 log_dropped;    /* lines that monitors dropped */
    struct shm_health backends[SHM_BACKENDS];
};

/* ---- S ---- */

struct shm_shared_backend {
    _Alignas(SHM_CACHE_LINE) shm_u64 active; /* exchanges in flight */
    shm_u64 open;                            /* connections, busy and idle */
    shm_u64 hurry;                           /* passive failures seen: see shm_backend_hurry */
    shm_u64 ewma;                            /* latency: ewma.h */
    struct breaker breaker;
};
struct shm_shared_upstream {
    _Alignas(SHM_CACHE_LINE) shm_u64 cursor;
    shm_u64 budget;  /* of retries: budget.h */
    shm_u64 waiting; /* streams that wait for a place */
    shm_u64 turn;    /* row from which on the next place is given */
    shm_u64 open;    /* connections, busy and idle, of all its backends */
};
struct shm_shared_listener {
    _Alignas(SHM_CACHE_LINE) shm_u64 connections;
    shm_u64 requests; /* under way, where they are limited */
};
struct shm_shared {
    _Alignas(SHM_CACHE_LINE) shm_u64 connections; /* of clients */
    struct shm_shared_listener listeners[SHM_LISTENERS];
    struct shm_shared_upstream upstreams[SHM_UPSTREAMS];
    struct shm_shared_backend backends[SHM_BACKENDS];
    struct rate_table rates;
    struct clients_table clients;
};

/* ---- W ---- */

struct shm_row_listener {
#define SHM_COUNTER(name, ...) shm_u64 name;
    LISTENER_COUNTERS(SHM_COUNTER)
    shm_u64 codes[SHM_CODES]; /* akash_requests_total by status */
    shm_u64 grpc_codes[SHM_GRPC_CODES];
    struct shm_histogram duration;
};
struct shm_row_limit {
    LIMIT_COUNTERS(SHM_COUNTER)
};
struct shm_row_backend {
    BACKEND_COUNTERS(SHM_COUNTER)
    struct shm_histogram response;
    struct shm_histogram connect;
};

/* The worker's own part of each gauge in S. An entry is {sequence:32, count:32}; the sequence is
 * odd while S and the entry disagree, so that after a death it is known which gauge was in the
 * making, and readers can tell that nothing moved meanwhile. Read entries with shm_ledger_count. */
#define SHM_LEDGER_STEP  (UINT64_C(1) << 32)
#define SHM_LEDGER_COUNT (SHM_LEDGER_STEP - 1)
struct shm_ledger {
    shm_u64 connections;
    shm_u64 listeners[SHM_LISTENERS];
    shm_u64 listeners_requests[SHM_LISTENERS];
    shm_u64 upstreams_waiting[SHM_UPSTREAMS];
    shm_u64 upstreams_open[SHM_UPSTREAMS];
    shm_u64 backends_active[SHM_BACKENDS];
    shm_u64 backends_open[SHM_BACKENDS];
    struct clients_ledger clients;
};

struct shm_row {
    shm_u64 heartbeat_ms; /* monotonic */
    shm_u64 oldest_gen;   /* oldest conf generation alive in it */
    shm_u64 confs;        /* confs alive in it */
    shm_u64 is_accepting;
    WORKER_COUNTERS(SHM_COUNTER)
    shm_u64 failures[REASON_COUNT];
    struct shm_ledger ledger;
    struct shm_row_listener listeners[SHM_LISTENERS];
    struct shm_row_backend backends[SHM_BACKENDS];
    struct shm_row_limit limits[SHM_LIMITS];
#undef SHM_COUNTER
};

/* ---- the mapping ---- */

enum shm_role { SHM_ROLE_MASTER, SHM_ROLE_MONITOR, SHM_ROLE_WORKER };

/* Regions as this process maps them: what is not its own is read-only, keys is NULL in the monitor.
 */
struct shm {
    int fd;
    struct shm_master *m;
    struct shm_keys *keys;
    struct shm_monitor *h;
    struct shm_shared *s;
    struct shm_row *rows[SHM_ROWS];
    struct shm_row *row;     /* the worker's own */
    struct shm_index *index; /* of identities, private to shm.c; NULL until a slot is claimed */
    void *base;
    size_t size;
};

/* Make the memfd and map it as the master. 0 or -1 with errno. */
int
shm_create(struct shm *shm);
/* Map an inherited segment in a role (row: the worker's). In a child: first shm_unmap the parent's.
 * The descriptor stays the caller's; a child closes it afterwards, since it could map more with it.
 * 0, or -1 with errno: EPROTO when the segment has another layout. */
int
shm_map(struct shm *shm, int fd, enum shm_role role, unsigned row);
/* Does not close the descriptor. */
void
shm_unmap(struct shm *shm);
/* Of sizes, places and names: two binaries with the same can share a segment. */
uint64_t
shm_layout_hash(void);

/* ---- slots (master) ---- */

/* The slot of an identity: the one that has it (also when removed: it goes on counting), else a
 * free one, else the oldest removed one whose removal every row's oldest conf is past. -1 when none
 * is left, or when a text has SHM_ID_MAX bytes or more. A backend whose detail changed is reported
 * through *is_changed, and so is a slot that was another's: its health is to be forgotten. detail
 * may be NULL (empty) and is_changed too. */
int
shm_slot_claim(struct shm *shm, enum shm_kind kind, const char *id, const char *detail,
               bool *is_changed);
/* The slot that has this identity, removed ones too; -1: none. */
int
shm_slot_find(struct shm *shm, enum shm_kind kind, const char *id);
/* Mark as removed at gen every used slot of that kind whose keep[slot] is false. gen is the first
 * generation that does without them. */
void
shm_slot_sweep(struct shm *shm, enum shm_kind kind, const bool *keep, uint64_t gen);

/* How many identities of that kind could be claimed now beside those that have a slot. */
unsigned
shm_slots_room(const struct shm *shm, enum shm_kind kind);

/* Another master may have claimed slots: look at the segment again before the next claim. */
void
shm_slots_forget(struct shm *shm);

/* Slots of that kind from here on have never been used. */
static inline unsigned
shm_slots_end(const struct shm *shm, enum shm_kind kind)
{
    return (unsigned)shm_get(&shm->m->slots_end[kind]);
}

/* ---- gauges ---- */

/* A gauge in S and the worker's ledger entry for it. */
struct shm_gauge {
    shm_u64 *shared;
    shm_u64 *ledger;
};

static inline uint64_t
shm_ledger_count(const shm_u64 *entry)
{
    return shm_get(entry) & SHM_LEDGER_COUNT;
}

/* The three steps of every change: the entry odd, the gauge, the entry even with its new count.
 *
 * The fence keeps the gauge behind the odd mark, the last store's release keeps the end mark behind
 * the gauge: whoever sees the gauge changed sees the entry changed too. The gauge itself is
 * relaxed: it orders nothing but its own limit. On x86 all this is one locked instruction and two
 * stores. */
static inline uint64_t
shm_ledger_begin(shm_u64 *entry)
{
    uint64_t was = atomic_load_explicit(entry, memory_order_relaxed);
    atomic_store_explicit(entry, was + SHM_LEDGER_STEP, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    return was;
}

static inline void
shm_ledger_end(shm_u64 *entry, uint64_t now)
{
    atomic_store_explicit(entry, now + 2 * SHM_LEDGER_STEP, memory_order_release);
}

/* row is the caller's own; the entry lies in it. */
static inline void
shm_gauge_add(struct shm_row *row, struct shm_gauge g)
{
    assert((char *)g.ledger >= (char *)row && (char *)g.ledger < (char *)(row + 1));
    (void)row;
    uint64_t was = shm_ledger_begin(g.ledger);
    atomic_fetch_add_explicit(g.shared, 1, memory_order_relaxed);
    shm_ledger_end(g.ledger, was + 1);
}

static inline void
shm_gauge_sub(struct shm_row *row, struct shm_gauge g)
{
    assert((char *)g.ledger >= (char *)row && (char *)g.ledger < (char *)(row + 1));
    assert(shm_ledger_count(g.ledger) > 0);
    (void)row;
    uint64_t was = shm_ledger_begin(g.ledger);
    atomic_fetch_sub_explicit(g.shared, 1, memory_order_relaxed);
    shm_ledger_end(g.ledger, was - 1);
}

/* Add one unless the shared value is at limit (0: no limit). false: it was. */
bool
shm_gauge_try_add(struct shm_row *row, struct shm_gauge g, uint64_t limit);

/* Client connections in all, of one listener; its requests under way; waiting streams and backend
 * connections of an upstream; exchanges and connections of one backend. */
static inline struct shm_gauge
shm_gauge_connections(struct shm *shm, struct shm_row *row)
{
    return (struct shm_gauge){&shm->s->connections, &row->ledger.connections};
}

static inline struct shm_gauge
shm_gauge_listener(struct shm *shm, struct shm_row *row, unsigned slot)
{
    return (struct shm_gauge){&shm->s->listeners[slot].connections, &row->ledger.listeners[slot]};
}

static inline struct shm_gauge
shm_gauge_requests(struct shm *shm, struct shm_row *row, unsigned slot)
{
    return (struct shm_gauge){&shm->s->listeners[slot].requests,
                              &row->ledger.listeners_requests[slot]};
}

static inline struct shm_gauge
shm_gauge_waiting(struct shm *shm, struct shm_row *row, unsigned slot)
{
    return (struct shm_gauge){&shm->s->upstreams[slot].waiting,
                              &row->ledger.upstreams_waiting[slot]};
}

static inline struct shm_gauge
shm_gauge_upstream(struct shm *shm, struct shm_row *row, unsigned slot)
{
    return (struct shm_gauge){&shm->s->upstreams[slot].open, &row->ledger.upstreams_open[slot]};
}

static inline struct shm_gauge
shm_gauge_active(struct shm *shm, struct shm_row *row, unsigned slot)
{
    return (struct shm_gauge){&shm->s->backends[slot].active, &row->ledger.backends_active[slot]};
}

static inline struct shm_gauge
shm_gauge_open(struct shm *shm, struct shm_row *row, unsigned slot)
{
    return (struct shm_gauge){&shm->s->backends[slot].open, &row->ledger.backends_open[slot]};
}

/* Value for people: the sum of the ledgers of the rows that have a process. offset is that of the
 * ledger entry within struct shm_ledger. */
uint64_t
shm_gauge_read(const struct shm *shm, size_t ledger_offset);

/* After the death of the worker in row i, when its pid in M is 0: take its ledger out of S. The
 * others may be running. A successor may start in the row once this returned true; false when the
 * gauge that the worker died in could not be read at rest: call again later (nothing is lost
 * meanwhile). */
bool
shm_fold_row(struct shm *shm, unsigned row);

/* One entry of a dead worker's ledger for what stands in shared (in the bits of mask): the entry is
 * at rest and without a count afterwards, *excess is for the caller to take out of shared. false:
 * it died in a change, and shared is not at rest: again later. */
bool
shm_ledger_settle(struct shm *shm, unsigned row, shm_u64 *ledger, const shm_u64 *shared,
                  uint64_t mask, uint64_t *excess);

/* ---- verdicts ---- */

/* What a reader gets: a copy that is whole, in printable ASCII and newlines. */
struct verdict {
    uint64_t number, when_us, took_ms, gen;
    bool is_ok;
    char cause[SHM_CAUSE_MAX];
    char why[SHM_WHY_MAX];
};

/* Master: one more, which takes the place of the oldest. Texts are cut to their room. */
void
shm_verdict_add(struct shm *shm, const struct verdict *v);
/* The last one (age 0) or one before it. false: there is none, or it is being replaced. */
bool
shm_verdict_read(const struct shm *shm, unsigned age, struct verdict *out);

/* ---- health ---- */
static inline enum shm_health_state
shm_health_get(const struct shm *shm, unsigned backend)
{
    return (enum shm_health_state)atomic_load_explicit(&shm->h->backends[backend].state,
                                                       memory_order_acquire);
}

/* Monitor: whoever reads the state sees what was written before it. */
static inline void
shm_health_set(struct shm *shm, unsigned backend, enum shm_health_state state)
{
    atomic_store_explicit(&shm->h->backends[backend].state, state, memory_order_release);
}

/* A latency was seen; by any worker. */
void
shm_backend_observe(struct shm *shm, unsigned backend, uint64_t now_us, uint64_t us);
/* Expected latency now, microseconds; 0: not known. */
uint64_t
shm_backend_latency(const struct shm *shm, unsigned backend, uint64_t now_us);
/* Master: the slot is another's, or the backend has moved: nothing is known of its latency and its
 * failures. */
void
shm_backend_forget(struct shm *shm, unsigned backend);

/* Worker: a connect or an exchange failed. The counter only grows; the monitor, which maps S
 * read-only, remembers what it saw last. Call child_wake() of the monitor's eventfd afterwards. */
static inline void
shm_backend_hurry(struct shm *shm, unsigned backend)
{
    atomic_fetch_add_explicit(&shm->s->backends[backend].hurry, 1, memory_order_relaxed);
}

/* ---- ticket keys ---- */

#define SHM_KEYS_ROTATE_S (12 * 3600)
#define SHM_KEYS_ACCEPT_S (24 * 3600)

/* Master: make the first key, or rotate when the newest is older than 12 h. */
void
shm_keys_rotate(struct shm *shm, uint64_t wall_s);
/* Worker: the key that encrypts (name NULL) or the one with that name if younger than 24 h. false:
 * none. */
bool
shm_keys_find(const struct shm *shm, const uint8_t *name, uint64_t wall_s,
              struct shm_ticket_key *out, bool *is_current);

/* Whose turn it is to get a place that became free: a row to begin looking from. */
static inline uint64_t
shm_turn_get(const struct shm *shm, unsigned upstream)
{
    return shm_get(&shm->s->upstreams[upstream].turn);
}

static inline void
shm_turn_set(struct shm *shm, unsigned upstream, unsigned row)
{
    shm_set(&shm->s->upstreams[upstream].turn, row);
}

/* Ticket for round robin: shared by all workers. */
static inline uint64_t
shm_cursor_next(struct shm *shm, unsigned upstream)
{
    return atomic_fetch_add_explicit(&shm->s->upstreams[upstream].cursor, 1, memory_order_relaxed);
}

#endif
