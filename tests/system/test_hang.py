# SPDX-License-Identifier: LGPL-2.1-or-later
"""Under the units as they are installed: a user's descriptor keeps a process of the broker waiting beyond SIGKILL, and a restart
gives a broker that works, within seconds and while the attack goes on."""

import pathlib
import time

import pytest

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
    for name in ("__init__", "kernel", "silent_file", "hanging"):
        broker.write(f"/opt/hanging/harness/{name}.py", (HARNESS / f"{name}.py").read_text())
    broker.run("test -e /dev/fuse || mknod -m 666 /dev/fuse c 10 229; mkdir -p -m 777 /run/silent; chmod 777 /run/silent")
    yield broker
    broker.run("systemctl stop 'hanging-*'; rm -rf /opt/hanging", check=False)


def sleeping(broker):
    """Processes of the broker that nothing wakes."""
    return [line for line in broker.out("ps -e -o pid=,stat=,comm=").splitlines()
            if line.split()[1].startswith("D") and line.split()[2].startswith("sb-")]


@pytest.mark.parametrize("kind", ["pipe", "udp", "file"])
def test_a_restart_beside_a_descriptor_that_hangs_gives_a_broker_that_works(echo, kind):
    echo.run(f"systemd-run -q --collect --unit=hanging-{kind} /bin/sh -c "
             f"'sleep 600 | exec /usr/bin/python3 {ATTACK} {kind} admitted {UID} >/run/hanging-{kind}'")
    echo.until("the attack", lambda: "ready" in echo.run(f"cat /run/hanging-{kind}", check=False).stdout)
    echo.until("a process of the broker that hangs", lambda: sleeping(echo))
    pid = echo.pid()
    began = time.monotonic()
    echo.run("systemctl restart sockbrokerd")
    assert echo.client("tcp", "198.51.100.3", 4321, "hi").stdout == "hi"
    assert echo.run("sockbrokerctl status", check=False).returncode == 0
    assert time.monotonic() - began < 5
    assert echo.pid() not in (0, pid)
    assert sleeping(echo), "the attack goes on"
    echo.run("systemctl restart echo.service")
    echo.until_registered("echo", 2)
    echo.run(f"systemctl stop hanging-{kind}")
    echo.until("nothing of it is left", lambda: not sleeping(echo))
