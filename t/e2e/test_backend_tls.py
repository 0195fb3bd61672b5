# SPDX-License-Identifier: Apache-2.0
"""TLS towards backends: whom akashd believes, what it shows, how it resumes, and what it makes of every way to fail."""

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import tempfile
import threading
import time
from pathlib import Path

import pytest

from harness import (PATIENCE, Authority, Client, Nginx, Reset, curl, free_port, http_config, server_context,
                     tcp_config, until)
from harness.backend import ScriptedBackend, echo, fixed, head, stall, tcp_echo, until_close
from harness.fronts import FRONTS
from harness.h2backend import H2Backend
from harness.raw import RawBackend

MEGABYTE = 1024 * 1024
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
ALL_FRONTS = pytest.mark.parametrize("front", FRONTS[:2], ids=lambda f: f.name)


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def stranger():
    return Authority(name="somebody else")


@pytest.fixture(scope="module")
def pair(authority):
    """For every name that a backend of this machine may be called by."""
    return authority.issue("localhost", "127.0.0.1", "::1", stem="backend")


@pytest.fixture(scope="module")
def own_pair(authority):
    """What akashd shows."""
    return authority.issue("proxy.test", stem="proxy")


@pytest.fixture
def folder():
    """A folder that the unprivileged worker may enter."""
    path = Path(tempfile.mkdtemp(prefix="akashd-btls-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


class Site:
    """A daemon before backends that speak TLS."""

    def __init__(self, launch, backends, tls, front=FRONTS[0], make=http_config, env=None, **upstream):
        self.front, self.port, self.make, self.upstream = front, free_port(), make, upstream
        self.backends = backends
        self.akashd = launch(self.config(tls), env=env)

    def config(self, tls):
        upstream = {**self.upstream, **({} if tls is None else {"tls": tls})}
        listener = self.front.listener()
        if self.make is tcp_config and listener:
            listener["tls"]["alpn"] = ["http/1.1"]  # the front's client insists on it
        return self.make(self.port, self.backends, upstream, listener)

    def reload(self, tls, **kw):
        return self.akashd.reload(self.config(tls), **kw)

    def client(self):
        return self.front.connect(self.port)

    def ask(self, **kw):
        with self.client() as client:
            return client.ask(**kw)

    def wait_failures(self, reason, count):
        self.akashd.wait_metric("akash_failures_total", lambda v: v == count, reason=reason)

    def expect_refusal(self, why, reason="backend_tls", status=502):
        """The next request fails for that reason, and the log says why."""
        answer = self.ask()
        assert (answer.status, reason in answer.text) == (status, True), answer
        self.wait_failures(reason, 1)
        self.akashd.wait_log(rf"warn worker 0: backend site/\S+: TLS: {why}")


@pytest.fixture
def make_site(launch):
    def make(backends, tls, **kw):
        backends = backends if isinstance(backends, list) else [backends]
        return Site(launch, backends, tls, **kw)
    return make


def states(akashd):
    return {b["id"]: b for u in json.loads(akashd.get("/status.json")[1])["upstreams"] for b in u["backends"]}


# -- who is believed

@VERSIONS
@ALL_FRONTS
def test_requests_pass(make_site, scripted, authority, pair, front, version):
    backend = scripted(tls=server_context(pair, version=version))
    site = make_site(backend, {"ca": str(authority.file)}, front=front)
    with site.client() as client:
        for _ in range(3):
            assert client.ask().body == b"ok"
    assert len(backend.connections) == 1
    sock = backend.connections[0].wire.sock
    assert sock.version() == {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}[version]


def named_backend(scripted, pair, **kw):
    """A backend that notes the server names it is asked for."""
    context = server_context(pair, **kw)
    seen = []
    context.sni_callback = lambda sock, name, c: seen.append(name)
    return scripted(tls=context), seen


def test_addresses_are_looked_for_as_such_and_not_sent(make_site, scripted, authority, pair):
    backend, seen = named_backend(scripted, pair)
    assert make_site(backend, {"ca": str(authority.file)}).ask().body == b"ok"
    assert seen == [None]


def test_ipv6_address_in_the_certificate(make_site, scripted, authority, pair):
    backend = scripted(host="::1", tls=server_context(pair))
    assert make_site(backend, {"ca": str(authority.file)}).ask().body == b"ok"


def test_name_of_the_address_is_checked_and_sent(make_site, scripted, authority, pair):
    backend, seen = named_backend(scripted, pair)
    site = make_site({"address": f"localhost:{backend.port}"}, {"ca": str(authority.file)})
    assert site.ask().body == b"ok"
    assert seen == ["localhost"]


def test_server_name_takes_the_place_of_the_address(make_site, scripted, authority):
    backend, seen = named_backend(scripted, authority.issue("site.example"))
    site = make_site(backend, {"ca": str(authority.file), "server_name": "site.example"})
    assert site.ask().body == b"ok"
    assert seen == ["site.example"]


def test_http1_is_offered(make_site, scripted, authority, pair):
    backend = scripted(tls=server_context(pair, alpn=["h2", "http/1.1"]))
    assert make_site(backend, {"ca": str(authority.file)}).ask().body == b"ok"
    assert backend.connections[0].wire.sock.selected_alpn_protocol() == "http/1.1"


def test_http2_is_offered_and_insisted_on(make_site, scripted, authority, pair):
    both = H2Backend(tls=server_context(pair, alpn=["http/1.1", "h2"]))
    try:
        site = make_site(both, {"ca": str(authority.file)}, protocol="h2", health_check=check("tcp"))
        wait_state(site, "up")
        assert site.ask().body == b"ok"
    finally:
        both.close()
    for alpn in (["http/1.1"], None):
        old = scripted(tls=server_context(pair, alpn=alpn))
        site.backends = [old]
        site.akashd.reload(site.config({"ca": str(authority.file)}))
        answer = site.ask()
        assert answer.status == 502 and "backend_tls" in answer.text
        assert not old.requests


@pytest.mark.parametrize("names,days,tls,why", [
    (["127.0.0.1"], 30, {"ca": "stranger"}, "certificate verify failed: unable to get local issuer certificate"),
    (["127.0.0.2", "localhost"], 30, {}, "certificate verify failed: IP address mismatch"),
    (["127.0.0.1"], 30, {"server_name": "localhost"}, "certificate verify failed: hostname mismatch"),
    (["*.example"], 30, {"server_name": "a.b.example"}, "certificate verify failed: hostname mismatch"),
    (["127.0.0.1"], -1, {}, "certificate verify failed: certificate has expired"),
], ids=["authority", "address", "name", "wildcard", "expired"])
def test_certificate_that_does_not_fit_is_refused(make_site, scripted, authority, stranger, names, days, tls, why):
    backend = scripted(tls=server_context(authority.issue(*names, days=days, stem="misfit")))
    ca = stranger if tls.get("ca") else authority
    settings = {**tls, "ca": str(ca.file)}
    site = make_site(backend, settings)
    site.expect_refusal(why)
    backend.wait(lambda b: b.tls_errors, "the alert")
    assert not backend.requests
    site.reload({**settings, "verify": False})
    assert site.ask().body == b"ok"


def test_system_authorities_are_the_default(make_site, scripted, authority, stranger, pair):
    backend = scripted(tls=server_context(pair))
    good = make_site(backend, {}, env={"SSL_CERT_FILE": str(authority.file)})
    assert good.ask().body == b"ok"
    bad = make_site(backend, {}, env={"SSL_CERT_FILE": str(stranger.file)})
    bad.expect_refusal("certificate verify failed: unable to get local issuer certificate")


def test_min_version(make_site, scripted, authority, pair):
    backend = scripted(tls=server_context(pair, version=TLS12))
    site = make_site(backend, {"ca": str(authority.file), "min_version": "1.3"})
    site.expect_refusal("tlsv1 alert protocol version")
    site.reload({"ca": str(authority.file)})
    assert site.ask().body == b"ok"


@VERSIONS
def test_backend_that_wants_a_certificate(make_site, scripted, authority, pair, own_pair, version):
    backend = scripted(tls=server_context(pair, client_ca=authority.file, version=version))
    cert, key = own_pair
    site = make_site(backend, {"ca": str(authority.file)})
    site.expect_refusal({TLS12: "sslv3 alert handshake failure", TLS13: "tlsv13 alert certificate required"}[version])
    assert not backend.requests
    site.reload({"ca": str(authority.file), "cert": cert, "key": key})
    assert site.ask().body == b"ok"
    shown = backend.connections[-1].wire.sock.getpeercert()
    assert ("DNS", "proxy.test") in shown["subjectAltName"]


def test_backend_without_tls(make_site, raw, authority):
    site = make_site(Nasty(raw(), refuse_in_http), {"ca": str(authority.file)})
    site.expect_refusal("not TLS")


# -- sessions

@VERSIONS
def test_sessions_are_resumed(make_site, scripted, authority, pair, version):
    backend = scripted(until_close(b"bye"), tls=server_context(pair, version=version))
    site = make_site(backend, {"ca": str(authority.file)})
    for _ in range(5):
        assert site.ask().body == b"bye"
    assert [c.was_resumed for c in backend.connections] == [False] + 4 * [True]


def test_sessions_outlive_a_reload_but_not_other_settings(make_site, scripted, authority, stranger, pair):
    backend = scripted(until_close(b"bye"), tls=server_context(pair))
    site = make_site(backend, {"ca": str(authority.file)})
    assert site.ask().body == b"bye"
    site.upstream["algorithm"] = "least_conn"
    site.reload({"ca": str(authority.file)})
    assert site.ask().body == b"bye"
    site.reload({"ca": str(authority.file), "server_name": "localhost"})
    assert site.ask().body == b"bye"
    assert [c.was_resumed for c in backend.connections] == [False, True, False]
    site.reload({"ca": str(stranger.file)})
    site.expect_refusal("certificate verify failed: unable to get local issuer certificate")


# -- bodies

def pattern(size):
    block = os.urandom(65536)
    return (block * (size // len(block) + 1))[:size]


@ALL_FRONTS
def test_large_bodies_arrive_whole(make_site, scripted, authority, pair, front):
    backend = scripted(echo(), tls=server_context(pair))
    site = make_site(backend, {"ca": str(authority.file)}, front=front)
    body = pattern(24 * MEGABYTE + 17)
    with site.client() as client:
        for _ in range(2):
            client.request("POST", body=b"", fields=[("Content-Length", len(body))])
            client.sock.settimeout(60)
            client.sock.sendall(body)
            answer = client.response()
            assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()


def test_client_that_does_not_read_stops_the_backend(make_site, scripted, authority, pair):
    size = 32 * MEGABYTE
    body = pattern(size)
    backend = scripted(fixed(body), tls=server_context(pair))
    site = make_site(backend, {"ca": str(authority.file)})
    with Client(site.port, rcvbuf=4096, record=False) as client:
        client.request()
        assert backend.blocked.wait(PATIENCE)
        sent = backend.sent
        assert sent < size / 2
        digest = hashlib.sha256()
        answer = client.response_head("GET")
        client.response_body(answer, digest.update)
    assert digest.digest() == hashlib.sha256(body).digest()


@ALL_FRONTS
def test_body_until_close_needs_close_notify(make_site, scripted, authority, pair, front):
    def cut(x):
        x.body()
        x.send(head() + b"part")
        x.cut()
    backend = scripted(tls=server_context(pair))
    site = make_site(backend, {"ca": str(authority.file)}, front=front)
    backend.answer(until_close(b"all of it"), cut)
    answer = site.ask()
    assert (answer.body, answer.complete) == (b"all of it", True)
    with site.client() as client:
        client.request()
        answer = client.response()
        assert (answer.status, answer.complete) == (200, False), answer
    site.wait_failures("response_cut", 1)


def test_counted_body_does_not_need_it(make_site, scripted, authority, pair):
    def rude(x):
        x.body()
        x.send(head(fields=[("Content-Length", 3)]) + b"all")
        x.cut()
    backend = scripted(tls=server_context(pair))
    site = make_site(backend, {"ca": str(authority.file)})
    backend.answer(rude)
    with site.client() as client:
        assert client.ask().body == b"all"
        assert client.ask().body == b"ok"
    site.wait_failures("response_cut", 0)


def test_idle_connection_that_ends_is_not_used(make_site, scripted, authority, pair):
    backend = scripted(tls=server_context(pair))
    site = make_site(backend, {"ca": str(authority.file)})
    with site.client() as client:
        for _ in range(4):
            assert client.ask().body == b"ok"
            backend.fresh()


def test_bytes_before_a_request_belong_to_nobody(make_site, scripted, authority, pair):
    def chatter(connection):
        connection.wire.sock.sendall(head(fields=[("Content-Length", 2)]) + b"hi")
        connection.wire.wait_end()
        connection.open = False
    backend = scripted(tls=server_context(pair, version=TLS12), on_connect=chatter)
    site = make_site(backend, {"ca": str(authority.file)})
    answer = site.ask()
    assert answer.status == 502 or answer.body == b"hi"  # sent after ours began, it is its answer
    assert len(backend.connections) == 1
    until(lambda: not any(c.open for c in backend.connections), "the end of the connection")


# -- handshakes that fail

@pytest.fixture
def raw():
    made = []

    def make(**kw):
        made.append(RawBackend(**kw))
        return made[-1]
    yield make
    for backend in made:
        backend.close()


class Nasty:
    """Accepts and does with each connection what a function says, in a thread."""

    def __init__(self, raw, act):
        self.raw, self.act = raw, act
        self.address = raw.address
        self.count = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                wire = self.raw.accept(0.2)
            except AssertionError:
                continue
            except (OSError, ValueError):
                return
            self.count += 1
            try:
                self.act(wire)
            except (Reset, OSError):
                pass


def reset_at_hello(wire):
    wire.fill()
    wire.reset()


def leave_at_hello(wire):
    wire.fill()
    wire.close()


def answer_garbage(wire):
    wire.fill()
    wire.sock.sendall(bytes(range(256)) * 64)


def refuse_in_http(wire):
    wire.fill()
    wire.sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def alert_at_hello(wire):
    wire.fill()
    wire.sock.sendall(bytes([21, 3, 3, 0, 2, 2, 40]))


@pytest.mark.parametrize("act,why", [
    (reset_at_hello, "Connection reset by peer"), (leave_at_hello, "the peer closed the connection"),
    (answer_garbage, "not TLS"), (alert_at_hello, "sslv3 alert handshake failure"),
], ids=["reset", "fin", "garbage", "alert"])
def test_next_backend_is_tried(make_site, scripted, raw, authority, pair, act, why):
    nasty, good = Nasty(raw(), act), scripted(tls=server_context(pair))
    site = make_site([nasty, good], {"ca": str(authority.file)})
    for _ in range(6):
        assert site.ask().body == b"ok"
    assert nasty.count >= 2
    line = site.akashd.wait_log(f"backend site/{re.escape(nasty.address)}: TLS: {why}")
    lines = [have for have in site.akashd.log if "TLS: " in have]
    assert lines == [line]  # at most one a minute
    site.backends = [nasty]
    site.akashd.reload(site.config({"ca": str(authority.file)}))
    answer = site.ask()
    assert answer.status == 502 and "backend_tls" in answer.text


def test_stalled_handshake_runs_into_the_connect_timeout(make_site, scripted, raw, authority, pair):
    silent, good = Nasty(raw(), lambda wire: None), scripted(tls=server_context(pair))
    site = make_site([silent, good], {"ca": str(authority.file)}, timeouts={"connect": "800ms"})
    for _ in range(4):
        before, began = silent.count, time.monotonic()
        assert site.ask().body == b"ok"
        took = time.monotonic() - began
        assert took < 5 and (took >= 0.8 or silent.count == before)
    assert 2 <= silent.count <= 4
    site.backends = [silent]
    site.akashd.reload(site.config({"ca": str(authority.file)}))
    answer = site.ask()
    assert answer.status == 504 and "connect_timeout" in answer.text


def test_client_that_leaves_takes_the_handshake_with_it(make_site, raw, authority):
    backend = raw()
    site = make_site(backend, {"ca": str(authority.file)})
    with site.client() as client:
        client.request()
        wire = backend.accept()
        wire.fill()
        wire.buf.clear()
        client.reset()
    assert wire.wait_end() in ("fin", "rst")
    site.wait_failures("client_closed", 1)


class Dripper:
    """A relay that hands on what the backend says a byte at a time, in segments of its own."""

    def __init__(self, raw, backend):
        self.target, self.address = backend, raw.address
        self.raw = raw
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        near = self.raw.accept().sock
        far = socket.create_connection(("127.0.0.1", self.target.port))
        near.settimeout(None)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self.pump, args=(near, far), daemon=True).start()
        try:
            while piece := far.recv(4096):
                for at in range(len(piece)):
                    near.sendall(piece[at:at + 1])
            near.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    @staticmethod
    def pump(source, sink):
        try:
            while piece := source.recv(4096):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@VERSIONS
def test_handshake_may_come_byte_by_byte(make_site, scripted, raw, authority, pair, version):
    backend = scripted(tls=server_context(pair, version=version))
    site = make_site(Dripper(raw(), backend), {"ca": str(authority.file)})
    assert site.ask().body == b"ok"


# -- reload

def test_reload_that_changes_the_authority_drops_idle_connections(make_site, scripted, authority, stranger, pair):
    backend = scripted(tls=server_context(pair))
    site = make_site(backend, {"ca": str(authority.file)})
    with site.client() as client:
        assert client.ask().body == b"ok"
        site.reload({"ca": str(stranger.file)})
        assert backend.connections[0].quiet_end.wait(PATIENCE)
        answer = client.ask()
        assert answer.status == 502 and "backend_tls" in answer.text
        site.reload({"ca": str(authority.file)})
        assert client.ask().body == b"ok"


def test_running_request_keeps_its_connection_and_does_not_leave_it_behind(make_site, scripted, authority, pair):
    gate = threading.Event()

    def slow(x):
        x.body()
        x.send(head(fields=[("Content-Length", 4)]) + b"so")
        x.wait(gate)
        x.send(b"me")
    backend = scripted(slow, tls=server_context(pair))
    site = make_site(backend, {"ca": str(authority.file)})
    with site.client() as client:
        client.request()
        answer = client.response_head()
        site.reload({"ca": str(authority.file), "server_name": "localhost"})
        gate.set()
        client.response_body(answer)
        assert answer.body == b"some"
        assert backend.connections[0].quiet_end.wait(PATIENCE)
        assert client.ask().body == b"some"
    assert len(backend.connections) == 2


def test_reload_between_cleartext_and_tls(make_site, scripted, authority, pair):
    plain, secret = scripted(), scripted(tls=server_context(pair))
    site = make_site({"id": "one", "address": plain.address}, None)
    with site.client() as client:
        assert client.ask().body == b"ok"
        site.backends = [{"id": "one", "address": secret.address}]
        site.reload({"ca": str(authority.file)})
        assert client.ask().body == b"ok"
        site.backends = [{"id": "one", "address": plain.address}]
        site.reload(None)
        assert client.ask().body == b"ok"
    assert (len(plain.requests), len(secret.requests)) == (2, 1)


def test_same_address_with_tls_turned_on(make_site, scripted, authority):
    backend = scripted()
    site = make_site(backend, None)
    with site.client() as client:
        assert client.ask().body == b"ok"
        site.reload({"ca": str(authority.file)})
        assert client.ask().status == 502  # not the idle connection in cleartext
        site.reload(None)
        assert client.ask().body == b"ok"


def test_renewed_files_are_taken_at_a_reload(make_site, scripted, authority, stranger, pair, folder):
    ca = folder / "ca.pem"
    shutil.copy(stranger.file, ca)
    backend = scripted(tls=server_context(pair))
    site = make_site(backend, {"ca": str(ca)})
    site.expect_refusal("certificate verify failed")
    shutil.copy(authority.file, ca)
    site.reload({"ca": str(ca)})
    assert site.ask().body == b"ok"


def test_wrong_files_refuse_the_reload(make_site, scripted, authority, pair, own_pair, folder):
    backend = scripted(tls=server_context(pair))
    site = make_site(backend, {"ca": str(authority.file)})
    text = folder / "text.pem"
    text.write_text("no certificate\n")
    for tls, why in [
            ({"ca": str(folder / "gone.pem")}, r"upstreams\.site\.tls\.ca: cannot read .*: No such file"),
            ({"ca": str(text)}, r"upstreams\.site\.tls\.ca: .*no certificate in PEM form"),
            ({"ca": str(authority.file), "cert": pair[0], "key": own_pair[1]},
             r"upstreams\.site\.tls\.key: .*does not match the certificate"),
            ({"ca": own_pair[1]}, r"upstreams\.site\.tls\.ca: .*holds a private key"),
            ({"ca": str(authority.file), "cert": pair[0]}, r"upstreams\.site\.tls\.key: missing")]:
        done = site.reload(tls, expect=1)
        assert re.search(rf"akashd\.json:\d+:\d+: {why}", done.stdout + done.stderr), done
        assert site.ask().body == b"ok"


# -- tcp mode and Unix sockets

@VERSIONS
@ALL_FRONTS
def test_tunnel_carries_bytes_both_ways(make_site, scripted, authority, pair, front, version):
    backend = scripted(tls=server_context(pair, version=version), on_connect=tcp_echo)
    site = make_site(backend, {"ca": str(authority.file)}, front=front, make=tcp_config)
    body = pattern(8 * MEGABYTE + 3)
    with site.client() as client:
        for at in range(0, len(body), 65536):  # in turns: two threads may not share an SSLSocket
            piece = body[at:at + 65536]
            client.send(piece)
            assert client.take(len(piece)) == piece
    backend.wait(lambda b: not b.connections[0].open, "the end of the tunnel")
    assert backend.connections[0].wire.sock.selected_alpn_protocol() is None


def test_tunnel_half_closes(make_site, scripted, authority, pair):
    def answer_at_end(connection):
        sock, got = connection.wire.sock, b""
        sock.settimeout(PATIENCE)
        try:
            while piece := sock.recv(65536):
                got += piece
        except ssl.SSLZeroReturnError:
            pass
        sock.sendall(b"got " + got)
        connection.close()
    backend = scripted(tls=server_context(pair), on_connect=answer_at_end)
    site = make_site(backend, {"ca": str(authority.file)}, make=tcp_config)
    with site.client() as client:
        client.send(b"all I have")
        client.half_close()
        assert client.take(14) == b"got all I have"
        assert client.wait_end() == "fin"


def test_tunnel_that_is_truncated_is_reset(make_site, scripted, authority, pair):
    def truncate(connection):
        connection.wire.sock.sendall(b"part")
        connection.wire.fill()
        connection.cut()
    backend = scripted(tls=server_context(pair), on_connect=truncate)
    site = make_site(backend, {"ca": str(authority.file)}, make=tcp_config)
    with site.client() as client:
        assert client.take(4) == b"part"
        client.send(b"go")
        assert client.wait_end() == "rst"


def test_tunnel_to_the_next_backend(make_site, scripted, raw, authority, pair):
    nasty, good = Nasty(raw(), reset_at_hello), scripted(tls=server_context(pair), on_connect=tcp_echo)
    site = make_site([nasty, good], {"ca": str(authority.file)}, make=tcp_config)
    for _ in range(4):
        with site.client() as client:
            client.send(b"hello")
            assert client.take(5) == b"hello"
    assert nasty.count >= 1


def test_backend_on_a_unix_socket(make_site, scripted, authority, pair, folder):
    backend = scripted(unix=str(folder / "b.sock"), tls=server_context(pair))
    site = make_site(backend, {"ca": str(authority.file), "server_name": "localhost"})
    assert site.ask().body == b"ok"
    done = site.reload({"ca": str(authority.file)}, expect=1)
    assert "tls.server_name: missing" in done.stdout + done.stderr
    site.reload({"verify": False})
    assert site.ask().body == b"ok"


# -- health checks

def check(kind="http", **more):
    return {"type": kind, "interval": "100ms", "timeout": "2s", "rise": 2, "fall": 2,
            **({"path": "/health"} if kind == "http" else {}), **more}


def wait_state(site, state, why=""):
    line = site.akashd.wait_log(rf"backend site/\S+ \w+ -> {state}: ")
    assert why in line, line


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_check_goes_through_tls(make_site, scripted, authority, pair, kind):
    backend = scripted(tls=server_context(pair))
    site = make_site(backend, {"ca": str(authority.file)}, health_check=check(kind))
    wait_state(site, "up")
    assert not backend.tls_errors
    if kind == "http":
        assert backend.requests[0].target == "/health"
    assert site.ask(target="/x").body == b"ok"


@pytest.mark.parametrize("kind", ["http", "tcp"])
@pytest.mark.parametrize("fault,why", [
    ("stranger", "last: TLS: certificate verify failed: unable to get local issuer certificate"),
    ("expired", "last: TLS: certificate verify failed: certificate has expired"),
    ("plain", "last: TLS: not TLS"),
    ("reset", "last: TLS: Connection reset by peer"),
])
def test_check_finds_what_is_wrong_with_tls(make_site, scripted, raw, authority, stranger, pair, kind, fault, why):
    if fault == "reset":
        backend = Nasty(raw(), reset_at_hello)
    elif fault == "plain":
        backend = Nasty(raw(), refuse_in_http)
    else:
        expired = authority.issue("127.0.0.1", days=-1, stem="expired")
        backend = scripted(tls=server_context(expired if fault == "expired" else pair))
    ca = stranger if fault == "stranger" else authority
    site = make_site(backend, {"ca": str(ca.file)}, health_check=check(kind))
    wait_state(site, "down", why)
    answer = site.ask()
    assert answer.status == 503 and "no_backend" in answer.text


def test_stalled_handshake_fails_the_check(make_site, raw, authority):
    backend = Nasty(raw(), lambda wire: None)
    site = make_site(backend, {"ca": str(authority.file)}, health_check=check("tcp", timeout="300ms"))
    wait_state(site, "down", "last: TLS handshake timeout")


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_check_sees_the_backend_go_and_come_back(make_site, scripted, authority, stranger, pair, kind):
    backend = scripted(tls=server_context(pair))
    site = make_site(backend, {"ca": str(authority.file)}, health_check=check(kind))
    wait_state(site, "up")
    backend.tls = server_context(stranger.issue("127.0.0.1", stem="impostor"))
    wait_state(site, "down", "certificate verify failed")
    backend.tls = server_context(pair)
    site.akashd.wait_log("down -> up: 2 successes")


@VERSIONS
def test_check_of_a_backend_that_wants_a_certificate(make_site, scripted, authority, pair, own_pair, version):
    backend = scripted(tls=server_context(pair, client_ca=authority.file, version=version))
    cert, key = own_pair
    tls = {"ca": str(authority.file), "cert": cert, "key": key}
    site = make_site(backend, tls, health_check=check("tcp"))
    wait_state(site, "up")
    assert site.ask().body == b"ok"
    site.upstream["health_check"] = check("http")
    site.reload(tls)
    wait_state(site, "down", "alert")  # without the key nobody answers a request


def test_impostor_that_asks_for_a_certificate_does_not_pass(make_site, scripted, authority, stranger, own_pair):
    backend = scripted(tls=server_context(stranger.issue("127.0.0.1", stem="asker"), client_ca=authority.file,
                                          version=TLS12))
    cert, key = own_pair
    site = make_site(backend, {"ca": str(authority.file), "cert": cert, "key": key}, health_check=check("tcp"))
    wait_state(site, "down", "certificate verify failed")


def test_health_is_lost_with_other_tls_and_kept_with_the_same(make_site, scripted, authority, stranger, pair):
    backend = scripted(tls=server_context(pair))
    site = make_site(backend, {"ca": str(stranger.file)}, health_check=check("tcp", interval="60s"))
    wait_state(site, "down")
    site.upstream["algorithm"] = "least_conn"
    site.reload({"ca": str(stranger.file)})
    assert states(site.akashd)[backend.address]["health"] == "down"
    before = len(site.akashd.log)
    site.reload({"ca": str(authority.file)})
    site.akashd.wait_log(r"unknown -> up", since=before)


# -- nginx

@pytest.fixture
def nginx(pair, authority):
    cert, key = pair
    port = free_port()
    made = Nginx(port=free_port(), http=f"""
      server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key};
        ssl_session_cache shared:a:1m; ssl_verify_client optional; ssl_client_certificate {authority.file};
        keepalive_requests 1; client_max_body_size 0;
        location /file {{ alias $ROOT/file; }}
        location / {{ add_header X-Reused $ssl_session_reused; add_header X-Client $ssl_client_s_dn;
          add_header X-Name "$ssl_server_name"; return 200 "ok"; }} }}""".replace("$ROOT", "root"))
    made.tls_port = port
    yield made
    made.close()


def test_nginx_as_backend(make_site, nginx, authority, own_pair):
    body = pattern(40 * MEGABYTE + 5)
    (nginx.root / "file").write_bytes(body)
    cert, key = own_pair
    site = make_site({"address": f"localhost:{nginx.tls_port}"},
                     {"ca": str(authority.file), "cert": cert, "key": key})
    answers = [site.ask() for _ in range(3)]
    assert [a.fields.get("X-Reused") for a in answers] == [".", "r", "r"]
    assert answers[0].fields.get("X-Client") == "CN=proxy.test"
    assert answers[0].fields.get("X-Name") == "localhost"
    done = curl(f"http://127.0.0.1:{site.port}/file", text=False)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(body).digest()
