# SPDX-License-Identifier: Apache-2.0
"""TCP mode: bytes go both ways as they are, and every end, cut and silence of one side is seen on the other."""

import array
import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import select
import shutil
import socket
import subprocess
import tempfile
import termios
import threading
import time
from pathlib import Path

import pytest

from harness import PATIENCE, Client, Reset, Silence, at_pace, free_port, tcp_config, until
from harness.akashd import is_sanitized
from harness.fronts import FRONTS
from harness.raw import RawBackend

MEGABYTE = 1024 * 1024
TLS = next(front for front in FRONTS if front.scheme == "https")


@pytest.fixture
def raw():
    """Make raw backends that end with the test."""
    made = []

    def make(**kw):
        made.append(RawBackend(**kw))
        return made[-1]
    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def folder():
    """A folder that the unprivileged worker may enter."""
    path = Path(tempfile.mkdtemp(prefix="akashd-tcp-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


class Pair:
    """A daemon in tcp mode before raw backends."""

    def __init__(self, launch, backends, upstream=None, listener=None, **top):
        self.port = free_port()
        self.backends = backends
        self.akashd = launch(tcp_config(self.port, backends, upstream, listener, **top))
        self.ends = []

    def open(self, **kw):
        """A client and the backend's end of its tunnel."""
        client = Client(self.port, **kw)
        self.ends.append(client)
        return client, self.backends[0].accept()

    def close(self):
        for end in self.ends:
            end.close()


@pytest.fixture
def make_pair(launch, raw):
    made = []

    def make(nbackends=1, **kw):
        made.append(Pair(launch, [raw() for _ in range(nbackends)], **kw))
        return made[-1]
    yield make
    for pair in made:
        pair.close()


@pytest.fixture
def pair(make_pair):
    return make_pair()


def send(wire, data):
    wire.sock.settimeout(PATIENCE)
    wire.sock.sendall(data)


def assert_reset(port):
    """A connection is reset, be it before connect() has returned or after."""
    try:
        with Client(port) as client:
            assert client.ended() == "rst"
    except ConnectionResetError:
        pass


# -- bytes


def test_bytes_go_both_ways(pair):
    client, server = pair.open()
    for n in range(20):
        send(client, b"question %d\0\r\n" % n)
        assert server.take(len(b"question %d\0\r\n" % n)) == b"question %d\0\r\n" % n
        send(server, b"\xffanswer %d" % n)
        assert client.take(len(b"\xffanswer %d" % n)) == b"\xffanswer %d" % n


def test_the_server_may_speak_first(pair):
    client, server = pair.open()
    send(server, b"220 ready\r\n")
    assert client.take(11) == b"220 ready\r\n"
    send(client, b"HELO\r\n")
    assert server.take(6) == b"HELO\r\n"


def test_a_server_that_speaks_and_leaves_is_heard(pair):
    client, server = pair.open()
    send(server, b"421 busy\r\n")
    server.close()
    assert client.take(10) == b"421 busy\r\n"
    assert client.ended() == "fin"


def test_what_looks_like_http_is_payload(pair):
    client, server = pair.open()
    nasty = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 1\r\nTransfer-Encoding: x\r\n\r\n"
    send(client, nasty)
    assert server.take(len(nasty)) == nasty


def test_many_one_byte_segments_arrive_in_order(pair):
    client, server = pair.open()
    data = bytes(range(256)) * 8
    for value in data:
        send(client, bytes([value]))
    assert server.take(len(data)) == data
    for value in data:
        send(server, bytes([value]))
    assert client.take(len(data)) == data


def test_small_messages_after_bulk_are_not_held_back(pair):
    client, server = pair.open(record=False)
    server.record = False
    for round_ in range(5):
        bulk = os.urandom(64) * 32768
        sender = threading.Thread(target=send, args=(client, bulk))
        sender.start()
        assert server.take(len(bulk)) == bulk
        sender.join()
        send(client, b"ping")
        assert server.take(4) == b"ping"
        send(server, b"pong")
        assert client.take(4) == b"pong"


# -- ends


def test_half_close_of_the_client_leaves_the_other_way_open(pair):
    client, server = pair.open()
    send(client, b"all I had")
    client.half_close()
    assert server.take(9) == b"all I had"
    assert server.wait_end() == "fin"
    assert client.quiet(0.2)
    send(server, b"a" * 100000)
    assert client.take(100000) == b"a" * 100000
    send(server, b"end")
    server.half_close()
    assert client.take(3) == b"end"
    assert client.ended() == "fin"


def test_half_close_of_the_server_leaves_the_other_way_open(pair):
    client, server = pair.open()
    send(server, b"all I had")
    server.half_close()
    assert client.take(9) == b"all I had"
    assert client.ended() == "fin"
    send(client, b"b" * 100000)
    assert server.take(100000) == b"b" * 100000
    client.half_close()
    assert server.wait_end() == "fin"


def test_fin_that_comes_with_the_data_is_passed_on(pair):
    for size in (1, 65536, 65537, 3 * 65536, 300000):
        client = Client(pair.port)
        data = os.urandom(size)
        sender = threading.Thread(target=lambda: (send(client, data), client.half_close()))
        sender.start()
        server = pair.backends[0].accept()
        assert server.take(size) == data
        assert server.wait_end() == "fin"
        sender.join()
        send(server, data)
        server.half_close()
        assert client.take(size) == data
        assert client.ended() == "fin"
        client.close()


def test_a_client_that_ends_without_a_byte_ends_the_tunnel(pair):
    client, server = pair.open()
    client.half_close()
    assert server.wait_end() == "fin"
    server.half_close()
    assert client.ended() == "fin"
    pair.akashd.wait_metric("akash_active_connections", lambda v: v == 0)


def test_a_finished_tunnel_is_counted_once_and_leaves_nothing(pair):
    fds = pair.akashd.workers()[0].fds()
    for n in range(20):
        client, server = pair.open()
        send(client, b"x")
        assert server.take(1) == b"x"
        client.half_close()
        assert server.wait_end() == "fin"
        server.close()
        assert client.ended() == "fin"
        client.close()
    pair.akashd.wait_metric("akash_backend_served_total", lambda v: v == 20)
    pair.akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0)
    until(lambda: pair.akashd.workers()[0].fds() <= fds, "the worker's descriptors to be closed")


def test_reset_of_the_client_is_a_reset_for_the_server(pair):
    client, server = pair.open()
    send(client, b"x")
    assert server.take(1) == b"x"
    client.reset()
    assert server.wait_end() == "rst"
    pair.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="client_closed")


