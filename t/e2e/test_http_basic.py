# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.x as it should be: every test runs over plain TCP and over TLS."""

import hashlib
import threading
import time

import pytest

from harness import PATIENCE, Gate, Nginx, Reset, backend as answers, curl, http_config, free_port, until
from harness.akashd import is_sanitized
from harness.client import build, chunk
from harness.fronts import FRONTS
from harness.wire import Ended

EVIL = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"


# -- connections


def test_keepalive_client_sends_many_requests_on_one_connection(shared_site):
    client = shared_site.client()
    for number in range(20):
        answer = client.ask(target=f"/{number}")
        assert (answer.status, answer.body, answer.closes) == (200, b"ok", False)
    assert [r.target for r in shared_site.backend.requests] == [f"/{n}" for n in range(20)]


def test_backend_connection_is_reused_by_the_next_request(shared_site):
    client = shared_site.client()
    for _ in range(10):
        assert client.ask().status == 200
    assert len(shared_site.backend.connections) == 1


def test_backend_connection_is_reused_by_another_client(shared_site):
    for _ in range(5):
        with shared_site.front.connect(shared_site.port) as client:
            assert client.ask().status == 200
    assert len(shared_site.backend.connections) == 1


@pytest.mark.http1_client
def test_backend_connection_outlives_a_client_that_asked_to_close(shared_site):
    client = shared_site.client()
    answer = client.ask(fields=[("Connection", "close")])
    assert answer.closes and client.ended() == "fin"
    assert shared_site.client().ask().status == 200
    assert len(shared_site.backend.connections) == 1
    assert "close" not in shared_site.backend.requests[0].fields.tokens("Connection")


@pytest.mark.http1_backend
def test_client_stays_when_the_backend_says_close(shared_site):
    shared_site.backend.answer(answers.fixed(b"bye", fields=[("Connection", "close")]))
    client = shared_site.client()
    first, second = client.ask(), client.ask()
    assert (first.body, first.closes, second.body) == (b"bye", False, b"ok")
    assert len(shared_site.backend.connections) == 2


@pytest.mark.http1_backend
def test_concurrent_requests_use_a_connection_each(shared_site):
    gate = Gate()
    shared_site.backend.always(gate.hold())
    clients = [shared_site.client() for _ in range(8)]
    for client in clients:
        client.request()
    gate.wait_waiting(8)
    gate.release()
    assert [c.response().status for c in clients] == [200] * 8
    assert len(shared_site.backend.connections) == 8


def test_reused_connection_that_dies_unanswered_costs_an_idempotent_request_nothing(shared_site):
    client = shared_site.client()
    assert client.ask().status == 200
    shared_site.backend.answer(answers.reset())
    answer = client.ask(target="/again")
    assert (answer.status, answer.body) == (200, b"ok")
    assert len(shared_site.backend.connections) == 2


def test_half_closed_client_still_gets_its_answer(site):
    gate = Gate()
    site.backend.answer(gate.hold(answers.fixed(b"late")))
    client = site.client()
    client.request()
    client.half_close()
    gate.wait_waiting(1)
    gate.release()
    assert client.response().body == b"late"
    assert client.ended() == "fin"


def test_backend_request_ends_when_its_client_has_gone(site):
    site.backend.always(answers.stall())
    client = site.client()
    client.request()
    site.backend.wait_requests(1)
    client.reset()
    assert site.backend.connections[0].quiet_end.wait(PATIENCE)


# -- pipelining


@pytest.mark.http1_client
def test_pipelined_requests_are_answered_in_order(shared_site):
    shared_site.backend.always(lambda x: answers.fixed(x.request.target.encode())(x))
    client = shared_site.client()
    client.send(b"".join(build("GET", f"/{n}") for n in range(20)))
    assert [client.response("GET").body for _ in range(20)] == [b"/%d" % n for n in range(20)]


@pytest.mark.http1_client
def test_pipelined_answers_keep_their_order_when_the_first_is_slow(shared_site):
    gate = Gate()
    shared_site.backend.answer(gate.hold(answers.fixed(b"first")))
    shared_site.backend.always(answers.fixed(b"later"))
    client = shared_site.client()
    client.send(build("GET", "/1") + build("GET", "/2") + build("GET", "/3"))
    gate.wait_waiting(1)
    gate.release()
    assert [client.response("GET").body for _ in range(3)] == [b"first", b"later", b"later"]


