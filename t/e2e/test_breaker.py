# SPDX-License-Identifier: Apache-2.0
"""Circuit breakers: one state for all workers, opened once, tried with exactly so many, survived by no failure."""

import json
import os
import signal
import threading
import time
from collections import Counter

import pytest

from harness import PATIENCE, Client, Gate, adopt_orphans, backend as answers, free_port, http_config, until

CLOSED, HALF_OPEN, OPEN = 0, 1, 2
FAILING = answers.fixed(b"no", status=500, reason="No")
RULES = {"open_for": "500ms", "min_requests": 1000}


@pytest.fixture
def guarded(launch, scripted):
    """A daemon whose upstream has this breaker; n backends, .sick is the first."""
    def start(rules=None, n=2, workers=4, **upstream):
        port = free_port()
        made = [scripted() for _ in range(n)]
        config = http_config(port, made, {"circuit_breaker": {**RULES, **(rules or {})}, "retry": False, **upstream},
                             workers=workers)
        akashd = launch(config)
        akashd.config, akashd.port, akashd.sick, akashd.made = config, port, made[0], made
        return akashd
    return start


def ask(akashd, count=1):
    """Each over a connection of its own, so that every worker has its part."""
    codes = Counter()
    for _ in range(count):
        with Client(akashd.port, record=False) as client:
            codes[client.ask().status] += 1
    return codes


def state(akashd, backend=None):
    return akashd.metrics().value("akash_breaker_state", backend=(backend or akashd.sick).address)


def lines(akashd, words):
    return [line for line in akashd.log if words in line]


def trip(akashd):
    akashd.sick.always(FAILING)
    until(lambda: ask(akashd, 2) and state(akashd) == OPEN, "the breaker to open")


def test_it_opens_once_lets_exactly_three_through_and_closes(guarded):
    akashd = guarded({"open_for": "4s"})
    trip(akashd)
    assert len(akashd.sick.requests) == 5  # failures in a row
    assert ask(akashd, 20) == {200: 20}  # the other one serves
    gate = Gate()
    akashd.sick.always(gate.hold())
    before = len(akashd.sick.requests)
    until(lambda: state(akashd) == HALF_OPEN, "half-open")
    clients = [Client(akashd.port) for _ in range(24)]
    for client in clients:
        client.request()
    gate.wait_waiting(3)
    until(lambda: akashd.metrics().value("akash_backend_served_total", backend=akashd.made[1].address) >= 21,
          "all the others to be served by the other one")
    assert len(akashd.sick.requests) - before == 3
    gate.release()
    for client in clients:
        assert client.response().status == 200
        client.close()
    until(lambda: state(akashd) == CLOSED, "the breaker to close")
    assert len(lines(akashd, "breaker opens")) == 1
    assert len(lines(akashd, "breaker is half-open")) == 1
    assert len(lines(akashd, "breaker closes")) == 1
    assert akashd.metrics().value("akash_breaker_trips_total", backend=akashd.sick.address) == 1
    assert len(akashd.sick.requests) - before == 3 or ask(akashd, 4)


