# SPDX-License-Identifier: Apache-2.0
"""load.py - many clients at once, with every request accounted for.

A Load runs its clients on an event loop in a thread of its own. Each request ends in exactly one record:
counted as ok, or listed with when, who and why. Keep-alive clients reconnect when an answer said close, and
when the connection was ended before a byte of the next request was sent; a connection that ends while an
answer is owed is a failure, and so are a reset and a refused connect.
"""

import asyncio
import re
import socket
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from .h2side import Connection

HEAD_END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.I)
CLOSE = re.compile(rb"\r\nconnection:[^\r]*\bclose\b", re.I)


@dataclass
class Failure:
    when: float
    client: str
    number: int
    why: str
    began: float = 0.0  # both times are monotonic less Load.began
    local: int = None  # the client's port


@dataclass
class Account:
    """What became of the requests."""

    ok: int = 0
    statuses: Counter = field(default_factory=Counter)
    failures: list = field(default_factory=list)
    tags: Counter = field(default_factory=Counter)
    latencies: list = field(default_factory=list)
    connects: int = 0
    not_taken: int = 0  # requests over HTTP/2 that the server refused without looking; asked again
    idle_ends: int = 0  # connections that were ended by FIN between requests

    @property
    def total(self):
        return self.ok + len(self.failures)

    @property
    def reasons(self):
        return Counter(f.why for f in self.failures)

    def assert_all_ok(self, at_least=1):
        assert not self.failures, f"{len(self.failures)} of {self.total}: {self.reasons}; first: {self.failures[0]}"
        assert self.ok >= at_least, f"only {self.ok} requests were made"


class _Exchange(asyncio.Protocol):
    """One connection; answers() yields the head and the body of one answer at a time."""

    def __init__(self):
        self.buf = bytearray()
        self.waiter = None
        self.lost = None  # "FIN" or the error's name once the connection has ended
        self.local = None

    def connection_made(self, transport):
        self.transport = transport
        sock = transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.local = sock.getsockname()[1]

    def data_received(self, data):
        self.buf += data
        self._wake()

    def eof_received(self):
        self.lost = self.lost or "FIN"
        self._wake()

    def connection_lost(self, error):
        self.lost = self.lost or (type(error).__name__ if error else "FIN")
        self._wake()

    def ask(self, request):
        self.transport.write(request)

    @property
    def is_gone(self):
        """Whether the server has ended the connection between two requests, as it may."""
        return self.lost == "FIN" and not self.buf

    def _wake(self):
        if self.waiter and not self.waiter.done():
            self.waiter.set_result(None)

    async def more(self):
        if self.lost:
            raise ConnectionError(self.lost)
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter

    async def answer(self):
        """(status, head, body); needs Content-Length, as the backends of load tests give it."""
        while (at := self.buf.find(HEAD_END)) < 0:
            await self.more()
        head = bytes(self.buf[:at + 4])
        status = int(head[9:12])
        m = LENGTH.search(head)
        length = int(m.group(1)) if m else 0
        while len(self.buf) < at + 4 + length:
            await self.more()
        body = bytes(self.buf[at + 4:at + 4 + length])
        del self.buf[:at + 4 + length]
        return status, head, body


class NotTaken(ConnectionError):
    """The server says that it has not looked at the request: it may be sent again (RFC 9113 8.7)."""


class _H2Exchange(_Exchange):
    """The same over HTTP/2: one stream at a time. A connection that got GOAWAY is left after its answer."""

    def __init__(self):
        super().__init__()
        self.h2 = Connection(H2Configuration(header_encoding="latin-1"))
        self.goaway = None
        self.reset = None
        self.head = None
        self.is_whole = False

    def connection_made(self, transport):
        super().connection_made(transport)
        self.h2.initiate_connection()
        self._flush()

    def _flush(self):
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data):
        try:
            for event in self.h2.receive_data(data):
                self._on_event(event)
            self._flush()
        except ProtocolError as why:
            self.lost = f"{type(why).__name__}: {why}"
        self._wake()

    def _on_event(self, event):
        if isinstance(event, ConnectionTerminated):
            self.goaway = event
        elif isinstance(event, ResponseReceived):
            self.head = event.headers
        elif isinstance(event, DataReceived):
            self.buf += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.is_whole = True
        elif isinstance(event, StreamReset) and not self.is_whole:
            self.reset = event.error_code

    def ask(self, request):
        """request as HTTP/1 has it, without a body."""
        method, target, _ = request.split(b"\r\n", 1)[0].decode().split(" ")
        self.head, self.is_whole, self.reset = None, False, None
        self.buf.clear()
        self.stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(self.stream, [(":method", method), (":scheme", "http"), (":path", target),
                                           (":authority", "load")], end_stream=True)
        self._flush()

    def _raise_if_not_taken(self):
        is_left_out = self.goaway and self.goaway.last_stream_id < self.stream
        if self.reset == ErrorCodes.REFUSED_STREAM or is_left_out:
            raise NotTaken("not taken")
        if self.reset is not None:
            raise ConnectionError(f"RST_STREAM {self.reset}")

    async def answer(self):
        while not self.is_whole:
            self._raise_if_not_taken()
            await self.more()
        status = int(dict(self.head)[":status"])
        head = "".join(f"\r\n{n}: {v}" for n, v in self.head).encode("latin-1")
        body = bytes(self.buf)
        self.buf.clear()
        return status, head + (b"\r\nconnection: close\r\n\r\n" if self.goaway else b"\r\n\r\n"), body

    @property
    def is_gone(self):
        return bool(self.lost == "FIN" or self.goaway)


