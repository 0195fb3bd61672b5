# SPDX-License-Identifier: Apache-2.0
"""The harness itself, client straight to backend: a test tool that errs makes every test worthless."""

import pytest

from harness import PATIENCE, Client, Gate, Load, Malformed, Reset, backend as answers, free_port, h2frames as frames
from harness.akashd import Metrics
from harness.backs import H2Back, H2cBack
from harness.client import build, chunk
from harness.fronts import H2Front, H2cFront


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


# -- HTTP/2: the same client and the same backend, over streams


@pytest.fixture(params=[(H2cFront(), H2cBack()), (H2Front(), H2Back())], ids=["h2c", "h2"])
def pair(request):
    """A client of HTTP/2 straight to a backend of HTTP/2."""
    front, back = request.param
    backend = back.backend()
    client = front.connect(backend.port)
    yield client, backend
    client.close()
    backend.close()


def test_h2_echo_of_bodies_counted_and_not(pair):
    client, backend = pair
    backend.always(answers.echo())
    assert client.ask("POST", body=b"x" * 300000).body == b"x" * 300000
    client.send(build("POST", "/a?b", [("Transfer-Encoding", "chunked")]) + chunk(b"one") + chunk(b"two")
                + b"0\r\nX-Sum: 1\r\n\r\n")
    assert client.response().body == b"onetwo"
    request = backend.requests[-1]
    assert (request.method, request.target, request.fields.get("Host")) == ("POST", "/a?b", "test")
    assert (request.framing, request.trailers) == ("chunked", [("x-sum", "1")])
    assert backend.requests[0].framing == 300000
    assert len(backend.connections) == 1 and not backend.malformed


def test_h2_trailers_interim_answers_and_the_end_of_an_open_body(pair):
    client, backend = pair
    backend.answer(answers.chunked([b"a", b"b" * 70000], trailers=[("X-Sum", "1")]),
                   answers.raw(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
                               b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
                   answers.until_close(b"z" * 100))
    answer = client.ask()
    assert answer.body == b"a" + b"b" * 70000 and answer.trailers == [("x-sum", "1")]
    answer = client.ask()
    assert [i.fields.get("Link") for i in answer.interim] == ["</a>"] and answer.body == b"ok"
    assert client.ask().body == b"z" * 100
    assert client.ask("HEAD").fields.get("Content-Length") == "2"


def test_h2_sender_is_held_back_by_who_does_not_read(pair):
    client, backend = pair
    backend.answer(answers.fixed(b"x" * 1000000))
    client.request()
    assert backend.blocked.wait(PATIENCE) and backend.sent < 1000000
    assert len(client.response().body) == 1000000


def test_h2_streams_are_reset_alone(pair):
    client, backend = pair
    backend.answer(answers.stall(answers.head() + b"part"), lambda x: x.cancel())
    client.request()
    assert client.body_part(head := client.response_head(), 4) == b"part"
    client.side.reset_stream(head.stream)
    assert backend.requests[0].gone.wait(PATIENCE)
    with pytest.raises(Reset):
        client.ask()
    assert client.ask().body == b"ok" and len(backend.connections) == 1


def test_h2_end_of_the_connection_is_told(pair):
    client, backend = pair
    backend.answer(answers.reset())
    with pytest.raises(Reset):
        client.ask()
    assert client.ended() == "rst"


def test_h2_backend_calls_malformed_what_is_malformed():
    backend = H2cBack().backend()
    with H2cFront().frames(backend.port) as peer:
        peer.put(frames.headers(1, frames.block(frames.request("GET", "/", ("X-Upper", "1")))))
        backend.wait(lambda b: b.malformed)
    backend.close()


def test_h2_frames_are_told_one_by_one():
    backend = H2cBack().backend()
    with H2cFront().frames(backend.port) as peer:
        peer.put(frames.headers(1, frames.block(frames.request())))
        peer.expect_answer(1, body=b"ok")
        peer.put(frames.ping(b"12345678"))
        peer.expect_alive()
        peer.put(frames.window_update(0, 0))
        peer.expect_connection_error(frames.Code.PROTOCOL_ERROR)
    backend.close()
