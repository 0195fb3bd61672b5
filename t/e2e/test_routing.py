# SPDX-License-Identifier: Apache-2.0
"""Which upstream, and which of its backends, a request goes to."""

import pytest

from harness import Client, FRONTS, ScriptedBackend, backend as answers, free_port
from harness.akashd import Akashd
from harness.client import build
from harness.wire import Ended

UPSTREAMS = ("exacthost", "wildcard", "deepwild", "v1", "v1users", "exactpath", "onlyb", "site", "rootexact")

ROUTES = [
    {"host": "*.example.test", "upstream": "wildcard"},
    {"path": "/v1", "upstream": "v1"},
    {"path": "/v1/users", "upstream": "v1users"},
    {"path_exact": "/v1/users/me", "upstream": "exactpath"},
    {"path_exact": "/only", "upstream": "rootexact"},
    {"host": "api.example.test", "upstream": "exacthost"},
    {"host": "*.deep.example.test", "upstream": "deepwild"},
    {"path": "/b", "listeners": ["second"], "upstream": "onlyb"},
    {"upstream": "site"},
]


class Town:
    """One daemon, two listeners, one backend for each upstream that answers with its name."""

    def __init__(self):
        self.first, self.second = free_port(), free_port()
        self.backends = {name: ScriptedBackend(answers.fixed(name.encode())) for name in UPSTREAMS}
        self.akashd = Akashd({
            "listeners": [{"name": "first", "address": f"127.0.0.1:{self.first}"},
                          {"name": "second", "address": f"127.0.0.1:{self.second}"}],
            "routes": ROUTES,
            "upstreams": {name: {"backends": [{"address": b.address}], "health_check": False}
                          for name, b in self.backends.items()},
        })

    def goes(self, host, target, second=False):
        """The name of the upstream that answered, or the status of an error."""
        with Client(self.second if second else self.first) as client:
            answer = client.ask(target=target, host=host)
            return answer.text if answer.status == 200 else answer.status

    def target_seen(self, target, **kw):
        before = {name: len(b.requests) for name, b in self.backends.items()}
        with Client(self.first) as client:
            answer = client.ask(target=target, **kw)
        if answer.status != 200:
            return answer.status
        return self.backends[answer.text].requests[before[answer.text]].target

    def close(self):
        try:
            self.akashd.stop()
        finally:
            for backend in self.backends.values():
                backend.close()


@pytest.fixture(scope="module")
def town():
    town = Town()
    yield town
    town.close()


@pytest.mark.parametrize("host, target, upstream", [
    ("other.test", "/", "site"),
    ("other.test", "/v1", "v1"),
    ("other.test", "/v1/", "v1"),
    ("other.test", "/v1/x", "v1"),
    ("other.test", "/v1?x", "v1"),
    ("other.test", "/v1x", "site"),
    ("other.test", "/v", "site"),
    ("other.test", "/V1", "site"),
    ("other.test", "/v1/users", "v1users"),
    ("other.test", "/v1/users/7", "v1users"),
    ("other.test", "/v1/usersx", "v1"),
    ("other.test", "/v1/users/me", "exactpath"),
    ("other.test", "/v1/users/me?x=1", "exactpath"),
    ("other.test", "/v1/users/me/", "v1users"),
    ("other.test", "/only", "rootexact"),
    ("other.test", "/only/", "site"),
    ("other.test", "/only/x", "site"),
    ("other.test", "/x/v1", "site"),
    ("other.test", "/?/v1", "site"),
    ("api.example.test", "/", "exacthost"),
    ("api.example.test", "/v1", "exacthost"),
    ("API.Example.TEST", "/", "exacthost"),
    ("api.example.test:8080", "/", "exacthost"),
    ("api.example.test.", "/", "exacthost"),
    ("api.example.test.:80", "/", "exacthost"),
    ("www.example.test", "/", "wildcard"),
    ("a.b.example.test", "/v1/users/me", "wildcard"),
    ("x.deep.example.test", "/", "deepwild"),
    ("example.test", "/", "site"),
    ("notexample.test", "/", "site"),
    ("api.example.test.evil.test", "/", "site"),
    ("127.0.0.1", "/", "site"),
    ("[::1]:80", "/", "site"),
])
def test_host_then_path_decide(town, host, target, upstream):
    assert town.goes(host, target) == upstream


def test_route_of_one_listener_is_unknown_to_the_other(town):
    assert town.goes("other.test", "/b/x", second=True) == "onlyb"
    assert town.goes("other.test", "/b/x") == "site"
    assert town.goes("other.test", "/v1", second=True) == "v1"


def test_authority_of_the_target_decides_not_the_host_field(town):
    assert town.goes("api.example.test", "http://www.example.test/v1") == "wildcard"
    assert town.goes("www.example.test", "http://other.test/v1/users") == "v1users"


