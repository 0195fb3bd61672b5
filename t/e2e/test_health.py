# SPDX-License-Identifier: Apache-2.0
"""Health checks: what they ask, what they find, how soon, and what survives what."""

import json
import re
import signal
import socket
import threading
import time

import pytest
from harness import BACKS, Client, free_port, http_config, until
from harness.backend import chunked, close, fixed, raw, reset, stall

INTERVAL, TIMEOUT, RISE, FALL, JITTER = 0.2, 0.2, 2, 3, 0.1
# The promise, and what a busy machine, or a pause of it, may add to it.
BOUND = FALL * (INTERVAL * (1 + JITTER) + TIMEOUT)
SLACK = 3.0


def check(**more):
    return {"health_check": {"type": "http", "path": "/health", "interval": "200ms", "timeout": "200ms",
                             "rise": RISE, "fall": FALL, **more}}


def tcp_check(**more):
    return {"health_check": {"type": "tcp", "interval": "200ms", "timeout": "200ms",
                             "rise": RISE, "fall": FALL, **more}}


def states(akashd):
    """{backend id: its object of /status.json}"""
    status, text = akashd.get("/status.json")
    assert status == 200, text
    return {b["id"]: b for u in json.loads(text)["upstreams"] for b in u["backends"]}


def wait_state(akashd, backend, state, deadline=10):
    """Wait for the log line about the change; /status.json may be a second old."""
    return akashd.wait_log(rf"backend site/{re.escape(backend.address)} \w+ -> {state}: ", deadline)


class Checked:
    """A kind of backend, and checks that speak as it does."""

    def __init__(self, back, later):
        self.back, self.later = back, later

    def __call__(self, answer=None):
        made = self.back.backend(answer)
        self.later(made.close)
        return made

    def check(self, **more):
        return {**check(**more), **self.back.upstream()}


def by_name(value):
    return getattr(value, "name", None)


@pytest.fixture(params=BACKS, ids=by_name)
def backs(request):
    return Checked(request.param, request.addfinalizer)


@pytest.fixture(params=BACKS[::2], ids=by_name)
def plain_backs(request):
    return Checked(request.param, request.addfinalizer)


class BlackHole:
    """A socket that is connected to by the kernel and never answers."""

    def __init__(self):
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(4096)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"

    def close(self):
        self.socket.close()


@pytest.fixture
def hole():
    made = BlackHole()
    yield made
    made.close()


def test_new_backend_that_answers_is_up_after_one_check(launch, scripted):
    good = scripted()
    akashd = launch(http_config(free_port(), [good], check()))
    assert "unknown -> up: 1 success" in wait_state(akashd, good, "up")


def test_black_hole_and_closed_port_are_found_at_once(launch, scripted, hole):
    good, closed = scripted(), scripted()
    closed.refuse()
    akashd = launch(http_config(free_port(), [good, hole, closed], check()))
    assert "1 failure, last: answer timeout" in wait_state(akashd, hole, "down")
    assert "1 failure, last: connect refused" in wait_state(akashd, closed, "down")
    wait_state(akashd, good, "up")


@pytest.mark.parametrize("fault,why", [
    ("stall", ["answer timeout"] * 2), ("refuse", ["connect refused"] * 2),
    # in HTTP/2 SETTINGS have come, and who closes before he has read what we say to them resets
    ("close", ["closed without an answer", "the answer was cut|answer: Connection reset by peer"]),
    ("cut", ["the answer was cut", "the answer was cut|answer: Connection reset by peer"]),
    ("reset", ["answer: Connection reset by peer"] * 2), ("500", ["status 500"] * 2),
    ("garbage", ["malformed answer"] * 2), ("drip", ["answer timeout"] * 2),
], ids=by_name)
def test_fault_is_found_in_time_and_the_backend_comes_back(launch, plain_backs, fault, why):
    faults = {"stall": stall(), "close": close(), "reset": reset(), "500": fixed(b"", 500),
              "garbage": lambda x: (x.put(b"no http at all\r\n\r\n"), x.wait(threading.Event())),
              "cut": raw(b"HTTP/1.1 200 OK\r\nA", "close"),
              "drip": stall(b"HTTP/1.1 200 OK\r\nX-Slow: ")}
    good = plain_backs()
    # a busy machine may be late with what is told at once
    patient = {} if fault in ("stall", "drip") else {"timeout": "5s"}
    akashd = launch(http_config(free_port(), [good], plain_backs.check(**patient)))
    wait_state(akashd, good, "up")
    if fault == "refuse":
        good.refuse()
    else:
        good.always(faults[fault])
    began = time.monotonic()
    line = wait_state(akashd, good, "down")
    assert time.monotonic() - began < BOUND + SLACK
    assert any(f"up -> down: {FALL} failures, last: {one}" in line for one in why[plain_backs.back.version - 1].split("|"))
    before = len(akashd.log)
    if fault == "refuse":
        good.accept_again()
    good.always(fixed(b"ok"))
    line = akashd.wait_log(r"down -> up: ", since=before)
    assert f"down -> up: {RISE} successes" in line


