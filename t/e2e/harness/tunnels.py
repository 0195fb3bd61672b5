# SPDX-License-Identifier: Apache-2.0
"""tunnels.py - WebSockets as raw bytes over either version of HTTP: opening handshakes, and ends with one face."""

import base64
import hashlib

from .client import build
from .wire import PATIENCE, Reset

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
WANTED = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
          ("Sec-WebSocket-Key", KEY)]
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


def switch(key):
    return (f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_of(key)}\r\n\r\n").encode()


class H2End:
    """A stream that is a tunnel: send, take, half_close, reset, wait_end."""

    def __init__(self, side, stream):
        self.side, self.stream, self.buf = side, stream, b""

    def send(self, data):
        self.side.send_body(self.stream, data)

    def take(self, size):
        while len(self.buf) < size:
            piece = self.side.piece(self.stream)
            assert piece, f"the tunnel ended, {size - len(self.buf)} bytes before its time"
            self.buf += piece
        out, self.buf = self.buf[:size], self.buf[size:]
        return out

    def half_close(self):
        self.side.send_body(self.stream, b"", True)

    def reset(self):
        self.side.reset_stream(self.stream)

    def wait_end(self):
        try:
            assert not self.side.piece(self.stream)
        except Reset:
            return "rst"
        return "fin"


class WireEnd:
    """A connection that is a tunnel, with the same face."""

    def __init__(self, wire):
        self.wire = wire

    def send(self, data):
        self.wire.sock.settimeout(PATIENCE)
        self.wire.sock.sendall(data)

    def take(self, size):
        return self.wire.take(size)

    def half_close(self):
        self.wire.half_close()

    def reset(self):
        self.wire.reset()

    def wait_end(self):
        return self.wire.wait_end()


def extended(path="/chat", protocol="websocket", scheme="http", more=(), authority="test"):
    return [(":method", "CONNECT"), (":protocol", protocol), (":scheme", scheme), (":path", path),
            (":authority", authority), ("sec-websocket-version", "13"), *more]


def ask(client, front, path="/chat"):
    """Ask for a WebSocket; the status, and the tunnel's end."""
    if front.version == 2:
        stream = client.side.open(extended(path, scheme=front.scheme), False)
        return int(client.side.head(stream).get(":status")), H2End(client.side, stream)
    client.send(build("GET", path, WANTED), "GET")
    head = client.response_head()
    if head.status == 101:
        assert head.fields.get("Sec-WebSocket-Accept") == accept_of(KEY)
    return head.status, WireEnd(client)


def echo_frame(end, word):
    """One masked text frame (its mask is zero) there and back."""
    end.send(bytes([0x81, 0x80 | len(word)]) + bytes(4) + word)
    got = end.take(2 + len(word))
    assert got == bytes([0x81, len(word)]) + word, f"{got!r} for {word!r}"
