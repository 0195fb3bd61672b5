/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_private.h - what the files of the HTTP/2 session share.
 *
 * http2_session.c  the connection: its life, its events, frames that come in, floods
 * http2_stream.c   one stream: heads, bodies both ways, deadlines
 * http2_strict.c   what nghttp2 lets pass and RFC 9113 does not
 * http2_output.c   frames that go out: gathering and writing them
 * http2_memory.c   where nghttp2's memory comes from
 */
#ifndef WORKER_HTTP2_PRIVATE_H
#define WORKER_HTTP2_PRIVATE_H

#include "worker/http2_session.h"

/* Fields that wait until they can be submitted: one block of memory. */
struct http2_fields {
    size_t n;
    nghttp2_nv nv[];
};

/* Around what sends or receives in nghttp2, which must not be asked to from its callbacks. */
static inline void
http2_enter(struct http2_session *ses)
{
    ses->depth++;
}

static inline void
http2_leave(struct http2_session *ses)
{
    ses->depth--;
}

/* Why a connection ends whose peer has broken the rules. */
static inline enum reason
http2_blame(const struct http2_session *ses)
{
    return ses->side->is_server ? REASON_bad_request : REASON_bad_response;
}

/* Memory for a stream of ses, in its list. NULL: none. */
struct http2_stream *
http2_stream_new(struct http2_session *ses, int32_t id);
/* nghttp2 has let go of st. */
void
http2_stream_closed(struct http2_stream *st);
/* Body bytes from the peer. */
void
http2_stream_on_body(struct http2_stream *st, struct slice bytes);
/* Pass on what waits in in. */
void
http2_stream_deliver(struct http2_stream *st);
/* n body bytes have been framed. */
void
http2_stream_on_framed(struct http2_stream *st, size_t n);
void
http2_stream_reap(void);
/* Those that http2_session_free() was given. */
void
http2_session_reap(void);

/* Frame what can be framed and gather it; what does not fit any more is written. Not from within
 * nghttp2. */
void
http2_pump(struct http2_session *ses);
/* The first frame of a server: SETTINGS whose first entry is MAX_CONCURRENT_STREAMS leave, with
 * that value in place of the one that nghttp2 goes by. 0, or -1 (memory). */
int
http2_announce(struct http2_session *ses, uint32_t max_streams);
/* The room goes back: what it holds is dropped. */
void
http2_room_release(struct http2_session *ses);
void
http2_output_set_callbacks(nghttp2_session_callbacks *callbacks);
/* What nghttp2 asks for the body of st. */
nghttp2_data_provider
http2_body_of(struct http2_stream *st);

/* For nghttp2_session_*_new3(). */
nghttp2_mem *
http2_memory(void);

/* A useful frame was sent or an exchange done: the peer may send n more useless ones. */
void
http2_session_earn(struct http2_session *ses, unsigned n);
/* The peer has sent what costs us and brings nothing on. 0, or the error that stops nghttp2. */
int
http2_session_charge(struct http2_session *ses);
/* A client's HEADERS frame has begun: 0, or the error that stops nghttp2. */
int
http2_strict_on_head(struct http2_session *ses, int32_t id);
/* How many of a client's bytes nghttp2 may have before http2_strict_judge(); all at most. */
size_t
http2_strict_upto(struct http2_past *past, struct slice bytes);
void
http2_strict_judge(struct http2_session *ses);
/* The client has ended stream id itself, by END_STREAM or RST_STREAM. */
void
http2_strict_on_ended(struct http2_session *ses, int32_t id);
/* For nghttp2: on_frame_send. */
int
http2_strict_on_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *arg);
/* A call of nghttp2 failed: no memory. The connection is broken. */
void
http2_session_break(struct http2_session *ses);

#endif
