# SPDX-License-Identifier: Apache-2.0
"""akashctl: what operators say, see and ask."""

import copy
import json
import os
import signal
import subprocess
import threading
import time

import pytest
from harness import (PATIENCE, Authority, Client, Echo, Farm, Load, Streams, adopt_orphans, free_port, http_config,
                     until)
from harness.akashd import binary
from harness.backend import fixed, stall


@pytest.fixture(scope="module")
def farm():
    made = Farm(3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def daemon(launch, farm):
    """Three backends, two workers."""
    return launch(http_config(free_port(), farm.addresses, workers=2))


def port_of(daemon):
    return int(daemon.config["listeners"][0]["address"].rpartition(":")[2])


def said(daemon, *command, expect=0):
    """The answer as JSON."""
    done = daemon.ctl("-j", *command)
    assert done.returncode == expect, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def backend(daemon, address):
    status = said(daemon, "status")["status"]
    return next(b for up in status["upstreams"] for b in up["backends"] if b["id"] == address)


def tags(daemon, farm, count):
    """Who answers count requests."""
    with Load(port_of(daemon), keepalive=1, limit=count, check=farm.check, tag=lambda head, body: body.decode()) as load:
        load.join()
    load.account.assert_all_ok(count)
    return load.account.tags


# -- states

def test_drain_under_load_loses_nothing_and_lasts(daemon, farm):
    """The drained backend's connections fall to none; reloads and deaths of workers change nothing."""
    drained = farm.addresses[1]
    with Load(port_of(daemon), keepalive=16, fresh=8, check=farm.check) as load:
        load.wait_total(200)
        assert daemon.ctl("drain", f"site/{drained}").returncode == 0
        until(lambda: backend(daemon, drained)["open"] == 0, "the end of its connections")
        served = backend(daemon, drained)["served"]
        load.wait_total(load.account.total + 300)
        daemon.reload()
        daemon.reload({**daemon.config, "drain_timeout": "6s"})
        load.wait_total(load.account.total + 300)
        shown = backend(daemon, drained)
        assert shown["state"] == "drain" and shown["open"] == 0 and shown["usable"] is False
        assert shown["operator"] == {"state": {"file": "ready", "operator": "drain"}}
        assert shown["served"] == served
    load.account.assert_all_ok(500)
    for index in (0, 1):
        victim = daemon.workers()[index].pid
        os.kill(victim, signal.SIGKILL)
        until(lambda: index in (now := daemon.workers()) and now[index].pid != victim, "a successor")
        assert "b1" not in tags(daemon, farm, 30)
    assert backend(daemon, drained)["served"] == served
    assert daemon.ctl("ready", f"site/{drained}").returncode == 0
    assert set(tags(daemon, farm, 30)) == {"b0", "b1", "b2"}
    assert "operator" not in backend(daemon, drained)


def test_drain_lets_running_exchanges_and_streams_end(launch, farm):
    echo = Echo()
    tcp = free_port()
    config = http_config(free_port(), farm.addresses)
    config["listeners"].append({"name": "tcp", "address": f"127.0.0.1:{tcp}", "mode": "tcp", "upstream": "echo"})
    config["upstreams"]["echo"] = {"backends": [{"address": echo.address}], "health_check": False}
    daemon = launch(config)
    streams = Streams(tcp, 3)
    assert daemon.ctl("maint", f"echo/{echo.address}").returncode == 0
    streams.check()
    assert backend(daemon, echo.address)["active"] == 3
    with pytest.raises((AssertionError, ConnectionResetError)):
        Streams(tcp, 1)
    streams.close()
    until(lambda: backend(daemon, echo.address)["open"] == 0, "the end of the streams")
    echo.close()


def test_operators_word_survives_an_upgrade(daemon, farm):
    adopt_orphans()
    assert daemon.ctl("drain", f"site/{farm.addresses[0]}").returncode == 0
    assert daemon.ctl("weight", f"site/{farm.addresses[1]}", "4").returncode == 0
    daemon.upgrade()
    assert backend(daemon, farm.addresses[0])["state"] == "drain"
    counts = tags(daemon, farm, 50)
    assert counts == {"b1": 40, "b2": 10}


def test_reloads_are_remembered_over_an_upgrade(daemon):
    adopt_orphans()
    good = daemon.config
    daemon.reload()
    daemon.write('{ "nothing": 1 }')
    assert daemon.ctl("reload").returncode == 1
    daemon.write(good)
    daemon.upgrade()
    history = said(daemon, "status")["status"]["reload"]["history"]
    assert [(r["cause"], r["successful"]) for r in history] == [
        ("upgrade", True), ("akashctl", False), ("akashctl", True), ("start", True)]
    assert "nothing: unknown key" in history[1]["error"] and "error" not in history[0]
    assert [r["number"] for r in history] == [4, 3, 2, 1]
    assert [r["time_ms"] for r in history] == sorted((r["time_ms"] for r in history), reverse=True)


def test_operator_goes_before_the_file_both_ways(launch, farm):
    backends = [{"address": farm.addresses[0], "state": "maint"}, {"address": farm.addresses[1]}]
    daemon = launch(http_config(free_port(), backends))
    assert set(tags(daemon, farm, 10)) == {"b1"}
    daemon.ctl("ready", f"site/{farm.addresses[0]}")
    assert set(tags(daemon, farm, 10)) == {"b0", "b1"}
    assert backend(daemon, farm.addresses[0])["operator"]["state"] == {"file": "maint", "operator": "ready"}
    daemon.ctl("maint", f"site/{farm.addresses[0]}")
    assert "operator" not in backend(daemon, farm.addresses[0])
    assert set(tags(daemon, farm, 10)) == {"b1"}


def test_all_drained_is_503(daemon, farm):
    for address in farm.addresses:
        assert daemon.ctl("drain", f"site/{address}").returncode == 0
    with Client(port_of(daemon)) as client:
        answer = client.ask()
        assert answer.status == 503 and "no_backend" in answer.text
    assert daemon.get("/readyz?upstream=site")[0] == 503


@pytest.mark.parametrize("command", [["drain", "site"], ["drain", "site/nobody:1"], ["ready", "other/x"],
                                     ["weight", "site/nobody:1", "3"], ["breaker", "open", "site/nobody:1"]])
def test_backend_that_does_not_exist_is_refused(daemon, command):
    done = daemon.ctl(*command)
    assert done.returncode == 1 and "there is no such backend" in done.stderr


# -- weights

def test_weight_is_exact_over_all_workers_and_survives_a_reload(daemon, farm):
    assert set(tags(daemon, farm, 30).values()) == {10}
    assert daemon.ctl("weight", f"site/{farm.addresses[2]}", "8").returncode == 0
    assert tags(daemon, farm, 100) == {"b0": 10, "b1": 10, "b2": 80}
    shown = backend(daemon, farm.addresses[2])
    assert shown["weight"] == 8 and shown["operator"] == {"weight": {"file": 1, "operator": 8}}
    daemon.reload()
    victim = daemon.workers()[0]
    victim.kill()
    until(lambda: 0 in (now := daemon.workers()) and now[0].pid != victim.pid, "a successor")
    assert tags(daemon, farm, 100) == {"b0": 10, "b1": 10, "b2": 80}
    assert daemon.ctl("weight", f"site/{farm.addresses[2]}", "1").returncode == 0
    assert set(tags(daemon, farm, 30).values()) == {10}
    assert "operator" not in backend(daemon, farm.addresses[2])


def test_weight_reads_no_file(daemon, farm):
    """A file that is wrong by now is nobody's business; nor does its verdict change."""
    daemon.file.write_text("{")
    assert daemon.ctl("weight", f"site/{farm.addresses[0]}", "4").returncode == 0
    assert tags(daemon, farm, 60) == {"b0": 40, "b1": 10, "b2": 10}
    assert daemon.metrics().value("akash_config_last_reload_successful") == 1
    assert daemon.ctl("reload").returncode == 1


def test_weights_under_load_lose_nothing(daemon, farm):
    with Load(port_of(daemon), keepalive=8, fresh=4, check=farm.check) as load:
        for step in range(20):
            assert daemon.ctl("weight", f"site/{farm.addresses[step % 3]}", str(1 + step * 7 % 50)).returncode == 0
        load.wait_total(load.account.total + 100)
    load.account.assert_all_ok(200)


@pytest.mark.parametrize("weight", ["0", "257", "-1", "1.5", "x", ""])
def test_weight_out_of_range_is_refused(daemon, farm, weight):
    assert daemon.ctl("weight", "--", f"site/{farm.addresses[0]}", weight).returncode == 1
    assert backend(daemon, farm.addresses[0])["weight"] == 1


# -- reload and diff

def test_reload_of_a_good_a_bad_and_an_unchanged_file(daemon, farm):
    good = http_config(port_of(daemon), farm.addresses[:2], workers=2)
    daemon.write(good)
    done = daemon.ctl("reload")
    assert done.returncode == 0
    assert f"- upstreams.site.backends[{farm.addresses[2]}]" in done.stdout
    daemon.write("{\n  7")
    done = daemon.ctl("reload", "--wait")
    assert done.returncode == 1 and "akashd.json:2:" in done.stderr
    daemon.write(good)
    done = daemon.ctl("reload")
    assert done.returncode == 0 and "nothing has changed" in done.stdout


CHANGES = {
    # name: (what is done to the configuration, {path: (from, to)} that the diff must tell, nothing else)
    "workers": (lambda c: c.update(workers=2), {"workers": (1, 2)}),
    "log level": (lambda c: c.update(log={"level": "debug"}), {"log.level": ("info", "debug")}),
    "drain_timeout": (lambda c: c.update(drain_timeout="9s"), {"drain_timeout": ("5s", "9s")}),
    "same duration otherwise": (lambda c: c.update(drain_timeout="5000ms"), {}),
    "max_connections": (lambda c: c.update(max_connections=77), {"max_connections": (100, 77)}),
    "listener added": (lambda c: c["listeners"].append({"name": "more", "address": "127.0.0.1:{free}", "mode": "http",
                                                        "upstream": "site"}), {"listeners[more]": (None, dict)}),
    "listener removed": (lambda c: c["listeners"].pop(), {"listeners[second]": (dict, None)}),
    "listener's mode": (lambda c: c["listeners"][1].update(mode="tcp"), {"listeners[second].mode": ("http", "tcp"), ...: ()}),
    "listener's address": (lambda c: c["listeners"][1].update(address="127.0.0.1:{free}"),
                           {"listeners[second].address": (None.__class__, None.__class__)}),
    "listener's timeout": (lambda c: c["listeners"][0].update(timeouts={"idle": "7s"}),
                           {"listeners[web].timeouts.idle": ("1m", "7s")}),
    "listener's limit": (lambda c: c["listeners"][0].update(limits={"header_count": 50}),
                         {"listeners[web].limits.header_count": (100, 50)}),
    "order of listeners": (lambda c: c["listeners"].reverse(),
                           {"listeners: order": (["web", "second"], ["second", "web"])}),
    "route added": (lambda c: c.update(routes=[{"host": "a.b", "path": "/x", "upstream": "other"}, *c["routes"]]),
                    {"routes[host=a.b path=/x]": (None, dict)}),
    "route removed": (lambda c: c.update(routes=[]), {"routes[path=/other]": (dict, None)}),
    "route's upstream": (lambda c: c["routes"][0].update(upstream="site"),
                         {"routes[path=/other].upstream": ("other", "site")}),
    "upstream added": (lambda c: c["upstreams"].update(third={"backends": [{"address": "127.0.0.1:9"}]}),
                       {"upstreams.third": (None, dict)}),
    "upstream removed": (lambda c: (c["upstreams"].pop("other"), c.update(routes=[])),
                         {"upstreams.other": (dict, None), "routes[path=/other]": (dict, None)}),
    "algorithm": (lambda c: c["upstreams"]["site"].update(algorithm="least_conn"),
                  {"upstreams.site.algorithm": ("round_robin", "least_conn")}),
    "backend added": (lambda c: c["upstreams"]["site"]["backends"].append({"address": "127.0.0.1:9"}),
                      {"upstreams.site.backends[127.0.0.1:9]": (None, dict)}),
    "backend removed": (lambda c: c["upstreams"]["site"]["backends"].pop(),
                        {"upstreams.site.backends[two]": (dict, None)}),
    "backend's address": (lambda c: c["upstreams"]["site"]["backends"][1].update(address="127.0.0.1:9"),
                          {"upstreams.site.backends[two].address": (str, "127.0.0.1:9")}),
    "backend's weight": (lambda c: c["upstreams"]["site"]["backends"][1].update(weight=5),
                         {"upstreams.site.backends[two].weight": (1, 5)}),
    "backend's state": (lambda c: c["upstreams"]["site"]["backends"][1].update(state="drain"),
                        {"upstreams.site.backends[two].state": ("ready", "drain")}),
    "health check": (lambda c: c["upstreams"]["site"].update(health_check={"type": "tcp", "interval": "3s"}),
                     {"upstreams.site.health_check": (False, dict)}),
    "keepalive": (lambda c: c["upstreams"]["site"].update(keepalive={"connections": 3}),
                  {"upstreams.site.keepalive.connections": (256, 3)}),
    "access log": (lambda c: c.update(access_log={"target": "stderr", "format": "json"}),
                   {"access_log": (False, dict)}),
    "pid file": (lambda c: c.update(pid_file="/nowhere/x.pid"), {"pid_file": (str, "/nowhere/x.pid")}),
    "nothing": (lambda c: None, {}),
}


def fits(value, wanted):
    if wanted is type(None):
        return True
    return isinstance(value, wanted) if isinstance(wanted, type) else value == wanted


@pytest.fixture(scope="module")
def diff_site(farm, tmp_path_factory):
    from harness import Akashd
    config = http_config(free_port(), [farm.addresses[0], {"id": "two", "address": farm.addresses[1]}],
                         routes=[{"path": "/other", "upstream": "other"}], max_connections=100)
    config["listeners"].append({"name": "second", "address": f"127.0.0.1:{free_port()}", "mode": "http",
                                "upstream": "site"})
    config["upstreams"]["other"] = {"backends": [{"address": farm.addresses[2]}], "health_check": False}
    made = Akashd(config)
    yield made
    made.stop()


@pytest.mark.parametrize("kind", CHANGES)
def test_diff_tells_the_truth(diff_site, tmp_path, kind):
    """What it tells is what a reload then reports to have changed."""
    change, wanted = CHANGES[kind]
    before = copy.deepcopy(diff_site.config)
    config = copy.deepcopy(before)
    change(config)
    text = json.dumps(diff_site.complete(config)).replace("{free}", str(free_port()))
    file = tmp_path / "next.json"
    file.write_text(text)
    diff = said(diff_site, "diff", str(file))["diff"]
    told = {c["what"]: (c.get("from"), c.get("to")) for c in diff["changes"]}
    expected = {path: pair for path, pair in wanted.items() if path is not ...}
    assert set(told) >= set(expected) if ... in wanted else set(told) == set(expected), told
    for path, (was, now) in expected.items():
        assert fits(told[path][0], was) and fits(told[path][1], now), told[path]
    assert all(c["touches"] for c in diff["changes"])
    diff_site.file.write_text(text)
    if kind == "pid file":
        assert diff["refused"] == "pid_file"
        assert diff_site.ctl("reload").returncode == 1
    else:
        assert "refused" not in diff
        assert said(diff_site, "diff")["diff"]["changes"] == diff["changes"]
        assert said(diff_site, "reload")["diff"]["changes"] == diff["changes"]
        assert said(diff_site, "diff")["diff"]["changes"] == []
    diff_site.write(before)
    diff_site.reload()


def test_diff_sees_new_contents_of_a_certificate(launch, farm, authority):
    cert, key = authority.issue("localhost", stem="diff")
    config = http_config(free_port(), farm.addresses, listener={"tls": {"certificates": [{"cert": cert, "key": key}]}})
    daemon = launch(config)
    assert said(daemon, "diff")["diff"]["changes"] == []
    authority.issue("localhost", stem="diff")
    changes = said(daemon, "diff")["diff"]["changes"]
    assert [c["what"] for c in changes] == ["listeners[web].tls: what it is made of"]


def test_diff_sees_new_contents_of_an_error_page(launch, farm, tmp_path):
    """Same path, other text: told by diff and by the reload, once for each status that the file is of."""
    tmp_path.chmod(0o755)
    changed, left = tmp_path / "502.html", tmp_path / "404.html"
    changed.write_text("<p>{status}")
    left.write_text("<p>lost")
    daemon = launch(http_config(free_port(), farm.addresses, listener={"error_pages": {
        "502": str(changed), "5xx": str(changed), "404": str(left), "4xx": {"body": "no"}}}))
    assert said(daemon, "diff")["diff"]["changes"] == []
    changed.write_text("<p>{reason}")
    left.write_text("<p>lost")
    changes = said(daemon, "diff")["diff"]["changes"]
    assert {c["what"] for c in changes} == {"listeners[web].error_pages.502: what is in its file",
                                            "listeners[web].error_pages.5xx: what is in its file"}
    assert len(changes) == 2 and all(c["touches"] for c in changes)
    done = daemon.ctl("reload")
    assert done.returncode == 0
    assert "error_pages.502" in done.stdout and "nothing has changed" not in done.stdout
    assert "nothing has changed" in daemon.ctl("reload").stdout
    assert said(daemon, "diff")["diff"]["changes"] == []


def test_diff_counts_whom_it_touches(launch, farm):
    echo = Echo()
    tcp = free_port()
    config = http_config(tcp, [echo.address], listener={"mode": "tcp"})
    daemon = launch(config)
    streams = Streams(tcp, 4)
    changed = copy.deepcopy(config)
    changed["upstreams"]["site"]["backends"] = [{"address": farm.addresses[0]}]
    daemon.write(changed)
    gone = next(c for c in said(daemon, "diff")["diff"]["changes"] if "to" not in c)
    assert gone["touches"].startswith("4 running exchanges")
    other = copy.deepcopy(config)
    other["listeners"][0]["name"] = "other"
    daemon.write(other)
    gone = next(c for c in said(daemon, "diff")["diff"]["changes"] if "to" not in c)
    assert gone["what"] == "listeners[web]" and gone["touches"].startswith("4 clients")
    streams.close()
    echo.close()


def test_diff_shows_the_operators_word(daemon, farm):
    daemon.ctl("drain", f"site/{farm.addresses[0]}")
    daemon.ctl("weight", f"site/{farm.addresses[1]}", "9")
    place = "upstreams.site.backends"
    assert said(daemon, "diff")["diff"]["operator"] == [
        {"what": f"{place}[{farm.addresses[0]}].state", "file": "ready", "operator": "drain"},
        {"what": f"{place}[{farm.addresses[1]}].weight", "file": 1, "operator": 9}]
    done = daemon.ctl("diff")
    assert "nothing would change" in done.stdout and "the file says 1, the operator 9" in done.stdout


def test_status_and_diff_show_the_operators_log_level(daemon):
    assert daemon.ctl("log", "level", "debug").returncode == 0
    assert said(daemon, "status")["status"]["operator"] == {"log_level": {"file": "info", "operator": "debug"}}
    assert said(daemon, "diff")["diff"]["operator"] == [{"what": "log.level", "file": "info", "operator": "debug"}]
    assert "log level debug by the operator; the file: info" in daemon.ctl("status").stdout
    assert daemon.ctl("log", "level", "info").returncode == 0, "which the file says"
    daemon.reload({**daemon.config, "log": {"level": "debug"}})
    assert "operator" not in said(daemon, "status")["status"], "it was revoked, and the file rules"


def test_weight_claims_no_verdict_on_the_file(daemon, farm):
    assert daemon.ctl("weight", f"site/{farm.addresses[0]}", "4").stdout == "weight: ok\n"


def test_everything_answers_in_json(daemon, farm, tmp_path):
    """Also what is refused, and a socket where nobody is."""
    place = f"site/{farm.addresses[0]}"
    for command in (["status"], ["reload", "--wait"], ["diff"], ["drain", place], ["maint", place], ["ready", place],
                    ["weight", place, "2"], ["breaker", "open", place], ["breaker", "auto", place],
                    ["log", "level", "file"], ["explain", f"http://x:{port_of(daemon)}/"], ["config"]):
        assert said(daemon, *command)["ok"] is True, command
    for command in (["drain", "site/nobody"], ["weight", place, "0"], ["breaker", "ajar", place],
                    ["log", "level", "loud"], ["explain", "nonsense"], ["diff", str(tmp_path / "none.json")]):
        told = said(daemon, *command, expect=1)
        assert told["ok"] is False and told["error"], command
    done = subprocess.run([binary("akashctl"), "-s", str(tmp_path / "none.sock"), "-j", "status"], capture_output=True, text=True)
    assert done.returncode == 2 and json.loads(done.stdout)["ok"] is False
    adopt_orphans()
    assert said(daemon, "upgrade")["ok"] is True
    daemon.upgraded()
    assert said(daemon, "stop")["ok"] is True


def test_diff_of_a_wrong_file_tells_its_errors(daemon, tmp_path):
    file = tmp_path / "wrong.json"
    file.write_text('{\n "nonsense": 1 }')
    done = daemon.ctl("diff", str(file))
    assert done.returncode == 1 and f"{file}:2:" in done.stderr
    done = daemon.ctl("diff", str(tmp_path / "none.json"))
    assert done.returncode == 1 and "none.json" in done.stderr


def test_diff_of_a_large_file(daemon, farm, tmp_path):
    backends = [{"id": f"b{i}", "address": f"127.0.0.1:{i + 1}"} for i in range(4000)]
    file = tmp_path / "large.json"
    file.write_text(json.dumps(daemon.complete(http_config(port_of(daemon), backends, workers=2))))
    assert len(said(daemon, "diff", str(file))["diff"]["changes"]) == 4003


# -- explain

@pytest.fixture(scope="module")
def explained(farm):
    from harness import Akashd
    ports = [free_port() for _ in range(2)]
    config = http_config(ports[0], farm.addresses[:2], {"algorithm": "ip_hash"}, routes=[
        {"host": "a.example", "path": "/api", "upstream": "api"}, {"path_exact": "/only", "upstream": "api"},
        {"query": {"version": "2"}, "upstream": "api"}])
    config["upstreams"]["api"] = {"backends": [{"address": farm.addresses[2]}], "health_check": False}
    config["listeners"].append({"name": "tcp", "address": f"127.0.0.1:{ports[1]}", "mode": "tcp", "upstream": "api"})
    made = Akashd(config)
    made.ports = ports
    yield made
    made.stop()


@pytest.mark.parametrize("url, options, expected", [
    ("http://a.example:{0}/api/x?q=1", [], {"listener": "web", "upstream": "api"}),
    ("http://b.example:{0}/api/x", [], {"listener": "web", "upstream": "site"}),
    ("http://b.example:{0}/api/x", ["--host", "a.example"], {"upstream": "api"}),
    ("http://b.example:{0}/%zz", [], {"reason": "bad_request"}),
    ("http://b.example:{0}/x/../only", [], {"upstream": "api"}),
    ("http://b.example:{0}", [], {"upstream": "site", "pool": "site"}),
    ("http://b.example:{0}/?version=2", [], {"upstream": "api"}),
    ("http://b.example:{0}?a&version=2#b", [], {"upstream": "api"}),
    ("http://b.example:{0}/#?version=2", [], {"upstream": "site"}),
    ("http://b.example:{0}/", ["--method", "TRACE"], {"reason": "method"}),
    ("http://b.example:{0}/", ["--method", "CONNECT"], {"reason": "method"}),
    ("tcp://127.0.0.1:{1}", [], {"listener": "tcp", "upstream": "api"}),
    ("http://127.0.0.1:1/", [], {"why": "no listener of this kind has this port"}),
    ("https://127.0.0.1:{0}/", [], {"why": "no listener of this kind has this port"}),
])
def test_explain(explained, url, options, expected):
    told = said(explained, "explain", url.format(*explained.ports), *options)["explain"]
    assert {key: told.get(key) for key in expected} == expected, told


def test_explain_names_the_backend_that_then_answers(explained, farm):
    url = f"http://x:{explained.ports[0]}/"
    told = said(explained, "explain", url, "--client", "127.0.0.1")["explain"]
    with Client(explained.ports[0]) as client:
        name = client.ask().text
    assert told["backend"] == farm.addresses[farm.names.index(name)]
    assert "backend" not in said(explained, "explain", url)["explain"]
    try:
        explained.ctl("drain", f"site/{told['backend']}")
        told = said(explained, "explain", url, "--client", "127.0.0.1")["explain"]
        assert told["backend"] != farm.addresses[farm.names.index(name)]
        assert [b["why"] for b in told["backends"] if not b["usable"]] == ["drain, says the operator"]
    finally:
        for address in farm.addresses[:2]:
            explained.ctl("ready", f"site/{address}")


def test_explain_of_the_next_turn_comes_true(daemon, farm):
    for _ in range(4):
        told = said(daemon, "explain", f"http://x:{port_of(daemon)}/")["explain"]
        with Client(port_of(daemon)) as client:
            assert client.ask().text == farm.names[farm.addresses.index(told["backend"])]


def test_explain_of_least_conn_names_who_is_idle_alone(launch, scripted):
    """A turn among the idle is not foretold."""
    busy, idle = scripted(stall()), scripted(stall())
    daemon = launch(http_config(free_port(), [busy, idle], {"algorithm": "least_conn"}))
    url = f"http://x:{port_of(daemon)}/"
    told = said(daemon, "explain", url)["explain"]
    assert "backend" not in told and "take turns" in told["why"]
    with Client(port_of(daemon)) as client:
        client.request("GET", "/")
        until(lambda: busy.requests or idle.requests, "the request")
        told = said(daemon, "explain", url)["explain"]
        assert told["backend"] == (idle if busy.requests else busy).address


@pytest.mark.parametrize("question, expected", [
    (["nonsense"], "http://"), (["http://a:b/"], "http://"), (["http://a:0/"], "http://"), (["http://a:65536/"], "http://"),
    (["http://user@a/"], "http://"), (["http://a/", "--client", "localhost"], "an IP address"),
    (["http://a/", "--method", "G T"], "a method"), (["http://a/", "--method", ""], "a method")])
def test_explain_of_nonsense_is_refused(daemon, question, expected):
    done = daemon.ctl("explain", *question)
    assert done.returncode == 1 and f"expected {expected}" in done.stderr


def test_explain_of_an_upstream_that_fails_open_comes_true(launch, farm):
    """All are down by their checks, and serve: but for the one that a person has taken out."""
    nobody = free_port()
    daemon = launch(http_config(free_port(), farm.addresses, {
        "fail_open": True, "health_check": {"type": "tcp", "port": nobody, "interval": "100ms", "fall": 1}}))
    until(lambda: all(backend(daemon, a)["health"] == "down" for a in farm.addresses), "all down")
    daemon.ctl("maint", f"site/{farm.addresses[0]}")
    for _ in range(4):
        told = said(daemon, "explain", f"http://x:{port_of(daemon)}/")["explain"]
        assert told["fail_open"] and "reason" not in told, told
        with Client(port_of(daemon)) as client:
            assert client.ask().text == farm.names[farm.addresses.index(told["backend"])]
    for address in farm.addresses:
        daemon.ctl("drain", f"site/{address}")
    assert said(daemon, "explain", f"http://x:{port_of(daemon)}/")["explain"]["reason"] == "no_backend"


# -- the rest

def test_status_is_a_table_with_rates(daemon, farm):
    with Load(port_of(daemon), keepalive=4, check=farm.check) as load:
        load.wait_total(10)
        done = daemon.ctl("status")
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines() if line.strip().startswith(tuple(farm.addresses))]
    assert len(rows) == 3
    for row in rows:
        assert row[1] == "off" and int(row[5]) > 0, row
        assert 0 < float(row[7]) <= float(row[8]) <= float(row[9])


