# SPDX-License-Identifier: Apache-2.0
"""Names of backends: looked up again by their time to live, followed without a lost request, and kept when the
name server fails."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from datetime import datetime

import pytest

from harness import (PATIENCE, Client, Gate, Load, NameServer, Nginx, adopt_orphans, free_port, http_config, until)
from harness.akashd import Process
from harness.backend import fixed
from harness.traffic import status

HOSTS = [f"127.0.0.{n}" for n in range(2, 8)]
SLOW = 3 * PATIENCE  # for what takes several tries of a name server


class Addresses:
    """nginx on one port of several addresses of the loopback; each answers with its address."""

    def __init__(self):
        self.port = free_port()
        servers = "".join(f'server {{ listen {host}:{self.port} backlog=4096; location / {{ return 200 "{host}"; }} }}\n'
                          for host in HOSTS)
        servers += f'server {{ listen [::1]:{self.port}; location / {{ return 200 "::1"; }} }}\n'
        self.nginx = Nginx('location / { return 200 "127.0.0.1"; }', http=servers, port=self.port)

    def check(self, code, _head, body):
        known = code == 200 and body.decode() in HOSTS
        return None if known else f"status {code}: {body[:60]!r}"


@pytest.fixture(scope="module")
def farm():
    made = Addresses()
    yield made
    made.nginx.close()


@pytest.fixture
def dns():
    made = NameServer()
    yield made
    made.close()


def named(port, dns, backends, upstream=None, **top):
    return http_config(port, backends, upstream, resolvers=[dns.address], **top)


def ask(port):
    with Client(port) as client:
        answer = client.ask()
        return answer.status, answer.body.decode()


def seen(port, times=12):
    """Which addresses answer."""
    return {ask(port)[1] for _ in range(times)}


def ids(daemon):
    return {labels["backend"] for labels, _ in daemon.metrics().all("akash_backend_up")}


def places(daemon):
    """The addresses of the backends in force."""
    return {backend.split("@")[1] for backend in ids(daemon) if "@" in backend}


def wait_places(daemon, wanted, deadline=SLOW):
    until(lambda: places(daemon) == set(wanted), f"{wanted}; log:\n{daemon.log_text}", deadline, 0.02)


def wait_lookups(daemon, result, more, deadline=SLOW):
    """Wait for so many more lookups that end so."""
    before = daemon.metrics().value("akash_dns_lookups_total", result=result)
    daemon.wait_metric("akash_dns_lookups_total", lambda v: v >= before + more, deadline=deadline, result=result)


def reloads(daemon):
    return len([line for line in daemon.log if "reload: done" in line])


# -- following


@pytest.mark.timeout(180)
def test_a_changed_answer_is_followed_within_its_ttl_under_load(launch, dns, farm):
    """Issue 4, line 6: four workers, clients that keep their connection and clients that do not."""
    ttl = 1
    dns.put("web.test", ttl=ttl, A=HOSTS[:2])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"], workers=4))
    took = []
    with Load(port, keepalive=16, fresh=8, check=farm.check, tag=lambda _, body: body.decode(),
              pause=0.002) as load:
        load.wait_total(200)
        for turn in range(6):
            wanted = [HOSTS[(turn + k) % len(HOSTS)] for k in range(2, 4)]
            fresh = [host for host in wanted if host not in places(daemon)]
            before = {host: load.account.tags[host] for host in fresh}
            changed = time.monotonic()
            dns.put("web.test", ttl=ttl, A=wanted)
            until(lambda: all(load.account.tags[host] > before[host] for host in fresh),
                  f"requests to {fresh}; log:\n{daemon.log_text}", 30)
            took.append(time.monotonic() - changed)
            wait_places(daemon, wanted)
        load.wait_total(load.account.total + 200)
        account = load.stop()
    account.assert_all_ok(at_least=1000)
    print("seconds until followed:", [round(t, 2) for t in took], "requests:", account.ok)
    # A pause of the whole machine may fall into one of them.
    assert sorted(took)[-2] <= ttl + 1, took
    assert len(daemon.workers()) == 4
    dns.wait_asked("web.test", "AAAA")


def test_the_old_addresses_get_no_request_once_it_is_followed(launch, dns, farm):
    dns.put("web.test", A=HOSTS[:3])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"], workers=2))
    assert seen(port) == set(HOSTS[:3])
    dns.put("web.test", A=HOSTS[3:5])
    line = daemon.wait_log(r"name web\.test: addresses change: ")
    daemon.wait_log(r"reload: done")
    wait_places(daemon, HOSTS[3:5])
    assert seen(port) == set(HOSTS[3:5])
    assert all(f"+ {host}" in line for host in HOSTS[3:5]) and all(f"- {host}" in line for host in HOSTS[:3])
    assert ids(daemon) == {f"web.test:{farm.port}@{host}" for host in HOSTS[3:5]}


@pytest.mark.parametrize("what", ["state", "weight", "breaker"])
def test_what_an_operator_says_of_a_name_is_said_of_addresses_that_come(launch, dns, farm, what):
    """Also of one that was there before, and has a word of its own from that time."""
    say, revoke, key, word = {"state": (["drain"], ["ready"], "state", "drain"),
                              "weight": (["weight", ..., "7"], ["weight", ..., "1"], "weight", 7),
                              "breaker": (["breaker", "open"], ["breaker", "auto"], "breaker", "open")}[what]
    dns.put("web.test", A=HOSTS[:2])
    daemon = launch(named(free_port(), dns, [f"web.test:{farm.port}", {"id": "other", "address": f"{HOSTS[5]}:{farm.port}"}]))
    name = f"site/web.test:{farm.port}"

    def tell(words):
        command = [name if w is ... else w for w in words]
        assert daemon.ctl(*command, *([] if ... in words else [name])).returncode == 0

    def told():
        status = json.loads(daemon.ctl("-j", "status").stdout)["status"]["upstreams"][0]["backends"]
        return {b["id"].partition("@")[2]: b.get(key) for b in status if "@" in b["id"]}
    plain = told()[HOSTS[0]]
    tell(say)
    dns.put("web.test", A=HOSTS[1:4])
    wait_places(daemon, HOSTS[1:4])
    assert told() == {h: word for h in HOSTS[1:4]}
    tell(revoke)
    dns.put("web.test", A=HOSTS[:2])
    wait_places(daemon, HOSTS[:2])
    assert told() == {h: plain for h in HOSTS[:2]}


def test_a_running_request_to_a_removed_address_finishes(launch, dns, scripted):
    gate, backend = Gate(), scripted(host="127.0.0.9")
    backend.always(gate.hold(fixed(b"done")))
    dns.put("web.test", A="127.0.0.9")
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{backend.port}"]))
    with Client(port) as client:
        client.request()
        gate.wait_waiting(1)
        dns.put("web.test", A="127.0.0.10")
        wait_places(daemon, ["127.0.0.10"])
        gate.release()
        assert client.response().body == b"done"


def test_order_does_not_matter(launch, dns, farm):
    dns.put("web.test", A=HOSTS[:3])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"]))
    for turn in range(3):
        dns.put("web.test", A=HOSTS[turn:3] + HOSTS[:turn] + HOSTS[:1])
        wait_lookups(daemon, "ok", 1)
    assert reloads(daemon) == 0 and "addresses change" not in daemon.log_text


def test_the_time_to_live_is_kept_to(launch, dns, farm):
    dns.put("long.test", ttl=3600, A=HOSTS[0])
    dns.put("short.test", ttl=1, A=HOSTS[1])
    port = free_port()
    launch(named(port, dns, [f"long.test:{farm.port}", f"short.test:{farm.port}"]))
    dns.wait_asked("long.test", "A", 2)  # by the load, and by the monitor when it begins
    dns.wait_asked("short.test", "A", 6)
    assert len(dns.asked("long.test", "A")) == 2


def test_a_cname_chain_is_followed_by_its_least_ttl(launch, dns, farm):
    dns.put("web.test", ttl=1, CNAME="middle.test")
    dns.put("middle.test", ttl=3600, CNAME="end.test")
    dns.put("end.test", ttl=3600, A=HOSTS[0])
    dns.put("other.test", ttl=3600, A=HOSTS[1])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"]))
    assert seen(port, 2) == {HOSTS[0]}
    dns.put("web.test", ttl=1, CNAME="other.test")
    wait_places(daemon, [HOSTS[1]])
    assert seen(port, 2) == {HOSTS[1]}


def test_a_ring_of_cnames_changes_nothing(launch, dns, farm):
    dns.put("web.test", A=HOSTS[0])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"]))
    wait_lookups(daemon, "ok", 1)
    dns.put("web.test", CNAME="ring.test")
    dns.put("ring.test", CNAME="web.test")
    daemon.wait_log("name web.test: .*; its last addresses stay", SLOW)
    assert places(daemon) == {HOSTS[0]} and ask(port) == (200, HOSTS[0])


def when(line):
    """The time that a line of the log has, in seconds."""
    return datetime.fromisoformat(line.split()[0]).timestamp()


@pytest.mark.timeout(120)
def test_other_addresses_at_each_question_are_followed_at_a_bounded_pace(launch, dns, farm):
    """Each change is a reload: a name server must not make akashd do nothing else."""
    names = ["one.test", "two.test", "three.test"]
    over = threading.Event()

    def change():
        turn = 0
        while not over.wait(0.05):
            for name in names:
                dns.put(name, ttl=0, A=[HOSTS[turn % len(HOSTS)], HOSTS[(turn + 1) % len(HOSTS)]])
            turn += 1
    for name in names:
        dns.put(name, ttl=0, A=HOSTS[:1])
    port = free_port()
    config = named(port, dns, [f"{name}:{farm.port}" for name in names], workers=2)
    daemon = launch(config)
    changing = threading.Thread(target=change)
    with Load(port, keepalive=4, fresh=2, check=farm.check, pause=0.01) as load:
        changing.start()
        try:
            daemon.wait_log("names: addresses change so often that they are followed every 5 s only", 60)
            since = len(daemon.log)
            until(lambda: len([line for line in daemon.log[since:] if "reload: done" in line]) >= 4, "four more", 60)
            # The operator's own are not held up.
            assert daemon.reload({**config, "drain_timeout": "3s"}).returncode == 0
        finally:
            over.set()
            changing.join()
        done = [when(line) for line in daemon.log[since:] if "reload: done" in line]
        assert done[3] - done[1] > 4, done  # two pauses of 5 s, and this machine may have paused before the first
        for name in names:
            dns.put(name, A=HOSTS[:1])
        wait_places(daemon, HOSTS[:1])
        account = load.stop()
    account.assert_all_ok(at_least=50)


@pytest.mark.timeout(120)
def test_the_last_slots_are_not_for_changed_addresses(launch, dns, farm, scripted):
    """A stream of an old configuration keeps its slots: what is left is for the operator's reloads."""
    gate, backend = Gate(), scripted()
    backend.always(gate.hold(fixed(b"done")))
    dns.put("web.test", A=HOSTS[0])
    port = free_port()
    few = named(port, dns, [f"web.test:{farm.port}"])
    few["upstreams"]["held"] = {"backends": [{"address": backend.address}]}
    few["routes"] = [{"path": "/held", "upstream": "held"}, {"upstream": "site"}]
    many = {**few, "upstreams": {**few["upstreams"], "many": {"health_check": False, "backends": [
        {"address": f"127.1.{n // 250}.{1 + n % 250}:9"} for n in range(12500)]}}}
    daemon = launch(few)
    with Client(port) as client:
        client.request(target="/held")
        gate.wait_waiting(1)
        daemon.reload(many)
        daemon.reload(few)
        dns.put("web.test", A=HOSTS[1])
        daemon.wait_log("names: changed addresses are not followed: the segment has little room", SLOW)
        assert ask(port) == (200, HOSTS[0])
        fresh = {**few, "upstreams": {**few["upstreams"], "fresh": {"backends": [{"address": "127.0.0.1:9"}]}}}
        assert daemon.reload(fresh).returncode == 0
        dns.put("web.test", A=HOSTS[2])
        gate.release()
        assert client.response().body == b"done"
    wait_places(daemon, [HOSTS[2]])
    assert ask(port) == (200, HOSTS[2])
    # A large configuration leaves less, and follows its names all the same.
    daemon.reload(many)
    dns.put("web.test", A=HOSTS[3])
    until(lambda: ask(port) == (200, HOSTS[3]), f"the fourth address; log:\n{daemon.log_text}", SLOW, 0.05)


