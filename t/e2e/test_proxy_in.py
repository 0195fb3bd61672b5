# SPDX-License-Identifier: Apache-2.0
"""PROXY protocol in: who must send a header, what it changes, and that not a byte behind it is lost."""

import fcntl
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import tempfile
import termios
from pathlib import Path

import pytest

from harness import (FRONTS, PATIENCE, Client, ScriptedBackend, backend as answers, curl, free_port, http_config,
                     tcp_config, until)
from harness.client import build, connect
from harness.peers import Haproxy
from harness.proxyline import behind, tlv, v1, v2
from harness.raw import RawBackend
from harness.wire import Ended, Reset

HERE = ["127.0.0.0/8"]
HTTP, HTTPS = FRONTS[0], FRONTS[1]
ANY_FRONT = pytest.mark.parametrize("front", FRONTS, ids=lambda front: front.name)
HEADERS = {
    "v1": (v1("192.0.2.7"), "192.0.2.7"),
    "v1-ipv6": (v1("2001:db8::7", "2001:db8::1"), "2001:db8::7"),
    "v1-mapped": (v1("::ffff:192.0.2.7", "::1"), "192.0.2.7"),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v2": (v2("192.0.2.7"), "192.0.2.7"),
    "v2-ipv6": (v2("2001:db8::7", "2001:db8::1"), "2001:db8::7"),
    "v2-local": (v2(command=0), "127.0.0.1"),
    "v2-tlvs": (v2("192.0.2.7", tlvs=tlv(2, b"a.test") + tlv(0xee, bytes(3000)), checksum=True), "192.0.2.7"),
}


@pytest.fixture
def behind_proxy(build_site):
    """A Site whose listener requires a header from loopback."""
    def make(front=HTTP, listener=None, **kw):
        return build_site(front, listener={"accept_proxy": HERE, **(listener or {})}, **kw)
    return make


def sent_apart(sock, pieces):
    """Each piece is a segment of its own: the kernel at the other end has it before the next one goes."""
    for piece in pieces:
        sock.sendall(piece)
        until(lambda: struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0] == 0, "an ACK")


def client_of(backend):
    """What the backend was told of the client of its last request."""
    return backend.requests[-1].fields.get("X-Forwarded-For")


def bad_requests(akashd):
    return akashd.metrics().value("akash_failures_total", reason="bad_request") or 0


# -- whose connection it is

@ANY_FRONT
@pytest.mark.parametrize("header, client", HEADERS.values(), ids=HEADERS)
def test_header_tells_the_client(front, header, client, plain_proxy_sites):
    site = plain_proxy_sites(front)
    with behind(front, site.port, header) as c:
        assert c.ask(target="/a").body == b"ok"
        assert client_of(site.backend) == client
        assert c.ask("POST", "/b", body=b"x" * 100000).body == b"ok", "it counts for all requests of the connection"
        assert client_of(site.backend) == client


@pytest.fixture(scope="module")
def plain_proxy_sites():
    """One daemon a front, shared by the tests of this module that change nothing."""
    from harness import Site
    sites = {}

    def get(front):
        if front.name not in sites:
            sites[front.name] = Site(front, listener={"accept_proxy": HERE})
        sites[front.name].fresh()
        return sites[front.name]
    yield get
    for site in sites.values():
        site.close()


@ANY_FRONT
@pytest.mark.parametrize("name", ["v1", "v2-tlvs"])
def test_header_in_many_segments(front, name, plain_proxy_sites):
    header, client = HEADERS[name]
    site = plain_proxy_sites(front)
    cuts = sorted({*range(0, 40), len(header) - 1, len(header)})

    def wrap(sock):
        sent_apart(sock, [header[a:b] for a, b in zip(cuts, cuts[1:])])
        return front.wrap(sock) if front.scheme == "https" else sock
    kind = type(behind(front, site.port, header))
    more = {} if front.version == 1 else {"scheme": front.scheme}
    with kind(site.port, wrap=wrap, **more) as c:
        assert c.ask().body == b"ok"
        assert client_of(site.backend) == client


def test_header_and_request_in_one_segment(behind_proxy):
    site = behind_proxy()
    for header, client in HEADERS.values():
        with site.client() as c:
            c.send(header + build("POST", "/both", body=b"0123456789"), "POST")
            assert c.response().body == b"ok"
            assert site.backend.requests[-1].body == b"0123456789"
            assert client_of(site.backend) == client