def test_reset_of_the_server_is_a_reset_for_the_client(pair):
    client, server = pair.open()
    send(client, b"x")
    assert server.take(1) == b"x"
    server.reset()
    assert client.ended() == "rst"
    pair.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="backend_reset")
    pair.akashd.wait_metric("akash_backend_failures_total", lambda v: v == 1)


@pytest.mark.parametrize("who", ["client", "server"])
def test_reset_of_the_other_side_after_a_half_close_is_passed_on(pair, who):
    client, server = pair.open()
    ended, other = (client, server) if who == "client" else (server, client)
    ended.half_close()
    assert other.wait_end() == "fin"
    other.reset()
    assert ended.wait_end() == "rst"


@pytest.mark.parametrize("who", ["client", "server"])
def test_reset_of_a_side_that_has_half_closed_is_passed_on(pair, who):
    client, server = pair.open()
    ended, other = (client, server) if who == "client" else (server, client)
    ended.half_close()
    assert other.wait_end() == "fin"
    ended.reset()
    until(lambda: other.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "the reset to be passed on")


@pytest.mark.parametrize("who", ["client", "server"])
def test_reset_of_a_sender_whose_reader_stands_still_is_passed_on(pair, who):
    client, server = pair.open(record=False)
    sender, reader = (client, server) if who == "client" else (server, client)
    fill_until_blocked(sender.sock)
    sender.reset()
    pair.akashd.wait_metric("akash_active_connections", lambda v: v == 0)
    with pytest.raises(Reset):
        while reader.fill():
            reader.buf.clear()


