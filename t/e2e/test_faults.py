# SPDX-License-Identifier: Apache-2.0
"""The fault matrix: what comes of each failure of a backend, over every version of HTTP on either side.

A cell is (fault, method); what it says holds for every way from a client to a backend. After each the log line tells
the status and the token, and the metric how often the request was sent again.
"""

import json
import threading
from dataclasses import dataclass

import pytest
from h2.errors import ErrorCodes
from harness import BACKS, FRONTS, PATIENCE, Way, free_port, http_config, until
from harness import backend as answers
from harness.h2frames import block, headers
from harness.raw import RawBackend

WAYS = [Way(front, back) for front in FRONTS[::2] for back in BACKS]  # HTTP/1 and HTTP/2 to each back
ALL = {"on": ["connect", "reset", "timeout", "502", "503", "504"]}
REFUSE, HOLE = "refuse", "hole"


@dataclass
class Cell:
    """What the client gets and what is told of it."""

    status: int
    token: str
    retries: int


OK = Cell(200, "", 0)
AGAIN = Cell(200, "", 1)
RESET = Cell(502, "backend_reset", 0)
GARBAGE = Cell(502, "bad_response", 0)
SLOW = Cell(504, "response_timeout", 0)
CUT = Cell(200, "response_cut", 0)
BAD = Cell(503, "", 0)

# Faults of both versions: (fault, method) -> with retries at their defaults, with everything retried.
MATRIX = {
    ("connect refused", "GET"): (AGAIN, AGAIN),
    ("connect refused", "POST"): (AGAIN, AGAIN),
    ("black hole", "GET"): (AGAIN, AGAIN),
    ("black hole", "POST"): (AGAIN, AGAIN),
    ("reset before the first byte", "GET"): (AGAIN, AGAIN),
    ("reset before the first byte", "POST"): (RESET, RESET),
    ("reset after the first byte", "GET"): (AGAIN, AGAIN),
    ("reset after the first byte", "POST"): (RESET, RESET),
    ("reset in the body", "GET"): (CUT, CUT),
    ("reset in the body", "POST"): (CUT, CUT),
    ("slow head", "GET"): (SLOW, AGAIN),
    ("slow head", "POST"): (SLOW, SLOW),
    ("slow body", "GET"): (CUT, CUT),
    ("slow body", "POST"): (CUT, CUT),
    ("5xx", "GET"): (BAD, AGAIN),
    ("5xx", "POST"): (BAD, BAD),
    ("garbage", "GET"): (GARBAGE, AGAIN),
    ("garbage", "POST"): (GARBAGE, GARBAGE),
}
# Faults that HTTP/2 alone has. What the backend says it did not process is sent again, which is no attempt (RFC 9113 8.7).
MATRIX_OF_2 = {
    ("refused stream", "GET"): (OK, OK),
    ("refused stream", "POST"): (OK, OK),
    ("reset stream", "GET"): (AGAIN, AGAIN),
    ("reset stream", "POST"): (RESET, RESET),
    ("GOAWAY without the stream", "GET"): (OK, OK),
    ("GOAWAY without the stream", "POST"): (OK, OK),
    ("GOAWAY, then the answer", "GET"): (OK, OK),
    ("GOAWAY, then the answer", "POST"): (OK, OK),
    ("GOAWAY, then the end", "GET"): (AGAIN, AGAIN),
    ("GOAWAY, then the end", "POST"): (RESET, RESET),
    ("malformed answer", "GET"): (GARBAGE, AGAIN),
    ("malformed answer", "POST"): (GARBAGE, GARBAGE),
}

PARTIAL = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
MALFORMED = block([(":status", "200"), ("Upper-Case", "is malformed")])


def reset_after_first_byte(x):
    """In the midst of the head, whatever that looks like."""
    head = b"HTTP/1.1 200 OK\r\nContent-Le"
    x.put(headers(x.stream.id, block([(":status", "200")]))[:12] if x.request.version == "2" else head)
    x.reset()


def go_away(x, then, last=None):
    x.connection.go_away(last)
    then(x)


