# SPDX-License-Identifier: Apache-2.0
"""akashd.py - start, observe, reload and stop the real daemon."""

import copy
import ctypes
import grp
import http.client
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from .wire import PATIENCE, free_port, until

TOP = Path(__file__).resolve().parents[3]
REPORT = re.compile(r"AddressSanitizer|LeakSanitizer|UndefinedBehaviorSanitizer|runtime error:"
                    r"|Assertion .* failed|stack smashing|buffer overflow detected|sandbox: \S+ refused")
SAMPLE = re.compile(r'([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? (\S+)(?: \d+)?\Z')
LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|\Z)')


def binary(name="akashd"):
    """Path of a built program: $AKASHD (akashctl lies beside it), else ./ or build/ of the checkout."""
    chosen = os.environ.get("AKASHD")
    places = [Path(chosen).resolve().parent] if chosen else [Path.cwd(), TOP, TOP / "build"]
    if chosen and name == "akashd":
        return str(Path(chosen).resolve())
    for place in places:
        if os.access(place / name, os.X_OK) and (place / name).is_file():
            return str(place / name)
    raise FileNotFoundError(f"no built {name}; set AKASHD to the path of akashd")


def is_sanitized():
    """Whether the daemon was built with AddressSanitizer: its memory and speed then say nothing."""
    with open(binary(), "rb") as f:
        return b"__asan_init" in f.read()


def environment():
    env = dict(os.environ)
    env.setdefault("ASAN_OPTIONS", "detect_leaks=1:exitcode=99:abort_on_error=0:detect_stack_use_after_return=1")
    env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1:exitcode=99")
    return env


def http_config(port, backends, upstream=None, listener=None, upstreams=None, **top):
    """A long-form configuration: one HTTP listener named web, one upstream named site, no health check; and
    what other upstreams there are."""
    return {
        "listeners": [{"name": "web", "address": f"127.0.0.1:{port}", "mode": "http",
                       "upstream": "site", **(listener or {})}],
        "upstreams": {"site": {"backends": [as_backend(b) for b in backends],
                               "health_check": False, **(upstream or {})}, **(upstreams or {})},
        **top,
    }


def tcp_config(port, backends, upstream=None, listener=None, **top):
    """As http_config, in tcp mode."""
    return http_config(port, backends, upstream, {"mode": "tcp", **(listener or {})}, **top)


def as_backend(backend):
    if isinstance(backend, dict):
        return backend
    return {"address": backend if isinstance(backend, str) else backend.address}


