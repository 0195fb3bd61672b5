/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_memory.c - where nghttp2's memory comes from: see http2_private.h.
 *
 * Small blocks, of which each request takes and returns several, are kept in lists by size. A
 * session has a buffer of 16 KB for a frame to be sent, of which small ones touch the beginning
 * only. From malloc() it is often a piece that a TLS handshake has used before, and then all of its
 * pages stay resident with an idle client. Here such buffers have pages of their own, which the
 * kernel gives when they are touched, and which are kept for reuse.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shared/sanitized.h"
#include "worker/http2_private.h"

#define FRAME_BYTES ((size_t)20480) /* whole pages, with the block's head */
#define FRAME_LEAST ((size_t)16384)
#define SLAB_BYTES  (FRAME_BYTES * 64)

#define KEEP_BYTES ((size_t)256 * 1024) /* of free blocks of a size */

/* What blocks there are; by their size, head included. */
enum block_kind {
    BLOCK_64,
    BLOCK_128,
    BLOCK_256,
    BLOCK_512,
    BLOCK_SMALL,
    BLOCK_FRAME,
    BLOCK_LARGE
};

/* In front of the memory that nghttp2 gets. */
struct block {
    _Alignas(16) struct block *next; /* while it is free */
    enum block_kind kind;
};

static struct {
    struct block *first;
    size_t bytes;
} kept[BLOCK_LARGE];

/* The frames of a new slab are not touched: only the slab's place is kept, and how far it is used.
 */
static char *fresh, *fresh_end;

static size_t
block_bytes(enum block_kind kind)
{
    return kind < BLOCK_SMALL ? (size_t)64 << kind : FRAME_BYTES;
}

/* The kind for so many bytes, head included. */
static enum block_kind
kind_for(size_t bytes)
{
    for (enum block_kind kind = BLOCK_64; kind < BLOCK_SMALL; kind++) {
        if (bytes <= block_bytes(kind)) {
            return kind;
        }
    }
    return bytes >= FRAME_LEAST && bytes <= FRAME_BYTES ? BLOCK_FRAME : BLOCK_LARGE;
}

static bool
add_slab(void)
{
    char *slab = mmap(NULL, SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (slab == MAP_FAILED) {
        return false;
    }
    madvise(slab, SLAB_BYTES, MADV_NOHUGEPAGE);
    fresh = slab;
    fresh_end = slab + SLAB_BYTES;
    return true;
}

static struct block *
fresh_frame(void)
{
    if (fresh == fresh_end && !add_slab()) {
        return NULL;
    }
    fresh += FRAME_BYTES;
    return (struct block *)(fresh - FRAME_BYTES);
}

static void *
memory_alloc(size_t size, void *owner)
{
    size_t bytes = size + sizeof(struct block);
    enum block_kind kind = kind_for(bytes);
    struct block *b;
    if (kind < BLOCK_LARGE && kept[kind].first) {
        b = kept[kind].first;
        kept[kind].first = b->next;
        kept[kind].bytes -= block_bytes(kind);
        return b + 1;
    }
    b = kind == BLOCK_FRAME ? fresh_frame()
                            : malloc(kind == BLOCK_LARGE ? bytes : block_bytes(kind));
    if (!b) {
        return NULL;
    }
    b->kind = kind;
    return b + 1;
}

static void
memory_free(void *memory, void *owner)
{
    if (!memory) {
        return;
    }
    struct block *b = (struct block *)memory - 1;
    bool is_frame = b->kind == BLOCK_FRAME; /* its pages are no malloc()'s */
    if (!is_frame && (b->kind == BLOCK_LARGE || !KEEPS_FREED(kept[b->kind].bytes, KEEP_BYTES))) {
        free(b);
        return;
    }
    b->next = kept[b->kind].first;
    kept[b->kind].first = b;
    kept[b->kind].bytes += block_bytes(b->kind);
}

static void *
memory_zeroed(size_t n, size_t size, void *owner)
{
    void *memory = memory_alloc(n * size, owner);
    return memory ? memset(memory, 0, n * size) : NULL;
}

static void *
memory_resize(void *memory, size_t size, void *owner)
{
    if (!memory) {
        return memory_alloc(size, owner); /* how nghttp2 asks for its buffer */
    }
    struct block *b = (struct block *)memory - 1;
    size_t bytes = size + sizeof(*b);
    if (b->kind == BLOCK_LARGE) {
        b = realloc(b, bytes);
        return b ? b + 1 : NULL;
    }
    if (bytes <= block_bytes(b->kind)) {
        return memory;
    }
    void *larger = memory_alloc(size, owner);
    if (larger) {
        memcpy(larger, memory, block_bytes(b->kind) - sizeof(*b));
        memory_free(memory, owner);
    }
    return larger;
}

nghttp2_mem *
http2_memory(void)
{
    static nghttp2_mem memory = {NULL, memory_alloc, memory_free, memory_zeroed, memory_resize};
    return &memory;
}
