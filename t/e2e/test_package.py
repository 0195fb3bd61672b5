# SPDX-License-Identifier: Apache-2.0
"""The Debian package: built by scripts/package, then installed, run and purged in a root of its own.

That root is an overlay of this machine's in namespaces of its own (mounts, network, processes): nothing of
what dpkg does there is seen outside.
"""

import os
import re
import subprocess

import pytest
from harness.akashd import TOP

# Runs as the first process of its namespaces; $1 is an empty folder, $2 the package, $3 a newer one.
OUTSIDE = r"""
set -eu
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc none "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs none "$1/root/run"
mkdir "$1/root/packages"
cp "$2" "$1/root/packages/first.deb"
cp "$3" "$1/root/packages/second.deb"
cp "$4" "$1/root/packages/steps"
# A container says no to services by these two; a machine has an init and a runlevel.
rm -f "$1/root/usr/sbin/policy-rc.d"
[ -e "$1/root/sbin/init" ] || ln -s /bin/true "$1/root/sbin/init"
rm -f "$1/root/sbin/runlevel"
printf '#!/bin/sh\necho N 2\n' >"$1/root/sbin/runlevel" && chmod 755 "$1/root/sbin/runlevel"
ip link set lo up
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive chroot "$1/root" bash /packages/steps
"""

STEPS = r"""
set -eu
trap 'echo "failed: line $LINENO: $BASH_COMMAND"' ERR
step() { echo "step: $*"; }
master() { cat /run/akashd.pid; }
code() { curl -q -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/; }
wait_for() { # a command that becomes true
    for _ in $(seq 200); do ! "$@" >/dev/null 2>&1 || return 0; sleep 0.05; done
    echo "waited in vain for: $*"
    return 1
}
serves() { [ "$(code)" = 200 ]; }
gone() { [ ! -d "/proc/$1" ]; }

step installed
dpkg -i /packages/first.deb
dpkg --verify akashd
id akashd
akashd -t -c /etc/akashd/akashd.json
man -w akashd.json >/dev/null

step started
service akashd status
first=$(master)
[ "$(stat -c %U "/proc/$(pgrep -f 'akashd: worker 0')")" = akashd ]
code | grep -qx '50[23]' # nobody listens where the example's backend is: refused, or known to be down
[ "$(akashctl -j status | grep -c '"ok"')" = 1 ]

step reloaded
python3 -m http.server --bind 127.0.0.1 8082 --directory /packages >/dev/null 2>&1 &
sed -i 's/:8081/:8082/' /etc/akashd/akashd.json
service akashd reload
wait_for serves
[ "$(master)" = "$first" ]
echo '{' >/tmp/wrong && cp /etc/akashd/akashd.json /tmp/good && cp /tmp/wrong /etc/akashd/akashd.json
! service akashd reload
[ "$(master)" = "$first" ] && [ "$(code)" = 200 ]
cp /tmp/good /etc/akashd/akashd.json

step upgraded
dpkg -i /packages/second.deb
[ "$(dpkg-query -W -f '${Version}' akashd)" = 99.0-1 ]
wait_for service akashd status
readlink "/proc/$(master)/exe" | grep -qx /usr/sbin/akashd # the file that is there now, not "(deleted)"
wait_for gone "$first"
grep -q 8082 /etc/akashd/akashd.json # what the operator wrote
wait_for serves

step removed
last=$(master)
dpkg -r akashd
wait_for gone "$last"
[ -z "$(pgrep -f '^akashd: ' || true)" ]
[ ! -e /usr/sbin/akashd ] && [ -e /etc/akashd/akashd.json ]

step "installed again"
dpkg -i /packages/first.deb
wait_for service akashd status
[ "$(code)" = 200 ]

step purged
dpkg -P akashd
[ ! -e /etc/akashd ] && [ ! -e /etc/init.d/akashd ] && [ ! -e /var/log/akashd ] && [ ! -e /etc/logrotate.d/akashd ]
left=$(find /etc/rc?.d /etc/systemd /var/lib/systemd /run -name "*akashd*")
[ -z "$left" ] || { echo "left behind: $left"; false; }
[ -z "$(pgrep -f '^akashd: ' || true)" ]
step end
"""

NAMESPACES = ["unshare", "-m", "-n", "-p", "-f", "--kill-child", "--propagation", "private"]


def can_overlay(folder):
    """Whether this machine lets us lay a root of our own over its root."""
    done = subprocess.run([*NAMESPACES, "sh", "-c", 'set -e; mount -t tmpfs none "$1"; mkdir "$1/u" "$1/w" "$1/r"; '
                           'mount -t overlay overlay -o "lowerdir=/,upperdir=$1/u,workdir=$1/w" "$1/r"',
                           "sh", str(folder)], capture_output=True, check=False)
    return done.returncode == 0


def control_file():
    return (TOP / "scripts" / "debian" / "control").read_text()


def test_package_has_the_version_of_the_tree():
    tree = re.search(r"AC_INIT\(\[akashd\], \[([^]]+)\]\)", (TOP / "configure.ac").read_text()).group(1)
    assert (TOP / "scripts" / "debian" / "changelog").read_text().startswith(f"akashd ({tree}-")


def test_build_dependencies_are_those_of_the_scripts():
    deps = (TOP / "scripts" / "deps").read_text()
    wanted = re.search(r'^build="([^"]*)"', deps, re.M).group(1).replace("\\\n", " ").split()
    listed = re.search(r"^Build-Depends:(.*(?:\n .*)*)", control_file(), re.M).group(1)
    listed = {entry.split()[0] for entry in listed.split(",")}
    assert set(wanted) | {"debhelper-compat", "check"} == listed


@pytest.mark.paper
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="dpkg needs root")
def test_package_over_a_whole_life(tmp_path):
    (tmp_path / "root").mkdir()
    if not can_overlay(tmp_path / "root"):
        pytest.skip("this machine gives no overlay of its root")
    built = subprocess.run([TOP / "scripts" / "package", tmp_path], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    first = built.stdout.split()[-1]
    second = tmp_path / "second.deb"
    subprocess.run(["dpkg-deb", "-R", first, tmp_path / "tree"], check=True)
    control = tmp_path / "tree" / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 99.0-1", control.read_text(), flags=re.M))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", tmp_path / "tree", second], check=True,
                   capture_output=True)
    (tmp_path / "steps").write_text(STEPS)
    done = subprocess.run([*NAMESPACES, "sh", "-c", OUTSIDE, "sh", tmp_path / "root", first, second, tmp_path / "steps"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0 and "step: end" in done.stdout, done.stdout
