/* SPDX-License-Identifier: Apache-2.0
 *
 * http_frame.c - where a message's body ends: the one place that decides it (RFC 9112 6).
 *
 * Whatever two recipients could frame differently is refused, although the RFC would have one of
 * the fields win: the peer behind us may believe the other.
 */
#include "shared/http.h"

#define FRAMING (HTTP_SEEN_LENGTH | HTTP_SEEN_CODING | HTTP_SEEN_CHUNKED)

/* RFC 9112 9.3. */
static bool
is_persistent(const struct http_msg *m)
{
    if (m->seen & HTTP_SEEN_CLOSE) {
        return false;
    }
    return m->minor >= 1 || (m->seen & HTTP_SEEN_KEEP_ALIVE);
}

static void
frame_by_length(struct http_msg *m)
{
    m->body = m->length > 0 ? HTTP_BODY_LENGTH : HTTP_BODY_NONE;
}

/* Is it one well-formed Transfer-Encoding of several codings, "chunked" only at its end? Then the
 * sender is right and we are the ones who lack a coding: 501 (RFC 9112 6.1). */
static bool
is_coded_chunked(const struct http_msg *m)
{
    const struct http_field *found = NULL;
    for (size_t i = 0; i < m->nfields; i++) {
        if (m->fields[i].id == HTTP_FIELD_TRANSFER_ENCODING) {
            if (found) {
                return false;
            }
            found = &m->fields[i];
        }
    }
    struct slice list = found ? found->value : SLICE("");
    struct slice coding;
    bool is_last = false;
    while ((coding = http_list_next(&list)).len > 0) {
        if (is_last || !http_is_token(coding)) {
            return false;
        }
        is_last = slice_eq_nocase(coding, SLICE("chunked"));
    }
    return is_last;
}

static enum reason
refuse(struct http_msg *m, enum reason why)
{
    m->is_keep_alive = false;
    return why;
}

enum reason
http_frame_request(struct http_msg *m)
{
    m->body = HTTP_BODY_NONE;
    m->is_keep_alive = is_persistent(m);
    switch (m->seen & FRAMING) {
    case 0: return REASON_none;
    case HTTP_SEEN_LENGTH: frame_by_length(m); return REASON_none;
    case HTTP_SEEN_CODING | HTTP_SEEN_CHUNKED:
        if (m->minor == 0) {
            return refuse(m, REASON_bad_request);
        }
        m->body = HTTP_BODY_CHUNKED;
        return REASON_none;
    case HTTP_SEEN_CODING:
        return refuse(m, m->minor > 0 && is_coded_chunked(m) ? REASON_unsupported
                                                             : REASON_bad_request);
    default: return refuse(m, REASON_bad_request); /* a length and a coding */
    }
}

/* RFC 9112 6.3, rules 1 and 2. */
static bool
is_bodiless(const struct http_msg *m, enum http_method request_method)
{
    return request_method == HTTP_HEAD || m->status < 200 || m->status == 204 || m->status == 304 ||
           (request_method == HTTP_CONNECT && m->status < 300);
}

enum reason
http_frame_response(struct http_msg *m, enum http_method request_method)
{
    unsigned framing = m->seen & FRAMING;
    m->body = HTTP_BODY_NONE;
    m->is_keep_alive = is_persistent(m);
    if ((framing & HTTP_SEEN_CODING) &&
        (framing != (HTTP_SEEN_CODING | HTTP_SEEN_CHUNKED) || m->minor == 0)) {
        return refuse(m, REASON_bad_response);
    }
    if (is_bodiless(m, request_method)) {
        return REASON_none;
    }
    if (framing & HTTP_SEEN_CODING) {
        m->body = HTTP_BODY_CHUNKED;
    } else if (framing & HTTP_SEEN_LENGTH) {
        frame_by_length(m);
    } else {
        m->body = HTTP_BODY_CLOSE;
        m->is_keep_alive = false;
    }
    return REASON_none;
}
