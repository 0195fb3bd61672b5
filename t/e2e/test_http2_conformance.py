# SPDX-License-Identifier: Apache-2.0
"""RFC 9113 sections 3 to 8 and RFC 7541, case by case, with single frames.

The cases cover what h2spec asks, and more. Each is a function of one connection; its name is that of the section
with a number and what the client does. What is an error of the connection must end it after GOAWAY with the right
code; what is an error of a stream must reset that stream and nothing else (an error of the connection is
allowed instead, RFC 9113 5.4); what is allowed must be answered.
"""

from collections import Counter
from struct import pack

import pytest
from hpack import Encoder
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from harness import Site
from harness.backend import fixed
from harness.fronts import FRONTS_OF_2
from harness.h2frames import (
    ACK, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, FRAME, GOAWAY, HEADERS, HEADER_TABLE_SIZE,
    INITIAL_WINDOW, MAX_FRAME, MAX_STREAMS, PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS,
    TOP, WHOLE, WINDOW, WINDOW_UPDATE, WITH_PRIORITY, Code, block, continuation, data, depends, frame, goaway, headers,
    indexed, integer, literal, literal_of, ping, priority, request, rst_stream, settings, string, table_size,
    window_update)

BODY = b"0123456789abcdef"
STREAMS = 8  # that a client may have open
LIMIT = 8  # streams at a time
GET = block(request())
POST = block(request("POST"))
PAIRS = request()

CASES, numbers = [], Counter()


def case(section, what, start=True):
    """Make a function of a FramePeer a case; start: the preface has been exchanged."""
    def keep(judge):
        numbers[section] += 1
        CASES.append(pytest.param(judge, start, id=f"{section}/{numbers[section]} {what}"))
        return judge
    return keep


# -- 3.4 the connection preface


@case("3.4", "valid preface is answered by SETTINGS first", start=False)
def _(h2):
    h2.send(PREFACE + settings())
    first = h2.frame_in()
    assert (first.kind, first.flags, first.stream) == (SETTINGS, 0, 0)
    h2.expect_alive()


@case("3.4", "preface in single bytes", start=False)
def _(h2):
    for byte in PREFACE + settings():
        h2.send(bytes([byte]))
    h2.expect_alive()


@case("3.4", "request right behind the preface", start=False)
def _(h2):
    h2.send(PREFACE + settings() + headers(1, GET))
    h2.expect_answer(1, body=BODY)


@case("3.4", "no preface at all", start=False)
def _(h2):
    h2.try_send(b"INVALID CONNECTION PREFACE\r\n\r\n")
    h2.expect_raw_end()


@case("3.4", "preface with a wrong end", start=False)
def _(h2):
    h2.try_send(PREFACE[:-6] + b"XX\r\n\r\n" + settings())
    h2.expect_raw_end()


@case("3.4", "preface without SETTINGS", start=False)
def _(h2):
    h2.send(PREFACE + ping())
    h2.expect_connection_error(Code.PROTOCOL_ERROR)


@case("3.4", "preface whose SETTINGS is an acknowledgement", start=False)
def _(h2):
    h2.send(PREFACE + settings(flags=ACK))
    h2.expect_connection_error(Code.PROTOCOL_ERROR)


# -- 4.1 frame format


@case("4.1", "frame of unknown type")
def _(h2):
    h2.put(frame(0x16, 0, 0, b"\0" * 8))
    h2.expect_nothing()


@case("4.1", "flags that are not defined")
def _(h2):
    h2.put(frame(PING, 0x16, 0, b"opaque42"))
    h2.read_until(lambda: [f for f in h2.seen if f.kind == PING and f.flags == ACK and f.payload == b"opaque42"],
                  "the answer")


@case("4.1", "reserved bit of the stream id")
def _(h2):
    h2.put(frame(HEADERS, WHOLE, 1 | 1 << 31, GET))
    h2.expect_answer(1, body=BODY)


# -- 4.2 frame size


@case("4.2", "DATA of the largest size")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), data(1, b"x" * FRAME, END_STREAM))
    h2.expect_answer(1)


@case("4.2", "HEADERS of the largest size")
def _(h2):
    filler = FRAME - len(GET) - len(literal("x", ""))
    h2.put(headers(1, GET + literal("x", "y" * (filler - 2))))
    h2.expect_answer(1)


@case("4.2", "DATA above the largest size")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS))
    h2.try_send(data(1, b"x" * (FRAME + 1), END_STREAM))
    h2.expect_stream_error(1, Code.FRAME_SIZE_ERROR)


@case("4.2", "HEADERS above the largest size")
def _(h2):
    h2.try_send(headers(1, GET + literal("x", "y" * FRAME)))
    h2.expect_connection_error(Code.FRAME_SIZE_ERROR)


