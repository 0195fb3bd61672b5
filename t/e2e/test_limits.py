# SPDX-License-Identifier: Apache-2.0
"""What is too much is refused exactly, told politely where it can be, and costs nobody else anything."""

import os
import re
import resource
import select
import socket
import threading
import time
from collections import Counter

import pytest

from harness import Client, Gate, Load, Reset, free_port, http_config, tcp_config, until
from harness.akashd import is_sanitized
from harness.backend import fixed, tcp_echo
from harness.client import build
from harness.fronts import FRONTS
from harness.wire import Ended

TLS = next(front for front in FRONTS if front.scheme == "https")


@pytest.fixture
def held(scripted):
    """A backend whose answers wait at .gate."""
    backend = scripted()
    backend.gate = Gate()
    backend.always(backend.gate.hold())
    return backend


def ask_all(port, count):
    clients = [Client(port) for _ in range(count)]
    for client in clients:
        client.request()
    return clients


def is_over(client):
    """Whether akashd has ended this connection."""
    client.sock.setblocking(False)
    try:
        return client.sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


# -- max_connections


@pytest.mark.parametrize("where", ["top", "listener"])
def test_max_connections_is_exact_over_four_workers(launch, held, where):
    port = free_port()
    limit = {"max_connections": 40}
    akashd = launch(http_config(port, [held], listener=limit if where == "listener" else None, workers=4,
                                **(limit if where == "top" else {})))
    clients = ask_all(port, 70)
    held.gate.wait_waiting(40)
    akashd.wait_metric("akash_failures_total", lambda v: v == 30, reason="over_limit")
    assert akashd.metrics().value("akash_listener_connections", listener="web") == 40
    assert held.gate.peak == 40
    for round_ in range(2):  # places that become free are given again, no more and no fewer
        served = []
        held.gate.release(8)
        until(lambda: len([c for c in clients if readable(c)]) >= 38, "answers")
        for client in [c for c in clients if readable(c)]:
            client.asked = ["GET"]
            served.append(client.response().status)
            client.close()
            clients.remove(client)
        assert Counter(served)[200] == 8
        akashd.wait_metric("akash_active_connections", lambda v: v == 32)
        clients += ask_all(port, 38)
        held.gate.wait_waiting(40)
        akashd.wait_metric("akash_failures_total", lambda v, n=round_: v == 30 * (n + 2), reason="over_limit")
    assert held.gate.peak == 40
    held.gate.release()
    assert Counter(c.response("GET").status for c in clients) == {200: 40, 503: 30}
    for client in clients:
        client.close()


def readable(client):
    return bool(select.select([client.sock], [], [], 0)[0])


def test_listeners_own_limit_leaves_others_alone(launch, scripted, held):
    free = scripted()
    one, two = free_port(), free_port()
    launch({"listeners": [
        {"name": "small", "address": f"127.0.0.1:{one}", "upstream": "held", "max_connections": 2},
        {"name": "big", "address": f"127.0.0.1:{two}", "upstream": "free"}],
        "upstreams": {"held": {"backends": [{"address": held.address}], "health_check": False},
                      "free": {"backends": [{"address": free.address}], "health_check": False}}})
    busy = ask_all(one, 2)
    held.gate.wait_waiting(2)
    with Client(one) as client:
        assert client.ask().status == 503
    with Client(two) as client:
        assert client.ask().status == 200
    held.gate.release()
    for client in busy:
        assert client.response().status == 200
        client.close()


def test_the_limit_of_all_holds_over_several_listeners(launch, held):
    ports = free_port(), free_port()
    launch({"max_connections": 3, "workers": 2,
            "listeners": [{"name": f"l{p}", "address": f"127.0.0.1:{p}", "upstream": "site"} for p in ports],
            "upstreams": {"site": {"backends": [{"address": held.address}], "health_check": False}}})
    busy = ask_all(ports[0], 2) + ask_all(ports[1], 1)
    held.gate.wait_waiting(3)
    for port in ports:
        with Client(port) as client:
            assert client.ask().status == 503
    held.gate.release()
    for client in busy:
        assert client.response().status == 200
        client.close()


