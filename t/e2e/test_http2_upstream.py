# SPDX-License-Identifier: Apache-2.0
"""Backends that speak HTTP/2: shared connections, their limits, their ends, and what is sent again."""

import hashlib
import os
import subprocess
import threading
import time

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from harness import BACKS, Client, Gate, ScriptedBackend, Site, backend as answers, curl, free_port, http_config, until
from harness.akashd import is_sanitized
from harness.client import build, chunk
from harness.fronts import FRONTS, FRONTS_OF_2
from harness.h2backend import H2Backend
from harness.h2frames import block, headers, request

H1, H2C = FRONTS[0], FRONTS_OF_2[0]
BACKS_OF_2 = [b for b in BACKS if b.version == 2]
MB = 1 << 20
SETTINGS_LIMIT = SettingCodes.MAX_CONCURRENT_STREAMS


@pytest.fixture
def make():
    """Sites with a backend of HTTP/2; settings are what it announces."""
    made = []

    def start(front=H2C, back=BACKS_OF_2[0], settings=None, **kw):
        made.append(Site(front, back, **kw))
        made[-1].backend.settings = settings
        return made[-1]
    yield start
    for site in made:
        site.close()


@pytest.fixture(params=[(f, b) for f in (H1, H2C) for b in BACKS_OF_2],
                ids=lambda p: f"{p[0].name}-{p[1].name}")
def any_site(request, make):
    return make(*request.param)


def ask_many(client, count, method="GET", body=None, target="/{}"):
    """count requests at once over one connection of HTTP/2."""
    for i in range(count):
        client.request(method, target.format(i), body=body)


def statuses(client, count):
    return [client.response().status for _ in range(count)]


def wait_open(site, count):
    site.akashd.wait_metric("akash_backend_open_connections", lambda v: v == count, backend=site.backend.address)


def wait_active(site, count):
    site.akashd.wait_metric("akash_backend_active_connections", lambda v: v == count, backend=site.backend.address)


def say_goaway(connection, last, code=0):
    """GOAWAY, without h2 taking the connection for closed."""
    side = connection.side
    with side.changed:
        side.out += GoAwayFrame(0, last_stream_id=last, error_code=code).serialize()
        side.flush()


# -- messages


def test_bodies_pass_whole_both_ways(any_site):
    sent = os.urandom(5 * MB)
    seen = hashlib.sha256()

    def answer(x):
        x.body(seen.update)
        x.send(answers.head(200, "OK", [("Content-Length", len(sent))]) + sent)
    any_site.backend.always(answer)
    got = any_site.client().ask("POST", "/", body=sent)
    assert got.status == 200
    assert hashlib.sha256(got.body).digest() == hashlib.sha256(sent).digest() == seen.digest()


def test_request_means_the_same(any_site):
    any_site.client().ask("PUT", "/a?b=c", [("Cookie", "x=1; y=2"), ("X-Own", "v"), ("TE", "trailers")], b"body")
    request = any_site.backend.wait_complete()[0]
    assert (request.method, request.target, request.body) == ("PUT", "/a?b=c", b"body")
    assert request.fields.get("Host") == "test"
    assert request.fields.get("cookie") == "x=1; y=2"
    assert request.fields.get("x-own") == "v"
    assert request.fields.get("te") == "trailers"
    assert request.fields.get("x-forwarded-for") == "127.0.0.1"
    assert request.pseudo.get(":scheme") == ("https" if any_site.back.name == "h2+tls" else "http")
    assert not {"connection", "transfer-encoding", "keep-alive", "host"} & {n for n, _ in request.fields if n != "Host"}


def test_trailers_pass_both_ways(any_site):
    any_site.backend.always(answers.chunked([b"a", b"b"], [("X-Sum", "1"), ("Authorization", "x")]))
    client = any_site.client()
    client.send(build("POST", "/", [("Transfer-Encoding", "chunked"), ("TE", "trailers")]))
    client.send(chunk(b"hello") + b"0\r\nX-Up: 2\r\n\r\n")
    got = client.response()
    assert (got.status, got.body) == (200, b"ab")
    assert got.trailers.get("x-sum") == "1" and "authorization" not in got.trailers
    assert any_site.backend.wait_complete()[0].trailers.get("x-up") == "2"


