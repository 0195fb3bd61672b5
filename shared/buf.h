/* SPDX-License-Identifier: Apache-2.0
 *
 * buf.h - bytes kept for later: what a socket did not take, what a parser has not eaten.
 *
 * An idle connection has no buffer, so one is made when there is something to keep and freed when
 * it is empty. begin <= end <= cap.
 */
#ifndef SHARED_BUF_H
#define SHARED_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "shared/slice.h"

struct buf {
    uint32_t begin; /* first byte not consumed */
    uint32_t end;   /* behind the last byte */
    uint32_t cap;
    char data[];
};

static inline size_t
buf_len(const struct buf *b)
{
    return b ? b->end - b->begin : 0;
}

static inline struct slice
buf_slice(const struct buf *b)
{
    return b ? slice_of(b->data + b->begin, b->end - b->begin) : slice_of(NULL, 0);
}

/* Append a copy to *b, which may be NULL and may move. 0, or -1 (memory; *b is as before). */
int
buf_append(struct buf **b, const char *bytes, size_t len);
/* Take n bytes off the front; frees the buffer and sets *b to NULL when it is empty. */
void
buf_consume(struct buf **b, size_t n);
void
buf_free(struct buf **b);

#endif
