/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_h2.c - a health check over HTTP/2: see probe_h2.h. nghttp2 does the framing.
 */
#include "master/probe_h2.h"

#include <stdio.h>

void
probe_h2_pass(struct probe_h2 *h)
{
    if (h->verdict == PROBE_MORE) {
        h->verdict = PROBE_GOOD;
    }
}

void
probe_h2_fail(struct probe_h2 *h, const char *why)
{
    if (h->verdict == PROBE_MORE) {
        h->verdict = PROBE_BAD;
        snprintf(h->why, sizeof(h->why), "%s", why);
    }
}

/* ---- what nghttp2 tells ---- */

static int
on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
          size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    struct probe_h2 *h = arg;
    struct slice field = slice_of((const char *)name, name_len);
    if (slice_eq(field, SLICE(":status"))) { /* three digits: nghttp2 has seen to that */
        h->status = (unsigned)((value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0'));
    } else {
        h->check->on_field(h, field, slice_of((const char *)value, value_len));
    }
    return 0;
}

static void
take_head(struct probe_h2 *h)
{
    if (h->status < 100) { /* nghttp2 takes it for final */
        probe_h2_fail(h, "malformed answer");
        return;
    }
    h->has_head = h->status >= 200; /* RFC 9110 15.2 */
    h->check->on_head(h);
}

static int
on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct probe_h2 *h = arg;
    if (frame->hd.type == NGHTTP2_HEADERS && !h->has_head) {
        take_head(h);
    }
    bool is_message = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    if (is_message && frame->hd.flags & NGHTTP2_FLAG_END_STREAM && h->verdict == PROBE_MORE) {
        h->check->on_end(h);
    }
    return 0;
}

static int
on_bytes(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *bytes,
         size_t len, void *arg)
{
    struct probe_h2 *h = arg;
    if (h->verdict == PROBE_MORE) {
        h->check->on_body(h, slice_of((const char *)bytes, len));
    }
    return 0;
}

static int
on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *arg)
{
    probe_h2_fail(arg, "malformed answer");
    return 0;
}

/* Reset, or refused by GOAWAY; after a whole answer the verdict stands. */
static int
on_close(nghttp2_session *session, int32_t stream_id, uint32_t error, void *arg)
{
    struct probe_h2 *h = arg;
    char why[sizeof(h->why)];
    snprintf(why, sizeof(why), "reset: %s", nghttp2_http2_strerror(error));
    probe_h2_fail(h, why);
    return 0;
}

/* ---- the session ---- */

bool
probe_h2_init(struct probe_h2 *h, const struct probe_h2_check *check)
{
    nghttp2_session_callbacks *calls;
    *h = (struct probe_h2){.check = check, .verdict = PROBE_MORE};
    if (nghttp2_session_callbacks_new(&calls) != 0) {
        return false;
    }
    nghttp2_session_callbacks_set_on_header_callback(calls, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(calls, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, on_bytes);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(calls, on_invalid_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(calls, on_close);
    int error = nghttp2_session_client_new(&h->session, calls, h);
    nghttp2_session_callbacks_del(calls);
    return error == 0;
}

void
probe_h2_fini(struct probe_h2 *h)
{
    if (h->session) {
        nghttp2_session_del(h->session);
    }
    h->session = NULL;
}

bool
probe_h2_ask(struct probe_h2 *h, const struct conf_backend *backend, const char *method,
             const char *path, const nghttp2_nv *fields, size_t n,
             const nghttp2_data_provider *body)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, PROBE_HEAD_MAX},
    };
    nghttp2_nv all[5 + PROBE_H2_FIELDS] = {
        probe_h2_field(":method", method),
        probe_h2_field(":scheme", backend->upstream->tls ? "https" : "http"),
        probe_h2_field(":path", path),
        probe_h2_field(":authority", probe_host(backend)),
        probe_h2_field("user-agent", "akashd-health"),
    };
    memcpy(all + 5, fields, n * sizeof(*fields));
    return nghttp2_submit_settings(h->session, 0, settings, 2) == 0 &&
           nghttp2_submit_request(h->session, NULL, all, 5 + n, body, NULL) > 0;
}

struct slice
probe_h2_output(struct probe_h2 *h)
{
    const uint8_t *bytes;
    ssize_t n = nghttp2_session_mem_send(h->session, &bytes);
    if (n < 0) {
        probe_h2_fail(h, "out of memory");
    } else if (n == 0 && !nghttp2_session_want_read(h->session)) {
        probe_h2_fail(h, "malformed answer"); /* our GOAWAY has left: it told so */
    }
    return n > 0 ? slice_of((const char *)bytes, (size_t)n) : SLICE("");
}

void
probe_h2_feed(struct probe_h2 *h, const char *bytes, size_t len)
{
    size_t room = h->check->max_bytes - h->fed, taken = len < room ? len : room;
    ssize_t n = nghttp2_session_mem_recv(h->session, (const uint8_t *)bytes, taken);
    h->fed += taken;
    if (n < 0) {
        probe_h2_fail(h, "malformed answer");
    } else if (taken < len) {
        probe_h2_fail(h, "the answer is too large");
    }
}

void
probe_h2_end(struct probe_h2 *h)
{
    probe_h2_fail(h, h->fed == 0 ? "closed without an answer" : "the answer was cut");
}
