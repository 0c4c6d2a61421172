# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nobody, neither one uid nor a group of uids or units, stops `notify` or `control` for the others by things that make
whoever touches them sleep: however many he sends, they cost few processes, and an honest peer is answered meanwhile."""

import contextlib
import os
import pathlib
import signal
import time

import pytest

from harness import hanging_crowd, long, silent_file, units, wire
from harness.namespace import own_uid
from harness.pace import Pace
from harness.until import until
from words import add_routes, everywhere, handed_over, section, who

# What an honest peer waits at most, in seconds. Nearly all of it at the beginning: nobody is turned away before hands
# were left behind for him, each after 0.2 s.
PATIENCE = 2.5
# Processes at most (ledger.h): 8 of strangers, 8 of a unit that policy admits, and 4 of each kind that were at work.
LEFT_BEHIND = 24
LOOKS = 5


@pytest.fixture(autouse=True)
def _device():
    silent_file.make_device()


@pytest.fixture(name="cgroups")
def _cgroups():
    made = units.Slice()
    yield made
    made.end()


def processes_of(broker):
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "exe") == str(broker.program) and \
                    os.readlink(entry / "ns/net") == os.readlink("/proc/self/ns/net"):
                found[int(entry.name)] = (entry / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    return found


def sleeping(broker):
    """Those that nothing wakes. Whoever waits for a lock of the kernel on a busy machine is found so once."""
    found = None
    for _ in range(LOOKS):
        stuck = {pid for pid, state in processes_of(broker).items() if state == "D"}
        found = stuck if found is None else found & stuck
        if not found:
            break
        time.sleep(0.05)
    return found


def honest_requests(broker, web, attack):
    """By both sockets, until the attack has sent all, and some more: the slowest of each kind, in seconds."""
    slowest = {}
    left = 5
    while left > 0:
        left -= attack.sent() is not None
        for name, act in {"version": lambda: wire.control(broker.control_path, "VERB=version"),
                          "control": lambda: web.register("tcp-ipv4"),
                          "notify": lambda: web.notify_and_wait("FDSTORE=1\nFDNAME=web", "tcp-ipv4")}.items():
            began = time.monotonic()
            reply = act()
            assert reply is None or reply.result == "ok", reply
            slowest[name] = max(slowest.get(name, 0), time.monotonic() - began)
    return slowest


# way, messages, uids, cgroups
ATTACKS = {
    "one uid by notify": ("notify", 150, 1, 0),
    "one uid that policy admits, by notify": ("admitted-notify", 150, 1, 0),
    "one uid by notify, with as many files as go into a message": ("file-notify", 60, 1, 0),
    "one uid by control": ("control", 80, 1, 0),
    "one uid by control, with thousands of connections": ("kept", 20, 1, 0),
    "60 uids of one unit by notify": ("notify", 180, 60, 1),
    "60 uids of one unit by control": ("control", 180, 60, 1),
    "60 uids of ten units by notify": ("notify", 180, 60, 10),
    "60 uids of ten units by control": ("control", 180, 60, 10),
}


# A uid that nobody knows and one that policy admits, one unit and many, and both sockets.
@pytest.mark.parametrize("attack", long.some(ATTACKS, "one uid that policy admits, by notify", "one uid by control",
                                             "60 uids of one unit by control", "60 uids of ten units by notify"))
def test_honest_peers_are_answered_beside(broker, spawn, cgroups, attack):
    way, count, uids, units_of_it = ATTACKS[attack]
    add_routes()
    broker.before = ["prlimit", "--nofile=4096:4096"]
    broker.policy(section("web", 61001, everywhere()) + section("evil", own_uid(7), everywhere(81))).start()
    web = spawn("web")
    handed_over(web, "tcp", "ipv4")
    where = [cgroups.unit(f"evil{i}.service") for i in range(units_of_it)]
    pace = Pace()
    with hanging_crowd.Crowd(way, count, own_uid(7), uids, where) as crowd:
        slowest = honest_requests(broker, web, crowd)
        stuck = len(sleeping(broker))
        print(f"{attack}: {crowd.sent()} of {count} came off, {stuck} processes hang, the slowest honest requests in "
              "ms:",
              {name: round(value * 1e3, 1) for name, value in slowest.items()})
        assert crowd.sent() >= 4  # once barred, a user's connections to control are turned away
        assert max(slowest.values()) < pace.allows(PATIENCE)
        assert 0 < stuck <= LEFT_BEHIND
        assert who("tcp", "ipv4") == "web"

        # Its successor is there at once, and is attacked no more than by what is in the queues.
        broker.process.send_signal(signal.SIGKILL)
        broker.process.wait(15)
        began = time.monotonic()
        broker.start()
        assert web.register("tcp-ipv4").result == "ok"
        web.notify_and_wait("FDSTORE=1\nFDNAME=web", "tcp-ipv4")
        assert time.monotonic() - began < 10
        crowd.kill()
    until("nothing hangs any more", lambda: not sleeping(broker))
    broker.stop()
    until("nothing is left", lambda: not processes_of(broker))
