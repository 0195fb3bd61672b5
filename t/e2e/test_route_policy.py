# SPDX-License-Identifier: Apache-2.0
"""retry and timeouts of a route take the place of its upstream's, key by key."""

import socket

import pytest

from harness import Client, backend as answers, free_port, http_config, until
from harness.site import WAYS

FAST = {"base": 0, "max": 0}
UPSTREAM = {"timeouts": {"response": "60s", "total": "50s"}, "retry": {"attempts": 1, "on": ["503"], "backoff": FAST}}


def by_name(value):
    return getattr(value, "name", None)


@pytest.fixture
def routed(launch):
    """A daemon with routes by the first segment of the path, all to one upstream of one backend."""
    made = []

    def start(routes, upstream=None, way=WAYS[0]):
        port, backend = free_port(), way.back.backend()
        made.append(backend)
        akashd = launch(http_config(
            port, [backend], {**way.back.upstream(), **(upstream or UPSTREAM)}, way.front.listener(),
            routes=[{"path": path, "upstream": "site", **keys} for path, keys in routes.items()]))
        akashd.way, akashd.port, akashd.backend = way, port, backend
        return akashd
    yield start
    for backend in made:
        backend.close()


def ask(akashd, target, method="GET"):
    with akashd.way.front.connect(akashd.port) as client:
        return client.ask(method, target)


def status(code):
    return answers.fixed(b"no", status=code, reason="No")


@pytest.mark.parametrize("way", WAYS, ids=by_name)
@pytest.mark.parametrize("key, token", [("response", "response_timeout"), ("total", "total_timeout")])
def test_a_shorter_timeout_of_the_route(routed, way, key, token):
    akashd = routed({"/fast": {"timeouts": {key: "200ms"}}}, way=way)
    akashd.backend.always(answers.stall())
    answer = ask(akashd, "/fast/x")
    assert answer.status == 504 and token in answer.text


def test_a_longer_timeout_of_the_route(routed):
    """Whoever has the route's is still waited for when one who has the upstream's has been given up."""
    gate = answers.Gate()
    akashd = routed({"/slow": {"timeouts": {"response": "60s"}}},
                    {"timeouts": {"response": "200ms"}, "retry": False})
    akashd.backend.always(gate.hold())
    with Client(akashd.port) as slow:
        slow.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", "GET")
        until(lambda: len(akashd.backend.requests) == 1, "the slow request at the backend")
        assert ask(akashd, "/other").status == 504
        gate.release()
        assert slow.response().status == 200


def test_keys_that_are_not_given_are_the_upstreams(routed):
    """The route's total leaves the upstream's attempts, and its attempts the upstream's conditions."""
    akashd = routed({"/a": {"timeouts": {"connect": "1s"}}, "/b": {"retry": {"attempts": 3}}})
    akashd.backend.always(status(503))
    assert ask(akashd, "/a").status == 503
    assert len(akashd.backend.requests) == 2
    assert ask(akashd, "/b").status == 503
    assert len(akashd.backend.requests) == 2 + 4


def test_conditions_and_methods_of_the_route(routed):
    akashd = routed({"/a": {"retry": {"on": ["502"], "methods": ["POST"]}}})
    akashd.backend.answer(status(502), answers.fixed(b"well"), status(503), status(502), status(503))
    assert ask(akashd, "/a", "POST").status == 200
    assert ask(akashd, "/a", "POST").status == 503, "503 is not the route's"
    assert ask(akashd, "/a", "GET").status == 502, "GET is not the route's"
    assert ask(akashd, "/other", "GET").status == 200, "but the upstream's"
    assert len(akashd.backend.requests) == 6


def test_a_route_turns_retries_off_and_on(routed):
    akashd = routed({"/off": {"retry": False}})
    akashd.backend.always(status(503))
    ask(akashd, "/off")
    assert len(akashd.backend.requests) == 1
    akashd = routed({"/on": {"retry": {"attempts": 2, "on": ["503"], "backoff": FAST}}}, {"retry": False})
    akashd.backend.always(status(503))
    ask(akashd, "/on")
    assert len(akashd.backend.requests) == 3
    ask(akashd, "/other")
    assert len(akashd.backend.requests) == 4


def test_split_merges_with_the_upstream_that_is_drawn(launch, scripted):
    port, one, two = free_port(), scripted(), scripted()
    for backend in (one, two):
        backend.always(status(503))
    config = http_config(port, [one], {"retry": {"attempts": 1, "on": ["502"], "backoff": FAST}})
    config["upstreams"]["two"] = {**config["upstreams"]["site"], "backends": [{"address": two.address}],
                                  "retry": {"attempts": 4, "on": ["502"], "backoff": FAST}}
    config["routes"] = [{"retry": {"on": ["503"]}, "split": [{"upstream": "site", "weight": 1},
                                                             {"upstream": "two", "weight": 1}]}]
    akashd = launch(config)
    akashd.port, akashd.way = port, WAYS[0]
    for _ in range(2):
        assert ask(akashd, "/").status == 503
    assert (len(one.requests), len(two.requests)) == (2, 5)


def test_a_reload_leaves_who_waits_his_own_timeout(routed):
    gate = answers.Gate()
    akashd = routed({"/slow": {"timeouts": {"response": "60s"}}},
                    {"timeouts": {"response": "60s"}, "retry": False})
    akashd.backend.always(gate.hold())
    with Client(akashd.port) as slow:
        slow.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", "GET")
        until(lambda: len(akashd.backend.requests) == 1, "the slow request at the backend")
        config = akashd.config
        config["routes"][0]["timeouts"] = {"response": "200ms"}
        akashd.reload(config)
        assert ask(akashd, "/slow").status == 504
        gate.release()
        assert slow.response().status == 200


def test_each_waits_in_the_queue_as_long_as_his_route_says(launch, scripted):
    """Whoever came first may wait longest."""
    gate, port, backend = answers.Gate(), free_port(), scripted()
    backend.always(gate.hold())
    config = http_config(port, [{"address": backend.address, "max_connections": 1}],
                         {"queue": {"size": 10}, "timeouts": {"queue": "60s"}})
    config["routes"] = [{"path": "/ever", "upstream": "site", "timeouts": {"queue": 0}},
                        {"path": "/short", "upstream": "site", "timeouts": {"queue": "200ms"}}]
    akashd = launch(config)

    def is_waiting(count):
        return akashd.metrics().value("akash_queue_waiting", upstream="site") == count
    with Client(port) as holder, Client(port) as first, Client(port) as second, Client(port) as short:
        holder.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET")
        gate.wait_waiting(1)
        for n, (client, target) in enumerate([(first, b"/"), (second, b"/ever")]):
            client.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n", "GET")
            until(lambda: is_waiting(n + 1), "it to wait")
        answer = short.ask(target="/short")
        assert answer.status == 503 and "queue_timeout" in answer.text
        assert is_waiting(2)
        gate.release()
        assert [c.response().status for c in (holder, first, second)] == [200, 200, 200]


def test_connect_of_the_route_bounds_a_session_that_does_not_begin(launch):
    """An h2 backend that accepts and says nothing is not connected."""
    port, silent = free_port(), socket.create_server(("127.0.0.1", 0))
    config = http_config(port, [f"127.0.0.1:{silent.getsockname()[1]}"],
                         {"protocol": "h2", "retry": False, "timeouts": {"connect": "60s"}})
    config["routes"] = [{"path": "/", "upstream": "site", "timeouts": {"connect": "200ms"}}]
    launch(config)
    with silent, Client(port) as client:
        answer = client.ask()
        assert answer.status == 504 and "connect_timeout" in answer.text
