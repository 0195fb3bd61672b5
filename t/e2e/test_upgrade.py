# SPDX-License-Identifier: Apache-2.0
"""Upgrades in HTTP/1.1: what becomes a tunnel, what stays HTTP, and how a tunnel lives and ends.

The backend is raw: the test reads every byte that reaches it and answers by itself.
"""

import hashlib
import json
import shutil
import tempfile
import threading
import time
from pathlib import Path

import pytest

from harness import FRONTS, PATIENCE, Client, Silence, at_pace, free_port, http_config, until
from harness.client import build
from harness.raw import RawBackend

MEGABYTE = 1024 * 1024
HTTP1 = [front for front in FRONTS if front.name in ("http", "https")]
WANTED = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
          ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


class Head:
    """A request's head as the raw backend reads it."""

    def __init__(self, wire):
        self.line = wire.line().decode("latin-1")
        self.fields = wire.fields()


class Site:
    """A daemon before one raw backend."""

    def __init__(self, launch, front=HTTP1[0], upstream=None, listener=None, **top):
        self.front, self.port, self.backend, self.clients = front, free_port(), RawBackend(), []
        self.config = http_config(self.port, [self.backend], upstream,
                                  {**front.listener(), **(listener or {})}, **top)
        self.akashd = launch(self.config)

    def client(self, **kw):
        self.clients.append(self.front.connect(self.port, **kw))
        return self.clients[-1]

    def ask(self, fields=WANTED, method="GET", behind=b"", body=None, **kw):
        """A client, the backend's end and the head it got. behind: bytes sent right after the request."""
        client = self.client(record=False)
        client.send(build(method, "/chat", fields, body, **kw) + behind, method)
        server = self.backend.accept(record=False)
        return client, server, Head(server)

    def open(self, **kw):
        """Both ends of a tunnel."""
        client, server, _ = self.ask(**kw)
        server.sock.sendall(SWITCH)
        assert client.response_head().status == 101
        return client, server

    def wait_failure(self, reason, count=1):
        self.akashd.wait_metric("akash_failures_total", lambda v: v == count, reason=reason)

    def wait_gone(self):
        self.akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0)
        self.akashd.wait_metric("akash_active_connections", lambda v: v == 0)

    def close(self):
        for client in self.clients:
            client.close()
        self.backend.close()


@pytest.fixture
def make_site(launch):
    made = []

    def make(**kw):
        made.append(Site(launch, **kw))
        return made[-1]
    yield make
    for site in made:
        site.close()


@pytest.fixture
def site(make_site):
    return make_site()