def line_of(text, beginning):
    return next(line.split() for line in text.splitlines() if line.strip().startswith(beginning))


def test_status_and_top_show_listeners_and_upstreams_with_rates(launch, farm):
    backends = [*farm.addresses[:2], {"address": farm.addresses[2], "state": "maint"}]
    daemon = launch(http_config(free_port(), backends, workers=2))
    frames = []
    with Load(port_of(daemon), keepalive=4, fresh=2) as load:
        load.wait_total(10)
        before = load.account.total
        frames.append(daemon.ctl("status").stdout)
        frames += daemon.ctl("top", "2").stdout.split("akashd 0")[1:]
        most = load.account.total - before
    assert len(frames) == 3
    for frame in frames:
        row = line_of(frame, "web ")
        clients, fresh, requests, errors, refused = (int(n) for n in row[2:7])
        assert clients >= 4 and 0 < fresh < requests <= most and errors == refused == 0, row
        assert 0 < float(row[7]) <= float(row[8]) <= float(row[9]) and row[10].startswith("127.0.0.1:"), row
        sums = " ".join(line_of(frame, "UPSTREAM site:"))
        assert "round_robin, 2 of 3 usable, 0 waiting, " in sums, sums
        assert 0 < int(sums.split(" requests/s")[0].split()[-1]) <= most and ", 0 failures/s" in sums, sums
        heading = frame.splitlines()[0]
        assert int(heading.split(" bytes/s in")[0].split()[-1]) > 0, heading


