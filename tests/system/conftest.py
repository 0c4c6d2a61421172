# SPDX-License-Identifier: LGPL-2.1-or-later
"""One machine for the session; each test gets it with the broker running, no policy, and none of its services."""
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from machine import Machine

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests"))
EXAMPLES = "/usr/share/doc/sockbroker/examples"
CLIENT = "/opt/system-tests/client.py"
# The AnyIP routes by which a machine takes the prefixes of the example policies as its own.
# tests/sandbox/try_out: a broker that tells what its filter would refuse, and refuses nothing.
TRIAL = os.environ.get("SOCKBROKER_TRIAL")
PREFIXES = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"]

EARLY_SOCKET = f"""\
[Unit]
Wants=sockbrokerd.socket
After=sockbrokerd.socket
[Socket]
ListenStream=127.0.0.99:99
Service=systemd-exit.service
ExecStartPost={CLIENT} control VERB=version
"""


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """The project as `meson install` puts it."""
    build = pathlib.Path(SOURCE / "build" if TRIAL else os.environ.get("SOCKBROKER_BUILD", SOURCE / "build"))
    folder = tmp_path_factory.mktemp("stage")
    if "SOCKBROKER_STAGE" in os.environ:  # of another Debian, whose meson has installed it
        shutil.copytree(os.environ["SOCKBROKER_STAGE"], folder, symlinks=True, dirs_exist_ok=True)
    else:
        subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", folder], check=True)
    # One thing of the tests' own that must be there at boot, see test_boot.py.
    units = folder / "usr/lib/systemd/system"
    (units / "early.socket").write_text(EARLY_SOCKET)
    # And the clients of ../load.
    (folder / "usr/lib/sockbroker-tests").mkdir()
    shutil.copy(build / "tests/load/load", folder / "usr/lib/sockbroker-tests")
    (units / "sockets.target.wants").mkdir()
    (units / "sockets.target.wants/early.socket").symlink_to("../early.socket")
    # And the broker that attacks its own sandbox.
    if (build / "tests/sandbox/sockbrokerd-takeover").exists():
        shutil.copy(build / "tests/sandbox/sockbrokerd-takeover", folder / "usr/lib/sockbroker-tests")
    if TRIAL:
        shutil.copy(TRIAL, folder / "usr/lib/sockbroker/sockbrokerd")
        for unit in ("sockbrokerd.service", "sockbrokerd@.service"):
            # The unit's own filter would answer first. And the thread that is told takes its place among the tasks.
            (units / f"{unit}.d").mkdir()
            (units / f"{unit}.d/trial.conf").write_text("[Service]\nSystemCallFilter=\nTasksMax=257\n")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def booted(stage, tmp_path_factory):
    # SOCKBROKER_SYSTEM_ROOT: another Debian, see tests/debian.
    machine = Machine(stage, tmp_path_factory.mktemp("machine") / "console.log",
                      os.environ.get("SOCKBROKER_SYSTEM_ROOT", "/"))
    try:
        for prefix in PREFIXES:
            machine.run(f"ip route add local {prefix} dev lo")
        machine.run("journalctl --update-catalog")  # as install.md says, and a package's trigger does
        yield machine
        if TRIAL:
            told = set(machine.run("journalctl -q -b -o cat | grep '^sandbox trial: '",
                                   check=False).stdout.splitlines())
            assert {line.split()[2] for line in told} == {"getpriority"}, "\n".join(sorted(told))
    finally:
        machine.end()


@pytest.fixture(scope="session")
def message_ids():
    """MESSAGE_ID= of each action, from the one table of the source."""
    table = (SOURCE / "broker/audit/action.cc").read_text()
    return {name: f"MESSAGE_ID={number}" for name, number in re.findall(r'"([a-z-]+)", "([0-9a-f]{32})"', table)}


