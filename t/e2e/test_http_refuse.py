# SPDX-License-Identifier: Apache-2.0
"""What can be read in two ways is refused, never forwarded and never repaired.

Each row of the tables is one message. The proof is not only the status: after every row a plain request is
sent through, and the backend must have recorded that one and nothing else, or, where a row allows it, one
strictly valid message that means the same.
"""

import threading

import pytest

from harness import PATIENCE, Client, Reset, backend as answers, free_port, http_config
from harness.akashd import is_sanitized
from harness.client import build
from harness.wire import Ended

SMUGGLED = b"GET /evil HTTP/1.1\r\nHost: evil.test\r\n\r\n"


def get(fields=b"", line=b"GET / HTTP/1.1", host=b"Host: test\r\n"):
    return line + b"\r\n" + host + fields + b"\r\n"


def post(fields, body=b""):
    return get(fields, b"POST /post HTTP/1.1") + body


def chunked(body):
    return post(b"Transfer-Encoding: chunked\r\n", body)


# name: (bytes, statuses that are right)
REFUSED = {
    # request line
    "two spaces before the target": (get(line=b"GET  / HTTP/1.1"), {400}),
    "two spaces after the target": (get(line=b"GET /  HTTP/1.1"), {400}),
    "space at the end of the line": (get(line=b"GET / HTTP/1.1 "), {400}),
    "space before the method": (get(line=b" GET / HTTP/1.1"), {400}),
    "space in the target": (get(line=b"GET /a b HTTP/1.1"), {400}),
    "tab for a space": (get(line=b"GET\t/ HTTP/1.1"), {400}),
    "tab in the target": (get(line=b"GET /a\tb HTTP/1.1"), {400}),
    "VT for a space": (get(line=b"GET /\x0bHTTP/1.1"), {400}),
    "NUL in the target": (get(line=b"GET /\x00 HTTP/1.1"), {400}),
    "control byte in the target": (get(line=b"GET /\x01 HTTP/1.1"), {400}),
    "DEL in the target": (get(line=b"GET /\x7f HTTP/1.1"), {400}),
    "CR in the target": (get(line=b"GET /a\rb HTTP/1.1"), {400}),
    "fragment in the target": (get(line=b"GET /a#b HTTP/1.1"), {400}),
    "encoded NUL in the path": (get(line=b"GET /a%00b HTTP/1.1"), {400}),
    "bad method byte": (get(line=b"GE(T / HTTP/1.1"), {400}),
    "NUL in the method": (get(line=b"G\x00ET / HTTP/1.1"), {400}),
    "no method": (get(line=b"/ HTTP/1.1"), {400}),
    "no target": (get(line=b"GET HTTP/1.1"), {400}),
    "no version": (get(line=b"GET /"), {400, 505}),
    "no version, no fields": (b"GET /\r\n\r\n", {400, 505}),
    "lower case version": (get(line=b"GET / http/1.1"), {400, 505}),
    "version 1": (get(line=b"GET / HTTP/1"), {400, 505}),
    "version 1.": (get(line=b"GET / HTTP/1."), {400, 505}),
    "version 01.1": (get(line=b"GET / HTTP/01.1"), {400, 505}),
    "version 1.10": (get(line=b"GET / HTTP/1.10"), {400, 505}),
    "version 1.1x": (get(line=b"GET / HTTP/1.1x"), {400, 505}),
    "version 1,1": (get(line=b"GET / HTTP/1,1"), {400, 505}),
    "version 0.9": (get(line=b"GET / HTTP/0.9"), {400, 505}),
    "version 2.0": (get(line=b"GET / HTTP/2.0"), {400, 505}),
    "version 9.9": (get(line=b"GET / HTTP/9.9"), {400, 505}),
    "other protocol": (get(line=b"GET / ICY/1.1"), {400, 505}),
    "relative target": (get(line=b"GET foo HTTP/1.1"), {400}),
    "asterisk for GET": (get(line=b"GET * HTTP/1.1"), {400}),
    "authority for GET": (get(line=b"GET test:80 HTTP/1.1"), {400}),
    "absolute form without host": (get(line=b"GET http:///x HTTP/1.1"), {400}),
    "absolute form with a bad host": (get(line=b"GET http://a b/x HTTP/1.1"), {400}),
    "absolute form with a broken port": (get(line=b"GET http://a:8x/ HTTP/1.1"), {400}),
    "absolute form with user info": (get(line=b"GET http://u@test/ HTTP/1.1"), {400}),
    "absolute form of another scheme": (get(line=b"GET ftp://test/ HTTP/1.1"), {400}),
    "absolute form without Host field": (get(line=b"GET http://test/ HTTP/1.1", host=b""), {400}),
    "PROXY header": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + get(), {400}),
    # field lines
    "bare CR for a line end": (b"GET / HTTP/1.1\rHost: test\r\r", {400}),  # what follows ends the line
    "CR in a value": (get(b"X: a\rb\r\n"), {400}),
    "CR before a line end": (get(b"X: a\r\r\n"), {400}),
    "NUL in a value": (get(b"X: a\x00b\r\n"), {400}),
    "NUL in a name": (get(b"X\x00: a\r\n"), {400}),
    "space before the first field": (get(host=b" Host: test\r\n"), {400}),
    "whitespace-only line before the fields": (get(host=b" \r\nHost: test\r\n"), {400}),
    "folding by a space": (get(b"X: a\r\n b\r\n"), {400}),
    "folding by a tab": (get(b"X: a\r\n\tb\r\n"), {400}),
    "folded Transfer-Encoding": (post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"), {400}),
    "space before a colon": (get(b"X : a\r\n"), {400}),
    "tab before a colon": (get(b"X\t: a\r\n"), {400}),
    "VT before a colon": (get(b"X\x0b: a\r\n"), {400}),
    "no colon": (get(b"nonsense\r\n"), {400}),
    "empty name": (get(b": a\r\n"), {400}),
    "empty name hides a length": (post(b": \r\nContent-Length: 5\r\n", b"hello"), {400}),
    "space in a name": (get(b"X Y: a\r\n"), {400}),
    "parenthesis in a name": (get(b"X(Y): a\r\n"), {400}),
    "8-bit byte in a name": (get(b"X\xc3\xa4: a\r\n"), {400}),
    "DEL in a name": (get(b"X\x7f: a\r\n"), {400}),
    # Host
    "no Host": (get(host=b""), {400}),
    "two Hosts": (get(host=b"Host: a\r\nHost: b\r\n"), {400}),
    "two equal Hosts": (get(host=b"Host: a\r\nHost: a\r\n"), {400}),
    "Host with a space": (get(host=b"Host: a b\r\n"), {400}),
    "Host with a slash": (get(host=b"Host: a/b\r\n"), {400}),
    "Host with a list": (get(host=b"Host: a, b\r\n"), {400}),
    "Host with user info": (get(host=b"Host: a@b\r\n"), {400}),
    "Host with a fragment": (get(host=b"Host: a#b\r\n"), {400}),
    "Host with a query": (get(host=b"Host: a?b\r\n"), {400}),
    "Host with a broken port": (get(host=b"Host: a:8x\r\n"), {400}),
    "Host with two ports": (get(host=b"Host: a:80:81\r\n"), {400}),
    "Host with an open bracket": (get(host=b"Host: [::1\r\n"), {400}),
    "Host with a control byte": (get(host=b"Host: a\x01\r\n"), {400}),
    # Content-Length
    "empty length": (post(b"Content-Length:\r\n", b"hello"), {400}),
    "blank length": (post(b"Content-Length:  \t\r\n", b"hello"), {400}),
    "length +5": (post(b"Content-Length: +5\r\n", b"hello"), {400}),
    "length -5": (post(b"Content-Length: -5\r\n", b"hello"), {400}),
    "length 0x5": (post(b"Content-Length: 0x5\r\n", b"hello"), {400}),
    "length 5.0": (post(b"Content-Length: 5.0\r\n", b"hello"), {400}),
    "length 5;": (post(b"Content-Length: 5;\r\n", b"hello"), {400}),
    "length '5 5'": (post(b"Content-Length: 5 5\r\n", b"hello"), {400}),
    "length 1e1": (post(b"Content-Length: 1e1\r\n", b"hello12345"), {400}),
    "length with VT": (post(b"Content-Length: 5\x0b\r\n", b"hello"), {400}),
    "length with NUL": (post(b"Content-Length: 5\x00\r\n", b"hello"), {400}),
    "length in quotes": (post(b"Content-Length: \"5\"\r\n", b"hello"), {400}),
    "length in wide digits": (post("Content-Length: \u0665\r\n".encode(), b"hello"), {400}),
    "length of 20 digits": (post(b"Content-Length: 99999999999999999999\r\n", b"hello"), {400, 413}),
    "length of 2^64 + 5": (post(b"Content-Length: 18446744073709551621\r\n", b"hello"), {400, 413}),
    "length list 5, 6": (post(b"Content-Length: 5, 6\r\n", b"hello"), {400}),
    "length list 5,": (post(b"Content-Length: 5,\r\n", b"hello"), {400}),
    "lengths 5 and 6": (post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"), {400}),
    "lengths 0 and 39": (post(b"Content-Length: 0\r\nContent-Length: 39\r\n", SMUGGLED), {400}),
    "lengths 5 and nothing": (post(b"Content-Length: 5\r\nContent-Length:\r\n", b"hello"), {400}),
    "length with a space before the colon": (post(b"Content-Length : 5\r\n", b"hello"), {400}),
    # Transfer-Encoding
    "CL.TE": (post(b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\nG"), {400}),
    "TE.CL": (post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"27\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"), {400}),
    "TE with length 0": (post(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), {400}),
    "obfuscated TE with a length": (post(b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n", b"hello"), {400, 501}),
    "two TE lines": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE chunked and cow": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE identity and chunked": (post(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE chunked twice": (post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE identity": (post(b"Transfer-Encoding: identity\r\n", b"hello"), {400, 501}),
    "TE gzip": (post(b"Transfer-Encoding: gzip\r\n", b"hello"), {400, 501}),
    "TE gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE chunked, gzip": (post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE chunked;q=1": (post(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE empty": (post(b"Transfer-Encoding:\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE comma": (post(b"Transfer-Encoding: ,\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE with VT before": (post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE with VT behind": (post(b"Transfer-Encoding: chunked\x0b\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE with NUL behind": (post(b"Transfer-Encoding: chunked\x00\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE in quotes": (post(b"Transfer-Encoding: \"chunked\"\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE xchunked": (post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE chunked foo": (post(b"Transfer-Encoding: chunked foo\r\n", b"0\r\n\r\n"), {400, 501}),
    "TE with a space before the colon": (post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), {400}),
    "TE behind a bare CR": (post(b"X: y\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), {400}),
    "TE in HTTP/1.0": (get(b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.0") + b"0\r\n\r\n", {400, 501}),
    "TE and length in HTTP/1.0": (get(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"POST / HTTP/1.0") + b"0\r\n\r\n", {400, 501}),
    # bounds (limits.header_bytes is 32k, limits.header_count 100)
    "target over the limit": (get(line=b"GET /" + b"a" * 40000 + b" HTTP/1.1"), {414}),
    "endless target": (b"GET /" + b"a" * 200000, {414}),
    "fields over the limit": (get(b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1000) for n in range(60))), {431}),
    "one field over the limit": (get(b"X: " + b"a" * 40000 + b"\r\n"), {431}),
    "endless field": (get(b"X: " + b"a" * 200000)[:-2], {431}),
    "name over the limit": (get(b"a" * 70000 + b": x\r\nContent-Length: 0\r\n"), {400, 431}),
    "too many fields": (get(b"".join(b"X-%d: a\r\n" % n for n in range(150))), {431}),
    "length of a name that overflows 16 bits": (
        post(b"Content-Length0" + b"a" * 65536 + b":\r\nContent-Length: 39\r\n", SMUGGLED), {400, 431}),
}

# The head may be on its way when these are seen, so the backend may have got a part, but never the whole.
BAD_CHUNKS = {
    "size over 2^64": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size of 17 digits": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "size +5": b"+5\r\nhello\r\n0\r\n\r\n",
    "size -5": b"-5\r\nhello\r\n0\r\n\r\n",
    "size 0x5": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size 5_": b"5_\r\nhello\r\n0\r\n\r\n",
    "size g": b"g\r\nhello\r\n0\r\n\r\n",
    "size with a space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "size '5 5'": b"5 5\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "no size before an extension": b";a=b\r\nhello\r\n0\r\n\r\n",
    "NUL behind the size": b"5\x00\r\nhello\r\n0\r\n\r\n",
    "VT behind the size": b"5\x0b\r\nhello\r\n0\r\n\r\n",
    "size ended by a bare CR": b"5\rhello\r\n0\r\n\r\n",
    "CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
    "giant extension": b"5;" + b"a" * 100000 + b"\r\nhello\r\n0\r\n\r\n",
    "many extensions": b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n" * 20000 + b"0\r\n\r\n",
    "no CRLF after the data": b"5\r\nhello0\r\n\r\n",
    "other bytes after the data": b"5\r\nhelloXX0\r\n\r\n",
    "more data than the size": b"5\r\nhelloworld\r\n0\r\n\r\n",
    "CR alone after the data": b"5\r\nhello\r0\r\n\r\n",
    "space before a colon in a trailer": b"0\r\nX : y\r\n\r\n",
    "folded trailer": b"0\r\nX: y\r\n z\r\n\r\n",
    "NUL in a trailer": b"0\r\nX: \x00\r\n\r\n",
    "trailer without colon": b"0\r\nnonsense\r\n\r\n",
    "giant trailer": b"0\r\nX: " + b"a" * 100000 + b"\r\n\r\n",
    "too many trailers": b"0\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
}

# Refused with one of 400, 413, 417, 501, or forwarded as exactly one strict message of this body.
EITHER = {
    "LF for line ends": (b"GET / HTTP/1.1\nHost: test\n\n", b""),
    "LF for some line ends": (b"POST / HTTP/1.1\r\nHost: test\nContent-Length: 5\n\r\nhello", b"hello"),
    "LF before a Transfer-Encoding": (post(b"X: y\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), b""),
    "equal lengths": (post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"), b"hello"),
    "list of equal lengths": (post(b"Content-Length: 5, 5\r\n", b"hello"), b"hello"),
    "length with zeros before": (post(b"Content-Length: 005\r\n", b"hello"), b"hello"),
    "length with spaces around": (post(b"Content-Length:  5 \t\r\n", b"hello"), b"hello"),
    "TE in capitals": (post(b"TRANSFER-ENCODING: CHUNKED\r\n", b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    "TE with spaces around": (post(b"Transfer-Encoding: \tchunked \r\n", b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    "TE with an underscore": (post(b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", b"hello"), b"hello"),
    "Content_Length": (post(b"Content_Length: 3\r\nContent-Length: 5\r\n", b"hello"), b"hello"),
    "Connection names the length": (post(b"Connection: content-length\r\nContent-Length: 39\r\n", SMUGGLED), SMUGGLED),
    "Connection names the coding": (post(b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", b"27\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"), SMUGGLED),
    "Connection names Host": (get(b"Connection: host\r\n"), b""),
    "chunk size with zeros before": (chunked(b"0005\r\nhello\r\n00\r\n\r\n"), b"hello"),
    "chunk size of many digits": (chunked(b"0" * 5000 + b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    "chunk size with a space behind": (chunked(b"5 \r\nhello\r\n0\r\n\r\n"), b"hello"),
    "chunk size ended by LF": (chunked(b"5\nhello\r\n0\r\n\r\n"), b"hello"),
    "chunk data ended by LF": (chunked(b"5\r\nhello\n0\r\n\r\n"), b"hello"),
    "last chunk ended by LF": (chunked(b"5\r\nhello\r\n0\n\n"), b"hello"),
    "quoted extension": (chunked(b"5;a=\"\\\"b;c\"\r\nhello\r\n0\r\n\r\n"), b"hello"),
    "framing in trailers": (chunked(b"5\r\nhello\r\n0\r\nContent-Length: 39\r\nTransfer-Encoding: x\r\nHost: evil\r\n\r\n"), b"hello"),
    "empty Host": (get(host=b"Host:\r\n"), b""),
    "port over 65535": (get(host=b"Host: a:99999\r\n"), b""),
    "8-bit byte in the target": (get(line=b"GET /\xc3\xa4 HTTP/1.1"), b""),
    "broken percent encoding": (get(line=b"GET /%zz%4 HTTP/1.1"), b""),
    "backslash in the path": (get(line=b"GET /a\\..\\b HTTP/1.1"), b""),
    "minor version 2": (get(line=b"GET / HTTP/1.2"), b""),
    "control byte in a value": (get(b"X: a\x01b\r\n"), b""),
    "obfuscated Expect": (post(b"Expect: 100-continue\x20\x20\r\nContent-Length: 5\r\n", b"hello"), b"hello"),
    "unknown Expect": (post(b"Expect: y 100-continue\r\nContent-Length: 5\r\n", b"hello"), b"hello"),
    "Expect on GET": (get(b"Expect: 100-continue\r\n"), b""),
    "body on HEAD": (get(b"Content-Length: 39\r\n", b"HEAD / HTTP/1.1") + SMUGGLED, SMUGGLED),
    "body on DELETE": (get(b"Content-Length: 39\r\n", b"DELETE / HTTP/1.1") + SMUGGLED, SMUGGLED),
    "bytes behind an Upgrade": (get(b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\nContent-Length: 39\r\n") + SMUGGLED, SMUGGLED),
}


def table(rows):
    return pytest.mark.parametrize("row", rows.values(), ids=[name.replace(" ", "-") for name in rows])


def recorded(site):
    """What the backend recorded but for the fence, after the fence has passed."""
    site.fence()
    assert site.backend.malformed == []
    return [r for r in site.backend.requests if r.target != "/fence"]


def read_refusal(client, method="GET"):
    """The one answer of a refused message, which says close and is followed by the end."""
    answer = client.response(method)
    assert answer.complete
    assert answer.closes, f"{answer.status} without Connection: close"
    assert client.ended() == "fin"
    return answer


@table(REFUSED)
def test_refused(site, row):
    raw, statuses = row
    client = site.client()
    client.try_send(raw + SMUGGLED)
    answer = read_refusal(client, "HEAD" if raw.startswith(b"HEAD") else "GET")
    assert answer.status in statuses, answer
    assert recorded(site) == []


@table({name: row for name, row in REFUSED.items() if len(row[0]) < 300})
def test_refused_when_it_comes_in_single_bytes(site, row):
    raw, statuses = row
    client = site.client()
    for byte in raw + SMUGGLED:
        if not client.try_send(bytes([byte])):
            break
    answer = read_refusal(client)
    assert answer.status in statuses, answer
    assert recorded(site) == []


@table(BAD_CHUNKS)
def test_bad_chunks_never_make_a_whole_message(site, row):
    client = site.client()
    client.try_send(chunked(row) + SMUGGLED)
    answer = read_refusal(client, "POST")
    assert answer.status in {400, 413, 431}, answer
    site.fence()
    others = [r for r in site.backend.requests if r.target != "/fence"]
    assert not [r for r in others if r.complete or r.target != "/post"], others
    for request in others:
        assert request.connection.quiet_end.wait(PATIENCE), "backend connection stayed open"
    assert site.backend.malformed == []


@table({name: row for name, row in BAD_CHUNKS.items() if len(row) < 100})
def test_bad_chunks_in_single_bytes_never_make_a_whole_message(site, row):
    client = site.client()
    for byte in chunked(row) + SMUGGLED:
        if not client.try_send(bytes([byte])):
            break
    assert read_refusal(client, "POST").status in {400, 413, 431}
    others = recorded(site)
    assert not [r for r in others if r.complete or r.target != "/post"], others


@table(EITHER)
def test_refused_or_forwarded_in_strict_form(site, row):
    raw, body = row
    client = site.client()
    client.send(raw + build("GET", "/next"), "HEAD" if raw.startswith(b"HEAD") else "GET")
    answer = client.response()
    got = recorded(site)
    if answer.status == 200:
        if not answer.closes:
            assert client.response("GET").status == 200
        first, *rest = got
        assert first.complete and first.body == body
        assert [r.target for r in rest] in (["/next"], [])
    else:
        assert answer.status in {400, 413, 417, 431, 501, 505} and answer.closes
        assert [r for r in got if r.complete and r.target != "/next"] == []


def test_nothing_behind_a_refused_request_is_read_as_a_request(site):
    client = site.client()
    client.send(post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + SMUGGLED * 10)
    assert read_refusal(client).status == 400
    assert recorded(site) == []


def test_request_behind_one_that_said_close_is_not_served(site):
    client = site.client()
    client.send(build("GET", "/last", [("Connection", "close")]) + build("GET", "/ignored"))
    assert client.response("GET").closes
    assert client.ended() == "fin"
    assert [r.target for r in recorded(site)] == ["/last"]


def test_request_before_a_refused_one_is_answered_first(site):
    client = site.client()
    client.send(build("GET", "/good") + get(b"X : y\r\n"))
    assert client.response("GET").status == 200
    assert read_refusal(client).status == 400
    assert [r.target for r in recorded(site)] == ["/good"]


def test_tls_hello_on_a_plain_port_is_refused(site):
    client = site.client()
    client.send(b"\x16\x03\x01\x00\xc4\x01\x00\x00\xc0\x03\x03" + b"\x00" * 190 + b"\r\n\r\n")
    try:
        assert client.response("GET").status == 400
    except Ended:
        pass
    assert recorded(site) == []


def test_request_cut_in_its_head_is_not_forwarded(site):
    client = site.client()
    client.send(b"GET /cut HTTP/1.1\r\nHost: test\r\n")
    client.half_close()
    until_closed(client)
    assert recorded(site) == []


@pytest.mark.parametrize("start", [
    post(b"Content-Length: 10\r\n", b"hello"), chunked(b"5\r\nhello\r\n"), chunked(b"5\r\nhel")],
    ids=["counted", "between-chunks", "in-a-chunk"])
def test_request_cut_in_its_body_is_never_made_whole(site, start):
    client = site.client()
    client.send(start)
    client.reset()
    others = recorded(site)
    assert not [r for r in others if r.complete]
    for request in others:
        assert request.connection.quiet_end.wait(PATIENCE)


def until_closed(client):
    try:
        while client.fill():
            client.buf.clear()
    except Reset:
        pass


# -- answers

OK = b"HTTP/1.1 200 OK\r\n"

BAD_ANSWERS = {
    "no HTTP": b"220 mail.test ESMTP\r\n\r\n",
    "garbage": b"\x00\x01\x02\x03\r\n\r\n",
    "other protocol": b"ICY 200 OK\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "lower case version": b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of letters": b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "NUL in the reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok",
    "field without colon": OK + b"nonsense\r\nContent-Length: 2\r\n\r\nok",
    "empty name": OK + b": x\r\nContent-Length: 2\r\n\r\nok",
    "bad byte in a name": OK + b"X(Y): x\r\nContent-Length: 2\r\n\r\nok",
    "lengths 2 and 3": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    "length list 2, 3": OK + b"Content-Length: 2, 3\r\n\r\nokk",
    "length +2": OK + b"Content-Length: +2\r\n\r\nok",
    "length -2": OK + b"Content-Length: -2\r\n\r\nok",
    "length of letters": OK + b"Content-Length: two\r\n\r\nok",
    "empty length": OK + b"Content-Length:\r\n\r\nok",
    "length of 20 digits": OK + b"Content-Length: 99999999999999999999\r\n\r\nok",
    "length and coding": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "coding and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "unknown coding": OK + b"Transfer-Encoding: cow\r\n\r\nok",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked with VT": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "101 that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nxx",
    "endless head": OK + b"X: " + b"a" * 1000000,
    "head of many fields": OK + b"X: y\r\n" * 100000,
    "end in the head": OK + b"Content-Le",
    "end before the head": b"",
}

# A field that must not be passed on raw: 502, or the answer with a blank in its place (or joined, if folded).
DIRTY_ANSWERS = {
    "NUL in a value": OK + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nok",
    "bare CR in a value": OK + b"X: a\rb\r\nContent-Length: 2\r\n\r\nok",
    "CR that hides a field": OK + b"X: a\rSet-Cookie: evil\r\nContent-Length: 2\r\n\r\nok",
    "folded value": OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "folded length": OK + b"Content-Length:\r\n 2\r\n\r\nok",
    "space before a colon": OK + b"X : a\r\nContent-Length: 2\r\n\r\nok",
    "space before the colon of the length": OK + b"Content-Length : 2\r\n\r\nok",
    "equal lengths": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "LF for line ends": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "length on 204": b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n",
    "coding on 304": b"HTTP/1.1 304 Same\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding on 204": b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
}


@table(BAD_ANSWERS)
def test_malformed_answer_is_502(site, row):
    site.backend.always(answers.raw(row, "close"))
    client = site.client()
    answer = client.ask()
    assert (answer.status, answer.complete) == (502, True)
    assert "ok" not in answer.text.split()
    site.backend.always(answers.fixed(b"ok"))
    site.fence()


def in_single_bytes(raw):
    def answer(x):
        x.body()
        for byte in raw:
            x.send(bytes([byte]))
        x.close()
    return answer


@table({name: row for name, row in BAD_ANSWERS.items() if len(row) < 300})
def test_malformed_answer_in_single_bytes_is_502(site, row):
    site.backend.always(in_single_bytes(row))
    answer = site.client().ask()
    assert (answer.status, answer.complete) == (502, True)


@table(DIRTY_ANSWERS)
def test_dirty_answer_is_502_or_cleaned(site, row):
    site.backend.answer(answers.raw(row, "keep"))
    client = site.client()
    answer = client.ask()  # the client's own parser accepts nothing dirty
    assert answer.status in (200, 204, 304, 502) and answer.complete
    assert "Set-Cookie" not in answer.fields
    if answer.status == 200:
        assert answer.body == b"ok"
    site.fence()


CUT_ANSWERS = {
    "counted": OK + b"Content-Length: 10\r\n\r\nhello",
    "between chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "in a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\na\r\nhello",
    "in a chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1",
    "before the last CRLF": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
}


@pytest.mark.parametrize("how", ["close", "reset"])
@table(CUT_ANSWERS)
def test_cut_answer_is_seen_as_cut(site, row, how):
    site.backend.always(answers.raw(row, how))
    client = site.client()
    answer = client.ask()
    assert answer.status in (200, 502)
    if answer.status == 200:
        assert not answer.complete and b"hello".startswith(answer.body)


@table(CUT_ANSWERS)
def test_cut_answer_is_seen_as_cut_by_a_1_0_client(site, row):
    """Where the end of the connection delimits the body, only RST tells a cut."""
    site.backend.always(answers.raw(row, "close"))
    answer = site.client().ask(version="1.0")
    assert answer.status in (200, 502)
    if answer.status == 200:
        assert not answer.complete
        assert answer.framing != "close" or answer.end == "rst"


def test_until_close_answer_that_ends_with_reset_is_seen_as_cut(site):
    def answer(x):
        x.send(OK + b"\r\n" + b"x" * 1000)
        x.wait(passed_on)
        x.reset()
    passed_on = threading.Event()
    site.backend.answer(answer)
    client = site.client()
    client.request()
    head = client.response_head()
    client.need(500)
    passed_on.set()
    assert not client.response_body(head).complete


@pytest.mark.parametrize("bad", [b"zz\r\n", b"-1\r\n", b"5\r\nhelloXX", b"ffffffffffffffffff\r\n", b"5\x0b\r\nhello\r\n",
                                 b"0\r\nX : y\r\n\r\n", b"5;a\rb\r\nhello\r\n0\r\n\r\n"],
                         ids=["letters", "minus", "no-crlf", "overflow", "vt", "trailer", "cr-in-ext"])
def test_bad_chunk_of_an_answer_cuts_it(site, bad):
    site.backend.answer(answers.raw(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + bad))
    answer = site.client().ask()
    assert answer.status in (200, 502)
    if answer.status == 200:
        assert not answer.complete
    assert site.backend.connections[0].quiet_end.wait(PATIENCE), "backend connection stayed open"
    site.fence()


def test_flood_of_interim_answers_is_bounded(site):
    """Passed on as fast as the client reads, or given up; never stored."""
    def answer(x):
        for _ in range(2000):
            x.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" * 100)
        answers.fixed(b"ok")(x)
    worker = site.akashd.workers()[0]
    before = worker.kb("VmRSS")
    site.backend.always(answer)
    client = site.client(rcvbuf=65536, record=False)
    client.request()
    site.backend.wait_requests(1)
    site.backend.wait(lambda b: b.blocked.is_set() or not b.connections[-1].open or not b.concurrent)
    if not is_sanitized():
        assert worker.kb("VmRSS") - before < 8192
    client.close()
    site.backend.always(answers.fixed(b"ok"))
    site.fence()


EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

SURPLUS = {
    "behind a length": ("GET", OK + b"Content-Length: 2\r\n\r\nok"),
    "behind the last chunk": ("GET", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    "behind 204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "behind 304": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 39\r\n\r\n"),
    "behind HEAD": ("HEAD", OK + b"Content-Length: 39\r\n\r\n"),
    "behind length 0": ("GET", OK + b"Content-Length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("surplus", [EVIL, b"x", b"\r\n"], ids=["an-answer", "a-byte", "an-empty-line"])
@table(SURPLUS)
def test_surplus_bytes_reach_nobody(site, row, surplus):
    method, raw = row
    site.backend.answer(answers.raw(raw + surplus))
    client = site.client()
    assert client.ask(method).status in (200, 204, 304)
    for other in (client, site.client()):
        assert other.ask(target="/next").body == b"ok"
    assert site.backend.connections[0].quiet_end.wait(PATIENCE), "the connection was kept"


def test_surplus_bytes_that_come_later_reach_nobody(site):
    client = site.client()
    assert client.ask().body == b"ok"
    pooled = site.backend.connections[0]
    pooled.wire.sock.sendall(EVIL)
    assert pooled.quiet_end.wait(PATIENCE), "an idle connection with unsolicited bytes was kept"
    for other in (client, site.client()):
        assert other.ask(target="/next").body == b"ok"
    assert len(site.backend.connections) == 2


def test_answer_that_comes_before_the_request_shifts_no_other(scripted, launch):
    """A backend that speaks first may spoil its own answer; once its surplus has come, the connection ends.

    Until it has come nothing tells such a backend from a quick one, so the next request waits for that."""
    backend = scripted(lambda x: answers.fixed(x.request.target.encode())(x),
                       on_connect=lambda c: c.wire.sock.sendall(EVIL))
    port = free_port()
    launch(http_config(port, [backend]))
    for number in range(10):
        with Client(port) as client:
            for half in ("a", "b"):
                target = f"/{number}{half}"
                answer = client.ask(target=target)
                assert answer.status == 502 or answer.body in (b"evil", target.encode())
                assert backend.connections[-1].quiet_end.wait(PATIENCE)
                if answer.closes:
                    break


def test_answer_longer_than_the_head_request_asked_for_is_not_read_as_the_next(site):
    site.backend.answer(answers.raw(OK + b"Content-Length: 42\r\n\r\n" + EVIL))
    client = site.client()
    client.send(build("HEAD", "/1") + build("GET", "/2"))
    assert client.response("HEAD").body == b""
    assert client.response("GET").body == b"ok"


def test_early_answer_then_rest_of_body_is_not_a_request(site):
    site.backend.answer(answers.early(answers.head(400, "Bad", [("Content-Length", 0)])))
    client = site.client()
    client.send(build("POST", "/x", [("Content-Length", len(SMUGGLED))]))
    assert client.response("POST").status == 400
    client.try_send(SMUGGLED)
    assert "/evil" not in [r.target for r in recorded(site)]


def test_refused_answers_to_unread_bodies_do_not_desynchronise(make_site):
    site = make_site(listener={"limits": {"body_bytes": 10}})
    client = site.client()
    client.send(build("POST", "/", body=SMUGGLED), "POST")
    answer = client.response()
    assert answer.status == 413
    if not answer.closes:
        assert client.ask(target="/next").body == b"ok"
    assert "/evil" not in [r.target for r in recorded(site)]


def test_worker_survived_it_all(plain_site):
    plain_site.akashd.assert_clean()
    assert plain_site.akashd.metrics().value("akash_worker_restarts_total") in (0, None)
    before = plain_site.akashd.metrics().value("akash_failures_total", reason="bad_request") or 0
    with plain_site.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "GET")
        assert client.response("GET").status == 400
    plain_site.akashd.wait_metric("akash_failures_total", lambda v: v == before + 1, reason="bad_request")
