/* SPDX-License-Identifier: Apache-2.0
 *
 * idle.c - clients that make one request each and then only stay, for measuring what they cost.
 *
 *     idle [--tls] [--http2] PORT PATH CLIENTS          to 127.0.0.1:PORT
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

/* RFC 9113 */
#define FRAME_HEADER 9
#define HEADERS      1 /* DATA is 0 */
#define SETTINGS     4
#define END_STREAM   1
#define ACK          1
#define SETTINGS_ACK "\0\0\0\4\1\0\0\0\0"

struct client {
    int fd;
    SSL *ssl; /* NULL without TLS */
};

static struct sockaddr_in server_at;
static SSL_CTX *tls;
static char request[256];
static size_t request_length;
static bool is_http2;

static int
client_write(struct client *client, const char *bytes, size_t length)
{
    return client->ssl ? SSL_write(client->ssl, bytes, (int)length)
                       : (int)write(client->fd, bytes, length);
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

/* Frames of HTTP/2 that have come whole are taken off. True when the answer has ended. */
static bool
take_frames(struct client *client, char *bytes, size_t *length)
{
    size_t at = 0;
    bool is_whole = false;

    while (*length - at >= FRAME_HEADER) {
        const unsigned char *frame = (unsigned char *)bytes + at;
        size_t size = FRAME_HEADER + ((size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2]);
        if (*length - at < size) {
            break;
        }
        if (frame[3] == SETTINGS && !(frame[4] & ACK) &&
            client_write(client, SETTINGS_ACK, FRAME_HEADER) <= 0) {
            fail("write");
        }
        is_whole |= frame[3] <= HEADERS && (frame[4] & END_STREAM);
        at += size;
    }
    memmove(bytes, bytes + at, *length - at);
    *length -= at;
    return is_whole;
}

static void
check_status(const char *answer)
{
    if (!is_http2 && strncmp(answer, "HTTP/1.1 200 ", 13) != 0) {
        fprintf(stderr, "answer: %.40s\n", answer);
        exit(1);
    }
}

static void
client_request(struct client *client)
{
    static char answer[ANSWER_MAX + 1];
    size_t length = 0;
    bool is_whole = false;

    if (client_write(client, request, request_length) <= 0) {
        fail("write");
    }
    while (!is_whole) {
        int n = client_read(client, answer + length, ANSWER_MAX - length);
        if (n <= 0) {
            fail("read");
        }
        length += (size_t)n;
        answer[length] = '\0';
        is_whole =
            is_http2 ? take_frames(client, answer, &length) : answer_is_whole(answer, length);
    }
    check_status(answer);
}

/* A closed connection reads as its end; an open one has nothing to read (after what HTTP/2 may say
 * behind an answer). */
static bool
client_is_alive(const struct client *client)
{
    char bytes[256];
    ssize_t n;

    do {
        n = recv(client->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    } while (n > 0 && is_http2);
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

/* A field whose name the static table of RFC 7541 has, as a literal. */
static void
put_field(unsigned name, const char *value)
{
    request[request_length++] = (char)name;
    request[request_length++] = (char)strlen(value);
    request_length += (size_t)sprintf(request + request_length, "%s", value);
}

/* Preface, settings and the HEADERS of stream 1. */
static void
make_http2(const char *authority, const char *path, bool secure)
{
    static const char begin[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" /* and the settings: none */
                                "\0\0\0\4\0\0\0\0\0"
                                "\0\0\0\1\5\0\0\0\1";
    size_t head = sizeof(begin) - 1;

    memcpy(request, begin, head);
    request_length = head;
    request[request_length++] = (char)0x82;                   /* GET */
    request[request_length++] = (char)(secure ? 0x87 : 0x86); /* https or http */
    put_field(4, path);
    put_field(1, authority);
    request[head - FRAME_HEADER + 2] = (char)(request_length - head);
}

static void
make_request(const char *port, const char *path, bool secure)
{
    char authority[32];

    snprintf(authority, sizeof(authority), "127.0.0.1:%s", port);
    if (is_http2) {
        make_http2(authority, path, secure);
        return;
    }
    request_length = (size_t)snprintf(request, sizeof(request),
                                      "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, authority);
}

static void
open_tls(void)
{
    tls = SSL_CTX_new(TLS_client_method());
    if (!tls || !SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION) ||
        (is_http2 && SSL_CTX_set_alpn_protos(tls, (const unsigned char *)"\2h2", 3) != 0)) {
        fail("tls");
    }
}

static bool
take_option(int *argc, char ***argv, const char *name)
{
    if (*argc < 2 || strcmp((*argv)[1], name) != 0) {
        return false;
    }
    (*argc)--;
    (*argv)++;
    return true;
}

int
main(int argc, char **argv)
{
    bool secure = take_option(&argc, &argv, "--tls");

    is_http2 = take_option(&argc, &argv, "--http2");
    if (argc != 4 || strlen(argv[2]) > 64) {
        fprintf(stderr, "usage: idle [--tls] [--http2] PORT PATH CLIENTS\n");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    server_at = loopback_address(argv[1]);
    make_request(argv[1], argv[2], secure);
    if (secure) {
        open_tls();
    }
    clients_run(strtoul(argv[3], NULL, 10));
    return 0;
}
