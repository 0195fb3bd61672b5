# SPDX-License-Identifier: Apache-2.0
"""limits.requests_in_flight: how many requests of a listener are under way at one time, exactly, over all workers."""

import os
import signal
import subprocess
from collections import Counter

import pytest

from harness import PATIENCE, Client, Gate, Load, adopt_orphans, free_port, http_config, until
from harness.akashd import binary
from harness.backend import fixed, tcp_echo
from harness.h2client import H2Client

GAUGE = "akash_listener_requests_in_flight"


@pytest.fixture
def held(scripted):
    """A backend whose answers wait at .gate."""
    backend = scripted()
    backend.gate = Gate()
    backend.always(backend.gate.hold())
    return backend


@pytest.fixture
def limited(launch):
    def start(backend, limit, workers=4, **top):
        port = free_port()
        akashd = launch(http_config(port, [backend], listener={"limits": {"requests_in_flight": limit}},
                                    workers=workers, **top))
        akashd.port = port
        return akashd
    return start


def ask_all(port, count, make=Client):
    clients = [make(port) for _ in range(count)]
    for client in clients:
        client.request()
    return clients


def close_all(clients):
    for client in clients:
        client.close()


def refused(akashd):
    return akashd.metrics().value("akash_requests_refused_total", listener="web")


def test_exact_over_four_workers_and_given_back(limited, held):
    akashd = limited(held, 20)
    clients = ask_all(akashd.port, 50)
    held.gate.wait_waiting(20)
    akashd.wait_metric("akash_requests_refused_total", lambda v: v == 30, listener="web")
    akashd.wait_metric("akash_failures_total", lambda v: v == 30, reason="over_limit")
    assert akashd.metrics().value(GAUGE, listener="web") == 20
    held.gate.release()
    answers = [c.response() for c in clients]
    assert Counter(a.status for a in answers) == {200: 20, 503: 30}
    assert held.gate.peak == 20
    for answer in answers:
        if answer.status == 503:
            assert answer.fields.get("Retry-After") == "1" and "over_limit" in answer.text
    akashd.wait_metric(GAUGE, lambda v: v == 0, listener="web")
    # Refused clients were not cut off: they ask again, over the same connections.
    assert Counter(c.ask().status for c in clients) == {200: 50}
    close_all(clients)


def test_over_http2_a_stream_is_refused_and_the_others_go_on(limited, held):
    akashd = limited(held, 3, workers=2)
    with H2Client(akashd.port) as client, Client(akashd.port) as other:
        for _ in range(3):
            client.request()
        held.gate.wait_waiting(3)
        client.request()
        other.request()
        akashd.wait_metric("akash_requests_refused_total", lambda v: v == 2, listener="web")
        assert other.response().status == 503
        held.gate.release()
        answers = [client.response() for _ in range(4)]
        assert Counter(a.status for a in answers) == {200: 3, 503: 1}
        assert answers[3].fields.get("Retry-After") == "1"
        assert client.ask().status == 200


def test_grpc_is_told_in_its_own_words(limited, held):
    akashd = limited(held, 1, workers=1)
    with Client(akashd.port) as busy, H2Client(akashd.port) as client:
        busy.request()
        held.gate.wait_waiting(1)
        answer = client.ask("POST", "/a.B/C", [("Content-Type", "application/grpc"), ("TE", "trailers")], b"\0" * 5)
        assert answer.status == 200 and answer.fields.get("grpc-status") == "8"  # RESOURCE_EXHAUSTED
        held.gate.release()
        assert busy.response().status == 200


def test_who_waits_in_a_queue_is_under_way(launch, held):
    port = free_port()
    backend = {"address": held.address, "max_connections": 1}
    akashd = launch(http_config(port, [backend], {"queue": {"size": 10}}, workers=4,
                                listener={"limits": {"requests_in_flight": 4}}))
    clients = ask_all(port, 4)
    akashd.wait_metric("akash_queue_waiting", lambda v: v == 3)
    with Client(port) as client:
        assert client.ask().status == 503
    held.gate.release()
    assert [c.response().status for c in clients] == [200] * 4
    close_all(clients)


def test_each_listener_has_its_own(launch, held, scripted):
    one, two = free_port(), free_port()
    free = scripted()
    akashd = launch({"listeners": [
        {"name": "small", "address": f"127.0.0.1:{one}", "upstream": "held", "limits": {"requests_in_flight": 1}},
        {"name": "any", "address": f"127.0.0.1:{two}", "upstream": "free"}],
        "upstreams": {"held": {"backends": [{"address": held.address}], "health_check": False},
                      "free": {"backends": [{"address": free.address}], "health_check": False}}})
    busy = ask_all(one, 1)
    held.gate.wait_waiting(1)
    with Client(one) as client:
        assert client.ask().status == 503
    with Client(two) as client:
        assert client.ask().status == 200
    samples = akashd.get("/metrics")[1]
    assert f'{GAUGE}{{listener="small"}} 1' in samples and f'{GAUGE}{{listener="any"}}' not in samples
    held.gate.release()
    assert busy[0].response().status == 200
    close_all(busy)


