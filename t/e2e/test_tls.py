# SPDX-License-Identifier: Apache-2.0
"""TLS termination: which certificate, which version, which client, whose session, and how it ends."""

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from harness import PATIENCE, ScriptedBackend, backend as answers, curl, free_port, http_config, until
from harness.client import Client, build
from harness.fronts import IGNORE_EOF, Authority
from harness.wire import Ended, Reset

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def pair(authority):
    return authority.issue("a.test")


def certificates(*pairs):
    return {"certificates": [{"cert": cert, "key": key} for cert, key in pairs]}


def context_of(version=None, client_pair=None, ciphers=None, alpn=None):
    """A client that takes any certificate; tests look at what they were shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.options &= ~IGNORE_EOF
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
    if client_pair:
        context.load_cert_chain(*client_pair)
    if ciphers:
        context.set_ciphers(ciphers)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def client_of(port, name="a.test", context=None, session=None):
    context = context or context_of()
    return Client(port, wrap=lambda s: context.wrap_socket(
        s, server_hostname=name, session=session, suppress_ragged_eofs=False))


def is_refused(port, **kw):
    """Whether akashd lets no request of this client through. In TLS 1.3 the client learns that late."""
    try:
        with client_of(port, **kw) as client:
            client.ask()
            return False
    except (Reset, Ended, OSError):
        return True


def shown(port, **kw):
    """The certificate that akashd shows."""
    with client_of(port, **kw) as client:
        return x509.load_der_x509_certificate(client.sock.getpeercert(True))


def names(certificate):
    return certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)


class Secure:
    """A daemon with one TLS listener before one scripted backend."""

    def __init__(self, launch, scripted, tls, listener=None, upstream=None, **top):
        self.port = free_port()
        self.backend = scripted()
        self.listener, self.upstream, self.top = listener or {}, upstream, top
        self.akashd = launch(self.config(tls))

    def config(self, tls):
        return http_config(self.port, [self.backend], self.upstream,
                           {"tls": tls, **self.listener}, **self.top)

    def handshakes(self, **labels):
        return self.akashd.metrics().value("akash_tls_handshakes_total", **labels) or 0


@pytest.fixture
def secure(launch, scripted):
    def make(tls, **kw):
        return Secure(launch, scripted, tls, **kw)
    return make


# -- certificates

def test_certificate_is_chosen_by_server_name(secure, authority, pair):
    other = authority.issue("b.test", "*.wild.test")
    exact = authority.issue("x.wild.test")
    port = secure(certificates(pair, other, exact)).port
    for name, first in {"a.test": "a.test", "b.test": "b.test", "y.wild.test": "b.test",
                        "x.wild.test": "x.wild.test", "X.Wild.Test": "x.wild.test",
                        "deep.y.wild.test": "a.test", "unknown.test": "a.test",
                        None: "a.test"}.items():
        assert names(shown(port, name=name))[0] == first, name


@pytest.mark.parametrize("kind", ["RSA", "ECDSA"])
def test_rsa_and_ecdsa_stand_side_by_side(secure, authority, pair, kind):
    port = secure(certificates(authority.issue("a.test", kind="rsa"), pair)).port
    context = context_of(TLS12, ciphers=f"ECDHE-{kind}-AES128-GCM-SHA256")
    public = shown(port, context=context).public_key()
    assert isinstance(public, rsa.RSAPublicKey) == (kind == "RSA")


def test_strict_sni_refuses_other_names(secure, pair):
    port = secure({**certificates(pair), "strict_sni": True}).port
    assert is_refused(port, name="b.test")
    assert is_refused(port, name=None)
    assert not is_refused(port, name="a.test")


def test_chain_is_trusted_by_curl(secure, authority):
    cert, key = authority.issue("localhost", stem="chain")
    port = secure(certificates((cert, key))).port
    done = curl("--cacert", str(authority.file), f"https://localhost:{port}/", "--http1.1")
    assert done.stdout == "ok"


# -- versions and protocols

def test_min_version(secure, pair):
    port = secure({**certificates(pair), "min_version": "1.3"}).port
    assert is_refused(port, context=context_of(TLS12))
    assert not is_refused(port, context=context_of(TLS13))


@VERSIONS
def test_version_is_spoken(secure, pair, version):
    port = secure(certificates(pair)).port
    with client_of(port, context=context_of(version)) as client:
        assert client.sock.version() == {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}[version]
        assert client.ask().body == b"ok"
        assert client.ask().body == b"ok"


def test_alpn(secure, pair):
    port = secure(certificates(pair)).port
    with client_of(port, context=context_of(alpn=["spdy/3", "http/1.1"])) as client:
        assert client.sock.selected_alpn_protocol() == "http/1.1"
    with client_of(port) as client:
        assert client.sock.selected_alpn_protocol() is None
        assert client.ask().body == b"ok"
    assert is_refused(port, context=context_of(alpn=["smtp"]))


def test_renegotiation_is_refused(secure, pair):
    port = secure(certificates(pair)).port
    shell = subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2", "-servername", "a.test"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        shell.stdin.write(b"R\n")
        shell.stdin.flush()
        out, _ = shell.communicate(timeout=PATIENCE)
    finally:
        shell.kill()
        shell.wait()
    assert b"RENEGOTIATING" in out
    assert b"no renegotiation" in out


# -- sessions

def ticket_of(client):
    """The session of a client that has read an answer, and with it the ticket."""
    assert client.ask().body == b"ok"
    session = client.sock.session
    assert session.has_ticket
    return session


def resumes(port, context, session, **kw):
    with client_of(port, context=context, session=session, **kw) as client:
        assert client.ask().body == b"ok"
        return client.sock.session_reused


@VERSIONS
def test_session_resumes_on_every_worker_and_after_reload(secure, authority, pair, version):
    site = secure(certificates(pair), workers=4)
    context = context_of(version)
    with client_of(site.port, context=context) as client:
        session = ticket_of(client)
    assert all(resumes(site.port, context, session) for _ in range(24))
    site.akashd.reload(site.config(certificates(pair, authority.issue("b.test"))))
    assert all(resumes(site.port, context, session) for _ in range(8))
    for worker in site.akashd.workers().values():
        worker.kill(signal.SIGKILL)
    until(lambda: len([w for w in site.akashd.workers().values() if w.alive]) == 4, "new workers")
    assert all(resumes(site.port, context, session) for _ in range(8))
    assert site.handshakes(resumed="yes") == 40
    assert site.handshakes(resumed="no") == 1


def test_tickets_can_be_off(secure, pair):
    site = secure({**certificates(pair), "tickets": False})
    context = context_of(TLS12)
    with client_of(site.port, context=context) as client:
        assert client.ask().body == b"ok"
        session = client.sock.session
    assert not session.has_ticket
    assert not resumes(site.port, context, session)


# -- client certificates

def with_clients(authority, pair, auth):
    return {**certificates(pair), "client_auth": auth, "client_ca": str(authority.file)}


@VERSIONS
@pytest.mark.parametrize("auth,without,known,stranger", [
    ("optional", True, True, False), ("require", False, True, False)])
def test_client_certificates(secure, authority, pair, version, auth, without, known, stranger):
    port = secure(with_clients(authority, pair, auth)).port
    good = authority.issue("client", stem="client")
    bad = Authority(name="nobody you know").issue("client")
    assert is_refused(port, context=context_of(version)) is not without
    assert is_refused(port, context=context_of(version, good)) is not known
    assert is_refused(port, context=context_of(version, bad)) is not stranger


@VERSIONS
def test_session_does_not_stand_in_for_a_client_certificate(launch, scripted, authority, pair, version):
    """CVE-2025-23419: another listener, or the same one before a reload, asked for no certificate."""
    backend = scripted()
    open_port, closed_port = free_port(), free_port()
    config = http_config(open_port, [backend], None, {"tls": certificates(pair)})
    config["listeners"].append({**config["listeners"][0], "name": "closed",
                                "address": f"127.0.0.1:{closed_port}",
                                "tls": with_clients(authority, pair, "require")})
    akashd = launch(config)
    context = context_of(version)
    with client_of(open_port, context=context) as client:
        session = ticket_of(client)
    assert resumes(open_port, context, session)
    assert is_refused(closed_port, context=context, session=session)
    config["listeners"][0]["tls"] = with_clients(authority, pair, "require")
    akashd.reload(config)
    assert is_refused(open_port, context=context, session=session)


# -- what is no handshake

def wait_failures(site, count):
    site.akashd.wait_metric("akash_failures_total", lambda v: v >= count, reason="handshake_failed")


@pytest.mark.parametrize("junk", [
    b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", b"\x00" * 64, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff",
    b"\x16\x03\x01\xff\xff", b"SSH-2.0-client\r\n"], ids=["http", "zeros", "hello", "long", "ssh"])
def test_what_is_not_tls_is_closed(secure, pair, junk):
    site = secure(certificates(pair))
    with Client(site.port) as client:
        client.send(junk)
        with contextlib.suppress(Reset):
            client.to_end(lambda piece: None)
        assert client.end
        assert b"HTTP/" not in bytes(client.received)
    wait_failures(site, 1)
    assert not is_refused(site.port)
    assert len(site.backend.requests) == 1


def test_hello_cut_by_the_client_is_forgotten_at_once(secure, pair):
    site = secure(certificates(pair), listener={"timeouts": {"handshake": "60s"}})
    with Client(site.port) as client:
        client.send(b"\x16\x03\x01\x01\x00\x01\x00")
        client.half_close()
        client.ended()
    wait_failures(site, 1)


@pytest.mark.parametrize("begin", [b"", b"\x16\x03\x01\x01"], ids=["silent", "dripping"])
def test_handshake_deadline(secure, pair, begin):
    site = secure(certificates(pair), listener={"timeouts": {"handshake": "500ms"}})
    began = time.monotonic()
    stop = threading.Event()
    with Client(site.port) as client:
        if begin:
            client.send(begin)

            def drip():
                while not stop.wait(0.05) and client.try_send(b"\x00"):
                    pass
            threading.Thread(target=drip, daemon=True).start()
        client.ended()
        stop.set()
    assert 0.37 <= time.monotonic() - began <= 5
    wait_failures(site, 1)


# -- reload

def replace(to, source):
    for target, file in zip(to, source):
        fresh = Path(target).with_suffix(".new")
        shutil.copy(file, fresh)
        os.replace(fresh, target)


def test_replaced_certificate_is_shown_after_reload(secure, authority):
    mine = authority.issue("old.test", stem="replaced")
    site = secure(certificates(mine))
    with client_of(site.port, name="old.test") as client:
        assert client.ask().body == b"ok"
        replace(mine, authority.issue("new.test"))
        assert names(shown(site.port)) == ["old.test"]
        site.akashd.reload()
        assert names(shown(site.port)) == ["new.test"]
        assert client.ask().body == b"ok"


def test_key_that_does_not_match_leaves_the_old_configuration(secure, authority):
    mine = authority.issue("kept.test", stem="kept")
    site = secure(certificates(mine))
    replace(mine[1:], authority.issue("stranger.test")[1:])
    refused = site.akashd.reload(expect=1)
    said = refused.stdout + refused.stderr
    assert "does not match" in said and mine[1] in said
    assert names(shown(site.port)) == ["kept.test"]
    assert not is_refused(site.port)
    assert site.akashd.metrics().value("akash_config_last_reload_successful") == 0


def test_many_new_certificates_at_once(secure, authority, pair):
    site = secure(certificates(pair), workers=2)
    many = [authority.issue(f"h{i}.many.test") for i in range(60)]
    stop, failures, answered = threading.Event(), [], []

    def ask():
        with client_of(site.port) as client:
            while not stop.is_set():
                try:
                    assert client.ask().body == b"ok"
                    answered.append(1)
                except Exception as why:
                    failures.append(why)
                    return
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        until(lambda: answered, "an answer")
        site.akashd.reload(site.config(certificates(pair, *many)))
        count = len(answered)
        until(lambda: len(answered) > count or failures, "an answer after the reload")
    finally:
        stop.set()
        asking.join(PATIENCE)
    assert not failures
    for i in (0, 31, 59):
        assert names(shown(site.port, name=f"h{i}.many.test")) == [f"h{i}.many.test"]


# -- bytes and ends

def digest(data):
    return hashlib.sha256(data).hexdigest()


@VERSIONS
def test_much_passes_both_ways(secure, pair, version):
    site = secure(certificates(pair))
    body = os.urandom(1 << 20) * 6
    site.backend.always(answers.echo())
    with client_of(site.port, context=context_of(version)) as client:
        answer = client.ask("POST", body=body)
        assert (len(answer.body), digest(answer.body)) == (len(body), digest(body))
        assert client.ask("POST", body=b"small").body == b"small"


def test_slow_reader_gets_everything(secure, pair):
    site = secure(certificates(pair))
    body = os.urandom(1 << 20) * 4
    site.backend.always(answers.fixed(body))
    context = context_of()
    with Client(site.port, rcvbuf=4096, wrap=lambda s: context.wrap_socket(
            s, server_hostname="a.test", suppress_ragged_eofs=False)) as client:
        client.request()
        site.backend.wait(lambda b: b.sent > 1 << 18, "a part of the answer")
        answer = client.response()
        assert answer.complete
        assert digest(answer.body) == digest(body)


@VERSIONS
def test_end_is_told_by_close_notify(secure, pair, version):
    site = secure(certificates(pair))
    with client_of(site.port, context=context_of(version)) as client:
        assert client.ask(fields=[("Connection", "close")]).body == b"ok"
        assert client.ended() == "fin"  # a FIN without close_notify would be "rst" here


def test_request_cut_without_close_notify_is_not_made_whole(secure, pair):
    site = secure(certificates(pair))
    with client_of(site.port) as client:
        client.send(build("POST", "/cut", [("Content-Length", "100")]) + b"half")
        site.backend.wait_requests(1)
        with socket.socket(fileno=os.dup(client.sock.fileno())) as below:
            below.shutdown(socket.SHUT_WR)
        with contextlib.suppress(Reset):
            client.to_end(lambda piece: None)
    site.backend.wait(lambda b: not b.connections[0].open, "the end of the exchange")
    assert not site.backend.requests[0].complete


# -- tcp mode

@VERSIONS
def test_tcp_mode(launch, pair, version):
    backend = ScriptedBackend(on_connect=answers.tcp_echo)
    port = free_port()
    try:
        launch(http_config(port, [backend], None, {"mode": "tcp", "tls": certificates(pair)}))
        data = os.urandom(1 << 18)
        with client_of(port, context=context_of(version)) as client:
            client.send(data)
            assert digest(client.take(len(data))) == digest(data)
            below = client.sock.unwrap()  # our close_notify reaches the backend, and its FIN us
            assert below.recv(1) == b""
            below.close()
    finally:
        backend.close()
