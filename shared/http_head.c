/* SPDX-License-Identifier: Apache-2.0
 *
 * http_head.c - the rules about heads that hold in every version: see http_head.h.
 */
#include "shared/http_head.h"

#include <string.h>

bool
http_head_set_method(struct http_msg *m, struct slice method)
{
    m->method_text = method;
    m->method = (uint8_t)http_method_from(method);
    return method.len <= HTTP_METHOD_MAX && http_is_token(method);
}

bool
http_head_set_path(struct http_msg *m, struct slice target)
{
    if (target.len == 0) {
        return false;
    }
    const char *query = memchr(target.ptr, '?', target.len);
    m->target = target;
    m->path = query ? slice_of(target.ptr, (size_t)(query - target.ptr)) : target;
    return target.ptr[0] == '/' || (m->method == HTTP_OPTIONS && slice_eq(target, SLICE("*")));
}

bool
http_head_set_tunnel(struct http_msg *m, struct slice target)
{
    m->target = target;
    m->authority = target;
    return http_is_authority(target, false) &&
           http_char_is(target.ptr[target.len - 1], HTTP_C_DIGIT) &&
           memrchr(target.ptr, ':', target.len) != NULL;
}

bool
http_head_is_scheme(struct slice scheme)
{
    return slice_eq_nocase(scheme, SLICE("http")) || slice_eq_nocase(scheme, SLICE("https"));
}

bool
http_head_note_length(struct http_msg *m, struct slice value)
{
    if (value.len == 0 || (m->seen & HTTP_SEEN_LENGTH)) {
        return false;
    }
    uint64_t length = 0;
    for (size_t i = 0; i < value.len; i++) {
        unsigned digit = (unsigned)(value.ptr[i] - '0');
        if (!http_char_is(value.ptr[i], HTTP_C_DIGIT) ||
            length > ((uint64_t)INT64_MAX - digit) / 10) {
            return false;
        }
        length = length * 10 + digit;
    }
    m->length = length;
    m->seen |= HTTP_SEEN_LENGTH;
    return true;
}

void
http_head_note_expect(struct http_msg *m, struct slice value)
{
    const uint16_t any = HTTP_SEEN_CONTINUE | HTTP_SEEN_OTHER_EXPECT;
    bool is_first = !(m->seen & any);
    m->seen &= (uint16_t)~any;
    m->seen |= is_first && slice_eq_nocase(value, SLICE("100-continue")) ? HTTP_SEEN_CONTINUE
                                                                         : HTTP_SEEN_OTHER_EXPECT;
}

void
http_head_note_te(struct http_msg *m, struct slice value)
{
    struct slice coding;
    while ((coding = http_list_next(&value)).len > 0) {
        if (slice_eq_nocase(coding, SLICE("trailers"))) {
            m->seen |= HTTP_SEEN_TRAILERS;
        }
    }
}