def test_status_counts_what_limits_and_failures_take(launch, scripted):
    backend = scripted(fixed(b"no", status=500))
    daemon = launch(http_config(free_port(), [backend], listener={"limits": {"connections_per_client": 3}}))
    clients = [Client(port_of(daemon)) for _ in range(5)]
    over = threading.Event()

    def ask_on():
        while not over.is_set():
            assert clients[0].ask().status == 500
    asking = threading.Thread(target=ask_on)
    asking.start()
    try:
        row = line_of(daemon.ctl("status").stdout, "web ")
    finally:
        over.set()
        asking.join()
    assert int(row[5]) > 0 and row[6] == "2", row
    for client in clients:
        client.close()


def test_status_tells_why_a_backend_is_down(launch, farm):
    dead = f"127.0.0.1:{free_port()}"
    daemon = launch(http_config(free_port(), [dead], {"health_check": {"type": "tcp", "interval": "1s"}}))
    until(lambda: backend(daemon, dead)["health"] == "down", "down")
    line = next(line for line in daemon.ctl("status").stdout.splitlines() if dead in line)
    assert " down " in line and "refused" in line


def test_top_shows_frame_after_frame(daemon):
    done = daemon.ctl("top", "2")
    assert done.returncode == 0 and done.stdout.count("WORKER") == 2 and "\033" not in done.stdout
    assert len(daemon.ctl("-j", "top", "2").stdout.splitlines()) == 2


