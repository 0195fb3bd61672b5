/* SPDX-License-Identifier: Apache-2.0
 *
 * test_shm_fold.c - gauges that all workers share, and what a death leaves of them.
 */
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/shm.h"
#include "t/unit/suites.h"

#define BACKENDS 3

static struct shm shm;

static void
open_segment(void)
{
    static const char *const ids[BACKENDS] = {"web/a", "web/b", "web/c"};
    ck_assert_int_eq(shm_create(&shm), 0);
    for (int i = 0; i < BACKENDS; i++) {
        ck_assert_int_eq(shm_slot_claim(&shm, SHM_BACKEND, ids[i], "", NULL), i);
    }
    ck_assert_int_eq(shm_slot_claim(&shm, SHM_LISTENER, "default", "", NULL), 0);
}

static void
close_segment(void)
{
    int fd = shm.fd;
    shm_unmap(&shm);
    close(fd);
}

static struct shm_gauge
active(unsigned row, unsigned backend)
{
    return shm_gauge_active(&shm, shm.rows[row], backend);
}

static void
add(unsigned row, struct shm_gauge g, unsigned n)
{
    while (n-- > 0) {
        shm_gauge_add(shm.rows[row], g);
    }
}

static void
set_alive(unsigned row, bool is_alive)
{
    shm_set(&shm.m->workers[row].pid, is_alive ? 1000 + row : 0);
}

/* ---- by hand ---- */

START_TEST(gauge_is_the_sum_of_its_rows)
{
    set_alive(0, true);
    set_alive(5, true);
    add(0, active(0, 1), 3);
    add(5, active(5, 1), 2);
    shm_gauge_sub(shm.rows[0], active(0, 1));
    ck_assert_uint_eq(shm_get(&shm.s->backends[1].active), 4);
    ck_assert_uint_eq(shm_gauge_read(&shm, offsetof(struct shm_ledger, backends_active[1])), 4);
    set_alive(5, false);
    ck_assert_uint_eq(shm_gauge_read(&shm, offsetof(struct shm_ledger, backends_active[1])), 2);
}
END_TEST

START_TEST(try_add_stops_at_the_limit)
{
    struct shm_gauge g = shm_gauge_open(&shm, shm.rows[0], 2);
    ck_assert(shm_gauge_try_add(shm.rows[0], g, 2));
    ck_assert(shm_gauge_try_add(shm.rows[0], g, 2));
    ck_assert(!shm_gauge_try_add(shm.rows[0], g, 2));
    ck_assert_uint_eq(shm_ledger_count(g.ledger), 2);
    ck_assert(shm_gauge_try_add(shm.rows[0], g, 0));
    ck_assert_uint_eq(shm_get(g.shared), 3);
    shm_gauge_sub(shm.rows[0], g);
    ck_assert(!shm_gauge_try_add(shm.rows[0], g, 2));
}
END_TEST

START_TEST(fold_takes_out_every_gauge_of_the_dead)
{
    add(0, shm_gauge_connections(&shm, shm.rows[0]), 5);
    add(1, shm_gauge_connections(&shm, shm.rows[1]), 7);
    add(0, shm_gauge_listener(&shm, shm.rows[0], 0), 4);
    add(0, shm_gauge_requests(&shm, shm.rows[0], 0), 6);
    add(1, shm_gauge_requests(&shm, shm.rows[1], 0), 2);
    add(0, active(0, 0), 3);
    add(0, shm_gauge_open(&shm, shm.rows[0], 2), 2);
    add(1, shm_gauge_open(&shm, shm.rows[1], 2), 1);
    ck_assert(shm_fold_row(&shm, 0));
    ck_assert_uint_eq(shm_get(&shm.s->connections), 7);
    ck_assert_uint_eq(shm_get(&shm.s->listeners[0].connections), 0);
    ck_assert_uint_eq(shm_get(&shm.s->listeners[0].requests), 2);
    ck_assert_uint_eq(shm_get(&shm.s->backends[0].active), 0);
    ck_assert_uint_eq(shm_get(&shm.s->backends[2].open), 1);
    ck_assert_uint_eq(shm_ledger_count(&shm.rows[0]->ledger.connections), 0);
    ck_assert(shm_fold_row(&shm, 0));
    ck_assert_uint_eq(shm_get(&shm.s->connections), 7);
}
END_TEST

/* Where a worker can be killed in a change of a gauge that stood at 2 in its ledger. */
enum step { BEFORE, MARKED, CHANGED, DONE, NSTEPS };

