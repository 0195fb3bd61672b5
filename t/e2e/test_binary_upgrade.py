# SPDX-License-Identifier: Apache-2.0
"""Binary upgrade by SIGUSR2: the new master takes over what lives, or nothing has happened."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import struct
import threading
import time

import pytest
from harness import (PATIENCE, Client, CounterWatch, Echo, Farm, Gate, Load, NameServer, Streams, adopt_orphans,
                     free_port, http_config, until)
from harness.akashd import Process, binary, is_sanitized
from harness.backend import fixed
from harness.client import build
from harness.traffic import status


@pytest.fixture(autouse=True)
def orphans():
    adopt_orphans()


@pytest.fixture(scope="module")
def farm():
    made = Farm(2)
    yield made
    made.close()


@pytest.fixture
def echo():
    made = Echo()
    yield made
    made.close()


@pytest.fixture
def program(tmp_path):
    """A copy of the binary that a test may replace."""
    os.chmod(tmp_path, 0o755)
    return shutil.copy(binary(), tmp_path / "akashd")


def replace(program, text):
    """Put a script in the program's place, as a package manager would."""
    fresh = f"{program}.new"
    with open(fresh, "w") as f:
        f.write(text)
    os.chmod(fresh, 0o755)
    os.replace(fresh, program)


def ask(port):
    with Client(port) as client:
        return client.ask().status


def both(web, tcp, farm, echo, **top):
    """An HTTP listener and a TCP one."""
    config = http_config(web, farm.addresses, **top)
    config["listeners"].append({"name": "tcp", "address": f"127.0.0.1:{tcp}", "mode": "tcp", "upstream": "echo"})
    config["upstreams"]["echo"] = {"backends": [{"address": echo.address}]}
    return config


def rows(daemon):
    """Rows of the segment that have a process: [(index, state)]."""
    return sorted((w["index"], w["state"]) for w in status(daemon)["workers"])


def retired(daemon):
    """Wait until no worker of a former master accepts; for an instant both do, the former as if nothing were."""
    own = {p.pid for p in daemon.children()}
    until(lambda: not [w for w in json.loads(daemon.ctl("-j", "status").stdout)["status"]["workers"]
                       if w["accepting"] and w["pid"] not in own], "the former workers' last client")


def state_of(daemon):
    """What must be as before when an upgrade was refused: who runs, and what the operators find."""
    pids = {p.pid for p in daemon.children()}
    return {"master": daemon.written_pid(), "workers": {i: p.pid for i, p in daemon.workers().items()},
            "children": len(pids), "monitor": daemon.monitor() is not None,
            "control": daemon.ctl("status").returncode}


def refused(daemon, why):
    """Ask for an upgrade that must be refused with that reason."""
    before = len(daemon.log)
    daemon.send(signal.SIGUSR2)
    line = daemon.wait_log(r"upgrade: refused: ", deadline=20, since=before)
    assert re.search(why, line), line
    return line


def begin_held(daemon):
    """An upgrade that stands still once the new master has its control socket: the former one does not run.
    The new process's id, and the former monitor, which does not run either."""
    fresh = daemon.control.with_suffix(".sock.new")
    for _ in range(5):
        monitor = until(daemon.monitor, "a monitor")
        monitor.kill(signal.SIGSTOP)  # its end is what the former master waits for
        daemon.send(signal.SIGUSR2)
        until(fresh.exists, "the new master's control socket")
        daemon.send(signal.SIGSTOP)
        if fresh.exists():
            return next(p.pid for p in daemon.children() if not re.search("worker|monitor", p.title)), monitor
        daemon.send(signal.SIGCONT)  # this test paused for seconds: the new one is in charge already
        daemon.upgraded()
    raise AssertionError("no upgrade could be held")


def accepts(path):
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def files(daemon):
    return {entry.name for entry in daemon.folder.iterdir()}


# -- the good

