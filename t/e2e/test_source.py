# SPDX-License-Identifier: Apache-2.0
"""upstream.source: where connections to backends come from."""

import pytest

from harness import Client, free_port, http_config, until
from harness.backend import tcp_echo

CHECKS = {"type": "http", "path": "/health", "interval": "100ms", "timeout": "2s"}


def configure(port, backends, source, **upstream):
    return http_config(port, backends, {"source": source, **upstream})


def peers(backend, target=None):
    """Addresses that requests, or those for target, came from."""
    return {r.connection.peer[0] for r in list(backend.requests) if target in (None, r.target)}


def connections(backend):
    return [c.peer[0] for c in list(backend.connections)]


@pytest.fixture
def backend(scripted):
    return scripted()


def test_requests_and_health_checks_come_from_it(launch, backend):
    port = free_port()
    launch(configure(port, [backend], "127.0.0.2", health_check=CHECKS))
    with Client(port) as client:
        assert client.ask(target="/one").status == 200
    until(lambda: peers(backend, "/health"), "a check")
    assert peers(backend) == {"127.0.0.2"}


def test_several_take_turns(launch, backend):
    port = free_port()
    launch(configure(port, [backend], ["127.0.0.2", "127.0.0.3"], keepalive={"connections": 0}, health_check=False))
    with Client(port) as client:
        for _ in range(6):
            assert client.ask().status == 200
    assert sorted(connections(backend)) == ["127.0.0.2"] * 3 + ["127.0.0.3"] * 3


def test_a_backend_of_another_family_is_connected_to_from_anywhere(launch, scripted):
    six, port = scripted(host="::1"), free_port()
    launch(configure(port, [six], "127.0.0.2", health_check=False))
    with Client(port) as client:
        assert client.ask().status == 200
    assert peers(six) == {"::1"}


def test_a_reload_that_changes_it_leaves_no_connection_from_the_former(launch, backend):
    port = free_port()
    akashd = launch(configure(port, [backend], "127.0.0.2", health_check=False))
    with Client(port) as client:
        assert client.ask().status == 200
        akashd.reload(configure(port, [backend], "127.0.0.3", health_check=False))
        assert client.ask().status == 200
        akashd.reload(configure(port, [backend], "127.0.0.3", health_check=False))
        assert client.ask().status == 200
    assert connections(backend) == ["127.0.0.2", "127.0.0.3"]


def test_tcp_streams_come_from_it(launch, scripted):
    echo, port = scripted(on_connect=tcp_echo), free_port()
    config = http_config(port, [echo], {"source": "127.0.0.2", "health_check": False}, {"mode": "tcp"})
    launch(config)
    with Client(port) as client:
        client.send(b"hello")
        assert client.sock.recv(5) == b"hello"
    assert connections(echo) == ["127.0.0.2"]


def test_one_that_is_not_ours_is_said(launch, backend):
    port = free_port()
    akashd = launch(configure(port, [backend], "192.0.2.1", health_check=False))
    with Client(port) as client:
        answer = client.ask()
    assert answer.status == 502 and "connect_failed" in answer.text
    akashd.wait_log("Cannot assign requested address")
    assert not backend.connections
