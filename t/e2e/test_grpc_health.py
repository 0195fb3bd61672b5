# SPDX-License-Identifier: Apache-2.0
"""Health checks by gRPC: what they ask of a real gRPC server, and what they find."""

import re

import pytest
from harness import Authority, free_port, http_config, until
from harness.backend import fixed
from harness.grpcs import NOT_SERVING, SERVICE_UNKNOWN, SERVING, GrpcServer


def check(**more):
    return {"health_check": {"type": "grpc", "interval": "100ms", "timeout": "1s", "rise": 2, "fall": 3, **more}}


def wait_state(akashd, backend, state, since=0):
    return akashd.wait_log(rf"backend site/{re.escape(backend.address)} \w+ -> {state}: ", since=since)


@pytest.fixture
def server():
    made = GrpcServer()
    yield made
    made.close()


def test_serving_backend_is_up_and_the_server_as_a_whole_is_asked_for(launch, server):
    akashd = launch(http_config(free_port(), [server], check()))
    assert "unknown -> up: 1 success" in wait_state(akashd, server, "up")
    service, metadata = server.checks[0]
    assert service == ""
    assert metadata["user-agent"] == "akashd-health"


def test_state_follows_what_the_server_says(launch, server):
    akashd = launch(http_config(free_port(), [server], check()))
    wait_state(akashd, server, "up")
    server.serving[""] = NOT_SERVING
    assert "up -> down: 3 failures, last: not serving" in wait_state(akashd, server, "down")
    before = len(akashd.log)
    server.serving[""] = SERVING
    assert "down -> up: 2 successes" in wait_state(akashd, server, "up", before)


def test_path_names_the_service(launch, server):
    server.serving = {"my.pkg.Shop": SERVING, "": NOT_SERVING}
    akashd = launch(http_config(free_port(), [server], check(path="/my.pkg.Shop", host="shop.test")))
    wait_state(akashd, server, "up")
    assert server.checks[0][0] == "my.pkg.Shop"


@pytest.mark.parametrize("serving,why", [
    ({}, "grpc-status NOT_FOUND"), ({"": SERVICE_UNKNOWN}, "service unknown"), ({"": 0}, "not serving")])
def test_other_answers_are_failures(launch, server, serving, why):
    server.serving = serving
    akashd = launch(http_config(free_port(), [server], check()))
    assert f"1 failure, last: {why}" in wait_state(akashd, server, "down")


def test_server_without_health_service_is_down(launch, server):
    del server.methods["/grpc.health.v1.Health/Check"]
    akashd = launch(http_config(free_port(), [server], check()))
    assert "last: grpc-status UNIMPLEMENTED" in wait_state(akashd, server, "down")


def test_server_of_http1_is_down(launch, scripted):
    plain = scripted()
    plain.always(fixed(b"ok"))
    akashd = launch(http_config(free_port(), [plain], check()))
    why = "malformed answer|closed without an answer|answer: Connection reset by peer"
    assert re.search(f"last: ({why})", wait_state(akashd, plain, "down"))


def test_server_that_ends_goes_down_and_comes_back(launch):
    server = GrpcServer()
    akashd = launch(http_config(free_port(), [server], check(timeout="300ms")))
    wait_state(akashd, server, "up")
    server.close()
    assert "3 failures, last: connect refused" in wait_state(akashd, server, "down")
    before = len(akashd.log)
    again = GrpcServer(address=server.address)
    try:
        wait_state(akashd, server, "up", before)
    finally:
        again.close()


def test_slow_check_fails_by_the_timeout(launch, server):
    stop = []
    slow = server.methods["/grpc.health.v1.Health/Check"]

    def wait(request, context):
        until(lambda: stop or not context.is_active(), "the end of the call")
        return b"\x08\x01"
    server.methods["/grpc.health.v1.Health/Check"] = slow._replace(unary_unary=wait)
    akashd = launch(http_config(free_port(), [server], check(timeout="200ms")))
    # The server hears the deadline too (grpc-timeout), and may be the first to say so.
    assert re.search("last: (answer timeout|grpc-status DEADLINE_EXCEEDED)", wait_state(akashd, server, "down"))
    stop.append(True)


def test_check_goes_through_tls_where_the_upstream_does(launch):
    authority = Authority()
    server = GrpcServer(pair=authority.issue("127.0.0.1"))
    try:
        upstream = {**check(), "protocol": "h2", "tls": {"ca": str(authority.file)}}
        akashd = launch(http_config(free_port(), [server], upstream))
        wait_state(akashd, server, "up")
        server.serving[""] = NOT_SERVING
        assert "last: not serving" in wait_state(akashd, server, "down")
    finally:
        server.close()


def test_check_without_trust_in_the_server_fails(launch):
    server = GrpcServer(pair=Authority().issue("127.0.0.1"))
    try:
        upstream = {**check(), "protocol": "h2", "tls": {"ca": str(Authority(name="another").file)}}
        akashd = launch(http_config(free_port(), [server], upstream))
        assert re.search(r"1 failure, last: .*certificate", wait_state(akashd, server, "down"))
        assert not server.checks
    finally:
        server.close()
