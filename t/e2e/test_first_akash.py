# SPDX-License-Identifier: Apache-2.0
"""What the first Akash promised, on its own fixed ports: each test runs in a network namespace of its own.

The tests named inside_* do the work; the others start them there, in a pytest of their own.
"""

import fcntl
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from harness import Client, ScriptedBackend, curl, until
from harness.akashd import Metrics, binary, environment
from harness.backend import fixed
from harness.fronts import Authority

INSIDE = os.environ.get("AKASHD_NAMESPACE") == "inside"

# As its documentation has it, to the letter.
EXAMPLE = """{
  "host": "0.0.0.0",
  "listen": "1902",
  "algorithm": "round_robin",
  "max_connections": 1000,
  "timeout_seconds": 5,
  "health_check_path": "/health",
  "health_check_port": "80",
  "health_check_freq": 10,
  "tls_cert_file": "server.crt",
  "tls_key_file": "server.key",
  "Backends": [
    { "address": "127.0.0.1:8081", "weight": 1, "paths": ["/api"] },
    { "address": "127.0.0.1:8082", "weight": 2, "paths": ["/static"] }
  ]
}
"""


def unshare():
    """A network of one's own: as root directly, else as the root of a user namespace that keeps one's id."""
    if os.geteuid() == 0:
        return ["unshare", "-n"]
    return ["unshare", "-rn", "--map-current-user", "--keep-caps"]


def inside(name):
    """Run the test named inside_* in a namespace; its output is shown if it fails."""
    env = {**os.environ, "AKASHD_NAMESPACE": "inside", "AKASHD": binary()}
    done = subprocess.run([*unshare(), sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p",
                           "no:xdist", "-o", f"python_functions={name}", __file__],
                          env=env, capture_output=True, text=True, timeout=55, cwd=Path(__file__).parent)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(INSIDE, reason="starts what runs inside")
def test_example_file_of_the_first_akash_serves():
    inside("inside_example_file_serves")


@pytest.mark.slow
@pytest.mark.skipif(INSIDE, reason="starts what runs inside")
def test_dead_health_port_takes_the_backends_out():
    inside("inside_health_port_decides")


@pytest.mark.skipif(INSIDE, reason="starts what runs inside")
def test_demonstration_takes_turns_and_counts():
    inside("inside_demonstration")


# -- inside

@pytest.fixture
def loopback():
    """Bring lo up."""
    with socket.socket() as s:
        request = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(s, 0x8914, request)  # SIOCSIFFLAGS
    yield


