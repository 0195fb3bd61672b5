#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""soak.py - mixed load with a reload every ten seconds; memory and descriptors must stay flat.

    soak.py --akashd PATH [--seconds 3600]

HTTP with keep-alive and with a connection for each request, HTTPS, TCP streams that stay and others that come
and go, bodies of megabytes by hash. Each process of akashd is measured in every cycle of reloads at the same
place of it; the table compares the first ones after the warm-up with the last. Exit status 1 on any failed
request, unexpected log line, replaced process, fallen counter or growth.
"""

import argparse
import hashlib
import os
import re
import socket
import statistics
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

RELOAD_S = 10
CYCLE = 4  # reloads until the same configuration comes again
MEMORY_SLACK_KB = 512  # what may come and go: pools, arenas of the allocator
FDS_SLACK = 16  # as many connections more or less at the moment of a measurement,
FDS_A_RELOAD = 0.1  # and less than any leak of a reload
BODY = os.urandom(1 << 20) * 4
DIGEST = hashlib.sha256(BODY).hexdigest()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--akashd", required=True, help="the binary")
    parser.add_argument("--seconds", type=float, default=3600, help="how long (3600)")
    return parser.parse_args()


def pss_kb(pid):
    """Proportional set size, in which what is shared counts once over all processes, without the pages of files:
    how many programs share a library changes with all else that runs on the machine."""
    sizes = dict(re.findall(r"^(Pss_\w+): +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M))
    return int(sizes["Pss_Anon"]) + int(sizes["Pss_Shmem"])


class Bodies(threading.Thread):
    """Uploads and downloads of four megabytes, compared by hash."""

    def __init__(self, port, stopping):
        super().__init__(daemon=True)
        self.port, self.stopping = port, stopping
        self.count, self.errors = 0, []

    def run(self):
        from harness import Client
        while not self.stopping.is_set():
            try:
                with Client(self.port, record=False) as client:
                    self.exchange(client)
                    self.count += 1
            except Exception as why:  # whatever it is, it is a failed exchange
                self.errors.append(f"body: {type(why).__name__}: {why}")
            self.stopping.wait(0.2)

    @staticmethod
    def exchange(client):
        answer = client.ask("POST", "/echo", body=BODY)
        assert answer.status == 200 and answer.complete, f"status {answer.status}, {answer.end}"
        assert hashlib.sha256(answer.body).hexdigest() == DIGEST, "the body came back changed"


class Tunnels(threading.Thread):
    """Streams that come, pass bytes and go; and some that stay for all of the run."""

    def __init__(self, port, stopping):
        super().__init__(daemon=True)
        from harness import Streams
        self.port, self.stopping = port, stopping
        self.count, self.errors = 0, []
        self.standing = Streams(port, 50)

    def run(self):
        while not self.stopping.is_set():
            try:
                self.visit()
                self.standing.check()
                self.count += 1
            except Exception as why:
                self.errors.append(f"stream: {type(why).__name__}: {why}")
            self.stopping.wait(0.05)
        self.standing.close()

    def visit(self):
        with socket.create_connection(("127.0.0.1", self.port), 10) as sock:
            sock.sendall(BODY[:65536])
            sock.shutdown(socket.SHUT_WR)
            got = b""
            while piece := sock.recv(65536):
                got += piece
        assert got == BODY[:65536], f"{len(got)} bytes came back"


class Table:
    """Measurements of each process."""

    def __init__(self, akashd):
        self.akashd = akashd
        self.rows = {}  # (pid, title): [(pss, fds), ...], one for each cycle

    def measure(self):
        from harness.akashd import Process
        for process in [Process(self.akashd.pid), *self.akashd.children()]:
            key = (process.pid, re.sub(r" /.*", "", process.title))
            self.rows.setdefault(key, []).append((pss_kb(process.pid), process.fds()))

    def verdicts(self):
        """[(title, memory before, after, descriptors before, after, verdict)]"""
        for (pid, title), found in sorted(self.rows.items()):
            part = max(1, len(found) // 4)
            warm = found[part:2 * part] or found
            last = found[-part:]
            middle = [statistics.median(pair[i] for pair in group) for i in (0, 1) for group in (warm, last)]
            kb_limit = MEMORY_SLACK_KB + middle[0] * 0.05
            fds_limit = FDS_SLACK + FDS_A_RELOAD * CYCLE * len(found)
            flat = middle[1] - middle[0] <= kb_limit and middle[3] - middle[2] <= fds_limit
            yield (f"{title} ({pid})", *middle, "flat" if flat else "GROWS")

    def print(self):
        print(f"{'process':36} {'PSS KB':>9} {'at the end':>11} {'fds':>6} {'at the end':>11}")
        bad = []
        for title, kb, kb_end, fds, fds_end, verdict in self.verdicts():
            print(f"{title:36} {kb:9.0f} {kb_end:11.0f} {fds:6.0f} {fds_end:11.0f}  {verdict}")
            if verdict != "flat":
                bad.append(f"{title}: {kb:.0f} -> {kb_end:.0f} KB, {fds:.0f} -> {fds_end:.0f} descriptors")
        return bad


class Site:
    """Servers, certificates and the configurations that take turns."""

    def __init__(self):
        from harness import Echo, Farm, ScriptedBackend, free_port
        from harness.backend import echo
        from harness.fronts import Authority
        self.farm, self.streams, self.bodies = Farm(4), Echo(), ScriptedBackend(echo())
        self.authority = Authority()
        self.pairs = [self.authority.issue("localhost", stem=f"soak-{i}") for i in range(2)]
        self.web, self.webs, self.tcp, self.extra = (free_port() for _ in range(4))

    def config(self, step):
        step %= CYCLE
        cert, key = self.pairs[step % 2]
        check = {"health_check": {"type": "tcp", "interval": "500ms"}}
        addresses = [a for i, a in enumerate(self.farm.addresses) if i != step]
        backends = [{"address": a, "weight": 1 + (step + i) % 3} for i, a in enumerate(addresses)]
        extra = [{"name": "extra", "address": f"127.0.0.1:{self.extra}", "mode": "http", "upstream": "site"}]
        return {
            "workers": 2, "access_log": False,
            "listeners": [
                {"name": "web", "address": f"127.0.0.1:{self.web}", "mode": "http", "upstream": "site"},
                {"name": "webs", "address": f"127.0.0.1:{self.webs}", "mode": "http", "upstream": "site",
                 "tls": {"certificates": [{"cert": cert, "key": key}]}},
                {"name": "tcp", "address": f"127.0.0.1:{self.tcp}", "mode": "tcp", "upstream": "streams"},
                *(extra if step % 2 else []),
            ],
            "routes": [{"path": "/echo", "upstream": "bodies"}],
            "upstreams": {
                "site": {"algorithm": ["round_robin", "least_conn"][step % 2], "backends": backends, **check},
                "streams": {"backends": [{"address": self.streams.address}], **check},
                # A probe would be a request of this slow server; it is up or the soak fails.
                "bodies": {"backends": [{"address": self.bodies.address}], "health_check": False},
            },
        }

    def loads(self):
        from harness import Load
        common = {"check": self.farm.check, "pause": 0.02}
        return {
            "HTTP keep-alive": Load(self.web, keepalive=32, **common),
            "HTTP per request": Load(self.web, fresh=16, **common),
            "HTTPS keep-alive": Load(self.webs, keepalive=8, tls=self.authority.client_context(), **common),
            "HTTPS per request": Load(self.webs, fresh=2, tls=self.authority.client_context(), **common),
        }

    def close(self):
        for server in (self.farm, self.streams, self.bodies):
            server.close()


def forget(loads):
    """Latencies of an hour are of no use here, and memory; the counts stay."""
    for load in loads.values():
        load.account.latencies.clear()


def forget_bodies(site):
    """What the recording backend has recorded."""
    backend = site.bodies
    with backend.changed:
        backend.requests.clear()
        backend.connections = [c for c in backend.connections if c.open]
        for connection in backend.connections:
            connection.requests.clear()
            connection.wire.received.clear()


def reload_for(akashd, site, loads, table, seconds):
    """Reload every ten seconds; the number of reloads. Short runs go faster: a table needs eight cycles."""
    pause = min(RELOAD_S, seconds / (8 * CYCLE))
    end, step = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        step += 1
        due = time.monotonic() + pause
        akashd.reload(site.config(step))
        forget(loads)
        forget_bodies(site)
        while time.monotonic() < due:
            time.sleep(max(0, min(0.2, due - time.monotonic())))
        if step % CYCLE == 0:
            table.measure()
    return step


def expected(line):
    return re.search(r" info | unknown -> up", line)


def run(akashd, site, seconds):
    """The errors of a run."""
    from harness import CounterWatch
    stopping = threading.Event()
    pids = {p.pid for p in akashd.children()}
    loads, table, errors = site.loads(), Table(akashd), []
    workers = [Bodies(site.web, stopping), Tunnels(site.tcp, stopping)]
    for worker in workers:
        worker.start()
    try:
        with CounterWatch(akashd, 1.0):
            reloads = reload_for(akashd, site, loads, table, seconds)
    except AssertionError as why:
        errors.append(str(why))
        reloads = 0
    if {p.pid for p in akashd.children()} != pids:
        errors.append("a process was replaced")
    stopping.set()
    for worker in workers:
        worker.join(60)
        errors += worker.errors
    print(f"{reloads} reloads in {seconds:.0f} s; {workers[0].count} bodies of 4 MB, "
          f"{workers[1].count} rounds of streams")
    for name, load in loads.items():
        account = load.stop()
        print(f"{name:20} {account.ok:9} answers, {account.connects:8} connects, "
              f"{len(account.failures)} failures")
        errors += [f"{name}: {f.why} at {f.when:.1f} s" for f in account.failures]
    confs = akashd.metrics().value("akash_confs")
    if confs > 3:
        errors.append(f"{confs} configurations are alive")
    errors += [f"log: {line}" for line in akashd.log if not expected(line)]
    return errors + table.print()


def main():
    args = arguments()
    os.environ["AKASHD"] = str(Path(args.akashd).resolve())
    from harness import Akashd
    site = Site()
    akashd = Akashd(site.config(0))
    try:
        errors = run(akashd, site, args.seconds)
        akashd.stop()
    finally:
        akashd.destroy()
        site.close()
    for error in errors[:50]:
        print(f"error: {error}")
    print("soak: passed" if not errors else f"soak: FAILED: {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
