/* SPDX-License-Identifier: Apache-2.0
 *
 * backend_state.h - what an operator has said, of backends and the log, goes before what the file
 * says.
 */
#ifndef CONF_BACKEND_STATE_H
#define CONF_BACKEND_STATE_H

#include "conf/conf.h"
#include "shared/shm.h"

/* State 1 + given, as the segment has it; 0: the operator has said nothing. */
static inline enum conf_state
backend_state_of(const struct shm *shm, unsigned slot, enum conf_state of_file)
{
    uint64_t given = shm_get(&shm->m->operators[slot].state);
    return given == 0 ? of_file : (enum conf_state)(given - 1);
}

/* The log level that counts. */
static inline enum log_level
operator_log_level(const struct shm *shm, const struct conf *conf)
{
    uint64_t given = shm_get(&shm->m->log_level);
    return given == 0 ? conf->log.level : (enum log_level)(given - 1);
}

/* The word of the file, the command line, the log and the status. */
static inline const char *
backend_state_name(enum conf_state state)
{
    static const char *const names[] = {
        [CONF_READY] = "ready", [CONF_DRAIN] = "drain", [CONF_MAINT] = "maint"};
    return state <= CONF_MAINT ? names[state] : "unknown";
}

static inline enum conf_state
backend_state(const struct shm *shm, const struct conf_backend *b)
{
    return backend_state_of(shm, b->slot, b->state);
}

static inline enum breaker_said
backend_breaker_said(const struct shm *shm, const struct conf_backend *b)
{
    return (enum breaker_said)shm_get(&shm->m->operators[b->slot].breaker);
}

/* Is there a breaker: by the file, or because an operator has said what it shall be? */
static inline bool
backend_has_breaker(const struct shm *shm, const struct conf_backend *b)
{
    return b->upstream->breaker || backend_breaker_said(shm, b) != BREAKER_AUTO;
}

/* The state that counts; closed where there is no breaker. */
static inline enum breaker_state
backend_breaker(const struct shm *shm, const struct conf_backend *b, uint64_t now_ms)
{
    switch (backend_breaker_said(shm, b)) {
    case BREAKER_SAID_OPEN: return BREAKER_OPEN;
    case BREAKER_SAID_CLOSED: return BREAKER_CLOSED;
    default: break;
    }
    const struct breaker *breaker = &shm->s->backends[b->slot].breaker;
    return b->upstream->breaker ? breaker_state(breaker, now_ms) : BREAKER_CLOSED;
}

/* Would it let a request through now? */
static inline bool
backend_breaker_is_passable(const struct shm *shm, const struct conf_backend *b, uint64_t now_ms)
{
    enum breaker_said said = backend_breaker_said(shm, b);
    const struct breaker_rules *rules = b->upstream->breaker;
    if (said != BREAKER_AUTO || !rules) {
        return said != BREAKER_SAID_OPEN;
    }
    return breaker_is_passable(&shm->s->backends[b->slot].breaker, rules, now_ms);
}

#endif