@pytest.mark.parametrize("target, seen", [
    ("/v1/../x", "/x"),
    ("/x/../v1/y", "/v1/y"),
    ("/x/%2e%2e/v1/y", "/v1/y"),
    ("/x/%2E./v1/y", "/v1/y"),
    ("/x/.%2e/v1", "/v1"),
    ("/./v1/./users/.", "/v1/users/"),
    ("/v1/users/..", "/v1/"),
    ("/v1/..", "/"),
    ("/../../v1", "/v1"),
    ("/..", "/"),
    ("/.", "/"),
    ("/a/b/../../v1?q=/../x", "/v1?q=/../x"),
    ("/v1/...", "/v1/..."),
    ("/v1/.x/..y", "/v1/.x/..y"),
    ("/v1%2Fusers", "/v1%2Fusers"),
    ("/x/..%2Fv1", "/x/..%2Fv1"),
    ("/v1%5C..%5Cx", "/v1%5C..%5Cx"),
    ("/%761/x", "/%761/x"),
    ("//v1", "//v1"),
    ("/v1//../x", "/v1/x"),
    ("/%76%31/%75sers?q=%61", "/%76%31/%75sers?q=%61"),
    ("/v1/%7euser%2F%2561%20", "/v1/%7euser%2F%2561%20"),
    ("/x/%2e%2e/%76%31/y", "/v1/y"),
])
def test_dot_segments_are_resolved_before_matching_and_forwarding(town, target, seen):
    assert town.target_seen(target) == seen


@pytest.mark.parametrize("host, target, upstream", [
    ("other.test", "/v1/../only", "rootexact"),
    ("other.test", "/only/../v1/users/x/../me", "exactpath"),
    ("other.test", "/x/%2e%2e/v1/y", "v1"),
    ("other.test", "/v1/%2e%2e/y", "site"),
    ("other.test", "/%76%31/y", "v1"),
    ("other.test", "/%6fnly", "rootexact"),
    ("other.test", "/v1%2Fusers", "site"),
    ("other.test", "/x/..%2Fv1", "site"),
])
def test_the_resolved_path_is_what_is_matched(town, host, target, upstream):
    assert town.goes(host, target) == upstream


@pytest.mark.parametrize("target", ["/a%00b", "/%00", "/a#b", "/v1#/../x"])
def test_paths_that_hide_something_are_400(town, target):
    assert town.goes("other.test", target) == 400


def test_asterisk_form_goes_to_the_route_without_a_path(town):
    with Client(town.first) as client:
        assert client.ask("OPTIONS", "*", host="other.test").text == "site"


def test_requests_of_one_connection_are_routed_one_by_one(town):
    with Client(town.first) as client:
        wanted = ["v1", "site", "exactpath", "wildcard", "v1"]
        sent = [("o.test", "/v1"), ("o.test", "/"), ("o.test", "/v1/users/me"), ("w.example.test", "/"),
                ("o.test", "/v1/x")]
        client.send(b"".join(build("GET", target, host=host) for host, target in sent))
        assert [client.response("GET").text for _ in sent] == wanted


def test_request_of_a_1_0_client_without_host_goes_to_a_route_without_host(town):
    with Client(town.first) as client:
        assert client.ask(target="/v1", version="1.0", host=None).text == "v1"


def test_first_in_the_file_wins_among_equals(launch, scripted):
    one, two, port = scripted(answers.fixed(b"one")), scripted(answers.fixed(b"two")), free_port()
    launch({
        "listeners": [{"name": "web", "address": f"127.0.0.1:{port}"}],
        "routes": [{"path": "/x", "upstream": "one"}, {"path": "/x", "upstream": "two"}],
        "upstreams": {name: {"backends": [{"address": b.address}], "health_check": False}
                      for name, b in (("one", one), ("two", two))},
    })
    with Client(port) as client:
        assert {client.ask(target="/x").text for _ in range(4)} == {"one"}
        assert client.ask(target="/y").status == 404


def test_upstream_of_the_listener_is_the_last_route(launch, scripted):
    one, two, port = scripted(answers.fixed(b"one")), scripted(answers.fixed(b"two")), free_port()
    launch({
        "listeners": [{"name": "web", "address": f"127.0.0.1:{port}", "upstream": "two"}],
        "routes": [{"path": "/x", "upstream": "one"}],
        "upstreams": {name: {"backends": [{"address": b.address}], "health_check": False}
                      for name, b in (("one", one), ("two", two))},
    })
    with Client(port) as client:
        assert client.ask(target="/x").text == "one"
        assert client.ask(target="/y").text == "two"


