# SPDX-License-Identifier: Apache-2.0
"""Supervision and the end: deaths, stops, log files."""

import re
import signal
import socket
import time

import pytest

from harness import Client, Gate, free_port, http_config, until
from harness.akashd import Process
from harness.backend import fixed


@pytest.fixture
def backend(scripted):
    return scripted(fixed(b"one"))


def ask(port):
    with Client(port) as client:
        return client.ask().status


def end_of(daemon):
    """Seconds until the master has gone."""
    start = time.monotonic()
    assert daemon.wait_exit() == 0
    return time.monotonic() - start


# -- deaths

def test_killed_master_leaves_nothing_behind(launch, backend):
    daemon = launch(http_config(free_port(), [backend], workers=3))
    family = daemon.children()
    assert len(family) == 4
    daemon.process.kill()
    until(lambda: not [p for p in family if p.alive], "the end of all children", 5)
    daemon.process.wait()
    daemon.destroy()


def test_akashd_starts_again_after_its_master_was_killed(launch, backend):
    """Stale control socket and pid file are no obstacle."""
    port = free_port()
    daemon = launch(http_config(port, [backend]))
    family = daemon.children()
    daemon.process.kill()
    daemon.process.wait()
    until(lambda: not [p for p in family if p.alive], "the end of all children", 5)
    daemon.log.clear()
    daemon.start()
    assert ask(port) == 200


def test_killed_worker_is_replaced_within_a_second(launch, backend):
    port = free_port()
    daemon = launch(http_config(port, [backend], workers=2))
    other = daemon.workers()[1].pid
    took = []
    for turn in range(5):
        victim = daemon.workers()[0]
        start = time.monotonic()
        victim.kill()
        until(lambda: 0 in (now := daemon.workers()) and now[0].pid != victim.pid, "a successor")
        took.append(time.monotonic() - start)
        until(lambda: ask(port) == 200, "service")
    assert sorted(took)[-2] < 1, took  # a pause of the machine may have met one
    assert daemon.workers()[1].pid == other
    assert daemon.wait_log(r"worker 0: died: signal 9 \(Killed\), respawned")
    daemon.wait_metric("akash_worker_restarts_total", lambda v: v == 5)


def test_no_client_is_lost_to_the_death_of_an_idle_worker(launch, backend):
    """What waits in the dead worker's socket is accepted by its successor or by a survivor."""
    port = free_port()
    daemon = launch(http_config(port, [backend], workers=2))
    dead, other = daemon.workers()[0], daemon.workers()[1]
    for p in (dead, other):
        p.kill(signal.SIGSTOP)
    waiting = [Client(port) for _ in range(20)]
    try:
        for client in waiting:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET")
        dead.kill()
        other.kill(signal.SIGCONT)
        assert {client.response().status for client in waiting} == {200}
    finally:
        for client in waiting:
            client.close()


def test_counters_survive_their_worker(launch, backend):
    port = free_port()
    daemon = launch(http_config(port, [backend]))
    for _ in range(7):
        assert ask(port) == 200
    daemon.wait_metric("akash_requests_total", lambda v: v == 7, code="200")
    victim = daemon.workers()[0]
    victim.kill()
    until(lambda: (now := daemon.workers().get(0)) and now.pid != victim.pid, "a successor")
    assert ask(port) == 200
    daemon.wait_metric("akash_requests_total", lambda v: v == 8, code="200")


def test_connections_of_a_dead_worker_are_subtracted(launch, backend):
    port = free_port()
    daemon = launch(http_config(port, [backend]))
    clients = [Client(port) for _ in range(5)]
    for client in clients:
        assert client.ask().status == 200
    daemon.wait_metric("akash_active_connections", lambda v: v == 5)
    daemon.workers()[0].kill()
    daemon.wait_metric("akash_active_connections", lambda v: v == 0)
    for client in clients:
        client.close()
    with Client(port) as client:
        assert client.ask().status == 200
        daemon.wait_metric("akash_active_connections", lambda v: v == 1)


def test_killed_monitor_is_replaced(launch, backend):
    daemon = launch(http_config(free_port(), [backend]))
    victim = daemon.monitor()
    victim.kill()
    until(lambda: (now := daemon.monitor()) and now.pid != victim.pid, "a successor")
    until(lambda: daemon.get("/livez", (0, ""))[0] == 200, "the metrics port")


def test_children_ignore_the_signals_of_a_terminal(launch, backend):
    port = free_port()
    daemon = launch(http_config(port, [backend]))
    before = {p.pid for p in daemon.children()}
    for p in daemon.children():
        for sig in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
            p.kill(sig)
    assert ask(port) == 200
    assert {p.pid for p in daemon.children()} == before


def test_stuck_worker_is_replaced(launch, backend):
    port = free_port()
    daemon = launch(http_config(port, [backend]))
    victim = daemon.workers()[0]
    victim.kill(signal.SIGSTOP)
    daemon.wait_log("worker 0: stuck", deadline=20)
    until(lambda: not victim.alive, "its end")
    until(lambda: 0 in daemon.workers() and ask(port) == 200, "a successor")


# -- the end

@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_stop_of_an_idle_server_exits_0(launch, backend, sig):
    daemon = launch(http_config(free_port(), [backend], workers=2))
    daemon.stop(sig)


