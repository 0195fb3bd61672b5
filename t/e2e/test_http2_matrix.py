# SPDX-License-Identifier: Apache-2.0
"""Every protocol of a client with every protocol of a backend: the same message goes through each pair."""

import hashlib
import threading

import pytest

from harness import BACKS, FRONTS, PATIENCE, Gate, Site, Way, backend as answers
from harness.client import build, chunk

MEGA = hashlib.sha256(b"matrix").digest() * 32768
BIG = 16
FRONT = {front.name: front for front in FRONTS}
BACK = {back.name: back for back in BACKS}
PAIRS = [Way(FRONT[front], BACK[back]) for front in ("http", "h2c", "h2") for back in ("http1", "h2c", "h2+tls")]


@pytest.fixture(scope="module", params=PAIRS, ids=lambda way: way.name)
def way_site(request):
    """The fixture of conftest.py, over all pairs."""
    made = Site(request.param.front, request.param.back)
    yield made
    made.close()


@pytest.fixture(scope="module", params=PAIRS, ids=lambda way: way.name)
def hasty_way_site(request):
    """The same with a short deadline for answers and for bodies."""
    way = request.param
    made = Site(way.front, way.back, upstream={"timeouts": {"response": "500ms", "response_body": "500ms"}},
                listener={"timeouts": {"request_body": "500ms"}})
    yield made
    made.close()


@pytest.fixture
def hasty_site(hasty_way_site):
    hasty_way_site.fresh()
    yield hasty_way_site
    hasty_way_site.akashd.assert_clean()


def abandon(client):
    """What a client does that wants no answer any more."""
    if hasattr(client, "cancel"):
        client.cancel()
    else:
        client.reset()


def is_usable(site, client):
    """The connection of a client of HTTP/2 outlives what befell one stream; another of HTTP/1 is opened."""
    client = client if site.front.version == 2 else site.client()
    return client.ask(target="/next").body == b"ok"


def digest(pieces):
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece)
    return whole.hexdigest()


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 200000])
def test_bodies_of_known_length_go_both_ways(shared_site, size):
    shared_site.backend.answer(answers.echo())
    body = MEGA[:size]
    answer = shared_site.client().ask("POST", "/a?b=c", body=body)
    assert (answer.status, answer.complete, answer.body, answer.framing) == (200, True, body, size)
    request, = shared_site.backend.requests
    assert (request.method, request.target, request.framing, request.complete) == ("POST", "/a?b=c", size, True)
    assert not shared_site.backend.malformed


def test_bodies_of_unknown_length_go_both_ways(shared_site):
    shared_site.backend.answer(lambda x: answers.chunked([x.body()[:5], b"+", x.body()[5:]])(x))
    client = shared_site.client()
    client.send(build("POST", "/", [("Transfer-Encoding", "chunked")]) + chunk(b"hello"))
    shared_site.backend.wait_requests(1)
    client.send(chunk(MEGA[:70000]) + b"0\r\n\r\n")
    answer = client.response("POST")
    assert answer.complete and answer.body == b"hello+" + MEGA[:70000]
    assert shared_site.backend.requests[0].framing == "chunked"


def test_trailers_go_both_ways(shared_site):
    shared_site.backend.answer(answers.chunked([b"x"], trailers=[("X-Down", "2")]))
    client = shared_site.client()
    client.send(build("POST", "/", [("Transfer-Encoding", "chunked"), ("TE", "trailers"), ("Connection", "TE")])
                + chunk(b"up") + b"0\r\nX-Up: 1\r\nAuthorization: no\r\n\r\n")
    answer = client.response("POST")
    assert answer.body == b"x" and answer.trailers.get("X-Down") == "2"
    request, = shared_site.backend.wait_complete()
    assert request.body == b"up" and [(n.lower(), v) for n, v in request.trailers] == [("x-up", "1")]
    assert "X-Up" not in request.fields and "X-Down" not in answer.fields


def test_head_and_answers_without_a_body(shared_site):
    shared_site.backend.answer(answers.fixed(b"12345"), answers.raw(answers.head(304, "N", [("ETag", '"x"')])),
                               answers.raw(answers.head(204, "N")))
    client = shared_site.client()
    answer = client.ask("HEAD")
    assert (answer.status, answer.body, answer.fields.get("Content-Length")) == (200, b"", "5")
    assert [client.ask().status for _ in range(3)] == [304, 204, 200]


def test_interim_answers_come_before_the_answer(shared_site):
    def answer(x):
        x.send(answers.head(103, "Early Hints", [("Link", "</a>")]) + answers.head(100, "Continue"))
        answers.echo()(x)
    shared_site.backend.answer(answer)
    client = shared_site.client()
    client.send(build("POST", "/", [("Expect", "100-continue"), ("Content-Length", 4)]))
    assert client.interim().fields.get("Link") == "</a>"
    client.send(b"body", "POST")
    answer = client.response("POST")
    assert (answer.status, answer.body) == (200, b"body")