def test_listener_with_several_addresses_serves_all(launch, scripted):
    backend, ports = scripted(), [free_port(), free_port()]
    akashd = launch({
        "listeners": [{"name": "web", "upstream": "site",
                       "address": [f"127.0.0.1:{ports[0]}", f"[::1]:{ports[1]}"]}],
        "upstreams": {"site": {"backends": [{"address": backend.address}], "health_check": False}},
    })
    for host, port in (("127.0.0.1", ports[0]), ("::1", ports[1])):
        with Client(port, host=host) as client:
            assert client.ask().status == 200
    peers = [r.fields.get("X-Forwarded-For") for r in backend.requests]
    assert peers == ["127.0.0.1", "::1"]
    akashd.wait_metric("akash_connections_total", lambda v: v == 2, listener="web")


def test_unix_sockets_on_both_sides(launch, scripted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unix")
    for place in (folder, *folder.parents[:3]):
        if "pytest" in str(place):
            place.chmod(0o755)
    backend = scripted(unix=str(folder / "backend.sock"))
    front = folder / "front.sock"
    launch({
        "listeners": [{"name": "web", "upstream": "site", "address": f"unix:{front}"}],
        "upstreams": {"site": {"backends": [{"address": backend.address}], "health_check": False}},
    })
    with Client(None, host=str(front)) as client:
        assert client.ask().status == 200
    assert len(backend.requests) == 1


# -- the short form: backends with paths


class Short:
    """The short form; backends answer with the name they were given."""

    def __init__(self, launch, scripted, paths, algorithm="round_robin", **top):
        self.port = free_port()
        self.backends = {name: scripted(answers.fixed(name.encode())) for name in paths}
        entries = []
        for name, spec in paths.items():
            weight, spec = spec if isinstance(spec, tuple) else (1, spec)
            entry = {"address": self.backends[name].address, "weight": weight}
            if spec is not None:
                entry["paths"] = spec
            entries.append(entry)
        self.akashd = launch({"host": "127.0.0.1", "listen": str(self.port), "algorithm": algorithm,
                              "Backends": entries, **top})

    def ask(self, target, count=1):
        with Client(self.port) as client:
            return [client.ask(target=target).text for _ in range(count)]


def test_longest_prefix_by_segments_picks_the_backends(launch, scripted):
    town = Short(launch, scripted, {"api": ["/api"], "users": ["/api/users", "/people"], "rest": None})
    for target, name in (("/api", "api"), ("/api/x", "api"), ("/apix", "rest"), ("/api/users", "users"),
                         ("/api/users/1", "users"), ("/api/usersx", "api"), ("/people/x", "users"),
                         ("/", "rest"), ("/x/../api", "api"), ("/api/../x", "rest")):
        assert town.ask(target) == [name], target


def test_backends_that_list_a_prefix_share_it_with_a_cursor_of_their_own(launch, scripted):
    town = Short(launch, scripted, {"a": ["/api"], "b": ["/api", "/static"], "c": ["/static"]})
    got = []
    with Client(town.port) as client:
        for _ in range(4):
            got.append((client.ask(target="/api").text, client.ask(target="/static").text))
    api, static = zip(*got)
    assert sorted(api[:2]) == ["a", "b"] and api[:2] == api[2:]
    assert sorted(static[:2]) == ["b", "c"] and static[:2] == static[2:]


def test_request_that_no_prefix_matches_goes_to_those_without(launch, scripted):
    town = Short(launch, scripted, {"a": ["/api"], "b": None, "c": None})
    assert sorted(town.ask("/other", 4)) == ["b", "b", "c", "c"]


def test_request_that_no_prefix_matches_goes_to_all_when_all_have_some(launch, scripted):
    town = Short(launch, scripted, {"a": ["/api"], "b": ["/static"]})
    assert sorted(town.ask("/other", 4)) == ["a", "a", "b", "b"]
    assert town.ask("/api", 2) == ["a", "a"]


def test_weights_hold_within_a_prefix(launch, scripted):
    town = Short(launch, scripted, {"a": (1, ["/api"]), "b": (3, ["/api"]), "c": (5, None)}, "w_round_robin")
    got = town.ask("/api", 40)
    assert (got.count("a"), got.count("b")) == (10, 30)


def test_counters_of_a_backend_add_up_over_its_prefixes(launch, scripted):
    town = Short(launch, scripted, {"a": ["/x", "/y"], "b": None})
    town.ask("/x", 3), town.ask("/y", 2), town.ask("/z", 4)
    for name, count in (("a", 5), ("b", 4)):
        town.akashd.wait_metric("akash_backend_served_total", lambda v, count=count: v == count,
                                backend=town.backends[name].address)


def test_short_form_over_tls(launch, scripted):
    FRONTS[1].listener()
    cert, key = FRONTS[1].pair
    town = Short(launch, scripted, {"a": ["/api"], "b": None}, tls_cert_file=cert, tls_key_file=key)
    client = FRONTS[1].connect(town.port)
    assert client.ask(target="/api").text == "a"
    assert client.ask(target="/").text == "b"
    client.close()
    plain = Client(town.port)
    plain.request()
    try:
        assert plain.response().status == 400
    except (Ended, ConnectionError):
        pass
    plain.close()
