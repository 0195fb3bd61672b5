/* SPDX-License-Identifier: Apache-2.0
 *
 * http_head.h - the rules about heads that hold in every version: what a target may be, what the
 * fields say about the message.
 *
 * For the parsers of shared/ only (http1_parse.c, http2_message.c), so that no message may mean one
 * thing in HTTP/1 and another in HTTP/2. What returns false says: malformed.
 */
#ifndef SHARED_HTTP_HEAD_H
#define SHARED_HTTP_HEAD_H

#include "shared/http.h"
#include "shared/http_chars.h"

/* May the digit stand at that place (0 to 2) of a status? 100 to 599. */
static inline bool
http_is_status_digit(char c, int place)
{
    return http_char_is(c, HTTP_C_DIGIT) && (place > 0 || (c >= '1' && c <= '5'));
}

/* A token that is not too long. */
bool
http_head_set_method(struct http_msg *m, struct slice method);
/* Path and query that begin with '/', or "*" of OPTIONS (RFC 9112 3.2.1, 3.2.4; RFC 9113 8.3.1).
 * The octets have been judged, or are here where they have not: http_is_target. */
bool
http_head_set_path(struct http_msg *m, struct slice target);
/* host ":" port of CONNECT (RFC 9112 3.2.3, RFC 9113 8.5). */
bool
http_head_set_tunnel(struct http_msg *m, struct slice target);
/* The schemes that we serve. */
bool
http_head_is_scheme(struct slice scheme);

/* Remember what a field says, in seen and its companions. Digits alone, once, below 2^63 (RFC 9110
 * 8.6; a list of equal values may be refused). */
bool
http_head_note_length(struct http_msg *m, struct slice value);
/* RFC 9110 10.1.1. A second Expect makes it a list, and no longer just 100-continue. */
void
http_head_note_expect(struct http_msg *m, struct slice value);
/* Whether trailers are welcome (RFC 9110 10.1.4). */
void
http_head_note_te(struct http_msg *m, struct slice value);
#endif