def test_two_upstreams_share_a_name(launch, dns, farm, scripted):
    """One question, and each has its own port."""
    dns.put("web.test", A=HOSTS[0])
    other = scripted(fixed(b"other"), host=HOSTS[1])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"],
                          upstreams={"other": {"backends": [{"address": f"web.test:{other.port}"}],
                                               "health_check": False}},
                          routes=[{"path": "/other", "upstream": "other"}]))
    dns.put("web.test", A=HOSTS[1])
    wait_places(daemon, [HOSTS[1]])
    assert ids(daemon) == {f"web.test:{farm.port}@{HOSTS[1]}", f"web.test:{other.port}@{HOSTS[1]}"}
    with Client(port) as client:
        assert client.ask().body.decode() == HOSTS[1]
        assert client.ask(target="/other").body == b"other"


def test_a_listener_may_have_a_name(launch, dns, farm):
    dns.put("here.test", A="127.0.0.1")
    dns.put("web.test", A=HOSTS[0])
    port = free_port()
    config = named(port, dns, [f"web.test:{farm.port}"])
    config["listeners"][0]["address"] = f"here.test:{port}"
    daemon = launch(config)
    assert ask(port) == (200, HOSTS[0])
    dns.put("web.test", A=HOSTS[1])
    wait_places(daemon, [HOSTS[1]])
    assert ask(port) == (200, HOSTS[1])


