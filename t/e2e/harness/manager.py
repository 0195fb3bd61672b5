# SPDX-License-Identifier: Apache-2.0
"""manager.py - the part of systemd that a service sees: a notify socket, and sockets to lend.

What to lend is given to Akashd(lent=[...]) as descriptors, which does what systemd does between fork and exec.
"""

import os
import socket
import tempfile
import time

from .wire import PATIENCE


class Manager:
    """Reads the datagrams of sd_notify(3), in order, each as a dict; strict about their form."""

    def __init__(self, watchdog_ms=None, abstract=False):
        self.folder = tempfile.mkdtemp(prefix="akashd-manager-")
        os.chmod(self.folder, 0o755)
        self.path = f"{self.folder}/notify"
        self.name = f"@akashd-{os.getpid()}-{id(self)}" if abstract else self.path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.sock.bind(self.name.replace("@", "\0", 1) if abstract else self.path)
        self.env = {"NOTIFY_SOCKET": self.name}
        if watchdog_ms:
            self.env["WATCHDOG_USEC"] = str(watchdog_ms * 1000)
        self.heard = []
        self.lent = []

    def message(self, deadline=PATIENCE):
        """The next datagram, {"READY": "1", ...}; the sender's id, as the kernel says it, is "pid"."""
        self.sock.settimeout(deadline)
        raw, ancillary, _, _ = self.sock.recvmsg(8192, 256)
        told = {}
        for line in raw.decode().rstrip("\n").split("\n"):
            key, equals, value = line.partition("=")
            assert equals and key.isupper() or key == "MONOTONIC_USEC", f"not a field: {line!r} in {raw!r}"
            assert key not in told, f"{key} twice in {raw!r}"
            told[key] = value
        told["pid"] = int.from_bytes(ancillary[0][2][:4], "little")
        told["at"] = time.monotonic()
        self.heard.append(told)
        return told

    def wait(self, key, deadline=PATIENCE):
        """The next message that has this field; earlier ones stay in heard."""
        end = time.monotonic() + deadline
        while True:
            left = end - time.monotonic()
            assert left > 0, f"no {key} in {self.heard}"
            try:
                told = self.message(left)
            except TimeoutError:
                raise AssertionError(f"no {key} in {self.heard}") from None
            if key in told:
                return told

    def listen(self, address, family=socket.AF_INET):
        """A socket as a unit's ListenStream= makes it, without SO_REUSEPORT; kept as systemd keeps it."""
        sock = socket.socket(family, socket.SOCK_STREAM)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
        self.lent.append(sock)
        return sock

    def descriptors(self):
        return [sock.fileno() for sock in self.lent]

    def close(self):
        self.sock.close()
        for sock in self.lent:
            sock.close()
        for name in os.listdir(self.folder):
            os.unlink(f"{self.folder}/{name}")
        os.rmdir(self.folder)
