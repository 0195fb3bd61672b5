# SPDX-License-Identifier: Apache-2.0
"""Crashes: of a worker, the monitor, the master, a backend. What breaks is what was on that process."""

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from harness import (Client, CounterWatch, Echo, Farm, Gate, Load, Streams, free_port, http_config,
                     tcp_config, until)
from harness.akashd import is_sanitized
from harness.backend import fixed
from harness.traffic import backlog, clients_of, listens, stopwatch, wait_serving


@pytest.fixture(scope="module")
def farm():
    made = Farm(3)
    yield made
    made.close()


def stat(pid):
    """The fields of /proc/PID/stat after the name: state, parent and so on; [] when it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid):
    """The children of a process, by id."""
    return [int(p.name) for p in Path("/proc").iterdir()
            if p.name.isdigit() and stat(p.name)[1:2] == [str(pid)]]


def freeze(process):
    """Stop it, so that what it holds can be looked at."""
    process.kill(signal.SIGSTOP)
    until(lambda: stat(process.pid)[:1] == ["T"], "the stop")


def successor(akashd, index, former, port, deadline=10):
    """Wait until another process with this index holds a listening socket of port."""
    def there():
        worker = akashd.workers().get(index)
        return worker if worker and worker.pid != former.pid and listens(worker.pid, port) else None
    return until(there, f"the successor of {former}", deadline)


# -- a worker

@pytest.mark.timeout(180)
def test_twenty_killed_workers_break_their_own_connections_and_nothing_else(launch, farm):
    """Each is stopped first, so that it is known which connections are its own; then killed."""
    port, count = free_port(), 4
    akashd = launch(http_config(port, farm.addresses, workers=count))
    wait_serving(akashd, count)
    # Not more than two cores carry: how soon a successor serves is measured here, too.
    load = Load(port, keepalive=24, fresh=12, check=farm.check, pause=0.01)
    second = Load(port, keepalive=8, check=farm.check, pause=0.02, http2=True)
    load.wait_total(200)
    account, kills, replaced = load.account, [], []
    with CounterWatch(akashd):
        for turn in range(20):
            victim = akashd.workers()[turn % count]
            freeze(victim)
            kills.append((time.monotonic() - load.began, clients_of(victim.pid, port)))
            since = stopwatch()
            victim.kill()
            successor(akashd, turn % count, victim, port)
            replaced.append(since())
            # Its requests go on, over the successor too, and it has lived for long enough to be a good one.
            load.wait_total(account.total + 100)
            until(lambda: since() > 0.4, "the next turn")
        load.stop()
        second.stop()
    waits = [int(m.group(1) or 0) for m in
             (re.search(r"died: signal 9 .*, respawned(?: in (\d+) ms)?$", line) for line in akashd.log) if m]
    assert len(waits) == 20 and max(waits) <= 500, waits
    # Beside other tests some wait for a processor, as do the looks at them.
    assert is_sanitized() or sorted(replaced)[10] < 1 and max(replaced) < 5, f"successors took {replaced}"
    doomed = [(when, local) for when, ports in kills for local in ports]
    for failure in [*account.failures, *second.account.failures]:
        mine = [when for when, local in doomed if local == failure.local]
        assert mine and min(abs(failure.when - when) for when in mine) < 5, f"not on a killed worker: {failure}"
    assert len(account.failures) + len(second.account.failures) <= len(doomed)
    assert account.ok > 2000 and second.account.ok > 200
    akashd.wait_metric("akash_worker_restarts_total", lambda v: v == 20)
    idle = [Client(port) for _ in range(7)]
    assert all(c.ask().status == 200 for c in idle)
    for name in ("akash_active_connections", "akash_listener_connections"):
        akashd.wait_metric(name, lambda v: v == 7, 5)
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0, 5)
    assert akashd.metrics().value("akash_workers") == count
    # What the clients have seen is in the counters: a completed answer is counted before it has been read.
    assert akashd.metrics().value("akash_requests_total") >= account.ok
    for client in idle:
        client.close()


def test_clients_in_the_queue_of_a_killed_worker_are_served_by_its_successor(launch, farm):
    port = free_port()
    akashd = launch(http_config(port, farm.addresses))
    victim = akashd.workers()[0]
    victim.kill(signal.SIGSTOP)
    clients = [Client(port) for _ in range(50)]
    for client in clients:
        client.request()
    backlog(port, 50)
    victim.kill()
    assert [c.response().status for c in clients] == [200] * 50
    for client in clients:
        client.close()


def test_slots_of_a_killed_workers_clients_are_free_again(launch, farm):
    """max_connections counts the living: the dead worker's clients make room."""
    port = free_port()
    akashd = launch(http_config(port, farm.addresses, workers=2, max_connections=10))
    held = [Client(port) for _ in range(10)]
    assert all(c.ask().status == 200 for c in held)
    for victim in akashd.workers().values():
        victim.kill()
    for client in held:
        client.close()
    wait_serving(akashd, 2)
    others = [Client(port) for _ in range(10)]
    assert [c.ask().status for c in others] == [200] * 10
    akashd.wait_metric("akash_active_connections", lambda v: v == 10, 5)
    for client in others:
        client.close()


