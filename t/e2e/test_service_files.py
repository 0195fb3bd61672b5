# SPDX-License-Identifier: Apache-2.0
"""The files for the operating system under scripts/: units, init script, logrotate, sysusers, completion."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from harness import Client, free_port, http_config, until
from harness.akashd import TOP, Process, binary, environment
from harness.backend import fixed

SERVICE = TOP / "scripts" / "service"
BUILT = Path(binary()).parent / "scripts" / "service"
UNITS = ("akashd", "akashd-unprivileged")

pytestmark = pytest.mark.paper
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run(*command, check=True, **kw):
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, **kw)
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture
def backend(scripted):
    backend = scripted()
    backend.always(fixed(b"ok"))
    return backend


def ask(port):
    with Client(port) as client:
        return client.ask().body


# -- systemd

@pytest.fixture
def units(tmp_path):
    """The units as built, naming the programs that were built: they are not installed."""
    for name in UNITS:
        text = (BUILT / f"{name}.service").read_text()
        text, n = re.subn(r"^(ExecStart=|ExecReload=)\S*/(akashd|akashctl)\b",
                          lambda m: m.group(1) + binary(m.group(2)), text, flags=re.M)
        assert n == 2
        (tmp_path / f"{name}.service").write_text(text)
        shutil.copy(SERVICE / f"{name}.socket", tmp_path)
    return tmp_path


def values(unit, key):
    """Every value of a key of a unit file, lists apart at their spaces."""
    return [value.split() for value in re.findall(rf"^{key}=(.*)$", unit.read_text(), re.M)]


def test_units_are_verified_without_a_word(units):
    # One at a time: the two services exclude each other, and verifying both at once says so.
    for name in UNITS:
        done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no",
                   str(units / f"{name}.service"), str(units / f"{name}.socket"))
        assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("name, tenths", [("akashd", 23), ("akashd-unprivileged", 15)])
def test_exposure_of_units(units, name, tenths):
    done = run("systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={tenths}",
               str(units / f"{name}.service"), check=False)
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.returncode == 0, done.stdout


def test_root_master_keeps_four_capabilities():
    assert values(BUILT / "akashd.service", "CapabilityBoundingSet") == [
        ["CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"]]
    assert values(BUILT / "akashd-unprivileged.service", "CapabilityBoundingSet") == [[]]


def full_life(daemon, port, backend):
    """What a service does between start and stop."""
    assert ask(port) == b"ok"
    daemon.reload()
    worker = daemon.workers()[0]
    worker.kill()
    until(lambda: 0 in (now := daemon.workers()) and now[0].pid != worker.pid, "another worker")
    daemon.send(signal.SIGUSR1)
    daemon.wait_log("reopened")
    daemon.wait_metric("akash_backend_up", lambda value: value == 1)
    assert daemon.ctl("status").returncode == 0
    assert ask(port) == b"ok"
    daemon.stop()


def checked_config(port, backend, folder):
    return http_config(port, [backend], upstream={"health_check": {"type": "http", "interval": "100ms"}},
                       log={"target": "stderr"}, access_log=str(folder / "access.log"))


@as_root
def test_master_lives_with_the_capabilities_of_the_unit(launch, backend, tmp_path):
    """Root without the right to read what is not root's, to change owners, or anything else."""
    caps = values(BUILT / "akashd.service", "CapabilityBoundingSet")[0]
    bounding = ",".join(["-all", *("+" + cap.removeprefix("CAP_").lower() for cap in caps)])
    port = free_port()
    daemon = launch(checked_config(port, backend, tmp_path), prefix=[
        "setpriv", "--bounding-set", bounding, "--no-new-privs", "--"])
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    assert int(re.search(r"CapEff:\s*(\w+)", status).group(1), 16) == 1 << 10 | 1 << 7 | 1 << 6 | 1 << 5
    full_life(daemon, port, backend)