@pytest.mark.timeout(180)
def test_ten_upgrades_under_load_lose_nothing(launch, farm, echo):
    web, tcp = free_port(), free_port()
    daemon = launch(both(web, tcp, farm, echo, workers=2, retire_timeout="5m"))
    streams = Streams(tcp, 20)
    masters = [daemon.pid]
    load = Load(web, keepalive=32, fresh=16, target="/load", check=farm.check)
    load.wait_total(50)
    with CounterWatch(daemon, 0.1):
        for _ in range(10):
            served = load.account.total
            daemon.upgrade(deadline=30)
            masters.append(daemon.pid)
            load.wait_total(served + 200)
        # Each former master lives for its streams alone; who has none has gone.
        until(lambda: len([p for p in daemon.former if p.poll() is None]) == 1, "the end of nine masters", 30)
    account = load.stop()
    account.assert_all_ok(2000)
    streams.check()
    assert len(set(masters)) == 11
    assert daemon.metrics().value("akash_worker_restarts_total") == 0
    daemon.wait_metric("akash_backend_served_total", lambda v: v == account.ok, upstream="site")
    streams.close()


def test_streams_live_until_retire_timeout(launch, farm, echo):
    web, tcp = free_port(), free_port()
    daemon = launch(both(web, tcp, farm, echo, retire_timeout="2s"))
    streams = Streams(tcp, 3)
    began = time.monotonic()
    daemon.upgrade()
    streams.check()
    retired(daemon)
    fresh = Streams(tcp, 2)
    for sock in streams.socks:
        sock.settimeout(PATIENCE)
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass
    took = time.monotonic() - began
    assert 1.9 < took < 8
    assert daemon.former[0].wait(PATIENCE) == 0
    fresh.check()
    fresh.close()
    streams.close()


def test_former_master_ends_with_its_last_stream(launch, farm, echo):
    web, tcp = free_port(), free_port()
    daemon = launch(both(web, tcp, farm, echo, retire_timeout="5m"))
    streams = Streams(tcp, 2)
    daemon.upgrade()
    assert daemon.former[0].poll() is None
    until(lambda: "former master" in Process(daemon.former[0].pid).title, "its new title")
    daemon.wait_metric("akash_active_connections", lambda v: v == 2)
    streams.close()
    assert daemon.former[0].wait(PATIENCE) == 0
    daemon.wait_metric("akash_active_connections", lambda v: v == 0)
    until(lambda: rows(daemon) == [(0, "serving")], "one row")


def test_new_master_reads_the_file_anew(launch, scripted):
    """Also what a reload cannot change."""
    one, two = scripted(fixed(b"one")), scripted(fixed(b"two"))
    port, other = free_port(), free_port()
    daemon = launch(http_config(port, [one], workers=2))
    old_control, old_pid_file = daemon.control, daemon.pid_file
    daemon.control, daemon.pid_file = daemon.folder / "other.sock", daemon.folder / "other.pid"
    daemon.write(http_config(other, [two], workers=1))
    daemon.upgrade()
    with Client(other) as client:
        assert client.ask().body == b"two"
    with pytest.raises(ConnectionRefusedError):
        ask(port)
    assert not old_control.exists()
    until(lambda: not old_pid_file.exists(), "the end of the former pid file")
    assert daemon.ctl("status").returncode == 0
    assert daemon.reload().returncode == 0


def test_upgrade_under_load_to_fewer_and_to_more_workers(launch, farm):
    port = free_port()
    daemon = launch(http_config(port, farm.addresses, workers=3))
    with Load(port, keepalive=8, fresh=8, check=farm.check) as load:
        for workers in (1, 4, 2):
            daemon.write(http_config(port, farm.addresses, workers=workers))
            daemon.upgrade(deadline=30)
            assert sorted(daemon.workers()) == list(range(workers))
            load.wait_total(load.account.total + 200)
    load.account.assert_all_ok(500)


def test_unix_listener_lives_on(launch, scripted, tmp_path):
    backend = scripted(fixed(b"one"))
    path = tmp_path / "web.sock"
    os.chmod(tmp_path, 0o777)
    config = http_config(free_port(), [backend])
    config["listeners"][0]["address"] = [config["listeners"][0]["address"], f"unix:{path}"]
    daemon = launch(config)
    inode = path.stat().st_ino
    with Load(None, host=str(path), keepalive=4, fresh=4) as load:
        load.wait_total(50)
        daemon.upgrade()
        assert daemon.former[0].wait(PATIENCE) == 0
        load.wait_total(load.account.total + 100)
    load.account.assert_all_ok(100)
    assert path.stat().st_ino == inode
    daemon.stop()
    assert not path.exists()