def test_backends_slots_of_a_killed_worker_are_free_again(launch, scripted):
    gate, backend, port = Gate(), scripted(), free_port()
    backend.always(gate.hold())
    akashd = launch(http_config(port, [{"address": backend.address, "max_connections": 2}],
                                {"algorithm": "least_conn"}))
    held = [Client(port) for _ in range(2)]
    for client in held:
        client.request()
    gate.wait_waiting(2)
    victim = akashd.workers()[0]
    victim.kill()
    successor(akashd, 0, victim, port)
    gate.release()
    pair = [Client(port) for _ in range(2)]
    assert [c.ask().status for c in pair] == [200] * 2
    for client in [*held, *pair]:
        client.close()


def test_worker_that_dies_again_and_again_is_waited_for_and_served_around(launch, farm):
    """Its neighbour serves meanwhile, the clients of its socket included."""
    port = free_port()
    akashd = launch(http_config(port, farm.addresses, workers=2))
    wait_serving(akashd, 2)
    load = Load(port, fresh=8, check=farm.check)
    ports, before = set(), len(akashd.log)
    for _ in range(6):
        victim = until(lambda: (w := akashd.workers().get(0)) and listens(w.pid, port) and w, "worker 0")
        freeze(victim)
        ports |= clients_of(victim.pid, port)
        victim.kill()
        until(lambda: not victim.alive, "its end")
    load.wait_total(load.account.total + 100)
    account = load.stop()
    assert {f.local for f in account.failures} <= ports, account.reasons
    akashd.wait_log(r"worker 0: died: .*respawned in \d+ ms", since=before)
    wait_serving(akashd, 2)


def test_tunnels_of_the_other_worker_live_on(launch):
    echo = Echo()
    port = free_port()
    akashd = launch(tcp_config(port, [echo.address], workers=2))
    streams = Streams(port, 40)
    victim = akashd.workers()[0]
    freeze(victim)
    doomed = clients_of(victim.pid, port)
    assert 0 < len(doomed) < 40
    victim.kill()
    lost = [s for s in streams.socks if s.getsockname()[1] in doomed]
    for sock in lost:
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass
        sock.close()
    streams.socks = [s for s in streams.socks if s not in lost]
    streams.check()
    until(lambda: echo.open == len(streams.socks), "the end of the lost ones at the backend")
    akashd.wait_metric("akash_active_connections", lambda v: v == len(streams.socks), 5)
    streams.close()
    echo.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_stuck_worker_is_replaced_and_its_queue_served(launch, farm):
    port = free_port()
    akashd = launch(http_config(port, farm.addresses, workers=2))
    wait_serving(akashd, 2)
    victim, other = akashd.workers()[0], akashd.workers()[1]
    since = stopwatch()
    victim.kill(signal.SIGSTOP)
    clients = [Client(port) for _ in range(20)]
    for client in clients:
        client.request()
    akashd.wait_log("worker 0: stuck: no sign of life for 10 s", 20)
    assert 9 < since() < 16
    fresh = successor(akashd, 0, victim, port)
    assert since() < 25 and not victim.alive and other.alive
    assert [c.response().status for c in clients] == [200] * 20
    assert fresh.alive
    for client in clients:
        client.close()


# -- the monitor and the master

def test_killed_monitor_costs_no_request_and_no_count(launch, farm):
    port = free_port()
    akashd = launch(http_config(port, farm.addresses, {"health_check": {"type": "http", "path": "/",
                                                                      "interval": "200ms"}}, workers=2))
    pids, took = {p.pid for p in akashd.workers().values()}, []
    with (CounterWatch(akashd), Load(port, keepalive=8, fresh=4, check=farm.check) as load,
          Load(port, keepalive=4, fresh=2, check=farm.check, http2=True) as second):
        for _ in range(4):
            load.wait_total(load.account.total + 100)
            second.wait_total(second.account.total + 20)
            former = akashd.monitor()
            since = stopwatch()
            former.kill()
            until(lambda: (m := akashd.monitor()) and m.pid != former.pid, "the next monitor", 5)
            until(lambda: akashd.get("/readyz", missing=(0, ""))[0] == 200, "its pages", 5)
            took.append(since())
        load.stop()
    assert sorted(took)[-2] < 2, took  # a pause of the machine may have met one
    load.account.assert_all_ok(400)
    second.account.assert_all_ok(80)
    assert {p.pid for p in akashd.workers().values()} == pids
    assert akashd.metrics().value("akash_worker_restarts_total") == 0


