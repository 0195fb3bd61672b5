# SPDX-License-Identifier: Apache-2.0
"""Rate limits: exact over all workers, told politely, kept by nobody's reload or death; and who the client is."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from harness import PATIENCE, Client, free_port, http_config, until
from harness.akashd import binary, is_sanitized

HOME = "127.0.0.0/8"


def limit(rate, **more):
    return {"name": "api", "rate": rate, **more}


def from_ip(address):
    return ("X-Forwarded-For", address)


def statuses(client, count, *fields, **kw):
    return [client.ask(fields=fields, **kw).status for _ in range(count)]


@pytest.fixture
def limited(launch, scripted):
    """A daemon with this limit on its listener, which believes the loopback."""
    def start(rate_limit, workers=1, routes=(), **listener):
        port = free_port()
        backend = scripted()
        config = http_config(port, [backend], workers=workers, routes=list(routes), listener={
            "trusted_proxies": [HOME], **({"rate_limit": rate_limit} if rate_limit else {}), **listener})
        akashd = launch(config)
        akashd.config, akashd.port, akashd.backend = config, port, backend
        return akashd
    return start


# -- what is admitted


FLOOD = """
local n = 0
request = function()
  n = n + 1
  local a = n % 300000
  return wrk.format("GET", "/none", {["X-Forwarded-For"] =
    string.format("10.%d.%d.%d", math.floor(a / 65536), math.floor(a / 256) % 256, a % 256)})
end
done = function(summary) io.write("requests ", summary.requests, "\\n") end
"""


def hammer(clients, seconds, *fields):
    """Ask in turns over all clients; {status: how often}, and when each request was sent."""
    counts, sent, began = Counter(), [], time.monotonic()
    while time.monotonic() - began < seconds:
        for client in clients:
            sent.append(time.monotonic())
            counts[client.ask(fields=fields).status] += 1
    return counts, sent


def admitted_by_the_book(sent, rate, burst):
    """How many a bucket that is full at first admits; a client that pauses loses what flows over."""
    admitted, tokens, last = 0, burst, sent[0]
    for at in sent:
        tokens, last = min(burst, tokens + (at - last) * rate), at
        if tokens >= 1:
            admitted, tokens = admitted + 1, tokens - 1
    return admitted


@pytest.mark.parametrize("flooded", [False, True], ids=["alone", "beside 300,000 others"])
def test_one_client_is_admitted_exactly_at_its_rate(limited, tmp_path, flooded):
    akashd = limited(limit("100/s", burst=20), workers=4)
    config = akashd.config
    config["routes"] = [{"path": "/none", "upstream": "empty"}]
    config["upstreams"]["empty"] = {"backends": [{"address": "127.0.0.1:1", "state": "maint"}],
                                    "health_check": False}
    akashd.write(config)
    akashd.reload()
    worker = akashd.workers()[0]
    clients = [Client(akashd.port, record=False) for _ in range(8)]
    seconds, flood = (10 if flooded and not is_sanitized() else 3), None
    try:
        if flooded:
            script = tmp_path / "flood.lua"
            script.write_text(FLOOD)
            flood = subprocess.Popen(  # until it is told to end: a busy machine needs seconds for the first of it
                [shutil.which("wrk"), "-t1", "-c8", "-d10m", "-s", str(script), f"http://127.0.0.1:{akashd.port}/"],
                stdout=subprocess.DEVNULL)
            akashd.wait_metric("akash_requests_total", lambda v: v is not None and v > 20000, deadline=30, code=503)
            before = shared_memory(worker.pid)
        counts, sent = hammer(clients, seconds, from_ip("192.0.2.1"))
        if flooded:
            assert shared_memory(worker.pid) - before < 4096, "kilobytes of the segment that the flood made"
            assert flood.poll() is None, "the flood ended early"
    finally:
        if flood:
            flood.kill()
            flood.wait(PATIENCE)
    assert set(counts) == {200, 429}
    taken, due = sent[-1] - sent[0], admitted_by_the_book(sent, 100, 20)
    assert abs(counts[200] - due) <= 5, f"{counts} in {taken:.3f} s; {due} were due"
    assert counts[200] <= 20 + 100 * taken + 5
    assert akashd.metrics().value("akash_rate_limited_total", name="api") >= counts[429]
    assert akashd.backend.peak >= 1


def shared_memory(pid):
    """Kilobytes of shared memory that are resident in the process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssShmem:"):
            return int(line.split()[1])
    raise KeyError("RssShmem")