def test_the_longest_idle_client_makes_room(launch, scripted):
    port = free_port()
    launch(http_config(port, [scripted()], max_connections=3))
    clients = [Client(port) for _ in range(3)]
    for client in clients:
        assert client.ask().status == 200
    assert clients[0].ask().status == 200  # the second is the longest idle now
    for gone, _ in ((clients[1], 1), (clients[2], 2), (clients[0], 3)):
        fresh = Client(port)
        assert fresh.ask().status == 200
        assert gone.ended() == "fin"
        clients.append(fresh)
    for client in clients:
        client.close()


def test_a_busy_client_never_makes_room(launch, held):
    port = free_port()
    launch(http_config(port, [held], max_connections=2))
    idle = Client(port)
    held.answer(fixed(b"first"))
    assert idle.ask().body == b"first"
    busy = ask_all(port, 1)[0]
    held.gate.wait_waiting(1)
    second = ask_all(port, 1)[0]
    assert idle.ended() == "fin"
    held.gate.wait_waiting(2)
    with Client(port) as third:
        assert third.ask().status == 503
    held.gate.release()
    assert [busy.response().status, second.response().status] == [200, 200]
    for client in (idle, busy, second):
        client.close()


def test_over_workers_a_client_is_served_or_refused_and_never_too_many(launch, scripted):
    port, backend = free_port(), scripted()
    akashd = launch(http_config(port, [backend], workers=4, max_connections=20))
    clients, statuses = [], Counter()
    for _ in range(100):
        client = Client(port)
        statuses[client.ask().status] += 1
        clients.append(client)
        open_now = [c for c in clients if not is_over(c)]
        assert len(open_now) <= 20 + statuses[503]
    assert set(statuses) <= {200, 503} and statuses[200] >= 20
    akashd.wait_metric("akash_active_connections", lambda v: v <= 20)
    until(lambda: len([c for c in clients if not is_over(c)]) <= 20, "those over the limit to be ended")
    for client in clients:
        client.close()
    akashd.wait_metric("akash_active_connections", lambda v: v == 0)


def test_tcp_client_over_the_limit_is_closed_without_a_word(launch, scripted):
    port, backend = free_port(), scripted(on_connect=tcp_echo)
    akashd = launch(tcp_config(port, [backend], workers=2, max_connections=5))
    tunnels = [Client(port) for _ in range(5)]
    for tunnel in tunnels:
        tunnel.send(b"hi")
        assert tunnel.take(2) == b"hi"
    for _ in range(10):
        assert_closed_without_a_byte(port)
    akashd.wait_metric("akash_failures_total", lambda v: v == 10, reason="over_limit")
    assert len(backend.connections) == 5
    for tunnel in tunnels:
        tunnel.send(b"still")
        assert tunnel.take(5) == b"still"
    tunnels.pop().close()
    akashd.wait_metric("akash_active_connections", lambda v: v == 4)
    with Client(port) as client:
        client.send(b"room")
        assert client.take(4) == b"room"
    for tunnel in tunnels:
        tunnel.close()


def assert_closed_without_a_byte(port):
    try:
        with Client(port) as client:
            client.ended()
            assert not client.received
    except ConnectionResetError:
        pass


def test_tls_client_over_the_limit_is_closed_without_a_handshake(launch, held):
    port = free_port()
    akashd = launch(http_config(port, [held], listener=TLS.listener(), max_connections=1))
    busy = TLS.connect(port)
    busy.request()
    held.gate.wait_waiting(1)
    for _ in range(3):
        assert_closed_without_a_byte(port)
    akashd.wait_metric("akash_failures_total", lambda v: v == 3, reason="over_limit")
    metrics = akashd.metrics()
    assert metrics.value("akash_tls_handshakes_total") == 1
    assert not metrics.value("akash_failures_total", reason="handshake_failed")
    held.gate.release()
    assert busy.response().status == 200
    busy.close()