def test_header_and_client_hello_in_one_segment(behind_proxy):
    site = behind_proxy(HTTPS)
    context = HTTPS.authority.client_context()
    for header, client in HEADERS.values():
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        sock = connect(site.port)
        sock.sendall(header + outgoing.read())
        request = build("GET", "/one", [("Connection", "close")])
        while True:
            try:
                tls.do_handshake()
                tls.write(request)
                break
            except ssl.SSLWantReadError:
                incoming.write(sock.recv(65536))
        sock.sendall(outgoing.read())
        site.backend.wait(lambda b: b.requests, "the request")
        assert (client_of(site.backend), site.backend.requests[-1].target) == (client, "/one")
        site.backend.fresh()
        sock.close()


# -- what the address decides

def test_address_told_counts_in_log_routes_and_limits(build_site):
    site = build_site(listener={
        "upstream": "site", "accept_proxy": HERE, "trusted_proxies": ["192.0.2.0/24"],
        "rate_limit": {"name": "one", "rate": "1/h", "burst": 2}},
        routes=[{"path": "/deny", "upstream": "site", "deny": ["198.51.100.0/24"]}],
        access_log={"target": "stderr", "format": "json"})

    def ask(source, target="/", fields=()):
        with behind(HTTP, site.port, v1(source)) as c:
            return c.ask(target=target, fields=fields).status
    assert ask("198.51.100.9", "/deny") == 403
    assert ask("203.0.113.1", "/deny") == 200
    assert [ask("203.0.113.2") for _ in range(3)] == [200, 200, 429]
    assert ask("203.0.113.3") == 200, "another address, another bucket"
    line = site.akashd.wait_log(r'"client":"203\.0\.113\.3"')
    assert json.loads(line[line.index("{"):])["status"] == 200
    # trusted_proxies is asked about who the header tells, not about who sends it
    assert ask("203.0.113.4", fields=[("X-Forwarded-For", "1.2.3.4")]) == 200
    assert site.backend.requests[-1].fields.get("X-Forwarded-For") == "1.2.3.4, 203.0.113.4"
    site.akashd.wait_log(r'"client":"203\.0\.113\.4"')
    assert ask("192.0.2.1", fields=[("X-Forwarded-For", "203.0.113.5")]) == 200
    site.akashd.wait_log(r'"client":"203\.0\.113\.5"')


def test_ip_hash_goes_by_the_address_told(launch, scripted):
    backends, port = [scripted(answers.fixed(b"b%d" % i)) for i in range(4)], free_port()
    launch(http_config(port, backends, {"algorithm": "ip_hash"}, {"accept_proxy": HERE}, workers=4))

    def backend_of(source):
        with behind(HTTP, port, v1(source)) as c:
            return c.ask().body
    chosen = {i: backend_of(f"192.0.2.{i}") for i in range(1, 40)}
    assert len(set(chosen.values())) == 4, "addresses are told apart"
    assert all(backend_of(f"192.0.2.{i}") == b for i, b in chosen.items()), "and each stays"


# -- who must, and who must not