@pytest.mark.parametrize("who", ["client", "server"])
def test_reset_in_the_middle_of_bulk_is_passed_on(pair, who):
    client, server = pair.open(record=False)
    server.record = False
    sender, receiver = (client, server) if who == "client" else (server, client)
    stop = threading.Event()

    def pump():
        try:
            while not stop.is_set():
                sender.sock.settimeout(0.2)
                sender.sock.send(b"z" * 65536)
        except OSError:
            pass
    thread = threading.Thread(target=pump)
    thread.start()
    receiver.take(4 * MEGABYTE)
    stop.set()
    thread.join()
    sender.reset()
    with pytest.raises(Reset):
        while receiver.fill():
            receiver.buf.clear()


# -- bulk


def pattern(size, seed):
    """Pieces of a stream that repeats nowhere near a pipe's or a buffer's size."""
    block = hashlib.shake_128(seed.encode()).digest(65521)
    while size > 0:
        yield block[:size]
        size -= len(block)
        block = block[1:] + block[:1]


def digest_of(size, seed):
    h = hashlib.sha256()
    for piece in pattern(size, seed):
        h.update(piece)
    return h.hexdigest()


def send_pattern(wire, size, seed):
    wire.sock.settimeout(40)
    for piece in pattern(size, seed):
        wire.sock.sendall(piece)
    wire.half_close()


def read_digest(wire, pause_every=0):
    """SHA-256 of all up to FIN. With pause_every the reader stops now and then until nothing more comes."""
    h, since = hashlib.sha256(), 0
    wire.record = False
    while wire.fill(40):
        h.update(wire.buf)
        since += len(wire.buf)
        wire.buf.clear()
        if pause_every and since > pause_every:
            since = 0
            wait_queue_settled(wire.sock)
    return h.hexdigest()


def wait_queue_settled(sock):
    """Wait until the peer can send no more: the bytes that lie unread stop growing."""
    last = -1
    while (now := unread(sock)) != last:
        last = now
        time.sleep(0.02)


def unread(sock):
    import fcntl
    import termios
    number = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, number)
    return number[0]