def test_answer_before_the_upload_has_ended(shared_site):
    shared_site.backend.answer(answers.early(answers.head(413, "No", [("Content-Length", 3)]) + b"big"))
    client = shared_site.client()
    client.send(build("POST", "/", [("Content-Length", 100000)]) + b"x" * 1000, "POST")
    answer = client.response("POST")
    assert (answer.status, answer.body, answer.complete) == (413, b"big", True)
    client.try_send(b"x" * 99000)
    assert is_usable(shared_site, client)


def test_client_that_gives_up_takes_its_exchange_along(shared_site):
    shared_site.backend.answer(answers.stall(answers.head(fields=[("Content-Length", 9)]) + b"part"))
    client, other = shared_site.client(), shared_site.client()
    client.request()
    request, = shared_site.backend.wait_requests(1)
    abandon(client)
    assert request.gone.wait(PATIENCE)
    assert other.ask().body == b"ok"
    assert is_usable(shared_site, client)


def test_client_that_gives_up_in_its_upload_is_not_taken_for_whole(shared_site):
    client = shared_site.client()
    client.send(build("POST", "/", [("Transfer-Encoding", "chunked")]) + chunk(b"part"))
    request, = shared_site.backend.wait_requests(1)
    abandon(client)
    assert request.gone.wait(PATIENCE)
    assert is_usable(shared_site, client)
    assert not request.complete


@pytest.mark.parametrize("framing", [("Content-Length", 100), ("Transfer-Encoding", "chunked")], ids=["counted", "open"])
def test_answer_that_breaks_off_is_cut_visibly(shared_site, framing):
    part = b"part" if framing[0] == "Content-Length" else chunk(b"part")

    def answer(x):
        x.send(answers.head(fields=[framing]) + part)
        go.wait(PATIENCE)
        x.cancel() if hasattr(x, "cancel") else x.reset()
    go = threading.Event()
    shared_site.backend.answer(answer)
    client = shared_site.client()
    client.request()
    head = client.response_head()
    go.set()
    answer = client.response_body(head)
    assert answer.status == 200 and not answer.complete and answer.body == b"part"
    assert is_usable(shared_site, client)


def test_answer_that_does_not_come_is_504(hasty_site):
    hasty_site.backend.answer(answers.stall())
    client = hasty_site.client()
    answer = client.ask("POST", body=b"order")
    assert answer.status == 504 and "response_timeout" in answer.text
    assert hasty_site.backend.requests[0].gone.wait(PATIENCE)
    assert is_usable(hasty_site, client)


def test_answer_that_stops_is_cut_by_its_deadline(hasty_site):
    hasty_site.backend.answer(answers.stall(answers.head(fields=[("Content-Length", 10)]) + b"hello"))
    client = hasty_site.client()
    answer = client.ask()
    assert answer.status == 200 and answer.body == b"hello" and not answer.complete
    assert is_usable(hasty_site, client)


def test_upload_that_stops_is_408(hasty_site):
    client = hasty_site.client()
    client.send(build("POST", "/", [("Content-Length", 10)]) + b"a")
    answer = client.response("POST")
    assert answer.status == 408 and "body_timeout" in answer.text
    assert is_usable(hasty_site, client)
    assert not [r for r in hasty_site.backend.requests if r.target == "/" and r.complete]


def test_stalled_exchange_does_not_hold_up_another(shared_site):
    """One client's answers wait in akashd for as long as it reads none of them."""
    def answer(x):
        answers.fixed(MEGA * 2 if x.request.target == "/big" else b"ok")(x)
    shared_site.backend.always(answer)
    slow, quick = shared_site.client(rcvbuf=65536), shared_site.client()
    slow.request(target="/big")
    shared_site.backend.wait_requests(1)
    for _ in range(20):
        assert quick.ask().body == b"ok"
    assert slow.response().body == MEGA * 2


def test_exchanges_side_by_side_keep_their_bodies(shared_site):
    gate = Gate()
    shared_site.backend.always(gate.hold(answers.echo()))
    clients = [shared_site.client() for _ in range(10)]
    for number, client in enumerate(clients):
        client.request("POST", f"/{number}", body=b"%d" % number * 3000)
    gate.wait_waiting(10)
    gate.release()
    assert [c.response("POST").body for c in clients] == [b"%d" % n * 3000 for n in range(10)]


def test_big_transfers_are_whole(shared_site):
    uploaded = hashlib.sha256()

    def answer(x):
        x.body(sink=uploaded.update)
        x.send(answers.head(fields=[("Content-Length", BIG * len(MEGA))]))
        for _ in range(BIG):
            x.send(MEGA)
    shared_site.backend.answer(answer)
    client = shared_site.client(record=False)
    client.send(build("PUT", "/big", [("Content-Length", BIG * len(MEGA))]))
    for _ in range(BIG):
        client.send(MEGA)
    downloaded = hashlib.sha256()
    answer = client.response("PUT", sink=downloaded.update)
    assert answer.complete
    assert uploaded.hexdigest() == downloaded.hexdigest() == digest([MEGA] * BIG)