def test_an_answer_that_is_cut_is_asked_for_over_tcp_and_64_are_used(launch, dns):
    port = free_port()
    dns.put("many.test", A=[f"127.1.0.{n}" for n in range(1, 101)])
    daemon = launch(named(port, dns, ["many.test:9"]))
    dns.wait_asked("many.test", "A", over="tcp")
    assert len(places(daemon)) == 64
    daemon.wait_log("name many.test: it has too many addresses; 64 are used")
    before = places(daemon)
    dns.put("many.test", A=[f"127.1.0.{n}" for n in range(100, 0, -1)])
    wait_lookups(daemon, "ok", 2)
    assert places(daemon) == before and reloads(daemon) == 0
    dns.put("many.test", A=[f"127.1.0.{n}" for n in range(40, 60)])
    wait_places(daemon, [f"127.1.0.{n}" for n in range(40, 60)])


def test_both_families_and_mapped_addresses(launch, dns, farm):
    dns.put("web.test", A=HOSTS[0], AAAA=["::1", "::ffff:" + HOSTS[1]])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"]))
    assert places(daemon) == {HOSTS[0], HOSTS[1], "::1"}
    assert seen(port) == {HOSTS[0], HOSTS[1], "::1"}


def test_addresses_that_no_backend_has_are_left_out(launch, dns, farm):
    dns.put("web.test", A=[HOSTS[0], "0.0.0.0", "224.0.0.1", "255.255.255.255"], AAAA=["::", "ff02::1"])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"]))
    assert places(daemon) == {HOSTS[0]}