def test_every_client_has_a_bucket_of_its_own(limited):
    akashd = limited(limit("1/h", burst=2))
    with Client(akashd.port) as client:
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
            assert statuses(client, 3, from_ip(address)) == [200, 200, 429]


def test_a_network_of_ipv6_is_one_client(limited):
    akashd = limited(limit("1/h"))
    with Client(akashd.port) as client:
        assert statuses(client, 1, from_ip("2001:db8:1:2::1")) == [200]
        assert statuses(client, 1, from_ip("2001:db8:1:2:ffff::9")) == [429]
        assert statuses(client, 1, from_ip("2001:db8:1:3::1")) == [200]


def test_ipv6_prefix_says_how_large_that_network_is(limited):
    akashd = limited(limit("1/h", ipv6_prefix=48))
    with Client(akashd.port) as client:
        assert statuses(client, 1, from_ip("2001:db8:1:2::1")) == [200]
        assert statuses(client, 1, from_ip("2001:db8:1:3::1")) == [429]


def test_a_field_may_be_the_key(limited):
    akashd = limited(limit("1/h", key="header:X-Api-Key"))
    with Client(akashd.port) as client:
        assert statuses(client, 2, ("x-api-key", "a")) == [200, 429]
        assert statuses(client, 2, ("X-Api-Key", "b")) == [200, 429]
        assert statuses(client, 3) == [200, 200, 200]  # no such field: not limited


def test_a_field_that_is_not_forwarded_is_no_key(limited):
    akashd = limited(limit("1/h", key="header:X-Api-Key"))
    with Client(akashd.port) as client:
        assert statuses(client, 2, ("X-Api-Key", "a"), ("Connection", "X-Api-Key")) == [200, 200]
        assert seen_by(akashd.backend, "X-Api-Key") == []


def test_exempt_networks_are_not_limited(limited):
    akashd = limited(limit("1/h", exempt=["198.51.100.0/24"]))
    with Client(akashd.port) as client:
        assert statuses(client, 3, from_ip("198.51.100.7")) == [200, 200, 200]
        assert statuses(client, 2, from_ip("203.0.113.1")) == [200, 429]


def test_a_dry_run_counts_and_refuses_nothing(limited):
    akashd = limited(limit("1/h", dry_run=True))
    with Client(akashd.port) as client:
        answers = [client.ask() for _ in range(4)]
    assert [a.status for a in answers] == [200] * 4
    assert not any(a.fields.get("RateLimit-Limit") for a in answers)
    akashd.wait_metric("akash_rate_limited_total", lambda v: v == 3, name="api")
    assert akashd.metrics().value("akash_failures_total", reason="rate_limited") in (None, 0)


# -- what is said


def test_the_refusal_says_why_and_when_to_come_again(limited):
    akashd = limited(limit("1/m", burst=1))
    with Client(akashd.port) as client:
        first, second = client.ask(), client.ask()
    assert (first.fields.get("RateLimit-Limit"), first.fields.get("RateLimit-Remaining")) == ("1", "0")
    assert 55 <= int(first.fields.get("RateLimit-Reset")) <= 60
    assert second.status == 429
    assert b"rate_limited" in second.body
    assert 55 <= int(second.fields.get("Retry-After")) <= 60
    assert (second.fields.get("RateLimit-Limit"), second.fields.get("RateLimit-Remaining")) == ("1", "0")
    akashd.wait_metric("akash_failures_total", lambda v: v == 1, reason="rate_limited")
    akashd.wait_metric("akash_requests_total", lambda v: v == 1, code=429)
    assert len(akashd.backend.requests) == 1


def test_a_refusal_503_says_once_when_to_come_again(limited):
    akashd = limited(limit("1/h", status=503))
    with Client(akashd.port) as client:
        first, second = client.ask(), client.ask()
    assert (first.status, second.status) == (200, 503)
    said = second.fields.all("Retry-After")
    assert len(said) == 1 and int(said[0]) > 1800, second.fields


