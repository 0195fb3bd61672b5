/* SPDX-License-Identifier: Apache-2.0
 *
 * http.c - the words of HTTP: methods, fields, characters, authorities, dates; and what of a
 * message may be forwarded. Framing is in http_frame.c, paths are in http_path.c.
 */
#include "shared/http.h"

#include <arpa/inet.h>
#include <string.h>
#include <time.h>

#include "shared/http_chars.h"

#define IS_ALPHA(c) (((c) >= 'a' && (c) <= 'z') || ((c) >= 'A' && (c) <= 'Z'))
#define IS_DIGIT(c) ((c) >= '0' && (c) <= '9')
#define IS_HEX(c)   (IS_DIGIT(c) || ((c) >= 'a' && (c) <= 'f') || ((c) >= 'A' && (c) <= 'F'))
/* What both a token and a reg-name may hold besides letters and digits. */
#define IS_SHARED_MARK(c) \
    ((c) == '!' || (c) == '$' || (c) == '&' || (c) == '\'' || (c) == '*' || (c) == '+' || \
     (c) == '-' || (c) == '.' || (c) == '_' || (c) == '~')
#define IS_TOKEN_MARK(c) \
    (IS_SHARED_MARK(c) || (c) == '#' || (c) == '%' || (c) == '^' || (c) == '`' || (c) == '|')
#define IS_HOST_MARK(c) (IS_SHARED_MARK(c) || (c) == '(' || (c) == ')' || (c) == ';' || (c) == '=')
#define IS_VALUE(c)     ((c) == '\t' || ((c) >= 0x20 && (c) != 0x7f))

#define CLASS(c) \
    ((IS_ALPHA(c) || IS_DIGIT(c) || IS_TOKEN_MARK(c) ? HTTP_C_TOKEN : 0) | \
     (IS_VALUE(c) ? HTTP_C_VALUE : 0) | \
     ((c) > 0x20 && (c) < 0x7f && (c) != '#' ? HTTP_C_TARGET : 0) | \
     (IS_ALPHA(c) || IS_DIGIT(c) || IS_HOST_MARK(c) ? HTTP_C_HOST : 0) | \
     (IS_DIGIT(c) ? HTTP_C_DIGIT : 0) | (IS_HEX(c) ? HTTP_C_HEX : 0))
#define CLASS4(c)  CLASS(c), CLASS((c) + 1), CLASS((c) + 2), CLASS((c) + 3)
#define CLASS16(c) CLASS4(c), CLASS4((c) + 4), CLASS4((c) + 8), CLASS4((c) + 12)
#define CLASS64(c) CLASS16(c), CLASS16((c) + 16), CLASS16((c) + 32), CLASS16((c) + 48)

const uint8_t http_chars[256] = {CLASS64(0), CLASS64(64), CLASS64(128), CLASS64(192)};

static const struct {
    struct slice name;
    uint8_t flags;
} field_table[HTTP_FIELD_COUNT] = {{{"", 0}, 0},
#define FIELD_ROW(id, name, flags) {{name, sizeof(name) - 1}, flags},
                                   HTTP_FIELDS(FIELD_ROW)
#undef FIELD_ROW
};

static const struct {
    struct slice name;
    bool is_idempotent;
} method_table[] = {{{"", 0}, false},
#define METHOD_ROW(name, idempotent) {{#name, sizeof(#name) - 1}, idempotent},
                    HTTP_METHODS(METHOD_ROW)
#undef METHOD_ROW
};
#define METHOD_COUNT (sizeof(method_table) / sizeof(method_table[0]))

/* Open addressing: the ids by a hash of their names. Filled once before main(), so that a new field
 * is one row of HTTP_FIELDS and nothing else. */
#define FIELD_SLOTS 256
static uint8_t field_slots[FIELD_SLOTS];
static size_t field_longest;

_Static_assert(HTTP_FIELD_COUNT * 4 < FIELD_SLOTS, "a look-up must meet an empty slot soon");

