# SPDX-License-Identifier: Apache-2.0
"""Included files: a folder of sites, through the start, every reload, the tools and an upgrade."""

import json
import os
import shutil
import socket
import ssl
import subprocess

import pytest

from harness import Akashd, Authority, Client, Farm, Load, free_port, until
from harness.akashd import binary


@pytest.fixture(scope="module")
def farm():
    made = Farm(3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def authority():
    return Authority()


class Sites:
    """A daemon whose sites stand in conf.d/, a file each."""

    def __init__(self, farm, workers=4, **top):
        self.port, self.farm = free_port(), farm
        self.daemon = Akashd({"include": ["conf.d/*.json"], "workers": workers, **top,
                              "listeners": [{"name": "web", "address": f"127.0.0.1:{self.port}"}]},
                             start=False)
        self.folder = self.daemon.folder / "conf.d"
        self.folder.mkdir()

    def site(self, name, backend, more=(), **top):
        """conf.d/NAME.json: a host of that name, served by one of the farm."""
        return self.write(name, json.dumps({
            "upstreams": {name: {"backends": [{"address": self.farm.addresses[backend]}], "health_check": False}},
            "routes": [{"host": f"{name}.test", "upstream": name}, *more], **top}, indent=1))

    def write(self, name, text):
        file = self.folder / f"{name}.json"
        file.write_text(text)
        return file

    def ask(self, name):
        """The backend that answers for a host, or the status where none does."""
        with Client(self.port) as client:
            answer = client.ask(fields=[("Host", f"{name}.test")])
            return answer.text if answer.status == 200 else answer.status

    def check(self, *options):
        """akashd -t or -T of the file: exit status, output, errors."""
        done = subprocess.run([binary(), *options, "-c", "akashd.json"], cwd=self.daemon.folder,
                              capture_output=True, text=True, timeout=30, env=self.daemon.env)
        return done.returncode, done.stdout, done.stderr

    def upstreams(self):
        return [u["name"] for u in json.loads(self.daemon.ctl("-j", "status").stdout)["status"]["upstreams"]]


@pytest.fixture
def sites(farm):
    made = Sites(farm)
    yield made
    if made.daemon in Akashd.running:
        made.daemon.stop()
    else:
        shutil.rmtree(made.daemon.folder)


def lines(text):
    return [line.partition("error: ")[2] or line for line in text.splitlines()]


# -- start and reload

def test_folder_of_sites_is_served_by_all_workers(sites):
    sites.site("one", 0)
    sites.site("two", 1)
    sites.daemon.start()
    assert {(n, sites.ask(n)) for n in ["one", "two", "three"] * 8} == {("one", "b0"), ("two", "b1"), ("three", 404)}


def test_backend_by_name_in_an_included_file(sites):
    """The name is asked for between two readings of the same files."""
    port = sites.farm.addresses[1].rpartition(":")[2]
    sites.write("one", json.dumps({"routes": [{"host": "one.test", "upstream": "one"}], "upstreams": {
        "one": {"backends": [{"address": f"localhost:{port}"}], "health_check": False}}}))
    sites.daemon.start()
    assert {sites.ask("one") for _ in range(8)} == {"b1"}


def test_empty_folder_and_none_are_fine(sites):
    sites.folder.rmdir()
    sites.daemon.write({**sites.daemon.config, "upstreams": {"u": {"backends": [{"address": "127.0.0.1:9"}]}}})
    assert sites.check("-t")[0] == 0
    sites.folder.mkdir()
    assert sites.check("-t")[0] == 0


def test_reload_sees_files_that_come_change_and_go(sites):
    sites.site("one", 0)
    sites.daemon.start()
    hashes = [sites.daemon.metrics().value("akash_config_hash")]

    def reload(*told):
        said = sites.daemon.reload().stdout
        for text in told:
            assert text in said, said
        old = hashes[-1]
        hashes.append(sites.daemon.wait_metric("akash_config_hash", lambda v: v != old))

    sites.site("two", 1)
    reload("+ upstreams.two", "+ routes[host=two.test]")
    assert sites.ask("two") == "b1"
    sites.site("two", 2)
    reload(f"+ upstreams.two.backends[{sites.farm.addresses[2]}]", f"- upstreams.two.backends[{sites.farm.addresses[1]}]")
    assert sites.ask("two") == "b2"
    (sites.folder / "one.json").unlink()
    reload("- upstreams.one")
    assert (sites.ask("one"), sites.ask("two")) == (404, "b2")
    assert len(set(hashes)) == 4
    assert "nothing has changed" in sites.daemon.reload().stdout


def test_reloads_under_load_lose_nothing(sites):
    sites.site("one", 0, more=[{"upstream": "one"}])
    sites.daemon.start()
    with Load(sites.port, keepalive=4, fresh=4, check=sites.farm.check) as load:
        load.wait_total(20)
        for step in range(8):
            sites.site("one", step % 3, more=[{"upstream": "one"}])
            sites.site("two", (step + 1) % 3)
            sites.daemon.reload()
            (sites.folder / "two.json").unlink()
            sites.daemon.reload()
    load.account.assert_all_ok(20)


def test_broken_file_leaves_the_former_configuration(sites):
    sites.site("one", 0)
    sites.daemon.start()
    sites.site("two", 1)
    sites.write("three", '{\n  "routes": [\n    { "host": "one.test", "upstream": "two", }\n  ]\n}\n')
    told = sites.daemon.ctl("reload")
    assert told.returncode == 1
    assert f"{sites.folder}/three.json:3:46: expected a key after the comma" in told.stderr
    assert (sites.ask("one"), sites.ask("two")) == ("b0", 404)
    assert sites.daemon.metrics().value("akash_config_last_reload_successful") == 0
    sites.daemon.wait_log("conf.d/three.json:3:46")
    sites.write("three", '{\n  "routes": [\n    { "host": "three.test", "upstream": "gone" }\n  ]\n}\n')
    told = sites.daemon.ctl("reload")
    assert told.returncode == 1
    assert f"{sites.folder}/three.json:3:41: routes[0].upstream: there is no upstream gone" in told.stderr
    (sites.folder / "three.json").unlink()
    sites.daemon.reload()
    assert (sites.ask("one"), sites.ask("two")) == ("b0", "b1")


def test_certificate_beside_the_included_file(sites, farm, authority):
    """Its path is relative to conf.d, and the workers, which open no file, have it from their bundle."""
    port = free_port()
    for stem in ("first", "second"):
        cert, key = authority.issue("one.test", stem=f"include-{stem}")
        shutil.copy(cert, sites.folder / "cert.pem")
        shutil.copy(key, sites.folder / "key.pem")
        serial = ssl.PEM_cert_to_DER_cert((sites.folder / "cert.pem").read_text())
        if stem == "first":
            sites.site("one", 0, listeners=[{"name": "tls", "address": f"127.0.0.1:{port}", "tls": {
                "certificates": [{"cert": "cert.pem", "key": "key.pem"}]}}])
            sites.daemon.start()
        else:
            assert "listeners[tls].tls" in sites.daemon.reload().stdout
        context = ssl.create_default_context(cafile=authority.file)
        for _ in range(8):
            with socket.create_connection(("127.0.0.1", port), 10) as plain:
                with context.wrap_socket(plain, server_hostname="one.test") as wrapped:
                    assert wrapped.getpeercert(binary_form=True) == serial
    (sites.folder / "key.pem").unlink()
    told = sites.daemon.ctl("reload")
    assert told.returncode == 1 and f"cannot read {sites.folder}/key.pem" in told.stderr
    assert f"{sites.folder}/one.json:" in told.stderr


# -- what is told

def test_every_error_of_every_file_is_told_at_once_and_in_order(sites):
    sites.daemon.write({**sites.daemon.config, "drain": 1})
    sites.write("b", '{ "upstreams": { "b": { "backends": [ { "address": "127.0.0.1:1", "weight": 0 } ] } },\n'
                     '  "workers": 3 }')
    sites.write("a", '{ "upstreams": { "a": { "backends": [] } },\n  "routes": [ { "upstream": "c" } ] }')
    code, _, errors = sites.check("-t")
    assert code == 1
    where = [line.split(": ")[0] for line in lines(errors)]
    assert where[0].startswith("akashd.json:")
    assert where[1:] == ["conf.d/a.json:1:37", "conf.d/a.json:2:29", "conf.d/b.json:1:77", "conf.d/b.json:2:3"], errors
    assert "duplicate key; it is at akashd.json:" in errors


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p),
                                  lambda p: os.symlink("nowhere", p), lambda p: open(p, "w").write(" " * (1 << 20) + "x")],
                         ids=["fifo", "folder", "device", "dangling", "large"])
