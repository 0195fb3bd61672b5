/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_session.c - HTTP/2 connections: their life, their events, and the frames that come in. See
 * http2_session.h.
 */
#include "worker/http2_session.h"

#include <assert.h>
#include <stdlib.h>

#include "worker/http2_private.h"
#include "worker/worker.h"

#define READ_BUDGET 8
#define WINDOW_MAX  (16 * 1024 * 1024) /* of a connection */
#define QUEUE_MAX   256 /* frames that wait for a peer that does not read: reading stops */
#define CREDIT_FRAME \
    8 /* what a useless frame costs; a window update is cheap, and gRPC sends many */
#define CREDIT_WINDOW  1
#define CREDIT_MAX     (400 * CREDIT_FRAME) /* useless frames in one go */
#define CREDIT_PER_S   (100 * CREDIT_FRAME)
#define SERVER_STREAMS 100 /* to a backend, until its SETTINGS say */
/* Of a client, each of which is refused; more than CREDIT_MAX allows. */
#define EXTRA_STREAMS 1000

static struct list dead_sessions = LIST_INIT(dead_sessions);

/* ---- floods ---- */

static void
add_credit(struct http2_session *ses, unsigned n)
{
    ses->credit = ses->credit + n < CREDIT_MAX ? ses->credit + n : CREDIT_MAX;
}

void
http2_session_earn(struct http2_session *ses, unsigned n)
{
    add_credit(ses, n * CREDIT_FRAME);
}

/* 0, or the error that stops nghttp2. */
static int
charge(struct http2_session *ses, unsigned cost)
{
    uint64_t earned = (worker_now_ms() - ses->credit_ms) * CREDIT_PER_S / 1000;
    if (earned > 0) {
        ses->credit_ms = worker_now_ms();
        add_credit(ses, earned < CREDIT_MAX ? (unsigned)earned : CREDIT_MAX);
    }
    if (ses->credit >= cost) {
        ses->credit -= cost;
        return 0;
    }
    http2_session_end(ses, NGHTTP2_ENHANCE_YOUR_CALM, http2_blame(ses));
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

int
http2_session_charge(struct http2_session *ses)
{
    return charge(ses, CREDIT_FRAME);
}

/* Frames of which a peer may send many for nothing: CVE-2019-9511 to 9518, CVE-2023-44487,
 * CVE-2024-27316. A window update is earned by the body that was sent before; gRPC sends some eight
 * of them for a message. */
static unsigned
cost_of(const nghttp2_frame_hd *hd)
{
    bool is_useful = false;
    switch (hd->type) {
    case NGHTTP2_DATA: is_useful = hd->length > 0 || hd->flags & NGHTTP2_FLAG_END_STREAM; break;
    case NGHTTP2_HEADERS: is_useful = hd->length > 0; break;
    case NGHTTP2_SETTINGS: is_useful = hd->flags & NGHTTP2_FLAG_ACK; break;
    case NGHTTP2_WINDOW_UPDATE: return CREDIT_WINDOW;
    default: break;
    }
    return is_useful ? 0 : CREDIT_FRAME;
}

static int
on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *arg)
{
    struct http2_session *ses = arg;
    if (ses->is_over) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (hd->type == NGHTTP2_HEADERS) {
        ses->side->on_block_open(ses, true);
        if (ses->side->is_server && http2_strict_on_head(ses, hd->stream_id) != 0) {
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
    }
    unsigned cost = cost_of(hd);
    return cost > 0 ? charge(ses, cost) : 0;
}

/* ---- blocks of fields ---- */

static struct http2_stream *
stream_of(struct http2_session *ses, int32_t id)
{
    return nghttp2_session_get_stream_user_data(ses->ng, id);
}

static bool
opens_stream(const struct http2_session *ses, const nghttp2_frame *frame)
{
    return ses->side->is_server && frame->headers.cat == NGHTTP2_HCAT_REQUEST;
}

static bool
has_head(const struct http2_stream *st)
{
    return st->session->side->is_server ? st->has_request : st->has_answer;
}

/* RFC 9113 5.1.2: an error of the stream, where nghttp2 would end the connection. It costs as much
 * as a reset of the client's own. */
static int
refuse_stream(struct http2_session *ses, int32_t id)
{
    ses->block = NULL;
    if (nghttp2_submit_rst_stream(ses->ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM) != 0) {
        http2_session_break(ses);
    }
    return http2_session_charge(ses);
}

static int
on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct http2_session *ses = arg;
    struct http2_stream *st = NULL;
    if (frame->hd.type != NGHTTP2_HEADERS) {
        return 0;
    }
    if (opens_stream(ses, frame)) {
        if (ses->nstreams >= ses->max_streams) {
            return refuse_stream(ses, frame->hd.stream_id);
        }
        st = http2_stream_new(ses, frame->hd.stream_id);
        if (!st || !ses->side->on_open(st)) {
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    } else {
        st = stream_of(ses, frame->hd.stream_id);
    }
    ses->block = st;
    if (st) {
        ses->side->on_block(st, has_head(st));
    }
    return 0;
}

static int
on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
          const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    struct http2_session *ses = arg;
    if (ses->block) {
        ses->side->on_field(ses->block, slice_of((const char *)name, name_len),
                            slice_of((const char *)value, value_len),
                            flags & NGHTTP2_NV_FLAG_NO_INDEX);
    }
    return 0;
}

