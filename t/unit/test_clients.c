/* SPDX-License-Identifier: Apache-2.0
 *
 * test_clients.c - no client has more than its limit, whoever counts it at the same instant, and
 * what a death leaves is given back.
 */
#include "shared/clients.h"

#include <check.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/shm.h"
#include "t/unit/suites.h"

static struct shm shm;

static void
open_segment(void)
{
    ck_assert_int_eq(shm_create(&shm), 0);
}

static void
close_segment(void)
{
    int fd = shm.fd;
    shm_unmap(&shm);
    close(fd);
}

/* All of these meet in one set. */
static uint64_t
key_of(unsigned client)
{
    return (uint64_t)(client + 1) << 40 | 77;
}

static uint32_t
first_cell(void)
{
    return 77 * CLIENTS_WAYS;
}

/* The cell, or -1 when it was not counted. */
static int
enter(unsigned row, unsigned client, uint32_t limit)
{
    uint32_t cell;
    bool is_in =
        clients_enter(&shm, shm.rows[row], key_of(client), limit, &cell) == CLIENTS_COUNTED;
    return is_in ? (int)cell : -1;
}

static void
leave(unsigned row, int cell)
{
    clients_leave(&shm, shm.rows[row], (uint32_t)cell);
}

static uint64_t
count(unsigned client)
{
    return clients_count(&shm, key_of(client));
}

static bool
is_set_empty(void)
{
    bool is_empty = true;
    for (uint32_t i = 0; i < CLIENTS_WAYS; i++) {
        is_empty &= shm_get(&shm.s->clients.cells[first_cell() + i]) == 0;
    }
    return is_empty;
}

static void
set_alive(unsigned row, bool is_alive)
{
    shm_set(&shm.m->workers[row].pid, is_alive ? 1000 + row : 0);
}

/* ---- by hand ---- */

START_TEST(a_client_has_its_limit_and_no_more)
{
    int cells[3];
    for (unsigned i = 0; i < 3; i++) {
        cells[i] = enter(i % 2, 1, 3);
        ck_assert_int_ge(cells[i], 0);
    }
    uint32_t cell;
    ck_assert_int_eq(clients_enter(&shm, shm.rows[0], key_of(1), 3, &cell), CLIENTS_FULL);
    ck_assert_uint_eq(count(1), 3);
    leave(1, cells[1]);
    ck_assert_int_ge(enter(0, 1, 3), 0);
    ck_assert_int_eq(enter(0, 1, 3), -1);
}
END_TEST

START_TEST(a_limit_that_has_shrunk_refuses_until_it_is_met)
{
    int a = enter(0, 1, 5), b = enter(0, 1, 5);
    enter(0, 1, 5);
    ck_assert_int_eq(enter(0, 1, 2), -1);
    leave(0, a);
    ck_assert_int_eq(enter(0, 1, 2), -1);
    leave(0, b);
    ck_assert_int_ge(enter(0, 1, 2), 0);
}
END_TEST

START_TEST(others_of_the_same_set_have_their_own)
{
    int cells[CLIENTS_WAYS];
    for (unsigned i = 0; i < CLIENTS_WAYS; i++) {
        cells[i] = enter(0, i, 1);
        ck_assert_int_ge(cells[i], 0);
        ck_assert_int_eq(enter(0, i, 1), -1);
    }
    for (unsigned i = 0; i < CLIENTS_WAYS; i++) {
        leave(0, cells[i]);
    }
    ck_assert(is_set_empty());
}
END_TEST

/* Nobody who has connections loses its cell; who finds none is let in uncounted. */
START_TEST(a_full_set_keeps_who_is_in_it)
{
    uint32_t cell;
    int first = enter(0, 0, 1);
    for (unsigned i = 1; i < CLIENTS_WAYS; i++) {
        enter(0, i, 1);
    }
    for (unsigned i = CLIENTS_WAYS; i < 1000; i++) {
        ck_assert_int_eq(clients_enter(&shm, shm.rows[0], key_of(i), 1, &cell), CLIENTS_NO_ROOM);
    }
    for (unsigned i = 0; i < CLIENTS_WAYS; i++) {
        ck_assert_int_eq(enter(0, i, 1), -1);
        ck_assert_uint_eq(count(i), 1);
    }
    leave(0, first);
    ck_assert_int_ge(enter(0, 500, 1), 0);
    ck_assert_int_eq(enter(0, 500, 1), -1);
}
END_TEST

