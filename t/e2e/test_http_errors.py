# SPDX-License-Identifier: Apache-2.0
"""The answers that akashd makes itself: short, with the reason and the request id, and never lost."""

import re
import socket
import threading

import pytest

from harness import (PATIENCE, Gate, Reset, ScriptedBackend, backend as answers, free_port, http_config,
                     until)
from harness.client import Client, build, chunk
from harness.fronts import FRONTS_OF_1


def assert_error(answer, status, reason):
    """An error answer as operations.md has it."""
    assert answer.status == status, answer
    assert answer.complete and 0 < len(answer.body) <= 512, answer.body
    assert reason in answer.text.replace(":", " ").split(), f"{reason} is not in {answer.text!r}"
    assert answer.fields.get("Content-Type", "").startswith("text/plain")
    words = re.findall(r"[A-Za-z0-9._-]{8,128}", answer.text)
    assert [w for w in words if any(c.isdigit() for c in w)], f"no request id in {answer.text!r}"
    assert answer.fields.get("X-Request-ID", "") in answer.text
    assert answer.reason or answer.version == "2", "a reason phrase helps people"


# -- what each error says


def test_refused_connect_is_502(launch):
    port = free_port()
    launch(http_config(port, [f"127.0.0.1:{free_port()}"]))
    with Client(port) as client:
        assert_error(client.ask(), 502, "connect_refused")
        assert_error(client.ask(), 502, "connect_refused")  # the client's connection is still good


def test_backend_that_closes_without_an_answer_is_502(site):
    site.backend.always(answers.close())
    assert_error(site.client().ask(), 502, "backend_reset")


def test_backend_that_resets_is_502(site):
    site.backend.always(answers.reset())
    assert_error(site.client().ask(), 502, "backend_reset")


def test_backend_that_closes_at_once_is_502(launch):
    """Before it could be sent a request."""
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:
        launch(http_config(port, ["127.0.0.1:%d" % server.getsockname()[1]], {"retry": False}))

        def hang_up():
            server.accept()[0].close()
        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        with Client(port) as client:
            assert_error(client.ask(), 502, "backend_reset")
        hanging_up.join(PATIENCE)


def test_malformed_answer_is_502(site):
    site.backend.always(answers.raw(b"nonsense\r\n\r\n"))
    assert_error(site.client().ask(), 502, "bad_response")


def test_post_on_a_connection_that_dies_is_sent_once(site):
    """What is not idempotent may not be sent twice (RFC 9110 9.2.2)."""
    client = site.client()
    assert client.ask().status == 200
    site.backend.always(answers.reset())
    answer = client.ask("POST", body=b"order")
    assert_error(answer, 502, "backend_reset")
    assert [r.method for r in site.backend.requests].count("POST") == 1


def test_request_id_of_an_error_is_the_one_the_backend_saw(site):
    site.backend.always(answers.raw(b"nonsense\r\n\r\n"))
    answer = site.client().ask()
    assert site.backend.requests[-1].fields.get("X-Request-ID") in answer.text


def test_error_to_head_has_no_body(site):
    site.backend.answer(answers.raw(b"nonsense\r\n\r\n"))
    client = site.client()
    answer = client.ask("HEAD")
    assert (answer.status, answer.body) == (502, b"")
    if not answer.closes:
        assert client.ask().status == 200


def test_error_to_a_1_0_client_is_closed(site):
    site.backend.answer(answers.raw(b"nonsense\r\n\r\n"))
    client = site.client()
    answer = client.ask(version="1.0")
    assert answer.status == 502 and "Transfer-Encoding" not in answer.fields
    assert client.ended() == "fin"


def test_error_answers_may_not_be_cached_as_the_page(site):
    site.backend.answer(answers.raw(b"nonsense\r\n\r\n"))
    assert "Set-Cookie" not in (answer := site.client().ask()).fields and "ETag" not in answer.fields


def test_all_backends_down_is_503_with_retry_after(launch):
    port, dead = free_port(), f"127.0.0.1:{free_port()}"
    akashd = launch(http_config(port, [dead], {"health_check": {
        "type": "tcp", "interval": "100ms", "timeout": "100ms", "rise": 1, "fall": 1}}))
    akashd.wait_metric("akash_backend_up", lambda v: v == 0, backend=dead)
    with Client(port) as client:
        answer = until(lambda: (lambda a: a if a.status == 503 else None)(client.ask()))
        assert_error(answer, 503, "no_backend")
        assert int(answer.fields.get("Retry-After")) >= 1
        assert client.ask().status == 503


def test_no_route_is_404(launch, scripted):
    port, backend = free_port(), scripted()
    config = http_config(port, [backend])
    del config["listeners"][0]["upstream"]
    config["routes"] = [{"host": "known.test", "upstream": "site"}]
    launch(config)
    with Client(port) as client:
        assert_error(client.ask(host="unknown.test"), 404, "no_route")
        assert client.ask(host="known.test").status == 200
    assert len(backend.requests) == 1


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_trace_and_connect_are_405(site, method):
    target = "/" if method == "TRACE" else "test:80"
    answer = site.client().ask(method, target)
    assert_error(answer, 405, "method")
    assert site.backend.received == b""