FAULTS = {
    "connect refused": REFUSE,
    "black hole": HOLE,
    "reset before the first byte": answers.reset(),
    "reset after the first byte": reset_after_first_byte,
    "reset in the body": lambda x: (x.send(PARTIAL), x.reset()),
    "slow head": answers.stall(),
    "slow body": answers.stall(PARTIAL),
    "5xx": answers.fixed(b"no", status=503, reason="No"),
    "garbage": lambda x: (x.body(), x.put(b"NOT HTTP AT ALL\r\n\r\n"), x.wait(threading.Event())),
    "refused stream": lambda x: x.cancel(ErrorCodes.REFUSED_STREAM),
    "reset stream": lambda x: x.cancel(ErrorCodes.INTERNAL_ERROR),
    "GOAWAY without the stream": lambda x: go_away(x, answers.stall(), last=0),
    "GOAWAY, then the answer": lambda x: go_away(x, answers.fixed(b"ok")),
    "GOAWAY, then the end": lambda x: go_away(x, answers.close()),
    "malformed answer": lambda x: x.put(headers(x.stream.id, MALFORMED)),
}
# Only what does not move is short, and what the good backend needs thereafter is longer: the machine may be busy.
SHORT = {"black hole": {"connect": "300ms"}, "slow head": {"response": "300ms"},
         "slow body": {"response_body": "300ms"}}
SECOND = {"slow head": {"response": "1s"}}


@pytest.fixture
def broken(launch, request, tmp_path):
    """A daemon over two backends of a way, of which the one that is asked first has the fault."""
    def start(way, fault, retry, is_made_good):
        made = [way.back.backend(), way.back.backend()]
        for backend in made:
            request.addfinalizer(backend.close)
        if FAULTS[fault] is REFUSE:
            made[0].refuse()
        elif FAULTS[fault] is HOLE:
            made[0] = RawBackend().stuff()
            request.addfinalizer(made[0].close)
        else:
            made[0].always(FAULTS[fault])
        port = free_port()
        upstream = {**way.back.upstream(), "retry": {"backoff": {"base": 0, "max": 0}, **retry}}
        if fault in SHORT:
            upstream["timeouts"] = (SECOND if is_made_good else SHORT).get(fault, SHORT[fault])
        akashd = launch(http_config(port, made, upstream, way.front.listener(),
                                    access_log={"target": str(tmp_path / "access.log"), "format": "json"}))
        akashd.port, akashd.backends = port, made
        return akashd
    yield start


def line_of(path):
    """The one line of the access log."""
    def read():
        return path.exists() and path.read_text().splitlines()
    lines = until(read, "a line of the access log", PATIENCE)
    assert len(lines) == 1
    return json.loads(lines[0])


def show_cell(broken, tmp_path, way, fault, method, want, retry):
    akashd = broken(way, fault, retry, want == AGAIN)
    with way.front.connect(akashd.port) as client:
        answer = client.ask(method, body=b"once" if method == "POST" else None)
        line = line_of(tmp_path / "access.log")
        got = Cell(answer.status, line["reason"], line["tries"] - 1)
        assert got == want
        assert answer.complete == (want != CUT)
    assert line["status"] == want.status
    address = akashd.backends[0].address
    assert akashd.metrics().value("akash_backend_retries_total", backend=address) == want.retries
    failures = {labels["reason"]: v for labels, v in akashd.metrics().all("akash_failures_total") if v}
    assert failures == ({want.token: 1} if want.token else {})
    taken = [r for b in akashd.backends for r in getattr(b, "requests", []) if r.body]
    said_unprocessed = fault in ("refused stream", "GOAWAY without the stream")
    assert method != "POST" or len(taken) <= 1 + said_unprocessed, "a POST was sent twice"


def by_name(value):
    return value.name if isinstance(value, Way) else value


@pytest.mark.parametrize("retry", [{}, ALL], ids=["default", "all"])
@pytest.mark.parametrize("way", WAYS, ids=by_name)
@pytest.mark.parametrize("fault, method", MATRIX, ids=by_name)
def test_fault(broken, tmp_path, way, fault, method, retry):
    show_cell(broken, tmp_path, way, fault, method, MATRIX[fault, method][retry is ALL], retry)


@pytest.mark.parametrize("retry", [{}, ALL], ids=["default", "all"])
@pytest.mark.parametrize("way", [w for w in WAYS if w.back.version == 2], ids=by_name)
@pytest.mark.parametrize("fault, method", MATRIX_OF_2, ids=by_name)
def test_fault_of_http2(broken, tmp_path, way, fault, method, retry):
    show_cell(broken, tmp_path, way, fault, method, MATRIX_OF_2[fault, method][retry is ALL], retry)
