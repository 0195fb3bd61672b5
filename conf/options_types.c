/* SPDX-License-Identifier: Apache-2.0
 *
 * options_types.c - what each type of value may look like, and its canonical form.
 */
#include "conf/options.h"

#include "shared/http.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>

/* ---- readers, one a type ---- */

/* A call's arguments in one place; node is made canonical, value filled. */
struct reading {
    struct option_reader *reader;
    const struct option *row;
    struct node *node;
    struct option_value *value;
    const char *why;
};

static bool
in_range(const struct reading *r, uint64_t number)
{
    r->value->number = number;
    return r->node->is_default || (number >= r->row->min && number <= r->row->max);
}

static bool
read_bool(struct reading *r)
{
    r->value->number = r->node->kind == NODE_BOOL && r->node->yes;
    return r->node->kind == NODE_BOOL;
}

static bool
read_count(struct reading *r)
{
    return r->node->kind == NODE_NUMBER && r->node->number >= 0 &&
           in_range(r, (uint64_t)r->node->number);
}

static bool
read_workers(struct reading *r)
{
    if (r->node->kind == NODE_STRING && strcmp(r->node->text, "auto") == 0) {
        r->value->number = 0;
        return true;
    }
    return read_count(r);
}

static bool
read_port(struct reading *r)
{
    if (r->node->kind == NODE_STRING) {
        const char *text = r->node->text;
        size_t len = strlen(text);
        if (len == 0 || len > 5 || strspn(text, "0123456789") != len) {
            return false;
        }
        node_set_number(r->node, atol(text));
    }
    return read_count(r);
}

static bool
read_percent(struct reading *r)
{
    if (r->node->kind == NODE_STRING) {
        char *rest;
        unsigned long number = strtoul(r->node->text, &rest, 10);
        if (!isdigit((unsigned char)r->node->text[0]) || strcmp(rest, "%") != 0 || number > 1000) {
            return false;
        }
        node_set_number(r->node, (int64_t)number);
    }
    return read_count(r);
}

/* A plain number is seconds. */
static bool
duration_of(const struct node *node, uint64_t *ms)
{
    if (node->kind == NODE_STRING) {
        return option_duration_parse(node->text, ms) == 0;
    }
    if (node->kind == NODE_NUMBER && node->number >= 0 && node->number <= INT32_MAX) {
        *ms = (uint64_t)node->number * 1000;
        return true;
    }
    if (node->kind == NODE_REAL && node->real >= 0 && node->real <= INT32_MAX) {
        *ms = (uint64_t)(node->real * 1000 + 0.5);
        return true;
    }
    return false;
}

static bool
read_duration(struct reading *r)
{
    char canonical[32];
    uint64_t ms = 0;
    if (!duration_of(r->node, &ms) || !in_range(r, ms)) {
        return false;
    }
    option_duration_format(canonical, sizeof(canonical), ms);
    node_set_text(r->node, conf_arena_copy(r->reader->arena, slice_from_str(canonical)));
    return true;
}

static bool
read_size(struct reading *r)
{
    char canonical[32];
    uint64_t bytes = 0;
    if (r->node->kind == NODE_NUMBER && r->node->number >= 0) {
        bytes = (uint64_t)r->node->number;
    } else if (r->node->kind != NODE_STRING || option_size_parse(r->node->text, &bytes) < 0) {
        return false;
    }
    if (!in_range(r, bytes)) {
        return false;
    }
    const char *text = option_size_format(canonical, sizeof(canonical), bytes);
    if (isdigit((unsigned char)text[strlen(text) - 1])) {
        node_set_number(r->node, (int64_t)bytes);
    } else {
        node_set_text(r->node, conf_arena_copy(r->reader->arena, slice_from_str(text)));
    }
    return true;
}

static bool
read_word(struct reading *r)
{
    if (r->node->kind != NODE_STRING) {
        return false;
    }
    size_t len = strlen(r->node->text);
    uint64_t number = r->row->min;
    for (const char *word = r->row->words; word; number++) {
        size_t word_len = strcspn(word, "|");
        if (word_len == len && memcmp(word, r->node->text, len) == 0) {
            r->value->number = number;
            return true;
        }
        word = word[word_len] ? word + word_len + 1 : NULL;
    }
    return false;
}

/* Any string within the row's bounds of length. */
static bool
read_text(struct reading *r)
{
    if (r->node->kind != NODE_STRING) {
        return false;
    }
    size_t len = strlen(r->node->text);
    r->value->text = r->node->text;
    if (len > r->row->max && r->row->max) {
        r->why = "too long";
        return false;
    }
    return len >= r->row->min;
}

static bool
consists_of(const char *text, const char *others)
{
    for (; *text; text++) {
        if (!isalnum((unsigned char)*text) && !strchr(others, *text)) {
            return false;
        }
    }
    return true;
}

static bool
read_name(struct reading *r)
{
    return read_text(r) && consists_of(r->node->text, "._-");
}