@case("4.2", "SETTINGS above the largest size")
def _(h2):
    h2.try_send(settings(*[(0xff, 0)] * (FRAME // 6 + 1)))
    h2.expect_connection_error(Code.FRAME_SIZE_ERROR)


# -- 4.3 field section compression


@case("4.3", "block that cannot be decoded")
def _(h2):
    h2.put(headers(1, literal_of(33, "x", 0x40)[:-1] + b"\xff" * 8))
    h2.expect_connection_error(Code.COMPRESSION_ERROR)


@case("4.3", "block that ends inside a field")
def _(h2):
    h2.put(headers(1, GET + literal("name", "value")[:-2]))
    h2.expect_connection_error(Code.COMPRESSION_ERROR)


@case("4.3", "PRIORITY inside a block")
def _(h2):
    h2.put(headers(1, GET[:5], END_STREAM), priority(1, depends(0)), continuation(1, GET[5:]))
    h2.expect_connection_error(Code.PROTOCOL_ERROR)


@case("4.3", "HEADERS of another stream inside a block")
def _(h2):
    h2.put(headers(1, GET[:5], END_STREAM), headers(3, GET))
    h2.expect_connection_error(Code.PROTOCOL_ERROR)


@case("4.3", "PING inside a block")
def _(h2):
    h2.put(headers(1, GET[:5], END_STREAM), ping(), continuation(1, GET[5:]))
    h2.expect_connection_error(Code.PROTOCOL_ERROR)


@case("4.3", "block of a malformed request changes the table all the same")
def _(h2):
    h2.put(headers(1, GET + literal("x-one", "1", 0x40) + literal("UPPER", "x")))
    h2.put(headers(3, GET + indexed(62)))
    h2.expect_answer(3, body=BODY)


# -- 5.1 stream states


def closes_connection(frames, *codes, before=()):
    """A case that is one judgement: these frames are an error of the connection."""
    def judge(h2):
        h2.put(*before, *frames)
        h2.expect_connection_error(*codes)
    return judge


for name, sent in [("DATA", data(1, b"x", END_STREAM)), ("RST_STREAM", rst_stream(1)),
                   ("WINDOW_UPDATE", window_update(1, 100)), ("CONTINUATION", continuation(1, GET))]:
    case("5.1", f"idle: {name}")(closes_connection([sent], Code.PROTOCOL_ERROR))


@case("5.1", "idle: PRIORITY")
def _(h2):
    h2.put(priority(1, depends(0)), headers(1, GET))
    h2.expect_answer(1, body=BODY)


def half_close(h2):
    """Stream 1 has said all it has to say; its answer cannot end, for there is no window."""
    h2.put(settings((INITIAL_WINDOW, 0)), headers(1, GET))
    h2.read_until(lambda: h2.answer(1).status, "the head of the answer")


@case("5.1", "half-closed (remote): DATA")
def _(h2):
    half_close(h2)
    h2.put(data(1, b"x", END_STREAM))
    h2.answer(1).status = 0
    h2.expect_stream_error(1, Code.STREAM_CLOSED)


@case("5.1", "half-closed (remote): HEADERS")
def _(h2):
    half_close(h2)
    h2.put(headers(1, GET))
    h2.answer(1).status = 0
    h2.expect_stream_error(1, Code.STREAM_CLOSED)


@case("5.1", "half-closed (remote): CONTINUATION")
def _(h2):
    half_close(h2)
    h2.put(continuation(1, GET))
    h2.expect_connection_error(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)


@case("5.1", "half-closed (remote): WINDOW_UPDATE and PRIORITY")
def _(h2):
    half_close(h2)
    h2.put(priority(1, depends(0)), window_update(1, 100))
    h2.expect_answer(1, body=BODY)


@case("5.1", "half-closed (remote): RST_STREAM")
def _(h2):
    half_close(h2)
    h2.put(rst_stream(1))
    h2.expect_nothing()
    h2.put(headers(3, GET), window_update(3, 100))
    h2.expect_answer(3, body=BODY)


def reset(h2):
    """Stream 1 was reset by the client."""
    h2.put(headers(1, POST, END_HEADERS), rst_stream(1))


@case("5.1", "closed by RST_STREAM: DATA")
def _(h2):
    reset(h2)
    h2.put(data(1, b"x", END_STREAM))
    h2.expect_stream_error(1, Code.STREAM_CLOSED)


@case("5.1", "closed by RST_STREAM: HEADERS")
def _(h2):
    reset(h2)
    h2.put(headers(1, GET))
    h2.expect_stream_error(1, Code.STREAM_CLOSED)


@case("5.1", "closed by RST_STREAM: CONTINUATION")
def _(h2):
    reset(h2)
    h2.put(continuation(1, GET))
    h2.expect_connection_error(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)


@case("5.1", "closed by RST_STREAM: PRIORITY")
def _(h2):
    reset(h2)
    h2.put(priority(1, depends(0)))
    h2.expect_nothing()


def close(h2):
    """Stream 1 has come to its end on both sides."""
    h2.put(headers(1, GET))
    h2.expect_answer(1, body=BODY)
    h2.answer(1).status = 0


@case("5.1", "closed by END_STREAM: DATA")
def _(h2):
    close(h2)
    h2.put(data(1, b"x", END_STREAM))
    h2.expect_stream_error(1, Code.STREAM_CLOSED)


@case("5.1", "closed by END_STREAM: HEADERS")
def _(h2):
    close(h2)
    h2.put(headers(1, GET))
    h2.expect_connection_error(Code.STREAM_CLOSED)


@case("5.1", "closed by END_STREAM: CONTINUATION")
def _(h2):
    close(h2)
    h2.put(continuation(1, GET))
    h2.expect_connection_error(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)


@case("5.1", "closed by END_STREAM: WINDOW_UPDATE, RST_STREAM and PRIORITY")
def _(h2):
    close(h2)
    h2.put(window_update(1, 100), rst_stream(1), priority(1, depends(0)))
    h2.expect_nothing()


# -- 5.1.1 stream identifiers


case("5.1.1", "even stream id")(closes_connection([headers(2, GET)], Code.PROTOCOL_ERROR))


@case("5.1.1", "stream id lower than before")
def _(h2):
    h2.put(headers(5, GET))
    h2.expect_answer(5, body=BODY)
    h2.put(headers(3, GET))
    h2.expect_connection_error(Code.PROTOCOL_ERROR)


@case("5.1.1", "stream ids with gaps")
def _(h2):
    h2.put(headers(1, GET), headers(7, GET), headers(TOP, GET))
    for stream in (1, 7, TOP):
        h2.expect_answer(stream, body=BODY)


@case("5.1.1", "DATA on a stream that a higher one has closed")
def _(h2):
    h2.put(headers(5, POST, END_HEADERS), data(3, b"x", END_STREAM))
    h2.expect_stream_error(3, Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)


# -- 5.1.2 stream concurrency


def fill(h2):
    """As many open streams as may be; the id of the next."""
    limit = h2.theirs[MAX_STREAMS]
    h2.put(*[headers(1 + 2 * n, POST, END_HEADERS) for n in range(limit)])
    return 1 + 2 * limit


@case("5.1.2", "more streams than may be at a time")
def _(h2):
    over = fill(h2)
    h2.put(headers(over, GET), headers(over + 2, POST, END_HEADERS), data(over + 2, b"x", END_STREAM))
    for stream in (over, over + 2):
        h2.expect_stream_error(stream, Code.REFUSED_STREAM)
    h2.expect_alive()
    assert not [a for s, a in h2.answers.items() if s < over and a.reset is not None]
    h2.put(data(1, b"", END_STREAM))
    h2.expect_answer(1)
    h2.put(headers(over + 4, GET))
    h2.expect_answer(over + 4, body=BODY)


@case("5.1.2", "more streams than may be at a time, before their limit was acknowledged", start=False)
def _(h2):
    h2.put(PREFACE, settings(), *[headers(1 + 2 * n, POST, END_HEADERS) for n in range(STREAMS)],
           headers(1 + 2 * STREAMS, GET))
    h2.expect_stream_error(1 + 2 * STREAMS, Code.REFUSED_STREAM)
    assert h2.theirs[MAX_STREAMS] == STREAMS
    h2.put(data(1, b"", END_STREAM))
    h2.expect_answer(1)


@case("5.1.2", "a stream that ended makes room")
def _(h2):
    after = fill(h2)
    h2.put(data(1, b"", END_STREAM))
    h2.expect_answer(1)
    h2.put(headers(after, GET))
    h2.expect_answer(after, body=BODY)


@case("5.1.2", "a stream that was reset makes room")
def _(h2):
    after = fill(h2)
    h2.put(rst_stream(1), headers(after, GET))
    h2.expect_answer(after, body=BODY)


# -- 5.3 prioritisation


@case("5.3", "HEADERS of a stream that depends on itself")
def _(h2):
    h2.put(headers(1, GET, priority=depends(1)))
    h2.expect_stream_error(1, Code.PROTOCOL_ERROR)


@case("5.3", "PRIORITY of a stream that depends on itself")
def _(h2):
    h2.put(priority(1, depends(1)))
    h2.expect_stream_error(1, Code.PROTOCOL_ERROR)


for name, five in [("weight 1", depends(0, 1)), ("weight 256", depends(0, 256)), ("a parent", depends(7)),
                   ("exclusively", depends(7, exclusive=True))]:
    @case("5.3", f"PRIORITY and HEADERS with {name}")
    def _(h2, five=five):
        h2.put(priority(1, five), headers(1, GET, priority=five))
        h2.expect_answer(1, body=BODY)


@case("5.3", "PRIORITY of a higher stream does not close the lower")
def _(h2):
    h2.put(priority(5, depends(0)), headers(3, GET))
    h2.expect_answer(3, body=BODY)


# -- 5.4, 5.5 errors and extensions


@case("5.4.1", "GOAWAY names the last stream")
def _(h2):
    h2.put(headers(3, GET))
    h2.expect_answer(3)
    h2.put(frame(PING, 0, 5, b"opaque42"))
    h2.expect_connection_error(Code.PROTOCOL_ERROR)
    assert h2.goaways[-1].last == 3


@case("5.4.2", "an error of one stream leaves the others alone")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), headers(3, block(request(path=""))))
    h2.expect_stream_error(3, Code.PROTOCOL_ERROR)
    h2.put(data(1, b"whole", END_STREAM))
    h2.expect_answer(1, body=BODY)


@case("5.4.2", "RST_STREAM is not answered by RST_STREAM")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), rst_stream(1), rst_stream(1))
    h2.expect_nothing()