def exchange_bulk(client, server, up, down, pause_every=0):
    """up bytes to the server and down bytes to the client at the same time, compared by hash."""
    results = {}
    jobs = [
        threading.Thread(target=send_pattern, args=(client, up, "up")),
        threading.Thread(target=send_pattern, args=(server, down, "down")),
        threading.Thread(target=lambda: results.update(up=read_digest(server, pause_every))),
        threading.Thread(target=lambda: results.update(down=read_digest(client, pause_every))),
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(50)
    assert results.get("up") == digest_of(up, "up"), "the way up is not what was sent"
    assert results.get("down") == digest_of(down, "down"), "the way down is not what was sent"


@pytest.mark.parametrize("up, down", [(64 * MEGABYTE + 1, 0), (0, 64 * MEGABYTE + 1),
                                      (24 * MEGABYTE + 7, 24 * MEGABYTE + 13)])
def test_bulk_arrives_whole(pair, up, down):
    exchange_bulk(*pair.open(), up, down)


def test_bulk_arrives_whole_through_slow_readers(pair):
    client, server = pair.open(rcvbuf=65536)
    exchange_bulk(client, server, 8 * MEGABYTE + 3, 8 * MEGABYTE + 5, pause_every=700000)


def test_bulk_does_not_grow_the_worker(pair):
    worker = pair.akashd.workers()[0]
    exchange_bulk(*pair.open(), 2 * MEGABYTE, 2 * MEGABYTE)
    before = worker.kb("VmRSS")
    for _ in range(3):
        exchange_bulk(*pair.open(), 20 * MEGABYTE, 20 * MEGABYTE, pause_every=5 * MEGABYTE)
    grown = worker.kb("VmRSS") - before
    assert is_sanitized() or grown < 512, f"{grown} KB more after bulk"


def fill_until_blocked(*socks):
    """Send into each until none takes more for a while; the number of bytes."""
    sent = looks = 0
    for sock in socks:
        sock.setblocking(False)
    while looks < 5:  # not a time: a pause of the machine is one long look
        looks += 1
        for sock in select.select([], socks, [], 0.05)[1]:
            sent += sock.send(b"w" * 65536)
            looks = 0
    return sent


def test_tunnels_whose_reader_stands_still_cost_bounded_memory(pair):
    """More of them than there are pipes, so that both ways of moving bytes are held to it."""
    worker = pair.akashd.workers()[0]
    before = worker.kb("VmRSS")
    tunnels = [pair.open(record=False) for _ in range(75)]
    sent = fill_until_blocked(*[client.sock for client, _ in tunnels])
    grown = worker.kb("VmRSS") - before
    assert sent > 75 * MEGABYTE, "the tunnels took less than their pipes alone hold"
    assert is_sanitized() or grown < 75 * 64, f"{grown} KB for 75 tunnels that stand still"
    _, server = tunnels[74]
    server.record = False
    assert server.take(MEGABYTE) == b"w" * MEGABYTE


def test_bulk_goes_through_pipes_and_leaves_few(pair):
    """splice(2): while a reader stands still its bytes lie in a pipe of the worker."""
    folder = Path(f"/proc/{pair.akashd.workers()[0].pid}/fd")

    def pipes():
        """name of each pipe: bytes that lie in it"""
        found = {}
        for fd in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if (name := os.readlink(fd)).startswith("pipe:") and name not in before:
                    with open(fd, "rb", buffering=0, opener=lambda p, f: os.open(p, f | os.O_NONBLOCK)) as end:
                        count = fcntl.ioctl(end, termios.FIONREAD, b"\0" * 4)
                        found[name] = int.from_bytes(count, "little")
        return found
    before = {}
    before = pipes()
    for _ in range(20):  # what a blocked tunnel holds lies in a pipe, unless its last piece was a small one
        client, server = pair.open(record=False)
        fill_until_blocked(client.sock)
        full = [name for name, count in pipes().items() if count > 0]
        if full:
            break
        client.reset()
    assert full, "no pipe is used for bulk"
    client.reset()
    until(lambda: not set(full) & set(pipes()), "a pipe that holds bytes to go with its tunnel")
    for _ in range(10):
        exchange_bulk(*pair.open(), MEGABYTE, MEGABYTE)
    assert len(pipes()) <= 4, "pipes are not used again"


def test_more_bulk_tunnels_than_pipes_all_arrive_whole(pair):
    tunnels = [pair.open(record=False) for _ in range(90)]
    size = 600000
    results = []
    jobs = []
    for number, (client, server) in enumerate(tunnels):
        server.record = False
        seed = str(number)
        jobs.append(threading.Thread(target=send_pattern, args=(client, size, seed)))
        jobs.append(threading.Thread(
            target=lambda s=server, seed=seed: results.append(read_digest(s) == digest_of(size, seed))))
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(50)
    assert results == [True] * 90


# -- connecting


def test_a_black_hole_ends_by_the_connect_timeout(make_pair):
    pair = make_pair(upstream={"timeouts": {"connect": "400ms"}, "retry": False})
    pair.backends[0].stuff()
    began = time.monotonic()
    assert_reset(pair.port)
    taken = time.monotonic() - began
    assert 0.4 <= taken < 5, f"ended after {taken:.2f} s"
    pair.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="connect_timeout")
    pair.akashd.wait_metric("akash_backend_failures_total", lambda v: v == 1)


def test_after_a_connect_timeout_the_next_backend_is_tried(make_pair):
    pair = make_pair(2, upstream={"timeouts": {"connect": "300ms"}})
    pair.backends[0].stuff()
    for _ in range(2):
        with Client(pair.port) as client:
            send(client, b"sent before anybody was connected")
            server = pair.backends[1].accept()
            assert server.take(33) == b"sent before anybody was connected"
    assert pair.akashd.metrics().value("akash_failures_total", reason="connect_timeout") in (None, 0)
    pair.akashd.wait_metric("akash_backend_retries_total", lambda v: v >= 1,
                            backend=pair.backends[0].address)


