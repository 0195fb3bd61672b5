# SPDX-License-Identifier: Apache-2.0
"""Conditions and actions of routes, over every front."""

import threading
import time
from collections import Counter

import pytest

from harness import FRONTS, Client, ScriptedBackend, backend as answers, free_port
from harness.akashd import Akashd

HOME = "127.0.0.0/8"
UPSTREAMS = ("posts", "query", "header", "prefix", "suffix", "regex", "absent", "number", "site", "edited", "plain")
ROUTES = [
    {"path": "/m", "methods": ["POST", "PUT"], "upstream": "posts"},
    {"path": "/q", "query": {"kind": "a b", "page": {"regex": "^[0-9]+$"}}, "upstream": "query"},
    {"path": "/h", "headers": {"X-Kind": "one"}, "upstream": "header"},
    {"path": "/h", "headers": {"x-kind": {"prefix": "pre-"}}, "upstream": "prefix"},
    {"path": "/h", "headers": {"x-kind": {"suffix": "-suf"}}, "upstream": "suffix"},
    {"path": "/h", "headers": {"x-kind": {"regex": "^[a-c]{3}$"}}, "upstream": "regex"},
    {"path": "/h", "headers": {"x-kind": {"present": False}, "x-other": {"present": True}}, "upstream": "absent"},
    {"path_regex": "^/item/[0-9]+$", "upstream": "number"},
    {"host": "slow.test", "path_regex": "^(/|a+)+$", "upstream": "number"},
    {"path": "/old", "redirect": {"path": "/new"}},
    {"path": "/else", "redirect": {"scheme": "https", "host": "other.test:8443", "status": 308}},
    {"path": "/hello", "respond": {"status": 203, "body": "hello\n"},
     "response_headers": {"set": {"Content-Type": "text/x-hello"}, "add": {"X-Own": "yes"}}},
    {"path": "/empty", "respond": {"status": 204}},
    {"path": "/only", "allow": ["10.0.0.0/8"], "upstream": "plain"},
    {"path": "/not", "deny": ["127.0.0.1"], "respond": {"body": "no"}},
    {"path": "/both", "allow": [HOME], "deny": ["10.0.0.0/8"], "upstream": "plain"},
    {"path": "/edit", "upstream": "edited", "rewrite": {"path_prefix": "/app", "host": "inner.test:81"},
     "request_headers": {"set": {"X-Set": "new"}, "add": {"X-Add": "two"}, "remove": ["X-Gone"]},
     "response_headers": {"set": {"Server": "ours"}, "add": {"X-Back": "b"}, "remove": ["X-Secret"]}},
    {"path": "/root", "upstream": "plain", "rewrite": {"path_prefix": "/"}},
    {"path_exact": "/whole/it", "upstream": "plain", "rewrite": {"path_prefix": "/exact"}},
    {"upstream": "site"},
]
BACK = [("Server", "theirs"), ("X-Secret", "s"), ("X-Back", "a")]


class Town:
    def __init__(self, front):
        self.front, self.port = front, free_port()
        self.backends = {name: ScriptedBackend(answers.fixed(name.encode(), fields=BACK)) for name in UPSTREAMS}
        self.akashd = Akashd({
            "listeners": [{"name": "web", "address": f"127.0.0.1:{self.port}", "trusted_proxies": ["127.0.0.1"],
                           **front.listener()}],
            "access_log": "stderr",
            "routes": ROUTES,
            "upstreams": {name: {"backends": [{"address": b.address}], "health_check": False}
                          for name, b in self.backends.items()},
        })

    def ask(self, method="GET", target="/", fields=(), **kw):
        client = self.front.connect(self.port)
        try:
            return client.ask(method, target, fields, **kw)
        finally:
            client.close()

    def close(self):
        try:
            self.akashd.stop()
        finally:
            for backend in self.backends.values():
                backend.close()


@pytest.fixture(scope="module", params=FRONTS, ids=lambda f: f.name)
def town(request):
    town = Town(request.param)
    yield town
    town.close()


@pytest.mark.parametrize("method, target, fields, upstream", [
    ("POST", "/m", (), "posts"),
    ("PUT", "/m/x", (), "posts"),
    ("GET", "/m", (), "site"),
    ("GET", "/q?kind=a+b&page=12", (), "query"),
    ("GET", "/q?page=12&kind=%61%20b", (), "query"),
    ("GET", "/q?page=12&kind=x&kind=a+b", (), "query"),
    ("GET", "/q?page=1x&kind=a+b", (), "site"),
    ("GET", "/q?kind=a+b", (), "site"),
    ("GET", "/q", (), "site"),
    ("GET", "/h", (("X-Kind", "one"),), "header"),
    ("GET", "/h", (("X-Kind", "two"), ("x-kind", "one")), "header"),
    ("GET", "/h", (("X-Kind", "ONE"),), "site"),
    ("GET", "/h", (("X-Kind", "pre-x"),), "prefix"),
    ("GET", "/h", (("X-Kind", "x-suf"),), "suffix"),
    ("GET", "/h", (("X-Kind", "abc"),), "regex"),
    ("GET", "/h", (("X-Kind", "abcd"),), "site"),
    ("GET", "/h", (("X-Other", ""),), "absent"),
    ("GET", "/h", (), "site"),
    ("GET", "/item/12", (), "number"),
    ("GET", "/x/../item/12?y", (), "number"),
    ("GET", "/item/12x", (), "site"),
])
def test_conditions_decide(town, method, target, fields, upstream):
    answer = town.ask(method, target, fields)
    assert (answer.status, answer.text) == (200, upstream)


