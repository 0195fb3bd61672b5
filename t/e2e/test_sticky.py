# SPDX-License-Identifier: Apache-2.0
"""Sticky cookies: a client stays with its backend, whoever else moves."""

import os
import re
import signal
import time
from collections import Counter

import pytest

from harness import Client, Gate, free_port, http_config, until
from harness.backend import fixed
from harness.fronts import FRONTS

SECRET = "sixteen bytes or more"
CHECKS = {"type": "tcp", "interval": "100ms", "timeout": "1s", "rise": 1, "fall": 1}


@pytest.fixture
def farm(scripted):
    """Four backends, each of which answers with its number."""
    made = [scripted(fixed(str(n).encode())) for n in range(4)]
    return made


def configure(port, farm, sticky=None, workers=4, **upstream):
    backends = [{"address": b.address, "id": f"b{n}"} for n, b in enumerate(farm)]
    return http_config(port, backends, {"sticky": {"secret": SECRET, **(sticky or {})}, "health_check": CHECKS, **upstream},
                       workers=workers)


def cookie_of(answer):
    found = [value for name, value in answer.fields if name.lower() == "set-cookie" and value.startswith("akash=")]
    assert len(found) <= 1
    return found[0] if found else None


def ask(port, cookie=None, fields=()):
    """The answer over a connection of its own, so that any worker may serve it."""
    with Client(port) as client:
        value = [("Cookie", cookie.partition(";")[0])] if cookie else []
        return client.ask(fields=[*value, *fields])


def first(port):
    answer = ask(port)
    return answer.body, cookie_of(answer)


def test_a_client_stays_with_its_backend_over_all_workers(launch, farm):
    port = free_port()
    launch(configure(port, farm))
    seen = set()
    for _ in range(4):
        home, cookie = first(port)
        assert re.fullmatch(r"akash=[A-Za-z0-9_-]{44}; Path=/; HttpOnly; SameSite=Lax", cookie)
        answers = [ask(port, cookie) for _ in range(12)]
        assert {a.body for a in answers} == {home}
        assert not any(cookie_of(a) for a in answers), "a cookie that holds is not set again"
        seen.add(home)
    assert len(seen) == 4, "who has none goes where the algorithm says"


@pytest.mark.parametrize("forged", ["akash=", "akash=" + "A" * 44, "akash=" + "A" * 5000, "akash=\x80\xff", "other=1"])
def test_what_is_not_ours_is_as_good_as_none(launch, farm, forged):
    port = free_port()
    launch(configure(port, farm))
    answers = [ask(port, forged) for _ in range(8)]
    assert all(a.status == 200 and cookie_of(a) for a in answers)
    assert len({a.body for a in answers}) == 4


def test_backends_do_not_see_it(launch, farm):
    port = free_port()
    launch(configure(port, farm))
    home, cookie = first(port)
    backend, value = farm[int(home)], cookie.partition(";")[0]
    with Client(port) as client:
        client.ask(fields=[("Cookie", f"a=1; {value}; b=2")])
        client.ask(fields=[("Cookie", value), ("Cookie", "c=3")])
        client.ask(fields=[("Cookie", value)])
    assert [r.fields.all("Cookie") for r in backend.requests[-3:]] == [["a=1; b=2"], ["c=3"], []]


def test_the_backends_own_cookies_stay(launch, farm):
    port = free_port()
    launch(configure(port, farm[:1]))
    farm[0].always(fixed(b"x", fields=[("Set-Cookie", "session=1"), ("Set-Cookie", "b=2")]))
    answer = ask(port)
    assert answer.fields.all("Set-Cookie")[:2] == ["session=1", "b=2"] and cookie_of(answer)


def test_it_moves_when_its_backend_is_down_and_stays_there(launch, farm):
    port = free_port()
    akashd = launch(configure(port, farm))
    home, cookie = first(port)
    farm[int(home)].close()
    akashd.wait_metric("akash_backend_up", lambda v: v == 0, backend=f"b{int(home)}")
    answer = ask(port, cookie)
    other, renewed = answer.body, cookie_of(answer)
    assert answer.status == 200 and other != home and renewed
    assert {ask(port, renewed).body for _ in range(8)} == {other}


def test_a_request_that_is_sent_again_takes_the_cookie_along(launch, farm):
    port = free_port()
    launch(configure(port, farm, health_check=False))
    home, cookie = first(port)
    farm[int(home)].close()
    answer = ask(port, cookie)
    assert answer.status == 200 and answer.body != home and cookie_of(answer)


