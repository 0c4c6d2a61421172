# SPDX-License-Identifier: LGPL-2.1-or-later
"""One machine for the session; each test gets it with the broker running, no policy, and none of its services."""
import os
import pathlib
import shutil
import subprocess

import pytest
from machine import Machine

SOURCE = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = "/usr/share/doc/sockbroker/examples"
# The AnyIP routes by which a machine takes the prefixes of the example policies as its own.
PREFIXES = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"]


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """The project as `meson install` puts it."""
    build = pathlib.Path(os.environ.get("MESON_BUILD_ROOT", SOURCE / "build"))
    folder = tmp_path_factory.mktemp("stage", numbered=True)
    subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", folder], check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def booted(stage, tmp_path_factory):
    machine = Machine(stage, tmp_path_factory.mktemp("machine") / "console.log")
    try:
        for prefix in PREFIXES:
            machine.run(f"ip route add local {prefix} dev lo")
        yield machine
    finally:
        machine.end()


class Broker:
    """The machine, and what tests do to the broker in it."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.units = []

    def __getattr__(self, name):
        return getattr(self.machine, name)

    def policy(self, name: str, text: str | None) -> None:
        """Writes /etc/sockbroker/conf.d/NAME; nothing is reloaded."""
        path = f"/etc/sockbroker/conf.d/{name}"
        if text is None:
            self.run(f"rm -f {path}")
        else:
            self.write(path, text)

    def example(self, name: str, *units: str) -> None:
        """Puts an example's units and policy where install.md says, and reloads both managers."""
        self.run(f"mkdir -p /etc/sockbroker/conf.d && cp {EXAMPLES}/conf.d/{name}.conf /etc/sockbroker/conf.d/")
        for unit in units:
            self.run(f"cp {EXAMPLES}/{unit} /etc/systemd/system/")
            self.units.append(unit)
        self.run("systemctl daemon-reload")
        self.reload()

    def unit(self, name: str, text: str) -> None:
        self.write(f"/etc/systemd/system/{name}", text)
        self.units.append(name)
        self.run("systemctl daemon-reload")

    def reload(self) -> None:
        self.run("systemctl reload sockbrokerd")

    def status(self) -> dict:
        """The broker's own line of status, and its services by name."""
        import json
        lines = [json.loads(line) for line in self.run("/opt/system-tests/client.py control VERB=status")
                 .stdout.splitlines() if line.startswith("{")]
        return {**lines[0], "services": {line["service"]: line for line in lines[1:]}}

    def list(self) -> list[dict]:
        import json
        return [json.loads(line) for line in self.run("/opt/system-tests/client.py control VERB=list")
                .stdout.splitlines() if line.startswith("{")]

    def client(self, *words, check=True):
        import shlex
        return self.run("/opt/system-tests/client.py " + " ".join(shlex.quote(str(w)) for w in words), check=check)

    def pid(self) -> int:
        return int(self.show("sockbrokerd", "MainPID"))


@pytest.fixture
def broker(booted):
    given = Broker(booted)
    given.run("systemctl start sockbrokerd.socket sockbrokerd.service")
    yield given
    # Clean again, whatever the test has left: the broker up, without policy, nothing registered, no unit.
    for unit in given.units:
        given.run(f"systemctl stop {unit}; systemctl reset-failed {unit}", check=False)
        given.run(f"rm -rf /etc/systemd/system/{unit} /etc/systemd/system/{unit}.d")
    given.run("systemctl daemon-reload; rm -rf /etc/sockbroker")
    given.run("systemctl start sockbrokerd.socket; systemctl restart sockbrokerd; systemctl reload sockbrokerd")



@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    machine = item.funcargs.get("booted") or getattr(item.funcargs.get("broker"), "machine", None)
    if report.failed and machine and machine.leader:
        shown = machine.run("journalctl -q -b -n 60 --no-pager -o short-precise", check=False, timeout=10)
        report.sections.append(("journal of the machine", shown.stdout))
