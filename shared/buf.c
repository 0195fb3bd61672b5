/* SPDX-License-Identifier: Apache-2.0
 *
 * buf.c - the kept bytes of buf.h.
 */
#include "shared/buf.h"

#include <assert.h>
#include <stdlib.h>

#define BUF_MIN_CAP (4096 - sizeof(struct buf))

/* Room for len more bytes behind end: slide to the front if that is enough, else grow. */
static int
make_room(struct buf **b, size_t len)
{
    struct buf *old = *b;
    size_t have = buf_len(old);
    if (old && (size_t)old->cap - old->end >= len) {
        return 0;
    }
    if (old && old->cap - have >= len) {
        memmove(old->data, old->data + old->begin, have);
        old->begin = 0;
        old->end = (uint32_t)have;
        return 0;
    }
    size_t cap = BUF_MIN_CAP;
    while (cap < have + len) {
        cap = cap * 2 + sizeof(struct buf);
    }
    if (cap > UINT32_MAX / 2) {
        return -1;
    }
    struct buf *grown = malloc(sizeof(*grown) + cap);
    if (!grown) {
        return -1;
    }
    if (have > 0) {
        memcpy(grown->data, old->data + old->begin, have);
    }
    grown->begin = 0;
    grown->end = (uint32_t)have;
    grown->cap = (uint32_t)cap;
    free(old);
    *b = grown;
    return 0;
}

int
buf_append(struct buf **b, const char *bytes, size_t len)
{
    if (len == 0) {
        return 0;
    }
    if (make_room(b, len) != 0) {
        return -1;
    }
    memcpy((*b)->data + (*b)->end, bytes, len);
    (*b)->end += (uint32_t)len;
    return 0;
}

void
buf_consume(struct buf **b, size_t n)
{
    if (n == 0) {
        return;
    }
    assert(n <= buf_len(*b));
    (*b)->begin += (uint32_t)n;
    if ((*b)->begin == (*b)->end) {
        buf_free(b);
    }
}

void
buf_free(struct buf **b)
{
    free(*b);
    *b = NULL;
}
