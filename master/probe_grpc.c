/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_grpc.c - a health check by gRPC: see probe_grpc.h. nghttp2 does the framing.
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

static void
judge_bad(struct probe_grpc *g, const char *why)
{
    if (g->verdict == PROBE_MORE) {
        g->verdict = PROBE_BAD;
        snprintf(g->why, sizeof(g->why), "%s", why);
    }
}

static void
judge_serving(struct probe_grpc *g)
{
    uint64_t serving;
    if (!probe_grpc_read_answer(slice_of(g->answer, g->answer_len), &serving)) {
        judge_bad(g, "malformed message");
    } else if (serving == PROBE_SERVING) {
        g->verdict = PROBE_GOOD;
    } else {
        judge_bad(g, serving == PROBE_SERVICE_UNKNOWN ? "service unknown" : "not serving");
    }
}

/* The answer is whole. */
static void
judge_answer(struct probe_grpc *g)
{
    char why[sizeof(g->why)];
    if (!g->has_code) {
        judge_bad(g, "no grpc-status");
    } else if (g->code != GRPC_OK) {
        snprintf(why, sizeof(why), "grpc-status %s", grpc_code_name(g->code));
        judge_bad(g, why);
    } else {
        judge_serving(g);
    }
}

/* A head has come whole. Of anything else than gRPC its status tells most. */
static void
judge_head(struct probe_grpc *g)
{
    char why[sizeof(g->why)];
    if (g->status < 200) {
        g->is_grpc = g->has_code = false; /* RFC 9110 15.2: the final one follows */
        return;
    }
    g->has_head = true;
    if (g->status != 200) {
        snprintf(why, sizeof(why), "status %u", g->status);
        judge_bad(g, why);
    } else if (!g->is_grpc) {
        judge_bad(g, "the answer is not gRPC");
    }
}

/* ---- what nghttp2 tells ---- */

static int
on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
          size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    struct probe_grpc *g = arg;
    struct slice field = slice_of((const char *)name, name_len);
    struct slice text = slice_of((const char *)value, value_len);
    if (slice_eq(field, SLICE(":status"))) { /* three digits: nghttp2 has seen to that */
        g->status = (unsigned)((value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0'));
    } else if (slice_eq(field, SLICE("content-type")) && !g->has_head) {
        g->is_grpc = grpc_is_content_type(text);
    } else if (slice_eq(field, SLICE("grpc-status"))) {
        g->has_code = true;
        g->code = grpc_parse_code(text);
    }
    return 0;
}

static int
on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct probe_grpc *g = arg;
    if (frame->hd.type == NGHTTP2_HEADERS && !g->has_head) {
        judge_head(g);
    }
    bool is_message = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    if (is_message && frame->hd.flags & NGHTTP2_FLAG_END_STREAM && g->verdict == PROBE_MORE) {
        judge_answer(g);
    }
    return 0;
}

static int
on_bytes(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *bytes,
         size_t len, void *arg)
{
    struct probe_grpc *g = arg;
    if (len > sizeof(g->answer) - g->answer_len) {
        judge_bad(g, "the answer's message is too large");
        return 0;
    }
    memcpy(g->answer + g->answer_len, bytes, len);
    g->answer_len += len;
    return 0;
}

static int
on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *arg)
{
    judge_bad(arg, "malformed answer");
    return 0;
}

/* Reset, or refused by GOAWAY; after a whole answer the verdict stands. */
static int
on_close(nghttp2_session *session, int32_t stream_id, uint32_t error, void *arg)
{
    struct probe_grpc *g = arg;
    char why[sizeof(g->why)];
    snprintf(why, sizeof(why), "reset: %s", nghttp2_http2_strerror(error));
    judge_bad(g, why);
    return 0;
}

static ssize_t
read_message(nghttp2_session *session, int32_t stream_id, uint8_t *out, size_t room,
             uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct probe_grpc *g = arg;
    size_t left = g->message_len - g->message_sent, n = left < room ? left : room;
    memcpy(out, g->message + g->message_sent, n);
    g->message_sent += n;
    if (n == left) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return (ssize_t)n;
}

/* ---- the session ---- */

static bool
open_session(struct probe_grpc *g)
{
    nghttp2_session_callbacks *calls;
    if (nghttp2_session_callbacks_new(&calls) != 0) {
        return false;
    }
    nghttp2_session_callbacks_set_on_header_callback(calls, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(calls, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, on_bytes);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(calls, on_invalid_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(calls, on_close);
    int error = nghttp2_session_client_new(&g->session, calls, g);
    nghttp2_session_callbacks_del(calls);
    return error == 0;
}

static nghttp2_nv
field(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), 0};
}

static bool
submit(struct probe_grpc *g, const struct conf_backend *backend)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, PROBE_HEAD_MAX},
    };
    char timeout[16];
    snprintf(timeout, sizeof(timeout), "%um", backend->upstream->health.timeout);
    const nghttp2_nv fields[] = {
        field(":method", "POST"),
        field(":scheme", backend->upstream->tls ? "https" : "http"),
        field(":path", HEALTH_PATH),
        field(":authority", probe_host(backend)),
        field("te", "trailers"),
        field("content-type", "application/grpc"),
        field("user-agent", "akashd-health"),
        field("grpc-timeout", timeout),
    };
    const nghttp2_data_provider body = {.read_callback = read_message};
    return nghttp2_submit_settings(g->session, 0, settings, 2) == 0 &&
           nghttp2_submit_request(g->session, NULL, fields, sizeof(fields) / sizeof(fields[0]),
                                  &body, NULL) > 0;
}

bool
probe_grpc_init(struct probe_grpc *g, const struct conf_backend *backend)
{
    const char *path = backend->upstream->health.path;
    struct slice service = slice_from_str(path ? path + 1 : "");
    *g = (struct probe_grpc){.verdict = PROBE_MORE};
    g->message = malloc(GRPC_PREFIX_BYTES + 3 + service.len);
    if (!g->message || !open_session(g)) {
        return false;
    }
    g->message_len = probe_grpc_write_request(g->message, service);
    return submit(g, backend);
}

void
probe_grpc_fini(struct probe_grpc *g)
{
    if (g->session) {
        nghttp2_session_del(g->session);
    }
    free(g->message);
    g->session = NULL;
    g->message = NULL;
}

struct slice
probe_grpc_output(struct probe_grpc *g)
{
    const uint8_t *bytes;
    ssize_t n = nghttp2_session_mem_send(g->session, &bytes);
    if (n < 0) {
        judge_bad(g, "out of memory");
    } else if (n == 0 && !nghttp2_session_want_read(g->session)) {
        judge_bad(g, "malformed answer"); /* our GOAWAY has left: it told so */
    }
    return n > 0 ? slice_of((const char *)bytes, (size_t)n) : SLICE("");
}

void
probe_grpc_feed(struct probe_grpc *g, const char *bytes, size_t len)
{
    size_t room = PROBE_GRPC_MAX - g->fed, taken = len < room ? len : room;
    ssize_t n = nghttp2_session_mem_recv(g->session, (const uint8_t *)bytes, taken);
    g->fed += taken;
    if (n < 0) {
        judge_bad(g, "malformed answer");
    } else if (taken < len) {
        judge_bad(g, "the answer is too large");
    }
}

void
probe_grpc_end(struct probe_grpc *g)
{
    judge_bad(g, g->fed == 0 ? "closed without an answer" : "the answer was cut");
}
