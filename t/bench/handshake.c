/* SPDX-License-Identifier: Apache-2.0
 *
 * handshake.c - a load of full TLS 1.3 handshakes: a new connection, a new session and one request
 * each.
 *
 *     handshake PORT PATH BYTES CLIENTS SECONDS          to 127.0.0.1:PORT
 *
 * wrk cannot measure this: it keeps its SSL objects and resumes their sessions. Here every
 * connection gets a new SSL object without a session, and one that resumed nonetheless counts as an
 * error. A request is good when its answer is a 200 with BYTES bytes of body and the server then
 * ends the connection. One line of JSON with the fields that report.lua writes goes to standard
 * output.
 */
#include "t/bench/loopback.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS_MAX 1024
#define HEAD_MAX    2048
#define SAMPLES_MAX (1 << 20)

enum client_state {
    CLIENT_HANDSHAKE, /* connecting, or in the handshake */
    CLIENT_ANSWER     /* the request has gone out, the answer is awaited to its end */
};

struct client {
    int fd;
    SSL *ssl;
    enum client_state state;
    uint64_t began_ns;
    size_t received;         /* bytes of the answer, head included */
    char head[HEAD_MAX + 1]; /* its beginning */
};

static struct sockaddr_in server_at;
static SSL_CTX *tls;
static int epoll;
static char request[256];
static size_t body_bytes;
static uint32_t latency_us[SAMPLES_MAX];
static unsigned long requests, errors, bytes;

static void
client_begin(struct client *client)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};

    client->began_ns = now_ns();
    client->state = CLIENT_HANDSHAKE;
    client->received = 0;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    client->ssl = SSL_new(tls);
    if (client->fd < 0 || !client->ssl || !SSL_set_fd(client->ssl, client->fd)) {
        fail("client");
    }
    SSL_set_connect_state(client->ssl);
    if (connect(client->fd, (struct sockaddr *)&server_at, sizeof(server_at)) < 0 &&
        errno != EINPROGRESS) {
        fail("connect");
    }
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event) < 0) {
        fail("epoll_ctl");
    }
}

static void
client_end(struct client *client)
{
    SSL_free(client->ssl);
    close(client->fd);
}

/* The answer has ended: was it what was asked for, after a full handshake? */
static bool
client_is_content(struct client *client)
{
    size_t kept = client->received < HEAD_MAX ? client->received : HEAD_MAX;

    client->head[kept] = '\0';
    const char *body = strstr(client->head, "\r\n\r\n");
    if (!body || strncmp(client->head, "HTTP/1.1 200 ", 13) != 0) {
        return false;
    }
    size_t head_bytes = (size_t)(body + 4 - client->head);
    return client->received == head_bytes + body_bytes && !SSL_session_reused(client->ssl);
}

static void
client_finish(struct client *client)
{
    if (!client_is_content(client)) {
        errors++;
    } else {
        if (requests < SAMPLES_MAX) {
            latency_us[requests] = (uint32_t)((now_ns() - client->began_ns) / 1000);
        }
        requests++;
        bytes += client->received;
    }
    client_end(client);
    client_begin(client);
}

/* True when OpenSSL only waits for the socket, and not for anything else. */
static bool
client_waits(struct client *client, int result)
{
    int error = SSL_get_error(client->ssl, result);

    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static void
client_read_answer(struct client *client)
{
    char buffer[16384];

    for (;;) {
        int n = SSL_read(client->ssl, buffer, sizeof(buffer));
        if (n <= 0) {
            if (!client_waits(client, n)) {
                client_finish(client);
            }
            return;
        }
        if (client->received < HEAD_MAX) {
            size_t room = HEAD_MAX - client->received;
            memcpy(client->head + client->received, buffer, (size_t)n < room ? (size_t)n : room);
        }
        client->received += (size_t)n;
    }
}

static void
client_on_event(struct client *client)
{
    ERR_clear_error(); /* what another client left there would be taken for this one's */
    if (client->state == CLIENT_HANDSHAKE) {
        int done = SSL_do_handshake(client->ssl);
        if (done <= 0) {
            if (!client_waits(client, done)) {
                client_finish(client);
            }
            return;
        }
        client->state = CLIENT_ANSWER;
        if (SSL_write(client->ssl, request, (int)strlen(request)) <= 0) {
            client_finish(client);
            return;
        }
    }
    client_read_answer(client);
}

static int
compare_samples(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void
report(uint64_t duration_ns)
{
    size_t n = requests < SAMPLES_MAX ? requests : SAMPLES_MAX;

    qsort(latency_us, n, sizeof(latency_us[0]), compare_samples);
    printf("{\"requests\": %lu, \"bytes\": %lu, \"duration_us\": %llu, "
           "\"p50_us\": %u, \"p99_us\": %u, \"errors\": %lu}\n",
           requests, bytes, (unsigned long long)(duration_ns / 1000), latency_us[n / 2],
           latency_us[n * 99 / 100], errors);
}

static void
load_run(size_t clients, double seconds)
{
    static struct client all[CLIENTS_MAX];
    struct epoll_event events[CLIENTS_MAX];
    uint64_t began_ns = now_ns();
    uint64_t end_ns = began_ns + (uint64_t)(seconds * 1e9);

    for (size_t i = 0; i < clients; i++) {
        client_begin(&all[i]);
    }
    while (now_ns() < end_ns) {
        int n = epoll_wait(epoll, events, CLIENTS_MAX, 100);
        for (int i = 0; i < n; i++) {
            client_on_event(events[i].data.ptr);
        }
    }
    report(now_ns() - began_ns);
    for (size_t i = 0; i < clients; i++) {
        client_end(&all[i]);
    }
}

int
main(int argc, char **argv)
{
    if (argc != 6 || atoi(argv[4]) < 1 || atoi(argv[4]) > CLIENTS_MAX) {
        fprintf(stderr, "usage: handshake PORT PATH BYTES CLIENTS SECONDS\n");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    server_at = loopback_address(argv[1]);
    body_bytes = strtoul(argv[3], NULL, 10);
    snprintf(request, sizeof(request),
             "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n", argv[2],
             argv[1]);
    tls = SSL_CTX_new(TLS_client_method());
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!tls || epoll < 0 || !SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION)) {
        fail("setup");
    }
    load_run((size_t)atoi(argv[4]), atof(argv[5]));
    SSL_CTX_free(tls);
    return 0;
}