@case("5.5", "unknown frames between others")
def _(h2):
    h2.put(frame(0xf0, 0xff, 1, b"?"), headers(1, POST, END_HEADERS), frame(0xf0, 0xff, 1, b"?" * 100),
           data(1, b"x", END_STREAM))
    h2.expect_answer(1, body=BODY)


case("5.5", "unknown frame inside a block")(closes_connection(
    [headers(1, GET[:5], END_STREAM), frame(0xf0, 0, 0, b"?"), continuation(1, GET[5:])], Code.PROTOCOL_ERROR))


# -- 6.1 DATA


@case("6.1", "several DATA frames, padded and empty ones among them")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), data(1, b"x"), data(1, b"y" * 100, pad=0), data(1, b"z", pad=255),
           data(1, b""), data(1, b"", pad=10), data(1, b"", END_STREAM))
    h2.expect_answer(1, body=BODY)


case("6.1", "DATA on stream 0")(closes_connection([data(0, b"x")], Code.PROTOCOL_ERROR))

for name, payload in [("as long as the frame", b"\x05four"), ("longer than the frame", b"\xff1")]:
    case("6.1", f"DATA with padding {name}")(closes_connection(
        [frame(DATA, PADDED, 1, payload)], Code.PROTOCOL_ERROR, before=[headers(1, POST, END_HEADERS)]))

