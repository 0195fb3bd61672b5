# SPDX-License-Identifier: Apache-2.0
"""wire.py - a socket whose every wait has a deadline, and HTTP/1 read strictly from it.

Both the client and the scripted backends read with this parser. It forgives nothing: what it accepts has
one meaning, so a message that passes it on both sides of akashd is the same message.
"""

import os
import re
import socket
import ssl
import struct
import threading
import time

# Seconds that a test waits for something that must happen at once. Sanitizers make everything slower.
PATIENCE = float(os.environ.get("AKASHD_PATIENCE", "10"))

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/1\.([01])\Z")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)\Z")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e]*)?\Z")
LENGTH = re.compile(rb"[0-9]{1,18}\Z")
MAX_LINE = 262144


class Malformed(AssertionError):
    """The peer sent what the RFC does not allow."""


class Reset(Exception):
    """The connection ended with RST (or, in TLS, without close_notify)."""


class Silence(AssertionError):
    """Nothing came before the deadline."""


class Ended(Exception):
    """The connection ended with FIN in the middle of a message."""


def until(condition, what="condition", deadline=PATIENCE, pause=0.005):
    """Poll condition until it is true; its value is returned. AssertionError past the deadline."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"still waiting for {what} after {deadline} s")
        time.sleep(pause)


def at_pace(attempt, most, tries=5):
    """The value of attempt(beat): for what holds a short deadline off, or must be done before it strikes.

    attempt calls beat() at each of its steps. When it fails although no two steps lay more than so many seconds
    apart, it has failed. When they did, the machine stood still for so long that the deadline had every right to
    strike, and it begins anew; what took as long as a wait that runs out is no such pause.
    """
    for left in reversed(range(tries)):
        beats = [time.monotonic()]
        try:
            return attempt(lambda: beats.append(time.monotonic()))
        except (AssertionError, Ended, Reset, OSError):
            beats.append(time.monotonic())
            longest = max(b - a for a, b in zip(beats, beats[1:]))
            if not left or not most < longest < PATIENCE / 2:
                raise
            print(f"begun anew: {longest:.2f} s between two steps")


# Below the range for outgoing connections, so that no connect() of another test takes a port between
# free_port() and the daemon's bind.
PORTS = range(10000, 32700)
BLOCK = 100  # ports are taken in blocks, each by one process at a time

_ports_lock = threading.Lock()
_ports = iter(())
_blocks = {}  # first port: the socket whose name says that the block is ours; kept until the process ends


def ports_of_a_block():
    """The ports of a block that no other process has.

    Two processes that probe the same port find it free both, and the second daemon cannot bind; so a block is
    held by an abstract Unix name, which the kernel gives once and takes back with the process. When all are
    held, the oldest of our own is gone through again: who had its ports has ended long ago, or is probed.
    """
    first = PORTS.start + (os.getpid() * 131) % len(PORTS) // BLOCK * BLOCK
    for step in range(0, len(PORTS), BLOCK):
        start = PORTS.start + (first - PORTS.start + step) % len(PORTS)
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0akashd-test-ports-{start}")
        except OSError:
            held.close()
            continue
        _blocks[start] = held
        return iter(range(start, start + BLOCK))
    if not _blocks:
        raise RuntimeError("every port is another process's")
    start = next(iter(_blocks))
    _blocks[start] = _blocks.pop(start)
    return iter(range(start, start + BLOCK))


def free_port(host="127.0.0.1"):
    """A TCP port that nothing uses and that is given to nobody else."""
    global _ports
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with _ports_lock:
        for _ in range(len(PORTS)):
            port = next(_ports, None)
            if port is None:
                _ports = ports_of_a_block()
                continue
            with socket.socket(family) as probe:
                try:
                    probe.bind((host, port))
                except OSError:
                    continue
            return port
    raise RuntimeError("no free port")


class Fields(list):
    """Header or trailer fields in the order they came: (name, value) as str, latin-1."""

    def all(self, name):
        return [v for n, v in self if n.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def tokens(self, name):
        """The members of a comma-separated field, in lower case."""
        return [t.strip().lower() for v in self.all(name) for t in v.split(",") if t.strip()]

    def __contains__(self, name):
        return bool(self.all(name))


class Wire:
    """A connected socket, its read buffer and everything that came over it."""

    def __init__(self, sock, record=True):
        self.sock = sock
        self.buf = bytearray()
        self.received = bytearray()
        self.record = record
        self.count = 0
        self.end = None  # None while open, then "fin" or "rst"

    def fill(self, deadline=None):
        """Read once. False at FIN; Reset at RST; Silence when nothing came in time."""
        if self.end == "fin":
            return False
        if self.end == "rst":
            raise Reset()
        self.sock.settimeout(PATIENCE if deadline is None else max(deadline, 0.001))
        try:
            got = self.sock.recv(262144)
        except (socket.timeout, ssl.SSLWantReadError):
            raise Silence(f"no byte in time; so far: {bytes(self.received[-200:])!r}") from None
        except ssl.SSLZeroReturnError:
            got = b""
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            self.end = "rst"
            raise Reset() from None
        if not got:
            self.end = "fin"
            return False
        self.count += len(got)
        if self.record:
            self.received += got
        self.buf += got
        return True

    def need(self, size):
        while len(self.buf) < size:
            if not self.fill():
                raise Ended(f"{size - len(self.buf)} bytes missing")

    def take(self, size):
        self.need(size)
        out = bytes(self.buf[:size])
        del self.buf[:size]
        return out

    def line(self):
        """One line without its CRLF. LF alone and CR alone are malformed."""
        start = 0
        while True:
            at = self.buf.find(b"\n", start)
            if at >= 0:
                break
            if len(self.buf) > MAX_LINE:
                raise Malformed("endless line")
            start = len(self.buf)
            if not self.fill():
                raise Ended("end in a line: %r" % bytes(self.buf[-80:]))
        out = self.take(at + 1)
        if not out.endswith(b"\r\n"):
            raise Malformed(f"LF without CR after {out!r}")
        if b"\r" in out[:-2]:
            raise Malformed(f"bare CR in {out!r}")
        return out[:-2]

    def fields(self):
        out = Fields()
        while True:
            line = self.line()
            if not line:
                return out
            name, colon, value = line.partition(b":")
            value = value.strip(b" \t")
            if not colon or not TOKEN.match(name) or not VALUE.match(value):
                raise Malformed(f"field line {line!r}")
            out.append((name.decode("latin-1"), value.decode("latin-1")))

    def chunked(self, sink):
        """A chunked body into sink; returns the trailer fields."""
        while True:
            line = self.line()
            m = CHUNK_LINE.match(line)
            if not m:
                raise Malformed(f"chunk size line {line!r}")
            size = int(m.group(1), 16)
            if size == 0:
                return self.fields()
            self.counted(size, sink)
            if self.take(2) != b"\r\n":
                raise Malformed("chunk data not followed by CRLF")

    def counted(self, size, sink):
        while size:
            if not self.buf and not self.fill():
                raise Ended(f"{size} bytes of the body missing")
            piece = bytes(self.buf[:size])
            del self.buf[:len(piece)]
            size -= len(piece)
            sink(piece)

    def to_end(self, sink):
        while True:
            if self.buf:
                sink(bytes(self.buf))
                self.buf.clear()
            if not self.fill():
                return

    def wait_end(self, deadline=None):
        """Wait for the peer to end the connection: "fin" or "rst". More bytes are an error."""
        try:
            if self.buf or self.fill(deadline):
                raise Malformed(f"bytes after the end: {bytes(self.buf[:200])!r}")
        except Reset:
            pass
        return self.end

    def reset(self):
        """Close with RST."""
        linger = struct.pack("ii", 1, 0)
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        except OSError:
            pass
        self.close()

    def half_close(self):
        """FIN, in TLS without close_notify: another thread may be reading."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def close(self):
        self.sock.close()


def framing(fields, version, request=None, status=None):
    """How the body is delimited: "none", "chunked", "close" or a length.

    request is the method that was asked for when a response is framed, None for a request itself.
    """
    codings, lengths = fields.all("Transfer-Encoding"), fields.all("Content-Length")
    if codings and lengths:
        raise Malformed("Content-Length with Transfer-Encoding")
    if codings and ([c.lower() for c in codings] != ["chunked"] or version == "1.0"):
        raise Malformed(f"Transfer-Encoding {codings} in HTTP/{version}")
    if lengths and (len(lengths) > 1 or not LENGTH.match(lengths[0].encode("latin-1"))):
        raise Malformed(f"Content-Length {lengths}")
    if status is not None and (request == "HEAD" or status in (204, 304) or status < 200):
        return "none"
    if codings:
        return "chunked"
    if lengths:
        return int(lengths[0])
    return "none" if status is None else "close"
