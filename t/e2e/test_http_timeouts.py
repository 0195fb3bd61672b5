# SPDX-License-Identifier: Apache-2.0
"""Every deadline of HTTP mode: it ends what it should, when it should, and nothing else moves it.

Times are taken from before the event that starts the deadline to the event that shows its end. The daemon's clock
ticks in steps of 64 ms, so an end may come that much early or late; above, a busy machine is given room.
"""

import json
import socket
import threading
import time

import pytest

from harness import FRONTS, PATIENCE, at_pace, backend as answers, free_port, http_config
from harness.client import Client, build, chunk

SHORT = 0.5
SHORT_MS = "500ms"
TICK = 0.13
LATE = 3.0
FAR = "30s"
PACE = (SHORT - TICK) / 2  # steps that hold SHORT off: even two of them together leave it no time


class Watch:
    """Seconds since it was made."""

    def __init__(self):
        self.began = time.monotonic()

    @property
    def seconds(self):
        return time.monotonic() - self.began

    def assert_about(self, seconds):
        assert seconds - TICK <= self.seconds <= seconds + LATE, f"{self.seconds:.3f} s, not {seconds} s"


@pytest.fixture
def make_site(make_any_site):
    """Deadlines are those of an exchange, whatever carries it."""
    return make_any_site


def site_with(make_site, listener=None, upstream=None, **kw):
    """A site where only the named deadlines are short."""
    mine = {"header": FAR, "request_body": FAR, "idle": FAR, "send": FAR}
    theirs = {"connect": FAR, "response": FAR, "response_body": FAR, "send": FAR}
    return make_site(listener={"timeouts": {**mine, **(listener or {})}},
                     upstream={"timeouts": {**theirs, **(upstream or {})}}, **kw)


def drip(client, pieces, pause=0.05):
    """Send one piece after another until the daemon has had enough or all are sent."""
    stop = threading.Event()

    def run():
        for piece in pieces:
            if stop.wait(pause) or not client.try_send(piece):
                return
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return stop


# -- header


@pytest.mark.http1_client
def test_head_that_does_not_come_to_an_end_is_408(make_site):
    site = site_with(make_site, {"header": SHORT_MS})
    watch = Watch()
    client = site.client()
    client.send(b"GET / HTTP/1.1\r\nHost: te")
    answer = client.response("GET")
    watch.assert_about(SHORT)
    assert answer.status == 408 and answer.closes and "header_timeout" in answer.text
    assert client.ended() == "fin"
    assert site.backend.received == b""


@pytest.mark.http1_client
def test_dripping_bytes_do_not_extend_the_head(make_site):
    site = site_with(make_site, {"header": SHORT_MS})
    watch = Watch()
    client = site.client()
    client.send(b"GET / HTTP/1.1\r\n")
    stop = drip(client, [b"X-%d: y\r\n" % n for n in range(90)])
    answer = client.response("GET")
    stop.set()
    watch.assert_about(SHORT)
    assert answer.status == 408


@pytest.mark.http1_client
def test_head_of_a_later_request_has_its_own_deadline(make_site):
    site = site_with(make_site, {"header": SHORT_MS})
    client = site.client()
    assert client.ask().status == 200
    watch = Watch()
    client.send(b"GET / HT")
    assert client.response("GET").status == 408
    watch.assert_about(SHORT)


@pytest.mark.http1_client
def test_client_that_sends_nothing_is_closed_in_silence(make_site):
    site = site_with(make_site, {"header": SHORT_MS, "idle": SHORT_MS})
    watch = Watch()
    client = site.client()
    assert client.ended() == "fin"
    watch.assert_about(SHORT)
    assert client.count == 0


def test_finished_head_is_not_under_the_header_deadline(make_site):
    site = site_with(make_site, {"header": SHORT_MS, "idle": SHORT_MS})
    go = threading.Event()

    def answer(x):
        x.wait(go)
        answers.fixed(b"late")(x)
    site.backend.answer(answer)
    client = site.client()
    client.request()
    assert client.quiet(2 * SHORT)
    go.set()
    assert client.response().body == b"late"


# -- request_body


@pytest.mark.parametrize("field", [("Content-Length", 10), ("Transfer-Encoding", "chunked")],
                         ids=["counted", "chunked"])
