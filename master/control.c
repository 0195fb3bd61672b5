/* SPDX-License-Identifier: Apache-2.0
 *
 * control.c - the control socket: see control.h.
 */
#include "master/control.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <grp.h>
#include <json-c/json.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "master/command.h"
#include "master/control_request.h"
#include "master/master.h"
#include "master/operator.h"
#include "master/reload.h"
#include "master/stop.h"
#include "master/takeover.h"
#include "master/upgrade.h"
#include "shared/log.h"

#define CONTROL_CLIENTS   32
#define CONTROL_REQUEST_S 10
#define CONTROL_BACKLOG   16

struct control_client {
    struct list link;
    struct bufferevent *bev;
    struct event *deadline; /* for its line, then for taking the answer */
    struct verdict_waiter waiter;
    bool is_waiting;   /* for a verdict */
    struct load *load; /* for a configuration */
    bool is_answered;
};

static struct list clients = LIST_INIT(clients); /* the one that is silent longest first */
static unsigned nclients;
static int listen_fd = -1;
static struct event *acceptable;
static struct {
    char *path;  /* where it shall be; NULL: none is open */
    char *there; /* where it is */
    dev_t dev;
    ino_t ino;
} bound;

/* ---- clients ---- */

static void
client_close(struct control_client *client)
{
    if (client->is_waiting) {
        list_del(&client->waiter.link);
    }
    if (client->load) {
        load_cancel(client->load);
    }
    list_del(&client->link);
    event_free(client->deadline);
    bufferevent_free(client->bev);
    free(client);
    nclients--;
}

/* It has said something, or has been told something. */
static void
client_stirs(struct control_client *client)
{
    list_del(&client->link);
    list_add_tail(&clients, &client->link);
}

/* true: one that waits for nothing of ours, neither a verdict nor a configuration, was closed. */
static bool
close_longest_silent(void)
{
    list_for_each (it, &clients) {
        struct control_client *client = container_of(it, struct control_client, link);
        if (!client->is_waiting && !client->load) {
            client_close(client);
            return true;
        }
    }
    return false;
}

static void
set_deadline(struct control_client *client)
{
    struct timeval tv = {.tv_sec = CONTROL_REQUEST_S};
    event_add(client->deadline, &tv);
}

/* Takes reply. The connection closes when it has been written. */
static void
client_answer(struct control_client *client, struct json_object *reply)
{
    struct evbuffer *out = bufferevent_get_output(client->bev);
    evbuffer_add_printf(out, "%s\n", json_object_to_json_string_ext(reply, JSON_C_TO_STRING_PLAIN));
    json_object_put(reply);
    client->is_answered = true;
    bufferevent_disable(client->bev, EV_READ);
    client_stirs(client);
    set_deadline(client);
}

static void
on_verdict(struct verdict_waiter *waiter, bool is_ok, const char *why)
{
    struct control_client *client = container_of(waiter, struct control_client, waiter);
    client->is_waiting = false;
    client_answer(client, is_ok ? command_changed(json_object_get(reload_changes()))
                                : command_reply(false, why));
}

/* No file was read, and nothing has changed but what was asked for. */
static void
on_weighed(struct verdict_waiter *waiter, bool is_ok, const char *why)
{
    struct control_client *client = container_of(waiter, struct control_client, waiter);
    client->is_waiting = false;
    client_answer(client, command_reply(is_ok, why));
}

static void
client_wait(struct control_client *client)
{
    client->is_waiting = true;
    client->waiter.done = on_verdict;
    event_del(client->deadline);
    /* One that has shut its sending side down still wants the verdict. */
    bufferevent_disable(client->bev, EV_READ);
}

static void
on_diff_loaded(struct generation *gen, const struct conf_errors *errors, void *arg)
{
    struct control_client *client = arg;
    char why[SHM_VERDICT_MAX];
    client->load = NULL;
    if (gen->conf) {
        client_answer(client, command_diff(gen->conf));
    } else {
        generation_join_errors(errors, why, sizeof(why));
        client_answer(client, command_reply(false, why));
    }
}