def test_akashctl_upgrade_waits_until_the_new_one_is_in_charge(launch, scripted):
    daemon = launch(http_config(free_port(), [scripted(fixed(b"one"))]))
    before = daemon.pid
    assert daemon.ctl("upgrade").returncode == 0
    assert daemon.written_pid() != before
    daemon.upgraded()
    assert daemon.ctl("status").returncode == 0


def test_health_and_ticket_keys_go_on(launch, farm, scripted):
    """A backend that is down is down for the new master from its first instant."""
    dead = free_port()
    port = free_port()
    daemon = launch(http_config(port, [f"127.0.0.1:{dead}", farm.addresses[0]],
                                {"health_check": {"type": "tcp", "interval": "1s"}}))
    until(lambda: daemon.metrics().value("akash_backend_up", backend=f"127.0.0.1:{dead}") == 0, "down")
    since = next(b["since"] for b in status(daemon)["upstreams"][0]["backends"] if b["health"] == "down")
    with Load(port, fresh=8, check=farm.check) as load:
        daemon.upgrade()
        load.wait_total(load.account.total + 100)
    load.account.assert_all_ok(100)
    after = next(b for b in status(daemon)["upstreams"][0]["backends"] if b["health"] == "down")
    assert after["since"] == since
    assert daemon.metrics().value("akash_backend_failures_total", backend=f"127.0.0.1:{dead}") == 0


def test_log_files_are_reopened_by_former_masters_too(launch, farm, echo, tmp_path):
    web, tcp = free_port(), free_port()
    os.chmod(tmp_path, 0o777)
    access = tmp_path / "access.log"
    daemon = launch(both(web, tcp, farm, echo, access_log={"target": str(access), "format": "tcp"},
                         retire_timeout="5m"))
    streams = Streams(tcp, 1)
    daemon.upgrade()
    access.rename(tmp_path / "old.log")
    daemon.send(signal.SIGUSR1)
    until(lambda: daemon.log_text.count("SIGUSR1: log files reopened") == 2, "both")
    streams.close()
    until(lambda: access.exists() and "echo" in access.read_text(), "the stream's line in the new file")
    assert daemon.former[0].wait(PATIENCE) == 0


# -- the bad

@pytest.mark.parametrize("script, why", [
    (None, r"No such file or directory"),
    ("no program at all", r"Exec format error"),
    ("#!/bin/sh\nexit 3\n", r"ended with status 3"),
    ("#!/bin/sh\nkill -9 $$\n", r"killed by signal 9"),
    ("#!/bin/sh\nexec sleep 60\n", r"silent for 10 s"),
], ids=["missing", "no program", "exits", "dies", "silent"])
def test_binary_that_cannot_start_leaves_all_as_it_was(launch, farm, program, script, why):
    port = free_port()
    daemon = launch(http_config(port, farm.addresses, workers=2), program=program)
    before = state_of(daemon)
    with Load(port, keepalive=8, fresh=4, check=farm.check) as load:
        load.wait_total(20)
        if script is None:
            os.remove(program)
        else:
            replace(program, script)
        line = refused(daemon, why)
        assert f"this process ({daemon.pid}) serves on" in line
        load.wait_total(load.account.total + 100)
    load.account.assert_all_ok(100)
    assert state_of(daemon) == before
    assert daemon.reload().returncode == 0
    if "sleep" not in (script or ""):
        done = daemon.ctl("upgrade")
        assert done.returncode == 1 and re.search(why, done.stderr), done


@pytest.mark.parametrize("then", ["exit 0", "wait $!"], ids=["that is left alone", "that is waited for"])
def test_program_that_starts_another_one_leaves_all_as_it_was(launch, farm, program, then):
    """Who ends is not who serves: the new master could be neither watched nor ended, and would go on alone."""
    port = free_port()
    daemon = launch(http_config(port, farm.addresses), program=program)
    before = state_of(daemon)
    shutil.copy(program, f"{program}.real")
    replace(program, f'#!/bin/sh\n{program}.real "$@" &\n{then}\n')
    with Load(port, keepalive=4, fresh=2, check=farm.check) as load:
        daemon.send(signal.SIGUSR2)
        daemon.wait_log("upgrade: .*has started this one by another process; let it exec", deadline=20)
        daemon.wait_log("upgrade: refused: ", deadline=20)
        load.wait_total(load.account.total + 100)
    load.account.assert_all_ok(100)
    assert state_of(daemon) == before
    assert daemon.reload().returncode == 0


