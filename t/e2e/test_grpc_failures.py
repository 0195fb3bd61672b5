# SPDX-License-Identifier: Apache-2.0
"""What clients of gRPC are told when akashd itself fails a call, and how that is logged and counted."""

import json
import shutil
import subprocess

import pytest
from harness import free_port, http_config, until
from harness.backend import chunked, fixed, stall
from harness.grpcs import Calls, grpc
from harness.h2client import H2Client

Code = grpc.StatusCode
GRPC = [("Content-Type", "application/grpc"), ("TE", "trailers")]
MESSAGE = b"\0\0\0\0\x02hi"


def fails(call, *args, **kw):
    """The (code, details) that the call ends with."""
    with pytest.raises(grpc.RpcError) as failed:
        call(*args, **kw)
    return failed.value.code(), failed.value.details()


def launch_logged(launch, tmp_path, backends, upstream=None, listener=None):
    port, log = free_port(), tmp_path / "access.log"
    akashd = launch(http_config(port, backends, upstream, listener,
                                access_log={"target": str(log), "format": "json"}))
    akashd.access = log
    return akashd, port


def lines(akashd, n):
    until(lambda: akashd.access.exists() and akashd.access.read_text().count("\n") >= n, f"{n} lines of the log")
    return [json.loads(line) for line in akashd.access.read_text().splitlines()]


def count(akashd, code):
    return akashd.metrics().value("akash_grpc_requests_total", listener="web", code=code)


def test_no_backend_is_unavailable_and_the_log_has_the_reason(launch, scripted, tmp_path):
    gone = scripted()
    gone.refuse()
    akashd, port = launch_logged(launch, tmp_path, [gone])
    with Calls(port) as calls:
        code, details = fails(calls.unary("Echo"), b"hello")
    assert code == Code.UNAVAILABLE
    assert details == "connect_refused: the backend refused the connection"
    line = lines(akashd, 1)[0]
    assert (line["status"], line["reason"]) == (200, "connect_refused")
    until(lambda: count(akashd, "UNAVAILABLE") == 1, "the count")


def test_answer_is_trailers_only(launch, scripted):
    gone = scripted()
    gone.refuse()
    port = free_port()
    launch(http_config(port, [gone]))
    with H2Client(port) as client:
        answer = client.ask("POST", "/t.Test/Echo", GRPC, MESSAGE)
        assert (answer.status, answer.body, answer.trailers) == (200, b"", [])
        assert answer.fields.get("content-type") == "application/grpc"
        assert answer.fields.get("grpc-status") == "14"
        assert "content-length" not in answer.fields


def test_who_does_not_speak_grpc_gets_http(launch, scripted):
    gone = scripted()
    gone.refuse()
    port = free_port()
    launch(http_config(port, [gone]))
    for kind in ("application/grpc-web", "application/json"):
        with H2Client(port) as client:
            answer = client.ask("POST", "/t.Test/Echo", [("Content-Type", kind)], MESSAGE)
            assert answer.status == 502
            assert "grpc-status" not in answer.fields


@pytest.mark.parametrize("value", ["", "1", "S", "100000000n", "1s", "-1S", "1.5S", "+1S", "1 S"])
def test_malformed_timeout_is_refused_and_never_forwarded(launch, scripted, value):
    backend = scripted()
    port = free_port()
    launch(http_config(port, [backend]))
    with H2Client(port) as client:
        answer = client.ask("POST", "/t.Test/Echo", [*GRPC, ("grpc-timeout", value)], MESSAGE)
    assert (answer.status, answer.fields.get("grpc-status")) == (200, "13")
    assert answer.fields.get("grpc-message").startswith("bad_request")
    assert not backend.requests


def test_repeated_timeout_is_refused(launch, scripted):
    backend = scripted()
    port = free_port()
    launch(http_config(port, [backend]))
    with H2Client(port) as client:
        answer = client.ask("POST", "/t.Test/Echo", [*GRPC, ("grpc-timeout", "1S"), ("grpc-timeout", "2S")], MESSAGE)
    assert answer.fields.get("grpc-status") == "13"
    assert not backend.requests


