# SPDX-License-Identifier: Apache-2.0
"""peers.py - real programs on both sides: curl as a client, nginx and haproxy as servers."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from .wire import free_port, until


def curl(*args, deadline=60, check=True, text=True):
    """Run curl without its user's configuration; the finished process."""
    done = subprocess.run(["curl", "-q", "-sS", "--noproxy", "*", *args], capture_output=True,
                          text=text, timeout=deadline)
    assert not check or done.returncode == 0, f"curl {args}: {done.returncode} {done.stderr}"
    return done


def can_connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


class Nginx:
    """nginx with one server; locations is the text inside of it, $root a folder for files."""

    def __init__(self, locations='location / { return 200 "ok"; }', http="", port=None):
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="akashd-nginx-"))
        self.folder.chmod(0o755)
        self.root = self.folder / "root"
        for name in ("root", "tmp"):
            (self.folder / name).mkdir(mode=0o755)
        user = "user root;" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(f"""
{user} worker_processes 1; daemon off; pid {self.folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_timeout 60s; keepalive_requests 100000000; client_max_body_size 0;
  client_body_temp_path {self.folder}/tmp; proxy_temp_path {self.folder}/tmp/p;
  fastcgi_temp_path {self.folder}/tmp/f; uwsgi_temp_path {self.folder}/tmp/u;
  scgi_temp_path {self.folder}/tmp/s;
  {http}
  server {{ listen 127.0.0.1:{self.port} backlog=4096; root {self.root}; {locations} }}
}}
""")
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        self.process = subprocess.Popen(
            [nginx, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")],
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        until(self._answers, "nginx")

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"nginx exited: {self.process.stderr.read().decode()}")
        return curl("-o", "/dev/null", f"http://127.0.0.1:{self.port}/", check=False).returncode == 0

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Haproxy:
    """haproxy with this configuration; port is one that it listens on."""

    def __init__(self, config, port):
        self.folder = Path(tempfile.mkdtemp(prefix="akashd-haproxy-"))
        path = self.folder / "haproxy.cfg"
        path.write_text(config)
        program = shutil.which("haproxy") or "/usr/sbin/haproxy"
        self.process = subprocess.Popen([program, "-db", "-q", "-f", str(path)], stderr=subprocess.PIPE)
        until(lambda: self.process.poll() is not None or can_connect(port), "haproxy")
        assert self.process.poll() is None, self.process.stderr.read().decode()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)
