# SPDX-License-Identifier: Apache-2.0
"""Caps of backends and upstreams over all workers, and the queue in front of them: exact, bounded, fair."""

import os
import signal
import threading
import time
from collections import Counter

import pytest

from harness import PATIENCE, Client, Gate, backend as answers, free_port, http_config, until


@pytest.fixture
def capped(launch, scripted):
    """A daemon over n backends that hold their answers at .gate; .config, .port, .made."""
    def start(n=1, per_backend=None, workers=4, **upstream):
        gate, port = Gate(), free_port()
        made = [scripted(gate.hold()) for _ in range(n)]
        config = http_config(port, [{"address": b.address, **({"max_connections": per_backend} if per_backend else {})}
                                    for b in made], upstream, workers=workers)
        akashd = launch(config)
        akashd.config, akashd.port, akashd.made, akashd.gate = config, port, made, gate
        return akashd
    return start


class Work:
    """An answer after some time, that counts how many are at it. Who has been answered is not: his client may
    be back before the thread that answered comes to say so."""

    def __init__(self, seconds=0):
        self.seconds, self.busy, self.peak = seconds, 0, 0
        self.lock = threading.Lock()

    def __call__(self, x):
        x.body()
        with self.lock:
            self.busy += 1
            self.peak = max(self.peak, self.busy)
        time.sleep(self.seconds)
        with self.lock:
            self.busy -= 1
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def send(akashd, count, target="/"):
    clients = [Client(akashd.port) for _ in range(count)]
    for client in clients:
        client.request(target=target)
    return clients


def waiting(akashd):
    return akashd.metrics().value("akash_queue_waiting", upstream="site")


def open_connections(akashd):
    return akashd.metrics().value("akash_backend_open_connections")


def test_200_clients_share_ten_connections_and_nobody_starves(capped):
    akashd = capped(per_backend=10, queue={"size": 1000}, timeouts={"queue": "30s"})
    akashd.gate.release()
    work = Work(0.005)
    akashd.made[0].always(work)
    done, lock = [], threading.Lock()

    def run(number):
        with Client(akashd.port, record=False) as client:
            for _ in range(10):
                before = len(done)
                code = client.ask().status
                with lock:
                    done.append((number, code, len(done) - before))
    threads = [threading.Thread(target=run, args=(n,)) for n in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 5)
    assert Counter(code for _, code, _ in done) == {200: 2000}
    assert work.peak <= 10
    assert Counter(n for n, _, _ in done) == {n: 10 for n in range(200)}
    # By the answers that others got meanwhile, for the time also says how busy the machine was.
    most = max(others for _, _, others in done)
    assert most < 1000, f"one request was overtaken by {most} of 2,000"
    assert open_connections(akashd) <= 10


def test_a_cap_without_a_queue_refuses(capped):
    akashd = capped(per_backend=5)
    clients = send(akashd, 12)
    akashd.gate.wait_waiting(5)
    akashd.wait_metric("akash_failures_total", lambda v: v == 7, reason="over_limit")
    akashd.gate.release()
    assert Counter(c.response().status for c in clients) == {200: 5, 503: 7}


def test_the_size_of_the_queue_is_exact_over_workers(capped):
    akashd = capped(per_backend=4, queue={"size": 10}, timeouts={"queue": "30s"})
    held = send(akashd, 4)
    akashd.gate.wait_waiting(4)
    clients = send(akashd, 25)
    akashd.wait_metric("akash_failures_total", lambda v: v == 15, reason="queue_full")
    assert waiting(akashd) == 10
    akashd.gate.release()
    got = Counter(c.response().status for c in clients)
    assert got == {200: 10, 503: 15}
    assert [c.response().status for c in held] == [200] * 4
    until(lambda: waiting(akashd) == 0, "the queue to be empty")