/* The text comes from the client, which may read the file; what that names is read by us. */
static void
client_diff(struct control_client *client, const struct control_request *request)
{
    struct generation_origin origin = master.options->origin;
    event_del(client->deadline);
    bufferevent_disable(client->bev, EV_READ);
    if (request->text) {
        origin = (struct generation_origin){.path = request->name, .text = request->text};
    }
    struct load *load = load_start(&origin, master.base, on_diff_loaded, client);
    if (load) {
        client->load = load;
    }
}

static void
client_weigh(struct control_client *client, const struct control_request *request)
{
    char why[256];
    bool is_sane = request->weight >= 1 && request->weight <= CONF_WEIGHT_MAX;
    if (operator_set_weight(request->backend, is_sane ? (unsigned)request->weight : 0, why,
                            sizeof(why)) < 0) {
        client_answer(client, command_reply(false, why));
        return;
    }
    client_wait(client);
    client->waiter.done = on_weighed;
    reload_again("akashctl", &client->waiter);
}

static void
client_run(struct control_client *client, const struct control_request *request)
{
    switch (request->command) {
    case CONTROL_RELOAD:
        client_wait(client);
        reload_request("akashctl", &client->waiter);
        break;
    case CONTROL_UPGRADE:
        client_wait(client);
        upgrade_request("akashctl", &client->waiter);
        break;
    case CONTROL_WEIGHT: client_weigh(client, request); break;
    case CONTROL_DIFF: client_diff(client, request); break;
    case CONTROL_STOP:
        client_answer(client, command_reply(true, ""));
        stop_request("akashctl");
        break;
    default: client_answer(client, command_answer(request));
    }
}

static void
client_serve(struct control_client *client, struct slice line)
{
    char why[128];
    struct control_request request;
    if (control_request_parse(line, &request, why, sizeof(why)) == CONTROL_BAD) {
        client_answer(client, command_reply(false, why));
    } else {
        client_run(client, &request);
    }
    control_request_fini(&request);
}

static void
on_readable(struct bufferevent *bev, void *arg)
{
    struct control_client *client = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    size_t len = 0;
    if (client->is_waiting || client->is_answered) {
        evbuffer_drain(in, evbuffer_get_length(in)); /* one request a connection */
        return;
    }
    client_stirs(client);
    char *line = evbuffer_readln(in, &len, EVBUFFER_EOL_LF);
    if (line) {
        client_serve(client, slice_of(line, len));
        free(line);
    } else if (evbuffer_get_length(in) >= CONTROL_LINE_MAX) {
        client_answer(client, command_reply(false, "the request is too long"));
    }
}

static void
on_written(struct bufferevent *bev, void *arg)
{
    struct control_client *client = arg;
    if (client->is_answered) {
        client_close(client);
    }
}

static void
on_client_event(struct bufferevent *bev, short what, void *arg)
{
    client_close(arg);
}

static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
    client_close(arg);
}

static void
client_open(int fd)
{
    struct control_client *client = calloc(1, sizeof(*client));
    struct bufferevent *bev =
        client ? bufferevent_socket_new(master.base, fd, BEV_OPT_CLOSE_ON_FREE) : NULL;
    if (!bev) {
        free(client);
        close(fd);
        return;
    }
    client->bev = bev;
    client->deadline = event_new(master.base, -1, 0, on_deadline, client);
    list_add_tail(&clients, &client->link);
    nclients++;
    bufferevent_setcb(bev, on_readable, on_written, on_client_event, client);
    bufferevent_setwatermark(bev, EV_READ, 0, CONTROL_LINE_MAX);
    bufferevent_enable(bev, EV_READ | EV_WRITE);
    set_deadline(client);
}

static void
on_acceptable(evutil_socket_t fd, short what, void *arg)
{
    int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) {
        return;
    }
    if (nclients >= CONTROL_CLIENTS && !close_longest_silent()) {
        close(client);
        return;
    }
    client_open(client);
}

/* ---- the socket ---- */

/* Does somebody answer there who is not the former master? */
static bool
is_answered(const struct sockaddr_un *sun)
{
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);
    struct timeval wait = {.tv_sec = 1}; /* for room in its queue */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    bool answers = fd >= 0 && (connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) == 0 ||
                               errno == EAGAIN);
    if (answers && takeover_is_pending() &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0) {
        answers = peer.pid != takeover_former();
    }
    if (fd >= 0) {
        close(fd);
    }
    return answers;
}

static void
make_folder(const char *path)
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof(copy), "%s", path);
    mkdir(dirname(copy), 0755);
}

