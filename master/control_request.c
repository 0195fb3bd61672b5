/* SPDX-License-Identifier: Apache-2.0
 *
 * control_request.c - requests of the control socket: see control_request.h.
 */
#include "master/control_request.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CONTROL_DEPTH 4

/* Members besides "command". */
enum {
    HAS_BACKEND = 1,
    HAS_WEIGHT = 2,
    HAS_LEVEL = 4,
    HAS_NAME = 8,
    HAS_TEXT = 16,
    HAS_URL = 32,
    HAS_HOST = 64,
    HAS_METHOD = 128,
    HAS_CLIENT = 256,
    HAS_STATE = 512
};

static const struct {
    const char *name;
    unsigned needed, allowed;
    unsigned paired; /* of the allowed ones: all or none */
} commands[] = {
    [CONTROL_RELOAD] = {"reload", 0, 0, 0},
    [CONTROL_STATUS] = {"status", 0, 0, 0},
    [CONTROL_STOP] = {"stop", 0, 0, 0},
    [CONTROL_UPGRADE] = {"upgrade", 0, 0, 0},
    [CONTROL_READY] = {"ready", HAS_BACKEND, 0, 0},
    [CONTROL_DRAIN] = {"drain", HAS_BACKEND, 0, 0},
    [CONTROL_MAINT] = {"maint", HAS_BACKEND, 0, 0},
    [CONTROL_WEIGHT] = {"weight", HAS_BACKEND | HAS_WEIGHT, 0, 0},
    [CONTROL_BREAKER] = {"breaker", HAS_BACKEND | HAS_STATE, 0, 0},
    [CONTROL_LOG] = {"log", HAS_LEVEL, 0, 0},
    [CONTROL_CONFIG] = {"config", 0, 0, 0},
    [CONTROL_DIFF] = {"diff", 0, HAS_NAME | HAS_TEXT, HAS_NAME | HAS_TEXT},
    [CONTROL_EXPLAIN] = {"explain", HAS_URL, HAS_HOST | HAS_METHOD | HAS_CLIENT, 0},
};

static const struct {
    const char *key;
    size_t offset; /* of its text; the weight is no text */
    unsigned bit;
} members[] = {
    {"backend", offsetof(struct control_request, backend), HAS_BACKEND},
    {"weight", 0, HAS_WEIGHT},
    {"state", offsetof(struct control_request, state), HAS_STATE},
    {"level", offsetof(struct control_request, level), HAS_LEVEL},
    {"name", offsetof(struct control_request, name), HAS_NAME},
    {"text", offsetof(struct control_request, text), HAS_TEXT},
    {"url", offsetof(struct control_request, url), HAS_URL},
    {"host", offsetof(struct control_request, host), HAS_HOST},
    {"method", offsetof(struct control_request, method), HAS_METHOD},
    {"client", offsetof(struct control_request, client), HAS_CLIENT},
};

#define MEMBERS (sizeof(members) / sizeof(members[0]))

/* A text without a NUL inside, which would hide what stands behind it; else NULL. */
static const char *
text_of(struct json_object *value)
{
    if (!json_object_is_type(value, json_type_string)) {
        return NULL;
    }
    const char *text = json_object_get_string(value);
    return strlen(text) == (size_t)json_object_get_string_len(value) ? text : NULL;
}

static bool
take_command(struct control_request *out, struct json_object *value)
{
    const char *name = text_of(value);
    for (unsigned i = 0; name && i < CONTROL_BAD; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            out->command = (enum control_command)i;
            return true;
        }
    }
    return false;
}

/* What a member is called that bits has; NULL: it has none. */
static const char *
member_name(unsigned bits)
{
    for (unsigned i = 0; i < MEMBERS; i++) {
        if (members[i].bit & bits) {
            return members[i].key;
        }
    }
    return NULL;
}