case("6.1", "DATA with padding and no length of it")(closes_connection(
    [frame(DATA, PADDED, 1, b"")], Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR,
    before=[headers(1, POST, END_HEADERS)]))


# -- 6.2 HEADERS


@case("6.2", "HEADERS with padding and priority")
def _(h2):
    h2.put(headers(1, GET, pad=200, priority=depends(0, 256)))
    h2.expect_answer(1, body=BODY)


case("6.2", "HEADERS on stream 0")(closes_connection([headers(0, GET)], Code.PROTOCOL_ERROR))
case("6.2", "HEADERS with padding longer than the frame")(closes_connection(
    [frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + GET)], Code.PROTOCOL_ERROR))
case("6.2", "HEADERS too short for their priority")(closes_connection(
    [frame(HEADERS, WHOLE | WITH_PRIORITY, 1, b"\0\0\0")], Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR))
case("6.2", "HEADERS without END_HEADERS, then DATA")(closes_connection(
    [headers(1, GET, 0), data(1, b"x")], Code.PROTOCOL_ERROR))


# -- 6.3 PRIORITY, 6.4 RST_STREAM


case("6.3", "PRIORITY on stream 0")(closes_connection([priority(0, depends(0))], Code.PROTOCOL_ERROR))

for length in (4, 6):
    @case("6.3", f"PRIORITY of {length} bytes")
    def _(h2, length=length):
        h2.put(headers(1, POST, END_HEADERS), priority(1, bytes(length)))
        h2.expect_stream_error(1, Code.FRAME_SIZE_ERROR)

case("6.4", "RST_STREAM on stream 0")(closes_connection([rst_stream(0)], Code.PROTOCOL_ERROR))

for length in (3, 5):
    case("6.4", f"RST_STREAM of {length} bytes")(closes_connection(
        [frame(RST_STREAM, 0, 1, bytes(length))], Code.FRAME_SIZE_ERROR, before=[headers(1, POST, END_HEADERS)]))


# -- 6.5 SETTINGS


case("6.5", "acknowledgement with a payload")(closes_connection(
    [frame(SETTINGS, ACK, 0, bytes(6))], Code.FRAME_SIZE_ERROR))
case("6.5", "SETTINGS on a stream")(closes_connection([frame(SETTINGS, 0, 1)], Code.PROTOCOL_ERROR))

for length in (1, 5, 7):
    case("6.5", f"SETTINGS of {length} bytes")(closes_connection(
        [frame(SETTINGS, 0, 0, bytes(length))], Code.FRAME_SIZE_ERROR))

