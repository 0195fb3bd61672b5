/* SPDX-License-Identifier: Apache-2.0
 *
 * origin.c - the backend of the benchmark: answers GET /SIZE with SIZE bytes, as fast as one core
 * can.
 *
 *     origin PORT [DELAY]  listens on 127.0.0.1:PORT; /40, /1k, /64k, /16m and /1g are paths it
 *                          knows; every answer waits DELAY microseconds
 *
 * An answer is built once per size (head and body in one buffer) and written from there. The body
 * is the same for every request and has no short period, so that a lost or repeated piece is seen
 * in its hash; one above PERIOD bytes is the same memory mapped again and again. Requests have no
 * bodies; pipelined ones are answered in order; "Connection: close" is obeyed. Every client belongs
 * to the epoll set that names it and is freed when its connection closes.
 */

#include "t/bench/loopback.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX    8192
#define ANSWERS_MAX 16
#define SIZE_MAX_   (1u << 30)
#define PERIOD      (16u << 20)
#define PAGE        65536u /* a multiple of any page size */
#define EVENTS_MAX  256

/* One size, in two forms: the second says that the connection closes after it. */
struct answer {
    size_t size;
    char *bytes[2];
    size_t length[2];
};

struct client {
    int fd;
    bool closing; /* the answer that goes out is the last one */
    bool waiting; /* for its time, in the queue of those */
    uint64_t due_ns;
    TAILQ_ENTRY(client) link;
    size_t filled;   /* bytes of request in head */
    const char *out; /* what is left of the answer; NULL when none is going out */
    size_t out_left;
    char head[HEAD_MAX + 1];
};

static struct answer answers[ANSWERS_MAX];
static size_t answer_count;
static uint64_t delay_ns;
/* All wait equally long, so who came first is due first. */
static TAILQ_HEAD(, client) waiting = TAILQ_HEAD_INITIALIZER(waiting);

/* xorshift: any piece of the body differs from any other. */
static void
body_fill(char *to, size_t size)
{
    uint64_t x = 0x9e3779b97f4a7c15u;

    for (size_t i = 0; i < size; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        to[i] = (char)('a' + x % 26);
    }
}

/* Memory for a head of at most PAGE bytes and, behind it, a body that is filled. */
static char *
body_new(size_t size)
{
    size_t part = size < PERIOD ? size : PERIOD;
    int memory = memfd_create("body", MFD_CLOEXEC);
    if (size % part != 0 || memory < 0 || ftruncate(memory, (off_t)part) != 0) {
        fail("body");
    }
    char *first =
        mmap(NULL, PAGE + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t at = 0; first != MAP_FAILED && at < size; at += part) {
        if (mmap(first + PAGE + at, part, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory,
                 0) == MAP_FAILED) {
            fail("mmap");
        }
    }
    if (first == MAP_FAILED) {
        fail("mmap");
    }
    close(memory);
    body_fill(first + PAGE, part);
    return first + PAGE;
}

static void
answer_build(struct answer *answer, bool close_after)
{
    char head[256];
    int head_length =
        snprintf(head, sizeof(head),
                 "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n",
                 answer->size, close_after ? "Connection: close\r\n" : "");
    char *bytes = body_new(answer->size) - head_length;

    memcpy(bytes, head, (size_t)head_length);
    answer->bytes[close_after] = bytes;
    answer->length[close_after] = (size_t)head_length + answer->size;
}

/* Returns the answer of that many bytes, or NULL when the table is full. */
static const struct answer *
answer_find(size_t size)
{
    for (size_t i = 0; i < answer_count; i++) {
        if (answers[i].size == size) {
            return &answers[i];
        }
    }
    if (answer_count == ANSWERS_MAX) {
        return NULL;
    }
    struct answer *added = &answers[answer_count++];
    added->size = size;
    answer_build(added, false);
    answer_build(added, true);
    return added;
}

/* Reads the size in "GET /64k HTTP/1.1". Returns false when there is none to be read. */
static bool
request_size(const char *head, size_t *size)
{
    char *end;

    if (strncmp(head, "GET /", 5) != 0 || head[5] < '0' || head[5] > '9') {
        return false;
    }
    unsigned long long number = strtoull(head + 5, &end, 10);
    if (number > SIZE_MAX_) {
        return false;
    }
    if (*end == 'k' || *end == 'm' || *end == 'g') {
        number <<= *end == 'k' ? 10 : *end == 'm' ? 20 : 30;
        end++;
    }
    *size = (size_t)number;
    return *end == ' ' && number <= SIZE_MAX_;
}

