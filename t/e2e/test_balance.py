# SPDX-License-Identifier: Apache-2.0
"""Who gets what share: exact over all workers, by weight, by load, by client, and around those that are down."""

import asyncio
import threading
import time
from collections import Counter

import pytest

from harness import Client, Gate, Nginx, backend as answers, curl, free_port, http_config, until

ALGORITHMS = ["round_robin", "w_round_robin", "least_conn", "ip_hash", "random_two", "ewma", "hash"]
QUICK_CHECK = {"type": "tcp", "interval": "100ms", "timeout": "500ms", "rise": 1, "fall": 1}


def weighted(backends, weights):
    return [{"address": b.address, "weight": w} for b, w in zip(backends, weights)]


def served(akashd, backends):
    metrics = akashd.metrics()
    return [int(metrics.value("akash_backend_served_total", backend=b.address) or 0) for b in backends]


# -- exact shares


class Counted:
    """nginx that knows how many requests it was sent."""

    def __init__(self):
        self.nginx = Nginx('location / { return 200 "ok"; } location /count { stub_status; }')
        self.address = self.nginx.address
        self.base = self._requests()

    def _requests(self):
        text = curl(f"http://{self.address}/count").stdout
        return int(text.splitlines()[2].split()[2])

    @property
    def requests(self):
        """Without the requests that ask."""
        return self._requests() - self.base - 1


@pytest.fixture
def counted():
    made = [Counted() for _ in range(3)]
    yield made
    for one in made:
        one.nginx.close()


OK = b"HTTP/1.1 200 OK\r\n"