def test_a_failed_probe_opens_it_again_for_longer(guarded):
    akashd = guarded({"open_for": "300ms", "half_open_requests": 1})
    trip(akashd)
    until(lambda: ask(akashd, 2) and len(lines(akashd, "breaker opens")) >= 3, "relapses")
    waits = [int(line.split("opens for ")[1].split(" ms")[0]) for line in lines(akashd, "breaker opens")][:3]
    # What is left of it when that is said: most of it, unless the machine paused just then.
    assert [-(-w // 100) for w in waits] == [3, 6, 12], waits


def why_it_opened(akashd):
    return [line.split(" ms: ")[1] for line in lines(akashd, "breaker opens")]


def test_the_log_tells_failed_probes_from_requests(guarded):
    akashd = guarded({"open_for": "2s", "half_open_requests": 2}, n=1)
    trip(akashd)
    until(lambda: state(akashd) == HALF_OPEN, "half-open")
    akashd.sick.answer(answers.fixed(b"ok"), FAILING)
    before = len(why_it_opened(akashd))
    until(lambda: ask(akashd) and len(why_it_opened(akashd)) > before, "a relapse")
    why = why_it_opened(akashd)
    assert why[0] == "5 of 5 requests failed" and why[before:] == ["a probe failed, 1 of 2 went well"]
    akashd.wait_metric("akash_breaker_trips_total", lambda v: v == len(why), backend=akashd.sick.address)


def test_the_log_tells_of_probes_that_were_not_heard_of(guarded):
    akashd = guarded({"open_for": "2s", "half_open_requests": 1}, n=1)
    trip(akashd)
    gate = Gate()
    until(lambda: state(akashd) == HALF_OPEN, "half-open")
    akashd.sick.answer(gate.hold())
    before = len(why_it_opened(akashd))
    with Client(akashd.port) as client:
        client.request()
        gate.wait_waiting(1)
        until(lambda: ask(akashd) and len(why_it_opened(akashd)) > before, "the end of half-open")
        gate.release()
        assert client.response().status == 200
    assert why_it_opened(akashd)[before] == "only 0 of 1 probes went well in time"


def switch(x):
    """The answer to an upgrade; what follows is an echo until the client leaves."""
    x.body()
    x.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
    answers.tcp_echo(x.connection)


def test_an_upgrade_is_a_probe_that_went_well(guarded):
    akashd = guarded({"open_for": "500ms", "half_open_requests": 2}, n=1)
    trip(akashd)
    akashd.sick.always(switch)
    until(lambda: state(akashd) == HALF_OPEN, "half-open")
    clients = [Client(akashd.port) for _ in range(2)]
    for client in clients:
        client.request(fields=[("Connection", "Upgrade"), ("Upgrade", "echo")])
        assert client.response_head().status == 101
    until(lambda: state(akashd) == CLOSED, "the breaker to close while the tunnels last")
    for client in clients:
        client.close()


def test_a_probe_whose_connection_had_died_is_still_a_probe(guarded):
    akashd = guarded({"open_for": "500ms", "half_open_requests": 1}, n=1, workers=1)
    trip(akashd)
    akashd.sick.always(answers.fixed(b"ok"))
    akashd.sick.answer(answers.close())  # the connection that lay idle
    until(lambda: state(akashd) == HALF_OPEN, "half-open")
    before = len(akashd.sick.requests)
    assert ask(akashd) == {200: 1}
    assert len(akashd.sick.requests) - before == 2
    until(lambda: lines(akashd, "breaker closes"), "the breaker to close")


def test_the_error_rate_opens_it(guarded):
    akashd = guarded({"consecutive": 0, "min_requests": 20, "error_percent": 50})
    count = iter(range(10000))
    akashd.sick.always(lambda x: (FAILING if next(count) % 3 else answers.fixed(b"ok"))(x))
    until(lambda: ask(akashd, 4) and state(akashd) == OPEN, "the breaker to open")
    assert 19 <= len(akashd.sick.requests) <= 24


def test_few_failures_leave_it_closed(guarded):
    akashd = guarded({"consecutive": 0, "min_requests": 20, "error_percent": 50})
    count = iter(range(10000))
    akashd.sick.always(lambda x: (answers.fixed(b"ok") if next(count) % 3 else FAILING)(x))
    ask(akashd, 120)
    assert state(akashd) == CLOSED


@pytest.mark.parametrize("fault", ["connect", "reset", "timeout"])
def test_failures_of_the_connection_count_too(guarded, fault):
    akashd = guarded(timeouts={"response": "100ms"}, retry={"backoff": {"base": 0, "max": 0}, "on": ["connect", "reset",
                                                                                                  "timeout"]})
    if fault == "connect":
        akashd.sick.refuse()
    else:
        akashd.sick.always(answers.reset() if fault == "reset" else answers.stall())
    until(lambda: ask(akashd, 2) and state(akashd) == OPEN, "the breaker to open")


@pytest.mark.parametrize("n", [2, 3])
def test_a_backend_that_has_become_slow_is_out(guarded, n):
    akashd = guarded({"latency_factor": 10}, n=n)
    ask(akashd, 30)

    def slow(x):
        x.body()
        time.sleep(0.3)  # this backend's work
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
    akashd.sick.always(slow)
    until(lambda: ask(akashd, 3) and state(akashd) == OPEN, "the breaker to open")


def test_no_more_than_so_many_are_out_at_a_time(guarded):
    akashd = guarded({"open_for": "60s", "max_ejected_percent": 50}, n=4)
    for backend in akashd.made:
        backend.always(FAILING)
    ask(akashd, 100)
    assert sum(state(akashd, b) == OPEN for b in akashd.made) == 2
    assert set(ask(akashd, 8)) == {500}


def test_one_may_always_be_out_and_the_answer_says_why(guarded):
    akashd = guarded({"open_for": "60s"}, n=1)
    trip(akashd)
    with Client(akashd.port) as client:
        answer = client.ask()
        assert answer.status == 503 and "breaker_open" in answer.text
    akashd.wait_metric("akash_failures_total", lambda v: v >= 1, reason="breaker_open")


def test_fail_open_sends_all_the_same(guarded):
    akashd = guarded({"open_for": "60s"}, n=1, fail_open=True)
    trip(akashd)
    akashd.sick.always(answers.fixed(b"ok"))
    assert ask(akashd, 5) == {200: 5}


def test_it_survives_a_reload_and_the_death_of_a_worker(guarded):
    akashd = guarded({"open_for": "60s"}, workers=2)
    trip(akashd)
    seen = len(akashd.sick.requests)
    akashd.config["upstreams"]["site"]["keepalive"] = {"connections": 7}
    akashd.reload(akashd.config)
    assert state(akashd) == OPEN
    victim = akashd.workers()[0]
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: 0 in (now := akashd.workers()) and now[0].pid != victim.pid, "a successor")
    assert state(akashd) == OPEN
    assert ask(akashd, 20) == {200: 20}
    assert len(akashd.sick.requests) == seen
    status = akashd.get("/status.json")
    assert status[0] == 200 and '"breaker"' in status[1]


def test_a_probe_that_dies_with_its_worker_leaks_nothing(guarded):
    akashd = guarded({"open_for": "700ms", "half_open_requests": 1}, workers=2)
    trip(akashd)
    gate = Gate()
    akashd.sick.always(gate.hold())
    clients = []

    def caught():
        clients.append(Client(akashd.port))
        clients[-1].request()
        return gate.waiting
    until(caught, "a probe to wait at the backend")
    for process in akashd.workers().values():
        os.kill(process.pid, signal.SIGKILL)
    akashd.sick.always(answers.fixed(b"ok"))
    gate.release()
    until(lambda: len(akashd.workers()) == 2, "successors")

    def recovered():
        try:
            ask(akashd, 2)
        except OSError:
            return False
        return state(akashd) == CLOSED
    until(recovered, "the breaker to close", deadline=20)
    for client in clients:
        client.close()


def test_without_one_there_is_no_state(launch, scripted):
    port = free_port()
    backend = scripted(FAILING)
    akashd = launch(http_config(port, [backend]))
    threads = [threading.Thread(target=lambda: Client(port).ask()) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert akashd.metrics().value("akash_breaker_state") is None
    with Client(port) as client:
        assert client.ask().status == 500


# -- what operators say

def tell(akashd, what, backend=None):
    done = akashd.ctl("breaker", what, f"site/{(backend or akashd.sick).address}")
    assert done.returncode == 0, done.stderr


def shown(akashd):
    """The sick backend as /status.json has it."""
    status = json.loads(akashd.ctl("-j", "status").stdout)["status"]
    return next(b for up in status["upstreams"] for b in up["backends"] if b["id"] == akashd.sick.address)


@pytest.fixture
def plain(launch, scripted):
    """The same without a breaker in the file; two backends, four workers."""
    def start(**upstream):
        port = free_port()
        made = [scripted() for _ in range(2)]
        config = http_config(port, made, {"retry": False, **upstream}, workers=4)
        akashd = launch(config)
        akashd.config, akashd.port, akashd.sick, akashd.made = config, port, made[0], made
        return akashd
    return start


def test_opened_by_hand_is_sent_nothing_until_revoked(plain):
    """Over a reload, the death of every worker, and an upgrade; without a breaker in the file."""
    akashd = plain()
    assert ask(akashd, 8) == {200: 8} and len(akashd.sick.requests) == 4
    assert "breaker" not in shown(akashd)
    before = len(akashd.log)
    tell(akashd, "open")
    assert akashd.wait_log("breaker open, says the operator", since=before)
    assert ask(akashd, 20) == {200: 20}
    assert shown(akashd)["breaker"] == "open" and shown(akashd)["usable"] is False
    assert shown(akashd)["operator"] == {"breaker": {"file": "auto", "operator": "open"}}
    assert state(akashd) == OPEN
    akashd.config["upstreams"]["site"]["keepalive"] = {"connections": 7}
    akashd.reload(akashd.config)
    for index, worker in akashd.workers().items():
        os.kill(worker.pid, signal.SIGKILL)
        until(lambda: index in (now := akashd.workers()) and now[index].pid != worker.pid, "a successor")
    assert ask(akashd, 20) == {200: 20}
    adopt_orphans()
    akashd.upgrade()
    until(lambda: state(akashd) == OPEN, "the metrics of the new one")
    assert ask(akashd, 20) == {200: 20}
    assert len(akashd.sick.requests) == 4
    tell(akashd, "auto")
    assert ask(akashd, 20) == {200: 20} and len(akashd.sick.requests) > 4
    assert "operator" not in shown(akashd) and "breaker" not in shown(akashd)


def test_opened_by_hand_has_its_reason_everywhere(plain):
    akashd = plain()
    for backend in akashd.made:
        tell(akashd, "open", backend)
    with Client(akashd.port) as client:
        answer = client.ask()
        assert answer.status == 503 and "breaker_open" in answer.text
    akashd.wait_metric("akash_failures_total", lambda v: v >= 1, reason="breaker_open")
    assert "breaker open by the operator; the file: auto" in akashd.ctl("status").stdout
    place = f"upstreams.site.backends[{akashd.sick.address}].breaker"
    assert f"! {place}: the file says auto, the operator open" in akashd.ctl("diff").stdout
    told = akashd.ctl("explain", f"http://127.0.0.1:{akashd.port}/").stdout
    assert told.count("its breaker is open, says the operator") == 2 and "breaker_open" in told
    assert akashd.get("/readyz?upstream=site")[0] == 503


@pytest.mark.parametrize("word", ["drain", "breaker open"])
def test_fail_open_does_not_go_over_an_operators_word(plain, word):
    akashd = plain(fail_open=True)
    for backend in akashd.made:
        assert akashd.ctl(*word.split(), f"site/{backend.address}").returncode == 0
    assert ask(akashd, 8) == {503: 8}
    assert not any(b.requests for b in akashd.made)


def test_closed_by_hand_is_never_out(guarded):
    akashd = guarded({"open_for": "60s"})
    tell(akashd, "close")
    akashd.sick.always(FAILING)
    counts = ask(akashd, 60)
    assert counts == {500: 30, 200: 30}
    assert shown(akashd)["breaker"] == "closed" and not lines(akashd, "breaker opens")


def test_closing_by_hand_brings_one_back_and_auto_begins_anew(guarded):
    akashd = guarded({"open_for": "60s"})
    trip(akashd)
    tell(akashd, "close")
    seen = len(akashd.sick.requests)
    assert ask(akashd, 40) == {500: 20, 200: 20}
    tell(akashd, "auto")
    assert shown(akashd)["breaker"] == "closed"  # not what it was before
    until(lambda: ask(akashd, 2) and shown(akashd)["breaker"] == "open", "the breaker to open")
    assert len(akashd.sick.requests) - seen == 25  # five in a row, counted from auto on
    assert len(lines(akashd, "breaker opens")) == 2


def test_opened_by_hand_is_not_half_open_after_a_while(guarded):
    akashd = guarded({"open_for": "100ms"})
    trip(akashd)
    tell(akashd, "open")
    akashd.sick.always(answers.fixed(b"ok"))
    seen = len(akashd.sick.requests)
    until(lambda: state(akashd) == OPEN, "the operator's word in the metrics")
    time.sleep(0.3)  # longer than it would be open by itself
    assert ask(akashd, 20) == {200: 20} and len(akashd.sick.requests) == seen
    tell(akashd, "auto")
    assert ask(akashd, 20) == {200: 20} and len(akashd.sick.requests) > seen
