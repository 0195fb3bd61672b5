# SPDX-License-Identifier: Apache-2.0
"""What is measured: one Row per workload, with the figures akashd has to reach."""

from dataclasses import dataclass

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Row:
    """One workload.

    door is the listener that is used: http, h2c, https, tcp or grpc (h2c on both sides, which nginx
    has not). Limits are the largest ratio of CPU per request to the floor and to the best peer; for idle clients a number of bytes, and whether the
    figure must also be below both peers.
    """

    name: str
    title: str
    kind: str = "wrk"  # wrk, h2load, handshake, idle, or one with akashds of its own: workers, all-on, slow
    door: str = "http"  # or h2c, https, tcp, grpc
    http2: bool = False
    streams: int = 1  # h2load: at one time on a connection
    path: str = "/1k"
    size: int = KIB  # bytes of the body of the answer
    clients: int = 64
    message: int = 0  # grpc: bytes of the request's message; 0: a GET
    close: bool = False  # a connection per request
    bulk: bool = False  # requests are counted by bytes: few are large
    once: bool = False  # h2load: one request and no more, however long it takes
    floor: str = ""  # the relay it is held against; none for TLS
    max_floor: float = 0.0
    max_best: float = 0.0
    max_bytes: int = 0
    below_peers: bool = False


HTTP_AND_TCP = [
    Row("http-1k", "HTTP keep-alive, 64 clients, 1 KB answers",
        floor="relay", max_floor=1.10, max_best=0.85),
    Row("http-40", "HTTP keep-alive, 200 clients, 40-byte answers", path="/40", size=40,
        clients=200, floor="relay", max_floor=1.10, max_best=0.85),
    Row("http-64k", "HTTP keep-alive, 64 clients, 64 KB answers", path="/64k", size=64 * KIB,
        floor="relay-splice", max_best=0.85),
    Row("http-16m", "HTTP keep-alive, 4 clients, 16 MB answers", path="/16m", size=16 * MIB,
        clients=4, bulk=True, floor="relay-splice", max_best=0.95),
    Row("http-close", "HTTP, a client connection per request, 64 clients, 1 KB answers",
        close=True, floor="relay", max_best=0.85),
    Row("tcp-1k", "TCP keep-alive, 64 clients, 1 KB answers", door="tcp",
        floor="relay", max_floor=1.06, max_best=1.03),
    Row("tcp-close", "TCP, a connection per request, 64 clients, 1 KB answers", door="tcp",
        close=True, floor="relay", max_floor=1.06, max_best=1.03),
    Row("tcp-16m", "TCP, 4 clients, 16 MB answers", door="tcp", path="/16m", size=16 * MIB,
        clients=4, bulk=True, floor="relay-splice", max_best=0.95),
]

HTTPS = [
    Row("https-1k", "HTTPS keep-alive, 64 clients, 1 KB answers", door="https", max_best=0.90),
    Row("https-64k", "HTTPS keep-alive, 64 clients, 64 KB answers", door="https", path="/64k",
        size=64 * KIB, max_best=0.90),
    Row("https-handshake", "HTTPS, a full handshake per request, 32 clients, 1 KB answers",
        kind="handshake", door="https", clients=32, close=True, max_best=1.00),
]

HTTP2 = [
    Row("h2-1k", "HTTP/2 over TLS, 16 clients of 16 streams, 1 KB answers", kind="h2load",
        door="https", http2=True, clients=16, streams=16, max_best=0.80),
    Row("h2c-1k", "HTTP/2 in cleartext, 16 clients of 16 streams, 1 KB answers", kind="h2load",
        door="h2c", http2=True, clients=16, streams=16, max_best=0.75),
    Row("h2-16m", "HTTP/2 over TLS, one client, 16 MB answers one after the other", kind="h2load",
        door="https", http2=True, path="/16m", size=16 * MIB, clients=1, bulk=True, max_best=1.00),
    Row("h2c-16m", "HTTP/2 in cleartext, one client, 16 MB answers one after the other",
        kind="h2load", door="h2c", http2=True, path="/16m", size=16 * MIB, clients=1, bulk=True,
        max_best=1.00),
    Row("h2-1g", "HTTP/2 over TLS, one download of 1 GB", kind="h2load", door="https", http2=True,
        path="/1g", size=GIB, clients=1, once=True, max_best=1.00),
    Row("h2c-1g", "HTTP/2 in cleartext, one download of 1 GB", kind="h2load", door="h2c", http2=True,
        path="/1g", size=GIB, clients=1, once=True, max_best=1.00),
]

GRPC = [
    Row("h2c-h2c-1k", "HTTP/2 in cleartext both ways, 16 clients of 16 streams, 1 KB answers",
        kind="h2load", door="grpc", http2=True, path="/1k", clients=16, streams=16,
        max_best=0.70),
    Row("grpc-unary", "gRPC unary, h2c both ways, 16 clients of 16 streams, 1 KB answers",
        kind="h2load", door="grpc", http2=True, path="/bench.Test/Unary", clients=16, streams=16,
        message=100, max_best=0.70),
]

MEMORY = [
    Row("idle-http", "memory of an idle keep-alive HTTP client, of 4,000",
        kind="idle", clients=4000, max_bytes=600),
    Row("idle-https", "memory of an idle keep-alive HTTPS client, of 4,000",
        kind="idle", door="https", clients=4000, max_bytes=15000, below_peers=True),
    Row("idle-h2c", "memory of an idle HTTP/2 client in cleartext, of 4,000",
        kind="idle", door="h2c", http2=True, clients=4000, max_bytes=17 * KIB),
    Row("idle-h2", "memory of an idle HTTP/2 client over TLS, of 4,000",
        kind="idle", door="https", http2=True, clients=4000, max_bytes=32 * KIB),
    Row("idle-tcp", "memory of an idle TCP client, of 1,900",
        kind="idle", door="tcp", clients=1900, max_bytes=1200),
]

WORKERS = [
    Row("two-workers", "HTTP keep-alive, 64 clients, 1 KB answers: two workers against one",
        kind="workers", max_best=1.10),
]

RESILIENCE = [
    Row("all-on", "HTTP keep-alive, 64 clients, 1 KB answers: breaker, budget, rate limit, access log: on against off",
        kind="all-on", max_best=1.06),
    Row("slow-backend", "HTTP keep-alive, 64 clients, ten backends of 5 ms, one of them 100 ms: p99",
        kind="slow", max_best=1.00),
]

ROWS = HTTP_AND_TCP + HTTPS + HTTP2 + GRPC + MEMORY + WORKERS + RESILIENCE
QUICK = ["http-1k", "http-40"]
