# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 with clients: streams side by side, flow control, ends and limits. What it says about HTTP as such
is in the other files, whose tests run over the fronts of HTTP/2 as well; frames that no good client sends are in
test_http2_conformance.py."""

import hashlib
import re
import signal
import subprocess
import threading

import pytest
from h2.settings import SettingCodes
from harness import PATIENCE, Gate, Site, backend as answers, curl, until
from harness.client import build, chunk
from harness.fronts import FRONTS, FRONTS_OF_1, FRONTS_OF_2
from harness.h2frames import (END_HEADERS, GOAWAY, Code, block, data, headers, literal, ping, request, rst_stream,
                              settings, window_update)

H2C = FRONTS_OF_2[0]
MEGA = bytes(range(256)) * 4096
LAST = 2**31 - 1


@pytest.fixture(scope="module", params=FRONTS_OF_2, ids=lambda f: f.name)
def way_site(request):
    """The fixture of conftest.py, over the fronts of HTTP/2."""
    made = Site(request.param)
    yield made
    made.close()


def url(site, path="/"):
    return f"{site.front.scheme}://127.0.0.1:{site.port}{path}"


def by_curl(site, *args, path="/", **kw):
    how = ["--insecure"] if site.front.scheme == "https" else ["--http2-prior-knowledge"]
    return curl(*how, "-w", "%{stderr}%{http_version} %{http_code}", *args, url(site, path), **kw)


# -- who speaks it


def test_curl_is_answered_over_http2(shared_site):
    done = by_curl(shared_site)
    assert (done.stdout, done.stderr) == ("ok", "2 200")
    got = shared_site.backend.requests[0]
    assert (got.method, got.target, got.version) == ("GET", "/", "1.1")
    assert got.fields.all("Host") == [f"127.0.0.1:{shared_site.port}"]


@pytest.mark.parametrize("front", FRONTS_OF_1, ids=lambda f: f.name)
def test_http1_is_spoken_on_the_same_port(make_site, front):
    site = make_site(front)
    assert site.client().ask().body == b"ok"
    with (FRONTS_OF_2[FRONTS_OF_1.index(front)]).connect(site.port) as client:
        assert client.ask().body == b"ok"


def test_preface_that_drips_is_known(make_site):
    site = make_site()
    with H2C.frames(site.port, start=False) as peer:
        for octet in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":
            peer.send(bytes([octet]))
        peer.put(settings(), headers(1, block(request())))
        peer.expect_answer(1, 200, b"ok")


@pytest.mark.parametrize("begin", [b"P", b"PR", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"])
def test_preface_that_stops_is_a_head_that_is_too_slow(make_site, begin):
    site = make_site(listener={"timeouts": {"header": "300ms"}})
    client = site.client()
    client.send(begin)
    assert client.response("GET").status in (400, 408)
    assert client.ended() == "fin"


def test_method_that_begins_as_the_preface_is_http1(make_site):
    site = make_site()
    client = site.client()
    for piece in (b"P", b"R", b"OPFIND / HTTP/1.1\r\nHost: x\r\n\r\n"):
        client.send(piece, "PROPFIND")
    assert client.response("PROPFIND").body == b"ok"
    assert site.backend.requests[0].method == "PROPFIND"


def test_http2_false_leaves_http1_alone(make_site):
    site = make_site(listener={"http2": False})
    done = curl("--http2-prior-knowledge", f"http://127.0.0.1:{site.port}/", check=False)
    assert done.returncode != 0
    assert site.client().ask().body == b"ok"
    secure = make_site(FRONTS[1], listener={"http2": False})
    done = curl("--insecure", "-w", "%{stderr}%{http_version}", url(secure))
    assert (done.stdout, done.stderr) == ("ok", "1.1")


def test_nghttp_is_answered(shared_site):
    done = subprocess.run(["nghttp", "-nv", "--no-verify-peer", url(shared_site)], capture_output=True, text=True, timeout=60)
    assert re.search(r":status: 200", done.stdout), done.stdout + done.stderr


def test_log_says_which_version_was_spoken(make_site, tmp_path):
    log = tmp_path / "access.log"
    site = make_site(H2C, access_log={"target": str(log), "format": "json"})
    assert site.client().ask(target="/seen").body == b"ok"
    until(lambda: '"path":"/seen","protocol":"HTTP/2.0","status":200' in log.read_text(), "the line")


# -- streams side by side


def test_hundreds_of_streams_are_served_at_once(make_site):
    gate = Gate()
    site = make_site(H2C, listener={"limits": {"http2_streams": 300}})
    site.backend.always(gate.hold())
    client = site.client()
    for n in range(300):
        client.request(target=f"/{n}")
    gate.wait_waiting(300)
    gate.release()
    assert [client.response().body for _ in range(300)] == [b"ok"] * 300
    assert sorted(r.target for r in site.backend.requests) == sorted(f"/{n}" for n in range(300))


def test_streams_beyond_the_limit_are_refused(make_site):
    gate = Gate()
    site = make_site(H2C, listener={"limits": {"http2_streams": 3}})
    site.backend.always(gate.hold())
    with H2C.frames(site.port) as peer:
        assert peer.theirs[3] == 3
        peer.put(*[headers(n, block(request())) for n in (1, 3, 5, 7)])
        peer.expect_stream_error(7, Code.REFUSED_STREAM, Code.PROTOCOL_ERROR)
    gate.release()
    site.fence()
    assert site.akashd.metrics().value("akash_requests_total", listener="web", code="200") <= 4


def test_h2load_finds_every_request_answered(shared_site):
    done = subprocess.run(["h2load", "-n2000", "-c8", "-m32", url(shared_site)], capture_output=True, text=True, timeout=120)
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout, done.stdout + done.stderr


def test_answer_that_nobody_reads_does_not_stall_its_sibling(shared_site):
    site = shared_site

    def answer(x):
        x.body()
        body = MEGA * 8 if x.request.target == "/big" else b"small"
        x.send(answers.head(fields=[("Content-Length", len(body))]) + body)
    site.backend.always(answer)
    client = site.client(record=False)
    client.request(target="/big")
    assert site.backend.blocked.wait(PATIENCE), "nothing held the backend back"
    for n in range(20):
        client.request(target=f"/{n}")
        client.asked.insert(0, client.asked.pop())
        assert client.response().body == b"small"
    whole = hashlib.sha256()
    answer = client.response(sink=whole.update)
    assert answer.complete and whole.digest() == hashlib.sha256(MEGA * 8).digest()


def test_upload_that_nobody_takes_does_not_stall_its_sibling(shared_site):
    site, go = shared_site, threading.Event()

    def answer(x):
        if x.request.target == "/up":
            x.wait(go)
        answers.echo()(x)
    site.backend.always(answer)
    client = site.client(record=False)
    up = threading.Thread(target=lambda: client.request("PUT", "/up", body=MEGA * 8))
    up.start()
    site.backend.wait_requests(1)
    other = site.client()
    for n in range(10):
        assert other.ask("PUT", f"/{n}", body=b"quick").body == b"quick"
    with client.side.changed:
        stream = client.side.open([(":method", "GET"), (":scheme", site.front.scheme), (":path", "/side"),
                                   (":authority", "test")], True)
    assert client.side.head(stream).get(":status") == "200"
    go.set()
    up.join(PATIENCE * 3)
    whole = hashlib.sha256()
    assert client.response(sink=whole.update).complete
    assert whole.digest() == hashlib.sha256(MEGA * 8).digest()


# -- bodies


@pytest.mark.parametrize("window", [1, 1000, 65535, 1 << 20])
def test_answer_is_whole_whatever_the_window(shared_site, window):
    size = 3000 if window == 1 else len(MEGA)
    shared_site.backend.answer(answers.fixed(MEGA[:size]))
    with shared_site.front.connect(shared_site.port, settings={SettingCodes.INITIAL_WINDOW_SIZE: window}) as client:
        assert client.ask().body == MEGA[:size]


def test_upload_without_length_becomes_chunks_and_keeps_its_trailers(shared_site):
    shared_site.backend.answer(answers.echo())
    client = shared_site.client()
    client.send(build("POST", "/", [("Transfer-Encoding", "chunked")]) + chunk(b"one ") + chunk(b"two") +
                b"0\r\nX-Sum: 7\r\n\r\n")
    assert client.response().body == b"one two"
    got = shared_site.backend.requests[0]
    assert got.framing == "chunked" and got.trailers == [("x-sum", "7")]


def test_trailers_of_the_answer_arrive(shared_site):
    shared_site.backend.answer(answers.chunked([b"a" * 5000, b"b"], trailers=[("X-Sum", "12")]))
    answer = shared_site.client().ask()
    assert (answer.body, list(answer.trailers)) == (b"a" * 5000 + b"b", [("x-sum", "12")])


def test_cookies_are_one_field(shared_site):
    with shared_site.front.frames(shared_site.port) as peer:
        peer.put(headers(1, block(request("GET", "/", ("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")))))
        peer.expect_answer(1, 200, b"ok")
    assert shared_site.backend.requests[0].fields.all("Cookie") == ["a=1; b=2"]


def test_body_that_is_not_of_its_length_is_cut_off(shared_site):
    with shared_site.front.frames(shared_site.port) as peer:
        fields = block(request("POST", "/", ("content-length", "10")))
        peer.put(headers(1, fields, END_HEADERS), data(1, b"x" * 9, 1))
        peer.expect_stream_error(1, Code.PROTOCOL_ERROR)
        peer.put(headers(3, fields, END_HEADERS), data(3, b"x" * 11, 0))
        peer.expect_stream_error(3, Code.PROTOCOL_ERROR)
    shared_site.fence()
    assert not [r for r in shared_site.backend.requests if r.method == "POST" and r.complete]


def test_answer_before_the_end_of_the_upload_ends_the_upload(shared_site):
    shared_site.backend.answer(answers.early(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"))
    with shared_site.front.frames(shared_site.port) as peer:
        peer.put(headers(1, block(request("POST")), END_HEADERS), data(1, b"some"))
        answer = peer.expect_answer(1, 403, b"no")
        peer.read_until(lambda: answer.reset is not None, "RST_STREAM")
        assert answer.reset == Code.NO_ERROR
        peer.put(data(1, b"more"), headers(3, block(request())))
        peer.expect_answer(3, 200, b"ok")


# -- ends that are no good


def test_cancelled_stream_gives_its_backend_up_and_no_other(shared_site):
    gate = Gate()
    shared_site.backend.always(lambda x: (gate.hold() if x.request.target == "/stays" else answers.stall())(x))
    client = shared_site.client()
    client.request(target="/stays")
    client.request(target="/goes")
    shared_site.backend.wait_requests(2)
    client.cancel()
    gone = next(r for r in shared_site.backend.requests if r.target == "/goes")
    assert gone.gone.wait(PATIENCE)
    gate.release()
    assert client.response().body == b"ok"


def test_client_that_goes_away_gives_up_all_its_exchanges(shared_site):
    shared_site.backend.always(answers.stall())
    client = shared_site.client()
    for n in range(5):
        client.request(target=f"/{n}")
    shared_site.backend.wait_requests(5)
    client.reset()
    for got in list(shared_site.backend.requests):
        assert got.gone.wait(PATIENCE)


def test_answer_that_is_cut_is_reset_not_ended(shared_site):
    shared_site.backend.answer(answers.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", then="close"))
    with shared_site.front.frames(shared_site.port) as peer:
        peer.put(headers(1, block(request())))
        answer = peer.answer(1)
        peer.read_until(lambda: answer.reset is not None, "RST_STREAM")
        assert (answer.reset, answer.body, answer.is_complete) == (Code.INTERNAL_ERROR, b"part", False)
        peer.put(headers(3, block(request())))
        peer.expect_answer(3, 200, b"ok")


def test_failure_is_answered_with_its_reason_on_its_own_stream(shared_site):
    shared_site.backend.answer(answers.close())
    client = shared_site.client()
    answer = client.ask("POST", body=b"order")  # is not sent again
    assert answer.status == 502 and b"reason: backend_reset" in answer.body
    assert client.ask().body == b"ok"


def test_head_that_is_too_large_is_431_and_the_connection_lives(shared_site):
    client = shared_site.client()
    answer = client.ask(fields=[("X-Big", "b" * 40000)])
    assert answer.status == 431
    assert client.ask().body == b"ok"


# -- deadlines


def test_block_that_never_ends_is_cut(make_site):
    site = make_site(H2C, listener={"timeouts": {"header": "300ms"}})
    with H2C.frames(site.port) as peer:
        peer.put(headers(1, block(request()), 1))
        peer.read_until(lambda: peer.goaways, "GOAWAY")
        peer.expect_end()
    assert site.akashd.metrics().value("akash_failures_total", reason="header_timeout") >= 1


def test_upload_that_stops_is_408_and_siblings_go_on(make_site):
    site = make_site(H2C, listener={"timeouts": {"request_body": "300ms"}})
    with H2C.frames(site.port) as peer:
        peer.put(headers(1, block(request("POST")), END_HEADERS), data(1, b"x"))
        peer.expect_answer(1, 408)
        peer.put(headers(3, block(request())))
        peer.expect_answer(3, 200, b"ok")


def test_stream_whose_window_stays_shut_is_reset(make_site):
    site = make_site(H2C, listener={"timeouts": {"send": "400ms"}})
    site.backend.always(answers.fixed(b"x" * 100000))
    with H2C.frames(site.port, pairs=[(4, 10)]) as peer:
        peer.put(headers(1, block(request())))
        answer = peer.answer(1)
        peer.read_until(lambda: answer.reset is not None, "RST_STREAM")
        assert (answer.reset, len(answer.body)) == (Code.CANCEL, 10)
        peer.expect_alive()
    site.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="send_timeout")


def test_idle_connection_is_ended_with_goaway(make_site):
    site = make_site(H2C, listener={"timeouts": {"idle": "300ms"}})
    with H2C.frames(site.port) as peer:
        peer.put(headers(1, block(request())))
        peer.expect_answer(1, 200, b"ok")
        peer.expect_connection_error(Code.NO_ERROR)


# -- going away


def in_two_steps(peer):
    """Both GOAWAYs, and the last stream that the second names."""
    peer.read_until(lambda: len(peer.goaways) == 2, "the second GOAWAY")
    assert [g.code for g in peer.goaways] == [Code.NO_ERROR] * 2 and peer.goaways[0].last == LAST
    return peer.goaways[1].last


def answer_pings(peer):
    """Acknowledge what has been asked so far."""
    peer.read_until(lambda: [f for f in peer.seen if f.kind == 6 and not f.flags], "PING")
    peer.put(ping(next(f for f in peer.seen if f.kind == 6 and not f.flags).payload, 1))


@pytest.mark.parametrize("acknowledges", [True, False])
def test_shutdown_says_goaway_twice_and_serves_what_runs(make_site, acknowledges):
    site, gate = make_site(H2C), Gate()
    site.backend.always(gate.hold())
    with H2C.frames(site.port) as peer:
        peer.put(headers(1, block(request())))
        gate.wait_waiting(1)
        site.akashd.send(signal.SIGTERM)
        peer.read_until(lambda: peer.goaways, "the first GOAWAY")
        peer.put(headers(3, block(request())))  # it was on its way
        gate.wait_waiting(2)
        if acknowledges:
            answer_pings(peer)
        assert in_two_steps(peer) == 3
        gate.release()
        for n in (1, 3):
            peer.read_until(lambda n=n: peer.answer(n).is_complete, "the answer")
            assert peer.answer(n).body == b"ok"
        peer.expect_end()
    assert site.akashd.wait_exit() == 0


@pytest.mark.parametrize("limit", [{"requests_per_connection": 2}, {"max_age": "1ms"}])
def test_connection_that_is_used_up_goes_away_without_losing_a_request(make_site, limit):
    site = make_site(H2C, listener={"limits": limit})
    with H2C.frames(site.port) as peer:
        asked = []
        while not peer.goaways:
            asked.append(2 * len(asked) + 1)
            peer.put(headers(asked[-1], block(request())))
            peer.read_until(lambda: peer.answer(asked[-1]).is_complete, "the answer")
        peer.read_until(lambda: len(peer.goaways) == 2, "the second GOAWAY")
        assert in_two_steps(peer) == asked[-1]
        assert "max_age" in limit or len(asked) == 2
        peer.expect_end()


def test_reload_keeps_connections_and_their_streams(make_site):
    site, gate = make_site(H2C), Gate()
    site.backend.answer(gate.hold())
    client = site.client()
    client.request(target="/long")
    gate.wait_waiting(1)
    for _ in range(3):
        site.akashd.reload()
    gate.release()
    assert client.response().body == b"ok" and client.ask().body == b"ok"
    assert client.side.goaway is None


def test_clients_of_a_removed_listener_are_sent_away(make_site):
    site, gate = make_site(H2C), Gate()
    site.backend.answer(gate.hold())
    with H2C.frames(site.port) as peer:
        peer.put(headers(1, block(request())))
        gate.wait_waiting(1)
        config = site.akashd.config
        config["listeners"][0]["name"] = "other"
        site.akashd.reload(config)
        answer_pings(peer)
        assert in_two_steps(peer) == 1
        gate.release()
        peer.read_until(lambda: peer.answer(1).is_complete, "the answer")
        peer.expect_end()


def test_idle_client_makes_room_when_connections_are_many(make_site):
    site = make_site(H2C, listener={"max_connections": 1}, workers=1)
    first = site.client()
    assert first.ask().body == b"ok"
    assert site.client().ask().body == b"ok"
    assert first.ended() in ("fin", "rst")
    assert first.side.goaway is not None


# -- floods


@pytest.mark.parametrize("flood", [
    lambda n: ping(),
    lambda n: settings((4, 65535 + n)),
    lambda n: window_update(0, 1),
    lambda n: headers(2 * n + 1, block(request())) + rst_stream(2 * n + 1),
    lambda n: headers(1, block(request("POST")), END_HEADERS) if n == 0 else data(1),
], ids=["ping", "settings", "window_update", "rapid_reset", "empty_data"])
def test_flood_of_useless_frames_ends_in_calm(make_site, flood):
    site = make_site(H2C)
    with H2C.frames(site.port) as peer:
        sender = threading.Thread(target=lambda: [peer.try_send(flood(n)) for n in range(6000)])
        sender.start()
        peer.expect_connection_error(Code.ENHANCE_YOUR_CALM)
        sender.join(PATIENCE)
    site.akashd.wait_metric("akash_failures_total", lambda v: v >= 1, reason="bad_request")
    assert site.client().ask().body == b"ok"


def test_flood_of_continuations_ends_the_connection(make_site):
    site = make_site(H2C)
    from harness.h2frames import continuation
    with H2C.frames(site.port) as peer:
        peer.try_send(headers(1, block(request()), 1) + continuation(1, literal("x", "y"), 0) * 3000)
        peer.expect_connection_error(Code.ENHANCE_YOUR_CALM, Code.PROTOCOL_ERROR, Code.INTERNAL_ERROR)
    assert site.client().ask().body == b"ok"