static void
die_at(unsigned row, struct shm_gauge g, int change, enum step step)
{
    add(row, g, 2);
    uint64_t was = shm_get(g.ledger);
    if (step >= MARKED) {
        shm_ledger_begin(g.ledger);
    }
    if (step >= CHANGED) {
        shm_set(g.shared, shm_get(g.shared) + (uint64_t)change);
    }
    if (step == DONE) {
        shm_ledger_end(g.ledger, was + (uint64_t)change);
    }
}

START_TEST(fold_is_exact_at_every_step_of_a_change)
{
    for (int i = 0; i < 2 * NSTEPS; i++) {
        set_alive(1, true);
        add(1, active(1, 0), 3);
        die_at(0, active(0, 0), i % 2 ? 1 : -1, (enum step)(i / 2));
        ck_assert(shm_fold_row(&shm, 0));
        ck_assert_msg(shm_get(&shm.s->backends[0].active) == (unsigned)(i + 1) * 3, "step %d", i);
    }
}
END_TEST

START_TEST(successor_counts_on_after_a_fold)
{
    die_at(0, active(0, 0), 1, CHANGED);
    ck_assert(shm_fold_row(&shm, 0));
    add(0, active(0, 0), 4);
    shm_gauge_sub(shm.rows[0], active(0, 0));
    ck_assert_uint_eq(shm_get(&shm.s->backends[0].active), 3);
    ck_assert_uint_eq(shm_ledger_count(active(0, 0).ledger), 3);
    ck_assert(shm_fold_row(&shm, 0));
    ck_assert_uint_eq(shm_get(&shm.s->backends[0].active), 0);
}
END_TEST

START_TEST(two_that_died_in_the_same_gauge_are_folded)
{
    for (int i = 0; i < NSTEPS * NSTEPS; i++) {
        die_at(0, active(0, 0), 1, (enum step)(i % NSTEPS));
        die_at(1, active(1, 0), -1, (enum step)(i / NSTEPS));
        add(2, active(2, 0), 1);
        ck_assert(shm_fold_row(&shm, 0));
        ck_assert(shm_fold_row(&shm, 1));
        ck_assert_msg(shm_get(&shm.s->backends[0].active) == (unsigned)i + 1, "steps %d", i);
    }
}
END_TEST

START_TEST(fold_waits_for_one_that_stands_still_in_a_change)
{
    set_alive(1, true);
    die_at(0, active(0, 0), 1, CHANGED);
    add(0, active(0, 1), 5);
    die_at(1, active(1, 0), 1, CHANGED);
    ck_assert(!shm_fold_row(&shm, 0));
    ck_assert_uint_eq(shm_get(&shm.s->backends[1].active), 0);
    uint64_t entry = shm_get(active(1, 0).ledger) - SHM_LEDGER_STEP;
    shm_ledger_end(active(1, 0).ledger, entry + 1);
    ck_assert(shm_fold_row(&shm, 0));
    ck_assert_uint_eq(shm_get(&shm.s->backends[0].active), 3);
}
END_TEST

START_TEST(hurry_counts_up)
{
    uint64_t seen = shm_get(&shm.s->backends[1].hurry);
    shm_backend_hurry(&shm, 1);
    shm_backend_hurry(&shm, 1);
    ck_assert_uint_eq(shm_get(&shm.s->backends[1].hurry), seen + 2);
}
END_TEST

/* ---- with processes ---- */

#define WORKERS 4
#define OPS     100000

static pid_t
start_worker(unsigned row, void (*run)(struct shm *, unsigned row))
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        int fd = shm.fd;
        shm_unmap(&shm);
        if (shm_map(&shm, fd, SHM_ROLE_WORKER, row) == 0) {
            run(&shm, row);
            _exit(0);
        }
        _exit(1);
    }
    shm_set(&shm.m->workers[row].pid, (uint64_t)pid);
    return pid;
}

