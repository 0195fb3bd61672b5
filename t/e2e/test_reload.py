# SPDX-License-Identifier: Apache-2.0
"""Reload: what changes changes at once, what is established stays, and nobody loses a request."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import threading
import time

import pytest
from harness import (Client, CounterWatch, Echo, Farm, Gate, Load, Streams, at_pace, free_port, http_config,
                     tcp_config, until)
from harness.akashd import is_sanitized
from harness.fronts import Authority
from harness.backend import fixed
from harness.traffic import backlog, listens, serving, stopwatch, wait_serving

WORKERS = [1] * 13 + [4] * 13 + [2] * 12 + [3] * 12


@pytest.fixture(scope="module")
def farm():
    made = Farm(4)
    yield made
    made.close()


@pytest.fixture
def echo():
    made = Echo()
    yield made
    made.close()


@pytest.fixture(scope="module")
def authority():
    return Authority()


def site(port, backend, **top):
    """One listener, one backend, no health check."""
    return http_config(port, [backend], **top)


def ask(port, target="/"):
    with Client(port) as client:
        return client.ask(target=target)


def certificate(port, name="localhost"):
    """Serial number and names of the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        with context.wrap_socket(plain, server_hostname=name) as wrapped:
            return wrapped.getpeercert(binary_form=True)


# -- under load

class Everything:
    """The configurations of the long test: each differs from the one before in every way allowed."""

    def __init__(self, farm, echo, authority):
        self.farm, self.echo = farm, echo
        self.web, self.webs, self.tcp = free_port(), free_port(), free_port()
        self.pairs = [authority.issue("localhost", stem=f"long-{i}") for i in range(2)]

    def backends(self, step, salt):
        chosen = [i for i in range(4) if i == 0 or (step + salt + i) % 3]
        return [{"address": self.farm.addresses[i], "weight": 1 + (step * (i + 1)) % 5} for i in chosen]

    def at(self, step):
        """The configuration after so many reloads."""
        cert, key = self.pairs[step % 2]
        check = {"health_check": {"type": "tcp", "interval": "1s"}}
        routes = [{"path": "/load", "upstream": "other"}] if step % 2 else []
        return {
            "workers": 1 if step == 0 else WORKERS[step - 1],
            "listeners": [
                {"name": "web", "address": f"127.0.0.1:{self.web}", "mode": "http", "upstream": "site"},
                {"name": "webs", "address": f"127.0.0.1:{self.webs}", "mode": "http", "upstream": "site",
                 "tls": {"certificates": [{"cert": cert, "key": key}]}},
                {"name": "tcp", "address": f"127.0.0.1:{self.tcp}", "mode": "tcp", "upstream": "echo"},
            ],
            "routes": [*routes, {"path": f"/only{step}", "upstream": "other"}],
            "upstreams": {
                "site": {"algorithm": ["round_robin", "w_round_robin", "least_conn"][step % 3],
                         "backends": self.backends(step, 0), **check},
                "other": {"backends": self.backends(step, 1), **check},
                "echo": {"backends": [{"address": self.echo.address}], **check},
            },
        }


def survivors(akashd, before, count, deadline=10):
    """Wait for the new count; of the old workers as many as can must be among them."""
    after = wait_serving(akashd, count, deadline)
    assert len(after & before) == min(len(before), count), f"{before} became {after}: needless replacement"
    return after


@pytest.mark.timeout(120)
def test_fifty_reloads_under_load_lose_nothing(launch, farm, echo, authority):
    plan = Everything(farm, echo, authority)
    akashd = launch(plan.at(0))
    streams = Streams(plan.tcp, 200)
    pids = wait_serving(akashd, 1)
    seen = set()
    loads = [Load(plan.web, keepalive=64, fresh=64, target="/load", check=farm.check,
                  tag=lambda head, body: body),
             Load(plan.webs, keepalive=4, fresh=2, target="/load", check=farm.check,
                  tls=authority.client_context()),
             Load(plan.web, keepalive=4, fresh=2, target="/load", check=farm.check, pause=0.005, http2=True)]
    for load in loads:
        load.wait_total(50)
    began = time.monotonic()
    with CounterWatch(akashd, 0.5):
        for step in range(1, 51):
            until(lambda: time.monotonic() >= began + step * 0.5, "the next half second", 10, 0.01)
            before = len(akashd.log)
            akashd.hup(plan.at(step))
            akashd.wait_log(r"reload: (done|refused)", since=before)
            seen.add(certificate(plan.webs))
            if step in (12, 20, 32, 45):
                pids = survivors(akashd, pids, WORKERS[step - 1])
        took = time.monotonic() - began
    accounts = [load.stop() for load in loads]
    streams.check()
    assert not [line for line in akashd.log if "refused" in line or " died" in line]
    for account in accounts:
        account.assert_all_ok(500)
    assert took < (60 if is_sanitized() else 30), f"50 reloads took {took} s"
    assert len(seen) == 2, "new certificates were not shown"
    assert set(accounts[0].tags) == {name.encode() for name in farm.names}
    assert wait_serving(akashd, 3) >= pids
    metrics = akashd.metrics()
    assert metrics.value("akash_worker_restarts_total") == 0
    assert metrics.value("akash_config_last_reload_successful") == 1
    assert metrics.value("akash_workers") == 3
    streams.close()
    akashd.wait_metric("akash_confs", lambda v: v <= 3)