async def pipelined(port, count, batch=20):
    """count requests over one connection, batch at a time; the number of answers with 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = b"GET /x HTTP/1.1\r\nHost: count\r\n\r\n"
    good = 0
    while count:
        step = min(batch, count)
        writer.write(request * step)
        count -= step
        kept, seen = b"", 0
        while seen < step:
            data = await asyncio.wait_for(reader.read(262144), 20)
            assert data, "the connection ended before its answers"
            kept += data
            seen += kept.count(b"\r\n\r\nok")
            good += kept.count(OK)
            kept = kept[-16:] if not kept.endswith(b"\r\n\r\nok") else b""
    writer.close()
    return good


def requests_over_many_connections(port, total, connections=48):
    """total requests, spread over connections that the workers share."""
    async def run():
        shares = [total // connections + (i < total % connections) for i in range(connections)]
        return sum(await asyncio.gather(*[pipelined(port, n) for n in shares]))
    return asyncio.run(run())


def test_the_counting_client_counts_what_it_sends(scripted):
    backend = scripted()
    assert requests_over_many_connections(backend.port, 1003, 7) == 1003
    assert len(backend.requests) == 1003


def test_100000_requests_over_three_backends_and_four_workers_are_shared_exactly(launch, counted):
    port = free_port()
    akashd = launch(http_config(port, counted, workers=4))
    assert requests_over_many_connections(port, 100000) == 100000
    got = [b.requests for b in counted]
    assert sum(got) == 100000
    assert max(got) - min(got) <= 1, got
    until(lambda: served(akashd, counted) == got, f"the counters to say {got}")
    connections = akashd.metrics().value("akash_connections_total", listener="web")
    assert connections == 48, "the clients did not keep their connections"


@pytest.mark.parametrize("algorithm", ["round_robin", "w_round_robin"])
def test_weights_are_exact_to_one_over_four_workers(launch, counted, algorithm):
    port = free_port()
    launch(http_config(port, weighted(counted, [1, 2, 5]), {"algorithm": algorithm}, workers=4))
    total = 8 * 1500 + 5
    assert requests_over_many_connections(port, total) == total
    for b, weight in zip(counted, [1, 2, 5]):
        assert abs(b.requests - total * weight / 8) <= 1, [b.requests for b in counted]


def test_the_work_was_shared_by_all_workers(launch, scripted):
    """That exactness over workers is worth something, several of them must have accepted."""
    backend, port = scripted(), free_port()
    akashd = launch(http_config(port, [backend], workers=4))
    clients = [Client(port) for _ in range(64)]
    for client in clients:
        assert client.ask().status == 200
    holders = [p for p in akashd.workers().values() if p.fds() > min(q.fds() for q in akashd.workers().values())]
    assert len(holders) >= 2
    for client in clients:
        client.close()


def test_share_of_one_that_is_down_goes_to_the_others_by_weight(launch, scripted):
    backends = [scripted() for _ in range(3)]
    backends[1].refuse()
    port = free_port()
    akashd = launch(http_config(port, weighted(backends, [1, 4, 2]),
                                {"algorithm": "w_round_robin", "health_check": QUICK_CHECK}, workers=2))
    akashd.wait_metric("akash_backend_up", lambda v: v == 0, backend=backends[1].address)
    assert requests_over_many_connections(port, 300, 6) == 300
    assert [len(b.requests) for b in backends] == [100, 0, 200]


def test_a_drained_backend_gets_nothing_new(launch, scripted):
    backends = [scripted() for _ in range(3)]
    entries = weighted(backends, [1, 1, 1])
    entries[0]["state"], entries[1]["state"] = "drain", "maint"
    port = free_port()
    launch(http_config(port, entries, workers=2))
    assert requests_over_many_connections(port, 30, 3) == 30
    assert [len(b.requests) for b in backends] == [0, 0, 30]


# -- how many at once


def ask_all(port, count):
    """count clients that have each sent one request."""
    clients = [Client(port) for _ in range(count)]
    for client in clients:
        client.request()
    return clients


def test_of_150_clients_exactly_100_are_served_at_once(launch, scripted):
    backend, gate, port = scripted(), Gate(), free_port()
    backend.always(gate.hold())
    akashd = launch(http_config(port, [backend], workers=4, max_connections=100))
    clients = ask_all(port, 150)
    gate.wait_waiting(100)
    akashd.wait_metric("akash_failures_total", lambda v: v == 50, reason="over_limit")
    assert akashd.metrics().value("akash_active_connections") == 100
    gate.release()
    got = Counter()
    for client in clients:
        answer = client.response()
        got[answer.status] += 1
        if answer.status == 503:
            assert "Retry-After" in answer.fields and "over_limit" in answer.text
        client.close()
    assert got == {200: 100, 503: 50}
    assert backend.peak == 100 and len(backend.requests) == 100
    akashd.wait_metric("akash_active_connections", lambda v: v == 0)
    with Client(port) as client:
        assert client.ask().status == 200


# -- least_conn


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 5]])
def test_least_conn_fills_by_weight_over_workers(launch, scripted, weights):
    """One after the other, so that every choice is made knowing all that ran before."""
    backends, gate, port = [scripted() for _ in range(3)], Gate(), free_port()
    for backend in backends:
        backend.always(gate.hold())
    launch(http_config(port, weighted(backends, weights), {"algorithm": "least_conn"}, workers=4))
    clients, rounds = [], 5
    for number in range(rounds * sum(weights)):
        clients += ask_all(port, 1)
        gate.wait_waiting(number + 1)
    assert [b.concurrent for b in backends] == [rounds * w for w in weights]
    gate.release()
    for client in clients:
        assert client.response().status == 200
        client.close()


def test_least_conn_avoids_the_one_that_is_busy(launch, scripted):
    slow, quick = scripted(), scripted()
    gate, port = Gate(), free_port()
    slow.always(gate.hold())
    akashd = launch(http_config(port, [slow, quick], {"algorithm": "least_conn"}, workers=4))
    held = []
    while not slow.concurrent:
        held += ask_all(port, 1)
        until(lambda: len(slow.requests) + len(quick.requests) >= len(held), "the request to arrive")
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 1, backend=slow.address)
    before = len(quick.requests)
    for _ in range(20):
        with Client(port) as client:
            assert client.ask().status == 200
    assert (slow.concurrent, len(slow.requests)) == (1, 1)
    assert len(quick.requests) == before + 20
    gate.release()
    for client in held:
        assert client.response().status == 200
        client.close()


def test_least_conn_counts_tunnels_and_comes_back_when_they_end(launch, scripted):
    backends = [scripted(on_connect=answers.tcp_echo) for _ in range(2)]
    port = free_port()
    akashd = launch(http_config(port, backends, {"algorithm": "least_conn"}, {"mode": "tcp"}, workers=3))

    def open_tunnel():
        client = Client(port)
        client.send(b"hello")
        assert client.take(5) == b"hello"
        return client
    tunnels = [open_tunnel() for _ in range(10)]
    counts = [len(b.connections) for b in backends]
    assert counts == [5, 5]
    on_first = [t for t in tunnels if is_on(t, backends[0])]
    for tunnel in on_first:
        tunnel.half_close()
        assert tunnel.ended() == "fin"
        tunnel.close()
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0, backend=backends[0].address)
    fresh = [open_tunnel() for _ in range(5)]
    assert [len(b.connections) for b in backends] == [10, 5]
    for tunnel in tunnels + fresh:
        tunnel.close()


def is_on(tunnel, backend):
    """Which backend a tunnel leads to, told by a mark that goes through it."""
    mark = b"mark %d" % id(tunnel)
    tunnel.send(mark)
    assert tunnel.take(len(mark)) == mark
    return any(mark in c.received for c in backend.connections)


# -- ip_hash


SOURCES = [f"127.0.{n // 200}.{n % 200 + 2}" for n in range(120)]


def homes(port, names, times=1):
    """{source address: name of the backend}; a client that is sent to two is an error."""
    found = {}
    for source in SOURCES:
        got = set()
        for _ in range(times):
            with Client(port, source=source) as client:
                answer = client.ask()
                assert answer.status == 200
                got.add(answer.text)
        assert len(got) == 1, f"{source} was sent to {got}"
        found[source] = got.pop()
    assert set(found.values()) <= set(names)
    return found


def test_ip_hash_moves_only_the_clients_of_a_backend_that_went_away(launch, scripted):
    backends = {name: scripted(answers.fixed(name.encode())) for name in ("a", "b", "c")}
    port = free_port()
    akashd = launch(http_config(port, list(backends.values()),
                                {"algorithm": "ip_hash", "health_check": QUICK_CHECK}, workers=4))
    for backend in backends.values():
        akashd.wait_metric("akash_backend_up", lambda v: v == 1, backend=backend.address)
    first = homes(port, backends, times=3)
    # Ports are part of the hash: 40 each on average, and fewer than 14 in one of thirty million runs.
    assert all(n >= 14 for n in Counter(first.values()).values()) and len(set(first.values())) == 3
    backends["b"].kill()
    akashd.wait_metric("akash_backend_up", lambda v: v == 0, backend=backends["b"].address)
    without = homes(port, ("a", "c"))
    assert {s for s in SOURCES if first[s] != without[s]} == {s for s in SOURCES if first[s] == "b"}
    assert {without[s] for s in SOURCES if first[s] == "b"} == {"a", "c"}
    backends["b"].accept_again()
    akashd.wait_metric("akash_backend_up", lambda v: v == 1, backend=backends["b"].address)
    assert homes(port, backends) == first


def test_ip_hash_follows_weights_and_survives_a_restart(launch, scripted):
    backends = {name: scripted(answers.fixed(name.encode())) for name in ("light", "heavy")}
    port = free_port()
    config = http_config(port, weighted(backends.values(), [1, 4]), {"algorithm": "ip_hash"}, workers=2)
    akashd = launch(config)
    first = homes(port, backends)
    assert 4 <= Counter(first.values())["light"] <= 50  # 24 on average; beyond that in one of thirty million runs
    akashd.stop()
    launch(config)
    assert homes(port, backends) == first


def test_ip_hash_sends_a_client_elsewhere_when_its_backend_is_full(launch, scripted):
    backends = {name: scripted(answers.fixed(name.encode())) for name in ("a", "b")}
    port, gate = free_port(), Gate()
    entries = [{"address": b.address, "max_connections": 1} for b in backends.values()]
    launch(http_config(port, entries, {"algorithm": "ip_hash"}))
    with Client(port) as client:
        home = client.ask().text
    other = "b" if home == "a" else "a"
    backends[home].always(gate.hold(answers.fixed(home.encode())))
    held = ask_all(port, 1)[0]
    gate.wait_waiting(1)
    with Client(port) as client:
        assert client.ask().text == other
    gate.release()
    assert held.response().text == home
    held.close()


# -- none is left


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_when_all_are_down_the_answer_is_503_at_once_and_nothing_loops(launch, scripted, algorithm):
    backends = [scripted() for _ in range(3)]
    for backend in backends:
        backend.refuse()
    port = free_port()
    akashd = launch(http_config(port, weighted(backends, [1, 256, 255]),
                                {"algorithm": algorithm, "health_check": QUICK_CHECK}, workers=2))
    akashd.wait_metric("akash_backend_up", lambda v: v == 0)
    began = time.monotonic()
    with Client(port) as client:
        for _ in range(200):
            answer = client.ask()
            assert answer.status == 503 and "no_backend" in answer.text
            assert "Retry-After" in answer.fields
    assert time.monotonic() - began < 5
    akashd.wait_metric("akash_failures_total", lambda v: v == 200, reason="no_backend")
    backends[2].accept_again()
    akashd.wait_metric("akash_backend_up", lambda v: v == 1, backend=backends[2].address)
    with Client(port) as client:
        assert client.ask().status == 200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_when_none_can_be_connected_the_answer_says_so(launch, scripted, algorithm):
    """Without health checks nobody is known to be down: each is tried once, then one of them again."""
    backends = [scripted() for _ in range(2)]
    for backend in backends:
        backend.refuse()
    port = free_port()
    akashd = launch(http_config(port, backends, {"algorithm": algorithm}, workers=2))
    with Client(port) as client:
        answer = client.ask()
        assert answer.status == 502 and "connect_refused" in answer.text
    akashd.wait_metric("akash_backend_failures_total", lambda v: v == 3)
    for backend in backends:
        assert akashd.metrics().value("akash_backend_failures_total", backend=backend.address) >= 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_refused_connect_is_made_good_by_another_backend(launch, scripted, algorithm):
    dead, live = scripted(), scripted()
    dead.refuse()
    port = free_port()
    launch(http_config(port, [dead, live], {"algorithm": algorithm}, workers=2))
    for _ in range(10):
        with Client(port) as client:
            assert client.ask("POST", body=b"once").status == 200
    assert [r.body for r in live.requests] == [b"once"] * 10


# -- subsets of the short form


def test_health_of_a_backend_holds_in_every_subset(launch, scripted):
    names = {"a": ["/api"], "b": ["/api", "/static"], "c": ["/static"]}
    backends = {name: scripted(answers.fixed(name.encode())) for name in names}
    port = free_port()
    akashd = launch({"host": "127.0.0.1", "listen": port, "workers": 2,
                     "health_check": QUICK_CHECK,
                     "Backends": [{"address": backends[n].address, "paths": p} for n, p in names.items()]})

    def share(path, count=20):
        got = Counter()
        for _ in range(count):
            with Client(port) as client:
                answer = client.ask(target=path)
                got[answer.text if answer.status == 200 else answer.status] += 1
        return got
    for backend in backends.values():
        akashd.wait_metric("akash_backend_up", lambda v: v == 1, backend=backend.address)
    assert share("/api") == {"a": 10, "b": 10} and share("/static") == {"b": 10, "c": 10}
    backends["b"].kill()
    akashd.wait_metric("akash_backend_up", lambda v: v == 0, backend=backends["b"].address)
    assert share("/api") == {"a": 20} and share("/static") == {"c": 20}
    backends["a"].kill()
    akashd.wait_metric("akash_backend_up", lambda v: v == 0, backend=backends["a"].address)
    assert share("/api") == {503: 20}, "a subset that is down must not spill into others"
    assert share("/static") == {"c": 20}


def test_subsets_have_exact_cursors_of_their_own_under_concurrency(launch, scripted):
    names = {"a": ["/api"], "b": ["/api"], "c": ["/static"], "d": ["/static"]}
    backends = {name: scripted(answers.fixed(name.encode())) for name in names}
    port = free_port()
    launch({"host": "127.0.0.1", "listen": port, "workers": 4, "health_check": False,
            "Backends": [{"address": backends[n].address, "paths": p} for n, p in names.items()]})

    def run(path):
        for _ in range(10):
            with Client(port) as client:
                for _ in range(10):
                    assert client.ask(target=path).status == 200
    jobs = [threading.Thread(target=run, args=(path,)) for path in ("/api", "/static") for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert {n: len(b.requests) for n, b in backends.items()} == {n: 150 for n in names}
