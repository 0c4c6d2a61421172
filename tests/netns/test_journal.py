# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one service does without end is in the journal for a while, and then counted."""

import contextlib
import os
import re
import socket

from harness import wire
from harness.until import until
from holding import HELD, states
from words import everywhere, section

BURST = 600  # entries of one service and kind in 30 s, where MaxSockets= is not more


def run_as(uid, act, *arguments):
    """In a child that ends with it; the log is none of its business."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            os.setresuid(uid, uid, uid)
            act(*arguments)
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def register(broker, count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    assert broker.ask("FDSTORE=1\nFDNAME=web", [one.fileno() for one in sockets]).result == "ok"


def retrieve(broker):
    answer, received = wire.retrieve(broker.control_path, "FDRETRIEVE=1\nFDNAME=web")
    assert answer.result == "ok" and len(received) == 1


def assert_bounded(broker, *kinds):
    for kind in kinds:
        broker.wait_log(f'web has {BURST} entries of kind "{kind}" in less than 30 s')
        assert len(re.findall(rf"^{kind}: ", broker.log(), re.M)) == BURST + 1


def test_a_service_whose_instances_come_and_go_without_end_does_not_fill_the_journal(broker):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    run_as(61001, register, broker, 1)
    for _ in range(BURST + 50):
        run_as(61001, retrieve, broker)
        broker.log()  # read, or what writes it stands still
    until("the last one to be gone", lambda: states(broker) == ["held"])
    assert_bounded(broker, "retrieve", "hold")


def test_a_service_whose_sockets_nobody_comes_for_does_not_fill_the_journal(broker):
    broker.policy(section("web", 61001, everywhere(), "HoldSec=100ms", "Handover=share")).start()
    for _ in range(3):
        run_as(61001, register, broker, 230)
        until("nothing to be held", lambda: not states(broker))
        broker.log()
    assert_bounded(broker, "register", "expire")


def test_who_asks_without_end_that_a_stop_counts_as_a_crash_does_not_fill_the_journal(broker):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    with socket.create_server(("127.0.0.1", 0)) as listener, wire.Control(broker.control_path) as connection:
        os.setresuid(61001, 61001, 0)
        try:
            assert connection.request("FDSTORE=1\nFDNAME=web", [listener.fileno()]).result == "ok"
            for _ in range(BURST + 50):
                assert connection.request("VERB=hold\nFDNAME=web\nTIMEOUT_USEC=1000000").result == "ok"
                broker.log()
        finally:
            os.setresuid(0, 0, 0)
    assert_bounded(broker, "keep")
