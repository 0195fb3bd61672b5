# SPDX-License-Identifier: Apache-2.0
"""One measurement: CPU and memory of a process tree around a load; and are the bytes right?"""

import hashlib
import http.client
import json
import os
import re
import ssl
import struct
import subprocess
import tempfile
import time

from proxies import HERE, BenchError, tree

HOST = "127.0.0.1"


def digest(stream):
    """Hash and length of what can be read from stream."""
    found, size = hashlib.sha256(), 0
    while piece := stream.read(1 << 20):
        found.update(piece)
        size += len(piece)
    return found.hexdigest(), size


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
        body = digest(answer)
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchError(f"status {answer.status}")
    return *body, cipher


def fetch_http2(programs, port, path, secure):
    """As fetch, in HTTP/2 and nothing else."""
    how = ["--insecure", "--http2", "--tlsv1.3"] if secure else ["--http2-prior-knowledge"]
    scheme = "https" if secure else "http"
    command = [programs["curl"], "-q", "-sS", "--noproxy", "*", *how, "-w",
               "%{stderr}%{http_version} %{http_code}", f"{scheme}://{HOST}:{port}{path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        body, said = digest(client.stdout), client.stderr.read()
    if said != b"2 200":
        raise BenchError(said.decode())
    return *body, None


def call(port, row):
    """The message that a unary call is answered with, by a real client of gRPC."""
    import grpc
    with grpc.insecure_channel(f"{HOST}:{port}") as channel:
        try:
            return channel.unary_unary(row.path)(bytes(row.message), timeout=10)
        except grpc.RpcError as error:
            raise BenchError(f"call of {row.path}: {error.code()}: {error.details()}") from error


def verify_grpc(programs, process, row, grpc_origin_port):
    """The door with HTTP/2 on both sides: by a call, or by a plain request where the row has no message."""
    if not row.message:
        expected = fetch_http2(programs, grpc_origin_port, row.path, False)
        if expected[1] != row.size or fetch_http2(programs, process.doors[row.door], row.path, False) != expected:
            raise BenchError(f"GET {row.path}: not the origin's {row.size} bytes")
        return
    expected = call(grpc_origin_port, row)
    if len(expected) != row.size:
        raise BenchError(f"the origin answers {row.path} with {len(expected)} bytes")
    if call(process.doors[row.door], row) != expected:
        raise BenchError(f"call of {row.path}: not the origin's message")


def verify(programs, process, row, origin_port):
    """Raises BenchError unless the proxy gives the origin's very bytes, in https by TLS 1.3."""
    expected, size, _ = fetch(origin_port, row.path, False)
    if size != row.size:
        raise BenchError(f"the origin answers {row.path} with {size} bytes, not {row.size}")
    secure = row.door == "https"
    try:
        port = process.doors[row.door]
        got, got_size, cipher = (fetch_http2(programs, port, row.path, secure) if row.http2
                                 else fetch(port, row.path, secure))
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"GET {row.path}: {error!r}") from error
    if got != expected:
        raise BenchError(f"GET {row.path}: {got_size} bytes that are not the origin's {size}")
    if cipher and cipher[0] != "TLSv1.3":
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


def load_command(programs, port, row, seconds, body):
    """body: a file that holds what a request of the row carries."""
    if row.kind == "handshake":
        return [programs["handshake"], str(port), row.path, str(row.size), str(row.clients),
                str(seconds)]
    scheme = "https" if row.door == "https" else "http"
    url = f"{scheme}://{HOST}:{port}{row.path}"
    if row.kind == "h2load":
        grpc = ["-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers"]
        amount = ["-n", "1"] if row.once else ["-D", str(seconds)]
        return [programs["h2load"], "-c", str(row.clients), "-m", str(row.streams), "-w", "24",
                "-W", "28", *amount, *(grpc if row.message else []), url]
    command = [programs["wrk"], "--threads", "1", "--connections", str(row.clients), "--duration",
               f"{seconds}s", "--latency", "--script", os.path.join(HERE, "report.lua")]
    if row.close:
        command += ["--header", "Connection: close"]
    return command + [url]


def milliseconds(text):
    number, unit = re.fullmatch(r"([0-9.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def read_h2load(text):
    """What report.lua says of wrk, from what h2load prints. It tells no percentiles: the mean and the maximum."""
    said = re.search(r"requests: .*?(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    took = re.search(r"finished in ([0-9.]+m?s)", text)
    data = re.search(r"\((\d+)\) data", text)
    request = re.search(r"time for request: +\S+ +(\S+) +(\S+)", text)
    if not (said and took and data and request):
        raise BenchError("h2load said:\n" + text)
    return {"requests": int(said[1]), "errors": int(said[2]) + int(said[3]) + int(said[4]),
            "bytes": int(data[1]), "duration_us": milliseconds(took[1]) * 1000,
            "p50_us": milliseconds(request[2]) * 1000, "p99_us": milliseconds(request[1]) * 1000}


def run_load(command, row):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    if row.kind == "h2load":
        return read_h2load(done.stdout)
    return json.loads(done.stdout.splitlines()[-1])


def measure_load(programs, process, row, seconds):
    """Returns one sample: requests/s, CPU microseconds per request, p50 and p99 in ms, errors."""
    pids = tree(process.pid)
    before = cpu_when_quiet(pids)
    with tempfile.NamedTemporaryFile() as body:
        body.write(struct.pack(">BI", 0, row.message) + bytes(row.message))
        body.flush()
        port = process.doors[row.door]
        figures = run_load(load_command(programs, port, row, seconds, body.name), row)
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
    command += ["--http2"] if row.http2 else []
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
