# SPDX-License-Identifier: Apache-2.0
"""The metrics port: what it says, and what hostile clients cannot do to it."""

import json
import os
import resource
import signal
import socket
import subprocess
import time

import pytest
from harness import Client, Reset, free_port, http_config, until
from harness.akashd import Process
from harness.backend import fixed

CHECK = {"health_check": {"type": "http", "path": "/health", "interval": "100ms", "timeout": "1s"}}


@pytest.fixture
def served(launch, scripted):
    """(daemon, port, backend): three requests have been answered 200 and one 404."""
    backend, port = scripted(), free_port()
    akashd = launch(http_config(port, [backend]))
    with Client(port) as client:
        for _ in range(3):
            assert client.ask().status == 200
        backend.answer(fixed(b"none", 404))
        assert client.ask().status == 404
    return akashd, port, backend


def test_promtool_has_nothing_to_say(served):
    akashd, _, _ = served
    _, text = akashd.get("/metrics")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_requests_are_counted(served):
    akashd, _, backend = served
    akashd.wait_metric("akash_requests_total", lambda v: v == 3, listener="web", code=200)
    metrics = akashd.metrics()
    here = {"upstream": "site", "backend": backend.address}
    assert metrics.value("akash_requests_total", listener="web", code=404) == 1
    assert metrics.value("akash_backend_served_total", **here) == 4
    assert metrics.value("akash_backend_failures_total", **here) == 0
    assert metrics.value("akash_request_duration_seconds_count", listener="web") == 4
    assert metrics.value("akash_backend_response_seconds_count", **here) == 4
    assert metrics.value("akash_backend_connect_seconds_count", **here) == 1
    assert metrics.value("akash_connections_total", listener="web") == 1
    for direction in ("client_in", "client_out", "backend_in", "backend_out"):
        assert metrics.value("akash_bytes_total", direction=direction) > 0


def test_every_promised_family_is_there(served):
    akashd, _, _ = served
    kinds = akashd.metrics().types
    counters = ("worker_restarts_total connections_total requests_total backend_served_total "
                "backend_failures_total backend_retries_total failures_total bytes_total "
                "tls_handshakes_total").split()
    gauges = ("active_connections build_info workers confs listener_connections backend_up "
              "backend_active_connections config_last_reload_successful "
              "config_last_reload_success_timestamp_seconds config_hash").split()
    histograms = "request_duration_seconds backend_response_seconds backend_connect_seconds".split()
    for kind, names in (("counter", counters), ("gauge", gauges), ("histogram", histograms)):
        for name in names:
            assert kinds.get("akash_" + name) == kind, name


def test_processes_are_summed(served):
    akashd, _, _ = served
    metrics = akashd.metrics()
    family = [akashd.pid] + [p.pid for p in akashd.children()]
    one = min(int(line.split()[1]) * 1024 for pid in family for line in open(f"/proc/{pid}/status")
              if line.startswith("VmRSS:"))
    assert metrics.value("process_resident_memory_bytes") > one * len(family) * 0.8
    akashd.wait_metric("process_cpu_seconds_total", lambda v: v > 0)  # scraping takes time too
    held = sum(Process(pid).fds() for pid in family)
    akashd.wait_metric("process_open_fds", lambda v: abs(v - held) <= len(family))
    assert metrics.value("process_max_fds") % len(family) == 0
    assert abs(metrics.value("process_start_time_seconds") - time.time()) < 120


def test_client_connections_come_and_go(launch, scripted):
    port = free_port()
    akashd = launch(http_config(port, [scripted()], workers=2))
    clients = [Client(port) for _ in range(5)]
    akashd.wait_metric("akash_active_connections", lambda v: v == 5)
    assert akashd.metrics().value("akash_listener_connections", listener="web") == 5
    for client in clients:
        client.close()
    akashd.wait_metric("akash_active_connections", lambda v: v == 0)


def test_counters_survive_the_monitor(served):
    akashd, _, backend = served
    akashd.wait_metric("akash_backend_served_total", lambda v: v == 4, backend=backend.address)
    akashd.monitor().kill(signal.SIGKILL)
    until(lambda: akashd.get("/livez", missing=(0, ""))[0] == 200, "the port again", 5)
    assert akashd.metrics().value("akash_backend_served_total", backend=backend.address) == 4


# -- readiness and status


def test_readiness_of_upstreams(launch, scripted):
    good, bad, port = scripted(), scripted(fixed(b"", 500)), free_port()
    config = http_config(port, [good], CHECK)
    config["upstreams"]["other"] = {"backends": [{"address": bad.address}], **CHECK}
    akashd = launch(config)
    akashd.wait_log(r"backend other/\S+ unknown -> down")
    assert akashd.get("/readyz")[0] == 200
    assert akashd.get("/readyz?upstream=site")[0] == 200
    assert akashd.get("/readyz?upstream=other") == (
        503, "not ready: upstream other has no usable backend\n")
    assert akashd.get("/readyz?upstream=site&upstream=other")[0] == 503
    assert akashd.get("/readyz?all")[0] == 503
    assert akashd.get("/readyz?upstream=nobody")[0] == 503
    assert akashd.get("/readyz?nonsense")[0] == 400
    bad.always(fixed(b"ok"))
    until(lambda: akashd.get("/readyz?all")[0] == 200, "all ready", 10)


def test_not_ready_while_draining(launch, scripted):
    port = free_port()
    akashd = launch(http_config(port, [scripted()], lame_duck="20s"))
    akashd.send(signal.SIGTERM)
    until(lambda: akashd.get("/readyz") == (503, "not ready: draining\n"), "draining")
    assert akashd.get("/livez")[0] == 200
    with Client(port) as client:
        assert client.ask().status == 200


