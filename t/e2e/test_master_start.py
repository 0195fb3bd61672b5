# SPDX-License-Identifier: Apache-2.0
"""Starting akashd: the command line, exit codes, what it opens and who its processes are."""

import json
import os
import pwd
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest

from harness import curl, free_port, http_config, until
from harness.akashd import binary, environment


def run(*args, **kw):
    """akashd with arguments, to its end."""
    return subprocess.run([binary(), *args], capture_output=True, text=True, timeout=30,
                          env=environment(), stdin=subprocess.DEVNULL, **kw)


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def good_file(tmp_path, port):
    path = tmp_path / "good.json"
    path.write_text(json.dumps(http_config(port, ["127.0.0.1:1"], metrics=False,
                                           control_socket=str(tmp_path / "c.sock"))))
    return path


# -- the command line

def test_without_arguments_prints_usage_and_exits_1():
    done = run()
    assert done.returncode == 1
    assert "usage: akashd" in done.stderr


@pytest.mark.parametrize("args", [["--nonsense"], ["-x"], ["-c"], ["-t"], ["-c", "a", "b"],
                                  ["--demo", "-c", "a"]])
def test_wrong_usage_exits_1(args):
    done = run(*args)
    assert done.returncode == 1
    assert "usage: akashd" in done.stderr


@pytest.mark.parametrize("args,pattern", [
    (["-v"], r"\Aakashd \d+\.\d+\.\d+\n\Z"),
    (["--version"], r"\Aakashd \d+\.\d+\.\d+\n\Z"),
    (["-V"], r"\Aakashd \d+\.\d+\.\d+\n(?s:.*)OpenSSL"),
    (["-h"], r"usage: akashd -c FILE"),
    (["--help"], r"usage: akashd -c FILE"),
    (["--print-manual"], r"akashd\.json"),
])
def test_flags_that_print(args, pattern):
    done = run(*args)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(pattern, done.stdout)


def test_print_schema_is_a_json_schema():
    assert json.loads(run("--print-schema").stdout)["title"] == "akashd.json"


def test_check_accepts_a_good_file_and_binds_nothing(good_file, port):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert run("-t", "-c", str(good_file)).returncode == 0


@pytest.mark.parametrize("spelling", ["-c", "--config", "-config"])
def test_spellings_of_config(good_file, spelling):
    assert run(spelling, str(good_file), "-t").returncode == 0


def test_spelling_of_the_first_akash_with_equals_sign(good_file):
    assert run(f"-config={good_file}", "-t").returncode == 0


def test_print_conf_is_a_fixed_point(good_file, tmp_path):
    once = run("-T", "-c", str(good_file))
    assert once.returncode == 0
    again = tmp_path / "again.json"
    again.write_text(once.stdout)
    assert run("-T", "-c", str(again)).stdout == once.stdout


@pytest.mark.parametrize("flags", [["-t"], ["-T"], []])
def test_wrong_file_exits_1_with_its_place(tmp_path, flags):
    path = tmp_path / "bad.json"
    path.write_text('{\n  "algoritm": "round_robin",\n  "Backends": [{"address": "127.0.0.1:1"}]\n}\n')
    done = run("-c", str(path), *flags)
    assert done.returncode == 1
    assert f"{path}:2:3: algoritm" in done.stderr


def test_missing_file_exits_1(tmp_path):
    done = run("-c", str(tmp_path / "none.json"))
    assert done.returncode == 1
    assert "none.json" in done.stderr


# -- what can be in the way

def test_second_akashd_on_the_same_port_exits_2(launch, tmp_path, port):
    first = launch(http_config(port, ["127.0.0.1:1"]))
    path = tmp_path / "second.json"
    path.write_text(json.dumps(first.complete(
        http_config(port, ["127.0.0.1:1"], metrics=False,
                    control_socket=str(tmp_path / "second.sock"), pid_file=str(tmp_path / "pid")))))
    done = run("-c", str(path))
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr and "in use" in done.stderr
    assert not (tmp_path / "second.sock").exists()
    assert not (tmp_path / "pid").exists()


def test_second_akashd_on_the_same_control_socket_exits_2(launch, tmp_path):
    first = launch(http_config(free_port(), ["127.0.0.1:1"]))
    path = tmp_path / "second.json"
    path.write_text(json.dumps(first.complete(
        http_config(free_port(), ["127.0.0.1:1"], metrics=False, pid_file=str(tmp_path / "pid")))))
    done = run("-c", str(path))
    assert done.returncode == 2
    assert str(first.control) in done.stderr
    assert first.ctl("status").returncode == 0