def test_a_refused_upload_is_answered_and_its_body_goes_nowhere(limited):
    akashd = limited(limit("1/h"))
    with Client(akashd.port) as client:
        assert client.ask().status == 200
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", "POST")
        assert client.response().status == 429
    assert len(akashd.backend.requests) == 1


def test_the_status_may_be_another(limited):
    akashd = limited(limit("1/h", status=503))
    with Client(akashd.port) as client:
        assert statuses(client, 2) == [200, 503]
    akashd.wait_metric("akash_requests_total", lambda v: v == 1, code=503)


# -- listeners and routes


def test_a_route_has_a_limit_besides_the_listeners(limited):
    akashd = limited(limit("1/h", burst=5), routes=[
        {"path": "/dear", "upstream": "site", "rate_limit": {"name": "dear", "rate": "1/h", "burst": 2}}])
    with Client(akashd.port) as client:
        assert statuses(client, 3, target="/dear") == [200, 200, 429]
        assert statuses(client, 3) == [200, 200, 429]  # five in all: the refused one counted too
    akashd.wait_metric("akash_rate_limited_total", lambda v: v == 1, name="dear")
    akashd.wait_metric("akash_rate_limited_total", lambda v: v == 1, name="api")


def test_limits_of_one_name_count_together(launch, scripted):
    backend, ports = scripted(), [free_port(), free_port()]
    config = http_config(ports[0], [backend])
    config["listeners"] = [
        {"name": f"l{i}", "address": f"127.0.0.1:{port}", "mode": "http", "upstream": "site",
         "rate_limit": limit("1/h", burst=3)} for i, port in enumerate(ports)]
    akashd = launch(config)
    with Client(ports[0]) as one, Client(ports[1]) as two:
        assert statuses(one, 2) + statuses(two, 2) == [200, 200, 200, 429]
    akashd.wait_metric("akash_rate_limited_total", lambda v: v == 1, name="api")


# -- one truth


def test_a_reload_and_the_death_of_a_worker_forgive_nothing(limited):
    akashd = limited(limit("1/h", burst=3))
    with Client(akashd.port) as client:
        assert statuses(client, 2, from_ip("192.0.2.9")) == [200, 200]
    akashd.config["upstreams"]["site"]["keepalive"] = {"connections": 3}
    akashd.write(akashd.config)
    akashd.reload()
    with Client(akashd.port) as client:
        assert statuses(client, 1, from_ip("192.0.2.9")) == [200]
    worker = akashd.workers()[0]
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: 0 in (now := akashd.workers()) and now[0].pid != worker.pid, "a successor")
    with Client(akashd.port) as client:
        assert statuses(client, 1, from_ip("192.0.2.9")) == [429]


# -- who the client is


def seen_by(backend, name):
    return [value for key, value in backend.requests[-1].fields if key.lower() == name.lower()]


def test_the_client_is_the_last_address_that_no_proxy_of_ours_has(limited):
    akashd = limited(limit("1/h"), trusted_proxies=[HOME, "10.0.0.0/8"])
    with Client(akashd.port) as client:
        assert statuses(client, 1, from_ip("203.0.113.5, 198.51.100.1, 10.1.1.1")) == [200]
        assert seen_by(akashd.backend, "X-Forwarded-For") == ["203.0.113.5, 198.51.100.1, 10.1.1.1, 127.0.0.1"]
        assert statuses(client, 1, from_ip("198.51.100.1")) == [429]  # the same client
        assert statuses(client, 1, from_ip("203.0.113.5, 10.1.1.1")) == [200]  # what it said of itself is not
        assert statuses(client, 1, from_ip("192.0.2.4"), from_ip("10.1.1.1")) == [200]  # two fields are one list
        assert statuses(client, 1, from_ip("192.0.2.4")) == [429]


def test_an_address_that_is_none_ends_the_way_back(limited):
    akashd = limited(limit("1/h"))
    with Client(akashd.port) as client:
        assert statuses(client, 1, from_ip("192.0.2.4, unknown")) == [200]
        assert statuses(client, 1, from_ip("192.0.2.5, unknown")) == [429]  # both are the proxy itself