def test_wrong_configuration_leaves_all_as_it_was(launch, farm):
    port = free_port()
    daemon = launch(http_config(port, farm.addresses))
    before = state_of(daemon)
    daemon.write('{"listeners": 7}')
    refused(daemon, r"akashd\.json:1:")
    done = daemon.ctl("upgrade")
    assert done.returncode == 1 and "akashd.json:1:" in done.stderr
    assert state_of(daemon) == before
    assert ask(port) == 200
    daemon.write(http_config(port, farm.addresses))
    daemon.upgrade()
    assert ask(port) == 200


def test_port_in_use_leaves_all_as_it_was(launch, farm):
    """The new one fails after it has claimed slots and taken the sockets over."""
    port = free_port()
    daemon = launch(http_config(port, farm.addresses))
    before = state_of(daemon)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        changed = http_config(port, farm.addresses[:1])
        changed["upstreams"]["more"] = {"backends": [{"address": "127.0.0.1:9"}]}
        changed["listeners"].append({"name": "more", "address": f"127.0.0.1:{taken}", "mode": "http",
                                     "upstream": "more"})
        daemon.write(changed)
        refused(daemon, rf"127\.0\.0\.1:{taken}: cannot listen")
    assert state_of(daemon) == before
    assert ask(port) == 200
    assert daemon.reload().returncode == 0, "slots are in disorder"
    assert ask(port) == 200


def test_second_signal_during_an_upgrade_is_refused(launch, farm, program):
    port = free_port()
    daemon = launch(http_config(port, farm.addresses), program=program)
    replace(program, "#!/bin/sh\nexec sleep 60\n")
    daemon.send(signal.SIGUSR2)
    daemon.wait_log("upgrade: asked for")
    daemon.send(signal.SIGUSR2)
    assert daemon.wait_log("upgrade: SIGUSR2: refused: an upgrade is under way")
    before = daemon.hup()
    daemon.wait_log("reload: asked for by SIGHUP; runs after the upgrade that is under way", since=before)
    refused = daemon.ctl("reload")
    assert refused.returncode == 1 and "an upgrade is under way" in refused.stderr, refused
    daemon.wait_log("upgrade: refused: the new binary was silent", deadline=20)
    daemon.wait_log("reload: done")
    assert daemon.reload().returncode == 0


@pytest.mark.parametrize("asks", ["signal", "akashctl"])
def test_upgrade_during_a_reload_begins_after_it(launch, farm, asks):
    """Nobody sees when a changed name's reload runs: a signal at that moment must not be lost."""
    dns = NameServer()
    dns.put("web.test", A="127.0.0.1")
    port = free_port()
    config = http_config(port, [f"web.test:{farm.addresses[0].rpartition(':')[2]}"], resolvers=[dns.address])
    daemon = launch(config)
    since = dns.fail("other.test", "timeout")
    config["upstreams"]["other"] = {"backends": [{"address": "other.test:1"}]}
    daemon.hup(config)
    dns.wait_asked("other.test", since=since)
    if asks == "signal":
        daemon.send(signal.SIGUSR2)
        daemon.wait_log("upgrade: asked for by SIGUSR2; begins after the reload that is under way")
        daemon.send(signal.SIGUSR2)
        daemon.wait_log("upgrade: SIGUSR2: refused: an upgrade is under way")
        dns.put("other.test", A="127.0.0.1")
    else:
        asked = threading.Thread(target=lambda: done.append(daemon.ctl("upgrade")))
        done = []
        asked.start()
        daemon.wait_log("upgrade: asked for by akashctl; begins after the reload that is under way")
        dns.put("other.test", A="127.0.0.1")
        asked.join(3 * PATIENCE)
        assert done[0].returncode == 0, done[0]
    daemon.upgraded(3 * PATIENCE)
    daemon.wait_log("upgrade: done")
    reload, upgrade = (next(i for i, line in enumerate(daemon.log) if text in line)
                       for text in ("reload: done", "upgrade: done"))
    assert reload < upgrade and ask(port) == 200
    assert daemon.reload().returncode == 0
    daemon.stop()
    dns.close()