def test_reload_with_every_keepalive_client_idle_closes_none(launch, farm):
    """The same listener and upstream: a client that pauses over the reload sees nothing of it."""
    port = free_port()
    akashd = launch(http_config(port, farm.addresses[:2], workers=2))
    clients = [Client(port) for _ in range(20)]
    assert all(c.ask().status == 200 for c in clients)
    akashd.reload(http_config(port, farm.addresses[1:3], workers=2, drain_timeout="7s"))
    for client in clients:
        answer = client.ask()
        assert answer.status == 200 and not answer.closes and answer.text in ("b1", "b2")
        client.close()


# -- what a reload changes, and what it leaves alone

def test_unchanged_file_changes_nothing(launch, scripted):
    backend, port = scripted(), free_port()
    akashd = launch(site(port, backend, workers=2))
    before = {p.pid for p in akashd.children()}
    client = Client(port)
    assert client.ask().status == 200
    for _ in range(3):
        akashd.reload()
        answer = client.ask()
        assert answer.status == 200 and not answer.closes
    assert {p.pid for p in akashd.children()} == before
    assert len(backend.connections) == 1, "the pooled connection was not kept"
    client.close()


def test_change_is_in_force_when_akashctl_returns(launch, farm):
    port = free_port()
    akashd = launch(site(port, farm.addresses[0], workers=2))
    keep = Client(port)
    for step in range(1, 13):
        name, address = farm.names[step % 4], farm.addresses[step % 4]
        akashd.reload(site(port, address, workers=2))
        assert [ask(port).text for _ in range(4)] == [name] * 4
        assert keep.ask().text == name
    keep.close()


def test_running_request_keeps_its_backend_and_idle_ones_of_the_removed_are_closed(launch, scripted):
    gate, old, new, port = Gate(), scripted(), scripted(), free_port()
    akashd = launch(site(port, old))
    first, second = Client(port), Client(port)
    old.always(gate.hold(fixed(b"old")))
    first.request()
    second.request()
    gate.wait_waiting(2)
    gate.release(1)
    until(lambda: gate.waiting == 1, "one answer")
    new.always(fixed(b"new"))
    akashd.reload(site(port, new))
    old.wait(lambda b: sum(c.open for c in b.connections) == 1, "the idle connection's end")
    assert ask(port).text == "new"
    gate.release()
    assert [first.response().text, second.response().text] == ["old", "old"]
    assert [first.ask().text, second.ask().text] == ["new", "new"]
    old.wait(lambda b: not any(c.open for c in b.connections), "the last connection's end")
    first.close(), second.close()


def test_tunnel_to_a_removed_backend_runs_on(launch, echo, farm):
    port = free_port()
    akashd = launch(tcp_config(port, [echo.address]))
    streams = Streams(port, 5)
    akashd.reload(tcp_config(port, [farm.addresses[0]]))
    streams.check()
    accepted = echo.accepted
    with Client(port) as client:
        assert client.ask().text == "b0"
    assert echo.accepted == accepted
    streams.close()


def test_tunnel_to_a_removed_backend_ends_by_the_retire_timeout(launch, echo, farm):
    def attempt(beat):
        port = free_port()
        akashd = launch(tcp_config(port, [echo.address], retire_timeout="1s"))
        streams = Streams(port, 3)
        beat()
        akashd.reload(tcp_config(port, [farm.addresses[0]], retire_timeout="1s"))
        streams.check()
        return akashd, streams
    akashd, streams = at_pace(attempt, 0.7)
    akashd.wait_metric("akash_failures_total", lambda v: v == 3, reason="drain_cut")
    akashd.wait_metric("akash_active_connections", lambda v: v == 0)
    streams.close()


