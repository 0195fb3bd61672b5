# SPDX-License-Identifier: Apache-2.0
"""send_proxy: backends are told, in the PROXY protocol, whose connection it is."""

import json
import subprocess
import threading
from pathlib import Path

import pytest

from harness import Client, free_port, http_config, proxyline, until
from harness.akashd import binary
from harness.fronts import FRONTS, Authority
from harness.peers import Haproxy, Nginx

VERSIONS = ["v1", "v2"]


class Told:
    """An on_connect that reads a header, then answers HTTP requests, or echoes."""

    def __init__(self, echo=False):
        self.headers, self.requests, self.echo = [], [], echo
        self.lock = threading.Lock()

    def __call__(self, connection):
        wire = connection.wire
        header = proxyline.read(wire)
        with self.lock:
            self.headers.append(header)
        if self.echo:
            while piece := (wire.buf or wire.sock.recv(65536)):
                wire.sock.sendall(bytes(piece))
                wire.buf = b"" if wire.buf else wire.buf
            return
        while line := wire.line():
            fields = {}
            while field := wire.line():
                name, _, value = field.decode().partition(": ")
                fields[name.lower()] = value
            with self.lock:
                self.requests.append((line.decode(), fields, len(self.headers)))
            wire.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def configure(port, backend, version, listener=None, **upstream):
    return http_config(port, [backend], {"send_proxy": version, "health_check": False, **upstream}, listener)


@pytest.fixture
def told(scripted):
    made = Told()
    made.backend = scripted(on_connect=made)
    return made


@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_is_told_and_its_port_and_ours(launch, told, version):
    port = free_port()
    launch(configure(port, told.backend, version))
    with Client(port) as client:
        assert client.ask().status == 200
        header = told.headers[0]
        assert header.version == int(version[1])
        assert header.source == client.sock.getsockname() and header.target == ("127.0.0.1", port)


def test_version_2_tells_the_request_and_is_checked(launch, told):
    port = free_port()
    launch(configure(port, told.backend, "v2"))
    with Client(port) as client:
        client.ask()
    line, fields, _ = told.requests[0]
    assert told.headers[0].tlvs[5].decode() == fields["x-request-id"]
    assert 3 in told.headers[0].tlvs, "a checksum"


@pytest.mark.parametrize("front", FRONTS, ids=lambda f: f.name)
def test_every_front_is_told_of(launch, told, front):
    port = free_port()
    launch(configure(port, told.backend, "v2", front.listener()))
    with front.connect(port) as client:
        assert client.ask().status == 200
    tlvs = told.headers[0].tlvs
    if front.scheme == "https":
        assert tlvs[0x20][0] & 1 and b"TLSv1" in tlvs[0x20]
        assert tlvs.get(1) in (None, b"h2", b"http/1.1") and (front.version == 1 or tlvs[1] == b"h2")
    else:
        assert 0x20 not in tlvs and 1 not in tlvs


@pytest.mark.parametrize("version", VERSIONS)
def test_no_connection_serves_two_requests(launch, told, version):
    """Not even of one client: the next might be another's."""
    port = free_port()
    launch(configure(port, told.backend, version))
    with Client(port) as one, Client(port) as two:
        for client in (one, two, one, two):
            assert client.ask().status == 200
        ports = [c.sock.getsockname() for c in (one, two)]
    assert [h.source for h in told.headers] == ports * 2 and len(told.requests) == 4


def test_who_is_told_to_us_is_told_on(launch, told):
    port = free_port()
    launch(configure(port, told.backend, "v1", {"accept_proxy": ["127.0.0.1"]}))
    for source in ("192.0.2.7", "2001:db8::7"):
        with Client(port) as client:
            client.send(proxyline.v1(source, "::1" if ":" in source else "198.51.100.1"))
            assert client.ask().status == 200
    assert [h.source for h in told.headers] == [("192.0.2.7", 4711), ("2001:db8::7", 4711)]


@pytest.mark.parametrize("version", VERSIONS)
def test_tcp_streams_begin_with_it(launch, scripted, version):
    told, port = Told(echo=True), free_port()
    launch(configure(port, scripted(on_connect=told), version, {"mode": "tcp"}))
    with Client(port) as client:
        client.send(b"hello")
        assert client.sock.recv(5) == b"hello"
        assert told.headers[0].source == client.sock.getsockname()


@pytest.mark.parametrize("version", VERSIONS)
def test_health_checks_speak_for_themselves(launch, told, version):
    port = free_port()
    launch(configure(port, told.backend, version, health_check={"type": "http", "path": "/health", "interval": "100ms"}))
    until(lambda: any("/health" in line for line, _, _ in told.requests), "a check")
    assert told.headers[0].is_local


def test_another_version_is_another_backend_to_its_health(launch, told):
    port = free_port()
    akashd = launch(configure(port, told.backend, "v1"))
    with Client(port) as client:
        client.ask()
        akashd.reload(configure(port, told.backend, "v2"))
        client.ask()
        akashd.reload(configure(port, told.backend, "v2"))
        client.ask()
    assert [h.version for h in told.headers] == [1, 2, 2]


