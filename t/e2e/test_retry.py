# SPDX-License-Identifier: Apache-2.0
"""Retries: what is sent again, where, how often, and never twice what may not be."""

import threading
import time
from collections import Counter

import pytest

from harness import PATIENCE, Client, backend as answers, free_port, http_config, until
from harness.raw import RawBackend

FAST = {"backoff": {"base": 0, "max": 0}}


def status(code, fields=()):
    return answers.fixed(b"no", status=code, reason="No", fields=fields)


@pytest.fixture
def pair(launch, scripted, request):
    """A daemon over two backends with this retry; .bad takes the first request of a pair, .good the next."""
    def start(retry=None, bad=None, upstream=None, n=2, **top):
        port = free_port()
        made = [scripted() for _ in range(n)]
        if bad is HOLE:
            made[0] = RawBackend().stuff()
            request.addfinalizer(made[0].close)
            bad = None
        akashd = launch(http_config(port, made, {
            "retry": {**FAST, **(retry if retry is not None else {})} if retry is not False else False,
            **(upstream or {})}, **top))
        akashd.port, akashd.bad, akashd.good = port, made[0], made[-1]
        if bad:
            akashd.bad.always(bad)
        return akashd
    return start


def ask(akashd, method="GET", body=None, **kw):
    with Client(akashd.port) as client:
        return client.ask(method, body=body, **kw)


# -- the fault matrix: what comes of each failure, and how often a backend was asked

REFUSE, HOLE = "refuse", "hole"
FAULTS = {
    "connect refused": REFUSE,
    "black hole": HOLE,
    "reset before the first byte": answers.reset(),
    "reset after the first byte": lambda x: (x.send(b"HTTP/1.1 200 OK\r\nContent-Le"), x.reset()),
    "slow head": answers.stall(),
    "slow body": answers.stall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
    "5xx": status(503),
    "garbage": answers.raw(b"NOT HTTP AT ALL\r\n\r\n", then="close", read=False),
}
ON_ALL = {"on": ["connect", "reset", "timeout", "502", "503", "504"]}
# fault, method: (status where retries are at their defaults, token in the log or None, retries),
#                (the same where everything is retried)
MATRIX = {
    ("connect refused", "GET"): ((200, None, 1), (200, None, 1)),
    ("connect refused", "POST"): ((200, None, 1), (200, None, 1)),
    ("black hole", "GET"): ((200, None, 1), (200, None, 1)),
    ("black hole", "POST"): ((200, None, 1), (200, None, 1)),
    ("reset before the first byte", "GET"): ((200, None, 1), (200, None, 1)),
    ("reset before the first byte", "POST"): ((502, "backend_reset", 0), (502, "backend_reset", 0)),
    ("reset after the first byte", "GET"): ((200, None, 1), (200, None, 1)),
    ("reset after the first byte", "POST"): ((502, "backend_reset", 0), (502, "backend_reset", 0)),
    ("slow head", "GET"): ((504, "response_timeout", 0), (200, None, 1)),
    ("slow head", "POST"): ((504, "response_timeout", 0), (504, "response_timeout", 0)),
    ("slow body", "GET"): ((200, "response_cut", 0), (200, "response_cut", 0)),
    ("slow body", "POST"): ((200, "response_cut", 0), (200, "response_cut", 0)),
    ("5xx", "GET"): ((503, None, 0), (200, None, 1)),
    ("5xx", "POST"): ((503, None, 0), (503, None, 0)),
    ("garbage", "GET"): ((502, "bad_response", 0), (200, None, 1)),
    ("garbage", "POST"): ((502, "bad_response", 0), (502, "bad_response", 0)),
}


@pytest.mark.parametrize("retry", [{}, ON_ALL], ids=["default", "all"])
@pytest.mark.parametrize("fault, method", MATRIX, ids=lambda x: x)
def test_fault_matrix(pair, fault, method, retry):
    want_status, token, retries = MATRIX[fault, method][retry is ON_ALL]
    akashd = pair(retry, HOLE if FAULTS[fault] is HOLE else None, upstream={"timeouts": {"connect": "300ms", "response": "300ms", "response_body": "300ms"}})
    if FAULTS[fault] is REFUSE:
        akashd.bad.refuse()
    elif FAULTS[fault] is not HOLE:
        akashd.bad.always(FAULTS[fault])
    with Client(akashd.port) as client:
        client.request(method, body=b"once" if method == "POST" else None)
        head = client.response_head()
        assert head.status == want_status
    if token:
        akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason=token)
    elif want_status == 200:
        assert sum(v for _, v in akashd.metrics().all("akash_failures_total")) == 0
    akashd.wait_metric("akash_backend_retries_total", lambda v: v == retries, backend=akashd.bad.address)
    if method == "POST":
        taken = [r for b in (akashd.bad, akashd.good) for r in getattr(b, "requests", []) if r.body]
        assert len(taken) <= 1, "a POST was sent twice"


# -- another backend first, then the same


def test_another_backend_comes_first_then_the_same_again(pair):
    akashd = pair({"attempts": 2, "on": ["503"]}, bad=status(503))
    akashd.good.always(status(503))
    assert ask(akashd).status == 503
    asked = [len(akashd.bad.requests), len(akashd.good.requests)]
    assert sorted(asked) == [1, 2]


