# SPDX-License-Identifier: Apache-2.0
"""WebSockets with a real client and a real server, and tunnels that live through reloads."""

import asyncio
import http
import os
import resource
import socket
import ssl
import threading

import pytest
import websockets

from harness import FRONTS, PATIENCE, Echo, Farm, Streams, free_port, http_config, until
from harness.fronts import FRONTS_OF_2, TlsFront
from harness.traffic import wait_serving
from harness.tunnels import ask, echo_frame

HTTP1 = [front for front in FRONTS if front.name in ("http", "https")]
RELOADS = int(os.environ.get("AKASHD_TUNNEL_RELOADS", "150"))


class Sockets:
    """A WebSocket server that echoes, and clients, on one event loop in a thread of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.codes, self.opened = [], 0
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.server = self.run(self._serve())
        self.port = self.server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.open = []
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE

    async def _serve(self):
        return await websockets.serve(self._echo, "127.0.0.1", 0, max_size=None, ping_interval=None,
                                      process_request=self._answer_plain, backlog=2048)

    async def _connect(self, uri, **kw):
        return await websockets.connect(uri, max_size=None, ping_interval=None, compression=None, **kw)

    async def _answer_plain(self, path, headers):
        """A request that is no WebSocket gets an ordinary answer."""
        if headers.get("Upgrade", "").lower() != "websocket":
            return http.HTTPStatus.OK, [], b"plain"
        return None

    async def _echo(self, ws, *_):
        self.opened += 1
        try:
            async for message in ws:
                await ws.send(message)
        except websockets.ConnectionClosed:
            pass
        finally:
            self.codes.append((ws.close_code, ws.close_reason))

    def run(self, awaitable, deadline=60):
        async def wait():
            return await awaitable
        return asyncio.run_coroutine_threadsafe(wait(), self.loop).result(deadline)

    def connect(self, port, scheme="http", path="/", **kw):
        """A WebSocket through akashd; its methods are awaited with run()."""
        more = {"ssl": self.context, "server_hostname": "localhost"} if scheme == "https" else {}
        uri = f"{'wss' if more else 'ws'}://127.0.0.1:{port}{path}"
        ws = self.run(self._connect(uri, **more, **kw))
        self.open.append(ws)
        return ws

    def connect_many(self, port, count, scheme="http"):
        for _ in range(count):
            self.connect(port, scheme)

    async def _check(self, ws, text):
        await ws.send(text)
        got = await asyncio.wait_for(ws.recv(), PATIENCE * 3)
        assert got == text, f"{got!r} instead of {text!r}"

    def check(self, word):
        """Every open one gets its own message back."""
        async def check_all():
            await asyncio.gather(*[self._check(ws, f"{n} {word}") for n, ws in enumerate(self.open)])
        self.run(check_all())

    def close(self):
        async def close_all():
            await asyncio.gather(*[ws.close() for ws in self.open], return_exceptions=True)
            self.server.close()
            await self.server.wait_closed()
        self.run(close_all())
        self.loop.call_soon_threadsafe(self.loop.stop)


@pytest.fixture
def sockets(launch):
    """They end before the daemon does, which would wait for them."""
    made = Sockets()
    yield made
    made.close()


@pytest.fixture(scope="module")
def farm():
    made = Farm(3)
    yield made
    made.close()


@pytest.fixture(params=HTTP1, ids=lambda f: f.name)
def front(request):
    return request.param


@pytest.fixture
def ws(launch, sockets, front):
    """One WebSocket through a daemon with that front."""
    port = free_port()
    launch(http_config(port, [sockets.address], listener=front.listener()))
    return sockets.connect(port, front.scheme)


# -- what RFC 6455 has, end to end


def test_messages_of_every_size_come_back(sockets, ws):
    for size in (0, 1, 125, 126, 65535, 65536, 1 << 20, 5 << 20):
        message = os.urandom(size)
        sockets.run(ws.send(message))
        assert sockets.run(ws.recv()) == message
    sockets.run(ws.send("héllo ☃"))
    assert sockets.run(ws.recv()) == "héllo ☃"


def test_fragments_and_pings_pass(sockets, ws):
    async def pieces():
        for word in ("a" * 1000, "b" * 70000, "c"):
            yield word
            await (await ws.ping(b"between"))
    sockets.run(ws.send(pieces()))
    assert sockets.run(ws.recv()) == "a" * 1000 + "b" * 70000 + "c"


def test_close_code_and_reason_reach_the_server(sockets, ws):
    sockets.run(ws.close(4001, "enough"))
    assert (ws.close_code, ws.close_reason) == (4001, "enough")
    until(lambda: sockets.codes == [(4001, "enough")], "the close code")
    sockets.open.clear()


def test_many_at_once_each_get_their_own(launch, sockets, front):
    port = free_port()
    akashd = launch(http_config(port, [sockets.address], listener=front.listener(), workers=2))
    sockets.connect_many(port, 40, front.scheme)
    for n in range(5):
        sockets.check(f"round {n}")
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 40)


def test_plain_requests_pass_beside_it(launch, sockets, front):
    port = free_port()
    launch(http_config(port, [sockets.address], listener=front.listener()))
    sockets.connect(port, front.scheme)
    with front.connect(port) as client:
        assert client.ask().body == b"plain"
    sockets.check("after")


# -- reloads


class Plan:
    """Configurations that differ in backends, weights, routes and certificates, and keep the tunnels' own."""

    def __init__(self, sockets, echo, farm):
        self.sockets, self.echo, self.farm = sockets, echo, farm
        self.web, self.webs, self.tcp = free_port(), free_port(), free_port()
        TlsFront().listener()
        self.pairs = [TlsFront.authority.issue("localhost", stem=f"tunnel-{i}") for i in range(2)]

    def at(self, step):
        cert, key = self.pairs[step % 2]
        others = [{"address": a, "weight": 1 + (step + i) % 7} for i, a in enumerate(self.farm.addresses)
                  if (step + i) % 3]
        return {
            "workers": 2,
            "listeners": [
                {"name": "web", "address": f"127.0.0.1:{self.web}", "mode": "http", "upstream": "site"},
                {"name": "webs", "address": f"127.0.0.1:{self.webs}", "mode": "http", "upstream": "site",
                 "tls": {"certificates": [{"cert": cert, "key": key}]}},
                {"name": "tcp", "address": f"127.0.0.1:{self.tcp}", "mode": "tcp", "upstream": "echo"},
            ],
            "routes": [{"path": f"/only{step}", "upstream": "other"}],
            "upstreams": {
                "site": {"backends": [{"address": self.sockets.address, "weight": 1 + step % 3}],
                         "health_check": False},
                "echo": {"backends": [{"address": self.echo.address}], "health_check": False},
                "other": {"algorithm": ["round_robin", "least_conn"][step % 2], "backends": others,
                          "health_check": False},
            },
        }


