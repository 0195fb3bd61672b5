# SPDX-License-Identifier: Apache-2.0
"""Clients that reset in the same moment in which they send their last bytes.

Both come to the worker as one event, which says nothing of the reset; and what is said with these bytes is not
answered, so that no write finds it out either. Such a client must not count as connected for its idle timeout,
nor keep its request at a backend.
"""

import signal
from contextlib import contextmanager

import pytest

from harness import Client, Gate, free_port, http_config
from harness.h2frames import FramePeer, block, headers, request, window_update

LONG = {"idle": "10m", "header": "10m", "request_body": "10m", "tunnel": "10m"}


@pytest.fixture
def akashd(launch, scripted):
    config = http_config(free_port(), [scripted()])
    config["listeners"][0]["timeouts"] = LONG
    return launch(config)


@pytest.fixture
def port(akashd):
    return int(akashd.config["listeners"][0]["address"].rsplit(":", 1)[1])


@contextmanager
def asleep(akashd):
    """What a client does meanwhile is seen by the worker at once."""
    worker = akashd.workers()[0]
    worker.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        worker.kill(signal.SIGCONT)


def wait_gone(akashd):
    akashd.wait_metric("akash_active_connections", lambda v: v == 0)


@pytest.mark.parametrize("last", [b"\r\n", b"GET / HTTP/1.1\r\nHo", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"],
                         ids=["empty line", "half a head", "half a body"])
def test_http1(akashd, port, last):
    client = Client(port)
    assert client.ask().status == 200
    akashd.wait_metric("akash_active_connections", lambda v: v == 1)
    with asleep(akashd):
        client.send(last)
        client.reset()
    wait_gone(akashd)


def test_http1_whose_request_is_at_a_backend(launch, scripted):
    backend, gate, port = scripted(), Gate(), free_port()
    akashd = launch(http_config(port, [backend], {"timeouts": {"response": "10m"}}))
    client = Client(port)
    assert client.ask().status == 200
    backend.always(gate.hold())
    with asleep(akashd):
        client.request()
        client.reset()
    wait_gone(akashd)
    akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="client_closed")
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0)
    gate.release()


@pytest.mark.parametrize("is_used", [False, True], ids=["fresh", "used"])
def test_http2(akashd, port, is_used):
    client = FramePeer(port)
    if is_used:
        client.put(headers(1, block(request())))
        client.expect_answer()
    akashd.wait_metric("akash_active_connections", lambda v: v == 1)
    with asleep(akashd):
        client.put(window_update(0, 1000))
        client.reset()
    wait_gone(akashd)
