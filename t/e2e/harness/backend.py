# SPDX-License-Identifier: Apache-2.0
"""backend.py - an HTTP/1 or TCP server that does what a test tells it and records what it was sent.

An *answer* is a function of one Exchange, run in the thread of its connection. The functions below make the
usual ones; a test writes its own for the rest. Whatever an answer waits for also ends with the backend, so
that no thread outlives its test.
"""

import os
import select
import socket
import ssl
import threading
import time

from .wire import (PATIENCE, REQUEST_LINE, Ended, Fields, Malformed, Reset, Silence, Wire, framing, free_port)


class Request:
    """A request as the backend received it."""

    def __init__(self, method, target, version, fields, connection):
        self.method, self.target, self.version, self.fields = method, target, version, fields
        self.connection = connection
        self.gone = connection.quiet_end  # set when akashd has given the exchange up
        self.framing = framing(fields, version)
        self.body = b""
        self.trailers = Fields()
        self.complete = False
        self.expects = "100-continue" in fields.tokens("Expect")

    def __repr__(self):
        return f"<{self.method} {self.target} {list(self.fields)!r} {len(self.body)} bytes>"


class Exchange:
    """One request on one backend connection, and the means to answer it."""

    def __init__(self, backend, connection, request):
        self.backend, self.connection, self.request = backend, connection, request
        self.body_read = False

    def body(self, sink=None):
        """Read the rest of the request into request.body, or sink."""
        if self.body_read:
            return self.request.body
        self.body_read = True
        request, wire, pieces = self.request, self.connection.wire, []
        sink = sink or pieces.append
        try:
            if request.framing == "chunked":
                request.trailers = wire.chunked(sink)
            elif request.framing != "none":
                wire.counted(request.framing, sink)
        finally:
            request.body = b"".join(pieces)
        request.complete = True
        self.backend.notify()
        return request.body

    def send(self, raw):
        """Send raw bytes. When the peer takes none for 0.3 s, backend.blocked is set."""
        sock = self.connection.wire.sock
        sock.settimeout(0.3)
        view = memoryview(raw)
        while len(view):
            try:
                sent = sock.send(view[:65536])
            except socket.timeout:
                self.backend.blocked.set()
                if self.backend.closing.is_set():
                    raise Reset() from None
                continue
            except OSError:
                raise Reset() from None
            self.backend.sent += sent
            view = view[sent:]

    def put(self, raw):
        """Send raw bytes, whatever the version."""
        self.send(raw)

    def wait(self, event, deadline=None):
        """Wait for event, without reading. Ended when akashd ends the connection first."""
        poll = select.poll()
        poll.register(self.connection.wire.sock, select.POLLRDHUP)
        end = None if deadline is None else time.monotonic() + deadline
        while not event.wait(0.01) and not self.backend.closing.is_set():
            if end and time.monotonic() > end:
                return False
            if poll.poll(0):
                raise Ended("akashd ended the connection")
        return event.is_set()

    def close(self):
        self.connection.close()

    def cut(self):
        self.connection.cut()

    def reset(self):
        self.connection.reset()


def peer_of(sock):
    """None: it has gone already, as a health check by tcp does."""
    try:
        return sock.getpeername()
    except OSError:
        return None


class Connection:
    """One connection that akashd opened."""

    def __init__(self, backend, sock, index):
        self.backend, self.index = backend, index
        self.peer = peer_of(sock)
        self.wire = Wire(sock)
        self.requests = []
        self.malformed = None  # why the bytes are no strict HTTP, if they are not
        self.thread = None  # that serves it
        self.was_resumed = None  # whether the TLS session of another connection was taken up again
        self.open = True
        self.quiet_end = threading.Event()

    @property
    def received(self):
        return bytes(self.wire.received)

    def say_goodbye(self):
        """close_notify, without waiting for the peer's. Only from the thread that reads and writes."""
        self.wire.sock.setblocking(False)
        try:
            self.wire.sock.unwrap()
        except (OSError, ValueError):
            pass  # it has left, or the peer is gone

    def close(self):
        """End it as a server does that has said all: with TLS by close_notify and FIN."""
        is_own_thread = threading.current_thread() is self.thread
        if is_own_thread and self.open and isinstance(self.wire.sock, ssl.SSLSocket):
            self.say_goodbye()
        self.cut()

    def cut(self):
        """FIN alone: with TLS that is a truncation."""
        self.open = False
        try:
            self.wire.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.wire.close()

    def reset(self):
        self.open = False
        self.wire.reset()

    def half_close(self):
        self.wire.half_close()

    def read_request(self):
        line = self.wire.line()
        m = REQUEST_LINE.match(line)
        if not m:
            raise Malformed(f"request line {line!r}")
        fields = self.wire.fields()
        version = "1." + m.group(3).decode()
        if len(fields.all("Host")) != 1 and version == "1.1":
            raise Malformed(f"Host {fields.all('Host')}")
        return Request(m.group(1).decode(), m.group(2).decode(), version, fields, self)

    def serve(self):
        try:
            if self.backend.on_connect:
                self.backend.on_connect(self)
            while self.open and not self.backend.closing.is_set():
                self.exchange()
        except Malformed as why:
            self.malformed = str(why)
            self.reset()
        except (Ended, Reset, Silence, OSError, ValueError):
            self.close()
        finally:
            self.open = False
            self.quiet_end.set()
            self.backend.notify()

    def exchange(self):
        self.await_request()
        request = self.read_request()
        self.requests.append(request)
        exchange = Exchange(self.backend, self, request)
        answer = self.backend.begin(request)
        try:
            answer(exchange)
            if self.open:
                exchange.body()
        finally:
            self.backend.done()

    def await_request(self):
        """Wait without a deadline: a pooled connection may idle for as long as the test runs."""
        while not self.wire.buf:
            try:
                if not self.wire.fill(1.0):
                    raise Ended("idle connection closed")
            except Silence:
                if self.backend.closing.is_set():
                    raise Ended("backend is closing") from None