@as_root
def test_unprivileged_variant_needs_no_capability(launch, backend, tmp_path):
    os.chown(tmp_path, 65534, -1)
    tmp_path.chmod(0o755)
    port = free_port()
    config = {**checked_config(port, backend, tmp_path), "access_log": "off"}
    daemon = launch(config, start=False, prefix=[
        "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all",
        "--no-new-privs", "--"])
    os.chown(daemon.folder, 65534, -1)
    os.chown(daemon.file, 65534, -1)
    daemon.start()
    assert "CapEff:\t0000000000000000" in Path(f"/proc/{daemon.pid}/status").read_text()
    full_life(daemon, port, backend)


def calls_of(unit):
    """The system calls that the unit's filter lets through, by the sets of the systemd that is here."""
    sets, name = {}, None
    for line in run("systemd-analyze", "syscall-filter", "--no-pager").stdout.splitlines():
        if line.startswith("@"):
            name = line.strip()
            sets[name] = []
        elif line.startswith("    ") and not line.strip().startswith("#"):
            sets[name].append(line.strip())

    def members(word):
        return set().union(*map(members, sets[word])) if word in sets else {word}
    allowed = set()
    for words in values(unit, "SystemCallFilter"):
        out = words[0].startswith("~")
        for word in [words[0].lstrip("~"), *words[1:]]:
            allowed = allowed - members(word) if out else allowed | members(word)
    return allowed


def test_every_system_call_passes_the_filter_of_the_unit(launch, backend, tmp_path):
    trace, port = tmp_path / "trace", free_port()
    daemon = launch(checked_config(port, backend, tmp_path), start=False,
                    prefix=["strace", "-f", "-qq", "-o", str(trace), "--"],
                    env={"ASAN_OPTIONS": environment()["ASAN_OPTIONS"].replace("detect_leaks=1", "detect_leaks=0")})
    daemon.start()
    master = int(daemon.pid_file.read_text())
    assert ask(port) == b"ok"
    os.kill(master, signal.SIGHUP)
    daemon.wait_log("reload: done")
    os.kill(master, signal.SIGUSR1)
    daemon.wait_log("reopened")
    daemon.wait_metric("akash_backend_up", lambda value: value == 1)
    os.kill(master, signal.SIGTERM)
    assert daemon.wait_exit() == 0
    text = trace.read_text()
    text = text[text.index("execve("):]
    used = set(re.findall(r"^\d+ +(\w+)\(", text, re.M)) - {"exit_group"}
    assert {"socket", "bind", "listen", "epoll_wait", "accept4"} <= used
    for name in UNITS:
        refused = used - calls_of(BUILT / f"{name}.service")
        # Only root changes its user; with the unprivileged unit nobody does.
        assert refused <= ({"setgroups", "setuid", "setgid", "setresuid", "setresgid"} if "un" in name else set())
        families = {word for words in values(BUILT / f"{name}.service", "RestrictAddressFamilies") for word in words}
        assert set(re.findall(r"\bsocket(?:pair)?\((AF_\w+)", text)) <= families
    daemon.destroy()


def test_socket_units_say_what_the_manual_says():
    """akashd finds a lent socket by its address; ":80" is systemd's ListenStream=80."""
    for name in UNITS:
        assert values(SERVICE / f"{name}.socket", "ListenStream") == [["80"], ["443"]]


# -- the other files

@as_root
def test_sysusers_and_tmpfiles_make_what_the_service_needs(tmp_path):
    (tmp_path / "etc").mkdir()
    run("systemd-sysusers", f"--root={tmp_path}", str(SERVICE / "akashd.sysusers"))
    passwd = (tmp_path / "etc" / "passwd").read_text()
    assert re.search(r"^akashd:x:\d+:\d+:akashd load balancer:/:/usr/sbin/nologin$", passwd, re.M), passwd
    run("systemd-tmpfiles", "--create", f"--root={tmp_path}", str(SERVICE / "akashd.tmpfiles"))
    assert oct((tmp_path / "run" / "akashd").stat().st_mode) == "0o40755"
    assert oct((tmp_path / "var" / "log" / "akashd").stat().st_mode) == "0o40750"


def test_sysctl_example_names_values_that_exist():
    keys = re.findall(r"^([a-z_.0-9]+) = \S+", (SERVICE / "akashd.sysctl").read_text(), re.M)
    assert len(keys) >= 4
    for key in keys:
        assert Path("/proc/sys", *key.split(".")).exists(), key