@pytest.mark.parametrize("others", ["breaker", "backups"])
def test_one_that_is_full_is_waited_for_whatever_keeps_the_others_away(capped, others):
    """Whichever stands first in the file."""
    akashd = capped(n=2, per_backend=1, workers=1, queue={"size": 1}, timeouts={"queue": "60s"}, health_check=False)
    out, full = akashd.made
    if others == "backups":
        akashd.config["upstreams"]["site"]["backends"][1]["backup"] = True
        akashd.reload(akashd.config)
    told = ["maint"] if others == "backups" else ["breaker", "open"]
    assert akashd.ctl(*told, f"site/{out.address}").returncode == 0
    clients = send(akashd, 2)
    until(lambda: waiting(akashd) == 1, "one to wait")
    third = send(akashd, 1)[0]
    assert "queue_full" in third.response().text
    akashd.gate.release()
    assert [c.response().status for c in clients] == [200, 200]
    assert len(full.requests) == 2 and not out.requests
    for client in [*clients, third]:
        client.close()


def test_waiting_has_an_end(capped):
    akashd = capped(per_backend=1, queue={"size": 10}, timeouts={"queue": "400ms"})
    held = send(akashd, 1)
    akashd.gate.wait_waiting(1)
    began = time.monotonic()
    with Client(akashd.port) as client:
        answer = client.ask()
    assert 0.35 < time.monotonic() - began < 5
    assert answer.status == 503 and "queue_timeout" in answer.text and "Retry-After" in answer.fields
    akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="queue_timeout")
    assert waiting(akashd) == 0
    akashd.gate.release()
    assert held[0].response().status == 200


def test_first_come_first_served_in_a_worker(capped):
    akashd = capped(per_backend=1, queue={"size": 100}, timeouts={"queue": "60s"}, workers=1)
    held = send(akashd, 1, "/held")
    akashd.gate.wait_waiting(1)
    clients = []
    for number in range(8):
        clients += send(akashd, 1, f"/{number}")
        until(lambda n=number: waiting(akashd) == n + 1, "it to wait")
    akashd.gate.release()
    for client in held + clients:
        assert client.response().status == 200
    assert [r.target for r in akashd.made[0].requests] == ["/held"] + [f"/{n}" for n in range(8)]


def test_places_are_given_to_workers_in_turns(capped):
    """The waiters of every worker get on while one worker alone has all the work that ends."""
    akashd = capped(per_backend=2, queue={"size": 1000}, timeouts={"queue": "30s"}, workers=4)
    clients = send(akashd, 40)
    akashd.gate.wait_waiting(2)
    until(lambda: waiting(akashd) == 38, "the others to wait")
    for _ in range(40):
        akashd.gate.release(1)
    assert [c.response().status for c in clients] == [200] * 40


def test_an_idle_connection_of_another_worker_is_given_up(capped):
    akashd = capped(per_backend=3, queue={"size": 10}, workers=4)
    work = Work()
    akashd.made[0].always(work)
    for client in send(akashd, 12):  # connections lie idle in whatever workers served these
        assert client.response().status == 200
    began = time.monotonic()
    for client in send(akashd, 12):
        assert client.response().status == 200
    assert time.monotonic() - began < 3
    assert work.peak <= 3


def test_the_cap_of_an_upstream_holds_over_its_backends(capped):
    akashd = capped(n=3, queue={"size": 100}, max_connections=5)
    clients = send(akashd, 20)
    akashd.gate.wait_waiting(5)
    until(lambda: waiting(akashd) == 15, "the others to wait")
    assert open_connections(akashd) == 5
    akashd.gate.release()
    assert [c.response().status for c in clients] == [200] * 20


def test_who_leaves_the_queue_gives_his_place_up(capped):
    akashd = capped(per_backend=1, queue={"size": 3}, timeouts={"queue": "30s"}, workers=2)
    held = send(akashd, 1)
    akashd.gate.wait_waiting(1)
    leaving = send(akashd, 3)
    until(lambda: waiting(akashd) == 3, "them to wait")
    for client in leaving:
        client.reset()
    until(lambda: waiting(akashd) == 0, "them to be gone")
    staying = send(akashd, 3)
    until(lambda: waiting(akashd) == 3, "the next to wait")
    akashd.gate.release()
    assert [c.response().status for c in held + staying] == [200] * 4


