/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sandbox.c - each test forks a process, which enters the sandbox of a role and does
 * something.
 */
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/sandbox.h"
#include "shared/sandbox_private.h"
#include "shared/sanitized.h"
#include "t/unit/suites.h"

#define ALIVE 0x5a /* exit status of a process that came to the end of what it was to do */

struct end {
    int status; /* of waitpid */
    char log[1024];
};

typedef void
act_function(void);

static void
child(enum sandbox_role role, act_function *act, int log_fd)
{
    log_set_target(log_fd, LOG_FORMAT_TEXT);
    log_set_process(role == SANDBOX_WORKER ? "worker 0" : "monitor");
    sandbox_bound();
    if (sandbox_enter(role) != 0) {
        log_error("%s", strerror(errno));
        _exit(1);
    }
    act();
    _exit(ALIVE);
}

static struct end
run_in(enum sandbox_role role, act_function *act)
{
    struct end end = {0};
    int log_fds[2];
    ck_assert_int_eq(pipe(log_fds), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        child(role, act, log_fds[1]);
    }
    close(log_fds[1]);
    ck_assert_int_eq(waitpid(pid, &end.status, 0), pid);
    ssize_t n = read(log_fds[0], end.log, sizeof(end.log) - 1);
    ck_assert_int_ge(n, 0);
    close(log_fds[0]);
    return end;
}

static void
assert_alive(struct end end)
{
    ck_assert_msg(WIFEXITED(end.status) && WEXITSTATUS(end.status) == ALIVE, "status %x: %s",
                  end.status, end.log);
    ck_assert_str_eq(end.log, "");
}

/* It died of the signal, and one line of the log says why. */
static void
assert_refused(struct end end, const char *process, const char *call)
{
    char wanted[256];
    regex_t line;
    ck_assert_msg(WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGSYS, "%s: status %x: %s",
                  call, end.status, end.log);
    snprintf(wanted, sizeof(wanted),
             "^[0-9-]{10}T[0-9:]{8}\\.[0-9]{3}\\+00:00 error %s: sandbox: %s refused\n$", process,
             call);
    ck_assert_int_eq(regcomp(&line, wanted, REG_EXTENDED | REG_NOSUB), 0);
    ck_assert_msg(regexec(&line, end.log, 0, NULL, 0) == 0, "%s: %s", call, end.log);
    regfree(&line);
}

/* ---- calls ---- */

static void
do_nothing(void)
{
}

static void
do_execve(void)
{
    char *args[] = {"true", NULL};
    execve("/bin/true", args, args + 1);
}

static void
do_fork(void)
{
    syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void
do_clone3(void)
{
    syscall(SYS_clone3, NULL, 0);
}

static void
do_netlink(void)
{
    socket(AF_NETLINK, SOCK_RAW, 0);
}

static void
do_listen(void)
{
    listen(-1, 1);
}

static void
do_kill(void)
{
    kill(1, 0);
}

static void
do_tgkill(void)
{
    syscall(SYS_tgkill, 1, 1, 0);
}

static void
do_mmap_of_code(void)
{
    syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void
do_mprotect_of_code(void)
{
    syscall(SYS_mprotect, NULL, 4096, PROT_READ | PROT_EXEC);
}

static void
do_ioctl(void)
{
    syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, "x");
}

static void
do_open_for_writing(void)
{
    syscall(SYS_openat, AT_FDCWD, "/tmp/akashd-sandbox", O_WRONLY | O_CREAT, 0600);
}

static void
do_process_vm_readv(void)
{
    syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0);
}

static void
do_io_uring_setup(void)
{
    syscall(SYS_io_uring_setup, 1, NULL);
}

