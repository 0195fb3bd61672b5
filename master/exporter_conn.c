/* SPDX-License-Identifier: Apache-2.0
 *
 * exporter_conn.c - read one head, answer, linger, close; all within one deadline.
 */
#include "master/exporter_conn.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shared/clock.h"

#define LINGER_MS        2000
#define LINGER_BYTES_MAX 65536
#define HEAD_FIELDS_MAX  64

static void
conn_on_io(evutil_socket_t fd, short what, void *arg);

static struct timeval
after_ms(uint64_t ms)
{
    return (struct timeval){.tv_sec = (time_t)(ms / 1000),
                            .tv_usec = (suseconds_t)(ms % 1000) * 1000};
}

/* ---- pages ---- */

struct page *
page_new(char *text, size_t len, uint64_t born_ms)
{
    struct page *page = text ? malloc(sizeof(*page)) : NULL;
    if (!page) {
        free(text);
        return NULL;
    }
    *page = (struct page){.refs = 1, .born_ms = born_ms, .text = text, .len = len};
    return page;
}

void
page_unref(struct page *page)
{
    if (page && --page->refs == 0) {
        free(page->text);
        free(page);
    }
}

/* ---- answering ---- */

void
exporter_conn_close(struct exporter_conn *c)
{
    struct exporter *exporter = c->exporter;
    event_del(&c->io);
    event_del(&c->deadline);
    close(c->fd);
    page_unref(c->page);
    list_del(&c->link);
    free(c);
    exporter_on_conn_closed(exporter);
}

static void
conn_on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    exporter_conn_close(arg);
}

static void
conn_wait_for(struct exporter_conn *c, short what)
{
    event_del(&c->io);
    event_assign(&c->io, c->base, c->fd, what | EV_PERSIST, conn_on_io, c);
    event_priority_set(&c->io, 1);
    event_add(&c->io, NULL);
}

/* The answer is out. Closing now, with input unread, could reset it away. */
static void
conn_linger(struct exporter_conn *c)
{
    uint64_t now = clock_mono_ms(), left = c->due_ms > now ? c->due_ms - now : 0;
    struct timeval tv = after_ms(left < LINGER_MS ? left : LINGER_MS);
    shutdown(c->fd, SHUT_WR);
    c->state = CONN_LINGER;
    evtimer_add(&c->deadline, &tv);
    conn_wait_for(c, EV_READ);
}

static void
conn_discard(struct exporter_conn *c)
{
    ssize_t n = recv(c->fd, c->head, sizeof(c->head), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    c->lingered += n > 0 ? (size_t)n : 0;
    if (n <= 0 || c->lingered >= LINGER_BYTES_MAX) {
        exporter_conn_close(c);
    }
}

static void
conn_send(struct exporter_conn *c)
{
    size_t body = c->page && !c->is_head ? c->page->len : 0;
    size_t from = c->sent < c->answer_len ? c->sent : c->answer_len;
    size_t body_from = c->sent - from;
    struct iovec iov[2] = {{c->answer + from, c->answer_len - from},
                           {body ? c->page->text + body_from : NULL, body - body_from}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = body ? 2 : 1};
    ssize_t n = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        exporter_conn_close(c);
        return;
    }
    c->sent += n > 0 ? (size_t)n : 0;
    if (c->sent == c->answer_len + body) {
        conn_linger(c);
    } else if (!(event_get_events(&c->io) & EV_WRITE) || !event_pending(&c->io, EV_WRITE, NULL)) {
        conn_wait_for(c, EV_WRITE);
    }
}

void
exporter_conn_answer(struct exporter_conn *c, int status, const char *type, struct page *page)
{
    char date[32];
    struct slice phrase = http_status_phrase(status);
    http_date(clock_wall_us() / 1000000, date);
    int n = snprintf(c->answer, sizeof(c->answer),
                     "HTTP/1.1 %d %.*s\r\n"
                     "Date: %s\r\n"
                     "Content-Type: %s\r\n"
                     "Content-Length: %zu\r\n"
                     "Cache-Control: no-store\r\n"
                     "X-Content-Type-Options: nosniff\r\n"
                     "%s%s"
                     "Connection: close\r\n"
                     "\r\n",
                     status, SLICE_ARG(phrase), date, type, page->len,
                     status == 405 ? "Allow: GET, HEAD\r\n" : "", page->fields ? page->fields : "");
    assert(n > 0 && (size_t)n < sizeof(c->answer));
    c->answer_len = (size_t)n;
    c->page = page;
    c->state = CONN_ANSWER;
    conn_send(c);
}

