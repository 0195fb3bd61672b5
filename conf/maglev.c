/* SPDX-License-Identifier: Apache-2.0
 *
 * maglev.c - the table of maglev.h.
 *
 * Each backend has an order of its own over all entries. In turns, as often as its weight says,
 * each takes the next entry of its order that is still free.
 */
#include "conf/maglev.h"

#include <stdlib.h>

#include "conf/arena.h"
#include "shared/hash.h"

#define NOBODY UINT16_MAX

struct member {
    const char *id;
    uint64_t at, skip; /* the next entry of its order, and the step to the one behind */
    unsigned index, weight;
    unsigned due; /* weights that its turns have earned, against those of the heaviest */
};

static int
compare_members(const void *left, const void *right)
{
    return strcmp(((const struct member *)left)->id, ((const struct member *)right)->id);
}

static unsigned
make_members(struct member *members, struct conf_backend *const *backends, unsigned n, unsigned len)
{
    unsigned heaviest = 0;
    for (unsigned i = 0; i < n; i++) {
        const char *id = backends[i]->id;
        uint64_t h = hash_finish(hash_bytes(HASH_BEGIN, id, strlen(id)));
        unsigned weight = backends[i]->weight ? backends[i]->weight : 1;
        members[i] = (struct member){.id = id,
                                     .at = h % len,
                                     .skip = hash_finish(h + 1) % (len - 1) + 1,
                                     .index = i,
                                     .weight = weight};
        heaviest = weight > heaviest ? weight : heaviest;
    }
    qsort(members, n, sizeof(*members), compare_members);
    return heaviest;
}

static void
take_entry(struct member *m, uint16_t *table, unsigned len)
{
    while (table[m->at] != NOBODY) {
        m->at = (m->at + m->skip) % len;
    }
    table[m->at] = (uint16_t)m->index;
}

static void
fill(uint16_t *table, unsigned len, struct member *members, unsigned n, unsigned heaviest)
{
    for (unsigned taken = 0; taken < len;) {
        for (unsigned i = 0; i < n && taken < len; i++) {
            members[i].due += members[i].weight;
            if (members[i].due >= heaviest) {
                members[i].due -= heaviest;
                take_entry(&members[i], table, len);
                taken++;
            }
        }
    }
}

uint16_t *
maglev_build(struct conf_arena *arena, struct conf_backend *const *backends, unsigned n,
             unsigned *len)
{
    *len = n <= MAGLEV_SMALL / 100 ? MAGLEV_SMALL : MAGLEV_LARGE;
    uint16_t *table = conf_arena_array(arena, *len, sizeof(*table));
    struct member *members = calloc(n, sizeof(*members));
    if (!members) {
        abort();
    }
    for (unsigned i = 0; i < *len; i++) {
        table[i] = NOBODY;
    }
    fill(table, *len, members, n, make_members(members, backends, n, *len));
    free(members);
    return table;
}