for name, pair, code in [
        ("ENABLE_PUSH 2", (ENABLE_PUSH, 2), Code.PROTOCOL_ERROR),
        ("INITIAL_WINDOW_SIZE above 2^31-1", (INITIAL_WINDOW, TOP + 1), Code.FLOW_CONTROL_ERROR),
        ("MAX_FRAME_SIZE below 16384", (MAX_FRAME, FRAME - 1), Code.PROTOCOL_ERROR),
        ("MAX_FRAME_SIZE above 2^24-1", (MAX_FRAME, 1 << 24), Code.PROTOCOL_ERROR)]:
    case("6.5.2", name)(closes_connection([settings(pair)], code))


@case("6.5.2", "setting that is not defined")
def _(h2):
    h2.put(settings((0xff, 1), (0x7777, 0xffffffff)))
    h2.expect_nothing()


@case("6.5.2", "their settings are of the allowed values")
def _(h2):
    assert h2.theirs.get(ENABLE_PUSH, 0) == 0
    assert h2.theirs.get(INITIAL_WINDOW, WINDOW) <= TOP
    assert FRAME <= h2.theirs.get(MAX_FRAME, FRAME) < 1 << 24


@case("6.5.2", "HEADER_TABLE_SIZE of 0 is kept to")
def _(h2):
    h2.put(settings((HEADER_TABLE_SIZE, 0)))
    h2.read_until(lambda: h2.acked == 2, "the acknowledgement")
    h2.decoder.max_allowed_table_size = 0
    for stream in (1, 3):
        h2.put(headers(stream, GET))
        h2.expect_answer(stream, body=BODY)


@case("6.5.3", "SETTINGS are acknowledged, each")
def _(h2):
    h2.put(settings(), settings((INITIAL_WINDOW, 100)))
    h2.read_until(lambda: h2.acked == 3, "two acknowledgements more")


@case("6.5.3", "of several values of one setting the last counts")
def _(h2):
    h2.put(settings((INITIAL_WINDOW, 100), (INITIAL_WINDOW, 1)), headers(1, GET))
    h2.expect_data(1, BODY[:1])


# -- 6.6 PUSH_PROMISE, 6.7 PING, 6.8 GOAWAY


case("6.6", "PUSH_PROMISE from a client")(closes_connection(
    [frame(PUSH_PROMISE, END_HEADERS, 1, pack(">I", 2) + GET)], Code.PROTOCOL_ERROR,
    before=[headers(1, POST, END_HEADERS)]))


@case("6.7", "PING is answered with the same bytes")
def _(h2):
    h2.put(ping(b"12345678"))
    h2.read_until(lambda: [f for f in h2.seen if f.kind == PING and f.flags == ACK and f.payload == b"12345678"],
                  "the answer")


@case("6.7", "acknowledgement of a PING that nobody sent")
def _(h2):
    h2.put(ping(b"notmine!", ACK))
    h2.expect_nothing()
    assert not [f for f in h2.seen if f.payload == b"notmine!"]


case("6.7", "PING on a stream")(closes_connection([frame(PING, 0, 1, bytes(8))], Code.PROTOCOL_ERROR))

for length in (0, 6, 9):
    case("6.7", f"PING of {length} bytes")(closes_connection(
        [frame(PING, 0, 0, bytes(length))], Code.FRAME_SIZE_ERROR))

case("6.8", "GOAWAY on a stream")(closes_connection([frame(GOAWAY, 0, 1, bytes(8))], Code.PROTOCOL_ERROR))
case("6.8", "GOAWAY of 7 bytes")(closes_connection([frame(GOAWAY, 0, 0, bytes(7))], Code.FRAME_SIZE_ERROR))


@case("6.8", "streams open at GOAWAY are finished")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), goaway(0, 0, b"debug"), data(1, b"x", END_STREAM))
    h2.expect_answer(1, body=BODY)


# -- 6.9 WINDOW_UPDATE


case("6.9", "increment 0 of the connection")(closes_connection([window_update(0, 0)], Code.PROTOCOL_ERROR))


@case("6.9", "increment 0 of a stream")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), window_update(1, 0))
    h2.expect_stream_error(1, Code.PROTOCOL_ERROR)


for length in (3, 5):
    case("6.9", f"WINDOW_UPDATE of {length} bytes")(closes_connection(
        [frame(WINDOW_UPDATE, 0, 0, bytes(length))], Code.FRAME_SIZE_ERROR))


@case("6.9.1", "a window of one byte gives one byte")
def _(h2):
    h2.put(settings((INITIAL_WINDOW, 1)), headers(1, GET))
    h2.expect_data(1, BODY[:1])
    h2.put(window_update(1, 2))
    h2.expect_data(1, BODY[:3])
    h2.put(window_update(1, 100))
    h2.expect_answer(1, body=BODY)