def test_refused_clients_that_linger_are_few(launch, held):
    """Refused clients that neither send nor leave: at most 64 are lingered for, the rest is closed at once."""
    port = free_port()
    akashd = launch(http_config(port, [held], max_connections=1))
    busy = ask_all(port, 1)
    held.gate.wait_waiting(1)
    base = akashd.workers()[0].fds()
    crowd = [Client(port) for _ in range(200)]
    akashd.wait_metric("akash_failures_total", lambda v: v == 200, reason="over_limit")
    assert akashd.workers()[0].fds() - base <= 64
    assert akashd.metrics().value("akash_active_connections") == 1
    until(lambda: akashd.workers()[0].fds() <= base, "those that linger to be let go")
    held.gate.release()
    assert busy[0].response().status == 200
    for client in crowd + busy:
        client.close()


# -- max_connections of a backend


def test_backends_max_connections_is_exact_over_four_workers(launch, scripted, held):
    port = free_port()
    akashd = launch(http_config(port, [{"address": held.address, "max_connections": 10}], workers=4))
    clients = ask_all(port, 30)
    held.gate.wait_waiting(10)
    akashd.wait_metric("akash_failures_total", lambda v: v == 20, reason="over_limit")
    assert len([c for c in held.connections if c.open]) == 10
    held.gate.release()
    got = [c.response() for c in clients]
    assert Counter(a.status for a in got) == {200: 10, 503: 20}
    assert all("Retry-After" in a.fields and "over_limit" in a.text for a in got if a.status == 503)
    assert held.gate.peak == 10
    for client in clients:
        client.close()


def test_a_full_backend_is_passed_over(launch, scripted, held):
    other, port = scripted(), free_port()
    launch(http_config(port, [{"address": held.address, "max_connections": 3}, other], workers=2))
    clients = ask_all(port, 20)
    other.wait_requests(17)
    held.gate.wait_waiting(3)
    held.gate.release()
    assert [c.response().status for c in clients] == [200] * 20
    assert (held.gate.peak, len(held.requests), len(other.requests)) == (3, 3, 17)
    for client in clients:
        client.close()


def test_idle_connection_that_may_not_be_used_makes_room(launch, scripted):
    """What cannot be repeated is not risked on an old connection; at the limit, that one gives way."""
    backend, port = scripted(), free_port()
    akashd = launch(http_config(port, [{"address": backend.address, "max_connections": 1}]))
    with Client(port) as client:
        assert client.ask().status == 200
        idle_since = time.monotonic()
        until(lambda: time.monotonic() - idle_since > 1.2, "the end of its youth", 5)
        assert client.ask("POST", body=b"order").status == 200
    assert akashd.metrics().value("akash_backend_failures_total") == 0


def test_backends_limit_holds_for_tunnels_and_is_given_back(launch, scripted):
    port, backend = free_port(), scripted(on_connect=tcp_echo)
    akashd = launch(tcp_config(port, [{"address": backend.address, "max_connections": 4}], workers=3))
    for _ in range(3):
        tunnels = [Client(port) for _ in range(4)]
        for tunnel in tunnels:
            tunnel.send(b"in")
            assert tunnel.take(2) == b"in"
        for _ in range(3):
            assert_closed_without_a_byte(port)
        for tunnel in tunnels:
            tunnel.close()
        akashd.wait_metric("akash_backend_open_connections", lambda v: v == 0)
        akashd.wait_metric("akash_active_connections", lambda v: v == 0)
    assert len(backend.connections) == 12


def test_idle_connections_do_not_use_up_a_cap_of_all_workers(launch, scripted):
    """One connection is allowed and four workers share it: a pooled one would shut the others out."""
    port = free_port()
    backend = {"address": scripted().address, "max_connections": 1}
    launch({
        "workers": 4,
        "listeners": [{"name": "web", "address": f"127.0.0.1:{port}", "upstream": "site"}],
        "upstreams": {"site": {"backends": [backend], "health_check": False}},
    })
    for _ in range(40):
        with Client(port) as client:
            assert client.ask().status == 200


# -- out of file descriptors


def descriptors(process):
    return sorted(int(name) for name in os.listdir(f"/proc/{process.pid}/fd"))


def leave_room_for(process, count):
    """Lower the process's limit so that it can open so many more descriptors, as a crowd would."""
    taken, limit = descriptors(process), 0
    free = 0
    while free < count:
        free += limit not in taken
        limit += 1
    assert limit > max(taken) or count < 64, "descriptors are scattered"
    hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (max(limit, 1), hard))
    return hard


