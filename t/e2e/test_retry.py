# SPDX-License-Identifier: Apache-2.0
"""Retries: what is sent again, where, how often, and never twice what may not be."""

import json
import threading
import time
from collections import Counter

import pytest

from harness import PATIENCE, Client, at_pace, backend as answers, free_port, http_config, until

FAST = {"backoff": {"base": 0, "max": 0}}


def status(code, fields=()):
    return answers.fixed(b"no", status=code, reason="No", fields=fields)


@pytest.fixture
def pair(launch, scripted):
    """A daemon over two backends with this retry; .bad takes the first request of a pair, .good the next."""
    def start(retry=None, bad=None, upstream=None, n=2, **top):
        port = free_port()
        made = [scripted() for _ in range(n)]
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


@pytest.mark.parametrize("retry, state, expected", [({"attempts": 2}, "ready", 3), (False, "ready", 1), ({}, "maint", 0)])
def test_log_counts_all_attempts_also_those_that_did_not_connect(pair, tmp_path, retry, state, expected):
    log = tmp_path / "access.log"
    akashd = pair(retry, access_log={"target": str(log), "format": "json"})
    for backend in (akashd.bad, akashd.good):
        backend.refuse()
        if state == "maint":
            assert akashd.ctl("maint", f"site/{backend.address}").returncode == 0
    assert ask(akashd).status == (503 if state == "maint" else 502)
    until(lambda: log.read_text().endswith("\n"), "a line of the access log")
    assert json.loads(log.read_text())["tries"] == expected


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
    akashd = pair({"attempts": 10, "on": ["timeout"], "per_try_timeout": "150ms"}, n=1,
                  upstream={"timeouts": {"total": "700ms"}})

    def attempt(beat):
        akashd.bad.always(lambda x: (beat(), answers.stall()(x)))
        before, began = len(akashd.bad.requests), time.monotonic()
        answer = ask(akashd)
        assert answer.status == 504 and "total_timeout" in answer.text
        assert 0.6 < time.monotonic() - began < 5
        assert 3 <= len(akashd.bad.requests) - before <= 5
    at_pace(attempt, 0.3)  # so that three fit in


def test_attempts_wait_in_between(pair):
    akashd = pair({"attempts": 3, "on": ["503"], "backoff": {"base": "400ms", "max": "400ms"}}, n=1)
    times, waits = [], []
    akashd.bad.always(lambda x: (times.append(time.monotonic()), status(503)(x)))
    for _ in range(4):
        times.clear()
        assert ask(akashd).status == 503
        waits += [b - a for a, b in zip(times, times[1:])]
    # Twelve waits of 0.2 s on average, any of them from none to 0.4 s; pauses of the machine may be in some.
    assert len(waits) == 12 and sum(waits) > 0.5 and sorted(waits)[8] < 0.5, waits
    assert max(waits) - min(waits) > 0.02, "no jitter"


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


def hammer(port, seconds, clients=8, at_least=0):
    """Requests that were answered, by status; for longer where that is not enough."""
    counts, lock, end = Counter(), threading.Lock(), time.monotonic() + seconds
    last = end + PATIENCE

    def goes_on():
        now = time.monotonic()
        with lock:
            return now < end or (now < last and sum(counts.values()) < at_least)

    def run():
        with Client(port, record=False) as client:
            while goes_on():
                code = client.ask().status
                with lock:
                    counts[code] += 1
    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE + seconds)
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
    counts = hammer(akashd.port, 3, at_least=100)
    assert set(counts) == {200} and counts[200] >= 100
    assert len(akashd.bad.requests) > 0