def test_body_that_stops_is_408(make_site, field):
    site = site_with(make_site, {"request_body": SHORT_MS})
    client = site.client()
    watch = Watch()
    client.send(build("POST", "/", [field]) + (b"a" if field[0] == "Content-Length" else b"5\r\na"))
    answer = client.response("POST")
    watch.assert_about(SHORT)
    assert answer.status == 408 and "body_timeout" in answer.text
    assert answer.closes == (site.front.version == 1)
    assert not [r for r in site.backend.requests if r.complete]
    for request in site.backend.requests:
        assert request.gone.wait(PATIENCE)


def test_dripping_bytes_do_not_extend_the_body(make_site):
    site = site_with(make_site, {"request_body": SHORT_MS})
    client = site.client()
    watch = Watch()
    client.send(build("POST", "/", [("Content-Length", 1000)]))
    stop = drip(client, [b"x"] * 150)
    answer = client.response("POST")
    stop.set()
    watch.assert_about(SHORT)
    assert answer.status == 408


def test_body_that_makes_progress_is_not_cut(make_site):
    site = site_with(make_site, {"request_body": SHORT_MS})
    site.backend.always(answers.echo())

    def attempt(beat):
        client = site.client()
        watch = Watch()
        client.send(build("POST", "/", [("Content-Length", 8 * 8192)]))
        for _ in range(8):
            assert client.quiet(0.15)
            beat()
            client.send(b"x" * 8192)
        answer = client.response("POST")
        assert watch.seconds > SHORT
        assert answer.status == 200 and len(answer.body) == 8 * 8192
    at_pace(attempt, PACE)


# -- idle


@pytest.mark.parametrize("front", FRONTS, ids=lambda f: f.name)
def test_idle_keepalive_client_is_closed_in_silence(build_site, front):
    site = site_with(build_site, {"idle": SHORT_MS}, front=front)
    client = site.client()
    watch = Watch()
    assert client.ask().status == 200
    assert client.ended() == "fin"
    watch.assert_about(SHORT)


def test_idle_deadline_begins_anew_with_each_answer(make_site):
    site = site_with(make_site, {"idle": SHORT_MS})

    def attempt(beat):
        client = site.client()
        watch = Watch()
        for _ in range(6):
            assert client.ask().status == 200
            beat()
            assert client.quiet(0.15)
            beat()
        assert watch.seconds > SHORT
        assert client.ask().status == 200
    at_pace(attempt, PACE)


def test_idle_backend_connection_is_closed(make_site):
    site = make_site(upstream={"keepalive": {"idle": SHORT_MS}})
    watch = Watch()
    assert site.client().ask().status == 200
    assert site.backend.connections[0].quiet_end.wait(PATIENCE)
    watch.assert_about(SHORT)


# -- send


def test_reader_that_takes_nothing_is_reset(make_site):
    site = site_with(make_site, {"send": SHORT_MS})
    site.backend.answer(answers.fixed(b"x" * 80000000))
    client = site.client(rcvbuf=4096)
    client.request()
    site.backend.wait_requests(1)
    assert site.backend.requests[0].gone.wait(PATIENCE), "the exchange was not given up"
    answer = client.response()
    assert not answer.complete and answer.end == "rst"


@pytest.mark.http1_client
def test_the_last_answer_to_a_slow_reader_is_whole(make_site):
    """What is kept for it when the exchange is over waits as long as the send timeout lets it."""
    site = site_with(make_site, {"send": FAR})
    pieces = [b"x" * 100000] * 120
    site.backend.answer(answers.chunked(pieces))
    client = site.client(rcvbuf=65536, record=False)
    client.request(fields=[("Connection", "close")])
    head = client.response_head()
    taken, never = 0, threading.Event()

    def served():
        status = json.loads(site.akashd.get("/status.json")[1])
        return sum(b["served"] for u in status["upstreams"] for b in u["backends"])
    tail = b""

    def take(most):
        nonlocal taken, tail
        piece = client.sock.recv(most)
        taken, tail = taken + len(piece), (tail + piece)[-5:]
        return piece
    while not served():
        take(50000)
    never.wait(2.6)  # longer than akashd waits for a client that may still be sending
    while take(1 << 20):
        pass
    assert head.status == 200
    assert taken + len(client.buf) >= sum(map(len, pieces)) and tail == b"0\r\n\r\n", "the end was cut off"