case("6.9.1", "window of the connection above 2^31-1")(closes_connection(
    [window_update(0, TOP), window_update(0, TOP)], Code.FLOW_CONTROL_ERROR))


@case("6.9.1", "window of a stream above 2^31-1")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), window_update(1, TOP), window_update(1, TOP))
    h2.expect_stream_error(1, Code.FLOW_CONTROL_ERROR)


@case("6.9.1", "padding is given back, too")
def _(h2):
    window = h2.theirs.get(INITIAL_WINDOW, WINDOW)
    sent, cost = 0, 257
    h2.put(headers(1, POST, END_HEADERS))
    while sent < 4 * max(window, WINDOW):
        h2.read_until(lambda: window + h2.granted[1] >= sent + cost and WINDOW + h2.granted[0] >= sent + cost,
                      "WINDOW_UPDATE")
        h2.put(data(1, b"x", pad=255))
        sent += cost
    h2.put(data(1, b"", END_STREAM))
    h2.expect_answer(1, body=BODY)


@case("6.9.2", "INITIAL_WINDOW_SIZE changes the windows of open streams")
def _(h2):
    h2.put(settings((INITIAL_WINDOW, 0)), headers(1, GET))
    h2.expect_data(1, b"")
    h2.put(settings((INITIAL_WINDOW, 1)))
    h2.expect_data(1, BODY[:1])


@case("6.9.2", "window that became negative is not used")
def _(h2):
    h2.put(settings((INITIAL_WINDOW, 3)), headers(1, GET))
    h2.expect_data(1, BODY[:3])
    h2.put(settings((INITIAL_WINDOW, 2)), window_update(1, 1))
    h2.expect_data(1, BODY[:3])
    h2.put(window_update(1, 1))
    h2.expect_data(1, BODY[:4])


@case("6.9.2", "INITIAL_WINDOW_SIZE that makes a window overflow")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), window_update(1, TOP - WINDOW), settings((INITIAL_WINDOW, WINDOW + 1)))
    h2.expect_connection_error(Code.FLOW_CONTROL_ERROR)


@case("6.9.2", "SETTINGS do not change the window of the connection")
def _(h2):
    h2.put(settings((INITIAL_WINDOW, 0)), settings((INITIAL_WINDOW, 1000)), headers(1, GET))
    h2.expect_answer(1, body=BODY)


# -- 6.10 CONTINUATION


@case("6.10", "block in several frames, cut anywhere")
def _(h2):
    for at in range(len(GET)):
        h2.put(headers(2 * at + 1, GET[:at], END_STREAM), continuation(2 * at + 1, GET[at:at + 3], 0),
               continuation(2 * at + 1, GET[at + 3:]))
        h2.expect_answer(2 * at + 1, body=BODY)


opened = headers(1, GET[:5], END_STREAM)
for name, frames in [
        ("then HEADERS", [opened, continuation(1, GET[5:9], 0), headers(1, GET)]),
        ("of another stream", [opened, continuation(3, GET[5:])]),
        ("on stream 0", [opened, continuation(0, GET[5:])]),
        ("after END_HEADERS", [headers(1, POST, END_HEADERS), continuation(1, GET)]),
        ("after its own END_HEADERS", [headers(1, POST[:5], 0), continuation(1, POST[5:]), continuation(1, GET)]),
        ("after DATA", [headers(1, POST, END_HEADERS), data(1, b"x"), continuation(1, GET)])]:
    case("6.10", f"CONTINUATION {name}")(closes_connection(frames, Code.PROTOCOL_ERROR))


# -- 7 error codes


@case("7", "unknown code of RST_STREAM")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), rst_stream(1, 0xff))
    h2.expect_nothing()


@case("7", "unknown code of GOAWAY")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), goaway(0, 0xff), data(1, b"x", END_STREAM))
    h2.read_until(lambda: h2.answer(1).is_complete or h2.goaways, "an answer or the end")
    assert not [g for g in h2.goaways if g.code]


# -- 8.1 message framing


@case("8.1", "HEAD is answered without a body")
def _(h2):
    h2.put(headers(1, block(request("HEAD"))))
    h2.expect_answer(1, body=b"")


@case("8.1", "request with trailers")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), data(1, b"x"), headers(1, block([("x-sum", "1")])))
    h2.expect_answer(1, body=BODY)


@case("8.1", "request with trailers and no body")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), headers(1, block([("x-sum", "1")])))
    h2.expect_answer(1, body=BODY)


@case("8.1", "field section after the head that does not end the stream")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), headers(1, block([("x-sum", "1")]), END_HEADERS))
    h2.expect_stream_error(1, Code.PROTOCOL_ERROR)


