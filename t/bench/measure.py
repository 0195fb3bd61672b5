# SPDX-License-Identifier: Apache-2.0
"""One measurement: CPU and memory of a process tree around a load; and are the bytes right?"""

import hashlib
import http.client
import json
import os
import ssl
import subprocess
import time

from proxies import HERE, BenchError, tree

HOST = "127.0.0.1"


def fetch(port, path, secure):
    """One request. Returns the hash of the body and the TLS version and cipher, if any."""
    if secure:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(HOST, port, timeout=10, context=context)
    else:
        connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path)
        cipher = connection.sock.cipher()[1::-1] if secure else None
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchError(f"status {answer.status}")
    return hashlib.sha256(body).hexdigest(), len(body), cipher


def verify(process, row, origin_port):
    """Raises BenchError unless the proxy gives the origin's very bytes, in https by TLS 1.3."""
    expected, size, _ = fetch(origin_port, row.path, False)
    if size != row.size:
        raise BenchError(f"the origin answers {row.path} with {size} bytes, not {row.size}")
    secure = row.door == "https"
    try:
        got, got_size, cipher = fetch(process.doors[row.door], row.path, secure)
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"GET {row.path}: {error!r}") from error
    if got != expected:
        raise BenchError(f"GET {row.path}: {got_size} bytes that are not the origin's {size}")
    if secure and cipher[0] != "TLSv1.3":
        raise BenchError(f"TLS version is {cipher[0]}, not TLSv1.3")
    return cipher


def cpu_ns(pids):
    """Time on a processor of all threads of these processes, in nanoseconds."""
    total = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as text:
                total += int(text.read().split()[0])
    return total


def read_proc(reader, pids):
    """What reader finds in /proc, or BenchError when one of the processes has gone."""
    try:
        return reader(pids)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise BenchError(f"a process has ended: {error}") from error


def cpu_when_quiet(pids, seconds=1.0):
    """As cpu_ns, once the processes have finished what the load left them to do."""
    deadline = time.monotonic() + seconds
    before = read_proc(cpu_ns, pids)
    while True:
        time.sleep(0.02)
        after = read_proc(cpu_ns, pids)
        if after - before < 200_000 or time.monotonic() > deadline:
            return after
        before = after


def pss_bytes(pids):
    """Proportional set size of these processes, in bytes."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as text:
            for line in text:
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def pss_when_quiet(pids, seconds=5.0):
    """As pss_bytes, once it no longer changes."""
    deadline = time.monotonic() + seconds
    before = read_proc(pss_bytes, pids)
    while True:
        time.sleep(0.25)
        after = read_proc(pss_bytes, pids)
        if after == before or time.monotonic() > deadline:
            return after
        before = after


def load_command(programs, port, row, seconds):
    if row.kind == "handshake":
        return [programs["handshake"], str(port), row.path, str(row.size), str(row.clients),
                str(seconds)]
    command = [programs["wrk"], "--threads", "1", "--connections", str(row.clients), "--duration",
               f"{seconds}s", "--latency", "--script", os.path.join(HERE, "report.lua")]
    if row.close:
        command += ["--header", "Connection: close"]
    scheme = "https" if row.door == "https" else "http"
    return command + [f"{scheme}://{HOST}:{port}{row.path}"]


def run_load(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_load(programs, process, row, seconds):
    """Returns one sample: requests/s, CPU microseconds per request, p50 and p99 in ms, errors."""
    pids = tree(process.pid)
    before = cpu_when_quiet(pids)
    figures = run_load(load_command(programs, process.doors[row.door], row, seconds))
    used = cpu_when_quiet(pids) - before
    if process.popen.poll() is not None or tree(process.pid) != pids:
        raise BenchError(f"{process.name}: its processes changed under load:\n" + process.tail())
    requests = figures["bytes"] / row.size if row.bulk else figures["requests"]
    if not requests:
        raise BenchError(f"{process.name}: no request was answered ({figures['errors']} errors)")
    return {
        "rate": requests / (figures["duration_us"] / 1e6),
        "cost": used / 1000 / requests,
        "p50_ms": figures["p50_us"] / 1000,
        "p99_ms": figures["p99_us"] / 1000,
        "errors": figures["errors"],
    }


def open_clients(programs, port, row):
    """Starts the idle clients and returns when each has had its answer."""
    command = [programs["idle"]] + (["--tls"] if row.door == "https" else [])
    command += [str(port), row.path, str(row.clients)]
    clients = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if clients.stdout.readline() != "ready\n":
        clients.kill()
        clients.wait()
        raise BenchError(f"the {row.clients} clients of {row.name} could not all be served")
    return clients


def close_clients(clients):
    """Returns how many of them the proxy still served at the end."""
    output, _ = clients.communicate()
    return int(output.split()[1])


def measure_idle(programs, process, row):
    """Returns one sample: bytes per idle client of a proxy that has just been started."""
    pids = tree(process.pid)
    before = pss_when_quiet(pids)
    clients = open_clients(programs, process.doors[row.door], row)
    try:
        after = pss_when_quiet(pids)
    finally:
        alive = close_clients(clients)
    return {"cost": (after - before) / row.clients, "errors": row.clients - alive}
