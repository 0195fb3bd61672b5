/* SPDX-License-Identifier: Apache-2.0
 *
 * prepare.c - parse the certificates of a bundle before its conf is built.
 */
#include "worker/prepare.h"

#include <fcntl.h>
#include <unistd.h>

#include "conf/bundle.h"
#include "shared/clock.h"
#include "shared/tls.h"
#include "worker/worker.h"

#define TURN_US 2000 /* to spend in one loop turn */

static struct {
    struct bundle *bundle; /* NULL: nothing is being prepared */
    int fd;
    uint64_t gen;
    unsigned next; /* file to parse; some of it may be done */
    prepare_done_fn *done;
    struct event *turn;
} prepare;

void
prepare_cancel(void)
{
    if (!prepare.bundle) {
        return;
    }
    evtimer_del(prepare.turn);
    bundle_close(prepare.bundle);
    prepare.bundle = NULL;
    close(prepare.fd);
    tls_warm_end();
}

/* Parse files until the turn is over. true: none is left. */
static bool
parse_some(void)
{
    uint64_t end_us = clock_mono_us() + TURN_US;
    struct slice bytes;
    do {
        if (!bundle_file(prepare.bundle, prepare.next, &bytes)) {
            return true;
        }
        prepare.next += tls_warm(bytes);
    } while (clock_mono_us() < end_us);
    return false;
}

static void
on_turn(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    const struct timeval at_once = {0, 0};
    if (!parse_some() && evtimer_add(prepare.turn, &at_once) == 0) {
        return;
    }
    prepare.done(prepare.fd, prepare.gen);
    prepare_cancel();
}

void
prepare_begin(int fd, uint64_t gen, prepare_done_fn *done)
{
    prepare_cancel();
    if (!prepare.turn) {
        prepare.turn = evtimer_new(worker.base, on_turn, NULL);
    }
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    struct bundle *bundle = prepare.turn && own >= 0 ? bundle_open(own) : NULL;
    if (!bundle) { /* building it tells what is wrong */
        done(fd, gen);
        if (own >= 0) {
            close(own);
        }
        return;
    }
    prepare.bundle = bundle;
    prepare.fd = own;
    prepare.gen = gen;
    prepare.next = 0;
    prepare.done = done;
    on_turn(-1, 0, NULL);
}
