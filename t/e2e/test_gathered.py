# SPDX-License-Identifier: Apache-2.0
"""What is on its way to one side while the other ends, is blocked, or leaves the configuration."""

import select
import socket
import threading

import pytest

from harness import PATIENCE, Client, free_port, http_config
from harness.backend import raw

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TINY = b"1\r\nx\r\n" * 10000


@pytest.fixture
def serve():
    """A backend that runs a function of the socket of its one connection."""
    servers, threads = [], []

    def start(act):
        servers.append(socket.create_server(("127.0.0.1", 0)))

        def run():
            sock = servers[-1].accept()[0]
            sock.settimeout(PATIENCE)
            with sock:
                sock.recv(65536)
                try:
                    act(sock)
                except OSError:
                    pass
        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        return "127.0.0.1:%d" % servers[-1].getsockname()[1]
    yield start
    for thread in threads:
        thread.join(PATIENCE)
    for server in servers:
        server.close()


@pytest.mark.parametrize("rest, whole", [
    (b"\r\nConnection: close\r\nContent-Length: 3000\r\n\r\n" + b"x" * 3000, True),
    (b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n", False)], ids=["end", "cut"])
def test_answer_whose_head_came_in_two_parts(launch, serve, rest, whole):
    """The body lies behind the kept part of the head when the backend's connection ends."""
    gate, port = threading.Event(), free_port()

    def act(sock):
        sock.sendall(b"HTTP/1.1 200 OK")
        gate.wait(PATIENCE)
        sock.sendall(rest)
    akashd = launch(http_config(port, [serve(act)]))
    worker = akashd.workers()[0].pid
    with Client(port) as client:
        client.request()
        akashd.wait_metric("akash_bytes_total", lambda n: n >= 15, direction="backend_in")
        gate.set()
        data = b""
        while not data.endswith(b"x" * 3000):
            more = client.sock.recv(65536)
            if not more:
                break
            data += more
        assert data.endswith(b"x" * 3000) if whole else b"hello" in data
    assert akashd.workers()[0].pid == worker


def test_tiny_chunks_to_a_client_that_does_not_read(launch, serve):
    sent, port = threading.Event(), free_port()

    def act(sock):
        sock.sendall(HEAD)
        taken = 0
        while select.select([], [sock], [], 0.5)[1]:
            taken += sock.send(TINY[taken % 6:])
        sent.set()
        sock.shutdown(socket.SHUT_RDWR)
    akashd = launch(http_config(port, [serve(act)]))
    worker = akashd.workers()[0].pid
    with Client(port) as client:
        client.request()
        assert sent.wait(PATIENCE)
        assert akashd.workers()[0].pid == worker


def test_backend_that_leaves_while_it_is_being_connected(launch, scripted):
    """Its queue is full; its view goes with the exchange that gives it up."""
    port, other = free_port(), scripted()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = "127.0.0.1:%d" % full.getsockname()[1]
        crowd = [socket.socket() for _ in range(4)]
        for sock in crowd:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        upstream = {"timeouts": {"connect": "2s"}}
        akashd = launch(http_config(port, [address, other], upstream))
        worker = akashd.workers()[0].pid
        clients = [Client(port) for _ in range(2)]
        for client in clients:
            client.request()
        akashd.wait_metric("akash_backend_active_connections", lambda n: n >= 1, backend=address)
        akashd.reload(http_config(port, [other], upstream))
        for client in clients:
            assert client.response().status == 200
            client.close()
        for sock in crowd:
            sock.close()
    assert akashd.workers()[0].pid == worker


def test_flood_of_interim_answers_is_cut(launch, scripted):
    """Nobody needs that many, and a client that does not read them may not cost memory."""
    port = free_port()
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    backend = scripted(raw(early * 1000 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "close"))
    launch(http_config(port, [backend]))
    with Client(port) as client:
        answer = client.ask()
        assert answer.status == 502 and b"bad_response" in answer.body
        assert len(answer.interim) <= 100
