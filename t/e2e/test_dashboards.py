# SPDX-License-Identifier: Apache-2.0
"""scripts/dashboards: rules by promtool, and a prometheus that scrapes akashd and answers every query of them."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest
from harness import Akashd, Client, Load, ScriptedBackend, free_port, http_config, until
from harness.akashd import TOP
from harness.backend import fixed

FOLDER = TOP / "scripts" / "dashboards"
DASHBOARD = json.loads((FOLDER / "akashd.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

pytestmark = pytest.mark.paper


def promtool(*args):
    done = subprocess.run(["promtool", *args], capture_output=True, text=True, timeout=50, cwd=FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_and_scrape_file_are_valid():
    assert "SUCCESS" in promtool("check", "rules", "akashd.rules.yml")
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


def test_rules_do_what_their_tests_say():
    assert "SUCCESS" in promtool("test", "rules", "akashd.rules.test.yml")


def test_every_rule_is_tested():
    rules = (FOLDER / "akashd.rules.yml").read_text()
    tests = (FOLDER / "akashd.rules.test.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert len(alerts) >= 10
    assert not [name for name in alerts if name not in tests]


# -- the dashboard as a file

def test_panels_have_ids_and_do_not_overlap():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_panels_ask_the_chosen_data_source_about_chosen_machines():
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"] and panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert {"job", "instance"} <= used <= variables


# -- prometheus

class Prometheus:
    """A prometheus that scrapes one akashd twice a second and runs the rules."""

    def __init__(self, folder, target):
        self.port = free_port()
        shutil.copy(FOLDER / "akashd.rules.yml", folder)
        text = (FOLDER / "prometheus.yml").read_text()
        assert "127.0.0.1:9100" in text
        (folder / "prometheus.yml").write_text(
            "global: { scrape_interval: 500ms, evaluation_interval: 500ms }\n" + text.replace("127.0.0.1:9100", target))
        self.log = open(folder / "prometheus.log", "wb")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"], stdout=self.log, stderr=self.log)

    def get(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as why:
            if why.code == 503:
                raise  # it is starting
            raise AssertionError(f"{query}: {why.read().decode()}") from None

    def result(self, query):
        answer = self.get("query", query=query)
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def is_up(self):
        assert self.process.poll() is None, "prometheus exited"
        try:
            return bool(self.result("up == 1"))
        except OSError:
            return False

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """akashd with two backends, one of them dead, and the prometheus that scrapes it; one for all tests here."""
    backend, port = ScriptedBackend(), free_port()
    backend.always(fixed(b"ok"))
    daemon = Akashd(http_config(
        port, [{"address": backend.address, "id": "good"}, {"address": "127.0.0.1:1", "id": "dead"}],
        upstream={"health_check": {"interval": "200ms", "fall": 1}, "circuit_breaker": {}},
        listener={"rate_limit": {"name": "flood", "rate": "1000000/s"}}))
    with contextlib.ExitStack() as ends:
        ends.callback(backend.close)
        ends.callback(daemon.stop)
        prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{daemon.metrics_port}")
        ends.callback(prometheus.close)
        until(prometheus.is_up, "the first scrape", 20)
        yield daemon, prometheus, port


def filled_in(expr):
    """As Grafana would send it, everything chosen, a short window."""
    return re.sub(r"\$(job|instance|listener|upstream)\b", ".*", expr).replace("$__rate_interval", "5s")


def queries():
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for note in DASHBOARD["annotations"]["list"]:
        yield note["name"], note["expr"]


def test_every_metric_that_is_asked_for_exists(scraped):
    daemon, _, _ = scraped
    there = set(re.findall(r"^# TYPE (\w+)", daemon.get("/metrics")[1], re.M))
    rules = re.findall(r"expr: ((?:.|\n      )*)", (FOLDER / "akashd.rules.yml").read_text())
    for expr in [*rules, *(expr for _, expr in queries())]:
        for name in re.findall(r"(?<![:\w])((?:akash|process)_\w+)(?!:)", re.sub(r"\w+:\w+:\w+", "", expr)):
            assert re.sub(r"_bucket$", "", name) in there, f"{name} in {expr}"


def is_hidden(expr):
    """Answers that are rightly empty: the monitor of a root master may not count the descriptors of others, and
    nobody speaks gRPC here."""
    return os.geteuid() == 0 and re.match(r"process_(open|max)_fds\b", expr) or "akash_grpc_requests_total" in expr


def test_every_query_is_understood(scraped):
    _, prometheus, _ = scraped
    for _, expr in queries():
        prometheus.result(filled_in(expr))


def test_every_panel_shows_something(scraped):
    daemon, prometheus, port = scraped
    with Load(port, keepalive=2, fresh=1, pause=0.01):
        daemon.reload()
        left = {filled_in(expr): title for title, expr in queries() if not is_hidden(expr)}
        assert len(left) > 30

        def all_answered():
            with Client(port) as client:  # one failure more, so that there is a rate of them
                client.send(b"GET nonsense\r\n\r\n", method="GET")
                assert client.response().status == 400
            for query in list(left):
                if prometheus.result(query):
                    del left[query]
            return not left
        try:
            until(all_answered, "every query to answer", 25, 0.3)
        except AssertionError:
            raise AssertionError(f"no data: {left}") from None


def test_template_variables_find_their_values(scraped):
    _, prometheus, _ = scraped
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.match(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
            found = prometheus.result(f"count by ({label}) ({filled_in(series)})")
            assert found and all(row["metric"].get(label) for row in found), variable["name"]


def test_rules_run_and_an_alert_is_pending(scraped):
    _, prometheus, _ = scraped

    def alerts():
        groups = prometheus.get("rules")["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert not [rule for rule in rules if rule["health"] == "err"], rules
        if any(rule["health"] != "ok" for rule in rules):
            return None
        return {alert["labels"]["alertname"]: alert for alert in prometheus.get("alerts")["data"]["alerts"]}
    found = until(lambda: (lambda a: a and "AkashdBackendDown" in a and a)(alerts()), "the alert", 20, 0.2)
    assert found["AkashdBackendDown"]["labels"]["backend"] == "dead"
    assert found["AkashdBackendDown"]["state"] == "pending"
    assert "AkashdUpstreamDown" not in found and "AkashdDown" not in found
