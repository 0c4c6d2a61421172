# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian packages on clean machines that have nothing else of the project: installed, used, upgraded and downgraded
under load, removed, purged. `tests/packages` builds them and runs this; packaged.py says what it needs.
"""
import os
import pathlib

import pytest
from conftest import Hammer
from packaged import CONFFILE, PACKAGES, SERVE, Packaged, packages_of, repack, version_of

pytestmark = pytest.mark.skipif(not PACKAGES, reason="no packages: tests/packages makes them, and runs this")
UNITS = ("sockbrokerd.socket", "sockbrokerd.service", "sockbrokerd-links.socket", "run-sockbroker-bpf.mount",
         "sockbroker-routes.socket", "sockbroker-exporter.socket")
RESTARTED = ("sockbrokerd.service", "sockbrokerd@edge.service", "sockbroker-exporter.service")
CHANGED = "# by the owner of this machine\n"


@pytest.fixture(name="machine")
def _machine(tmp_path):
    machine = Packaged(None, tmp_path / "console.log", os.environ["SOCKBROKER_CLEAN"])
    yield machine
    machine.end()


@pytest.fixture(name="clients")
def _clients(machine):
    """Of echo.service, once it serves."""
    begun = []

    def begin() -> Hammer:
        begun.append(Hammer(machine, "198.51.100.1", 80))
        return begun[-1]
    yield begin
    for hammer in begun:
        hammer.abandon()


def none_lost(clients: Hammer) -> None:
    counts = clients.end()
    assert (counts["failed"], counts["errors"]) == (0, []) and counts["good"] > 1000


def serves(machine) -> None:
    assert machine.failed() == ""
    for unit in UNITS:
        assert machine.state(unit) == "active", unit
    machine.run("sockbrokerctl status")
    assert machine.out("curl -sS -m 5 http://192.0.2.1/").endswith("you asked for 192.0.2.1 port 80")
    assert "\nsockbroker_" in machine.out("curl -sS -m 5 http://127.0.0.1:9818/metrics")


def test_the_packages_serve_and_admit_nobody_before_they_are_told(machine):
    said = machine.install(pathlib.Path(PACKAGES))
    assert "rror" not in said.replace("liberror-perl", "") and "ailed" not in said and "arning" not in said, said
    for unit in UNITS:
        assert machine.state(unit) == "active", unit
    assert machine.out("systemctl is-enabled sockbrokerd.socket sockbrokerd.service").split() == ["enabled"] * 2
    assert machine.out("sockbrokerctl --json=short bindings") == "[]"
    machine.run("sockbrokerctl verify --strict")
    machine.run(SERVE, timeout=120)
    serves(machine)


def test_the_programs_tell_the_version_of_the_package(machine):
    """They are built from a tree that is no repository."""
    machine.install(pathlib.Path(PACKAGES))
    version = version_of(packages_of(pathlib.Path(PACKAGES))[0])
    assert version in machine.out("/usr/lib/sockbroker/sockbrokerd --version")
    said = machine.out("sockbrokerctl version").splitlines()
    assert said[0] == f"sockbrokerctl {version}" and version in said[1]


def test_an_upgrade_and_the_way_back_lose_no_connection(machine, clients, tmp_path):
    machine.install(pathlib.Path(PACKAGES))
    machine.run(SERVE, timeout=120)
    machine.run("mkdir -p /etc/sockbroker/netns/edge/conf.d && ip netns add edge && systemctl start "
                "sockbrokerd@edge.service")
    machine.run("curl -sS -m 5 http://127.0.0.1:9818/metrics >/dev/null")  # starts its service
    load = clients()
    before = [machine.show(unit, "MainPID") for unit in RESTARTED]
    since = machine.show("sockbrokerd.socket", "ActiveEnterTimestampMonotonic")
    newer = repack(pathlib.Path(PACKAGES), tmp_path / "newer", "+1")
    for folder in (newer, pathlib.Path(PACKAGES)):
        machine.install(folder, folder.name)
        installed = machine.out("dpkg-query -W -f '${Version}\\n' sockbroker libsockbroker0 libsockbroker-dev "
                                "sockbroker-exporter")
        assert set(installed.split()) == {version_of(packages_of(folder)[0])}
        now = [machine.show(unit, "MainPID") for unit in RESTARTED]
        assert not set(now) & {*before, "0"}, "they are the programs of that version"
        before = now
        assert machine.show("sockbrokerd.socket", "ActiveEnterTimestampMonotonic") == since, "messages may wait in it"
        load.wait_for_more(machine, 1000)
        serves(machine)
    none_lost(load)
    # A registration anew is the other broker's work.
    machine.run("systemctl restart hello.service && sockbrokerctl wait hello --for=live --timeout=30s")
    serves(machine)


def test_an_upgrade_starts_the_units_that_the_version_before_did_not_have(machine, clients, tmp_path):
    if not os.environ.get("SOCKBROKER_EARLIER"):
        pytest.skip("no packages of an earlier commit: this checkout has no history")
    machine.install(repack(pathlib.Path(os.environ["SOCKBROKER_EARLIER"]), tmp_path / "earlier", "~earlier"), "earlier")
    for unit in ("sockbrokerd-load.service", "sockbrokerd-links.socket", "sockbrokerd-links.service"):
        assert machine.show(unit, "LoadState") == "not-found", unit
    machine.run(SERVE, timeout=120)
    load = clients()
    machine.install(pathlib.Path(PACKAGES))
    load.wait_for_more(machine, 1000)
    serves(machine)
    for unit in ("sockbrokerd-load.service", "sockbrokerd-links.service"):
        assert machine.show(unit, "Result") == "success"
        assert machine.show(unit, "ExecMainStartTimestampMonotonic") != "0", f"{unit} was started"
    none_lost(load)
    machine.run("systemctl restart hello.service && sockbrokerctl wait hello --for=live --timeout=30s")
    serves(machine)


def test_a_conffile_is_its_owners_once_it_was_changed(machine, tmp_path):
    newer = repack(pathlib.Path(PACKAGES), tmp_path / "newer", "+1", "# of the newer version\n")
    newest = repack(pathlib.Path(PACKAGES), tmp_path / "newest", "+2", "# of the newest version\n")
    machine.install(pathlib.Path(PACKAGES))
    assert machine.out("dpkg-query -W -f '${Conffiles}' sockbroker").split()[::2] == [CONFFILE]
    machine.install(newer, "newer")
    assert machine.out(f"tail -n 1 {CONFFILE}") == "# of the newer version", "nobody had changed it"
    machine.run(f"cat >> {CONFFILE}", text=CHANGED)
    machine.install(newest, "newest")
    assert machine.out(f"tail -n 1 {CONFFILE}") == CHANGED.strip()


def test_a_purge_leaves_nothing_that_the_packages_brought(machine):
    before = machine.files()
    machine.install(pathlib.Path(PACKAGES))
    machine.run(SERVE, timeout=120)
    machine.run("mkdir -p /etc/sockbroker/netns/edge/conf.d && ip netns add edge && systemctl start "
                "sockbrokerd@edge.service")
    serves(machine)
    machine.run("sed -i '/^Unit=/a LocalRoutes=yes' /etc/sockbroker/conf.d/echo.conf; "
                "ip route del local 198.51.100.0/24 dev lo; systemctl reload sockbrokerd")
    made = "ip route show table local proto 83; ip -6 route show table local proto 83"
    machine.run(f"timeout 20 sh -c 'until [ \"$({made})\" ]; do sleep 0.1; done'")

    machine.run("apt-get -q -y remove sockbroker-exporter libsockbroker-dev libsockbroker0 sockbroker 2>&1",
                timeout=120)
    assert machine.run("curl -s -m 5 http://192.0.2.1/",
                       check=False).returncode == 7, "dispatch is gone with the package"
    assert machine.out(made) == "", "and the routes that it made are"
    assert machine.out("systemctl list-units --all --plain --no-legend 'sockbroker*' '*sockbroker-bpf*' | grep -w -e "
                       "active -e failed || true") == ""
    assert machine.run("mountpoint -q /run/sockbroker/bpf", check=False).returncode != 0
    assert machine.out("ls /etc/sockbroker/conf.d").split() == ["10-local.conf", "echo.conf",
                                                                "hello.conf"], "removal keeps settings"

    machine.run("dpkg --purge sockbroker-exporter libsockbroker-dev libsockbroker0 sockbroker 2>&1", timeout=120)
    assert machine.run("ls -d /run/sockbroker", check=False).returncode != 0
    assert machine.out("ls /etc/sockbroker/conf.d").split() == [
        "echo.conf", "hello.conf"], "what it has not brought is not its to remove"
    machine.run("systemctl stop hello.service echo.service; ip netns del edge; rm -r /etc/sockbroker "
                "/etc/systemd/system/hello.service"
                " /etc/systemd/system/echo.service; systemctl daemon-reload")
    assert sorted(machine.files() - before) == []
    # Debian keeps accounts, so that no other one gets the number. It cannot log in, and nothing is its own.
    assert machine.out("getent shadow sockbroker").split(":")[1].startswith("!")
    assert machine.out("getent passwd sockbroker").endswith("/nologin")
    assert machine.out("find / \\( -path /proc -o -path /sys \\) -prune -o \\( -user sockbroker -o -group sockbroker "
                       "\\) -print") == ""
