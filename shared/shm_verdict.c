/* SPDX-License-Identifier: Apache-2.0
 *
 * shm_verdict.c - the last reloads in the segment: a ring that the master writes and all may read.
 *
 * Each entry carries its number, which is 0 while it is written: a reader that sees the same number
 * before and after has copied a whole entry.
 */
#include <string.h>

#include "shared/shm.h"

static void
put_text(char *to, size_t size, const char *text)
{
    size_t len = strnlen(text, size - 1);
    memcpy(to, text, len);
    memset(to + len, 0, size - len);
}

/* Of a text that may be anything while it is written. */
static void
get_text(char *to, size_t size, const char *from)
{
    size_t len = 0;
    for (; len + 1 < size && from[len]; len++) {
        char c = from[len];
        to[len] = (c >= ' ' && c <= '~') || c == '\n' ? c : '?';
    }
    to[len] = '\0';
}

void
shm_verdict_add(struct shm *shm, const struct verdict *v)
{
    uint64_t number = shm_get(&shm->m->verdicts_told) + 1;
    struct shm_verdict *to = &shm->m->verdicts[(number - 1) % SHM_VERDICTS];
    shm_set(&to->number, 0);
    atomic_thread_fence(memory_order_release);
    shm_set(&to->when_us, v->when_us);
    shm_set(&to->took_ms, v->took_ms);
    shm_set(&to->gen, v->gen);
    shm_set(&to->is_ok, v->is_ok);
    put_text(to->cause, sizeof(to->cause), v->cause);
    put_text(to->why, sizeof(to->why), v->why);
    atomic_store_explicit(&to->number, number, memory_order_release);
    atomic_store_explicit(&shm->m->verdicts_told, number, memory_order_release);
}

bool
shm_verdict_read(const struct shm *shm, unsigned age, struct verdict *out)
{
    uint64_t told = atomic_load_explicit(&shm->m->verdicts_told, memory_order_acquire);
    if (age >= SHM_VERDICTS || age >= told) {
        return false;
    }
    uint64_t number = told - age;
    struct shm_verdict *from = &shm->m->verdicts[(number - 1) % SHM_VERDICTS];
    bool is_there = atomic_load_explicit(&from->number, memory_order_acquire) == number;
    *out = (struct verdict){.number = number,
                            .when_us = shm_get(&from->when_us),
                            .took_ms = shm_get(&from->took_ms),
                            .gen = shm_get(&from->gen),
                            .is_ok = shm_get(&from->is_ok) != 0};
    get_text(out->cause, sizeof(out->cause), from->cause);
    get_text(out->why, sizeof(out->why), from->why);
    atomic_thread_fence(memory_order_acquire);
    return is_there && shm_get(&from->number) == number;
}
