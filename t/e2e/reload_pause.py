#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A command: how long a reload makes requests wait.

One worker serves keep-alive requests, one after the other, on a plain listener, while the configuration is
reloaded with 1,000 backends whose weights change and 100 certificates that are new each time. Printed are the
latencies during reloads, beside those of as long a time without any. Other work on the machine makes both
worse: what counts is the difference.

    AKASHD=build/akashd /usr/bin/python3 t/e2e/reload_pause.py [--reloads N] [--backends N] [--certificates N] [--rsa]
"""

import argparse
import socket
import threading
import time

from harness import Akashd, Farm, free_port
from harness.fronts import Authority

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Asker:
    """Requests without a pause; (when it began, seconds) of each."""

    def __init__(self, port):
        self.samples, self.stopping = [], threading.Event()
        self.sock = socket.create_connection(("127.0.0.1", port), 10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping.is_set():
            began = time.monotonic()
            self.sock.sendall(REQUEST)
            got = self.sock.recv(65536)
            assert got.startswith(b"HTTP/1.1 200") and b"b0" in got, got[:200]
            self.samples.append((began, time.monotonic() - began))

    def stop(self):
        self.stopping.set()
        self.thread.join(10)
        self.sock.close()

    def between(self, begin, end):
        return sorted(took for began, took in self.samples if began + took >= begin and began <= end)


def configuration(args, port, tls_port, backend, pairs, step):
    return {
        "workers": 1,
        "listeners": [
            {"name": "web", "address": f"127.0.0.1:{port}", "upstream": "site"},
            {"name": "webs", "address": f"127.0.0.1:{tls_port}", "upstream": "many",
             "tls": {"certificates": [{"cert": c, "key": k} for c, k in pairs]}},
        ],
        "upstreams": {
            "site": {"backends": [{"address": backend}], "health_check": False},
            "many": {"health_check": False, "backends": [
                {"address": f"127.{1 + n // 250}.{step % 2}.{1 + n % 250}:80", "weight": 1 + (n + step) % 9}
                for n in range(args.backends)]},
        },
    }


def told(samples):
    if not samples:
        return "none"
    at = [samples[min(len(samples) - 1, int(len(samples) * q))] * 1000 for q in (0.5, 0.99, 0.999)]
    return (f"{len(samples)} requests, median {at[0]:.2f} ms, 99 % {at[1]:.2f} ms, 99.9 % {at[2]:.2f} ms, "
            f"worst {samples[-1] * 1000:.1f} ms")


def measure(args, authority, farm):
    kind = "rsa" if args.rsa else "ec"
    sets = [[authority.issue(f"h{i}-{n}.test", stem=f"{i}-{n}", kind=kind) for n in range(args.certificates)]
            for i in range(args.reloads + 1)]
    port, tls_port = free_port(), free_port()
    akashd = Akashd(configuration(args, port, tls_port, farm.addresses[0], sets[0], 0))
    asker = Asker(port)
    time.sleep(0.5)  # warm
    with_reload, without, took = [], [], []
    for step in range(1, args.reloads + 1):
        akashd.write(configuration(args, port, tls_port, farm.addresses[0], sets[step], step))
        time.sleep(0.1)
        begin = time.monotonic()
        akashd.reload()
        end = time.monotonic()
        time.sleep(0.3)
        quiet = time.monotonic()
        time.sleep(end - begin)
        with_reload += asker.between(begin, end + 0.2)
        without += asker.between(quiet, quiet + end - begin + 0.2)
        took.append(end - begin)
    asker.stop()
    akashd.stop()
    print(f"{args.reloads} reloads of {args.backends} backends and {args.certificates} new {kind} certificates, "
          f"{sum(took) / len(took) * 1000:.0f} ms each")
    print("during reloads: ", told(sorted(with_reload)))
    print("without:        ", told(sorted(without)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--reloads", type=int, default=10)
    parser.add_argument("--backends", type=int, default=1000)
    parser.add_argument("--certificates", type=int, default=100)
    parser.add_argument("--rsa", action="store_true")
    farm, authority = Farm(1), Authority()
    try:
        measure(parser.parse_args(), authority, farm)
    finally:
        farm.close()


if __name__ == "__main__":
    main()