@pytest.fixture
def nginx():
    """A real receiver, in cleartext and over TLS, that answers with whom it was told."""
    cert, key = Authority().issue("localhost")
    made = {name: free_port() for name in ("plain", "tls")}
    say = 'location / { return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port"; }'
    server = Nginx(http=f"""
  server {{ listen 127.0.0.1:{made["plain"]} proxy_protocol; {say} }}
  server {{ listen 127.0.0.1:{made["tls"]} ssl proxy_protocol; ssl_certificate {cert}; ssl_certificate_key {key}; {say} }}""")
    yield made
    server.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_nginx_understands(launch, nginx, version, kind):
    port = free_port()
    tls = {"tls": {"verify": False}} if kind == "tls" else {}
    launch(configure(port, f"127.0.0.1:{nginx[kind]}", version, health_check={"type": "http", "path": "/", "interval": "100ms"}, **tls))
    with Client(port) as client:
        for _ in range(3):
            name, own = client.sock.getsockname()
            assert client.ask().body.decode() == f"{name} {own} {port}"


@pytest.fixture
def haproxy(tmp_path):
    """Another one, which tells the request's id of version 2 too."""
    cert, key = Authority().issue("localhost")
    (tmp_path / "pair.pem").write_bytes(Path(cert).read_bytes() + Path(key).read_bytes())
    made = {name: free_port() for name in ("plain", "tls")}
    server = Haproxy(f"""
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:{made["plain"]} accept-proxy
  bind 127.0.0.1:{made["tls"]} accept-proxy ssl crt {tmp_path / "pair.pem"}
  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst_port] %[fc_pp_unique_id]/%[req.hdr(x-request-id)]"
""", made["plain"])
    yield made
    server.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_haproxy_understands(launch, haproxy, version, kind):
    port = free_port()
    tls = {"tls": {"verify": False}} if kind == "tls" else {}
    akashd = launch(configure(port, f"127.0.0.1:{haproxy[kind]}", version, **tls,
                              health_check={"type": "http", "path": "/", "interval": "100ms", "fall": 1}))
    with Client(port) as client:
        for _ in range(3):
            told, _, request_id = client.ask().body.decode().rpartition("/")
            name, own = client.sock.getsockname()
            assert told == f"{name} {own} {port} {request_id if version == 'v2' else ''}" and request_id
    assert "is down" not in akashd.log_text


def reset_after_the_head(told):
    """An on_connect: the request has been taken when the connection breaks."""
    def run(connection):
        told.headers.append(proxyline.read(connection.wire))
        while connection.wire.line():
            pass
        told.requests.append(len(told.headers))
        connection.reset()
    return run


@pytest.mark.parametrize("version", VERSIONS)
def test_the_next_backend_of_a_retry_gets_a_header_of_its_own(launch, scripted, told, version):
    failed, port = Told(), free_port()
    made = [scripted(on_connect=reset_after_the_head(failed)), told.backend]
    launch(http_config(port, made, {"send_proxy": version, "retry": {"backoff": {"base": 0, "max": 0}}}))
    sources = []
    for _ in range(2):
        with Client(port) as client:
            assert client.ask().status == 200
            sources.append(client.sock.getsockname())
    assert len(failed.requests) == len(failed.headers) >= 1
    assert [h.source for h in told.headers] == sources and len(told.requests) == 2
    assert {h.source for h in failed.headers} <= set(sources)
    assert {h.version for h in told.headers + failed.headers} == {int(version[1])}


def test_health_is_kept_apart_by_the_version(launch, scripted):
    """Where v1 is not understood, the backend is down; with v2 it is another one, of which nothing is known yet."""
    def picky(connection):
        if proxyline.read(connection.wire).version == 1:
            connection.reset()
    backend, port = scripted(on_connect=picky), free_port()
    check = {"type": "http", "path": "/", "interval": "60s", "rise": 10, "fall": 1, "jitter": 0}

    def config(version, **more):
        return configure(port, backend, version, health_check=check, **more)
    akashd = launch(config("v1"))
    akashd.wait_metric("akash_backend_up", lambda v: v == 0, backend=backend.address)
    akashd.reload(config("v1", keepalive={"connections": 7}))
    with Client(port) as client:
        assert client.ask().status == 503, "what is the same stays down"
        akashd.reload(config("v2"))
        assert client.ask().status == 200
    akashd.wait_metric("akash_backend_up", lambda v: v == 1, backend=backend.address)


@pytest.mark.parametrize("value", ['"v3"', "2", "true"])
def test_a_wrong_value_is_told_with_its_place(told, tmp_path, value):
    path = tmp_path / "akashd.json"
    text = json.dumps(configure(free_port(), told.backend, "WRONG"), indent=2).replace('"WRONG"', value)
    path.write_text(text)
    before = text[:text.index('"send_proxy": ') + len('"send_proxy": ')]
    place = f"{path}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}: "
    done = subprocess.run([binary(), "-t", "-c", str(path)], capture_output=True, text=True)
    told_of = [line for line in done.stderr.splitlines() if "send_proxy" in line]
    assert done.returncode == 1 and len(told_of) == 1, done.stderr
    assert place in told_of[0]


def test_not_with_http2_backends(launch, told, tmp_path):
    path = tmp_path / "akashd.json"
    path.write_text(json.dumps(configure(free_port(), told.backend.address, "v1", protocol="h2")))
    done = subprocess.run([binary(), "-t", "-c", str(path)], capture_output=True, text=True)
    assert done.returncode == 1 and "send_proxy: not with protocol h2" in done.stderr
