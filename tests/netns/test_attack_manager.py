# SPDX-License-Identifier: LGPL-2.1-or-later
"""A PID 1 that reads nothing, as any local user may bring about: its queue takes everybody's messages. Nobody who asks
the broker waits for that."""

import contextlib
import os
import socket

import pytest

from words import everywhere, section

MANAGER = "/run/manager"
WATCHDOG_USEC = 300_000


@pytest.fixture(name="manager")
def _manager(broker):
    """What $NOTIFY_SOCKET names, and a full queue of it, as any user can fill it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(MANAGER)
        os.chmod(MANAGER, 0o777)
        manager.settimeout(20)
        broker.before = ["env", f"NOTIFY_SOCKET={MANAGER}", f"WATCHDOG_USEC={WATCHDOG_USEC}"]
        broker.policy(section("web", 61001, everywhere())).start(until_ready=False)
        next_with(manager, "READY=1")
        yield manager


def next_with(manager, word):
    """The next message that says this; others are left out."""
    while True:
        lines = manager.recv(4096).decode().splitlines()
        if word in lines:
            return lines


def fill(manager):
    """Its queue is full when this returns, whatever the broker says meanwhile."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
        flood.setblocking(False)
        flood.connect(MANAGER)
        with contextlib.suppress(BlockingIOError):
            while True:
                flood.send(b"X=flood")
    assert manager.recv(4096, socket.MSG_PEEK)


def test_nobody_waits_for_a_manager_that_reads_nothing(broker, manager):
    fill(manager)
    for number in range(3):
        broker.policy(section("web", 61001, everywhere()) + f"# {number}\n")
        assert broker.reload()[0] == 0
    assert broker.ask("VERB=version").result == "ok"
    broker.process.send_signal(1)  # SIGHUP, which is answered in words to the manager
    broker.wait_log("(reload: (.*\n)+){4}")
    assert broker.ask("VERB=version").result == "ok"
    # What was to be said is said when it reads again, in order.
    next_with(manager, "RELOADING=1")
    next_with(manager, "READY=1")
    next_with(manager, "WATCHDOG=1")


def test_the_manager_hears_that_the_broker_lives_and_how_it_ends(broker, manager):
    for _ in range(3):
        next_with(manager, "WATCHDOG=1")
    broker.process.terminate()
    next_with(manager, "STOPPING=1")
    assert broker.process.wait(20) == 0