/* Length, first and last letter without case tell the names of HTTP_FIELDS apart. */
static inline size_t
field_hash(struct slice name)
{
    size_t first = (uint8_t)name.ptr[0] | 0x20;
    size_t last = (uint8_t)name.ptr[name.len - 1] | 0x20;
    return (name.len * 37 + first * 5 + last) % FIELD_SLOTS;
}

__attribute__((constructor)) static void
field_slots_fill(void)
{
    for (size_t id = 1; id < HTTP_FIELD_COUNT; id++) {
        struct slice name = field_table[id].name;
        size_t i = field_hash(name);
        while (field_slots[i] != HTTP_FIELD_OTHER) {
            i = (i + 1) % FIELD_SLOTS;
        }
        field_slots[i] = (uint8_t)id;
        field_longest = name.len > field_longest ? name.len : field_longest;
    }
}

/* lower is of letters, digits and '-'; both have len bytes. */
static inline bool
is_same_name(const char *name, const char *lower, size_t len)
{
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        if (http_chars_lower(http_chars_load(name + i)) != http_chars_load(lower + i)) {
            return false;
        }
    }
    for (; i < len; i++) {
        if ((name[i] | ((name[i] & 0x40) >> 1)) != lower[i]) {
            return false;
        }
    }
    return true;
}

struct slice
http_field_name(enum http_field_id id)
{
    return field_table[id].name;
}

enum http_field_id
http_field_find_id(struct slice name)
{
    if (name.len == 0 || name.len > field_longest) {
        return HTTP_FIELD_OTHER;
    }
    for (size_t i = field_hash(name);; i = (i + 1) % FIELD_SLOTS) {
        enum http_field_id id = field_slots[i];
        struct slice known = field_table[id].name;
        if (id == HTTP_FIELD_OTHER ||
            (known.len == name.len && is_same_name(name.ptr, known.ptr, name.len))) {
            return id;
        }
    }
}

enum http_method
http_method_from(struct slice text)
{
    for (size_t i = 1; i < METHOD_COUNT; i++) {
        if (slice_eq(text, method_table[i].name)) {
            return (enum http_method)i;
        }
    }
    return HTTP_METHOD_OTHER;
}

bool
http_method_is_idempotent(enum http_method m)
{
    return method_table[m].is_idempotent;
}

const struct http_field *
http_msg_find(const struct http_msg *m, enum http_field_id id)
{
    for (size_t i = 0; i < m->nfields; i++) {
        if (m->fields[i].id == id && !m->fields[i].drop) {
            return &m->fields[i];
        }
    }
    return NULL;
}

static bool
is_all(struct slice s, uint8_t class)
{
    return http_chars_skip(s.ptr, s.ptr + s.len, class) == s.ptr + s.len;
}

bool
http_is_token(struct slice s)
{
    return s.len > 0 && is_all(s, HTTP_C_TOKEN);
}

bool
http_is_field_value(struct slice s)
{
    return s.len == 0 || http_chars_skip_value(s.ptr, s.ptr + s.len) == s.ptr + s.len;
}

bool
http_is_target(struct slice s)
{
    return s.len > 0 && is_all(s, HTTP_C_TARGET);
}

/* [p, end) is "" or ":" and a port; the port may be empty (RFC 3986 3.2.3). */
static bool
is_port_part(const char *p, const char *end)
{
    if (p == end) {
        return true;
    }
    if (*p++ != ':' || end - p > 5) {
        return false;
    }
    unsigned port = 0;
    for (; p < end; p++) {
        if (!http_char_is(*p, HTTP_C_DIGIT)) {
            return false;
        }
        port = port * 10 + (unsigned)(*p - '0');
    }
    return port <= 65535;
}

/* s begins with '['. IPvFuture and zones are refused: nobody has a use for them here. */
static bool
is_ipv6_authority(struct slice s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;
    const char *close = memchr(s.ptr, ']', s.len);
    if (!close || (size_t)(close - s.ptr) > sizeof(text)) {
        return false;
    }
    size_t len = (size_t)(close - s.ptr) - 1;
    memcpy(text, s.ptr + 1, len);
    text[len] = '\0';
    /* inet_pton stops at a NUL */
    return memchr(text, '\0', len) == NULL && inet_pton(AF_INET6, text, &addr) == 1 &&
           is_port_part(close + 1, s.ptr + s.len);
}

