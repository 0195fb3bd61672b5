# SPDX-License-Identifier: Apache-2.0
"""Reload: a transaction over live processes."""

import json
import os
import random
import re
import signal
import socket
import time

import pytest

from harness import Client, Load, free_port, http_config, until
from harness.backend import fixed


@pytest.fixture
def named(scripted):
    """A backend that answers its name."""
    return lambda name: scripted(fixed(name.encode()))


def ask(port):
    with Client(port) as client:
        answer = client.ask()
        return answer.status, answer.body.decode()


def control(daemon, raw, shut=False):
    """Bytes to the control socket; its answer's lines as objects."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(daemon.control))
        s.sendall(raw)
        if shut:
            s.shutdown(socket.SHUT_WR)
        with s.makefile("rb") as f:
            return [json.loads(line) for line in f]


# -- a good file

def test_sighup_changes_backends_and_replaces_no_process(launch, named):
    port = free_port()
    daemon = launch(http_config(port, [named("one")], workers=2))
    before = {p.pid for p in daemon.children()}
    assert ask(port) == (200, "one")
    since = daemon.hup(http_config(port, [named("two")], workers=2))
    daemon.wait_log("reload: done", since=since)
    assert ask(port) == (200, "two")
    assert {p.pid for p in daemon.children()} == before


def test_akashctl_reload_waits_for_the_verdict(launch, named):
    port = free_port()
    daemon = launch(http_config(port, [named("one")], workers=3))
    for name in ("two", "three", "four"):
        daemon.reload(http_config(port, [named(name)], workers=3))
        assert {ask(port) for _ in range(9)} == {(200, name)}


def test_listener_comes_and_goes(launch, named):
    old, new = free_port(), free_port()
    backend = named("one")
    daemon = launch(http_config(old, [backend], workers=2))
    daemon.reload(http_config(new, [backend], workers=2))
    assert ask(new) == (200, "one")
    with pytest.raises(ConnectionRefusedError):
        ask(old)
    daemon.reload(http_config(old, [backend], workers=2))
    assert ask(old) == (200, "one")


def test_metrics_port_moves(launch, named):
    daemon = launch(http_config(free_port(), [named("one")]))
    old, daemon.metrics_port = daemon.metrics_port, free_port()
    daemon.reload(daemon.config)
    assert daemon.get("/livez")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", old))


def test_established_connection_outlives_many_reloads(launch, named):
    port = free_port()
    backend = named("one")
    daemon = launch(http_config(port, [backend]))
    with Client(port) as client:
        assert client.ask().status == 200
        for _ in range(5):
            daemon.reload()
        assert client.ask().status == 200


def test_sighup_during_a_reload_is_remembered(launch, named):
    port = free_port()
    daemon = launch(http_config(port, [named("one")], workers=2))
    daemon.write(http_config(port, [named("two")], workers=2))
    for _ in range(20):
        daemon.send(signal.SIGHUP)
    daemon.write(http_config(port, [named("last")], workers=2))
    daemon.reload()
    assert ask(port) == (200, "last")


def test_name_is_resolved_outside_the_master(launch, named):
    port = free_port()
    backend = named("one")
    daemon = launch(http_config(port, [f"localhost:{backend.port}"]))
    assert ask(port)[0] in (200, 502, 503)
    daemon.reload(http_config(port, [named("two")]))
    assert ask(port) == (200, "two")


def test_success_is_told_by_the_metrics(launch, named):
    daemon = launch(http_config(free_port(), [named("one")]))
    metrics = daemon.metrics()
    assert metrics.value("akash_config_last_reload_successful") == 1
    first = metrics.value("akash_config_last_reload_success_timestamp_seconds")
    old_hash = metrics.value("akash_config_hash")
    daemon.reload(http_config(free_port(), [named("two")]))
    daemon.wait_metric("akash_config_hash", lambda v: v != old_hash)
    assert daemon.metrics().value("akash_config_last_reload_success_timestamp_seconds") >= first


# -- a bad one

def test_bad_file_leaves_the_old_configuration(launch, named):
    port = free_port()
    good = http_config(port, [named("one")], workers=2)
    daemon = launch(good)
    text = daemon.file.read_text().replace('"drain_timeout"', '"drain_timeouts"')
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "drain_timeouts" in row)
    place = f"{daemon.file}:{line}:3: drain_timeouts: unknown key"
    since = daemon.hup(text)
    assert place in daemon.wait_log("reload: refused", since=since)
    assert ask(port) == (200, "one")
    done = daemon.reload(expect=1)
    assert place in done.stderr
    daemon.wait_metric("akash_config_last_reload_successful", lambda v: v == 0)
    daemon.reload(good)
    daemon.wait_metric("akash_config_last_reload_successful", lambda v: v == 1)


def test_every_error_is_told(launch, named):
    daemon = launch(http_config(free_port(), [named("one")]))
    done = daemon.reload('{\n  "algoritm": 1,\n  "listeners": 5\n}', expect=1)
    assert len(done.stderr.strip().splitlines()) >= 2


def test_every_error_has_a_line_of_its_own_in_the_log(launch, named):
    daemon = launch(http_config(free_port(), [named("one")]))
    before = daemon.hup('{\n  "algoritm": 1,\n  "listeners": 5\n}')
    daemon.wait_log("the old configuration serves on", since=before)
    lines = [line for line in daemon.log[before:] if "reload: refused: " in line]
    assert len(lines) >= 2 and not [line for line in lines if r"\x0a" in line]
    assert {"akashd.json:2:3", "akashd.json:3:"} <= {found for line in lines
                                                     for found in ("akashd.json:2:3", "akashd.json:3:") if found in line}
    assert not [line for line in lines if line.count("akashd.json:") != 1]


def test_port_in_use_aborts_and_names_the_address(launch, named):
    port, other = free_port(), free_port()
    backend = named("one")
    daemon = launch(http_config(port, [backend], workers=2))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        config = http_config(port, [backend], None,
                             {"address": [f"127.0.0.1:{other}", f"127.0.0.1:{busy}"]}, workers=2)
        done = daemon.reload(config, expect=1)
        assert f"127.0.0.1:{busy}" in done.stderr and "in use" in done.stderr
    assert ask(port) == (200, "one")
    with pytest.raises(ConnectionRefusedError):
        ask(other)
    daemon.reload(config)
    assert ask(other) == (200, "one")


@pytest.mark.parametrize("key,value", [("user", "root"), ("group", "root"), ("pid_file", "other.pid"),
                                       ("control_socket", "other.sock")])
def test_key_that_cannot_change_is_refused_by_name(launch, named, key, value):
    if key in ("user", "group") and os.geteuid() != 0:
        pytest.skip("these are used by root alone")
    port = free_port()
    daemon = launch(http_config(port, [named("one")]))
    done = daemon.reload({**daemon.config, key: value}, expect=1)
    assert key in done.stderr and "needs SIGUSR2" in done.stderr
    assert ask(port) == (200, "one")


def test_death_while_it_prepares_aborts(launch, named):
    """A worker that cannot answer, because it is stopped, and then dies: the reload is refused."""
    port = free_port()
    daemon = launch(http_config(port, [named("one")], workers=2))
    victim = daemon.workers()[1]
    victim.kill(signal.SIGSTOP)
    since = daemon.hup(http_config(port, [named("two")], workers=2))
    daemon.wait_log("reload: asked for", since=since)
    victim.kill()
    assert "died while it prepared" in daemon.wait_log("reload: refused", since=since)
    until(lambda: len(daemon.workers()) == 2, "the successor")
    assert {ask(port) for _ in range(8)} == {(200, "one")}
    daemon.reload()
    assert {ask(port) for _ in range(8)} == {(200, "two")}


# -- the number of workers

def test_worker_counts(launch, named):
    port = free_port()
    backend = named("one")
    daemon = launch(http_config(port, [backend], workers=1))
    first = daemon.workers()[0].pid
    for count in (4, 2, 3):
        daemon.reload(http_config(port, [backend], workers=count))
        until(lambda: sorted(daemon.workers()) == list(range(count)), f"{count} workers")
        assert {ask(port) for _ in range(4 * count)} == {(200, "one")}
    assert daemon.workers()[0].pid == first


def complaints(daemon):
    return [line for line in daemon.log if re.search(r"^\S+ (error|warn) ", line)]


def test_workers_that_retire_do_not_miss_the_sockets_of_a_new_listener(launch, named):
    """One reload has fewer workers and more listeners; those that go have nothing to say of it."""
    ports = [free_port(), free_port()]
    config = http_config(ports[0], [named("one")], workers=4)
    grown = {**config, "workers": 1, "listeners": config["listeners"] + [
        {"name": "more", "address": f"127.0.0.1:{ports[1]}", "mode": "http", "upstream": "site"}]}
    daemon = launch(config)
    before = complaints(daemon)
    daemon.reload(grown)
    until(lambda: sorted(daemon.workers()) == [0], "one worker")
    assert {ask(port) for port in ports} == {(200, "one")}
    daemon.stop()  # now the log is whole
    assert complaints(daemon) == before


def test_retiring_worker_is_called_back(launch, named):
    """With clients that keep it from ending, the same process serves again when the count grows."""
    port = free_port()
    backend = named("one")
    daemon = launch(http_config(port, [backend], workers=4, retire_timeout="1h"))
    before, said = {i: p.pid for i, p in daemon.workers().items()}, complaints(daemon)
    tunnels = [Client(port) for _ in range(40)]
    try:
        for client in tunnels:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")  # a head that is on its way
        daemon.reload(http_config(port, [backend], workers=1, retire_timeout="1h"))
        held = {i for i, p in daemon.workers().items() if i > 0}
        daemon.reload(http_config(port, [backend], workers=4, retire_timeout="1h"))
        until(lambda: sorted(daemon.workers()) == [0, 1, 2, 3], "four workers")
        after = {i: p.pid for i, p in daemon.workers().items()}
        assert held and all(after[i] == before[i] for i in held)
        assert {ask(port) for _ in range(20)} == {(200, "one")}
    finally:
        for client in tunnels:
            client.close()
    daemon.stop()
    assert complaints(daemon) == said


def test_counts_change_under_load_without_a_failure(launch, named):
    port = free_port()
    daemon = launch(http_config(port, [named("one")], workers=1))
    with Load(port, keepalive=8, fresh=8) as load:
        for count in (4, 2, 3, 1, 4):
            daemon.reload(http_config(port, [named(f"n{count}")], workers=count))
            load.wait_total(load.account.total + 50)
    load.account.assert_all_ok(at_least=250)


# -- the control socket

def test_status_shows_the_workers(launch, named):
    daemon = launch(http_config(free_port(), [named("one")], workers=2))
    status = json.loads(daemon.ctl("-j", "status").stdout)
    assert status["ok"] is True
    assert {w["pid"] for w in status["status"]["workers"]} == {p.pid for p in daemon.workers().values()}
    assert "serving" in daemon.ctl("status").stdout


def test_mode_of_the_control_socket(launch, named):
    daemon = launch(http_config(free_port(), [named("one")]))
    assert daemon.control.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"nonsense\n", b'{"command": "fly"}\n', b"[1]\n",
                                  b'{"command": "status", "more": 1}\n', b'{"command": 5}\n',
                                  b'{"command": "status"} {}\n',
                                  b'{"command": "diff", "text": "{}"}\n', b'{"command": "diff", "name": "/x"}\n', b"\xff\xfe\n", b"x" * (4 << 20)],
                         ids=lambda line: repr(line[:40]))
def test_bad_request_is_answered_no(launch, named, line):
    daemon = launch(http_config(free_port(), [named("one")]))
    answers = control(daemon, line)
    assert [a["ok"] for a in answers] == [False]
    assert answers[0]["error"]
    assert daemon.ctl("status").returncode == 0


def test_every_command_refuses_members_it_does_not_take(launch, named):
    """Well-formed JSON, all commands that end nothing, all members, of every type: one answer each, by what is documented."""
    daemon = launch(http_config(free_port(), [named("one")]))
    takes = {"status": ((), ()), "config": ((), ()), "diff": ((), ("name", "text")), "drain": (("backend",), ()),
             "weight": (("backend", "weight"), ()), "breaker": (("backend", "state"), ()), "log": (("level",), ()),
             "explain": (("url",), ("host", "method", "client")), "maint": (("backend",), ()), "ready": (("backend",), ())}
    members = ("backend", "weight", "state", "level", "name", "text", "url", "host", "method", "client", "other")
    values = ("x", "", "http://a/", 5, -1, 1.5, 1 << 70, True, None, [], {}, ["x"], "\x01\u2028")
    chance = random.Random(5)
    for _ in range(400):
        command = chance.choice(list(takes))
        needed, allowed = takes[command]
        names = [m for m in needed + allowed if chance.random() < .7] + chance.sample(members, chance.random() < .2)
        given = {m: chance.choice(values) if chance.random() < .3 else 5 if m == "weight" else "x" for m in names}
        [answer] = control(daemon, json.dumps({"command": command, **given}).encode() + b"\n")
        assert isinstance(answer["ok"], bool) and bool(answer.get("error")) is not answer["ok"], (command, given, answer)
        if answer["ok"]:
            assert set(needed) <= set(given) <= {*needed, *allowed}, (command, given)
            assert all(isinstance(v, int if m == "weight" else str) for m, v in given.items()), (command, given)
            assert command != "diff" or len(given) != 1, given
    assert daemon.ctl("status").returncode == 0


def test_half_closed_client_gets_its_verdict(launch, named):
    daemon = launch(http_config(free_port(), [named("one")]))
    assert control(daemon, b'{"command": "reload"}\n', shut=True)[0]["ok"] is True


def test_silent_and_vanishing_clients_hold_up_nobody(launch, named):
    daemon = launch(http_config(free_port(), [named("one")]))
    held = []
    try:
        for i in range(200):
            s = socket.socket(socket.AF_UNIX)
            s.setblocking(False)
            try:
                s.connect(str(daemon.control))
                s.send(b'{"command": "status"}\n' if i % 2 else b'{"comm')
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                pass
            held.append(s)
    finally:
        for s in held:
            s.close()
    until(lambda: daemon.ctl("reload").returncode == 0, "an answer")


def connected(daemon, said=b""):
    s = socket.socket(socket.AF_UNIX)
    s.connect(str(daemon.control))  # waits while the queue is full, which a socket with a timeout does not
    s.settimeout(20)
    s.sendall(said)
    return s


def test_silent_clients_lock_nobody_out(launch, named):
    """As many as there is room for say nothing: one more is let in, in the place of the oldest of them."""
    daemon = launch(http_config(free_port(), [named("one")]))
    held = [connected(daemon) for _ in range(32)]
    try:
        for command in (["status"], ["config"], ["reload"]):
            assert daemon.ctl(*command).returncode == 0
        assert held[0].recv(1) == b""
    finally:
        for s in held:
            s.close()


def test_one_that_waits_for_its_verdict_keeps_its_place(launch, named):
    """Though it is older than all that are silent, and says nothing either."""
    daemon = launch(http_config(free_port(), [named("one")], workers=2))
    worker = daemon.workers()[0]
    since = len(daemon.log)
    os.kill(worker.pid, signal.SIGSTOP)  # the reload waits for its answer
    try:
        waiting = connected(daemon, b'{"command": "reload"}\n')
        daemon.wait_log("reload: asked for by akashctl", since=since)
        held = [connected(daemon) for _ in range(40)]
        assert daemon.ctl("status").returncode == 0
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    with waiting.makefile("rb") as f:
        assert "ok" in json.loads(f.readline())
    for s in (waiting, *held):
        s.close()


def test_who_speaks_is_not_the_longest_silent(launch, named):
    """The oldest of them has begun its line: the second one goes, and the first one gets its answer."""
    daemon = launch(http_config(free_port(), [named("one")]))
    for _ in range(5):
        began = time.monotonic()
        held = [connected(daemon) for _ in range(31)]
        held[0].sendall(b'{"command": ')
        assert control(daemon, b'{"command": "status"}\n')[0]["ok"] is True  # those bytes have been read
        held.append(connected(daemon))
        late = connected(daemon, b'{"command": "status"}\n')
        with late.makefile("rb") as f:
            assert json.loads(f.readline())["ok"] is True
        if time.monotonic() - began < 5:  # within the 10 s that each has for its line
            break
        for s in (late, *held):
            s.close()
    with held[0].makefile("rb") as f:
        held[0].sendall(b'"status"}\n')
        assert json.loads(f.readline())["ok"] is True
    assert held[1].recv(1) == b""
    for s in (late, *held):
        s.close()


def test_akashctl_without_a_server_exits_2(launch, named, tmp_path):
    daemon = launch(http_config(free_port(), [named("one")]))
    daemon.control, control_path = tmp_path / "none.sock", daemon.control
    assert daemon.ctl("status").returncode == 2
    daemon.control = control_path
    assert daemon.ctl("fly").returncode == 1
    assert daemon.ctl().returncode == 1


def test_akashctl_stop(launch, named):
    daemon = launch(http_config(free_port(), [named("one")]))
    assert daemon.ctl("stop").returncode == 0
    assert daemon.wait_exit() == 0