def test_timeout_of_the_client_bounds_the_call(launch, scripted, tmp_path):
    """Told by akashd: the client here does not look at its clock."""
    backend = scripted()
    backend.always(stall())
    akashd, port = launch_logged(launch, tmp_path, [backend])
    with H2Client(port) as client:
        answer = client.ask("POST", "/t.Test/Echo", [*GRPC, ("grpc-timeout", "200m")], MESSAGE)
    assert (answer.status, answer.fields.get("grpc-status")) == (200, "4")
    assert answer.fields.get("grpc-message") == "total_timeout: the exchange took too long"
    assert lines(akashd, 1)[0]["reason"] == "total_timeout"
    assert backend.requests[0].fields.get("grpc-timeout") == "200m"
    until(lambda: count(akashd, "DEADLINE_EXCEEDED") == 1, "the count")


def test_timeout_of_the_upstream_holds_where_it_is_shorter(launch, scripted):
    backend = scripted()
    backend.always(stall())
    port = free_port()
    launch(http_config(port, [backend], {"timeouts": {"total": "200ms"}}))
    with H2Client(port) as client:
        answer = client.ask("POST", "/t.Test/Echo", [*GRPC, ("grpc-timeout", "1H")], MESSAGE)
    assert answer.fields.get("grpc-status") == "4"


def test_timeout_after_the_head_is_told_in_trailers(launch, scripted):
    backend = scripted()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"
    backend.always(stall(head + b"7\r\n" + MESSAGE + b"\r\n"))
    port = free_port()
    launch(http_config(port, [backend]))
    with H2Client(port) as client:
        answer = client.ask("POST", "/t.Test/Echo", [*GRPC, ("grpc-timeout", "300m")], MESSAGE)
    assert (answer.status, answer.body) == (200, MESSAGE)
    assert dict(answer.trailers)["grpc-status"] == "4"


def test_over_a_limit_is_resource_exhausted(launch, scripted):
    backend = scripted()
    backend.always(stall())
    port = free_port()
    full = {"address": backend.address, "max_connections": 1}
    launch(http_config(port, [full]))
    with H2Client(port) as first, H2Client(port) as second:
        first.request("POST", "/t.Test/Echo", GRPC, MESSAGE)
        backend.wait_requests(1)
        answer = second.ask("POST", "/t.Test/Echo", GRPC, MESSAGE)
    assert answer.fields.get("grpc-status") == "8"
    assert answer.fields.get("grpc-message").startswith("over_limit")


def test_head_over_the_limit_is_resource_exhausted(launch, scripted):
    backend = scripted()
    port = free_port()
    launch(http_config(port, [backend], None, {"limits": {"header_bytes": "4k"}}))
    with Calls(port) as calls:
        code, _ = fails(calls.unary("Echo"), b"", metadata=[("large", "x" * 5000)])
    assert code == Code.RESOURCE_EXHAUSTED


def test_code_of_the_backend_is_counted(launch, scripted):
    backend = scripted()
    port = free_port()
    akashd = launch(http_config(port, [backend]))
    kind = [("Content-Type", "application/grpc")]
    backend.answer(fixed(fields=[*kind, ("grpc-status", "5")], body=b""),
                   chunked([MESSAGE], trailers=[("grpc-status", "0")], fields=kind),
                   fixed(b"busy", 503), fixed(MESSAGE, fields=kind),
                   fixed(b"", fields=[*kind, ("grpc-status", "77")]))
    for code in ("NOT_FOUND", "OK", "UNAVAILABLE", "UNKNOWN", "OTHER"):
        with H2Client(port) as client:
            client.ask("POST", "/t.Test/Echo", GRPC, MESSAGE)
        until(lambda: count(akashd, code) == 1, code)
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "metrics"], input=akashd.get("/metrics")[1],
                              capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_client_of_http1_is_told_the_same_way(make_site):
    site = make_site()
    site.backend.refuse()
    answer = site.client().ask("POST", "/t.Test/Echo", GRPC, MESSAGE)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.fields.get("grpc-status") == "14"