bool
http_is_authority(struct slice s, bool may_be_empty)
{
    if (s.len == 0) {
        return may_be_empty;
    }
    if (s.ptr[0] == '[') {
        return is_ipv6_authority(s);
    }
    const char *end = s.ptr + s.len;
    const char *host_end = http_chars_skip(s.ptr, end, HTTP_C_HOST);
    return host_end > s.ptr && host_end - s.ptr <= HTTP_HOST_MAX && is_port_part(host_end, end);
}

struct slice
http_upgrade_protocol(struct slice value)
{
    const char *slash = value.len > 0 ? memchr(value.ptr, '/', value.len) : NULL;
    size_t len = slash ? (size_t)(slash - value.ptr) : value.len;
    struct slice name = slice_of(value.ptr, len);
    bool has_version = !slash || http_is_token(slice_of(slash + 1, value.len - len - 1));
    bool is_http = slice_eq_nocase(name, SLICE("h2c")) || slice_eq_nocase(name, SLICE("h2")) ||
                   slice_eq_nocase(name, SLICE("http")) || slice_eq_nocase(name, SLICE("tls"));
    return http_is_token(name) && has_version && !is_http ? value : SLICE("");
}

bool
http_is_websocket(struct slice upgrade)
{
    return slice_eq_nocase(upgrade, SLICE("websocket"));
}

struct slice
http_list_next(struct slice *list)
{
    const char *p = list->ptr;
    const char *end = p + list->len;
    while (p < end && (http_char_is_ows(*p) || *p == ',')) {
        p++;
    }
    if (p == end) {
        *list = slice_of(end, 0);
        return *list;
    }
    const char *comma = memchr(p, ',', (size_t)(end - p));
    const char *stop = comma ? comma : end;
    *list = slice_of(stop, (size_t)(end - stop));
    while (http_char_is_ows(stop[-1])) {
        stop--;
    }
    return slice_of(p, (size_t)(stop - p));
}

/* Drop every field of that name. */
static void
drop_named(struct http_msg *m, struct slice name)
{
    for (size_t i = 0; i < m->nfields; i++) {
        if (slice_eq_nocase(m->fields[i].name, name)) {
            m->fields[i].drop = true;
        }
    }
}

/* Judge one connection option and drop what it names. */
static bool
strip_option(struct http_msg *m, struct slice option)
{
    enum http_field_id id = http_field_find_id(option);
    bool is_response = m->status != 0;
    if (id == HTTP_FIELD_TRANSFER_ENCODING && is_response) {
        return true; /* some servers list it; it is dropped and written anew in any case */
    }
    if ((field_table[id].flags & HTTP_F_END) || !http_is_token(option)) {
        return false;
    }
    drop_named(m, option);
    return true;
}

/* Go over the options of every Connection field. Their number is limited because each costs a walk
 * over the fields. */
static bool
strip_options(struct http_msg *m)
{
    int left = HTTP_OPTIONS_MAX;
    bool is_good = true;
    for (size_t i = 0; i < m->nfields; i++) {
        if (m->fields[i].id != HTTP_FIELD_CONNECTION) {
            continue;
        }
        struct slice list = m->fields[i].value;
        struct slice option;
        while ((option = http_list_next(&list)).len > 0) {
            if (left-- == 0) {
                return false;
            }
            is_good = strip_option(m, option) && is_good;
        }
    }
    return is_good;
}

bool
http_strip_hop_by_hop(struct http_msg *m)
{
    bool is_bodiless = (m->status >= 100 && m->status < 200) || m->status == 204;
    bool is_length_wrong = is_bodiless || m->body == HTTP_BODY_CHUNKED;
    for (size_t i = 0; i < m->nfields; i++) {
        struct http_field *f = &m->fields[i];
        if ((field_table[f->id].flags & HTTP_F_HOP) ||
            (f->id == HTTP_FIELD_CONTENT_LENGTH && is_length_wrong)) {
            f->drop = true;
        }
    }
    return !(m->seen & HTTP_SEEN_OPTIONS) || strip_options(m);
}

