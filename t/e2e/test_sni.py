# SPDX-License-Identifier: Apache-2.0
"""TLS that is passed through unopened, and goes by the server name that its ClientHello asks for."""

import hashlib
import os
import re
import socket
import ssl
import struct

import pytest

from harness import PATIENCE, Authority, ScriptedBackend, backend as answers, curl, free_port, proxyline, server_context, until

NAMES = {"one.test": "one", "www.wild.test": "wild", "deep.www.wild.test": "wild", "ONE.TEST": "one", "other.test": "rest"}


@pytest.fixture(scope="module")
def authority():
    return Authority()


def tls_backend(authority, name):
    """Says its own name, and has a certificate for every host of the tests."""
    pair = authority.issue("one.test", "www.wild.test", "deep.www.wild.test", "other.test", f"{name}.inner.test", stem=name)
    return ScriptedBackend(answers.fixed(name.encode()), tls=server_context(pair))


@pytest.fixture
def passing(launch, authority):
    """A listener in tcp mode with routes to upstreams one, wild and rest, each with a TLS backend."""
    made = {}

    def start(listener=None, workers=1, change=None, **top):
        port = free_port()
        for name in ("one", "wild", "rest"):
            made[name] = tls_backend(authority, name)
        config = {
            "workers": workers,
            "listeners": [{"name": "pass", "address": f"127.0.0.1:{port}", "mode": "tcp", "upstream": "rest",
                           **(listener or {})}],
            "routes": [{"listeners": ["pass"], "host": "one.test", "upstream": "one"},
                       {"listeners": ["pass"], "host": "*.wild.test", "upstream": "wild"}],
            "upstreams": {name: {"backends": [{"address": b.address}], "health_check": False}
                          for name, b in made.items()},
            **top}
        if change:
            change(config)
        akashd = launch(config)
        akashd.port, akashd.backends = port, made
        return akashd
    yield start
    for backend in made.values():
        backend.close()


def hello_of(name):
    """The ClientHello of a real client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def connect(port):
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_answer(sock):
    """The body of one answer, whose length it tells."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += sock.recv(65536)
    head, _, body = text.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
    while len(body) < length:
        body += sock.recv(65536)
    return body


def ask(authority, port, name, before=b""):
    """The body of GET / over TLS, and the first name of the certificate that was shown."""
    context = authority.client_context()
    context.check_hostname = False
    sock = connect(port)
    sock.sendall(before)
    with context.wrap_socket(sock, server_hostname=name) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        body = read_answer(tls).decode()
        shown = [value for kind, value in tls.getpeercert()["subjectAltName"] if value.endswith(".inner.test")]
    return body, shown[0]


def is_closed(sock):
    """Nothing comes but the end."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def failed(akashd):
    return akashd.metrics().value("akash_failures_total", reason="handshake_failed") or 0


@pytest.mark.parametrize("workers", [1, 4])
def test_the_name_chooses_and_the_backend_answers_itself(passing, authority, workers):
    akashd = passing(workers=workers)
    for _ in range(3):
        for name, upstream in NAMES.items():
            assert ask(authority, akashd.port, name) == (upstream, f"{upstream}.inner.test")
        assert ask(authority, akashd.port, None)[0] == "rest"


def test_curl_is_served_by_the_name_it_asks_for(passing, authority):
    akashd = passing()
    for name, upstream in NAMES.items():
        done = curl("--cacert", str(authority.file), "--resolve", f"{name}:{akashd.port}:127.0.0.1", f"https://{name}:{akashd.port}/")
        assert done.stdout == upstream, done


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_hello_in_pieces(passing, authority, size):
    """However the bytes come: the handshake that follows them is the backend's."""
    akashd = passing()
    hello = hello_of("one.test")
    with connect(akashd.port) as sock:
        for at in range(0, len(hello), size):
            sock.sendall(hello[at:at + size])
        assert sock.recv(1) == b"\x16", "a ServerHello"
    until(lambda: akashd.backends["one"].connections, "the connection at the backend")
    assert not akashd.backends["rest"].connections


@pytest.mark.parametrize("size", [16, 100])
def test_a_hello_in_several_records(passing, size):
    akashd = passing()
    message = hello_of("www.wild.test")[5:]
    records = b"".join(b"\x16\x03\x01" + struct.pack(">H", len(message[i:i + size])) + message[i:i + size]
                       for i in range(0, len(message), size))
    with connect(akashd.port) as sock:
        sock.sendall(records)
        sock.recv(1)
    until(lambda: akashd.backends["wild"].connections, "the connection at the backend")


