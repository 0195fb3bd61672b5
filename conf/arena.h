/* SPDX-License-Identifier: Apache-2.0
 *
 * arena.h - memory of one configuration: taken piece by piece, given back all at once.
 *
 * Memory is zeroed and aligned for any type. No call returns NULL: without memory the process
 * ends, because a half-built configuration is worth nothing.
 */
#ifndef CONF_ARENA_H
#define CONF_ARENA_H

#include <stddef.h>

#include "shared/slice.h"

struct conf_arena;

struct conf_arena *
conf_arena_new(void);
void
conf_arena_free(struct conf_arena *arena);

void *
conf_arena_alloc(struct conf_arena *arena, size_t size);
/* n elements of size bytes; at least one byte, so that an empty array is not NULL. */
void *
conf_arena_array(struct conf_arena *arena, size_t n, size_t size);
/* A NUL-terminated copy. */
char *
conf_arena_copy(struct conf_arena *arena, struct slice s);
char *
conf_arena_format(struct conf_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
