/* SPDX-License-Identifier: Apache-2.0
 *
 * command.c - answers of the control socket: see command.h.
 */
#include "master/command.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "master/diff.h"
#include "master/explain.h"
#include "master/master.h"
#include "master/operator.h"
#include "master/status_json.h"

#define WHY_MOST 512

struct json_object *
command_reply(bool is_ok, const char *why)
{
    struct json_object *reply = json_object_new_object();
    json_object_object_add(reply, "ok", json_object_new_boolean(is_ok));
    if (!is_ok) {
        json_object_object_add(reply, "error", json_object_new_string(why));
    }
    return reply;
}

/* {"ok": true, key: value}; takes value. */
static struct json_object *
reply_with(const char *key, struct json_object *value)
{
    struct json_object *reply = command_reply(value != NULL, "out of memory");
    if (value) {
        json_object_object_add(reply, key, value);
    }
    return reply;
}

/* The text is not NUL-terminated. */
static struct json_object *
read_json(const char *text, size_t len)
{
    struct json_tokener *tokener = json_tokener_new();
    struct json_object *object = tokener ? json_tokener_parse_ex(tokener, text, (int)len) : NULL;
    json_tokener_free(tokener);
    return object;
}

static struct json_object *
answer_status(void)
{
    size_t len = 0;
    char *text = status_json_render(&master.shm, master.current.conf, &len);
    struct json_object *reply = reply_with("status", text ? read_json(text, len) : NULL);
    free(text);
    return reply;
}

static struct json_object *
answer_state(const struct control_request *request, enum conf_state state)
{
    char why[WHY_MOST];
    bool is_ok = operator_set_state(request->backend, state, why, sizeof(why)) == 0;
    return command_reply(is_ok, why);
}

static struct json_object *
answer_breaker(const struct control_request *request)
{
    char why[WHY_MOST];
    for (unsigned said = 0; said < OPERATOR_BREAKERS; said++) {
        if (strcmp(request->state, operator_breaker_names[said]) == 0) {
            bool is_ok = operator_set_breaker(request->backend, (enum breaker_said)said, why,
                                              sizeof(why)) == 0;
            return command_reply(is_ok, why);
        }
    }
    return command_reply(false, "a breaker is told open, close or auto");
}

static struct json_object *
answer_log(const struct control_request *request)
{
    char why[WHY_MOST];
    return command_reply(operator_set_log_level(request->level, why, sizeof(why)) == 0, why);
}

static struct json_object *
answer_explain(const struct control_request *request)
{
    char why[WHY_MOST];
    struct explain_question q = {.url = request->url,
                                 .host = request->host,
                                 .method = request->method,
                                 .client = request->client};
    struct json_object *told =
        explain_request(&master.shm, master.current.conf, &q, why, sizeof(why));
    return told ? reply_with("explain", told) : command_reply(false, why);
}

struct json_object *
command_answer(const struct control_request *request)
{
    switch (request->command) {
    case CONTROL_STATUS: return answer_status();
    case CONTROL_READY: return answer_state(request, CONF_READY);
    case CONTROL_DRAIN: return answer_state(request, CONF_DRAIN);
    case CONTROL_MAINT: return answer_state(request, CONF_MAINT);
    case CONTROL_BREAKER: return answer_breaker(request);
    case CONTROL_LOG: return answer_log(request);
    case CONTROL_CONFIG:
        return reply_with("config", json_object_new_string(master.current.conf->json));
    case CONTROL_EXPLAIN: return answer_explain(request);
    default: return command_reply(false, "this command has no answer");
    }
}

struct json_object *
command_changed(struct json_object *diff)
{
    if (!diff) {
        return command_reply(true, "");
    }
    return reply_with("diff", diff);
}

struct json_object *
command_diff(const struct conf *after)
{
    struct json_object *diff = diff_confs(&master.shm, master.current.conf, after);
    json_object_object_add(diff, "operator", diff_operators(&master.shm, master.current.conf));
    return reply_with("diff", diff);
}