@pytest.fixture
def folder():
    """A folder that the unprivileged worker may enter."""
    path = Path(tempfile.mkdtemp(prefix="akashd-upgrade-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def send(wire, data):
    wire.sock.settimeout(PATIENCE)
    wire.sock.sendall(data)


def says_nothing(wire, seconds=0.2):
    """No byte and no end comes for so long."""
    try:
        return not wire.buf and wire.fill(seconds) is None
    except Silence:
        return True


# -- what becomes a tunnel


@pytest.mark.parametrize("front", HTTP1, ids=lambda f: f.name)
def test_bytes_pass_both_ways_after_the_101(make_site, front):
    client, server = make_site(front=front).open()
    for n in range(20):
        send(client, b"GET / HTTP/1.1\r\n%d\0" % n)
        assert server.take(len(b"GET / HTTP/1.1\r\n%d\0" % n)) == b"GET / HTTP/1.1\r\n%d\0" % n
        send(server, b"HTTP/1.1 500 \xff%d\r\n\r\n" % n)
        assert client.take(len(b"HTTP/1.1 500 \xff%d\r\n\r\n" % n)) == b"HTTP/1.1 500 \xff%d\r\n\r\n" % n


def test_connection_field_is_ours_both_ways(site):
    fields = [("Connection", "keep-alive, UPGRADE, X-Private"), ("Upgrade", "WebSocket"), ("X-Private", "1"),
              ("Keep-Alive", "timeout=5"), *WANTED[2:]]
    client, server, head = site.ask(fields)
    assert head.line == "GET /chat HTTP/1.1"
    assert (head.fields.all("Connection"), head.fields.all("Upgrade")) == (["upgrade"], ["WebSocket"])
    assert "X-Private" not in head.fields and "Keep-Alive" not in head.fields
    assert head.fields.get("Sec-WebSocket-Key") == "dGhlIHNhbXBsZSBub25jZQ=="
    assert head.fields.get("X-Forwarded-For") == "127.0.0.1"
    send(server, b"HTTP/1.1 101 Yes\r\nupgrade: websocket\r\nKeep-Alive: x\r\nX-Hop: 1\r\n"
                 b"connection: x-hop, upgrade\r\nContent-Length: 7\r\n"
                 b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
    answer = client.response_head()
    assert (answer.status, answer.reason) == (101, "Yes")
    assert (answer.fields.all("Connection"), answer.fields.all("Upgrade")) == (["upgrade"], ["websocket"])
    assert not {"keep-alive", "x-hop", "content-length"} & {name.lower() for name, _ in answer.fields}
    assert answer.fields.get("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_bytes_behind_the_request_wait_for_the_101(site):
    client, server, _ = site.ask(behind=b"\x81\x05early")
    assert says_nothing(server)
    send(client, b"\x81\x04more")
    assert says_nothing(server)
    send(server, SWITCH + b"\x81\x02hi")
    assert client.response_head().status == 101
    assert server.take(13) == b"\x81\x05early\x81\x04more" and client.take(4) == b"\x81\x02hi"


def test_many_bytes_behind_the_request_arrive_whole(site):
    data = bytes(range(256)) * 2048
    client, server, _ = site.ask()
    sender = threading.Thread(target=send, args=(client, data))
    sender.start()
    assert says_nothing(server)
    send(server, SWITCH)
    assert server.take(len(data)) == data
    sender.join()


def test_other_answers_before_the_101_pass(site):
    client, server, _ = site.ask()
    send(server, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + SWITCH)
    answer = client.response_head()
    assert answer.status == 101 and [i.status for i in answer.interim] == [103]


def test_other_protocols_may_be_asked_for_with_a_body(site):
    fields = [("Connection", "Upgrade"), ("Upgrade", "tcp/2")]
    client, server, head = site.ask(fields, "POST", b"stdin", b'{"Tty": true}')
    assert head.fields.all("Upgrade") == ["tcp/2"] and server.take(13) == b'{"Tty": true}'
    assert says_nothing(server)
    send(server, b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: TCP/2\r\n\r\nstdout")
    assert client.response_head().fields.get("Upgrade") == "TCP/2" and client.take(6) == b"stdout"
    assert server.take(5) == b"stdin"


@pytest.mark.parametrize("front", HTTP1, ids=lambda f: f.name)
def test_bulk_passes_both_ways(make_site, front):
    client, server = make_site(front=front).open()
    piece = hashlib.sha512(b"bulk").digest() * 1024
    count = 16 * MEGABYTE // len(piece)

    def pour(wire):
        for _ in range(count):
            send(wire, piece)
    for source, sink in ((client, server), (server, client)):
        sender = threading.Thread(target=pour, args=(source,))
        sender.start()
        for _ in range(count):
            assert sink.take(len(piece)) == piece
        sender.join()


# -- what stays HTTP


def test_refused_upgrade_stays_http(site):
    behind = build("GET", "/second", [("X-Forwarded-For", "6.6.6.6")])
    client, server, _ = site.ask(behind=behind)
    send(server, b"HTTP/1.1 403 Forbidden\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nno")
    answer = client.response()
    assert (answer.status, answer.body, answer.closes) == (403, b"no", False)
    assert "Upgrade" not in answer.fields and "upgrade" not in answer.fields.tokens("Connection")
    head = Head(server)
    assert head.line == "GET /second HTTP/1.1" and head.fields.get("X-Forwarded-For") == "6.6.6.6, 127.0.0.1"
    send(server, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")
    client.asked.append("GET")
    assert client.response().body == b"yes"


def test_what_follows_a_refused_upgrade_is_judged_as_http(site):
    client, server, _ = site.ask(behind=b"\x81\x05hello")
    send(server, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert client.response().body == b"ok"
    assert client.response("GET").status == 400 and client.ended() == "fin"
    assert says_nothing(server)


@pytest.mark.parametrize("method, fields, kw", [
    ("GET", [("Connection", "Upgrade")], {}),
    ("GET", [("Upgrade", "websocket")], {}),
    ("GET", [("Connection", "Upgrade"), ("Upgrade", "websocket, x")], {}),
    ("GET", [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Upgrade", "x")], {}),
    ("GET", WANTED, {"version": "1.0"}),
    ("GET", WANTED, {"body": b"12345"}),
    ("HEAD", WANTED, {}), ("POST", WANTED, {"body": b""}), ("OPTIONS", WANTED, {}),
    ("HEAD", [("Connection", "Upgrade"), ("Upgrade", "x")], {}),
    ("GET", [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")], {}),
    ("POST", [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "H2C"), ("HTTP2-Settings", "AA")], {"body": b"x"}),
    ("GET", [("Connection", "Upgrade"), ("Upgrade", "h2c, websocket")], {}),
    ("GET", [("Connection", "Upgrade"), ("Upgrade", "HTTP/2.0")], {}),
    ("OPTIONS", [("Connection", "Upgrade"), ("Upgrade", "TLS/1.2")], {}),
], ids=str)
def test_upgrade_that_is_not_passed_on_is_an_ordinary_request(site, method, fields, kw):
    client, server, head = site.ask(fields, method, **kw)
    names = {name.lower() for name, _ in head.fields}
    assert not {"upgrade", "connection", "http2-settings"} & names, head.fields
    server.take(len(kw.get("body", b"")))
    send(server, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert client.response().status == 200


def test_http2_settings_do_not_pass_beside_another_upgrade(site):
    fields = [("Connection", "Upgrade, HTTP2-Settings"), *WANTED[1:], ("HTTP2-Settings", "AAMAAABk")]
    client, server, head = site.ask(fields)
    assert head.fields.all("Upgrade") == ["websocket"] and "HTTP2-Settings" not in head.fields
    send(server, SWITCH)
    assert client.response_head().status == 101


def switch(*fields):
    return b"HTTP/1.1 101 Switching Protocols\r\n" + b"".join(f + b"\r\n" for f in fields) + b"\r\n"


CONNECTION, WEBSOCKET = b"Connection: upgrade", b"Upgrade: websocket"
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("fields, answer", [
    ([], switch(CONNECTION, WEBSOCKET, ACCEPT)),
    (WANTED, switch(CONNECTION, b"Upgrade: h2c", ACCEPT)),
    (WANTED, switch(CONNECTION, b"Upgrade: websockets", ACCEPT)),
    (WANTED, switch(CONNECTION, b"Upgrade: websocket, x", ACCEPT)),
    (WANTED, switch(CONNECTION, WEBSOCKET, WEBSOCKET, ACCEPT)),
    (WANTED, switch(CONNECTION, ACCEPT)), (WANTED, switch(WEBSOCKET, ACCEPT)), (WANTED, switch(ACCEPT)),
    (WANTED, switch(CONNECTION, WEBSOCKET, ACCEPT).replace(b"1.1", b"1.0")),
    (WANTED, switch(CONNECTION, WEBSOCKET)),
    (WANTED, switch(CONNECTION, WEBSOCKET, ACCEPT[:-2] + b"A=")),
    ([("Connection", "upgrade"), ("Upgrade", "h2c")], switch(CONNECTION, b"Upgrade: h2c")),
], ids=str)
def test_101_that_was_not_asked_for_is_502(site, fields, answer):
    client, server, _ = site.ask(fields)
    send(server, answer + b"GET / HTTP/1.1\r\n\r\n")
    got = client.response()
    assert got.status == 502 and "bad_response" in got.text and b"GET /" not in bytes(client.buf)
    assert server.wait_end() in ("fin", "rst")
    site.wait_failure("bad_response")


def test_101_before_the_request_is_whole_is_502(site):
    client = site.client()
    client.send(build("POST", "/", [("Connection", "upgrade"), ("Upgrade", "x"), ("Content-Length", "9")]) + b"1234",
                "POST")
    server = site.backend.accept()
    assert Head(server).fields.all("Upgrade") == ["x"]
    send(server, switch(CONNECTION, b"Upgrade: x"))
    assert client.response().status == 502
    site.wait_failure("bad_response")


# -- how it ends


@pytest.mark.parametrize("front", HTTP1, ids=lambda f: f.name)
@pytest.mark.parametrize("first", ["client", "server"])
def test_half_close_is_passed_on(make_site, front, first):
    site = make_site(front=front)
    client, server = site.open()
    if first == "client":
        client.close() if front.name == "https" else client.half_close()
        assert server.wait_end() == ("rst" if front.name == "https" else "fin")
        if front.name == "http":
            send(server, b"still here")
            assert client.take(10) == b"still here"
            server.close()
            assert client.ended() == "fin"
    else:
        server.half_close()
        assert client.ended() == "fin"
        send(client, b"still here")
        assert server.take(10) == b"still here"
        client.close()
        server.wait_end()
    site.wait_gone()


def test_bytes_right_before_the_end_arrive(site):
    client, server = site.open()
    data = b"z" * 3 * MEGABYTE
    sender = threading.Thread(target=lambda: (send(server, data), server.close()))
    sender.start()
    assert client.take(len(data)) == data and client.ended() == "fin"
    sender.join()


@pytest.mark.parametrize("who", ["client", "server"])
def test_reset_is_passed_on(site, who):
    client, server = site.open()
    gone, left = (client, server) if who == "client" else (server, client)
    gone.reset()
    assert left.wait_end() == "rst"
    site.wait_failure("client_closed" if who == "client" else "backend_reset")
    site.wait_gone()


@pytest.mark.parametrize("listener, upstream", [("500ms", "1h"), ("1h", "500ms"), ("500ms", 0), (0, "500ms")])
def test_silence_ends_it_by_the_smaller_timeout(make_site, listener, upstream):
    site = make_site(listener={"timeouts": {"tunnel": listener}}, upstream={"timeouts": {"tunnel": upstream}})
    began = time.monotonic()
    client, server = site.open()
    assert client.ended() == server.wait_end() == "rst"
    assert 0.4 <= time.monotonic() - began < 5
    site.wait_failure("tunnel_idle")


@pytest.mark.parametrize("who", ["client", "server"])
def test_bytes_of_either_side_keep_it_alive(make_site, who):
    """No other deadline of HTTP ends it either."""
    short = {"request_body": "300ms", "header": "300ms", "idle": "300ms", "tunnel": "700ms"}

    def attempt(beat):
        site = make_site(listener={"timeouts": short},
                         upstream={"timeouts": {"response": "300ms", "response_body": "300ms", "total": "1s"}})
        beat()
        client, server = site.open()
        beat()
        talker, hearer = (client, server) if who == "client" else (server, client)
        for _ in range(10):
            send(talker, b".")
            assert hearer.take(1) == b"."
            beat()
            assert says_nothing(talker)
            beat()
        return site, client
    site, client = at_pace(attempt, 0.28)
    assert client.ended() == "rst"
    site.wait_failure("tunnel_idle")


def test_upgrade_without_an_answer_ends_by_the_response_timeout(make_site):
    client, server, _ = make_site(upstream={"timeouts": {"response": "300ms"}}).ask()
    assert client.response().status == 504


def test_reader_that_stands_still_ends_it(make_site):
    site = make_site(listener={"timeouts": {"send": "400ms"}})
    client, server = site.open()
    server.sock.settimeout(PATIENCE)
    with pytest.raises(OSError):
        while True:
            server.sock.sendall(b"x" * 65536)
    site.wait_failure("send_timeout")


def test_shutdown_cuts_it_after_the_drain_timeout(make_site):
    def attempt(beat):
        site = make_site(drain_timeout="1s")
        client, server = site.open()
        beat()
        began = time.monotonic()
        site.akashd.send(15)
        send(client, b"still")
        assert server.take(5) == b"still"
        return site, client, server, began
    site, client, server, began = at_pace(attempt, 0.7)
    assert client.ended() == server.wait_end() == "rst"
    assert 0.5 < time.monotonic() - began < 5
    assert site.akashd.wait_exit() == 0


def test_shutdown_waits_for_its_end(make_site):
    site = make_site(drain_timeout="20s")
    client, server = site.open()
    site.akashd.send(15)
    began = time.monotonic()
    for n in range(3):
        send(client, b"%d" % n)
        assert server.take(1) == b"%d" % n
    client.close()
    assert server.wait_end() == "fin"
    server.close()
    assert site.akashd.wait_exit() == 0 and time.monotonic() - began < 10


@pytest.mark.parametrize("what", ["backend", "listener"])
def test_tunnel_whose_backend_or_listener_left_ends_by_the_retire_timeout(make_site, what):

    def attempt(beat):
        site = make_site(retire_timeout="1s")
        client, server = site.open()
        if what == "backend":
            after = {**site.config, "upstreams": {"site": {"backends": [{"address": "127.0.0.1:9"}]}}}
        else:
            after = {**site.config, "listeners": [{**site.config["listeners"][0], "name": "other",
                                                   "address": f"127.0.0.1:{free_port()}"}]}
        beat()
        began = time.monotonic()
        site.akashd.reload(after)
        send(client, b"still")
        assert server.take(5) == b"still"
        return site, client, server, began
    site, client, server, began = at_pace(attempt, 0.7)
    assert client.ended() == server.wait_end() == "rst"
    assert 0.5 < time.monotonic() - began < 5
    site.wait_failure("drain_cut")


def test_tunnel_that_opens_after_its_backend_left_has_the_same_end(make_site):
    site = make_site(retire_timeout="1s")
    client, server, _ = site.ask()
    site.akashd.reload({**site.config, "upstreams": {"site": {"backends": [{"address": "127.0.0.1:9"}]}}})
    send(server, SWITCH)
    assert client.response_head().status == 101 and client.ended() == "rst"
    site.wait_failure("drain_cut")


# -- what is told


def test_open_tunnels_are_counted(site):
    pairs = [site.open() for _ in range(3)]
    site.akashd.wait_metric("akash_backend_active_connections", lambda v: v == 3)
    for client, server in pairs:
        client.close(), server.close()
    site.wait_gone()
    site.akashd.wait_metric("akash_requests_total", lambda v: v == 3, code="101")
    site.akashd.wait_metric("akash_backend_served_total", lambda v: v == 3)


def test_connection_of_a_tunnel_is_used_by_nobody_else(site):
    client, server = site.open()
    client.close(), server.close()
    site.wait_gone()
    client, other, _ = site.ask([])
    send(other, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert client.response().status == 200 and len(site.backend.wires) == 2


def test_access_log_has_one_line_at_the_end(make_site, folder):
    log = folder / "access.log"
    site = make_site(access_log={"target": str(log), "format": "json"})
    client, server = site.open()
    send(client, b"u" * 10)
    assert server.take(10) == b"u" * 10
    send(server, b"d" * 5000)
    assert client.take(5000) == b"d" * 5000
    assert not log.exists() or not log.read_text()
    client.close(), server.close()
    until(lambda: log.read_text().endswith("\n"), "a line")
    line, = [json.loads(text) for text in log.read_text().splitlines()]
    assert (line["status"], line["path"], line["reason"]) == (101, "/chat", "")
    assert (line["bytes_in"], line["bytes_out"], line["backend"]) == (10, 5000, site.backend.address)