def test_killed_master_leaves_no_child_and_no_port(farm, launch):
    """Under load; a new akashd starts at once on the same ports and the same control socket."""
    port = free_port()
    akashd = launch(http_config(port, farm.addresses, workers=3))
    family = akashd.children()
    assert len(family) == 4
    with Load(port, keepalive=8, fresh=8, check=farm.check) as load:
        load.wait_total(100)
        akashd.process.kill()
        since = stopwatch()
        until(lambda: not [p for p in family if p.alive], "the children's end", 5)
        assert since() < 5
    assert akashd.wait_exit() == -signal.SIGKILL
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    akashd.start()
    with Client(port) as client:
        assert client.ask().status == 200


# -- a backend

RISE, FALL, INTERVAL, JITTER, TIMEOUT = 2, 3, 0.2, 0.1, 0.2
BOUND = FALL * (INTERVAL * (1 + JITTER) + TIMEOUT)
SLACK = 3.0  # a busy machine, and a pause of it


def test_killed_backend_costs_what_was_on_its_wire_and_comes_back(launch, scripted):
    backends = [scripted(fixed(b"b%d" % i)) for i in range(3)]
    port = free_port()
    check = {"health_check": {"type": "http", "path": "/health", "interval": "200ms", "timeout": "200ms",
                              "rise": RISE, "fall": FALL}}
    akashd = launch(http_config(port, backends, check, workers=2))
    for b in backends:
        akashd.wait_log(rf"backend site/{b.address} unknown -> up")
    victim, clients = backends[1], 16
    load = Load(port, keepalive=clients, tag=lambda head, body: body)
    load.wait_total(300)
    assert set(load.account.tags) == {b"b0", b"b1", b"b2"}
    before, since = len(akashd.log), stopwatch()
    victim.refuse()
    wire = sum(c.open for c in victim.connections)
    victim.kill()
    killed = time.monotonic() - load.began
    akashd.wait_log(rf"backend site/{victim.address} up -> down", BOUND + SLACK, since=before)
    assert since() < BOUND + SLACK
    load.wait_total(load.account.total + 300)
    failures = list(load.account.failures)
    assert len(failures) <= min(wire, clients), load.account.reasons
    assert all(f.began <= killed for f in failures), f"asked after the kill at {killed}: {failures[-1]}"
    assert len({f.client for f in failures}) == len(failures), "one client failed twice"
    served = load.account.tags[b"b1"]
    load.wait_total(load.account.total + 100)
    assert load.account.tags[b"b1"] == served, "the dead backend answered"
    victim.accept_again()
    since = stopwatch()
    akashd.wait_log(rf"backend site/{victim.address} down -> up: {RISE} successes", since=before)
    assert since() < RISE * (INTERVAL * (1 + JITTER) + TIMEOUT) + SLACK
    until(lambda: load.account.tags[b"b1"] > served, "traffic for the backend that is back")
    load.wait_total(load.account.total + 100)
    load.stop()
    assert load.account.failures == failures, "failures after it was back"


def test_killed_backend_process_costs_what_was_on_its_wire(launch, farm):
    """A real server, killed: no orderly end of any connection."""
    extra, port = Farm(1), free_port()
    akashd = launch(http_config(port, [*farm.addresses[1:], *extra.addresses], {
        "health_check": {"type": "tcp", "interval": "200ms", "timeout": "200ms"}}, workers=2))
    akashd.wait_log(rf"backend site/{extra.addresses[0]} unknown -> up")
    family = [extra.nginx.process.pid, *descendants(extra.nginx.process.pid)]
    clients = 24
    with Load(port, keepalive=clients) as load:
        load.wait_total(300)
        before = len(akashd.log)
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        # Its sockets are closed when it is a zombie, not when the signal has been sent.
        until(lambda: all(stat(pid)[:1] in ([], ["Z"]) for pid in family), "the backend's end")
        killed = time.monotonic() - load.began
        akashd.wait_log(rf"backend site/{extra.addresses[0]} up -> down", BOUND + SLACK, since=before)
        load.wait_total(load.account.total + 300)
    account = load.account
    assert len(account.failures) <= clients
    assert all(f.began <= killed for f in account.failures), account.reasons
    assert len({f.client for f in account.failures}) == len(account.failures)
    extra.close()