def test_fewer_failures_than_fall_change_nothing(launch, backs):
    good, bad, ok = backs(), fixed(b"", 503), fixed(b"ok")
    akashd = launch(http_config(free_port(), [good], backs.check(timeout="10s")))  # no failure but those below
    wait_state(akashd, good, "up")
    good.answer(bad, bad, ok, bad, bad, ok)
    good.wait(lambda b: not b.script, "six checks")
    good.wait_requests(len(good.requests) + 2)
    assert not [line for line in akashd.log if "-> down" in line]
    good.answer(bad, bad, bad, ok, bad)
    wait_state(akashd, good, "down")
    good.wait(lambda b: not b.script, "the success between failures")
    assert not [line for line in akashd.log if "down -> up" in line]


def test_down_backend_gets_no_request_and_an_upstream_without_any_answers_503(launch, scripted, hole):
    good = scripted()
    port = free_port()
    akashd = launch(http_config(port, [good, hole], check()))
    wait_state(akashd, hole, "down")
    with Client(port) as client:
        for _ in range(10):
            assert client.ask(target="/served").status == 200
    good.always(fixed(b"", 500))
    wait_state(akashd, good, "down")
    with Client(port) as client:
        answer = client.ask()
    assert answer.status == 503 and "no_backend" in answer.text


def test_check_asks_as_configured(launch, backs):
    good = backs()
    akashd = launch(http_config(free_port(), [good], backs.check(path="/up?deep=1", host="site.example",
                                                           method="HEAD")))
    wait_state(akashd, good, "up")
    request = good.requests[0]
    version = {1: "1.1", 2: "2"}[backs.back.version]
    assert (request.method, request.target, request.version) == ("HEAD", "/up?deep=1", version)
    assert request.fields.all("Host") == ["site.example"]
    assert request.fields.tokens("Connection") == ["close"] * (version == "1.1")
    assert not good.malformed


def test_check_goes_to_its_own_port(launch, backs):
    serving, checked = backs(), backs()
    akashd = launch(http_config(free_port(), [serving], backs.check(port=checked.port)))
    wait_state(akashd, serving, "up")
    assert [r.target for r in checked.requests[:1]] == ["/health"]
    assert serving.requests == []
    checked.refuse()
    wait_state(akashd, serving, "down")


def test_expected_statuses(launch, backs):
    teapot, fine = backs(fixed(b"", 418)), backs()
    akashd = launch(http_config(free_port(), [teapot, fine], backs.check(expect="418")))
    wait_state(akashd, teapot, "up")
    assert "last: status 200" in wait_state(akashd, fine, "down")


@pytest.mark.parametrize("answer,is_up", [
    (fixed(b"all systems go"), True), (chunked([b"all sys", b"tems go"]), True),
    (fixed(b"all systems stop"), False), (fixed(b""), False),
    (fixed(b"x" * 70000 + b"systems go"), False),
], ids=["fixed", "chunked", "other", "empty", "far"])
def test_body_has_the_text(launch, backs, answer, is_up):
    backend = backs(answer)
    akashd = launch(http_config(free_port(), [backend], backs.check(body="systems go")))
    wait_state(akashd, backend, "up" if is_up else "down")


def test_tcp_check_and_unix_backend(launch, scripted, tmp_path):
    tmp_path.chmod(0o755)
    for folder in list(tmp_path.parents)[:3]:
        if "pytest" in str(folder):  # by several processes one folder more lies between
            folder.chmod(0o755)
    plain, local = scripted(), scripted(unix=str(tmp_path / "backend.sock"))
    akashd = launch(http_config(free_port(), [plain, local], tcp_check()))
    wait_state(akashd, plain, "up")
    wait_state(akashd, local, "up")
    plain.refuse()
    local.refuse()
    assert "last: connect refused" in wait_state(akashd, plain, "down")
    wait_state(akashd, local, "down")