def test_after_a_refused_connect_the_next_backend_gets_every_byte(make_pair):
    pair = make_pair(2)
    pair.backends[0].listener.close()
    for n in range(6):
        with Client(pair.port) as client:
            data = b"%d" % n * 50000
            send(client, data)
            server = pair.backends[1].accept()
            assert server.take(len(data)) == data
            send(server, b"got it")
            assert client.take(6) == b"got it"
    pair.akashd.wait_metric("akash_backend_failures_total", lambda v: v >= 3,
                            backend=pair.backends[0].address)


def test_when_nobody_can_be_connected_the_client_is_reset(make_pair):
    pair = make_pair(2)
    for backend in pair.backends:
        backend.listener.close()
    assert_reset(pair.port)
    pair.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="connect_refused")
    pair.akashd.wait_metric("akash_active_connections", lambda v: v == 0)


def test_a_backend_that_ends_after_connect_is_not_tried_again(make_pair):
    """Once connected, bytes may have been sent: the client sees the end, no second backend gets them."""
    pair = make_pair(2)
    with Client(pair.port) as client:
        send(client, b"once")
        until(lambda: any(b.is_called(0) for b in pair.backends), "a connection")
        chosen = next(b for b in pair.backends if b.is_called(0))
        other = next(b for b in pair.backends if b is not chosen)
        server = chosen.accept()
        assert server.take(4) == b"once"
        server.reset()
        assert client.ended() == "rst"
        assert not other.is_called(0.2)


def test_a_client_that_leaves_while_connecting_takes_the_connect_with_it(make_pair):
    pair = make_pair(upstream={"timeouts": {"connect": "60s"}})
    pair.backends[0].stuff()
    client = Client(pair.port)
    pair.akashd.wait_metric("akash_backend_active_connections", lambda v: v == 1)
    client.reset()
    pair.akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0)
    pair.akashd.wait_metric("akash_active_connections", lambda v: v == 0)


def test_small_bytes_after_bulk_do_not_wait_for_more(pair):
    """The pipe that bulk goes through must not hold back what follows it: 200 ms it would be each time."""
    client, server = pair.open()
    client.record = server.record = False
    waits = []
    for n in range(6):
        sender = threading.Thread(target=send, args=(client, bytes(MEGABYTE)))
        sender.start()
        server.take(MEGABYTE)
        sender.join()
        began = time.monotonic()
        send(client, b"word %d" % n)
        assert server.take(6) == b"word %d" % n
        waits.append(time.monotonic() - began)
    assert min(waits) < 0.15, waits


# -- silence


@pytest.mark.parametrize("listener, upstream", [("500ms", "1h"), ("1h", "500ms"), ("500ms", "0"), ("0", "500ms")])
def test_an_idle_tunnel_ends_by_the_smaller_timeout(make_pair, listener, upstream):
    seconds = {"0": 0}
    pair = make_pair(listener={"timeouts": {"tunnel": seconds.get(listener, listener)}},
                     upstream={"timeouts": {"tunnel": seconds.get(upstream, upstream)}})
    client, server = pair.open()
    began = time.monotonic()
    send(client, b"x")
    assert server.take(1) == b"x"
    client.ended()
    taken = time.monotonic() - began
    assert 0.43 <= taken < 5, f"ended after {taken:.2f} s"
    server.wait_end()
    pair.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="tunnel_idle")


@pytest.mark.parametrize("who", ["client", "server"])
def test_bytes_of_either_side_keep_a_tunnel_alive(make_pair, who):
    pair = make_pair(listener={"timeouts": {"tunnel": "700ms"}})

    def attempt(beat):
        client, server = pair.open()
        talker, hearer = (client, server) if who == "client" else (server, client)
        for _ in range(10):
            beat()
            send(talker, b".")
            assert hearer.take(1) == b"."
            beat()
            try:
                pytest.fail(f"the tunnel ended: {talker.fill(0.2)}")
            except Silence:
                pass
        return client
    client = at_pace(attempt, 0.3)
    assert client.ended() in ("fin", "rst")


