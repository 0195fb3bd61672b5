# SPDX-License-Identifier: Apache-2.0
"""The harness itself, client straight to backend: a test tool that errs makes every test worthless."""

import pytest

from harness import Client, Gate, Load, Malformed, backend as answers, free_port
from harness.akashd import Metrics


@pytest.fixture
def backend(scripted):
    return scripted()


def test_backend_records_the_bytes_it_received(backend):
    raw = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    with Client(backend.port) as client:
        client.send(raw, "POST")
        assert client.response().body == b"ok"
    assert backend.received == raw
    assert backend.requests[0].body == b"abc" and backend.requests[0].complete


@pytest.mark.parametrize("raw", [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
])
def test_backend_calls_malformed_what_is_malformed(backend, raw):
    with Client(backend.port) as client:
        client.send(raw)
        backend.wait(lambda b: b.malformed)
        assert client.ended() in ("fin", "rst")


def test_client_sees_a_cut_body(backend):
    backend.answer(answers.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "close"))
    with Client(backend.port) as client:
        answer = client.ask()
    assert not answer.complete and answer.body == b"abc" and answer.end == "fin"


def test_client_tells_reset_from_fin(backend):
    backend.answer(answers.raw(b"HTTP/1.1 200 OK\r\n\r\nabc", "reset"))
    with Client(backend.port) as client:
        answer = client.ask()
    assert not answer.complete and answer.end == "rst"


def test_client_refuses_two_ways_to_read_an_answer(backend):
    backend.answer(answers.raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "close"))
    with Client(backend.port) as client, pytest.raises(Malformed):
        client.ask()


def test_gate_holds_exactly(backend):
    gate = Gate()
    backend.always(gate.hold())
    clients = [Client(backend.port) for _ in range(5)]
    for client in clients:
        client.request()
    gate.wait_waiting(5)
    assert backend.concurrent == backend.peak == 5
    gate.release()
    assert [c.response().body for c in clients] == [b"ok"] * 5


def test_load_accounts_for_every_request(backend):
    load = Load(backend.port, keepalive=3, fresh=2, limit=10)
    account = load.join()
    account.assert_all_ok(50)
    assert account.total == len(backend.requests) == 50
    assert account.connects == len(backend.connections)


def test_load_reports_what_failed(backend):
    backend.answer(answers.reset(), answers.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "close"),
                   answers.fixed(b"", status=503))
    account = Load(backend.port, keepalive=1, limit=5).join()
    assert account.ok == 2 and len(account.failures) == 3
    assert account.reasons["status 503"] == 1


def test_load_reports_refused_connects():
    account = Load(free_port(), fresh=1, limit=2).join()
    assert account.ok == 0 and all(f.why.startswith("connect:") for f in account.failures)


def test_refusing_backend_listens_again_on_the_same_port(scripted):
    backend = scripted()
    backend.refuse()
    with pytest.raises(ConnectionRefusedError):
        Client(backend.port)
    backend.accept_again()
    with Client(backend.port) as client:
        assert client.ask().status == 200


def test_metrics_are_parsed_with_their_labels():
    m = Metrics('# TYPE a counter\na{x="1",y="q\\"}"} 3\na{x="2",y=""} 4\nb 1.5e3\n')
    assert m.types == {"a": "counter"}
    assert m.value("a") == 7 and m.value("a", x=1) == 3 and m.value("b") == 1500
    assert m.all("a", x=1)[0][0]["y"] == 'q"}'
    assert m.value("missing") is None
