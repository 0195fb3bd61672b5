# SPDX-License-Identifier: Apache-2.0
"""The sandbox: what workers and monitor have given up, at every point of a life, and what a refused call costs.

That everything else works in it is shown by all other tests: each of them runs with it.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Client, free_port, http_config, until
from harness.akashd import adopt_orphans, is_sanitized
from harness.backend import fixed
from harness.traffic import wait_serving

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="capabilities are root's")
NONE = "0" * 16
CHECK = {"health_check": {"type": "http", "path": "/health", "interval": "100ms"}}


def status(process):
    """{key: value} of /proc/PID/status."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


def assert_locked_in(process):
    have = status(process)
    for key in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert have[key] == NONE, f"{process}: {key} {have[key]}"
    if os.geteuid() == 0:
        assert have["CapBnd"] == NONE, f"{process}: CapBnd {have['CapBnd']}"
    assert have["NoNewPrivs"] == "1", process
    assert have["Seccomp"] == "2" and have["Threads"] == "1", process


def assert_all_locked_in(akashd, workers):
    """Every child, and all of those that there should be."""
    wait_serving(akashd, workers)
    until(akashd.monitor, "the monitor")
    akashd.wait_metric("akash_backend_up", lambda value: value == 1)
    children = akashd.children()
    assert len(children) == workers + 1, children
    for process in children:
        assert_locked_in(process)


@pytest.fixture
def backend(scripted):
    made = scripted()
    made.answer(fixed(b"ok"))
    return made


@pytest.fixture
def served(launch, backend):
    """(daemon, port) of two workers."""
    port = free_port()
    akashd = launch(http_config(port, [backend], upstream=CHECK, workers=2))
    return akashd, port


def ask(port):
    with Client(port) as client:
        return client.ask().body


# -- a life

def test_children_have_given_up_everything_from_the_start(served):
    akashd, port = served
    assert_all_locked_in(akashd, 2)
    assert ask(port) == b"ok"


def test_children_that_a_reload_adds_are_locked_in(served):
    akashd, port = served
    akashd.reload({**akashd.config, "workers": 4})
    assert_all_locked_in(akashd, 4)
    assert ask(port) == b"ok"


def test_successors_of_killed_children_are_locked_in(served):
    akashd, port = served
    former = [*akashd.workers().values(), akashd.monitor()]
    for process in former:
        process.kill()
    until(lambda: akashd.monitor() and len(akashd.workers()) == 2
          and not {p.pid for p in former} & {p.pid for p in akashd.children()}, "successors")
    assert_all_locked_in(akashd, 2)
    assert ask(port) == b"ok"


def test_children_of_a_new_binary_are_locked_in(served):
    akashd, port = served
    adopt_orphans()
    akashd.upgrade()
    assert_all_locked_in(akashd, 2)
    assert ask(port) == b"ok"


@as_root
def test_master_keeps_few_capabilities(served):
    akashd, _ = served
    names = ("chown dac_override fowner kill setgid setuid setpcap net_bind_service net_admin").split()
    told = subprocess.run(["capsh", f"--decode={status(akashd)['CapEff']}"], capture_output=True, text=True,
                          check=True).stdout.strip().split("=")[1]
    assert set(told.split(",")) <= {f"cap_{name}" for name in names}
    assert {"cap_kill", "cap_setuid", "cap_setgid"} <= set(told.split(","))


def test_metrics_count_descriptors_of_children_that_nobody_may_look_into(served):
    akashd, _ = served
    held = sum(p.fds() for p in akashd.children())
    akashd.wait_metric("process_open_fds", lambda value: value > held)


# -- a refused call

PRELOAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* In a worker: a client that comes to the port of the environment makes it start a program. */
int
accept4(int fd, struct sockaddr *from, socklen_t *len, int flags)
{
    int (*next)(int, struct sockaddr *, socklen_t *, int) = dlsym(RTLD_NEXT, "accept4");
    struct sockaddr_in own;
    socklen_t own_len = sizeof(own);
    int client = next(fd, from, len, flags);
    getsockname(fd, (struct sockaddr *)&own, &own_len);
    if (client >= 0 && ntohs(own.sin_port) == atoi(getenv("TEST_PORT"))) {
        execl("/bin/true", "true", (char *)0);
    }
    return client;
}
"""


@pytest.fixture(scope="module")
def preload(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preload")
    folder.chmod(0o755)
    (folder / "preload.c").write_text(PRELOAD)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(folder / "preload.so"), str(folder / "preload.c")],
                   check=True)
    return folder / "preload.so"


@pytest.mark.skipif(is_sanitized(), reason="AddressSanitizer wants to be the first library")
def test_worker_that_starts_a_program_dies_and_the_log_has_the_call(launch, backend, preload):
    port, bad = free_port(), free_port()
    config = http_config(port, [backend], upstream=CHECK)
    config["listeners"].append({**config["listeners"][0], "name": "bad", "address": f"127.0.0.1:{bad}"})
    akashd = launch(config, env={"LD_PRELOAD": str(preload), "TEST_PORT": str(bad)})
    former = akashd.workers()[0]
    assert ask(port) == b"ok"
    with Client(bad):
        akashd.wait_log(r"error worker 0: sandbox: execve refused$")
        akashd.wait_log(rf"worker 0: died: signal {int(signal.SIGSYS)} \(Bad system call")
    until(lambda: 0 in (now := akashd.workers()) and now[0].pid != former.pid, "another worker")
    assert ask(port) == b"ok"
    assert len([line for line in akashd.log if "refused" in line]) == 1
    akashd.destroy()  # its log is not clean


# -- files

def test_monitor_begins_anew_when_a_file_it_reads_is_replaced(launch, backend, tmp_path):
    """Landlock ties a rule to a file; an editor leaves another one under the name."""
    if os.geteuid() != 0:
        pytest.skip("needs a /etc of its own")
    etc = tmp_path / "etc"
    etc.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    port = free_port()
    config = http_config(port, [f"localhost:{backend.port}"], upstream=CHECK)
    script = f"cp -aL /etc/hosts /etc/resolv.conf /etc/passwd /etc/group {etc}/ && mount --bind {etc} /etc && exec \"$@\""
    akashd = launch(config, prefix=["unshare", "-m", "sh", "-c", script, "sh"])
    former = akashd.monitor()
    fresh = etc / "hosts.new"
    fresh.write_text((etc / "hosts").read_text() + "127.0.0.1 another.name\n")
    fresh.chmod(0o644)
    os.replace(fresh, etc / "hosts")
    akashd.wait_log(r"info monitor: sandbox: /etc/hosts is another file now: another monitor begins")
    akashd.wait_log(r"monitor: ended, another one begins")
    until(lambda: (now := akashd.monitor()) and now.pid != former.pid, "another monitor")
    assert_locked_in(akashd.monitor())
    config["upstreams"]["site"]["backends"] = [{"address": f"another.name:{backend.port}"}]
    akashd.reload(config)
    assert ask(port) == b"ok"
    assert not [line for line in akashd.log if "died" in line]


# -- other kernels

WITHOUT = """
import ctypes, os, sys
lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
lib.seccomp_init.restype = ctypes.c_void_p
lib.seccomp_load.argtypes = [ctypes.c_void_p]
lib.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
ALLOW, ENOSYS = 0x7fff0000, 0x00050000 | 38
context = lib.seccomp_init(ALLOW)
for call in (b"landlock_create_ruleset", b"landlock_add_rule", b"landlock_restrict_self"):
    assert lib.seccomp_rule_add_array(context, ENOSYS, lib.seccomp_syscall_resolve_name(call), 0, None) == 0
assert lib.seccomp_load(context) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_kernel_without_landlock_is_told_once(launch, backend):
    port = free_port()
    akashd = launch(http_config(port, [backend], upstream=CHECK, workers=2),
                    prefix=[sys.executable, "-c", WITHOUT])
    assert_all_locked_in(akashd, 2)
    assert ask(port) == b"ok"
    lines = [line for line in akashd.log if "Landlock" in line]
    assert len(lines) == 1 and re.search(r"warn master: sandbox: the kernel has no Landlock", lines[0])


def memory_has(process, text):
    """Does it stand anywhere in what the process may read? Mappings of more than 256 MB are a sanitizer's own."""
    with open(f"/proc/{process.pid}/maps") as maps, open(f"/proc/{process.pid}/mem", "rb", 0) as memory:
        for line in maps:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1].startswith("r") and "[v" not in line and end - begin < 1 << 28:
                memory.seek(begin)
                try:
                    if text in memory.read(end - begin):
                        return True
                except OSError:  # a page behind the end of its file
                    continue
    return False


@as_root
def test_monitor_inherits_no_text_of_the_configuration(launch, backend):
    """What the master has read is wiped before a child is made of it: shown by a comment, which no conf keeps.
    Where memory that is freed is soon another's, only the build with sanitizers would tell."""
    comment = "open-sesame " * 50
    akashd = launch(http_config(free_port(), [backend], CHECK, listener={"name": "known-name"}), start=False)
    akashd.write(json.dumps(akashd.complete(akashd.config), indent=2) + f"\n/* {comment} */\n")
    akashd.start()
    akashd.wait_metric("akash_backend_up", lambda value: value == 1)
    assert memory_has(akashd.monitor(), b"known-name")
    assert not memory_has(akashd.monitor(), comment.encode())
