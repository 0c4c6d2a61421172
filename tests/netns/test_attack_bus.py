# SPDX-License-Identifier: LGPL-2.1-or-later
"""The system bus lets every user send signals to any connection, with descriptors in them: none comes to the broker,
which asks PID 1 there what units do."""

import ctypes
import os
import pathlib
import signal
import subprocess
import time

import pytest

from harness import kernel, silent_file
from harness.until import until
from words import everywhere, section

ADDRESS = "unix:path=/run/bus"
ATTACKER = 5  # games: the bus knows nobody without an account
# The rules of /usr/share/dbus-1/system.conf.
CONFIG = """<busconfig><type>system</type><listen>unix:path=/run/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/>
<allow receive_type="signal"/><allow send_destination="org.freedesktop.DBus"/></policy></busconfig>"""


class Bus:
    """A connection of sd-bus(3)."""

    def __init__(self):
        self._lib = ctypes.CDLL("libsystemd.so.0")
        self._bus = ctypes.c_void_p()
        self._do("sd_bus_open_system", ctypes.byref(self._bus))

    def _do(self, call, *arguments):
        result = getattr(self._lib, call)(*arguments)
        if result < 0:
            raise OSError(-result, f"{call}: {os.strerror(-result)}")

    def others(self):
        """Unique names of all other connections."""
        own, names = ctypes.c_char_p(), ctypes.POINTER(ctypes.c_char_p)()
        self._do("sd_bus_get_unique_name", self._bus, ctypes.byref(own))
        self._do("sd_bus_list_names", self._bus, ctypes.byref(names), None)
        found = []
        while names[len(found)] is not None:
            found.append(names[len(found)])
        return [name for name in found if name.startswith(b":") and name != own.value]

    def signal(self, to, fd):
        message, descriptor = ctypes.c_void_p(), ctypes.c_int(fd)
        self._do("sd_bus_message_new_signal", self._bus, ctypes.byref(message), b"/x", b"x.y", b"Z")
        self._do("sd_bus_message_append_basic", message, ctypes.c_char(b"h"), ctypes.byref(descriptor))
        self._do("sd_bus_send_to", self._bus, message, to, None)
        self._lib.sd_bus_message_unref(message)
        self._do("sd_bus_flush", self._bus)


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
        bus.signal(name, pipe)
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
