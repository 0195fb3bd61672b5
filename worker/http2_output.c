/* SPDX-License-Identifier: Apache-2.0
 *
 * http2_output.c - HTTP/2 frames that go out: see http2_private.h.
 *
 * A session that has something to write holds a room, where its frames are gathered as they are
 * made: body bytes are copied once, from where they were read to behind their frame header, and
 * bulk over plain TCP not at all. At the end of the loop turn, or when a room is full, its bytes
 * leave in one write.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>

#include "shared/sanitized.h"
#include "worker/http2_private.h"
#include "worker/worker.h"

#define ROOM_BYTES     65536 /* four TLS records */
#define FREE_ROOMS_MAX 32
#define FRAME_HEADER   9
#define BULK_BYTES     4096 /* are not copied */
#define SETTING_BYTES  6

struct http2_room {
    struct http2_room *next;
    size_t put, len; /* put <= len: what conn_put() knows of already */
    char bytes[ROOM_BYTES];
};

static struct http2_room *free_rooms;
static unsigned nfree_rooms;
static struct list dirty_sessions = LIST_INIT(dirty_sessions);

/* ---- rooms ---- */

static bool
acquire_room(struct http2_session *ses)
{
    struct http2_room *room = free_rooms;
    if (ses->room) {
        return true;
    }
    if (room) {
        free_rooms = room->next;
        nfree_rooms--;
    } else {
        room = malloc(sizeof(*room));
        if (!room) {
            http2_session_break(ses);
            return false;
        }
    }
    room->put = 0;
    room->len = 0;
    ses->room = room;
    return true;
}

void
http2_room_release(struct http2_session *ses)
{
    struct http2_room *room = ses->room;
    ses->room = NULL;
    if (!room) {
        return;
    }
    if (!KEEPS_FREED(nfree_rooms, FREE_ROOMS_MAX)) {
        free(room);
        return;
    }
    room->next = free_rooms;
    free_rooms = room;
    nfree_rooms++;
}

static void
put_room(struct http2_session *ses)
{
    struct http2_room *room = ses->room;
    conn_put(ses->conn, room->bytes + room->put, room->len - room->put);
    room->put = room->len;
}

static void
write_room(struct http2_session *ses)
{
    struct http2_room *room = ses->room;
    if (room && room->len > 0) {
        put_room(ses);
        conn_flush(ses->conn);
        room->put = 0;
        room->len = 0;
    }
}

static void
gather(struct http2_session *ses, const void *bytes, size_t len)
{
    assert(len <= ROOM_BYTES);
    if (ses->room->len + len > ROOM_BYTES) {
        write_room(ses);
    }
    memcpy(ses->room->bytes + ses->room->len, bytes, len);
    ses->room->len += len;
}

/* ---- bodies ---- */

static void
submit_trailers(struct http2_stream *st)
{
    struct http2_fields *t = st->trailers_out;
    if (nghttp2_submit_trailer(st->session->ng, st->id, t->nv, t->n) != 0) {
        http2_session_break(st->session);
    }
}

/* How much nghttp2 may frame next, of what waits. */
static ssize_t
on_body_wanted(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t max, uint32_t *flags,
               nghttp2_data_source *source, void *arg)
{
    struct http2_stream *st = source->ptr;
    size_t have = buf_len(st->out) + st->direct.len;
    if (have == 0 && !st->is_end_given) {
        st->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (have > max || !st->is_end_given) {
        return (ssize_t)(have < max ? have : max);
    }
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (st->trailers_out) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        submit_trailers(st);
    }
    return (ssize_t)have;
}

nghttp2_data_provider
http2_body_of(struct http2_stream *st)
{
    return (nghttp2_data_provider){.source.ptr = st, .read_callback = on_body_wanted};
}

/* Bytes that stay where they are until the pump has ended. Many go from there, behind what is in
 * the room; TLS would copy them itself. */
static void
put_direct(struct http2_session *ses, struct slice bytes)
{
    if (bytes.len < BULK_BYTES || ses->conn->io.tls) {
        gather(ses, bytes.ptr, bytes.len);
        return;
    }
    put_room(ses);
    conn_put(ses->conn, bytes.ptr, bytes.len);
}

/* Take n of the waiting bytes into the room. */
static void
gather_body(struct http2_stream *st, size_t n)
{
    struct slice kept = buf_slice(st->out);
    size_t first = kept.len < n ? kept.len : n;
    if (first > 0) {
        gather(st->session, kept.ptr, first);
        buf_consume(&st->out, first);
    }
    size_t rest = n - first;
    assert(rest <= st->direct.len);
    if (rest > 0) {
        put_direct(st->session, slice_of(st->direct.ptr, rest));
        st->direct = slice_of(st->direct.ptr + rest, st->direct.len - rest);
    }
}