def switch(x):
    x.body()
    x.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
    tcp_echo(x.connection)


def test_a_tunnel_that_has_begun_is_no_request_any_more(limited, scripted):
    backend = scripted()
    akashd = limited(backend, 2)
    backend.always(switch)
    tunnels = [Client(akashd.port) for _ in range(5)]
    for tunnel in tunnels:
        tunnel.request(fields=[("Connection", "Upgrade"), ("Upgrade", "echo")])
        assert tunnel.response_head().status == 101
        tunnel.send(b"hi")
        assert tunnel.take(2) == b"hi"
    backend.always(fixed(b"ok"))
    with Client(akashd.port) as client:
        assert client.ask().status == 200
    akashd.wait_metric(GAUGE, lambda v: v == 0, listener="web")
    for tunnel in tunnels:
        tunnel.send(b"still")
        assert tunnel.take(5) == b"still"
    close_all(tunnels)


def test_clients_that_go_away_give_their_places_back(limited, held):
    akashd = limited(held, 3)
    for _ in range(4):
        clients = ask_all(akashd.port, 3)
        until(lambda: akashd.metrics().value(GAUGE, listener="web") == 3, "three under way")
        for client in clients:
            client.reset()
        until(lambda: akashd.metrics().value(GAUGE, listener="web") == 0, "none under way")
    held.gate.release()
    with Client(akashd.port) as client:
        assert client.ask().status == 200
    assert refused(akashd) == 0


def test_twenty_killed_workers_leave_the_count_right(limited, scripted):
    """Under load, in whatever they were doing."""
    backend = scripted(fixed(b"ok"))
    akashd = limited(backend, 30)
    load = Load(akashd.port, keepalive=16, fresh=8, pause=0.002)
    for turn in range(20):
        load.wait_total(load.account.total + 30)
        victim = akashd.workers()[turn % 4]
        os.kill(victim.pid, signal.SIGKILL)
        until(lambda: (w := akashd.workers().get(turn % 4)) and w.pid != victim.pid, "a successor")
    load.stop()
    akashd.wait_metric(GAUGE, lambda v: v == 0, listener="web")
    gate = Gate()
    backend.always(gate.hold())
    clients = ask_all(akashd.port, 60)
    gate.wait_waiting(30)
    # The gauge that decides, not the sum of ledgers that the metric shows, says so.
    akashd.wait_metric("akash_requests_refused_total", lambda v: v == 30, listener="web")
    gate.release()
    assert Counter(c.response().status for c in clients) == {200: 30, 503: 30}
    assert gate.peak == 30
    close_all(clients)


def test_it_holds_over_a_reload_and_an_upgrade(limited, held):
    adopt_orphans()
    akashd = limited(held, 4, workers=2)
    clients = ask_all(akashd.port, 4)
    held.gate.wait_waiting(4)
    akashd.reload({**akashd.config, "drain_timeout": "7s"})
    with Client(akashd.port) as client:
        assert client.ask().status == 503
    akashd.upgrade()
    with Client(akashd.port) as client:
        assert client.ask().status == 503
    config = {**akashd.config, "listeners": [{**akashd.config["listeners"][0], "limits": {"requests_in_flight": 5}}]}
    akashd.reload(config)
    clients += ask_all(akashd.port, 1)
    held.gate.wait_waiting(5)
    held.gate.release()
    assert [c.response().status for c in clients] == [200] * 5
    close_all(clients)
    akashd.former[0].wait(PATIENCE)


def test_a_limit_that_goes_is_no_limit_and_one_that_comes_counts_from_then_on(limited, held):
    akashd = limited(held, 2, workers=2)
    config = akashd.config
    first = ask_all(akashd.port, 2)
    held.gate.wait_waiting(2)
    free = {**config, "listeners": [{k: v for k, v in config["listeners"][0].items() if k != "limits"}]}
    akashd.reload(free)
    first += ask_all(akashd.port, 5)
    held.gate.wait_waiting(7)
    held.gate.release(7)
    assert [c.response().status for c in first] == [200] * 7
    akashd.reload(config)
    clients = ask_all(akashd.port, 2)
    held.gate.wait_waiting(2)
    with Client(akashd.port) as client:
        assert client.ask().status == 503
    held.gate.release()
    close_all(first + clients)


def test_it_is_for_http(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"listeners": [{"name": "t", "address": "127.0.0.1:1", "mode": "tcp", "upstream": "u",\n'
                    '"limits": {"requests_in_flight": 1}}],\n'
                    '"upstreams": {"u": {"backends": [{"address": "127.0.0.1:1"}]}}}')
    done = subprocess.run([binary(), "-t", "-c", file], capture_output=True, text=True)
    assert done.returncode == 1 and "requests_in_flight: only in http mode" in done.stderr