/* As two workers leave it that were the client's first at the same instant. */
START_TEST(a_client_with_two_cells_has_one_limit)
{
    int other = enter(0, 2, 1), first = enter(0, 1, 3);
    leave(0, other);
    uint64_t was = shm_ledger_begin(&shm.rows[1]->ledger.clients.cells[other]);
    shm_set(&shm.s->clients.cells[other], shm_get(&shm.s->clients.cells[first]));
    shm_ledger_end(&shm.rows[1]->ledger.clients.cells[other], was + 1);
    shm_set(&shm.rows[1]->ledger.clients.touched[0], UINT64_MAX);
    shm_set(&shm.rows[1]->ledger.clients.touched[1], UINT64_MAX);
    ck_assert_uint_eq(count(1), 2);
    int third = enter(0, 1, 3);
    ck_assert_int_ge(third, 0);
    ck_assert_int_eq(enter(0, 1, 3), -1);
    leave(0, third);
    leave(0, first);
    ck_assert(clients_fold(&shm, 1));
    ck_assert(is_set_empty());
}
END_TEST

START_TEST(any_hash_is_a_key)
{
    uint32_t cell;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t key = i == 0 ? 0 : UINT64_MAX;
        ck_assert_int_eq(clients_enter(&shm, shm.rows[0], key, 1, &cell), CLIENTS_COUNTED);
        ck_assert_int_eq(clients_enter(&shm, shm.rows[0], key, 1, &cell), CLIENTS_FULL);
        ck_assert_uint_eq(clients_count(&shm, key), 1);
        clients_leave(&shm, shm.rows[0], cell);
        ck_assert_uint_eq(clients_count(&shm, key), 0);
    }
}
END_TEST

START_TEST(fold_takes_out_the_dead_ones_part)
{
    set_alive(1, true);
    for (unsigned i = 0; i < 4; i++) {
        enter(0, 1, 10);
        enter(0, i + 2, 10);
        enter(1, 1, 10);
    }
    ck_assert(shm_fold_row(&shm, 0));
    ck_assert_uint_eq(count(1), 4);
    ck_assert_uint_eq(count(2) + count(3) + count(4) + count(5), 0);
    ck_assert(shm_fold_row(&shm, 0));
    ck_assert_uint_eq(count(1), 4);
    ck_assert_int_ge(enter(0, 1, 5), 0); /* a successor counts on */
    ck_assert_int_eq(enter(0, 1, 5), -1);
    ck_assert(shm_fold_row(&shm, 1));
    ck_assert(shm_fold_row(&shm, 0));
    ck_assert(is_set_empty());
}
END_TEST

/* Where a worker can be killed in a change of a cell in which it had 2. */
enum step { BEFORE, MARKED, CHANGED, DONE, NSTEPS };

static void
die_at(unsigned row, int change, enum step step)
{
    int cell = enter(row, 1, 1000);
    ck_assert_int_eq(enter(row, 1, 1000), cell);
    shm_u64 *entry = &shm.rows[row]->ledger.clients.cells[cell];
    uint64_t was = shm_get(entry);
    if (step >= MARKED) {
        shm_ledger_begin(entry);
    }
    if (step >= CHANGED) {
        shm_set(&shm.s->clients.cells[cell],
                shm_get(&shm.s->clients.cells[cell]) + (uint64_t)change);
    }
    if (step == DONE) {
        shm_ledger_end(entry, was + (uint64_t)change);
    }
}

START_TEST(fold_is_exact_at_every_step_of_a_change)
{
    set_alive(1, true);
    for (int i = 0; i < 2 * NSTEPS; i++) {
        enter(1, 1, 1000);
        die_at(0, i % 2 ? 1 : -1, (enum step)(i / 2));
        ck_assert(shm_fold_row(&shm, 0));
        ck_assert_msg(count(1) == (unsigned)(i + 1), "step %d", i);
    }
}
END_TEST

/* It died between the mark and the first connection of a client, or just behind that. */
START_TEST(fold_frees_a_cell_that_was_in_the_making)
{
    for (int i = 0; i < 2; i++) {
        shm_u64 *entry = &shm.rows[0]->ledger.clients.cells[first_cell()];
        shm_set(&shm.rows[0]->ledger.clients.touched[first_cell() / CLIENTS_PAGE / 64], UINT64_MAX);
        shm_ledger_begin(entry);
        if (i == 1) {
            shm_set(&shm.s->clients.cells[first_cell()], UINT64_C(5) << 24 | 1);
        }
        ck_assert(shm_fold_row(&shm, 0));
        ck_assert(is_set_empty());
    }
}
END_TEST

START_TEST(fold_makes_no_pages)
{
    struct stat before, after;
    enter(0, 1, 1);
    ck_assert_int_eq(fstat(shm.fd, &before), 0);
    ck_assert(clients_fold(&shm, 0));
    ck_assert(clients_fold(&shm, 1));
    ck_assert_int_eq(fstat(shm.fd, &after), 0);
    ck_assert_int_le(after.st_blocks - before.st_blocks, 4 * 8);
}
END_TEST