static bool
read_method(struct reading *r)
{
    return read_text(r) && consists_of(r->node->text, "!#$%&'*+-.^_`|~");
}

static bool
read_file(struct reading *r)
{
    if (!read_text(r)) {
        return false;
    }
    if (r->node->text[0] != '/') {
        const struct included *file = r->node->at.file;
        node_set_text(r->node,
                      conf_arena_format(r->reader->arena, "%s/%s",
                                        file ? file->folder : r->reader->folder, r->node->text));
    }
    return read_text(r);
}

static bool
read_target(struct reading *r)
{
    bool is_word = r->node->kind == NODE_STRING &&
                   (strcmp(r->node->text, "stderr") == 0 || strcmp(r->node->text, "syslog") == 0);
    return is_word ? read_text(r) : read_file(r);
}

static bool
read_octal(struct reading *r)
{
    if (!read_text(&(struct reading){r->reader, &(struct option){.min = 1, .max = 5}, r->node,
                                     r->value, NULL}) ||
        strspn(r->node->text, "01234567") != strlen(r->node->text)) {
        return false;
    }
    return in_range(r, strtoul(r->node->text, NULL, 8));
}

/* In lower case, without a trailing dot. */
static void
make_host_canonical(struct reading *r)
{
    char *text = conf_arena_copy(r->reader->arena, slice_from_str(r->node->text));
    size_t len = strlen(text);
    for (char *at = text; *at; at++) {
        *at = (char)tolower((unsigned char)*at);
    }
    if (len > 1 && text[len - 1] == '.') {
        text[len - 1] = '\0';
    }
    r->value->text = text;
    node_set_text(r->node, text);
}

static bool
read_host(struct reading *r)
{
    return read_text(r) && consists_of(r->node->text, "._-:[]");
}

static bool
read_pattern(struct reading *r)
{
    if (!read_text(r)) {
        return false;
    }
    const char *rest = r->node->text;
    if (strncmp(rest, "*.", 2) == 0) {
        rest += 2;
    }
    if (rest[0] == '\0' || rest[0] == '.' || !consists_of(rest, "._-[]:") ||
        (rest[0] != '[' && strchr(rest, ':'))) {
        return false;
    }
    make_host_canonical(r);
    return true;
}

/* Visible ASCII that begins with a slash. */
static bool
is_request(const char *text, const char *but)
{
    if (text[0] != '/') {
        return false;
    }
    for (; *text; text++) {
        if (*text <= ' ' || *text >= 0x7f || strchr(but, *text)) {
            return false;
        }
    }
    return true;
}

/* Is it a path as routes see those of requests? Else it would match none. */
static bool
is_normal(struct reading *r)
{
    struct slice path = slice_from_str(r->node->text);
    char *room = malloc(path.len);
    struct slice normal;
    if (!room) {
        abort();
    }
    bool is_whole = http_path_normalize(path, room, &normal);
    free(room);
    if (!is_whole) {
        r->why = "a percent escape is no byte, or %00";
    } else if (normal.len != path.len) {
        r->why =
            "no request's path has the segments . and .., or escapes of letters, digits and -._~, "
            "when it is compared";
    }
    return is_whole && normal.len == path.len;
}

static bool
read_prefix(struct reading *r)
{
    return read_text(r) && is_request(r->node->text, "?#\\") && is_normal(r);
}

static bool
read_request(struct reading *r)
{
    return read_text(r) && is_request(r->node->text, "#");
}

/* "200-399", "200,301-302" */
static bool
is_status(const char *text)
{
    for (;;) {
        char *rest;
        unsigned long from = strtoul(text, &rest, 10), to = from;
        if (rest != text + 3 || !isdigit((unsigned char)*text)) {
            return false;
        }
        if (*rest == '-') {
            text = rest + 1;
            to = strtoul(text, &rest, 10);
            if (rest != text + 3 || !isdigit((unsigned char)*text)) {
                return false;
            }
        }
        if (from < 100 || to > 599 || from > to || (*rest && *rest != ',')) {
            return false;
        }
        if (!*rest) {
            return true;
        }
        text = rest + 1;
    }
}

static bool
read_status(struct reading *r)
{
    if (r->node->kind == NODE_NUMBER && r->node->number >= 100 && r->node->number <= 599) {
        node_set_text(r->node, conf_arena_format(r->reader->arena, "%" PRId64, r->node->number));
    }
    return r->node->kind == NODE_STRING && is_status(r->node->text);
}

static bool
read_any_address(struct reading *r, bool may_be_any)
{
    struct addr_spec spec;
    if (r->node->kind != NODE_STRING) {
        return false;
    }
    r->value->text = r->node->text;
    return addr_parse(slice_from_str(r->node->text), may_be_any, &spec, &r->why) == 0;
}

static bool
read_address(struct reading *r)
{
    return read_any_address(r, false);
}

static bool
read_bind(struct reading *r)
{
    return read_any_address(r, true);
}

