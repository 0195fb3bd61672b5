# SPDX-License-Identifier: Apache-2.0
"""dns.py - a name server that says what the test told it, over UDP and TCP, and is strict about what it is asked."""

import ipaddress
import socket
import struct
import threading
from collections import namedtuple

from .wire import PATIENCE, until

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "AAAA": 28, "SRV": 33, "OPT": 41}
NAMES = {number: name for name, number in TYPES.items()}
CODES = {"servfail": 2, "nxdomain": 3, "refused": 5}
MOST_UDP = 512

Query = namedtuple("Query", "name type over")


class Wrong(Exception):
    """A question that no resolver should ask."""


def wire_name(name):
    labels = [label.encode() for label in name.rstrip(".").split(".")] if name.rstrip(".") else []
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def need(condition, what):
    if not condition:
        raise Wrong(what)


def parse(packet, over):
    """(id, flags, Query, bytes of the question) of a query, by RFC 1035 4.1."""
    need(len(packet) >= 12, "no whole header")
    ident, flags, questions, answers, authorities, additional = struct.unpack(">6H", packet[:12])
    need(flags & 0x8000 == 0 and flags & 0x7800 == 0, "not a query")
    need(flags & 0x0100, "recursion is not desired")
    need(flags & 0x0670 == 0 and questions == 1 and not answers and not authorities, f"header {packet[:12].hex()}")
    at, labels = 12, []
    while packet[at]:
        need(packet[at] < 64, "a pointer in a question")
        labels.append(packet[at + 1:at + 1 + packet[at]].decode("ascii"))
        at += 1 + packet[at]
    kind, klass = struct.unpack(">2H", packet[at + 1:at + 5])
    need(klass == 1 and kind in NAMES, f"type {kind} class {klass}")
    end = at + 5
    if additional:
        need(additional == 1 and packet[end] == 0 and packet[end + 1:end + 3] == b"\0\x29", "not EDNS")
        end += 11 + struct.unpack(">H", packet[end + 9:end + 11])[0]
    need(end == len(packet), "bytes behind the question")
    return ident, flags, Query(".".join(labels).lower(), NAMES[kind], over), packet[12:at + 5]


def rdata(kind, value):
    if kind in ("A", "AAAA"):
        return ipaddress.ip_address(value).packed
    if kind == "SRV":
        priority, weight, port, target = value
        return struct.pack(">3H", priority, weight, port) + wire_name(target)
    return wire_name(value)


class NameServer:
    """Records by name and type. What is not said of a name that is known has no records; others are NXDOMAIN."""

    def __init__(self, host="127.0.0.1", port=0):
        self.lock = threading.Lock()
        self.records, self.trouble = {}, {}
        self.queries, self.wrong = [], []
        self.udp = self.tcp = None
        while not self.tcp:
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.udp.bind((host, port))
            self.port = self.udp.getsockname()[1]
            tcp = socket.socket()
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tcp.bind((host, self.port))
                tcp.listen(64)
                self.tcp = tcp
            except OSError:
                tcp.close()
                self.udp.close()
                if port:
                    raise
        self.address = f"{host}:{self.port}"
        self.is_closed = False
        for run in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=run, daemon=True).start()

    # -- what it says

    def put(self, name, ttl=1, **records):
        """All that a name has: put("web.test", A=["127.0.0.2"]); a lone value stands for a list of one."""
        known = {}
        for kind, values in records.items():
            values = values if isinstance(values, list) else [values]
            known[kind] = [(ttl, rdata(kind, value)) for value in values]
        with self.lock:
            self.records[name] = known
            self.trouble.pop(name, None)
            return len(self.queries)

    def fail(self, name, how, kind=None):
        """servfail, nxdomain, refused, timeout, garbage, echo (the question, with an answer) or empty.

        To every question, or to those of one type.
        """
        with self.lock:
            self.trouble[name] = (how, kind)
            return len(self.queries)

    def asked(self, name, kind=None, over=None, since=0):
        with self.lock:
            return [q for q in self.queries[since:] if q.name == name and (kind or q.type) == q.type
                    and (over or q.over) == q.over]

    def wait_asked(self, name, kind=None, times=1, since=0, deadline=3 * PATIENCE, over=None):
        until(lambda: len(self.asked(name, kind, over, since)) >= times,
              f"{times} questions for {name} {kind or ''}", deadline)

    # -- answers

    def _chain(self, name, kind):
        """The answer section: along CNAMEs as far as this server knows them."""
        found = []
        for _ in range(20):
            known = self.records.get(name, {})
            found += [(name, kind, ttl, data) for ttl, data in known.get(kind, [])]
            if "CNAME" not in known or kind == "CNAME":
                break
            ttl, target = known["CNAME"][0]
            found.append((name, "CNAME", ttl, target))
            labels, at = [], 0
            while target[at]:
                labels.append(target[at + 1:at + 1 + target[at]].decode())
                at += 1 + target[at]
            name = ".".join(labels)
        return found

    def _message(self, ident, question, code, answers, flags=0x8180):
        body = b"".join(wire_name(name) + struct.pack(">2HIH", TYPES[kind], 1, ttl, len(data)) + data
                        for name, kind, ttl, data in answers)
        return struct.pack(">6H", ident, flags | code, 1, len(answers), 0, 0) + question + body

    def answer(self, packet, over):
        """Bytes to send back; None: nothing."""
        ident, _, query, question = parse(packet, over)
        with self.lock:
            self.queries.append(query)
            how, kind = self.trouble.get(query.name, (None, None))
            how = how if kind in (None, query.type) else None
            if how == "timeout":
                return None
            if how == "garbage":
                return packet[:2] + b"\x81\x80" + b"\xff" * 40
            if how == "echo":
                return self._message(ident, question, 0, [(query.name, "A", 1, bytes([127, 0, 0, 99]))], 0x0100)
            if how == "empty":
                return self._message(ident, question, 0, [])
            if how or query.name not in self.records:
                return self._message(ident, question, CODES[how or "nxdomain"], [])
            message = self._message(ident, question, 0, self._chain(query.name, query.type))
        if over == "udp" and len(message) > MOST_UDP:
            return struct.pack(">6H", ident, 0x8380, 1, 0, 0, 0) + question
        return message

    def _try(self, packet, over):
        try:
            return self.answer(packet, over)
        except (Wrong, IndexError, ValueError, struct.error) as why:
            self.wrong.append(f"{over}: {why}: {packet[:64].hex()}")
            return None

    def _serve_udp(self):
        while not self.is_closed:
            try:
                packet, peer = self.udp.recvfrom(4096)
            except OSError:
                return
            if self.is_closed:
                return
            message = self._try(packet, "udp")
            if message is not None:
                self.udp.sendto(message, peer)

    def _serve_tcp(self):
        while not self.is_closed:
            try:
                sock, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_one, args=(sock,), daemon=True).start()

    def _serve_one(self, sock):
        with sock, sock.makefile("rb") as f:
            while len(head := f.read(2)) == 2:
                message = self._try(f.read(struct.unpack(">H", head)[0]), "tcp")
                if message is not None:
                    sock.sendall(struct.pack(">H", len(message)) + message)

    def close(self):
        self.is_closed = True
        for sock in (self.udp, self.tcp):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        assert not self.wrong, self.wrong
