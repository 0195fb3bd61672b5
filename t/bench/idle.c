/* SPDX-License-Identifier: Apache-2.0
 *
 * idle.c - clients that make one request each and then only stay, for measuring what they cost.
 *
 *     idle [--tls] PORT PATH CLIENTS          to 127.0.0.1:PORT
 *
 * The clients come one after the other, each when the answer of the one before has arrived whole.
 * Then "ready" is printed and standard input is read to its end; then "alive N", the number of
 * connections the server still holds, so that a proxy cannot look thrifty by having closed them.
 */
#include "t/bench/loopback.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_MAX 65536

struct client {
    int fd;
    SSL *ssl; /* NULL without TLS */
};

static struct sockaddr_in server_at;
static SSL_CTX *tls;
static char request[256];

static int
client_write(struct client *client)
{
    int length = (int)strlen(request);

    return client->ssl ? SSL_write(client->ssl, request, length)
                       : (int)write(client->fd, request, (size_t)length);
}

static int
client_read(struct client *client, char *to, size_t room)
{
    return client->ssl ? SSL_read(client->ssl, to, (int)room) : (int)read(client->fd, to, room);
}

static void
client_connect(struct client *client)
{
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0 ||
        connect(client->fd, (struct sockaddr *)&server_at, sizeof(server_at)) < 0) {
        fail("connect");
    }
    if (tls) {
        client->ssl = SSL_new(tls);
        if (!client->ssl || !SSL_set_fd(client->ssl, client->fd) || SSL_connect(client->ssl) != 1) {
            fail("handshake");
        }
    }
}

/* True when the buffer holds a head and as much body as its Content-Length says. */
static bool
answer_is_whole(const char *answer, size_t length)
{
    const char *end = strstr(answer, "\r\n\r\n");
    const char *field = strcasestr(answer, "\r\ncontent-length:");

    if (!end || !field || field > end) {
        return false;
    }
    return length >= (size_t)(end + 4 - answer) + strtoul(field + 17, NULL, 10);
}

static void
client_request(struct client *client)
{
    static char answer[ANSWER_MAX + 1];
    size_t length = 0;

    if (client_write(client) <= 0) {
        fail("write");
    }
    answer[0] = '\0';
    while (!answer_is_whole(answer, length)) {
        int n = client_read(client, answer + length, ANSWER_MAX - length);
        if (n <= 0) {
            fail("read");
        }
        length += (size_t)n;
        answer[length] = '\0';
    }
    if (strncmp(answer, "HTTP/1.1 200 ", 13) != 0) {
        fprintf(stderr, "answer: %.40s\n", answer);
        exit(1);
    }
}

/* A closed connection reads as its end; an open one has nothing to read. */
static bool
client_is_alive(const struct client *client)
{
    char byte;
    ssize_t n = recv(client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

static void
clients_run(size_t count)
{
    struct client *all = calloc(count, sizeof(*all));
    size_t alive = 0;

    if (!all) {
        fail("calloc");
    }
    for (size_t i = 0; i < count; i++) {
        client_connect(&all[i]);
        client_request(&all[i]);
    }
    printf("ready\n");
    fflush(stdout);
    while (getchar() != EOF) {
        /* only its end matters */
    }
    for (size_t i = 0; i < count; i++) {
        alive += client_is_alive(&all[i]);
    }
    printf("alive %zu\n", alive);
}

int
main(int argc, char **argv)
{
    bool secure = argc > 1 && strcmp(argv[1], "--tls") == 0;

    if (argc != 4 + secure) {
        fprintf(stderr, "usage: idle [--tls] PORT PATH CLIENTS\n");
        return 1;
    }
    argv += secure;
    signal(SIGPIPE, SIG_IGN);
    server_at = loopback_address(argv[1]);
    snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n\r\n", argv[2],
             argv[1]);
    if (secure) {
        tls = SSL_CTX_new(TLS_client_method());
        if (!tls || !SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION)) {
            fail("tls");
        }
    }
    clients_run(strtoul(argv[3], NULL, 10));
    return 0;
}