/* The bit of the member; 0: it is none, or not of its type. */
static unsigned
take_member(struct control_request *out, const char *key, struct json_object *value, char *why,
            size_t why_size)
{
    unsigned i = 0;
    while (i < MEMBERS && strcmp(members[i].key, key) != 0) {
        i++;
    }
    if (i == MEMBERS) {
        snprintf(why, why_size, "\"%.32s\": no command takes it", key);
        return 0;
    }
    if (members[i].bit == HAS_WEIGHT) {
        out->weight = json_object_get_int64(value);
        snprintf(why, why_size, "\"%s\": expected a whole number", key);
        return json_object_is_type(value, json_type_int) ? HAS_WEIGHT : 0;
    }
    const char *text = text_of(value);
    memcpy((char *)out + members[i].offset, &text, sizeof(text));
    snprintf(why, why_size, "\"%s\": expected a text", key);
    return text ? members[i].bit : 0;
}

/* Does the command have what it takes, and no more? */
static bool
check_members(enum control_command command, unsigned has, char *why, size_t why_size)
{
    unsigned needed = commands[command].needed;
    if (has & commands[command].paired) {
        needed |= commands[command].paired;
    }
    unsigned surplus = has & ~(needed | commands[command].allowed);
    if (needed & ~has) {
        snprintf(why, why_size, "%s: \"%s\" is missing", commands[command].name,
                 member_name(needed & ~has));
    } else if (surplus) {
        snprintf(why, why_size, "%s: takes no \"%s\"", commands[command].name,
                 member_name(surplus));
    }
    return !(needed & ~has) && !surplus;
}

static enum control_command
take_object(struct control_request *out, char *why, size_t why_size)
{
    unsigned has = 0;
    json_object_object_foreach(out->json, key, value)
    {
        if (strcmp(key, "command") == 0) {
            if (!take_command(out, value)) {
                snprintf(why, why_size, "unknown command");
                return CONTROL_BAD;
            }
            continue;
        }
        unsigned bit = take_member(out, key, value, why, why_size);
        if (bit == 0) {
            return CONTROL_BAD;
        }
        has |= bit;
    }
    if (out->command == CONTROL_BAD) {
        snprintf(why, why_size, "\"command\" is missing");
        return CONTROL_BAD;
    }
    return check_members(out->command, has, why, why_size) ? out->command : CONTROL_BAD;
}

/* Colons outside of strings: one for each member, since no value has members of its own. json-c
 * takes the last of two equal keys without a word; here their number tells. */
static int
count_colons(struct slice line)
{
    int colons = 0;
    bool is_inside = false;
    for (size_t i = 0; i < line.len; i++) {
        if (is_inside && line.ptr[i] == '\\') {
            i++;
        } else if (line.ptr[i] == '"') {
            is_inside = !is_inside;
        } else if (line.ptr[i] == ':' && !is_inside) {
            colons++;
        }
    }
    return colons;
}

static struct json_object *
parse_object(struct slice line)
{
    struct json_tokener *tokener = json_tokener_new_ex(CONTROL_DEPTH);
    if (!tokener || line.len > CONTROL_LINE_MAX) {
        json_tokener_free(tokener);
        return NULL;
    }
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    struct json_object *object = json_tokener_parse_ex(tokener, line.ptr, (int)line.len);
    bool is_whole = json_tokener_get_error(tokener) == json_tokener_success &&
                    json_tokener_get_parse_end(tokener) == line.len;
    json_tokener_free(tokener);
    if (!is_whole || !json_object_is_type(object, json_type_object)) {
        json_object_put(object);
        return NULL;
    }
    return object;
}

enum control_command
control_request_parse(struct slice line, struct control_request *out, char *why, size_t why_size)
{
    memset(out, 0, sizeof(*out));
    out->command = CONTROL_BAD;
    out->json = parse_object(line);
    if (!out->json) {
        snprintf(why, why_size, "not a JSON object");
    } else if (count_colons(line) != json_object_object_length(out->json)) {
        snprintf(why, why_size, "expected an object of texts and numbers, each once");
    } else {
        out->command = take_object(out, why, why_size);
    }
    return out->command;
}

void
control_request_fini(struct control_request *request)
{
    json_object_put(request->json);
    request->json = NULL;
}
