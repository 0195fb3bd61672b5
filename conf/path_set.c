/* SPDX-License-Identifier: Apache-2.0
 *
 * path_set.c - a hash table of paths whose hash grows with the path, byte by byte.
 */
#include "conf/path_set.h"

#include <stdint.h>

struct path_entry {
    const char *path; /* NULL: free */
    uint32_t len, hash;
    int value;
};

struct path_set {
    uint32_t mask;    /* size of the table, a power of two, less one */
    uint32_t max_len; /* of the longest path */
    struct path_entry *entries;
};

#define HASH_START 2166136261u

static uint32_t
hash_byte(uint32_t hash, char c)
{
    return (hash ^ (unsigned char)c) * 16777619u;
}

/* Where a path is, or would stand. */
static struct path_entry *
find_entry(const struct path_set *set, struct slice path, uint32_t hash)
{
    uint32_t at = (hash ^ hash >> 15) & set->mask;
    for (;; at = (at + 1) & set->mask) {
        struct path_entry *entry = &set->entries[at];
        if (!entry->path || (entry->hash == hash && entry->len == path.len &&
                             memcmp(entry->path, path.ptr, path.len) == 0)) {
            return entry;
        }
    }
}

struct path_set *
path_set_new(struct conf_arena *arena, unsigned n)
{
    struct path_set *set = conf_arena_alloc(arena, sizeof(*set));
    uint32_t size = 4;
    while (size < n * 2) {
        size *= 2;
    }
    set->mask = size - 1;
    set->entries = conf_arena_array(arena, size, sizeof(*set->entries));
    return set;
}

void
path_set_add(struct path_set *set, const char *path, int value)
{
    struct slice s = slice_from_str(path);
    uint32_t hash = HASH_START;
    for (size_t i = 0; i < s.len; i++) {
        hash = hash_byte(hash, s.ptr[i]);
    }
    struct path_entry *entry = find_entry(set, s, hash);
    if (entry->path) {
        return;
    }
    *entry = (struct path_entry){path, (uint32_t)s.len, hash, value};
    if (entry->len > set->max_len) {
        set->max_len = entry->len;
    }
}

/* The longest prefix of path that has at most last bytes. */
static int
find_up_to(const struct path_set *set, struct slice path, size_t last)
{
    int found = -1;
    uint32_t hash = HASH_START;
    if (!set || set->max_len < last) {
        last = set ? set->max_len : 0;
    }
    for (size_t i = 0; i < last; i++) {
        hash = hash_byte(hash, path.ptr[i]);
        bool is_end = i + 1 == path.len || path.ptr[i + 1] == '/' || path.ptr[i] == '/';
        if (is_end) {
            const struct path_entry *entry = find_entry(set, slice_of(path.ptr, i + 1), hash);
            found = entry->path ? entry->value : found;
        }
    }
    return found;
}

int
path_set_find(const struct path_set *set, struct slice path)
{
    return find_up_to(set, path, path.len);
}

int
path_set_find_shorter(const struct path_set *set, struct slice path)
{
    return find_up_to(set, path, path.len ? path.len - 1 : 0);
}

int
path_set_find_exact(const struct path_set *set, struct slice path)
{
    uint32_t hash = HASH_START;
    if (!set || path.len > set->max_len) {
        return -1;
    }
    for (size_t i = 0; i < path.len; i++) {
        hash = hash_byte(hash, path.ptr[i]);
    }
    const struct path_entry *entry = find_entry(set, path, hash);
    return entry->path ? entry->value : -1;
}