static void
do_ptrace(void)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static const struct {
    const char *call;
    act_function *act;
    bool sanitizers; /* those need it */
} refused[] = {
    {"execve", do_execve, false},
    {"clone", do_fork, false},
    {"clone3", do_clone3, false},
    {"socket", do_netlink, false},
    {"listen", do_listen, false},
    {"kill", do_kill, false},
    {"tgkill", do_tgkill, false},
    {"mmap", do_mmap_of_code, false},
    {"mprotect", do_mprotect_of_code, false},
    {"ioctl", do_ioctl, false},
    {"openat", do_open_for_writing, false},
    {"process_vm_readv", do_process_vm_readv, false},
    {"io_uring_setup", do_io_uring_setup, false},
    {"ptrace", do_ptrace, true},
};

START_TEST(refused_call_ends_a_process_and_is_named)
{
    if (refused[_i].sanitizers && IS_SANITIZED) {
        return;
    }
    assert_refused(run_in(SANDBOX_WORKER, refused[_i].act), "worker 0", refused[_i].call);
    assert_refused(run_in(SANDBOX_MONITOR, refused[_i].act), "monitor", refused[_i].call);
}
END_TEST

START_TEST(process_lives_on_in_the_sandbox)
{
    assert_alive(run_in(SANDBOX_WORKER, do_nothing));
    assert_alive(run_in(SANDBOX_MONITOR, do_nothing));
}
END_TEST

static void
do_abort(void)
{
    abort();
}

START_TEST(abort_is_an_abort)
{
    struct end end = run_in(SANDBOX_WORKER, do_abort);
    ck_assert_msg(WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGABRT, "%s", end.log);
}
END_TEST

START_TEST(every_call_of_the_table_is_known)
{
    const char *unknown = sandbox_unknown_call();
    ck_assert_msg(unknown == NULL, "%s", unknown);
}
END_TEST

START_TEST(calls_have_names)
{
    sandbox_load_names();
    ck_assert_str_eq(sandbox_call_name(SYS_execve), "execve");
    ck_assert_str_eq(sandbox_call_name(SYS_landlock_restrict_self), "landlock_restrict_self");
    ck_assert_str_eq(sandbox_call_name(-1), "an unknown call");
    ck_assert_str_eq(sandbox_call_name(511), "an unknown call");
    ck_assert_str_eq(sandbox_call_name(1 << 30), "an unknown call");
}
END_TEST

/* ---- files ---- */

/* errno of opening it in the role, 0 if it opens. Through the exit status, as ALIVE is. */
static const char *path_to_open;

static void
do_open(void)
{
    _exit(open(path_to_open, O_RDONLY | O_CLOEXEC) < 0 ? errno : 0);
}

static int
open_in(enum sandbox_role role, const char *path)
{
    path_to_open = path;
    struct end end = run_in(role, do_open);
    ck_assert_msg(WIFEXITED(end.status), "%s: status %x: %s", path, end.status, end.log);
    return WEXITSTATUS(end.status);
}

START_TEST(worker_opens_no_file)
{
    static const char *paths[] = {"/etc/passwd", "/etc/resolv.conf", "/etc/hosts", "/",
                                  "/dev/null"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        ck_assert_int_eq(open_in(SANDBOX_WORKER, paths[i]), EACCES);
    }
}
END_TEST

START_TEST(monitor_reads_what_names_are_looked_up_in_and_nothing_else)
{
    ck_assert_int_eq(open_in(SANDBOX_MONITOR, "/etc/hosts"), 0);
    ck_assert_int_eq(open_in(SANDBOX_MONITOR, "/etc/resolv.conf"), 0);
    struct sandbox_kernel kernel;
    sandbox_look(&kernel);
    if (kernel.landlock_abi > 0) {
        ck_assert_int_eq(open_in(SANDBOX_MONITOR, "/etc/passwd"), EACCES);
        ck_assert_int_eq(open_in(SANDBOX_MONITOR, "/etc"), EACCES);
        ck_assert_int_eq(open_in(SANDBOX_MONITOR, "/dev/null"), EACCES);
    }
}
END_TEST

/* ---- sockets ---- */

static struct sockaddr_un place;
static socklen_t place_len;