def test_nobody_else_is_believed(limited):
    akashd = limited(limit("1/h", burst=1), trusted_proxies=["192.0.2.0/24"])
    with Client(akashd.port) as client:
        assert statuses(client, 1, from_ip("192.0.2.1"), ("X-Forwarded-Proto", "https"),
                        ("X-Request-ID", "mine"), ("X-Real-IP", "192.0.2.1")) == [200]
        assert seen_by(akashd.backend, "X-Forwarded-For") == ["192.0.2.1, 127.0.0.1"]
        assert seen_by(akashd.backend, "X-Forwarded-Proto") == ["http"]
        assert seen_by(akashd.backend, "X-Request-ID") != ["mine"]
        assert seen_by(akashd.backend, "X-Real-IP") == []
        assert statuses(client, 1, from_ip("192.0.2.2")) == [429]


@pytest.mark.parametrize("client_ip, form", [("203.0.113.5", "203.0.113.5:{}"), ("2001:db8::5", "[2001:db8::5]:{}"),
                                             ("2001:db8::5", "[2001:db8::5]")])
def test_a_proxy_may_append_the_port_of_the_client(limited, client_ip, form):
    """Each client has one request; the port does not tell clients apart."""
    akashd = limited(limit("1/h", burst=1), trusted_proxies=[HOME, "10.0.0.0/8"])
    with Client(akashd.port) as client:
        assert statuses(client, 1, from_ip("192.0.2.1:1")) == [200]
        assert statuses(client, 1, from_ip(form.format(4711) + ", 10.1.1.1:80")) == [200]
        assert statuses(client, 1, from_ip(form.format(4712))) == [429]
        assert statuses(client, 1, from_ip(client_ip)) == [429]
        assert statuses(client, 1) == [200], "of the proxy itself"


def test_what_a_trusted_proxy_says_is_kept(limited):
    akashd = limited(None)
    said = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example"), ("X-Request-ID", "a.b-c_9"),
            ("X-Real-IP", "192.0.2.1"), ("Forwarded", "for=192.0.2.1")]
    with Client(akashd.port) as client:
        assert client.ask(fields=said).status == 200
        for name, value in said:
            assert seen_by(akashd.backend, name) == [value]
        for bad in ("x" * 129, "a b", "<script>"):
            assert client.ask(fields=[("X-Request-ID", bad)]).status == 200
            assert seen_by(akashd.backend, "X-Request-ID") not in ([bad], [])


# -- configuration


@pytest.mark.parametrize("wrong, message", [
    ({"name": "a", "rate": "100"}, r'rate: expected a rate such as "100/s"'),
    ({"name": "a", "rate": "0/s"}, r"rate: expected a rate"),
    ({"name": "a", "rate": "2000000/s"}, r"rate: expected a rate"),
    ({"name": "a", "rate": "1/h", "burst": 1000}, r"burst of 1000 would take more than three days"),
    ({"rate": "1/s"}, r"rate_limit.name: missing"),
    ({"name": "a", "rate": "1/s", "key": "header:"}, r"key: expected client_ip or header:NAME|key: expected"),
    ({"name": "a", "rate": "1/s", "exempt": ["10.0.0.1/8"]}, r"exempt\[0\]: expected a network"),
    ({"name": "a", "rate": "1/s", "status": 200}, r"status: expected a number from 400 to 599"),
], ids=range(8))
def test_a_wrong_limit_is_told_with_its_place(tmp_path, wrong, message):
    config = http_config(free_port(), ["127.0.0.1:1"], listener={"rate_limit": wrong})
    path = tmp_path / "akashd.json"
    path.write_text(json.dumps(config, indent=1))
    done = subprocess.run([binary(), "-t", "-c", str(path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"akashd\.json:\d+:\d+: .*(" + message + ")", done.stderr), done.stderr


def test_limits_of_one_name_must_say_the_same(tmp_path):
    config = http_config(free_port(), ["127.0.0.1:1"], listener={"rate_limit": limit("1/s")},
                         routes=[{"upstream": "site", "rate_limit": limit("2/s")}])
    path = tmp_path / "akashd.json"
    path.write_text(json.dumps(config))
    done = subprocess.run([binary(), "-t", "-c", str(path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is another rate limit api" in done.stderr
