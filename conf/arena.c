/* SPDX-License-Identifier: Apache-2.0
 *
 * arena.c - a bump allocator: a list of blocks, the newest first.
 */
#include "conf/arena.h"

#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCK_BYTES 16384
#define ALIGNMENT   16

struct block {
    struct block *next;
    size_t used, size; /* of bytes */
    _Alignas(ALIGNMENT) char bytes[];
};

struct conf_arena {
    struct block *blocks;
};

static void *
allocate(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory) {
        fputs("akashd: out of memory while reading the configuration\n", stderr);
        abort();
    }
    return memory;
}

struct conf_arena *
conf_arena_new(void)
{
    return allocate(sizeof(struct conf_arena));
}

void
conf_arena_free(struct conf_arena *arena)
{
    if (!arena) {
        return;
    }
    while (arena->blocks) {
        struct block *next = arena->blocks->next;
        OPENSSL_cleanse(arena->blocks->bytes, arena->blocks->used); /* of secrets */
        free(arena->blocks);
        arena->blocks = next;
    }
    free(arena);
}

/* A big piece gets a block of its own behind the newest one, which goes on being filled. */
static struct block *
add_block(struct conf_arena *arena, size_t size)
{
    bool is_big = size > BLOCK_BYTES / 4;
    size_t room = is_big ? size : BLOCK_BYTES;
    struct block *block = allocate(sizeof(*block) + room);
    block->size = room;
    if (is_big && arena->blocks) {
        block->next = arena->blocks->next;
        arena->blocks->next = block;
    } else {
        block->next = arena->blocks;
        arena->blocks = block;
    }
    return block;
}

void *
conf_arena_alloc(struct conf_arena *arena, size_t size)
{
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct block *block = arena->blocks;
    if (!block || block->size - block->used < size) {
        block = add_block(arena, size);
    }
    void *piece = block->bytes + block->used;
    block->used += size;
    return piece;
}

void *
conf_arena_array(struct conf_arena *arena, size_t n, size_t size)
{
    if (size && n > SIZE_MAX / 2 / size) {
        abort();
    }
    return conf_arena_alloc(arena, n && size ? n * size : 1);
}

char *
conf_arena_copy(struct conf_arena *arena, struct slice s)
{
    char *copy = conf_arena_alloc(arena, s.len + 1);
    if (s.len) {
        memcpy(copy, s.ptr, s.len);
    }
    return copy;
}

char *
conf_arena_format(struct conf_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = conf_arena_alloc(arena, (size_t)len + 1);
    va_start(args, format);
    vsnprintf(text, (size_t)len + 1, format, args);
    va_end(args);
    return text;
}
