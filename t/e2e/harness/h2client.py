# SPDX-License-Identifier: Apache-2.0
"""h2client.py - a client of HTTP/2 with the face of Client, so that one test runs over either.

What a test sends in HTTP/1 form (build(), chunk()) goes out as HEADERS and DATA of a stream of its own each; the
answers are read in the order of the requests, as Response objects.
"""

from h2.errors import ErrorCodes

from .client import Response, build, connect
from .h1text import Script
from .h2side import Side
from .wire import Ended, Fields, Reset, Silence

# What says how HTTP/1 works on one connection, and has no place in HTTP/2 (RFC 9113 8.2.2).
HOP = ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host")


def pairs_of(pseudo, fields):
    pairs = [*pseudo, *[(n.lower(), str(v)) for n, v in fields if n.lower() not in HOP]]
    return [(n.encode("latin-1"), v.encode("latin-1")) for n, v in pairs]


class H2Client:
    """One connection to akashd."""

    def __init__(self, port, host="127.0.0.1", wrap=None, rcvbuf=None, sndbuf=None, record=True, source=None,
                 scheme="http", settings=None):
        sock = connect(port, host, rcvbuf, sndbuf, source)
        self.sock = wrap(sock) if wrap else sock
        self.scheme = scheme
        self.side = Side(self.sock, True, settings=settings, record=record).start()
        self.script = Script(self._on_head, self._on_body, self._on_end)
        self.upload = None  # the stream whose request is being sent
        self.asked = []  # (method, stream) whose answers have not been read, oldest first

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- sending

    def _on_head(self, start, fields):
        method, target, _ = start.split(" ")
        pseudo = [(":method", method), (":scheme", self.scheme), (":path", target)]
        if "Host" in fields:
            pseudo.append((":authority", fields.get("Host")))
        length = fields.get("Content-Length")
        framing = "chunked" if "Transfer-Encoding" in fields else int(length) if length else "none"
        is_end = framing in ("none", 0)
        stream = self.side.open(pairs_of(pseudo, fields), is_end)
        self.upload = None if is_end else stream
        self.asked.append((method, stream))
        return framing

    def _on_body(self, piece):
        try:
            self.side.send_body(self.upload, piece)
        except Reset:
            if self.side.end:
                raise
            # The server wants no more of this request: what follows of it is not sent.

    def _on_end(self, trailers):
        stream, self.upload = self.upload, None
        if stream is None:
            return
        try:
            if trailers:
                self.side.send_head(stream, pairs_of([], trailers), True)
            else:
                self.side.send_body(stream, b"", True)
        except Reset:
            if self.side.end:
                raise

    def send(self, raw, method=None):
        """Send what HTTP/1 bytes say. method is of no use here."""
        self.script.feed(raw)

    def try_send(self, raw):
        """As send, but a connection that akashd has ended is no error. True when all went out."""
        try:
            self.send(raw)
            return True
        except (OSError, Reset):
            return False

    def request(self, method="GET", target="/", fields=(), body=None, **kw):
        """Also when the one before is not whole: a stream that has ended early needs no rest."""
        self.script.restart()
        self.upload = None
        self.send(build(method, target, fields, body, **kw))

    def ask(self, method="GET", target="/", fields=(), body=None, **kw):
        """A request and its answer."""
        self.request(method, target, fields, body, **kw)
        return self.response()

    def cancel(self, code=ErrorCodes.CANCEL):
        """RST_STREAM for the newest request, whose answer is not read."""
        self.side.reset_stream(self.asked.pop()[1], code)

    # -- reading

    def _next(self, stream, method):
        fields = self.side.head(stream)
        head = Response(status=int(fields.get(":status")), version="2", reason="",
                        fields=Fields((n, v) for n, v in fields if not n.startswith(":")))
        length = head.fields.get("Content-Length")
        without = method == "HEAD" or head.status in (204, 304) or head.status < 200
        head.framing = "none" if without else "chunked" if length is None else int(length)
        head.stream = stream
        return head

    def interim(self):
        """The next 1xx answer, alone."""
        method, stream = self.asked[0]
        head = self._next(stream, method)
        assert head.status < 200, head
        return head

    def response_head(self, method=None):
        """Head of the next final answer, the 1xx before it in .interim. The body is not read yet."""
        method, stream = self.asked.pop(0)
        interim = []
        while (head := self._next(stream, method)).status < 200:
            interim.append(head)
        head.interim = interim
        return head

    def response_body(self, head, sink=None):
        """Read the body that belongs to head, into head.body or sink."""
        pieces = []
        sink = sink or pieces.append
        try:
            while piece := self.side.piece(head.stream):
                sink(piece)
            head.trailers = head.stream.trailers
        except (Ended, Reset):
            head.complete = False
            head.end = self.side.end if self.side.end == "fin" else "rst"
        head.body = b"".join(pieces)
        head.is_last = self.side.goaway is not None
        return head

    def body_part(self, head, size):
        """So many bytes of the body of head, as they come."""
        pieces, missing = [], size
        while missing > 0:
            pieces.append(self.side.piece(head.stream))
            missing -= len(pieces[-1])
            if not pieces[-1]:
                raise Ended(f"{missing} bytes missing")
        return b"".join(pieces)

    def response(self, method=None, sink=None):
        return self.response_body(self.response_head(), sink)

    def ended(self, deadline=None):
        """Wait for akashd to end the connection: "fin" or "rst"."""
        return self.side.wait_end(deadline)

    def quiet(self, seconds):
        """Whether nothing of an answer comes, not even the end of the connection, for so long."""
        side = self.side

        def came():
            return side.end or [s for _, s in self.asked if s.heads or s.pieces or s.reset is not None]
        with side.changed:
            try:
                side.wait(came, "anything", seconds)
            except Silence:
                return True
        return False

    @property
    def count(self):
        return self.side.count

    @property
    def is_open(self):
        return self.side.end is None

    def reset(self):
        """Close with RST."""
        self.side.close("reset")

    def half_close(self):
        self.side.half_close()

    def close(self):
        self.side.close("now")