def is_malformed(fields, *frames, flags=WHOLE):
    """A case that is one judgement: this request is malformed (8.1.1)."""
    def judge(h2):
        h2.put(headers(1, block(fields), flags), *frames)
        h2.expect_stream_error(1, Code.PROTOCOL_ERROR)
    return judge


for length, frames in [("1", [data(1, b"test", END_STREAM)]), ("5", [data(1, b"test", END_STREAM)]),
                       ("1", [data(1, b"test"), data(1, b"test", END_STREAM)]),
                       ("9", [data(1, b"test"), data(1, b"test", END_STREAM)]),
                       ("9", [data(1, b"test"), headers(1, block([("x-sum", "1")]))])]:
    case("8.1.1", f"content-length {length} and {len(frames)} frames that say else")(
        is_malformed(request("POST", "/", ("content-length", length)), *frames, flags=END_HEADERS))

case("8.1.1", "content-length 1 and no body")(is_malformed(request("POST", "/", ("content-length", "1"))))

for value in ("", "-1", "+4", "4,4", "0x4", "4 4", "four", "99999999999999999999"):
    case("8.1.1", f"content-length {value!r}")(is_malformed(
        request("POST", "/", ("content-length", value)), data(1, b"test", END_STREAM), flags=END_HEADERS))

case("8.1.1", "two content-lengths")(is_malformed(
    request("POST", "/", ("content-length", "4"), ("content-length", "5")), data(1, b"test", END_STREAM),
    flags=END_HEADERS))


# -- 8.2 fields


for name in ("X-Upper", "", "with space", "tab\t", "co:lon", "nul\0", "cr\r", "lf\n", "del\x7f", "high\x80", "x,y", "ä"):
    case("8.2.1", f"name {name!r}")(is_malformed([*PAIRS, (name, "value")]))

for value in ("nul\0", "cr\rx", "lf\nx", "crlf\r\nx: y", " before", "after ", "\tbefore", "after\t"):
    case("8.2.1", f"value {value!r}")(is_malformed([*PAIRS, ("x-value", value)]))


@case("8.2.1", "values of all the other octets")
def _(h2):
    value = bytes(o for o in range(256) if o not in (0, 10, 13) and (o > 31 or o == 9) and o != 127)
    h2.put(headers(1, block([*PAIRS, ("x-value", b"x" + value + b"x"), ("x-empty", "")])))
    h2.expect_answer(1, body=BODY)


for name, value in [("connection", "keep-alive"), ("connection", "close"), ("keep-alive", "timeout=5"),
                    ("proxy-connection", "keep-alive"), ("transfer-encoding", "chunked"), ("upgrade", "h2c"),
                    ("te", "gzip"), ("te", "trailers, gzip")]:
    case("8.2.2", f"{name}: {value}")(is_malformed([*PAIRS, (name, value)]))


@case("8.2.2", "te: trailers")
def _(h2):
    h2.put(headers(1, block([*PAIRS, ("te", "trailers")])))
    h2.expect_answer(1, body=BODY)


# -- 8.3 control data


for name in (":unknown", ":status", ":"):
    case("8.3", f"pseudo-field {name!r}")(is_malformed([*PAIRS, (name, "200")]))


@case("8.3", "pseudo-field in trailers")
def _(h2):
    h2.put(headers(1, POST, END_HEADERS), data(1, b"x"), headers(1, block([(":method", "GET")])))
    h2.expect_stream_error(1, Code.PROTOCOL_ERROR)


case("8.3", "pseudo-field after another field")(is_malformed([*PAIRS[:-1], ("x", "y"), PAIRS[-1]]))

for name, value in PAIRS:
    case("8.3.1", f"{name} twice")(is_malformed([*PAIRS, (name, value)]))
for name in (":method", ":scheme", ":path"):
    case("8.3.1", f"no {name}")(is_malformed([(n, v) for n, v in PAIRS if n != name]))
for name in (":method", ":scheme", ":path"):
    case("8.3.1", f"{name} empty")(is_malformed([(n, "" if n == name else v) for n, v in PAIRS]))

for path in ("relative", "*", "/with space", "/nul\0", "/cr\r", "/lf\n", "/x HTTP/1.1\r\nHost: evil"):
    case("8.3.1", f":path {path!r}")(is_malformed(request("GET", path)))
for method in ("with space", "cr\r\nx", "GET / HTTP/1.1\r\nHost: evil\r\n\r\nGET"):
    case("8.3.1", f":method {method!r}")(is_malformed(request(method)))
for authority in ("user@test", "user:word@test", "two hosts", "cr\r\nx: y", "path/test"):
    case("8.3.1", f":authority {authority!r}")(is_malformed(request(authority=authority)))
for scheme in ("http x", "http\r\nx: y", "ht/tp"):
    case("8.3.1", f":scheme {scheme!r}")(is_malformed(request(scheme=scheme)))

