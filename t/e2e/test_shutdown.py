# SPDX-License-Identifier: Apache-2.0
"""Shutdown: readiness goes first, new clients are refused, what runs is finished, the status is 0."""

import hashlib
import re
import signal
import socket
import subprocess

import pytest
from harness import (Client, Echo, Farm, Gate, Load, Streams, at_pace, free_port, http_config, tcp_config, until)
from harness.akashd import binary
from harness.backend import chunked, fixed, head
from harness.fronts import FRONTS, TlsFront
from harness.traffic import backlog, stopwatch, wait_serving

GRACE = 2  # seconds that an idle client has for one more request
AT_ONCE = 8  # where it would be a minute else; pauses of the machine are in it


@pytest.fixture(scope="module")
def farm():
    made = Farm(2)
    yield made
    made.close()


@pytest.fixture
def echo():
    made = Echo()
    yield made
    made.close()


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), 10).close()
    except ConnectionRefusedError:
        return True
    return False


def cut_count(akashd):
    """The number in the last log line, which says how many streams were cut."""
    return int(re.search(r"(\d+) streams? (was|were) cut", akashd.wait_log("streams? (was|were) cut")).group(1))


def finish(akashd, within, deadline=20):
    """Wait for the exit; status 0 and the time since TERM is below within."""
    assert akashd.wait_exit(deadline) == 0, akashd.log_text
    assert within(), "it took too long"
    akashd.assert_clean()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_idle_server_exits_at_once(launch, farm, sig):
    port = free_port()
    akashd = launch(http_config(port, farm.addresses, workers=3, drain_timeout="60s"))
    family, since = akashd.children(), stopwatch()
    akashd.send(sig)
    finish(akashd, lambda: since() < AT_ONCE)
    assert cut_count(akashd) == 0
    assert not [p for p in family if p.alive]
    assert refuses(port)


def test_akashctl_stop_is_a_graceful_stop(launch, scripted):
    gate, backend, port = Gate(), scripted(), free_port()
    backend.always(gate.hold())
    akashd = launch(http_config(port, [backend]))
    with Client(port) as client:
        client.request()
        gate.wait_waiting(1)
        assert akashd.ctl("stop").returncode == 0
        until(lambda: refuses(port), "refusal")
        gate.release()
        answer = client.response()
        assert answer.status == 200 and answer.closes and client.ended() == "fin"
    assert akashd.wait_exit() == 0


def test_lame_duck_is_not_ready_and_still_accepts(launch, farm):
    port = free_port()
    akashd = launch(http_config(port, farm.addresses, lame_duck="3s", drain_timeout="10s"))
    keep = Client(port)
    assert keep.ask().status == 200
    since = stopwatch()
    akashd.send(signal.SIGTERM)
    until(lambda: akashd.get("/readyz")[0] == 503, "readiness to go", 2.5)
    assert akashd.get("/livez")[0] == 200
    with Client(port) as client:
        assert client.ask().status == 200
    answer = keep.ask()
    assert answer.status == 200
    assert since() < 3
    until(lambda: refuses(port), "refusal after the lame duck", 8)
    assert since() > 2.9
    keep.close()
    finish(akashd, lambda: since() < 9)


def test_readiness_goes_while_streams_are_finished(launch, echo):
    port = free_port()
    akashd = launch(tcp_config(port, [echo.address], drain_timeout="20s"))
    streams = Streams(port, 3)
    akashd.send(signal.SIGTERM)
    until(lambda: akashd.get("/readyz")[0] == 503, "readiness to go")
    until(lambda: refuses(port), "refusal")
    streams.check()
    streams.close()
    assert akashd.wait_exit() == 0
    assert cut_count(akashd) == 0


def test_running_requests_are_finished(launch, scripted):
    gate, backend, port = Gate(), scripted(), free_port()
    backend.always(gate.hold(fixed(b"the answer")))
    akashd = launch(http_config(port, [backend], workers=2, drain_timeout="20s"))
    clients = [Client(port) for _ in range(10)]
    for client in clients:
        client.request("POST", "/", body=b"question")
    gate.wait_waiting(10)
    akashd.send(signal.SIGTERM)
    until(lambda: refuses(port), "refusal")
    gate.release()
    for client in clients:
        answer = client.response()
        assert (answer.status, answer.body, answer.closes) == (200, b"the answer", True)
        assert client.ended() == "fin"
    finish(akashd, lambda: True)
    assert cut_count(akashd) == 0