def test_interim_answers_pass(any_site):
    def answer(x):
        x.send(answers.head(103, "Early Hints", [("Link", "x")]))
        x.body()
        x.send(answers.head(200, "OK", [("Content-Length", 2)]) + b"ok")
    any_site.backend.answer(answer)
    got = any_site.client().ask("GET", "/")
    assert (got.status, got.body) == (200, b"ok")
    assert [i.status for i in got.interim] == [103]


def test_early_answer_ends_the_upload(any_site):
    refusal = answers.head(413, "No", [("Content-Length", 2)]) + b"no"
    any_site.backend.always(answers.early(refusal, then_read=False))
    client = any_site.client()
    client.send(build("POST", "/", [("Content-Length", str(64 * MB))]))
    client.try_send(b"x" * MB)
    got = client.response()
    assert (got.status, got.body) == (413, b"no")
    stream = any_site.backend.requests[0].stream
    until(lambda: stream.reset is not None, "the rest of the request to be given up")
    wait_active(any_site, 0)


def test_head_and_bodiless_answers(any_site):
    client = any_site.client()
    any_site.backend.answer(answers.fixed(b"12345"), answers.raw(answers.head(204, "No Content")),
                            answers.raw(answers.head(304, "Not Modified", [("Content-Length", 7)])))
    got = client.ask("HEAD", "/")
    assert (got.status, got.fields.get("content-length"), got.body) == (200, "5", b"")
    assert client.ask("GET", "/").status == 204
    assert client.ask("GET", "/").status == 304
    assert len(any_site.backend.connections) == 1