def test_the_last_answer_is_the_clients(pair):
    akashd = pair({"attempts": 1, "on": ["502", "503"]}, bad=status(502), n=1)
    akashd.bad.answer(status(502), status(503))
    answer = ask(akashd)
    assert (answer.status, answer.body) == (503, b"no")
    assert len(akashd.bad.requests) == 2


def test_retry_false_sends_nothing_twice(pair):
    akashd = pair(False, bad=answers.reset())
    assert ask(akashd).status == 502
    akashd.bad.refuse()
    codes = Counter(ask(akashd).status for _ in range(4))
    assert codes == {200: 2, 502: 2}


def test_listed_methods_alone_are_sent_twice(pair):
    akashd = pair({"methods": ["POST"]}, bad=answers.reset())
    assert ask(akashd, "POST", b"again").status == 200
    assert [r.body for r in akashd.good.requests] == [b"again"]
    akashd.bad.fresh()
    akashd.bad.always(answers.reset())
    assert Counter(ask(akashd).status for _ in range(2)) == {200: 1, 502: 1}


# -- bodies


@pytest.mark.parametrize("size", [1, 20000, 65536])
def test_a_kept_body_is_sent_again_whole(pair, size):
    akashd = pair(bad=lambda x: (x.body(), x.reset()))
    body = bytes(i % 251 for i in range(size))
    assert ask(akashd, "PUT", body).status == 200
    assert [r.body for r in akashd.good.requests] == [body]


def test_a_body_that_was_too_large_to_keep_is_not_sent_again(pair):
    akashd = pair(bad=lambda x: (x.body(), x.reset()))
    body = b"x" * 300000
    assert ask(akashd, "PUT", body).status == 502
    assert akashd.good.requests == []


def test_a_body_in_chunks_is_sent_again_and_goes_on(pair):
    akashd = pair(bad=answers.reset())
    with Client(akashd.port) as client:
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "PUT")
        until(lambda: akashd.good.requests, "the next attempt")
        client.send(b"6\r\n world\r\n0\r\n\r\n")
        assert client.response().status == 200
    assert [r.body for r in akashd.good.requests] == [b"hello world"]


# -- time


def test_per_try_timeout_leaves_a_slow_backend(pair):
    akashd = pair({"on": ["timeout"], "per_try_timeout": "200ms"}, bad=answers.stall())
    began = time.monotonic()
    assert ask(akashd).status == 200
    assert 0.15 < time.monotonic() - began < 5


def test_total_covers_all_attempts(pair):
    akashd = pair({"attempts": 10, "on": ["timeout"], "per_try_timeout": "150ms"}, bad=answers.stall(), n=1,
                  upstream={"timeouts": {"total": "700ms"}})
    began = time.monotonic()
    answer = ask(akashd)
    assert answer.status == 504 and "total_timeout" in answer.text
    assert 0.6 < time.monotonic() - began < 3
    assert 3 <= len(akashd.bad.requests) <= 5


def test_attempts_wait_in_between(pair):
    akashd = pair({"attempts": 3, "on": ["503"], "backoff": {"base": "400ms", "max": "400ms"}}, bad=status(503), n=1)
    took = []
    for _ in range(4):
        began = time.monotonic()
        assert ask(akashd).status == 503
        took.append(time.monotonic() - began)
    assert max(took) > 0.3 and sum(took) / 4 < 1.1, took  # three waits of 0.2 s on average
    assert max(took) - min(took) > 0.02, "no jitter"


def test_a_client_that_leaves_ends_the_waiting(pair):
    akashd = pair({"attempts": 10, "on": ["503"], "backoff": {"base": "60s", "max": "60s"}}, bad=status(503), n=1)
    client = Client(akashd.port)
    client.request()
    akashd.bad.wait_requests(1)
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0)
    client.reset()
    akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="client_closed")
    akashd.wait_metric("akash_active_connections", lambda v: v == 0)


# -- the budget


def hammer(port, seconds, clients=8):
    """Requests that were answered, by status."""
    counts, lock, end = Counter(), threading.Lock(), time.monotonic() + seconds

    def run():
        with Client(port, record=False) as client:
            while time.monotonic() < end:
                code = client.ask().status
                with lock:
                    counts[code] += 1
    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE + seconds)
    return counts


def test_when_all_backends_fail_attempts_stay_within_the_budget(pair):
    akashd = pair({"attempts": 5, "on": ["503"]}, bad=status(503), n=3, workers=4)
    for backend in (akashd.bad, akashd.good):
        backend.always(status(503))
    began = time.monotonic()
    counts = hammer(akashd.port, 4)
    taken = time.monotonic() - began
    metrics = akashd.metrics()
    requests = sum(counts.values())
    retries = metrics.value("akash_backend_retries_total")
    assert set(counts) <= {200, 503}
    assert retries <= requests * 0.2 + 3 * taken + 30 + 4 * 16 * 0.2
    assert retries >= requests * 0.15
    assert metrics.value("akash_retries_refused_total") > 0


def test_clients_of_gets_see_no_error_while_one_of_three_resets_everything(pair):
    akashd = pair({"budget": {"percent": 100}}, bad=answers.reset(), n=3, workers=4)
    counts = hammer(akashd.port, 3)
    assert set(counts) == {200} and counts[200] > 100
    assert len(akashd.bad.requests) > 0
