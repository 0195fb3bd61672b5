/* SPDX-License-Identifier: Apache-2.0
 *
 * http_path.c - paths as routes and backends are to see them: without dot segments and needless
 * escapes.
 */
#include "shared/http.h"

#include <ctype.h>

#include "shared/http_chars.h"

/* The byte that the three of an escape stand for. */
static unsigned char
escaped(const char *p)
{
    return (unsigned char)(http_hex_digit(p[1]) << 4 | http_hex_digit(p[2]));
}

/* RFC 3986 2.3: may stand for itself, and means the same then. */
static bool
is_unreserved(unsigned char c)
{
    return isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

/* Are all percent escapes whole, none of them %00, and no '#' among the bytes? *has_needless: some
 * escape stands for an unreserved byte. */
static bool
check_path(struct slice path, bool *has_needless)
{
    const char *end = path.ptr + path.len;
    *has_needless = false;
    for (const char *p = path.ptr; p < end; p++) {
        if (*p == '#' || *p == '\0') {
            return false;
        }
        if (*p == '%') {
            if (end - p < 3 || !http_char_is(p[1], HTTP_C_HEX) || !http_char_is(p[2], HTTP_C_HEX) ||
                escaped(p) == 0) {
                return false;
            }
            *has_needless = *has_needless || is_unreserved(escaped(p));
        }
    }
    return true;
}

/* RFC 3986 6.2.2.2, once: what comes of it is not looked at again. Returns the bytes written to
 * out. */
static size_t
unescape_needless(struct slice path, char *out)
{
    const char *end = path.ptr + path.len;
    size_t len = 0;
    for (const char *p = path.ptr; p < end; p++) {
        bool is_needless = *p == '%' && is_unreserved(escaped(p));
        out[len++] = is_needless ? (char)escaped(p) : *p;
        p += is_needless ? 2 : 0;
    }
    return len;
}

/* How many dots is the segment made of: 1 or 2, else 0. */
static int
dot_segment(struct slice segment)
{
    bool is_dots = segment.len == 1 || segment.len == 2;
    for (size_t i = 0; i < segment.len && is_dots; i++) {
        is_dots = segment.ptr[i] == '.';
    }
    return is_dots ? (int)segment.len : 0;
}

static bool
has_dots(struct slice path)
{
    return memmem(path.ptr, path.len, "/.", 2) != NULL;
}

/* The length of out without its last segment and that one's slash. */
static size_t
pop_segment(const char *out, size_t len)
{
    while (len > 0 && out[--len] != '/') {
    }
    return len;
}

/* RFC 3986 5.2.4 over a path that begins with '/', which may lie in out; ".." at the root stays at
 * the root. Returns the bytes written to out. */
static size_t
remove_dot_segments(struct slice path, char *out)
{
    const char *end = path.ptr + path.len;
    const char *slash = path.ptr;
    size_t len = 0;
    while (slash < end) {
        const char *next = memchr(slash + 1, '/', (size_t)(end - slash - 1));
        next = next ? next : end;
        int dots = dot_segment(slice_of(slash + 1, (size_t)(next - slash - 1)));
        if (dots == 0) {
            memmove(out + len, slash, (size_t)(next - slash));
            len += (size_t)(next - slash);
        }
        if (dots == 2) {
            len = pop_segment(out, len);
        }
        if (dots > 0 && next == end) {
            out[len++] = '/'; /* a dot segment at the end names a folder */
        }
        slash = next;
    }
    return len;
}

enum http_path
http_path_normalize(struct slice path, char *out, struct slice *result)
{
    bool has_needless;
    if (!check_path(path, &has_needless)) {
        return HTTP_PATH_BAD;
    }
    *result = path;
    if (has_needless) {
        *result = slice_of(out, unescape_needless(path, out));
    }
    if (path.ptr[0] == '/' && has_dots(*result)) {
        size_t len = remove_dot_segments(*result, out);
        if (len < result->len) { /* a path that changes gets shorter */
            *result = slice_of(out, len);
            return HTTP_PATH_RESOLVED;
        }
    }
    return has_needless ? HTTP_PATH_UNESCAPED : HTTP_PATH_NORMAL;
}
