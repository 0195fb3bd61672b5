/* SPDX-License-Identifier: Apache-2.0
 *
 * diff_operator.c - where the operator's word differs from the file: see diff.h.
 */
#include <json-c/json.h>
#include <stdio.h>

#include "conf/backend_state.h"
#include "master/diff.h"
#include "master/operator.h"
#include "shared/log.h"

#define PATH_MOST 512

static void
add_entry(struct json_object *list, const char *what, struct json_object *file,
          struct json_object *said)
{
    struct json_object *entry = json_object_new_object();
    json_object_object_add(entry, "what", json_object_new_string(what));
    json_object_object_add(entry, "file", file);
    json_object_object_add(entry, "operator", said);
    json_object_array_add(list, entry);
}

static void
add_log_level(struct json_object *list, const struct shm *shm, const struct conf *conf)
{
    enum log_level level = operator_log_level(shm, conf);
    if (level != conf->log.level) {
        add_entry(list, "log.level", json_object_new_string(log_level_name(conf->log.level)),
                  json_object_new_string(log_level_name(level)));
    }
}

static void
add_difference(struct json_object *list, const struct conf_backend *b, const char *key,
               struct json_object *file, struct json_object *said)
{
    char path[PATH_MOST];
    snprintf(path, sizeof(path), "upstreams.%s.backends[%s].%s", b->upstream->name, b->id, key);
    add_entry(list, path, file, said);
}

static void
add_backend(struct json_object *list, const struct shm *shm, const struct conf_backend *b)
{
    enum conf_state state = backend_state(shm, b);
    uint64_t weight = shm_get(&shm->m->operators[b->slot].weight);
    if (state != b->state) {
        add_difference(list, b, "state", json_object_new_string(operator_state_names[b->state]),
                       json_object_new_string(operator_state_names[state]));
    }
    if (weight != 0 && weight != b->file_weight) {
        add_difference(list, b, "weight", json_object_new_int64(b->file_weight),
                       json_object_new_int64((int64_t)weight));
    }
    if (backend_breaker_said(shm, b) != BREAKER_AUTO) {
        const char *said = operator_breaker_names[backend_breaker_said(shm, b)];
        add_difference(list, b, "breaker", json_object_new_string("auto"),
                       json_object_new_string(said));
    }
}

struct json_object *
diff_operators(const struct shm *shm, const struct conf *conf)
{
    struct json_object *list = json_object_new_array();
    add_log_level(list, shm, conf);
    for (unsigned i = 0; i < conf->nupstreams; i++) {
        for (unsigned b = 0; b < conf->upstreams[i].nbackends; b++) {
            add_backend(list, shm, &conf->upstreams[i].backends[b]);
        }
    }
    return list;
}