def test_a_family_that_fails_keeps_its_addresses(launch, dns, farm):
    dns.put("web.test", A=HOSTS[0], AAAA="::1")
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"]))
    assert places(daemon) == {HOSTS[0], "::1"}
    dns.put("web.test", A=HOSTS[1], AAAA="::1")
    dns.fail("web.test", "servfail", "AAAA")
    wait_places(daemon, [HOSTS[1], "::1"])
    daemon.reload()
    assert places(daemon) == {HOSTS[1], "::1"}
    dns.put("web.test", A=HOSTS[1])
    wait_places(daemon, [HOSTS[1]])


# -- SRV records


def test_srv_records_give_port_weight_and_order(launch, dns, farm, scripted):
    dns.put("_http._tcp.web.test", SRV=[(10, 3, farm.port, "one.test"), (10, 1, farm.port, "two.test"),
                                        (20, 9, farm.port, "three.test")])
    for host, address in zip(("one", "two", "three"), HOSTS):
        dns.put(f"{host}.test", ttl=3600, A=address)
    port = free_port()
    daemon = launch(named(port, dns, ["srv:_http._tcp.web.test"]))
    wanted = {f"srv:_http._tcp.web.test@{host}:{farm.port}" for host in HOSTS[:3]}
    assert ids(daemon) == wanted
    got = [ask(port)[1] for _ in range(40)]
    assert (got.count(HOSTS[0]), got.count(HOSTS[1]), got.count(HOSTS[2])) == (30, 10, 0)
    other = scripted(fixed(b"other"), host=HOSTS[3])
    dns.put("_http._tcp.web.test", SRV=[(1, 0, other.port, "four.test")])
    dns.put("four.test", A=HOSTS[3])
    wait_places(daemon, [f"{HOSTS[3]}:{other.port}"])
    assert ask(port) == (200, "other")
    line = daemon.wait_log(r"addresses change: ")
    assert f"+ {HOSTS[3]}:{other.port} (priority 1, weight 0)" in line