class ScriptedBackend:
    """A server on a free port of 127.0.0.1 (or on a Unix socket).

    tls is an SSLContext (fronts.server_context() makes them): the backend then speaks TLS. Handshakes that
    failed are in tls_errors, as texts.
    """

    connection_type = Connection

    def __init__(self, answer=None, host="127.0.0.1", port=0, unix=None, wrap=None, on_connect=None, tls=None):
        self.default = answer or fixed(b"ok")
        self.script = []
        self.wrap, self.on_connect, self.tls = wrap, on_connect, tls
        self.tls_errors = []
        self.host, self.unix = host, unix
        # Not one the kernel chooses: while it is refused, a client of another test would be given it, or a
        # connect() to it could come from the very same port and meet itself.
        self.port = 0 if unix else port or free_port(host)
        self.changed = threading.Condition()
        self.closing = threading.Event()
        self.blocked = threading.Event()
        self.connections, self.requests = [], []
        self.concurrent = self.peak = self.sent = 0
        self.accept_again()

    # -- life

    def accept_again(self):
        """Listen, at first or after refuse(), always on the same address."""
        if self.unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(self.unix)
            os.chmod(self.unix, 0o777)
        else:
            sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.host, self.port))
        sock.listen(1024)
        self.listener = sock
        self.acceptor = threading.Thread(target=self.accept, args=(sock,), daemon=True)
        self.acceptor.start()

    def accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self.changed:
                connection = self.connection_type(self, sock, len(self.connections))
                self.connections.append(connection)
                self.changed.notify_all()
            threading.Thread(target=self.start, args=(connection,), daemon=True).start()

    def start(self, connection):
        wire = connection.wire
        connection.thread = threading.current_thread()
        try:
            if not self.unix:
                wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.wrap:
                wire.sock = self.wrap(wire.sock)
            if self.tls:
                wire.sock.settimeout(PATIENCE)
                wire.sock = self.tls.wrap_socket(wire.sock, server_side=True, suppress_ragged_eofs=False)
                connection.was_resumed = wire.sock.session_reused
        except OSError as why:
            with self.changed:
                self.tls_errors.append(str(why))
                self.changed.notify_all()
            return connection.cut()
        connection.serve()

    def refuse(self):
        """Stop listening: further connects are refused. Open connections stay."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.acceptor.join(PATIENCE)
        if self.unix and os.path.exists(self.unix):
            os.unlink(self.unix)

    def kill(self):
        """Refuse and reset every connection, as when the process is killed."""
        self.refuse()
        for connection in self.connections:
            connection.reset()

    def close(self):
        self.closing.set()
        self.refuse()
        for connection in self.connections:
            connection.close()

    def fresh(self):
        """Forget script and records, and have every open connection ended by akashd first."""
        open_ones = [c for c in self.connections if c.open]
        for connection in open_ones:
            try:
                connection.half_close()
            except OSError:
                pass
        for connection in open_ones:
            if not connection.quiet_end.wait(PATIENCE):
                raise AssertionError("akashd did not close a pooled connection that got FIN")
        with self.changed:
            self.connections, self.requests, self.script = [], [], []
            self.concurrent = self.peak = self.sent = 0
            self.blocked.clear()
            self.default = fixed(b"ok")

    @property
    def address(self):
        if self.unix:
            return f"unix:{self.unix}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    # -- what to answer

    def answer(self, *answers):
        """One answer for each of the next requests, whichever connection they use."""
        self.script = list(answers)

    def always(self, answer):
        """What every request gets for which no other answer is set."""
        self.default = answer

    def begin(self, request):
        with self.changed:
            self.requests.append(request)
            self.concurrent += 1
            self.peak = max(self.peak, self.concurrent)
            answer = self.script.pop(0) if self.script else self.default
            self.changed.notify_all()
            return answer

    def done(self):
        with self.changed:
            self.concurrent -= 1
            self.changed.notify_all()

    # -- what was seen

    def notify(self):
        with self.changed:
            self.changed.notify_all()

    def wait(self, condition, what="the backend", deadline=PATIENCE):
        """Wait until condition(self) is true; checked at every event and ten times a second."""
        end = time.monotonic() + deadline
        with self.changed:
            while not condition(self):
                if time.monotonic() > end:
                    raise AssertionError(f"still waiting for {what}: {self.requests}")
                self.changed.wait(0.1)

    def wait_requests(self, count, deadline=PATIENCE):
        self.wait(lambda b: len(b.requests) >= count, f"{count} requests", deadline)
        return self.requests

    def wait_complete(self, count=1, deadline=PATIENCE):
        self.wait(lambda b: sum(r.complete for r in b.requests) >= count,
                  f"{count} complete requests", deadline)
        return self.requests

    @property
    def received(self):
        """All bytes of all connections."""
        return b"".join(c.received for c in self.connections)

    @property
    def malformed(self):
        return [c.malformed for c in self.connections if c.malformed]


# -- answers

def head(status=200, reason="OK", fields=(), version="1.1"):
    lines = [f"HTTP/{version} {status} {reason}"] + [f"{n}: {v}" for n, v in fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def fixed(body=b"ok", status=200, reason="OK", fields=(), version="1.1"):
    """An answer of known length. HEAD gets the same head and no body."""
    def answer(x):
        x.body()
        h = head(status, reason, [*fields, ("Content-Length", len(body))], version)
        x.send(h if x.request.method == "HEAD" else h + body)
    return answer


def chunked(pieces, trailers=(), fields=()):
    def answer(x):
        x.body()
        x.send(head(200, "OK", [*fields, ("Transfer-Encoding", "chunked")]))
        if x.request.method == "HEAD":
            return
        for piece in pieces:
            x.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        end = "".join(f"{n}: {v}\r\n" for n, v in trailers)
        x.send(b"0\r\n" + end.encode("latin-1") + b"\r\n")
    return answer


def until_close(body, fields=(), version="1.1"):
    def answer(x):
        x.body()
        x.send(head(200, "OK", fields, version) + body)
        x.close()
    return answer


def raw(data, then="keep", read=True):
    """Exactly these bytes; then "keep", "close" (FIN) or "reset" the connection."""
    def answer(x):
        if read:
            x.body()
        x.send(data)
        if then == "close":
            x.close()
        elif then == "reset":
            x.reset()
    return answer


def early(answer_bytes, then_read=True):
    """Answer before the body is read, then read it (or leave it unread)."""
    def answer(x):
        x.send(answer_bytes)
        if then_read:
            x.body()
        else:
            x.wait(threading.Event())
    return answer


def stall(before=b""):
    """Send so much and then nothing more, until akashd ends the connection."""
    def answer(x):
        if before:
            x.send(before)
        x.wait(threading.Event())
    return answer


def close():
    def answer(x):
        x.close()
    return answer


def reset():
    def answer(x):
        x.reset()
    return answer


def echo():
    """The request's body, as a counted one."""
    def answer(x):
        body = x.body()
        x.send(head(200, "OK", [("Content-Length", len(body))]) + body)
    return answer


