/* SPDX-License-Identifier: Apache-2.0
 *
 * operator.c - the operators' part of the segment: see operator.h.
 */
#include "master/operator.h"

#include <stdio.h>
#include <string.h>

#include "conf/backend_state.h"
#include "master/master.h"
#include "master/slots.h"
#include "shared/clock.h"
#include "shared/log.h"

const char *const operator_state_names[] = {
    [CONF_READY] = "ready", [CONF_DRAIN] = "drain", [CONF_MAINT] = "maint"};

const char *const operator_breaker_names[] = {
    [BREAKER_AUTO] = "auto", [BREAKER_SAID_OPEN] = "open", [BREAKER_SAID_CLOSED] = "close"};

/* Everybody looks at once. */
static void
operator_tell(void)
{
    shm_count(&master.shm.m->operator_epoch, 1);
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        child_wake(master.wakes[i]);
    }
}

/* The id as it is, or without the "@address" that a name's addresses have. */
static bool
is_meant(const struct conf_backend *b, const char *id)
{
    size_t len = strlen(id);
    return strncmp(b->id, id, len) == 0 && (b->id[len] == '\0' || b->id[len] == '@');
}

/* Call said for each backend that is meant; their number. */
static unsigned
for_each(const char *name, unsigned number,
         void (*said)(const struct conf_backend *b, unsigned number))
{
    const struct conf *conf = master.current.conf;
    unsigned found = 0;
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        const struct conf_upstream *up = &conf->upstreams[i];
        size_t len = strlen(up->name);
        if (strncmp(name, up->name, len) != 0 || name[len] != '/') {
            continue;
        }
        for (unsigned b = 0; b < up->nbackends; b++) {
            if (is_meant(&up->backends[b], name + len + 1)) {
                said(&up->backends[b], number);
                shm_set(&master.shm.m->operators[up->backends[b].slot].said_us, clock_wall_us());
                found++;
            }
        }
    }
    return found;
}

static void
say_state(const struct conf_backend *b, unsigned state)
{
    uint64_t value = state == (unsigned)b->state ? 0 : 1 + (uint64_t)state;
    shm_set(&master.shm.m->operators[b->slot].state, value);
    log_info("backend %s/%s: %s, says the operator%s", b->upstream->name, b->id,
             operator_state_names[state], value == 0 ? ", as the file does" : "");
}

static void
say_weight(const struct conf_backend *b, unsigned weight)
{
    uint64_t value = weight == b->file_weight ? 0 : weight;
    shm_set(&master.shm.m->operators[b->slot].weight, value);
    log_info("backend %s/%s: weight %u, says the operator%s", b->upstream->name, b->id, weight,
             value == 0 ? ", as the file does" : "");
}

/* One that is left to itself again has seen nothing of what happened meanwhile. */
static void
say_breaker(const struct conf_backend *b, unsigned said)
{
    shm_u64 *word = &master.shm.m->operators[b->slot].breaker;
    if (said == BREAKER_AUTO && shm_get(word) != BREAKER_AUTO) {
        breaker_reset(&master.shm.s->backends[b->slot].breaker);
    }
    shm_set(word, said);
    log_info("backend %s/%s: breaker %s, says the operator%s", b->upstream->name, b->id,
             operator_breaker_names[said], said == BREAKER_AUTO ? ", as the file does" : "");
}

static int
nobody(const char *name, char *why, size_t why_size)
{
    snprintf(why, why_size, "%s: there is no such backend; it is named UPSTREAM/BACKEND", name);
    return -1;
}

int
operator_set_state(const char *name, enum conf_state state, char *why, size_t why_size)
{
    if (for_each(name, state, say_state) == 0) {
        return nobody(name, why, why_size);
    }
    operator_tell();
    return 0;
}

int
operator_set_weight(const char *name, unsigned weight, char *why, size_t why_size)
{
    if (weight < 1 || weight > CONF_WEIGHT_MAX) {
        snprintf(why, why_size, "a weight is 1 to %d", CONF_WEIGHT_MAX);
        return -1;
    }
    return for_each(name, weight, say_weight) == 0 ? nobody(name, why, why_size) : 0;
}

int
operator_set_breaker(const char *name, enum breaker_said said, char *why, size_t why_size)
{
    if (for_each(name, said, say_breaker) == 0) {
        return nobody(name, why, why_size);
    }
    operator_tell();
    return 0;
}

unsigned
operator_weight_of(struct conf_source *src, const char *upstream, const char *backend)
{
    char id[SHM_ID_MAX];
    (void)src;
    int n = snprintf(id, sizeof(id), "%s/%s", upstream, backend);
    if (!master.shm.m || n < 0 || (size_t)n >= sizeof(id)) {
        return 0; /* the first configuration, before there is a segment */
    }
    return (unsigned)shm_get(&slots_said(&master.shm, id)->weight);
}

/* ---- the log ---- */

void
operator_apply_log_level(void)
{
    log_set_level(operator_log_level(&master.shm, master.current.conf));
}

int
operator_set_log_level(const char *level, char *why, size_t why_size)
{
    uint64_t value = 0;
    for (unsigned i = LOG_LEVEL_ERROR; i <= LOG_LEVEL_DEBUG; i++) {
        value = strcmp(level, log_level_name((enum log_level)i)) == 0 ? i + 1 : value;
    }
    if (value == 0 && strcmp(level, "file") != 0) {
        snprintf(why, why_size,
                 "a level is error, warn, info, debug, or file for that of the file");
        return -1;
    }
    /* To say the same as the file revokes, as everywhere. */
    bool is_same = value == 1 + (uint64_t)master.current.conf->log.level;
    shm_set(&master.shm.m->log_level, is_same ? 0 : value);
    operator_apply_log_level();
    log_info("log: level %s, says the operator", level);
    operator_tell();
    return 0;
}