def test_pattern_that_takes_too_long_is_bounded_and_told(town):
    assert town.ask(target="/aaa", host="slow.test").text == "number"
    begin = time.monotonic()
    answer = town.ask(target="/" + "a" * 2000 + "b", host="slow.test")
    assert time.monotonic() - begin < 5
    assert answer.status == 500 and "internal" in answer.text
    town.akashd.wait_log(r'regular expression "\^\(/\|a\+\)\+\$" took too long')
    assert town.ask(target="/next").text == "site"


def test_redirect_keeps_what_it_does_not_change(town):
    answer = town.ask(target="/old/x?a=1", host="a.test:81")
    assert answer.status == 302 and answer.body == b""
    assert answer.fields.get("Location") == f"{town.front.scheme}://a.test:81/new?a=1"
    answer = town.ask(target="/else/x?a=1")
    assert answer.status == 308
    assert answer.fields.get("Location") == "https://other.test:8443/else/x?a=1"


def test_redirect_says_the_scheme_that_a_trusted_proxy_says(town):
    answer = town.ask(target="/old", host="a.test", fields=(("X-Forwarded-Proto", "https"),))
    assert answer.fields.get("Location") == "https://a.test/new"


def test_own_answers(town):
    answer = town.ask(target="/hello")
    assert (answer.status, answer.text) == (203, "hello\n")
    assert answer.fields.all("Content-Type") == ["text/x-hello"]
    assert answer.fields.get("X-Own") == "yes" and answer.fields.get("Date")
    answer = town.ask("HEAD", "/hello")
    assert answer.status == 203 and answer.body == b"" and answer.fields.get("Content-Length") == "6"
    answer = town.ask(target="/empty")
    assert answer.status == 204 and answer.fields.get("Content-Length") is None


def test_own_answers_follow_one_another_on_a_connection(town):
    client = town.front.connect(town.port)
    try:
        got = [client.ask(target=t).status for t in ("/hello", "/empty", "/old", "/x", "/hello")]
    finally:
        client.close()
    assert got == [203, 204, 302, 200, 203]


def test_upload_to_what_answers_itself_gets_its_answer(town):
    seen = {name: len(b.requests) for name, b in town.backends.items()}
    assert town.ask("POST", "/hello", body=b"x" * 40000).status == 203
    assert town.ask("POST", "/old", body=b"x" * 40000).status == 302
    assert {name: len(b.requests) for name, b in town.backends.items()} == seen


def test_own_answers_are_logged_without_a_reason(town):
    town.ask(target="/hello?logged")
    line = town.akashd.wait_log(r'"GET /hello\?logged ')
    before = town.akashd.metrics().value("akash_failures_total") or 0
    assert town.ask(target="/hello").status == 203
    assert (town.akashd.metrics().value("akash_failures_total") or 0) == before
    assert " 203 " in str(line)


@pytest.mark.parametrize("client, target, status", [
    ("127.0.0.1", "/only", 403), ("10.1.2.3", "/only", 200), ("127.0.0.1", "/not", 403), ("10.1.2.3", "/not", 200),
    ("127.0.0.9", "/both", 200), ("10.1.2.3", "/both", 403), ("192.0.2.1", "/both", 403),
])
def test_allow_and_deny(town, client, target, status):
    fields = () if client == "127.0.0.1" else (("X-Forwarded-For", client),)
    answer = town.ask(target=target, fields=fields)
    assert answer.status == status
    assert status != 403 or "denied" in answer.text


def test_edits_both_ways(town):
    fields = (("X-Set", "old"), ("x-set", "older"), ("X-Add", "one"), ("X-Gone", "g"))
    answer = town.ask(target="/edit/x?y=1", fields=fields, host="outer.test")
    seen = town.backends["edited"].requests[-1]
    assert seen.target == "/app/x?y=1"
    assert seen.fields.all("Host") == ["inner.test:81"]
    assert seen.fields.get("X-Forwarded-Host") == "outer.test"
    assert seen.fields.all("X-Set") == ["new"] and seen.fields.all("X-Add") == ["one", "two"]
    assert seen.fields.get("X-Gone") is None
    assert answer.fields.all("Server") == ["ours"] and answer.fields.all("X-Back") == ["a", "b"]
    assert answer.fields.get("X-Secret") is None
    town.akashd.wait_log(r'"GET /edit/x\?y=1 ')


@pytest.mark.parametrize("target, seen", [
    ("/root", "/"), ("/root/", "/"), ("/root/x/y?z", "/x/y?z"), ("/whole/it?q", "/exact?q"), ("/edit", None),
    ("/%72oot/%7ea%20?%61", "/~a%20?%61"),
])
def test_path_is_rewritten(town, target, seen):
    assert town.ask(target=target).status == 200
    name = "plain" if seen else "edited"
    assert town.backends[name].requests[-1].target == (seen or "/app")


def test_split_is_exact_over_workers(launch, scripted):
    backends = {name: scripted(answers.fixed(name.encode())) for name in ("a", "b", "c")}
    port, shares = free_port(), {"a": 7, "b": 2, "c": 1}
    config = {
        "listeners": [{"name": "web", "address": f"127.0.0.1:{port}"}],
        "workers": 4,
        "routes": [{"split": [{"upstream": n, "weight": w} for n, w in shares.items()]}],
        "upstreams": {n: {"backends": [{"address": b.address}], "health_check": False}
                      for n, b in backends.items()},
    }
    launch(config)
    got, lock = Counter(), threading.Lock()

    def ask():
        for _ in range(10):
            with Client(port) as client:
                name = client.ask().text
            with lock:
                got[name] += 1
    for round in (1, 2):
        threads = [threading.Thread(target=ask) for _ in range(10)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert got == {n: 10 * w * round for n, w in shares.items()}
