/* SPDX-License-Identifier: Apache-2.0
 *
 * test_shm.c - the segment: mapping, slots, gauges, keys. What a death leaves is in
 * test_shm_fold.c.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
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

/* ---- mapping ---- */

/* Fork a child that maps the segment in a role, does one thing and exits. Its wait status. */
static int
run_child(enum shm_role role, unsigned row, void (*act)(struct shm *))
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        int fd = shm.fd;
        shm_unmap(&shm);
        if (shm_map(&shm, fd, role, row) != 0) {
            _exit(99);
        }
        act(&shm);
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

static void
write_master(struct shm *s)
{
    shm_set(&s->m->gen, 1);
}

static void
write_keys(struct shm *s)
{
    struct shm_keys *keys = (struct shm_keys *)((char *)s->m + ((char *)shm.keys - (char *)shm.m));
    shm_set(&keys->index, 1);
}

static size_t keys_offset;

static void
read_keys_page(struct shm *s)
{
    volatile char byte = ((char *)s->base)[keys_offset];
    (void)byte;
}

static void
write_health(struct shm *s)
{
    shm_set(&s->h->heartbeat_ms, 5);
}

static void
write_shared(struct shm *s)
{
    shm_set(&s->s->connections, 6);
}

static void
write_row_3(struct shm *s)
{
    shm_set(&s->rows[3]->heartbeat_ms, 7);
}

static void
read_everything(struct shm *s)
{
    _exit(shm_get(&s->m->gen) + shm_get(&s->h->heartbeat_ms) + shm_get(&s->s->connections) +
              shm_get(&s->rows[3]->heartbeat_ms) + shm_get(&s->rows[SHM_ROWS - 1]->heartbeat_ms) ==
          0);
}

/* A child that lacks a signal handler of the sanitizer's dies of the signal itself; under a
 * sanitizer the handler reports and exits. Either way it did not come to its end. */
static bool
is_refused(int status)
{
    return WIFSIGNALED(status) ? WTERMSIG(status) == SIGSEGV : WEXITSTATUS(status) != 0;
}