def test_an_srv_target_that_cannot_be_asked_for_changes_nothing(launch, dns, farm):
    dns.put("_http._tcp.web.test", SRV=[(1, 1, farm.port, "one.test"), (1, 1, farm.port, "two.test")])
    dns.put("one.test", A=HOSTS[0])
    dns.put("two.test", A=HOSTS[1])
    port = free_port()
    daemon = launch(named(port, dns, ["srv:_http._tcp.web.test"]))
    dns.fail("two.test", "servfail")
    wait_lookups(daemon, "failed", 2)
    assert seen(port) == set(HOSTS[:2])
    dns.fail("two.test", "nxdomain")  # that says that it has gone
    wait_places(daemon, [f"{HOSTS[0]}:{farm.port}"])


# -- failures


@pytest.mark.parametrize("how, result", [("nxdomain", "empty"), ("empty", "empty"), ("servfail", "failed"),
                                         ("refused", "failed"), ("timeout", "failed"), ("garbage", "failed"),
                                         ("echo", "failed")])
@pytest.mark.timeout(120)
def test_a_bad_answer_keeps_the_last_good_one(launch, dns, farm, how, result):
    dns.put("web.test", A=HOSTS[:2])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"], workers=2))
    wait_lookups(daemon, "ok", 1)
    dns.fail("web.test", how)
    wait_lookups(daemon, result, 2, 60)
    assert daemon.metrics().value("akash_dns_names_failing") == 1
    assert seen(port) == set(HOSTS[:2])
    told = [line for line in daemon.log if "name web.test: " in line]
    assert len(told) == 1 and told[0].endswith("; its last addresses stay"), told
    dns.put("web.test", A=HOSTS[2])
    wait_places(daemon, [HOSTS[2]], 60)
    daemon.wait_log("name web.test: resolves again")
    daemon.wait_metric("akash_dns_names_failing", lambda v: v == 0)


def test_a_name_that_does_not_resolve_at_start_heals(launch, dns, farm):
    dns.put("sound.test", A=HOSTS[1])
    port = free_port()
    config = named(port, dns, [f"late.test:{farm.port}"], workers=2,
                   upstreams={"sound": {"backends": [{"address": f"sound.test:{farm.port}"}]}},
                   routes=[{"path": "/sound", "upstream": "sound"}])
    daemon = launch(config)
    daemon.wait_log("late.test does not resolve")
    with Client(port) as client:
        answer = client.ask()
        assert answer.status == 503 and b"no_backend" in answer.body
        assert client.ask(target="/sound").body.decode() == HOSTS[1]
    assert daemon.get("/readyz?upstream=site")[0] == 503
    assert daemon.get("/readyz?upstream=sound")[0] == 200
    dns.put("late.test", A=HOSTS[0])
    until(lambda: ask(port) == (200, HOSTS[0]), f"late.test; log:\n{daemon.log_text}", SLOW, 0.05)
    assert daemon.get("/readyz?upstream=site")[0] == 200
    assert not [line for line in daemon.log if "refused" in line]


def test_a_reload_keeps_what_the_name_server_does_not_know_now(launch, dns, farm):
    dns.put("web.test", A=HOSTS[:2])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"]))
    dns.fail("web.test", "nxdomain")
    daemon.reload()
    assert places(daemon) == set(HOSTS[:2]) and seen(port) == set(HOSTS[:2])
    daemon.wait_log("name web.test: does not resolve; its last addresses stay")


