/* SPDX-License-Identifier: Apache-2.0
 *
 * control_request.c - requests of the control socket: see control_request.h.
 */
#include "master/control_request.h"

#include <json-c/json.h>
#include <stdio.h>

#define CONTROL_DEPTH 4

static const char *const names[] = {
    [CONTROL_RELOAD] = "reload",
    [CONTROL_STATUS] = "status",
    [CONTROL_STOP] = "stop",
    [CONTROL_UPGRADE] = "upgrade",
};

static enum control_command
find_command(const char *name, char *why, size_t why_size)
{
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], name) == 0) {
            return (enum control_command)i;
        }
    }
    snprintf(why, why_size, "unknown command");
    return CONTROL_BAD;
}

static enum control_command
read_object(struct json_object *object, char *why, size_t why_size)
{
    struct json_object *command = NULL;
    json_object_object_foreach(object, key, value)
    {
        if (strcmp(key, "command") != 0 || !json_object_is_type(value, json_type_string)) {
            snprintf(why, why_size, "expected {\"command\": \"...\"}");
            return CONTROL_BAD;
        }
        command = value;
    }
    if (!command) {
        snprintf(why, why_size, "no command");
        return CONTROL_BAD;
    }
    const char *name = json_object_get_string(command);
    if (strlen(name) != (size_t)json_object_get_string_len(command)) {
        name = ""; /* a NUL inside: strcmp would take what stands before it */
    }
    return find_command(name, why, why_size);
}

enum control_command
control_request_parse(struct slice line, char *why, size_t why_size)
{
    enum control_command result = CONTROL_BAD;
    snprintf(why, why_size, "not a JSON object");
    /* json-c takes the last of two equal keys without a word. One key has one colon, and no command
     * has any. */
    const char *colon = line.len > 0 ? memchr(line.ptr, ':', line.len) : NULL;
    if (colon && memchr(colon + 1, ':', line.len - (size_t)(colon + 1 - line.ptr))) {
        snprintf(why, why_size, "expected {\"command\": \"...\"}");
        return result;
    }
    struct json_tokener *tokener = json_tokener_new_ex(CONTROL_DEPTH);
    if (!tokener) {
        return result;
    }
    if (line.len > CONTROL_LINE_MAX) {
        json_tokener_free(tokener);
        return result;
    }
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    struct json_object *object = json_tokener_parse_ex(tokener, line.ptr, (int)line.len);
    bool is_whole = json_tokener_get_error(tokener) == json_tokener_success &&
                    json_tokener_get_parse_end(tokener) == line.len;
    if (is_whole && json_object_is_type(object, json_type_object)) {
        result = read_object(object, why, why_size);
    }
    json_object_put(object);
    json_tokener_free(tokener);
    return result;
}