def test_listener_that_is_added_serves_and_another_stays(launch, farm):
    one, two = free_port(), free_port()
    config = http_config(one, farm.addresses[:1], workers=2)
    akashd = launch(config)
    config["listeners"].append({"name": "more", "address": f"127.0.0.1:{two}", "mode": "http",
                                "upstream": "site"})
    akashd.reload(config)
    for port in (one, two):
        assert [ask(port).text for _ in range(4)] == ["b0"] * 4
    assert all(listens(pid, two) for pid in serving(akashd))
    akashd.wait_metric("akash_connections_total", lambda v: v == 4, listener="more")


def without(config, name):
    return {**config, "listeners": [item for item in config["listeners"] if item["name"] != name]}


@pytest.fixture
def pair(launch, scripted):
    """A daemon with the listeners web and gone, and one scripted backend."""
    class Pair:
        web, gone = free_port(), free_port()
    backend = scripted()
    config = http_config(Pair.web, [backend])
    config["listeners"].append({"name": "gone", "address": f"127.0.0.1:{Pair.gone}", "mode": "http",
                                "upstream": "site"})
    Pair.backend, Pair.config, Pair.akashd = backend, config, launch(config)
    return Pair


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), 10).close()
    except ConnectionRefusedError:
        return True
    return False


def test_clients_of_a_removed_listener_get_one_more_answer(pair):
    gate, busy, idle, silent = Gate(), Client(pair.gone), Client(pair.gone), Client(pair.gone)
    stays = Client(pair.web)
    assert idle.ask().status == silent.ask().status == stays.ask().status == 200
    pair.backend.always(gate.hold())
    busy.request()
    gate.wait_waiting(1)
    removed = stopwatch()
    pair.akashd.reload(without(pair.config, "gone"))
    until(lambda: refuses(pair.gone), "the closed socket")
    gate.release()
    answer = idle.ask()
    assert (answer.status, answer.closes, idle.ended()) == (200, True, "fin")
    answer = busy.response()
    assert (answer.status, answer.closes, busy.ended()) == (200, True, "fin")
    assert silent.ended() == "fin" and 1 < removed() < 6
    answer = stays.ask()
    assert answer.status == 200 and not answer.closes
    stays.close()


def test_answer_to_the_last_client_of_a_removed_listener_is_counted(pair):
    worker = pair.akashd.workers()[0].pid
    with Client(pair.gone) as last:
        assert last.ask().status == 200
        pair.akashd.reload(without(pair.config, "gone"))
        answer = last.ask()
        assert (answer.status, answer.closes, last.ended()) == (200, True, "fin")
    assert pair.akashd.workers()[0].pid == worker