def test_a_drained_backend_gives_its_clients_away(launch, farm):
    port = free_port()
    akashd = launch(configure(port, farm))
    home, cookie = first(port)
    assert akashd.ctl("drain", f"site/b{int(home)}").returncode == 0
    until(lambda: ask(port, cookie).body != home, "it to be left")
    answer = ask(port, cookie)
    assert answer.body != home and cookie_of(answer)


def test_one_that_is_full_keeps_its_clients(launch, farm):
    port, gate = free_port(), Gate()
    config = configure(port, farm)
    for backend in config["upstreams"]["site"]["backends"]:
        backend["max_connections"] = 1
    launch(config)
    home, cookie = first(port)
    farm[int(home)].always(gate.hold(fixed(home)))
    with Client(port) as busy:
        busy.request(fields=[("Cookie", cookie.partition(";")[0])])
        gate.wait_waiting(1)
        meanwhile = ask(port, cookie)
        assert meanwhile.status == 200 and meanwhile.body != home and not cookie_of(meanwhile)
        gate.release()
        assert busy.response().body == home
    until(lambda: ask(port, cookie).body == home, "it to be home again")


def test_it_survives_reloads_and_deaths_and_means_the_same_elsewhere(launch, farm):
    ports = [free_port(), free_port()]
    akashd = launch(configure(ports[0], farm))
    launch(configure(ports[1], farm[::-1] and farm, workers=1))
    home, cookie = first(ports[0])
    akashd.reload(configure(ports[0], farm, algorithm="least_conn"))
    for worker in akashd.workers().values():
        os.kill(worker.pid, signal.SIGKILL)
    until(lambda: len(akashd.workers()) == 4, "successors")
    for port in ports:
        assert {ask(port, cookie).body for _ in range(8)} == {home}
    akashd.reload(configure(ports[0], farm, {"secret": "quite another secret"}))
    answers = [ask(ports[0], cookie) for _ in range(8)]
    assert all(cookie_of(a) for a in answers) and len({a.body for a in answers}) == 4


def test_it_expires_and_is_renewed_after_half_its_time(launch, farm):
    port = free_port()
    launch(configure(port, farm, {"ttl": "8s"}))
    home, cookie = first(port)
    assert "Max-Age=8" in cookie
    assert cookie_of(ask(port, cookie)) is None
    renewed = until(lambda: cookie_of(ask(port, cookie)), "it to be renewed")
    assert renewed.partition(";")[0] != cookie.partition(";")[0]
    end = time.monotonic() + 10
    while {ask(port, cookie).body for _ in range(4)} == {home}:
        assert time.monotonic() < end, "it never expires"
    assert ask(port, renewed).body == home


@pytest.mark.parametrize("front", FRONTS, ids=lambda f: f.name)
def test_every_version_of_http_and_tls(build_site, front):
    site = build_site(front, upstream={"sticky": {"secret": SECRET}})
    with site.client() as client:
        set_cookie = cookie_of(client.ask())
    assert set_cookie and ("Secure" in set_cookie) == (front.name in ("https", "h2"))
    with site.client() as client:
        answer = client.ask(fields=[("Cookie", set_cookie.partition(";")[0] + "; a=1")])
    assert answer.status == 200 and cookie_of(answer) is None
    assert site.backend.requests[-1].fields.all("Cookie") == ["a=1"]


def test_name_path_and_secure_are_the_operators(launch, farm):
    port = free_port()
    launch(configure(port, farm, {"cookie": "srv", "path": "/app", "secure": True}))
    assert re.fullmatch(r"srv=\S+; Path=/app; HttpOnly; SameSite=Lax; Secure", ask(port).fields.get("Set-Cookie"))


def test_a_websocket_gets_one_too(launch, scripted):
    backend, port = scripted(), free_port()
    launch(configure(port, [backend]))
    backend.answer(lambda x: x.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"))
    with Client(port) as client:
        answer = client.ask(fields=[("Connection", "upgrade"), ("Upgrade", "echo")])
        assert answer.status == 101 and cookie_of(answer)


def test_all_clients_have_their_share(launch, farm):
    port = free_port()
    launch(configure(port, farm))
    assert set(Counter(first(port)[0] for _ in range(40)).values()) == {10}
