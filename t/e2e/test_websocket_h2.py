# SPDX-License-Identifier: Apache-2.0
"""Extended CONNECT (RFC 8441): tunnels over HTTP/2, and in every combination of versions."""

import contextlib
import hashlib
import threading
import time

import pytest
from h2.settings import SettingCodes

from harness import FRONTS, Reset, Silence, at_pace, free_port, http_config
from harness.backs import BACKS
from harness.fronts import FRONTS_OF_2
from harness.h2frames import END_HEADERS, END_STREAM, Code, block, data, headers
from harness.raw import RawBackend
from harness.tunnels import KEY, H2End, WireEnd, accept_of, ask, extended, switch

MEGABYTE = 1024 * 1024
STEP = 200000


# -- HTTP/2 in front of a raw backend


class Site:
    """A daemon with an HTTP/2 front before one raw backend, and a client."""

    def __init__(self, launch, front, upstream=None, listener=None, **top):
        self.port, self.backend, self.front = free_port(), RawBackend(), front
        self.config = http_config(self.port, [self.backend], upstream,
                                  {**front.listener(), **(listener or {})}, **top)
        self.akashd = launch(self.config)
        self.client = front.connect(self.port)
        self.side = self.client.side

    def ask(self, pairs=None, is_end=False):
        """The stream, the backend's end, and the request's line and fields there."""
        stream = self.side.open(pairs or extended(scheme=self.front.scheme), is_end)
        server = self.backend.accept(record=False)
        return stream, server, server.line().decode(), server.fields()

    def open(self):
        """Both ends of a tunnel."""
        stream, server, _, fields = self.ask()
        server.sock.sendall(switch(fields.get("Sec-WebSocket-Key")))
        assert self.side.head(stream).get(":status") == "200"
        return H2End(self.side, stream), WireEnd(server)

    def close(self):
        self.client.close()
        self.backend.close()


@pytest.fixture
def make_site(launch):
    made = []

    def make(front=FRONTS_OF_2[0], **kw):
        made.append(Site(launch, front, **kw))
        return made[-1]
    yield make
    for site in made:
        site.close()


@pytest.fixture(params=FRONTS_OF_2, ids=lambda f: f.name)
def front2(request):
    return request.param


def says_nothing(wire, seconds=0.2):
    try:
        return not wire.buf and wire.fill(seconds) is None
    except Silence:
        return True


def test_extended_connect_is_announced(make_site, front2):
    site = make_site(front2)
    with site.side.changed:
        site.side.wait(lambda: site.side.h2.remote_settings.enable_connect_protocol == 1, "setting")


def test_it_reaches_an_http1_backend_as_an_upgrade(make_site, front2):
    site = make_site(front2)
    more = [("sec-websocket-key", "mine"), ("sec-websocket-protocol", "chat"), ("origin", "http://x")]
    stream, server, line, fields = site.ask(extended("/chat?a=1", scheme=front2.scheme, more=more))
    assert line == "GET /chat?a=1 HTTP/1.1"
    assert (fields.all("Connection"), fields.all("Upgrade")) == (["upgrade"], ["websocket"])
    assert (fields.all("Host"), fields.get("Sec-WebSocket-Protocol")) == (["test"], "chat")
    key, = fields.all("Sec-WebSocket-Key")
    assert len(key) == 24 and key != "mine" and fields.get("Sec-WebSocket-Version") == "13"
    server.sock.sendall(switch(key).replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n"))
    answer = site.side.head(stream)
    assert {name: value for name, value in answer} == {":status": "200", "sec-websocket-protocol": "chat"}
    ends = H2End(site.side, stream), WireEnd(server)
    for a, b in (ends, ends[::-1]):
        a.send(b"\x81\x02hi")
        assert b.take(4) == b"\x81\x02hi"


def test_every_request_gets_a_key_of_its_own(make_site):
    site = make_site()
    assert len({site.ask()[3].get("Sec-WebSocket-Key") for _ in range(5)}) == 5


def test_bytes_before_the_101_wait_for_it(make_site):
    site = make_site()
    stream, server, _, fields = site.ask()
    tunnel = H2End(site.side, stream)
    tunnel.send(b"early")
    assert says_nothing(server)
    server.sock.sendall(switch(fields.get("Sec-WebSocket-Key")) + b"hello")
    assert site.side.head(stream).get(":status") == "200"
    assert server.take(5) == b"early" and tunnel.take(5) == b"hello"


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "
    + accept_of(KEY).encode() + b"\r\n\r\n",
], ids=["200", "204", "101-without-accept", "101-with-another"])
def test_what_is_no_tunnel_is_never_told_as_one(make_site, answer):
    site = make_site()
    stream, server, _, _ = site.ask()
    server.sock.sendall(answer)
    assert site.side.head(stream).get(":status") == "502"
    site.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="bad_response")