def test_unknown_coding_is_501(site):
    client = site.client()
    client.send(build("POST", "/", [("Transfer-Encoding", "cow, chunked")]) + b"0\r\n\r\n", "POST")
    answer = client.response()
    assert answer.status in (400, 501) and answer.closes


def test_bad_request_is_400_and_closes(site):
    client = site.client()
    client.send(b"GET / HTTP/1.1\r\nHost: test\r\nbad\r\n\r\n", "GET")
    answer = client.response()
    assert_error(answer, 400, "bad_request")
    assert answer.closes and client.ended() == "fin"


def test_long_target_is_414(site):
    answer = site.client().ask(target="/" + "a" * 40000)
    assert_error(answer, 414, "uri_too_long")
    assert answer.closes


def test_large_head_is_431(site):
    answer = site.client().ask(fields=[(f"X-{n}", "a" * 1000) for n in range(50)])
    assert_error(answer, 431, "header_too_large")
    assert answer.closes


def test_limits_of_the_head_are_exact_in_number(make_site):
    site = make_site(listener={"limits": {"header_count": 10, "header_bytes": 4096}})
    mine = [(f"X-{n}", "a") for n in range(9)]  # Host is the tenth
    assert site.client().ask(fields=mine).status == 200
    assert_error(site.client().ask(fields=[*mine, ("X-10", "a")]), 431, "header_too_large")


def test_limits_of_the_head_are_exact_in_bytes(make_site):
    site = make_site(listener={"limits": {"header_bytes": 4096}})
    bare = len(build("GET", "/", [("X", "")]))
    assert site.client().ask(fields=[("X", "a" * (4096 - bare))]).status == 200
    assert_error(site.client().ask(fields=[("X", "a" * (4097 - bare))]), 431, "header_too_large")


@pytest.fixture
def small_bodies(make_any_site):
    return make_any_site(listener={"limits": {"body_bytes": 1000}})


def test_body_of_the_limit_passes(small_bodies):
    client = small_bodies.client()
    assert client.ask("POST", body=b"x" * 1000).status == 200
    client.send(build("POST", "/", [("Transfer-Encoding", "chunked")]) + chunk(b"x" * 1000) + b"0\r\n\r\n", "POST")
    assert client.response().status == 200


def test_counted_body_over_the_limit_is_413_and_never_sent(small_bodies):
    client = small_bodies.client()
    client.send(build("POST", "/", [("Content-Length", 1001)]), "POST")
    assert_error(client.response(), 413, "body_too_large")
    small_bodies.fence()
    assert [r.target for r in small_bodies.backend.requests] == ["/fence"]


def test_client_that_expects_is_spared_a_body_over_the_limit(small_bodies):
    client = small_bodies.client()
    client.send(build("POST", "/", [("Content-Length", 1001), ("Expect", "100-continue")]), "POST")
    answer = client.response()
    assert answer.status == 413 and answer.interim == []


def test_chunked_body_over_the_limit_is_413_and_never_whole(small_bodies):
    client = small_bodies.client()
    client.send(build("POST", "/", [("Transfer-Encoding", "chunked")]) + chunk(b"x" * 600) + chunk(b"x" * 600)
                + b"0\r\n\r\n", "POST")
    answer = client.response()
    assert_error(answer, 413, "body_too_large")
    assert answer.closes == (small_bodies.front.version == 1)
    small_bodies.fence()
    assert not [r for r in small_bodies.backend.requests if r.complete and r.target != "/fence"]


def test_every_error_is_counted_by_its_reason(make_site):
    site = make_site()
    client = site.client()
    client.send(b"bad\r\n\r\n", "GET")
    client.response()
    site.client().ask(target="/" + "a" * 40000)
    site.client().ask("TRACE")
    for reason in ("bad_request", "uri_too_long", "method"):
        site.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason=reason)


# -- lingering: the answer is seen although input was left unread


@pytest.mark.parametrize("front", FRONTS_OF_1, ids=lambda f: f.name)
@pytest.mark.parametrize("what", ["body", "head", "target"])
def test_client_that_is_still_sending_sees_the_answer_and_no_reset(make_site, front, what):
    site = make_site(front, listener={"limits": {"body_bytes": 1000}})
    start, status = {
        "body": (build("POST", "/", [("Content-Length", 5000000)]), 413),
        "head": (b"GET / HTTP/1.1\r\nHost: test\r\nX: ", 431),
        "target": (b"GET /", 414),
    }[what]
    client = site.client()
    client.send(start + b"a" * 60000)
    answer = client.response("POST")
    assert answer.status == status and answer.closes
    assert client.ended() == "fin"