static bool
is_allowed(int status)
{
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

START_TEST(worker_writes_shared_and_its_row_only)
{
    ck_assert(is_allowed(run_child(SHM_ROLE_WORKER, 3, write_shared)));
    ck_assert(is_allowed(run_child(SHM_ROLE_WORKER, 3, write_row_3)));
    ck_assert_uint_eq(shm_get(&shm.s->connections), 6);
    ck_assert_uint_eq(shm_get(&shm.rows[3]->heartbeat_ms), 7);
    ck_assert(is_refused(run_child(SHM_ROLE_WORKER, 4, write_row_3)));
    ck_assert(is_refused(run_child(SHM_ROLE_WORKER, 3, write_master)));
    ck_assert(is_refused(run_child(SHM_ROLE_WORKER, 3, write_health)));
    ck_assert(is_allowed(run_child(SHM_ROLE_WORKER, 3, read_everything)));
}
END_TEST

START_TEST(worker_reads_keys_but_cannot_write_them)
{
    keys_offset = (size_t)((char *)shm.keys - (char *)shm.base);
    ck_assert(is_allowed(run_child(SHM_ROLE_WORKER, 0, read_keys_page)));
    ck_assert(is_refused(run_child(SHM_ROLE_WORKER, 0, write_keys)));
}
END_TEST

START_TEST(monitor_writes_health_only_and_sees_no_keys)
{
    keys_offset = (size_t)((char *)shm.keys - (char *)shm.base);
    ck_assert(is_allowed(run_child(SHM_ROLE_MONITOR, 0, write_health)));
    ck_assert_uint_eq(shm_get(&shm.h->heartbeat_ms), 5);
    ck_assert(is_refused(run_child(SHM_ROLE_MONITOR, 0, write_shared)));
    ck_assert(is_refused(run_child(SHM_ROLE_MONITOR, 0, write_master)));
    ck_assert(is_refused(run_child(SHM_ROLE_MONITOR, 0, write_row_3)));
    ck_assert(is_refused(run_child(SHM_ROLE_MONITOR, 0, read_keys_page)));
    ck_assert(is_allowed(run_child(SHM_ROLE_MONITOR, 0, read_everything)));
}
END_TEST

START_TEST(master_cannot_write_health)
{
    ck_assert(is_refused(run_child(SHM_ROLE_MASTER, 0, write_health)));
    ck_assert(is_allowed(run_child(SHM_ROLE_MASTER, 0, write_row_3)));
    ck_assert(is_allowed(run_child(SHM_ROLE_MASTER, 0, write_keys)));
}
END_TEST

START_TEST(untouched_segment_costs_little)
{
    struct stat st;
    shm_slot_claim(&shm, SHM_BACKEND, "a/b", "", NULL);
    shm_count(&shm.rows[0]->backends[0].served, 1);
    ck_assert_int_eq(fstat(shm.fd, &st), 0);
    ck_assert_int_gt(st.st_size, 100 * 1000 * 1000);
    ck_assert_int_lt(st.st_blocks * 512, 256 * 1024);
}
END_TEST

START_TEST(segment_of_another_layout_is_refused)
{
    struct shm other;
    shm.m->layout_hash++;
    ck_assert_int_eq(shm_map(&other, shm.fd, SHM_ROLE_MASTER, 0), -1);
    ck_assert_int_eq(errno, EPROTO);
    shm.m->layout_hash--;
    ck_assert_int_eq(shm_map(&other, shm.fd, SHM_ROLE_MASTER, 0), 0);
    shm_unmap(&other);
    ck_assert_int_eq(ftruncate(shm.fd, 4096), -1);
}
END_TEST

START_TEST(histogram_counts_into_the_bucket_of_its_bound)
{
    struct shm_histogram h = {0};
    shm_observe(&h, 0);
    shm_observe(&h, 500);
    shm_observe(&h, 501);
    shm_observe(&h, 60000000);
    shm_observe(&h, 60000001);
    ck_assert_uint_eq(shm_get(&h.bucket[0]), 2);
    ck_assert_uint_eq(shm_get(&h.bucket[1]), 1);
    ck_assert_uint_eq(shm_get(&h.bucket[HISTOGRAM_BUCKETS - 2]), 1);
    ck_assert_uint_eq(shm_get(&h.bucket[HISTOGRAM_BUCKETS - 1]), 1);
    ck_assert_uint_eq(shm_get(&h.sum_us), 500 + 501 + 60000000 + 60000001);
}
END_TEST

/* ---- slots ---- */

static int
claim(const char *id, const char *detail, bool *is_changed)
{
    return shm_slot_claim(&shm, SHM_BACKEND, id, detail, is_changed);
}

static int
claim_number(enum shm_kind kind, unsigned n, bool *is_changed)
{
    char id[32];
    snprintf(id, sizeof(id), "web/%u", n);
    return shm_slot_claim(&shm, kind, id, "", is_changed);
}

START_TEST(slot_stays_with_its_identity)
{
    bool is_changed;
    int a = claim("web/a", "10.0.0.1:80", &is_changed);
    ck_assert(!is_changed);
    int b = claim("web/b", "10.0.0.2:80", &is_changed);
    ck_assert_int_ge(a, 0);
    ck_assert_int_ne(a, b);
    ck_assert_int_eq(claim("web/a", "10.0.0.1:80", &is_changed), a);
    ck_assert(!is_changed);
    ck_assert_int_eq(claim("web/a", "10.0.0.9:80", &is_changed), a);
    ck_assert(is_changed);
    ck_assert_str_eq(shm.m->backends[a].detail, "10.0.0.9:80");
    ck_assert_uint_eq(shm_slots_end(&shm, SHM_BACKEND), 2);
    ck_assert_uint_eq(shm_slots_end(&shm, SHM_LISTENER), 0);
}
END_TEST

START_TEST(removed_slot_comes_back_to_its_identity)
{
    bool keep[SHM_BACKENDS] = {false};
    bool is_changed;
    int a = claim("web/a", "x", NULL), b = claim("web/b", "x", NULL);
    keep[b] = true;
    shm_slot_sweep(&shm, SHM_BACKEND, keep, 7);
    ck_assert_uint_eq(shm_get(&shm.m->backends[a].state), SHM_SLOT_REMOVED);
    ck_assert_uint_eq(shm_get(&shm.m->backends[a].removed_gen), 7);
    ck_assert_uint_eq(shm_get(&shm.m->backends[b].state), SHM_SLOT_USED);
    int c = claim("web/c", "x", NULL);
    ck_assert(c != a && c != b);
    ck_assert_int_eq(claim("web/a", "x", &is_changed), a);
    ck_assert(!is_changed);
    ck_assert_uint_eq(shm_get(&shm.m->backends[a].state), SHM_SLOT_USED);
}
END_TEST

START_TEST(texts_that_do_not_fit_are_refused)
{
    char text[SHM_ID_MAX + 1];
    memset(text, 'x', SHM_ID_MAX);
    text[SHM_ID_MAX] = '\0';
    ck_assert_int_eq(claim(text, "", NULL), -1);
    ck_assert_int_eq(claim("web/a", text, NULL), -1);
    text[SHM_ID_MAX - 1] = '\0';
    ck_assert_int_ge(claim(text, text, NULL), 0);
}
END_TEST

/* Fill the listeners, the kind with the fewest slots. */
static void
fill_listeners(void)
{
    for (unsigned i = 0; i < SHM_LISTENERS; i++) {
        ck_assert_int_eq(claim_number(SHM_LISTENER, i, NULL), (int)i);
    }
}

static void
remove_listener(unsigned slot, uint64_t gen)
{
    bool keep[SHM_LISTENERS];
    memset(keep, true, sizeof(keep));
    keep[slot] = false;
    shm_slot_sweep(&shm, SHM_LISTENER, keep, gen);
}

START_TEST(full_table_reuses_the_oldest_removed)
{
    bool is_changed;
    fill_listeners();
    ck_assert_int_eq(claim_number(SHM_LISTENER, 1000, NULL), -1);
    remove_listener(30, 6);
    remove_listener(20, 5);
    remove_listener(40, 7);
    ck_assert_int_eq(claim_number(SHM_LISTENER, 1001, &is_changed), 20);
    ck_assert(is_changed);
    ck_assert_int_eq(claim_number(SHM_LISTENER, 30, NULL), 30);
    ck_assert_int_eq(claim_number(SHM_LISTENER, 1002, NULL), 40);
    ck_assert_int_eq(claim_number(SHM_LISTENER, 1003, NULL), -1);
    ck_assert_int_eq(claim_number(SHM_LISTENER, 1001, NULL), 20);
    ck_assert_int_eq(claim_number(SHM_LISTENER, 20, NULL), -1);
}
END_TEST

START_TEST(removed_slot_waits_for_the_oldest_conf)
{
    fill_listeners();
    shm_set(&shm.m->workers[2].pid, 1234);
    shm_set(&shm.rows[2]->oldest_gen, 4);
    remove_listener(20, 5);
    ck_assert_int_eq(claim_number(SHM_LISTENER, 1000, NULL), -1);
    shm_set(&shm.rows[2]->oldest_gen, 5);
    ck_assert_int_eq(claim_number(SHM_LISTENER, 1000, NULL), 20);
}
END_TEST

START_TEST(room_is_what_can_be_claimed)
{
    ck_assert_uint_eq(shm_slots_room(&shm, SHM_LISTENER), SHM_LISTENERS);
    ck_assert_int_eq(claim_number(SHM_LISTENER, 0, NULL), 0);
    ck_assert_uint_eq(shm_slots_room(&shm, SHM_LISTENER), SHM_LISTENERS - 1);
    fill_listeners();
    ck_assert_uint_eq(shm_slots_room(&shm, SHM_LISTENER), 0);
    shm_set(&shm.m->workers[2].pid, 1234);
    shm_set(&shm.rows[2]->oldest_gen, 4);
    remove_listener(20, 5);
    remove_listener(30, 4);
    ck_assert_uint_eq(shm_slots_room(&shm, SHM_LISTENER), 1);
    shm_set(&shm.rows[2]->oldest_gen, 5);
    ck_assert_uint_eq(shm_slots_room(&shm, SHM_LISTENER), 2);
}
END_TEST

START_TEST(slot_removed_anew_is_not_reused_on_old_terms)
{
    fill_listeners();
    shm_set(&shm.m->workers[2].pid, 1234);
    shm_set(&shm.rows[2]->oldest_gen, 5);
    remove_listener(10, 5);
    remove_listener(20, 5);
    ck_assert_int_ge(claim_number(SHM_LISTENER, 1000, NULL), 0);
    unsigned other = shm_get(&shm.m->listeners[10].state) == SHM_SLOT_REMOVED ? 10 : 20;
    ck_assert_int_eq(claim_number(SHM_LISTENER, other, NULL), (int)other);
    remove_listener(other, 9);
    ck_assert_int_eq(claim_number(SHM_LISTENER, 1001, NULL), -1);
}
END_TEST

START_TEST(new_master_finds_what_the_old_one_claimed)
{
    struct shm heir;
    for (unsigned i = 0; i < 1000; i++) {
        claim_number(SHM_UPSTREAM, i, NULL);
    }
    ck_assert_int_eq(shm_map(&heir, shm.fd, SHM_ROLE_MASTER, 0), 0);
    ck_assert_int_eq(shm_slot_claim(&heir, SHM_UPSTREAM, "web/777", NULL, NULL), 777);
    ck_assert_int_eq(shm_slot_claim(&heir, SHM_UPSTREAM, "new", NULL, NULL), 1000);
    shm_unmap(&heir);
}
END_TEST

START_TEST(all_backends_are_claimed_swept_and_replaced_quickly)
{
    bool keep[SHM_BACKENDS] = {false};
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < SHM_BACKENDS; i++) {
            ck_assert_int_ge(claim_number(SHM_BACKEND, round * SHM_BACKENDS + i, NULL), 0);
        }
        ck_assert_int_eq(claim_number(SHM_BACKEND, 1000000, NULL), -1);
        shm_slot_sweep(&shm, SHM_BACKEND, keep, round + 1);
    }
}
END_TEST

