# SPDX-License-Identifier: Apache-2.0
"""The processes of the benchmark: how each proxy is configured, started, awaited and ended."""

import ctypes
import json
import os
import random
import shutil
import signal
import socket
import string
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = ("haproxy", "nginx")
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
SLOW_US = 100_000  # what the slow backend of ten takes


class BenchError(Exception):
    """What stops the run; its text is all the user sees."""


class Process:
    """A started program: its name, its root process id, and a port for each door it has."""

    def __init__(self, name, popen, doors, log):
        self.name, self.popen, self.doors, self.log = name, popen, doors, log
        self.pid = popen.pid

    def tail(self):
        with open(self.log, errors="replace") as log:
            return "".join(log.readlines()[-15:])


class Stage:
    """A folder of its own, ports nobody uses, and the processes started there; close() ends all."""

    def __init__(self, programs, cores):
        self.programs = programs  # name -> path
        self.proxy_cores, self.load_cores = cores
        self.folder = tempfile.mkdtemp(prefix="akash-bench-")
        os.chmod(self.folder, 0o755)  # workers drop their privileges and still read it
        self.running = []
        self.memory_folder = None
        self.ports = set()
        self.starts = 0
        make_certificate(programs["openssl"], self.folder)

    def start(self, name, argv, doors, cores):
        self.starts += 1
        log = os.path.join(self.folder, f"{name}-{self.starts}.log")
        with open(log, "w") as output:
            popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                     start_new_session=True, preexec_fn=lambda: enter(cores))
        process = Process(name, popen, doors, log)
        self.running.append(process)
        await_ports(process)
        return process

    def stop(self, process):
        end(process)
        self.running.remove(process)

    def on_tmpfs(self):
        """A folder whose files are in memory."""
        if not self.memory_folder:
            self.memory_folder = tempfile.mkdtemp(prefix="akash-bench-", dir="/dev/shm")
        return self.memory_folder

    def close(self):
        for process in list(self.running):
            self.stop(process)
        if self.memory_folder:
            shutil.rmtree(self.memory_folder, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def free_port(self):
        """A port below the range from which outgoing connections take theirs."""
        with open("/proc/sys/net/ipv4/ip_local_port_range") as text:
            lowest = int(text.read().split()[0])
        for _ in range(1000):
            port = random.randrange(max(1024, lowest - 12000), lowest)
            if port not in self.ports and port_is_free(port):
                self.ports.add(port)
                return port
        raise BenchError("no free port below %d" % lowest)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as out:
            out.write(text)
        return path


def enter(cores):
    """In the child, before exec: pinned, and ended by the kernel should bench itself be killed."""
    os.sched_setaffinity(0, cores)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def port_is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def await_ports(process, seconds=15):
    deadline = time.monotonic() + seconds
    for port in set(process.doors.values()):
        while not accepts(port):
            if process.popen.poll() is not None:
                raise BenchError(f"{process.name} ended with status {process.popen.returncode}:\n"
                                 + process.tail())
            if time.monotonic() > deadline:
                raise BenchError(f"{process.name} does not listen on port {port} after "
                                 f"{seconds} s:\n" + process.tail())
            time.sleep(0.02)


def children():
    """Parent process id -> ids of its children, of the whole machine."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    parent = int(stat.read().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has just ended
            found.setdefault(parent, []).append(int(entry))
    return found


def tree(root):
    """The ids of a process and all its descendants, sorted."""
    by_parent, found, todo = children(), [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += by_parent.get(pid, [])
    return sorted(found)


def waited(popen, seconds):
    try:
        popen.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def end(process):
    """TERM, once more for a graceful one that still drains, then KILL for the whole tree, by id."""
    members = tree(process.pid) if process.popen.poll() is None else []
    for _ in range(2):
        if process.popen.poll() is None:
            process.popen.terminate()
            waited(process.popen, 1.5)
    if process.popen.poll() is None:
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.popen.wait()


def make_certificate(openssl, folder):
    """One ECDSA P-256 certificate for all proxies; haproxy wants it and its key in one file."""
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=bench.test"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchError("openssl made no certificate:\n" + done.stderr)
    with open(os.path.join(folder, "both.pem"), "w") as both:
        for part in (cert, key):
            with open(part) as text:
                both.write(text.read())


def template(name, **values):
    with open(os.path.join(HERE, name)) as text:
        return string.Template(text.read()).substitute(values)


def new_doors(stage):
    return {door: stage.free_port() for door in ("http", "h2c", "https", "tcp")}


def start_origin(stage, cores):
    """Both of them: the stage knows where the one of gRPC is."""
    grpc, port = stage.free_port(), stage.free_port()
    stage.grpc_origin = grpc
    stage.start("grpc_origin", [stage.programs["grpc_origin"], str(grpc)], {"grpc": grpc}, cores)
    return stage.start("origin", [stage.programs["origin"], str(port)], {"http": port}, cores)


def start_slow_farm(stage, cores):
    """Ten origins, each of which takes its time for an answer; the first 20 times as long as the others."""
    ports = [stage.free_port() for _ in range(10)]
    for i, port in enumerate(ports):
        delay_us = SLOW_US if i == 0 else SLOW_US // 20
        stage.start("origin", [stage.programs["origin"], str(port), str(delay_us)], {"http": port}, cores)
    return ports


def start_relay(stage, origin, name, options):
    port = stage.free_port()
    argv = [stage.programs["relay"]] + options + [str(port), str(origin)]
    return stage.start(name, argv, {"http": port, "tcp": port}, stage.proxy_cores)


def farm_doors(stage):
    return {"http": stage.free_port()}


def start_haproxy_of_farm(stage, ports):
    doors = farm_doors(stage)
    servers = "".join(f"    server s{port} 127.0.0.1:{port}\n" for port in ports)
    path = stage.write("haproxy-farm.cfg", template("haproxy-farm.cfg.in", http=doors["http"], servers=servers))
    return stage.start("haproxy", [stage.programs["haproxy"], "-db", "-f", path], doors, stage.proxy_cores)


def start_nginx_of_farm(stage, ports):
    doors, nginx = farm_doors(stage), stage.programs["nginx"]
    servers = "".join(f"        server 127.0.0.1:{port};\n" for port in ports)
    user = "user nobody nogroup;" if os.geteuid() == 0 else ""
    path = stage.write("nginx-farm.conf", template("nginx-farm.conf.in", folder=stage.folder, user=user,
                                                   http=doors["http"], servers=servers))
    return stage.start("nginx", [nginx, "-p", stage.folder, "-e", "stderr", "-c", path], doors, stage.proxy_cores)


def start_haproxy(stage, origin):
    doors = {**new_doors(stage), "grpc": stage.free_port()}
    config = template("haproxy.cfg.in", folder=stage.folder, origin=origin,
                      grpc_origin=stage.grpc_origin, **doors)
    path = stage.write(f"haproxy-{doors['http']}.cfg", config)
    return stage.start("haproxy", [stage.programs["haproxy"], "-db", "-f", path], doors,
                       stage.proxy_cores)


def stream_module(nginx):
    """Debian has nginx's TCP proxy as a module; an nginx built by hand may have it inside."""
    built = subprocess.run([nginx, "-V"], capture_output=True, text=True).stderr
    if "--with-stream=dynamic" not in built:
        return ""
    path = "/usr/lib/nginx/modules/ngx_stream_module.so"
    if not os.path.exists(path):
        raise BenchError("nginx has no stream module: apt-get install libnginx-mod-stream")
    return f"load_module {path};"


def start_nginx(stage, origin):
    doors, nginx = new_doors(stage), stage.programs["nginx"]
    user = "user nobody nogroup;" if os.geteuid() == 0 else ""
    config = template("nginx.conf.in", folder=stage.folder, origin=origin, user=user,
                      load_stream=stream_module(nginx), **doors)
    path = stage.write(f"nginx-{doors['http']}.conf", config)
    return stage.start("nginx", [nginx, "-p", stage.folder, "-e", "stderr", "-c", path], doors,
                       stage.proxy_cores)


def akashd_config(stage, origin, doors, workers):
    """A listener for each door and a backend for each origin; every other key has its default."""
    def address(port):
        return f"127.0.0.1:{port}"

    certificate = {"cert": f"{stage.folder}/cert.pem", "key": f"{stage.folder}/key.pem"}
    return {
        "workers": workers,
        "metrics": address(stage.free_port()),
        "control_socket": f"{stage.folder}/akashd-{doors['http']}.sock",
        "listeners": [
            {"name": "http", "address": address(doors["http"]), "mode": "http"},
            {"name": "https", "address": address(doors["https"]), "mode": "http",
             "tls": {"certificates": [certificate], "min_version": "1.3"}},
            {"name": "tcp", "address": address(doors["tcp"]), "mode": "tcp",
             "upstream": "origin"},
            {"name": "grpc", "address": address(doors["grpc"]), "mode": "http"},
        ],
        "routes": [{"listeners": ["grpc"], "upstream": "grpc"}, {"upstream": "origin"}],
        "upstreams": {
            "origin": {"backends": [{"address": address(origin)}]},
            "grpc": {"protocol": "h2", "backends": [{"address": address(stage.grpc_origin)}]},
        },
    }


def start_akashd(stage, origin, workers=1, cores=None, change=lambda config: None):
    """change may change the configuration, a dict, before it is written."""
    doors = {**new_doors(stage), "grpc": stage.free_port()}
    doors["h2c"] = doors["http"]  # told apart by the preface
    config = akashd_config(stage, origin, doors, workers)
    change(config)
    path = stage.write(f"akashd-{doors['http']}.json", json.dumps(config, indent=2))
    return stage.start("akashd", [stage.programs["akashd"], "-c", path], doors,
                       cores or stage.proxy_cores)


def all_off(config):
    """Nothing of what keeps a service up when its backends do not."""
    config["upstreams"]["origin"]["retry"] = False


def all_on(stage):
    """Breaker, retries with their budget, a rate limit that nobody meets, an access log on tmpfs."""
    log = os.path.join(stage.on_tmpfs(), "access.log")

    def change(config):
        config["access_log"] = log
        config["listeners"][0]["rate_limit"] = {"name": "bench", "rate": "1000000/s"}
        config["upstreams"]["origin"].update(circuit_breaker={}, retry={"attempts": 2})
    return change


def farm_of(ports, algorithm):
    def change(config):
        config["upstreams"]["origin"].update(
            algorithm=algorithm, backends=[{"address": f"127.0.0.1:{port}"} for port in ports])
    return change


STARTERS = {
    "akashd": start_akashd,
    "relay": lambda stage, origin: start_relay(stage, origin, "relay", []),
    "relay-splice": lambda stage, origin: start_relay(stage, origin, "relay-splice", ["--splice"]),
    "haproxy": start_haproxy,
    "nginx": start_nginx,
}
