# SPDX-License-Identifier: LGPL-2.1-or-later
"""Under the units as they are installed: a user's descriptor keeps a process of the broker waiting beyond SIGKILL, and
a restart gives a broker that works, within seconds and while the attack goes on."""

import pathlib
import time

import pytest

from harness import long

HARNESS = pathlib.Path(__file__).resolve().parents[1] / "harness"
ATTACK = "/opt/hanging/harness/hanging.py"
UID = 61500
EVIL = f"[Service evil]\nUser={UID}\nListenStream=203.0.113.0/24:81\nListenDatagram=203.0.113.0/24:81\n"


@pytest.fixture(name="echo")
def _echo(broker):
    broker.policy("60-evil.conf", EVIL)
    broker.example("echo", "echo.service")
    broker.run("systemctl start echo.service")
    broker.until_registered("echo", 2)
    for name in ("__init__", "kernel", "silent_file", "hanging", "crowd_of_uids"):
        broker.write(f"/opt/hanging/harness/{name}.py", (HARNESS / f"{name}.py").read_text())
    broker.run("test -e /dev/fuse || mknod -m 666 /dev/fuse c 10 229; mkdir -p -m 777 /run/silent; chmod 777 "
               "/run/silent")
    yield broker
    broker.run("systemctl stop 'hanging-*'; rm -rf /opt/hanging", check=False)


def sleeping(broker):
    """Processes of the broker that nothing wakes."""
    return [line for line in broker.out("ps -e -o pid=,stat=,comm=").splitlines()
            if line.split()[1].startswith("D") and line.split()[2].startswith("sb-")]


def until_it_serves(echo, pid):
    """The whole of a restart: a broker that was not there, and serves."""
    began = time.monotonic()
    echo.run("systemctl restart sockbrokerd")
    assert echo.client("tcp", "198.51.100.3", 4321, "hi").stdout == "hi"
    assert echo.run("sockbrokerctl status", check=False).returncode == 0
    assert time.monotonic() - began < 5
    assert echo.pid() not in (0, pid)


@pytest.mark.parametrize("kind", long.some(["pipe", "locked", "lingering"], "locked", "lingering"))
def test_a_service_with_holdsec_hangs_neither_the_broker_nor_its_successor_nor_pid_1(echo, kind):
    """What it registered is with a holder and with PID 1; then it keeps its lock, or makes it a connection whose last
    close waits."""
    echo.policy("60-evil.conf", EVIL + "HoldSec=60\n")
    echo.run("systemctl reload sockbrokerd")
    way = "admitted" if kind == "pipe" else "registered"
    echo.run(f"systemd-run -q --collect --unit=hanging-{kind} /bin/sh -c "
             f"'sleep 600 | exec /usr/bin/python3 {ATTACK} {kind} {way} {UID} >/run/hanging-{kind}'")
    echo.until("the attack", lambda: "ready" in echo.run(f"cat /run/hanging-{kind}", check=False).stdout)
    if kind == "locked":
        assert [one["protocol"] for one in echo.registered("evil")] == ["udp"]
        echo.until("PID 1 to have it", lambda: echo.show("sockbrokerd", "NFileDescriptorStore") == "1")
    elif kind == "lingering":
        echo.until("it to be found gone", lambda: not echo.registered("evil"))
        echo.until("PID 1 to have none", lambda: echo.show("sockbrokerd", "NFileDescriptorStore") == "0")
    else:
        echo.until("a process of the broker that hangs", lambda: sleeping(echo))
    until_it_serves(echo, echo.pid())
    echo.run("systemctl restart echo.service")
    echo.until_registered("echo", 2)
    if kind == "locked":
        assert [one["state"] for one in echo.registered("evil")] == ["live"]
        echo.run("sockbrokerctl unregister evil")
        echo.until("PID 1 to have none", lambda: echo.show("sockbrokerd", "NFileDescriptorStore") == "0")
        until_it_serves(echo, echo.pid())
    echo.run(f"systemctl stop hanging-{kind}")
    echo.until("nothing of it is left", lambda: not sleeping(echo))


@pytest.mark.parametrize("kind", long.some(["pipe", "udp", "file"], "pipe"))
def test_a_restart_beside_a_descriptor_that_hangs_gives_a_broker_that_works(echo, kind):
    echo.run(f"systemd-run -q --collect --unit=hanging-{kind} /bin/sh -c "
             f"'sleep 600 | exec /usr/bin/python3 {ATTACK} {kind} admitted {UID} >/run/hanging-{kind}'")
    echo.until("the attack", lambda: "ready" in echo.run(f"cat /run/hanging-{kind}", check=False).stdout)
    echo.until("a process of the broker that hangs", lambda: sleeping(echo))
    until_it_serves(echo, echo.pid())
    assert sleeping(echo), "the attack goes on"
    echo.run("systemctl restart echo.service")
    echo.until_registered("echo", 2)
    echo.run(f"systemctl stop hanging-{kind}")
    echo.until("nothing of it is left", lambda: not sleeping(echo))


def test_however_many_uids_a_unit_uses_it_has_one_share_of_what_waits(echo):
    """The broker is in a container here, and what counts is the unit within."""
    echo.run("systemd-run -q --collect --unit=hanging-crowd /bin/sh -c 'sleep 600 | exec /usr/bin/python3 "
             "/opt/hanging/harness/crowd_of_uids.py $(id -u sockbroker) 300000 20 6 >/run/hanging-crowd'")
    echo.until("the attack", lambda: "done" in echo.run("cat /run/hanging-crowd", check=False).stdout)
    echo.until("it to be told", lambda: "messages of hanging-crowd.service to notify are dropped" in echo.out(
        "journalctl -b -u sockbrokerd"))
    echo.run("systemctl restart echo.service")
    echo.until_registered("echo", 2)
    echo.run("systemctl stop hanging-crowd")
    echo.until("nothing of it is left", lambda: not sleeping(echo))
    echo.until("it to be heard", lambda: "hanging-crowd.service is heard on notify again" in echo.out(
        "journalctl -b -u sockbrokerd"))
