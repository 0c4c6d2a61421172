# SPDX-License-Identifier: LGPL-2.1-or-later
"""What waits sleeps: with nothing to do no process of the project takes any processor time worth the name."""

import os
import pathlib
import socket
import time

import pytest

from harness import broker as broker_module
from harness import long, routes, sandbox, wire
from harness.until import until
from words import PREFIXES, add_routes, everywhere, listen, section

SECONDS = 1.5
SHARE = 0.02  # of one processor. What turns round without end has a tenth of one even beside twenty others.


def processes():
    """Pids and names of all that run a program of this build in this network namespace."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and pathlib.Path(os.readlink(entry / "exe")).parent == broker_module.BUILD and \
                    os.readlink(entry / "ns/net") == os.readlink("/proc/self/ns/net"):
                found[int(entry.name)] = (entry / "comm").read_text(encoding="ascii").strip()
        except OSError:
            continue  # a process of others, that has ended
    return found


def used(pid):
    """Processor time of all its threads so far, in seconds."""
    return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0])
               for task in pathlib.Path(f"/proc/{pid}/task").iterdir()) / 1e9


ATTEMPTS = 3  # on a slow machine what has just been asked of them is not over when the first begins


def assert_asleep():
    until("all processes", lambda: {"sockbrokerd", "sb-door", "sb-intake", "sb-holder", "sockbroker-rout"} <= set(
        processes().values()))
    for _ in range(ATTEMPTS):
        names = processes()
        before = {pid: used(pid) for pid in names}
        time.sleep(SECONDS)
        busy = {f"{names[pid]} {pid}": used(pid) - before[pid] for pid in names}
        if max(busy.values()) <= SECONDS * SHARE:
            return
    raise AssertionError(busy)


@pytest.mark.parametrize("sockets", long.some(["of its own", "of PID 1", "of PID 1, also for labels"],
                                              "of its own", "of PID 1, also for labels"))
def test_whoever_waits_uses_no_processor(sockets):
    add_routes()
    broker = broker_module.Broker(activated=sockets != "of its own")
    if "labels" in sockets:
        broker.activated.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        broker.activated[-1].bind("/run/sockbroker/labels")
        broker.activated[-1].listen(64)
        broker.environment["LISTEN_FDNAMES"] = "sockbrokerd.socket:sockbrokerd.socket:tubular"
    maker = routes.RouteMaker(broker)
    try:
        broker.policy(section("held", 0, everywhere(7000), "HoldSec=60", "LocalRoutes=yes")
                      + section("web", 61001, *(listen("tcp", prefix, 80) for prefix in PREFIXES.values())))
        maker.start()
        broker.start()
        sandbox.install()
        with socket.create_server(("127.0.0.1", 0)) as listener, \
                sandbox.Sandboxed("--supervise", "/usr/bin/python3", "-c",
                                  "import socket, time; s = socket.create_server(('0.0.0.0', 80));"
                                  "print('serving', flush=True); time.sleep(60)", ambient="") as server:
            server.lines_until("serving")
            reply = wire.control(broker.control_path, "FDSTORE=1\nFDNAME=held", [listener.fileno()])
            assert reply.result == "ok", reply
            assert_asleep()
            with wire.Control(broker.control_path):  # which sends nothing
                assert_asleep()
    finally:
        maker.discard()
        broker.discard()