def tcp_echo(connection):
    """An on_connect that makes the backend a plain echo server, half-close included."""
    wire = connection.wire
    wire.sock.settimeout(None)
    while piece := wire.sock.recv(65536):
        wire.received += piece
        wire.sock.sendall(piece)
    connection.close()


class Gate:
    """Holds answers back until released; for tests that count exactly how many are in flight."""

    def __init__(self):
        self.lock = threading.Condition()
        self.tickets = 0
        self.wide_open = False
        self.waiting = self.peak = 0

    def hold(self, answer=None):
        """answer (fixed b"ok" at default), once the gate lets it through."""
        answer = answer or fixed(b"ok")

        def held(x):
            x.body()
            with self.lock:
                self.waiting += 1
                self.peak = max(self.peak, self.waiting)
                self.lock.notify_all()
                while not (self.wide_open or self.tickets) and not x.backend.closing.is_set():
                    self.lock.wait(0.05)
                self.waiting -= 1
                if not self.wide_open:
                    self.tickets -= 1
            answer(x)
        return held

    def wait_waiting(self, count, deadline=PATIENCE):
        with self.lock:
            if not self.lock.wait_for(lambda: self.waiting >= count, deadline):
                raise AssertionError(f"{self.waiting} of {count} at the gate")

    def release(self, count=None):
        """Let count answers pass, or all from now on."""
        with self.lock:
            if count is None:
                self.wide_open = True
            else:
                self.tickets += count
            self.lock.notify_all()
