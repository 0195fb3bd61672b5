/* SPDX-License-Identifier: Apache-2.0
 *
 * demo.c - the demonstration of demo.h. Its backends are evhttp servers on free ports of 127.0.0.1.
 */
#include "master/demo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "master/spawn.h"
#include "shared/log.h"

#define DEMO_BACKENDS 2

static struct demo_backend {
    pid_t pid;
    int fd;
    unsigned port;
    const char *name;
} backends[DEMO_BACKENDS] = {{.name = "one"}, {.name = "two"}};

static void
demo_answer(struct evhttp_request *req, void *arg)
{
    const struct demo_backend *b = arg;
    const char *id = evhttp_find_header(evhttp_request_get_input_headers(req), "X-Request-ID");
    struct evbuffer *body = evbuffer_new();
    if (!body) {
        evhttp_send_error(req, HTTP_INTERNAL, NULL);
        return;
    }
    evbuffer_add_printf(body, "Hello from demonstration backend %s (127.0.0.1:%u), request %s\n",
                        b->name, b->port, id ? id : "-");
    evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Type", "text/plain");
    evhttp_send_reply(req, HTTP_OK, "OK", body);
    evbuffer_free(body);
}

static int
demo_serve(void *arg)
{
    struct demo_backend *b = arg;
    struct event_base *base = event_base_new();
    struct evhttp *http = base ? evhttp_new(base) : NULL;
    if (!http || evhttp_accept_socket(http, b->fd) != 0) {
        log_error("demo: backend %s: could not start", b->name);
        return 2;
    }
    signal(SIGTERM, SIG_DFL);
    evhttp_set_gencb(http, demo_answer, b);
    event_base_dispatch(base);
    return 0;
}

static int
demo_listen(struct demo_backend *b)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    b->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (b->fd < 0 || bind(b->fd, (struct sockaddr *)&sa, len) < 0 || listen(b->fd, 128) < 0 ||
        getsockname(b->fd, (struct sockaddr *)&sa, &len) < 0) {
        return -1;
    }
    b->port = ntohs(sa.sin_port);
    return 0;
}

static int
demo_spawn(struct demo_backend *b, struct event_base *base, const struct identity *id)
{
    char name[32];
    snprintf(name, sizeof(name), "demo backend %s", b->name);
    struct spawn_plan plan = {.name = name,
                              .base = base,
                              .id = id,
                              .keep = &b->fd,
                              .nkeep = 1,
                              .run = demo_serve,
                              .arg = b};
    b->pid = spawn_process(&plan);
    close(b->fd);
    return b->pid > 0 ? 0 : -1;
}

const char *
demo_start(struct event_base *base, const struct identity *id)
{
    static char text[512];
    for (int i = 0; i < DEMO_BACKENDS; i++) {
        if (demo_listen(&backends[i]) < 0 || demo_spawn(&backends[i], base, id) < 0) {
            return NULL;
        }
    }
    snprintf(text, sizeof(text),
             "{\n"
             "  \"workers\": 2,\n"
             "  \"host\": \"127.0.0.1\", \"listen\": \"1902\",\n"
             "  \"metrics\": \"127.0.0.1:9100\",\n"
             "  \"Backends\": [\n"
             "    { \"address\": \"127.0.0.1:%u\" },\n"
             "    { \"address\": \"127.0.0.1:%u\" }\n"
             "  ]\n"
             "}\n",
             backends[0].port, backends[1].port);
    return text;
}

void
demo_on_exit(pid_t pid, int status)
{
    for (int i = 0; i < DEMO_BACKENDS; i++) {
        if (backends[i].pid == pid) {
            backends[i].pid = 0;
            log_info("demo: backend %s: ended: status %d", backends[i].name, status);
        }
    }
}

void
demo_stop(void)
{
    for (int i = 0; i < DEMO_BACKENDS; i++) {
        if (backends[i].pid > 0) {
            kill(backends[i].pid, SIGTERM);
        }
    }
}