def test_status_tells_of_processes_and_backends(served):
    akashd, _, backend = served
    status = json.loads(akashd.get("/status.json")[1])
    assert [w["state"] for w in status["workers"]] == ["serving"]
    assert status["workers"][0]["pid"] == akashd.workers()[0].pid
    assert status["monitor"]["pid"] == akashd.monitor().pid
    assert status["listeners"][0]["name"] == "web"
    assert status["upstreams"][0]["backends"][0]["address"] == backend.address
    assert status["reload"]["successful"] is True


def test_answers_by_method_and_path(served):
    akashd, _, _ = served
    with Client(akashd.metrics_port) as client:
        head = client.ask("HEAD", "/livez")
        assert (head.status, head.body) == (200, b"") and head.fields.get("Content-Length") == "6"
    for method, path, body, status in (
            ("GET", "/other", None, 404), ("GET", "/livez/", None, 404), ("POST", "/livez", None, 405),
            ("POST", "/metrics", b"x", 405), ("GET", "/livez", b"x", 413), ("DELETE", "/metrics", None, 405)):
        with Client(akashd.metrics_port) as client:
            answer = client.ask(method, path, body=body)
            assert answer.status == status, (method, path)
            assert answer.closes


# -- hostile clients; the probes go on meanwhile


@pytest.fixture
def probed(launch, scripted):
    """(daemon, backend) where the backend is checked ten times a second."""
    backend = scripted()
    akashd = launch(http_config(free_port(), [backend], CHECK))
    backend.wait_requests(1)
    yield akashd, backend
    backend.wait_requests(len(backend.requests) + 5, deadline=5)
    assert not [line for line in akashd.log if "-> down" in line]
    assert akashd.get("/livez")[0] == 200


def test_endless_header_is_cut(probed):
    akashd, _ = probed
    memory = akashd.monitor().kb("VmRSS")
    with Client(akashd.metrics_port) as client:
        client.send(b"GET /metrics HTTP/1.1\r\nHost: test\r\nX: ", "GET")
        sent = 0
        while sent < 50_000_000 and client.try_send(b"y" * 100_000):
            sent += 100_000
        assert sent < 20_000_000
    assert akashd.monitor().kb("VmRSS") < memory + 2000
    with Client(akashd.metrics_port) as client:
        client.send(b"GET /metrics HTTP/1.1\r\nHost: test\r\nX: " + b"y" * 9000, "GET")
        assert client.response().status == 431


def test_slow_header_is_cut_by_a_deadline_that_stands_still(probed):
    akashd, _ = probed
    began = time.monotonic()
    with Client(akashd.metrics_port) as client:
        client.send(b"GET /livez HTTP/1.1\r\nHost: test\r\n", "GET")
        while time.monotonic() < began + 20 and client.try_send(b"X: y\r\n"):
            try:
                if not client.quiet(0.2):
                    break
            except Reset:
                break
    assert 9 < time.monotonic() - began < 15


def test_silent_connections_do_not_keep_others_out(probed):
    akashd, backend = probed
    before = akashd.monitor().fds()
    idle = [socket.create_connection(("127.0.0.1", akashd.metrics_port)) for _ in range(200)]
    took = []
    try:
        for path in ("/livez", "/metrics", "/readyz", "/status.json"):
            began = time.monotonic()
            assert akashd.get(path)[0] == 200
            took.append(time.monotonic() - began)
        assert sorted(took)[-2] < 2, took  # a pause of the machine may have met one
        backend.wait_requests(len(backend.requests) + 10, deadline=6)
        assert akashd.monitor().fds() < before + 64 + 8
    finally:
        for sock in idle:
            sock.close()


@pytest.mark.parametrize("junk", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
    b"GET /metrics\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n", b"GET  /metrics HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n", b"GET /me\0trics HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost : t\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
], ids=["tls", "0.9", "no-host", "two-spaces", "two-hosts", "nul", "space", "h2"])
def test_junk_is_refused(probed, junk):
    akashd, _ = probed
    with Client(akashd.metrics_port) as client:
        client.send(junk, "GET")
        assert client.response().status == 400


def test_many_requests_at_once(probed):
    akashd, _ = probed
    clients = [Client(akashd.metrics_port) for _ in range(60)]
    try:
        for client in clients:
            client.request(target="/metrics")
        for client in clients:
            assert client.response().status == 200
    finally:
        for client in clients:
            client.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the limit of another user's process")
def test_without_descriptors_it_waits_and_burns_nothing(launch, scripted):
    config = http_config(free_port(), [scripted()], CHECK)
    if os.geteuid() == 0:
        config.update(user="root", group="root")  # limits of another user's process need a capability
    akashd = launch(config)
    monitor = akashd.monitor()
    _, hard = resource.prlimit(monitor.pid, resource.RLIMIT_NOFILE)
    highest = max(int(fd) for fd in os.listdir(f"/proc/{monitor.pid}/fd"))
    resource.prlimit(monitor.pid, resource.RLIMIT_NOFILE, (highest + 2, hard))
    clients = [socket.create_connection(("127.0.0.1", akashd.metrics_port)) for _ in range(20)]
    try:
        akashd.wait_log("metrics: accepting pauses")
        before, began = monitor._stat(), time.monotonic()
        until(lambda: time.monotonic() > began + 2, "two seconds of its life")
        after = monitor._stat()
        ticks = sum(int(after[i]) - int(before[i]) for i in (11, 12))
        assert ticks < os.sysconf("SC_CLK_TCK") * 0.4
    finally:
        resource.prlimit(monitor.pid, resource.RLIMIT_NOFILE, (hard, hard))
        for client in clients:
            client.close()
    until(lambda: akashd.get("/livez", missing=(0, ""))[0] == 200, "the port again", 5)
