# SPDX-License-Identifier: Apache-2.0
"""Attacks over HTTP/2: each is bounded in memory and CPU, told and counted, and other clients do not notice.

Every test prints what the worker paid. The other clients are a Load over HTTP/1 and a client of HTTP/2; all of
their requests must succeed while the attack runs.
"""

import threading
import time
from contextlib import contextmanager

import pytest

from harness import Load, Malformed, Reset, Silence, Site, until
from harness.akashd import is_sanitized
from harness.backend import fixed, stall
from harness.fronts import H2cFront
from harness.raw import RawBackend
from harness.h2frames import (END_HEADERS, END_STREAM, FRAME, HEADER_TABLE_SIZE, INITIAL_WINDOW, TOP, Code, block,
                              continuation, data, depends, frame, headers, indexed, literal, ping, priority, request,
                              rst_stream, settings, window_update)

H2C = H2cFront()
GET = block(request())
POST = block(request("POST"))
MEGABYTE = 1024  # in KB
SHORT = "700ms"


class Bill:
    """What the worker pays. failures: how many the attack must at least be counted as."""

    def __init__(self, worker):
        self.worker = worker
        self.memory = self.peak = self.worker.kb("VmRSS")
        self.cpu = self.seconds()
        self.failures = 0

    def seconds(self):
        with open(f"/proc/{self.worker.pid}/stat") as f:
            cells = f.read().rsplit(")", 1)[1].split()
        return (int(cells[11]) + int(cells[12])) / 100

    def look(self):
        self.peak = max(self.peak, self.worker.kb("VmRSS"))

    def settle(self, name, grown_mb, cpu_s, other):
        """Print the bill and hold it against the bounds."""
        self.look()
        grown, used = self.peak - self.memory, self.seconds() - self.cpu
        print(f"{name}: worker's peak {self.peak} KB, grown by {grown} KB; {used:.2f} s CPU; "
              f"{other.account.ok} requests of others, {len(other.account.failures)} failed")
        if not is_sanitized():
            assert grown < grown_mb * MEGABYTE, f"grown by {grown} KB"
            assert used < cpu_s, f"{used} s CPU"
        assert self.worker.alive, "the worker died"


@contextmanager
def attack(site, name, grown_mb=4, cpu_s=1.0):
    """Others ask all the while; what is inside the block is done to the worker, which is watched."""
    bill = Bill(site.akashd.workers()[0])
    stop = threading.Event()

    def watch():
        while not stop.wait(0.01):
            bill.look()
    with Load(site.port, keepalive=2, fresh=1, pause=0.01) as others, site.client() as another:
        assert another.ask().status == 200  # at once: who says nothing is sent away
        others.wait_total(5)
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        yield bill
        others.wait_total(others.account.total + 10)
        answer = another.ask()
        assert (answer.status, answer.body) == (200, b"ok")
        stop.set()
        watcher.join()
        others.stop()
        others.account.assert_all_ok(10)
        bill.settle(name, grown_mb, cpu_s, others)
        site.owed += bill.failures


def flood(peer, pieces):
    """Send from a thread of its own, so that this one reads what is answered."""
    def run():
        batch = b""
        for piece in pieces:
            batch += piece
            if len(batch) > 8192:
                if not peer.try_send(batch):
                    return
                batch = b""
        peer.try_send(batch)
    sender = threading.Thread(target=run, daemon=True)
    sender.start()
    return sender


@pytest.fixture(scope="module")
def victim():
    """A daemon with short deadlines. What is asked of /hole goes to a backend that accepts and does nothing."""
    hole = RawBackend(backlog=4096)
    short = {"request_body": SHORT, "send": SHORT, "header": SHORT}
    upstreams = {"hole": {"backends": [{"address": hole.address}], "health_check": False,
                          "timeouts": {"response": "5s"}}}
    site = Site(H2C, listener={"timeouts": short, "limits": {"http2_streams": 100}}, upstreams=upstreams,
                routes=[{"path": "/hole", "upstream": "hole"}])
    site.fence()
    site.owed = 0
    yield site
    site.akashd.wait_metric("akash_failures_total", lambda v: v >= site.owed)
    site.close()
    hole.close()


@pytest.fixture
def site(victim):
    victim.fresh()
    yield victim
    victim.akashd.assert_clean()