class Hammer:
    """Clients that connect one after the other, four at a time, for as long as a test goes on."""

    def __init__(self, machine: Machine, address: str, port: int, protocol: str = "echo"):
        self._process = machine.start(f"{CLIENT} hammer {address} {port} {protocol}")
        assert self._process.stdout.readline() == "through\n", "the clients cannot connect at all"

    def counts(self) -> dict:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def wait_for_more(self, machine: Machine, connections: int = 200) -> None:
        """Until so many more have been made, whatever has just happened."""
        goal = self.counts()
        goal = goal["good"] + goal["failed"] + connections

        def reached() -> bool:
            now = self.counts()
            return now["good"] + now["failed"] >= goal
        machine.until(f"{connections} more connections", reached)

    def end(self) -> dict:
        self._process.stdin.close()
        counts = json.loads(self._process.stdout.readline())
        self._process.wait(30)
        return counts

    def abandon(self) -> None:
        """Killing would end nsenter and leave the client; the end of its input ends both."""
        if not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait(30)


class Broker:
    """The machine, and what tests do to the broker in it."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.units = []
        self.hammers = []

    def __getattr__(self, name):
        return getattr(self.machine, name)

    def policy(self, name: str, text: str | None) -> None:
        """Writes /etc/sockbroker/conf.d/NAME, or removes it; nothing is reloaded."""
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
        self.run("systemctl daemon-reload && systemctl reload sockbrokerd")

    def unit(self, name: str, text: str) -> None:
        self.write(f"/etc/systemd/system/{name}", text)
        self.units.append(name)
        self.run("systemctl daemon-reload")

    def drop_in(self, unit: str, text: str) -> None:
        """For the broker's own units; gone after the test."""
        self.write(f"/run/systemd/system/{unit}.d/test.conf", text)
        self.run("systemctl daemon-reload")

    def client(self, *words, check: bool = True):
        return self.run(f"{CLIENT} {' '.join(shlex.quote(str(word)) for word in words)}", check=check)

    def rows(self, verb: str) -> list[dict]:
        """JSON lines of the control protocol itself."""
        return [json.loads(line) for line in self.client("control", f"VERB={verb}").stdout.splitlines()
                if line.startswith("{")]

    def status(self) -> dict:
        return self.rows("status")[0]

    def registered(self, service: str) -> list[dict]:
        return [row for row in self.rows("list") if row["service"] == service]

    def until_registered(self, service: str, sockets: int) -> list[dict]:
        return self.until(f"{sockets} sockets of {service}",
                          lambda: (rows := self.registered(service)) and len(rows) == sockets and rows)

    def pid(self) -> int:
        return int(self.show("sockbrokerd", "MainPID"))

    def hammer(self, address: str, port: int, protocol: str = "echo") -> Hammer:
        self.hammers.append(Hammer(self.machine, address, port, protocol))
        return self.hammers[-1]


@pytest.fixture
def broker(booted):
    given = Broker(booted)
    yield given
    # Clean again, whatever the test has left: the broker up, without policy, nothing registered, no unit.
    for hammer in given.hammers:
        hammer.abandon()
    for unit in reversed(given.units):
        given.run(f"systemctl stop {unit}; systemctl reset-failed {unit}", check=False)
        given.run(f"rm -rf /etc/systemd/system/{unit} /etc/systemd/system/{unit}.d")
    given.run("rm -rf /etc/sockbroker /run/systemd/system/sockbrokerd*.d; systemctl daemon-reload")
    given.run("systemctl unmask --runtime sockbrokerd.socket sockbrokerd.service", check=False)
    given.run("systemctl stop sockbrokerd.socket sockbrokerd.service; sockbrokerctl unload", check=False)
    given.run("systemctl reset-failed; systemctl start sockbrokerd.socket sockbrokerd.service")
    given.run("systemctl reload sockbrokerd")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure is read in the machine's journal."""
    outcome = yield
    report = outcome.get_result()
    machine = item.funcargs.get("booted") or item.funcargs.get("kitchen") or getattr(item.funcargs.get("broker"),
                                                                                     "machine", None)
    if report.failed and machine and machine.leader:
        shown = machine.run("journalctl -q -b -n 60 --no-pager -o short-precise", check=False, timeout=60)
        report.sections.append(("journal of the machine", shown.stdout))
