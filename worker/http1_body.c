/* SPDX-License-Identifier: Apache-2.0
 *
 * http1_body.c - HTTP/1 bodies and fields between a connection and a stream: see http1_body.h.
 */
#include "worker/http1_body.h"

#include "worker/worker.h"

void
http1_body_begin(struct http1_body *b, const struct http_msg *m)
{
    *b = (struct http1_body){.kind = m->body};
    if (m->body == HTTP_BODY_LENGTH) {
        b->left = m->length;
    }
}

static enum http1_body_result
feed_length(struct http1_body *b, struct stream *s, struct end *from, struct slice bytes,
            size_t *used)
{
    size_t n = bytes.len < b->left ? bytes.len : (size_t)b->left;
    b->left -= n;
    *used = n;
    if (n > 0) {
        stream_on_body(s, from, slice_of(bytes.ptr, n));
    }
    if (b->left > 0 || s->state == STREAM_DONE) {
        return HTTP1_BODY_MORE;
    }
    stream_on_body_end(s, from, NULL);
    return HTTP1_BODY_DONE;
}

static enum http1_body_result
feed_trailer(struct stream *s, struct end *from, struct slice bytes, size_t *used)
{
    struct http_msg trailers = {.fields = worker.fields, .max_fields = (uint16_t)worker.max_fields};
    struct http_limits limits = {s->conf_listener->header_bytes,
                                 (uint16_t)s->conf_listener->header_count};
    int n = http1_parse_trailers(bytes.ptr, bytes.len, &limits, &trailers);
    if (n < 0) {
        return HTTP1_BODY_BAD;
    }
    if (n == 0) {
        return HTTP1_BODY_MORE;
    }
    *used += (size_t)n;
    stream_on_body_end(s, from, trailers.nfields > 0 ? &trailers : NULL);
    return HTTP1_BODY_DONE;
}

static enum http1_body_result
feed_chunked(struct http1_body *b, struct stream *s, struct end *from, struct slice bytes,
             size_t *used)
{
    struct slice in = bytes;
    struct slice data;
    while (!b->is_in_trailer) {
        enum http1_chunk_result r = http1_chunked_next(&b->chunked, &in, &data);
        if (r == HTTP1_CHUNK_BAD) {
            return HTTP1_BODY_BAD;
        }
        if (r == HTTP1_CHUNK_DATA) {
            stream_on_body(s, from, data);
            if (s->state == STREAM_DONE) {
                return HTTP1_BODY_MORE;
            }
            continue;
        }
        *used = bytes.len - in.len;
        if (r == HTTP1_CHUNK_MORE) {
            return HTTP1_BODY_MORE;
        }
        b->is_in_trailer = true;
    }
    *used = bytes.len - in.len;
    return feed_trailer(s, from, in, used);
}

enum http1_body_result
http1_body_feed(struct http1_body *b, struct stream *s, struct end *from, struct slice bytes,
                size_t *used)
{
    *used = 0;
    switch (b->kind) {
    case HTTP_BODY_LENGTH: return feed_length(b, s, from, bytes, used);
    case HTTP_BODY_CHUNKED: return feed_chunked(b, s, from, bytes, used);
    default: /* until the connection closes: its end is told by EOF */
        stream_on_body(s, from, bytes);
        *used = bytes.len;
        return HTTP1_BODY_MORE;
    }
}

void
http1_body_put(struct conn *c, struct slice bytes, bool is_chunked)
{
    if (bytes.len == 0) {
        return; /* a chunk of size 0 would be the last one */
    }
    if (!is_chunked) {
        conn_put(c, bytes.ptr, bytes.len);
        return;
    }
    char size[20];
    conn_put_copy(c, size, http1_write_chunk_size(bytes.len, size));
    conn_put(c, bytes.ptr, bytes.len);
    conn_put(c, "\r\n", 2);
}

void
http1_body_put_end(struct conn *c, const struct http_msg *trailers, bool is_chunked)
{
    if (!is_chunked) {
        return;
    }
    if (!trailers) {
        conn_put(c, "0\r\n\r\n", 5);
        return;
    }
    char *begin = worker_head_room();
    char *end = http1_put_slice(begin, SLICE("0\r\n"));
    for (unsigned i = 0; i < trailers->nfields; i++) {
        trailers->fields[i].drop |= !http_is_trailer_allowed(&trailers->fields[i]);
    }
    end = http1_put_fields(end, trailers);
    end = http1_put_slice(end, SLICE("\r\n"));
    conn_put(c, begin, (size_t)(end - begin));
    conn_flush(c); /* the next head may not overtake it in the head room */
}

char *
http1_put_slice(char *out, struct slice bytes)
{
    memcpy(out, bytes.ptr, bytes.len);
    return out + bytes.len;
}

char *
http1_put_upgrade(char *out, const struct http_msg *m)
{
    out = http1_put_slice(out, SLICE("Connection: upgrade\r\nUpgrade: "));
    out = http1_put_slice(out, m->upgrade);
    return http1_put_slice(out, SLICE("\r\n"));
}

static char *
put_field(char *out, const struct http_field *f)
{
    out = http1_put_slice(out, f->name);
    *out++ = ':';
    *out++ = ' ';
    out = http1_put_slice(out, f->value);
    *out++ = '\r';
    *out++ = '\n';
    return out;
}

/* Fields that stand behind each other in their strict form are copied in one piece. */
char *
http1_put_fields(char *out, const struct http_msg *m)
{
    unsigned i = 0;
    while (i < m->nfields) {
        const struct http_field *f = &m->fields[i++];
        if (f->drop) {
            continue;
        }
        if (!f->is_plain) {
            out = put_field(out, f);
            continue;
        }
        const char *begin = f->name.ptr;
        const char *end = f->value.ptr + f->value.len + 2;
        while (i < m->nfields && m->fields[i].is_plain && !m->fields[i].drop &&
               m->fields[i].name.ptr == end) {
            end = m->fields[i].value.ptr + m->fields[i].value.len + 2;
            i++;
        }
        out = http1_put_slice(out, slice_of(begin, (size_t)(end - begin)));
    }
    return out;
}