def ids():
    """The ids of a client's streams."""
    return range(1, TOP, 2)


# -- floods of frames that cost the sender nothing

N = 20000
CALM = [Code.ENHANCE_YOUR_CALM]
FLOODS = {
    "rapid reset (CVE-2023-44487)": lambda: (headers(s, GET) + rst_stream(s) for s in ids()[:N]),
    "SETTINGS (CVE-2019-9515)": lambda: (settings((INITIAL_WINDOW, 65535 + n)) for n in range(N)),
    "empty SETTINGS": lambda: (settings() for n in range(N)),
    "PING (CVE-2019-9512)": lambda: (ping() for n in range(N)),
    "PING acknowledgements": lambda: (ping(flags=1) for n in range(N)),
    "empty DATA (CVE-2019-9518)": lambda: (
        headers(1, POST, END_HEADERS) if n == 0 else data(1) for n in range(N)),
    "empty CONTINUATION": lambda: (
        headers(1, GET[:5], END_STREAM) if n == 0 else continuation(1, b"", 0) for n in range(N)),
    "CONTINUATION of single bytes (CVE-2024-27316)": lambda: (
        headers(1, GET, END_STREAM) if n == 0 else continuation(1, literal("x", "y" * 9), 0) for n in range(N)),
    "PRIORITY (CVE-2019-9513)": lambda: (priority(2 * (n % 50) + 1, depends(101 + n)) for n in range(N)),
    "WINDOW_UPDATE of the connection": lambda: (window_update(0, 1) for n in range(N)),
    "WINDOW_UPDATE of a stream": lambda: (
        headers(1, POST, END_HEADERS) if n == 0 else window_update(1, 1) for n in range(N)),
    "streams above the limit": lambda: (headers(s, POST, END_HEADERS) for s in ids()[:N]),
    "RST_STREAM of closed streams": lambda: (
        headers(1, GET) if n == 0 else rst_stream(1) for n in range(N)),
}


# CVE-2025-8671: the client makes the server reset its streams. What is an error of the connection ends at once.
MADE_RESETS = {
    "by a malformed request": lambda s: headers(s, block(request(path=""))),
    "by an empty head": lambda s: headers(s, b""),
    "by a body that is too long": lambda s: headers(
        s, block(request("POST", "/", ("content-length", "1"))), END_HEADERS) + data(s, b"xx"),
    "by a body that is too short": lambda s: headers(
        s, block(request("POST", "/", ("content-length", "3"))), END_HEADERS) + data(s, b"xx", END_STREAM),
    "by a host that differs": lambda s: headers(s, block(request("GET", "/", ("host", "other")))),
    "by trailers that are malformed": lambda s: headers(s, POST, END_HEADERS) + headers(s, block([("x y", "z")])),
    "by an increment of 0": lambda s: headers(s, POST, END_HEADERS) + window_update(s, 0),
    "by a window that overflows": lambda s: headers(s, POST, END_HEADERS) + window_update(s, TOP),
    "by DATA behind the end": lambda s: headers(s, GET) + data(s, b"x"),
    "by PRIORITY of a wrong size": lambda s: headers(s, POST, END_HEADERS) + priority(s, b"four"),
    "by a stream that depends on itself": lambda s: headers(s, GET, priority=depends(s)),
}


@pytest.mark.parametrize("name", MADE_RESETS)
def test_resets_that_a_client_makes_us_send_are_counted_like_its_own(site, name):
    """One at a time, as a client does that waits for each, so that none is refused for their number."""
    with attack(site, "MadeYouReset " + name) as bill:
        with site.frames() as peer:
            for stream in ids()[:2000]:
                if not peer.try_send(MADE_RESETS[name](stream)):
                    break
                answer = peer.answer(stream)
                try:
                    peer.read_until(lambda a=answer: a.reset is not None or peer.goaways, "a reset")
                except Malformed:
                    break
                if peer.goaways:
                    break
            assert peer.goaways and peer.goaways[-1].code != Code.NO_ERROR, "2,000 resets were not too many"
            peer.expect_end()
        bill.failures += 1


@pytest.mark.parametrize("name", FLOODS)
def test_flood_is_told_to_be_calm(site, name):
    with attack(site, name) as bill:
        for _ in range(3):
            with site.frames() as peer:
                sender = flood(peer, FLOODS[name]())
                peer.expect_connection_error(*CALM)
                sender.join(10)
        bill.failures += 3


