/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_strict.c - what RFC 9113 forbids a client and nghttp2 lets pass.
 *
 * nghttp2 forgets a stream that is closed, and ignores what still comes on it: it cannot know
 * whether the client had seen our RST_STREAM. Here the last few streams are remembered that the
 * client itself has ended, and those that it has left out: what comes on them is an error. Of DATA
 * on a forgotten stream and of PRIORITY nghttp2 tells nothing at all: the heads of frames are
 * followed here in the bytes, and nghttp2 is given them up to the frame to judge.
 */
#include "worker/http2_private.h"

#define FRAME_HEAD     9 /* length, type, flags, stream id: RFC 9113 4.1 */
#define PRIORITY_BYTES 5
#define PARENT_BYTES   4

/* 0, or the error that stops nghttp2. */
static int
end_connection(struct http2_session *ses, uint32_t code)
{
    http2_session_end(ses, code, REASON_bad_request);
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

void
http2_strict_on_ended(struct http2_session *ses, int32_t id)
{
    struct http2_past *past = &ses->past;
    past->ended[past->nended++ % HTTP2_PAST] = id;
}

static bool
has_ended(const struct http2_past *past, int32_t id)
{
    for (unsigned i = 0; i < HTTP2_PAST; i++) {
        if (past->ended[i] == id) {
            return true;
        }
    }
    return false;
}

/* RFC 9113 5.1.1: a new stream closes the lower ones that were never opened. */
static void
skip_to(struct http2_past *past, int32_t id)
{
    if (id > past->highest + 2) {
        past->skipped_from = past->highest + 1;
        past->skipped_to = id - 1;
    }
    past->highest = id;
}

static bool
was_skipped(const struct http2_past *past, int32_t id)
{
    return id >= past->skipped_from && id <= past->skipped_to;
}

int
http2_strict_on_head(struct http2_session *ses, int32_t id)
{
    struct http2_past *past = &ses->past;
    if (id % 2 == 1 && id > past->highest) {
        skip_to(past, id);
    } else if (was_skipped(past, id)) {
        return end_connection(ses, NGHTTP2_PROTOCOL_ERROR);
    } else if (has_ended(past, id)) {
        return end_connection(ses, NGHTTP2_STREAM_CLOSED);
    }
    return 0;
}

static void
judge_body(struct http2_session *ses, int32_t id)
{
    if (id == 0 || (!was_skipped(&ses->past, id) && !has_ended(&ses->past, id))) {
        return;
    }
    if (nghttp2_submit_rst_stream(ses->ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_STREAM_CLOSED) != 0) {
        http2_session_break(ses);
    }
    http2_session_charge(ses);
}

/* nghttp2 leaves out the judgement of priorities together with their use. */
static void
judge_priority(struct http2_session *ses, int32_t id, int32_t parent)
{
    if (id == 0 || id == parent) {
        end_connection(ses, NGHTTP2_PROTOCOL_ERROR);
    }
}

static int32_t
id_at(const uint8_t *at)
{
    return (int32_t)((uint32_t)(at[0] & 0x7f) << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 |
                     at[3]);
}

/* How much of a frame must be seen to judge it: of PRIORITY the parent, too. */
static size_t
bytes_to_see(const struct http2_past *past)
{
    bool is_priority = past->nhead >= FRAME_HEAD && past->head[3] == NGHTTP2_PRIORITY &&
                       past->head[0] == 0 && past->head[1] == 0 && past->head[2] == PRIORITY_BYTES;
    return is_priority ? FRAME_HEAD + PARENT_BYTES : FRAME_HEAD;
}

/* One more byte of a head has come: is the frame to be judged now? */
static bool
see(struct http2_past *past, uint8_t byte)
{
    past->head[past->nhead++] = byte;
    if (past->nhead < bytes_to_see(past)) {
        return false;
    }
    uint32_t len = (uint32_t)past->head[0] << 16 | (uint32_t)past->head[1] << 8 | past->head[2];
    bool has_parent = past->nhead > FRAME_HEAD;
    past->body = len - (has_parent ? PARENT_BYTES : 0);
    past->nhead = 0;
    return has_parent || past->head[3] == NGHTTP2_DATA;
}

size_t
http2_strict_upto(struct http2_past *past, struct slice bytes)
{
    size_t at = 0;
    past->is_due = false;
    while (at < bytes.len && !past->is_due) {
        if (past->body > 0) {
            size_t n = bytes.len - at < past->body ? bytes.len - at : past->body;
            past->body -= (uint32_t)n;
            at += n;
        } else {
            past->is_due = see(past, (uint8_t)bytes.ptr[at++]);
        }
    }
    return at;
}

void
http2_strict_judge(struct http2_session *ses)
{
    struct http2_past *past = &ses->past;
    if (!past->is_due) {
        return;
    }
    past->is_due = false;
    int32_t id = id_at(past->head + 5);
    if (past->head[3] == NGHTTP2_DATA) {
        judge_body(ses, id);
    } else {
        judge_priority(ses, id, id_at(past->head + FRAME_HEAD));
    }
}

/* RFC 9113 6.9.2: where SETTINGS make a window overflow, the connection is in error, not the
 * stream. So it is here for one who sends more than a window lets him (6.9.1 leaves that open):
 * nghttp2 tells neither apart. Of a WINDOW_UPDATE that goes too far it tells on_invalid_frame
 * first. */
int
http2_strict_on_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct http2_session *ses = arg;
    if (frame->hd.type != NGHTTP2_RST_STREAM ||
        frame->rst_stream.error_code != NGHTTP2_FLOW_CONTROL_ERROR) {
        return 0;
    }
    struct http2_stream *st = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    if (!st || !st->is_invalid) {
        http2_session_end(ses, NGHTTP2_FLOW_CONTROL_ERROR, http2_blame(ses));
    }
    return 0;
}
