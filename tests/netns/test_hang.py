# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors that make whoever touches them sleep for as long as their sender likes, beyond SIGKILL. They cost the
broker a process that can be left behind, and nobody else an answer; a broker that is killed meanwhile has a successor
at once."""

import contextlib
import signal
import time

import pytest

from harness import hanging, silent_file, wire
from harness.namespace import own_uid
from harness.pace import Pace
from harness.until import until
from words import add_routes, everywhere, handed_over, open_socket, section, who

# What an honest peer waits at most beside an attack. Measured: a hundredth of that; a hang is for ever.
PATIENCE = 2


@pytest.fixture(autouse=True)
def _device():
    silent_file.make_device()


def slowest_pair(broker, web, count):
    """Of so many pairs of honest requests, one without a descriptor and one with, in seconds."""
    slowest = 0.0
    for _ in range(count):
        began = time.monotonic()
        assert wire.control(broker.control_path, "VERB=version").result == "ok"
        assert web.register("udp-ipv4").result == "ok"
        slowest = max(slowest, time.monotonic() - began)
    return slowest


@pytest.mark.parametrize("way", hanging.WAYS)
@pytest.mark.parametrize("kind", hanging.KINDS)
def test_an_honest_peer_is_answered_beside_a_descriptor_that_keeps_its_toucher_waiting(broker, spawn, kind, way):
    add_routes()
    broker.policy(section("web", 61001, everywhere()) + section("evil", own_uid(7), everywhere(81))).start()
    web = spawn("web")
    handed_over(web, "tcp", "ipv4")
    open_socket(web, "udp", "ipv4")
    pace = Pace()
    with hanging.Hanging(kind, way, own_uid(7)):
        slowest = slowest_pair(broker, web, 50)
        web.notify_and_wait("FDSTORE=1\nFDNAME=web", "udp-ipv4")
        print(f"{kind}, {way}: the slowest of 50 pairs of honest requests took {slowest * 1e3:.1f} ms")
        assert slowest < pace.allows(PATIENCE)
        assert who("tcp", "ipv4") == "web"


# Of a service with HoldSec=, whose sockets the broker keeps: what it sends, and what it makes of a socket that was
# registered.
HELD = [(kind, way) for kind in hanging.KINDS for way in ("admitted", "admitted-notify")] + [
    (kind, "registered") for kind in hanging.AFTERWARDS]


@pytest.mark.parametrize("kind,way", HELD)
def test_a_service_with_holdsec_keeps_waiting_who_holds_its_own_sockets_and_nobody_else(broker, spawn, kind, way):
    add_routes()
    broker.policy(section("web", 61001, everywhere(), "HoldSec=30")
                  + section("evil", own_uid(7), everywhere(81), "HoldSec=30")).start()
    web = spawn("web")
    handed_over(web, "tcp", "ipv4")
    open_socket(web, "udp", "ipv4")
    pace = Pace()
    with hanging.Hanging(kind, way, own_uid(7)):
        slowest = slowest_pair(broker, web, 20)
        # The broker gives up what it holds of the attacker.
        assert broker.ctl("unregister", "evil")[0] == (0 if way == "registered" and kind == "locked" else 1)
        web.notify_and_wait("FDSTORE=1\nFDNAME=web", "udp-ipv4")
        web.kill()
        broker.wait_log("hold: .*web is gone.*")
        again = spawn("web")
        assert again.retrieve().result == "ok"
        assert who("tcp", "ipv4") == "web"
        print(f"{kind}, {way}: the slowest of 20 pairs of honest requests took {slowest * 1e3:.1f} ms")
        assert slowest < pace.allows(PATIENCE)


def test_who_keeps_hands_waiting_does_not_keep_the_queue_of_all(broker, spawn):
    """No hand is given to who keeps two waiting, but for what is first in the queue of `notify`, where all others are
    behind it."""
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    open_socket(web, "tcp", "ipv4")
    pace = Pace()
    with contextlib.ExitStack() as attacks:
        for way in ("barrier", "registration", "notify", "notify"):
            attacks.enter_context(hanging.Hanging("pipe", way, own_uid(7)))
        began = time.monotonic()
        web.notify_and_wait("FDSTORE=1\nFDNAME=web", "tcp-ipv4")
        took = time.monotonic() - began
        assert took < pace.allows(PATIENCE)
        assert who("tcp", "ipv4") == "web"


@pytest.mark.parametrize("kind", hanging.KINDS)
def test_a_broker_killed_beside_such_a_descriptor_has_a_successor_and_nothing_is_left_afterwards(broker, spawn, kind):
    add_routes()
    broker.policy(section("web", 61001, everywhere()) + section("evil", own_uid(7), everywhere(81))).start()
    web = spawn("web")
    handed_over(web, "tcp", "ipv4")
    with hanging.Hanging(kind, "admitted", own_uid(7)):
        assert broker.ask("VERB=version").result == "ok"
        broker.process.send_signal(signal.SIGKILL)
        broker.process.wait(15)
        began = time.monotonic()
        broker.start()
        assert time.monotonic() - began < 10
        assert web.register("tcp-ipv4").result == "ok"
        assert who("tcp", "ipv4") == "web"
    broker.stop()
    until("no process to be left", lambda: not broker.processes())
