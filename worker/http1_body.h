/* SPDX-License-Identifier: Apache-2.0
 *
 * http1_body.h - message bodies on HTTP/1 connections, both directions, both sides.
 */
#ifndef WORKER_HTTP1_BODY_H
#define WORKER_HTTP1_BODY_H

#include "shared/http1.h"
#include "worker/stream.h"

/* A body that is coming in. */
struct http1_body {
    uint64_t left; /* HTTP_BODY_LENGTH: bytes that are to come */
    struct http1_chunked chunked;
    uint8_t kind; /* enum http_body_kind */
    bool is_in_trailer;
};

enum http1_body_result { HTTP1_BODY_MORE, HTTP1_BODY_DONE, HTTP1_BODY_BAD };

void
http1_body_begin(struct http1_body *b, const struct http_msg *m);

/* Decode bytes and give them to the stream, as from that end. *used is what was consumed; a trailer
 * section that is not complete is not. DONE: stream_on_body_end has been called. The stream may be
 * done afterwards. */
enum http1_body_result
http1_body_feed(struct http1_body *b, struct stream *s, struct end *from, struct slice bytes,
                size_t *used);

/* Queue body bytes, with their chunk framing when is_chunked; and the end. */
void
http1_body_put(struct conn *c, struct slice bytes, bool is_chunked);
void
http1_body_put_end(struct conn *c, const struct http_msg *trailers, bool is_chunked);

/* Write the fields of m that are not dropped as "Name: value\r\n". Returns the new end. */
char *
http1_put_fields(char *out, const struct http_msg *m);
/* Write the fields that say m->upgrade. */
char *
http1_put_upgrade(char *out, const struct http_msg *m);
char *
http1_put_slice(char *out, struct slice bytes);

#endif
