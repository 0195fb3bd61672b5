/* SPDX-License-Identifier: Apache-2.0
 *
 * http_path.c - paths as routes and backends are to see them: without dot segments.
 */
#include "shared/http.h"

#include "shared/http_chars.h"

/* Is [p, end) a dot, plain or as %2e? Its width then, else 0. */
static size_t
dot_width(const char *p, const char *end)
{
    if (p < end && *p == '.') {
        return 1;
    }
    return end - p >= 3 && p[0] == '%' && p[1] == '2' && (p[2] | 0x20) == 'e' ? 3 : 0;
}

/* How many dots is the segment made of: 1 or 2, else 0. */
static int
dot_segment(struct slice segment)
{
    const char *p = segment.ptr;
    const char *end = p + segment.len;
    size_t width = dot_width(p, end);
    if (width == 0) {
        return 0;
    }
    p += width;
    if (p == end) {
        return 1;
    }
    width = dot_width(p, end);
    return width > 0 && p + width == end ? 2 : 0;
}

/* Are all percent escapes whole, none of them %00, and no '#' among the bytes? *has_dots: some
 * segment begins with a dot, so that the path must be gone over. */
static bool
check_path(struct slice path, bool *has_dots)
{
    const char *end = path.ptr + path.len;
    *has_dots = false;
    for (const char *p = path.ptr; p < end; p++) {
        if (*p == '/') {
            *has_dots = *has_dots || dot_width(p + 1, end) > 0;
        } else if (*p == '#' || *p == '\0') {
            return false;
        } else if (*p == '%') {
            if (end - p < 3 || !http_char_is(p[1], HTTP_C_HEX) || !http_char_is(p[2], HTTP_C_HEX) ||
                (p[1] == '0' && p[2] == '0')) {
                return false;
            }
        }
    }
    return true;
}

/* The length of out without its last segment and that one's slash. */
static size_t
pop_segment(const char *out, size_t len)
{
    while (len > 0 && out[--len] != '/') {
    }
    return len;
}

/* RFC 3986 5.2.4 over a path that begins with '/'; ".." at the root stays at the root. Returns the
 * bytes written to out. */
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
            memcpy(out + len, slash, (size_t)(next - slash));
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

bool
http_path_normalize(struct slice path, char *out, struct slice *result)
{
    bool has_dots;
    if (!check_path(path, &has_dots)) {
        return false;
    }
    *result = path;
    if (!has_dots || path.ptr[0] != '/') {
        return true;
    }
    size_t len = remove_dot_segments(path, out);
    if (len < path.len) { /* a path that changes gets shorter */
        *result = slice_of(out, len);
    }
    return true;
}
