# SPDX-License-Identifier: Apache-2.0
"""The papers: what the guides and manual pages show is checked by the programs that read it."""

import json
import os
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from harness import until
from harness.akashd import TOP, binary
from harness.fronts import Authority

GUIDES = TOP / "conf" / "guides"
MACHINES = GUIDES / "machines"
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
pytestmark = pytest.mark.paper


def tool(name):
    """The path of a program that scripts/deps installs."""
    path = shutil.which(name, path=PATH)
    if not path:
        pytest.fail(f"{name} is not installed; scripts/deps test installs it")
    return path


def run(*command, **kw):
    # A session of its own: keepalived -t ends with a signal to its whole group.
    return subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=30, start_new_session=True, check=False, **kw)


def check(path):
    done = run(binary(), "-t", "-c", path)
    assert done.returncode == 0 and "warning" not in done.stdout, done.stdout


def block(guide, language):
    """The one fenced block of that language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", (GUIDES / guide).read_text(), re.S | re.M)
    assert len(found) == 1
    return found[0]


@pytest.fixture
def files(tmp_path):
    """Write a text that names /etc/ssl/… and logs, with certificates and folders of the test in their place."""
    authority = Authority()
    cert, key = authority.issue("example.com")
    pem = Path(cert).read_bytes() + Path(key).read_bytes()
    (tmp_path / "example.com.pem").write_bytes(pem)
    (tmp_path / "example.com.key").write_bytes(Path(key).read_bytes())

    def write(name, text):
        text = text.replace("/etc/ssl/", f"{tmp_path}/")
        text = re.sub(r"/var/log/(nginx|akashd)/", f"{tmp_path}/", text)
        (tmp_path / name).write_text(text)
        return tmp_path / name
    return write


# -- coming from nginx and HAProxy

@pytest.mark.parametrize("guide", ["from-nginx.md", "from-haproxy.md"])
def test_akashd_takes_its_side_of_the_guide(files, guide):
    check(files("akashd.json", block(guide, "json")))


def test_nginx_takes_its_side_of_the_guide(files, tmp_path):
    text = f"pid {tmp_path}/nginx.pid;\nerror_log stderr;\n" + block("from-nginx.md", "nginx")
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    assert module.exists(), "scripts/deps test installs it"
    text = f"load_module {module};\n{text}"
    done = run(tool("nginx"), "-t", "-q", "-p", tmp_path, "-c", files("nginx.conf", text))
    assert done.returncode == 0 and done.stdout == "", done.stdout


def test_haproxy_takes_its_side_of_the_guide(files):
    done = run(tool("haproxy"), "-c", "-q", "-f", files("haproxy.cfg", block("from-haproxy.md", "haproxy")))
    assert done.returncode == 0 and "[ALERT]" not in done.stdout, done.stdout


@pytest.mark.parametrize("guide, language, pattern", [
    ("from-nginx.md", "nginx", r"(?<=server )\d+\.\d+\.\d+\.\d+:\d+"),
    ("from-haproxy.md", "haproxy", r"(?<= )\d+\.\d+\.\d+\.\d+:\d+")])
def test_both_sides_name_the_same_backends(guide, language, pattern):
    config = json.loads(block(guide, "json"))
    ours = {backend["address"] for upstream in config["upstreams"].values() for backend in upstream["backends"]}
    assert ours == set(re.findall(pattern, block(guide, language)))


# -- several machines

def test_file_for_every_machine_is_good():
    check(MACHINES / "akashd.json")


def keepalived(path):
    """What keepalived has to say; it ends by a signal to itself, so its words alone tell."""
    return run(tool("keepalived"), "-t", "-f", path).stdout.replace("Terminated", "").strip()


def test_keepalived_takes_its_file(tmp_path):
    text = (MACHINES / "keepalived.conf").read_text()
    assert keepalived(MACHINES / "keepalived.conf") == ""
    (tmp_path / "wrong.conf").write_text(re.sub(r"akashd_ready\n    }", "nonesuch\n    }", text))
    assert "nonesuch" in keepalived(tmp_path / "wrong.conf")


def test_bird_takes_its_file(tmp_path):
    done = run(tool("bird"), "-p", "-c", MACHINES / "bird.conf")
    assert done.returncode == 0 and done.stdout == "", done.stdout


def test_zone_is_valid():
    done = run(tool("named-checkzone"), "service.example.com", MACHINES / "service.example.com.zone")
    assert done.returncode == 0 and done.stdout.rstrip().endswith("OK"), done.stdout


def test_kubernetes_file_fits_the_file_of_akashd():
    """The node ports and the port of the health check are those that akashd.json names."""
    import yaml
    service = yaml.safe_load((MACHINES / "kubernetes.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    printed = run(binary(), "-T", "-c", MACHINES / "akashd.json").stdout
    upstreams = json.loads(printed[printed.index("{"):])["upstreams"]
    ours = {backend["address"].rsplit(":", 1)[1] for up in upstreams.values() for backend in up["backends"]}
    assert ours == {str(port["nodePort"]) for port in service["spec"]["ports"]}
    assert {str(up["health_check"]["port"]) for up in upstreams.values()} == {str(service["spec"]["healthCheckNodePort"])}


def test_announcing_follows_readiness(tmp_path):
    """announce.sh against a server that is ready when the test says so, and a birdc that writes down what it hears."""
    status = [200]

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass
    server = HTTPServer(("127.0.0.1", 0), Ready)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    said = tmp_path / "said"
    (tmp_path / "birdc").write_text(f'#!/bin/sh\necho "$*" >>{said}\n')
    (tmp_path / "birdc").chmod(0o755)
    process = subprocess.Popen(["sh", MACHINES / "announce.sh"], env={
        **os.environ, "PAUSE": "0.05", "BIRDC": str(tmp_path / "birdc"),
        "READY": f"http://127.0.0.1:{server.server_port}/readyz"})
    try:
        for code, word in ((200, "enable"), (503, "disable"), (200, "enable")):
            status[0] = code
            until(lambda: said.exists() and said.read_text().splitlines()[-1:] == [f"{word} service"], word)
        process.terminate()
        assert process.wait(10) == 0
        assert said.read_text().split("\n")[:-1] == [
            "enable service", "disable service", "enable service", "disable service"]
    finally:
        process.kill()
        server.shutdown()
        server.server_close()


# -- manual pages and links

def pages():
    return [*sorted((TOP / "master").glob("*.[18]")), TOP / "conf" / "akashd.json.5"]


def test_manual_pages_have_no_mistake():
    for page in pages():
        done = subprocess.run([tool("man"), "--warnings", "-l", page], capture_output=True, text=True, check=False,
                              env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100"})
        assert (done.returncode, done.stderr) == (0, ""), page
    if shutil.which("mandoc"):
        for page in pages():
            assert run("mandoc", "-T", "lint", "-W", "error", page).stdout == ""


@pytest.mark.parametrize("program, page", [("akashd", "akashd.8"), ("akashctl", "akashctl.1")])
def test_manual_pages_know_every_option(program, page):
    text = (TOP / "master" / page).read_text().replace("\\-", "-")  # roff writes a minus so
    usage = run(binary(program), "-h").stdout
    letters = set(re.findall(r"(?<![\w-])-([A-Za-z])\b", usage))
    words = set(re.findall(r"(?<!\w)--([a-z][a-z-]*)", usage))
    flags = set(re.findall(r"(?:Fl |[|] )(-?[\w-]+)", text))
    assert letters
    assert not {letter for letter in letters if letter not in flags and f"-{letter}" not in text}
    assert not {word for word in words if f"-{word}" not in flags and f"--{word}" not in text}


def markdown():
    return [path for path in TOP.glob("**/*.md") if not re.match(r"build|\.", str(path.relative_to(TOP)))]


def test_links_between_the_papers_lead_somewhere():
    assert len(markdown()) > 8
    for paper in markdown():
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", paper.read_text()):
            assert (paper.parent / link).exists(), f"{paper}: {link}"