static void
expect_clean_exit(pid_t pid)
{
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void
run_all(void (*run)(struct shm *, unsigned row))
{
    pid_t pids[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        pids[i] = start_worker(i, run);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        expect_clean_exit(pids[i]);
    }
}

/* Up and down, and row + 1 more at the end. */
static void
count_up_and_down(struct shm *s, unsigned row)
{
    struct shm_gauge g = shm_gauge_connections(s, s->row);
    for (unsigned i = 0; i < OPS; i++) {
        shm_gauge_add(s->row, g);
        shm_gauge_add(s->row, g);
        shm_gauge_sub(s->row, g);
        shm_gauge_sub(s->row, g);
    }
    for (unsigned i = 0; i <= row; i++) {
        shm_gauge_add(s->row, g);
    }
}

START_TEST(gauges_are_exact_under_four_processes)
{
    run_all(count_up_and_down);
    ck_assert_uint_eq(shm_get(&shm.s->connections), 1 + 2 + 3 + 4);
    ck_assert_uint_eq(shm_gauge_read(&shm, offsetof(struct shm_ledger, connections)), 10);
}
END_TEST

#define LIMIT 3

/* Exits with 1 when the gauge was ever seen above its limit. */
static void
try_add_and_sub(struct shm *s, unsigned row)
{
    struct shm_gauge g = shm_gauge_active(s, s->row, 0);
    (void)row;
    for (unsigned got = 0; got < OPS;) {
        if (shm_gauge_try_add(s->row, g, LIMIT)) {
            if (shm_get(g.shared) > LIMIT) {
                _exit(1);
            }
            got++;
            shm_gauge_sub(s->row, g);
        }
    }
}

START_TEST(try_add_is_never_beyond_the_limit)
{
    run_all(try_add_and_sub);
    ck_assert_uint_eq(shm_get(&shm.s->backends[0].active), 0);
}
END_TEST

/* For ever, on few gauges, so that a kill often falls into a change. */
static void
work_until_killed(struct shm *s, unsigned row)
{
    unsigned held = 0;
    for (unsigned n = row;; n++) {
        struct shm_gauge g = shm_gauge_active(s, s->row, held % BACKENDS);
        if (n % 7 < 4) {
            held += shm_gauge_try_add(s->row, g, 1000000);
            shm_gauge_add(s->row, shm_gauge_connections(s, s->row));
            shm_count(&s->row->client_in, 1);
        } else if (shm_ledger_count(g.ledger) > 0) {
            shm_gauge_sub(s->row, g);
            held += 2;
        }
    }
}

/* The truth, when nobody is running: the sum of what the living have written down. */
static void
expect_sums(void)
{
    for (unsigned b = 0; b < BACKENDS; b++) {
        size_t offset = offsetof(struct shm_ledger, backends_active) + b * sizeof(shm_u64);
        ck_assert_uint_eq(shm_get(&shm.s->backends[b].active), shm_gauge_read(&shm, offset));
    }
    ck_assert_uint_eq(shm_get(&shm.s->connections),
                      shm_gauge_read(&shm, offsetof(struct shm_ledger, connections)));
}

static bool
has_worked(unsigned row, uint64_t since)
{
    return shm_get(&shm.rows[row]->client_in) > since;
}

static void
kill_and_fold(unsigned row, pid_t pid)
{
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    set_alive(row, false);
    while (!shm_fold_row(&shm, row)) {
        sched_yield();
    }
}

/* Kill one after the other while the rest runs on; then the rest, one fold each. */
START_TEST(kill_nine_leaves_the_sums_right)
{
    pid_t pids[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        pids[i] = start_worker(i, work_until_killed);
    }
    for (unsigned round = 0; round < 300; round++) {
        unsigned row = round % WORKERS;
        uint64_t since = shm_get(&shm.rows[row]->client_in);
        kill_and_fold(row, pids[row]);
        pids[row] = start_worker(row, work_until_killed);
        while (!has_worked(row, since)) {
            sched_yield();
        }
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        kill_and_fold(i, pids[i]);
    }
    expect_sums();
    ck_assert_uint_eq(shm_get(&shm.s->connections), 0);
}
END_TEST

static TCase *
hand_tests(void)
{
    TCase *tc = tcase_create("by hand");
    tcase_add_checked_fixture(tc, open_segment, close_segment);
    tcase_add_test(tc, gauge_is_the_sum_of_its_rows);
    tcase_add_test(tc, try_add_stops_at_the_limit);
    tcase_add_test(tc, fold_takes_out_every_gauge_of_the_dead);
    tcase_add_test(tc, fold_is_exact_at_every_step_of_a_change);
    tcase_add_test(tc, successor_counts_on_after_a_fold);
    tcase_add_test(tc, two_that_died_in_the_same_gauge_are_folded);
    tcase_add_test(tc, fold_waits_for_one_that_stands_still_in_a_change);
    tcase_add_test(tc, hurry_counts_up);
    return tc;
}

static TCase *
process_tests(void)
{
    TCase *tc = tcase_create("with processes");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, open_segment, close_segment);
    tcase_add_test(tc, gauges_are_exact_under_four_processes);
    tcase_add_test(tc, try_add_is_never_beyond_the_limit);
    tcase_add_test(tc, kill_nine_leaves_the_sums_right);
    return tc;
}

Suite *
shm_fold_suite(void)
{
    Suite *suite = suite_create("shm_fold");
    suite_add_tcase(suite, hand_tests());
    suite_add_tcase(suite, process_tests());
    return suite;
}