def test_the_death_of_a_worker_leaves_no_places_taken(capped):
    akashd = capped(per_backend=4, queue={"size": 8}, timeouts={"queue": "30s"}, workers=2)
    clients = send(akashd, 12)
    akashd.gate.wait_waiting(4)
    until(lambda: waiting(akashd) == 8, "eight to wait")
    before = akashd.workers()
    for process in before.values():
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: len(now := akashd.workers()) == 2 and all(now[i].pid != before[i].pid for i in now), "successors")
    until(lambda: waiting(akashd) == 0 and open_connections(akashd) == 0, "the gauges to be true again")
    for client in clients:
        client.close()
    akashd.gate.release()
    for client in send(akashd, 12):
        assert client.response().status == 200


def test_a_reload_leaves_the_waiting_where_they_are(capped):
    akashd = capped(per_backend=1, queue={"size": 10}, timeouts={"queue": "30s"}, workers=2)
    clients = send(akashd, 5)
    akashd.gate.wait_waiting(1)
    until(lambda: waiting(akashd) == 4, "four to wait")
    akashd.config["upstreams"]["site"]["keepalive"] = {"connections": 5}
    akashd.reload(akashd.config)
    akashd.gate.release()
    assert [c.response().status for c in clients] == [200] * 5


def test_how_long_one_waited_stands_in_the_log(capped, tmp_path):
    akashd = capped(per_backend=1, queue={"size": 10}, workers=1)
    log = tmp_path / "access.log"
    akashd.config["access_log"] = {"target": str(log), "format": "json"}
    tmp_path.chmod(0o777)
    akashd.reload(akashd.config)
    held = send(akashd, 1)
    akashd.gate.wait_waiting(1)
    later = send(akashd, 1, "/later")
    until(lambda: waiting(akashd) == 1, "it to wait")
    akashd.gate.release()
    for client in held + later:
        client.response()
    until(lambda: log.exists() and '"path":"/later"' in log.read_text(), "the line")
    line = next(line for line in log.read_text().splitlines() if "/later" in line)
    assert 0 < float(line.split('"queue_s":')[1].split(",")[0]) < PATIENCE


def test_tcp_streams_wait_too(launch, scripted):
    backend = scripted(on_connect=answers.tcp_echo)
    port = free_port()
    config = http_config(port, [{"address": backend.address, "max_connections": 1}], {"queue": {"size": 5}},
                         {"mode": "tcp"}, workers=2)
    akashd = launch(config)
    first = Client(port)
    first.send(b"one")
    until(lambda: akashd.metrics().value("akash_backend_open_connections") == 1, "the first to be through")
    second = Client(port)
    second.send(b"two")
    until(lambda: akashd.metrics().value("akash_queue_waiting") == 1, "the second to wait")
    first.close()
    assert second.sock.recv(3) == b"two"
    second.close()


def test_fail_open_does_not_go_to_who_is_out_while_another_is_only_full(capped):
    akashd = capped(n=2, per_backend=1, workers=1, queue={"size": 10}, timeouts={"queue": "60s"}, fail_open=True,
                    circuit_breaker={"open_for": "5m"}, retry=False)
    out, full = akashd.made
    out.always(answers.fixed(b"no", status=500, reason="No"))
    full.always(answers.fixed())
    with Client(akashd.port) as client:
        until(lambda: client.ask() and akashd.metrics().value("akash_breaker_state", backend=out.address) == 2,
              "the first to be out")
    full.always(akashd.gate.hold())
    before = len(out.requests)
    clients = send(akashd, 3)
    until(lambda: waiting(akashd) == 2, "two to wait")
    akashd.gate.release()
    assert [c.response().status for c in clients] == [200] * 3
    assert len(out.requests) == before
