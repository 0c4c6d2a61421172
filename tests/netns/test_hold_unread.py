# SPDX-License-Identifier: LGPL-2.1-or-later
"""HoldSec= where the owner of a socket lives and does not read: the queue tells, and nothing else does."""

import signal
import socket
import time

import pytest

from harness import client
from harness.until import until
from holding import end, knock, refused_soon, states
from words import ADDRESS, LOOPBACK, PORT, add_routes, each_protocol, everywhere, handed_over, refused, section, who


@pytest.fixture(name="broker")
def _broker(broker):
    add_routes()
    yield broker


def wait_in_queue(protocol):
    """A client whose connection or datagram nobody has read; it hears of a refusal."""
    if protocol == "tcp":
        return knock(ADDRESS["ipv4"])[0]
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.settimeout(client.TIMEOUT)
    asking.bind((LOOPBACK["ipv4"], 0))
    asking.connect((ADDRESS["ipv4"], PORT))
    asking.send(b"x")
    return asking


@each_protocol
def test_clients_of_a_listener_that_its_owner_closed_hang_no_longer_than_holdsec(broker, spawn, protocol):
    """The owner lives, so nobody hears of it; the broker has the last descriptor."""
    broker.policy(section("web", 61001, everywhere(), "HoldSec=1")).start()
    one = spawn("web")
    handed_over(one, protocol, "ipv4")
    one.close(f"{protocol}-ipv4")
    began = time.monotonic()
    with wait_in_queue(protocol) as waiting:
        broker.wait_log("expire: what came on the .* of web has waited 1 s and nobody reads it")
        assert 0.9 < time.monotonic() - began < 8
        if protocol == "tcp":
            with pytest.raises(ConnectionResetError):
                waiting.recv(1)
    until("to be found gone", lambda: states(broker) == [])
    with refused():
        who(protocol, "ipv4")
    # The service is as good as any first one.
    handed_over(one, protocol, "ipv4")
    assert who(protocol, "ipv4") == "web"


@each_protocol
def test_an_unread_socket_that_somebody_has_still_loses_its_hold_and_nothing_else(broker, spawn, protocol):
    broker.policy(section("web", 61001, everywhere(), "HoldSec=1")).start()
    one = spawn("web")
    cookie = handed_over(one, protocol, "ipv4")
    one.pause(f"{protocol}-ipv4")
    with wait_in_queue(protocol) as waiting:
        broker.wait_log("expire: .*who has it still goes on")
        assert [(row["cookie"], row["state"]) for row in broker.list()] == [(f"{cookie}", "live")]
        one.resume(f"{protocol}-ipv4")
        assert waiting.recv(4096).startswith(b"web ")
    assert who(protocol, "ipv4") == "web"
    one.kill()
    refused_soon(protocol)


def test_a_queue_that_is_never_empty_but_read_keeps_its_hold(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), "HoldSec=2")).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    one.pause("tcp-ipv4")
    waiting = [knock(ADDRESS["ipv4"]) for _ in range(60)]
    with one.borrowed("tcp-ipv4") as listener:
        for _ in range(50):  # two and a half times HoldSec=
            listener.accept()[0].close()
            time.sleep(0.1)
    one.kill()
    broker.wait_log("waits 2.000 s|waits 2 s")
    assert "nobody reads it" not in broker.log() and states(broker) == ["held"]
    for sock, _ in waiting:
        sock.close()


def test_a_broker_that_was_stopped_for_long_does_not_take_it_for_nobody_reading(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), "HoldSec=2")).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    broker.process.send_signal(signal.SIGSTOP)
    with wait_in_queue("tcp") as waiting:
        assert waiting.recv(4096).startswith(b"web ")
        one.pause("tcp-ipv4")
        with wait_in_queue("tcp"):
            time.sleep(2.5)  # longer than HoldSec=
            broker.process.send_signal(signal.SIGCONT)
            broker.status()
            one.resume("tcp-ipv4")
    assert who("tcp", "ipv4") == "web"
    end(one, broker)
    assert "nobody reads it" not in broker.log()
