# SPDX-License-Identifier: Apache-2.0
"""site.py - one listener, one scripted backend, and the ways between."""

from .akashd import Akashd, http_config
from .backs import BACKS
from .wire import free_port


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