@pytest.mark.http1_client
def test_pipelined_bodies_are_told_apart(shared_site):
    shared_site.backend.always(answers.echo())
    client = shared_site.client()
    client.send(build("POST", "/a", body=b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n")
                + build("POST", "/b", [("Transfer-Encoding", "chunked")])
                + chunk(b"one") + chunk(b"two") + b"0\r\n\r\n"
                + build("GET", "/c"))
    bodies = [client.response(m).body for m in ("POST", "POST", "GET")]
    assert bodies == [b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n", b"onetwo", b""]
    assert [r.target for r in shared_site.backend.requests] == ["/a", "/b", "/c"]


def test_request_that_arrives_in_single_bytes_is_one_request(shared_site):
    client = shared_site.client()
    for byte in build("POST", "/slow", body=b"abc"):
        client.send(bytes([byte]))
    assert client.response("POST").status == 200
    assert [r.body for r in shared_site.backend.requests] == [b"abc"]


@pytest.mark.http1_client
def test_empty_lines_before_a_request_are_ignored(shared_site):
    client = shared_site.client()
    client.send(b"\r\n" + build("GET", "/"), "GET")
    assert client.response().status == 200


# -- bodies of answers


@pytest.mark.parametrize("size", [0, 1, 4095, 16384, 16385, 300000])
def test_counted_answer_arrives_whole(shared_site, size):
    body = hashlib.sha256(b"x").digest() * (size // 32 + 1)
    shared_site.backend.always(answers.fixed(body[:size]))
    client = shared_site.client()
    for _ in range(2):
        answer = client.ask()
        assert answer.framing == size and answer.body == body[:size] and answer.complete


def test_chunked_answer_arrives_whole(shared_site):
    pieces = [b"a", b"bc" * 5000, b"d" * 70000]
    shared_site.backend.always(answers.chunked(pieces))
    client = shared_site.client()
    for _ in range(2):
        answer = client.ask()
        assert answer.framing == "chunked" and answer.body == b"".join(pieces)


def lowered(fields):
    return [(name.lower(), value) for name, value in fields]


def test_trailers_of_a_chunked_answer_arrive_or_are_dropped_but_never_merged(shared_site):
    shared_site.backend.answer(answers.chunked([b"x"], trailers=[("X-Sum", "1")],
                                               fields=[("Trailer", "X-Sum")]))
    client = shared_site.client()
    answer = client.ask()
    assert answer.body == b"x" and "X-Sum" not in answer.fields
    assert lowered(answer.trailers) in ([("x-sum", "1")], [])
    assert client.ask().status == 200


def test_trailers_of_a_chunked_answer_are_forwarded(shared_site):
    shared_site.backend.answer(answers.chunked([b"x"], trailers=[("X-Sum", "1")]))
    answer = shared_site.client().ask(fields=[("TE", "trailers"), ("Connection", "TE")])
    assert answer.trailers.get("X-Sum") == "1"


def test_answer_until_close_arrives_whole(shared_site):
    shared_site.backend.answer(answers.until_close(b"z" * 100000))
    client = shared_site.client()
    answer = client.ask()
    assert answer.complete and answer.body == b"z" * 100000
    if answer.framing == "close":
        assert answer.end == "fin"
    else:
        assert client.ask().status == 200


def test_slow_answer_is_passed_on_as_it_comes(shared_site):
    go = threading.Event()

    def answer(x):
        x.send(answers.head(fields=[("Content-Length", 10)]) + b"first")
        x.wait(go)
        x.send(b"later")
    shared_site.backend.answer(answer)
    client = shared_site.client()
    client.request()
    got = client.response_head()
    assert client.body_part(got, 5) == b"first"
    go.set()
    assert client.response_body(got).body == b"later"


@pytest.mark.http1_backend
def test_answer_head_in_single_bytes_is_one_head(shared_site):
    def answer(x):
        for byte in answers.head(fields=[("Content-Length", 2)]) + b"ok":
            x.send(bytes([byte]))
    shared_site.backend.answer(answer)
    assert shared_site.client().ask().body == b"ok"


def test_head_answer_has_no_body_and_keeps_its_length(shared_site):
    shared_site.backend.always(answers.fixed(b"12345"))
    client = shared_site.client()
    answer = client.ask("HEAD")
    assert (answer.status, answer.body, answer.fields.get("Content-Length")) == (200, b"", "5")
    assert client.ask().body == b"12345"
    assert len(shared_site.backend.connections) == 1


def test_head_answer_with_chunked_head_has_no_body(shared_site):
    shared_site.backend.always(answers.chunked([b"12345"]))
    client = shared_site.client()
    assert client.ask("HEAD").body == b""
    assert client.ask().body == b"12345"


@pytest.mark.parametrize("status", [204, 304])
def test_answer_without_body_keeps_the_connection(shared_site, status):
    fields = [("Content-Length", "77")] if status == 304 else []
    shared_site.backend.answer(answers.raw(answers.head(status, "None", [*fields, ("ETag", '"x"')])))
    client = shared_site.client()
    answer = client.ask()
    assert (answer.status, answer.body, answer.fields.get("ETag")) == (status, b"", '"x"')
    assert client.ask().body == b"ok"
    assert len(shared_site.backend.connections) == 1


@pytest.mark.parametrize("status", [201, 206, 301, 404, 418, 500, 503, 599])
def test_status_and_reason_of_the_backend_arrive(shared_site, status):
    shared_site.backend.answer(answers.fixed(b"why", status, "Some Words"))
    answer = shared_site.client().ask()
    is_told = shared_site.front.version == shared_site.back.version == 1
    assert (answer.status, answer.body) == (status, b"why")
    assert answer.reason == "Some Words" or not is_told


def test_empty_reason_phrase_is_legal(shared_site):
    shared_site.backend.answer(answers.raw(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"))
    assert shared_site.client().ask().body == b"ok"


# -- bodies of requests


@pytest.mark.parametrize("size", [0, 1, 4096, 20000, 300000])
def test_counted_upload_arrives_whole(shared_site, size):
    body = hashlib.sha256(b"y").digest() * (size // 32 + 1)
    shared_site.backend.always(answers.echo())
    client = shared_site.client()
    for _ in range(2):
        assert client.ask("POST", body=body[:size]).body == body[:size]
    for request in shared_site.backend.requests:
        assert request.framing == size and request.complete


def test_chunked_upload_arrives_whole(shared_site):
    shared_site.backend.always(answers.echo())
    client = shared_site.client()
    for _ in range(2):
        client.send(build("POST", "/", [("Transfer-Encoding", "chunked")]))
        for piece in (b"a" * 5, b"b" * 40000, b"c"):
            client.send(chunk(piece))
        client.send(b"0\r\n\r\n")
        assert client.response("POST").body == b"a" * 5 + b"b" * 40000 + b"c"
    assert [r.framing for r in shared_site.backend.requests] == ["chunked"] * 2


def test_chunked_upload_is_passed_on_as_it_comes(shared_site):
    shared_site.backend.answer(answers.echo())
    client = shared_site.client()
    client.send(build("POST", "/", [("Transfer-Encoding", "chunked")]) + chunk(b"early"))
    shared_site.backend.wait(lambda b: b"early" in b.received, "the first chunk")
    client.send(chunk(b"late") + b"0\r\n\r\n")
    assert client.response("POST").body == b"earlylate"


CHUNKED = b"5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"


@pytest.mark.parametrize("end", [CHUNKED, CHUNKED[:CHUNKED.index(b"X-Sum")] + b"\r\n"], ids=["trailers", "plain"])
def test_chunked_upload_may_be_cut_in_two_anywhere(shared_site, end):
    shared_site.backend.always(answers.echo())
    client = shared_site.client()
    for at in range(len(end)):
        seen = len(shared_site.backend.requests)
        client.send(build("POST", f"/{at}", [("Transfer-Encoding", "chunked")]) + end[:at])
        shared_site.backend.wait_requests(seen + 1)
        client.send(end[at:], "POST")
        assert client.response().body == b"hello!", at


@pytest.mark.parametrize("end", [CHUNKED, CHUNKED[:CHUNKED.index(b"X-Sum")] + b"\r\n"], ids=["trailers", "plain"])
def test_chunked_answer_may_be_cut_in_two_anywhere(shared_site, end):
    client = shared_site.client()
    for at in range(len(end)):
        go = threading.Event()

        def answer(x, at=at, go=go):
            x.send(answers.head(fields=[("Transfer-Encoding", "chunked")]) + end[:at])
            x.wait(go)
            x.send(end[at:])
        shared_site.backend.answer(answer)
        client.request()
        head = client.response_head()
        go.set()
        assert client.response_body(head).body == b"hello!" and head.complete, at


def test_trailers_of_an_upload_are_never_merged_into_the_head(shared_site):
    client = shared_site.client()
    client.send(build("POST", "/", [("Transfer-Encoding", "chunked")]) + chunk(b"x")
                + b"0\r\nX-Sum: 1\r\n\r\n", "POST")
    assert client.response().status == 200
    request, = shared_site.backend.wait_complete()
    assert "X-Sum" not in request.fields and lowered(request.trailers) in ([], [("x-sum", "1")])


@pytest.mark.http1_client
def test_chunk_extensions_are_harmless(shared_site):
    shared_site.backend.answer(answers.echo())
    client = shared_site.client()
    client.send(build("POST", "/", [("Transfer-Encoding", "chunked")])
                + b"3;name=value\r\nabc\r\n0;last\r\n\r\n", "POST")
    assert client.response().body == b"abc"


def test_body_on_get_is_forwarded_as_a_body(shared_site):
    shared_site.backend.answer(answers.echo())
    client = shared_site.client()
    assert client.ask("GET", body=b"query").body == b"query"
    assert client.ask().body == b"ok"


def test_answer_before_the_upload_ended_reaches_the_client(shared_site):
    shared_site.backend.answer(answers.early(
        answers.head(413, "Too Big", [("Content-Length", 3), ("Connection", "close")]) + b"big"))
    client = shared_site.client()
    client.send(build("POST", "/", [("Content-Length", 100000)]) + b"x" * 1000)
    answer = client.response("POST")
    assert (answer.status, answer.body) == (413, b"big")
    whole = client.try_send(b"x" * 99000)
    if answer.closes or not whole:
        assert client.ended() == "fin"
    else:
        assert client.ask(target="/next").body == b"ok"
    shared_site.fence()


def test_answer_before_the_upload_ended_by_a_backend_that_reads_no_more(shared_site):
    shared_site.backend.answer(answers.early(
        answers.head(403, "No", [("Content-Length", 2)]) + b"no", then_read=False))
    client = shared_site.client()
    client.send(build("POST", "/", [("Content-Length", 50000000)]) + b"x" * 1000)
    answer = client.response("POST")
    assert (answer.status, answer.body) == (403, b"no")
    client.close()
    assert shared_site.backend.requests[0].gone.wait(PATIENCE)


@pytest.mark.http1_backend
def test_early_answer_of_a_backend_that_closes_is_not_lost(shared_site):
    def answer(x):
        x.send(answers.head(401, "Who", [("Content-Length", 3), ("Connection", "close")]) + b"who")
        x.connection.wire.half_close()
        x.connection.wire.to_end(lambda piece: None)
        x.close()
    shared_site.backend.answer(answer)
    client = shared_site.client()
    client.send(build("POST", "/", [("Content-Length", 5000000)]) + b"x" * 1000)
    answer = client.response("POST")
    assert (answer.status, answer.body) == (401, b"who")


# -- 1xx and Expect


def test_expect_and_100_continue_pass_both_ways(shared_site):
    def answer(x):
        x.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        answers.echo()(x)
    shared_site.backend.answer(answer)
    client = shared_site.client()
    client.send(build("POST", "/", [("Expect", "100-continue"), ("Content-Length", 5)]))
    assert client.interim().status == 100
    assert shared_site.backend.requests[0].expects
    client.send(b"hello", "POST")
    answer = client.response()
    assert (answer.status, answer.body, answer.interim) == (200, b"hello", [])


def test_client_that_expects_is_not_told_to_continue_by_akashd(shared_site):
    shared_site.backend.answer(answers.early(
        answers.head(417, "No", [("Content-Length", 2), ("Connection", "close")]) + b"no", then_read=False))
    client = shared_site.client()
    client.send(build("POST", "/", [("Expect", "100-continue"), ("Content-Length", 5)]), "POST")
    answer = client.response()
    assert (answer.status, answer.body, answer.interim) == (417, b"no", [])


def test_client_that_does_not_wait_for_100_is_served(shared_site):
    def answer(x):
        x.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        answers.echo()(x)
    shared_site.backend.answer(answer)
    client = shared_site.client()
    answer = client.ask("POST", fields=[("Expect", "100-continue")], body=b"hello")
    assert answer.body == b"hello"
    assert [i.status for i in answer.interim] in ([100], [])
    assert client.ask().body == b"ok"


def test_final_status_instead_of_100_leaves_no_bytes_behind(shared_site):
    """The client may send its body or not; neither may become a request of its own."""
    shared_site.backend.answer(answers.early(answers.head(401, "Who", [("Content-Length", 3)]) + b"who"))
    client = shared_site.client()
    client.send(build("POST", "/", [("Expect", "100-continue"), ("Content-Length", len(EVIL))]), "POST")
    answer = client.response()
    assert answer.status == 401
    client.try_send(EVIL)
    shared_site.fence()
    assert "/evil" not in [r.target for r in shared_site.backend.requests]


def test_early_hints_reach_the_client_before_the_answer(shared_site):
    shared_site.backend.answer(answers.raw(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </b>; rel=preload\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    client = shared_site.client()
    answer = client.ask()
    assert [i.fields.get("Link") for i in answer.interim] == ["</a>; rel=preload", "</b>; rel=preload"]
    assert answer.body == b"ok" and "Link" not in answer.fields
    assert client.ask().status == 200


@pytest.mark.http1_client
def test_interim_answers_are_kept_from_a_1_0_client(shared_site):
    shared_site.backend.answer(answers.raw(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    answer = shared_site.client().ask(version="1.0")
    assert (answer.status, answer.interim, answer.body) == (200, [], b"ok")


# -- HTTP/1.0


@pytest.mark.http1_client
def test_1_0_client_is_closed_after_its_answer(shared_site):
    client = shared_site.client()
    answer = client.ask(version="1.0")
    assert (answer.status, answer.body) == (200, b"ok")
    assert "keep-alive" not in answer.fields.tokens("Connection")
    assert client.ended() == "fin"


@pytest.mark.http1_client
def test_1_0_client_without_host_is_served(shared_site):
    answer = shared_site.client().ask(version="1.0", host=None)
    assert answer.status == 200


@pytest.mark.http1_client
def test_1_0_client_keeps_its_connection_if_it_asks(shared_site):
    client = shared_site.client()
    for _ in range(3):
        answer = client.ask(fields=[("Connection", "keep-alive")], version="1.0")
        assert (answer.status, answer.body) == (200, b"ok")
        assert "keep-alive" in answer.fields.tokens("Connection")


@pytest.mark.http1_client
def test_1_0_client_gets_no_chunks(shared_site):
    shared_site.backend.answer(answers.chunked([b"one", b"two"]))
    client = shared_site.client()
    answer = client.ask(fields=[("Connection", "keep-alive")], version="1.0")
    assert answer.framing == "close" and answer.complete
    assert (answer.body, answer.end) == (b"onetwo", "fin")
    assert "Transfer-Encoding" not in answer.fields
    assert "keep-alive" not in answer.fields.tokens("Connection")


@pytest.mark.http1_client
def test_1_0_client_gets_until_close_until_close(shared_site):
    shared_site.backend.answer(answers.until_close(b"abc"))
    answer = shared_site.client().ask(version="1.0")
    assert (answer.framing, answer.body, answer.end) == ("close", b"abc", "fin")


@pytest.mark.http1_client
def test_1_0_request_reaches_the_backend_in_strict_form(shared_site):
    shared_site.client().ask("POST", body=b"abc", version="1.0")
    request, = shared_site.backend.requests
    assert request.body == b"abc" and len(request.fields.all("Host")) == 1


@pytest.mark.http1_client
def test_1_0_client_never_makes_a_close_delimited_request(shared_site):
    client = shared_site.client()
    client.send(b"POST /x HTTP/1.0\r\nHost: a\r\n\r\nsurplus", "POST")
    client.response()
    shared_site.fence()
    assert [(r.target, r.body) for r in shared_site.backend.requests] == [("/x", b""), ("/fence", b"")]


@pytest.mark.http1_backend
def test_1_0_backend_answer_until_close(shared_site):
    shared_site.backend.answer(answers.until_close(b"old", version="1.0"))
    client = shared_site.client()
    answer = client.ask()
    assert (answer.status, answer.body, answer.version) == (200, b"old", shared_site.front.says)


@pytest.mark.http1_backend
def test_1_0_backend_is_not_reused_unless_it_keeps_alive(shared_site):
    shared_site.backend.answer(answers.fixed(b"one", version="1.0"))
    client = shared_site.client()
    assert client.ask().body == b"one"
    assert client.ask().body == b"ok"
    assert len(shared_site.backend.connections) == 2


@pytest.mark.http1_backend
def test_1_0_backend_that_keeps_alive_is_served_to_keepalive_clients(shared_site):
    shared_site.backend.always(answers.fixed(b"one", version="1.0", fields=[("Connection", "keep-alive")]))
    client = shared_site.client()
    for _ in range(3):
        answer = client.ask()
        assert (answer.body, answer.closes) == (b"one", False)


# -- fields


def seen(site, fields, **kw):
    """The fields of the one request that the backend got for these."""
    assert site.client().ask(fields=fields, **kw).status == 200
    return site.backend.requests[-1].fields


def test_end_to_end_fields_arrive_unchanged_and_in_order(shared_site):
    mine = [("Accept", "*/*"), ("X-One", "1"), ("X-Two", "a, b"), ("X-One", "3"), ("Cookie", "k=v; l=w"),
            ("X-Empty", ""), ("X-Odd", "\tq\"\\ \x80\xff".strip()), ("Authorization", "Basic eDp5")]
    got = seen(shared_site, mine)
    names = {n.lower() for n, _ in mine}
    assert [(n, v) for n, v in lowered(got) if n in names] == lowered(mine)


def test_fields_of_the_answer_arrive_unchanged_and_in_order(shared_site):
    theirs = [("Set-Cookie", "a=1"), ("X-One", "1"), ("Set-Cookie", "b=2"), ("X-Empty", ""),
              ("Cache-Control", "no-store"), ("WWW-Authenticate", 'Basic realm="x, y"')]
    shared_site.backend.answer(answers.fixed(fields=theirs))
    got = shared_site.client().ask().fields
    names = {n.lower() for n, _ in theirs}
    assert [(n, v) for n, v in lowered(got) if n in names] == lowered(theirs)


def test_method_and_target_arrive_unchanged(shared_site):
    client = shared_site.client()
    wanted = [("GET", "/a/b;c=d/e?f=g&h=%20%C3%A4"), ("DELETE", "/x?"), ("PATCH", "/%7Euser/a%2Fb"),
              ("PROPFIND", "/"), ("M-SEARCH", "/?q=/../x"), ("get", "/lower"), ("OPTIONS", "*")]
    for method, target in wanted:
        assert client.ask(method, target).status == 200
    assert [(r.method, r.target) for r in shared_site.backend.requests] == wanted


@pytest.mark.http1_client
def test_hop_by_hop_fields_of_a_request_are_removed(shared_site):
    got = seen(shared_site, [
        ("Connection", "keep-alive, X-Private, Upgrade, HTTP2-Settings, TE"), ("X-Private", "secret"),
        ("Keep-Alive", "timeout=5"), ("Proxy-Connection", "keep-alive"), ("TE", "trailers, deflate"),
        ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__"), ("X-Kept", "1")])
    assert "X-Private" not in got and got.get("X-Kept") == "1"
    for name in ("Keep-Alive", "Proxy-Connection", "Upgrade", "HTTP2-Settings"):
        assert name not in got, name
    assert not {"x-private", "upgrade", "http2-settings"} & set(got.tokens("Connection"))
    assert got.get("TE", "trailers") == "trailers"


@pytest.mark.http1_backend
def test_hop_by_hop_fields_of_an_answer_are_removed(shared_site):
    shared_site.backend.answer(answers.fixed(fields=[
        ("Connection", "X-Private"), ("X-Private", "secret"), ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"), ("Upgrade", "h2c"), ("X-Kept", "1")]))
    got = shared_site.client().ask().fields
    assert got.get("X-Kept") == "1"
    for name in ("X-Private", "Keep-Alive", "Proxy-Connection", "Upgrade"):
        assert name not in got, name


@pytest.mark.http1_client
def test_connection_option_cannot_remove_framing_or_host(shared_site):
    client = shared_site.client()
    answer = client.ask("POST", fields=[("Connection", "Content-Length, Host, Transfer-Encoding")],
                        body=EVIL)
    shared_site.fence()
    targets = [(r.target, len(r.body)) for r in shared_site.backend.requests if r.target != "/fence"]
    assert shared_site.backend.malformed == []
    assert targets == [("/", len(EVIL))] if answer.status == 200 else (answer.status == 400 and not targets)


def test_no_via_is_added(shared_site):
    assert "Via" not in seen(shared_site, [])
    assert "Via" not in shared_site.client().ask().fields


def test_date_and_server_are_left_alone(shared_site):
    mine = [("Date", "Tue, 01 Jan 1980 00:00:00 GMT"), ("Server", "old/1.0")]
    shared_site.backend.answer(answers.fixed(fields=mine), answers.fixed())
    client = shared_site.client()
    first, second = client.ask().fields, client.ask().fields
    assert (first.all("Date"), first.all("Server")) == ([mine[0][1]], [mine[1][1]])
    assert "Date" not in second and "Server" not in second


@pytest.mark.http1_client
def test_absolute_form_sets_host(shared_site):
    client = shared_site.client()
    scheme = shared_site.front.scheme
    assert client.ask("GET", f"{scheme}://Target.test:81/p?q", host="other.test").status == 200
    request, = shared_site.backend.requests
    assert request.target == "/p?q"
    assert [h.lower() for h in request.fields.all("Host")] == ["target.test:81"]


@pytest.mark.http1_client
def test_absolute_form_without_a_path_becomes_a_slash(shared_site):
    scheme = shared_site.front.scheme
    assert shared_site.client().ask("GET", f"{scheme}://target.test").status == 200
    request, = shared_site.backend.requests
    assert (request.target, request.fields.all("Host")) == ("/", ["target.test"])


def test_host_arrives_unchanged(shared_site):
    assert seen(shared_site, [], host="Some.Host.test:8080").all("Host") == ["Some.Host.test:8080"]


# -- forwarded fields


def test_forwarded_fields_are_set(shared_site):
    got = seen(shared_site, [], host="front.test:99")
    assert got.all("X-Forwarded-For") == ["127.0.0.1"]
    assert got.all("X-Forwarded-Proto") == [shared_site.front.scheme]
    assert got.all("X-Forwarded-Host") == ["front.test:99"]
    assert len(got.all("X-Request-ID")) == 1


def test_x_forwarded_for_is_appended_to(shared_site):
    got = seen(shared_site, [("X-Forwarded-For", "192.0.2.7, 192.0.2.8"), ("X-Forwarded-For", "192.0.2.9")])
    assert got.tokens("X-Forwarded-For") == ["192.0.2.7", "192.0.2.8", "192.0.2.9", "127.0.0.1"]


def test_forged_forwarded_fields_are_replaced_or_removed(shared_site):
    got = seen(shared_site, [
        ("X-Forwarded-Proto", "gopher"), ("X-Forwarded-Host", "evil.test"), ("X-Request-ID", "forged"),
        ("Forwarded", "for=192.0.2.1"), ("X-Real-IP", "192.0.2.2")], host="front.test")
    assert got.all("X-Forwarded-Proto") == [shared_site.front.scheme]
    assert got.all("X-Forwarded-Host") == ["front.test"]
    assert len(got.all("X-Request-ID")) == 1 and got.get("X-Request-ID") != "forged"
    assert "192.0.2.1" not in got.get("Forwarded", "")
    assert got.get("X-Real-IP", "127.0.0.1") == "127.0.0.1"


def test_request_ids_are_unique_and_plain(shared_site):
    client = shared_site.client()
    for _ in range(50):
        client.ask()
    ids = {r.fields.get("X-Request-ID") for r in shared_site.backend.requests}
    assert len(ids) == 50
    assert all(0 < len(i) <= 128 and i.replace("-", "").replace("_", "").replace(".", "").isalnum() for i in ids)


def test_forwarded_headers_false_adds_nothing(make_site):
    site = make_site(listener={"forwarded_headers": False})
    got = seen(site, [])
    assert not [n for n, _ in got if n.lower().startswith("x-")]


# -- big bodies, slow peers, bounded memory

MEGA = hashlib.sha256(b"big").digest() * 32768  # 1 MiB
FILE = 24


def kernel_buffers():
    """How many MiB the kernel takes in for two connections in a row before anybody reads."""
    def largest(name):
        with open(f"/proc/sys/net/ipv4/{name}") as f:
            return int(f.read().split()[2])
    return (largest("tcp_rmem") + 2 * largest("tcp_wmem")) // len(MEGA) + 1


BIG = max(32, kernel_buffers() + 16)


def digest_of(count):
    whole = hashlib.sha256()
    for _ in range(count):
        whole.update(MEGA)
    return whole.hexdigest()


def big_answer(framing):
    def answer(x):
        x.body()
        if framing == "counted":
            x.send(answers.head(fields=[("Content-Length", BIG * len(MEGA))]))
        elif framing == "chunked":
            x.send(answers.head(fields=[("Transfer-Encoding", "chunked")]))
        else:
            x.send(answers.head())
        for _ in range(BIG):
            x.send(chunk(MEGA) if framing == "chunked" else MEGA)
        if framing == "chunked":
            x.send(b"0\r\n\r\n")
        elif framing == "close":
            x.close()
    return answer


def assert_memory_is_bounded(site, before_kb):
    if not is_sanitized():
        grown = site.akashd.workers()[0].kb("VmRSS") - before_kb
        assert grown < 8192, f"the worker grew by {grown} KB"


@pytest.mark.parametrize("framing", ["counted", "chunked", "close"])
def test_big_answer_to_a_slow_reader_is_whole_and_costs_bounded_memory(shared_site, framing):
    site = shared_site
    before = site.akashd.workers()[0].kb("VmRSS")
    site.backend.answer(big_answer(framing))
    client = site.client(rcvbuf=65536, record=False)
    client.request()
    assert site.backend.blocked.wait(PATIENCE), "nothing held the backend back"
    assert site.backend.sent < BIG * len(MEGA)
    assert_memory_is_bounded(site, before)
    whole = hashlib.sha256()
    answer = client.response(sink=whole.update)
    assert answer.complete and whole.hexdigest() == digest_of(BIG)
    assert_memory_is_bounded(site, before)


@pytest.mark.parametrize("framing", ["counted", "chunked"])
def test_big_upload_to_a_slow_backend_is_whole_and_costs_bounded_memory(shared_site, framing):
    site = shared_site
    before = site.akashd.workers()[0].kb("VmRSS")
    go, whole = threading.Event(), hashlib.sha256()

    def answer(x):
        x.wait(go)
        x.body(sink=whole.update)
        answers.fixed(b"thanks")(x)
    site.backend.answer(answer)
    client = site.client(sndbuf=65536)
    sent = []

    def upload():
        field = ("Content-Length", BIG * len(MEGA)) if framing == "counted" else ("Transfer-Encoding", "chunked")
        client.send(build("PUT", "/big", [field]))
        for _ in range(BIG):
            client.send(MEGA if framing == "counted" else chunk(MEGA))
            sent.append(len(MEGA))
        if framing == "chunked":
            client.send(b"0\r\n\r\n")
    sender = threading.Thread(target=upload)
    sender.start()
    site.backend.wait_requests(1)
    assert_stands_still(lambda: len(sent))
    assert len(sent) < BIG, "nothing held the client back"
    assert_memory_is_bounded(site, before)
    go.set()
    sender.join(PATIENCE * 3)
    assert not sender.is_alive()
    assert client.response("PUT").body == b"thanks"
    assert whole.hexdigest() == digest_of(BIG)
    assert_memory_is_bounded(site, before)


def assert_stands_still(progress):
    """Wait until a count has not moved for 0.3 s."""
    last = [progress(), time.monotonic()]

    def still():
        if progress() != last[0]:
            last[:] = [progress(), time.monotonic()]
        return time.monotonic() - last[1] > 0.3
    until(still, "the upload to be held back", PATIENCE * 2)


def test_slow_sender_costs_nobody_else_anything(shared_site):
    shared_site.backend.always(answers.echo())
    slow = shared_site.client()
    slow.send(build("POST", "/slow", [("Content-Length", 4)]) + b"a")
    other = shared_site.client()
    for _ in range(20):
        assert other.ask().status == 200
    slow.send(b"bcd")
    assert slow.response("POST").body == b"abcd"


@pytest.mark.http1_client
def test_client_that_pipelines_and_does_not_read_costs_bounded_memory(shared_site):
    site, count = shared_site, 3000
    before = site.akashd.workers()[0].kb("VmRSS")
    site.backend.always(answers.fixed(b"x" * 16384))
    client = site.client(rcvbuf=65536, record=False)
    client.send(build("GET", "/") * count)  # about 100 KB: the kernel takes it
    assert_stands_still(lambda: len(site.backend.requests))
    assert_memory_is_bounded(site, before)
    for _ in range(count):
        assert len(client.response("GET").body) == 16384


# -- limits of connections


def test_client_connection_ends_after_its_number_of_requests(make_site):
    site = make_site(listener={"limits": {"requests_per_connection": 3}})
    client = site.client()
    assert [client.ask().closes for _ in range(3)] == [False, False, True]
    assert client.ended() == "fin"


def test_client_connection_ends_after_its_age(make_site):
    site = make_site(listener={"limits": {"max_age": "300ms"}})
    client = site.client()
    began = time.monotonic()
    answer = client.ask()
    try:
        while not answer.closes:
            answer = client.ask()
    except (Ended, Reset, OSError):
        pytest.fail("the connection ended without a word")
    assert 0.15 < time.monotonic() - began < PATIENCE
    assert client.ended() == "fin"


def test_backend_connection_ends_after_its_number_of_requests(make_site):
    site = make_site(upstream={"keepalive": {"requests": 2}})
    client = site.client()
    for _ in range(6):
        assert client.ask().status == 200
    assert [len(c.requests) for c in site.backend.connections] == [2, 2, 2]


def test_backend_connection_ends_after_its_lifetime(make_site):
    site = make_site(upstream={"keepalive": {"lifetime": "300ms"}})
    client = site.client()
    until(lambda: client.ask().status == 200 and len(site.backend.connections) > 1, "a second connection")
    assert site.backend.connections[0].quiet_end.wait(PATIENCE)


def test_no_more_backend_connections_are_kept_than_allowed(make_site):
    site = make_site(upstream={"keepalive": {"connections": 2}})
    gate = Gate()
    site.backend.always(gate.hold())
    clients = [site.client() for _ in range(6)]
    for client in clients:
        client.request()
    gate.wait_waiting(6)
    gate.release()
    assert [c.response().status for c in clients] == [200] * 6
    site.backend.wait(lambda b: sum(c.open for c in b.connections) == 2, "four of six to be closed")
    assert clients[0].ask().status == 200
    assert len(site.backend.connections) == 6


# -- real peers


@pytest.fixture(scope="module")
def nginx():
    server = Nginx("location / { dav_methods PUT; }")
    (server.root / "small").write_bytes(b"small file\n")
    with open(server.root / "big", "wb") as f:
        for _ in range(FILE):
            f.write(MEGA)
    yield server
    server.close()


@pytest.fixture
def curl_url(launch, nginx):
    port = free_port()
    launch(http_config(port, [nginx]))
    return f"http://127.0.0.1:{port}"


def test_curl_gets_nginx_files_by_hash(curl_url):
    for name, size in (("small", 11), ("big", FILE * len(MEGA))):
        got = curl(f"{curl_url}/{name}", text=False).stdout
        assert len(got) == size
    assert hashlib.sha256(got).hexdigest() == digest_of(FILE)


def test_curl_puts_files_into_nginx_by_hash(curl_url, nginx):
    for number, extra in enumerate(([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"], ["--http1.0"])):
        curl("-f", "-T", str(nginx.root / "big"), *extra, f"{curl_url}/copy{number}", "-o", "/dev/null")
        stored = (nginx.root / f"copy{number}").read_bytes()
        assert hashlib.sha256(stored).hexdigest() == digest_of(FILE), extra


def test_curl_head_ranges_and_conditions_against_nginx(curl_url):
    assert "content-length: 11" in curl("-I", f"{curl_url}/small").stdout.lower()
    assert curl("-r", "6-9", f"{curl_url}/small").stdout == "file"
    etag = [line for line in curl("-I", f"{curl_url}/small").stdout.splitlines()
            if line.lower().startswith("etag")][0]
    again = curl("-H", "If-None-Match: " + etag[6:].strip(), "-w", "%{http_code}", f"{curl_url}/small")
    assert again.stdout == "304"
    assert curl("--http1.0", f"{curl_url}/small").stdout == "small file\n"


def test_curl_keeps_its_connection(curl_url):
    done = curl(*[f"{curl_url}/small"] * 5, "-w", "%{num_connects}\n")
    connects = [line for line in done.stdout.splitlines() if line.isdigit()]
    assert connects == ["1", "0", "0", "0", "0"]


def test_curl_verifies_the_certificate(make_site):
    site = make_site(FRONTS[1])
    done = curl("--cacert", str(FRONTS[1].authority.file), "--resolve", f"localhost:{site.port}:127.0.0.1",
                f"https://localhost:{site.port}/")
    assert done.stdout == "ok"