/* nghttp2 would leave it out and go on; a message with such a field is malformed. */
static int
on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                  size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void
on_block_end(struct http2_session *ses, const nghttp2_frame *frame)
{
    struct http2_stream *st = ses->block;
    ses->block = NULL;
    ses->side->on_block_open(ses, false);
    if (!st) {
        return;
    }
    bool is_trailers = has_head(st);
    st->has_request = true;
    ses->side->on_block_end(st, is_trailers, frame->hd.flags & NGHTTP2_FLAG_END_STREAM);
}

/* ---- other frames ---- */

static int
on_body(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *bytes, size_t len, void *arg)
{
    struct http2_session *ses = arg;
    struct http2_stream *st = stream_of(ses, id);
    nghttp2_session_consume_connection(ng, len);
    if (st) {
        http2_stream_on_body(st, slice_of((const char *)bytes, len));
    }
    return 0;
}

static void
on_settings(struct http2_session *ses, const nghttp2_frame *frame)
{
    if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
        ses->side->on_settings(ses);
    }
}

static int
on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct http2_session *ses = arg;
    struct http2_stream *st;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS: on_block_end(ses, frame); break;
    case NGHTTP2_DATA:
        st = frame->hd.flags & NGHTTP2_FLAG_END_STREAM ? stream_of(ses, frame->hd.stream_id) : NULL;
        if (st) {
            http2_stream_on_end(st, NULL);
        }
        break;
    case NGHTTP2_RST_STREAM:
        st = stream_of(ses, frame->hd.stream_id);
        if (st) {
            st->is_peer_reset = true;
        }
        break;
    case NGHTTP2_SETTINGS: on_settings(ses, frame); break;
    case NGHTTP2_GOAWAY:
        ses->has_goaway = true;
        ses->side->on_goaway(ses);
        break;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK) {
            ses->side->on_pong(ses);
        }
        break;
    default: break;
    }
    return 0;
}

/* nghttp2 refuses a frame, and resets its stream unless it ends the connection. */
static int
on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *frame, int error, void *arg)
{
    struct http2_session *ses = arg;
    struct http2_stream *st = stream_of(ses, frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_HEADERS) {
        ses->block = NULL;
        ses->side->on_block_open(ses, false);
    }
    if (st) {
        st->is_invalid = true;
    }
    if (st && st->stream) {
        ses->side->on_malformed(st);
    }
    return http2_session_charge(
        ses); /* a reset that the peer made us send costs as much as its own */
}

/* A reset that the peer has made us send (CVE-2025-8671) costs as much as its own; those of refused
 * frames have been charged for. */
static bool
was_provoked(const struct http2_stream *st, uint32_t code)
{
    bool is_blame = code == NGHTTP2_PROTOCOL_ERROR || code == NGHTTP2_FLOW_CONTROL_ERROR ||
                    code == NGHTTP2_STREAM_CLOSED || code == NGHTTP2_FRAME_SIZE_ERROR;
    return is_blame && !st->is_peer_reset && !st->is_invalid;
}

static int
on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *arg)
{
    struct http2_session *ses = arg;
    struct http2_stream *st = stream_of(ses, id);
    if (!st) {
        return 0;
    }
    bool is_whole = st->is_in_done && st->is_end_sent;
    if (ses->block == st) {
        ses->block = NULL;
        ses->side->on_block_open(ses, false);
    }
    if (is_whole || st->is_peer_reset) {
        http2_strict_on_ended(ses, id);
    }
    if (was_provoked(st, code)) {
        http2_session_charge(ses);
    }
    http2_stream_closed(st);
    if (is_whole && code == NGHTTP2_NO_ERROR) {
        http2_session_earn(ses, 1);
    } else if (st->stream && code == NGHTTP2_PROTOCOL_ERROR && !st->is_peer_reset) {
        ses->side->on_malformed(st);
    } else if (st->stream) {
        ses->side->on_reset(st, code);
    }
    ses->side->on_closed(ses);
    return 0;
}

/* ---- life ---- */