@pytest.mark.timeout(120)
def test_sighup_while_a_name_is_looked_up(launch, dns, farm):
    """The answer that is waited for is not lost, nor is the reload."""
    dns.put("web.test", A=HOSTS[0])
    port = free_port()
    config = named(port, dns, [f"web.test:{farm.port}"], workers=2)
    daemon = launch(config)
    with Load(port, keepalive=4, fresh=2, check=farm.check, pause=0.005) as load:
        for turn in range(1, 4):
            since = dns.fail("web.test", "timeout")
            dns.wait_asked("web.test", since=since)
            mark = daemon.hup({**config, "drain_timeout": f"{turn}s"})
            daemon.wait_log("reload: asked for by SIGHUP", since=mark)
            dns.put("web.test", A=HOSTS[turn])
            daemon.wait_log("reload: done", SLOW, since=mark)
            wait_places(daemon, [HOSTS[turn]])
        account = load.stop()
    account.assert_all_ok(at_least=50)


def test_a_name_that_leaves_while_it_is_looked_up(launch, dns, farm):
    dns.put("web.test", A=HOSTS[0])
    dns.put("next.test", A=HOSTS[1])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"]))
    for _ in range(3):
        since = dns.fail("web.test", "timeout")
        dns.wait_asked("web.test", since=since)
        daemon.reload(named(port, dns, [f"next.test:{farm.port}"]))
        assert ask(port) == (200, HOSTS[1])
        dns.put("web.test", A=HOSTS[0])
        daemon.reload(named(port, dns, [f"web.test:{farm.port}"]))
        assert ask(port) == (200, HOSTS[0])


def test_other_name_servers_come_with_a_reload(launch, dns, farm):
    other = NameServer()
    dns.put("web.test", A=HOSTS[0])
    other.put("web.test", A=HOSTS[1])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"]))
    wait_lookups(daemon, "ok", 1)
    daemon.reload(named(port, other, [f"web.test:{farm.port}"]))
    assert ask(port) == (200, HOSTS[1])
    other.put("web.test", A=HOSTS[2])
    wait_places(daemon, [HOSTS[2]])
    other.close()


# -- processes


@pytest.mark.timeout(120)
def test_killed_monitor_costs_no_address_and_its_successor_follows(launch, dns, farm):
    dns.put("web.test", A=HOSTS[:2])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"], workers=2))
    with Load(port, keepalive=4, fresh=2, check=farm.check, pause=0.005) as load:
        former = daemon.monitor()
        dns.fail("web.test", "servfail")
        former.kill(signal.SIGKILL)
        until(lambda: (m := daemon.monitor()) and m.pid != former.pid, "the next monitor", SLOW)
        until(lambda: daemon.get("/readyz", missing=(0, ""))[0] == 200, "the metrics", SLOW)
        wait_lookups(daemon, "failed", 1)
        assert places(daemon) == set(HOSTS[:2])
        dns.put("web.test", A=HOSTS[2])
        wait_places(daemon, [HOSTS[2]])
        account = load.stop()
    account.assert_all_ok(at_least=50)


@pytest.mark.timeout(120)
def test_an_upgrade_keeps_addresses_while_the_name_server_is_down(launch, dns, farm):
    adopt_orphans()
    dns.put("web.test", A=HOSTS[:2])
    dns.put("_http._tcp.web.test", SRV=[(1, 1, farm.port, "web.test")])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}", "srv:_http._tcp.web.test"], workers=2))
    before = ids(daemon)
    assert len(before) == 4
    with Load(port, keepalive=4, fresh=2, check=farm.check, pause=0.005) as load:
        dns.fail("web.test", "servfail")
        daemon.upgrade(deadline=SLOW)
        assert ids(daemon) == before
        dns.put("web.test", A=HOSTS[2])
        wait_places(daemon, [HOSTS[2], f"{HOSTS[2]}:{farm.port}"])
        account = load.stop()
    account.assert_all_ok(at_least=50)


def internet_sockets(process):
    """Inodes of a process's UDP sockets and of its TCP connections."""
    held = set()
    for fd in os.listdir(f"/proc/{process.pid}/fd"):
        try:
            held.add(os.readlink(f"/proc/{process.pid}/fd/{fd}"))
        except FileNotFoundError:
            continue
    found = set()
    for table in ("udp", "udp6", "tcp", "tcp6"):
        with open(f"/proc/{process.pid}/net/{table}") as f:
            for line in list(f)[1:]:
                words = line.split()
                if words[3] != "0A" and f"socket:[{words[9]}]" in held:
                    found.add((table, words[1], words[2]))
    return found