def test_metrics_port_of_the_file_that_is_taken_exits_2(tmp_path, good_file, port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        name = "127.0.0.1:%d" % taken.getsockname()[1]
        config = json.loads(good_file.read_text())
        config["metrics"] = name
        good_file.write_text(json.dumps(config))
        done = run("-c", str(good_file))
    assert done.returncode == 2
    assert name in done.stderr


def test_stale_control_socket_is_replaced(launch):
    daemon = launch(http_config(free_port(), ["127.0.0.1:1"]), start=False)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(daemon.control))
    stale.close()
    daemon.start()
    assert daemon.ctl("status").returncode == 0


def test_stale_listening_unix_socket_is_replaced_and_removed_at_the_end(launch, scripted):
    daemon = launch("{}", start=False)
    path = daemon.folder / "front.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    daemon.write(http_config(0, [scripted()], None, {"address": f"unix:{path}"}, workers=2))
    daemon.start()
    answer = curl("--unix-socket", str(path), "http://front/", "-o", "/dev/null", "-w", "%{http_code}")
    assert answer.stdout == "200"
    daemon.send(signal.SIGTERM)
    daemon.wait_exit()
    assert not path.exists()


def test_living_unix_socket_is_not_replaced(launch, tmp_path):
    path = tmp_path / "front.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        file = tmp_path / "conf.json"
        file.write_text(json.dumps(http_config(0, ["127.0.0.1:1"], None, {"address": f"unix:{path}"},
                                               metrics=False, control_socket=str(tmp_path / "c"))))
        done = run("-c", str(file))
        assert done.returncode == 2
        assert str(path) in done.stderr
    assert path.exists()


# -- who they are

def test_titles(launch):
    daemon = launch(http_config(free_port(), ["127.0.0.1:1"], workers=2))
    with open(f"/proc/{daemon.pid}/cmdline", "rb") as f:
        assert f.read().split(b"\0")[0].decode() == f"akashd: master {daemon.file}"
    titles = sorted(p.title for p in daemon.children())
    assert titles == ["akashd: monitor", "akashd: worker 0", "akashd: worker 1"]


def status_ids(pid, key):
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith(key + ":"):
                return [int(x) for x in line.split()[1:]]
    raise KeyError(key)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_children_are_unprivileged(launch):
    nobody = pwd.getpwnam("nobody")
    daemon = launch(http_config(free_port(), ["127.0.0.1:1"], workers=2))
    assert len(daemon.children()) == 3
    for p in daemon.children():
        assert set(status_ids(p.pid, "Uid")) == {nobody.pw_uid}
        assert set(status_ids(p.pid, "Gid")) == {nobody.pw_gid}
        assert 0 not in status_ids(p.pid, "Groups")
    assert status_ids(daemon.pid, "Uid") == [0, 0, 0, 0]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to become")
def test_works_without_root(port):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        file = os.path.join(folder, "conf.json")
        with open(file, "w") as f:
            json.dump(http_config(port, ["127.0.0.1:1"], metrics=False,
                                  control_socket=os.path.join(folder, "c.sock")), f)
        process = subprocess.Popen([binary(), "-c", file], stderr=subprocess.PIPE, text=True,
                                   user="nobody", group=pwd.getpwnam("nobody").pw_gid,
                                   extra_groups=[], env=environment())
        try:
            assert any("ready" in line for line in iter(process.stderr.readline, ""))
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
        finally:
            process.kill()
            process.communicate()


def test_children_have_no_descriptor_of_the_master(launch):
    """A worker has neither the control socket nor the sockets of the other worker."""
    daemon = launch(http_config(free_port(), ["127.0.0.1:1"], workers=2))

    def listening(pid):
        held = set()
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                held.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
            except FileNotFoundError:
                pass
        return {x for x in held if x.startswith("socket:")}
    workers = daemon.workers()
    one, two = listening(workers[0].pid), listening(workers[1].pid)
    assert not one & two


def test_open_files_limit_is_raised_to_the_hard_one(launch):
    def limits(pid):
        with open(f"/proc/{pid}/limits") as f:
            return re.search(r"Max open files\s+(\d+)\s+(\d+)", f.read()).groups()
    daemon = launch(http_config(free_port(), ["127.0.0.1:1"]),
                    prefix=["sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh"])
    soft, hard = limits(daemon.workers()[0].pid)
    assert soft == hard != "256"


# -- files and the background

def test_pid_file_and_its_end(launch):
    daemon = launch(http_config(free_port(), ["127.0.0.1:1"]))
    assert daemon.pid_file.read_text() == f"{daemon.pid}\n"
    daemon.stop()


def test_pid_file_of_a_living_server_is_not_overwritten(launch, tmp_path):
    first = launch(http_config(free_port(), ["127.0.0.1:1"]))
    path = tmp_path / "second.json"
    path.write_text(json.dumps(first.complete(
        http_config(free_port(), ["127.0.0.1:1"], metrics=False, control_socket=str(tmp_path / "c.sock")))))
    done = run("-c", str(path))
    assert done.returncode == 2
    assert f"{first.pid_file}: akashd runs already, process {first.pid}" in done.stderr
    assert first.pid_file.read_text() == f"{first.pid}\n"