@pytest.mark.parametrize("first", [
    b"GET /a%00b HTTP/1.1\r\nHost: test\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: test\r\nX : y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
], ids=["refused-after-parsing", "refused-in-parsing", "said-close", "http-1.0"])
def test_answer_that_ends_the_connection_lingers_for_what_follows(site, first):
    """The client has sent more and goes on: a plain close would answer that with a reset."""
    client = site.client()
    client.send(first + build("GET", "/pipelined"))
    assert client.response("GET").closes
    assert client.ended() == "fin"
    for _ in range(5):
        client.send(build("GET", "/late"))
        site.fence()
        assert client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, "reset"
    assert {r.target for r in site.backend.requests} <= {"/", "/fence"}


def test_lingering_has_an_end(make_site):
    """A client that goes on and on is cut, by bytes or by time."""
    site = make_site(listener={"limits": {"body_bytes": 1000}})
    client = site.client()
    client.send(build("POST", "/", [("Content-Length", 500000000)]))
    assert client.response("POST").status == 413
    with pytest.raises(OSError):
        for _ in range(2000):
            client.send(b"x" * 65536)


def test_lingering_client_that_is_silent_is_let_go(make_site):
    site = make_site(listener={"limits": {"body_bytes": 1000}})
    client = site.client()
    client.send(build("POST", "/", [("Content-Length", 5000)]))
    assert client.response("POST").status == 413
    assert client.ended() == "fin"
    site.akashd.wait_metric("akash_listener_connections", lambda v: v == 0, listener="web")


def test_client_over_the_limit_gets_503_with_retry_after(launch, scripted):
    gate = Gate()
    port, backend = free_port(), scripted(gate.hold())
    akashd = launch(http_config(port, [backend], max_connections=3))
    busy = [Client(port) for _ in range(3)]
    for client in busy:
        client.request()
    gate.wait_waiting(3)
    with Client(port) as refused:
        refused.request()
        answer = refused.response()
        assert_error(answer, 503, "over_limit")
        assert answer.closes and int(answer.fields.get("Retry-After")) >= 1
    gate.release()
    assert [c.response().status for c in busy] == [200] * 3
    for client in busy:
        client.close()
    akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="over_limit")


def test_idle_client_makes_room_for_a_new_one(launch, scripted):
    port, backend = free_port(), scripted()
    launch(http_config(port, [backend], max_connections=2))
    first, second = Client(port), Client(port)
    assert first.ask().status == second.ask().status == 200
    with Client(port) as third:
        assert third.ask().status == 200
        assert first.ended() == "fin"
        assert second.ask().status == 200
    for client in (first, second):
        client.close()


# -- errors in the middle


@pytest.mark.parametrize("method, lost", [("POST", 3), ("GET", 0)])
def test_backend_killed_under_requests_costs_only_those_that_may_not_be_repeated(launch, method, lost):
    gate = Gate()
    victim, survivor = ScriptedBackend(gate.hold()), ScriptedBackend(gate.hold())
    port = free_port()
    launch(http_config(port, [victim, survivor]))
    clients = [Client(port) for _ in range(6)]
    for client in clients:
        client.request(method, body=b"x" if method == "POST" else None)
    gate.wait_waiting(6)
    assert (victim.concurrent, survivor.concurrent) == (3, 3)
    victim.kill()
    gate.release()
    statuses = sorted(c.response().status for c in clients)
    assert statuses == [200] * (6 - lost) + [502] * lost
    for client in clients:
        client.close()
    for backend in (victim, survivor):
        backend.close()


def test_client_that_resets_in_its_upload_takes_its_request_along(site):
    client = site.client()
    client.send(build("POST", "/", [("Content-Length", 100)]) + b"x")
    site.backend.wait_requests(1)
    client.reset()
    assert site.backend.connections[0].quiet_end.wait(PATIENCE)
    assert not site.backend.requests[0].complete
    site.fence()


def test_client_that_resets_in_its_answer_ends_the_exchange(site):
    site.backend.answer(answers.fixed(b"x" * 80000000))
    client = site.client(rcvbuf=4096)
    client.request()
    assert site.backend.blocked.wait(PATIENCE)
    client.reset()
    assert site.backend.connections[0].quiet_end.wait(PATIENCE)
    site.fence()


def test_many_clients_that_come_and_go_leave_nothing_open(site):
    worker = site.akashd.workers()[0]
    site.fence()
    before = worker.fds()
    for number in range(100):
        with socket.create_connection(("127.0.0.1", site.port)) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x"[:number % 24])
    until(lambda: worker.fds() <= before, "the descriptors to be closed")


def test_error_while_others_are_served_disturbs_none(site):
    go = threading.Event()

    def slow(x):
        x.send(answers.head(fields=[("Content-Length", 4)]) + b"sl")
        x.wait(go)
        x.send(b"ow")
    site.backend.answer(slow)
    patient = site.client()
    patient.request()
    head = patient.response_head()
    for _ in range(10):
        client = site.client()
        client.send(b"bad\r\n\r\n", "GET")
        assert client.response().status == 400
    go.set()
    try:
        assert patient.response_body(head).body == b"slow"
    except Reset:
        pytest.fail("another client's error ended this one")