def test_passive_failure_hurries_the_next_check(launch, scripted):
    backend, other = scripted(), scripted()
    port = free_port()
    akashd = launch(http_config(port, [backend, other],
                                check(interval="60s", fall=2)))
    wait_state(akashd, backend, "up")
    wait_state(akashd, other, "up")
    backend.kill()
    began = time.monotonic()

    def is_down():
        with Client(port) as client:
            client.ask()
        return any("-> down" in line for line in akashd.log)
    until(is_down, "the hurried checks", 10, 0.02)
    assert time.monotonic() - began < 5


def test_health_off_is_usable_whatever_the_backend_does(launch, scripted):
    closed = scripted()
    closed.refuse()
    akashd = launch(http_config(free_port(), [closed], {"health_check": False}))
    assert states(akashd)[closed.address]["health"] == "off"
    assert akashd.get("/readyz?all")[0] == 200
    assert akashd.metrics().value("akash_backend_up", backend=closed.address) == 1


def test_states_survive_the_monitor(launch, scripted, hole):
    good = scripted()
    akashd = launch(http_config(free_port(), [good, hole], check()))
    wait_state(akashd, good, "up")
    wait_state(akashd, hole, "down")
    old, before = akashd.monitor(), len(akashd.log)
    passed = akashd.metrics().value("akash_backend_checks_total", backend=good.address)
    old.kill(signal.SIGKILL)
    until(lambda: (m := akashd.monitor()) and m.pid != old.pid, "a new monitor", 3)
    until(lambda: akashd.get("/livez", missing=(0, ""))[0] == 200, "its port", 5)
    found = states(akashd)
    assert (found[good.address]["health"], found[hole.address]["health"]) == ("up", "down")
    count = len(good.requests)
    good.wait_requests(count + 3)
    assert akashd.metrics().value("akash_backend_checks_total", backend=good.address) >= passed
    assert not [line for line in akashd.log[before:] if " -> " in line]


def test_states_survive_a_reload(launch, scripted, hole):
    good, fresh = scripted(), scripted()
    port = free_port()
    akashd = launch(http_config(port, [good, hole], check()))
    wait_state(akashd, good, "up")
    wait_state(akashd, hole, "down")
    before = len(akashd.log)
    akashd.reload(http_config(port, [fresh, hole, good], check(rise=3)))
    wait_state(akashd, fresh, "up")
    found = states(akashd)
    assert (found[good.address]["health"], found[hole.address]["health"]) == ("up", "down")
    assert len([line for line in akashd.log[before:] if " -> " in line]) == 1


def test_reloads_do_not_starve_a_slow_check(launch, scripted):
    good = scripted()
    port = free_port()
    config = http_config(port, [good], check(timeout="400ms"))
    akashd = launch(config)
    wait_state(akashd, good, "up")
    good.always(stall())
    end = time.monotonic() + 10
    for weight in range(1, 200):
        config["upstreams"]["site"]["backends"][0]["weight"] = weight
        akashd.reload(config)
        if any("up -> down" in line for line in akashd.log):
            return
        assert time.monotonic() < end, "the black hole was never found"


def test_thousands_of_backends_are_checked(launch, scripted, hole):
    good = scripted()
    holes = [{"id": f"hole{i}", "address": hole.address} for i in range(1500)]
    akashd = launch(http_config(free_port(), [*holes, {"id": "good", "address": good.address}],
                                check(interval="2s")))
    akashd.wait_log(r"backend site/good unknown -> up", 15)
    until(lambda: sum("-> down: 1 failure, last: answer timeout" in line for line in akashd.log) == 1500,
          "every black hole", 20, 0.1)
    assert not [line for line in akashd.log if "site/good up -> down" in line]


def test_server_of_http1_is_no_backend_of_http2(launch, scripted):
    plain = scripted()
    akashd = launch(http_config(free_port(), [plain], {**check(), "protocol": "h2"}))
    why = "malformed answer|closed without an answer|answer: Connection reset by peer"
    assert re.search(f"1 failure, last: ({why})", wait_state(akashd, plain, "down"))
