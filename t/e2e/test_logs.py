# SPDX-License-Identifier: Apache-2.0
"""Logs: no line lost or torn when files are reopened, none waited for; formats and targets."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from harness import PATIENCE, Client, Load, free_port, http_config, until
from harness.backend import fixed
from harness.client import build

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"
LINES = {
    "combined": re.compile(r'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}(:\d\d){3} [+-]\d{4}\] '
                           r'"GET \S+ HTTP/1\.1" 200 \d+ "-" "-"'),
    "json": re.compile(r'\{"time":"' + STAMP + r'","id":.*,"referer":""\}'),
    "tcp": re.compile(STAMP + r" 127\.0\.0\.1 web site/\S+ \d+ \d+ \d+\.\d{6} -"),
}
KEYS = ("time id listener client method host path protocol status reason upstream backend tries bytes_in bytes_out "
        "request_s queue_s connect_s response_s total_s tls resumed user_agent referer").split()
DROPPED = "akash_log_lines_dropped_total"
LONG = "/" + "x" * 500


@pytest.fixture
def place():
    """A folder that workers, who are nobody, may enter."""
    made = Path(tempfile.mkdtemp(prefix="akashd-logs-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def serve(launch, scripted):
    """A daemon of 4 workers in front of a backend; its port is daemon.port."""
    def start(access_log, prefix=(), **top):
        backend = scripted()
        port = free_port()
        daemon = launch(http_config(port, [backend], **{"workers": 4, "access_log": access_log or False, **top}), prefix=prefix)
        daemon.port, daemon.backend = port, backend
        return daemon
    return start


def load(daemon, count, target=LONG):
    """Exactly so many requests over many connections, each of which must be answered."""
    each = count // 8
    account = Load(daemon.port, keepalive=8, limit=each, target=target).join()
    account.assert_all_ok(each * 8)
    return each * 8


def dropped(daemon):
    return int(daemon.metrics().value(DROPPED))


def is_nonblocking(pid, fd):
    with open(f"/proc/{pid}/fdinfo/{fd}") as f:
        return bool(int(re.search(r"flags:\s+(\d+)", f.read())[1], 8) & os.O_NONBLOCK)


def settled(daemon, lines, requests):
    """Wait until each request is a line or counted; how many were counted."""
    until(lambda: lines() + dropped(daemon) >= requests, f"{requests} lines, written or counted")
    assert lines() + dropped(daemon) == requests, "counted more lines than there were"
    return dropped(daemon)


class Unread:
    """A FIFO of which nobody reads until lines() is asked; then what came is kept."""

    def __init__(self, path):
        self.path, self.fd, self.bytes = path, None, b""
        if not path.exists():
            os.mkfifo(path)
            path.chmod(0o666)

    def text(self):
        if self.fd is None:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while piece := os.read(self.fd, 65536):
                self.bytes += piece
        except BlockingIOError:
            pass
        return self.bytes.decode()

    def lines(self, pattern=LINES["combined"]):
        """How many lines of the access log have come; whatever else is there must be an event."""
        lines = self.text().splitlines()
        found = [line for line in lines if pattern.fullmatch(line)]
        assert all(re.match(r"\S+ (info|warn) \S", line) for line in set(lines) - set(found)), "a torn line"
        return len(found)

    def close(self):
        if self.fd is not None:
            os.close(self.fd)


@pytest.fixture
def unread(place):
    fifo = Unread(place / "fifo")
    yield fifo
    fifo.close()


# -- files


@pytest.mark.parametrize("kind", LINES)
def test_reopening_under_load_loses_and_tears_no_line(serve, place, kind):
    log = place / "access.log"
    daemon = serve({"target": str(log), "format": kind})
    with Load(daemon.port, keepalive=8, fresh=2) as running:
        for i in range(12):
            running.wait_total(running.account.total + 100)
            log.rename(place / f"access.{i}")
            since = len(daemon.log)
            daemon.send(signal.SIGUSR1)
            daemon.wait_log("log files reopened", since=since)
            assert log.exists()
    running.account.assert_all_ok(1200)
    files = [log, *place.glob("access.[0-9]*")]

    def lines():
        return [line for file in files for line in file.read_text().splitlines()]
    until(lambda: len(lines()) >= running.account.ok, "a line for each request")
    assert len(lines()) == running.account.ok
    assert all(LINES[kind].fullmatch(line) for line in lines()), "a torn line"
    assert sum(1 for file in files if file.stat().st_size > 0) > 10
    assert dropped(daemon) == 0


def test_events_of_workers_are_in_the_log_file_and_in_the_new_one_after_it_was_moved(serve, place, unread):
    log = place / "error.log"
    daemon = serve(str(unread.path), log={"target": str(log), "format": "json"})
    load(daemon, 800)
    said = re.compile(r'"level":"warn","process":"worker \d","message":"access_log: \S+: \d+ lines dropped')
    until(lambda: said.search(log.read_text()), "an event of a worker")
    log.rename(place / "error.1")
    daemon.send(signal.SIGUSR1)
    until(log.exists, "a new file")
    until(lambda: load(daemon, 80) and said.search(log.read_text()), "an event in the new file", PATIENCE + 20)


# -- targets that are slow


def test_fifo_that_nobody_reads_holds_up_neither_start_nor_workers(serve, unread):
    daemon = serve(str(unread.path))
    daemon.wait_log(r"log \S+fifo: nobody reads this FIFO")
    requests = load(daemon, 4000)
    assert settled(daemon, unread.lines, requests) > 1000
    line = daemon.wait_log(r"warn worker \d: access_log: \S+fifo: \d+ lines dropped")
    assert 0 < int(re.search(r"(\d+) lines", line)[1]) <= dropped(daemon)
    before = unread.lines()
    requests = load(daemon, 16)  # there is room again
    until(lambda: unread.lines() == before + requests, "lines for the reader that has come")


def test_file_that_a_fifo_has_replaced_holds_up_no_worker(serve, place):
    log = place / "access.log"
    daemon = serve(str(log))
    requests = load(daemon, 80)
    until(lambda: log.read_text().count("\n") == requests, "a line for each request")
    log.unlink()
    fifo = Unread(log)
    daemon.send(signal.SIGUSR1)
    daemon.wait_log("log files reopened")
    # What a worker is told it heeds before its next exchange but one.
    load(daemon, 4000)
    daemon.wait_metric(DROPPED, lambda n: n > 1000)
    assert fifo.lines() > 50
    fifo.close()


def test_standard_error_that_nobody_reads_holds_up_no_worker(serve, place, unread):
    log = place / "error.log"
    # As a service manager lends it: one description, which others share, without O_NONBLOCK.
    held = os.open(unread.path, os.O_RDWR)
    daemon = serve("stderr", prefix=["sh", "-c", f'exec 9>{unread.path} 2>&9; exec "$@"', "sh"], log={"target": str(log)})
    requests = load(daemon, 4000)
    assert settled(daemon, unread.lines, requests) > 1000
    until(lambda: re.search(r"access_log: stderr: \d+ lines dropped", log.read_text()), "a word about it")
    # Another process may fill the pipe between a look at it and a write: all have descriptions of their own
    # that do not wait, the master too. The one that was lent is as it was.
    assert all(is_nonblocking(process.pid, 2) for process in [*daemon.workers().values(), daemon])
    assert not is_nonblocking(daemon.pid, 9)
    os.close(held)


# What a root without CAP_DAC_OVERRIDE may do with what is another's, as under the systemd unit.
PLAIN_ROOT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.fixture
def write_only(place):
    """A FIFO of another user, which akashd may write to and not read."""
    path = place / "fifo"
    os.mkfifo(path)
    path.chmod(0o622)
    os.chown(path, 65534, 65534)
    return path


def test_fifo_that_may_not_be_read_needs_a_reader_and_survives_its_leaving(serve, write_only):
    reader = os.open(write_only, os.O_RDONLY | os.O_NONBLOCK)
    daemon = serve(str(write_only), prefix=PLAIN_ROOT)
    daemon.wait_log(r"warn master: log \S+fifo: akashd may not read this FIFO: lines are dropped while nobody does")
    assert load(daemon, 80, "/x") == 80
    heard = b""

    def lines():
        nonlocal heard
        try:
            heard += os.read(reader, 1 << 20)
        except BlockingIOError:
            pass
        return heard.count(b"\n")
    until(lambda: lines() == 80, "80 lines")
    os.close(reader)
    load(daemon, 160, "/x")
    daemon.wait_metric(DROPPED, lambda n: n == 160)
    since = len(daemon.log)
    daemon.send(signal.SIGUSR1)
    daemon.wait_log(r"error master: log \S+fifo: cannot reopen: nobody reads this FIFO, and akashd may not either\b.*; "
                    "the old file is kept", since=since)
    reader, heard = os.open(write_only, os.O_RDONLY | os.O_NONBLOCK), b""
    load(daemon, 40, "/x")
    until(lambda: lines() == 40, "40 lines for the next reader")
    assert dropped(daemon) == 160
    os.close(reader)


def test_fifo_that_nobody_may_or_does_read_is_an_error_with_its_cause(serve, write_only, place):
    with pytest.raises(AssertionError, match="fifo: cannot open: nobody reads this FIFO, and akashd may not either"):
        serve(str(write_only), prefix=PLAIN_ROOT)
    daemon = serve(None, prefix=PLAIN_ROOT)
    done = daemon.reload({**daemon.config, "access_log": str(write_only)}, expect=1)
    assert "begin its reader first" in done.stdout + done.stderr
    assert not any("lines wait in it" in line for line in daemon.log)


def test_dropped_events_are_counted_and_said(serve, unread):
    held = os.open(unread.path, os.O_RDWR | os.O_NONBLOCK)
    daemon = serve(None, log={"target": str(unread.path)})
    with pytest.raises(BlockingIOError):
        while True:
            os.write(held, b"." * 4095 + b"\n")
    daemon.reload()
    count = daemon.wait_metric(DROPPED, lambda n: n > 0)
    os.read(held, 1 << 20)
    daemon.reload()
    until(lambda: re.search(r"warn master: log: \d+ lines dropped", unread.text()), "a word about it")
    assert dropped(daemon) >= count
    os.close(held)


# -- what a line says


def one_line(daemon, log, request):
    """What the access log says of this request."""
    before = log.read_text().count("\n")
    with Client(daemon.port) as client:
        client.send(request)
        assert client.response().status == 200
    until(lambda: log.read_text().count("\n") == before + 1, "a line")
    return log.read_text().splitlines()[-1]


def test_json_has_every_key_and_its_value_is_true(serve, place):
    log = place / "access.log"
    daemon = serve({"target": str(log), "format": "json"})
    daemon.backend.answer(fixed(b"b" * 1234))
    line = json.loads(one_line(daemon, log, build("POST", "/a/b?c=d", [
        ("User-Agent", "test/1"), ("Referer", "http://from.test/")], b"u" * 567, host="web.test")))
    got = daemon.backend.requests[-1]
    assert list(line) == KEYS
    assert re.fullmatch(STAMP, line["time"])
    assert line["id"] and line["id"] == got.fields.get("x-request-id")
    told = {key: line[key] for key in KEYS if not key.endswith("_s") and key not in ("time", "id")}
    assert told == {
        "listener": "web", "client": "127.0.0.1", "method": "POST", "host": "web.test", "path": "/a/b?c=d",
        "protocol": "HTTP/1.1", "status": 200, "reason": "", "upstream": "site", "backend": daemon.backend.address,
        "tries": 1, "bytes_in": 567, "bytes_out": 1234, "tls": "", "resumed": False, "user_agent": "test/1",
        "referer": "http://from.test/"}
    assert 0 < line["response_s"] <= line["total_s"] < 60
    assert 0 < line["connect_s"] <= line["total_s"]
    assert line["queue_s"] == 0 and 0 <= line["request_s"] <= line["total_s"]


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("kind", ["combined", "json"])
def test_bytes_of_an_error_answer_are_those_of_its_body(serve, place, kind, version):
    log = place / "access.log"
    daemon = serve({"target": str(log), "format": kind})
    url = f"http://127.0.0.1:{daemon.port}/%00"
    body = subprocess.run(["curl", "-sS", version, url], capture_output=True, check=True).stdout
    subprocess.run(["curl", "-sSI", version, url], capture_output=True, check=True)
    until(lambda: log.read_text().count("\n") == 2, "two lines")
    lines = log.read_text().splitlines()
    told = [json.loads(line)["bytes_out"] if kind == "json" else int(line.split('" 400 ')[1].split()[0]) for line in lines]
    assert b"bad_request" in body and told == [len(body), 0]


@pytest.mark.parametrize("kind", ["combined", "json"])
def test_hostile_bytes_are_escaped_and_read_the_same(serve, place, kind):
    log = place / "access.log"
    daemon = serve({"target": str(log), "format": kind})
    line = one_line(daemon, log, b'GET /"},{\\u0041 HTTP/1.1\r\nHost: test\r\n'
                                 b'User-Agent: a\xff\xc3\xa9\t"\\x22\r\nReferer: %0a"\r\n\r\n')
    path, agent, referer = r'/\x22},{\x5cu0041', r'a\xff\xc3\xa9\x09\x22\x5cx22', r'%0a\x22'
    if kind == "json":
        told = json.loads(line)
        assert (told["path"], told["user_agent"], told["referer"]) == (path, agent, referer)
    else:
        assert line.split("] ", 1)[1] == f'"GET {path} HTTP/1.1" 200 2 "{referer}" "{agent}"'


@pytest.mark.parametrize("kind", ["combined", "json"])
def test_long_line_is_cut_in_its_values(serve, place, kind):
    log = place / "access.log"
    daemon = serve({"target": str(log), "format": kind})
    line = one_line(daemon, log, build("GET", "/" + "p" * 6000, [("User-Agent", "u" * 3000), ("Referer", "r" * 3000)]))
    assert 3000 < len(line) < 4096
    if kind == "json":
        assert list(json.loads(line)) == KEYS
    else:
        assert re.search(r'\] "GET /p+ HTTP/1\.1" 200 2 "r{200,}" "u{200,}"$', line)


# -- the journal, syslog


def test_the_journal_gets_priorities(serve):
    named = 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"'
    daemon = serve(None, prefix=["bash", "-c", named, "bash"], log={"target": "stderr", "level": "debug"})
    daemon.wait_log("^<6>info master: .*ready")
    daemon.write("{")
    assert daemon.ctl("reload").returncode == 1
    daemon.wait_log("^<3>error master: ")
    level = {"error": 3, "warn": 4, "info": 6, "debug": 7}
    for line in daemon.log:
        said = re.match(r"<(\d)>(\w+) (master|monitor|worker \d): ", line)
        assert said and int(said[1]) == level[said[2]], line


def can_mount():
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0


@pytest.fixture
def logger(place):
    """The socket of a system logger, and the prefix that puts it at /dev/log."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(place / "log"))
    (place / "log").chmod(0o666)
    sock.setblocking(False)
    dev = place / "dev"
    dev.mkdir()
    script = f"""mount -t tmpfs none {dev} && cd {dev} || exit 9
        for i in null zero full random urandom tty; do touch $i && mount --bind /dev/$i $i || exit 9; done
        ln -s /proc/self/fd fd && ln -s {place}/log log && cd / && mount --rbind {dev} /dev && exec "$@" """
    yield sock, ["unshare", "-m", "sh", "-c", script, "sh"]
    sock.close()