/* A listening Unix socket; in the abstract name space where the name begins with NUL. */
static int
listen_at(const char *name, size_t len)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    place = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(place.sun_path, name, len);
    place_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&place, place_len), 0);
    ck_assert_int_eq(listen(fd, 4), 0);
    return fd;
}

static void
do_connect(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    _exit(connect(fd, (struct sockaddr *)&place, place_len) < 0 ? errno : 0);
}

static int
connect_in(enum sandbox_role role)
{
    struct end end = run_in(role, do_connect);
    ck_assert_msg(WIFEXITED(end.status), "status %x: %s", end.status, end.log);
    return WEXITSTATUS(end.status);
}

START_TEST(unix_socket_with_a_path_is_reached)
{
    char folder[] = "/tmp/akashd-sandbox-XXXXXX", path[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/socket", folder);
    int fd = listen_at(path, strlen(path) + 1);
    ck_assert_int_eq(connect_in(SANDBOX_WORKER), 0);
    ck_assert_int_eq(connect_in(SANDBOX_MONITOR), 0);
    close(fd);
    unlink(path);
    rmdir(folder);
}
END_TEST

START_TEST(abstract_unix_socket_is_not_reached)
{
    char name[32];
    struct sandbox_kernel kernel;
    int len = snprintf(name, sizeof(name), "%cakashd-sandbox-%d", 0, (int)getpid());
    int fd = listen_at(name, (size_t)len);
    sandbox_look(&kernel);
    if (kernel.landlock_abi >= 6) {
        ck_assert_int_eq(connect_in(SANDBOX_WORKER), EPERM);
        ck_assert_int_eq(connect_in(SANDBOX_MONITOR), EPERM);
    }
    close(fd);
}
END_TEST

/* ---- capabilities ---- */

static int report_fd;

static void
do_report(void)
{
    char text[4096];
    ssize_t n = read(report_fd, text, sizeof(text) - 1); /* opened before: a file of its own */
    text[n > 0 ? n : 0] = '\0';
    static const char *lines[] = {
        "\nCapInh:\t0000000000000000\n",
        "\nCapPrm:\t0000000000000000\n",
        "\nCapEff:\t0000000000000000\n",
        "\nCapAmb:\t0000000000000000\n",
        "\nNoNewPrivs:\t1\n",
        "\nSeccomp:\t2\n",
    };
    for (int i = 0; i < (int)(sizeof(lines) / sizeof(lines[0])); i++) {
        if (!strstr(text, lines[i])) {
            _exit(i);
        }
    }
    bool is_bound = strstr(text, "\nCapBnd:\t0000000000000000\n") != NULL;
    _exit(is_bound || getuid() != 0 ? ALIVE : 100);
}

static void
open_report_and_enter(void)
{
    report_fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    sandbox_bound();
    if (report_fd < 0 || sandbox_enter(SANDBOX_WORKER) != 0) {
        _exit(101);
    }
    do_report();
}

START_TEST(nothing_is_left_to_raise)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        open_report_and_enter();
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == ALIVE, "status %x", status);
}
END_TEST

Suite *
sandbox_suite(void)
{
    Suite *suite = suite_create("sandbox");
    TCase *tc = tcase_create("sandbox");
    tcase_add_loop_test(tc, refused_call_ends_a_process_and_is_named, 0,
                        (int)(sizeof(refused) / sizeof(refused[0])));
    tcase_add_test(tc, process_lives_on_in_the_sandbox);
    tcase_add_test(tc, abort_is_an_abort);
    tcase_add_test(tc, every_call_of_the_table_is_known);
    tcase_add_test(tc, calls_have_names);
    tcase_add_test(tc, worker_opens_no_file);
    tcase_add_test(tc, monitor_reads_what_names_are_looked_up_in_and_nothing_else);
    tcase_add_test(tc, unix_socket_with_a_path_is_reached);
    tcase_add_test(tc, abstract_unix_socket_is_not_reached);
    tcase_add_test(tc, nothing_is_left_to_raise);
    suite_add_tcase(suite, tc);
    return suite;
}
