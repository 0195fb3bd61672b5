# SPDX-License-Identifier: Apache-2.0
"""traffic.py - what tests of reload, crash and shutdown need: servers that cost little, streams that stay
open, and eyes on the counters and sockets while everything moves."""

import asyncio
import json
import os
import socket
import threading
import time

from .akashd import Metrics
from .peers import Nginx
from .wire import PATIENCE, free_port, until


class Echo:
    """A TCP server that echoes, on one event loop for any number of connections."""

    def __init__(self):
        self.open = self.accepted = 0
        self.loop = asyncio.new_event_loop()
        self.sock = socket.socket()
        self.port = free_port()
        self.sock.bind(("127.0.0.1", self.port))
        self.sock.listen(4096)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    async def _serve(self, reader, writer):
        self.open += 1
        self.accepted += 1
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        finally:
            self.open -= 1
            writer.close()

    def _run(self):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._serve, sock=self.sock))
        self.loop.run_forever()
        server.close()
        serving = asyncio.all_tasks(self.loop)
        for task in serving:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*serving, return_exceptions=True))
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def close(self):
        """End it and every connection."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)


class Farm:
    """nginx as several backends, each of which answers with its own name: b0, b1, …"""

    def __init__(self, count, locations=""):
        ports = [free_port() for _ in range(count)]
        self.names = [f"b{i}" for i in range(count)]
        self.addresses = [f"127.0.0.1:{port}" for port in ports]
        more = "".join(f'server {{ listen {a} backlog=4096; {locations} location / {{ return 200 "{n}"; }} }}\n'
                       for n, a in list(zip(self.names, self.addresses))[1:])
        self.nginx = Nginx(f'{locations} location / {{ return 200 "b0"; }}', http=more, port=ports[0])

    def check(self, status, _head, body):
        """For Load: the answer of any of the backends."""
        known = status == 200 and body.decode() in self.names
        return None if known else f"status {status}: {body[:60]!r}"

    def close(self):
        self.nginx.close()


class Streams:
    """Open TCP streams through akashd to an Echo."""

    def __init__(self, port, count, host="127.0.0.1"):
        self.rounds = 0
        self.socks = []
        for _ in range(count):
            self.socks.append(socket.create_connection((host, port), PATIENCE))
        self.check()

    def check(self):
        """Every stream passes bytes there and back, its own and no other's."""
        self.rounds += 1
        words = [b"stream %d round %d;" % (i, self.rounds) for i in range(len(self.socks))]
        for sock, word in zip(self.socks, words):
            sock.sendall(word)
        for sock, word in zip(self.socks, words):
            got = b""
            while len(got) < len(word):
                piece = sock.recv(len(word) - len(got))
                assert piece, f"a stream ended after {got!r} of {word!r}"
                got += piece
            assert got == word

    def close(self):
        for sock in self.socks:
            sock.close()


class CounterWatch:
    """Scrapes /metrics all the time; whatever only grows by contract must never fall.

    A series may be missing (its backend has left the configuration, the monitor was killed); when it is
    back it must not be lower than it was.
    """

    def __init__(self, akashd, pause=0.1):
        self.akashd, self.pause = akashd, pause
        self.highest, self.falls = {}, []
        self.scrapes = self.missed = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.look()
        self.thread.start()

    def _run(self):
        while not self.stopping.wait(self.pause):
            self.look()

    def look(self):
        status, text = self.akashd.get("/metrics", missing=(0, ""))
        if status != 200:
            self.missed += 1
            return
        self.scrapes += 1
        metrics = Metrics(text)
        grows = {name for name, kind in metrics.types.items() if kind in ("counter", "histogram")}
        for name, labels, value in metrics.samples:
            family = name
            for ending in ("_bucket", "_sum", "_count"):
                if name.endswith(ending) and name[:-len(ending)] in grows:
                    family = name[:-len(ending)]
            # The processes' own time goes with them; only what akashd counts is promised to last.
            if family not in grows or family.startswith("process_"):
                continue
            key = (name, tuple(sorted(labels.items())))
            before = self.highest.get(key, 0)
            if value < before:
                self.falls.append((key, before, value))
            self.highest[key] = max(before, value)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        """One look more, and the verdict."""
        self.stopping.set()
        self.thread.join(PATIENCE)
        if kind is None:
            self.look()
            assert self.scrapes > 1, f"{self.scrapes} scrapes, {self.missed} missed"
            assert any(name.endswith("_total") for name, _ in self.highest)
            assert not self.falls, f"counters fell: {self.falls[:5]}"


def status(akashd):
    """/status.json"""
    code, text = akashd.get("/status.json")
    assert code == 200, text
    return json.loads(text)


def serving(akashd):
    """{pid} of the workers that serve, as the master says; the page may be a second old."""
    return {w["pid"] for w in status(akashd)["workers"] if w["state"] == "serving"}


def wait_serving(akashd, count, deadline=PATIENCE):
    """Wait for exactly so many serving workers; their pids."""
    def there():
        pids = serving(akashd)
        return pids if len(pids) == count else None
    return until(there, f"{count} serving workers", deadline, 0.05)


def sockets_of(pid):
    """The inodes of a process's sockets."""
    found = set()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{entry}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


def tcp_table():
    """Rows of /proc/net/tcp: (local port, remote port, state, inode)."""
    rows = []
    with open("/proc/net/tcp") as f:
        next(f)
        for line in f:
            cells = line.split()
            rows.append((int(cells[1].rpartition(":")[2], 16), int(cells[2].rpartition(":")[2], 16),
                         int(cells[3], 16), int(cells[9])))
    return rows


def clients_of(pid, port):
    """The ports of the clients whose connections to port this process has accepted."""
    own = sockets_of(pid)
    return {remote for local, remote, state, inode in tcp_table()
            if local == port and state != 10 and inode in own}


def listens(pid, port):
    """Whether the process holds a socket that listens on port."""
    try:
        own = sockets_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(local == port and state == 10 and inode in own for local, _, state, inode in tcp_table())


def backlog(port, count, deadline=PATIENCE):
    """Wait until so many established clients of port wait to be accepted (they have no process yet)."""
    def waiting():
        return sum(1 for local, _, state, inode in tcp_table()
                   if local == port and state == 1 and inode == 0) >= count
    until(waiting, f"{count} clients in the queue of {port}", deadline)


def stopwatch():
    began = time.monotonic()
    return lambda: time.monotonic() - began