def test_what_is_no_file_is_an_error_and_holds_nothing_up(sites, make):
    sites.site("one", 0)
    sites.daemon.start()
    make(sites.folder / "two.json")
    told = sites.daemon.ctl("reload")
    assert told.returncode == 1
    assert f"include[0]: cannot read {sites.folder}/two.json: " in told.stderr
    assert sites.ask("one") == "b0"


def test_name_that_is_not_there_is_an_error_at_its_place(sites):
    sites.daemon.write('{ "include": [ "conf.d/*.json",\n  "conf.d/gone.json" ],\n  "listeners": 7 }')
    code, _, errors = sites.check("-t")
    assert code == 1
    assert lines(errors) == ["akashd.json:2:3: include[1]: cannot read conf.d/gone.json: No such file or directory"]


def test_short_form_includes_nothing(sites):
    sites.daemon.write('{ "include": "conf.d/*.json",\n  "Backends": [ { "address": "127.0.0.1:1" } ] }')
    code, _, errors = sites.check("-t")
    assert code == 1
    assert 'akashd.json:2:3: Backends: a key of the short form cannot stand beside "include"' in errors


# -- the tools

def test_effective_configuration_is_one_file(sites, tmp_path):
    sites.site("one", 0, access_log="log/access.log")
    sites.site("two", 1)
    code, text, errors = sites.check("-T")
    assert code == 0, errors
    whole = json.loads(text)
    assert "include" not in whole
    assert list(whole["upstreams"]) == ["one", "two"]
    assert [route["host"] for route in whole["routes"]] == ["one.test", "two.test"]
    assert whole["access_log"]["target"] == f"{sites.folder.resolve()}/log/access.log"
    (tmp_path / "whole.json").write_text(text)
    again = subprocess.run([binary(), "-T", "-c", str(tmp_path / "whole.json")], capture_output=True, text=True, timeout=30)
    assert again.stdout == text