def test_upload_that_runs_is_finished(launch, scripted):
    """Half of the body comes after TERM; so does all of the answer."""
    backend, port = scripted(), free_port()
    akashd = launch(http_config(port, [backend], drain_timeout="20s"))
    body = bytes(range(256)) * 4096
    with Client(port) as client:
        head_bytes = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.send(head_bytes + body[:300000], "POST")
        backend.wait_requests(1)
        akashd.send(signal.SIGTERM)
        until(lambda: refuses(port), "refusal")
        client.send(body[300000:])
        answer = client.response()
        assert answer.status == 200 and answer.closes
    assert hashlib.sha256(backend.requests[0].body).digest() == hashlib.sha256(body).digest()
    assert akashd.wait_exit() == 0


def test_answer_that_runs_is_finished(launch, scripted):
    gate, backend, port = Gate(), scripted(), free_port()

    def slow(x):
        x.body()
        x.send(head(200, "OK", [("Content-Length", 200000)]) + b"a" * 100000)
        gate.hold(lambda _: x.send(b"b" * 100000))(x)
    backend.always(slow)
    akashd = launch(http_config(port, [backend], drain_timeout="20s"))
    with Client(port) as client:
        client.request()
        gate.wait_waiting(1)
        akashd.send(signal.SIGTERM)
        until(lambda: refuses(port), "refusal")
        gate.release()
        answer = client.response()
        assert answer.complete and answer.body == b"a" * 100000 + b"b" * 100000
        assert client.ended() == "fin", "its head said keep-alive before TERM; the end is orderly"
    assert akashd.wait_exit() == 0


def test_idle_clients_get_one_more_answer_or_the_end_after_two_seconds(launch, scripted):
    backend = scripted()

    def attempt(beat):
        port = free_port()
        akashd = launch(http_config(port, [backend], workers=2, drain_timeout="20s"))
        asking, silent, fresh = Client(port), Client(port), Client(port)
        assert asking.ask().status == silent.ask().status == 200
        beat()
        since = stopwatch()
        akashd.send(signal.SIGTERM)
        until(lambda: refuses(port), "refusal")
        for client in (asking, fresh):
            beat()
            answer = client.ask()
            assert (answer.status, answer.closes, client.ended()) == (200, True, "fin")
        assert since() < GRACE
        return akashd, silent, since
    akashd, silent, since = at_pace(attempt, GRACE / 4)
    assert silent.ended() == "fin" and GRACE - 0.5 < since() < GRACE + 3
    finish(akashd, lambda: since() < AT_ONCE)


def test_idle_tls_clients_get_one_more_answer_or_an_orderly_end(launch, scripted):
    """The same over TLS: close_notify, no truncation."""
    backend, front = scripted(), TlsFront()

    def attempt(beat):
        port = free_port()
        akashd = launch(http_config(port, [backend], listener=front.listener(), drain_timeout="20s"))
        asking, silent = front.connect(port), front.connect(port)
        assert asking.ask().status == silent.ask().status == 200
        beat()
        akashd.send(signal.SIGTERM)
        until(lambda: refuses(port), "refusal")
        beat()
        answer = asking.ask()
        assert (answer.status, answer.closes, asking.ended()) == (200, True, "fin")
        return akashd, silent
    akashd, silent = at_pace(attempt, GRACE / 4)
    assert silent.ended() == "fin"
    assert akashd.wait_exit() == 0