def test_what_is_no_tls_goes_to_the_listeners_upstream(launch, scripted):
    port, named, rest = free_port(), scripted(), scripted(answers.fixed(b"rest"))
    config = {"listeners": [{"name": "pass", "address": f"127.0.0.1:{port}", "mode": "tcp", "upstream": "rest"}],
              "routes": [{"listeners": ["pass"], "host": "*.test", "upstream": "named"}],
              "upstreams": {name: {"backends": [{"address": b.address}], "health_check": False}
                            for name, b in {"named": named, "rest": rest}.items()}}
    launch(config)
    with connect(port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert read_answer(sock) == b"rest"
    assert not named.connections


@pytest.mark.parametrize("spoil", [
    pytest.param(lambda h: h[:5] + b"\x02" + h[6:], id="server-hello"),
    pytest.param(lambda h: h.replace(b"one.test", b"one\0test"), id="nul"),
    pytest.param(lambda h: b"\x16\x03\x01\x40\x00\x01\x00\x40\x00", id="too-long"),
    pytest.param(lambda h: b"\x16\x03\x01\x00\x00" + h, id="empty-record"),
])
def test_a_malformed_hello_is_refused_and_counted(passing, authority, spoil):
    akashd = passing()
    with connect(akashd.port) as sock:
        sock.sendall(spoil(hello_of("one.test")))
        assert is_closed(sock)
    assert failed(akashd) == 1
    assert not any(b.connections for b in akashd.backends.values())
    assert ask(authority, akashd.port, "one.test")[0] == "one"


def test_a_hello_that_is_cut_is_counted_and_silence_is_not(passing):
    akashd = passing()
    with connect(akashd.port) as sock:
        sock.sendall(hello_of("one.test")[:60])
        sock.shutdown(socket.SHUT_WR)
        assert is_closed(sock)
    assert failed(akashd) == 1
    with connect(akashd.port) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert is_closed(sock)
    assert failed(akashd) == 1
    until(lambda: akashd.metrics().value("akash_listener_connections") == 0, "no client to be left")


def test_who_stalls_is_closed_in_time(passing):
    akashd = passing({"timeouts": {"handshake": "300ms"}})
    with connect(akashd.port) as stalled, connect(akashd.port) as silent:
        stalled.sendall(hello_of("one.test")[:60])
        assert is_closed(stalled) and is_closed(silent)
    assert failed(akashd) == 1


def test_behind_a_proxy_header(passing, authority):
    akashd = passing({"accept_proxy": ["127.0.0.0/8"]}, access_log={"target": "stderr", "format": "tcp"})
    line = b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 443\r\n"
    assert ask(authority, akashd.port, "one.test", before=line)[0] == "one"
    until(lambda: "192.0.2.9" in akashd.log_text, "the client's address in the log")


def test_much_passes_unchanged(passing, authority):
    akashd = passing()
    body = os.urandom(1 << 20) * 8
    akashd.backends["one"].always(answers.fixed(body))
    context = authority.client_context()
    context.check_hostname = False
    with context.wrap_socket(connect(akashd.port), server_hostname="one.test") as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        got = read_answer(tls)
    assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest()


def test_the_next_backend_gets_the_hello_too(passing, authority):
    def add_dead(config):
        config["upstreams"]["one"]["backends"].insert(0, {"address": f"127.0.0.1:{free_port()}"})
    akashd = passing(change=add_dead)
    for _ in range(4):
        assert ask(authority, akashd.port, "one.test")[0] == "one"


def test_a_reload_moves_new_connections_alone(passing, authority):
    akashd = passing()
    context = authority.client_context()
    context.check_hostname = False
    with context.wrap_socket(connect(akashd.port), server_hostname="one.test") as old:
        old.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_answer(old) == b"one"
        config = akashd.config
        config["routes"][0]["upstream"] = "wild"
        akashd.reload(config)
        assert ask(authority, akashd.port, "one.test")[0] == "wild"
        config["routes"] = []
        akashd.reload(config)
        assert ask(authority, akashd.port, "one.test")[0] == "rest"
        old.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_answer(old) == b"one"


def test_explain_says_where_a_name_goes(passing):
    akashd = passing()
    for name, upstream in {"one.test": "one", "a.wild.test": "wild", "none.test": "rest"}.items():
        told = akashd.ctl("-j", "explain", f"tcp://{name}:{akashd.port}")
        assert f'"upstream":"{upstream}"' in told.stdout.replace(" ", ""), told.stdout


def test_a_backend_is_told_the_name_in_the_proxy_header(launch, scripted):
    """PP2_TYPE_AUTHORITY; and the ClientHello itself stands behind the header."""
    headers, behind = [], []

    def read(connection):
        headers.append(proxyline.read(connection.wire))
        behind.append(bytes(connection.wire.buf) or connection.wire.sock.recv(65536))
    port, backend = free_port(), scripted(on_connect=read)
    launch({"listeners": [{"name": "pass", "address": f"127.0.0.1:{port}", "mode": "tcp", "upstream": "named"}],
            "routes": [{"listeners": ["pass"], "host": "*.test", "upstream": "named"}],
            "upstreams": {"named": {"backends": [{"address": backend.address}], "health_check": False,
                                    "send_proxy": "v2"}}})
    for sent, name in [(hello_of("a.test"), b"a.test"), (b"plain", None)]:
        with connect(port) as sock:
            sock.sendall(sent)
            until(lambda: behind, "what stands behind the header")
        assert headers.pop().tlvs.get(2) == name
        assert sent.startswith(behind.pop()[:5])


def test_split_shares_a_name(passing, authority):
    def share(config):
        config["routes"][0] = {"listeners": ["pass"], "host": "one.test",
                               "split": [{"upstream": "one", "weight": 1}, {"upstream": "wild", "weight": 1}]}
    akashd = passing(change=share)
    assert sorted(ask(authority, akashd.port, "one.test")[0] for _ in range(4)) == ["one", "one", "wild", "wild"]