def test_the_master_speaks_to_no_name_server(launch, dns, farm):
    dns.put("web.test", A=HOSTS[0])
    port = free_port()
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"]))
    dns.fail("web.test", "timeout")
    monitor = daemon.monitor()
    until(lambda: [s for s in internet_sockets(monitor) if s[0] == "udp"], "a question of the monitor", SLOW)
    daemon.hup()
    since = len(dns.queries)
    dns.wait_asked("web.test", times=2, since=since)
    assert not internet_sockets(Process(daemon.pid))


# -- files


def can_mount():
    return os.geteuid() == 0 and subprocess.run(
        ["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def etc(tmp_path):
    """Files in place of those of /etc, and the prefix that puts them there."""
    os.chmod(tmp_path, 0o755)

    def make(**files):
        mounts = []
        for name, text in files.items():
            path = tmp_path / name
            path.write_text(text)
            path.chmod(0o644)
            mounts.append(f"mount --bind {path} /etc/{name.replace('_', '.')}")
        return ["unshare", "-m", "sh", "-c", " && ".join(mounts) + ' && exec "$@"', "sh"]
    make.folder = tmp_path
    return make


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace for files of its own")
def test_the_hosts_file_goes_before_the_name_server(launch, dns, farm, etc):
    dns.put("web.test", A=HOSTS[0])
    port = free_port()
    prefix = etc(hosts=f"{HOSTS[1]} web.test\n{HOSTS[2]} other.test web.test\n::ffff:{HOSTS[3]} web.test\n")
    daemon = launch(named(port, dns, [f"web.test:{farm.port}"]), prefix=prefix)
    assert places(daemon) == set(HOSTS[1:4])
    assert not dns.asked("web.test")
    with open(etc.folder / "hosts", "w") as f:
        f.write(f"{HOSTS[4]} web.test\n")
    daemon.reload()
    assert places(daemon) == {HOSTS[4]}


def test_localhost_is_asked_of_nobody(launch, dns, farm):
    port = free_port()
    daemon = launch(named(port, dns, [f"localhost:{farm.port}", f"sub.localhost:{farm.port}"]))
    assert "127.0.0.1" in places(daemon) and f"sub.localhost:{farm.port}@127.0.0.1" in ids(daemon)
    wait_lookups(daemon, "ok", 0)
    assert not dns.queries


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace for files of its own")
def test_resolv_conf_says_whom_to_ask_and_what_to_append(launch, farm, etc):
    first, second = (NameServer(host, 53) for host in ("127.53.0.1", "127.53.0.2"))
    try:
        first.put("web.in.test", A=HOSTS[0])
        second.put("web.in.test", A=HOSTS[1])
        port = free_port()
        prefix = etc(resolv_conf="nameserver 127.53.0.1\nsearch not.test in.test\n")
        daemon = launch(http_config(port, [f"web:{farm.port}"]), prefix=prefix)
        assert ask(port) == (200, HOSTS[0])
        wait_lookups(daemon, "ok", 1)
        assert first.asked("web.not.test") and first.asked("web.in.test") and not first.asked("web")
        with open(etc.folder / "resolv_conf", "w") as f:
            f.write("nameserver 127.53.0.2\nsearch in.test\n")
        wait_places(daemon, [HOSTS[1]])
    finally:
        first.close()
        second.close()


# -- the operator


def test_what_is_not_a_name_server_is_told(launch, dns):
    for wrong in ("name.test:53", "unix:/run/dns", "10.0.0.1", "srv:_dns._udp.test"):
        daemon = launch(http_config(free_port(), ["127.0.0.1:9"], resolvers=[wrong]), args=["-t"], start=False)
        daemon.start(ready=False)
        assert daemon.wait_exit() == 1
        assert re.search(r"akashd\.json:\d+:\d+: resolvers\[0\]: ", daemon.log_text), daemon.log_text
        daemon.destroy()


def test_status_names_each_address(launch, dns, farm):
    dns.put("web.test", A=HOSTS[:2])
    daemon = launch(named(free_port(), dns, [f"web.test:{farm.port}"]))
    site = next(up for up in status(daemon)["upstreams"] if up["name"] == "site")
    assert {b["id"] for b in site["backends"]} == {f"web.test:{farm.port}@{host}" for host in HOSTS[:2]}
    assert {b["address"] for b in site["backends"]} == {f"web.test:{farm.port}"}
