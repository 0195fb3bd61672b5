# SPDX-License-Identifier: Apache-2.0
"""limits.connections_per_client: how many connections one address has at one time, exactly, over all workers."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from harness import PATIENCE, Client, Load, adopt_orphans, free_port, http_config, tcp_config, until
from harness.akashd import binary
from harness.backend import fixed, tcp_echo
from harness.fronts import FRONTS
from harness.proxyline import behind, v1

TLS = next(front for front in FRONTS if front.scheme == "https")
OTHER = "127.0.0.2"


@pytest.fixture
def limited(launch, scripted):
    """A daemon whose listener has this limit, before a backend that answers ok."""
    def start(limit, workers=4, listener=None, **top):
        port, backend = free_port(), scripted(fixed(b"ok"))
        akashd = launch(http_config(port, [backend], listener={"limits": {"connections_per_client": limit},
                                                               **(listener or {})}, workers=workers, **top))
        akashd.port, akashd.backend = port, backend
        return akashd
    return start


def change(akashd, **limits):
    """Reload with these limits."""
    akashd.reload({**akashd.config, "listeners": [{**akashd.config["listeners"][0], "limits": limits}]})


def connect(port, count, source=None):
    return [Client(port, source=source, record=False) for _ in range(count)]


def close_all(clients):
    for client in clients:
        client.close()


def split(clients):
    """Those that are in and have been answered, and the answers to those that are not."""
    inside, refused = [], []
    for client in clients:
        client.try_send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = client.response("GET")
        if answer.status == 200:
            inside.append(client)
        else:
            refused.append(answer)
            client.close()
    return inside, refused


def connections(akashd):
    return akashd.metrics().value("akash_listener_connections", listener="web")


def test_exact_over_four_workers_each_address_its_own(limited):
    akashd = limited(12)
    inside, refused = split(connect(akashd.port, 40))
    assert len(inside) == 12 and {a.status for a in refused} == {503}
    assert all(a.fields.get("Retry-After") == "1" and "over_limit" in a.text for a in refused)
    akashd.wait_metric("akash_clients_refused_total", lambda v: v == 28, listener="web")
    akashd.wait_metric("akash_failures_total", lambda v: v == 28, reason="over_limit")
    others, none = split(connect(akashd.port, 12, OTHER))
    assert len(others) == 12 and not none
    assert not split(connect(akashd.port, 3, OTHER))[0]
    akashd.wait_metric("akash_listener_connections", lambda v: v == 24, listener="web")
    for round_ in range(3):  # places are given back, no more and no fewer
        for client in inside[:5]:
            client.close()
        akashd.wait_metric("akash_listener_connections", lambda v: v == 19, listener="web")
        fresh, _ = split(connect(akashd.port, 20))
        assert len(fresh) == 5
        inside = inside[5:] + fresh
        akashd.wait_metric("akash_listener_connections", lambda v: v == 24, listener="web")
    close_all(inside + others)
    assert akashd.metrics().value("akash_clients_uncounted_total", listener="web") == 0


def test_a_crowd_of_addresses_is_not_refused(limited):
    akashd = limited(1, workers=2)
    clients = [Client(akashd.port, source=f"127.1.{i // 200}.{i % 200 + 1}", record=False) for i in range(600)]
    inside, refused = split(clients)
    assert len(inside) == 600 and not refused
    assert not split(connect(akashd.port, 1, "127.1.1.7"))[0]
    close_all(inside)


def closed_without_a_byte(port):
    try:
        with Client(port) as client:
            client.ended()
            return not client.received
    except ConnectionResetError:
        return True


def test_tcp_is_closed_without_a_word(launch, scripted):
    port, backend = free_port(), scripted(on_connect=tcp_echo)
    akashd = launch(tcp_config(port, [backend], workers=4, listener={"limits": {"connections_per_client": 5}}))
    tunnels = connect(port, 5)
    for tunnel in tunnels:
        tunnel.send(b"hi")
        assert tunnel.take(2) == b"hi"
    assert all(closed_without_a_byte(port) for _ in range(10))
    assert akashd.wait_log(r"listener web: 127.0.0.1: more than connections_per_client \(5\): refused")
    akashd.wait_metric("akash_failures_total", lambda v: v == 10, reason="over_limit")
    assert len(backend.connections) == 5
    with Client(port, source=OTHER) as other:
        other.send(b"room")
        assert other.take(4) == b"room"
    close_all(tunnels)


def test_tls_is_closed_without_a_handshake(limited):
    akashd = limited(2, listener=TLS.listener())
    busy = [TLS.connect(akashd.port) for _ in range(2)]
    assert [c.ask().status for c in busy] == [200, 200]
    assert all(closed_without_a_byte(akashd.port) for _ in range(4))
    akashd.wait_metric("akash_clients_refused_total", lambda v: v == 4, listener="web")
    metrics = akashd.metrics()
    assert metrics.value("akash_tls_handshakes_total") == 2
    assert not metrics.value("akash_failures_total", reason="handshake_failed")
    close_all(busy)


def test_a_failed_handshake_gives_its_place_back(limited):
    akashd = limited(1, listener=TLS.listener())
    for n in range(4):
        with Client(akashd.port) as client:
            client.send(b"no TLS at all\r\n\r\n")
            client.ended()
        akashd.wait_metric("akash_failures_total", lambda v, n=n: v == n + 1, reason="handshake_failed")
    with TLS.connect(akashd.port) as client:
        assert client.ask().status == 200


def test_who_has_too_many_costs_no_idle_client_its_connection(limited):
    akashd = limited(3, workers=1, max_connections=4)
    mine = connect(akashd.port, 3)
    other = connect(akashd.port, 1, OTHER)
    assert len(split(mine + other)[0]) == 4
    assert not split(connect(akashd.port, 8))[0]
    assert [c.ask().status for c in mine + other] == [200] * 4
    # One that is within its limit makes room as ever, and who is refused for want of it has kept no place.
    assert len(split(connect(akashd.port, 1, OTHER))[0]) == 1
    assert akashd.metrics().value("akash_clients_refused_total", listener="web") == 8
    close_all(mine + other)


def test_trusted_proxies_carry_many(limited):
    akashd = limited(2, listener={"trusted_proxies": [OTHER]})
    proxied, _ = split(connect(akashd.port, 20, OTHER))
    assert len(proxied) == 20
    assert len(split(connect(akashd.port, 20))[0]) == 2
    close_all(proxied)


def test_unix_sockets_have_no_address(limited, tmp_path):
    os.chmod(tmp_path, 0o755)
    path = f"/tmp/akashd-{os.getpid()}.sock"
    akashd = limited(1, workers=1, listener={"address": f"unix:{path}"})
    socks = []
    for _ in range(5):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.1 200"
        socks.append(sock)
    for sock in socks:
        sock.close()
    assert akashd.metrics().value("akash_clients_refused_total", listener="web") == 0


def test_refused_clients_that_linger_are_few(limited):
    akashd = limited(1, workers=1)
    busy = connect(akashd.port, 1)
    assert busy[0].ask().status == 200
    base = akashd.workers()[0].fds()
    crowd = connect(akashd.port, 200)
    akashd.wait_metric("akash_clients_refused_total", lambda v: v == 200, listener="web")
    assert akashd.workers()[0].fds() - base <= 64
    assert connections(akashd) == 1
    until(lambda: akashd.workers()[0].fds() <= base, "those that linger to be let go")
    close_all(crowd + busy)


def test_reloads_set_change_and_revoke_it(limited):
    akashd = limited(0)
    first = connect(akashd.port, 10)
    assert len(split(first)[0]) == 10
    change(akashd, connections_per_client=12)  # those that are there count
    second, _ = split(connect(akashd.port, 10))
    assert len(second) == 2
    change(akashd, connections_per_client=5)  # nobody is cut
    assert [c.ask().status for c in first + second] == [200] * 12
    close_all(first[:7])
    akashd.wait_metric("akash_listener_connections", lambda v: v == 5, listener="web")
    assert not split(connect(akashd.port, 3))[0]
    close_all(first[7:])
    akashd.wait_metric("akash_listener_connections", lambda v: v == 2, listener="web")
    third, _ = split(connect(akashd.port, 10))
    assert len(third) == 3
    change(akashd)
    fourth, _ = split(connect(akashd.port, 10))
    assert len(fourth) == 10
    change(akashd, connections_per_client=16)
    assert len(split(connect(akashd.port, 5))[0]) == 1
    close_all(second + third + fourth)


def tunnels_of(port, count):
    """Those of so many clients whose upgrade was not refused."""
    made = []
    for client in connect(port, count):
        client.try_send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        if client.response_head("GET").status == 101:
            made.append(client)
        else:
            client.close()
    return made


def test_it_holds_over_an_upgrade(limited):
    """Tunnels of the workers that retire live on, and count."""
    adopt_orphans()
    akashd = limited(4, workers=2)
    akashd.backend.always(switch)
    first = tunnels_of(akashd.port, 3)
    assert len(first) == 3
    akashd.upgrade()
    second = tunnels_of(akashd.port, 6)
    assert len(second) == 1
    close_all(first)
    akashd.wait_metric("akash_listener_connections", lambda v: v == 1, listener="web")
    third = tunnels_of(akashd.port, 6)
    assert len(third) == 3
    close_all(second + third)
    akashd.former[0].wait(PATIENCE)


def switch(x):
    x.body()
    x.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
    tcp_echo(x.connection)


# -- behind a proxy

PROXIED = {"accept_proxy": ["127.0.0.1"]}


def proxied(port, source, count):
    """Connections of a proxy for a client, each with its header and a request."""
    clients = connect(port, count)
    for client in clients:
        client.send(v1(source, "::1" if ":" in source else "198.51.100.1") if source else b"PROXY UNKNOWN\r\n")
    return clients


def test_behind_a_proxy_the_client_in_the_header_counts(limited):
    akashd = limited(3, listener=PROXIED)
    one, refused = split(proxied(akashd.port, "192.0.2.7", 8))
    assert len(one) == 3 and {a.status for a in refused} == {503}
    assert all(a.fields.get("Retry-After") == "1" for a in refused)
    two, _ = split(proxied(akashd.port, "192.0.2.8", 8))
    assert len(two) == 3
    six, _ = split(proxied(akashd.port, "2001:db8::7", 2) + proxied(akashd.port, "2001:db8::8", 2))
    assert len(six) == 3
    checks, _ = split(proxied(akashd.port, None, 6))  # the proxy speaks for itself
    assert len(checks) == 6
    assert len(split(connect(akashd.port, 5, OTHER))[0]) == 3  # without a header: it need not send one
    akashd.wait_metric("akash_clients_refused_total", lambda v: v == 13, listener="web")
    for client in one[:2]:
        client.close()
    akashd.wait_metric("akash_listener_connections", lambda v: v <= 16, listener="web")
    assert len(split(proxied(akashd.port, "192.0.2.7", 8))[0]) == 2
    close_all(one + two + six + checks)


def test_behind_a_proxy_who_waits_for_its_header_is_nobody_yet(limited):
    akashd = limited(2, listener=PROXIED)
    waiting = connect(akashd.port, 10)
    change(akashd, connections_per_client=3)
    for client in waiting:
        client.send(v1("192.0.2.7"))
    inside, _ = split(waiting)
    assert len(inside) == 3
    close_all(inside)


def test_behind_a_proxy_tls_is_closed_without_a_handshake(limited):
    akashd = limited(1, listener={**TLS.listener(), **PROXIED})
    with behind(TLS, akashd.port, v1("192.0.2.7")) as first:
        assert first.ask().status == 200
        for _ in range(3):
            client = Client(akashd.port)
            client.send(v1("192.0.2.7"))
            try:
                client.ended()
                assert not client.received
            except ConnectionResetError:
                pass
            client.close()
        akashd.wait_metric("akash_clients_refused_total", lambda v: v == 3, listener="web")
        with behind(TLS, akashd.port, v1("192.0.2.9")) as other:
            assert other.ask().status == 200
    assert not akashd.metrics().value("akash_failures_total", reason="handshake_failed")


def test_behind_a_proxy_those_that_linger_are_few(limited):
    akashd = limited(1, workers=1, listener=PROXIED)
    with proxied(akashd.port, "192.0.2.7", 1)[0] as first:
        assert first.ask().status == 200
        base = akashd.workers()[0].fds()
        crowd = proxied(akashd.port, "192.0.2.7", 150)
        akashd.wait_metric("akash_clients_refused_total", lambda v: v == 150, listener="web")
        assert akashd.workers()[0].fds() - base <= 64
        assert connections(akashd) == 1
        until(lambda: akashd.workers()[0].fds() <= base, "those that linger to be let go")
        close_all(crowd)


@pytest.mark.timeout(120)
def test_twenty_killed_workers_leave_the_count_right(limited):
    """Under load of connections that come and go, beside idle ones that die with their workers."""
    akashd = limited(40)
    load = Load(akashd.port, keepalive=8, fresh=16, pause=0.002)
    idle = []
    for turn in range(20):
        idle += connect(akashd.port, 1)
        load.wait_total(load.account.total + 30)
        victim = akashd.workers()[turn % 4]
        os.kill(victim.pid, signal.SIGKILL)
        until(lambda: (w := akashd.workers().get(turn % 4)) and w.pid != victim.pid, "a successor")
    load.stop()
    close_all(idle)
    akashd.wait_metric("akash_listener_connections", lambda v: v == 0, listener="web")
    inside, refused = split(connect(akashd.port, 60))
    assert len(inside) == 40 and len(refused) == 20
    close_all(inside)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace")
def test_a_network_of_ipv6_is_one_client(tmp_path):
    """In a namespace, for the addresses."""
    config = {"metrics": False, "control_socket": str(tmp_path / "s"), "workers": 2,
              "listeners": [{"name": "web", "address": ":8080", "limits": {"connections_per_client": 3}}],
              "routes": [{"respond": {"status": 200, "body": "ok"}}],
              "upstreams": {"site": {"backends": [{"address": "127.0.0.1:1"}], "health_check": False}}}
    (tmp_path / "a.json").write_text(json.dumps(config))
    addresses = [f"2001:db8:0:{net}::{host}" for net in (1, 2) for host in range(1, 7)]
    made = "; ".join(["ip link set lo up", *(f"ip -6 addr add {a}/128 dev lo nodad" for a in addresses)])
    inside = ["unshare", "-n", "sh", "-c", f"{made}; exec {sys.executable} -c \"$0\" \"$@\""]
    done = subprocess.run([*inside, SIX, binary(), str(tmp_path / "a.json"), *addresses], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    # Three of each network, whichever addresses they come from; IPv4, on the same socket, by itself.
    assert json.loads(done.stdout) == {"2001:db8:0:1": 3, "2001:db8:0:2": 3, "127.0.0.1": 3, "127.0.0.2": 3}


SIX = """
import collections, json, socket, subprocess, sys, time
daemon = subprocess.Popen([sys.argv[1], "-c", sys.argv[2]], stderr=sys.stderr)
served, held = collections.Counter(), []
def connect(source):
    to = ("::1", 8080) if ":" in source else ("127.0.0.1", 8080)
    end = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(to, 20, (source, 0))
        except ConnectionRefusedError:
            assert daemon.poll() is None and time.monotonic() < end
            time.sleep(0.02)