def test_sighup_during_an_upgrade_is_the_new_masters(launch, scripted):
    """The file may have changed after the new master has read it: the signal that says so is not lost."""
    one, two = scripted(fixed(b"one")), scripted(fixed(b"two"))
    port = free_port()
    daemon = launch(http_config(port, [one]))
    _, monitor = begin_held(daemon)
    daemon.hup(http_config(port, [two]))
    daemon.send(signal.SIGCONT)
    daemon.wait_log("reload: asked for by SIGHUP; runs after the upgrade that is under way")
    monitor.kill(signal.SIGCONT)
    daemon.upgraded()
    daemon.wait_log("reload: done: generation")
    with Client(port) as client:
        assert client.ask().body == b"two"


def test_stop_takes_back_an_upgrade_that_waits_for_a_reload(launch, farm):
    dns = NameServer()
    port = free_port()
    config = http_config(port, farm.addresses, resolvers=[dns.address])
    daemon = launch(config)
    since = dns.fail("other.test", "timeout")
    config["upstreams"]["other"] = {"backends": [{"address": "other.test:1"}]}
    daemon.hup(config)
    dns.wait_asked("other.test", since=since)
    done = []
    asked = threading.Thread(target=lambda: done.append(daemon.ctl("upgrade")))
    asked.start()
    daemon.wait_log("upgrade: asked for by akashctl; begins after the reload")
    daemon.stop()
    asked.join(PATIENCE)
    assert done[0].returncode == 1 and "akashd is stopping" in done[0].stderr, done[0]
    dns.close()


def test_stop_during_an_upgrade_ends_both(launch, farm, program):
    daemon = launch(http_config(free_port(), farm.addresses), program=program)
    replace(program, "#!/bin/sh\nexec sleep 60\n")
    daemon.send(signal.SIGUSR2)
    daemon.wait_log("upgrade: asked for")
    daemon.stop()


def test_stop_as_the_new_master_serves_cuts_no_request(launch, scripted):
    """What its workers have accepted is finished, as a stop promises; no file stays."""
    gate, backend = Gate(), scripted()
    backend.always(gate.hold(fixed(b"done")))
    port = free_port()
    config = http_config(port, [backend], workers=2)
    daemon = launch(config)
    path = daemon.folder / "web.sock"
    daemon.folder.chmod(0o777)
    config["listeners"].append({"name": "unix", "address": f"unix:{path}", "mode": "http", "upstream": "site"})
    daemon.write(config)
    monitor = begin_held(daemon)[1]
    # Only the new master's workers accept there.
    until(lambda: accepts(path), "the new workers")
    with Client(None, host=str(path)) as client:
        client.send(build("GET", "/"))
        gate.wait_waiting(1)
        daemon.send(signal.SIGTERM)
        daemon.send(signal.SIGCONT)
        daemon.wait_log("SIGTERM: stopping")
        monitor.kill(signal.SIGCONT)
        gate.release()
        assert client.response().body == b"done"
    assert daemon.process.wait(20) == 0
    until(lambda: files(daemon) == {"akashd.json"}, "the end of all files")
    until(lambda: "akashd: stopped: 0 streams" in daemon.log_text, "the end")


# -- deaths in the middle

def delayed(program, pidfile):
    """The program's place holds a script that stops before it becomes akashd: time to kill somebody."""
    shutil.copy(program, f"{program}.real")
    replace(program, f'#!/bin/sh\necho $$ > {pidfile}.t; mv {pidfile}.t {pidfile}\nkill -STOP $$\nexec {program}.real "$@"\n')