def test_example_configuration_is_good():
    run(binary(), "-t", "-c", str(SERVICE / "akashd.json"))


def test_logrotate_loses_no_line(launch, backend, tmp_path):
    logs, port = tmp_path / "logs", free_port()
    logs.mkdir(mode=0o755)
    daemon = launch(http_config(port, [backend], access_log=str(logs / "access.log")))
    assert ask(port) == b"ok"
    until(lambda: (logs / "access.log").read_text().count("\n") == 1, "the first line")
    rules = (SERVICE / "akashd.logrotate").read_text()
    for ours, there in ((str(logs), "/var/log/akashd"), (str(daemon.pid_file), "/run/akashd.pid"),
                        (str(tmp_path / "none"), "/run/systemd/system")):
        assert there in rules
        rules = rules.replace(there, ours)
    (tmp_path / "rules").write_text(rules)
    (tmp_path / "rules").chmod(0o644)
    run(shutil.which("logrotate") or "/usr/sbin/logrotate", "-f", "-s", str(tmp_path / "state"), str(tmp_path / "rules"))
    daemon.wait_log("reopened")
    assert ask(port) == b"ok"
    until(lambda: (logs / "access.log").read_text().count("\n") == 1, "the second line in the new file")
    assert (logs / "access.log.1").read_text().count("\n") == 1


# -- the init script

class Init:
    """The init script with its variables led elsewhere, as /etc/default/akashd would."""

    def __init__(self, folder, config):
        self.folder, self.config = folder, folder / "akashd.json"
        self.pid_file = folder / "run.pid"
        self.config.write_text(config)
        (folder / "default").write_text(f"""
DAEMON={binary()} CONTROL={binary("akashctl")} CONFIG={self.config} PIDFILE={self.pid_file}
CONTROL_SOCKET={folder}/control.sock OUTPUT={folder}/logs/start.out STOP_SECONDS=20
""")

    def __call__(self, word, expect=0):
        done = run("sh", str(BUILT / "akashd.init"), word, check=False,
                   env={**environment(), "AKASHD_DEFAULTS": str(self.folder / "default")})
        assert done.returncode == expect, f"{word}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    @property
    def pid(self):
        return int(self.pid_file.read_text())


@pytest.fixture
def init(tmp_path, backend):
    port = free_port()
    config = http_config(port, [backend], control_socket=str(tmp_path / "control.sock"), metrics=False, workers=1)
    if os.geteuid() == 0:
        config.update(user="nobody", group="nogroup")
    script = Init(tmp_path, json.dumps(config))
    script.port = port
    yield script
    if script.pid_file.exists():
        script("stop")


def test_init_script_has_its_header():
    text = (BUILT / "akashd.init").read_text()
    header = text[text.index("### BEGIN INIT INFO"):text.index("### END INIT INFO")]
    for key in ("Provides", "Required-Start", "Required-Stop", "Default-Start", "Default-Stop", "Short-Description"):
        assert f"# {key}:" in header


def test_init_script_over_a_whole_life(init):
    init("status", expect=3)
    init("stop")
    init("start")
    first = init.pid
    assert ask(init.port) == b"ok"
    assert f"process {first}" in init("status")
    assert "already running" in init("start") and init.pid == first
    init("reload")
    assert init.pid == first
    init("restart")
    assert init.pid != first and ask(init.port) == b"ok"
    init("try-restart")
    init("stop")
    assert not init.pid_file.exists()
    init("status", expect=3)
    init("try-restart")
    init("status", expect=3)


def test_init_script_does_not_restart_into_a_wrong_file(init):
    init("start")
    pid = init.pid
    init.config.write_text("{")
    init("restart", expect=6)
    init("reload", expect=1)
    assert init.pid == pid and ask(init.port) == b"ok"


def test_init_script_tells_why_it_did_not_start(init):
    init.config.write_text('{"algoritm": 1}')
    assert "did you mean" in init("start", expect=1)
    init.config.unlink()
    init("start", expect=6)
    init("reload", expect=7)
    init("sing", expect=2)