def test_refusal_is_passed_on_and_the_connection_lives(make_site):
    site = make_site()
    stream, server, _, _ = site.ask()
    H2End(site.side, stream).send(b"too early")
    server.sock.sendall(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
    assert site.side.head(stream).get(":status") == "403"
    assert H2End(site.side, stream).take(2) == b"no"
    assert site.open()


@pytest.mark.parametrize("first", ["client", "server"])
def test_end_of_each_side_is_passed_on(make_site, front2, first):
    site = make_site(front2)
    client, server = site.open()
    one, other = (client, server) if first == "client" else (server, client)
    one.half_close()
    assert other.wait_end() == "fin"
    other.send(b"still here")
    assert one.take(10) == b"still here"
    other.half_close()
    assert one.wait_end() == "fin"
    site.akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0)
    site.akashd.wait_metric("akash_requests_total", lambda v: v == 1, code="101")


def test_connect_that_ends_its_part_at_once_is_half_closed(make_site):
    site = make_site()
    stream, server, _, fields = site.ask(is_end=True)
    assert says_nothing(server)
    server.sock.sendall(switch(fields.get("Sec-WebSocket-Key")) + b"bye")
    assert site.side.head(stream).get(":status") == "200"
    assert H2End(site.side, stream).take(3) == b"bye" and server.wait_end() == "fin"


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "asked_for"])
def test_fields_behind_its_head_are_an_error_of_the_stream(make_site, is_open):
    """RFC 9113 8.5: nothing but DATA belongs on it; and the configuration it began with may have gone."""
    site = make_site()
    with site.front.frames(site.port) as peer:
        peer.put(headers(1, block(extended()), END_HEADERS))
        server = site.backend.accept(record=False)
        server.line()
        key = server.fields().get("Sec-WebSocket-Key")
        if is_open:
            server.sock.sendall(switch(key))
            peer.read_until(lambda: peer.answer(1).status == 200, "the tunnel")
        peer.put(headers(1, block([("x-late", "yes")])))
        peer.read_until(lambda: peer.answer(1).reset is not None, "a reset")
        assert peer.answer(1).reset == Code.PROTOCOL_ERROR
        peer.expect_alive()
    assert server.wait_end() == ("rst" if is_open else "fin")


def test_reset_of_the_stream_is_a_reset_of_the_connection(make_site):
    site = make_site()
    client, server = site.open()
    client.reset()
    assert server.wait_end() == "rst"
    site.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="client_closed")


def test_reset_of_the_connection_cancels_the_stream(make_site):
    site = make_site()
    client, server = site.open()
    server.reset()
    assert client.wait_end() == "rst" and client.stream.reset == 8
    site.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="backend_reset")


def test_client_that_goes_takes_its_tunnels_with_it(make_site):
    site = make_site()
    servers = [site.open()[1] for _ in range(3)]
    site.client.reset()
    assert [server.wait_end() for server in servers] == ["rst"] * 3
    site.akashd.wait_metric("akash_active_connections", lambda v: v == 0)