def test_slow_reader_holds_its_stream_back_alone(make):
    site = make()
    size = 48 * MB
    body = os.urandom(MB)

    def large(x):
        x.body()
        x.send(answers.head(200, "OK", [("Content-Length", size)]))
        for _ in range(size // MB):
            x.send(body)
    site.backend.answer(large)
    slow = site.client(rcvbuf=65536)
    slow.request("GET", "/large")
    head = slow.response_head()
    assert site.backend.blocked.wait(20), "the backend could send everything"
    assert site.backend.sent < 8 * MB
    if not is_sanitized():
        assert site.akashd.workers()[0].kb("VmRSS") < 48 * 1024
    for _ in range(20):
        assert site.client().ask("GET", "/").body == b"ok"
    assert len(site.backend.connections) == 1
    seen = hashlib.sha256()
    slow.response_body(head, seen.update)
    want = hashlib.sha256()
    for _ in range(size // MB):
        want.update(body)
    assert seen.digest() == want.digest()


def test_slow_backend_holds_the_upload_back(make):
    site = make()
    gate = threading.Event()

    def slow(x):
        x.wait(gate)
        x.body()
        x.send(answers.head(200, "OK", [("Content-Length", 2)]) + b"ok")
    site.backend.answer(slow)
    body = os.urandom(24 * MB)
    client = site.client()
    sender = threading.Thread(target=client.request, args=("POST", "/"), kwargs={"body": body}, daemon=True)
    sender.start()
    site.backend.wait_requests(1)
    taken = []

    def stalls():
        taken.append(site.backend.connections[0].side.count)
        return len(taken) > 5 and taken[-1] == taken[-5]
    until(stalls, "the upload to stall")
    assert taken[-1] < 4 * MB
    assert site.client().ask("GET", "/").body == b"ok"
    gate.set()
    sender.join(30)
    assert client.response().status == 200
    assert site.backend.wait_complete(2)[0].body == body


def test_answer_outlives_its_connection(make):
    """A backend that has said all closes; the client reads later."""
    site = make()
    body = os.urandom(100000)

    def answer(x):
        x.body()
        x.send(answers.head(200, "OK", [("Content-Length", len(body))]) + body)
        x.connection.close()
    site.backend.answer(answer)
    client = site.client(settings={SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    client.request("GET", "/")
    head = client.response_head()
    until(lambda: not site.backend.connections[0].open, "the backend to close")
    assert client.response_body(head).body == body
    wait_open(site, 0)


# -- connections


def test_streams_share_one_connection(make):
    site = make()
    gate = Gate()
    site.backend.always(gate.hold())
    client = site.client()
    ask_many(client, 60)
    gate.wait_waiting(60)
    assert len(site.backend.connections) == 1
    wait_open(site, 1)
    wait_active(site, 60)
    gate.release()
    assert statuses(client, 60) == [200] * 60
    wait_active(site, 0)


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_limit_of_the_settings_holds(make, limit):
    site = make(settings={SETTINGS_LIMIT: limit})
    gate = Gate()
    site.backend.always(gate.hold())
    client = site.client()
    ask_many(client, 40)
    gate.wait_waiting(40)
    assert len(site.backend.connections) == -(-40 // limit)
    assert all(len(c.requests) <= limit for c in site.backend.connections)
    gate.release()
    assert statuses(client, 40) == [200] * 40
    site.fence()
    assert not site.backend.malformed


def test_connection_of_no_stream_is_no_backend(make):
    site = make(settings={SETTINGS_LIMIT: 0})
    assert site.client().ask("GET", "/").status == 502
    site.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="connect_failed")


def test_cap_counts_connections(make):
    """max_connections is a cap of connections, each of which takes as many streams as the backend says."""
    site = make(settings={SETTINGS_LIMIT: 2})
    backend = {"address": site.backend.address, "max_connections": 2}
    site.akashd.reload(http_config(site.port, [backend], site.back.upstream()))
    gate = Gate()
    site.backend.always(gate.hold())
    client = site.client()
    for i in range(4):
        client.request("GET", f"/{i}")
        gate.wait_waiting(i + 1)
    extra = site.client().ask("GET", "/extra")
    assert extra.status == 503
    wait_open(site, 2)
    gate.release()
    assert statuses(client, 4) == [200] * 4
    site.fence()


def test_idle_connection_is_closed(make):
    site = make(upstream={"keepalive": {"idle": "300ms"}})
    gate = Gate()
    site.backend.answer(gate.hold())
    client = site.client()
    client.request("GET", "/")
    gate.wait_waiting(1)
    wait_open(site, 1)
    gate.release()
    assert client.response().status == 200
    wait_open(site, 0)
    assert site.backend.connections[0].quiet_end.wait(10)
    assert site.backend.connections[0].side.goaway is not None
    site.fence()
    assert len(site.backend.connections) == 2


def test_busy_connection_is_not_idle(make):
    site = make(upstream={"keepalive": {"idle": "100ms"}})
    gate = Gate()
    site.backend.answer(gate.hold())
    client = site.client()
    client.request("GET", "/")
    gate.wait_waiting(1)
    assert not site.backend.connections[0].quiet_end.wait(0.5)
    gate.release()
    assert client.response().status == 200


def test_connection_takes_so_many_requests(make):
    site = make(upstream={"keepalive": {"requests": 3}})
    client = site.client()
    for i in range(7):
        assert client.ask("GET", f"/{i}").status == 200
    assert [len(c.requests) for c in site.backend.connections] == [3, 3, 1]
    wait_open(site, 1)


def test_no_idle_connection_is_kept_where_none_may_be(make):
    site = make(upstream={"keepalive": {"connections": 0}})
    site.fence()
    site.fence()
    assert len(site.backend.connections) == 2
    wait_open(site, 0)


def test_least_conn_counts_streams(launch):
    gate = Gate()
    backends = [H2Backend(gate.hold()) for _ in range(2)]
    try:
        port = free_port()
        launch(http_config(port, backends, {"protocol": "h2", "algorithm": "least_conn"}))
        with H2C.connect(port) as client:
            for i in range(20):
                client.request("GET", f"/{i}")
                gate.wait_waiting(i + 1)
            assert [len(b.requests) for b in backends] == [10, 10]
            gate.release()
            assert statuses(client, 20) == [200] * 20
    finally:
        for b in backends:
            b.close()


def test_reload_lets_a_removed_backend_finish(make):
    site = make()
    other = H2Backend(answers.fixed(b"other"))
    try:
        gate = Gate()
        site.backend.always(gate.hold())
        client = site.client()
        ask_many(client, 30)
        gate.wait_waiting(30)
        site.akashd.reload(http_config(site.port, [other], site.back.upstream()))
        with H2C.connect(site.port) as after:
            assert after.ask("GET", "/").body == b"other"
        assert site.backend.connections[0].open
        gate.release()
        assert statuses(client, 30) == [200] * 30
        assert site.backend.connections[0].quiet_end.wait(10)
        assert site.backend.malformed == []
    finally:
        other.close()


def test_other_protocol_after_a_reload(make):
    """The same address, now HTTP/1: no connection of the old kind is used."""
    site = make()
    site.fence()
    plain = ScriptedBackend(answers.fixed(b"plain"))
    site.akashd.reload(http_config(site.port, [site.backend]))
    wait_open(site, 0)
    site.akashd.reload(http_config(site.port, [plain]))
    assert site.client().ask("GET", "/").body == b"plain"
    plain.close()


# -- ends


def test_goaway_loses_nothing_that_may_be_sent_again(make):
    """50 streams in flight; the backend takes the first 25 of them and no more."""
    site = make()
    gate = Gate()
    site.backend.always(gate.hold())
    client = site.client()
    ask_many(client, 50, "POST")
    gate.wait_waiting(50)
    first = site.backend.connections[0]
    ids = sorted(r.stream.id for r in first.requests)
    say_goaway(first, ids[24])
    site.backend.wait_requests(75)
    assert len(site.backend.connections) == 2
    gate.release()
    assert statuses(client, 50) == [200] * 50
    assert first.quiet_end.wait(10)
    wait_open(site, 1)
    site.akashd.wait_metric("akash_backend_served_total", lambda v: v == 50, backend=site.backend.address)
    assert site.akashd.metrics().value("akash_backend_failures_total", backend=site.backend.address) == 0


@pytest.mark.parametrize("size,expected", [(4, 200), (200000, 502)])
def test_what_goaway_leaves_out_is_sent_again_where_its_body_was_kept(make, size, expected):
    site = make()
    held = threading.Event()
    site.backend.answer(lambda x: (x.body(), x.wait(held)))
    client = site.client()
    body = os.urandom(size)
    client.request("POST", "/", body=body)
    site.backend.wait_complete(1)
    say_goaway(site.backend.connections[0], 0)
    assert client.response().status == expected
    assert [r.body == body for r in site.backend.requests] == [True] * (2 if expected == 200 else 1)


def refuse(x):
    """REFUSED_STREAM: nothing was done with it."""
    x.cancel(ErrorCodes.REFUSED_STREAM)
    x.stream.over.set()


def leave_out(x):
    """The same by a GOAWAY, which ends the connection too."""
    say_goaway(x.connection, 0)
    x.stream.over.set()


def test_refused_stream_is_sent_again(make):
    site = make()
    site.backend.answer(refuse, refuse, refuse)
    client = site.client()
    assert client.ask("POST", "/").status == 200
    assert len(site.backend.requests) == 4


def test_refusals_are_not_repeated_for_ever(make):
    site = make()
    site.backend.always(refuse)
    assert site.client().ask("GET", "/").status == 502
    assert len(site.backend.requests) <= 25
    wait_active(site, 0)


@pytest.mark.parametrize("how", [refuse, leave_out])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_budget_bounds_what_is_sent_again_because_it_was_refused(make, how, method):
    """A backend that takes nothing: ten tokens, and one a second, are all that it gets besides the requests."""
    site = make(upstream={"retry": {"budget": {"percent": 0, "min_per_second": 1}}}, workers=4)
    site.backend.always(how)
    began = time.monotonic()
    for _ in range(40):
        with site.front.connect(site.port) as client:
            assert client.ask(method, "/").status == 502
    took = time.monotonic() - began
    again = len(site.backend.requests) - 40
    assert 10 <= again <= 11 + took
    site.akashd.wait_metric("akash_retries_refused_total", lambda v: v >= 40 - 1 - took)
    wait_active(site, 0)


@pytest.mark.parametrize("how", [refuse, leave_out])
def test_nothing_that_was_refused_is_sent_again_without_a_budget(make, how):
    site = make(upstream={"retry": {"budget": {"percent": 0, "min_per_second": 0}}})
    site.backend.always(how)
    answer = site.client().ask("GET", "/")
    assert answer.status == 502 and "backend_reset" in answer.text
    assert len(site.backend.requests) == 1
    assert site.akashd.metrics().value("akash_retries_refused_total") == 1
    assert site.akashd.metrics().value("akash_backend_failures_total", backend=site.backend.address) == 1


@pytest.mark.parametrize("retry", [{"budget": {"percent": 0, "min_per_second": 0}}, False], ids=["no-budget", "off"])
def test_stale_connection_costs_no_token(make, retry):
    site = make(upstream={"retry": retry})
    site.fence()
    site.backend.answer(answers.reset())
    assert site.client().ask("GET", "/").status == 200
    assert len(site.backend.requests) == 3 and len(site.backend.connections) == 2


@pytest.mark.parametrize("how", [refuse, leave_out])
@pytest.mark.parametrize("method, is_used, expected", [("GET", True, 200), ("POST", True, 502), ("GET", False, 502)])
def test_with_retries_off_a_refusal_is_a_lost_connection(make, how, method, is_used, expected):
    """What had served before may have been stale; what is fresh was not."""
    site = make(upstream={"retry": False})
    if is_used:
        site.fence()
    site.backend.requests.clear()
    site.backend.answer(how)
    assert site.client().ask(method, "/").status == expected
    assert len(site.backend.requests) == (2 if expected == 200 else 1)


@pytest.mark.parametrize("code", [ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL, ErrorCodes.NO_ERROR])
def test_reset_stream_is_a_failure_of_its_own(make, code):
    site = make()
    gate = Gate()
    site.backend.answer(gate.hold(), lambda x: x.cancel(code))
    client = site.client()
    client.request("GET", "/held")
    gate.wait_waiting(1)
    client.request("POST", "/cut")
    site.backend.wait_requests(2)
    gate.release()
    assert statuses(client, 2) == [200, 502]
    assert len(site.backend.connections) == 1


def test_answer_that_is_reset_is_visibly_cut(any_site):
    def cut(x):
        x.body()
        x.send(answers.head(200, "OK", [("Content-Length", 1000)]) + b"x" * 10)
        x.cancel()
    any_site.backend.answer(cut)
    client = any_site.client()
    client.request("GET", "/")
    got = client.response_body(client.response_head())
    assert not got.complete
    any_site.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="response_cut")
    any_site.fence()
    assert len(any_site.backend.connections) == 1


@pytest.mark.parametrize("how", ["reset", "cut"])
def test_dead_connection_loses_only_what_may_not_be_repeated(make, how):
    site = make()
    site.fence()
    gate = Gate()
    site.backend.always(gate.hold())
    client = site.client()
    ask_many(client, 40)
    gate.wait_waiting(40)
    poster = site.client()
    poster.request("POST", "/post", body=b"x")
    gate.wait_waiting(41)
    site.backend.always(answers.fixed(b"again"))
    getattr(site.backend.connections[0], how)()
    gate.release()
    assert statuses(client, 40) == [200] * 40
    assert poster.response().status == 502
    wait_active(site, 0)
    wait_open(site, 1)


def test_dead_connection_without_a_second_one(make):
    """The backend is gone with 50 streams on its connection: each gets its answer, none is forgotten."""
    site = make()
    site.fence()
    gate = Gate()
    site.backend.always(gate.hold())
    client = site.client()
    ask_many(client, 50)
    gate.wait_waiting(50)
    site.backend.kill()
    gate.release()
    assert statuses(client, 50) == [502] * 50
    wait_active(site, 0)
    wait_open(site, 0)


def test_cancelled_request_is_reset_at_the_backend(make):
    site = make()
    held = threading.Event()
    site.backend.answer(lambda x: x.wait(held))
    client = site.client()
    client.request("GET", "/")
    request = site.backend.wait_requests(1)[0]
    client.cancel()
    until(lambda: request.stream.reset == ErrorCodes.CANCEL, "RST_STREAM")
    site.fence()
    assert len(site.backend.connections) == 1
    wait_active(site, 0)


def test_clients_that_leave_while_it_connects(launch):
    """Streams wait for a connection whose backend says nothing: all of them go, then one comes."""
    silent = ScriptedBackend(on_connect=lambda c: c.backend.closing.wait(20))
    try:
        port = free_port()
        akashd = launch(http_config(port, [silent], {"protocol": "h2", "timeouts": {"connect": "20s"}}))
        with H2C.connect(port) as client:
            ask_many(client, 20)
            akashd.wait_metric("akash_backend_active_connections", lambda v: v == 20, backend=silent.address)
            akashd.wait_metric("akash_backend_open_connections", lambda v: v == 1, backend=silent.address)
        akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0, backend=silent.address)
        akashd.wait_metric("akash_backend_open_connections", lambda v: v == 0, backend=silent.address)
    finally:
        silent.close()


def test_backend_without_settings_is_connected_no_longer_than_the_timeout(launch):
    silent = ScriptedBackend(on_connect=lambda c: c.backend.closing.wait(20))
    try:
        port = free_port()
        akashd = launch(http_config(port, [silent], {"protocol": "h2", "timeouts": {"connect": "300ms"}}))
        with H2C.connect(port) as client:
            assert client.ask("POST", "/").status == 504
        akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="connect_timeout")
    finally:
        silent.close()


def test_backend_of_http1_is_refused_and_the_next_one_asked(launch):
    plain, good = ScriptedBackend(), H2Backend()
    try:
        port = free_port()
        akashd = launch(http_config(port, [plain, good], {"protocol": "h2"}))
        with H2C.connect(port) as client:
            for _ in range(6):
                assert client.ask("POST", "/").status == 200
        akashd.wait_log("does not speak HTTP/2")
        assert len(good.requests) == 6
        assert plain.requests == []
    finally:
        plain.close()
        good.close()


def test_response_timeout_is_of_one_stream(make):
    site = make(upstream={"timeouts": {"response": "1s"}})
    held = threading.Event()
    site.backend.answer(lambda x: x.wait(held))
    client = site.client()
    client.request("GET", "/")
    site.backend.wait_requests(1)
    site.fence()
    assert client.response().status == 504
    assert len(site.backend.connections) == 1


def test_silent_connection_is_pinged_and_given_up(launch):
    """A backend that goes without a word, with a stream open, is found by PING."""
    gate = Gate()

    def sleep(x):
        with x.connection.side.changed:
            x.connection.side._take = lambda got: True  # hears, and says nothing
        gate.hold()(x)
    deaf = H2Backend(answers.fixed(b"ok"))
    try:
        port = free_port()
        akashd = launch(http_config(port, [deaf], {"protocol": "h2", "timeouts": {"connect": "500ms", "response": 0}}))
        with H2C.connect(port) as client:
            assert client.ask("GET", "/").status == 200
            deaf.answer(sleep)
            began = time.monotonic()
            client.request("GET", "/deaf")
            head = client.side.head(client.asked[0][1], 30)
            assert head.get(":status") == "200" and 14 < time.monotonic() - began < 25
        assert len(deaf.connections) == 2
        akashd.wait_metric("akash_backend_open_connections", lambda v: v == 1, backend=deaf.address)
    finally:
        deaf.close()


# -- malformed answers


@pytest.mark.parametrize("pairs", [
    [(":status", "200"), ("connection", "close")],
    [(":status", "200"), ("transfer-encoding", "chunked")],
    [(":status", "200"), ("X-Upper", "a")],
    [(":status", "200"), ("x", "a\r\nb: c")],
    [(":status", "200"), ("x", "a\0b")],
    [(":status", "20")],
    [(":status", "101")],
    [("x", "y")],
    [(":status", "200"), (":path", "/")],
    [(":status", "200"), ("content-length", "5"), ("content-length", "6")],
], ids=lambda p: p[-1][0].strip(":") + "-" + p[-1][1][:8].encode().hex())
def test_malformed_answer_is_a_502(make, pairs):
    site = make()
    is_last = (":status", "101") not in pairs
    site.backend.answer(lambda x: (x.side.send_head(x.stream, pairs, is_last), x.stream.over.wait(10)))
    client = site.client()
    assert client.ask("GET", "/").status == 502
    site.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="bad_response")
    site.fence()
    assert len(site.backend.connections) == 1