case("8.3.1", "host that is not :authority")(is_malformed(request("GET", "/", ("host", "other"))))
case("8.3.1", "two hosts")(is_malformed(request("GET", "/", ("host", "test"), ("host", "test"), authority=None)))


@case("8.3.1", "host that is :authority")
def _(h2):
    h2.put(headers(1, block(request("GET", "/", ("host", "test")))))
    h2.expect_answer(1, body=BODY)


@case("8.3.1", "host without :authority")
def _(h2):
    h2.put(headers(1, block(request("GET", "/", ("host", "test"), authority=None))))
    h2.expect_answer(1, body=BODY)


@case("8.3.1", "OPTIONS *")
def _(h2):
    h2.put(headers(1, block(request("OPTIONS", "*"))))
    h2.read_until(lambda: h2.answer(1).is_complete, "an answer")
    assert h2.answer(1).reset is None


for name, value in ((":scheme", "http"), (":path", "/")):
    case("8.5", f"CONNECT with {name}")(is_malformed(
        [(":method", "CONNECT"), (":authority", "test:80"), (name, value)], flags=END_HEADERS))
case("8.5", "CONNECT without :authority")(is_malformed([(":method", "CONNECT")], flags=END_HEADERS))


# -- RFC 7541


HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


NAMED = GET + b"\0" + string(b"x")  # a value must follow


def coded(raw):
    """A string that says of itself that it is Huffman-coded."""
    return integer(len(raw), 7, 0x80) + raw


for name, fields in [
        ("indexed", indexed(2) + indexed(6) + indexed(4) + literal(":authority", "test")),
        ("literal, put into the table", b"".join(literal(n, v, 0x40) for n, v in PAIRS)),
        ("literal with a known name, put into the table",
         literal_of(2, "GET", 0x40) + literal_of(6, "http", 0x40) + literal_of(4, "/", 0x40) + literal_of(1, "t", 0x40)),
        ("literal, not indexed", GET),
        ("literal with a known name, not indexed",
         literal_of(2, "GET") + literal_of(6, "http") + literal_of(4, "/") + literal_of(1, "test")),
        ("literal, never indexed", b"".join(literal(n, v, 0x10) for n, v in PAIRS)),
        ("Huffman-coded", b"".join(
            b"\0" + coded(HUFFMAN.encode(n.encode())) + coded(HUFFMAN.encode(v.encode())) for n, v in PAIRS)),
        ("table size update first", table_size(0) + table_size(128) + GET),
        ("by python3-hpack", Encoder().encode(PAIRS))]:
    @case("7541 6", name)
    def _(h2, fields=fields):
        h2.put(headers(1, fields))
        h2.expect_answer(1, body=BODY)


@case("7541 2.3.2", "what was put into the table is found again, and evicted")
def _(h2):
    h2.put(headers(1, GET + literal("x-one", "1", 0x40)), headers(3, GET + indexed(62)))
    h2.expect_answer(3, body=BODY)
    h2.put(headers(5, table_size(0) + GET))
    h2.expect_answer(5, body=BODY)
    h2.put(headers(7, GET + indexed(62)))
    h2.expect_connection_error(Code.COMPRESSION_ERROR)


for section, name, fields in [
        ("2.3.3", "index above the tables", GET + indexed(70)),
        ("2.3.3", "name index above the tables", GET + literal_of(70, "x")),
        ("4.2", "table size update after a field", GET + table_size(1)),
        ("5.1", "integer without an end", GET + b"\xff" + b"\x80" * 12 + b"\0"),
        ("5.1", "integer that overflows", GET + b"\xff" + b"\xff" * 9 + b"\x01"),
        ("5.2", "Huffman padding of more than 7 bits", NAMED + coded(HUFFMAN.encode(b"test") + b"\xff")),
        ("5.2", "Huffman padding of zeros", NAMED + coded(b"\x00")),
        ("5.2", "Huffman-coded EOS", NAMED + coded(b"\xff\xff\xff\xff")),
        ("5.2", "string longer than the block", NAMED + integer(100, 7) + b"short"),
        ("6.1", "index 0", GET + indexed(0)),
        ("6.3", "table size above the setting", table_size(1 << 20) + GET)]:
    case(f"7541 {section}", name)(closes_connection([headers(1, fields)], Code.COMPRESSION_ERROR))


# -- the judgement


@pytest.fixture(scope="module", params=FRONTS_OF_2, ids=lambda front: front.name)
def conforming(request):
    """A daemon a front, with few streams to a connection."""
    site = Site(request.param, listener={"limits": {"http2_streams": LIMIT}})
    yield site
    site.close()


@pytest.mark.parametrize("judge, start", CASES)
def test_rfc9113(conforming, judge, start):
    conforming.fresh()
    conforming.backend.always(fixed(BODY))
    judge(conforming.frames(start=start))
    conforming.akashd.assert_clean()
