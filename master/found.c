/* SPDX-License-Identifier: Apache-2.0
 *
 * found.c - addresses of names as text, what changed among them, and how long they are good.
 */
#include "master/found.h"

#include <stdio.h>
#include <string.h>

/* ---- one address ---- */

bool
found_is_usable(const struct addr_ip *ip)
{
    static const uint8_t any[16];
    if (ip->family == AF_INET) {
        return ip->bytes[0] != 0 && ip->bytes[0] < 224;
    }
    return ip->family == AF_INET6 && ip->bytes[0] != 0xff && memcmp(ip->bytes, any, 16) != 0;
}

size_t
found_format(const struct conf_found *found, char buf[FOUND_LINE_MAX])
{
    struct addr_ip ip;
    char text[ADDR_TEXT_MAX];
    addr_ip_from_sockaddr(&found->addr.sa, found->addr.len, &ip);
    addr_ip_format(&ip, text);
    int n = snprintf(buf, FOUND_LINE_MAX, "%.46s %u %u %u", text, ip.port, found->priority,
                     found->weight);
    return (size_t)n;
}

/* The text before the next space, or all; *rest goes behind it. */
static struct slice
take_word(struct slice *rest)
{
    const char *space = rest->len ? memchr(rest->ptr, ' ', rest->len) : NULL;
    size_t len = space ? (size_t)(space - rest->ptr) : rest->len;
    struct slice word = slice_of(rest->ptr, len);
    size_t used = space ? len + 1 : len;
    *rest = slice_of(rest->ptr + used, rest->len - used);
    return word;
}

static bool
take_number(struct slice *rest, uint16_t *number)
{
    struct slice word = take_word(rest);
    unsigned value = 0;
    if (word.len == 0 || word.len > 5 || (word.len > 1 && word.ptr[0] == '0')) {
        return false;
    }
    for (size_t i = 0; i < word.len; i++) {
        if (word.ptr[i] < '0' || word.ptr[i] > '9') {
            return false;
        }
        value = value * 10 + (unsigned)(word.ptr[i] - '0');
    }
    *number = (uint16_t)value;
    return value <= UINT16_MAX;
}

int
found_parse(struct slice line, bool is_srv, struct conf_found *found)
{
    struct addr_ip ip;
    uint16_t port, priority, weight;
    struct slice rest = line;
    struct slice text = take_word(&rest);
    if (addr_ip_parse(text, &ip) < 0 || !found_is_usable(&ip) || !take_number(&rest, &port) ||
        !take_number(&rest, &priority) || !take_number(&rest, &weight) ||
        rest.ptr != line.ptr + line.len || line.ptr[line.len - 1] == ' ' || (port != 0) != is_srv ||
        (!is_srv && (priority != 0 || weight != 0))) {
        return -1;
    }
    memset(found, 0, sizeof(*found));
    addr_from_ip(&ip, port, &found->addr);
    found->priority = priority;
    found->weight = weight;
    return 0;
}

/* ---- an answer ---- */

size_t
found_answer_format(const char *host, bool is_srv, const struct conf_found *found, unsigned n,
                    char buf[FOUND_ANSWER_MAX])
{
    size_t len =
        (size_t)snprintf(buf, FOUND_HOST_MAX + 8, "%s%.255s\n", is_srv ? "srv:" : "", host);
    for (unsigned i = 0; i < n && i < CONF_FOUND_MAX; i++) {
        len += found_format(&found[i], buf + len);
        buf[len++] = '\n';
    }
    return len;
}

/* The text before the next line end; false when there is none. */
static bool
take_line(struct slice *rest, struct slice *line)
{
    const char *end = rest->len ? memchr(rest->ptr, '\n', rest->len) : NULL;
    if (!end) {
        return false;
    }
    *line = slice_of(rest->ptr, (size_t)(end - rest->ptr));
    *rest = slice_of(end + 1, rest->len - line->len - 1);
    return true;
}

int
found_answer_parse(struct slice text, struct found_answer *answer)
{
    struct slice rest = text, line;
    if (!take_line(&rest, &answer->host)) {
        return -1;
    }
    answer->is_srv = slice_starts_with(answer->host, SLICE("srv:"));
    if (answer->is_srv) {
        answer->host = slice_of(answer->host.ptr + 4, answer->host.len - 4);
    }
    if (answer->host.len == 0 || answer->host.len >= FOUND_HOST_MAX) {
        return -1;
    }
    answer->n = 0;
    while (take_line(&rest, &line)) {
        if (answer->n == CONF_FOUND_MAX ||
            found_parse(line, answer->is_srv, &answer->found[answer->n]) < 0) {
            return -1;
        }
        answer->n++;
    }
    answer->n = conf_found_sort(answer->found, answer->n);
    return rest.len == 0 && answer->n > 0 ? 0 : -1;
}

