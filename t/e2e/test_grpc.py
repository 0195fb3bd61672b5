# SPDX-License-Identifier: Apache-2.0
"""gRPC end to end: clients and servers of grpcio, over h2c and over TLS on both sides."""

import signal
import threading
import time

import pytest
from harness import Authority, free_port, http_config, until
from harness.grpcs import Calls, Feed, GrpcServer, grpc
from harness.traffic import clients_of

Code = grpc.StatusCode
MB = 1 << 20


class Service:
    """The methods of t.Test. What a test wants to know of a call stands in here."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.cancelled = threading.Semaphore(0)
        self.seen = []  # metadata of the calls of Echo

    def echo(self, request, context):
        self.seen.append(dict(context.invocation_metadata()))
        return request

    def join(self, requests, context):
        return b"".join(requests)

    def count(self, request, context):
        for i in range(int(request)):
            yield b"%d" % i

    def mirror(self, requests, context):
        for request in requests:
            yield request

    def refuse(self, request, context):
        context.set_trailing_metadata((("details-bin", bytes(range(256))), ("hint", "try less")))
        context.abort(Code.FAILED_PRECONDITION, "100% \u00fc")

    def refuse_stream(self, request, context):
        context.send_initial_metadata((("began", "yes"),))
        yield b"one"
        context.abort(Code.DATA_LOSS, "behind one")

    def hang(self, request, context):
        context.add_callback(self.cancelled.release)
        self.entered.release()
        until(lambda: not context.is_active(), "the end of the call")
        return b""

    def hang_streaming(self, requests, context):
        context.add_callback(self.cancelled.release)
        for request in requests:
            yield request
            self.entered.release()

    def cancel_itself(self, request, context):
        context.cancel()
        return b""

    def early(self, requests, context):
        context.abort(Code.INVALID_ARGUMENT, "not one of these")

    def methods(self):
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return {f"/t.Test/{name}": handler for name, handler in {
            "Echo": unary(self.echo), "Join": grpc.stream_unary_rpc_method_handler(self.join),
            "Count": grpc.unary_stream_rpc_method_handler(self.count), "Mirror": stream(self.mirror),
            "Refuse": unary(self.refuse), "RefuseStream": grpc.unary_stream_rpc_method_handler(self.refuse_stream),
            "Hang": unary(self.hang), "HangStreaming": stream(self.hang_streaming),
            "CancelItself": unary(self.cancel_itself),
            "Early": grpc.stream_unary_rpc_method_handler(self.early)}.items()}


class Wire:
    """How both sides are spoken to."""

    authority = None

    def __init__(self, front_tls, back_tls):
        self.front_tls, self.back_tls = front_tls, back_tls
        self.name = "-".join("tls" if tls else "h2c" for tls in (front_tls, back_tls))
        if (front_tls or back_tls) and not Wire.authority:
            Wire.authority = Authority()
            Wire.pair = Wire.authority.issue("localhost", "127.0.0.1")

    def server(self, service, **kw):
        return GrpcServer(service.methods(), Wire.pair if self.back_tls else None, **kw)

    def upstream(self, **more):
        tls = {"tls": {"ca": str(Wire.authority.file)}} if self.back_tls else {}
        return {"protocol": "h2", **tls, **more}

    def listener(self, **more):
        if self.front_tls:
            cert, key = Wire.pair
            more["tls"] = {"certificates": [{"cert": cert, "key": key}]}
        return more

    def calls(self, port, **kw):
        return Calls(port, str(Wire.authority.file) if self.front_tls else None, **kw)


class Setup:
    """A daemon between one server and one channel."""

    def __init__(self, wire, launch, listener=None, threads=16, **top):
        upstream = top.pop("upstream", {})
        self.service = Service()
        self.server = wire.server(self.service, threads=threads)
        self.port = free_port()
        self.config = http_config(self.port, [self.server], wire.upstream(**upstream),
                                  wire.listener(**(listener or {})), **top)
        self.akashd = launch(self.config)
        self.calls = wire.calls(self.port)

    def count(self, code):
        return self.akashd.metrics().value("akash_grpc_requests_total", listener="web", code=code) or 0

    def close(self):
        self.calls.close()
        self.server.close()


@pytest.fixture(params=[(False, False), (True, True), (False, True), (True, False)],
                ids=["h2c-h2c", "tls-tls", "h2c-tls", "tls-h2c"])
def setup(request, launch):
    made = Setup(Wire(*request.param), launch)
    yield made
    made.close()


@pytest.fixture
def make_setup(launch):
    made = []

    def make(wire=None, **kw):
        made.append(Setup(wire or Wire(False, False), launch, **kw))
        return made[-1]
    yield make
    for one in made:
        one.close()


def fails(call, *args, **kw):
    """The error that the call ends with."""
    with pytest.raises(grpc.RpcError) as failed:
        result = call(*args, **kw)
        list(result)
    return failed.value


def test_unary(setup):
    for size in (0, 1, 100, 20000):
        assert setup.calls.unary("Echo")(b"x" * size, metadata=[("token-bin", b"\0\xff"), ("plain", "a b")]) == b"x" * size
    assert setup.service.seen[0]["token-bin"] == b"\0\xff"
    assert setup.service.seen[0]["plain"] == "a b"
    until(lambda: setup.count("OK") == 4, "four calls counted")


def test_client_streaming(setup):
    pieces = [b"%d;" % i for i in range(500)]
    assert setup.calls.client_stream("Join")(iter(pieces)) == b"".join(pieces)


def test_server_streaming(setup):
    assert list(setup.calls.server_stream("Count")(b"500")) == [b"%d" % i for i in range(500)]


def test_bidirectional_streaming_goes_message_by_message(setup):
    feed = Feed()
    answers = setup.calls.both_streams("Mirror")(feed)
    for i in range(50):
        feed.put(b"message %d" % i)
        assert next(answers) == b"message %d" % i
    feed.end()
    assert list(answers) == []
    assert answers.code() == Code.OK


def test_messages_of_16_mb_both_ways(setup):
    body = bytes(range(256)) * (16 * MB // 256)
    assert setup.calls.unary("Echo")(body, timeout=50) == body
    feed = Feed()
    answers = setup.calls.both_streams("Mirror")(feed, timeout=50)
    feed.put(body)
    assert next(answers) == body
    feed.end()
    assert list(answers) == []


def test_status_and_binary_details_stand_in_the_trailers(setup):
    error = fails(setup.calls.unary("Refuse"), b"")
    assert (error.code(), error.details()) == (Code.FAILED_PRECONDITION, "100% \u00fc")
    trailers = dict(error.trailing_metadata())
    assert trailers["details-bin"] == bytes(range(256))
    assert trailers["hint"] == "try less"
    until(lambda: setup.count("FAILED_PRECONDITION") == 1, "the call counted")


def test_status_behind_messages(setup):
    answers = setup.calls.server_stream("RefuseStream")(b"")
    assert dict(answers.initial_metadata())["began"] == "yes"
    assert next(answers) == b"one"
    error = fails(lambda: answers)
    assert (error.code(), error.details()) == (Code.DATA_LOSS, "behind one")


def test_trailers_only(setup):
    error = fails(setup.calls.unary("NoSuchMethod"), b"")
    assert error.code() == Code.UNIMPLEMENTED
    until(lambda: setup.count("UNIMPLEMENTED") == 1, "the call counted")


def test_early_status_of_a_stream_that_is_still_sending(setup):
    feed = Feed()
    call = setup.calls.client_stream("Early").future(feed)
    error = call.exception(timeout=10)
    feed.end()
    assert (error.code(), error.details()) == (Code.INVALID_ARGUMENT, "not one of these")
    assert setup.calls.unary("Echo")(b"on the same connection") == b"on the same connection"


def test_deadline_ends_the_call_on_both_sides(setup):
    error = fails(setup.calls.unary("Hang"), b"", timeout=0.5)
    assert error.code() == Code.DEADLINE_EXCEEDED
    assert setup.service.cancelled.acquire(timeout=10)


def test_cancel_by_the_client_reaches_the_server(setup):
    call = setup.calls.unary("Hang").future(b"")
    assert setup.service.entered.acquire(timeout=10)
    call.cancel()
    assert setup.service.cancelled.acquire(timeout=10)
    feed = Feed()
    answers = setup.calls.both_streams("HangStreaming")(feed)
    feed.put(b"a")
    assert next(answers) == b"a"
    answers.cancel()
    assert setup.service.cancelled.acquire(timeout=10)
    feed.end()
    until(lambda: setup.count("CANCELLED") == 2, "the calls counted")


def test_cancel_by_the_server_reaches_the_client(setup):
    assert fails(setup.calls.unary("CancelItself"), b"").code() in (Code.CANCELLED, Code.UNKNOWN)
    assert setup.calls.unary("Echo")(b"next") == b"next"


def test_server_that_dies_is_unavailable(make_setup):
    setup = make_setup()
    feed = Feed()
    answers = setup.calls.both_streams("Mirror")(feed)
    feed.put(b"a")
    assert next(answers) == b"a"
    setup.server.close()
    assert fails(lambda: answers).code() in (Code.UNAVAILABLE, Code.CANCELLED)
    feed.end()
    assert fails(setup.calls.unary("Echo"), b"").code() == Code.UNAVAILABLE


def test_open_stream_is_under_the_tunnel_timeout_not_under_those_of_bodies(make_setup):
    setup = make_setup(upstream={"timeouts": {"response_body": "200ms", "send": "200ms", "tunnel": "1h"}},
                       listener={"timeouts": {"request_body": "200ms", "send": "200ms"}})
    feed = Feed()
    answers = setup.calls.both_streams("Mirror")(feed)
    feed.put(b"a")
    assert next(answers) == b"a"
    began = time.monotonic()
    other = Calls(setup.port)
    while time.monotonic() - began < 1:  # five times as long as a body may be quiet
        assert other.unary("Echo")(b"b") == b"b"
    other.close()
    feed.put(b"c")
    assert next(answers) == b"c"
    feed.end()
    assert list(answers) == []


def test_silent_stream_ends_by_the_tunnel_timeout(make_setup):
    setup = make_setup(listener={"timeouts": {"tunnel": "300ms"}})
    feed = Feed()
    answers = setup.calls.both_streams("Mirror")(feed)
    feed.put(b"a")
    assert next(answers) == b"a"
    error = fails(lambda: answers)
    feed.end()
    assert error.code() == Code.DEADLINE_EXCEEDED
    assert error.details() == "tunnel_idle: no byte either way for too long"


def test_stream_that_outlasts_the_drain_time_is_unavailable(make_setup):
    setup = make_setup(drain_timeout="1500ms")
    feed = Feed()
    answers = setup.calls.both_streams("Mirror")(feed)
    feed.put(b"a")
    assert next(answers) == b"a"
    setup.akashd.send(signal.SIGTERM)
    feed.put(b"b")
    assert next(answers) == b"b"
    error = fails(lambda: answers)
    feed.end()
    assert error.code() == Code.UNAVAILABLE
    assert setup.akashd.wait_exit() == 0


class Talk:
    """A bidirectional stream that is open, and talked on."""

    def __init__(self, calls):
        self.feed = Feed()
        self.answers = calls.both_streams("Mirror")(self.feed)
        self.said = 0

    def say(self):
        self.said += 1
        self.feed.put(b"%d" % self.said)
        return next(self.answers) == b"%d" % self.said

    def end(self):
        self.feed.end()
        return list(self.answers) == [] and self.answers.code() == Code.OK


@pytest.mark.parametrize("tls", [False, True], ids=["h2c", "tls"])
def test_200_open_streams_live_through_reloads(make_setup, tls):
    wire = Wire(tls, tls)
    setup = make_setup(wire, threads=210, workers=2, listener={"limits": {"http2_streams": 250}})
    channels = [wire.calls(setup.port) for _ in range(4)]
    second = wire.server(setup.service)
    try:
        talks = [Talk(channels[i % 4]) for i in range(200)]
        assert all(talk.say() for talk in talks)
        backends = setup.config["upstreams"]["site"]["backends"]
        for i in range(3):  # a backend more, the first one gone, and back
            changed = {**setup.config, "upstreams": {"site": {**setup.config["upstreams"]["site"], "backends": [
                [*backends, {"address": second.address}], [{"address": second.address}], backends][i]}}}
            setup.akashd.reload(changed)
            assert all(talk.say() for talk in talks)
        assert all(talk.end() for talk in talks)
        until(lambda: setup.count("OK") == 200, "the calls counted")
    finally:
        for channel in channels:
            channel.close()
        second.close()


def test_crash_of_a_worker_breaks_only_its_own_streams(make_setup):
    wire = Wire(False, False)
    setup = make_setup(wire, threads=64, workers=2)
    channels = [wire.calls(setup.port) for _ in range(24)]
    try:
        talks = [Talk(channel) for channel in channels]
        assert all(talk.say() for talk in talks)
        victim = setup.akashd.workers()[0]
        doomed = len(clients_of(victim.pid, setup.port))
        assert 0 < doomed < len(talks), "streams on both workers"
        victim.kill()
        broken = 0
        for talk in talks:
            talk.said += 1
            talk.feed.put(b"%d" % talk.said)
            try:
                assert next(talk.answers) == b"%d" % talk.said
            except grpc.RpcError as error:
                assert error.code() == Code.UNAVAILABLE
                broken += 1
        assert broken == doomed
        for channel in channels:
            assert channel.unary("Echo")(b"again", wait_for_ready=True) == b"again"
    finally:
        for channel in channels:
            channel.close()
