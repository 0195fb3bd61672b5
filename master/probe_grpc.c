/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_grpc.c - a health check by gRPC: see probe_grpc.h.
 */
#include "master/probe_grpc.h"

#include <stdio.h>
#include <stdlib.h>

#define HEALTH_PATH "/grpc.health.v1.Health/Check"

/* Keys of protobuf fields: number << 3 | wire type. */
#define KEY_SERVICE 0x0a /* HealthCheckRequest.service = 1, length-delimited */
#define KEY_STATUS  0x08 /* HealthCheckResponse.status = 1, varint */

/* ---- messages ---- */

static size_t
put_varint(char *out, uint64_t n)
{
    size_t len = 0;
    for (; n >= 0x80; n >>= 7) {
        out[len++] = (char)(n | 0x80);
    }
    out[len++] = (char)n;
    return len;
}

size_t
probe_grpc_write_request(char *out, struct slice service)
{
    char *body = out + GRPC_PREFIX_BYTES;
    size_t len = 0;
    if (service.len > 0) { /* proto3: the default is not written */
        body[len++] = KEY_SERVICE;
        len += put_varint(body + len, service.len);
        memcpy(body + len, service.ptr, service.len);
        len += service.len;
    }
    const char prefix[GRPC_PREFIX_BYTES] = {0, 0, 0, (char)(len >> 8), (char)len};
    memcpy(out, prefix, sizeof(prefix));
    return GRPC_PREFIX_BYTES + len;
}

static bool
take_varint(struct slice *in, uint64_t *value)
{
    *value = 0;
    for (unsigned i = 0; i < 10 && i < in->len; i++) {
        uint64_t bits = (uint8_t)in->ptr[i] & 0x7f;
        if (i == 9 && bits > 1) {
            return false; /* more than 64 bits */
        }
        *value |= bits << (7 * i);
        if (!((uint8_t)in->ptr[i] & 0x80)) {
            *in = slice_of(in->ptr + i + 1, in->len - i - 1);
            return true;
        }
    }
    return false;
}

static bool
skip_bytes(struct slice *in, uint64_t n)
{
    if (n > in->len) {
        return false;
    }
    *in = slice_of(in->ptr + n, in->len - (size_t)n);
    return true;
}

/* A field that a later version may have. Groups (3 and 4) are none of proto3. */
static bool
skip_field(struct slice *in, unsigned wire_type)
{
    uint64_t n;
    switch (wire_type) {
    case 0: return take_varint(in, &n);
    case 1: return skip_bytes(in, 8);
    case 2: return take_varint(in, &n) && skip_bytes(in, n);
    case 5: return skip_bytes(in, 4);
    default: return false;
    }
}

static bool
read_fields(struct slice in, uint64_t *serving)
{
    while (in.len > 0) {
        uint64_t key;
        if (!take_varint(&in, &key) || key >> 3 == 0 || key >> 32 != 0) {
            return false;
        }
        bool is_status = key == KEY_STATUS; /* repeated: the last one counts */
        if (is_status ? !take_varint(&in, serving) : !skip_field(&in, key & 7)) {
            return false;
        }
    }
    return true;
}

bool
probe_grpc_read_answer(struct slice bytes, uint64_t *serving)
{
    const uint8_t *p = (const uint8_t *)bytes.ptr;
    *serving = PROBE_SERVING_UNKNOWN;
    if (bytes.len < GRPC_PREFIX_BYTES || p[0] != 0) {
        return false; /* none, or compressed by a coding that was not offered */
    }
    size_t len = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    if (len != bytes.len - GRPC_PREFIX_BYTES) {
        return false;
    }
    return read_fields(slice_of(bytes.ptr + GRPC_PREFIX_BYTES, len), serving);
}

/* ---- the judgement ---- */

static struct probe_grpc *
grpc_of(struct probe_h2 *h)
{
    return container_of(h, struct probe_grpc, h2);
}