class Messages(list):
    """What has come to a logger's socket."""

    def __init__(self, sock):
        super().__init__()
        self.sock = sock

    def take(self):
        try:
            while True:
                self.append(self.sock.recv(65536).decode())
        except BlockingIOError:
            return self


HEAD = r"<(\d+)>[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d akashd\[\d+\]: "


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace for a /dev/log of its own")
def test_syslog_gets_events_and_the_access_log(serve, logger):
    sock, prefix = logger
    daemon = serve("syslog", prefix=prefix, log={"target": "syslog"})
    messages = Messages(sock)
    until(lambda: any(re.match(HEAD + "info master: .*ready", m) for m in messages.take()), "an event")
    requests = load(daemon, 8, "/")
    line = re.compile(HEAD + LINES["combined"].pattern)
    until(lambda: sum(1 for m in messages.take() if line.fullmatch(m)) == requests, f"lines; got {messages}")
    assert {line.fullmatch(m)[1] for m in messages if line.fullmatch(m)} == {"30"}  # daemon.info
    assert dropped(daemon) == 0


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace for a /dev/log of its own")
def test_syslog_that_does_not_read_holds_up_no_worker(serve, logger):
    sock, prefix = logger
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    daemon = serve("syslog", prefix=prefix)
    requests = load(daemon, 4000, "/")
    messages = Messages(sock)
    assert settled(daemon, lambda: len(messages.take()), requests) > 1000
    daemon.wait_log(r"warn worker \d: access_log: syslog: \d+ lines dropped")


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace for a /dev/log of its own")
def test_syslog_that_begins_again_is_found(serve, logger, place):
    sock, prefix = logger
    daemon = serve("syslog", prefix=prefix, workers=1)
    messages = Messages(sock)
    load(daemon, 8, "/")
    until(lambda: len(messages.take()) == 8, "messages")
    sock.close()
    (place / "log").unlink()
    load(daemon, 8, "/")
    daemon.wait_metric(DROPPED, lambda n: n == 8)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another:
        another.bind(str(place / "log"))
        (place / "log").chmod(0o666)
        another.setblocking(False)
        load(daemon, 8, "/")
        messages = Messages(another)
        until(lambda: len(messages.take()) == 8, "messages to the new logger")