def test_a_half_closed_tunnel_ends_by_the_timeout_too(make_pair):
    pair = make_pair(listener={"timeouts": {"tunnel": "400ms"}})
    client, server = pair.open()
    client.half_close()
    assert server.wait_end() == "fin"
    client.ended(3)
    pair.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="tunnel_idle")


def test_a_reader_that_stands_still_ends_by_the_send_timeout(make_pair):
    pair = make_pair(upstream={"timeouts": {"send": "500ms"}})
    client, server = pair.open(record=False)
    began = time.monotonic()
    try:
        fill_until_blocked(client.sock)
        client.sock.setblocking(True)
        assert client.ended() == "rst"
    except ConnectionResetError:
        pass  # the queues of the kernel took longer to fill than the deadline
    assert 0.5 <= time.monotonic() - began < 4
    pair.akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="send_timeout")


def test_a_slow_reader_that_makes_progress_is_not_cut(make_pair):
    pair = make_pair(upstream={"timeouts": {"send": "600ms"}})

    def attempt(beat):
        client, server = pair.open(record=False)
        server.record = False
        sender = threading.Thread(target=send_pattern, args=(client, 12 * MEGABYTE, "slow"))
        sender.start()
        began, h = time.monotonic(), hashlib.sha256()
        try:
            while server.buf or server.fill(5):
                beat()
                h.update(server.buf)
                server.buf.clear()
                if time.monotonic() - began < 2:
                    wait_queue_settled(server.sock)
        finally:
            sender.join()
        assert h.hexdigest() == digest_of(12 * MEGABYTE, "slow")
    at_pace(attempt, 0.25)


# -- addresses


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on the loopback")
def test_ipv6_listener_and_backend(launch, raw):
    backend = raw(host="::1")
    port = free_port("::1")
    launch(tcp_config(port, [backend], listener={"address": f"[::1]:{port}"}))
    with Client(port, host="::1") as client:
        server = backend.accept()
        assert server.sock.family == socket.AF_INET6
        send(client, b"six")
        assert server.take(3) == b"six"


def test_unix_socket_backend(launch, raw, folder):
    backend = raw(unix=str(folder / "backend.sock"))
    port = free_port()
    launch(tcp_config(port, [backend]))
    with Client(port) as client:
        exchange_bulk(client, backend.accept(), 3 * MEGABYTE, 3 * MEGABYTE)


def test_unix_socket_backend_that_is_not_there_is_refused(launch, raw, folder):
    live = raw()
    port = free_port()
    akashd = launch(tcp_config(port, [f"unix:{folder}/missing.sock", live]))
    for _ in range(2):
        with Client(port) as client:
            send(client, b"x")
            assert live.accept().take(1) == b"x"
    akashd.wait_metric("akash_backend_failures_total", lambda v: v >= 1,
                       backend=f"unix:{folder}/missing.sock")


def test_unix_socket_listener_shared_by_workers(launch, raw, folder):
    backend = raw()
    path = str(folder / "front.sock")
    launch(tcp_config(0, [backend], listener={"address": f"unix:{path}"}, workers=2))
    for _ in range(10):
        with Client(None, host=path) as client:
            exchange_bulk(client, backend.accept(), 100000, 100000)


def test_one_listener_with_several_addresses(launch, raw, folder):
    backend = raw()
    one, two, path = free_port(), free_port(), str(folder / "front.sock")
    akashd = launch(tcp_config(one, [backend], workers=2, listener={
        "address": [f"127.0.0.1:{one}", f"127.0.0.2:{two}", f"unix:{path}"]}))
    for port, host in ((one, "127.0.0.1"), (two, "127.0.0.2"), (None, path)):
        with Client(port, host=host) as client:
            server = backend.accept()
            send(client, b"here")
            assert server.take(4) == b"here"
            akashd.wait_metric("akash_listener_connections", lambda v: v == 1, listener="web")
            server.close()
        akashd.wait_metric("akash_listener_connections", lambda v: v == 0, listener="web")


