# SPDX-License-Identifier: Apache-2.0
"""What the service manager hears and lends: the notify protocol, the watchdog, sockets made by the manager."""

import os
import signal
import socket
import time

import pytest
from harness import Client, Load, free_port, http_config, until
from harness.backend import fixed
from harness.manager import Manager


@pytest.fixture
def manage():
    made = []

    def start(**kw):
        made.append(Manager(**kw))
        return made[-1]
    yield start
    for manager in made:
        manager.close()


@pytest.fixture
def backend(scripted):
    return scripted(fixed(b"ok"))


def ask(port, **kw):
    with Client(port, **kw) as client:
        return client.ask().body


# -- what the manager hears

@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_ready_comes_from_the_master_when_it_serves(launch, manage, backend, abstract):
    manager, port = manage(abstract=abstract), free_port()
    daemon = launch(http_config(port, [backend]), env=manager.env)
    told = manager.message()
    assert told["READY"] == "1" and told["STATUS"] == "serving"
    assert told["MAINPID"] == str(daemon.pid) and told["pid"] == daemon.pid
    assert ask(port) == b"ok"


def test_nothing_is_told_before_it_serves(launch, manage, backend, tmp_path):
    manager = manage()
    daemon = launch(http_config(free_port(), [backend], listener={"mode": "htp"}), start=False, env=manager.env)
    daemon.start(ready=False)
    assert daemon.wait_exit() == 1
    manager.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.sock.recv(4096)
    daemon.destroy()


def test_reload_is_framed_and_stamped(launch, manage, backend):
    """systemd takes READY as the end of a reload only when it is younger than RELOADING's stamp."""
    manager = manage()
    daemon = launch(http_config(free_port(), [backend]), env=manager.env)
    manager.wait("READY")
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    daemon.reload()
    reloading = manager.wait("RELOADING")
    after = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) / 1e6 <= after
    assert manager.wait("READY")["STATUS"] == "serving"


def test_refused_reload_is_told_in_the_status(launch, manage, backend):
    manager = manage()
    daemon = launch(http_config(free_port(), [backend]), env=manager.env)
    manager.wait("READY")
    daemon.write("{")
    assert daemon.ctl("reload").returncode == 1
    manager.wait("RELOADING")
    assert "refused" in manager.wait("READY")["STATUS"]


def test_refusal_stays_in_the_status_whatever_changes_but_the_file(launch, manage, backend):
    """An operator's weight is a reload inside, but no verdict on the file."""
    manager = manage()
    daemon = launch(http_config(free_port(), [backend]), env=manager.env)
    good = daemon.config
    manager.wait("READY")
    daemon.write("{")
    assert daemon.ctl("reload").returncode == 1
    manager.wait("RELOADING")
    assert "refused" in manager.wait("READY")["STATUS"]
    assert daemon.ctl("weight", f"site/{backend.address}", "7").returncode == 0
    daemon.write(good)
    assert daemon.ctl("reload").returncode == 0
    assert "READY" not in manager.message() and manager.wait("READY")["STATUS"] == "serving"


def test_stopping_is_told_before_the_drain(launch, manage, scripted):
    manager, port = manage(), free_port()
    backend = scripted()
    backend.always(fixed(b"ok"))
    daemon = launch(http_config(port, [backend]), env=manager.env)
    manager.wait("READY")
    daemon.send(signal.SIGTERM)
    assert manager.wait("STOPPING")["STOPPING"] == "1"
    assert daemon.wait_exit() == 0