class Daemon:
    """akashd as a user of the first Akash starts it."""

    def __init__(self, *args, folder):
        self.log = []
        program = "./akashd" if (folder / "akashd").exists() else binary()
        self.process = subprocess.Popen([program, *args], cwd=folder, env=environment(), text=True,
                                        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.reader = threading.Thread(target=lambda: self.log.extend(iter(self.process.stderr.readline, "")),
                                       daemon=True)
        self.reader.start()

    def wait(self, pattern, deadline=10):
        def found():
            assert self.process.poll() is None, "".join(self.log)
            return [line for line in self.log if re.search(pattern, line)]
        try:
            return until(found, pattern, deadline)
        except AssertionError:
            raise AssertionError(f"no {pattern!r} in\n" + "".join(self.log)) from None

    def stop(self):
        self.process.terminate()
        assert self.process.wait(20) == 0, "".join(self.log)
        self.reader.join(5)
        assert not re.search("Sanitizer|runtime error", "".join(self.log)), "".join(self.log)


@pytest.fixture
def start():
    """Start daemons that end with the test, whatever becomes of it."""
    made = []

    def run(*args, folder):
        made.append(Daemon(*args, folder=folder))
        return made[-1]
    yield run
    for daemon in made:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()


@pytest.fixture
def example(loopback, tmp_path):
    """A folder with ./akashd, the file and the certificates beside it; servers on 80, 8081 and 8082."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("localhost", stem="server")
    os.rename(cert, tmp_path / "server.crt")
    assert key == str(tmp_path / "server.key")
    (tmp_path / "akash.json").write_text(EXAMPLE)
    shutil.copy(binary(), tmp_path / "akashd")
    servers = {port: ScriptedBackend(fixed(f"server {port}".encode()), port=port) for port in (80, 8081, 8082)}
    yield tmp_path, servers
    for server in servers.values():
        server.close()


def https(folder, target):
    """curl, with the certificate verified."""
    return curl("--cacert", str(folder / "ca.pem"), f"https://localhost:1902{target}", "--http1.1").stdout


def inside_example_file_serves(example, start):
    folder, servers = example
    daemon = start("-config", "akash.json", folder=folder)
    daemon.wait(r"ready")
    servers[80].wait(lambda b: len(b.requests) >= 2, "health checks")
    assert {r.target for r in servers[80].requests} == {"/health"}
    for target in ("/api", "/api/users?id=1"):
        assert [https(folder, target) for _ in range(3)] == ["server 8081"] * 3
    for target in ("/static", "/static/logo.png"):
        assert [https(folder, target) for _ in range(3)] == ["server 8082"] * 3
    # Every backend has paths, so what matches none goes to all; /apix is none of /api.
    assert {https(folder, "/") for _ in range(4)} == {"server 8081", "server 8082"}
    assert {https(folder, "/apix") for _ in range(4)} == {"server 8081", "server 8082"}
    assert all(r.target != "/health" for port in (8081, 8082) for r in servers[port].requests)
    assert {r.fields.get("X-Forwarded-Proto") for r in servers[8081].requests} == {"https"}
    refuses_plain_http()
    # With 0.0.0.0 the listener is on every address; metrics stand on their default port.
    count = sum(len(servers[port].requests) for port in (8081, 8082))
    assert count == 21

    def counted():
        metrics = Metrics(curl("http://127.0.0.1:9100/metrics").stdout)
        return metrics if metrics.value("akash_backend_served_total") == count else None
    metrics = until(counted, "the count of what was served", 5, 0.1)
    assert metrics.value("akash_active_connections") is not None
    assert metrics.value("akash_backend_failures_total") == 0
    daemon.stop()


def refuses_plain_http():
    """The port speaks TLS and nothing else."""
    with Client(1902) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.sock.settimeout(10)
        got = client.sock.recv(100)
        assert not got.startswith(b"HTTP/1.1 2")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    with Client(1902, wrap=lambda s: context.wrap_socket(s, server_hostname="localhost")) as client:
        assert client.ask(target="/api").status == 200
        assert client.sock.selected_alpn_protocol() == "http/1.1"
        assert client.sock.version() in ("TLSv1.2", "TLSv1.3")


def inside_health_port_decides(example, start):
    """Both backends are checked on port 80: nobody there, and with rise and fall 1 both are down at once."""
    folder, servers = example
    servers[80].refuse()
    daemon = start("-config", "akash.json", folder=folder)
    daemon.wait(r"127\.0\.0\.1:8081 unknown -> down")
    daemon.wait(r"127\.0\.0\.1:8082 unknown -> down")
    done = curl("--cacert", str(folder / "ca.pem"), "https://localhost:1902/api", "--http1.1", "-i")
    assert " 503 " in done.stdout.splitlines()[0] and "no_backend" in done.stdout
    servers[80].accept_again()
    daemon.wait(r"127\.0\.0\.1:8081 down -> up", 15)
    assert https(folder, "/api") == "server 8081"
    daemon.stop()


def inside_demonstration(loopback, start, tmp_path):
    began = time.monotonic()
    daemon = start("--demo", folder=tmp_path)
    daemon.wait(r"ready")
    assert time.monotonic() - began < 5
    answers = [curl("http://127.0.0.1:1902/").stdout for _ in range(10)]
    names = [re.search(r"backend (one|two)", answer).group(1) for answer in answers]
    assert names in (["one", "two"] * 5, ["two", "one"] * 5), f"they do not take turns: {names}"

    def served():
        metrics = Metrics(curl("http://127.0.0.1:9100/metrics").stdout)
        return [value for _, value in metrics.all("akash_backend_served_total")]
    until(lambda: served() == [5, 5], "the count of five each", 5)
    curl("http://127.0.0.1:1902/")
    until(lambda: sorted(served()) == [5, 6], "one more", 5)
    page = curl("http://127.0.0.1:9100/metrics").stdout
    assert Metrics(page).value("akash_requests_total", code=200) == 11
    daemon.stop()