bool
http_is_hop_by_hop(const struct http_field *f)
{
    return (field_table[f->id].flags & HTTP_F_HOP) != 0;
}

bool
http_is_trailer_allowed(const struct http_field *f)
{
    return (field_table[f->id].flags & HTTP_F_TRAILER) == 0;
}

/* value as exactly count digits. */
static char *
put_digits(char *out, int value, int count)
{
    for (int i = count - 1; i >= 0; i--) {
        out[i] = (char)('0' + value % 10);
        value /= 10;
    }
    return out + count;
}

static char *
put_text(char *out, const char *text, size_t len)
{
    memcpy(out, text, len);
    return out + len;
}

void
http_date(uint64_t wall_s, char *buf)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t seconds = (time_t)wall_s;
    struct tm tm;
    gmtime_r(&seconds, &tm);
    char *p = put_text(buf, days + 3 * tm.tm_wday, 3);
    p = put_text(p, ", ", 2);
    p = put_digits(p, tm.tm_mday, 2);
    *p++ = ' ';
    p = put_text(p, months + 3 * tm.tm_mon, 3);
    *p++ = ' ';
    p = put_digits(p, tm.tm_year + 1900, 4);
    *p++ = ' ';
    p = put_digits(p, tm.tm_hour, 2);
    *p++ = ':';
    p = put_digits(p, tm.tm_min, 2);
    *p++ = ':';
    p = put_digits(p, tm.tm_sec, 2);
    put_text(p, " GMT", sizeof(" GMT"));
}

struct slice
http_status_phrase(int status)
{
    switch (status) {
    case 100: return SLICE("Continue");
    case 101: return SLICE("Switching Protocols");
    case 103: return SLICE("Early Hints");
    case 200: return SLICE("OK");
    case 201: return SLICE("Created");
    case 202: return SLICE("Accepted");
    case 203: return SLICE("Non-Authoritative Information");
    case 204: return SLICE("No Content");
    case 205: return SLICE("Reset Content");
    case 206: return SLICE("Partial Content");
    case 207: return SLICE("Multi-Status");
    case 300: return SLICE("Multiple Choices");
    case 301: return SLICE("Moved Permanently");
    case 302: return SLICE("Found");
    case 303: return SLICE("See Other");
    case 304: return SLICE("Not Modified");
    case 307: return SLICE("Temporary Redirect");
    case 308: return SLICE("Permanent Redirect");
    case 400: return SLICE("Bad Request");
    case 401: return SLICE("Unauthorized");
    case 402: return SLICE("Payment Required");
    case 403: return SLICE("Forbidden");
    case 404: return SLICE("Not Found");
    case 405: return SLICE("Method Not Allowed");
    case 406: return SLICE("Not Acceptable");
    case 407: return SLICE("Proxy Authentication Required");
    case 408: return SLICE("Request Timeout");
    case 409: return SLICE("Conflict");
    case 410: return SLICE("Gone");
    case 411: return SLICE("Length Required");
    case 412: return SLICE("Precondition Failed");
    case 413: return SLICE("Content Too Large");
    case 414: return SLICE("URI Too Long");
    case 415: return SLICE("Unsupported Media Type");
    case 416: return SLICE("Range Not Satisfiable");
    case 417: return SLICE("Expectation Failed");
    case 421: return SLICE("Misdirected Request");
    case 422: return SLICE("Unprocessable Content");
    case 425: return SLICE("Too Early");
    case 426: return SLICE("Upgrade Required");
    case 428: return SLICE("Precondition Required");
    case 429: return SLICE("Too Many Requests");
    case 431: return SLICE("Request Header Fields Too Large");
    case 451: return SLICE("Unavailable For Legal Reasons");
    case 500: return SLICE("Internal Server Error");
    case 501: return SLICE("Not Implemented");
    case 502: return SLICE("Bad Gateway");
    case 503: return SLICE("Service Unavailable");
    case 504: return SLICE("Gateway Timeout");
    case 505: return SLICE("HTTP Version Not Supported");
    default: return SLICE("");
    }
}