/* ---- ticket keys ---- */

#define HOUR 3600
#define T0   1800000000u

static struct shm_ticket_key key, older;
static bool is_current;

START_TEST(keys_are_none_before_the_first)
{
    ck_assert(!shm_keys_find(&shm, NULL, T0, &key, &is_current));
}
END_TEST

START_TEST(key_is_kept_for_twelve_hours)
{
    shm_keys_rotate(&shm, T0);
    ck_assert(shm_keys_find(&shm, NULL, T0, &older, &is_current));
    ck_assert(is_current);
    shm_keys_rotate(&shm, T0 + 12 * HOUR - 1);
    ck_assert(shm_keys_find(&shm, NULL, T0 + 12 * HOUR - 1, &key, &is_current));
    ck_assert_mem_eq(&key, &older, sizeof(key));
    shm_keys_rotate(&shm, T0 + 12 * HOUR);
    ck_assert(shm_keys_find(&shm, NULL, T0 + 12 * HOUR, &key, &is_current));
    ck_assert_mem_ne(key.name, older.name, sizeof(key.name));
    ck_assert_mem_ne(key.aes, older.aes, sizeof(key.aes));
    ck_assert_mem_ne(key.hmac, older.hmac, sizeof(key.hmac));
}
END_TEST

START_TEST(old_key_is_accepted_for_a_day)
{
    shm_keys_rotate(&shm, T0);
    shm_keys_find(&shm, NULL, T0, &older, &is_current);
    shm_keys_rotate(&shm, T0 + 12 * HOUR);
    ck_assert(shm_keys_find(&shm, older.name, T0 + 24 * HOUR - 1, &key, &is_current));
    ck_assert(!is_current);
    ck_assert_mem_eq(&key, &older, sizeof(key));
    ck_assert(!shm_keys_find(&shm, older.name, T0 + 24 * HOUR, &key, &is_current));
    ck_assert(!shm_keys_find(&shm, (const uint8_t *)"no such key name", T0, &key, &is_current));
}
END_TEST