def test_reader_that_makes_progress_is_not_reset(make_site):
    """Slow, but fast enough for the kernel, which reports room by the megabyte, to do so within the deadline."""
    site = site_with(make_site, {"send": "1s"})
    size, step = 80000000, 2000000
    site.backend.always(answers.fixed(b"x" * size))

    def attempt(beat):
        client = site.client(rcvbuf=65536, record=False)
        client.request()
        head = client.response_head()
        left, watch, never = size, Watch(), threading.Event()
        while watch.seconds < 1.8:
            left -= len(client.body_part(head, step))
            beat()
            never.wait(0.1)
        assert client.body_part(head, left) and head.status == 200
    at_pace(attempt, 0.4)


def test_backend_that_takes_nothing_is_504(make_site):
    site = site_with(make_site, upstream={"send": SHORT_MS})
    released = threading.Event()
    site.backend.answer(lambda x: released.wait(PATIENCE * 2))  # reads nothing all the while
    client = site.client()
    client.send(build("POST", "/", [("Content-Length", 60000000)]))
    sender = threading.Thread(target=client.try_send, args=(b"x" * 60000000,), daemon=True)
    sender.start()
    answer = client.response("POST")
    released.set()
    assert answer.status == 504 and answer.closes == (site.front.version == 1)


# -- connect