/* ---- with processes ---- */

#define WORKERS 4
#define CLIENTS 3
#define LIMIT   1
#define OPS     500000

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

/* Comes and goes, with few clients that meet in one set. Those that are inside are counted by
 * themselves: exits with 2 when there were ever more than may be. */
static void
come_and_go(struct shm *s, unsigned row)
{
    unsigned seed = row + 1;
    int held[CLIENTS] = {0};
    for (unsigned n = 0; n < OPS; n++) {
        unsigned client = (unsigned)rand_r(&seed) % CLIENTS;
        _Atomic uint64_t *inside = &s->s->backends[client].active;
        uint32_t cell;
        if (held[client]) {
            atomic_fetch_sub(inside, 1);
            clients_leave(s, s->row, (uint32_t)held[client] - 1);
            held[client] = 0;
        } else if (clients_enter(s, s->row, key_of(client), LIMIT, &cell) == CLIENTS_COUNTED) {
            held[client] = (int)cell + 1;
            if (atomic_fetch_add(inside, 1) >= LIMIT) {
                _exit(2);
            }
            shm_count(&s->row->client_in, 1);
        }
    }
    for (unsigned client = 0; client < CLIENTS; client++) {
        if (held[client]) {
            atomic_fetch_sub(&s->s->backends[client].active, 1);
            clients_leave(s, s->row, (uint32_t)held[client] - 1);
        }
    }
}

START_TEST(never_beyond_the_limit_under_four_processes)
{
    pid_t pids[WORKERS];
    uint64_t entered = 0;
    for (unsigned i = 0; i < WORKERS; i++) {
        pids[i] = start_worker(i, come_and_go);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        int status;
        ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "worker %u: %x", i, status);
        entered += shm_get(&shm.rows[i]->client_in);
    }
    ck_assert_uint_gt(entered, OPS / 20); /* not all were refused */
    ck_assert(is_set_empty());
}
END_TEST

static void
work_until_killed(struct shm *s, unsigned row)
{
    unsigned seed = row + (unsigned)getpid();
    int held[CLIENTS][LIMIT + 1] = {{0}};
    for (;;) {
        unsigned client = (unsigned)rand_r(&seed) % CLIENTS;
        int *place = &held[client][(unsigned)rand_r(&seed) % (LIMIT + 1)];
        uint32_t cell;
        if (*place) {
            clients_leave(s, s->row, (uint32_t)*place - 1);
            *place = 0;
        } else if (clients_enter(s, s->row, key_of(client), 5, &cell) == CLIENTS_COUNTED) {
            *place = (int)cell + 1;
        }
        shm_count(&s->row->client_in, 1);
    }
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

/* What the living hold of a cell is what stands in it. Looked at when nobody runs. */
START_TEST(kill_nine_leaves_the_counts_right)
{
    pid_t pids[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        pids[i] = start_worker(i, work_until_killed);
    }
    for (unsigned round = 0; round < 120; round++) {
        unsigned row = round % WORKERS;
        uint64_t since = shm_get(&shm.rows[row]->client_in);
        kill_and_fold(row, pids[row]);
        pids[row] = start_worker(row, work_until_killed);
        while (shm_get(&shm.rows[row]->client_in) <= since) {
            sched_yield();
        }
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        kill_and_fold(i, pids[i]);
    }
    ck_assert(is_set_empty());
}
END_TEST

static TCase *
hand_tests(void)
{
    TCase *tc = tcase_create("by hand");
    tcase_add_checked_fixture(tc, open_segment, close_segment);
    tcase_add_test(tc, a_client_has_its_limit_and_no_more);
    tcase_add_test(tc, a_limit_that_has_shrunk_refuses_until_it_is_met);
    tcase_add_test(tc, others_of_the_same_set_have_their_own);
    tcase_add_test(tc, a_full_set_keeps_who_is_in_it);
    tcase_add_test(tc, a_client_with_two_cells_has_one_limit);
    tcase_add_test(tc, any_hash_is_a_key);
    tcase_add_test(tc, fold_takes_out_the_dead_ones_part);
    tcase_add_test(tc, fold_is_exact_at_every_step_of_a_change);
    tcase_add_test(tc, fold_frees_a_cell_that_was_in_the_making);
    tcase_add_test(tc, fold_makes_no_pages);
    return tc;
}

Suite *
clients_suite(void)
{
    Suite *suite = suite_create("clients");
    TCase *tc = tcase_create("with processes");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, open_segment, close_segment);
    tcase_add_test(tc, never_beyond_the_limit_under_four_processes);
    tcase_add_test(tc, kill_nine_leaves_the_counts_right);
    suite_add_tcase(suite, hand_tests());
    suite_add_tcase(suite, tc);
    return suite;
}
