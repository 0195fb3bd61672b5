/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_origin.c - a backend of gRPC for the benchmark, over HTTP/2 in cleartext.
 *
 *     grpc_origin PORT     listens on 127.0.0.1:PORT
 *
 * Whatever is called, a whole request is answered with one message of MESSAGE_BYTES and, in
 * trailers, status 0; a request without a body is no call, and gets the bytes of the message alone.
 * What one read brings is answered in one write. A client belongs to the epoll set that names it
 * and is freed when its connection closes.
 */
#include "t/bench/loopback.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PREFIX_BYTES  5
#define MESSAGE_BYTES 1024
#define READ_BYTES    65536
#define WRITE_BYTES   (256 * 1024)
#define EVENTS_MAX    256
#define STREAMS_MAX   1000
#define WINDOW_BYTES  (1 << 24)

enum { IS_CALL, IS_PLAIN };

struct client {
    int fd;
    nghttp2_session *session;
    size_t filled, sent; /* of out: sent <= filled */
    char out[WRITE_BYTES];
};

static uint8_t answer[PREFIX_BYTES + MESSAGE_BYTES];

static void
answer_build(void)
{
    answer[3] = MESSAGE_BYTES >> 8;
    answer[4] = MESSAGE_BYTES & 0xff;
    for (int i = 0; i < MESSAGE_BYTES; i++) {
        answer[PREFIX_BYTES + i] = (uint8_t)('a' + (i * 7 + i / 26) % 26);
    }
}

#define FIELD(name, value) \
    { \
        (uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1, 0 \
    }

static ssize_t
read_answer(nghttp2_session *session, int32_t id, uint8_t *out, size_t room, uint32_t *flags,
            nghttp2_data_source *source, void *arg)
{
    static const nghttp2_nv trailers[] = {FIELD("grpc-status", "0")};

    size_t sent = (uintptr_t)nghttp2_session_get_stream_user_data(session, id);
    size_t left = sizeof(answer) - sent, n = left < room ? left : room;

    memcpy(out, answer + sent, n);
    nghttp2_session_set_stream_user_data(session, id, (void *)(uintptr_t)(sent + n));
    if (n == left) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    if (n == left && source->fd == IS_CALL) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(session, id, trailers, 1);
    }
    return (ssize_t)n;
}

static int
on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    static const nghttp2_nv head[] = {FIELD(":status", "200"),
                                      FIELD("content-type", "application/grpc")};
    static const nghttp2_nv plain_head[] = {FIELD(":status", "200"),
                                            FIELD("content-type", "text/plain"),
                                            FIELD("content-length", "1024")};
    const nghttp2_data_provider body = {.source.fd = IS_CALL, .read_callback = read_answer};
    const nghttp2_data_provider plain = {.source.fd = IS_PLAIN, .read_callback = read_answer};
    int32_t id = frame->hd.stream_id;

    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
        return 0;
    }
    if (frame->hd.type == NGHTTP2_DATA) {
        nghttp2_submit_response(session, id, head, 2, &body);
    } else if (frame->hd.type == NGHTTP2_HEADERS) {
        nghttp2_session_set_stream_user_data(session, id, (void *)(uintptr_t)PREFIX_BYTES);
        nghttp2_submit_response(session, id, plain_head, 3, &plain);
    }
    return 0;
}

static nghttp2_session *
session_open(struct client *client)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES}};
    nghttp2_session_callbacks *calls;
    nghttp2_session *session;

    if (nghttp2_session_callbacks_new(&calls) != 0) {
        fail("malloc");
    }
    nghttp2_session_callbacks_set_on_frame_recv_callback(calls, on_frame);
    if (nghttp2_session_server_new(&session, calls, client) != 0 ||
        nghttp2_submit_settings(session, 0, settings, 2) != 0 ||
        nghttp2_session_set_local_window_size(session, 0, 0, WINDOW_BYTES) != 0) {
        fail("nghttp2");
    }
    nghttp2_session_callbacks_del(calls);
    return session;
}

static void
client_close(struct client *client)
{
    nghttp2_session_del(client->session);
    close(client->fd);
    free(client);
}

/* Gathers frames. Returns false when there are none. */
static bool
client_fill(struct client *client)
{
    const uint8_t *bytes;
    ssize_t n;

    client->filled = client->sent = 0;
    /* A frame is 16 KB and its head at most: what is left always has room for one more. */
    while (client->filled + 16384 + 9 <= WRITE_BYTES &&
           (n = nghttp2_session_mem_send(client->session, &bytes)) > 0) {
        memcpy(client->out + client->filled, bytes, (size_t)n);
        client->filled += (size_t)n;
    }
    return client->filled > 0;
}

/* Returns 1 when everything has gone out, 0 when the socket is full, -1 when the client is gone. */
static int
client_send(struct client *client)
{
    while (client->sent < client->filled || client_fill(client)) {
        ssize_t n = write(client->fd, client->out + client->sent, client->filled - client->sent);
        if (n < 0) {
            return errno == EAGAIN ? 0 : -1;
        }
        client->sent += (size_t)n;
    }
    return 1;
}

/* Edge-triggered, so it goes on until the socket has nothing more to give or to take. */
static void
client_on_event(struct client *client)
{
    static uint8_t bytes[READ_BYTES];
    ssize_t n;

    for (;;) {
        int sent = client_send(client);
        if (sent == 0) {
            return;
        }
        n = sent > 0 ? read(client->fd, bytes, sizeof(bytes)) : 0;
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n <= 0 || nghttp2_session_mem_recv(client->session, bytes, (size_t)n) < 0) {
            client_close(client);
            return;
        }
    }
}

static void
clients_accept(int epoll, int listener)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct client *client = malloc(sizeof(*client));
        if (!client) {
            fail("malloc");
        }
        client->fd = fd;
        client->filled = client->sent = 0;
        client->session = session_open(client);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
            fail("epoll_ctl");
        }
    }
}

int
main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];

    if (argc != 2) {
        fprintf(stderr, "usage: grpc_origin PORT\n");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    answer_build();
    int listener = loopback_listen(argv[1]);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event listening = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening) < 0) {
        fail("epoll");
    }
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) {
                client_on_event(events[i].data.ptr);
            } else {
                clients_accept(epoll, listener);
            }
        }
    }
}