/* True when the head asks for the connection to end, by its field or by being HTTP/1.0. */
static bool
request_closes(const char *head)
{
    const char *line = strstr(head, "\r\n");

    if (line && strncmp(line - 8, "HTTP/1.0", 8) == 0) {
        return true;
    }
    for (; line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, "connection:", 11) == 0) {
            const char *value = line + 13 + strspn(line + 13, " \t");
            return strncasecmp(value, "close", 5) == 0;
        }
    }
    return false;
}

static void
client_close(struct client *client)
{
    if (client->waiting) {
        TAILQ_REMOVE(&waiting, client, link);
    }
    close(client->fd);
    free(client);
}

/* Takes one complete request out of the buffer and puts its answer up. Returns 1 when there was
 * one, 0 when more bytes are needed, -1 when the bytes are no request. */
static int
client_take_request(struct client *client)
{
    client->head[client->filled] = '\0';
    char *end = strstr(client->head, "\r\n\r\n");
    if (!end) {
        return client->filled < HEAD_MAX ? 0 : -1;
    }
    end[2] = '\0';

    size_t size;
    const struct answer *answer = NULL;
    if (request_size(client->head, &size)) {
        answer = answer_find(size);
    }
    if (!answer) {
        return -1;
    }
    client->closing = request_closes(client->head);
    client->out = answer->bytes[client->closing];
    client->out_left = answer->length[client->closing];

    size_t used = (size_t)(end + 4 - client->head);
    client->filled -= used;
    memmove(client->head, end + 4, client->filled);
    return 1;
}

/* Returns 1 when the answer has gone out, 0 when the socket is full, -1 when the client is gone. */
static int
client_send(struct client *client)
{
    while (client->out_left > 0) {
        ssize_t n = write(client->fd, client->out, client->out_left);
        if (n < 0) {
            return errno == EAGAIN ? 0 : -1;
        }
        client->out += n;
        client->out_left -= (size_t)n;
    }
    client->out = NULL;
    return client->closing ? -1 : 1;
}

/* Answers what is in the buffer. Returns 1 to read on, 0 to wait for room, -1 to close. */
static int
client_answer(struct client *client)
{
    for (;;) {
        if (client->out) {
            int sent = client_send(client);
            if (sent <= 0) {
                return sent;
            }
        }
        int taken = client_take_request(client);
        if (taken <= 0) {
            return taken < 0 ? -1 : 1;
        }
        if (delay_ns > 0) {
            client->waiting = true;
            client->due_ns = now_ns() + delay_ns;
            TAILQ_INSERT_TAIL(&waiting, client, link);
            return 0;
        }
    }
}

/* Edge-triggered, so it goes on until the socket has nothing more to give or to take. */
static void
client_on_event(struct client *client)
{
    while (!client->waiting) {
        int answered = client_answer(client);
        if (answered < 0) {
            client_close(client);
        }
        if (answered <= 0) {
            return;
        }
        size_t room = HEAD_MAX - client->filled;
        ssize_t n = read(client->fd, client->head + client->filled, room);
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n <= 0) {
            client_close(client);
            return;
        }
        client->filled += (size_t)n;
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
        client->filled = 0;
        client->out = NULL;
        client->closing = false;
        client->waiting = false;
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
            fail("epoll_ctl");
        }
    }
}

/* Those whose time has come are answered. Returns how long the next one has to wait; -1 for ever.
 */
static int64_t
clients_due(void)
{
    struct client *client;

    while ((client = TAILQ_FIRST(&waiting)) != NULL) {
        uint64_t now = now_ns();
        if (client->due_ns > now) {
            return (int64_t)(client->due_ns - now);
        }
        TAILQ_REMOVE(&waiting, client, link);
        client->waiting = false;
        client_on_event(client);
    }
    return -1;
}

static int
wait_for_events(int epoll, struct epoll_event *events, int64_t wait_ns)
{
    struct timespec time = {wait_ns / 1000000000, wait_ns % 1000000000};

    return epoll_pwait2(epoll, events, EVENTS_MAX, wait_ns < 0 ? NULL : &time, NULL);
}

int
main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];

    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: origin PORT [DELAY]\n");
        return 1;
    }
    delay_ns = argc == 3 ? strtoull(argv[2], NULL, 10) * 1000 : 0;
    signal(SIGPIPE, SIG_IGN);
    int listener = loopback_listen(argv[1]);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event listening = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening) < 0) {
        fail("epoll");
    }
    for (;;) {
        int n = wait_for_events(epoll, events, clients_due());
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) {
                client_on_event(events[i].data.ptr);
            } else {
                clients_accept(epoll, listener);
            }
        }
    }
}
