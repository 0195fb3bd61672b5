/* SPDX-License-Identifier: Apache-2.0
 *
 * http1.h - HTTP/1.x on the wire (RFC 9112): heads, chunked bodies, trailers. Strict and pure.
 *
 * Whatever can be read in two ways is refused. Lines end in CRLF or in LF alone (RFC 9112 2.2); a
 * bare CR, NUL, obsolete folding, white space before a colon or before the first field, an empty
 * field name are errors. In a response, white space before the colon is an error as well (502).
 * Content-Length is digits, once, below 2^63; Transfer-Encoding is "chunked", once; Connection is a
 * list of tokens; Host is a valid authority, exactly once in HTTP/1.1, at most once in HTTP/1.0.
 */
#ifndef SHARED_HTTP1_H
#define SHARED_HTTP1_H

#include "shared/http.h"

/* Parse the head at the beginning of buf. m->fields and m->max_fields are set by the caller, who
 * also leaves room: everything else in *m is set here. One CRLF (or LF) before a request line is
 * skipped (RFC 9112 2.2). On success framing has been judged (http_frame_request).
 * Returns the bytes that the head takes (> 0), 0 when it is not complete yet and nothing in it is
 * wrong so far, or -(enum reason): bad_request, uri_too_long (the request line alone exceeds
 * header_bytes), header_too_large (bytes or count), unsupported, and for responses bad_response.
 * HTTP/2 prefaces and other versions than 1.x are bad_request; a minor version above 1 counts as 1.
 * A byte that cannot stand where it stands is refused as soon as it is there. The caller does not
 * call it again for the same head before http1_head_end has found its end, so the work is linear.
 */
int
http1_parse_request(const char *buf, size_t len, const struct http_limits *limits,
                    struct http_msg *m);
int
http1_parse_response(const char *buf, size_t len, const struct http_limits *limits,
                     enum http_method request_method, struct http_msg *m);

/* Length of buf up to and including the first empty line, or 0 when there is none yet. Bytes before
 * from (of a former call with the same beginning: pass the former len) are not looked at again,
 * save for the line they end in. Leading empty line as above. */
size_t
http1_head_end(const char *buf, size_t len, size_t from);

/* A chunked body, decoded in place (RFC 9112 7.1). Zero it to begin. Its lines end in CRLF only,
 * and a size has at most 16 digits and 63 bits. */
struct http1_chunked {
    uint64_t left;      /* bytes left of this chunk's data, or its size so far */
    uint32_t ext_bytes; /* chunk extensions so far in the whole body; at most HTTP1_CHUNK_EXT_MAX */
    uint8_t state;
    uint8_t digits;
};
#define HTTP1_CHUNK_EXT_MAX 4096

enum http1_chunk_result {
    HTTP1_CHUNK_MORE,    /* *in is used up: give more bytes */
    HTTP1_CHUNK_DATA,    /* *data are body bytes, *in is behind them; call again */
    HTTP1_CHUNK_TRAILER, /* the last chunk has passed; *in begins with the trailer section */
    HTTP1_CHUNK_BAD      /* malformed; stays so */
};
enum http1_chunk_result
http1_chunked_next(struct http1_chunked *d, struct slice *in, struct slice *data);

/* Parse a trailer section, up to and including its empty line, which may be all of it. As
 * http1_parse_request, but into a message of its own, of which only the fields are set. What they
 * say is not looked at: see http_is_trailer_allowed. Errors are -(bad_request) or
 * -(header_too_large). */
int
http1_parse_trailers(const char *buf, size_t len, const struct http_limits *limits,
                     struct http_msg *m);

/* Write "SIZE\r\n" in hex into buf (at least 20 bytes). Returns its length. */
size_t
http1_write_chunk_size(uint64_t size, char *buf);

#endif