class Metrics:
    """One scrape: a list of (name, labels, value)."""

    def __init__(self, text):
        self.samples = []
        self.types = {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ", 3)
                self.types[name] = kind
            elif line and not line.startswith("#"):
                m = SAMPLE.match(line)
                assert m, f"not a metrics line: {line!r}"
                labels = {k: re.sub(r"\\(.)", r"\1", v) for k, v in LABEL.findall(m.group(2) or "")}
                self.samples.append((m.group(1), labels, float(m.group(3))))

    def all(self, name, /, **labels):
        """[(labels, value)] of every sample of that name whose labels include the given ones."""
        return [(have, value) for n, have, value in self.samples
                if n == name and all(have.get(k) == str(v) for k, v in labels.items())]

    def value(self, name, /, **labels):
        """The sum over the matching samples; None if there is none."""
        found = self.all(name, **labels)
        return sum(v for _, v in found) if found else None


class Process:
    """A process as /proc shows it; the start time tells it from a later one of the same id."""

    def __init__(self, pid):
        self.pid = pid
        self.start = self._stat()[19]
        self.title = self._title()

    def _stat(self):
        with open(f"/proc/{self.pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()

    def _title(self):
        with open(f"/proc/{self.pid}/cmdline", "rb") as f:
            return f.read().replace(b"\0", b" ").strip().decode("latin-1")

    @property
    def alive(self):
        try:
            stat = self._stat()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat[19] == self.start and stat[0] not in "ZX"

    def kb(self, key):
        """A line of /proc/PID/status in KB, as VmRSS."""
        with open(f"/proc/{self.pid}/status") as f:
            for line in f:
                if line.startswith(key + ":"):
                    return int(line.split()[1])
        raise KeyError(key)

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def kill(self, sig=signal.SIGKILL):
        os.kill(self.pid, sig)

    def __repr__(self):
        return f"<{self.pid} {self.title}>"


def adopt_orphans():
    """From now on processes whose parents end become this one's children, not init's."""
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Foster:
    """A master that another one started, with what the tests use of a Popen.

    Call adopt_orphans() first: then a new master is our child when the former one has ended.
    """

    def __init__(self, pid):
        self.pid = pid
        self.seen = Process(pid)
        self.returncode = None

    def send_signal(self, sig):
        os.kill(self.pid, sig)

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def poll(self):
        """The exit status once it has ended; -1: its own parent, a former master, took it."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            except ChildProcessError:
                if not self.seen.alive:
                    self.returncode = -1
        return self.returncode

    def wait(self, deadline=PATIENCE):
        end = time.monotonic() + deadline
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("akashd", deadline)
            time.sleep(0.01)
        return self.returncode


class Akashd:
    """The daemon with a configuration of its own, in a folder of its own."""

    running = []

    def __init__(self, config, start=True, args=(), metrics=True, prefix=(), env=None, lent=(),
                 program=None):
        self.folder = Path(tempfile.mkdtemp(prefix="akashd-"))
        self.folder.chmod(0o755)
        self.file = self.folder / "akashd.json"
        self.control = self.folder / "control.sock"
        self.pid_file = self.folder / "akashd.pid"
        self.metrics_port = free_port() if metrics else None
        self.args, self.prefix = list(args), list(prefix)
        self.lent = list(lent)
        self.env = {**environment(), **(env or {})}
        self.log = []
        self.logged = threading.Condition()
        self.process = None
        self.former = []  # masters that upgrades have replaced
        self.program = program
        self.write(config)
        if start:
            self.start()

    # -- configuration

    def complete(self, config):
        """The configuration with what every test needs and none wants to say."""
        full = copy.deepcopy(config)
        full.setdefault("control_socket", str(self.control))
        full.setdefault("pid_file", str(self.pid_file))
        full.setdefault("metrics", f"127.0.0.1:{self.metrics_port}" if self.metrics_port else False)
        full.setdefault("workers", 1)
        full.setdefault("drain_timeout", "5s")
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            full.setdefault("user", user.pw_name)
            full.setdefault("group", grp.getgrgid(user.pw_gid).gr_name)
        return full

    def write(self, config):
        """Replace the file; a str is written as it is."""
        self.config = config
        text = config if isinstance(config, str) else json.dumps(self.complete(config), indent=2)
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, self.file)

    # -- life

    def start(self, ready=True):
        command = [*self.prefix, *self._lend(), self.program or binary(), "-c", str(self.file), *self.args]
        self.former = []
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                        stdin=subprocess.DEVNULL, env=self.env, cwd=self.folder,
                                        pass_fds=self.lent)
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()
        Akashd.running.append(self)
        if ready:
            try:
                self.wait_ready()
            except BaseException:
                self.destroy()
                raise
        return self

    def _lend(self):
        """What a service manager does between fork and exec: lent descriptors from 3 on, and the environment."""
        if not self.lent:
            return []
        spare = max(self.lent) + 1  # none of 3, 4 … is overwritten before it was copied
        moves = [f"exec {spare + i}<&{fd}" for i, fd in enumerate(self.lent)]
        moves += [f"exec {fd}<&-" for fd in self.lent]
        moves += [f"exec {3 + i}<&{spare + i} {spare + i}<&-" for i in range(len(self.lent))]
        script = f'{"; ".join(moves)}; LISTEN_FDS={len(self.lent)} LISTEN_PID=$$ exec "$@"'
        return ["bash", "-c", script, "manager"]

    def _read_log(self):
        for line in self.process.stderr:
            with self.logged:
                self.log.append(line.decode("utf-8", "replace").rstrip("\n"))
                self.logged.notify_all()
        with self.logged:
            self.logged.notify_all()

    def wait_ready(self, deadline=PATIENCE):
        """Wait until /readyz says 200 or, without metrics, until the log says ready.

        One accepting worker is enough for /readyz. The pid file comes when all children serve: a test may
        then end one of them, or expect that connections reach each of them.
        """
        has_pid_file = isinstance(self.config, dict) and "pid_file" not in self.config and "-p" not in self.args

        def ready():
            if self.process.poll() is not None:
                self.reader.join(PATIENCE)
                raise AssertionError(f"akashd exited {self.process.returncode}:\n" + self.log_text)
            if self.metrics_port:
                is_told = self.pid_file.exists() or not has_pid_file
                return is_told and self.get("/readyz", missing=(0, ""))[0] == 200
            return any(re.search(r"\bready\b", line) for line in self.log)
        until(ready, f"akashd to be ready; log:\n{self.log_text}", deadline)

    def send(self, sig):
        self.process.send_signal(sig)

    def wait_exit(self, deadline=PATIENCE):
        """The exit status."""
        try:
            status = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"akashd did not exit in {deadline} s:\n{self.log_text}") from None
        self.reader.join(PATIENCE)
        return status

    def stop(self, sig=signal.SIGTERM, deadline=15):
        """End it as an operator would, and hold it to what it owes: status 0, nothing left, no report."""
        family = self.children()
        try:
            if self.process.poll() is None:
                self.send(sig)
            status = self.process.wait(deadline) if self.former else self.wait_exit(deadline)
            # A former master that still lives is its parent, and takes the status.
            assert status == 0 or self.former and status == -1 and self.wait_log("akashd: stopped: "), \
                f"akashd exited {status}:\n{self.log_text}"
            for former in self.former:
                assert former.wait(deadline) in (0, -1), f"a former master failed:\n{self.log_text}"
            self.reader.join(PATIENCE)
            until(lambda: not [p for p in family if p.alive], f"the end of {family}", 5)
            self.assert_clean()
            assert not self.control.exists(), "control socket left behind"
            assert not self.pid_file.exists(), "pid file left behind"
        finally:
            self.destroy()

    def destroy(self):
        """End everything at once, without asking for manners."""
        for process in [self.process, *reversed(self.former)] if self.process else []:
            if process.poll() is None:
                for p in self.children(process.pid):
                    if p.alive:
                        p.kill()
                process.kill()
                process.wait()
        if self in Akashd.running:
            Akashd.running.remove(self)
        shutil.rmtree(self.folder, ignore_errors=True)

    def assert_clean(self):
        """No sanitizer report, no failed assertion, no worker that died on its own."""
        bad = [line for line in self.log if REPORT.search(line)]
        assert not bad, "report in the log:\n" + self.log_text

    def upgraded(self, deadline=PATIENCE):
        """Wait until a new master is in charge, and speak to that one from now on."""
        until(lambda: self.written_pid() not in (None, self.pid), f"a new master; log:\n{self.log_text}", deadline)
        self.former.append(self.process)
        self.process = Foster(self.written_pid())

    def upgrade(self, deadline=PATIENCE):
        """Replace the binary as an operator does."""
        self.send(signal.SIGUSR2)
        self.upgraded(deadline)

    def written_pid(self):
        try:
            return int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None

    # -- processes

    @property
    def pid(self):
        return self.process.pid

    def children(self, pid=None):
        """Every direct child of the master (or of another process)."""
        found, parent = [], pid or self.process.pid
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open(f"/proc/{entry}/stat") as f:
                    stat = f.read().rsplit(")", 1)[1].split()
                if int(stat[1]) == parent and stat[0] not in "ZX":
                    found.append(Process(int(entry)))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    def workers(self):
        """{index: Process} by the titles "akashd: worker 0"."""
        out = {}
        for p in self.children():
            m = re.match(r"akashd: worker (\d+)\b", p.title)
            if m:
                out[int(m.group(1))] = p
        return out

    def monitor(self):
        """The monitor process, or None."""
        return next((p for p in self.children() if p.title.startswith("akashd: monitor")), None)

    # -- what it says

    @property
    def log_text(self):
        return "\n".join(self.log)

    def wait_log(self, pattern, deadline=PATIENCE, since=0):
        """The first line from number since on that matches."""
        wanted = re.compile(pattern)
        end = time.monotonic() + deadline
        with self.logged:
            while True:
                for line in self.log[since:]:
                    if wanted.search(line):
                        return line
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no log line {pattern!r} in:\n{self.log_text}")
                self.logged.wait(left)

    def get(self, path, missing=None):
        """(status, body) of a page on the metrics port; missing is returned when nothing answers."""
        conn = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=PATIENCE)
        try:
            conn.request("GET", path)
            answer = conn.getresponse()
            return answer.status, answer.read().decode("utf-8")
        except (OSError, http.client.HTTPException):
            if missing is None:
                raise
            return missing
        finally:
            conn.close()

    def metrics(self):
        status, text = self.get("/metrics")
        assert status == 200, text
        return Metrics(text)

    def wait_metric(self, name, predicate, /, deadline=PATIENCE, **labels):
        """Wait until predicate(sum of the matching samples) holds; the value is returned."""
        last = []

        def holds():
            value = self.metrics().value(name, **labels)
            last[:] = [value]
            return (value is not None and predicate(value), value)
        try:
            return until(lambda: (lambda r: r if r[0] else None)(holds()), name, deadline, 0.05)[1]
        except AssertionError as why:
            raise AssertionError(f"{why}; last value of {name}{labels}: {last}") from None

    # -- operators

    def ctl(self, *command, deadline=30):
        """akashctl with this daemon's socket: the finished process, output as text."""
        return subprocess.run([binary("akashctl"), "-s", str(self.control), *command],
                              capture_output=True, text=True, timeout=deadline, env=self.env)

    def reload(self, config=None, expect=0):
        """Write config (if given), reload, wait for the verdict; expect is akashctl's exit status."""
        if config is not None:
            self.write(config)
        done = self.ctl("reload")
        assert done.returncode == expect, f"akashctl reload: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def hup(self, config=None):
        """Ask for a reload by SIGHUP; returns the number of log lines before it, for wait_log(since=)."""
        if config is not None:
            self.write(config)
        before = len(self.log)
        self.send(signal.SIGHUP)
        return before