def test_a_name_is_resolved(launch, raw):
    backend = raw()
    port = free_port()
    akashd = launch(tcp_config(port, [f"localhost:{backend.port}"]))
    for _ in range(3):
        with Client(port) as client:
            server = backend.accept()
            send(client, b"by name")
            assert server.take(7) == b"by name"
    ids = {labels["backend"] for labels, _ in akashd.metrics().all("akash_backend_served_total")}
    assert f"localhost:{backend.port}@127.0.0.1" in ids


def can_mount():
    return os.geteuid() == 0 and subprocess.run(
        ["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace for a hosts file of its own")
def test_every_address_of_a_name_is_tried(launch, raw, folder):
    """Three addresses, one of which nobody listens on: two share the tunnels, none is lost."""
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"127.0.0.{n} many.test\n" for n in (2, 3, 4)))
    hosts.chmod(0o644)
    two = raw(host="127.0.0.2")
    four = raw(host="127.0.0.4", port=two.port)
    port = free_port()
    akashd = launch(tcp_config(port, [f"many.test:{two.port}"]), prefix=[
        "unshare", "-m", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"])
    for _ in range(6):
        with Client(port) as client:
            until(lambda: two.is_called(0) or four.is_called(0), "a connection")
            server = (two if two.is_called(0) else four).accept()
            send(client, b"x")
            assert server.take(1) == b"x"
    assert len(two.wires) >= 2 and len(four.wires) >= 2
    ids = {labels["backend"] for labels, _ in akashd.metrics().all("akash_backend_up")}
    assert ids == {f"many.test:{two.port}@127.0.0.{n}" for n in (2, 3, 4)}


# -- TLS


def test_tls_in_tcp_mode_both_ways_with_half_close(launch, raw):
    backend = raw()
    port = free_port()
    launch(tcp_config(port, [backend], listener=TLS.listener()))
    with TLS.connect(port) as client:
        server = backend.accept()
        send(server, b"220 ready\r\n")
        assert client.take(11) == b"220 ready\r\n"
        client.record = server.record = False
        sender = threading.Thread(target=send, args=(client, b"".join(pattern(5 * MEGABYTE, "tls"))))
        sender.start()
        assert hashlib.sha256(server.take(5 * MEGABYTE)).hexdigest() == digest_of(5 * MEGABYTE, "tls")
        sender.join()
        answer = threading.Thread(target=send_pattern, args=(server, 5 * MEGABYTE, "back"))
        answer.start()
        assert hashlib.sha256(client.take(5 * MEGABYTE)).hexdigest() == digest_of(5 * MEGABYTE, "back")
        answer.join()
        assert client.ended() == "fin"
    assert server.wait_end() in ("fin", "rst")


def test_tls_reset_of_the_backend_is_no_clean_end(launch, raw):
    backend = raw()
    port = free_port()
    launch(tcp_config(port, [backend], listener=TLS.listener()))
    with TLS.connect(port) as client:
        server = backend.accept()
        send(client, b"x")
        assert server.take(1) == b"x"
        server.reset()
        assert client.ended() == "rst"


# -- what is told


LINE = re.compile(r"^(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d) (?P<client>\S+) (?P<listener>\S+) "
                  r"(?P<upstream>[^/]+)/(?P<backend>\S+) (?P<bytes_in>\d+) (?P<bytes_out>\d+) "
                  r"(?P<seconds>\d+\.\d+) (?P<reason>\S+)$")


def wait_lines(path, count):
    until(lambda: path.exists() and len(path.read_text().splitlines()) >= count, f"{count} lines in {path}")
    lines = [LINE.match(line) for line in path.read_text().splitlines()]
    assert all(lines), path.read_text()
    return lines


def test_access_log_has_a_line_for_each_tunnel(launch, raw, folder):
    backend = raw()
    port, log = free_port(), folder / "access.log"
    launch(tcp_config(port, [backend], access_log={"target": str(log), "format": "tcp"}))
    with Client(port) as client:
        server = backend.accept()
        send(client, b"u" * 10)
        assert server.take(10) == b"u" * 10
        exchange_bulk(client, server, 3 * MEGABYTE, 5 * MEGABYTE)
    line = wait_lines(log, 1)[0]
    assert (line["client"], line["listener"]) == ("127.0.0.1", "web")
    assert (line["upstream"], line["backend"]) == ("site", backend.address)
    assert int(line["bytes_in"]) == 10 + 3 * MEGABYTE and int(line["bytes_out"]) == 5 * MEGABYTE
    assert line["reason"] == "-" and float(line["seconds"]) > 0


def test_access_log_says_why_a_tunnel_failed(launch, raw, folder):
    backend = raw()
    port, log = free_port(), folder / "access.log"
    launch(tcp_config(port, [backend], access_log={"target": str(log), "format": "tcp"}))
    with Client(port) as client:
        server = backend.accept()
        send(client, b"abc")
        assert server.take(3) == b"abc"
        server.reset()
        assert client.ended() == "rst"
    line = wait_lines(log, 1)[0]
    assert line["reason"] == "backend_reset" and line["bytes_in"] == "3"
    backend.listener.close()
    assert_reset(port)
    assert wait_lines(log, 2)[1]["reason"] == "connect_refused"


def test_bytes_are_counted_in_both_directions(pair):
    client, server = pair.open()
    exchange_bulk(client, server, 3 * MEGABYTE, MEGABYTE)
    client.close()
    server.close()
    for direction, count in (("client_in", 3), ("backend_out", 3), ("backend_in", 1), ("client_out", 1)):
        pair.akashd.wait_metric("akash_bytes_total", lambda v, n=count: v == n * MEGABYTE, direction=direction)


# -- socket options


def options_of(pid, *options):
    """{(local port, remote port): [values]} of a process's TCP sockets, looked at through pidfd_getfd(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    found = {}
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            fd = libc.syscall(438, pidfd, int(name), 0)
            if fd < 0:
                continue
            try:
                sock = socket.socket(fileno=fd)
            except OSError:
                os.close(fd)
                continue
            with sock:
                try:
                    if sock.family == socket.AF_INET:
                        key = sock.getsockname()[1], sock.getpeername()[1]
                        found[key] = [sock.getsockopt(*option) for option in options]
                except OSError:
                    continue
    finally:
        os.close(pidfd)
    return found


def keepalive_timers():
    """{(local port, remote port)} of the connections whose keep-alive timer runs."""
    out = subprocess.run(["ss", "-Htno", "state", "established"], capture_output=True, text=True, check=True)
    found = set()
    for line in out.stdout.splitlines():
        if "timer:(keepalive" in line:
            words = line.split()
            found.add(tuple(int(w.rsplit(":", 1)[1]) for w in words[2:4]))
    return found


def test_both_connections_of_a_tunnel_have_keepalive(pair):
    client, server = pair.open()
    send(client, b"x")
    assert server.take(1) == b"x"
    near = pair.port, client.sock.getsockname()[1]
    far = server.sock.getpeername()[1], pair.backends[0].port
    until(lambda: {near, far} <= keepalive_timers(), "the keep-alive timers of both connections", 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="looks into another process's sockets")
def test_both_connections_of_a_tunnel_are_without_delay(pair):
    client, server = pair.open()
    send(client, b"x")
    assert server.take(1) == b"x"
    found = options_of(pair.akashd.workers()[0].pid, (socket.IPPROTO_TCP, socket.TCP_NODELAY))
    near = pair.port, client.sock.getsockname()[1]
    far = server.sock.getpeername()[1], pair.backends[0].port
    assert found[near] == [1] and found[far] == [1]


def test_silence_is_no_end(pair):
    """The tunnel's default timeout is an hour: a second of silence must change nothing."""
    client, server = pair.open()
    with pytest.raises(Silence):
        server.fill(1.0)
    send(client, b"still here")
    assert server.take(10) == b"still here"