def stopped(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()[0] == "T"


def begin_delayed(daemon, program, tmp_path):
    """Ask for an upgrade; the pid of the new process, which stands still."""
    note = tmp_path / "new.pid"
    delayed(program, note)
    daemon.send(signal.SIGUSR2)
    until(note.exists, "the new process")
    pid = int(note.read_text())
    until(lambda: stopped(pid), "its standstill")
    return pid


def test_former_master_that_dies_before_the_new_one_is_ready(launch, farm, program, tmp_path):
    """What its workers counted is folded, and the new one serves alone."""
    port = free_port()
    daemon = launch(http_config(port, farm.addresses, workers=2), program=program)
    clients = [Client(port) for _ in range(4)]
    for client in clients:
        assert client.ask().status == 200
    daemon.wait_metric("akash_active_connections", lambda v: v == 4)
    served = daemon.metrics().value("akash_backend_served_total")
    fresh = begin_delayed(daemon, program, tmp_path)
    daemon.process.kill()
    os.kill(fresh, signal.SIGCONT)
    daemon.upgraded()
    assert daemon.pid == fresh
    daemon.former.clear()
    daemon.wait_metric("akash_active_connections", lambda v: v == 0)
    assert daemon.metrics().value("akash_backend_served_total") == served
    assert ask(port) == 200
    until(lambda: rows(daemon) == [(0, "serving"), (1, "serving")], "two rows")
    for client in clients:
        client.close()
    daemon.stop()


def test_former_master_that_dies_while_it_retires(launch, farm, echo):
    web, tcp = free_port(), free_port()
    daemon = launch(both(web, tcp, farm, echo, retire_timeout="5m"))
    streams = Streams(tcp, 5)
    daemon.upgrade()
    daemon.wait_metric("akash_active_connections", lambda v: v == 5)
    daemon.former[0].kill()
    daemon.wait_metric("akash_active_connections", lambda v: v == 0)
    until(lambda: rows(daemon) == [(0, "serving")], "one row")
    assert ask(web) == 200
    streams.close()
    daemon.former[0].wait()
    daemon.former.clear()
    daemon.stop()


def test_new_master_that_dies_while_it_starts(launch, farm, program, tmp_path):
    port = free_port()
    daemon = launch(http_config(port, farm.addresses), program=program)
    before = state_of(daemon)
    fresh = begin_delayed(daemon, program, tmp_path)
    os.kill(fresh, signal.SIGKILL)
    daemon.wait_log(r"upgrade: refused: the new binary was killed by signal 9")
    assert state_of(daemon) == before
    assert ask(port) == 200


def test_new_master_that_is_killed_leaves_no_file(launch, farm):
    port = free_port()
    daemon = launch(http_config(port, farm.addresses))
    before = files(daemon)
    fresh, _ = begin_held(daemon)
    os.kill(fresh, signal.SIGKILL)
    daemon.send(signal.SIGCONT)
    daemon.wait_log(r"upgrade: refused: the new binary was killed by signal 9")
    assert files(daemon) == before
    assert daemon.ctl("status").returncode == 0 and ask(port) == 200
    until(daemon.monitor, "a monitor")


def test_rows_are_enough_for_masters_that_retire_together(launch, farm, echo):
    """Five masters with four workers each, all kept by streams."""
    web, tcp = free_port(), free_port()
    daemon = launch(both(web, tcp, farm, echo, workers=4, retire_timeout="5m"))
    every = []
    for _ in range(4):
        every.append(Streams(tcp, 24))
        daemon.upgrade()
    for streams in every:
        streams.check()
    assert len([p for p in daemon.former if p.poll() is None]) == 4
    found = rows(daemon)
    assert found.count((0, "serving")) == 1 and len([r for r in found if r[1] == "serving"]) == 4
    assert len(found) > 8
    daemon.wait_metric("akash_active_connections", lambda v: v == 96)
    daemon.stop()  # ends the former masters as well
    for streams in every:
        streams.close()


@pytest.mark.timeout(120)
def test_row_that_is_needed_ends_the_oldest_worker_that_retires(launch, echo):
    """Three masters with 43 workers each are one more than there are rows."""
    tcp = free_port()
    daemon = launch(http_config(tcp, [echo.address], listener={"mode": "tcp"}, workers=43, retire_timeout="5m"))
    first = Streams(tcp, 500)
    daemon.upgrade(deadline=60)
    retired(daemon)
    second = Streams(tcp, 500)
    master = daemon.former[0].pid
    daemon.upgrade(deadline=60)
    ended = [line for line in daemon.log if "ended before its time" in line]
    assert len(ended) == 1 and f"of master {master}:" in ended[0]
    second.check()
    cut = 0
    for sock in first.socks:
        try:
            sock.sendall(b"x")
            cut += sock.recv(1) != b"x"
        except OSError:
            cut += 1
    assert 0 < cut < 100
    daemon.wait_metric("akash_active_connections", lambda v: v == 1000 - cut)
    for streams in (first, second):
        streams.close()


# -- the segment

def other_layout(daemon):
    """Change the layout's hash at the begin of the segment: what a binary laid out otherwise would see."""
    for entry in os.listdir(f"/proc/{daemon.pid}/fd"):
        path = f"/proc/{daemon.pid}/fd/{entry}"
        if os.readlink(path).startswith("/memfd:akashd ("):
            with open(path, "r+b", buffering=0) as segment:
                was, = struct.unpack("<Q", segment.read(8))
                segment.seek(0)
                segment.write(struct.pack("<Q", was ^ 1))
            return
    raise AssertionError("no segment")


def test_other_layout_gets_a_fresh_segment(launch, farm):
    port = free_port()
    daemon = launch(http_config(port, farm.addresses, workers=2))
    with Load(port, keepalive=8, fresh=4, check=farm.check) as load:
        load.wait_total(100)
        other_layout(daemon)
        daemon.upgrade()
        load.wait_total(load.account.total + 100)
    load.account.assert_all_ok(200)
    assert daemon.wait_log("segment is laid out otherwise: this one begins with a fresh one")
    assert daemon.former[0].wait(PATIENCE) == 0
    served = daemon.metrics().value("akash_backend_served_total")
    assert 0 < served < load.account.ok
    daemon.upgrade()
    assert daemon.metrics().value("akash_backend_served_total") >= served


def test_stop_ends_a_former_master_with_another_segment_two_upgrades_later(launch, farm, echo, tmp_path):
    """It has no rows that would name it, and the master that replaced it has gone."""
    web, tcp = free_port(), free_port()
    os.chmod(tmp_path, 0o777)
    access = tmp_path / "access.log"
    daemon = launch(both(web, tcp, farm, echo, retire_timeout="5m", drain_timeout="1s",
                         access_log={"target": str(access), "format": "tcp"}))
    streams = Streams(tcp, 2)
    other_layout(daemon)
    daemon.upgrade()
    retired_title = f"akashd: former master {daemon.file}"
    until(lambda: Process(daemon.former[0].pid).title == retired_title, "its retirement")
    daemon.upgrade()
    assert daemon.former[1].wait(PATIENCE) in (0, -1)  # its parent is the first one
    streams.check()
    access.rename(tmp_path / "old.log")
    daemon.send(signal.SIGUSR1)
    until(lambda: daemon.log_text.count("SIGUSR1: log files reopened") == 2, "both")
    daemon.send(signal.SIGTERM)
    assert daemon.former[0].wait(PATIENCE) == 0
    daemon.wait_log("this former process has ended: 2 streams were cut")
    assert daemon.process.wait(PATIENCE) in (0, -1)
    streams.close()


# -- the service manager

def test_service_manager_learns_the_new_main_process(launch, farm, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(PATIENCE)
        daemon = launch(http_config(free_port(), farm.addresses),
                        env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"})
        first = daemon.pid
        daemon.upgrade()
        heard = []
        while f"MAINPID={daemon.pid}" not in "\n".join(heard[:-1]):
            heard.append(manager.recv(4096).decode())
        assert any(f"MAINPID={first}" in text and "READY=1" in text for text in heard)
        assert daemon.former[0].wait(PATIENCE) == 0
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                manager.recv(4096)
        manager.settimeout(PATIENCE)
        until(lambda: manager.recv(4096).decode().startswith("WATCHDOG=1"), "the new one's watchdog")


def test_sockets_of_the_service_manager_are_handed_on(launch, farm):
    port, spare = free_port(), free_port()
    lent = [socket.create_server(("127.0.0.1", p), backlog=128) for p in (port, spare)]
    daemon = launch(http_config(port, farm.addresses, workers=2), lent=[sock.fileno() for sock in lent])
    with Load(port, keepalive=8, fresh=8, check=farm.check) as load:
        for _ in range(2):
            load.wait_total(load.account.total + 100)
            daemon.upgrade()
        daemon.reload(http_config(spare, farm.addresses))
        daemon.reload(http_config(port, farm.addresses, workers=3))
        load.wait_total(load.account.total + 100)
    load.account.assert_all_ok(300)
    daemon.stop()
    for sock in lent:
        sock.close()


def test_descriptors_stay_flat_over_upgrades(launch, farm):
    port = free_port()
    daemon = launch(http_config(port, farm.addresses, workers=2))
    counts = []
    for _ in range(3):
        daemon.upgrade()
        assert daemon.former[-1].wait(PATIENCE) == 0
        assert ask(port) == 200
        counts.append(daemon.process.seen.fds())
    assert counts[1] == counts[2], counts
