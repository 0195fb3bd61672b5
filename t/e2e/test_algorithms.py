# SPDX-License-Identifier: Apache-2.0
"""Where a key goes and stays, who is spared for being slow, new or only a backup."""

import re
import socket
import statistics
import threading
import time
from collections import Counter

import pytest

from harness import PATIENCE, Client, free_port, http_config, until
from harness.backend import fixed
from harness.traffic import Farm

QUICK_CHECK = {"type": "tcp", "interval": "100ms", "timeout": "500ms", "rise": 1, "fall": 1}


@pytest.fixture(scope="module")
def farm():
    made = Farm(10)
    yield made
    made.close()


def homes(port, keys, form="GET /{} HTTP/1.1\r\nHost: h\r\n\r\n"):
    """Which backend answers for each key, asked over one connection."""
    found = []
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        for first in range(0, len(keys), 50):
            batch = keys[first:first + 50]
            sock.sendall("".join(form.format(key) for key in batch).encode())
            text, want = b"", len(found) + len(batch)
            while len(found) < want:
                data = sock.recv(65536)
                assert data, "the connection ended"
                text += data
                if text.count(b"\r\n\r\nb") == len(batch) and re.search(rb"\r\n\r\nb\d\Z", text):
                    found += [name.decode() for name in re.findall(rb"\r\n\r\n(b\d)", text)]
    return found


# -- hash


def hashed(port, addresses, key="path", **top):
    return http_config(port, addresses, {"algorithm": "hash", "hash_key": key}, **top)


def test_two_daemons_choose_alike_and_one_that_leaves_moves_hardly_more_than_its_own(launch, farm):
    ports, keys = [free_port(), free_port()], [str(n) for n in range(10000)]
    one = launch(hashed(ports[0], farm.addresses, workers=4))
    launch(hashed(ports[1], farm.addresses[5:] + farm.addresses[:5]))  # in another order
    before = homes(ports[0], keys)
    assert homes(ports[1], keys) == before
    shares = Counter(before)
    assert len(shares) == 10 and max(shares.values()) < 1200 and min(shares.values()) > 800, shares
    one.reload(hashed(ports[0], farm.addresses[:3] + farm.addresses[4:], workers=4))
    after = homes(ports[0], keys)
    moved = sum(a != b for a, b in zip(before, after))
    assert shares["b3"] <= moved <= 1200, f"{moved} of 10,000 keys moved, {shares['b3']} had to"


@pytest.mark.parametrize("key, form", [
    ("uri", "GET /same?{} HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("path", "GET /{}?other HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("header:X-User", "GET / HTTP/1.1\r\nHost: h\r\nx-user: {}\r\n\r\n"),
    ("cookie:session", "GET / HTTP/1.1\r\nHost: h\r\nCookie: a=b; session={}\r\n\r\n"),
    ("query:id", "GET /?x=1&id={}&y=2 HTTP/1.1\r\nHost: h\r\n\r\n"),
])
def test_each_kind_of_key_decides(launch, farm, key, form):
    port = free_port()
    launch(hashed(port, farm.addresses, key))
    keys = [f"k{n}" for n in range(200)]
    found = homes(port, keys, form)
    assert len(set(found)) == 10, Counter(found)
    assert homes(port, keys, form) == found


def test_a_field_that_is_not_forwarded_decides_nothing(launch, farm):
    port = free_port()
    launch(hashed(port, farm.addresses, "header:X-Real-IP"))
    form = "GET / HTTP/1.1\r\nHost: h\r\nX-Real-IP: {}\r\n\r\n"
    assert len(set(homes(port, [f"h{n}" for n in range(50)], form))) == 1


def test_without_the_key_the_client_decides(launch, farm):
    port = free_port()
    launch(hashed(port, farm.addresses, "cookie:session"))
    assert len(set(homes(port, [str(n) for n in range(50)]))) == 1


def test_keys_of_one_that_is_down_go_to_the_others_and_come_back(launch, scripted):
    backends = [scripted(fixed(f"b{n}".encode())) for n in range(4)]
    port, keys = free_port(), [str(n) for n in range(300)]
    config = hashed(port, backends)
    config["upstreams"]["site"]["health_check"] = QUICK_CHECK
    akashd = launch(config)
    before = homes(port, keys)
    backends[1].refuse()
    akashd.wait_metric("akash_backend_up", lambda v: v == 0, backend=backends[1].address)
    during = homes(port, keys)
    assert all(b == d for b, d in zip(before, during) if b != "b1")
    assert {d for b, d in zip(before, during) if b == "b1"} == {"b0", "b2", "b3"}
    backends[1].accept_again()
    akashd.wait_metric("akash_backend_up", lambda v: v == 1, backend=backends[1].address)
    assert homes(port, keys) == before


# -- random_two, ewma


def delayed(seconds, body):
    def answer(x):
        x.body()
        time.sleep(seconds)  # this backend's work
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    return answer


def ask_beside_each_other(port, clients, rounds, target="/"):
    """How long each request took, and who answered."""
    taken, names, lock = [], Counter(), threading.Lock()

    def run():
        with Client(port, record=False) as client:
            for _ in range(rounds):
                began = time.monotonic()
                name = client.ask(target=target).text
                with lock:
                    taken.append(time.monotonic() - began)
                    names[name] += 1
    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 3)
    return taken, names


