/* SPDX-License-Identifier: Apache-2.0
 *
 * takeover.c - become the master of what another one started: see takeover.h.
 */
#include "master/takeover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "master/handoff.h"
#include "master/master.h"
#include "master/rows.h"
#include "shared/log.h"

#define RECEIVE_MS 5000
#define RETRY_MS   10

enum takeover_phase {
    TAKEOVER_NONE,
    TAKEOVER_STARTING,
    TAKEOVER_SERVING, /* workers serve; the former master is letting go */
    TAKEOVER_DONE
};

static struct {
    enum takeover_phase phase;
    pid_t former;
    bool is_linked; /* else the former master has gone */
    struct channel channel;
    struct handoff handoff;
    bool has_segment;
    struct event *readable;
    struct event *retry; /* its monitor has not gone yet */
} takeover;

bool
takeover_is_asked(void)
{
    return getenv(HANDOFF_VARIABLE) != NULL;
}

bool
takeover_is_pending(void)
{
    return takeover.phase == TAKEOVER_STARTING || takeover.phase == TAKEOVER_SERVING;
}

pid_t
takeover_former(void)
{
    return takeover.former;
}

/* ---- the channel ---- */

static void
takeover_unlink(void)
{
    if (!takeover.is_linked) {
        return;
    }
    if (takeover.readable) {
        event_free(takeover.readable);
        takeover.readable = NULL;
    }
    channel_fini(&takeover.channel);
    takeover.is_linked = false;
}

static void
takeover_send(enum channel_type type, const char *text)
{
    struct channel_msg msg = {.type = type, .fd = -1, .text = slice_from_str(text)};
    /* A handful of small messages: the socket takes them at once, or its reader hangs. */
    if (takeover.is_linked) {
        channel_send(&takeover.channel, &msg);
    }
}

/* The former master, or who killed it, ended its monitor; only one may write the states. */
static void
takeover_finish(void)
{
    if (!rows_process_is_gone((pid_t)shm_get(&master.shm.m->monitor.pid))) {
        struct timeval wait = {.tv_usec = RETRY_MS * 1000};
        event_add(takeover.retry, &wait);
        return;
    }
    takeover.phase = TAKEOVER_DONE;
    master_take_charge();
    takeover_send(CHANNEL_TAKEN, "");
}

static void
on_retry(evutil_socket_t fd, short what, void *arg)
{
    takeover_finish();
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct channel_msg msg;
    int rc = channel_recv(&takeover.channel, &msg);
    if (rc > 0 && msg.fd >= 0) {
        close(msg.fd);
    }
    if (rc > 0 && msg.type == CHANNEL_YOURS && takeover.phase == TAKEOVER_SERVING) {
        takeover_finish();
        return;
    }
    if (rc >= 0) {
        return;
    }
    takeover_unlink();
    if (takeover_is_pending()) {
        log_warn("upgrade: the former master, process %ld, has gone; this one goes on alone",
                 (long)takeover.former);
    }
    if (takeover.phase == TAKEOVER_SERVING) {
        takeover_finish();
    }
}

/* ---- the start ---- */

static int
takeover_link(void)
{
    int type = 0;
    socklen_t len = sizeof(type);
    char *rest;
    int fd = (int)strtol(getenv(HANDOFF_VARIABLE), &rest, 10);
    takeover.former = (pid_t)strtol(rest, NULL, 10); /* it may have gone: no word of getppid() */
    unsetenv(HANDOFF_VARIABLE);
    if (fd < 3 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_SEQPACKET) {
        return -1;
    }
    channel_init(&takeover.channel, fd);
    takeover.is_linked = true;
    return fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* Then the former master could neither watch nor end this one, and would serve on beside it. */
static bool
is_started_by_another(void)
{
    return getppid() != takeover.former && !rows_process_is_gone(takeover.former);
}

static bool
has_wakes(const struct handoff *in)
{
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        if (in->wakes[i] < 0) {
            return false;
        }
    }
    return true;
}

static bool
map_segment(struct handoff *in)
{
    if (in->segment < 0 || !has_wakes(in) ||
        shm_map(&master.shm, in->segment, SHM_ROLE_MASTER, 0) != 0) {
        log_warn("upgrade: the former master's segment is laid out otherwise: this one begins with "
                 "a fresh one; counters and health begin anew");
        handoff_fini(in);
        return false;
    }
    in->segment = -1;
    for (unsigned i = 0; i < CHILDREN_COUNT; i++) {
        master.wakes[i] = in->wakes[i];
        in->wakes[i] = -1;
    }
    return true;
}

int
takeover_begin(char *why, size_t why_size)
{
    handoff_init(&takeover.handoff);
    if (!takeover_is_asked()) {
        return 0;
    }
    if (takeover_link() < 0) {
        snprintf(why, why_size, "%s names no channel", HANDOFF_VARIABLE);
        return -1;
    }
    takeover.phase = TAKEOVER_STARTING;
    if (is_started_by_another()) {
        snprintf(why, why_size,
                 "the former master, process %ld, has started this one by another process; let it "
                 "exec",
                 (long)takeover.former);
        takeover_fail(why);
        return -1;
    }
    if (handoff_receive(&takeover.channel, &takeover.handoff, &master.sockets, RECEIVE_MS, why,
                        why_size) < 0) {
        return -1;
    }
    master.last_gen = takeover.handoff.last_gen;
    takeover.has_segment = map_segment(&takeover.handoff);
    takeover.readable =
        event_new(master.base, takeover.channel.fd, EV_READ | EV_PERSIST, on_readable, NULL);
    takeover.retry = event_new(master.base, -1, 0, on_retry, NULL);
    if (!takeover.readable || !takeover.retry || event_add(takeover.readable, NULL) != 0) {
        snprintf(why, why_size, "out of memory");
        return -1;
    }
    takeover_step();
    return 0;
}

bool
takeover_has_segment(void)
{
    return takeover.has_segment;
}

void
takeover_step(void)
{
    if (takeover_is_pending()) {
        takeover_send(CHANNEL_STEP, "");
    }
}

void
takeover_serve(void)
{
    if (takeover.phase != TAKEOVER_STARTING) {
        return;
    }
    takeover.phase = TAKEOVER_SERVING;
    takeover_send(CHANNEL_SERVES, "");
    if (!takeover.is_linked) {
        takeover_finish();
    }
}

void
takeover_fail(const char *why)
{
    char text[1024];
    snprintf(text, sizeof(text), "%s", why);
    if (takeover_is_pending()) {
        takeover_send(CHANNEL_FAILED, text);
    }
}

void
takeover_fini(void)
{
    if (takeover.phase == TAKEOVER_NONE) {
        return;
    }
    takeover_unlink();
    handoff_fini(&takeover.handoff);
    if (takeover.retry) {
        event_free(takeover.retry);
        takeover.retry = NULL;
    }
}