@pytest.fixture
def plan(sockets, farm):
    echo = Echo()
    yield Plan(sockets, echo, farm)
    echo.close()


def tunnels(front, port, count, clients):
    """So many WebSockets, a connection each or, over HTTP/2, fifty on one."""
    made = []
    for n in range(count):
        if front.version == 1 or n % 50 == 0:
            clients.append(front.connect(port, record=False))
        status, end = ask(clients[-1], front, "/")
        assert status == (200 if front.version == 2 else 101)
        made.append(end)
    return made


@pytest.fixture
def many_files():
    """Room for a few thousand sockets in the test itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def clients():
    made = []
    yield made
    for client in made:
        client.close()


@pytest.mark.timeout(900)
def test_tunnels_keep_no_configuration_alive(launch, plan, clients, many_files):
    """A tunnel of each kind is opened under every configuration. AKASHD_TUNNEL_RELOADS=1000 runs it whole."""
    akashd = launch(plan.at(0))
    wait_serving(akashd, 2)
    upgraded, streams = [], Streams(plan.tcp, 1)
    for step in range(1, RELOADS + 1):
        upgraded += tunnels(HTTP1[0], plan.web, 1, clients)
        streams.socks.append(socket.create_connection(("127.0.0.1", plan.tcp), PATIENCE))
        akashd.reload(plan.at(step))
    akashd.wait_metric("akash_confs", lambda v: v <= 3)
    streams.check()
    for n, end in enumerate(upgraded):
        echo_frame(end, b"%d" % n)
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == RELOADS, upstream="site")
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == RELOADS + 1, upstream="echo")
    assert akashd.metrics().value("akash_worker_restarts_total") == 0
    for client in clients:
        client.close()
    streams.close()
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 0, upstream="site")


@pytest.mark.timeout(240)
def test_a_thousand_websockets_live_through_a_hundred_reloads(launch, plan, sockets, clients, many_files):
    """500 over HTTP/1 and 500 over HTTP/2, half of each through TLS."""
    akashd = launch(plan.at(0))
    pids = wait_serving(akashd, 2)
    ends = []
    for front in (*HTTP1, *FRONTS_OF_2):
        front.listener()
        ends += tunnels(front, plan.webs if "tls" in front.listener() else plan.web, 250, clients)
    for step in range(1, 101):
        akashd.reload(plan.at(step))
        for end in ends[step % 50::50]:
            echo_frame(end, b"step %d" % step)
    for n, end in enumerate(ends):
        echo_frame(end, b"the end of %d" % n)
    assert sockets.opened == 1000 and wait_serving(akashd, 2) == pids
    akashd.wait_metric("akash_backend_active_connections", lambda v: v == 1000, upstream="site")
    akashd.wait_metric("akash_confs", lambda v: v <= 3)
    assert not [line for line in akashd.log if " died" in line]