@pytest.mark.parametrize("algorithm, most", [("ewma", 0.02), ("random_two", 0.06)])
def test_a_backend_that_is_twenty_times_slower_gets_little(launch, scripted, algorithm, most):
    backends = [scripted(delayed(0.2 if n == 0 else 0.01, b"b%d" % n)) for n in range(10)]
    port = free_port()
    launch(http_config(port, backends, {"algorithm": algorithm}, workers=4))
    ask_beside_each_other(port, 20, 5)  # what is slow is learnt
    taken, names = ask_beside_each_other(port, 20, 40)
    assert len(taken) == 800
    assert names["b0"] <= most * 800, names
    assert len(names) >= 9
    if algorithm == "ewma":
        assert statistics.quantiles(taken, n=100)[95] < 0.2, "p96"


def test_ewma_tries_a_backend_again_that_was_slow(launch, scripted):
    slow, quick = scripted(delayed(0.05, b"slow")), scripted(delayed(0.01, b"quick"))
    port = free_port()
    launch(http_config(port, [slow, quick], {"algorithm": "ewma"}))
    ask_beside_each_other(port, 4, 10)
    slow.always(fixed(b"slow"))  # it has recovered; nobody tells

    def is_back():
        _, names = ask_beside_each_other(port, 4, 5)
        return names["slow"] >= 5
    until(is_back, "the recovered backend to get its share", deadline=40)


# -- backups, slow start


def test_a_backup_serves_only_while_all_others_are_down(launch, scripted):
    first, second, backup = [scripted(fixed(name)) for name in (b"first", b"second", b"backup")]
    port = free_port()
    akashd = launch(http_config(
        port, [first.address, second.address, {"address": backup.address, "backup": True}],
        {"health_check": QUICK_CHECK}, workers=2))
    backup_serves = lambda: ask_beside_each_other(port, 4, 5)[1]["backup"]  # noqa: E731
    assert backup_serves() == 0
    first.refuse()
    akashd.wait_metric("akash_backend_up", lambda v: v == 0, backend=first.address)
    assert backup_serves() == 0
    second.refuse()
    akashd.wait_metric("akash_backend_up", lambda v: v == 0, backend=second.address)
    assert backup_serves() == 20
    first.accept_again()
    akashd.wait_metric("akash_backend_up", lambda v: v == 1, backend=first.address)
    assert backup_serves() == 0


def test_a_failed_connect_may_fall_back_to_a_backup(launch, scripted):
    dead, backup = scripted(), scripted(fixed(b"backup"))
    dead.refuse()
    port = free_port()
    launch(http_config(port, [dead.address, {"address": backup.address, "backup": True}]))
    with Client(port) as client:
        assert client.ask("POST", body=b"once").text == "backup"


RAMPED = ["round_robin", "least_conn", "random_two"]