def test_tunnel_that_is_not_read_stalls_no_other(make_site):
    site = make_site()
    stalled, flood = site.open()
    flood.wire.sock.settimeout(0.5)
    sent = 0
    with pytest.raises(OSError):
        while sent < 100 * MEGABYTE:
            sent += flood.wire.sock.send(b"x" * 65536)
    client, server = site.open()
    for n in range(20):
        client.send(b"%d" % n)
        assert server.take(len(b"%d" % n)) == b"%d" % n
        server.send(b"y" * 5000)
        assert client.take(5000) == b"y" * 5000
    assert stalled.take(100000) == b"x" * 100000


def test_silence_ends_the_stream_and_not_the_connection(make_site):
    def attempt(beat):
        site = make_site(listener={"timeouts": {"tunnel": "800ms", "request_body": "200ms"}})
        client, server = site.open()
        for _ in range(4):
            beat()
            assert says_nothing(server.wire, 0.3)
            beat()
            began = time.monotonic()
            client.send(b".")
            assert server.take(1) == b"."
        return site, client, server, began
    site, client, server, began = at_pace(attempt, 0.36)
    assert client.wait_end() == "rst" and server.wait_end() == "rst"
    assert 0.6 < time.monotonic() - began < 5
    site.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="tunnel_idle")
    assert site.open()


def test_shutdown_warns_and_lets_the_tunnel_end(make_site):
    """In frames: python3-h2 itself says and hears nothing after a GOAWAY."""
    site = make_site(drain_timeout="20s")
    with site.front.frames(site.port) as peer:
        peer.put(headers(1, block(extended()), END_HEADERS))
        server = site.backend.accept()
        server.line()
        server.sock.sendall(switch(server.fields().get("Sec-WebSocket-Key")))
        peer.read_until(lambda: peer.answer(1).status == 200, "the answer")
        site.akashd.send(15)
        peer.read_until(lambda: peer.goaways, "GOAWAY")
        peer.put(data(1, b"still"))
        assert server.take(5) == b"still"
        server.sock.sendall(b"here")
        server.half_close()
        peer.read_until(lambda: peer.answer(1).is_complete, "the end of the answer")
        assert peer.answer(1).body == b"here"
        peer.put(data(1, b"", END_STREAM))
        assert server.wait_end() == "fin" and site.akashd.wait_exit() == 0


def test_tunnel_of_a_removed_backend_ends_by_the_retire_timeout(make_site):
    def attempt(beat):
        site = make_site(retire_timeout="1s")
        client, server = site.open()
        beat()
        site.akashd.reload({**site.config, "upstreams": {"site": {"backends": [{"address": "127.0.0.1:9"}]}}})
        client.send(b"still")
        assert server.take(5) == b"still"
        return site, client, server
    site, client, server = at_pace(attempt, 0.7)
    assert client.wait_end() == server.wait_end() == "rst"
    site.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="drain_cut")


def without(pairs, name):
    return [pair for pair in pairs if pair[0] != name]


@pytest.mark.parametrize("pairs, status", [
    ([(":method", "CONNECT"), (":authority", "test:80")], 405),
    (without(extended(), ":scheme"), None), (without(extended(), ":path"), None),
    (without(extended(), ":authority"), None),
    ([(":method", "GET") if n == ":method" else (n, v) for n, v in extended()], None),
    (extended(protocol="h2c"), None), (extended(protocol="a b"), None), (extended(protocol=""), None),
    (extended(path="chat"), None), (extended(more=[("upgrade", "websocket")]), None),
    (extended(more=[("content-length", "5")]), None),
], ids=str)
def test_malformed_extended_connect_is_refused(make_site, pairs, status):
    site = make_site()
    stream = site.side.open(pairs, False)
    try:
        assert int(site.side.head(stream).get(":status")) == (status or 400)
    except Reset:
        assert status is None
    assert not site.backend.is_called(0.1)


# -- every combination


def echo(x):
    """An answer, for backends of either version: a WebSocket whose bytes come back."""
    if hasattr(x, "side"):
        assert x.request.method == "CONNECT" and x.request.pseudo.get(":protocol") == "websocket"
        assert "Sec-WebSocket-Key" not in x.request.fields
        x.side.send_head(x.stream, [(":status", "200")])
        end = H2End(x.side, x.stream)
        while piece := x.side.piece(x.stream):
            end.send(piece)
        end.half_close()
        return
    key, = x.request.fields.all("Sec-WebSocket-Key")
    x.send(switch(key))
    wire = x.connection.wire
    wire.to_end(x.send)
    x.close()


