# SPDX-License-Identifier: Apache-2.0
"""h2backend.py - ScriptedBackend for HTTP/2: the same answers, the same records, over streams.

An answer runs in a thread of its own for each stream. What it sends in HTTP/1 form goes out as HEADERS and DATA.
close() ends an answer that is delimited by it, else the connection with everything on it, as for HTTP/1;
cancel() resets the stream alone.
"""

import threading
import time

from h2.errors import ErrorCodes

from .backend import Request, ScriptedBackend
from .h1text import Script
from .h2client import pairs_of
from .h2side import Side
from .wire import Ended, Fields, Malformed, Reset, Silence, Wire, framing

STEP = 65536


class H2Request(Request):
    """A request whose fields are those that HTTP/1 would have: Host is :authority."""

    def __init__(self, connection, stream):
        pairs = stream.heads.popleft()
        self.pseudo = Fields((n, v) for n, v in pairs if n.startswith(":"))
        fields = Fields((n, v) for n, v in pairs if not n.startswith(":"))
        if ":authority" in self.pseudo:
            fields.append(("Host", self.pseudo.get(":authority")))
        super().__init__(self.pseudo.get(":method"), self.pseudo.get(":path"), "2", fields, connection)
        if self.framing == "none" and not stream.is_ended:
            self.framing = "chunked"  # the length is not known
        self.stream, self.gone = stream, stream.over


class H2Exchange:
    """One request on one stream, and the means to answer it."""

    def __init__(self, backend, connection, request):
        self.backend, self.connection, self.request = backend, connection, request
        self.side, self.stream = connection.side, request.stream
        self.body_read = False
        self.script = Script(self._on_head, self._on_body, self._on_end)
        self.is_ended = False

    def body(self, sink=None):
        """Read the rest of the request into request.body, or sink."""
        if self.body_read:
            return self.request.body
        self.body_read = True
        request, pieces = self.request, []
        sink = sink or pieces.append
        try:
            while piece := self.side.piece(self.stream):
                sink(piece)
        finally:
            request.body = b"".join(pieces)
        request.trailers = self.stream.trailers
        request.complete = True
        self.backend.notify()
        return request.body

    def _on_head(self, start, fields):
        status = int(start.split(" ")[1])
        pseudo = [(":status", str(status))]
        if status < 200:
            self.side.send_head(self.stream, pairs_of(pseudo, fields))
            return "interim"
        length = framing(fields, "1.1", self.request.method, status)
        self.is_ended = length in ("none", 0)
        self.side.send_head(self.stream, pairs_of(pseudo, fields), self.is_ended)
        return length

    def _on_body(self, piece):
        for at in range(0, len(piece), STEP):
            self.backend.sent += self.side.send_body(self.stream, piece[at:at + STEP],
                                                     on_blocked=self.backend.blocked.set)

    def _on_end(self, trailers):
        if self.is_ended:
            return
        self.is_ended = True
        if trailers:
            self.side.send_head(self.stream, pairs_of([], trailers), True)
        else:
            self.side.send_body(self.stream, b"", True)

    def send(self, raw):
        """Send what HTTP/1 bytes say. When the windows allow none for 0.3 s, backend.blocked is set."""
        self.script.feed(raw)

    def put(self, raw):
        """Send raw bytes on the connection: frames, or none."""
        self.side.put(raw)

    def wait(self, event, deadline=None):
        """Wait for event, without reading. Ended when akashd gives the stream up first."""
        end = None if deadline is None else time.monotonic() + deadline
        while not event.wait(0.01) and not self.backend.closing.is_set():
            if end and time.monotonic() > end:
                return False
            if self.stream.over.is_set():
                raise Ended("akashd ended the stream")
        return event.is_set()

    def cancel(self, code=ErrorCodes.INTERNAL_ERROR):
        """RST_STREAM."""
        self.side.reset_stream(self.stream, code)

    def close(self):
        if not self.script.close():
            self.connection.close()

    def cut(self):
        self.connection.cut()

    def reset(self):
        self.connection.reset()


class H2BackendConnection:
    """One connection that akashd opened."""

    def __init__(self, backend, sock, index):
        self.backend, self.index = backend, index
        self.wire = Wire(sock)  # until the handshake is done
        self.side = None
        self.requests = []
        self.thread = None
        self.open = True
        self.quiet_end = threading.Event()

    @property
    def received(self):
        return bytes(self.side.received) if self.side else b""

    @property
    def malformed(self):
        return self.side and self.side.malformed

    @property
    def is_resumed(self):
        return bool(self.wire.sock.session_reused)

    def serve(self):
        try:
            self.side = Side(self.wire.sock, False, self._on_request, self.backend.settings)
            if self.backend.on_connect:
                self.backend.on_connect(self)
            self.side.start()
            self.side.thread.join()
            self.side.close("now")
        finally:
            self.open = False
            self.quiet_end.set()
            self.backend.notify()

    def _on_request(self, stream):
        """In the side's thread: requests get their answers in the order in which they came."""
        request = H2Request(self, stream)
        self.requests.append(request)
        answer = self.backend.begin(request)
        threading.Thread(target=self._exchange, args=(request, answer), daemon=True).start()

    def _exchange(self, request, answer):
        exchange = H2Exchange(self.backend, self, request)
        try:
            answer(exchange)
            exchange.body()
        except (Ended, Reset, Silence, Malformed, OSError, ValueError):
            if not request.stream.over.is_set():
                exchange.cancel()
        finally:
            self.backend.done()

    def go_away(self, last=None):
        """GOAWAY: no further stream will be served; those above last were not."""
        self.side.go_away(last)

    def half_close(self):
        if self.side:
            self.side.half_close()

    def _end(self, how):
        self.open = False
        if self.side:
            self.side.close(how)
        else:
            self.wire.close()

    def close(self):
        self._end("drain")

    def cut(self):
        self._end("now")

    def reset(self):
        self._end("reset")


class H2Backend(ScriptedBackend):
    """settings are those that it announces: {h2.settings.SettingCodes: value}."""

    connection_type = H2BackendConnection

    def __init__(self, *args, settings=None, **kw):
        self.settings = settings
        super().__init__(*args, **kw)
