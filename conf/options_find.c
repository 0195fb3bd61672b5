/* SPDX-License-Identifier: Apache-2.0
 *
 * options_find.c - rows of the option table by their key, also by a misspelt one.
 */
#include <string.h>

#include "conf/options.h"

const struct option *
option_find(enum option_owner owner, const char *key)
{
    for (size_t i = 0; i < option_table_len; i++) {
        if (option_table[i].owner == owner && strcmp(option_table[i].key, key) == 0) {
            return &option_table[i];
        }
    }
    return NULL;
}

bool
option_is_short(const struct option *row)
{
    bool is_long_only = row->flags & (OPT_LIST | OPT_MAP);
    return row->owner == OWN_SHORT || row->flags & OPT_SHORT ||
           (row->owner == OWN_TOP && !is_long_only);
}

/* ---- suggestions ---- */

#define KEY_MAX 40

static unsigned
min3(unsigned a, unsigned b, unsigned c)
{
    unsigned least = a < b ? a : b;
    return least < c ? least : c;
}

/* Insertions, deletions and replacements between two keys (Levenshtein). */
static unsigned
edit_distance(const char *a, const char *b)
{
    unsigned row[KEY_MAX + 1];
    size_t alen = strlen(a), blen = strlen(b);
    if (alen > KEY_MAX || blen > KEY_MAX) {
        return KEY_MAX;
    }
    for (unsigned j = 0; j <= blen; j++) {
        row[j] = j;
    }
    for (unsigned i = 1; i <= alen; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= blen; j++) {
            unsigned above = row[j];
            row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[blen];
}

const char *
option_suggest(enum option_owner owner, const char *key, bool is_short)
{
    const char *nearest = NULL;
    unsigned least = (unsigned)strlen(key) / 3 + 1;
    for (size_t i = 0; i < option_table_len; i++) {
        const struct option *row = &option_table[i];
        if (is_short ? !option_is_short(row) : row->owner != owner) {
            continue;
        }
        unsigned distance = edit_distance(key, row->key);
        if (distance < least || (distance == least && !nearest)) {
            least = distance;
            nearest = row->key;
        }
    }
    return nearest;
}
