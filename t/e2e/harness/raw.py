# SPDX-License-Identifier: Apache-2.0
"""raw.py - a TCP or Unix backend without a thread or a protocol: the test itself accepts, reads and writes."""

import os
import select
import socket

from .wire import PATIENCE, Silence, Wire, free_port


class RawBackend:
    """A listening socket. accept() gives a Wire, so that FIN and RST are told apart on this side too."""

    def __init__(self, host="127.0.0.1", port=None, unix=None, backlog=1024):
        self.host, self.unix, self.wires, self.stuffing = host, unix, [], []
        if unix:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(unix)
            os.chmod(unix, 0o777)
        else:
            self.port = port or free_port(host)
            self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind((host, self.port))
        self.listener.listen(backlog)

    @property
    def address(self):
        if self.unix:
            return f"unix:{self.unix}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def accept(self, deadline=PATIENCE, record=True):
        if not self.is_called(deadline):
            raise Silence(f"nobody connected to {self.address}")
        sock, _ = self.listener.accept()
        self.wires.append(Wire(sock, record))
        return self.wires[-1]

    def is_called(self, deadline):
        """Whether a connection waits to be accepted, now or within the deadline."""
        return bool(select.select([self.listener], [], [], deadline)[0])

    def stuff(self):
        """Fill the queue of connections, so that the kernel drops every further SYN: a black hole."""
        self.listener.listen(0)
        while True:
            sock = socket.socket(self.listener.family)
            self.stuffing.append(sock)
            sock.settimeout(0.5)
            try:
                sock.connect(self.listener.getsockname())
            except socket.timeout:
                return self
            assert len(self.stuffing) < 100, "the queue does not fill"

    def close(self):
        for sock in [*self.wires, *self.stuffing, self.listener]:
            sock.close()