void
exporter_conn_answer_text(struct exporter_conn *c, int status, const char *text)
{
    char *copy = strdup(text);
    struct page *page = page_new(copy, copy ? strlen(copy) : 0, 0);
    if (!page) {
        exporter_conn_close(c);
        return;
    }
    exporter_conn_answer(c, status, "text/plain; charset=utf-8", page);
}

void
exporter_conn_answer_status(struct exporter_conn *c, int status)
{
    char text[64];
    struct slice phrase = http_status_phrase(status);
    snprintf(text, sizeof(text), "%d %.*s\n", status, SLICE_ARG(phrase));
    exporter_conn_answer_text(c, status, text);
}

/* ---- reading ---- */

static void
conn_serve(struct exporter_conn *c, const struct http_msg *msg)
{
    c->is_head = msg->method == HTTP_HEAD;
    if (msg->method != HTTP_GET && msg->method != HTTP_HEAD) {
        exporter_conn_answer_status(c, 405);
        return;
    }
    if (msg->body != HTTP_BODY_NONE) {
        exporter_conn_answer_status(c, 413);
        return;
    }
    size_t mark = msg->path.len + (msg->target.len > msg->path.len);
    struct slice query = slice_of(msg->target.ptr + mark, msg->target.len - mark);
    exporter_serve(c->exporter, c, msg->path, query);
}

static void
conn_parse(struct exporter_conn *c, size_t len)
{
    static const struct http_limits limits = {.header_bytes = EXPORTER_HEAD_MAX,
                                              .header_count = HEAD_FIELDS_MAX};
    struct http_field fields[HEAD_FIELDS_MAX];
    struct http_msg msg = {.fields = fields, .max_fields = HEAD_FIELDS_MAX};
    int n = http1_parse_request(c->head, len, &limits, &msg);
    if (n <= 0) {
        exporter_conn_answer_status(c, n < 0 ? reason_table[-n].status : 400);
        return;
    }
    conn_serve(c, &msg);
}

static void
conn_fill(struct exporter_conn *c)
{
    ssize_t n = recv(c->fd, c->head + c->filled, sizeof(c->head) - c->filled, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        exporter_conn_close(c);
        return;
    }
    c->filled += (size_t)n;
    size_t end = http1_head_end(c->head, c->filled, c->scanned);
    c->scanned = c->filled;
    if (end > 0) {
        conn_parse(c, end);
    } else if (c->filled == sizeof(c->head)) {
        exporter_conn_answer_status(c, 431);
    }
}

static void
conn_on_io(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct exporter_conn *c = arg;
    switch (c->state) {
    case CONN_HEAD: conn_fill(c); break;
    case CONN_WAIT: break;
    case CONN_ANSWER: conn_send(c); break;
    case CONN_LINGER: conn_discard(c); break;
    }
}

struct exporter_conn *
exporter_conn_open(struct exporter *exporter, struct event_base *base, int fd,
                   const struct addr *from)
{
    struct exporter_conn *c = malloc(sizeof(*c));
    if (!c) {
        close(fd);
        return NULL;
    }
    memset(c, 0, offsetof(struct exporter_conn, head));
    addr_ip_from_sockaddr(&from->sa, from->len, &c->peer);
    c->exporter = exporter;
    c->base = base;
    c->fd = fd;
    c->due_ms = clock_mono_ms() + EXPORTER_DEADLINE_MS;
    struct timeval tv = after_ms(EXPORTER_DEADLINE_MS);
    evtimer_assign(&c->deadline, base, conn_on_deadline, c);
    event_priority_set(&c->deadline, 1);
    evtimer_add(&c->deadline, &tv);
    event_assign(&c->io, base, fd, EV_READ | EV_PERSIST, conn_on_io, c);
    event_priority_set(&c->io, 1);
    event_add(&c->io, NULL);
    list_init(&c->link);
    return c;
}

void
exporter_conn_park(struct exporter_conn *c, const void *awaited)
{
    event_del(&c->io);
    c->awaited = awaited;
    c->state = CONN_WAIT;
}
