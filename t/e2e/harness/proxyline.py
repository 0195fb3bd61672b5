# SPDX-License-Identifier: Apache-2.0
"""proxyline.py - headers of the PROXY protocol: made, and read strictly. An implementation of its own, beside akashd's."""

import ipaddress
import struct
from dataclasses import dataclass, field

from .client import Client
from .h2client import H2Client

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FAMILIES = {0x11: 4, 0x21: 16}


def v1(source, target="198.51.100.1", sport=4711, tport=443):
    kind = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {kind} {source} {target} {sport} {tport}\r\n".encode()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def tlv(kind, value):
    return struct.pack(">BH", kind, len(value)) + value


def v2(source=None, target="198.51.100.1", sport=4711, tport=443, tlvs=b"", command=1, checksum=False):
    """source None: nobody (LOCAL when command is 0)."""
    family, addresses = 0, b""
    if source:
        source, target = ipaddress.ip_address(source), ipaddress.ip_address(target)
        family = 0x11 if source.version == 4 else 0x21
        addresses = source.packed + target.packed + struct.pack(">HH", sport, tport)
    if checksum:
        tlvs += tlv(3, bytes(4))
    header = SIGNATURE + struct.pack(">BBH", 0x20 | command, family, len(addresses + tlvs)) + addresses + tlvs
    return header[:-4] + struct.pack(">I", crc32c(header)) if checksum else header


@dataclass
class Told:
    """What a header says; addresses are None where it says none."""

    version: int
    source: tuple = None
    target: tuple = None
    is_local: bool = False
    tlvs: dict = field(default_factory=dict)
    raw: bytes = b""


def _read_v1(wire):
    line = wire.line()
    words = line.decode("ascii").split(" ")
    assert words[0] == "PROXY", line
    raw = line + b"\r\n"
    if words[1] == "UNKNOWN":
        return Told(1, is_local=True, raw=raw)
    assert len(words) == 6 and len(raw) <= 107, line
    source, target = ipaddress.ip_address(words[2]), ipaddress.ip_address(words[3])
    assert words[1] == f"TCP{source.version}" and source.version == target.version, line
    return Told(1, (words[2], int(words[4])), (words[3], int(words[5])), raw=raw)


def _read_v2(wire):
    head = wire.take(16)
    assert head[:12] == SIGNATURE and head[12] in (0x20, 0x21), head
    body = wire.take(struct.unpack(">H", head[14:])[0])
    told = Told(2, is_local=head[12] == 0x20, raw=head + body)
    size = FAMILIES.get(head[13], 0)
    assert size or head[13] == 0, head
    if size:
        ports = struct.unpack(">HH", body[2 * size:2 * size + 4])
        told.source = (str(ipaddress.ip_address(body[:size])), ports[0])
        told.target = (str(ipaddress.ip_address(body[size:2 * size])), ports[1])
        body = body[2 * size + 4:]
    while body:
        kind, length = struct.unpack(">BH", body[:3])
        assert len(body) >= 3 + length, body
        told.tlvs[kind], body = body[3:3 + length], body[3 + length:]
    if 3 in told.tlvs:
        assert told.raw.endswith(tlv(3, told.tlvs[3]))
        assert crc32c(told.raw[:-4] + bytes(4)) == struct.unpack(">I", told.tlvs[3])[0], "checksum"
    return told


def read(wire):
    """The header that begins a connection; nothing behind it is taken off the wire."""
    wire.need(1)
    return _read_v2(wire) if wire.buf[:1] == b"\r" else _read_v1(wire)


def behind(front, port, header, **kw):
    """A client of that front whose connection a proxy has opened: header comes first."""
    def wrap(sock):
        sock.sendall(header)
        return front.wrap(sock) if front.scheme == "https" else sock
    if front.version == 1:
        return Client(port, wrap=wrap, **kw)
    return H2Client(port, wrap=wrap, scheme=front.scheme, **kw)