def test_diff_tells_what_a_file_in_the_folder_would_change(sites):
    sites.site("one", 0)
    sites.daemon.start()
    assert "nothing" in sites.daemon.ctl("diff").stdout
    sites.site("two", 1)
    other = sites.daemon.folder / "other.json"
    other.write_text(sites.daemon.file.read_text())
    for command in (["diff"], ["diff", str(other)]):
        done = sites.daemon.ctl(*command)
        assert done.returncode == 0 and "+ upstreams.two" in done.stdout, done
    sites.write("two", "{\n 7")
    done = sites.daemon.ctl("diff")
    assert done.returncode == 1 and "conf.d/two.json:2:2" in done.stderr
    assert sites.upstreams() == ["one"]


def test_upgrade_reads_the_folder_again(sites):
    sites.site("one", 0)
    sites.daemon.start()
    sites.site("two", 1)
    sites.daemon.upgrade()
    # For an instant the former workers accept as well.
    until(lambda: sites.daemon.former[0].poll() is not None, "the former master's end")
    assert (sites.ask("one"), sites.ask("two")) == ("b0", "b1")
    sites.site("three", 2)
    sites.daemon.reload()
    assert sites.ask("three") == "b2"


def test_weight_set_by_hand_is_built_from_the_bundle(sites):
    """No file is read for it: neither a new one nor a broken one matters."""
    sites.site("one", 0)
    sites.daemon.start()
    sites.write("two", "{ broken")
    done = sites.daemon.ctl("weight", f"one/{sites.farm.addresses[0]}", "7")
    assert done.returncode == 0, done
    assert {sites.ask("one") for _ in range(8)} == {"b0"}


def test_worker_that_died_comes_back_with_the_files_it_had(sites):
    sites.site("one", 0)
    sites.daemon.start()
    (sites.folder / "one.json").unlink()
    before = len(sites.daemon.log)
    sites.daemon.workers()[0].kill()
    sites.daemon.wait_log("worker 0: died: .*respawned", since=before)
    assert {sites.ask("one") for _ in range(16)} == {"b0"}