@pytest.mark.parametrize("secure_too", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("modes", [("http", "tcp"), ("tcp", "http")], ids="-".join)
def test_listener_that_changes_its_mode_keeps_what_is_connected(launch, farm, authority, modes, secure_too):
    """Also one whose handshake began before the reload and ends after it."""
    port = free_port()
    cert, key = authority.issue("localhost", stem="mode")
    tls = {"tls": {"certificates": [{"cert": str(cert), "key": str(key)}]}} if secure_too else {}
    before, after = [http_config(port, farm.addresses[:1], listener={"mode": mode, **tls}) for mode in modes]
    akashd = launch(before)
    worker = akashd.workers()[0].pid
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        akashd.wait_metric("akash_active_connections", lambda n: n == 1)
        akashd.reload(after)
        with (context.wrap_socket(sock) if secure_too else sock) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(64).startswith(b"HTTP/1.1 200")
    assert akashd.workers()[0].pid == worker


@pytest.mark.parametrize("count", [1, 20])
def test_clients_queued_at_a_removed_listener_are_served(pair, count):
    """The worker is stopped, so that they are in the queue when the listener goes. Whether it then hears of
    that before it accepts them is its own business."""
    worker = pair.akashd.workers()[0]
    worker.kill(signal.SIGSTOP)
    clients = [Client(pair.gone) for _ in range(count)]
    for client in clients:
        client.request()
    backlog(pair.gone, count)
    before = pair.akashd.hup(without(pair.config, "gone"))
    pair.akashd.wait_log("reload: asked for by SIGHUP", since=before)
    worker.kill(signal.SIGCONT)
    for client in clients:
        assert (client.response().status, client.ended()) == (200, "fin")
    pair.akashd.wait_log("reload: done", since=before)
    until(lambda: refuses(pair.gone), "the closed socket")


@pytest.mark.timeout(180)
def test_listeners_that_come_and_go_under_load_lose_nothing(pair):
    """Clients of the listener that goes connect until they are refused."""
    for _ in range(12):
        load = Load(pair.gone, keepalive=4, fresh=12, until_refused=True)
        load.wait_total(40)
        pair.akashd.reload(without(pair.config, "gone"))
        load.join(15).assert_all_ok(40)
        pair.akashd.reload(pair.config)
        assert ask(pair.gone).status == 200


def test_listener_moves_to_another_address(launch, farm):
    old, new = free_port(), free_port()
    akashd = launch(site(old, farm.addresses[0], workers=2))
    client = Client(old)
    assert client.ask().status == 200
    akashd.reload(site(new, farm.addresses[0], workers=2))
    assert ask(new).status == 200
    until(lambda: refuses(old), "the old socket's end")
    answer = client.ask()
    assert answer.status == 200, "a listener that moves keeps its clients"
    client.close()


def test_connections_beyond_a_smaller_worker_count_are_answered(launch, farm):
    """Clients wait in the sockets of workers that go: survivors take them over."""
    port = free_port()
    akashd = launch(http_config(port, farm.addresses[:1], workers=4))
    wait_serving(akashd, 4)
    stopped = list(akashd.workers().values())
    for worker in stopped:
        worker.kill(signal.SIGSTOP)
    clients = [Client(port) for _ in range(40)]
    for client in clients:
        client.request()
    backlog(port, 40)
    before = akashd.hup(http_config(port, farm.addresses[:1], workers=1))
    akashd.wait_log("reload: asked for by SIGHUP", since=before)
    for worker in stopped:
        worker.kill(signal.SIGCONT)
    assert [c.response().status for c in clients] == [200] * 40
    for client in clients:
        client.close()
    wait_serving(akashd, 1)
    assert [ask(port).status for _ in range(20)] == [200] * 20


# -- what a reload refuses

def errors_of(akashd):
    return akashd.metrics().value("akash_config_last_reload_successful")


BROKEN = {
    "syntax": lambda text: text.replace('"mode": "http"', '"mode": http', 1),
    "unknown key": lambda text: text.replace('"backends"', '"bakends"', 1),
    "wrong value": lambda text: text.replace('"workers": 1', '"workers": "many"', 1),
    "undefined upstream": lambda text: text.replace('"upstream": "site"', '"upstream": "sight"', 1),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_file_leaves_the_old_configuration_in_force(launch, farm, kind):
    port = free_port()
    good = site(port, farm.addresses[0])
    akashd = launch(good)
    pids, client = {p.pid for p in akashd.children()}, Client(port)
    assert client.ask().text == "b0"
    broken = BROKEN[kind](json.dumps(akashd.complete(good), indent=2))
    assert broken != json.dumps(akashd.complete(good), indent=2)
    before = akashd.hup(broken)
    line = akashd.wait_log(r"akashd\.json:\d+:\d+: ", since=before)
    akashd.wait_metric("akash_config_last_reload_successful", lambda v: v == 0)
    akashd.wait_log("the old configuration serves on", since=before)
    message = re.search(r"akashd\.json:\d+:\d+: .*?(?=$|; the old)", line).group()
    said = akashd.reload(expect=1)
    assert message in said.stdout + said.stderr
    assert client.ask().text == ask(port).text == "b0"
    assert {p.pid for p in akashd.children()} == pids
    akashd.reload(good)
    akashd.wait_metric("akash_config_last_reload_successful", lambda v: v == 1)
    client.close()


def test_position_of_a_wrong_value_is_exact(launch, farm):
    akashd = launch(site(free_port(), farm.addresses[0]))
    text = json.dumps(akashd.complete(akashd.config), indent=2)
    at = text.index('"workers": 1') + len('"workers": ')
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    akashd.write(text.replace('"workers": 1', '"workers": -7', 1))
    done = akashd.reload(expect=1)
    assert f"akashd.json:{line}:{column}: workers: " in done.stdout + done.stderr


def test_file_that_has_gone_is_refused(launch, farm):
    port = free_port()
    akashd = launch(site(port, farm.addresses[0]))
    akashd.file.unlink()
    done = akashd.reload(expect=1)
    assert "akashd.json" in done.stdout + done.stderr
    assert ask(port).text == "b0"


def test_address_that_is_taken_is_refused_and_nothing_is_kept(launch, farm):
    port, free, taken = free_port(), free_port(), socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    used = f"127.0.0.1:{taken.getsockname()[1]}"
    akashd = launch(site(port, farm.addresses[0]))
    config = site(port, farm.addresses[1])
    config["listeners"] += [
        {"name": "fine", "address": f"127.0.0.1:{free}", "mode": "http", "upstream": "site"},
        {"name": "bad", "address": used, "mode": "http", "upstream": "site"}]
    done = akashd.reload(config, expect=1)
    assert used in done.stdout + done.stderr and "in use" in done.stdout + done.stderr
    assert ask(port).text == "b0"
    assert refuses(free), "the refused reload left a socket behind"
    taken.close()
    akashd.reload(config)
    assert ask(free).text == ask(port).text == "b1"


# -- certificates

@pytest.fixture
def secure(launch, farm, authority, tmp_path):
    """A TLS listener whose certificate and key are files of the test's own."""
    class Secure:
        port = free_port()
        cert, key = str(tmp_path / "site.pem"), str(tmp_path / "site.key")

        @staticmethod
        def install(stem, key_of=None):
            cert, _ = authority.issue("localhost", stem=stem)
            _, key = authority.issue("localhost", stem=key_of) if key_of else (None, cert[:-3] + "key")
            shutil.copy(cert, Secure.cert)
            shutil.copy(key, Secure.key)
            with open(cert) as f:
                return ssl.PEM_cert_to_DER_cert(f.read())
    Secure.first = Secure.install("first")
    Secure.config = http_config(Secure.port, farm.addresses[:1], listener={
        "tls": {"certificates": [{"cert": Secure.cert, "key": Secure.key}]}}, workers=2)
    Secure.akashd = launch(Secure.config)
    Secure.context = authority.client_context()
    return Secure


def test_replaced_certificate_is_shown_to_new_connections_and_old_ones_stay(secure):
    client = Client(secure.port, wrap=lambda s: secure.context.wrap_socket(s, server_hostname="localhost"))
    assert client.ask().status == 200 and certificate(secure.port) == secure.first
    second = secure.install("second")
    assert certificate(secure.port) == secure.first, "files are read at a reload only"
    secure.akashd.reload()
    assert [certificate(secure.port) for _ in range(6)] == [second] * 6
    answer = client.ask()
    assert answer.status == 200 and not answer.closes
    client.close()


def test_key_that_does_not_match_is_refused(secure):
    secure.install("third", key_of="fourth")
    done = secure.akashd.reload(expect=1)
    said = done.stdout + done.stderr
    assert re.search(r"akashd\.json:\d+:\d+: ", said) and "site.key" in said
    assert [certificate(secure.port) for _ in range(4)] == [secure.first] * 4
    fifth = secure.install("fifth")
    secure.akashd.reload()
    assert certificate(secure.port) == fifth


def test_key_that_only_root_may_read_is_read_by_the_master(secure):
    sixth = secure.install("sixth")
    os.chmod(secure.key, 0o600)
    secure.akashd.reload()
    assert certificate(secure.port) == sixth
    pid = next(iter(serving(secure.akashd)))
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in serving(secure.akashd), "the death")
    wait_serving(secure.akashd, 2)
    assert [certificate(secure.port) for _ in range(4)] == [sixth] * 4


# -- many at once

def test_storm_of_signals_ends_in_the_last_configuration(launch, farm):
    port = free_port()
    akashd = launch(site(port, farm.addresses[0], workers=2))
    pids = wait_serving(akashd, 2)
    with Load(port, keepalive=8, fresh=8, check=farm.check) as load:
        load.wait_total(20)
        before = len(akashd.log)
        for step in range(20):
            akashd.hup(site(port, farm.addresses[1 + step % 3], workers=2))
        akashd.reload(site(port, farm.addresses[3], workers=2))
        assert [ask(port).text for _ in range(8)] == ["b3"] * 8
    load.account.assert_all_ok(20)
    assert serving(akashd) == pids
    done = [line for line in akashd.log[before:] if "reload: done" in line]
    assert 1 <= len(done) <= 21 and not [line for line in akashd.log[before:] if "refused" in line]


def test_storm_at_once_is_few_reloads(launch, farm):
    """The master is stopped, so that all twenty arrive together: signals are no queue."""
    port = free_port()
    akashd = launch(site(port, farm.addresses[0]))
    before = len(akashd.log)
    akashd.send(signal.SIGSTOP)
    for _ in range(20):
        akashd.hup(site(port, farm.addresses[1]))
    akashd.send(signal.SIGCONT)
    akashd.wait_log("reload: done", since=before)
    akashd.reload()
    done = [line for line in akashd.log[before:] if "reload: done" in line]
    assert len(done) <= 3 and ask(port).text == "b1"


def test_reloads_asked_for_during_a_reload_all_get_their_verdict(launch, farm):
    """A stopped worker holds the first one up; what is asked for meanwhile runs after it, with the file as
    it is then."""
    port = free_port()
    akashd = launch(site(port, farm.addresses[0]))
    worker = akashd.workers()[0]
    worker.kill(signal.SIGSTOP)
    before = akashd.hup(site(port, farm.addresses[1]))
    akashd.wait_log("asked for by SIGHUP", since=before)
    verdicts = []
    threads = [threading.Thread(target=lambda: verdicts.append(akashd.ctl("reload").returncode))
               for _ in range(5)]
    akashd.write(site(port, farm.addresses[2]))
    for thread in threads:
        thread.start()
    until(lambda: sum("runs after the one" in line for line in akashd.log[before:]) == 5, "five requests")
    worker.kill(signal.SIGCONT)
    for thread in threads:
        thread.join(30)
    assert verdicts == [0] * 5
    assert ask(port).text == "b2"
    assert sum("reload: done" in line for line in akashd.log[before:]) == 2
    assert akashd.workers()[0].pid == worker.pid


def test_tunnels_and_idle_clients_pin_no_configuration(launch, echo, farm):
    """Fifty reloads, a tunnel and an idle client opened in each: three confs at most, and all pass bytes."""
    web, tcp = free_port(), free_port()
    config = http_config(web, farm.addresses[:1])
    config["listeners"].append({"name": "tcp", "address": f"127.0.0.1:{tcp}", "mode": "tcp",
                                "upstream": "echo"})
    config["upstreams"]["echo"] = {"backends": [{"address": echo.address}], "health_check": False}
    akashd = launch(config)
    tunnels, clients = [], []
    for step in range(50):
        tunnels.append(Streams(tcp, 1))
        clients.append(Client(web))
        assert clients[-1].ask().status == 200
        config["upstreams"]["site"]["backends"][0]["weight"] = 1 + step
        akashd.reload(config)
    # The page is as old as the worker's last beat, half a second, and its own second.
    akashd.wait_metric("akash_confs", lambda v: 1 <= v <= 3, 6)
    for tunnel, client in zip(tunnels, clients):
        tunnel.check()
        assert client.ask().status == 200
        tunnel.close(), client.close()


def test_counters_of_a_backend_that_comes_back_go_on(launch, farm):
    port, one, two = free_port(), farm.addresses[0], farm.addresses[1]
    akashd = launch(site(port, one))
    with CounterWatch(akashd):
        for _ in range(10):
            ask(port)
        akashd.reload(site(port, two))
        assert ask(port).text == "b1"
        akashd.reload(site(port, one))
        assert ask(port).text == "b0"
        akashd.wait_metric("akash_backend_served_total", lambda v: v == 11, backend=one)
        assert akashd.metrics().value("akash_requests_total", listener="web", code=200) == 12


def test_least_conn_knows_what_runs_from_before_the_reload(launch, scripted):
    """The count of a backend's requests under way is one truth: a reload does not forget it."""
    gate, busy, calm, port = Gate(), scripted(), scripted(), free_port()
    busy.always(gate.hold(fixed(b"busy")))
    calm.always(fixed(b"calm"))
    akashd = launch(site(port, busy))
    held = [Client(port) for _ in range(3)]
    for client in held:
        client.request()
    gate.wait_waiting(3)
    akashd.reload(http_config(port, [busy, calm], {"algorithm": "least_conn"}, workers=2))
    assert [ask(port).text for _ in range(10)] == ["calm"] * 10
    gate.release()
    assert [c.response().text for c in held] == ["busy"] * 3
    for client in held:
        client.close()