static int
on_send_body(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *header, size_t len,
             nghttp2_data_source *source, void *arg)
{
    struct http2_session *ses = arg;
    struct http2_stream *st = source->ptr;
    if (ses->room->len + FRAME_HEADER + len > ROOM_BYTES) {
        write_room(ses);
    }
    if (conn_is_blocked(ses->conn)) {
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    gather(ses, header, FRAME_HEADER);
    gather_body(st, len);
    http2_stream_on_framed(st, len);
    return 0;
}

/* ---- pumping ---- */

int
http2_announce(struct http2_session *ses, uint32_t max_streams)
{
    uint8_t entry[SETTING_BYTES] = {0, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS};
    const uint8_t *bytes;
    if (!acquire_room(ses)) {
        return -1;
    }
    ssize_t n = nghttp2_session_mem_send(ses->ng, &bytes);
    if (n < FRAME_HEADER + SETTING_BYTES) {
        return -1;
    }
    assert(bytes[3] == NGHTTP2_SETTINGS && memcmp(bytes + FRAME_HEADER, entry, 2) == 0);
    max_streams = htonl(max_streams);
    memcpy(entry + 2, &max_streams, sizeof(max_streams));
    gather(ses, bytes, FRAME_HEADER);
    gather(ses, entry, SETTING_BYTES);
    gather(ses, bytes + FRAME_HEADER + SETTING_BYTES, (size_t)n - FRAME_HEADER - SETTING_BYTES);
    return 0;
}

void
http2_pump(struct http2_session *ses)
{
    assert(ses->depth == 0);
    if (!ses->ng || !acquire_room(ses)) {
        return;
    }
    http2_enter(ses);
    while (ses->ng && !conn_is_blocked(ses->conn)) {
        const uint8_t *bytes;
        ssize_t n = nghttp2_session_mem_send(ses->ng, &bytes);
        if (n < 0) {
            http2_session_break(ses);
        }
        if (n <= 0) {
            break;
        }
        gather(ses, bytes, (size_t)n);
    }
    http2_leave(ses);
    if (ses->room && ses->room->put > 0) {
        write_room(ses); /* what lies elsewhere does not stay there */
    }
    http2_session_mark(ses);
}

void
http2_session_mark(struct http2_session *ses)
{
    if (list_is_empty(&ses->dirty) && ses->ng) {
        list_add_tail(&dirty_sessions, &ses->dirty);
    }
}

/* Has everything been said, and nothing more is to come? */
static bool
is_finished(const struct http2_session *ses)
{
    return ses->is_over ||
           (!nghttp2_session_want_read(ses->ng) && !nghttp2_session_want_write(ses->ng));
}

static enum reason
why_finished(const struct http2_session *ses)
{
    if (ses->is_over) {
        return ses->over;
    }
    return ses->is_going || ses->has_goaway ? REASON_none : http2_blame(ses);
}

/* A reset that is submitted overtakes what its stream has to say, so it is submitted behind that:
 * behind what could be framed of an answer that is cut, and behind the end of an early one, after
 * which the rest of the request is refused (RFC 9113 8.1). */
static void
submit_resets(struct http2_session *ses)
{
    list_for_each_safe (it, &ses->resets) {
        struct http2_stream *st = container_of(it, struct http2_stream, ready);
        if (!st->is_reset && !st->is_end_sent) {
            continue;
        }
        list_del(&st->ready);
        st->is_reset = true;
        if (nghttp2_submit_rst_stream(ses->ng, NGHTTP2_FLAG_NONE, st->id, st->reset_code) != 0) {
            http2_session_break(ses);
        }
    }
    http2_pump(ses);
}

void
http2_session_write(struct http2_session *ses)
{
    http2_pump(ses);
    if (!list_is_empty(&ses->resets) && ses->ng && !conn_is_blocked(ses->conn)) {
        submit_resets(ses);
    }
    write_room(ses);
}

static void
flush(struct http2_session *ses)
{
    http2_session_write(ses);
    http2_room_release(ses);
    list_del(&ses->dirty);
    if (ses->ng && !conn_is_blocked(ses->conn) && is_finished(ses)) {
        ses->side->on_over(ses, why_finished(ses));
    }
}

void
http2_session_flush_all(void)
{
    while (!list_is_empty(&dirty_sessions)) {
        flush(list_first(&dirty_sessions, struct http2_session, dirty));
    }
    http2_stream_reap();
    http2_session_reap();
}

void
http2_output_set_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_body);
}