def test_init_script_believes_no_pid_of_another_program(init):
    init.pid_file.write_text(f"{os.getpid()}\n")
    init("status", expect=1)
    init("start")
    assert Process(init.pid).title.startswith("akashd: master")


def test_init_script_ends_what_does_not_stop(init):
    """A master that hangs hears no signal but KILL; its children go with it."""
    text = (init.folder / "default").read_text().replace("STOP_SECONDS=20", "STOP_SECONDS=1")
    (init.folder / "default").write_text(text)
    init("start")
    os.kill(init.pid, signal.SIGSTOP)
    assert "stopping at once" in init("stop")

    def is_free():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", init.port))
            except OSError:
                return False
        return True
    until(is_free, "the port of what was killed")
    init("status", expect=3)


# -- completion

def complete(*words, env=None):
    """What bash would offer for the last word of this command line."""
    program = words[0]
    script = f"""
source {TOP}/scripts/completion/{program}
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_{program}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{Path(binary()).parent}:{os.environ['PATH']}"
    done = run("bash", "--norc", "-c", script, "bash", *words, env={**environment(), "PATH": path, **(env or {})})
    return [line for line in done.stdout.splitlines() if line]


def test_completion_of_akashd_knows_every_option():
    told = set(re.findall(r"--[a-z][a-z-]*", run(binary(), "-h").stdout))
    assert len(told) >= 7
    assert told <= set(complete("akashd", "--"))
    assert {"-c", "-t", "-T", "-D", "-p", "-v", "-V", "-h"} <= set(complete("akashd", "-"))
    assert complete("akashd", "--print-s") == ["--print-schema"]


def test_completion_of_akashd_offers_files_where_one_is_due():
    for before in ("-c", "--config", "-p"):
        assert f"{SERVICE}/akashd.json" in complete("akashd", before, f"{SERVICE}/akashd.j")


def test_completion_of_akashctl_knows_every_command():
    assert {"reload", "status", "stop"} <= set(complete("akashctl", ""))
    assert complete("akashctl", "-s", "/x", "-j", "relo") == ["reload"]
    assert {"-s", "-j"} <= set(complete("akashctl", "-"))
    assert complete("akashctl", "status", "") == []


FAKE = """#!/bin/sh
case "$*" in
-h) cat <<'E'
usage: akashctl [-s SOCKET] COMMAND
  drain|ready UPSTREAM/BACKEND  take no new requests
  weight UPSTREAM/BACKEND N     its share
  diff [FILE]                   what a reload would change, and whom it
                                touches
  log level LEVEL               what is told
  breaker open|close|auto UPSTREAM/BACKEND
  -s SOCKET                     the control socket
E
;;
"-s /sock -j status") exec AKASHCTL -s SOCKET -j status ;;
esac
"""


def test_completion_of_akashctl_reads_help_and_status(launch, backend, tmp_path):
    """What a command takes comes from its line in the help, and backends from the server that -s names."""
    daemon = launch(http_config(free_port(), [{"address": backend.address, "id": "one"}, {"address": "127.0.0.1:1"}]))
    fake = FAKE.replace("AKASHCTL", binary("akashctl")).replace("SOCKET -j", f"{daemon.control} -j")
    (tmp_path / "akashctl").write_text(fake)
    (tmp_path / "akashctl").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert complete("akashctl", "", env=env) == ["drain", "ready", "weight", "diff", "log", "breaker"]
    for command in (["drain"], ["ready"], ["weight"], ["breaker", "open"]):
        assert complete("akashctl", "-s", "/sock", *command, "si", env=env) == ["site/one", "site/127.0.0.1:1"]
    assert complete("akashctl", "-s", "/sock", "weight", "site/one", "", env=env) == []
    assert complete("akashctl", "log", "", env=env) == ["level"]
    assert complete("akashctl", "log", "level", "de", env=env) == ["debug"]
    assert complete("akashctl", "breaker", "", env=env) == ["open", "close", "auto"]
    assert complete("akashctl", "diff", f"{SERVICE}/akashd.j", env=env) == [f"{SERVICE}/akashd.json"]
