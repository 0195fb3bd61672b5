# SPDX-License-Identifier: Apache-2.0
"""h2frames.py - HTTP/2 (RFC 9113) as single frames: a client that sends exactly what it is told to.

frame() and its kin make bytes, well-formed or not. FramePeer is a connection that reads frames and judges what
the other side did: an answer, a stream error, a connection error, or nothing at all. Field blocks are written
without Huffman coding and without the dynamic table, so that their bytes can be read in the test; what comes
is decoded by python3-hpack.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from struct import pack, unpack

from hpack import Decoder

from .client import Client
from .wire import Fields, Malformed, Reset

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
NAMES = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY",
         "WINDOW_UPDATE", "CONTINUATION")
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20
WHOLE = END_STREAM | END_HEADERS

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_LIST, CONNECT_PROTOCOL = 1, 2, 3, 4, 5, 6, 8
FRAME = 16384  # the largest frame that needs no setting
WINDOW = 65535  # of a stream and of the connection, when nothing else was said
TOP = 2**31 - 1


class Code(IntEnum):
    """Error codes, RFC 9113 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


# -- bytes


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """One frame; length is what its head says, if that is not the truth."""
    length = len(payload) if length is None else length
    return pack(">I", length)[1:] + pack(">BBI", kind, flags, stream) + payload


def data(stream, payload=b"", flags=0, pad=None):
    if pad is not None:
        flags, payload = flags | PADDED, bytes([pad]) + payload + bytes(pad)
    return frame(DATA, flags, stream, payload)


def headers(stream, block, flags=WHOLE, pad=None, priority=None):
    """priority is the five bytes (or fewer) that stand before the block."""
    if priority is not None:
        flags, block = flags | WITH_PRIORITY, priority + block
    if pad is not None:
        flags, block = flags | PADDED, bytes([pad]) + block + bytes(pad)
    return frame(HEADERS, flags, stream, block)


def continuation(stream, block, flags=END_HEADERS):
    return frame(CONTINUATION, flags, stream, block)


def depends(on, weight=16, exclusive=False):
    """The five bytes of a priority."""
    return pack(">IB", on | (exclusive << 31), weight - 1)


def priority(stream, payload):
    return frame(PRIORITY, 0, stream, payload)


def rst_stream(stream, code=Code.CANCEL):
    return frame(RST_STREAM, 0, stream, pack(">I", code))


def settings(*pairs, flags=0):
    return frame(SETTINGS, flags, 0, b"".join(pack(">HI", key, value) for key, value in pairs))


def ping(opaque=b"akashd's", flags=0):
    return frame(PING, flags, 0, opaque)


def goaway(last=0, code=0, more=b""):
    return frame(GOAWAY, 0, 0, pack(">II", last, code) + more)


def window_update(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, pack(">I", increment))


# -- field blocks (RFC 7541)