static nghttp2_session_callbacks *
make_callbacks(void)
{
    static nghttp2_session_callbacks *all;
    if (all || nghttp2_session_callbacks_new(&all) != 0) {
        return all;
    }
    nghttp2_session_callbacks_set_on_begin_frame_callback(all, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(all, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(all, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(all, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(all, on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(all, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(all, on_body);
    nghttp2_session_callbacks_set_on_stream_close_callback(all, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(all, http2_strict_on_sent);
    http2_output_set_callbacks(all);
    return all;
}

static nghttp2_option *
make_option(void)
{
    static nghttp2_option *option;
    if (option || nghttp2_option_new(&option) != 0) {
        return option;
    }
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_peer_max_concurrent_streams(option, SERVER_STREAMS);
    nghttp2_option_set_max_outbound_ack(option, QUEUE_MAX);
    return option;
}

static int
submit_settings(struct http2_session *ses, uint32_t max_streams, uint32_t header_bytes)
{
    uint64_t window = (uint64_t)max_streams * HTTP2_WINDOW_BYTES;
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
         ses->side->is_server ? max_streams + EXTRA_STREAMS : 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HTTP2_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, header_bytes},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
    };
    size_t n = sizeof(settings) / sizeof(settings[0]);
    if (ses->side->is_server) { /* ENABLE_PUSH is the client's to say, this one the server's */
        settings[n - 1] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1};
    }
    return nghttp2_submit_settings(ses->ng, NGHTTP2_FLAG_NONE, settings, n) != 0 ||
                   nghttp2_session_set_local_window_size(ses->ng, NGHTTP2_FLAG_NONE, 0,
                                                         window < WINDOW_MAX ? (int32_t)window
                                                                             : WINDOW_MAX) != 0
               ? -1
               : 0;
}

int
http2_session_begin(struct http2_session *ses, struct conn *c, const struct http2_side *side,
                    uint32_t max_streams, uint32_t header_bytes)
{
    nghttp2_session_callbacks *callbacks = make_callbacks();
    nghttp2_option *option = make_option();
    *ses = (struct http2_session){
        .conn = c, .side = side, .max_streams = max_streams, .credit = CREDIT_MAX};
    ses->credit_ms = worker_now_ms();
    ses->past.body = side->is_server ? sizeof(HTTP2_PREFACE) - 1 : 0;
    list_init(&ses->dirty);
    list_init(&ses->streams);
    list_init(&ses->ready);
    list_init(&ses->resets);
    if (!callbacks || !option) {
        return -1;
    }
    int r = side->is_server
                ? nghttp2_session_server_new3(&ses->ng, callbacks, ses, option, http2_memory())
                : nghttp2_session_client_new3(&ses->ng, callbacks, ses, option, http2_memory());
    if (r != 0 || submit_settings(ses, max_streams, header_bytes) != 0 ||
        (side->is_server && http2_announce(ses, max_streams) != 0)) {
        http2_session_fini(ses);
        return -1;
    }
    http2_session_mark(ses);
    return 0;
}

void
http2_session_fini(struct http2_session *ses)
{
    assert(ses->depth == 0);
    while (!list_is_empty(&ses->streams)) {
        struct http2_stream *st = list_first(&ses->streams, struct http2_stream, link);
        assert(!st->stream);
        http2_stream_closed(st);
    }
    nghttp2_session_del(ses->ng);
    ses->ng = NULL;
    list_del(&ses->dirty);
    http2_room_release(ses);
}

struct http2_session *
http2_session_new(struct conn *c, const struct http2_side *side, uint32_t max_streams,
                  uint32_t header_bytes)
{
    struct http2_session *ses = malloc(sizeof(*ses));
    if (ses && http2_session_begin(ses, c, side, max_streams, header_bytes) != 0) {
        free(ses);
        return NULL;
    }
    return ses;
}

void
http2_session_free(struct http2_session *ses)
{
    http2_session_fini(ses);
    list_add_tail(&dead_sessions, &ses->dirty);
}

void
http2_session_reap(void)
{
    while (!list_is_empty(&dead_sessions)) {
        struct http2_session *ses = list_first(&dead_sessions, struct http2_session, dirty);
        list_del(&ses->dirty);
        free(ses);
    }
}

void
http2_session_fail_all(struct http2_session *ses, enum reason why)
{
    list_for_each_safe (it, &ses->streams) {
        struct http2_stream *st = container_of(it, struct http2_stream, link);
        if (st->stream) {
            stream_fail(st->stream, why);
        }
    }
}

void
http2_session_break(struct http2_session *ses)
{
    ses->conn->is_broken = true;
    conn_run_later(ses->conn);
}

void
http2_session_end(struct http2_session *ses, uint32_t code, enum reason why)
{
    if (ses->is_over || !ses->ng) {
        return;
    }
    ses->is_over = true;
    ses->over = why;
    if (nghttp2_session_terminate_session(ses->ng, code) != 0) {
        http2_session_break(ses);
    }
    http2_session_mark(ses);
}

nghttp2_nv *
http2_session_fields(struct http2_session *ses, size_t n)
{
    static nghttp2_nv *fields;
    static size_t room;
    if (n > room) {
        nghttp2_nv *more = realloc(fields, n * sizeof(*fields));
        if (!more) {
            http2_session_break(ses);
            return NULL;
        }
        fields = more;
        room = n;
    }
    return fields;
}

/* ---- going away ---- */

void
http2_session_warn(struct http2_session *ses)
{
    if (nghttp2_submit_shutdown_notice(ses->ng) != 0) {
        http2_session_break(ses);
    }
    http2_session_mark(ses);
}

void
http2_session_last(struct http2_session *ses)
{
    if (ses->is_going) {
        return;
    }
    ses->is_going = true;
    if (nghttp2_submit_goaway(ses->ng, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(ses->ng), NGHTTP2_NO_ERROR,
                              NULL, 0) != 0) {
        http2_session_break(ses);
    }
    http2_session_mark(ses);
}

void
http2_session_ping(struct http2_session *ses)
{
    if (nghttp2_submit_ping(ses->ng, NGHTTP2_FLAG_NONE, NULL) != 0) {
        http2_session_break(ses);
    }
    http2_session_mark(ses);
}

/* ---- events ---- */

static enum reason
why_lost(const struct http2_session *ses)
{
    return ses->side->is_server ? REASON_client_closed : REASON_backend_reset;
}

/* Give nghttp2 the bytes, or what there is of them before something is to be judged. How many; or
 * an error of nghttp2. */
static ssize_t
receive(struct http2_session *ses, struct slice bytes)
{
    bool is_server = ses->side->is_server;
    size_t n = is_server ? http2_strict_upto(&ses->past, bytes) : bytes.len;
    http2_enter(ses);
    ssize_t used = nghttp2_session_mem_recv(ses->ng, (const uint8_t *)bytes.ptr, n);
    http2_leave(ses);
    if (is_server && used >= 0) {
        http2_strict_judge(ses);
    }
    return used < 0 ? used : (ssize_t)n;
}

void
http2_session_feed(struct http2_session *ses, struct slice bytes)
{
    if (ses->is_over) {
        return; /* thrown away: a GOAWAY is on its way out */
    }
    ssize_t used = 0;
    while (bytes.len > 0 && used >= 0 && !ses->is_over) {
        used = receive(ses, bytes);
        size_t n = used > 0 ? (size_t)used : 0;
        bytes = slice_of(bytes.ptr + n, bytes.len - n);
    }
    if (used < 0) {
        uint32_t code = used == NGHTTP2_ERR_FLOODED || used == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS
                            ? NGHTTP2_ENHANCE_YOUR_CALM
                            : NGHTTP2_PROTOCOL_ERROR;
        http2_session_end(ses, code, http2_blame(ses));
    }
    http2_session_mark(ses);
}

static void
deliver_ready(struct http2_session *ses)
{
    while (!list_is_empty(&ses->ready)) {
        struct http2_stream *st = list_first(&ses->ready, struct http2_stream, ready);
        list_del(&st->ready);
        http2_stream_deliver(st);
    }
}

/* A peer that sends and does not read would make us keep what we answer. */
static bool
is_stuffed(const struct http2_session *ses)
{
    return conn_is_blocked(ses->conn) &&
           nghttp2_session_get_outbound_queue_size(ses->ng) > QUEUE_MAX;
}

static void
read_frames(struct http2_session *ses)
{
    struct conn *c = ses->conn;
    for (int i = 0; ses->ng && c->is_readable && !is_stuffed(ses); i++) {
        char *bytes;
        if (i == READ_BUDGET) {
            conn_run_later(c);
            break;
        }
        ssize_t n = conn_read_scratch(c, WORKER_SCRATCH_BYTES, &bytes);
        if (n > 0) {
            http2_session_feed(ses, slice_of(bytes, (size_t)n));
        } else if (n != IO_AGAIN) {
            ses->side->on_over(ses, why_lost(ses));
        } else {
            break;
        }
    }
}

void
http2_session_on_event(struct http2_session *ses, unsigned what)
{
    if ((what & CONN_BROKEN) || ses->conn->is_broken) {
        ses->side->on_over(ses, why_lost(ses));
        return;
    }
    if (what & CONN_WRITABLE) {
        http2_session_mark(ses);
    }
    deliver_ready(ses);
    read_frames(ses);
}
