/* SPDX-License-Identifier: Apache-2.0
 *
 * http2.h - HTTP/2 field blocks and messages (RFC 9113 8.2, 8.3): translation both ways. Pure.
 *
 * In: the fields of one block are given one by one, as HPACK decodes them, and become the message
 * that the HTTP/1 parser would make of the same request or answer; whatever one of the two refuses
 * the other refuses too. Out: a message becomes an array for nghttp2_submit_*.
 *
 * An extended CONNECT (RFC 8441) has the HTTP/1 form in between: GET with upgrade set, answered by
 * a 101. A WebSocket's key and its answer, which it has not, are left out on the way out; who needs
 * them on the way in adds them.
 */
#ifndef SHARED_HTTP2_H
#define SHARED_HTTP2_H

#include <nghttp2/nghttp2.h>

#include "shared/http.h"

/* len bytes that live as long as the message. NULL: no memory. */
typedef void *
http2_alloc_fn(void *owner, size_t len);

enum http2_block { HTTP2_REQUEST, HTTP2_RESPONSE, HTTP2_TRAILERS };

/* Behind h->m.max_fields there is always room for so many fields that a proxy adds. */
#define HTTP2_SPARE_FIELDS 8

/* A field block on its way. */
struct http2_head {
    struct http_msg m; /* taken by the caller after http2_head_end; its memory is of alloc */
    http2_alloc_fn *alloc;
    void *owner;
    uint32_t bytes_left; /* of limits->header_bytes: name + value + 32 for each field */
    uint16_t
        count_left;  /* of limits->header_count: pseudo-fields and joined cookies do not count */
    uint8_t kind;    /* enum http2_block */
    uint8_t pseudo;  /* pseudo-fields that have come */
    uint8_t why;     /* enum reason: the first thing that was wrong; REASON_none */
    bool has_fields; /* no pseudo-field may follow */
    bool has_host;
    uint16_t cookie; /* 1 + index of the field that cookies are joined in; 0: none yet */
    uint32_t cookie_cap;
};

/* Fields and what they hold are copied into memory of alloc(owner); nothing is copied that is over
 * a limit. */
void
http2_head_begin(struct http2_head *h, enum http2_block kind, const struct http_limits *limits,
                 http2_alloc_fn *alloc, void *owner);

/* The next field, never_index as HPACK had it. REASON_none, or why the block is refused:
 * bad_request, bad_response, uri_too_long, header_too_large, internal (memory). The same for
 * whatever follows then, which is neither judged nor copied. */
enum reason
http2_head_field(struct http2_head *h, struct slice name, struct slice value, bool never_index);

/* The block is complete. is_last: END_STREAM came with it. On REASON_none h->m is a message whose
 * framing has been judged. A request's body is NONE with END_STREAM or Content-Length: 0 (a DATA
 * frame that is empty may still have to end it), else LENGTH or CHUNKED, which here says that its
 * length is not known. Whoever receives DATA counts it against h->m.length where
 * HTTP_SEEN_LENGTH is set and body is not NONE. */
enum reason
http2_head_end_request(struct http2_head *h, bool is_last);
/* The same for an answer. upgrade: what an extended CONNECT has asked for (its 2xx is a 101 then),
 * else empty. */
enum reason
http2_head_end_response(struct http2_head *h, bool is_last, enum http_method request_method,
                        struct slice upgrade);
/* Trailers; those that may not be forwarded are not in h->m. */
enum reason
http2_head_end_trailers(struct http2_head *h, bool is_last);

/* How many of an array a message takes at most. */
#define HTTP2_PUT_EXTRA 7
static inline size_t
http2_put_max(const struct http_msg *m)
{
    return (size_t)m->nfields + HTTP2_PUT_EXTRA;
}

/* Write the message into out, which has room for http2_put_max(m), and return how many were
 * written. Fields that are dropped, connection-specific or, in trailers, forbidden are left out.
 * Names that nghttp2 has to keep are NGHTTP2_NV_FLAG_NO_COPY_NAME only where they are static; it
 * turns those that it copies to lower case. */
size_t
http2_put_request(const struct http_msg *m, struct slice scheme, nghttp2_nv *out);
/* status: room for its three digits, which must stay until the array has been submitted. */
size_t
http2_put_response(const struct http_msg *m, char status[3], nghttp2_nv *out);
size_t
http2_put_trailers(const struct http_msg *m, nghttp2_nv *out);

#endif