def refuse(x):
    if hasattr(x, "side"):
        x.side.send_head(x.stream, [(":status", "403"), ("content-length", "2")])
        x.side.send_body(x.stream, b"no", True)
    else:
        x.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")


@pytest.fixture(params=[*FRONTS, *FRONTS_OF_2], ids=lambda f: f.name)
def front(request):
    return request.param


@pytest.fixture(params=BACKS, ids=lambda b: b.name)
def back(request):
    return request.param


@pytest.fixture
def combination(launch, front, back):
    """(daemon, client, backend), with this front and this back."""
    kw = {"settings": {SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}} if back.version == 2 else {}
    backend = back.backend(echo, **kw)
    port = free_port()
    akashd = launch(http_config(port, [backend], back.upstream(), front.listener()))
    client = front.connect(port)
    yield akashd, client, backend
    client.close()
    backend.close()


def test_websocket_in_every_combination(combination, front):
    akashd, client, _ = combination
    status, tunnel = ask(client, front)
    assert status == (200 if front.version == 2 else 101)
    for size in (1, 125, 5000, 70000, MEGABYTE):
        data = hashlib.sha512(str(size).encode()).digest() * (size // 64 + 1)
        for at in range(0, len(data), STEP):  # there and back: Python's TLS cannot do both at once
            tunnel.send(data[at:at + STEP])
            assert tunnel.take(len(data[at:at + STEP])) == data[at:at + STEP]
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 1)
    if front.name != "https":  # Python's TLS cannot close one direction and go on reading
        tunnel.half_close()
        assert tunnel.wait_end() == "fin"
    else:
        client.close()
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0)
    akashd.wait_metric("akash_requests_total", lambda v: v == 1, code="101")


def test_refusal_in_every_combination(combination, front):
    _, client, backend = combination
    backend.answer(refuse)
    status, tunnel = ask(client, front)
    assert (status, tunnel.take(2)) == (403, b"no")
    status, tunnel = ask(client, front)
    tunnel.send(b"ping")
    assert tunnel.take(4) == b"ping"


def begin(x):
    """Accept; the tunnel's end."""
    if hasattr(x, "side"):
        x.side.send_head(x.stream, [(":status", "200")])
        return H2End(x.side, x.stream)
    x.send(switch(x.request.fields.get("Sec-WebSocket-Key")))
    return WireEnd(x.connection.wire)


def test_server_that_ends_first_still_hears(combination, front):
    akashd, client, backend = combination
    heard = []

    def answer(x):
        end = begin(x)
        end.send(b"bye")
        if not (isinstance(end, WireEnd) and x.backend.tls):  # Python's TLS closes both directions
            end.half_close()
        heard.append(end.take(5))
        if isinstance(end, WireEnd):
            x.close()
    backend.answer(answer)
    _, tunnel = ask(client, front)
    assert tunnel.take(3) == b"bye"
    tunnel.send(b"after")
    assert tunnel.wait_end() == "fin"
    backend.wait(lambda b: heard == [b"after"], "what came after the end")
    client.close()
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0)


def test_server_that_breaks_off_is_a_reset(combination, front):
    akashd, client, backend = combination

    def answer(x):
        begin(x).take(2)
        x.cancel() if hasattr(x, "side") else x.reset()
    backend.answer(answer)
    _, tunnel = ask(client, front)
    tunnel.send(b"hi")
    assert tunnel.wait_end() == "rst"
    akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="backend_reset")
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0)


def test_client_that_breaks_off_is_a_reset(combination, front):
    akashd, client, backend = combination
    ends = []

    def answer(x):
        end = begin(x)
        end.take(2)
        ends.append(end.wait_end())
    backend.answer(answer)
    _, tunnel = ask(client, front)
    tunnel.send(b"hi")
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 1)
    tunnel.reset()
    backend.wait(lambda b: ends == ["rst"], "the reset")
    akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="client_closed")