def test_running_exchange_is_finished(launch, scripted):
    port, gate = free_port(), Gate()
    backend = scripted(gate.hold(fixed(b"late")))
    daemon = launch(http_config(port, [backend], drain_timeout="30s"))
    with Client(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET")
        gate.wait_waiting(1)
        daemon.send(signal.SIGTERM)
        daemon.wait_log("stopping")
        until(lambda: refuses(port), "the port to be closed")
        gate.release()
        answer = client.response()
        assert (answer.status, answer.body) == (200, b"late")
        assert answer.closes
    assert daemon.wait_exit() == 0
    assert daemon.wait_log("stopped: 0 streams were cut")


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_drain_timeout_cuts_and_says_so(launch, scripted):
    port, gate = free_port(), Gate()
    backend = scripted(gate.hold())
    daemon = launch(http_config(port, [backend], drain_timeout="1s"))
    with Client(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET")
        gate.wait_waiting(1)
        daemon.send(signal.SIGTERM)
        assert 0.5 < end_of(daemon) < 8
    assert daemon.wait_log("stopped: 1 streams were cut")


def test_second_signal_stops_at_once(launch, scripted):
    port, gate = free_port(), Gate()
    backend = scripted(gate.hold())
    daemon = launch(http_config(port, [backend], drain_timeout="1h"))
    with Client(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET")
        gate.wait_waiting(1)
        daemon.send(signal.SIGTERM)
        daemon.wait_log("stopping")
        daemon.send(signal.SIGTERM)
        assert end_of(daemon) < 8


def test_second_signal_ends_a_worker_that_hangs(launch, backend):
    daemon = launch(http_config(free_port(), [backend], drain_timeout="1h"))
    daemon.workers()[0].kill(signal.SIGSTOP)
    daemon.send(signal.SIGTERM)
    daemon.wait_log("stopping")
    daemon.send(signal.SIGTERM)
    assert end_of(daemon) < 5


def test_lame_duck_is_not_ready_but_accepts(launch, backend):
    port = free_port()
    daemon = launch(http_config(port, [backend], lame_duck="3s"))
    start = time.monotonic()
    daemon.send(signal.SIGTERM)
    daemon.wait_log("stopping")
    until(lambda: daemon.get("/readyz")[0] == 503, "readiness to end")
    assert ask(port) == 200
    assert daemon.wait_exit() == 0 and time.monotonic() - start > 2.9


def test_reload_while_it_stops_is_refused(launch, backend):
    daemon = launch(http_config(free_port(), [backend], lame_duck="20s"))
    daemon.send(signal.SIGTERM)
    daemon.wait_log("stopping")
    done = daemon.reload(expect=1)
    assert "stopping" in done.stderr
    daemon.send(signal.SIGTERM)
    assert daemon.wait_exit() == 0


def test_worker_that_dies_while_it_drains_is_not_replaced(launch, scripted):
    port, gate = free_port(), Gate()
    backend = scripted(gate.hold())
    daemon = launch(http_config(port, [backend], drain_timeout="1h"))
    with Client(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET")
        gate.wait_waiting(1)
        victim = daemon.workers()[0]
        daemon.send(signal.SIGTERM)
        daemon.wait_log("stopping")
        victim.kill()
        assert end_of(daemon) < 5


# -- log files

def test_log_file_is_written_and_reopened(launch, backend):
    daemon = launch("{}", start=False)
    log, access = daemon.folder / "error.log", daemon.folder / "access.log"
    port = free_port()
    daemon.write(http_config(port, [backend], workers=2, log={"target": str(log)},
                             access_log={"target": str(access)}))
    daemon.start()
    assert ask(port) == 200
    until(lambda: log.read_text().count("ready") == 1 and access.read_text().count("\n") == 1, "lines")
    log.rename(daemon.folder / "error.1")
    access.rename(daemon.folder / "access.1")
    daemon.send(signal.SIGUSR1)
    until(log.exists, "a new log file")
    until(access.exists, "a new access log file")
    until(lambda: "reopened" in log.read_text(), "a line in the new file")

    def lines():
        assert ask(port) == 200
        return access.read_text().count("\n") > 0
    until(lines, "lines in the new access log")
    old = (daemon.folder / "access.1").read_text()
    daemon.workers()[0].kill()
    until(lambda: "died" in log.read_text(), "a later line in the new file")
    for _ in range(8):
        until(lambda: ask(port) == 200, "service")
    assert (daemon.folder / "access.1").read_text() == old
    assert log.stat().st_mode & 0o777 == 0o640


def test_log_target_changes_with_a_reload(launch, backend):
    daemon = launch("{}", start=False)
    one, two = daemon.folder / "one.log", daemon.folder / "two.log"
    port = free_port()
    daemon.write(http_config(port, [backend], log={"target": str(one)}))
    daemon.start()
    daemon.reload(http_config(port, [backend], log={"target": str(two), "format": "json"}))
    until(lambda: re.search(r'\{.*reload: done.*\}', two.read_text()), "a line in the new file")


def test_log_file_that_cannot_be_opened_refuses_the_reload(launch, backend):
    port = free_port()
    daemon = launch(http_config(port, [backend]))
    done = daemon.reload(http_config(port, [backend], log={"target": "/nonexistent/akashd.log"}), expect=1)
    assert "/nonexistent/akashd.log" in done.stderr
    assert ask(port) == 200


def test_descriptors_of_the_master_stay_flat_over_reloads(launch, backend):
    port = free_port()
    daemon = launch(http_config(port, [backend], workers=2))
    master = Process(daemon.pid)
    daemon.reload()
    before = master.fds()
    for count in (3, 1, 4, 2) * 3:
        daemon.reload(http_config(port, [backend], workers=count))
    until(lambda: master.fds() <= before + 4, f"at most {before + 4} descriptors")
