/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_memory.c - where nghttp2's memory comes from: see http2_private.h.
 *
 * A session has a buffer of 16 KB for a frame to be sent, of which small ones touch the beginning
 * only. From malloc() it is often a piece that a TLS handshake has used before, and then all of its
 * pages stay resident with an idle client. Here such buffers have pages of their own, which the
 * kernel gives when they are touched: slabs of slots, kept for reuse.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "worker/http2_private.h"

#define SLOT_BYTES ((size_t)20480) /* whole pages; what is larger comes from malloc() */
#define SLOT_LEAST ((size_t)16384) /* and what is smaller */
#define SLAB_SLOTS 64
#define SLAB_BYTES (SLOT_BYTES * SLAB_SLOTS)

/* A free slot's first word. */
struct slot {
    struct slot *next;
};

static struct slot *free_slots;
static char **slabs; /* every slab there is, sorted by address */
static size_t nslabs;

static size_t
slab_place(const char *at)
{
    size_t low = 0, high = nslabs;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (slabs[middle] <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool
is_slot(const void *memory)
{
    const char *at = memory;
    if (nslabs == 0 || at < slabs[0] || at >= slabs[nslabs - 1] + SLAB_BYTES) {
        return false;
    }
    return at < slabs[slab_place(at) - 1] + SLAB_BYTES;
}

/* The slots of a new slab are not touched: only the slab's place is kept, and how far it is used.
 */
static char *fresh, *fresh_end;

static bool
add_slab(void)
{
    char **more = realloc(slabs, (nslabs + 1) * sizeof(*slabs));
    if (!more) {
        return false;
    }
    slabs = more;
    char *slab = mmap(NULL, SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (slab == MAP_FAILED) {
        return false;
    }
    madvise(slab, SLAB_BYTES, MADV_NOHUGEPAGE);
    size_t place = slab_place(slab);
    memmove(slabs + place + 1, slabs + place, (nslabs - place) * sizeof(*slabs));
    slabs[place] = slab;
    nslabs++;
    fresh = slab;
    fresh_end = slab + SLAB_BYTES;
    return true;
}

static void *
take_slot(void)
{
    struct slot *slot = free_slots;
    if (slot) {
        free_slots = slot->next;
        return slot;
    }
    if (fresh == fresh_end && !add_slab()) {
        return NULL;
    }
    fresh += SLOT_BYTES;
    return fresh - SLOT_BYTES;
}

static void *
memory_alloc(size_t size, void *owner)
{
    return size >= SLOT_LEAST && size <= SLOT_BYTES ? take_slot() : malloc(size);
}

static void
memory_free(void *memory, void *owner)
{
    if (!is_slot(memory)) {
        free(memory);
        return;
    }
    struct slot *slot = memory;
    slot->next = free_slots;
    free_slots = slot;
}

static void *
memory_zeroed(size_t n, size_t size, void *owner)
{
    return calloc(n, size);
}

static void *
memory_resize(void *memory, size_t size, void *owner)
{
    if (!memory) {
        return memory_alloc(size, owner); /* how nghttp2 asks for its buffer */
    }
    if (!is_slot(memory)) {
        return realloc(memory, size);
    }
    if (size <= SLOT_BYTES) {
        return memory;
    }
    void *larger = malloc(size);
    if (larger) {
        memcpy(larger, memory, SLOT_BYTES);
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