def test_pid_file_of_a_killed_server_is_replaced(launch):
    daemon = launch(http_config(free_port(), ["127.0.0.1:1"]))
    daemon.process.kill()
    daemon.process.wait()
    assert daemon.pid_file.exists()
    daemon.start()
    until(lambda: daemon.written_pid() == daemon.pid, "its own process id")


@pytest.mark.parametrize("name, why", [("none/pid", "No such file or directory"), ("folder", "Is a directory")])
def test_pid_file_that_cannot_be_written_exits_2(tmp_path, port, name, why):
    (tmp_path / "folder").mkdir()
    path = tmp_path / "akashd.json"
    path.write_text(json.dumps(http_config(port, ["127.0.0.1:1"], metrics=False, pid_file=str(tmp_path / name),
                                           control_socket=str(tmp_path / "c.sock"))))
    for flags in ([], ["-D"]):
        done = run("-c", str(path), *flags)
        assert done.returncode == 2
        assert f"pid_file: {tmp_path / name}: {why}" in done.stderr
    assert {entry.name for entry in tmp_path.iterdir()} == {"folder", "akashd.json"}


def test_pid_file_of_the_command_line(launch, tmp_path):
    path = tmp_path / "other.pid"
    daemon = launch(http_config(free_port(), ["127.0.0.1:1"]), args=["-p", str(path)])
    daemon.wait_log("ready")  # /readyz says so when one worker accepts; the file is there when all serve
    until(path.exists, "the pid file")
    assert path.read_text() == f"{daemon.pid}\n"
    daemon.send(signal.SIGTERM)
    assert daemon.wait_exit() == 0
    assert not path.exists()


def test_daemon_returns_when_ready_and_stops_by_its_pid(tmp_path, scripted, port):
    config = http_config(port, [scripted()], metrics=False, pid_file=str(tmp_path / "pid"),
                         control_socket=str(tmp_path / "c.sock"),
                         log={"target": str(tmp_path / "log")})
    file = tmp_path / "conf.json"
    file.write_text(json.dumps(config))
    done = run("-D", "-c", str(file))
    assert done.returncode == 0, done.stderr
    pid = int((tmp_path / "pid").read_text())
    try:
        assert curl(f"http://127.0.0.1:{port}/", "-o", "/dev/null", "-w", "%{http_code}").stdout == "200"
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not (tmp_path / "pid").exists(), "the end of the daemon")
    assert "stopped" in (tmp_path / "log").read_text()


def test_daemon_that_cannot_start_exits_2(tmp_path, good_file, port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert run("-D", "-c", str(good_file)).returncode == 2


def test_daemon_with_a_wrong_file_exits_1(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text("{")
    assert run("-D", "-c", str(path)).returncode == 1


# -- the service manager

def test_notify_socket_hears_ready_and_stopping(launch, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        daemon = launch(http_config(free_port(), ["127.0.0.1:1"]),
                        env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"})
        ready = manager.recv(4096).decode()
        assert "READY=1\n" in ready and f"MAINPID={daemon.pid}\n" in ready
        while manager.recv(4096) != b"WATCHDOG=1\n":
            pass
        daemon.reload()
        heard = manager.recv(4096)
        while not heard.startswith(b"RELOADING=1\n"):
            heard = manager.recv(4096)
        stamp = int(re.search(rb"MONOTONIC_USEC=(\d+)", heard).group(1))
        assert 0 <= time.monotonic() * 1e6 - stamp < 10e6
        while not heard.startswith(b"READY=1\n"):
            heard = manager.recv(4096)
        daemon.send(signal.SIGTERM)
        while not heard.startswith(b"STOPPING=1\n"):
            heard = manager.recv(4096)


# -- the demonstration

def can_bind(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_demo_shows_two_backends():
    if not (can_bind(1902) and can_bind(9100)):
        pytest.skip("the ports of the demonstration are taken")
    process = subprocess.Popen([binary(), "--demo"], stderr=subprocess.PIPE, text=True,
                               env=environment())
    try:
        assert any("ready" in line for line in iter(process.stderr.readline, ""))
        answers = {curl("http://127.0.0.1:1902/").stdout.split(",")[0].split(" (")[0]
                   for _ in range(4)}
        assert len(answers) == 2
        assert curl("-o", "/dev/null", "-w", "%{http_code}",
                    "http://127.0.0.1:9100/metrics").stdout == "200"
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.communicate()


def test_akashctl_that_is_turned_away_says_so(tmp_path):
    """The control socket serves so many at a time; one more may be closed before it is read."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen()
        turning_away = threading.Thread(target=lambda: busy.accept()[0].close())
        turning_away.start()
        done = subprocess.run([binary("akashctl"), "-s", str(path), "status"], capture_output=True, text=True, timeout=30)
        turning_away.join()
    assert done.returncode == 2 and "no answer" in done.stderr, done