for source in [*sys.argv[3:], *["127.0.0.1"] * 5, *["127.0.0.2"] * 5]:
    sock = connect(source)
    held.append(sock)
    try:
        sock.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        served[source.partition("::")[0]] += b" 200 " in sock.recv(100)
    except ConnectionResetError:
        pass
daemon.terminate()
for sock in held:
    sock.close()
daemon.wait(20)
print(json.dumps(served))
"""


@pytest.mark.parametrize("is_patient", [True, False], ids=["stays", "leaves"])
def test_a_header_in_pieces_that_names_a_client_over_its_limit(launch, scripted, is_patient):
    """What was kept of the header until it was whole is not taken for the state of HTTP that refuses the client."""
    port, header = free_port(), b"PROXY TCP4 10.1.2.3 10.0.0.1 1 2\r\n"
    akashd = launch(http_config(port, [scripted()], workers=1, listener={
        "accept_proxy": ["127.0.0.0/8"], "limits": {"connections_per_client": 1}}))
    worker = akashd.workers()[0].pid

    def connect(piece):
        sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(piece)
        return sock
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with connect(header + request) as first:
        assert first.recv(65536).startswith(b"HTTP/1.1 200")
        for cut in (1, 10, len(header) - 1):
            with connect(header[:cut]) as second:
                for _ in range(2):  # the worker has met what came before by the time it answers
                    first.sendall(request)
                    assert first.recv(65536).startswith(b"HTTP/1.1 200")
                second.sendall(header[cut:])
                assert second.recv(65536).startswith(b"HTTP/1.1 503")
                while is_patient and second.recv(65536):
                    pass
        first.sendall(request)
        assert first.recv(65536).startswith(b"HTTP/1.1 200"), "the worker lives"
    until(lambda: akashd.metrics().value("akash_listener_connections") == 0, "no client to be left")
    assert akashd.workers()[0].pid == worker