def test_config_is_what_the_check_prints(daemon):
    printed = subprocess.run([binary(), "-T", "-c", str(daemon.file)], capture_output=True, text=True)
    assert daemon.ctl("config").stdout == printed.stdout


def test_log_level_reaches_all_and_lasts_until_revoked(launch, scripted):
    daemon = launch(http_config(free_port(), [scripted(fixed(b"one"))], log={"level": "warn"}))
    before = len(daemon.log)
    assert daemon.ctl("log", "level", "info").returncode == 0
    daemon.reload()
    assert daemon.wait_log("reload: done", since=before)
    assert daemon.ctl("log", "level", "file").returncode == 0
    before = len(daemon.log)
    daemon.reload()
    assert not [line for line in daemon.log[before:] if " info " in line]
    assert daemon.ctl("log", "level", "loud").returncode == 1


@pytest.mark.parametrize("args", [[], ["nonsense"], ["drain"], ["weight", "site/a"], ["log", "info"], ["explain"], ["breaker", "open"],
                                  ["explain", "http://a/", "--color", "red"], ["reload", "--now"], ["status", "x"],
                                  ["top", "0"], ["diff", "a", "b"], ["stop", "now"]])
def test_wrong_usage_exits_1_and_says_how(daemon, args):
    done = daemon.ctl(*args)
    assert done.returncode == 1 and "usage:" in done.stderr
    assert daemon.process.poll() is None
