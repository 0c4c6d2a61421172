# SPDX-License-Identifier: LGPL-2.1-or-later
"""The system bus lets every user send signals to any connection, with descriptors in them and in the words of PID 1 and
of the bus. None of it comes to the broker or is believed, which asks PID 1 there what units do."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

from harness import kernel, silent_file
from harness.bus import NEW_MANAGER, Bus, Manager, changed
from harness.until import until
from words import everywhere, listen, section

ADDRESS = "unix:path=/run/bus"
ATTACKER = 5  # games: the bus knows nobody without an account
# The rules of /usr/share/dbus-1/system.conf, and of org.freedesktop.systemd1.conf.
CONFIG = """<busconfig><type>system</type><listen>unix:path=/run/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/>
<allow receive_type="signal"/><allow send_destination="org.freedesktop.DBus"/>
<allow send_destination="org.freedesktop.systemd1"/></policy>
<policy user="root"><allow own="org.freedesktop.systemd1"/></policy></busconfig>"""


@pytest.fixture(name="bus")
def _bus(broker):
    config = pathlib.Path("/run/bus.conf")
    config.write_text(CONFIG)
    with subprocess.Popen(["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"]) as daemon:
        until("the bus", lambda: pathlib.Path("/run/bus").exists())
        broker.environment["DBUS_SYSTEM_BUS_ADDRESS"] = ADDRESS
        yield daemon
        daemon.kill()


def stuck_pipe():
    """The read end of a pipe whose mutex is kept by a process that sleeps: the last close of it waits."""
    read, write = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.close(read)
        silent_file.enter_namespaces()
        os.write(write, memoryview(silent_file.SilentFile().memory()))
        os._exit(0)
    os.close(write)
    until("the writer to sleep", lambda: "fuse" in pathlib.Path(f"/proc/{writer}/wchan").read_text()
          or "request_wait" in pathlib.Path(f"/proc/{writer}/wchan").read_text())
    return read


def attack(sent):
    kernel.drop_privileges(ATTACKER, ATTACKER)
    os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = ADDRESS
    pipe = stuck_pipe()
    bus = Bus()
    for name in bus.others():
        bus.send_descriptor(name, pipe)
    os.write(sent, str(pipe).encode())
    os.close(pipe)  # where the bus has passed it on, not the last one
    signal.pause()


def test_no_descriptor_comes_by_the_bus(broker, bus):  # pylint: disable=unused-argument
    silent_file.make_device()
    broker.policy(section("web", 61001, everywhere(), "Announce=any")).start()
    until("the broker on the bus", lambda: " sockbrokerd " in subprocess.run(
        ["busctl", f"--address={ADDRESS}", "list"], capture_output=True, text=True, check=True).stdout)
    read, write = os.pipe()
    broker.process.send_signal(signal.SIGSTOP)  # so that it comes after the attacker has closed his own
    attacker = os.fork()
    if attacker == 0:
        try:
            os.setpgid(0, 0)
            kernel.die_with_parent(signal.SIGKILL)
            attack(write)
        finally:
            os._exit(1)
    os.close(write)
    try:
        pipe = os.read(read, 10).decode()
        assert pipe
        until("it to be closed", lambda: not os.path.lexists(f"/proc/{attacker}/fd/{pipe}"))
        broker.process.send_signal(signal.SIGCONT)
        for _ in range(20):
            began = time.monotonic()
            assert broker.ask("VERB=version").result == "ok"
            assert time.monotonic() - began < 8
            time.sleep(0.02)  # the bus passes it on when it likes
    finally:
        os.killpg(attacker, signal.SIGKILL)
        os.waitpid(attacker, 0)
        os.close(read)


@pytest.fixture(name="manager")
def _manager(bus, monkeypatch):  # pylint: disable=unused-argument
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", ADDRESS)
    with Manager() as manager:
        yield manager


def forge(signals):
    """An ordinary user sends them to everybody on the bus."""
    attacker = os.fork()
    if attacker == 0:
        try:
            kernel.drop_privileges(ATTACKER, ATTACKER)
            bus = Bus()
            for name in bus.others():
                for signal_ in signals:
                    bus.send(name, signal_)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(attacker, 0)[1] == 0


def test_words_of_the_manager_and_of_the_bus_count_from_these_alone(broker, manager, serve):
    """Each NameOwnerChanged that is believed is a call to PID 1, and the bus has room for 128 that wait for an answer:
    after that nobody is told what units do."""
    broker.policy("[Service dns]\nUnit=dns.service\nAnnounce=any\n" + listen("udp", "192.0.2.0/24", 53)).start()
    dns = serve("dns.service")
    dns.open("a", "127.0.0.7", 5300)
    assert dns.register("dns", "a").result == "ok"
    until("the broker to ask", lambda: manager.calls["GetAll"] > 0 and manager.calls["Subscribe"] > 0)
    manager.tell(changed("other.service"))
    time.sleep(0.1)
    before = manager.calls.copy()
    forge([NEW_MANAGER, changed("dns.service")] * 50)
    manager.tell(changed("dns.service"))  # the bus has it after the others, and so has the broker
    until("the broker to ask again", lambda: manager.calls["GetAll"] > before["GetAll"])
    time.sleep(0.2)
    assert manager.calls["GetAll"] == before["GetAll"] + 1
    assert manager.calls["Subscribe"] == before["Subscribe"]
    manager.begin_anew()
    until("the broker to subscribe again", lambda: manager.calls["Subscribe"] == 2 * before["Subscribe"])