def integer(value, bits, first=0):
    """RFC 7541 5.1; first holds the bits above the prefix."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = bytearray([first | limit]), value - limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def string(raw):
    """A string literal without Huffman coding."""
    return integer(len(raw), 7) + raw


def octets(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


def literal(name, value, form=0x00):
    """A field with a new name; form 0x00: not indexed, 0x10: never indexed, 0x40: put into the dynamic table."""
    return bytes([form]) + string(octets(name)) + string(octets(value))


def indexed(index):
    return integer(index, 7, 0x80)


def literal_of(index, value, form=0x00):
    """A field whose name stands in a table."""
    return integer(index, 6 if form == 0x40 else 4, form) + string(octets(value))


def table_size(size):
    return integer(size, 5, 0x20)


def block(fields):
    return b"".join(literal(name, value) for name, value in fields)


def request(method="GET", path="/", *more, scheme="http", authority="test"):
    """The fields of a request; a pseudo-field that is None is left out."""
    pseudo = [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]
    return [(n, v) for n, v in pseudo if v is not None] + list(more)


# -- what comes


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self):
        """Of RST_STREAM and GOAWAY."""
        return unpack(">I", self.payload[4:8] if self.kind == GOAWAY else self.payload[:4])[0]

    @property
    def last(self):
        """The last stream that a GOAWAY speaks of."""
        return unpack(">I", self.payload[:4])[0] & TOP

    @property
    def pairs(self):
        return [unpack(">HI", self.payload[at:at + 6]) for at in range(0, len(self.payload), 6)]

    def __str__(self):
        name = NAMES[self.kind] if self.kind < len(NAMES) else f"type {self.kind}"
        said = f" {Code(self.code).name}" if self.kind in (RST_STREAM, GOAWAY) and self.code in iter(Code) else ""
        return f"{name}{said} of stream {self.stream}, flags {self.flags:#x}, {len(self.payload)} bytes"


@dataclass
class Answer:
    """What came for one stream. reset is the code of a RST_STREAM."""

    status: int = 0
    fields: Fields = field(default_factory=Fields)
    body: bytes = b""
    trailers: Fields = field(default_factory=Fields)
    interim: list = field(default_factory=list)
    is_complete: bool = False
    reset: int = None


class FramePeer(Client):
    """A connection over which single frames go out and come in."""

    def __init__(self, port, start=True, pairs=(), **kw):
        super().__init__(port, **kw)
        self.decoder = Decoder()
        self.decoder.max_header_list_size = 1 << 20
        self.theirs, self.is_greeted = {}, False  # their settings, and whether they have said any
        self.acked = 0  # of our SETTINGS
        self.seen = []  # every frame that came
        self.answers = {}  # {stream: Answer}
        self.goaways = []
        self.granted = Counter()  # {stream: bytes of WINDOW_UPDATE}
        self._head = None  # the HEADERS frame whose block goes on
        if start:
            self.start(*pairs)

    def start(self, *pairs):
        """Say the preface and wait until the settings of both sides are in force."""
        self.send(PREFACE + settings(*pairs))
        self.read_until(lambda: self.acked and self.is_greeted, "the acknowledged SETTINGS")
        assert self.seen[0].kind == SETTINGS and not self.seen[0].flags & ACK, self.told()

    def put(self, *frames):
        self.send(b"".join(frames))

    # -- reading

    def frame_in(self):
        """The next frame; None at the orderly end of the connection."""
        if not self.buf and not self.fill():
            return None
        head = self.take(9)
        length = int.from_bytes(head[:3], "big")
        kind, flags, stream = unpack(">BBI", head[3:])
        if length > FRAME:
            raise Malformed(f"a frame of {length} bytes was never allowed")
        got = Frame(kind, flags, stream & TOP, self.take(length))
        self.seen.append(got)
        self._account(got)
        return got

    def _account(self, got):
        if got.kind == SETTINGS and got.flags & ACK:
            self.acked += 1
        elif got.kind == SETTINGS:
            self.theirs.update(got.pairs)
            self.is_greeted = True
            self.try_send(settings(flags=ACK))
        elif got.kind == GOAWAY:
            self.goaways.append(got)
        elif got.kind == PUSH_PROMISE:
            raise Malformed("a push was promised although none was allowed")
        elif got.kind in (HEADERS, CONTINUATION):
            self._account_block(got)
        elif got.kind == DATA:
            answer = self.answer(got.stream)
            pad = got.payload[0] + 1 if got.flags & PADDED else 0
            answer.body += got.payload[min(pad, 1):len(got.payload) - max(pad - 1, 0)]
            answer.is_complete = bool(got.flags & END_STREAM)
        elif got.kind == RST_STREAM:
            self.answer(got.stream).reset = got.code
        elif got.kind == WINDOW_UPDATE:
            self.granted[got.stream] += unpack(">I", got.payload)[0]

    def _account_block(self, got):
        """HEADERS, or the CONTINUATION that follows."""
        if (got.kind == CONTINUATION) != (self._head is not None):
            raise Malformed(f"not in a field block: {got}")
        if got.kind == HEADERS:
            self._head, self._block = got, b""
            if got.flags & (PADDED | WITH_PRIORITY):
                raise Malformed("padding and priorities are not for answers")
        self._block += got.payload
        if not got.flags & END_HEADERS:
            return
        pairs = self.decoder.decode(self._block, raw=True)
        fields = Fields((n.decode("latin-1"), v.decode("latin-1")) for n, v in pairs)
        self._account_fields(self._head, fields)
        self._head = None

    def _account_fields(self, head, fields):
        answer = self.answer(head.stream)
        status = fields.get(":status")
        if status is None:
            answer.trailers = fields
        elif status.startswith("1"):
            answer.interim.append(fields)
        else:
            answer.status, answer.fields = int(status), fields
        answer.is_complete = bool(head.flags & END_STREAM)

    def answer(self, stream):
        return self.answers.setdefault(stream, Answer())

    def read_until(self, condition, what):
        """Read frames until the condition is true; its value. Malformed when the connection ends before."""
        while not (value := condition()):
            try:
                got = self.frame_in()
            except Reset:
                raise Malformed(f"reset instead of {what}; {self.told()}") from None
            if got is None:
                raise Malformed(f"end instead of {what}; {self.told()}")
        return value

    def told(self):
        return "came: " + "; ".join(str(f) for f in self.seen[-8:])

    # -- judgements

    def expect_answer(self, stream=1, status=200, body=None):
        """The whole answer, and no error anywhere."""
        answer = self.answer(stream)
        self.read_until(lambda: answer.is_complete or answer.reset is not None or self.goaways, "an answer")
        assert answer.is_complete and answer.reset is None and answer.status == status, f"{answer}; {self.told()}"
        assert not [g for g in self.goaways if g.code], self.told()
        assert body is None or answer.body == body, answer.body
        return answer

    def expect_alive(self):
        """The connection works, and nothing that came was an error."""
        before = len(self.seen)
        self.put(ping(b"alive???"))
        self.read_until(lambda: [f for f in self.seen[before:] if f.kind == PING and f.flags & ACK
                                 and f.payload == b"alive???"], "the answer to a PING")
        assert not self.goaways, self.told()

    def expect_nothing(self):
        """What was sent is ignored: no error of a stream either."""
        self.expect_alive()
        assert not [a for a in self.answers.values() if a.reset is not None], self.told()

    def expect_stream_error(self, stream, *codes):
        """RST_STREAM with one of the codes, the connection unharmed; or, as RFC 9113 5.4 allows, a connection error.

        An answer may come before it (8.1.1), if it is one of refusal.
        """
        answer = self.answer(stream)
        self.read_until(lambda: answer.reset is not None or self.goaways, "an error of the stream")
        if answer.reset is None:
            return self.expect_connection_error(*codes)
        assert answer.reset in codes, self.told()
        assert not answer.status or answer.status >= 400, self.told()
        self.expect_alive()

    def expect_connection_error(self, *codes):
        """GOAWAY with one of the codes, then the end of the connection."""
        self.read_until(lambda: self.goaways, "GOAWAY")
        assert self.goaways[-1].code in codes, self.told()
        self.expect_end()

    def expect_data(self, stream, body):
        """So much of the answer's body and, as a PING shows, not a byte more."""
        answer = self.answer(stream)
        self.read_until(lambda: answer.status and len(answer.body) >= len(body), f"{body!r}")
        self.expect_nothing()
        assert answer.body == body and not answer.is_complete, f"{answer}; {self.told()}"

    def expect_raw_end(self):
        """The connection ends; what is said before need not be frames."""
        try:
            self.to_end(lambda piece: None)
        except Reset:
            pass

    def expect_end(self):
        """The connection ends, whatever is said before."""
        try:
            while self.frame_in() is not None:
                pass
        except Reset:
            pass