BACKS_OF_2 = [b for b in BACKS if b.version == 2]


@pytest.fixture(params=BACKS_OF_2, ids=lambda b: b.name)
def back2(request):
    return request.param


def launch_before(launch, back, front, answer, connects=True, **kw):
    """(daemon, client, backend)"""
    backend = back.backend(answer, settings={SettingCodes.ENABLE_CONNECT_PROTOCOL: 1} if connects else {})
    port = free_port()
    akashd = launch(http_config(port, [backend], {**back.upstream(), **kw.pop("upstream", {})},
                                {**front.listener(), **kw.pop("listener", {})}, **kw))
    return akashd, front.connect(port), backend


@pytest.mark.parametrize("front", [FRONTS[0], FRONTS_OF_2[0]], ids=lambda f: f.name)
def test_backend_that_knows_no_extended_connect_is_asked_for_none(launch, back2, front):
    """It gets the GET: an answer to that is one over HTTP/1, and over HTTP/2 not the tunnel that was asked for."""
    _, client, backend = launch_before(launch, back2, front, None, connects=False)
    with client:
        status, _ = ask(client, front)
        assert status == (200 if front.version == 1 else 502)
        assert [(r.method, ":protocol" in r.pseudo) for r in backend.requests] == [("GET", False)]
    backend.close()


def test_tunnels_go_with_the_connection_to_their_backend(launch, back2):
    akashd, client, backend = launch_before(launch, back2, FRONTS_OF_2[0], echo)
    with client:
        tunnels = [ask(client, FRONTS_OF_2[0])[1] for _ in range(5)]
        for n, tunnel in enumerate(tunnels):
            tunnel.send(b"%d" % n)
            assert tunnel.take(1) == b"%d" % n
        tunnels[0].half_close()
        assert tunnels[0].wait_end() == "fin"
        for connection in backend.connections:
            connection.reset()
        assert {tunnel.wait_end() for tunnel in tunnels[1:]} == {"rst"}
        akashd.wait_metric("akash_failures_total", lambda v: v == 4, reason="backend_reset")
    backend.close()


def test_half_closed_tunnel_goes_with_the_connection_too(launch, back2):
    def answer(x):
        begin(x).half_close()
        x.wait(threading.Event())
    akashd, client, backend = launch_before(launch, back2, FRONTS[0], answer)
    with client:
        _, tunnel = ask(client, FRONTS[0])
        assert tunnel.wait_end() == "fin"
        for connection in backend.connections:
            connection.reset()
        akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="backend_reset")
        akashd.wait_metric("akash_active_connections", lambda v: v == 0)
    backend.close()


def test_silence_ends_a_tunnel_to_an_http2_backend(launch, back2):
    short = {"timeouts": {"tunnel": "800ms", "response_body": "300ms", "response": "300ms"}}

    def attempt(beat):
        akashd, client, backend = launch_before(launch, back2, FRONTS[0], echo, upstream=short)
        with client, contextlib.closing(backend):
            beat()
            status, tunnel = ask(client, FRONTS[0])
            assert status == 101
            for _ in range(4):
                beat()
                assert client.quiet(0.3)
                beat()
                tunnel.send(b".")
                assert tunnel.take(1) == b"."
            beat()
            assert tunnel.wait_end() == "rst"
            akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="tunnel_idle")
    at_pace(attempt, 0.36)


def test_large_transfer_both_ways_at_once_stays_whole(launch, back2):
    akashd, client, backend = launch_before(launch, back2, FRONTS[0], echo)
    with client:
        client.record = False
        _, tunnel = ask(client, FRONTS[0])
        piece = hashlib.sha512(b"slow").digest() * 1024
        count = 8 * MEGABYTE // len(piece)
        sender = threading.Thread(target=lambda: [tunnel.send(piece) for _ in range(count)])
        sender.start()
        for _ in range(count):
            assert tunnel.take(len(piece)) == piece
        sender.join()
    backend.close()