MALFORMED = {
    "no header": build("GET", "/"),
    "another line": b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n" + build("GET", "/"),
    "too long": b"PROXY UNKNOWN " + b"x" * 200,
    "checksum": v2("192.0.2.7", tlvs=tlv(3, b"abcd")) + build("GET", "/"),
    "another command": v2("192.0.2.7", command=5) + build("GET", "/"),
    "endless": v2()[:14] + b"\xff\xff",
    "a preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@ANY_FRONT
@pytest.mark.parametrize("what", MALFORMED.values(), ids=MALFORMED)
def test_malformed_header_ends_the_connection(front, what, plain_proxy_sites):
    site = plain_proxy_sites(front)
    before = bad_requests(site.akashd)
    with Client(site.port) as c:
        c.try_send(what)
        c.wait_end()
        assert not c.received
    site.akashd.wait_metric("akash_failures_total", lambda n: n == before + 1, reason="bad_request")
    site.akashd.wait_log(r"warn.*listener web: PROXY header of 127\.0\.0\.1: .+: closed")
    with behind(front, site.port, v1("192.0.2.7")) as c:
        assert c.ask(target="/fence").body == b"ok"
    assert [r.target for r in site.backend.requests] == ["/fence"]


def test_header_that_is_cut_ends_the_connection(behind_proxy):
    site = behind_proxy()
    for n, (header, _) in enumerate(HEADERS.values(), 1):
        with site.client() as c:
            c.send(header[:-1])
            c.half_close()
            c.wait_end()
        site.akashd.wait_metric("akash_failures_total", lambda count: count == n, reason="bad_request")


def test_connection_without_a_byte_is_no_failure(behind_proxy):
    site = behind_proxy()
    with site.client() as c:
        c.half_close()
        assert c.wait_end() == "fin"
    with site.client() as c:
        c.reset()
    site.akashd.wait_metric("akash_listener_connections", lambda n: n == 0)
    assert bad_requests(site.akashd) == 0


@pytest.mark.parametrize("front, timeout", [(HTTP, "header"), (HTTPS, "handshake")], ids=["header", "handshake"])
@pytest.mark.parametrize("begin", [b"", b"PROXY TCP4 192.0.2.7"], ids=["nothing", "half"])
def test_header_has_a_deadline(behind_proxy, front, timeout, begin):
    site = behind_proxy(front, listener={"timeouts": {timeout: "200ms"}})
    with Client(site.port) as c:
        c.send(begin)
        c.wait_end()
        assert not c.received
    site.akashd.wait_metric("akash_failures_total", lambda n: n == 1, reason="bad_request")


def test_handshake_has_one_deadline_with_the_header(behind_proxy):
    site = behind_proxy(HTTPS, listener={"timeouts": {"handshake": "300ms"}})
    with Client(site.port) as c:
        c.send(v1("192.0.2.7"))
        c.wait_end()
    site.akashd.wait_metric("akash_failures_total", lambda n: n == 1, reason="handshake_failed")


@pytest.mark.parametrize("header", [v1("192.0.2.7"), v2("192.0.2.7")], ids=["v1", "v2"])
def test_header_of_an_outsider_is_a_bad_request(build_site, header):
    site = build_site(listener={"accept_proxy": ["192.0.2.0/24", "unix"]})
    with Client(site.port) as c:
        c.send(header + build("GET", "/"), "GET")
        assert c.response().status == 400
    site.akashd.wait_metric("akash_failures_total", lambda n: n == 1, reason="bad_request")
    site.fence()
    assert client_of(site.backend) == "127.0.0.1", "who is no proxy needs none"


# -- tcp mode

@pytest.fixture
def raw():
    backend = RawBackend()
    yield backend
    backend.close()


def test_tcp_payload_is_what_is_behind_the_header(launch, raw):
    port = free_port()
    akashd = launch(tcp_config(port, [raw], listener={"accept_proxy": HERE},
                               access_log={"target": "stderr", "format": "tcp"}))
    for header, client in HEADERS.values():
        with Client(port) as c:
            c.send(header + header + b"payload")
            backend = raw.accept()
            assert backend.take(len(header) + 7) == header + b"payload", "one header, and what it is behind"
            backend.sock.sendall(b"answer")
            assert c.take(6) == b"answer"
            backend.close()
        akashd.wait_log(rf" {client} web site/")


def test_tcp_header_alone_opens_the_tunnel(launch, raw):
    port = free_port()
    launch(tcp_config(port, [raw], listener={"accept_proxy": HERE}))
    with Client(port) as c:
        sent_apart(c.sock, [v2("192.0.2.7")])
        backend = raw.accept()
        backend.sock.sendall(b"220 hello")
        assert c.take(9) == b"220 hello"
        sent_apart(c.sock, [b"a", b"b"])
        assert backend.take(2) == b"ab"
        c.half_close()
        assert backend.wait_end() == "fin"
        backend.close()


def test_tcp_header_of_an_outsider_is_payload(launch, raw):
    port = free_port()
    launch(tcp_config(port, [raw], listener={"accept_proxy": ["192.0.2.0/24"]}))
    with Client(port) as c:
        c.send(v1("192.0.2.7"))
        assert raw.accept().take(len(v1("192.0.2.7"))) == v1("192.0.2.7")


# -- Unix sockets

@pytest.mark.parametrize("accept", ["unix", ["unix"], ["10.0.0.0/8", "unix"]], ids=["word", "list", "mixed"])
def test_peers_of_unix_sockets(launch, scripted, accept):
    folder = Path(tempfile.mkdtemp(prefix="akashd-proxy-"))
    folder.chmod(0o755)
    port, backend, path = free_port(), scripted(), folder / "web.sock"
    try:
        akashd = launch(http_config(port, [backend], listener={
            "address": [f"127.0.0.1:{port}", f"unix:{path}"], "accept_proxy": accept}))
        for header, client in HEADERS.values():
            with Client(None, str(path), wrap=lambda s: s) as c:
                half = len(header) // 2
                c.send(header[:half])
                c.send(header[half:] + build("GET", "/"), "GET")
                assert c.response().status == 200
                assert client_of(backend) == client.replace("127.0.0.1", "unix:")
        with Client(None, str(path)) as c:
            c.send(build("GET", "/"))
            c.wait_end()
        akashd.wait_metric("akash_failures_total", lambda n: n == 1, reason="bad_request")
        with Client(port) as c:
            assert c.ask().status == 200, "a TCP peer is none"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- limits, drain, reload

def test_refusal_at_max_connections(behind_proxy):
    site = behind_proxy(max_connections=2, listener={"limits": {"max_age": "1h"}})
    held = [site.client() for _ in range(2)]
    for c in held:
        c.send(v1("192.0.2.7")[:10])  # not idle: nobody is closed in favour of another
    site.akashd.wait_metric("akash_active_connections", lambda n: n == 2)
    with site.client() as c:
        c.try_send(v1("192.0.2.8") + build("GET", "/"))
        c.asked.append("GET")
        answer = c.response()
        assert (answer.status, "over_limit" in answer.text) == (503, True)
    held[0].close()
    site.akashd.wait_metric("akash_active_connections", lambda n: n == 1)
    with behind(HTTP, site.port, v1("192.0.2.9")) as c:
        assert c.ask().body == b"ok"
    held[1].send(v1("192.0.2.7")[10:] + build("GET", "/"), "GET")
    assert held[1].response().body == b"ok"


def test_drain_waits_for_a_header_that_has_begun(behind_proxy):
    site = behind_proxy(drain_timeout="20s", listener={"timeouts": {"header": "60s"}})
    silent, begun = site.client(), site.client()
    begun.send(v1("192.0.2.7")[:20])
    site.akashd.wait_metric("akash_active_connections", lambda n: n == 2)
    site.akashd.send(signal.SIGTERM)
    until(lambda: not can_connect(site.port), "the listener to close")
    begun.send(v1("192.0.2.7")[20:] + build("GET", "/late"), "GET")
    answer = begun.response()
    assert (answer.body, answer.closes) == (b"ok", True)
    assert silent.wait_end() == "fin", "who said nothing is sent away"
    assert site.akashd.wait_exit(PATIENCE * 2) == 0
    assert client_of(site.backend) == "192.0.2.7"
    assert "PROXY header" not in site.akashd.log_text, "and nobody is blamed"


def can_connect(port):
    try:
        connect(port).close()
        return True
    except OSError:
        return False


def test_reload_changes_who_must_send_a_header(launch, scripted):
    port, backend = free_port(), scripted()

    def config(accept):
        return http_config(port, [backend], listener={"accept_proxy": accept}, workers=4)
    akashd = launch(config([]))
    plain = Client(port)
    assert plain.ask().body == b"ok"
    akashd.reload(config(HERE))
    with behind(HTTP, port, v1("192.0.2.7")) as told:
        assert told.ask().body == b"ok"
        assert client_of(backend) == "192.0.2.7"
        assert plain.ask().body == b"ok", "what is established stays"
        assert client_of(backend) == "127.0.0.1"
        half = [Client(port) for _ in range(8)]
        for c in half:
            c.send(v1("192.0.2.8")[:9])
        akashd.wait_metric("akash_active_connections", lambda n: n == 10)
        akashd.reload(config([]))
        for c in half:
            c.send(v1("192.0.2.8")[9:])
            assert c.ask().body == b"ok", "a header that has begun is read to its end"
            assert client_of(backend) == "192.0.2.8"
            c.close()
        with Client(port) as c:
            assert c.ask().body == b"ok"
        assert told.ask().body == b"ok"
        assert client_of(backend) == "192.0.2.7"
    plain.close()


# -- real peers

def test_curl_sends_a_header(behind_proxy):
    site = behind_proxy()
    done = curl("--haproxy-protocol", "--interface", "127.0.0.1", f"http://127.0.0.1:{site.port}/curl")
    assert done.stdout == "ok"
    assert client_of(site.backend) == "127.0.0.1"


@pytest.fixture
def haproxy():
    made = []

    def start(config, port):
        made.append(Haproxy(config, port))
    yield start
    for server in made:
        server.close()


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2",
                                    "send-proxy-v2 proxy-v2-options ssl,crc32c,unique-id,authority"],
                         ids=["v1", "v2", "v2-options"])
@pytest.mark.parametrize("front", [HTTP, HTTPS], ids=["http", "https"])
def test_haproxy_in_front(behind_proxy, haproxy, front, option):
    site, port = behind_proxy(front), free_port()
    haproxy(f"""
defaults
  mode tcp
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:{port}
  unique-id-format %ci:%cp
  default_backend b
backend b
  server akashd 127.0.0.1:{site.port} {option}
""", port)
    for i in range(3):
        with front.connect(port, source=f"127.0.0.{i + 2}") as c:
            assert c.ask("POST", "/", body=b"x" * 70000).body == b"ok"
        assert client_of(site.backend) == f"127.0.0.{i + 2}"
    assert site.akashd.metrics().value("akash_failures_total", reason="bad_request") in (None, 0)
