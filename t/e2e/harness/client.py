# SPDX-License-Identifier: Apache-2.0
"""client.py - a client that sends exactly the bytes it is told and reads answers strictly."""

import socket
from dataclasses import dataclass, field

from .wire import (PATIENCE, STATUS_LINE, Ended, Fields, Malformed, Reset, Silence, Wire, framing)


@dataclass
class Response:
    """One answer. complete is False when its body was cut; end is how the connection ended then."""

    status: int
    version: str
    reason: str
    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=Fields)
    interim: list = field(default_factory=list)
    framing: object = "none"
    complete: bool = True
    end: str = None
    is_last: bool = False  # HTTP/2: GOAWAY had come
    stream: object = None

    @property
    def text(self):
        return self.body.decode("latin-1")

    @property
    def closes(self):
        """Whether the answer says that no other will follow on this connection."""
        if self.version == "2":
            return self.is_last
        if self.version == "1.0":
            return "keep-alive" not in self.fields.tokens("Connection")
        return "close" in self.fields.tokens("Connection")


def build(method, target, fields=(), body=None, version="1.1", host="test"):
    """A request in strict form. Host is added unless given; Content-Length when there is a body."""
    names = [n.lower() for n, _ in fields]
    lines = [f"{method} {target} HTTP/{version}"]
    if "host" not in names and host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{n}: {v}" for n, v in fields]
    if body is not None and "content-length" not in names and "transfer-encoding" not in names:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def chunk(piece):
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def connect(port, host="127.0.0.1", rcvbuf=None, sndbuf=None, source=None):
    """A connected socket; port None: host is the path of a Unix socket."""
    family = socket.AF_UNIX if port is None else (
        socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    if rcvbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    if sndbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
    if source:
        sock.bind((source, 0))
    sock.connect(host if port is None else (host, port))
    if port is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Client(Wire):
    """One connection to akashd."""

    def __init__(self, port, host="127.0.0.1", wrap=None, rcvbuf=None, sndbuf=None, record=True,
                 source=None):
        sock = connect(port, host, rcvbuf, sndbuf, source)
        super().__init__(wrap(sock) if wrap else sock, record)
        self.asked = []  # methods whose answers are awaited, oldest first

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, raw, method=None):
        """Send raw bytes. method is that of the request whose answer will be read next."""
        self.sock.settimeout(PATIENCE)
        if method:
            self.asked.append(method)
        self.sock.sendall(raw)

    def try_send(self, raw):
        """As send, but a connection that akashd has ended is no error. True when all went out."""
        try:
            self.send(raw)
            return True
        except (OSError, Reset):
            return False

    def request(self, method="GET", target="/", fields=(), body=None, **kw):
        self.send(build(method, target, fields, body, **kw), method)

    def ask(self, method="GET", target="/", fields=(), body=None, **kw):
        """A request and its answer."""
        self.request(method, target, fields, body, **kw)
        return self.response()

    def head(self):
        m = STATUS_LINE.match(line := self.line())
        if not m:
            raise Malformed(f"status line {line!r}")
        return Response(status=int(m.group(2)), version="1." + m.group(1).decode(),
                        reason=m.group(3).decode("latin-1"), fields=self.fields())

    def interim(self):
        """The next 1xx answer, alone."""
        head = self.head()
        assert head.status < 200, head
        return head

    def body_part(self, head, size):
        """So many bytes of the body of head, as they come; not of a chunked one."""
        head.framing -= size
        return self.take(size)

    def response_head(self, method=None):
        """Head of the next final answer, the 1xx before it in .interim. The body is not read yet."""
        method = method or (self.asked.pop(0) if self.asked else "GET")
        interim = []
        while True:
            head = self.head()
            head.framing = framing(head.fields, head.version, method, head.status)
            if head.status >= 200 or head.status == 101:
                head.interim = interim
                return head
            interim.append(head)

    def response_body(self, head, sink=None):
        """Read the body that belongs to head, into head.body or sink."""
        pieces = []
        sink = sink or pieces.append
        try:
            if head.framing == "chunked":
                head.trailers = self.chunked(sink)
            elif head.framing == "close":
                self.to_end(sink)
            elif head.framing != "none":
                self.counted(head.framing, sink)
        except (Ended, Reset):
            head.complete = False
        head.body = b"".join(pieces)
        head.end = self.end
        return head

    def response(self, method=None, sink=None):
        return self.response_body(self.response_head(method), sink)

    def ended(self, deadline=None):
        """Wait for akashd to end the connection without another byte: "fin" or "rst"."""
        return self.wait_end(deadline)

    def quiet(self, seconds):
        """Whether nothing comes, not even the end, for so long."""
        if self.buf:
            return False
        try:
            self.fill(seconds)
        except Silence:
            return True
        return False