/* Bound under a mask that lets nobody in, opened to whom conf names afterwards. */
static int
bind_socket(const struct conf *conf, const struct sockaddr_un *sun)
{
    listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listen_fd < 0) {
        return -1;
    }
    mode_t mask = umask(0177);
    int rc = bind(listen_fd, (const struct sockaddr *)sun, sizeof(*sun));
    umask(mask);
    if (rc != 0) {
        return -1;
    }
    struct group *group = conf->control.group ? getgrnam(conf->control.group) : NULL;
    if (group && chown(sun->sun_path, (uid_t)-1, group->gr_gid) != 0) {
        return -1;
    }
    return chmod(sun->sun_path, conf->control.mode) == 0 ? listen(listen_fd, CONTROL_BACKLOG) : -1;
}

static void
stop_listening(void)
{
    struct stat st;
    if (acceptable) {
        event_free(acceptable);
        acceptable = NULL;
    }
    if (listen_fd >= 0) {
        close(listen_fd);
        listen_fd = -1;
    }
    /* In its place may stand another's by now. */
    if (bound.there && lstat(bound.there, &st) == 0 && st.st_dev == bound.dev &&
        st.st_ino == bound.ino) {
        unlink(bound.there);
    }
    free(bound.path);
    free(bound.there);
    bound.path = NULL;
    bound.there = NULL;
}

static int
fail_open(const struct conf *conf, char *why, size_t why_size, const char *cause)
{
    snprintf(why, why_size, "control_socket: %s: %s", conf->control.path, cause);
    stop_listening();
    if (conf->control.given) {
        return -1;
    }
    log_warn("%s; akashctl will not work", why);
    return 0;
}

static int
remember(const char *path, const struct sockaddr_un *sun)
{
    struct stat st;
    bound.path = strdup(path);
    bound.there = strdup(sun->sun_path);
    if (!bound.path || !bound.there || lstat(sun->sun_path, &st) != 0) {
        return -1;
    }
    bound.dev = st.st_dev;
    bound.ino = st.st_ino;
    return 0;
}

static int
watch_socket(void)
{
    acceptable = event_new(master.base, listen_fd, EV_READ | EV_PERSIST, on_acceptable, NULL);
    return acceptable ? event_add(acceptable, NULL) : -1;
}

/* What a server that was killed has left is in nobody's use. */
static void
remove_stale(const struct sockaddr_un *sun)
{
    struct stat st;
    if (lstat(sun->sun_path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        unlink(sun->sun_path);
    }
}

int
control_open(const struct conf *conf, char *why, size_t why_size)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    const char *ending = takeover_is_pending() ? ".new" : "";
    if (!conf->control.path) {
        return 0;
    }
    if (strlen(conf->control.path) + sizeof(".new") > sizeof(sun.sun_path)) {
        return fail_open(conf, why, why_size, "the path is too long");
    }
    strcpy(sun.sun_path, conf->control.path);
    make_folder(conf->control.path);
    if (is_answered(&sun)) {
        return fail_open(conf, why, why_size, "another akashd answers there");
    }
    strcat(sun.sun_path, ending);
    remove_stale(&sun);
    if (bind_socket(conf, &sun) != 0 || remember(conf->control.path, &sun) != 0 ||
        watch_socket() != 0) {
        return fail_open(conf, why, why_size, strerror(errno));
    }
    return 0;
}

void
control_settle(void)
{
    if (bound.there && rename(bound.there, bound.path) != 0) {
        log_error("control_socket: %s: %s; akashctl finds it at %s", bound.path, strerror(errno),
                  bound.there);
    } else if (bound.there) {
        free(bound.there);
        bound.there = strdup(bound.path);
    }
}

void
control_restore(const struct conf *conf)
{
    struct stat st;
    char why[256];
    if (!bound.there ||
        (lstat(bound.there, &st) == 0 && st.st_dev == bound.dev && st.st_ino == bound.ino)) {
        return;
    }
    stop_listening();
    if (control_open(conf, why, sizeof(why)) < 0) {
        log_error("%s", why);
    }
}

void
control_leave(void)
{
    stop_listening();
}

void
control_close(void)
{
    while (!list_is_empty(&clients)) {
        client_close(list_first(&clients, struct control_client, link));
    }
    stop_listening();
}