class Load:
    """keepalive clients that keep their connection and fresh ones that open one for each request.

    check(status, head, body) returns None when the answer is right, else why not.
    tag(head, body), if given, names what the answer is counted under in account.tags.
    limit is how many requests each client makes at most; with until_refused a client whose connect is
    refused is through, which then is no failure. With http2 all of them speak it; what a server says not to have
    taken is asked again.
    """

    def __init__(self, port, keepalive=0, fresh=0, target="/", host="127.0.0.1", tls=None, limit=None,
                 check=None, tag=None, timeout=15, body=None, pause=0.0, until_refused=False,
                 http2=False):
        self.port, self.host, self.tls, self.limit = port, host, tls, limit
        self.check = check or (lambda s, h, b: None if s == 200 else f"status {s}")
        self.tag, self.timeout, self.pause = tag, timeout, pause
        self.until_refused = until_refused
        self.kind = _H2Exchange if http2 else _Exchange
        assert not (http2 and body), "bodies are for HTTP/1 here"
        self.account = Account()
        self.began = time.monotonic()
        self.stopping = threading.Event()
        extra = f"Content-Length: {len(body)}\r\n" if body is not None else ""
        method = "POST" if body is not None else "GET"
        self.keep = (f"{method} {target} HTTP/1.1\r\nHost: load\r\n{extra}\r\n").encode() + (body or b"")
        self.once = (f"{method} {target} HTTP/1.1\r\nHost: load\r\nConnection: close\r\n{extra}\r\n"
                     ).encode() + (body or b"")
        self.counts = keepalive, fresh
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_total(self, count, deadline=60):
        """Wait until so many requests have ended, one way or the other."""
        end = time.monotonic() + deadline
        while self.account.total < count:
            assert time.monotonic() < end, f"{self.account.total} of {count} requests in {deadline} s"
            assert self.thread.is_alive() or self.account.total >= count, "the load ended early"
            time.sleep(0.005)
        return self.account

    def join(self, deadline=120):
        """Wait for a load with a limit to be through."""
        self.thread.join(deadline)
        assert not self.thread.is_alive(), f"load still running after {deadline} s"
        return self.account

    def stop(self):
        """Let every client finish the request it is at."""
        self.stopping.set()
        return self.join(self.timeout + 10)

    async def _run(self):
        keepalive, fresh = self.counts
        await asyncio.gather(*[self._client(f"keepalive {i}", self.keep, True) for i in range(keepalive)],
                             *[self._client(f"fresh {i}", self.once, False) for i in range(fresh)])

    async def _connect(self):
        loop = asyncio.get_running_loop()
        if self.port is None:
            _, end = await loop.create_unix_connection(self.kind, self.host)
        else:
            _, end = await loop.create_connection(self.kind, self.host, self.port, ssl=self.tls,
                                                  server_hostname="localhost" if self.tls else None)
        self.account.connects += 1
        return end

    async def _client(self, name, request, keep):
        end, number = None, 0
        while not self.stopping.is_set() and (self.limit is None or number < self.limit):
            number += 1
            began = time.monotonic()
            phase = "connect"
            try:
                if end is None:
                    end = await asyncio.wait_for(self._connect(), self.timeout)
                elif end.is_gone:
                    self.account.idle_ends += 1
                    end.transport.close()
                    phase, end = "connect", None
                    end = await asyncio.wait_for(self._connect(), self.timeout)
                phase = "answer"
                end.ask(request)
                status, head, body = await asyncio.wait_for(end.answer(), self.timeout)
                self._count(name, number, status, head, body, began, end)
                if not keep or CLOSE.search(head):
                    end.transport.close()
                    end = None
            except NotTaken:
                self.account.not_taken += 1
                end.transport.close()
                end = None
            except (OSError, ssl.SSLError, asyncio.TimeoutError, ValueError) as why:
                if self.until_refused and phase == "connect" and isinstance(why, ConnectionRefusedError):
                    return
                self._fail(name, number, f"{phase}: {str(why) or type(why).__name__}", began, end)
                if end is not None:
                    end.transport.abort()
                    end = None
                await asyncio.sleep(0.02)
            if self.pause:
                await asyncio.sleep(self.pause)
        if end is not None:
            end.transport.close()

    def _count(self, name, number, status, head, body, began, end):
        self.account.statuses[status] += 1
        wrong = self.check(status, head, body)
        if wrong:
            return self._fail(name, number, wrong, began, end)
        self.account.ok += 1
        self.account.latencies.append(time.monotonic() - began)
        if self.tag:
            self.account.tags[self.tag(head, body)] += 1

    def _fail(self, name, number, why, began, end):
        self.account.failures.append(Failure(time.monotonic() - self.began, name, number, why,
                                             began - self.began, end.local if end else None))