@pytest.fixture
def black_hole():
    """An address whose queue of connections is full: a SYN gets no answer."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    yield "127.0.0.1:%d" % listener.getsockname()[1]
    for filler in fillers:
        filler.close()
    listener.close()


def test_backend_that_does_not_accept_is_504(launch, black_hole):
    port = free_port()
    launch(http_config(port, [black_hole], {"timeouts": {"connect": SHORT_MS}}))
    with Client(port) as client:
        watch = Watch()
        answer = client.ask()
        watch.assert_about(SHORT)
        assert answer.status == 504 and "connect_timeout" in answer.text


# -- response


def test_backend_that_never_answers_is_504(make_site):
    site = site_with(make_site, upstream={"response": SHORT_MS})
    site.backend.always(answers.stall())
    client = site.client()
    watch = Watch()
    answer = client.ask()
    watch.assert_about(SHORT)
    assert answer.status == 504 and "response_timeout" in answer.text
    assert site.backend.requests[0].gone.wait(PATIENCE)
    site.backend.always(answers.fixed(b"ok"))
    if not answer.closes:
        assert client.ask().body == b"ok"


def test_dripping_head_of_an_answer_is_504(make_site):
    site = site_with(make_site, upstream={"response": SHORT_MS})

    def answer(x):
        never = threading.Event()
        x.send(b"HTTP/1.1 200 OK\r\n")
        for n in range(90):
            x.send(b"X-%d: y\r\n" % n)
            x.wait(never, 0.05)
    site.backend.answer(answer)
    watch = Watch()
    assert site.client().ask().status == 504
    watch.assert_about(SHORT)


def test_interim_answers_do_not_hold_the_response_deadline_off_for_ever(make_site):
    site = site_with(make_site, upstream={"response": SHORT_MS})
    stop = threading.Event()

    def answer(x):
        x.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        x.wait(stop)
    site.backend.answer(answer)
    answer = site.client().ask()
    stop.set()
    assert answer.status == 504 and [i.status for i in answer.interim] == [103]


def test_response_deadline_begins_when_the_request_was_sent(make_site):
    site = site_with(make_site, upstream={"response": SHORT_MS})
    client = site.client()
    client.send(build("POST", "/", [("Content-Length", 4)]) + b"a")
    assert client.quiet(2 * SHORT)
    client.send(b"bcd")
    assert client.response("POST").status == 200


# -- response_body


def test_answer_that_stops_is_cut_visibly(make_site):
    site = site_with(make_site, upstream={"response_body": SHORT_MS})
    for raw in (b"Content-Length: 10\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"\r\nhello"):
        site.backend.answer(answers.stall(b"HTTP/1.1 200 OK\r\n" + raw))
        client = site.client()
        watch = Watch()
        answer = client.ask()
        watch.assert_about(SHORT)
        assert answer.status == 200 and answer.body == b"hello" and not answer.complete
        assert site.backend.requests[-1].gone.wait(PATIENCE)


def test_dripping_answer_is_cut(make_site):
    site = site_with(make_site, upstream={"response_body": SHORT_MS})

    def answer(x):
        never = threading.Event()
        x.send(answers.head(fields=[("Content-Length", 1000)]))
        for _ in range(150):
            x.send(b"x")
            x.wait(never, 0.05)
    site.backend.answer(answer)
    watch = Watch()
    assert not site.client().ask().complete
    watch.assert_about(SHORT)


def test_answer_that_makes_progress_is_not_cut(make_site):
    site = site_with(make_site, upstream={"response_body": SHORT_MS})

    def attempt(beat):
        def answer(x):
            never = threading.Event()
            x.send(answers.head(fields=[("Content-Length", 8 * 8192)]))
            for _ in range(8):
                x.wait(never, 0.15)
                beat()
                x.send(b"x" * 8192)
        site.backend.answer(answer)
        watch = Watch()
        answer = site.client().ask()
        assert answer.complete and len(answer.body) == 8 * 8192 and watch.seconds > SHORT
    at_pace(attempt, PACE)


def test_slow_reader_is_not_blamed_on_the_backend(make_site):
    """While the client does not read, the backend is not read either: that is no silence of its own."""
    site = site_with(make_site, upstream={"response_body": SHORT_MS})
    size = 80000000
    site.backend.answer(answers.fixed(b"x" * size))
    client = site.client(rcvbuf=4096, record=False)
    client.request()
    assert site.backend.blocked.wait(PATIENCE)
    never = threading.Event()
    assert not never.wait(2 * SHORT)  # the deadline that must not strike passes here
    count = [0]
    answer = client.response(sink=lambda piece: count.__setitem__(0, count[0] + len(piece)))
    assert answer.complete and count[0] == size


# -- total


def test_exchange_without_an_answer_ends_by_the_total(make_site):
    site = site_with(make_site, upstream={"total": SHORT_MS})
    site.backend.always(answers.stall())
    client = site.client()
    for _ in range(2):
        watch = Watch()
        answer = client.ask()
        watch.assert_about(SHORT)
        assert answer.status == 504 and "total_timeout" in answer.text
    site.akashd.wait_metric("akash_failures_total", lambda v: v == 2, reason="total_timeout")


def test_upload_that_goes_on_does_not_move_the_total(make_site):
    site = site_with(make_site, upstream={"total": SHORT_MS})
    client = site.client()
    watch = Watch()
    client.send(build("POST", "/", [("Content-Length", 500 * 5000)]))
    stop = drip(client, [b"x" * 5000] * 500, 0.02)
    answer = client.response("POST")
    watch.assert_about(SHORT)
    stop.set()
    assert answer.status == 504 and "total_timeout" in answer.text
    assert answer.closes == (site.front.version == 1)


def test_answer_that_goes_on_does_not_move_the_total(make_site):
    """Its head has passed: the client must see that the rest was cut."""
    site = site_with(make_site, upstream={"total": SHORT_MS})

    def answer(x):
        never = threading.Event()
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n")
        for _ in range(200):
            x.send(b"y" * 5000)
            x.wait(never, 0.02)
    site.backend.answer(answer)
    client = site.client()
    watch = Watch()
    answer = client.ask()
    watch.assert_about(SHORT)
    assert answer.status == 200 and not answer.complete


def test_total_covers_connecting(launch, black_hole):
    port = free_port()
    launch(http_config(port, [black_hole], {"timeouts": {"connect": FAR, "total": SHORT_MS}}))
    with Client(port) as client:
        watch = Watch()
        answer = client.ask()
        watch.assert_about(SHORT)
        assert answer.status == 504 and "total_timeout" in answer.text


def test_total_of_one_exchange_is_not_the_next_ones(make_site):
    site = site_with(make_site, upstream={"total": SHORT_MS})
    client = site.client()
    watch = Watch()
    while watch.seconds < 3 * SHORT:
        exchange = Watch()
        answer = client.ask()
        if answer.status == 504 and exchange.seconds >= SHORT:
            client = site.client()  # the machine has paused: that was its own
            continue
        assert answer.status == 200 and not answer.closes


@pytest.mark.http1_client
def test_deadlines_are_counted_by_reason(make_site):
    site = site_with(make_site, {"header": "200ms"}, {"response": "200ms"})
    client = site.client()
    client.send(b"GET")
    assert client.response("GET").status == 408
    site.backend.always(answers.stall())
    assert site.client().ask().status == 504
    for reason in ("header_timeout", "response_timeout"):
        site.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason=reason)


def test_chunked_upload_in_many_small_chunks_makes_progress_by_its_data(make_site):
    site = site_with(make_site, {"request_body": "2s"})
    site.backend.answer(answers.echo())
    client = site.client()
    client.send(build("POST", "/", [("Transfer-Encoding", "chunked")]) + chunk(b"x") * 20000 + b"0\r\n\r\n")
    assert len(client.response("POST").body) == 20000