def ramped_config(port, backends, slow_start):
    """An upstream for each algorithm that knows of slow_start, all with the same backends."""
    upstreams = {name: {"backends": [{"address": b.address} for b in backends], "algorithm": name,
                        "slow_start": slow_start, "health_check": QUICK_CHECK} for name in RAMPED}
    return {"listeners": [{"name": "web", "address": f"127.0.0.1:{port}"}], "upstreams": upstreams,
            "routes": [{"path": f"/{name}", "upstream": name} for name in RAMPED], "workers": 2}


def share_of_new(port, algorithm):
    _, names = ask_beside_each_other(port, 8, 30, f"/{algorithm}")
    return names["new"] / sum(names.values())


def wait_health(akashd, backend, up):
    """As the upstreams of ramped_config see it."""
    akashd.wait_metric("akash_backend_up", lambda v: v == (len(RAMPED) if up else 0),
                       backend=backend.address)


def test_a_backend_that_comes_back_is_given_a_growing_share(launch, scripted):
    """In 8 s from 0.1/1.1 of the requests to a half; 0.4 of them after 5.3 s."""
    old, new = scripted(delayed(0.002, b"old")), scripted(delayed(0.002, b"new"))
    port = free_port()
    akashd = launch(ramped_config(port, [old, new], "8s"))
    for name in RAMPED:
        akashd.wait_log(f"backend {name}/{old.address} unknown -> up")
    new.refuse()
    wait_health(akashd, new, up=False)
    new.accept_again()
    wait_health(akashd, new, up=True)
    first = {name: share_of_new(port, name) for name in RAMPED}
    assert all(0 < share < 0.4 for share in first.values()), first
    for name in RAMPED:
        until(lambda: share_of_new(port, name) > 0.4, f"the whole share of {name}")


def test_a_backend_that_was_never_down_has_its_whole_share(launch, scripted):
    """Nothing grows when akashd starts, nor when a backend is added."""
    old, new = scripted(delayed(0.002, b"old")), scripted(delayed(0.002, b"new"))
    port = free_port()
    akashd = launch(ramped_config(port, [old], "3s"))
    for name in RAMPED:
        akashd.wait_log(f"backend {name}/{old.address} unknown -> up")
    seen_up = time.monotonic()
    until(lambda: time.monotonic() - seen_up > 3, "nothing of what is old grows any more")
    akashd.reload(ramped_config(port, [old, new], "3s"))
    for name in RAMPED:
        akashd.wait_log(f"backend {name}/{new.address} unknown -> up")
    shares = {name: share_of_new(port, name) for name in RAMPED}
    assert all(share > 0.3 for share in shares.values()), shares

def say(akashd, word, backend):
    for name in RAMPED:
        assert akashd.ctl(word, f"{name}/{backend.address}").returncode == 0


@pytest.mark.parametrize("check", [QUICK_CHECK, False], ids=["checked", "unchecked"])
def test_a_backend_that_comes_back_from_maintenance_grows_and_one_that_was_drained_does_not(launch, scripted, check):
    old, new = scripted(delayed(0.002, b"old")), scripted(delayed(0.002, b"new"))
    port = free_port()
    config = ramped_config(port, [old, new], "60s")
    for name in RAMPED:
        config["upstreams"][name]["health_check"] = check
    akashd = launch(config)
    say(akashd, "drain", new)
    say(akashd, "ready", new)
    assert all(share_of_new(port, name) > 0.3 for name in RAMPED)
    say(akashd, "maint", new)
    assert all(share_of_new(port, name) == 0 for name in RAMPED)
    say(akashd, "drain", new)
    say(akashd, "ready", new)
    shares = {name: share_of_new(port, name) for name in RAMPED}
    assert all(share < 0.3 for share in shares.values()), shares


def test_a_backend_whose_maintenance_ends_by_a_reload_grows(launch, scripted):
    old, new = scripted(delayed(0.002, b"old")), scripted(delayed(0.002, b"new"))
    port = free_port()
    config = ramped_config(port, [old, new], "60s")
    for name in RAMPED:
        config["upstreams"][name]["backends"][1]["state"] = "maint"
    akashd = launch(config)
    akashd.reload(ramped_config(port, [old, new], "60s"))
    shares = {name: share_of_new(port, name) for name in RAMPED}
    assert all(share < 0.3 for share in shares.values()), shares
