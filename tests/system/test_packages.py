# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian packages on a clean machine that has nothing else of the project: installed, used, installed again under load,
removed, purged. It runs with

    SOCKBROKER_PACKAGES  the folder that has them
    SOCKBROKER_CLEAN     a root that has what they depend on, and curl, iproute2 and python3
"""
import os
import pathlib
import shutil

import pytest
from machine import Machine

PACKAGES = os.environ.get("SOCKBROKER_PACKAGES")
pytestmark = pytest.mark.skipif(not PACKAGES, reason="no packages: SOCKBROKER_PACKAGES")
DOCS = "/usr/share/doc/sockbroker"
SERVE = f"""
ip route add local 192.0.2.0/24 dev lo
ip route add local 2001:db8:1::/48 dev lo
cp {DOCS}/examples/hello.service /etc/systemd/system/
cp {DOCS}/examples/conf.d/hello.conf /etc/sockbroker/conf.d/
systemctl daemon-reload && systemctl reload sockbrokerd && systemctl start hello.service
sockbrokerctl wait hello --for=live --timeout=30s
"""
ASK = """#!/bin/sh
while :; do
        curl -sS -m 10 http://192.0.2.1/ >/dev/null && echo asked || echo failed
done >>/run/asked 2>&1
"""


@pytest.fixture(name="machine")
def _machine(tmp_path):
    machine = Machine(None, tmp_path / "console.log", os.environ["SOCKBROKER_CLEAN"])
    try:
        (pathlib.Path(f"/proc/{machine.leader}/root/root/packages")).mkdir()
        for package in pathlib.Path(PACKAGES).glob("*.deb"):
            if "-dbgsym_" not in package.name:
                shutil.copy(package, f"/proc/{machine.leader}/root/root/packages")
        yield machine
    finally:
        machine.end()


def install(machine):
    return machine.run("DEBIAN_FRONTEND=noninteractive dpkg -i /root/packages/*.deb 2>&1", timeout=300).stdout


def asked(machine):
    return int(machine.out("grep -c asked /run/asked || true") or 0)


def until_asked(machine, times):
    machine.until(f"{times} questions answered", lambda: asked(machine) >= times, 60)


def state(machine, unit):
    return machine.run(f"systemctl is-active {unit}", check=False).stdout.strip()


def test_install_serve_upgrade_remove_and_purge(machine):
    said = install(machine)
    assert "rror" not in said and "ailed" not in said, said
    for unit in ("sockbrokerd.socket", "sockbrokerd.service", "run-sockbroker-bpf.mount", "sockbroker-exporter.socket"):
        assert state(machine, unit) == "active", unit
    assert machine.out("systemctl is-enabled sockbrokerd.socket sockbrokerd.service").split() == ["enabled"] * 2
    # The first policy is safe: it admits nobody.
    assert machine.out("sockbrokerctl --json=short bindings") == "[]"
    machine.run("sockbrokerctl verify --strict")
    assert machine.out("dpkg-query -W -f '${Conffiles}' sockbroker").split()[0] == "/etc/sockbroker/conf.d/10-local.conf"

    machine.run(SERVE, timeout=120)
    assert machine.out("curl -s http://192.0.2.1/").endswith("you asked for 192.0.2.1 port 80")
    assert "\nsockbroker_" in machine.out("curl -s http://127.0.0.1:9818/metrics")

    # Installed again, as an upgrade does it, while clients ask. The broker is another process; sockets and mount stay.
    before = machine.show("sockbrokerd.service", "MainPID")
    since = machine.show("sockbrokerd.socket", "ActiveEnterTimestampMonotonic")
    machine.run("echo '# changed' >> /etc/sockbroker/conf.d/10-local.conf")
    machine.write("/root/ask", ASK, "755")
    machine.run("systemd-run --quiet --unit=ask /root/ask")
    install(machine)
    until_asked(machine, asked(machine) + 20)
    machine.run("systemctl stop ask")
    assert "failed" not in machine.out("cat /run/asked")
    assert machine.show("sockbrokerd.service", "MainPID") != before
    assert machine.show("sockbrokerd.socket", "ActiveEnterTimestampMonotonic") == since
    assert machine.out("tail -n 1 /etc/sockbroker/conf.d/10-local.conf") == "# changed", "a conffile is its owner's"

    machine.run("dpkg --remove sockbroker-exporter libsockbroker-dev libsockbroker0 sockbroker 2>&1", timeout=120)
    assert machine.run("curl -s -m 5 http://192.0.2.1/", check=False).returncode == 7, "dispatch is gone with the package"
    for unit in ("sockbrokerd.socket", "sockbrokerd.service", "sockbroker-exporter.socket"):
        assert state(machine, unit) != "active", unit
    assert machine.run("mountpoint -q /run/sockbroker/bpf", check=False).returncode != 0
    assert machine.out("ls /etc/sockbroker/conf.d").split() == ["10-local.conf", "hello.conf"]

    machine.run("dpkg --purge sockbroker-exporter sockbroker 2>&1")
    assert machine.out("ls -d /var/lib/sockbroker /etc/sockbroker/conf.d/10-local.conf /run/sockbroker 2>/dev/null || true") == ""
    assert machine.out("ls /etc/sockbroker/conf.d") == "hello.conf", "what the package has not brought is not its to remove"