def as_ourselves():
    """Another user's limits may not be touched, not even by root without CAP_SYS_RESOURCE."""
    return {"user": "root", "group": "root"} if os.geteuid() == 0 else {}


def cpu_seconds(process):
    with open(f"/proc/{process.pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def starved(launch, scripted):
    """One worker with a warm connection to its backend and room for three more descriptors."""
    class Starved:
        def __init__(self):
            self.backend, self.port = scripted(), free_port()
            self.akashd = launch(http_config(self.port, [self.backend], **as_ourselves()))
            self.worker = self.akashd.workers()[0]
            self.first = Client(self.port)
            assert self.first.ask().status == 200
            self.hard = leave_room_for(self.worker, 3)
            self.inside = [Client(self.port) for _ in range(3)]
            self.outside = []
            for client in self.inside:
                assert client.ask().status == 200

        def crowd(self, count=20):
            self.outside += ask_all(self.port, count)
            self.akashd.wait_metric("akash_accept_pauses_total", lambda v: v >= 1)

        def close(self):
            for client in [self.first, *self.inside, *self.outside]:
                client.close()
    made = Starved()
    yield made
    made.close()


def test_out_of_descriptors_those_inside_are_served_on(starved):
    starved.crowd()
    for _ in range(50):
        for client in [starved.first, *starved.inside]:
            assert client.ask().status == 200
    assert not any(readable(c) for c in starved.outside), "one more was accepted than there is room for"


def test_out_of_descriptors_who_waits_is_served_when_one_leaves(starved):
    starved.crowd(4)
    waiting, took = list(starved.outside), []
    starved.inside[0].close()
    for _ in range(4):
        began = time.monotonic()
        until(lambda: any(readable(c) for c in waiting), "one who waited to be answered")
        took.append(time.monotonic() - began)
        served = next(c for c in waiting if readable(c))
        assert served.response().status == 200
        waiting.remove(served)
        served.close()
    assert sorted(took)[-2] < 2, took  # a pause of the machine may have met one


def test_out_of_descriptors_accepting_resumes_when_the_limit_is_lifted(starved):
    """Nothing of akashd's own was closed: only looking again finds out."""
    starved.crowd()
    resource.prlimit(starved.worker.pid, resource.RLIMIT_NOFILE, (starved.hard, starved.hard))
    assert [c.response().status for c in starved.outside] == [200] * 20


def test_out_of_descriptors_is_said_once_a_minute(starved):
    starved.crowd()
    before = starved.akashd.metrics().value("akash_accept_pauses_total")
    starved.akashd.wait_metric("akash_accept_pauses_total", lambda v: v >= before + 10)
    lines = [line for line in starved.akashd.log if re.search("out of file descriptors", line)]
    assert len(lines) == 1, lines


def test_out_of_descriptors_burns_no_cpu(starved):
    starved.crowd()
    before, began = cpu_seconds(starved.worker), time.monotonic()
    pauses = starved.akashd.metrics().value("akash_accept_pauses_total")
    starved.akashd.wait_metric("akash_accept_pauses_total", lambda v: v >= pauses + 15)
    share = (cpu_seconds(starved.worker) - before) / (time.monotonic() - began)
    assert share < 0.2, f"{share:.0%} of a processor while nothing can be accepted"


def test_out_of_descriptors_other_workers_go_on(launch, scripted):
    backend, port = scripted(), free_port()
    akashd = launch(http_config(port, [backend], workers=2, **as_ourselves()))
    with Client(port) as client:
        assert client.ask().status == 200
    starved = akashd.workers()[0]
    hard = leave_room_for(starved, 0)
    clients = ask_all(port, 40)
    akashd.wait_metric("akash_accept_pauses_total", lambda v: v >= 1)
    until(lambda: sum(readable(c) for c in clients) >= 5, "clients of the other worker to be served")
    served = [c for c in clients if readable(c)]
    assert all(c.response().status == 200 for c in served)
    resource.prlimit(starved.pid, resource.RLIMIT_NOFILE, (hard, hard))
    assert all(c.response().status == 200 for c in clients if c not in served)
    for client in clients:
        client.close()


def test_without_a_descriptor_for_the_backend_one_request_fails_and_no_more(launch, scripted):
    backend, port = scripted(), free_port()
    akashd = launch(http_config(port, [backend], **as_ourselves()))
    with Client(port) as client, Client(port) as other:
        assert client.ask("POST", body=b"x").status == 200
        gate = Gate()
        backend.answer(gate.hold())
        client.request()
        gate.wait_waiting(1)
        worker = akashd.workers()[0]
        hard = leave_room_for(worker, 0)
        answer = other.ask()
        assert 500 <= answer.status <= 503
        gate.release()
        assert client.response().status == 200
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert other.ask().status == 200


@pytest.mark.parametrize("limit", [200, 201])
def test_started_with_few_descriptors_tunnels_run_on_and_others_get_their_turn(launch, scripted, limit):
    """More clients than descriptors for them and their backends, from the first moment on."""
    backend, port = scripted(on_connect=tcp_echo), free_port()
    akashd = launch(tcp_config(port, [backend]), prefix=["prlimit", f"--nofile={limit}:{limit}"])
    try:
        tunnels, waiting = [], [Client(port) for _ in range(90)]
    except ConnectionResetError:
        pytest.fail("a client was let in and then turned away")
    for client in waiting:
        assert client.try_send(b"hello")
    while waiting:
        until(lambda: any(readable(c) for c in waiting), f"one of {len(waiting)} to get its turn", 5)
        for client in [c for c in waiting if readable(c)]:
            assert client.take(5) == b"hello"
            waiting.remove(client)
            tunnels.append(client)
        for client in tunnels[1:]:
            client.send(b"again")
            assert client.take(5) == b"again"
            client.close()
        tunnels = tunnels[:1]
    tunnels[0].send(b"still here")
    assert tunnels[0].take(10) == b"still here"
    tunnels[0].close()
    akashd.wait_metric("akash_active_connections", lambda v: v == 0)
    assert not akashd.metrics().value("akash_failures_total")


# -- one connection


@pytest.mark.parametrize("front", FRONTS, ids=lambda f: f.name)
def test_requests_per_connection(make_site, front):
    site = make_site(front, listener={"limits": {"requests_per_connection": 3}})
    client = site.client()
    answers = [client.ask() for _ in range(3)]
    assert [a.closes for a in answers] == [False, False, True]
    assert client.ended() == "fin"


def test_requests_per_connection_of_pipelined_ones(make_site):
    site = make_site(listener={"limits": {"requests_per_connection": 3}})
    client = site.client()
    client.send(build("GET", "/p") * 10)
    assert [client.response("GET").closes for _ in range(3)] == [False, False, True]
    assert client.ended() == "fin"
    site.fence()
    assert len([r for r in site.backend.requests if r.target == "/p"]) == 3


def test_max_age_ends_a_connection_with_the_next_answer(make_any_site):
    site = make_any_site(listener={"limits": {"max_age": "400ms"}})
    born = time.monotonic()
    client = site.client()
    while not client.ask().closes:
        assert time.monotonic() - born < 5, "an old connection lives on"
    assert time.monotonic() - born >= 0.4 - 0.002  # whole milliseconds on the other side
    assert client.ended() == "fin"


def test_body_bytes_of_a_great_body_is_exact(make_any_site):
    """Great bodies take another way through the worker than small ones."""
    size = 3 * 1024 * 1024
    site = make_any_site(listener={"limits": {"body_bytes": size}})
    assert site.client().ask("POST", body=b"x" * size).status == 200
    client = site.client()
    client.send(build("POST", "/", [("Content-Length", size + 1)]), "POST")
    answer = client.response()
    assert answer.status == 413 and answer.closes == (site.front.version == 1)
    assert [len(r.body) for r in site.backend.requests if r.complete] == [size]


def test_body_bytes_of_a_chunked_body_is_exact(make_any_site):
    site = make_any_site(listener={"limits": {"body_bytes": 300000}})
    piece = b"%x\r\n%s\r\n" % (100000, b"y" * 100000)
    head = build("POST", "/", [("Transfer-Encoding", "chunked")])
    client = site.client()
    client.send(head + piece * 3 + b"0\r\n\r\n", "POST")
    assert client.response().status == 200
    client = site.client()
    client.send(head + piece * 3 + b"1\r\nz\r\n0\r\n\r\n", "POST")
    assert client.response().status == 413
    assert [len(r.body) for r in site.backend.requests if r.complete] == [300000]


# -- slow ones


class SlowCrowd:
    """Clients that each send a byte of a head now and then, and never end it."""

    def __init__(self, port, count):
        self.port = port
        self.head = b"GET /slow HTTP/1.1\r\nHost: slow\r\nX-Pad: "
        self.clients = []
        for _ in range(count):
            self.clients.append(Client(port))
            self.clients[-1].send(self.head[:1])  # at once: who says nothing is closed without a word
        self.stopping = threading.Event()
        self.cut = 0
        self.thread = threading.Thread(target=self._drip, daemon=True)
        self.thread.start()

    def _drip(self):
        at = 1
        alive = list(self.clients)
        while alive and not self.stopping.wait(0.1):
            byte = self.head[at:at + 1] or b"a"
            at += 1
            for client in list(alive):
                try:
                    client.sock.send(byte)
                except OSError:
                    alive.remove(client)
                    self.cut += 1

    def close(self):
        self.stopping.set()
        self.thread.join()
        for client in self.clients:
            client.close()


def test_a_crowd_of_500_slow_clients_does_not_disturb_others(launch, scripted):
    backend, port = scripted(), free_port()
    akashd = launch(http_config(port, [backend], listener={"timeouts": {"header": "60s"}}))
    with Client(port) as client:
        assert client.ask().status == 200
    worker = akashd.workers()[0]
    before = worker.kb("VmRSS")
    crowd = SlowCrowd(port, 500)
    akashd.wait_metric("akash_active_connections", lambda v: v == 500)
    account = Load(port, keepalive=8, fresh=2, limit=150).join()
    account.assert_all_ok(1500)
    account.latencies.sort()
    # A pause of the machine meets one request of each of the ten clients.
    assert account.latencies[int(len(account.latencies) * 0.98)] < 1
    assert akashd.metrics().value("akash_active_connections") == 500
    assert not [r for r in backend.requests if r.target == "/slow"]
    assert is_sanitized() or worker.kb("VmRSS") - before < 500 * 16, "a slow client costs more than 16 KB"
    crowd.close()
    akashd.wait_metric("akash_active_connections", lambda v: v == 0)


def test_a_slow_head_is_ended_by_its_deadline_however_steadily_it_drips(launch, scripted):
    port = free_port()
    akashd = launch(http_config(port, [scripted()], listener={"timeouts": {"header": "800ms"}}))
    began = time.monotonic()
    crowd = SlowCrowd(port, 100)
    statuses = Counter()
    for client in crowd.clients:
        try:
            statuses[client.response("GET").status] += 1
        except (Reset, Ended) as why:  # its drip met the closed connection
            statuses[type(why).__name__] += 1
    assert time.monotonic() - began < 8
    assert statuses[408] >= 90, statuses
    akashd.wait_metric("akash_failures_total", lambda v: v == 100, reason="header_timeout")
    crowd.close()
    akashd.wait_metric("akash_active_connections", lambda v: v == 0)


def test_slow_readers_of_answers_cost_bounded_memory(launch, scripted):
    backend, port = scripted(fixed(b"r" * 3000000)), free_port()
    akashd = launch(http_config(port, [backend]))
    with Client(port) as client:
        assert len(client.ask().body) == 3000000
    worker = akashd.workers()[0]
    before = worker.kb("VmRSS")
    readers = [Client(port, rcvbuf=4096, record=False) for _ in range(60)]
    for reader in readers:
        reader.request()
    backend.wait_requests(61)
    with Client(port) as client:
        backend.answer(fixed(b"quick"))
        assert client.ask().body == b"quick"
    assert is_sanitized() or worker.kb("VmRSS") - before < 60 * 160
    assert len(readers[0].response().body) == 3000000
    for reader in readers:
        reader.close()