START_TEST(key_from_the_future_is_replaced)
{
    shm_keys_rotate(&shm, T0);
    shm_keys_find(&shm, NULL, T0, &older, &is_current);
    shm_keys_rotate(&shm, T0 - 1000 * HOUR);
    ck_assert(shm_keys_find(&shm, NULL, T0 - 1000 * HOUR, &key, &is_current));
    ck_assert_mem_ne(key.name, older.name, sizeof(key.name));
    ck_assert_uint_eq(key.born_s, T0 - 1000 * HOUR);
}
END_TEST

START_TEST(master_killed_while_rotating_harms_nobody)
{
    shm_keys_rotate(&shm, T0);
    shm_count(&shm.keys->version, 1);
    ck_assert(!shm_keys_find(&shm, NULL, T0, &key, &is_current));
    shm_keys_rotate(&shm, T0 + 1);
    ck_assert(shm_keys_find(&shm, NULL, T0 + 1, &key, &is_current));
    ck_assert_uint_eq(key.born_s, T0 + 1);
}
END_TEST

/* Every key that is read while the master rotates is whole: all of its bytes are the same. */
START_TEST(key_is_never_read_half_written)
{
    pid_t pid = fork();
    if (pid == 0) {
        for (unsigned n = 0;; n++) {
            shm_keys_rotate(&shm, T0 + n * 12ull * HOUR);
        }
    }
    uint64_t newest = 0;
    unsigned seen = 0;
    while (seen < 2000) {
        uint64_t now = T0 + shm_get(&shm.keys->version) / 2 * 12 * HOUR;
        struct shm_ticket_key again;
        if (!shm_keys_find(&shm, NULL, now - 12 * HOUR, &key, &is_current)) {
            continue;
        }
        ck_assert_uint_ge(key.born_s, newest);
        newest = key.born_s;
        if (shm_keys_find(&shm, key.name, key.born_s, &again, &is_current)) {
            ck_assert_mem_eq(&key, &again, sizeof(key));
            seen++;
        }
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
END_TEST

static TCase *
mapping_tests(void)
{
    TCase *tc = tcase_create("mapping");
    tcase_add_checked_fixture(tc, open_segment, close_segment);
    tcase_add_test(tc, worker_writes_shared_and_its_row_only);
    tcase_add_test(tc, worker_reads_keys_but_cannot_write_them);
    tcase_add_test(tc, monitor_writes_health_only_and_sees_no_keys);
    tcase_add_test(tc, master_cannot_write_health);
    tcase_add_test(tc, untouched_segment_costs_little);
    tcase_add_test(tc, segment_of_another_layout_is_refused);
    tcase_add_test(tc, histogram_counts_into_the_bucket_of_its_bound);
    return tc;
}

static TCase *
slot_tests(void)
{
    TCase *tc = tcase_create("slots");
    tcase_add_checked_fixture(tc, open_segment, close_segment);
    tcase_add_test(tc, slot_stays_with_its_identity);
    tcase_add_test(tc, removed_slot_comes_back_to_its_identity);
    tcase_add_test(tc, texts_that_do_not_fit_are_refused);
    tcase_add_test(tc, full_table_reuses_the_oldest_removed);
    tcase_add_test(tc, removed_slot_waits_for_the_oldest_conf);
    tcase_add_test(tc, room_is_what_can_be_claimed);
    tcase_add_test(tc, slot_removed_anew_is_not_reused_on_old_terms);
    tcase_add_test(tc, new_master_finds_what_the_old_one_claimed);
    tcase_add_test(tc, all_backends_are_claimed_swept_and_replaced_quickly);
    return tc;
}

static TCase *
key_tests(void)
{
    TCase *tc = tcase_create("keys");
    tcase_add_checked_fixture(tc, open_segment, close_segment);
    tcase_add_test(tc, keys_are_none_before_the_first);
    tcase_add_test(tc, key_is_kept_for_twelve_hours);
    tcase_add_test(tc, old_key_is_accepted_for_a_day);
    tcase_add_test(tc, key_from_the_future_is_replaced);
    tcase_add_test(tc, master_killed_while_rotating_harms_nobody);
    tcase_add_test(tc, key_is_never_read_half_written);
    return tc;
}

Suite *
shm_suite(void)
{
    Suite *suite = suite_create("shm");
    suite_add_tcase(suite, mapping_tests());
    suite_add_tcase(suite, slot_tests());
    suite_add_tcase(suite, key_tests());
    return suite;
}
