# SPDX-License-Identifier: Apache-2.0
"""site.py - one listener, one scripted backend, and the ways between."""

from .akashd import Akashd, http_config
from .backs import BACKS
from .fronts import FRONTS
from .wire import free_port


class Way:
    """From a client to a backend."""

    def __init__(self, front, back):
        self.front, self.back = front, back
        self.name = f"{front.name}-{back.name}"

    def carries(self, marks):
        """Whether a test with these marks says something of this way.

        Tests marked http1_client or http1_backend are of what HTTP/1 alone has on that side: one exchange after
        another on a connection, a version in each message, connection options, bodies that end with the connection.
        """
        return ((self.front.version == 1 or "http1_client" not in marks)
                and (self.back.version == 1 or "http1_backend" not in marks))


# Each front with the plainest back, and each back with the plainest front. All pairs: test_http2_matrix.py.
WAYS = [Way(front, BACKS[0]) for front in FRONTS] + [Way(FRONTS[0], back) for back in BACKS[1:]]
# For what mostly waits: HTTP/1 alone and HTTP/2 alone, in cleartext.
PLAIN_WAYS = [Way(FRONTS[0], BACKS[0]), Way(FRONTS[2], BACKS[2])]


class Site:
    """A daemon in front of one scripted backend; what most HTTP tests need."""

    def __init__(self, front, back=BACKS[0], upstream=None, listener=None, **top):
        self.front, self.back = front, back
        self.port = free_port()
        self.backend = back.backend()
        self.clients = []
        config = http_config(self.port, [self.backend], {**back.upstream(), **(upstream or {})},
                             {**front.listener(), **(listener or {})}, **top)
        self.akashd = Akashd(config)

    def client(self, **kw):
        """A connected client that is closed with the test."""
        self.clients.append(self.front.connect(self.port, **kw))
        return self.clients[-1]

    def frames(self, **kw):
        """The same that sends single frames of HTTP/2."""
        self.clients.append(self.front.frames(self.port, **kw))
        return self.clients[-1]

    def fence(self):
        """A plain request through a client of its own: what was sent before has had its effect by now."""
        with self.front.connect(self.port) as client:
            answer = client.ask(target="/fence")
            assert (answer.status, answer.body) == (200, b"ok")

    def fresh(self):
        for client in self.clients:
            client.close()
        self.clients = []
        self.backend.fresh()

    def close(self):
        try:
            for client in self.clients:
                client.close()
            self.akashd.stop()
        finally:
            self.backend.close()
