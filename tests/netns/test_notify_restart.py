# SPDX-License-Identifier: LGPL-2.1-or-later
"""A restart of the broker beside messages on `notify`: what was taken off the queue is decided first, or the journal
says that it is not. What was not waits for the next broker."""

import signal
import socket

import pytest

from harness import kernel, wire, worker
from harness.directory import Directory, let_answers_grow_old
from harness.until import until
from words import LOOPBACK, add_routes, listen, section

UID = 61001
COUNT = 20


class Sender(worker.Child):
    """Sends a socket of its own with each message."""

    def __init__(self, path):
        super().__init__()
        kernel.drop_privileges(UID, UID)
        self.path = path
        self.sockets = []

    def send(self, count):
        for _ in range(count):
            self.sockets.append(socket.create_server((LOOPBACK["ipv4"], 0)))
            wire.notify(self.path, "FDSTORE=1\nFDNAME=web", [self.sockets[-1].fileno()])

    def barrier(self):
        wire.barrier(self.path)


@pytest.fixture(name="broker")
def _broker(broker_with_sockets):
    add_routes()
    (broker_with_sockets.config / "sockbrokerd.conf").write_text(
        "[Broker]\nRateLimitBurst=0\nNotifyRateLimitBurst=0\n")
    return broker_with_sockets


@pytest.fixture(name="sender")
def _sender(broker):
    one = worker.Worker(Sender, broker.notify_path)
    yield one
    one.kill()


def is_pending(pid, number):
    """Not taken yet, of a signal to the process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        [pending] = [line.split()[1] for line in status if line.startswith("ShdPnd")]
    return int(pending, 16) >> (number - 1) & 1 != 0


def policy_of(user):
    return section("web", user, listen("tcp", "192.0.2.0/24"), "Handover=share")


@pytest.fixture(name="directory")
def _directory(broker):
    """Does not know the name of the policy when it is asked at the start, but later, and answers then as it is told."""
    directory = Directory(broker)
    broker.policy(policy_of("web")).start()
    broker.wait_log("web does not exist on this host")
    let_answers_grow_old()
    directory.add("web", UID)
    return directory


def test_what_waits_for_a_name_that_is_answered_soon_is_registered_first(broker, directory, sender):
    directory.says("slow 300")
    sender.send(COUNT)
    sender.barrier()
    broker.stop()
    broker.start()
    assert len(broker.list()) == COUNT


def test_of_what_is_not_decided_when_it_must_end_at_once_the_journal_says_so(broker, sender):
    directory = Directory(broker)
    directory.says("hang")
    broker.policy(policy_of("web")).start()
    sender.send(COUNT)
    sender.barrier()
    broker.process.send_signal(signal.SIGTERM)
    until("the first one to be heard", lambda: not is_pending(broker.process.pid, signal.SIGTERM))
    broker.process.send_signal(signal.SIGTERM)  # with the second one it ends at once
    assert broker.process.wait(25) == 0
    assert broker.log().count("the broker ends, and has not decided yet") == COUNT
    directory.says("ok")


def test_messages_without_a_pause_lose_none_over_restarts(broker, sender):
    broker.policy(policy_of(UID)).start()
    for _ in range(3):
        sender.send(50)
        broker.stop()
        broker.start()
    sender.barrier()
    until("all are registered", lambda: len(broker.list()) == 150)
