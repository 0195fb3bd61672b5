/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc.c - what is different about an exchange of gRPC: see grpc.h.
 */
#include "worker/grpc.h"

#include <stdio.h>

#include "shared/grpc.h"
#include "worker/stream_private.h"
#include "worker/worker.h"

bool
grpc_is_request(const struct http_msg *req)
{
    const struct http_field *type = http_msg_find(req, HTTP_FIELD_CONTENT_TYPE);
    return type && grpc_is_content_type(type->value);
}

enum reason
grpc_begin(struct stream *s)
{
    const struct http_msg *req = &s->http->req;
    const struct http_field *timeout = NULL;
    s->is_grpc = grpc_is_request(req);
    for (unsigned i = 0; i < req->nfields && s->is_grpc; i++) {
        if (req->fields[i].id == HTTP_FIELD_GRPC_TIMEOUT) {
            if (timeout) {
                return REASON_bad_request; /* two of them: which one counts? */
            }
            timeout = &req->fields[i];
        }
    }
    uint64_t ms;
    if (!timeout) {
        return REASON_none;
    }
    if (!grpc_parse_timeout(timeout->value, &ms)) {
        return REASON_bad_request;
    }
    stream_set_deadline(s, worker_now_ms() + ms);
    return REASON_none;
}

/* The code that m says, as a head without body or as trailers. */
static void
note_code(struct stream *s, const struct http_msg *m)
{
    const struct http_field *status = http_msg_find(m, HTTP_FIELD_GRPC_STATUS);
    if (status) {
        s->http->grpc_code = (uint8_t)grpc_parse_code(status->value);
    }
}

void
grpc_on_answer(struct stream *s, const struct http_msg *m)
{
    s->http->grpc_code = (uint8_t)grpc_code_of_status(m->status);
    if (m->body == HTTP_BODY_NONE) {
        note_code(s, m);
        return;
    }
    struct end *ends[] = {&s->client, &s->server};
    for (int i = 0; i < 2; i++) {
        if (ends[i]->ops->relax) {
            ends[i]->ops->relax(s, ends[i]);
        }
    }
    stream_limit_silence(s, stream_tunnel_ms(s->conf_listener, s->policy));
}

void
grpc_on_answer_end(struct stream *s, const struct http_msg *trailers)
{
    if (trailers) {
        note_code(s, trailers);
    }
}

void
grpc_count(const struct stream *s)
{
    unsigned code =
        s->reason == REASON_none ? s->http->grpc_code : reason_table[s->reason].grpc_code;
    shm_count(&s->listener->counters->grpc_codes[code], 1);
}

unsigned
grpc_status_for(enum reason why, unsigned status)
{
    return status == 0 || why == REASON_client_closed ? status : 200;
}

void
grpc_put_failure(struct http_field *fields, char *text, enum reason why)
{
    const struct reason_info *info = &reason_table[why];
    /* No text of the table has a '%' or a byte outside ASCII, which would have to be escaped. */
    int code = snprintf(text, GRPC_FAILURE_TEXT, "%d", info->grpc_code);
    int message =
        snprintf(text + code, GRPC_FAILURE_TEXT - (size_t)code, "%s: %s", info->token, info->text);
    fields[0] = (struct http_field){.name = SLICE("grpc-status"),
                                    .value = slice_of(text, (size_t)code),
                                    .id = HTTP_FIELD_GRPC_STATUS};
    fields[1] = (struct http_field){.name = SLICE("grpc-message"),
                                    .value = slice_of(text + code, (size_t)message)};
}