def test_block_without_an_end_is_cut_before_it_is_stored(site):
    """CONTINUATION frames full of fields, each block larger than all that is allowed."""
    field = literal("x-" + "n" * 60, "v" * 900)
    full = field * (FRAME // len(field))
    with attack(site, "CONTINUATION flood of whole fields") as bill:
        for _ in range(3):
            with site.frames() as peer:
                sender = flood(peer, (headers(1, GET, END_STREAM) if n == 0 else continuation(1, full, 0)
                                      for n in range(1000)))
                peer.expect_connection_error(*CALM)
                sender.join(10)
        bill.failures += 3


# -- HPACK


BIG = literal("x-big", "v" * 3900, 0x40)
BOMBS = {
    "one field of 4 KB, 16,000 times (CVE-2016-6581)": BIG + indexed(62) * 16000,
    "cookie crumbs": BIG.replace(b"\x05x-big", b"\x06cookie") + indexed(62) * 16000,
    "16,000 fields of nothing": literal("x", "") * 4000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_before_it_is_stored(site, name):
    whole = GET + BOMBS[name]
    parts = [whole[at:at + FRAME] for at in range(0, len(whole), FRAME)] + [b""]
    with attack(site, "HPACK bomb: " + name):
        for _ in range(3):
            with site.frames() as peer:
                peer.try_send(headers(1, parts[0], END_STREAM if len(parts) > 1 else END_STREAM | END_HEADERS)
                              + b"".join(continuation(1, part, 0 if part is not parts[-1] else END_HEADERS)
                                         for part in parts[1:]))
                answer = peer.answer(1)
                peer.read_until(lambda p=peer, a=answer: a.status or a.reset is not None or p.goaways, "a refusal")
                assert answer.status in (0, 431), answer
        site.fence()
        assert b"x-big" not in site.backend.received


def test_huge_table_that_a_client_allows_is_not_used(site):
    with attack(site, "HEADER_TABLE_SIZE of 4 GB"):
        with site.frames() as peer:
            peer.decoder.max_allowed_table_size = 2**32 - 1
            peer.put(settings((HEADER_TABLE_SIZE, 2**32 - 1)))
            for number, stream in enumerate(ids()[:600]):
                site.backend.always(fixed(fields=[(f"X-{number}", "v" * 8000)]))
                peer.put(headers(stream, GET))
                peer.expect_answer(stream)
                peer.seen.clear()
        site.backend.always(fixed(b"ok"))


# -- windows that do not open


def assert_all_reset(peer, streams):
    peer.read_until(lambda: peer.goaways or all(peer.answer(s).reset is not None for s in streams),
                    "the end of each stream")


@pytest.mark.parametrize("opens", [0, 1])
def test_windows_that_do_not_open_are_given_up(site, opens):
    """100 answers of a megabyte each; the window of a stream has no byte, or gets one now and then."""
    streams = ids()[:100]
    site.backend.always(lambda x: fixed(b"x" * 1000000 if x.request.target == "/big" else b"ok")(x))
    with attack(site, f"windows of {opens} bytes", grown_mb=12) as bill:
        with site.frames() as peer:
            peer.put(settings((INITIAL_WINDOW, opens)))
            peer.put(*[headers(s, block(request(path="/big"))) for s in streams])
            stop = threading.Event()

            def trickle():
                while opens and not stop.wait(0.05):
                    peer.try_send(b"".join(window_update(s, 1) for s in streams[:50]))
            trickling = threading.Thread(target=trickle, daemon=True)
            trickling.start()
            assert_all_reset(peer, streams)
            stop.set()
            trickling.join()
        bill.failures += 1


def test_client_that_does_not_read_at_all_is_cut(site):
    """Windows wide open, and a socket that nobody reads (CVE-2019-9517)."""
    site.backend.always(lambda x: fixed(b"x" * 1000000 if x.request.target == "/big" else b"ok")(x))
    with attack(site, "socket that is not read", grown_mb=12) as bill:
        with site.frames(rcvbuf=4096) as peer:
            peer.put(settings((INITIAL_WINDOW, TOP)), window_update(0, TOP - 65535),
                     *[headers(s, block(request(path="/big"))) for s in ids()[:100]])
            site.backend.wait(lambda b: len([r for r in b.requests if r.gone.is_set()]) >= 50, "the end of its answers")
            bill.failures += 1
            with pytest.raises((Reset, Silence, OSError)):
                while True:
                    peer.put(ping())
                    peer.sock.recv(1000000)


def test_sender_of_more_than_its_window_is_in_error(build_site):
    """The backend does not even accept, so that not a byte of the window is given back (RFC 9113 6.9.1)."""
    hole = RawBackend(backlog=0).stuff()
    upstreams = {"hole": {"backends": [{"address": hole.address}], "health_check": False,
                          "timeouts": {"connect": "30s"}}}
    site = build_site(H2C, upstreams=upstreams, routes=[{"path": "/hole", "upstream": "hole"}])
    with site.frames() as peer:
        window = peer.theirs[INITIAL_WINDOW]
        peer.put(headers(1, block(request("POST", "/hole")), END_HEADERS),
                 *[data(1, bytes(min(FRAME, window - at))) for at in range(0, window, FRAME)])
        peer.expect_nothing()
        peer.put(data(1, b"x"))
        peer.expect_connection_error(Code.FLOW_CONTROL_ERROR)
    hole.close()


# -- streams that are begun and not ended


def test_thousands_of_half_open_streams_end_by_their_deadline(site):
    with attack(site, "2,000 half-open streams on 20 connections", grown_mb=24) as bill:
        peers = [site.frames() for _ in range(20)]
        streams = ids()[:100]
        for peer in peers:
            peer.put(*[headers(s, block(request("POST", "/hole")), END_HEADERS) for s in streams])
        for peer in peers:
            peer.read_until(lambda p=peer: all(p.answer(s).status for s in streams), "an answer to each")
            assert {peer.answer(s).status for s in streams} <= {408, 503}
            peer.close()
        bill.failures += 2000


def test_heads_that_are_begun_and_not_ended_are_cut(site):
    with attack(site, "200 open field blocks"):
        peers = [site.frames() for _ in range(200)]
        for peer in peers:
            peer.put(headers(1, GET[:9], END_STREAM))
        for peer in peers:
            peer.expect_end()
            peer.close()


DRIBBLES = {
    "of single bytes (CVE-2019-9511)": lambda s: data(s, b"x"),
    "of padding alone": lambda s: data(s, pad=30),
    "of no padding, marked": lambda s: data(s, pad=0),
    "between unknown frames": lambda s: data(s, b"x") + frame(0xf0, 0, 0, b"") * 20,
}


@pytest.mark.parametrize("name", DRIBBLES)
def test_body_that_dribbles_is_cut(site, name):
    """On 50 streams, none of which comes on by 4 KB before its deadline."""
    streams = ids()[:50]
    with attack(site, "data dribble " + name):
        with site.frames() as peer:
            peer.put(*[headers(s, block(request("POST", "/", ("content-length", "1000000"))), END_HEADERS)
                       for s in streams])
            stop = threading.Event()

            def dribble():
                while not stop.wait(0.02) and peer.try_send(b"".join(DRIBBLES[name](s) for s in streams)):
                    pass
            dribbling = threading.Thread(target=dribble, daemon=True)
            dribbling.start()
            peer.read_until(lambda: peer.goaways or all(
                peer.answer(s).status or peer.answer(s).reset is not None for s in streams), "the end of each")
            stop.set()
            dribbling.join()
            assert {peer.answer(s).status for s in streams} <= {0, 408}


def test_resets_do_not_multiply_the_work_of_backends(site):
    """Each request is reset as soon as its backend works on it, and another takes its place."""
    site.backend.always(lambda x: (stall() if x.request.target == "/work" else fixed(b"ok"))(x))
    with attack(site, "reset while the backend works"):
        with site.frames() as peer:
            work = block(request(path="/work"))
            for stream in ids()[:2000]:
                if not peer.try_send((rst_stream(stream - 200) if stream > 200 else b"") + headers(stream, work)):
                    break
            peer.expect_connection_error(*CALM)
        site.backend.wait(lambda b: all(r.gone.is_set() for r in b.requests if r.target == "/work"),
                          "the end of all work")
        assert site.backend.peak <= 130, f"{site.backend.peak} exchanges at a time"


# -- requests that would be others on the way to an HTTP/1 backend


EVIL = "GET /evil HTTP/1.1\r\nHost: evil\r\n\r\n"
INJECTIONS = {
    "h2.CL: a length shorter than the body": (
        request("POST", "/", ("content-length", "0")), [data(1, EVIL.encode(), END_STREAM)]),
    "h2.CL: two lengths": (
        request("POST", "/", ("content-length", "0"), ("content-length", str(len(EVIL)))),
        [data(1, EVIL.encode(), END_STREAM)]),
    "h2.CL: a length that is a list": (
        request("POST", "/", ("content-length", "0, 36")), [data(1, EVIL.encode(), END_STREAM)]),
    "h2.TE": (request("POST", "/", ("transfer-encoding", "chunked")), [
        data(1, b"0\r\n\r\n" + EVIL.encode(), END_STREAM)]),
    "h2.TE in capitals": (request("POST", "/", ("Transfer-Encoding", "chunked")), [
        data(1, b"0\r\n\r\n" + EVIL.encode(), END_STREAM)]),
    "CRLF in a value": (request("GET", "/", ("x", "y\r\nTransfer-Encoding: chunked\r\nX: evil")), []),
    "LF in a value": (request("GET", "/", ("x", "y\nX-Evil: evil")), []),
    "NUL in a value": (request("GET", "/", ("x", "evil\0")), []),
    "CRLF in a name": (request("GET", "/", ("x: evil\r\ny", "z")), []),
    "colon in a name": (request("GET", "/", ("transfer-encoding: evil", "z")), []),
    "space in a name": (request("GET", "/", ("x-evil ", "z")), []),
    "CRLF in :method": (request(EVIL + "GET"), []),
    "space in :method": (request("GET /evil HTTP/1.1"), []),
    "CRLF in :path": (request(path="/ HTTP/1.1\r\nHost: evil\r\n\r\nGET /"), []),
    "space in :path": (request(path="/evil HTTP/1.1"), []),
    ":path that is a URL": (request(path="http://evil/"), []),
    ":path without a slash": (request(path="evil"), []),
    "CRLF in :authority": (request(authority="test\r\nX-Evil: evil"), []),
    "path in :authority": (request(authority="test/evil"), []),
    "CRLF in :scheme": (request(scheme="http://evil/\r\nx: "), []),
    "URL in :scheme": (request(scheme="http://evil/"), []),
    "Host that differs": (request("GET", "/", ("host", "evil")), []),
    "connection that names framing": (request("GET", "/", ("connection", "evil, content-length")), []),
    "CRLF in a trailer": (request("POST", "/", ("x-sent", "evil")), [
        data(1, b"evil"), headers(1, block([("x", "y\r\nX-Evil: evil")]))]),
    "pseudo-field in trailers": (request("POST", "/", ("x-sent", "evil")), [
        data(1, b"evil"), headers(1, block([(":path", "/evil")]))]),
}


@pytest.mark.parametrize("name", INJECTIONS)
def test_injection_never_makes_a_request(site, name):
    fields, frames = INJECTIONS[name]
    with site.frames() as peer:
        peer.put(headers(1, block(fields), END_HEADERS if frames else END_HEADERS | END_STREAM), *frames)
        peer.expect_stream_error(1, Code.PROTOCOL_ERROR)
    site.fence()
    # what was under way when the attack above ended may still come
    whole = [r for r in site.backend.requests if r.complete and r.target not in ("/fence", "/work")]
    assert whole == [] and site.backend.malformed == []
    if "trailer" not in name and "length" not in name:
        assert b"evil" not in site.backend.received.lower()
    assert not [r for r in site.backend.requests if "evil" in r.target]


def test_memory_is_given_back(site):
    """After all of it: what the worker holds without streams is what it held before, and little more."""
    worker = site.akashd.workers()[0]
    until(lambda: site.akashd.metrics().value("akash_active_connections") == 0, "the last connection's end")
    began = time.monotonic()
    site.fence()
    assert time.monotonic() - began < 5
    print(f"after the attacks: worker {worker.kb('VmRSS')} KB, peak {worker.kb('VmHWM')} KB")
    assert is_sanitized() or worker.kb("VmRSS") < 96 * MEGABYTE