/* ---- changes ---- */

static bool
is_equal(const struct conf_found *a, const struct conf_found *b)
{
    return addr_eq(&a->addr, &b->addr) && a->priority == b->priority && a->weight == b->weight;
}

static bool
has(const struct conf_found *list, unsigned n, const struct conf_found *one)
{
    for (unsigned i = 0; i < n; i++) {
        if (is_equal(&list[i], one)) {
            return true;
        }
    }
    return false;
}

bool
found_same(const struct conf_found *a, unsigned na, const struct conf_found *b, unsigned nb)
{
    if (na != nb) {
        return false;
    }
    for (unsigned i = 0; i < na; i++) {
        if (!has(b, nb, &a[i])) {
            return false;
        }
    }
    return true;
}

/* "10.0.0.1", of SRV records "10.0.0.1:80 (priority 1, weight 2)". */
static void
describe_one(const struct conf_found *found, char *buf, size_t size)
{
    struct addr_ip ip;
    char text[ADDR_TEXT_MAX];
    addr_ip_from_sockaddr(&found->addr.sa, found->addr.len, &ip);
    if (ip.port == 0) {
        addr_ip_format(&ip, text);
        snprintf(buf, size, "%s", text);
    } else {
        addr_format(&found->addr, text);
        snprintf(buf, size, "%s (priority %u, weight %u)", text, found->priority, found->weight);
    }
}

/* Those of list that are not in other, as far as there is room. Returns the length of buf. */
static size_t
describe_part(const struct conf_found *list, unsigned n, const struct conf_found *other,
              unsigned nother, char sign, size_t len, char *buf, size_t size)
{
    char one[ADDR_TEXT_MAX + 64];
    for (unsigned i = 0; i < n; i++) {
        if (has(other, nother, &list[i])) {
            continue;
        }
        describe_one(&list[i], one, sizeof(one));
        if (len + strlen(one) + 16 > size) {
            len += (size_t)snprintf(buf + len, size - len, ", ...");
            break;
        }
        len += (size_t)snprintf(buf + len, size - len, "%s%c %s", len ? ", " : "", sign, one);
    }
    return len;
}

void
found_describe(const struct conf_found *a, unsigned na, const struct conf_found *b, unsigned nb,
               char *buf, size_t size)
{
    buf[0] = '\0';
    size_t len = describe_part(b, nb, a, na, '+', 0, buf, size - size / 2);
    describe_part(a, na, b, nb, '-', len, buf, size);
}

/* ---- time to live ---- */

/* Behind a name that begins at `at`: labels up to the root, or up to a pointer. NULL: it has no
 * end. */
static const unsigned char *
skip_name(const unsigned char *at, const unsigned char *end)
{
    while (at < end) {
        if (*at == 0) {
            return at + 1;
        }
        if (*at >= 0xc0) {
            return end - at >= 2 ? at + 2 : NULL;
        }
        if (*at > 63 || end - at <= *at) {
            return NULL;
        }
        at += *at + 1;
    }
    return NULL;
}

static unsigned
read_16(const unsigned char *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

bool
found_is_response(const unsigned char *message, size_t len)
{
    return len >= 12 && (message[2] & 0x80);
}

int
found_least_ttl(const unsigned char *message, size_t len, uint32_t *ttl_s)
{
    const unsigned char *at = message + 12, *end = message + len;
    if (len < 12) {
        return -1;
    }
    unsigned questions = read_16(message + 4), answers = read_16(message + 6);
    for (; questions > 0; questions--) {
        at = skip_name(at, end);
        if (!at || end - at < 4) {
            return -1;
        }
        at += 4; /* type, class */
    }
    *ttl_s = UINT32_MAX;
    for (unsigned i = 0; i < answers; i++) {
        at = skip_name(at, end);
        if (!at || end - at < 10 || (size_t)(end - at) - 10 < read_16(at + 8)) {
            return -1;
        }
        uint32_t ttl = (uint32_t)read_16(at + 4) << 16 | read_16(at + 6);
        ttl = ttl > INT32_MAX ? 0 : ttl; /* RFC 2181 8 */
        *ttl_s = ttl < *ttl_s ? ttl : *ttl_s;
        at += 10 + read_16(at + 8);
    }
    return answers > 0 ? 0 : -1;
}