def test_request_half_sent_at_term_is_answered(launch, scripted):
    backend, port = scripted(), free_port()
    akashd = launch(http_config(port, [backend], drain_timeout="20s"))
    with Client(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost:")
        with Client(port) as fence:
            assert fence.ask().status == 200
        akashd.send(signal.SIGTERM)
        until(lambda: refuses(port), "refusal")
        client.send(b" a\r\n\r\n", "GET")
        answer = client.response()
        assert answer.status == 200 and answer.closes
    assert akashd.wait_exit() == 0


def test_streams_run_until_drain_timeout_and_the_log_counts_the_cut(launch, echo):
    def attempt(beat):
        port = free_port()
        akashd = launch(tcp_config(port, [echo.address], workers=2, drain_timeout="2s"))
        streams, since = Streams(port, 7), stopwatch()
        beat()
        akashd.send(signal.SIGTERM)
        until(lambda: refuses(port), "refusal")
        until(lambda: beat() or streams.check() or since() > 1.5, "a second and a half")
        return akashd, streams, since
    akashd, streams, since = at_pace(attempt, 0.3)
    for sock in streams.socks:
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass
    assert 1.8 < since() < 6
    finish(akashd, lambda: since() < AT_ONCE)
    assert cut_count(akashd) == 7
    streams.close()


def test_request_that_outlasts_drain_timeout_is_cut_and_counted(launch, scripted):
    gate, backend, port = Gate(), scripted(), free_port()
    backend.always(gate.hold())
    akashd = launch(http_config(port, [backend], drain_timeout="1s"))
    with Client(port) as client:
        client.request()
        gate.wait_waiting(1)
        since = stopwatch()
        akashd.send(signal.SIGTERM)
        finish(akashd, lambda: 0.9 < since() < 6)
    assert cut_count(akashd) == 1


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_stops_at_once(launch, echo, second):
    port = free_port()
    akashd = launch(tcp_config(port, [echo.address], workers=2, drain_timeout="60s"))
    streams = Streams(port, 5)
    akashd.send(signal.SIGTERM)
    until(lambda: refuses(port), "refusal")
    streams.check()
    since = stopwatch()
    akashd.send(second)
    finish(akashd, lambda: since() < AT_ONCE)
    assert cut_count(akashd) == 5
    streams.close()


def test_second_signal_ends_the_lame_duck(launch, farm):
    akashd = launch(http_config(free_port(), farm.addresses, lame_duck="60s"))
    akashd.send(signal.SIGTERM)
    until(lambda: akashd.get("/readyz")[0] == 503, "readiness to go")
    since = stopwatch()
    akashd.send(signal.SIGTERM)
    finish(akashd, lambda: since() < AT_ONCE)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("front", FRONTS, ids=lambda f: f.name)
def test_no_request_is_lost_under_load(launch, farm, front):
    """Clients ask until their connect is refused. Eight times, for the moment of TERM is a different one."""
    port, secure, http2 = free_port(), front.scheme == "https", front.version == 2
    extra = front.listener()
    tls = TlsFront.authority.client_context() if secure else None
    if tls and http2:
        tls.set_alpn_protocols(["h2"])
    akashd = launch(http_config(port, farm.addresses, listener=extra, workers=2), start=False)
    for _ in range(4 if secure or http2 else 8):
        akashd.start()
        wait_serving(akashd, 2)
        load = Load(port, keepalive=24, fresh=24, check=farm.check, until_refused=True, tls=tls,
                    http2=http2)
        load.wait_total(200)
        since = stopwatch()
        akashd.send(signal.SIGTERM)
        load.join(20).assert_all_ok(200)
        finish(akashd, lambda: since() < 10)
        assert cut_count(akashd) == 0
        akashd.log.clear()


def test_clients_in_the_queue_at_term_are_served(launch, farm):
    """The worker is stopped, so that they are in the queue when it is told to retire."""
    port = free_port()
    akashd = launch(http_config(port, farm.addresses, drain_timeout="20s"))
    worker = akashd.workers()[0]
    worker.kill(signal.SIGSTOP)
    clients = [Client(port) for _ in range(30)]
    for client in clients:
        client.request()
    backlog(port, 30)
    akashd.send(signal.SIGTERM)
    akashd.wait_log("SIGTERM: stopping")
    worker.kill(signal.SIGCONT)
    assert [c.response().status for c in clients] == [200] * 30
    assert [c.ended() for c in clients] == ["fin"] * 30
    assert akashd.wait_exit() == 0


def test_reload_while_stopping_is_refused(launch, echo):
    port = free_port()
    akashd = launch(tcp_config(port, [echo.address], drain_timeout="20s"))
    streams = Streams(port, 1)
    akashd.send(signal.SIGTERM)
    until(lambda: refuses(port), "refusal")
    done = akashd.ctl("reload")
    assert done.returncode == 1 and "stopping" in done.stdout + done.stderr
    streams.check()
    streams.close()
    assert akashd.wait_exit() == 0


def test_term_while_a_reload_runs_stops(launch, farm):
    port = free_port()
    akashd = launch(http_config(port, farm.addresses))
    worker = akashd.workers()[0]
    worker.kill(signal.SIGSTOP)
    before = akashd.hup(http_config(port, farm.addresses[:1]))
    with subprocess.Popen([binary("akashctl"), "-s", str(akashd.control), "reload"], env=akashd.env,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as asked:
        akashd.wait_log("runs after the one", since=before)
        akashd.send(signal.SIGTERM)
        assert asked.wait(10) == 1
    worker.kill(signal.SIGCONT)
    assert akashd.wait_exit(10) == 0


def test_chunked_answer_at_term_is_complete(launch, scripted):
    gate, backend, port = Gate(), scripted(), free_port()
    backend.always(gate.hold(chunked([b"one", b"two"])))
    akashd = launch(http_config(port, [backend]))
    with Client(port) as client:
        client.request()
        gate.wait_waiting(1)
        akashd.send(signal.SIGTERM)
        until(lambda: refuses(port), "refusal")
        gate.release()
        answer = client.response()
        assert answer.complete and answer.body == b"onetwo" and answer.closes
    assert akashd.wait_exit() == 0
