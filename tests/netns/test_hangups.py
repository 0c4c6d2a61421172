# SPDX-License-Identifier: LGPL-2.1-or-later
"""Peers that ask for something and leave before the answer: what they asked for is done, nothing of them stays, and
nobody else gets their answer, although the next connections have the same descriptor numbers."""

import contextlib
import os
import pathlib
import signal
import socket

import pytest

from harness import hanging_crowd, kernel, routes, silent_file, wire
from harness.namespace import own_uid
from harness.until import until
from words import add_routes, everywhere, handed_over, listen, section

BINDINGS = 2000  # of which a reload, and the answer to `bindings`, take a while

# What takes more than a turn of the broker's loop, or carries something, and what changes something.
REQUESTS = ["VERB=reload", "VERB=diff", "VERB=bindings", "VERB=status", "VERB=list", "VERB=monitor",
            "VERB=prepare\nFDNAME=web",
            "VERB=drain\nFDNAME=web", "VERB=undrain\nFDNAME=web", "VERB=hold\nFDNAME=web\nTIMEOUT_USEC=1000",
            "VERB=match\nPROTOCOL=tcp\nADDRESS=192.0.2.7\nPORT=7000", "FDRETRIEVE=1\nFDNAME=web",
            "FDSTORE=1\nFDNAME=web\nMIGRATE=1"]


# What others ask meanwhile.
ASKED = {"VERB=version": "ok", "VERB=unregister\nFDNAME=nothing": "unknown-service", "VERB=keep": "not-held",
         "NOTHING=1": "malformed"}


def leave_after(broker, text, fds=()):
    """A request whose peer is gone as soon as it is sent."""
    with wire.Control(broker.control_path) as connection:
        connection.send(text, fds)


def descriptors(broker):
    """How many all processes of the broker have open."""
    total = 0
    for pid in broker.processes():
        with contextlib.suppress(OSError):
            total += len(os.listdir(f"/proc/{pid}/fd"))
    return total


def write_policy(broker, round_=0):
    broker.policy(section("web", 0, everywhere(), "HoldSec=30") + section("many", 61007, *(
        listen("tcp", f"10.{i >> 8}.{i & 255}.0/24", 100 + round_) for i in range(BINDINGS))))


@pytest.fixture(name="busy")
def _busy(broker):
    """Warm: the processes and descriptors that the broker makes on demand are there."""
    add_routes()
    write_policy(broker)
    broker.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert broker.ask("FDSTORE=1\nFDNAME=web", [listener.fileno()]).result == "ok"
        yield broker, listener


def test_nobody_gets_the_answer_of_a_peer_that_has_left(busy):
    broker, listener = busy
    for i in range(5):
        for text in REQUESTS:
            write_policy(broker, i)
            leave_after(broker, text, [listener.fileno()] if text.startswith("FDSTORE") else ())
            with contextlib.ExitStack() as stack:
                others = [stack.enter_context(wire.Control(broker.control_path)) for _ in ASKED]
                for other, request in zip(others, ASKED):
                    other.send(request)
                replies = [other.receive() for other in others]
            assert [reply.result for reply in replies] == list(ASKED.values()), text
            assert [len(reply.lines) for reply in replies] == [1, 0, 0, 0] and "layout" in replies[0].lines[0], text


def test_nothing_of_a_peer_that_has_left_stays_open(busy):
    broker, listener = busy
    for text in REQUESTS:
        leave_after(broker, text, [listener.fileno()] if text.startswith("FDSTORE") else ())
    assert broker.ask("VERB=reload").result == "ok"
    before = descriptors(broker)
    for _ in range(20):
        for text in REQUESTS:
            leave_after(broker, text, [listener.fileno()] if text.startswith("FDSTORE") else ())
    assert broker.ask("VERB=reload").result == "ok"
    until("all is closed", lambda: descriptors(broker) <= before)


def test_a_reload_is_done_although_its_peer_has_left(busy):
    broker, _ = busy
    broker.policy(section("other", 61001, everywhere()))
    leave_after(broker, "VERB=reload")
    until("the policy is in force", lambda: {row["service"] for row in broker.ask("VERB=bindings").lines} == {"other"})


def test_the_broker_ends_after_an_unload_although_its_peer_has_left(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web"), "tcp", "ipv4")
    leave_after(broker, "VERB=unload")
    assert broker.process.wait(25) == 0
    assert "dispatch was taken away, the broker ends" in broker.log()
    assert not list(pathlib.Path(broker.bpffs).glob("**/link"))


def test_the_broker_ends_after_an_unload_that_waited_for_routes_although_its_peer_has_left(broker, spawn):
    maker = routes.RouteMaker(broker).start()
    try:
        broker.policy(section("web", 61001, everywhere(), "Announce=any")).start()
        handed_over(spawn("web"), "tcp", "ipv4")
        until("the prefixes are announced", routes.announced)
        maker.process.send_signal(signal.SIGSTOP)
        leave_after(broker, "VERB=unload")
        assert broker.ask("VERB=version").result == "ok"  # later than that: it waits now
        maker.process.send_signal(signal.SIGCONT)
        assert broker.process.wait(25) == 0
        assert not routes.announced()
    finally:
        maker.kill()


def insist(broker, uid, gate):
    """Of a child: registers on one connection until no hand is spent on this user any more; leaves when something can
    be read from the gate."""
    heard, told = os.pipe()
    if os.fork() == 0:
        kernel.drop_privileges(uid, uid)
        with wire.Control(broker.control_path) as connection, socket.create_server(("127.0.0.1", 0)) as listener:
            connection.request("VERB=version")
            os.write(told, b"connected\n")
            while "keep processes of the broker waiting" not in connection.request("FDSTORE=1\nFDNAME=web",
                                                                                   [listener.fileno()]).message:
                pass
            os.write(told, b"barred\n")
            os.read(gate, 1)
        os._exit(0)
    os.close(told)
    return os.fdopen(heard)


def refused_as_busy(broker):
    [counted] = [line["refusals"] for line in broker.ask("VERB=status").lines if "refusals" in line]
    return counted["busy"]


def test_what_nobody_took_is_not_read_again_when_its_sender_leaves(broker):
    """The message of a user who gets no hand stays in the queue of his connection."""
    silent_file.make_device()
    broker.policy(section("web", 61001, everywhere())).start()
    gate, leave = os.pipe()
    said = insist(broker, own_uid(7), gate)
    assert said.readline() == "connected\n"
    with hanging_crowd.Crowd("control", 6, own_uid(7)) as crowd:
        assert said.readline() == "barred\n"
        until("all is sent", lambda: crowd.sent() is not None)
        before = refused_as_busy(broker)
        os.close(gate)
        os.write(leave, b".")
        os.wait()
        assert broker.ask("VERB=version").result == "ok"
        assert refused_as_busy(broker) == before