def test_watchdog_is_fed_twice_in_its_time(launch, manage, backend):
    manager = manage(watchdog_ms=400)
    launch(http_config(free_port(), [backend]), env=manager.env)
    manager.wait("READY")
    fed = [manager.wait("WATCHDOG")["at"] for _ in range(5)]
    gaps = [later - earlier for earlier, later in zip(fed, fed[1:])]
    assert sorted(gaps)[len(gaps) // 2] < 0.4, gaps  # the median: this machine has other work
    assert sum(gaps) > 0.4, "more often than half of the time"


def test_watchdog_of_somebody_else_is_not_fed(launch, manage, backend):
    manager = manage(watchdog_ms=100)
    manager.env["WATCHDOG_PID"] = "1"
    daemon = launch(http_config(free_port(), [backend]), env=manager.env)
    manager.wait("READY")
    daemon.reload()  # takes longer than a turn of the watchdog would
    daemon.reload()
    daemon.send(signal.SIGTERM)
    manager.wait("STOPPING")
    assert not [m for m in manager.heard if "WATCHDOG" in m]


def test_watchdog_is_not_fed_by_a_master_that_hangs(launch, manage, backend):
    manager = manage(watchdog_ms=200)
    daemon = launch(http_config(free_port(), [backend]), env=manager.env)
    manager.wait("WATCHDOG")
    daemon.send(signal.SIGSTOP)
    try:
        until(lambda: open(f"/proc/{daemon.pid}/stat").read().rsplit(")", 1)[1].split()[0] == "T", "the stop")
        manager.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                manager.sock.recv(4096)
        manager.sock.settimeout(0.6)
        with pytest.raises(TimeoutError):
            manager.sock.recv(4096)
    finally:
        daemon.send(signal.SIGCONT)
    manager.wait("WATCHDOG")


# -- what the manager lends

@pytest.fixture
def lend(launch, manage, backend):
    """A manager that listens on a free port, and a function that starts akashd on what it lends."""
    manager, port = manage(), free_port()
    manager.listen(("127.0.0.1", port))

    def start(**kw):
        return launch(http_config(kw.pop("port", port), [backend], **kw), env=manager.env,
                      lent=manager.descriptors())
    return manager, port, start


def test_client_that_came_before_the_start_is_served(lend):
    manager, port, start = lend
    early = Client(port)
    early.request()
    start(workers=2)
    assert early.response().body == b"ok"
    early.close()
    assert ask(port) == b"ok"


def test_every_worker_serves_a_lent_socket(lend):
    _, port, start = lend
    daemon = start(workers=2)
    first, second = daemon.workers().values()
    os.kill(first.pid, signal.SIGSTOP)
    try:
        assert ask(port) == b"ok"
        os.kill(second.pid, signal.SIGSTOP)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    try:
        assert ask(port) == b"ok"
    finally:
        os.kill(second.pid, signal.SIGCONT)


def test_no_request_fails_while_it_is_started_anew(lend, launch):
    """What comes between the end of one and the start of the next waits in the manager's socket."""
    manager, port, start = lend
    daemon = start()
    with Load(port, fresh=4) as load:
        load.wait_total(50)
        daemon.send(signal.SIGTERM)
        assert daemon.wait_exit() == 0
        begun = load.account.total
        start()
        load.wait_total(begun + 100)
    load.join()
    load.account.assert_all_ok(at_least=100)


def test_lent_unix_socket_keeps_its_file(launch, manage, backend, tmp_path):
    manager, path = manage(), str(tmp_path / "front.sock")
    manager.listen(path, socket.AF_UNIX)
    daemon = launch(http_config(1, [backend], listener={"address": f"unix:{path}"}), env=manager.env,
                    lent=manager.descriptors())
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        daemon.reload()
    daemon.stop()
    assert os.path.exists(path)


def test_listener_for_all_addresses_takes_the_socket_of_both_families(launch, manage, backend):
    manager, port = manage(), free_port()
    manager.listen(("::", port), socket.AF_INET6)
    launch(http_config(port, [backend], listener={"address": f":{port}"}), env=manager.env,
           lent=manager.descriptors())
    assert ask(port) == b"ok"
    assert ask(port, host="::1") == b"ok"


def test_metrics_may_be_lent(launch, manage, backend):
    manager, port = manage(), free_port()
    manager.listen(("127.0.0.1", port))
    daemon = launch(http_config(free_port(), [backend], metrics=f"127.0.0.1:{port}"), metrics=False,
                    env=manager.env, lent=manager.descriptors())
    daemon.metrics_port = port
    assert daemon.metrics().value("akash_workers") == 1


def test_reload_gives_back_and_takes_again(lend, backend):
    _, port, start = lend
    other = free_port()
    daemon = start(port=other)
    daemon.wait_log(rf"socket 127.0.0.1:{port}: .* no listener has this address")
    for wanted in (port, other, port):
        daemon.reload(http_config(wanted, [backend], workers=2))
        assert ask(wanted) == b"ok"
    daemon.send(signal.SIGTERM)
    assert daemon.wait_exit() == 0


def test_what_is_no_listening_stream_is_not_used(launch, manage, backend):
    manager, port = manage(), free_port()
    manager.lent.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    manager.lent.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    daemon = launch(http_config(port, [backend]), env=manager.env, lent=manager.descriptors())
    for number in (3, 4):
        daemon.wait_log(rf"descriptor {number} of the service manager: no listening stream socket")
    assert ask(port) == b"ok"


def test_sockets_meant_for_another_process_are_left_alone(launch, manage, backend):
    """LISTEN_PID names somebody else: the address is taken, and by whom is not our business."""
    manager, port = manage(), free_port()
    sock = manager.listen(("127.0.0.1", port))
    daemon = launch(http_config(port, [backend]), start=False,
                    env={**manager.env, "LISTEN_PID": "1", "LISTEN_FDS": "1"})
    daemon.start(ready=False)
    assert daemon.wait_exit() == 2
    assert f"127.0.0.1:{port}: cannot listen" in daemon.log_text
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    daemon.destroy()


# -- what the machine grants

def test_advice_is_one_line_each(launch, backend):
    """In a network of its own, whose two values are the test's; the limit of open files is the shell's."""
    values = ("echo 128 >/proc/sys/net/core/somaxconn && echo 0 >/proc/sys/net/ipv4/tcp_migrate_req"
              " && ulimit -n 400 && exec \"$@\"")
    if os.geteuid() != 0:
        pytest.skip("needs a network namespace whose values it may write")
    daemon = launch(http_config(free_port(), [backend], workers=1), metrics=False,
                    prefix=["unshare", "-n", "sh", "-c", values, "sh"])
    assert len([line for line in daemon.log if "advice: " in line]) == 3
    daemon.wait_log(r"advice: net.core.somaxconn is 128: it cuts the backlog of 4096 of listener web")
    daemon.wait_log(r"advice: net.ipv4.tcp_migrate_req is 0")
    daemon.wait_log(r"advice: open files are limited to 400 a process, and clients to 200")
    before = len(daemon.log)
    daemon.reload()
    assert not [line for line in daemon.log[before:] if "advice: " in line]