static bool
read_cidr(struct reading *r)
{
    struct cidr net;
    return r->node->kind == NODE_STRING && cidr_parse(slice_from_str(r->node->text), &net) == 0;
}

static bool
read_ip(struct reading *r)
{
    struct addr_ip ip;
    return r->node->kind == NODE_STRING && addr_ip_parse(slice_from_str(r->node->text), &ip) == 0;
}

static bool
read_peer(struct reading *r)
{
    return read_cidr(r) || (r->node->kind == NODE_STRING && strcmp(r->node->text, "unix") == 0);
}

/* Microseconds between two, rounded: at most a million a second. */
static bool
read_rate(struct reading *r)
{
    static const struct {
        const char *unit;
        uint64_t us;
    } units[] = {{"/s", 1000000}, {"/m", 60000000}, {"/h", 3600000000}};
    if (r->node->kind != NODE_STRING || !isdigit((unsigned char)r->node->text[0])) {
        return false;
    }
    char *unit;
    uint64_t count = strtoull(r->node->text, &unit, 10);
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(unit, units[i].unit) == 0) {
            return count > 0 && count <= units[i].us &&
                   in_range(r, (units[i].us + count / 2) / count);
        }
    }
    return false;
}

/* A word, or what stands for one that ends in ":NAME". */
static bool
read_key(struct reading *r)
{
    if (!read_text(r)) {
        return false;
    }
    const char *text = r->node->text;
    for (const char *word = r->row->words; word;
         word = strchr(word, '|') ? strchr(word, '|') + 1 : NULL) {
        size_t len = strcspn(word, "|");
        const char *colon = memchr(word, ':', len);
        size_t prefix = colon ? (size_t)(colon - word) + 1 : len;
        bool is_alike = strncmp(text, word, prefix) == 0;
        if (is_alike &&
            (colon ? http_is_token(slice_from_str(text + prefix)) : text[len] == '\0')) {
            return true;
        }
    }
    return false;
}

/* ---- the table of types ---- */

static const struct {
    bool (*read)(struct reading *r);
    const char *expected; /* NULL: made from the row */
    bool is_text;         /* stored as a pointer */
} types[TYPE_COUNT_OF_TYPES] = {
    [TYPE_BOOL] = {read_bool, "true or false", false},
    [TYPE_COUNT] = {read_count, NULL, false},
    [TYPE_WORKERS] = {read_workers, NULL, false},
    [TYPE_PORT] = {read_port, "a port from 1 to 65535", false},
    [TYPE_DURATION] = {read_duration, NULL, false},
    [TYPE_SIZE] = {read_size, NULL, false},
    [TYPE_PERCENT] = {read_percent, "a percentage from 0 to 100", false},
    [TYPE_WORD] = {read_word, NULL, false},
    [TYPE_NAME] = {read_name, "a name of letters, digits, '.', '_' and '-'", true},
    [TYPE_TEXT] = {read_text, "a string", true},
    [TYPE_FILE] = {read_file, "a path", true},
    [TYPE_TARGET] = {read_target, "\"stderr\", \"syslog\" or a path", true},
    [TYPE_OCTAL] = {read_octal, "permissions in octal such as \"0600\"", false},
    [TYPE_HOST] = {read_host, "a host name or an IP address", true},
    [TYPE_PATTERN] = {read_pattern, "a host name or \"*.\" and a suffix", true},
    [TYPE_PREFIX] = {read_prefix, "a path that begins with '/'", true},
    [TYPE_REQUEST] = {read_request, "a path that begins with '/'", true},
    [TYPE_METHOD] = {read_method, "a method such as \"GET\"", true},
    [TYPE_STATUS] = {read_status, "status codes such as \"200-399\"", false},
    [TYPE_ADDRESS] = {read_address, "an address such as \"127.0.0.1:8081\"", true},
    [TYPE_BIND] = {read_bind, "an address such as \":8080\" or \"127.0.0.1:8080\"", true},
    [TYPE_CIDR] = {read_cidr, "a network such as \"10.0.0.0/8\"", false},
    [TYPE_IP] = {read_ip, "an address such as \"10.0.0.1\" or \"2001:db8::1\"", false},
    [TYPE_PEER] = {read_peer, "a network such as \"10.0.0.0/8\", or \"unix\"", false},
    [TYPE_RATE] = {read_rate, "a rate such as \"100/s\", \"6000/m\" or \"10/h\"", false},
    [TYPE_KEY] = {read_key, NULL, true},
};

bool
option_is_text(enum option_type type)
{
    return types[type].is_text;
}

bool
option_read_value(struct option_reader *reader, const struct option *row, struct node *node,
                  struct option_value *value, const char **why)
{
    struct reading r = {reader, row, node, value, NULL};
    bool is_well = types[row->type].read(&r);
    *why = r.why;
    return is_well;
}

const char *
option_type_expected(enum option_type type)
{
    return types[type].expected;
}