static void
judge_serving(struct probe_grpc *g)
{
    uint64_t serving;
    if (!probe_grpc_read_answer(slice_of(g->answer, g->answer_len), &serving)) {
        probe_h2_fail(&g->h2, "malformed message");
    } else if (serving == PROBE_SERVING) {
        probe_h2_pass(&g->h2);
    } else {
        probe_h2_fail(&g->h2, serving == PROBE_SERVICE_UNKNOWN ? "service unknown" : "not serving");
    }
}

/* The answer is whole. */
static void
on_end(struct probe_h2 *h)
{
    struct probe_grpc *g = grpc_of(h);
    char why[sizeof(h->why)];
    if (!g->has_code) {
        probe_h2_fail(h, "no grpc-status");
    } else if (g->code != GRPC_OK) {
        snprintf(why, sizeof(why), "grpc-status %s", grpc_code_name(g->code));
        probe_h2_fail(h, why);
    } else {
        judge_serving(g);
    }
}

/* Of anything else than gRPC the status tells most. */
static void
on_head(struct probe_h2 *h)
{
    struct probe_grpc *g = grpc_of(h);
    char why[sizeof(h->why)];
    if (h->status < 200) {
        g->is_grpc = g->has_code = false;
    } else if (h->status != 200) {
        snprintf(why, sizeof(why), "status %u", h->status);
        probe_h2_fail(h, why);
    } else if (!g->is_grpc) {
        probe_h2_fail(h, "the answer is not gRPC");
    }
}

static void
on_field(struct probe_h2 *h, struct slice name, struct slice value)
{
    struct probe_grpc *g = grpc_of(h);
    if (slice_eq(name, SLICE("content-type")) && !h->has_head) {
        g->is_grpc = grpc_is_content_type(value);
    } else if (slice_eq(name, SLICE("grpc-status"))) {
        g->has_code = true;
        g->code = grpc_parse_code(value);
    }
}

static void
on_body(struct probe_h2 *h, struct slice bytes)
{
    struct probe_grpc *g = grpc_of(h);
    if (bytes.len > sizeof(g->answer) - g->answer_len) {
        probe_h2_fail(h, "the answer's message is too large");
        return;
    }
    memcpy(g->answer + g->answer_len, bytes.ptr, bytes.len);
    g->answer_len += bytes.len;
}

static const struct probe_h2_check grpc_check = {
    .max_bytes = PROBE_GRPC_MAX,
    .on_field = on_field,
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
};

/* ---- the call ---- */

static ssize_t
read_message(nghttp2_session *session, int32_t stream_id, uint8_t *out, size_t room,
             uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct probe_grpc *g = grpc_of(arg);
    size_t left = g->message_len - g->message_sent, n = left < room ? left : room;
    memcpy(out, g->message + g->message_sent, n);
    g->message_sent += n;
    if (n == left) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return (ssize_t)n;
}

bool
probe_grpc_init(struct probe_grpc *g, const struct conf_backend *backend)
{
    const char *path = backend->upstream->health.path;
    struct slice service = slice_from_str(path ? path + 1 : "");
    char timeout[16];
    snprintf(timeout, sizeof(timeout), "%um", backend->upstream->health.timeout);
    const nghttp2_nv fields[] = {
        probe_h2_field("te", "trailers"),
        probe_h2_field("content-type", "application/grpc"),
        probe_h2_field("grpc-timeout", timeout),
    };
    const nghttp2_data_provider body = {.read_callback = read_message};
    *g = (struct probe_grpc){.message = malloc(GRPC_PREFIX_BYTES + 3 + service.len)};
    if (!g->message) {
        return false;
    }
    g->message_len = probe_grpc_write_request(g->message, service);
    return probe_h2_init(&g->h2, &grpc_check) &&
           probe_h2_ask(&g->h2, backend, "POST", HEALTH_PATH, fields,
                        sizeof(fields) / sizeof(fields[0]), &body);
}

void
probe_grpc_fini(struct probe_grpc *g)
{
    probe_h2_fini(&g->h2);
    free(g->message);
    g->message = NULL;
}