@pytest.mark.parametrize("length,sent", [(10, 5), (5, 10)])
def test_length_that_does_not_hold_cuts_the_answer(make, length, sent):
    site = make()

    def answer(x):
        x.side.send_head(x.stream, [(":status", "200"), ("content-length", str(length))])
        x.side.send_body(x.stream, b"x" * sent, True)
    site.backend.answer(answer)
    client = site.client()
    client.request("GET", "/")
    head = client.response_head()
    assert head.status == 502 or not client.response_body(head).complete
    site.fence()


# -- others


@pytest.fixture
def nghttpd(tmp_path):
    (tmp_path / "large").write_bytes(os.urandom(3 * MB))
    tmp_path.chmod(0o755)
    port = free_port()
    process = subprocess.Popen(["nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", str(tmp_path), str(port)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_up():
        try:
            Client(port).close()
            return True
        except OSError:
            return False
    try:
        until(is_up, "nghttpd")
        yield f"127.0.0.1:{port}", tmp_path
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("options", [[], ["--http2-prior-knowledge"]], ids=["http1", "h2c"])
def test_nghttpd_serves_curl(launch, nghttpd, options):
    address, folder = nghttpd
    port = free_port()
    launch(http_config(port, [address], {"protocol": "h2"}))
    out = folder / "got"
    curl(*options, "-o", str(out), f"http://127.0.0.1:{port}/large")
    assert out.read_bytes() == (folder / "large").read_bytes()


def test_h2load_through_two_workers(launch, nghttpd):
    address, _ = nghttpd
    port = free_port()
    akashd = launch(http_config(port, [address], {"protocol": "h2"}, workers=2))
    done = subprocess.run(["h2load", "-n", "4000", "-c", "8", "-m", "32", f"http://127.0.0.1:{port}/none"],
                          stdout=subprocess.PIPE, text=True, timeout=120, check=True).stdout
    assert "4000 done" in done and "0 errored" in done and "4000 4xx" in done, done
    assert akashd.metrics().value("akash_backend_open_connections", backend=address) <= 8
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0, backend=address)


def test_client_whose_answer_lacks_only_its_end_may_be_closed_as_idle(make):
    """It has the answer whole by its Content-Length; the backend still owes the END_STREAM."""
    site, gate = make(listener={"max_connections": 1}, workers=1), Gate()

    def answer(exchange):
        exchange.side.send_head(exchange.stream, [(":status", "200"), ("content-length", "5")])
        exchange.side.send_body(exchange.stream, b"hello")
        gate.hold(lambda x: x.side.send_body(x.stream, b"", True))(exchange)
    site.backend.answer(answer)
    with H2C.frames(site.port) as peer:
        peer.put(headers(1, block(request())))
        peer.expect_answer(1, 200, b"hello")
        site.backend.answer(answers.fixed(b"ok"))
        assert site.client().ask().body == b"ok"  # the first has made room
        peer.expect_end()
    gate.release()
